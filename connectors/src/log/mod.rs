//! The log: the durable ordered thing that sources read and sinks, bindings and changelogs write.
//!
//! Two homes implement the trait: the embedded log (`embedded`), and Kafka. Contract:
//!
//! 1. A topic has a fixed number of partitions; a partition is a sequence of records with growing offsets, possibly with gaps
//!    (compaction, transaction markers). Reading from an offset gives everything still kept at or after it, in order.
//! 2. A producer is got by [`Log::fence`] with an id and a generation: every earlier producer of that id is dead from then on,
//!    its open transaction aborted; a lower generation than one seen before is refused with the code `fenced`.
//!    Where being fenced proves no newer generation, what the older producer gets is `producer-fenced`.
//! 3. [`Producer::commit`] makes everything since [`Producer::begin`] durable and visible, per topic partition all or nothing.
//!    After an error of `commit` the outcome is unknown, and the producer is unusable: fence anew, read what is there.
//! 4. Readers see only committed records, and never one that could vanish after a crash; readers of journals: see 7.
//! 5. A commit that is acknowledged is visible soon after: when [`Log::stable_ends`] have passed it. Until then a log may still lose
//!    its end in a partition, where the transaction then stays open, and shares the fate of the next one of the same id there: see
//!    [`Log::release`]. So nobody may act upon what is acknowledged before it is visible ([`await_settled`]).
//! 6. Time is the broker's: when the record was appended, not when the event happened.
//! 7. What a journal ([`Log::journal`]) has acknowledged is durable and keeps its place, whatever becomes of what it appends later; a
//!    reader of journals ([`Log::journal_reader`]) sees it at once. A newer one of the same id ends it as in 2: what was appended with an
//!    unknown outcome is there when the newer one is made, or never.

#[doc(hidden)]
pub mod conformance;
mod embedded;
mod journal;
mod position;
mod reading;
#[doc(hidden)]
pub mod simulated;
mod sink;
mod source;

pub(crate) use embedded::check_name as check_topic_name;
pub use embedded::{CleanReport, Clock, EmbeddedLog, MAX_RECORD_BYTES};
pub use journal::{Journal, read_journal};
pub use position::{POSITION_HEADER, Position};
pub use reading::{Owner, ToEnd, await_settled, read_to_end};
pub use sink::{LogSink, LogSinkConfig, Partitioner, SinkProducer};
pub use source::{LogSource, LogSourceConfig, Start};

use std::time::Duration;

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
    /// What the log does by itself; a topic that is there may keep what it likes. For the topics of users.
    Default,
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

/// A topic as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// How many partitions.
    pub partitions: u32,
    /// Only the last record of each key is sure to stay.
    pub compacted: bool,
}

/// What a job promises of its sinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// What a reader of committed records sees is what a run without any fault would show.
    #[default]
    ExactlyOnce,
    /// After a crash, records since the last checkpoint may be there twice. No transactions: cheaper, and seen sooner.
    AtLeastOnce,
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

/// A record to append, borrowed from wherever it was encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecordRef<'a> {
    /// The key, where it has one.
    pub key: Option<&'a [u8]>,
    /// The value; nothing is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Named bytes.
    pub headers: &'a [(&'a str, &'a [u8])],
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

/// What a reader shows of a record without copying it: all but its time and its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecordRef<'a> {
    /// Its place.
    pub offset: u64,
    /// The key, where it has one.
    pub key: Option<&'a [u8]>,
    /// The value; nothing is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// A log.
pub trait Log: Send + Sync {
    /// Makes the topic where it is missing; errors where it exists with another number of partitions.
    fn ensure(&self, topic: &TopicSpec) -> Result<()>;

    /// All topics with their number of partitions.
    fn topics(&self) -> Result<Vec<(String, u32)>>;

    /// A topic as it is; nothing where it is not there.
    fn topic(&self, name: &str) -> Result<Option<TopicInfo>>;

    /// The only living producer of `id` from now on.
    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>>;

