//! Bulk writing of a partition: from a changelog, from another node, from a migration.

use std::path::PathBuf;

use thalweg_core::{Digest, Epoch, Error, Generation, Lineage, PartitionId, Result, StoreState};

use crate::changelog::{Fold, Outcome, RowState};
use crate::layout::{ROW, applied_key, digest_into, partition_end, put_prefix, split_row};
use crate::pending::SstFile;
use crate::rocks_error::Doing;
use crate::rows::mark_key;
use crate::sorter::Spill;
use crate::{Applied, Backend};

/// What becomes of the rows that a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// They go: all rows are given anew.
    Replace,
    /// They stay, except those that are given: catching up.
    CatchUp,
}

/// Writes rows into a partition and checks their digest; nothing is visible before [`Restore::finish`] succeeds.
///
/// What is given goes straight into files that do not overlap: rows, and marks of DELETED rows. The applied row has one of its own,
/// with what removes the rows that were there.
pub struct Restore<'a> {
    backend: &'a Backend,
    store: usize,
    partition: PartitionId,
    mode: RestoreMode,
    /// The file that rows go to.
    rows: Option<SstFile<'a>>,
    /// The file that marks go to.
    marks: Option<SstFile<'a>>,
    files: Vec<PathBuf>,
    digest: Digest,
    entries: u64,
    end: RowState,
    stored_key: Vec<u8>,
    mark: Vec<u8>,
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
            rows: None,
            marks: None,
            files: Vec::new(),
            digest: applied.map_or_else(Digest::default, |applied| applied.digest),
            entries: applied.map_or(0, |applied| applied.entries),
            end: applied.map_or(RowState::None, |applied| applied.end),
            stored_key: Vec::new(),
            mark: Vec::new(),
            scratch: Vec::new(),
        })
    }

    /// A fold of the changelog of a partition, which keeps about so many bytes in memory and sorts the others on disk.
    ///
    /// Errors: `state-unknown-store`.
    pub fn fold(&self, store: &str, partition: PartitionId, bytes: usize) -> Result<Fold> {
        Ok(Fold::spilling(self.spill(self.store_index(store)?, partition, bytes)))
    }

    pub(crate) fn spill(&self, store: usize, partition: PartitionId, limit: usize) -> Spill {
        Spill { dir: self.pending_dir(), name: format!("sort-s{store:05}-p{:05}", partition.0), limit }
    }

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
        restore.end = fold.end(lineage, restore.end).row;
        let local = |key: &[u8]| match mode {
            RestoreMode::Replace => Ok(RowState::None),
            RestoreMode::CatchUp => self.row_state(store, partition, key),
        };
        fold.finish(lineage, local, |key, outcome| restore.push(key, outcome))?;
        restore.finish(generation, epoch, &StoreState { changelog: read_to, ..expected.clone() })
    }
}

impl<'a> Restore<'a> {
    /// Takes what a [`Fold`] says of a key. Each key once, in the order of keys.
    ///
    /// Errors: disk; where keys are not in order, `state-rocksdb` here or when they are ingested.
    pub fn push(&mut self, key: &[u8], outcome: Outcome<'_>) -> Result<()> {
        let (state, stored) = match outcome {
            Outcome::Keep => return Ok(()),
            Outcome::Live(slot, value) => (RowState::Live(slot), value.stored()),
            Outcome::Deleted(slot) => (RowState::Deleted(slot), &[][..]),
            Outcome::Gone => (RowState::None, &[][..]),
        };
        let before = match self.mode {
            RestoreMode::Replace => RowState::None,
            RestoreMode::CatchUp => self.subtract(key)?,
        };
        self.stored_key.clear();
        put_prefix(&mut self.stored_key, self.partition, ROW);
        self.stored_key.extend_from_slice(key);
        match (state, state.to_bits()) {
            (RowState::Live(_), _) => {
                self.digest += digest_into(&mut self.scratch, key, &stored[1..]);
                self.entries += 1;
                self.row(|file, key| file.put(key, stored))?;
            }
            (_, Some(bits)) => self.row(|file, key| file.put(key, &[bits]))?,
            (_, None) if before != RowState::None => self.row(|file, key| file.delete(key))?,
            (_, None) => {}
        }
        if state.is_deleted() || before.is_deleted() {
            mark_key(&self.stored_key, &mut self.mark);
            if self.marks.is_none() {
                self.marks = Some(self.begin_file()?);
            }
            let file = self.marks.as_mut().expect("it was begun");
            match state.to_bits().filter(|_| state.is_deleted()) {
                Some(bits) => file.put(&self.mark, &[bits])?,
                None => file.delete(&self.mark)?,
            }
        }
        Ok(())
    }

    /// The digest of the rows given so far, with those that stay.
    pub fn digest(&self) -> Digest {
        self.digest
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

    /// Writes something under the stored key into the file of rows.
    fn row(&mut self, write: impl FnOnce(&mut SstFile<'_>, &[u8]) -> Result<()>) -> Result<()> {
        if let Some(full) = self.rows.take_if(|file| file.bytes() >= self.backend.restore_file_bytes()) {
            full.finish()?;
        }
        if self.rows.is_none() {
            self.rows = Some(self.begin_file()?);
        }
        write(self.rows.as_mut().expect("it was begun"), &self.stored_key)
    }

    fn begin_file(&mut self) -> Result<SstFile<'a>> {
        let name = format!("restore-s{:05}-p{:05}-{:06}.sst", self.store, self.partition.0, self.files.len());
        let path = self.backend.pending_dir().join(name);
        let file = self.backend.sst_file(&path)?;
        self.files.push(path);
        Ok(file)
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
        for file in [self.rows.take(), self.marks.take()].into_iter().flatten() {
            file.finish()?;
        }
        let mut file = self.begin_file()?;
        let key = applied_key(self.partition);
        let had_rows = self.backend.applied(self.backend.store_name(self.store), self.partition)?.is_some();
        if self.mode == RestoreMode::Replace && had_rows {
            file.delete_range(&key, &partition_end(self.partition))?;
        }
        file.put(&key, &applied.encode())?;
        file.finish()?;
        // What it removes is what was there before it: files that overlap are taken in their order.
        self.files.rotate_right(1);
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
