//! The names of the headers of a dead letter. The first five are those of Kafka Streams (KIP-1034), so that tools for its dead
//! letter queues read ours; [`EXCEPTION`] holds one of the [`Reason`](super::Reason)s where Kafka Streams has a Java class. In Kafka
//! those of Kafka Connect (KIP-298) say the same once more, for the tools of its queues.

/// What kind of failure it was.
pub const EXCEPTION: &str = "__streams.errors.exception";
/// What the failure said.
pub const MESSAGE: &str = "__streams.errors.message";
/// Where a source has read the record: the topic, or the source's id where it reads none.
pub const TOPIC: &str = "__streams.errors.topic";
/// The partition of the topic, or the name of the source's partition (a file).
pub const PARTITION: &str = "__streams.errors.partition";
/// The offset in the partition, or the position in the file.
pub const OFFSET: &str = "__streams.errors.offset";
/// As [`TOPIC`], for tools of Kafka Connect.
pub const CONNECT_TOPIC: &str = "__connect.errors.topic";
/// As [`PARTITION`], for tools of Kafka Connect.
pub const CONNECT_PARTITION: &str = "__connect.errors.partition";
/// As [`OFFSET`], for tools of Kafka Connect.
pub const CONNECT_OFFSET: &str = "__connect.errors.offset";
/// As [`JOB`], for tools of Kafka Connect.
pub const CONNECT_NAME: &str = "__connect.errors.connector.name";
/// As [`EXCEPTION`], for tools of Kafka Connect.
pub const CONNECT_EXCEPTION: &str = "__connect.errors.exception.class.name";
/// As [`MESSAGE`], for tools of Kafka Connect.
pub const CONNECT_MESSAGE: &str = "__connect.errors.exception.message";
/// The name of the job.
pub const JOB: &str = "thalweg.job";
/// The id of the source that could not read the record.
pub const SOURCE: &str = "thalweg.source";
/// The id of the operator that could not process the record.
pub const OPERATOR: &str = "thalweg.operator";
/// The epoch of the record.
pub const EPOCH: &str = "thalweg.epoch";
/// What the value is: one of the [`Held`](super::Held)s.
pub const HOLDS: &str = "thalweg.holds";
/// When the timer was due that failed, microseconds since 1970.
pub const TIMER: &str = "thalweg.timer";
/// The header line of the file that a CSV record is of.
pub const CSV_HEADER: &str = "thalweg.csv-header";
/// The value is too large to be kept whole: how many bytes it had.
pub const TRUNCATED: &str = "thalweg.truncated";
/// How many headers the record had: they come first, and those of the dead letter behind them.
pub const HEADERS: &str = "thalweg.headers";
/// When the record was written, microseconds since 1970, where its source knows.
pub const TIME: &str = "thalweg.time";
/// The record is one of a backfill.
pub const BACKFILL: &str = "thalweg.backfill";
/// The record was retried before, and this is the offset of the dead letter that it was then.
pub const RETRY_OF: &str = "thalweg.retry-of";
