//! One RocksDB per task.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, Options, ReadOptions};
use thalweg_core::{Error, JobId, PartitionCount, PartitionId, Result};

use crate::changelog::RowState;
use crate::cursor::Cursor;
use crate::layout::{ADVICE, MARK, PREFIX, applied_key, put_prefix, row_key, split_row};
use crate::meta::{Meta, StoreMeta, StoreSpec};
use crate::rocks_error::Doing;
use crate::{Applied, BackendOptions, CommittedView};

/// The committed state of a task's partitions. Shared by its threads.
///
/// The folder:
///
/// ```text
/// state.lock   held by the process that uses the folder
/// state.meta   job, partitions, shapes
/// rocks/       RocksDB: a column family per store
/// pending/     files of checkpoints that are not applied yet, and of restores
/// ```
///
/// ```
/// use thalweg_core::{JobId, Lineage, PartitionCount, PartitionId};
/// use thalweg_state::{Backend, BackendOptions, StoreSpec};
/// # fn main() -> thalweg_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let totals = StoreSpec {
///     name: "totals".into(),
///     key_shape: "String".into(),
///     value_shape: "u64".into(),
///     changelog: false,
///     migrate: None,
/// };
/// let mut backend = Backend::open(dir.path(), JobId(1), PartitionCount::new(8)?, vec![totals], BackendOptions::default())?;
/// backend.recover_pending(&Lineage::default())?;
/// assert_eq!(backend.applied("totals", PartitionId(0))?, None);
/// # Ok(())
/// # }
/// ```
pub struct Backend {
    // Fields are dropped in this order: the lock goes last.
    db: Arc<DB>,
    file_options: Options,
    meta: Meta,
    /// As they were asked for, until [`Backend::recover_pending`] has looked at them.
    to_migrate: Vec<StoreSpec>,
    dir: PathBuf,
    restore_file_bytes: usize,
    _lock: File,
}

impl Backend {
    /// Opens or makes the folder. Call [`Backend::recover_pending`] next, before anything is read.
    ///
    /// Errors: `state-of-another-job`, `state-partitions`, `state-newer` (format of a later version), `state-shape` (a store
    /// has another shape and no migration), `state-changelog` (a store's changelog was switched on or off),
    /// `state-corrupt` (damaged or missing files), `state-locked` (another process uses the folder).
    pub fn open(
        dir: &Path,
        job_id: JobId,
        partitions: PartitionCount,
        stores: Vec<StoreSpec>,
        options: BackendOptions,
    ) -> Result<Self> {
        let pending = dir.join("pending");
        fs::create_dir_all(&pending).map_err(|error| Error::io(format!("making {}", pending.display()), error))?;
        let lock = lock(dir)?;
        let rocks = dir.join("rocks");
        let stored = Meta::read(dir)?;
        if stored.is_none() && rocks.exists() {
            return Err(Error::external(
                "state-corrupt",
                format!("{}: state.meta is missing; {ADVICE}", dir.display()),
            ));
        }
        let mut meta = match &stored {
            Some(meta) => meta.clone(),
            None => Meta { job_id, partitions, stores: Vec::new() },
        };
        meta.check_job(dir, job_id, partitions)?;
        check_specs(&meta, &stores)?;
        for spec in &stores {
            if meta.stores.iter().any(|store| store.name == spec.name) {
                continue;
            }
            meta.stores.push(StoreMeta {
                name: spec.name.clone(),
                key_shape: spec.key_shape.clone(),
                value_shape: spec.value_shape.clone(),
                changelog: spec.changelog,
            });
        }
        if stored.as_ref() != Some(&meta) {
            meta.write(dir)?;
        }
        let cache = options.cache();
        let file_options = BackendOptions::column_family(&cache);
        let families = meta.stores.iter().map(|store| ColumnFamilyDescriptor::new(&store.name, file_options.clone()));
        let db = DB::open_cf_descriptors(&options.database(), &rocks, families)
            .doing(format_args!("opening {}", rocks.display()))?;
        let backend = Self {
            db: Arc::new(db),
            file_options,
            meta,
            to_migrate: stores,
            dir: dir.to_owned(),
            restore_file_bytes: options.restore_file_bytes,
            _lock: lock,
        };
        backend.clear_temporary()?;
        Ok(backend)
    }

    /// Whose state it is.
    pub fn job_id(&self) -> JobId {
        self.meta.job_id
    }

    /// How many partitions the job has.
    pub fn partitions(&self) -> PartitionCount {
        self.meta.partitions
    }

    /// What is applied in a partition; nothing where it never held anything.
    pub fn applied(&self, store: &str, partition: PartitionId) -> Result<Option<Applied>> {
        self.applied_at(self.store_index(store)?, partition, &ReadOptions::default())
    }

    /// Where the committed version of a key lies in the changelog, as the local row has it.
    pub fn row_state(&self, store: &str, partition: PartitionId, key: &[u8]) -> Result<RowState> {
        let index = self.store_index(store)?;
        let row = self
            .db
            .get_pinned_cf(self.family(index), row_key(partition, key))
            .doing(format_args!("reading store {store:?}"))?;
        row.map_or(Ok(RowState::None), |row| split_row(store, &row).map(|(state, _)| state))
    }

    /// A view of what is applied now, for committed reads: take it when all partitions have applied the same checkpoint.
    /// It stays as it is while later checkpoints are applied.
    pub fn view(&self) -> CommittedView {
        CommittedView::new(self.db.clone(), self.meta.clone())
    }

