//! What a folder refuses, what it finds damaged, and what it keeps over restarts.

mod harness;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use harness::{Folder, GENERATION, filled, hash, put, read_applied, rows_of, spec, store, write};
use thalweg_core::{Epoch, Error, JobId, Lineage, PartitionCount, PartitionId, Result, WorkerIndex};
use thalweg_state::{Backend, BackendOptions, KeyRange, Scope, Store, StoreOptions, StoreSpec};

fn open(folder: &Folder, job: u128, partitions: u32, specs: Vec<StoreSpec>) -> Result<Backend> {
    let partitions = PartitionCount::new(partitions)?;
    Backend::open(folder.path(), JobId(job), partitions, specs, BackendOptions::default())
}

#[test]
fn a_folder_refuses_what_it_is_not_of() -> Result<()> {
    let folder = filled()?;
    let check = |job, partitions, spec, code| {
        let error = open(&folder, job, partitions, vec![spec]).err().unwrap_or_else(|| panic!("{code} was opened"));
        assert_eq!(error.code(), code, "{error}");
        error
    };
    check(6, 4, spec(false), "state-of-another-job");
    check(5, 8, spec(false), "state-partitions");
    check(5, 4, spec(true), "state-changelog");
    let error = check(5, 4, StoreSpec { value_shape: "f64".into(), ..spec(false) }, "state-shape");
    assert!(error.message().contains("String") && error.message().contains("f64"), "{error}");
    check(5, 4, StoreSpec { name: "default".into(), ..spec(false) }, "state-store-name");

    let meta = folder.path().join("state.meta");
    let good = fs::read(&meta).expect("there");
    let mut newer = good.clone();
    newer[8] = 9;
    fs::write(&meta, newer).expect("writes");
    check(5, 4, spec(false), "state-newer");
    fs::write(&meta, &good[..good.len() - 1]).expect("writes");
    check(5, 4, spec(false), "state-corrupt");
    fs::remove_file(&meta).expect("removes");
    check(5, 4, spec(false), "state-corrupt");
    Ok(())
}

fn sst_files(folder: &Folder) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.path().join("rocks")).expect("there");
    let mut files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sst"));
    files
}

fn read_everything(folder: &Folder) -> Result<()> {
    let backend = folder.open()?;
    for partition in folder.partitions.all() {
        backend.scrub("totals", partition, |_| Ok(()))?;
    }
    Ok(())
}

#[test]
fn damage_is_found_and_named() -> Result<()> {
    let check = |what: &str, damage: &dyn Fn(&PathBuf)| -> Result<()> {
        let folder = filled()?;
        read_everything(&folder)?;
        folder.close();
        let file = sst_files(&folder).pop().expect("rows");
        damage(&file);
        let error: Error = read_everything(&folder).expect_err(what);
        assert_eq!(error.code(), "state-corrupt", "{what}: {error}");
        let name = file.file_stem().expect("a name").to_str().expect("text");
        assert!(error.message().contains(name), "{what}: {error}");
        Ok(())
    };
    let flip = |file: &PathBuf, at: usize| {
        let mut bytes = fs::read(file).expect("there");
        bytes[at] ^= 0x40;
        fs::write(file, bytes).expect("writes");
    };
    check("a flipped byte in the rows", &|file| flip(file, 1000))?;
    check("a missing file", &|file| fs::remove_file(file).expect("removes"))?;
    check("a file cut short", &|file| {
        let bytes = fs::read(file).expect("there");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("writes");
    })
}

#[test]
fn a_view_stays_as_it_was() -> Result<()> {
    let folder = filled()?;
    let backend = folder.open()?;
    let before = backend.view();
    let mut store = store(backend.clone(), 1 << 20, false);
    put(&mut store, 0..100, "new", Epoch(2))?;
    let files = write(&backend, &mut store, Epoch(2))?;
    backend.apply(files)?;
    store.committed(Epoch(2));
    let after = backend.view();
    drop((store, backend));
    folder.close();
    let old = rows_of::<u64, String>(&before, folder.partitions)?;
    let new = rows_of::<u64, String>(&after, folder.partitions)?;
    assert!(old[&5] != "new" && new[&5] == "new" && old[&200] == new[&200]);
    let mut key = Vec::new();
    thalweg_core::encode_key(&5_u64, &mut key)?;
    let partition = hash(&5_u64).partition(folder.partitions);
    let text = |view: &thalweg_state::CommittedView| -> Result<String> {
        let found = view.get_many("totals", &[(partition, &key), (partition, b"nowhere")])?;
        assert_eq!(found[1], None);
        assert_eq!(found[0], view.get("totals", partition, &key)?);
        Ok(postcard::from_bytes(found[0].as_ref().expect("there")).expect("text"))
    };
    assert_eq!((text(&before)? == "new", text(&after)? == "new"), (false, true));
    assert_eq!(after.applied("totals", partition)?.expect("applied").epoch, Epoch(2));
    Ok(())
}

