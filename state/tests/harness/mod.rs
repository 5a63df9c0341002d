//! What the tests share: a folder with one store, seeded randomness, whole contents of a view.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_core::{JobId, Key, KeyHash, Lineage, PartitionCount, Result, WorkerIndex, decode_key, hash_key};
use thalweg_state::{Backend, BackendOptions, CommittedView, KeyRange, Store, StoreOptions, StoreSpec};

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
    StoreSpec {
        name: "totals".into(),
        key_shape: "u64".into(),
        value_shape: "String".into(),
        changelog,
        migrate: None,
    }
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
        let options = BackendOptions { cache_bytes: 1 << 20, ..BackendOptions::default() };
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
    let options = StoreOptions { name: "totals".into(), worker: WorkerIndex(0), hosted, budget_bytes, ordered };
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
