//! Kafka: a home of the log trait, and a source.
//!
//! ```text
//! KafkaLog ── fence ──▶ KafkaProducer   transactions over librdkafka's C API
//!    │  └──── reader ─▶ PartitionQueue  one partition of a Consumer
//!    └─────── Cluster                   topics, settings, ends
//! ```

mod client;
mod cluster;
mod config;
mod consumer;
mod delivery;
mod error;
mod log;
mod partitions;
mod patience;
mod producer;

pub use config::KafkaConfig;
pub use log::{KafkaLog, Look};
