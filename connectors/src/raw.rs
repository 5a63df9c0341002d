//! Raw bytes below the formats: what a connector reads before anything is decoded.
//!
//! A connector that frames bytes (a file, a log, a socket) implements [`RawSource`]; a `FormattedSource` makes a
//! [`RecordSource`](crate::RecordSource) of it. The clauses of `source` hold for raw records in the same way.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use thalweg_core::{PartitionId, PartitionSpec, Result};

use crate::{BadRecord, Lag, ReadLimit, ReadState, Waker};

/// Reads the raw records of one partition.
pub trait RawReader: Send {
    /// Appends records to `batch`, in order; the limits are those of [`RecordReader::read`](crate::RecordReader::read).
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState>;

    /// The position after the last record that was read.
    fn position(&self) -> u64;

    /// What stands before the first record and names the columns, where the framing has such a thing.
    fn header(&self) -> Option<&[u8]> {
        None
    }

    /// How much of a bounded partition is read, 0 to 1, for people; nothing where it cannot be told.
    fn fraction(&self) -> Option<f64> {
        None
    }

    /// Looks whether what a record was read from is damaged, where it was kept in a form that tells: asked when a record cannot be
    /// decoded, so that damage is not taken for a bad record, or dropped as one.
    fn check_whole(&mut self) -> Result<()> {
        Ok(())
    }

    /// How often input was gone before it was certainly read, since the source was made.
    fn losses(&self) -> u64 {
        0
    }

    /// As [`RecordReader::lag`](crate::RecordReader::lag).
    fn lag(&mut self) -> Option<Lag> {
        None
    }

    /// See [`RecordReader::wake`](crate::RecordReader::wake).
    fn wake(&mut self, waker: Waker) -> bool {
        drop(waker);
        false
    }

    /// See [`RecordReader::take_lost`](crate::RecordReader::take_lost).
    fn take_lost(&mut self) -> u64 {
        0
    }
}

/// Something with partitions of raw records.
pub trait RawSource: Send + Sync {
    /// Every partition, in an order that does not matter, with its resolved start; `source` is the index to put into the specs.
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>>;

    /// As [`RecordSource::discover_interval`](crate::RecordSource::discover_interval).
    fn discover_interval(&self) -> Option<Duration> {
        None
    }

    /// As [`RecordSource::discover_more`](crate::RecordSource::discover_more).
    fn discover_more(&self, source: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let _ = (source, known);
        Ok(Vec::new())
    }

    /// Opens a partition at a position that is its start or the position after one of its records.
    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>>;

    /// The topic and the number of its partition that a partition of the source reads, where it is one of a topic.
    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        let _ = partition;
        None
    }

    /// A committed checkpoint holds everything of a partition before `position`; as
    /// [`RecordSource::committed`](crate::RecordSource::committed).
    fn committed(&self, _partition: PartitionId, _position: u64) -> Result<()> {
        Ok(())
    }
}

/// Raw records of one call, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBatch {
    /// All bytes.
    pub data: Vec<u8>,
    /// Where each record is in `data`.
    pub records: Vec<RawRecord>,
    /// The headers of all records, in order.
    pub headers: Vec<RawHeader>,
    /// What was read, where it is a partition of a topic.
    pub place: Option<Arc<TopicPartition>>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The number of the partition in it.
    pub partition: u32,
}

/// Where a header is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawHeader {
    /// Its name, UTF-8.
    pub name: Range<usize>,
    /// Its bytes.
    pub value: Range<usize>,
}

/// Where one raw record is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRecord {
    /// The value.
    pub value: Range<usize>,
    /// Whether there is no value: a tombstone, which says that the key is gone.
    pub tombstone: bool,
    /// The key, where the source has keys.
    pub key: Option<Range<usize>>,
    /// Its part of [`RawBatch::headers`].
    pub headers: Range<usize>,
    /// When it was appended, microseconds since 1970, where the source knows.
    pub time: Option<i64>,
    /// The position after it; in a topic, the offset after it.
    pub next: u64,
}

impl RawBatch {
    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.records.clear();
        self.headers.clear();
    }

    /// The bytes of a record's value.
    pub fn value(&self, record: &RawRecord) -> &[u8] {
        &self.data[record.value.clone()]
    }

    /// The name and the bytes of each header of a record, in order.
    pub fn headers(&self, record: &RawRecord) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers[record.headers.clone()].iter().map(|header| {
            let name = std::str::from_utf8(&self.data[header.name.clone()]).unwrap_or_default();
            (name, &self.data[header.value.clone()])
        })
    }

    /// The bytes of a record's key, where it has one.
    pub fn key(&self, record: &RawRecord) -> Option<&[u8]> {
        record.key.clone().map(|key| &self.data[key])
    }

    /// Adds bytes; returns where they are.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        start..self.data.len()
    }

    /// Reports a record as undecodable. Where it begins and what stands before it is added by who knows the partition.
    pub fn bad(&self, record: &RawRecord, why: impl Into<String>) -> BadRecord {
        BadRecord {
            at: 0,
            next: record.next,
            why: why.into(),
            key: self.key(record).map(<[u8]>::to_vec),
            raw: (!record.tombstone).then(|| self.value(record).to_vec()),
            headers: self.headers(record).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            time: record.time,
            header: None,
            retried: None,
        }
    }
}
