//! A journal as that on Kafka: one long transaction after the other.

use std::time::Duration;

use thalweg_core::{Error, PartitionId, Result};

use super::Fate;
use super::producer::SimulatedProducer;
use crate::log::{Journal, NewRecord, Producer};

/// See the module's description. Dropping it leaves its transaction open, as the end of its process does.
pub(super) struct SimulatedJournal {
    producer: SimulatedProducer,
    topic: String,
    partition: PartitionId,
    /// When the open transaction is to be ended, by the virtual clock.
    end_at_ms: Option<u64>,
    failed: bool,
}

impl SimulatedJournal {
    /// One that goes on where another one was, with nothing in front.
    pub(super) fn new(producer: SimulatedProducer, topic: &str, partition: PartitionId) -> Self {
        Self { producer, topic: topic.to_owned(), partition, end_at_ms: None, failed: false }
    }

    /// One that begins, with a record that says nothing.
    pub(super) fn open(producer: SimulatedProducer, topic: &str, partition: PartitionId) -> Result<Self> {
        let mut journal = Self::new(producer, topic, partition);
        journal.put(vec![NewRecord::default()])?;
        Ok(journal)
    }

    fn put(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        let cluster = self.producer.cluster();
        if self.end_at_ms.is_none() {
            self.producer.begin()?;
            self.end_at_ms = Some(cluster.now_ms() + cluster.waits.transaction_ms / 2);
        }
        for record in records {
            self.producer.append(&self.topic, self.partition, record)?;
        }
        self.producer.delivered(&self.topic, self.partition)
    }

    fn deliver(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        let fate = self.producer.cluster().fates().of_append(self.producer.id());
        if fate != Fate::RequestLost {
            let end = self.put(records)?;
            if fate == Fate::Acknowledged {
                return Ok(end);
            }
        }
        let text = format!("producer {:?}: no answer came to what it has appended", self.producer.id());
        Err(Error::external("kafka-away", text))
    }
}

impl Journal for SimulatedJournal {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<u64> {
        self.deliver(records).inspect_err(|_| self.failed = true)
    }

    fn tend(&mut self) -> Option<Duration> {
        let left_ms = self.end_at_ms?.saturating_sub(self.producer.cluster().now_ms());
        if left_ms > 0 {
            return Some(Duration::from_millis(left_ms));
        }
        self.end_at_ms = None;
        // What becomes of it changes nothing.
        let _ = self.producer.commit();
        None
    }

    fn is_spent(&self) -> bool {
        self.failed || self.producer.is_spent()
    }
}
