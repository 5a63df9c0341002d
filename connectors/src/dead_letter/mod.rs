//! Dead letters: records that a job could not process, set aside as an output of the job like any other.
//!
//! The nodes of a job that are to set records aside (`on_error = "dead-letter"`) give them to one hidden sink at the end of the
//! plan. That is an ordinary sink of a log, so a dead letter is written exactly once and is the same in every replay. It writes the
//! first partition of its topic, in order of epoch and provenance; the offset there is what a dead letter is called by. Key and
//! value are the record's, everything else is in headers ([`header`]).

mod desk;
pub mod header;
mod letter;
mod retry;

pub use desk::{Decided, Decision, Desk, OpenLetters, Page, Range, Which};
pub use letter::{DeadLetter, FailedNode, HeaderNames, Held, Place, Reason, StoredLetter};
pub use retry::{Retries, is_retry};
pub(crate) use retry::{retry_identity, without_retry};

use std::sync::Arc;

use thalweg_core::{JobId, PartitionCount, Result};

use crate::log::{LogSink, LogSinkConfig, Partitioner, SinkProducer};

/// The id of the hidden sink.
pub const SINK: &str = "dead-letters";
/// At the end of the name of a topic: no id of a source has a dot.
const BACKFILL: &str = ".backfill";
/// The index of the hidden sink, in checkpoints and positions: behind every sink that a job may ever get, so that it keeps its
/// index when sinks are added.
pub const SINK_INDEX: u16 = u16::MAX;

/// The topic of a job's dead letters, where the job does not name one.
pub fn default_topic(job: JobId) -> String {
    format!("dead-letters-{job}")
}

/// The topic of the records of a source, or those of its backfill, that are to be read once more.
pub fn retry_topic(job: JobId, source: &str, backfill: bool) -> String {
    format!("retry-{job}-{source}{}", if backfill { BACKFILL } else { "" })
}

/// The hidden sink of a job, which writes by the task's producer; makes the topic where it is missing, with one partition.
pub fn sink(producer: Arc<SinkProducer>, topic: &str) -> Result<LogSink> {
    let config = LogSinkConfig {
        topic: topic.to_owned(),
        topic_partitions: None,
        partitioner: Partitioner::JobPartition,
        sink: SINK_INDEX,
        partitions: PartitionCount::new(1)?,
    };
    LogSink::new(producer, config)
}
