//! A log in memory that keeps Kafka's rules, for tests: a virtual clock, and every fault the choice of whoever runs it.
//!
//! What it has of Kafka: a producer id belongs to the last caller of init, whoever that is; a transaction spans partitions and ends
//! with a marker that takes an offset in each; a reader of committed records stops in front of the first open transaction; a
//! transaction that stays open is aborted in time; a request to end a transaction may get lost, lose its answer, or come late and end
//! the next one of the same producer; a broker that dies when the end of a transaction is decided may lose the marker of one
//! partition, where the next end of a transaction of the same id is that of both; a cleaning drops what a later record of the same key replaces, up to any offset, and tombstones
//! only after their retention; the first records go when somebody drops them; anybody may append to any topic. What it has not:
//! several brokers, and records that are under way (a producer's appends arrive at once).
//!
//! [`SimulatedCluster`] is the brokers, [`SimulatedLog`] one client of them as `KafkaLog` is, [`Fates`] who chooses.

mod cluster;
mod journal;
mod partition;
mod producer;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thalweg_core::{Error, Generation, PartitionId, Result};

use super::{Delivery, Journal, Log, LogReader, LogRecord, NewRecordRef, Owner, Producer, TopicInfo, TopicSpec};
use crate::kafka::Look;
pub use cluster::SimulatedCluster;
use journal::SimulatedJournal;
use producer::SimulatedProducer;
use reader::SimulatedReader;

/// What a client is about to ask of the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `init_transactions`.
    Init,
    /// The look at the generation after it.
    Look,
    /// A record of a transaction.
    Append,
    /// The end of a transaction.
    End,
    /// Records of a partition.
    Read,
    /// The ends of a partition.
    Offsets,
}

/// What becomes of a request: to end a transaction, or to append to a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done and acknowledged.
    Acknowledged,
    /// It is done, the client does not learn it.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// The client gives up; the request arrives when [`SimulatedCluster::deliver`] says so.
    Delayed,
    /// It was slow and was sent twice: the first is acknowledged, the second arrives later.
    SentTwice,
    /// The same, and the client has not noticed: it goes on, and the second may end its next transaction.
    SentTwiceUnnoticed,
}

impl Fate {
    /// All of them, the one without a fault first.
    pub const ALL: [Self; 6] = [
        Self::Acknowledged,
        Self::AnswerLost,
        Self::RequestLost,
        Self::Delayed,
        Self::SentTwice,
        Self::SentTwiceUnnoticed,
    ];

    /// Those of records of a journal. The log knows one that comes twice, and takes none of a producer that was fenced.
    pub const OF_APPENDS: [Self; 3] = [Self::Acknowledged, Self::AnswerLost, Self::RequestLost];
}

/// Chooses what happens.
pub trait Fates: Send + Sync {
    /// Something may come before this step: requests that are under way may arrive, time may pass.
    fn before(&self, cluster: &SimulatedCluster, step: Step);

    /// What becomes of the end of a transaction of this id.
    fn of_end(&self, id: &str) -> Fate;

    /// What becomes of what the journal of this id appends: one of [`Fate::OF_APPENDS`].
    fn of_append(&self, _id: &str) -> Fate {
        Fate::Acknowledged
    }

    /// Which of the partitions of a transaction of this id, if any, gets no marker although its end is decided.
    fn lost_marker(&self, _id: &str, _partitions: usize) -> Option<usize> {
        None
    }

    /// Most bytes that one read gives, where that is less than the client asks for.
    fn read_bytes(&self) -> usize {
        usize::MAX
    }
}

/// Nothing fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calm;

impl Fates for Calm {
    fn before(&self, _: &SimulatedCluster, _: Step) {}

    fn of_end(&self, _: &str) -> Fate {
        Fate::Acknowledged
    }
}

/// One client of the brokers.
pub struct SimulatedLog {
    cluster: Arc<SimulatedCluster>,
    look: Look,
    /// The highest generation by which each id was fenced here.
    seen: Mutex<BTreeMap<String, Generation>>,
}

