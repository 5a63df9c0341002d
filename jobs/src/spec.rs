//! What a valid job says, with everything resolved: types, defaults, paths.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thalweg_connectors::kafka::{Bound, OnDataLoss};
use thalweg_connectors::log::{Delivery, Partitioner, Start};
use thalweg_connectors::{Decimals, Format, Framing, Include, OutFormat, SchemaFormat, dead_letter};
use thalweg_core::{Error, JobId, JobName, PartitionCount, Result};
use thalweg_operators::{Aggregation, ChangelogKind, Expression, OnError};

/// A valid job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// The name.
    pub name: JobName,
    /// The job crate whose operators it uses.
    pub crate_name: Option<String>,
    /// The version of it that the job was written for.
    pub crate_version: Option<String>,
    /// P.
    pub partitions: PartitionCount,
    /// Worker threads of a task; nothing means one for each core.
    pub workers: Option<usize>,
    /// What the tasks are, for placement in a cluster.
    pub tags: Vec<String>,
    /// Which tags to be near or far of in a cluster.
    pub biases: Vec<(String, BiasLevel)>,
    /// What sinks promise.
    pub delivery: Delivery,
    /// How Kafka is reached, where it is used.
    pub kafka: Option<KafkaSpec>,
    /// Where schemas are that records name, where that is used.
    pub schema_registry: Option<SchemaRegistrySpec>,
    /// What is done with a record that a format fails on.
    pub on_error: OnError,
    /// How input is cut into epochs.
    pub epoch: EpochSpec,
    /// From the start of one checkpoint to the start of the next.
    pub checkpoint_interval: Duration,
    /// Bytes of memory for the values of all stores of a task.
    pub state_memory: u64,
    /// The folder of the file, which paths and patterns of sources are relative to.
    pub base: PathBuf,
    /// In the order of the file.
    pub sources: Vec<SourceSpec>,
    /// Each behind those that it reads; else in the order of the file.
    pub operators: Vec<OperatorSpec>,
    /// In the order of the file.
    pub sinks: Vec<SinkSpec>,
    /// Where records go that are set aside.
    pub dead_letters: DeadLettersSpec,
}

impl JobSpec {
    /// The ids of the sources and operators that set records aside.
    pub fn setting_aside(&self) -> Vec<&str> {
        let sources = self.sources.iter().filter(|_| self.on_error == OnError::DeadLetter);
        let operators = self.operators.iter().filter(|operator| operator.on_error == OnError::DeadLetter);
        sources.map(|source| source.id.as_str()).chain(operators.map(|operator| operator.id.as_str())).collect()
    }

    /// Whether the job comes to an end by itself.
    pub fn is_bounded(&self) -> bool {
        self.sources.iter().all(SourceSpec::is_bounded)
    }
}

/// Where records go that are set aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLettersSpec {
    /// The log that the topic is in.
    pub place: DeadLettersPlace,
    /// The topic; nothing means one with the id of the job in its name.
    pub topic: Option<String>,
}

/// A log for dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeadLettersPlace {
    /// The job's own log.
    #[default]
    Own,
    /// The embedded log in this folder.
    Folder(PathBuf),
    /// The cluster of `[kafka]`.
    Kafka,
}

impl DeadLettersPlace {
    /// The name of its connector.
    pub fn uses(&self) -> &'static str {
        match self {
            Self::Own | Self::Folder(_) => "log",
            Self::Kafka => "kafka",
        }
    }
}

impl DeadLettersSpec {
    /// The topic of a job.
    pub fn topic_of(&self, job_id: JobId) -> String {
        self.topic.clone().unwrap_or_else(|| dead_letter::default_topic(job_id))
    }
}

/// How Kafka is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSpec {
    /// Where the brokers are.
    pub bootstrap_servers: String,
    /// For librdkafka, under its names.
    pub properties: BTreeMap<String, Property>,
    /// Copies of each topic that the job makes; nothing means the broker's default.
    pub replication: Option<u16>,
    /// How long a broker that is away is waited for.
    pub wait: Duration,
    /// After which the broker aborts a transaction that nobody ends.
    pub transaction_timeout: Duration,
}