    /// The producer of a sink: [`Log::fence`], or for at-least-once one without transactions where the log has such a thing.
    fn producer(&self, id: &str, generation: Generation, delivery: Delivery) -> Result<Box<dyn Producer>> {
        let _ = delivery;
        self.fence(id, generation)
    }

    /// The only living journal of `id` from now on, on one partition of a topic that nobody else writes.
    fn journal(
        &self,
        topic: &str,
        partition: PartitionId,
        id: &str,
        generation: Generation,
    ) -> Result<Box<dyn Journal>> {
        Ok(Box::new(journal::Committing::new(self.fence(id, generation)?, topic, partition)))
    }

    /// Opens a reader of what journals have appended, at `from` (or the first offset after it that is kept).
    fn journal_reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        self.reader(topic, partition, from)
    }

    /// Opens a reader at `from` (or the first offset after it that is kept).
    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>>;

    /// The first offset that is kept, and the offset after the last committed record.
    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)>;

    /// [`Log::offsets`] of several partitions, in as few requests as the log has for that.
    fn offsets_of(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<(u64, u64)>> {
        partitions.iter().map(|partition| self.offsets(topic, *partition)).collect()
    }

    /// Drops what is before `offset` (whole segments only); for bindings below C.
    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()>;

    /// Waits for something that others do to the log, by the log's clock.
    fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// For each partition the offset before which everything is decided: visible, or dropped for good. An open transaction holds it
    /// back, and with it what readers see. Where a commit is visible when it is acknowledged, nothing is ever held back.
    fn stable_ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>> {
        let _ = topic;
        Ok(vec![u64::MAX; partitions.len()])
    }

    /// The first record of the open transaction that holds a partition back, where one does.
    fn first_held_back(&self, topic: &str, partition: PartitionId) -> Result<Option<LogRecord>> {
        let _ = (topic, partition);
        Ok(None)
    }

    /// Drops what an owner has left open in a partition although the log takes all of its transactions for ended. To be called after
    /// a fence of its id; the producer that has the id now is fenced by it. A log that cannot lose the end of a transaction has
    /// nothing to do.
    ///
    /// Errors: `fenced` where the generation of the owner is over; nothing is changed then. Those of the log.
    fn release(&self, owner: Owner<'_>, topic: &str, partition: PartitionId) -> Result<()> {
        let _ = (owner, topic, partition);
        Ok(())
    }
}

/// Appends in transactions.
pub trait Producer: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<()>;

    /// Adds a record to the open transaction.
    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()>;

    /// [`Producer::append_ref`] for a record that is owned.
    fn append(&mut self, topic: &str, partition: PartitionId, record: NewRecord) -> Result<()> {
        let headers: Vec<(&str, &[u8])> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let record = NewRecordRef { key: record.key.as_deref(), value: record.value.as_deref(), headers: &headers };
        self.append_ref(topic, partition, record)
    }

    /// Ends the transaction; returns for each touched partition the offset after its last record.
    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>>;

    /// Drops the transaction.
    fn abort(&mut self) -> Result<()>;

    /// Whether this producer must be thrown away, and its id fenced anew, before the next transaction: the log cannot tell a
    /// request of the last one that is still under way from one of the next.
    fn is_spent(&self) -> bool {
        false
    }
}

/// Reads one partition.
pub trait LogReader: Send {
    /// Appends committed records to `out`, at most `max_bytes` or one record; returns whether any was there. Where none was,
    /// everything has been read that was visible when it was called.
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool>;

    /// [`LogReader::read`] for whoever only looks at the records. After an error of `take` it is not said what was read.
    fn read_ref(&mut self, max_bytes: usize, take: &mut dyn FnMut(LogRecordRef<'_>) -> Result<()>) -> Result<bool> {
        let mut records = Vec::new();
        let any = self.read(max_bytes, &mut records)?;
        records.iter().try_for_each(|LogRecord { offset, record, .. }| {
            take(LogRecordRef { offset: *offset, key: record.key.as_deref(), value: record.value.as_deref() })
        })?;
        Ok(any)
    }

    /// Every visible record before this offset has been read.
    fn position(&self) -> u64;
}
