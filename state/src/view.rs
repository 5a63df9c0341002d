//! Committed reads: RocksDB as it was when the view was taken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rocksdb::{ColumnFamily, DB, ReadOptions, Snapshot};
use thalweg_core::{Error, PartitionId, Result};

use crate::changelog::RowState;
use crate::cursor::Cursor;
use crate::layout::{applied_key, row_key, split_row};
use crate::meta::Meta;
use crate::rocks_error::Doing;
use crate::{Applied, KeyRange};

/// All partitions at one moment, for any thread, never waiting for a worker. It holds back the removal of what was
/// replaced since: swap it for a newer one after each checkpoint.
pub struct CommittedView {
    // Dropped before `db`, which it borrows.
    snapshot: Snapshot<'static>,
    db: Arc<DB>,
    meta: Meta,
}

impl CommittedView {
    pub(crate) fn new(db: Arc<DB>, meta: Meta) -> Self {
        // SAFETY: the reference lives as long as the `Arc` beside it, which keeps the database at one address; the snapshot is
        // dropped first (order of fields) and never handed out.
        let forever: &'static DB = unsafe { &*Arc::as_ptr(&db) };
        Self { snapshot: forever.snapshot(), db, meta }
    }

    /// What was applied in a partition.
    pub fn applied(&self, store: &str, partition: PartitionId) -> Result<Option<Applied>> {
        let row = self
            .snapshot
            .get_pinned_cf(self.family(store)?, applied_key(partition))
            .doing(format_args!("reading store {store:?}"))?;
        row.map(|row| Applied::decode(store, &row)).transpose()
    }

    /// The encoded value of an encoded key.
    pub fn get(&self, store: &str, partition: PartitionId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let row = self
            .snapshot
            .get_pinned_cf(self.family(store)?, row_key(partition, key))
            .doing(format_args!("reading store {store:?}"))?;
        row.map_or(Ok(None), |row| live(store, &row))
    }

    /// The encoded values of several encoded keys, in their order.
    pub fn get_many(&self, store: &str, keys: &[(PartitionId, &[u8])]) -> Result<Vec<Option<Vec<u8>>>> {
        let family = self.family(store)?;
        let keys = keys.iter().map(|(partition, key)| (family, row_key(*partition, key)));
        let rows = self.snapshot.multi_get_cf(keys);
        let row =
            |row: Result<Option<Vec<u8>>, rocksdb::Error>| match row.doing(format_args!("reading store {store:?}"))? {
                Some(row) => live(store, &row),
                None => Ok(None),
            };
        rows.into_iter().map(row).collect()
    }

    /// Gives entries of these partitions to `visit` as (encoded key, encoded value), in the order of the keys over all
    /// partitions, at most `limit`. Returns whether there are more.
    pub fn scan(
        &self,
        store: &str,
        partitions: &[PartitionId],
        range: &KeyRange,
        limit: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<bool> {
        let family = self.family(store)?;
        let mut cursors = Vec::with_capacity(partitions.len());
        let mut next = BinaryHeap::new();
        for partition in partitions {
            let mut options = ReadOptions::default();
            options.set_snapshot(&self.snapshot);
            let cursor = Cursor::open(store, &self.db, family, *partition, range, options)?;
            if let Some(key) = cursor.key() {
                next.push(Reverse((key.to_vec(), cursors.len())));
            }
            cursors.push(cursor);
        }
        let mut left = limit;
        while let Some(Reverse((_, index))) = next.pop() {
            if left == 0 {
                return Ok(true);
            }
            left -= 1;
            let cursor = &mut cursors[index];
            if let Some(row) = cursor.row()? {
                visit(row.key, row.value)?;
            }
            cursor.advance()?;
            if let Some(key) = cursor.key() {
                next.push(Reverse((key.to_vec(), index)));
            }
        }
        Ok(false)
    }

    fn family(&self, store: &str) -> Result<&ColumnFamily> {
        let known = self.meta.stores.iter().any(|known| known.name == store);
        self.db.cf_handle(store).filter(|_| known).ok_or_else(|| {
            Error::internal("state-unknown-store", format!("store {store:?} was not among those that were opened"))
        })
    }
}

fn live(store: &str, row: &[u8]) -> Result<Option<Vec<u8>>> {
    let (state, value) = split_row(store, row)?;
    Ok(matches!(state, RowState::Live(_)).then(|| value.to_vec()))
}
