//! Walks the rows of one partition in RocksDB.

use rocksdb::{ColumnFamily, DB, DBRawIterator, ReadOptions};
use thalweg_core::{PartitionId, Result};

use crate::KeyRange;
use crate::changelog::RowState;
use crate::layout::{PREFIX, split_row};
use crate::rocks_error::Doing;

/// The rows of a partition in a range, in the order of their keys, DELETED ones left out unless asked for.
pub(crate) struct Cursor<'a> {
    store: &'a str,
    iterator: DBRawIterator<'a>,
    with_deleted: bool,
}

/// A row as it is stored.
pub(crate) struct Row<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) state: RowState,
    pub(crate) value: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// At the first row. `options` may name a snapshot.
    pub(crate) fn open(
        store: &'a str,
        db: &'a DB,
        family: &ColumnFamily,
        partition: PartitionId,
        range: &KeyRange,
        mut options: ReadOptions,
    ) -> Result<Self> {
        let (low, high) = range.stored(partition);
        // Within these bounds a range that is upside down is merely empty.
        options.set_iterate_upper_bound(high);
        options.set_total_order_seek(true);
        let mut iterator = db.raw_iterator_cf_opt(family, options);
        iterator.seek(low);
        let mut cursor = Self { store, iterator, with_deleted: false };
        cursor.settle()?;
        Ok(cursor)
    }

    /// At the first row, DELETED ones included.
    pub(crate) fn open_with_deleted(
        store: &'a str,
        db: &'a DB,
        family: &ColumnFamily,
        partition: PartitionId,
        options: ReadOptions,
    ) -> Result<Self> {
        let (low, _) = KeyRange::all().stored(partition);
        let mut cursor = Self::open(store, db, family, partition, &KeyRange::all(), options)?;
        cursor.with_deleted = true;
        cursor.iterator.seek(low);
        cursor.settle()?;
        Ok(cursor)
    }

    /// The row that it is at.
    pub(crate) fn row(&self) -> Result<Option<Row<'_>>> {
        let Some((key, value)) = self.iterator.item() else { return Ok(None) };
        let (state, value) = split_row(self.store, value)?;
        Ok(Some(Row { key: &key[PREFIX..], state, value }))
    }

    /// The key that it is at.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.iterator.key().map(|key| &key[PREFIX..])
    }

    /// To the next row.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.iterator.next();
        self.settle()
    }

    fn settle(&mut self) -> Result<()> {
        while !self.with_deleted && self.row()?.is_some_and(|row| row.state.is_deleted()) {
            self.iterator.next();
        }
        self.iterator.status().doing(format_args!("reading store {:?}", self.store))
    }
}