/// The value of a property, or where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// As it stands in the file.
    Plain(String),
    /// The variable of the environment that holds it.
    Env(String),
    /// The file that holds it; white space at its end does not count.
    File(PathBuf),
}

impl Property {
    /// The value.
    ///
    /// `place` is the table of the job file that names it.
    ///
    /// Errors: `secret-missing` where there is no such variable or file.
    pub fn read(&self, place: &str) -> Result<String> {
        match self {
            Self::Plain(value) => Ok(value.clone()),
            Self::Env(name) => std::env::var(name).map_err(|_| {
                let text = format!("the environment has no variable {name:?}, which {place} names; set it");
                Error::user("secret-missing", text)
            }),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end().to_owned()),
                Err(error) => {
                    let text = format!("{}, which {place} names, cannot be read: {error}", path.display());
                    Err(Error::user("secret-missing", text).with_source(error))
                }
            },
        }
    }
}

/// How a schema registry is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRegistrySpec {
    /// Where it is.
    pub url: String,
    /// The file with the certificates of who may have signed its own; nothing means whom the system trusts.
    pub ca: Option<PathBuf>,
    /// The user and the password.
    pub user: Option<(String, Property)>,
    /// How long one that is away is waited for.
    pub wait: Duration,
}

/// How a record of a topic is written.
#[derive(Clone, PartialEq, Eq)]
pub enum RecordFormat {
    /// So that it says itself what it is.
    Plain(Format),
    /// As a schema says.
    Schema(SchemaSpec),
}

/// A plain format shows as itself: that is what the fingerprint of a plan has of it.
impl fmt::Debug for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(format) => format.fmt(f),
            Self::Schema(schema) => schema.fmt(f),
        }
    }
}

/// How a record is written to a topic.
#[derive(Clone, PartialEq, Eq)]
pub enum SinkRecordFormat {
    /// So that it says itself what it is.
    Plain(OutFormat),
    /// As a schema says.
    Schema(SinkSchemaSpec),
}

/// The schema of what a sink writes, of its values or of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSchemaSpec {
    /// The format.
    pub format: SchemaFormat,
    /// Its file.
    pub file: PathBuf,
    /// The type of all messages, where it is one of Protobuf.
    pub message: String,
    /// What the schema registry has it under; nothing means the topic, and `-value` or `-key`.
    pub subject: Option<String>,
}

/// A plain format shows as itself: that is what the fingerprint of a plan has of it.
impl fmt::Debug for SinkRecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(format) => format.fmt(f),
            Self::Schema(schema) => schema.fmt(f),
        }
    }
}

/// A format that needs schemas, and where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaSpec {
    /// The format.
    pub format: SchemaFormat,
    /// The schema of all records; nothing means that the schema registry has them.
    pub file: Option<PathBuf>,
    /// The type of all messages, where there is a file of Protobuf.
    pub message: Option<String>,
    /// What stands in front of a record where there is a file.
    pub framing: Framing,
    /// How decimals are given.
    pub decimals: Decimals,
}

/// How input is cut into epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSpec {
    /// How long an epoch is open; nothing means that it is cut by records and bytes alone.
    pub interval: Option<Duration>,
    /// Most records of one source partition.
    pub max_records: u64,
    /// Most bytes of one source partition.
    pub max_bytes: u64,
}

/// How much a tag is wanted nearby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BiasLevel {
    /// Nowhere else.
    Always,
    /// Rather.
    Prefer,
    /// It does not matter.
    Neutral,
    /// Rather not.
    Avoid,
    /// Not at all.
    Never,
}

impl BiasLevel {
    /// All of them, with their names.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("always", Self::Always),
        ("prefer", Self::Prefer),
        ("neutral", Self::Neutral),
        ("avoid", Self::Avoid),
        ("never", Self::Never),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(own, _)| *own == name).map(|(_, level)| level)
    }
}

