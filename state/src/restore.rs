//! Bulk writing of a partition: from a changelog, from another node, from a migration.

use std::path::PathBuf;

use thalweg_core::{Digest, Epoch, Error, Generation, Lineage, PartitionId, Result, StoreState};

use crate::changelog::{Fold, Outcome, RowState, Slot};
use crate::layout::{digest_into, split_row};
use crate::rocks_error::Doing;
use crate::rows::{RowChange, Rows};
use crate::{Applied, Backend};

/// Bytes of rows that are sorted and written as one file.
const BATCH_BYTES: usize = 32 << 20;

/// What becomes of the rows that a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// They go: all rows are given anew.
    Replace,
    /// They stay, except those that are given: catching up.
    CatchUp,
}

/// Writes rows into a partition and checks their digest; nothing is visible before [`Restore::finish`] succeeds.
pub struct Restore<'a> {
    backend: &'a Backend,
    store: usize,
    partition: PartitionId,
    mode: RestoreMode,
    rows: Rows,
    files: Vec<PathBuf>,
    digest: Digest,
    entries: u64,
    end: RowState,
    scratch: Vec<u8>,
}

impl Backend {
    /// Begins to restore a partition.
    pub fn restore(&self, store: &str, partition: PartitionId, mode: RestoreMode) -> Result<Restore<'_>> {
        let index = self.store_index(store)?;
        let applied = match mode {
            RestoreMode::Replace => None,
            RestoreMode::CatchUp => self.applied(store, partition)?,
        };
        Ok(Restore {
            backend: self,
            store: index,
            partition,
            mode,
            rows: Rows::default(),
            files: Vec::new(),
            digest: applied.map_or_else(Digest::default, |applied| applied.digest),
            entries: applied.map_or(0, |applied| applied.entries),
            end: applied.map_or(RowState::None, |applied| applied.end),
            scratch: Vec::new(),
        })
    }
}

impl Backend {
    /// Restores a partition from what was read of its changelog: all of it ([`RestoreMode::Replace`]), or from the offset of its
    /// applied row on ([`RestoreMode::CatchUp`]), in both cases up to the fenced end.
    ///
    /// `expected` is what the record of the checkpoint (`generation`, `epoch`) says of the partition; `changelog` in it is
    /// replaced by `read_to`, the offset after the last record that was read.
    ///
    /// Errors: those of [`Restore::finish`].
    pub fn restore_fold(
        &self,
        fold: Fold,
        lineage: &Lineage,
        mode: RestoreMode,
        (generation, epoch): (Generation, Epoch),
        expected: &StoreState,
        read_to: u64,
    ) -> Result<()> {
        let (store, partition) = (expected.store.as_str(), expected.partition);
        let mut restore = self.restore(store, partition, mode)?;
        let restored = fold.finish(lineage, restore.end, |key| match mode {
            RestoreMode::Replace => Ok(RowState::None),
            RestoreMode::CatchUp => self.row_state(store, partition, key),
        })?;
        for (key, outcome) in &restored.rows {
            restore.push(key, outcome)?;
        }
        restore.end = restored.end_row;
        restore.finish(generation, epoch, &StoreState { changelog: read_to, ..expected.clone() })
    }
}

