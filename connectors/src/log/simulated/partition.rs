//! The records of a partition.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::{LogRecord, NewRecord};

/// The number of a producer id. A partition knows nothing more of a transaction: the next end of one of the same id ends all that
/// is open of it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerNumber(pub(super) usize);

#[derive(Clone, Debug)]
struct Stored {
    record: LogRecord,
    /// Whose transaction it is in, until that has ended.
    open: Option<ProducerNumber>,
    /// Only who reads uncommitted records sees it.
    aborted: bool,
    /// When a tombstone may go, set by the first cleaning that saw it.
    horizon_ms: Option<u64>,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub(super) struct Partition {
    first: u64,
    end: u64,
    records: Vec<Stored>,
}

impl Partition {
    /// The first offset that is kept, and the offset after the last record or marker.
    pub(super) fn ends(&self) -> (u64, u64) {
        (self.first, self.end)
    }

    /// Where a reader of committed records stops: the first record of an open transaction.
    pub(super) fn stable_end(&self) -> u64 {
        self.first_open().map_or(self.end, |record| record.offset)
    }

    /// The record that it stops in front of.
    pub(super) fn first_open(&self) -> Option<&LogRecord> {
        self.records.iter().find(|stored| stored.open.is_some()).map(|stored| &stored.record)
    }

    pub(super) fn append(&mut self, record: NewRecord, open: Option<ProducerNumber>, now_ms: u64) -> u64 {
        let time = i64::try_from(now_ms * 1000).unwrap_or(i64::MAX);
        let record = LogRecord { offset: self.end, time, record };
        self.records.push(Stored { record, open, aborted: false, horizon_ms: None });
        self.end += 1;
        self.end
    }

    /// Ends a transaction by a marker, which takes an offset.
    pub(super) fn finish(&mut self, producer: ProducerNumber, committed: bool) {
        for stored in self.records.iter_mut().filter(|stored| stored.open == Some(producer)) {
            stored.open = None;
            stored.aborted = !committed;
        }
        self.end += 1;
    }

    /// The records that a reader of committed ones sees from an offset on.
    pub(super) fn visible(&self, from: u64) -> impl Iterator<Item = &LogRecord> {
        let stable = self.stable_end();
        let before = self.from(from).take_while(move |stored| stored.record.offset < stable);
        before.filter(|stored| !stored.aborted).map(|stored| &stored.record)
    }

    /// The records that a reader of uncommitted ones sees from an offset on.
    pub(super) fn appended(&self, from: u64) -> impl Iterator<Item = &LogRecord> {
        self.from(from).map(|stored| &stored.record)
    }

    fn from(&self, from: u64) -> impl Iterator<Item = &Stored> {
        let begin = self.records.partition_point(|stored| stored.record.offset < from);
        self.records[begin..].iter()
    }

    pub(super) fn drop_before(&mut self, before: u64) {
        self.first = self.first.max(before.min(self.end));
        let first = self.first;
        self.records.retain(|stored| stored.record.offset >= first);
    }

    /// Cleans the prefix up to `before`, which never reaches beyond the stable end: what was aborted goes, what a later record of the
    /// prefix replaces, and tombstones whose retention is over.
    pub(super) fn clean(&mut self, before: u64, now_ms: u64, retention_ms: u64) {
        let before = before.min(self.stable_end());
        let inside = |stored: &Stored| stored.record.offset < before;
        let mut last = BTreeMap::new();
        for stored in self.records.iter().filter(|stored| inside(stored) && !stored.aborted) {
            last.insert(stored.record.record.key.clone(), stored.record.offset);
        }
        let kept: BTreeSet<u64> = last.into_values().collect();
        self.records.retain_mut(|stored| {
            if !inside(stored) {
                return true;
            }
            let tombstone = stored.record.record.value.is_none();
            let gone = stored.horizon_ms.is_some_and(|horizon| tombstone && horizon <= now_ms);
            stored.horizon_ms.get_or_insert(now_ms + retention_ms);
            kept.contains(&stored.record.offset) && !gone
        });
    }
}
