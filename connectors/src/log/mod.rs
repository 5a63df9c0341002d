//! The log: the durable ordered thing that sources read and sinks, bindings and changelogs write.
//!
//! Two homes implement the trait: the embedded log (`embedded`), and Kafka. Contract:
//!
//! 1. A topic has a fixed number of partitions; a partition is a sequence of records with growing offsets, possibly with gaps
//!    (compaction, transaction markers). Reading from an offset gives everything still kept at or after it, in order.
//! 2. A producer is got by [`Log::fence`] with an id and a generation: every earlier producer of that id is dead from then on,
//!    its open transaction aborted; a lower generation than one seen before is refused with the code `fenced`.
//! 3. [`Producer::commit`] makes everything since [`Producer::begin`] durable and visible, per topic partition all or nothing.
//!    After an error of `commit` the outcome is unknown, and the producer is unusable: fence anew, read what is there.
//! 4. Readers see only committed records, and never one that could vanish after a crash.
//! 5. Time is the broker's: when the record was appended, not when the event happened.

#[doc(hidden)]
pub mod conformance;
mod embedded;
mod position;
mod sink;
mod source;

pub use embedded::{CleanReport, Clock, EmbeddedLog, MAX_RECORD_BYTES};
pub use position::{POSITION_HEADER, Position};
pub use sink::{LogSink, LogSinkConfig};
pub use source::{LogSource, LogSourceConfig, Start};

use thalweg_core::{Generation, PartitionId, Result};

/// What a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Everything.
    Keep,
    /// The last record of each key; tombstones for at least `delete_retention_ms` after the first cleaning that saw them.
    Compact {
        /// Milliseconds.
        delete_retention_ms: u64,
    },
    /// Whole segments older than `max_age_ms`, or beyond `max_bytes`, go; nothing means no bound.
    Bounded {
        /// Milliseconds.
        max_age_ms: Option<u64>,
        /// Bytes per partition.
        max_bytes: Option<u64>,
    },
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name: `[a-zA-Z0-9._-]`, at most 249 characters.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// What it keeps.
    pub retention: Retention,
}

/// A record to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The key, where it has one.
    pub key: Option<Vec<u8>>,
    /// The value; nothing is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Named bytes.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place.
    pub offset: u64,
    /// When it was appended, microseconds since 1970.
    pub time: i64,
    /// The record.
    pub record: NewRecord,
}

/// A log.
pub trait Log: Send + Sync {
    /// Makes the topic where it is missing; errors where it exists with another number of partitions.
    fn ensure(&self, topic: &TopicSpec) -> Result<()>;

    /// All topics with their number of partitions.
    fn topics(&self) -> Result<Vec<(String, u32)>>;

    /// The only living producer of `id` from now on.
    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>>;

    /// Opens a reader at `from` (or the first offset after it that is kept).
    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>>;

    /// The first offset that is kept, and the offset after the last committed record.
    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)>;

    /// Drops what is before `offset` (whole segments only); for bindings below C.
    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()>;
}

/// Appends in transactions.
pub trait Producer: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<()>;

    /// Adds a record to the open transaction.
    fn append(&mut self, topic: &str, partition: PartitionId, record: NewRecord) -> Result<()>;

    /// Ends the transaction; returns for each touched partition the offset after its last record.
    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>>;

    /// Drops the transaction.
    fn abort(&mut self) -> Result<()>;
}

/// Reads one partition.
pub trait LogReader: Send {
    /// Appends committed records to `out`, at most `max_bytes` or one record; returns whether any was there.
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool>;

    /// The offset after the last record that was read.
    fn position(&self) -> u64;
}
