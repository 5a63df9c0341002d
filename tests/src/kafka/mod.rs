//! A real Apache Kafka, started by the tests themselves.
//!
//! ```text
//! scripts/kafka-jars ─▶ cache: jars, formatted log folder, archive of classes
//!                         │
//!                   Installation ─▶ Broker (one node), Cluster (three)   start · kill -9 · stop · pause · start again
//!                         │               ▲
//!                         └─▶ Tools ──────┤   Kafka's own Java programs: topics, records in and out, groups
//!                             Client ──────┤   librdkafka: the same, in milliseconds
//!                             Others ──────┘   kcat, and Python's confluent-kafka
//! ```

mod broker;
mod client;
mod cluster;
mod installation;
mod metadata;
mod others;
mod ports;
mod program;
mod proxy;
mod records;
mod registry;
mod secrets;
mod settings;
mod tools;

pub use broker::Broker;
pub use client::{Client, Record, Writer};
pub use cluster::Cluster;
pub use others::{Others, Printed, Step};
pub use proxy::{Break, Proxy, Script};
pub use records::{Isolation, ReadRecord, WrittenRecord};
pub use registry::SchemaRegistry;
pub use secrets::{PASSWORD, Secrets, USER};
pub use settings::BrokerSettings;
pub use tools::{GroupPosition, Tools};
