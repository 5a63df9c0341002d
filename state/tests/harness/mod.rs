//! What the tests share: a folder with one store, seeded randomness, whole contents of a view.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_core::{
    Epoch, Generation, JobId, Key, KeyHash, Lineage, PartitionCount, Result, WorkerIndex, decode_key, hash_key,
};
use thalweg_state::{Backend, BackendOptions, CommittedView, KeyRange, PendingFile, Store, StoreOptions, StoreSpec};

pub(crate) const GENERATION: Generation = Generation(1);

/// xorshift64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

pub(crate) fn hash<K: Key>(key: &K) -> KeyHash {
    hash_key(key, &mut Vec::new()).expect("a key")
}

pub(crate) fn spec(changelog: bool) -> StoreSpec {
    StoreSpec { name: "totals".into(), key_shape: "u64".into(), value_shape: "String".into(), changelog, migrate: None }
}

/// A folder with the store `totals`.
pub(crate) struct Folder {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) partitions: PartitionCount,
    pub(crate) changelog: bool,
    backend: Mutex<Option<Arc<Backend>>>,
}

impl Folder {
    pub(crate) fn new(partitions: u32, changelog: bool) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            partitions: PartitionCount::new(partitions).expect("few"),
            changelog,
            backend: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn try_open(&self) -> Result<Backend> {
        // A restore of a few rows is several files.
        let options = BackendOptions { cache_bytes: 1 << 20, restore_file_bytes: 40, ..BackendOptions::default() };
        Backend::open(self.path(), JobId(5), self.partitions, vec![spec(self.changelog)], options)
    }

    pub(crate) fn open(&self) -> Result<Arc<Backend>> {
        self.reopen(&Lineage::default())
    }

    pub(crate) fn reopen(&self, lineage: &Lineage) -> Result<Arc<Backend>> {
        *self.backend.lock() = None;
        let mut backend = self.try_open()?;
        backend.recover_pending(lineage)?;
        let backend = Arc::new(backend);
        *self.backend.lock() = Some(backend.clone());
        Ok(backend)
    }

    pub(crate) fn backend(&self) -> Arc<Backend> {
        self.backend.lock().clone().expect("open")
    }

    pub(crate) fn close(&self) {
        *self.backend.lock() = None;
    }
}

pub(crate) fn store<K: Key, V: Serialize + DeserializeOwned + 'static>(
    backend: Arc<Backend>,
    budget_bytes: u64,
    ordered: bool,
) -> Store<K, V> {
    let hosted = backend.partitions().all().collect();
    let options =
        StoreOptions { name: "totals".into(), worker: WorkerIndex(0), hosted, budget_bytes, ordered, hashed_from: 0 };
    Store::open(backend, options).expect("opens")
}

pub(crate) fn rows_of<K: Key + Ord, V: DeserializeOwned>(
    view: &CommittedView,
    partitions: PartitionCount,
) -> Result<BTreeMap<K, V>> {
    let mut rows = BTreeMap::new();
    let partitions: Vec<_> = partitions.all().collect();
    let mut last = Vec::new();
    view.scan("totals", &partitions, &KeyRange::all(), usize::MAX, |key, value| {
        assert!(rows.is_empty() || last.as_slice() < key, "in the order of keys");
        last = key.to_vec();
        rows.insert(decode_key(key)?, postcard::from_bytes(value).expect("a value"));
        Ok(())
    })?;
    Ok(rows)
}

pub(crate) fn put(store: &mut Store<u64, String>, keys: std::ops::Range<u64>, text: &str, epoch: Epoch) -> Result<()> {
    let keys: Vec<u64> = keys.collect();
    let mut handles = Vec::new();
    store.load(keys.iter().map(|key| (hash(key), key)), &mut handles)?;
    for handle in handles {
        *store.value_mut(handle)? = Some(text.into());
        store.mark(handle, epoch);
    }
    Ok(())
}

pub(crate) fn write<V: Serialize + DeserializeOwned + 'static, K: Key>(
    backend: &Backend,
    store: &mut Store<K, V>,
    epoch: Epoch,
) -> Result<Vec<PendingFile>> {
    store.seal(epoch);
    while !store.encode_sealed(100)? {}
    Ok(backend.write_sealed(store.take_sealed(), GENERATION)?.into_iter().collect())
}

/// A folder with one committed checkpoint of 5,000 rows.
pub(crate) fn filled() -> Result<Folder> {
    let folder = Folder::new(4, false);
    let backend = folder.open()?;
    let mut store = store(backend.clone(), 1 << 20, false);
    put(&mut store, 0..5000, "some text that takes a little room", Epoch(1))?;
    let files = write(&backend, &mut store, Epoch(1))?;
    backend.apply(files)?;
    store.committed(Epoch(1));
    drop((store, backend));
    folder.close();
    Ok(folder)
}

pub(crate) fn read_applied(backend: &Backend, epoch: Epoch) -> Result<()> {
    for partition in backend.partitions().all() {
        let applied = backend.applied("totals", partition)?.expect("applied");
        assert_eq!(applied.epoch, epoch);
        assert_eq!(backend.scrub("totals", partition, |_| Ok(()))?, Some(applied.digest));
    }
    Ok(())
}
