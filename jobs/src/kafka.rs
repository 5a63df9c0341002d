//! What a record of the job becomes in a topic of Kafka: key, value, headers, partition.

use std::sync::Arc;

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog};
use thalweg_connectors::log::Log;
use thalweg_connectors::{AvroWriter, EncodedBatch, EncodedRecord, OutFormat};
use thalweg_core::{Error, Generation, Result, Value};

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

/// Writes the values of a sink's records.
#[derive(Clone, Debug)]
pub(crate) enum ValueWriter {
    Plain(OutFormat),
    Avro(Arc<AvroWriter>),
}

impl ValueWriter {
    fn encode_value(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Plain(format) => format.encode_value(value, out),
            Self::Avro(writer) => writer.encode_value(value, out),
        }
    }
}

/// Encodes the records of one sink.
#[derive(Debug)]
pub(crate) struct KafkaEncoder {
    key: Vec<String>,
    partition: Option<String>,
    headers: Vec<Arc<str>>,
    tombstone: Option<String>,
    format: ValueWriter,
    sink: String,
}

impl KafkaEncoder {
    pub(crate) fn new(job: &JobSpec, sink: &SinkSpec, spec: &KafkaSinkSpec, format: ValueWriter) -> Self {
        Self {
            key: job.kafka_key(sink, spec),
            partition: spec.partition.clone(),
            headers: spec.headers.iter().map(|name| Arc::from(name.as_str())).collect(),
            tombstone: spec.tombstone.clone(),
            format,
            sink: sink.id.clone(),
        }
    }

    /// Adds the record to the batch.
    ///
    /// Errors: a partition that is no number, a deletion without a key, what the format cannot write.
    pub(crate) fn encode(&self, record: &Value, batch: &mut EncodedBatch) -> Result<()> {
        let key = match self.key.as_slice() {
            [] => None,
            [field] => put(batch, |out| key_text(record.get(field).unwrap_or(&Value::Null), out))?,
            fields => {
                let values = fields.iter().map(|field| record.get(field).cloned().unwrap_or_default()).collect();
                put(batch, |out| OutFormat::Json.encode_value(&Value::List(values), out).map(|()| true))?
            }
        };
        let deleted = self.tombstone.as_ref().is_some_and(|field| record.get(field) == Some(&Value::Bool(true)));
        if deleted && key.is_none() {
            return Err(self.refused("deletes a record, and has no key to say which: give the sink a key"));
        }
        let value = match deleted {
            true => None,
            false => put(batch, |out| self.format.encode_value(record, out).map(|()| true))?,
        };
        let mut headers = Vec::new();
        for name in &self.headers {
            match record.get(name) {
                None | Some(Value::Null) => {}
                Some(value) => headers.extend(put(batch, |out| key_text(value, out))?.map(|at| (name.clone(), at))),
            }
        }
        let partition = match self.partition.as_ref().map(|field| (field, record.get(field))) {
            None => None,
            Some((_, Some(Value::Int(partition)))) if u32::try_from(*partition).is_ok() => Some(*partition as u32),
            Some((field, found)) => {
                let found = found.unwrap_or(&Value::Null);
                return Err(self.refused(&format!(
                    "takes its partition from {field:?}, which is {found}: give a number from 0 on"
                )));
            }
        };
        batch.records.push(EncodedRecord { key, value, partition, headers });
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        Error::user("sink-record", format!("sink {:?}: a record {why}", self.sink))
    }
}

/// Text as it is, everything else as JSON; nothing, where there is no value.
fn key_text(value: &Value, out: &mut Vec<u8>) -> Result<bool> {
    match value {
        Value::Null => Ok(false),
        Value::Str(text) => {
            out.extend_from_slice(text.as_bytes());
            Ok(true)
        }
        other => OutFormat::Json.encode_value(other, out).map(|()| true),
    }
}

fn put(
    batch: &mut EncodedBatch,
    write: impl FnOnce(&mut Vec<u8>) -> Result<bool>,
) -> Result<Option<std::ops::Range<usize>>> {
    let start = batch.data.len();
    let there = write(&mut batch.data)?;
    Ok(there.then_some(start..batch.data.len()))
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
