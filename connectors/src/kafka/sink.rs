//! What a record of a job becomes in a topic of Kafka: key, value, headers, partition.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use thalweg_core::{Error, PartitionCount, PartitionId, Result, Row, Shape, Value};

use crate::log::{LogSink, LogSinkConfig, Partitioner, SinkProducer};
use crate::{EncodedBatch, EncodedRecord, OutFormat, SchemaWriter, Sink, SinkContext, SinkWriter};

/// A topic to write to, and what the fields of a record become there.
#[derive(Clone, Debug)]
pub struct KafkaSinkConfig {
    /// The topic; it is made where it is missing.
    pub topic: String,
    /// Its partitions; nothing means as many as it has, or as the job has where it is made.
    pub partitions: Option<u32>,
    /// How the partition is chosen.
    pub partitioner: Partitioner,
    /// The fields that become the record's key; with none a record has no key.
    pub key: Vec<String>,
    /// The field with the partition, instead of what the partitioner chooses.
    pub partition: Option<String>,
    /// The fields that become headers of the same names.
    pub headers: Vec<String>,
    /// The field that says, where it is true, that the record deletes its key.
    pub tombstone: Option<String>,
    /// How the key is written.
    pub key_writer: KeyWriter,
    /// How the value is written.
    pub value: ValueWriter,
}

impl KafkaSinkConfig {
    /// JSON without keys and headers, with the defaults of a job file.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            partitions: None,
            partitioner: Partitioner::Key,
            key: Vec::new(),
            partition: None,
            headers: Vec::new(),
            tombstone: None,
            key_writer: KeyWriter::Text,
            value: ValueWriter::Plain(OutFormat::Json),
        }
    }

    /// Where a job of so many partitions writes by its sink with this index.
    pub fn log_sink(&self, sink: u16, partitions: PartitionCount) -> LogSinkConfig {
        LogSinkConfig {
            topic: self.topic.clone(),
            topic_partitions: self.partitions,
            partitioner: self.partitioner,
            sink,
            partitions,
        }
    }
}

/// Writes the values of a sink's records.
#[derive(Clone, Debug)]
pub enum ValueWriter {
    /// In a format that needs no schema.
    Plain(OutFormat),
    /// By a schema.
    Schema(SchemaWriter),
}

/// Writes the keys of a sink's records.
#[derive(Clone, Debug)]
pub enum KeyWriter {
    /// One field as its text, several as a list in JSON.
    Text,
    /// By a schema: several fields, or where it takes rows one, as a row, else the one field itself.
    Schema(SchemaWriter),
}

impl ValueWriter {
    fn encode_value(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Plain(format) => format.encode_value(value, out),
            Self::Schema(writer) => writer.encode_value(value, out),
        }
    }
}

/// Encodes the records of one sink.
#[derive(Debug)]
pub struct KafkaEncoder {
    key: Vec<String>,
    key_writer: KeyWriter,
    /// The shape of keys that are rows.
    key_shape: Arc<Shape>,
    partition: Option<String>,
    headers: Vec<Arc<str>>,
    tombstone: Option<String>,
    value: ValueWriter,
    sink: String,
}

impl KafkaEncoder {
    /// For the sink of this id.
    pub fn new(config: &KafkaSinkConfig, sink: &str) -> Self {
        Self {
            key: config.key.clone(),
            key_writer: config.key_writer.clone(),
            key_shape: Shape::new(config.key.iter().map(String::as_str)),
            partition: config.partition.clone(),
            headers: config.headers.iter().map(|name| Arc::from(name.as_str())).collect(),
            tombstone: config.tombstone.clone(),
            value: config.value.clone(),
            sink: sink.to_owned(),
        }
    }

    /// Adds the record to the batch.
    ///
    /// Errors: a partition that is no number, a deletion without a key, what the format cannot write.
    pub fn encode(&self, record: &Value, batch: &mut EncodedBatch) -> Result<()> {
        let key = put(batch, |out| self.key(record, out))?;
        let deleted = self.tombstone.as_ref().is_some_and(|field| record.get(field) == Some(&Value::Bool(true)));
        if deleted && key.is_none() {
            return Err(self.refused("deletes a record, and has no key to say which: give the sink a key"));
        }
        let value = match deleted {
            true => None,
            false => put(batch, |out| self.value.encode_value(record, out).map(|()| true))?,
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

    /// Writes the key; returns whether there is one.
    fn key(&self, record: &Value, out: &mut Vec<u8>) -> Result<bool> {
        let values = || self.key.iter().map(|field| record.get(field).cloned().unwrap_or_default());
        match (self.key.as_slice(), &self.key_writer) {
            ([], _) => Ok(false),
            ([field], KeyWriter::Text) => key_text(record.get(field).unwrap_or(&Value::Null), out),
            (_, KeyWriter::Text) => OutFormat::Json.encode_value(&Value::List(values().collect()), out).map(|()| true),
            ([field], KeyWriter::Schema(writer)) if !writer.takes_rows() => match record.get(field) {
                None | Some(Value::Null) => Ok(false),
                Some(value) => writer.encode_value(value, out).map(|()| true),
            },
            (_, KeyWriter::Schema(writer)) => {
                let row = Row::new(self.key_shape.clone(), values().collect());
                writer.encode_value(&Value::Row(row), out).map(|()| true)
            }
        }
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

fn put(batch: &mut EncodedBatch, write: impl FnOnce(&mut Vec<u8>) -> Result<bool>) -> Result<Option<Range<usize>>> {
    let start = batch.data.len();
    let there = write(&mut batch.data)?;
    Ok(there.then_some(start..batch.data.len()))
}

/// A sink on a topic of the job's cluster that is connected when the job runs: a graph is written before there is a job, whose id
/// its producer has.
pub struct KafkaSink {
    config: KafkaSinkConfig,
    connected: OnceLock<LogSink>,
}

impl KafkaSink {
    /// A sink that is not connected yet.
    pub fn new(config: KafkaSinkConfig) -> Self {
        Self { config, connected: OnceLock::new() }
    }

    /// Connects it, as the sink of this index in a job of so many partitions; makes the topic where it is missing.
    ///
    /// Errors: those of [`LogSink::new`].
    pub fn connect(&self, producer: Arc<SinkProducer>, sink: u16, partitions: PartitionCount) -> Result<()> {
        let made = LogSink::new(producer, self.config.log_sink(sink, partitions))?;
        self.connected.set(made).map_err(|_| Error::internal("kafka-sink", "a sink is connected twice"))
    }

    fn sink(&self) -> Result<&LogSink> {
        let missing = || {
            let text =
                format!("the sink of topic {:?} is not connected: thalweg::run_job does that", self.config.topic);
            Error::user("kafka-sink", text)
        };
        self.connected.get().ok_or_else(missing)
    }
}

impl Sink for KafkaSink {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        self.sink()?.ends()
    }

    fn is_settled(&self, ends: &[(PartitionId, u64)]) -> Result<bool> {
        self.sink()?.is_settled(ends)
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        self.sink()?.open(context)
    }
}