impl SimulatedLog {
    /// A client; `look` tells the current generation of the job.
    pub fn new(cluster: Arc<SimulatedCluster>, look: Look) -> Self {
        Self { cluster, look, seen: Mutex::default() }
    }

    /// A producer of an id without init, so nobody is fenced: what a client has that goes on with one it should have thrown away.
    pub fn same(&self, id: &str) -> Box<dyn Producer> {
        Box::new(SimulatedProducer::transactional(&self.cluster, id, self.cluster.epoch(id)))
    }

    /// The same of a journal.
    pub fn same_journal(&self, topic: &str, partition: PartitionId, id: &str) -> Box<dyn Journal> {
        let producer = SimulatedProducer::transactional(&self.cluster, id, self.cluster.epoch(id));
        Box::new(SimulatedJournal::new(producer, topic, partition))
    }

    /// [`Log::fence`].
    fn fenced(&self, id: &str, generation: Generation) -> Result<SimulatedProducer> {
        let stale = |known: Generation| {
            let text = format!("producer {id:?}: generation {generation} is over, generation {known} writes");
            Error::external("fenced", text)
        };
        let known = self.seen.lock().get(id).copied();
        if let Some(known) = known.filter(|known| *known > generation) {
            return Err(stale(known));
        }
        self.cluster.before(Step::Init);
        let epoch = self.cluster.init(id);
        self.cluster.before(Step::Look);
        let current = (self.look)()?;
        if current > generation {
            return Err(stale(current));
        }
        self.seen.lock().insert(id.to_owned(), generation);
        Ok(SimulatedProducer::transactional(&self.cluster, id, epoch))
    }
}

impl Log for SimulatedLog {
    fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        self.cluster.ensure(topic)
    }

    fn topics(&self) -> Result<Vec<(String, u32)>> {
        Ok(self.cluster.topics())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        Ok(self.cluster.topic(name))
    }

    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        Ok(Box::new(self.fenced(id, generation)?))
    }

    fn journal(
        &self,
        topic: &str,
        partition: PartitionId,
        id: &str,
        generation: Generation,
    ) -> Result<Box<dyn Journal>> {
        Ok(Box::new(SimulatedJournal::open(self.fenced(id, generation)?, topic, partition)?))
    }

    fn journal_reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let (first, _) = self.cluster.ends(topic, partition)?;
        Ok(Box::new(SimulatedReader::new(&self.cluster, topic, partition, from.max(first)).of_uncommitted()))
    }

    fn producer(&self, id: &str, generation: Generation, delivery: Delivery) -> Result<Box<dyn Producer>> {
        match delivery {
            Delivery::ExactlyOnce => self.fence(id, generation),
            Delivery::AtLeastOnce => Ok(Box::new(SimulatedProducer::plain(&self.cluster, id))),
        }
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let (first, _) = self.cluster.ends(topic, partition)?;
        Ok(Box::new(SimulatedReader::new(&self.cluster, topic, partition, from.max(first))))
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        self.cluster.before(Step::Offsets);
        self.cluster.ends(topic, partition)
    }

    fn stable_ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>> {
        partitions.iter().map(|partition| self.cluster.stable_end(topic, *partition)).collect()
    }

    fn first_held_back(&self, topic: &str, partition: PartitionId) -> Result<Option<LogRecord>> {
        self.cluster.first_open(topic, partition)
    }

    fn release(&self, owner: Owner<'_>, topic: &str, partition: PartitionId) -> Result<()> {
        let mut producer = self.fenced(owner.id, owner.generation)?;
        producer.begin()?;
        producer.append_ref(topic, partition, NewRecordRef { key: Some(&[]), ..NewRecordRef::default() })?;
        producer.abort()
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.cluster.drop_records(topic, partition, before)
    }

    fn wait(&self, time: Duration) {
        let asked_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.cluster.advance(asked_ms.max(self.cluster.waits.client_ms));
    }
}

#[cfg(test)]
mod tests;
