//! The cluster of a job, and what its sinks write there.

use std::sync::Arc;

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog, KafkaSinkConfig};
use thalweg_connectors::log::Log;
use thalweg_core::{Generation, Result};

use crate::schemas::JobSchemas;
use crate::spec::{JobSpec, KafkaSinkSpec, KafkaSpec, SinkSpec};

impl KafkaSpec {
    /// How the cluster is reached, with every secret read.
    ///
    /// Errors: `secret-missing`; `kafka-property` where librdkafka refuses a value.
    pub fn config(&self) -> Result<KafkaConfig> {
        let read = self.properties.iter().map(|(name, value)| Ok((name.clone(), value.read("[kafka.properties]")?)));
        let mut config = KafkaConfig::new(&self.bootstrap_servers, read.collect::<Result<_>>()?)?;
        config.replication = self.replication;
        config.patience = self.wait;
        config.transaction_timeout = self.transaction_timeout;
        Ok(config)
    }
}

/// A cluster as who looks at the dead letters of a job reads it, over connections of its own: nothing is written by it.
pub fn dead_letters_log(cluster: &KafkaConfig, job: &str) -> Result<Arc<dyn Log>> {
    let name = format!("thalweg-{job}-dead-letters");
    Ok(Arc::new(KafkaLog::new(cluster.clone(), &name, Arc::new(|| Ok(Generation::default())))?))
}

/// Where a sink writes, and what its records become there.
pub(crate) fn sink_config(
    job: &JobSpec,
    sink: &SinkSpec,
    spec: &KafkaSinkSpec,
    schemas: &JobSchemas,
) -> Result<KafkaSinkConfig> {
    Ok(KafkaSinkConfig {
        topic: spec.topic.clone(),
        partitions: spec.partitions,
        partitioner: spec.partitioner,
        key: job.kafka_key(sink, spec),
        partition: spec.partition.clone(),
        headers: spec.headers.clone(),
        tombstone: spec.tombstone.clone(),
        key_writer: schemas.key_writer(sink)?,
        value: schemas.value_writer(sink, &spec.format)?,
    })
}

impl JobSpec {
    /// The fields of the key of what a sink writes: those that it says, else those by which its inputs are keyed, where that is
    /// the same for all of them.
    pub(crate) fn kafka_key(&self, sink: &SinkSpec, spec: &KafkaSinkSpec) -> Vec<String> {
        if !spec.keyed {
            return Vec::new();
        }
        if let Some(key) = &spec.key {
            return key.clone();
        }
        let key_of = |input: &String| {
            let operator = self.operators.iter().find(|operator| operator.id == *input);
            operator.filter(|operator| operator.store.is_some()).and_then(|operator| operator.key.clone())
        };
        let mut keys = sink.inputs.iter().map(key_of);
        let first = keys.next().flatten().unwrap_or_default();
        if keys.all(|key| key.as_ref() == Some(&first)) { first } else { Vec::new() }
    }
}