    /// Bytes of RocksDB's files on disk.
    pub fn disk_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for index in 0..self.meta.stores.len() {
            bytes += self
                .db
                .property_int_value_cf(self.family(index), "rocksdb.total-sst-files-size")
                .doing("asking for the size of the files")?
                .unwrap_or(0);
        }
        Ok(bytes)
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    pub(crate) fn restore_file_bytes(&self) -> usize {
        self.restore_file_bytes
    }

    pub(crate) fn file_options(&self) -> &Options {
        &self.file_options
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn take_specs(&mut self) -> Vec<StoreSpec> {
        std::mem::take(&mut self.to_migrate)
    }

    pub(crate) fn set_shapes(&mut self, store: usize, spec: &StoreSpec) -> Result<()> {
        self.meta.stores[store].key_shape.clone_from(&spec.key_shape);
        self.meta.stores[store].value_shape.clone_from(&spec.value_shape);
        self.meta.write(&self.dir)
    }

    pub(crate) fn pending_dir(&self) -> PathBuf {
        self.dir.join("pending")
    }

    pub(crate) fn store_index(&self, store: &str) -> Result<usize> {
        self.meta.stores.iter().position(|known| known.name == store).ok_or_else(|| {
            Error::internal("state-unknown-store", format!("store {store:?} was not among those that were opened"))
        })
    }

    pub(crate) fn store_name(&self, store: usize) -> &str {
        &self.meta.stores[store].name
    }

    pub(crate) fn family(&self, store: usize) -> &ColumnFamily {
        self.db.cf_handle(self.store_name(store)).expect("every store was opened with its column family")
    }

    pub(crate) fn applied_at(
        &self,
        store: usize,
        partition: PartitionId,
        options: &ReadOptions,
    ) -> Result<Option<Applied>> {
        let name = self.store_name(store);
        let row = self
            .db
            .get_pinned_cf_opt(self.family(store), applied_key(partition), options)
            .doing(format_args!("reading store {name:?}"))?;
        let Some(row) = row else { return Ok(None) };
        let applied = Applied::decode(name, &row)?;
        if applied.job_id != self.meta.job_id {
            return Err(Error::user(
                "state-of-another-job",
                format!("store {name:?} holds rows of job {}, this is job {}", applied.job_id, self.meta.job_id),
            ));
        }
        Ok(Some(applied))
    }

    /// The rows of a partition.
    pub(crate) fn cursor(&self, store: usize, partition: PartitionId, range: &crate::KeyRange) -> Result<Cursor<'_>> {
        let name = self.store_name(store);
        Cursor::open(name, &self.db, self.family(store), partition, range, ReadOptions::default())
    }

    /// The encoded keys of the DELETED rows of a partition.
    pub(crate) fn deleted(&self, store: usize, partition: PartitionId) -> Result<Vec<(Vec<u8>, RowState)>> {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        put_prefix(&mut low, partition, MARK);
        put_prefix(&mut high, partition, MARK + 1);
        let name = self.store_name(store);
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(high);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(store), options);
        iterator.seek(low);
        let mut found = Vec::new();
        while let Some((key, value)) = iterator.item() {
            found.push((key[PREFIX..].to_vec(), split_row(name, value)?.0));
            iterator.next();
        }
        iterator.status().doing(format_args!("reading store {name:?}"))?;
        Ok(found)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A compaction of gigabytes must not hold up the end of a task; it is repeated at the next start.
        self.db.cancel_all_background_work(true);
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("state.lock");
    let file = File::create(&path).map_err(|error| Error::io(format!("making {}", path.display()), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::external(
            "state-locked",
            format!("{} is in use by another process; only one may use a state folder", dir.display()),
        )),
        Err(TryLockError::Error(error)) => Err(Error::io(format!("locking {}", path.display()), error)),
    }
}

/// Refuses what cannot be opened, before anything is changed.
fn check_specs(meta: &Meta, specs: &[StoreSpec]) -> Result<()> {
    for (index, spec) in specs.iter().enumerate() {
        let name = &spec.name;
        if specs[..index].iter().any(|other| other.name == *name) || name == "default" || name.is_empty() {
            return Err(Error::user(
                "state-store-name",
                format!("store {name:?}: the name is taken or reserved; choose another"),
            ));
        }
        let Some(store) = meta.stores.iter().find(|store| store.name == *name) else { continue };
        let same = store.key_shape == spec.key_shape && store.value_shape == spec.value_shape;
        if !same && spec.migrate.is_none() {
            return Err(Error::user(
                "state-shape",
                format!(
                    "store {name:?} holds keys of {:?} and values of {:?}, the operator has keys of {:?} and values of {:?}; \
                     give it another id, or a migration",
                    store.key_shape, store.value_shape, spec.key_shape, spec.value_shape
                ),
            ));
        }
        if !same && store.changelog {
            return Err(Error::user(
                "state-shape",
                format!(
                    "store {name:?} has a changelog, whose records a migration of the local rows cannot change; give it another id"
                ),
            ));
        }
        if store.changelog != spec.changelog {
            let text = |on: bool| if on { "with a changelog" } else { "without a changelog" };
            let (was, is) = (text(store.changelog), text(spec.changelog));
            return Err(Error::user(
                "state-changelog",
                format!("store {name:?} was kept {was}, the job wants it {is}; that is fixed when a store is made"),
            ));
        }
    }
    Ok(())
}
