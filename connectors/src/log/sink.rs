//! The sink on a log: appends to a topic, exactly once.
//!
//! Every record carries its [`Position`](super::Position). A writer reads the tail of the topic behind the ends of C, and gives out
//! nothing that is there already: what it is given again must be, byte for byte, what is there. All sinks of a task share one
//! producer ([`SinkProducer`]), and all epochs that are ready go into one transaction of it. Where the outcome of that is unknown, a
//! new producer fences the old one, the tail is read again, and what is not there is written again: positions decide, no marker.

mod murmur;
mod producer;
mod settling;
mod tail;
mod writer;

use std::sync::Arc;

use thalweg_core::{PartitionCount, PartitionId, Result};

use super::{Delivery, Log, Retention, TopicSpec};
use crate::{Sink, SinkContext, SinkWriter};
pub use producer::SinkProducer;
use settling::Settling;
use writer::LogSinkWriter;

/// How the partition of a topic is chosen for a record that names none itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioner {
    /// Job partition `p` writes to partition `p` modulo their number: what is keyed stays in order.
    JobPartition,
    /// By the record's key as Kafka's own clients do: murmur2 of its bytes, modulo the number of partitions. Without a key, as by
    /// job partition.
    Key,
}

/// Where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSinkConfig {
    /// The topic; it is made where it is missing.
    pub topic: String,
    /// Partitions of the topic; nothing means as many as it has, or as the job has where it is made.
    pub topic_partitions: Option<u32>,
    /// Who reads what.
    pub partitioner: Partitioner,
    /// The index of the sink in the plan.
    pub sink: u16,
    /// How many partitions the job has.
    pub partitions: PartitionCount,
}

/// What a writer knows of its topic.
#[derive(Clone, Debug)]
struct Target {
    config: LogSinkConfig,
    /// Partitions of the topic.
    count: u32,
    /// Only the last record of each key is sure to be there.
    compacted: bool,
}

/// Writes a topic of a log.
pub struct LogSink {
    log: Arc<dyn Log>,
    producer: Arc<SinkProducer>,
    target: Target,
    settling: Arc<Settling>,
}

impl LogSink {
    /// A sink that writes by the task's producer; makes the topic where it is missing.
    ///
    /// Errors: those of the log; `topic-partitions` where the topic is there with another number of partitions than is asked for.
    pub fn new(producer: Arc<SinkProducer>, config: LogSinkConfig) -> Result<Self> {
        let log = producer.log();
        let found = log.topic(&config.topic)?;
        if found.is_none() || config.topic_partitions.is_some() {
            let partitions = config.topic_partitions.unwrap_or_else(|| config.partitions.get());
            log.ensure(&TopicSpec { name: config.topic.clone(), partitions, retention: Retention::Default })?;
        }
        let count = found.map(|found| found.partitions).or(config.topic_partitions);
        let count = count.unwrap_or_else(|| config.partitions.get());
        let compacted = found.is_some_and(|found| found.compacted);
        let settling = Arc::new(Settling::new(Arc::clone(&producer), config.topic.clone(), count));
        Ok(Self { log, producer, target: Target { config, count, compacted }, settling })
    }
}

impl Target {
    fn name(&self) -> &str {
        &self.config.topic
    }

    /// The partition of the topic for a record.
    fn partition(&self, job_partition: PartitionId, named: Option<u32>, key: Option<&[u8]>) -> PartitionId {
        let index = match (named, self.config.partitioner, key) {
            (Some(named), ..) => named,
            (None, Partitioner::Key, Some(key)) => murmur::partition(key, self.count),
            (None, Partitioner::Key, None) | (None, Partitioner::JobPartition, _) => u32::from(job_partition.0),
        };
        PartitionId((index % self.count) as u16)
    }
}

impl Sink for LogSink {
    /// One end for each partition of the topic.
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        let partitions: Vec<_> = (0..self.target.count).map(|partition| PartitionId(partition as u16)).collect();
        let offsets = self.log.offsets_of(self.target.name(), &partitions)?;
        Ok(partitions.into_iter().zip(offsets).map(|(partition, (_, end))| (partition, end)).collect())
    }

    fn is_settled(&self, ends: &[(PartitionId, u64)]) -> Result<bool> {
        self.settling.look(ends)
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let incarnation = self.producer.enter(context.generation)?;
        let ends = (0..self.target.count).map(|index| {
            let partition = PartitionId(index as u16);
            let end = context.partitions.iter().find(|(known, _)| *known == partition);
            (partition, end.map_or(0, |(_, end)| *end))
        });
        let producer = Arc::clone(&self.producer);
        self.settling.enter(context.job_id);
        let (target, settling, ends) = (self.target.clone(), Arc::clone(&self.settling), ends.collect());
        let mut writer =
            LogSinkWriter::new(target, context.job_id, context.checkpoint, (producer, incarnation), settling, ends);
        if self.producer.delivery() == Delivery::ExactlyOnce {
            writer.scan()?;
        }
        Ok(Box::new(writer))
    }
}
