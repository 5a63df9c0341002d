//! How long a change of a key takes that is in the overlay, and what a checkpoint of all keys costs.
//!
//! `cargo run --release -p thalweg-state --example overlay_speed [KEYS]`

#![allow(clippy::disallowed_methods, reason = "a measurement of time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_core::{Epoch, Generation, JobId, KeyHash, PartitionCount, Result, WorkerIndex, hash_key};
use thalweg_state::{Backend, BackendOptions, Store, StoreOptions, StoreSpec};

const EPOCH_KEYS: usize = 10_000;
const SLICE: usize = 20_000;

fn main() -> Result<()> {
    let count: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().map_err(|error| thalweg_core::Error::io("making a folder", error))?;
    let partitions = PartitionCount::new(64)?;
    let spec = StoreSpec {
        name: "counts".into(),
        key_shape: "u64".into(),
        value_shape: "u64".into(),
        changelog: false,
        migrate: None,
    };
    let start = Instant::now();
    let backend = Arc::new(Backend::open(dir.path(), JobId(1), partitions, vec![spec], BackendOptions::default())?);
    println!("open an empty folder     {:>10.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let options = StoreOptions {
        name: "counts".into(),
        worker: WorkerIndex(0),
        hosted: partitions.all().collect(),
        budget_bytes: u64::MAX,
        ordered: false,
        hashed_from: 0,
    };
    let mut store = Store::<u64, u64>::open(backend.clone(), options)?;

    let mut scratch = Vec::new();
    let mut keys: Vec<(KeyHash, u64)> =
        (0..count).map(|key| Ok((hash_key(&key, &mut scratch)?, key))).collect::<Result<_>>()?;
    shuffle(&mut keys);
    let mut epoch = Epoch::ZERO;
    for round in 0..3 {
        let (load, change) = update(&mut store, &keys, &mut epoch)?;
        let what = if round == 0 { "new" } else { "old" };
        let ns = |time: Duration| time.as_nanos() as f64 / count as f64;
        println!("{what} keys: load {:.1} ns, change and mark {:.1} ns", ns(load), ns(change));
        shuffle(&mut keys);
    }

    for round in 0..2 {
        checkpoint(&backend, &mut store, epoch)?;
        if round == 0 {
            update(&mut store, &keys, &mut epoch)?;
        }
    }
    drop(store);
    drop(backend);
    let start = Instant::now();
    let spec = StoreSpec {
        name: "counts".into(),
        key_shape: "u64".into(),
        value_shape: "u64".into(),
        changelog: false,
        migrate: None,
    };
    let backend = Arc::new(Backend::open(dir.path(), JobId(1), partitions, vec![spec], BackendOptions::default())?);
    println!(
        "open it again            {:>10.1} ms, {} bytes",
        start.elapsed().as_secs_f64() * 1e3,
        backend.disk_bytes()?
    );
    let options = StoreOptions {
        name: "counts".into(),
        worker: WorkerIndex(0),
        hosted: partitions.all().collect(),
        budget_bytes: u64::MAX,
        ordered: false,
        hashed_from: 0,
    };
    let mut store = Store::<u64, u64>::open(backend, options)?;
    let (load, _) = update(&mut store, &keys, &mut epoch)?;
    println!("load from RocksDB        {:>10.1} ns per key", load.as_nanos() as f64 / count as f64);
    Ok(())
}

fn update(store: &mut Store<u64, u64>, keys: &[(KeyHash, u64)], epoch: &mut Epoch) -> Result<(Duration, Duration)> {
    let mut handles = Vec::with_capacity(EPOCH_KEYS);
    let (mut load, mut change) = (Duration::ZERO, Duration::ZERO);
    for chunk in keys.chunks(EPOCH_KEYS) {
        *epoch = epoch.next();
        handles.clear();
        let start = Instant::now();
        store.load(chunk.iter().map(|(hash, key)| (*hash, key)), &mut handles)?;
        load += start.elapsed();
        let start = Instant::now();
        for handle in &handles {
            *store.value_mut(*handle)?.get_or_insert(0) += 1;
            store.mark(*handle, *epoch);
        }
        change += start.elapsed();
    }
    Ok((load, change))
}

fn checkpoint(backend: &Backend, store: &mut Store<u64, u64>, epoch: Epoch) -> Result<()> {
    let start = Instant::now();
    store.seal(epoch);
    let (mut longest, mut done) = (Duration::ZERO, false);
    while !done {
        let slice = Instant::now();
        done = store.encode_sealed(SLICE)?;
        longest = longest.max(slice.elapsed());
    }
    let encoded = start.elapsed();
    let sealed = store.take_sealed();
    let keys = sealed.changed() as f64;
    let start = Instant::now();
    let file = backend.write_sealed(sealed, Generation(1))?;
    let written = start.elapsed();
    let start = Instant::now();
    backend.apply(file.into_iter().collect())?;
    let applied = start.elapsed();
    let start = Instant::now();
    store.committed(epoch);
    println!(
        "checkpoint: encode {:.0} ns per key, longest slice {:.1} ms; write {:.0} ns per key; apply {:.1} ms; commit {:.2} ms",
        encoded.as_nanos() as f64 / keys,
        longest.as_secs_f64() * 1e3,
        written.as_nanos() as f64 / keys,
        applied.as_secs_f64() * 1e3,
        start.elapsed().as_secs_f64() * 1e3,
    );
    Ok(())
}

fn shuffle(keys: &mut [(KeyHash, u64)]) {
    let mut random = 0x9E37_79B9_u64;
    for index in (1..keys.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        keys.swap(index, (random % (index as u64 + 1)) as usize);
    }
}