/// A source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSpec {
    /// Its id.
    pub id: String,
    /// What it reads from.
    pub connector: SourceConnector,
    /// How the keys of its records are read, where they need a schema.
    pub keys: Option<SchemaSpec>,
    /// Most records per second.
    pub rate: Option<u64>,
}

/// What a source reads from.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConnector {
    /// Files.
    File {
        /// Paths or patterns, as they are written; relative to [`JobSpec::base`].
        paths: Vec<String>,
        /// How a record is written.
        format: Format,
        /// Whether to go on reading what is appended.
        follow: bool,
        /// Longest record, in bytes.
        max_record_bytes: u64,
    },
    /// Made-up records.
    Generator(GeneratorSpec),
    /// A topic of an embedded log.
    Log {
        /// Its folder; nothing means the job's own log.
        path: Option<PathBuf>,
        /// The topic.
        topic: String,
        /// Where it begins when there is no checkpoint yet.
        start: Start,
        /// How a record is written.
        format: RecordFormat,
    },
    /// Topics of Kafka.
    Kafka(Box<KafkaSourceSpec>),
    /// Standard input, a record a line, by way of the job's own log.
    Stdin {
        /// How a record is written.
        format: Format,
        /// Longest line, in bytes.
        max_record_bytes: u64,
    },
}

/// What is read from Kafka, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSourceSpec {
    /// The topics.
    pub topics: TopicsSpec,
    /// Where it begins when there is no checkpoint yet.
    pub start: Bound,
    /// What is read before the topics.
    pub backfill: Option<BackfillSpec>,
    /// How a record is written.
    pub format: RecordFormat,
    /// The consumer group that shows positions; nothing means one that is named after the job.
    pub group: Option<String>,
    /// What is done where records were dropped before they were read.
    pub on_data_loss: OnDataLoss,
    /// How often it is looked for partitions and topics that have come; nothing means never.
    pub discover_interval: Option<Duration>,
    /// What stands beside the value of a record.
    pub include: Include,
}

/// What a source reads before its topics, to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackfillSpec {
    /// Where it is.
    pub history: HistorySpec,
    /// How a record is written there.
    pub format: RecordFormat,
}

/// What the keys of a source are called among what has schemas in its job.
pub(crate) fn keys_of(source: &str) -> String {
    format!("{source}, keys")
}

/// What the backfill of a source is called among the sources of its job.
pub(crate) fn backfill_of(source: &str) -> String {
    format!("{source}, backfill")
}

/// Where a backfill reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistorySpec {
    /// Files.
    File {
        /// Paths or patterns, as they are written; relative to [`JobSpec::base`].
        paths: Vec<String>,
        /// Longest record, in bytes.
        max_record_bytes: u64,
    },
    /// Topics of Kafka, from one offset to another of each partition.
    Kafka {
        /// The topics.
        topics: TopicsSpec,
        /// Where it begins.
        start: Bound,
        /// Where it ends.
        end: Bound,
    },
}

/// Which topics are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicsSpec {
    /// These.
    Named(Vec<String>),
    /// All whose name this regular expression finds.
    Pattern(String),
}

/// What a generator makes.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorSpec {
    /// How many records over all partitions; nothing means without end.
    pub count: Option<u64>,
    /// How many different keys.
    pub keys: u64,
    /// Exponent of the Zipf distribution of keys; 0 means that all are alike.
    pub skew: f64,
    /// Another seed, other records.
    pub seed: u64,
    /// Source partitions.
    pub partitions: u16,
}

impl SourceSpec {
    /// Whether it ends by itself.
    pub fn is_bounded(&self) -> bool {
        match &self.connector {
            SourceConnector::File { follow, .. } => !follow,
            SourceConnector::Generator(generator) => generator.count.is_some(),
            SourceConnector::Log { .. } | SourceConnector::Kafka(_) => false,
            SourceConnector::Stdin { .. } => true,
        }
    }

