//! Kafka: a home of the log trait, and a source.
//!
//! ```text
//! KafkaLog ── fence ──▶ KafkaProducer   transactions over librdkafka's C API
//!    │  └──── reader ─▶ PartitionQueue  one partition of a Consumer
//!    └─────── Cluster                   topics, settings, ends
//! KafkaSource ─ open ─▶ PartitionQueue
//! ```

mod client;
mod cluster;
mod config;
mod consumer;
mod delivery;
mod describe;
mod error;
mod log;
mod partitions;
mod patience;
mod producer;
mod source;

pub use config::KafkaConfig;
pub use log::{KafkaLog, Look};
pub use source::{Bound, KafkaSource, KafkaSourceConfig, OnDataLoss, Topics};
