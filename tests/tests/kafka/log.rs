//! Kafka as a home of the log trait.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog};
use thalweg_connectors::log::{Log, conformance};
use thalweg_core::Generation;
use thalweg_tests::kafka::Broker;

/// A log on the shared broker, whose job is at its first generation.
pub(crate) fn open() -> KafkaLog {
    let config = KafkaConfig::new(&Broker::shared().bootstrap(), BTreeMap::new()).expect("properties");
    KafkaLog::new(config, "thalweg-test", Arc::new(|| Ok(Generation(1)))).expect("a log")
}

#[test]
fn kafka_does_what_every_log_promises() {
    conformance::check(|| -> Box<dyn Log> { Box::new(open()) });
}