#[test]
fn rows_of_another_shape_are_migrated() -> Result<()> {
    let folder = filled()?;
    let lengths = || StoreSpec {
        value_shape: "u64".into(),
        migrate: Some(Box::new(|_, old, key, value| {
            assert_eq!(old, "String");
            let text: String = postcard::from_bytes(value).expect("text");
            Ok((key.to_vec(), postcard::to_stdvec(&(text.len() as u64)).expect("a number")))
        })),
        ..spec(false)
    };
    for _ in 0..2 {
        let mut backend = open(&folder, 5, 4, vec![lengths()])?;
        backend.recover_pending(&Lineage::default())?;
        let rows = rows_of::<u64, u64>(&backend.view(), folder.partitions)?;
        assert_eq!(rows.len(), 5000);
        assert!(rows.values().all(|length| *length == 34));
        for partition in folder.partitions.all() {
            let applied = backend.applied("totals", partition)?.expect("applied");
            assert_ne!(applied.digest, applied.recorded);
            assert_eq!(backend.scrub("totals", partition, |_| Ok(()))?, Some(applied.digest));
        }
    }
    assert_eq!(open(&folder, 5, 4, vec![spec(false)]).err().expect("another shape").code(), "state-shape");
    Ok(())
}

#[test]
fn a_migration_that_makes_one_key_of_two_is_refused() -> Result<()> {
    let folder = filled()?;
    let count = folder.partitions;
    let encoded = move |number: u64| {
        let mut bytes = Vec::new();
        thalweg_core::encode_key(&number, &mut bytes).expect("a number");
        (bytes, hash(&number).partition(count))
    };
    let partitions: HashMap<_, _> = (0..5000).map(encoded).collect();
    // The first key of each partition stands for all of them.
    let first =
        move |key: &[u8]| (0..5000).map(encoded).find(|(_, of)| *of == partitions[key]).expect("itself at least").0;
    let migrate = Box::new(move |_: &str, _: &str, key: &[u8], value: &[u8]| Ok((first(key), value.to_vec())));
    let merged = StoreSpec { value_shape: "other".into(), migrate: Some(migrate), ..spec(false) };
    let mut backend = open(&folder, 5, 4, vec![merged])?;
    let error = backend.recover_pending(&Lineage::default()).expect_err("keys are lost");
    assert_eq!(error.code(), "state-migrate-key");
    assert!(error.message().contains("makes 1 keys of "), "{error}");
    drop(backend);
    // Nothing is changed.
    assert_eq!(rows_of::<u64, String>(&folder.open()?.view(), count)?.len(), 5000);
    Ok(())
}

#[test]
fn timers_are_read_in_order() -> Result<()> {
    let folder = Folder::new(4, false);
    let spec = StoreSpec { name: "timers".into(), key_shape: "(i64,String)".into(), ..spec(false) };
    let mut backend = open(&folder, 5, 4, vec![spec])?;
    backend.recover_pending(&Lineage::default())?;
    let backend = Arc::new(backend);
    let timers = |backend: &Arc<Backend>| {
        Store::<(i64, String), ()>::open(
            backend.clone(),
            StoreOptions {
                name: "timers".into(),
                worker: WorkerIndex(0),
                hosted: folder.partitions.all().collect(),
                budget_bytes: 1 << 20,
                ordered: true,
                hashed_from: 0,
            },
        )
    };
    let mut store = timers(&backend)?;
    let mut epoch = Epoch(0);
    let mut pending = Vec::new();
    for step in 0..60_i64 {
        epoch = epoch.next();
        let new: Vec<_> = (0..20).map(|n| (step * 7 % 50 + n * 3, format!("key{n}"))).collect();
        let mut handles = Vec::new();
        store.load(new.iter().map(|key| (hash(key), key)), &mut handles)?;
        for (handle, key) in handles.into_iter().zip(new) {
            *store.value_mut(handle)? = Some(());
            store.mark(handle, epoch);
            pending.push(key);
        }
        let due = KeyRange::of(..(step, String::new()))?;
        let mut fired = Vec::new();
        store.scan(Scope::All, &due, usize::MAX, |_, key, ()| {
            fired.push(key.clone());
            Ok(())
        })?;
        pending.sort();
        pending.dedup();
        let later = pending.split_off(pending.partition_point(|key| *key < (step, String::new())));
        assert_eq!(fired, pending, "step {step}");
        pending = later;
        let mut handles = Vec::new();
        store.load(fired.iter().map(|key| (hash(key), key)), &mut handles)?;
        for handle in handles {
            *store.value_mut(handle)? = None;
            store.mark(handle, epoch);
        }
        if step % 10 == 9 {
            let files = write(&backend, &mut store, epoch)?;
            backend.apply(files)?;
            store.committed(epoch);
            store = timers(&backend)?;
        }
    }
    Ok(())
}

