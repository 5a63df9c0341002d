//! The sink `connector = "log"`: appends to a topic, exactly once.
//!
//! Every record carries its [`Position`]. A writer reads the tail of the topic behind the ends of C, and gives out nothing that
//! is there already: what it is given again must be, byte for byte, what is there. All records up to [`SinkWriter::end_epoch`]
//! become visible in one transaction.

mod tail;
mod writer;

use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Error, Generation, PartitionCount, PartitionId, Result};

use super::{Log, Producer, TopicSpec};
use crate::{Sink, SinkContext, SinkWriter};
use writer::LogSinkWriter;

/// Where to write, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSinkConfig {
    /// The topic; it is made where it is missing. The records of job partition `p` go to its partition `p` modulo its number of
    /// partitions.
    pub topic: TopicSpec,
    /// The index of the sink in the plan.
    pub sink: u16,
    /// The id of the task's producer, `{job_id}-sink-{name}-{task}`: one for all its workers.
    pub producer: String,
    /// How many partitions the job has.
    pub partitions: PartitionCount,
}

/// Writes a topic of a log.
pub struct LogSink {
    log: Arc<dyn Log>,
    config: LogSinkConfig,
    current: Mutex<Option<(Generation, SharedProducer)>>,
}

/// The producer of a task; its workers take turns.
type SharedProducer = Arc<Mutex<TaskProducer>>;

struct TaskProducer {
    producer: Box<dyn Producer>,
    /// A commit failed: its outcome is unknown, and nobody may go on with it.
    failed: bool,
}

impl LogSink {
    /// A sink on a log that is open for writing; makes the topic where it is missing.
    pub fn new(log: Arc<dyn Log>, config: LogSinkConfig) -> Result<Self> {
        log.ensure(&config.topic)?;
        Ok(Self { log, config, current: Mutex::new(None) })
    }

    /// The topic partition of a job partition.
    fn target(&self, partition: PartitionId) -> PartitionId {
        target(partition, self.config.topic.partitions)
    }

    /// The task's producer of a generation; fences with the first call of each generation, and after a failed commit.
    fn producer(&self, generation: Generation) -> Result<SharedProducer> {
        let mut current = self.current.lock();
        if let Some((known, producer)) = &*current {
            if *known > generation {
                let (id, topic) = (&self.config.producer, &self.config.topic.name);
                let message = format!(
                    "sink {id:?} of topic {topic:?}: generation {generation} is over, generation {known} writes"
                );
                return Err(Error::external("fenced", message));
            }
            if *known == generation && !producer.lock().failed {
                return Ok(Arc::clone(producer));
            }
        }
        let producer = self.log.fence(&self.config.producer, generation)?;
        let shared = Arc::new(Mutex::new(TaskProducer { producer, failed: false }));
        *current = Some((generation, Arc::clone(&shared)));
        Ok(shared)
    }
}

fn target(partition: PartitionId, count: u32) -> PartitionId {
    PartitionId((u32::from(partition.0) % count) as u16)
}

impl Sink for LogSink {
    /// One end for each job partition: that of its topic partition.
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        let end = |partition| Ok((partition, self.log.offsets(&self.config.topic.name, self.target(partition))?.1));
        self.config.partitions.all().map(end).collect()
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let producer = self.producer(context.generation)?;
        let parts = tail::scan(&*self.log, &self.config, context)?;
        Ok(Box::new(LogSinkWriter::new(self.config.clone(), context.job_id, producer, parts)))
    }
}
