//! How a Kafka cluster is reached: what `[kafka]` of a job says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thalweg_core::{Error, Result};

use super::client::NativeConfig;

/// Properties of librdkafka that the engine sets itself, each with the reason.
const RESERVED: [(&str, &str); 17] = [
    ("bootstrap.servers", "set bootstrap_servers of [kafka]"),
    ("metadata.broker.list", "set bootstrap_servers of [kafka]"),
    ("group.id", "set group of the source"),
    ("group.instance.id", "partitions are assigned by the job, not by a group"),
    ("transactional.id", "the job makes its own ids, so that it can fence them"),
    ("transaction.timeout.ms", "set transaction_timeout of [kafka]"),
    ("enable.idempotence", "exactly-once needs it"),
    ("enable.gapless.guarantee", "exactly-once needs its own"),
    ("acks", "what is written must be durable"),
    ("request.required.acks", "what is written must be durable"),
    ("isolation.level", "a job reads what is committed of its input, and nothing else"),
    ("auto.offset.reset", "set on_data_loss of the source"),
    ("enable.auto.commit", "positions belong to checkpoints"),
    ("enable.auto.offset.store", "positions belong to checkpoints"),
    ("enable.partition.eof", "the engine needs to know where a partition ends"),
    ("allow.auto.create.topics", "topics are made with the right settings or not at all"),
    ("message.timeout.ms", "it follows from the transaction's time-out"),
];

/// How a cluster is reached, and for how long it is waited for.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    properties: BTreeMap<String, String>,
    /// Copies of each topic that the job makes; nothing means the broker's default.
    pub replication: Option<u16>,
    /// How long a broker that is away is waited for before the job fails.
    pub patience: Duration,
    /// After this time a transaction that nobody ends is aborted by the broker: longer than the slowest commit, and no longer than
    /// readers may be held back by a job that has crashed.
    pub transaction_timeout: Duration,
    stop: Arc<AtomicBool>,
}

impl KafkaConfig {
    /// How long a broker is waited for.
    pub const PATIENCE: Duration = Duration::from_secs(60);
    /// See [`KafkaConfig::transaction_timeout`].
    pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

    /// Checks the properties, which have librdkafka's names.
    ///
    /// Errors: `kafka-property` names the first one that librdkafka does not know, whose value it refuses, or that is the engine's
    /// own to set.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use thalweg_connectors::kafka::KafkaConfig;
    /// assert!(KafkaConfig::new("localhost:9092", BTreeMap::new()).is_ok());
    /// let wrong = BTreeMap::from([("linger.msec".to_owned(), "5".to_owned())]);
    /// assert_eq!(KafkaConfig::new("localhost:9092", wrong).unwrap_err().code(), "kafka-property");
    /// ```
    pub fn new(bootstrap_servers: &str, properties: BTreeMap<String, String>) -> Result<Self> {
        properties.iter().try_for_each(|(name, value)| Self::check_property(name, Some(value)))?;
        let mut all = properties;
        all.insert("bootstrap.servers".to_owned(), bootstrap_servers.to_owned());
        Ok(Self {
            properties: all,
            replication: None,
            patience: Self::PATIENCE,
            transaction_timeout: Self::TRANSACTION_TIMEOUT,
            stop: Arc::default(),
        })
    }

    /// Checks one property; without a value (a secret that is read later) its name.
    ///
    /// Errors: as [`KafkaConfig::new`].
    pub fn check_property(name: &str, value: Option<&str>) -> Result<()> {
        if let Some((_, reason)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
            let text = format!("[kafka.properties] {name:?} is the engine's to set: {reason}; remove it");
            return Err(Error::user("kafka-property", text));
        }
        NativeConfig::new().set(name, value)
    }

    /// Where the cluster is, for people.
    pub fn bootstrap_servers(&self) -> &str {
        &self.properties["bootstrap.servers"]
    }

    /// All properties, as they go to librdkafka; some are secrets.
    pub(super) fn properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Ends every wait for a broker, now and later: the process is told to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the process is told to stop.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
