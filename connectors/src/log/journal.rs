//! A journal: records that count as soon as they are acknowledged, not when a transaction ends.
//!
//! A transaction is for what has to be seen as a whole, or not at all. A journal is for single records in their order, of which each
//! stands for itself: it has the fence of a producer, and does not wait for an end. Where the log has transactions only, each append is one.

use std::time::Duration;

use thalweg_core::{PartitionId, Result};

use super::reading::ToEnd;
use super::{Log, LogRecord, NewRecord, Producer};

/// Appends to one partition.
pub trait Journal: Send {
    /// Appends records, each with a value, one behind the other; returns the offset after the last one. They are durable then.
    ///
    /// Errors: after one the outcome is unknown, and the journal is unusable: make it anew, read what is there.
    fn append(&mut self, records: Vec<NewRecord>) -> Result<u64>;

    /// Ends a transaction that has been open for long. To be called when nobody waits, and again after the time that it tells.
    fn tend(&mut self) -> Option<Duration> {
        None
    }

    /// Whether it has to be made anew before the next append.
    fn is_spent(&self) -> bool;
}

/// A journal on a log whose commits are acknowledged when they are durable, and cannot be lost after that.
pub(super) struct Committing {
    producer: Box<dyn Producer>,
    topic: String,
    partition: PartitionId,
    failed: bool,
}

impl Committing {
    pub(super) fn new(producer: Box<dyn Producer>, topic: &str, partition: PartitionId) -> Self {
        Self { producer, topic: topic.to_owned(), partition, failed: false }
    }

    fn commit(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        self.producer.begin()?;
        for record in records {
            self.producer.append(&self.topic, self.partition, record)?;
        }
        Ok(self.producer.commit()?.first().map_or(0, |(_, _, end)| *end))
    }
}

impl Journal for Committing {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        self.commit(records).inspect_err(|_| self.failed = true)
    }

    fn is_spent(&self) -> bool {
        self.failed || self.producer.is_spent()
    }
}

/// Gives every record of a journal from an offset on to `take`, up to the end that it has now; returns the offset up to which everything
/// was given. Records without a value are the log's own, and left out.
///
/// Errors: those of the log and of `take`.
pub fn read_journal(
    log: &dyn Log,
    topic: &str,
    partition: PartitionId,
    from: u64,
    mut take: impl FnMut(LogRecord) -> Result<()>,
) -> Result<u64> {
    let (_, end) = log.offsets(topic, partition)?;
    let reader = if from < end { Some(log.journal_reader(topic, partition, from)?) } else { None };
    ToEnd { reader, from, end }.read(|record| if record.record.value.is_some() { take(record) } else { Ok(()) })
}
