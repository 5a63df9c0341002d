//! What a worker hands over of a store at a checkpoint.

use thalweg_core::{Digest, Epoch, Generation, PartitionId, Result, StoreState, WorkerIndex, failpoint};

use crate::changelog::{ChangelogKey, ChangelogValue, EndRecord, RecordBody, RowState, Slot};
use crate::rows::{RowChange, Rows};

/// What one partition is at the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedPartition {
    /// Which one.
    pub partition: PartitionId,
    /// The digest of its entries at the checkpoint.
    pub digest: Digest,
    /// How many entries.
    pub entries: u64,
    /// Rows that the checkpoint writes.
    pub changed: u64,
    /// Where its changelog ends, once that is known.
    pub(crate) changelog: Option<u64>,
    pub(crate) end: RowState,
}

/// The changed rows of a store's partitions on one worker at a checkpoint, with what each partition becomes.
///
/// Taken from [`crate::Store::take_sealed`], given to [`crate::Backend::write_sealed`] on another thread.
pub struct SealedStore {
    pub(crate) store: usize,
    pub(crate) name: String,
    pub(crate) worker: WorkerIndex,
    pub(crate) epoch: Epoch,
    pub(crate) changelog: bool,
    pub(crate) rows: Rows,
    pub(crate) partitions: Vec<SealedPartition>,
}

impl SealedStore {
    /// The operator id of the store.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checkpoint.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The hosted partitions, in order.
    pub fn partitions(&self) -> &[SealedPartition] {
        &self.partitions
    }

    /// Rows that the checkpoint writes.
    pub fn changed(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of these rows.
    pub fn bytes(&self) -> usize {
        self.rows.bytes()
    }

    /// Whether no row changes. Such a store may be left out of a checkpoint as long as its applied rows may lag: digests and
    /// entries are those of the last one.
    pub fn is_unchanged(&self) -> bool {
        self.rows.len() == 0
    }

    /// What the checkpoint's record says of the partitions. The changelog's offset is 0 where
    /// [`SealedStore::set_changelog_offset`] has not told it: keep the one of the last record for a partition without changes.
    pub fn states(&self) -> Vec<StoreState> {
        let state = |sealed: &SealedPartition| StoreState {
            store: self.name.clone(),
            partition: sealed.partition,
            digest: sealed.digest,
            entries: sealed.entries,
            changelog: sealed.changelog.unwrap_or(0),
        };
        self.partitions.iter().map(state).collect()
    }

    /// Gives every changelog record of the checkpoint to `append`, as (partition, key, value; no value is a tombstone). The
    /// end record of a partition comes after its rows; a partition that does not change gets none, its last one still holds.
    /// All of it belongs into one transaction.
    ///
    /// Nothing for a store without a changelog.
    pub fn changelog(
        &self,
        generation: Generation,
        mut append: impl FnMut(PartitionId, Vec<u8>, Option<Vec<u8>>) -> Result<()>,
    ) -> Result<()> {
        if !self.changelog {
            return Ok(());
        }
        // A known bug that the test harness puts back: every version goes to the same slot, also where that holds the committed one.
        let overwrite = failpoint::bug("committed-slot-overwritten");
        let mut record = |partition, mut key: ChangelogKey<'_>, body: Option<RecordBody<'_>>| {
            if let ChangelogKey::Row { slot, .. } = &mut key
                && overwrite
            {
                *slot = Slot::Zero;
            }
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            let value = body.map(|body| {
                let mut out = Vec::new();
                ChangelogValue { generation, checkpoint: self.epoch, body }.encode(&bytes, &mut out);
                out
            });
            append(partition, bytes, value)
        };
        for row in self.rows.iter() {
            let (partition, key) = (row.partition(), row.key());
            match (row.change(), row.state()) {
                (RowChange::Put(RowState::Live(slot)), _) => {
                    record(partition, ChangelogKey::Row { key, slot }, Some(RecordBody::Version(row.value())))?;
                }
                (RowChange::Put(RowState::Deleted(slot)), _) => {
                    record(partition, ChangelogKey::Row { key, slot }, Some(RecordBody::Deleted))?;
                }
                // The older version first, as in `WritePlan::Tombstones`.
                (RowChange::Erase, RowState::Deleted(deleted)) => {
                    record(partition, ChangelogKey::Row { key, slot: deleted.other() }, None)?;
                    record(partition, ChangelogKey::Row { key, slot: deleted }, None)?;
                }
                (RowChange::Erase, RowState::None | RowState::Live(_)) | (RowChange::Put(RowState::None), _) => {
                    unreachable!("a store with a changelog erases only DELETED rows")
                }
            }
        }
        for sealed in &self.partitions {
            let Some(slot) = sealed.end.slot().filter(|_| sealed.changed > 0) else { continue };
            let end = EndRecord { entries: sealed.entries, digest: sealed.digest };
            record(sealed.partition, ChangelogKey::End { slot }, Some(RecordBody::End(end)))?;
        }
        Ok(())
    }

    /// Remembers where the changelog of a partition stands after the checkpoint's end record: it goes into the applied row.
    /// Call it between the changelog's transaction and [`crate::Backend::write_sealed`].
    pub fn set_changelog_offset(&mut self, partition: PartitionId, offset: u64) {
        for sealed in self.partitions.iter_mut().filter(|sealed| sealed.partition == partition) {
            sealed.changelog = Some(offset);
        }
    }
}

/// Where the next end record goes: as rows do, not onto the last committed one.
pub(crate) fn next_end(end: RowState) -> RowState {
    RowState::Live(end.slot().map_or(Slot::Zero, Slot::other))
}
