//! The Kafka cluster of a job that is written in Rust: a job file names its own.

use std::sync::Arc;

use thalweg_connectors::kafka::{KafkaConfig, KafkaSink};
use thalweg_connectors::log::{Delivery, SinkProducer};
use thalweg_core::{PartitionCount, Result};

/// The cluster that holds the bindings of a job, and what the job writes there.
pub struct JobCluster {
    /// How it is reached.
    pub config: KafkaConfig,
    /// What sinks on it promise.
    pub delivery: Delivery,
    /// Whether dead letters go there, and to which topic, where one is named.
    pub dead_letters: Option<Option<String>>,
    /// Each with its index among all sinks of the job.
    pub(crate) sinks: Vec<(u16, Arc<KafkaSink>)>,
}

impl JobCluster {
    /// Connects the sinks of a job with so many partitions; makes their topics where they are missing.
    ///
    /// Errors: those of [`KafkaSink::connect`].
    pub fn connect(&self, producer: &Arc<SinkProducer>, partitions: PartitionCount) -> Result<()> {
        self.sinks.iter().try_for_each(|(index, sink)| sink.connect(producer.clone(), *index, partitions))
    }
}