#[test]
fn the_frozen_rows_of_version_1_are_read() -> Result<()> {
    // As they are stored: flags and postcard. A change of either needs a new version of the folder's format.
    let folder = filled()?;
    let backend = folder.open()?;
    let mut key = Vec::new();
    thalweg_core::encode_key(&7_u64, &mut key)?;
    assert_eq!(key, [0, 0, 0, 0, 0, 0, 0, 7]);
    let partition = hash(&7_u64).partition(folder.partitions);
    assert_eq!(partition, PartitionId(0));
    let value = backend.view().get("totals", partition, &key)?.expect("there");
    assert_eq!(value, b"\x22some text that takes a little room");
    Ok(())
}

#[test]
fn an_applied_row_lags_where_nothing_changed() -> Result<()> {
    let folder = filled()?;
    let backend = folder.open()?;
    let mut store = store(backend.clone(), 1 << 20, false);
    put(&mut store, 0..1, "some text that takes a little room", Epoch(2))?;
    store.seal(Epoch(2));
    while !store.encode_sealed(1)? {}
    let sealed = store.take_sealed();
    assert!(sealed.is_unchanged(), "the value is what is committed");
    assert_eq!(sealed.states().iter().map(|state| state.entries).sum::<u64>(), 5000);
    let file = backend.write_sealed(sealed, GENERATION)?;
    backend.apply(file.into_iter().collect())?;
    store.committed(Epoch(2));
    read_applied(&backend, Epoch(2))
}

#[test]
fn workers_share_a_folder_and_a_checkpoint() -> Result<()> {
    fn shared<T: Send + Sync>(_: &T) {}
    let folder = Folder::new(4, false);
    let backend = folder.open()?;
    shared(&*backend);
    shared(&backend.view());
    let worker = |index: u32| {
        // Every other partition, so that the keys of one worker's file lie between those of the other's.
        let hosted = folder.partitions.all().filter(|partition| u32::from(partition.0) % 2 == index).collect();
        let worker = WorkerIndex(index);
        Store::<u64, String>::open(
            backend.clone(),
            StoreOptions {
                name: "totals".into(),
                worker,
                hosted,
                budget_bytes: 1 << 20,
                ordered: false,
                hashed_from: 0,
            },
        )
    };
    let mut stores = [worker(0)?, worker(1)?];
    for epoch in (1..=20).map(Epoch) {
        let mut files = Vec::new();
        for (index, store) in stores.iter_mut().enumerate() {
            let hosted = |key: &u64| usize::from(hash(key).partition(folder.partitions).0) % 2 == index;
            for key in (0..200).filter(hosted) {
                put(store, key..key + 1, &epoch.to_string(), epoch)?;
            }
            let sealed = |store: &mut Store<u64, String>| -> Result<_> {
                store.seal(epoch);
                while !store.encode_sealed(1000)? {}
                Ok(store.take_sealed())
            };
            let sealed = sealed(store)?;
            // As on a thread of its own.
            let file = std::thread::scope(|scope| scope.spawn(|| backend.write_sealed(sealed, GENERATION)).join());
            files.extend(file.expect("no panic")?);
        }
        backend.apply(files)?;
        stores.iter_mut().for_each(|store| store.committed(epoch));
        let rows = rows_of::<u64, String>(&backend.view(), folder.partitions)?;
        assert_eq!(rows.len(), 200);
        assert!(rows.values().all(|value| *value == epoch.to_string()));
    }
    let stranger = (0..200).find(|key| hash(key).partition(folder.partitions).0 == 1).expect("some");
    let error = stores[0].get(hash(&stranger), &stranger).expect_err("another worker's");
    assert_eq!(error.code(), "state-not-hosted");
    read_applied(&backend, Epoch(20))
}

#[test]
fn a_damaged_file_of_a_committed_checkpoint_is_named() -> Result<()> {
    let folder = filled()?;
    let backend = folder.open()?;
    let mut store = store(backend.clone(), 1 << 20, false);
    put(&mut store, 0..1000, "new", Epoch(2))?;
    let file = write(&backend, &mut store, Epoch(2))?.remove(0);
    drop((store, backend));
    let bytes = fs::read(file.path()).expect("there");
    fs::write(file.path(), &bytes[..bytes.len() / 2]).expect("writes");
    let mut lineage = Lineage::default();
    lineage.commit(GENERATION, Epoch(1));
    lineage.commit(GENERATION, Epoch(2));
    let error = folder.reopen(&lineage).err().expect("the file is damaged");
    assert_eq!(error.code(), "state-corrupt", "{error}");
    assert!(error.message().contains(file.path().to_str().expect("text")), "{error}");
    Ok(())
}
