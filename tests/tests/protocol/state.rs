//! The keyed store of a task, on a disk of its own.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use thalweg_connectors::log::Log;
use thalweg_core::{Epoch, Generation, PartitionId, RecoveryPlan, Result, Series, TaskIndex, WorkerIndex, hash_key};
use thalweg_runtime::restore::restore_stores;
use thalweg_state::{Backend, BackendOptions, Handle, PendingFile, SealedStore, Store, StoreOptions, StoreSpec};

use crate::reference::{Rows, change, keys, partitions};
use crate::world::{JOB, STORE};

/// See the module's description.
pub(crate) struct Keyed {
    store: Store<u64, u64>,
    backend: Arc<Backend>,
}

/// A series that nobody looks at.
pub(crate) fn unmeasured() -> Series {
    Series::Counter(Default::default())
}

impl Keyed {
    /// Brings what is on the disk to the checkpoint of the plan.
    pub(crate) fn open(
        disk: &Path,
        task: TaskIndex,
        log: &Arc<dyn Log>,
        recovery: &RecoveryPlan,
        hosted: BTreeSet<PartitionId>,
    ) -> Result<Self> {
        let shape = || "u64".to_owned();
        let name = STORE.to_owned();
        let spec =
            StoreSpec { name: name.clone(), key_shape: shape(), value_shape: shape(), changelog: true, migrate: None };
        let options =
            BackendOptions { cache_bytes: 1 << 20, open_files: 32, background_jobs: 1, ..BackendOptions::default() };
        let mut backend = Backend::open(disk, JOB, partitions(), vec![spec], options)?;
        backend.recover_pending(&recovery.lineage)?;
        let stores = [(name.clone(), Some(Arc::clone(log)))];
        restore_stores(&backend, &stores, task, recovery, &Default::default(), 1)?;
        let backend = Arc::new(backend);
        let (worker, hosted) = (WorkerIndex(0), hosted.into_iter().collect());
        let options = StoreOptions { name, worker, hosted, budget_bytes: 1 << 20, ordered: false, hashed_from: 0 };
        Ok(Self { store: Store::open(Arc::clone(&backend), options)?, backend })
    }

    fn handle(&mut self, key: u64) -> Result<Handle> {
        let (hash, mut handles) = (hash_key(&key, &mut Vec::new())?, Vec::new());
        self.store.load(std::iter::once((hash, &key)), &mut handles)?;
        Ok(handles[0])
    }

    /// The rows of a job partition.
    pub(crate) fn rows(&mut self, partition: PartitionId) -> Result<Rows> {
        let mut rows = Rows::new();
        for key in keys(partition) {
            let handle = self.handle(key)?;
            rows.extend(self.store.value(handle).map(|value| (key, *value)));
        }
        Ok(rows)
    }

    /// Does what the last epoch of these cuts does; the rows after it.
    pub(crate) fn process(&mut self, cuts: &[u64], partition: PartitionId) -> Result<Rows> {
        for key in keys(partition) {
            let handle = self.handle(key)?;
            let old = self.store.value(handle).copied();
            let new = change(cuts, key, old);
            if new != old {
                *self.store.value_mut(handle)? = new;
                self.store.mark(handle, Epoch(cuts.len() as u64));
            }
        }
        self.rows(partition)
    }

    pub(crate) fn seal(&mut self, at: usize) -> Result<SealedStore> {
        self.store.seal(Epoch(at as u64));
        while !self.store.encode_sealed(1)? {}
        Ok(self.store.take_sealed())
    }

    /// Its synced file.
    pub(crate) fn file(&mut self, sealed: SealedStore, generation: Generation) -> Result<Vec<PendingFile>> {
        // A store that did not change keeps its applied rows.
        if sealed.is_unchanged() {
            return Ok(Vec::new());
        }
        Ok(self.backend.write_sealed(sealed, generation)?.into_iter().collect())
    }

    pub(crate) fn committed(&mut self, files: Vec<PendingFile>, epoch: Epoch) -> Result<()> {
        self.backend.apply(files)?;
        self.store.committed(epoch);
        Ok(())
    }

    pub(crate) fn abandoned(&mut self, files: Vec<PendingFile>, epoch: Epoch) -> Result<()> {
        self.backend.discard(files)?;
        self.store.abandoned(epoch);
        Ok(())
    }
}