impl Restore<'_> {
    /// Takes what a [`crate::changelog::Fold`] says of a key. Each key once, in any order (the order of keys is quickest).
    pub fn push(&mut self, key: &[u8], outcome: &Outcome) -> Result<()> {
        match outcome {
            Outcome::Keep => Ok(()),
            Outcome::Live(slot, value) => self.put(key, RowChange::Put(RowState::Live(*slot)), value),
            Outcome::Deleted(slot) => self.put(key, RowChange::Put(RowState::Deleted(*slot)), &[]),
            Outcome::Gone => self.put(key, RowChange::Erase, &[]),
        }
    }

    /// Takes a row of a store without a changelog: encoded key and value.
    pub fn push_row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, RowChange::Put(RowState::Live(Slot::Zero)), value)
    }

    /// The digest of the rows given so far, with those that stay.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn put(&mut self, key: &[u8], change: RowChange, value: &[u8]) -> Result<()> {
        let before = match self.mode {
            RestoreMode::Replace => RowState::None,
            RestoreMode::CatchUp => self.subtract(key)?,
        };
        match change {
            RowChange::Put(RowState::Live(_)) => {
                self.digest += digest_into(&mut self.scratch, key, value);
                self.entries += 1;
            }
            RowChange::Put(RowState::Deleted(_) | RowState::None) => {}
            RowChange::Erase if before == RowState::None => return Ok(()),
            RowChange::Erase => {}
        }
        self.rows.push(self.partition, key, before, change, value);
        if self.rows.bytes() >= BATCH_BYTES {
            self.write(Vec::new())?;
        }
        Ok(())
    }

    /// Takes the local row out of digest and count.
    fn subtract(&mut self, key: &[u8]) -> Result<RowState> {
        let name = self.backend.store_name(self.store);
        let row = self
            .backend
            .db()
            .get_pinned_cf(self.backend.family(self.store), crate::layout::row_key(self.partition, key))
            .doing(format_args!("reading store {name:?}"))?;
        let Some(row) = row else { return Ok(RowState::None) };
        let (state, value) = split_row(name, &row)?;
        if matches!(state, RowState::Live(_)) {
            self.digest -= digest_into(&mut self.scratch, key, value);
            self.entries -= 1;
        }
        Ok(state)
    }

    fn write(&mut self, applied: Vec<(PartitionId, Applied)>) -> Result<()> {
        self.rows.sort();
        let name = format!("restore-s{:05}-p{:05}-{:06}.sst", self.store, self.partition.0, self.files.len());
        let path = self.backend.pending_dir().join(name);
        let replaces = self.mode == RestoreMode::Replace && self.files.is_empty();
        let had_rows = replaces && self.backend.applied(self.backend.store_name(self.store), self.partition)?.is_some();
        let wiped = if had_rows { vec![self.partition] } else { Vec::new() };
        self.backend.write_file(&path, &wiped, &applied, &self.rows)?;
        self.files.push(path);
        self.rows.clear();
        Ok(())
    }

    /// Compares with what the checkpoint's record says of the partition, then makes everything visible at once.
    ///
    /// Error: `state-digest` where the rows are not those of the checkpoint; nothing is changed then.
    pub fn finish(self, generation: Generation, epoch: Epoch, expected: &StoreState) -> Result<()> {
        if self.digest != expected.digest || self.entries != expected.entries {
            let (store, partition) = (self.backend.store_name(self.store), self.partition);
            return Err(Error::external(
                "state-digest",
                format!(
                    "store {store:?}, partition {partition}: the restored rows are {} with digest {:032x}, checkpoint {epoch} \
                     has {} with {:032x}; the changelog or the copy is not what the checkpoint was taken of",
                    self.entries, self.digest.0, expected.entries, expected.digest.0
                ),
            ));
        }
        let recorded = expected.digest;
        self.install(generation, epoch, recorded, expected.changelog, None)
    }

    /// Ingests; `shape` where it is not the one of the store's meta data yet.
    pub(crate) fn install(
        mut self,
        generation: Generation,
        epoch: Epoch,
        recorded: Digest,
        changelog: u64,
        shape: Option<u64>,
    ) -> Result<()> {
        let applied = Applied {
            job_id: self.backend.job_id(),
            generation,
            epoch,
            digest: self.digest,
            recorded,
            entries: self.entries,
            changelog,
            shape: shape.unwrap_or_else(|| self.backend.meta().stores[self.store].shape()),
            end: self.end,
        };
        self.write(vec![(self.partition, applied)])?;
        self.backend.ingest(self.store, std::mem::take(&mut self.files))
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // Given up: what was written is of no use. A failure here leaves files that the next start removes.
        for path in &self.files {
            let _ = std::fs::remove_file(path);
        }
    }
}
