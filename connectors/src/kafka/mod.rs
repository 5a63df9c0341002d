//! Kafka: a home of the log trait, a source, and what a sink on it writes.
//!
//! ```text
//! KafkaLog ── fence ──▶ KafkaProducer   transactions over librdkafka's C API
//!    │  └──── reader ─▶ PartitionQueue  one partition of a Consumer
//!    └─────── Cluster                   topics, settings, ends
//! KafkaSource ─ open ─▶ PartitionQueue
//! KafkaEncoder            what a record becomes in a topic
//! ```

mod client;
mod cluster;
mod config;
mod consumer;
mod delivery;
mod describe;
mod error;
mod journal;
mod log;
mod partitions;
mod patience;
mod producer;
mod sink;
mod source;

pub use config::KafkaConfig;
pub use log::{KafkaLog, Look};
pub use sink::{KafkaEncoder, KafkaSink, KafkaSinkConfig, KeyWriter, ValueWriter};
pub use source::{Bound, KafkaSource, KafkaSourceConfig, OnDataLoss, Topics};