    /// The name of its connector.
    pub fn uses(&self) -> &'static str {
        match &self.connector {
            SourceConnector::File { .. } => "file",
            SourceConnector::Generator(_) => "generator",
            SourceConnector::Log { .. } => "log",
            SourceConnector::Kafka(_) => "kafka",
            SourceConnector::Stdin { .. } => "stdin",
        }
    }
}

/// An operator.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorSpec {
    /// Its id, which its state belongs to.
    pub id: String,
    /// Its name in the catalogue.
    pub uses: String,
    /// The ids of sources and operators that it reads, in order.
    pub inputs: Vec<String>,
    /// The fields that it groups by.
    pub key: Option<Vec<String>>,
    /// The keys that the catalogue declares, as far as they are there.
    pub config: BTreeMap<String, ConfigValue>,
    /// All keys that are the operator's own, as JSON, for operators that read them by serde.
    pub raw_config: serde_json::Map<String, serde_json::Value>,
    /// What is done with a record that it fails on.
    pub on_error: OnError,
    /// Its store, where it keeps state.
    pub store: Option<StoreSpec>,
}

/// A value of an operator's configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// A duration.
    Duration(Duration),
    /// A size.
    Bytes(u64),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// An expression.
    Expression(Expression),
    /// Named expressions, in the order of the file.
    Expressions(Vec<(String, Expression)>),
    /// Named folds, in the order of the file.
    Aggregations(Vec<(String, Aggregation)>),
    /// Texts.
    Texts(Vec<String>),
    /// Whatever it is.
    Any(serde_json::Value),
}

/// The store of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSpec {
    /// Where its changes are kept beyond the local disk.
    pub changelog: ChangelogKind,
    /// Whether it may be read from outside.
    pub query: bool,
}

/// A sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSpec {
    /// Its id.
    pub id: String,
    /// What it writes to.
    pub connector: SinkConnector,
    /// How the keys of its records are written, where that needs a schema.
    pub keys: Option<SinkSchemaSpec>,
    /// The ids of sources and operators that it reads, in order.
    pub inputs: Vec<String>,
}

/// What a sink writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkConnector {
    /// Files.
    File {
        /// The folder, or with `single` the file.
        path: PathBuf,
        /// Whether it is one file.
        single: bool,
        /// How a record is written.
        format: OutFormat,
    },
    /// Standard output.
    Stdout {
        /// How a record is written.
        format: OutFormat,
    },
    /// Nothing.
    Blackhole,
    /// A topic of Kafka.
    Kafka(KafkaSinkSpec),
    /// A topic of an embedded log.
    Log {
        /// Its folder; nothing means the job's own log.
        path: Option<PathBuf>,
        /// The topic.
        topic: String,
        /// Partitions of the topic; nothing means as many as it has, or as the job has where it is made.
        partitions: Option<u32>,
        /// How a record is written.
        format: OutFormat,
    },
}

/// A topic of Kafka to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSinkSpec {
    /// The topic.
    pub topic: String,
    /// Its partitions; nothing means as many as it has, or as the job has where it is made.
    pub partitions: Option<u32>,
    /// The fields that become the record's key; nothing means the key of what it reads, where that has one.
    pub key: Option<Vec<String>>,
    /// Whether records have a key.
    pub keyed: bool,
    /// How the partition is chosen.
    pub partitioner: Partitioner,
    /// The field with the partition.
    pub partition: Option<String>,
    /// The fields that become headers.
    pub headers: Vec<String>,
    /// The field that says that the record deletes its key.
    pub tombstone: Option<String>,
    /// How a record is written.
    pub format: SinkRecordFormat,
}

impl SinkSpec {
    /// The name of its connector.
    pub fn uses(&self) -> &'static str {
        match &self.connector {
            SinkConnector::File { .. } => "file",
            SinkConnector::Stdout { .. } => "stdout",
            SinkConnector::Blackhole => "blackhole",
            SinkConnector::Log { .. } => "log",
            SinkConnector::Kafka(_) => "kafka",
        }
    }
}
