//! A journal on Kafka: one long transaction after the other, for whose marker nobody waits.
//!
//! A record that a broker has acknowledged for a transactional producer stands in the partition, in front of the fence of the next
//! one, also where its transaction is aborted: whoever reads uncommitted records sees it. So one produce request makes a binding
//! durable, where a transaction for each would take three requests, a marker, and a wait for that to be visible.
//!
//! It begins with a record that says nothing. From then on the partition itself knows that whoever had the id before is fenced, and refuses
//! a request of theirs that is still under way, also where a broker has lost the marker of their transaction.

use std::time::{Duration, Instant};

use thalweg_core::{PartitionId, Result};

use super::producer::KafkaProducer;
use crate::log::{Journal, NewRecord, Producer};

/// See the module's description.
pub(super) struct KafkaJournal {
    producer: KafkaProducer,
    topic: String,
    partition: PartitionId,
    /// The broker aborts a transaction, and fences its producer, after so long.
    timeout: Duration,
    /// Since when a transaction is open.
    open: Option<Instant>,
}

impl KafkaJournal {
    pub(super) fn open(
        producer: KafkaProducer,
        topic: &str,
        partition: PartitionId,
        timeout: Duration,
    ) -> Result<Self> {
        let mut journal = Self { producer, topic: topic.to_owned(), partition, timeout, open: None };
        journal.append(vec![NewRecord::default()])?;
        Ok(journal)
    }

    fn deliver(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        if self.open.is_none() {
            self.producer.begin()?;
            self.open = Some(Instant::now());
        }
        for record in records {
            self.producer.append(&self.topic, self.partition, record)?;
        }
        let ends = self.producer.deliver(self.timeout)?;
        Ok(ends.iter().map(|(_, _, end)| *end).max().unwrap_or(0))
    }
}

impl Journal for KafkaJournal {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        self.deliver(records).inspect_err(|_| self.producer.spend())
    }

    fn tend(&mut self) -> Option<Duration> {
        let left = (self.timeout / 2).saturating_sub(self.open?.elapsed());
        if !left.is_zero() {
            return Some(left);
        }
        self.open = None;
        // What becomes of the transaction changes nothing; a producer that could not end it is spent.
        if let Err(error) = self.producer.commit() {
            tracing::debug!("topic {:?}: {error}", self.topic);
        }
        None
    }

    fn is_spent(&self) -> bool {
        self.producer.is_spent()
    }
}
