//! What a schema registry has answered, kept in the job's own log before it is used.
//!
//! So a record is decoded in a repetition as it was at first, whatever the registry says by then, and a job starts again without it.
//! The topic `schemas-{job id}` has one partition; key and value of a record are JSON: the id, and a [`Answer`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_core::{Error, Generation, JobId, PartitionId, Result};

use super::SchemaDocument;
use crate::log::{Log, NewRecord, Producer, Retention, TopicSpec, read_to_end};

/// The only partition of the topic.
const PARTITION: PartitionId = PartitionId(0);

/// An answer of a registry; a change of it needs another `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    version: u8,
    pub(super) id: u32,
    /// Where the job itself has registered the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    /// Nothing: the registry has said that it has no schema of the id.
    pub(super) schema: Option<SchemaDocument>,
}

impl Answer {
    pub(super) fn new(id: u32, subject: Option<String>, schema: Option<SchemaDocument>) -> Self {
        Self { version: VERSION, id, subject, schema }
    }
}

const VERSION: u8 = 1;

/// Where a job keeps what its registry has answered.
pub struct KeptSchemas {
    log: Arc<dyn Log>,
    job: JobId,
    producer: Option<Box<dyn Producer>>,
}

impl KeptSchemas {
    /// In the job's own log, open for writing.
    pub fn new(log: Arc<dyn Log>, job: JobId) -> Self {
        Self { log, job, producer: None }
    }

    /// All answers that a log has of a job, in order.
    pub(super) fn read(log: &dyn Log, job: JobId) -> Result<Vec<Answer>> {
        let topic = topic(job);
        let mut answers = Vec::new();
        if log.topic(&topic)?.is_none() {
            return Ok(answers);
        }
        read_to_end(log, &topic, PARTITION, 0, None, |record| {
            let value = record.record.value.unwrap_or_default();
            let answer: Answer = serde_json::from_slice(&value).map_err(|error| {
                let text =
                    format!("topic {topic:?}, offset {}: no answer of a schema registry: {error}", record.offset);
                Error::external("damaged", text)
            })?;
            if answer.version != VERSION {
                let text =
                    format!("topic {topic:?}: version {} was written by a newer engine; use that", answer.version);
                return Err(Error::user("format-version", text));
            }
            answers.push(answer);
            Ok(())
        })?;
        Ok(answers)
    }

    /// What was kept by earlier runs of the job.
    pub(super) fn load(&self) -> Result<Vec<Answer>> {
        Self::read(&*self.log, self.job)
    }

    /// Keeps an answer; it is durable then.
    pub(super) fn keep(&mut self, answer: &Answer) -> Result<()> {
        let topic = topic(self.job);
        self.log.ensure(&TopicSpec { name: topic.clone(), partitions: 1, retention: Retention::Keep })?;
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            // Whoever writes it holds the lock of the job's folder, so one generation is enough.
            None => self.log.fence(&format!("{}-schemas", self.job), Generation(0))?,
        };
        let encode = |error: serde_json::Error| Error::internal("encode", error.to_string());
        let value = serde_json::to_vec(answer).map_err(encode)?;
        producer.begin()?;
        let record = NewRecord { key: Some(answer.id.to_string().into()), value: Some(value), headers: Vec::new() };
        producer.append(&topic, PARTITION, record)?;
        producer.commit()?;
        self.producer = Some(producer);
        Ok(())
    }
}

fn topic(job: JobId) -> String {
    format!("schemas-{job}")
}
