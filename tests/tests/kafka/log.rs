//! Kafka as a home of the log trait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog};
use thalweg_connectors::log::{Log, NewRecord, Producer, Retention, TopicSpec, conformance};
use thalweg_core::{Generation, PartitionId};
use thalweg_tests::kafka::Broker;
use thalweg_tests::until;

/// A log on the shared broker, whose job is at its first generation.
pub(crate) fn open() -> KafkaLog {
    open_with(|_| ())
}

fn open_with(set: fn(&mut KafkaConfig)) -> KafkaLog {
    let mut config = KafkaConfig::new(&Broker::shared().bootstrap(), BTreeMap::new()).expect("properties");
    set(&mut config);
    KafkaLog::new(config, "thalweg-test", Arc::new(|| Ok(Generation(1)))).expect("a log")
}

#[test]
fn kafka_does_what_every_log_promises() {
    // A journal ends its transaction when half of the time is over that one may be open for.
    conformance::check(|| -> Box<dyn Log> {
        Box::new(open_with(|config| config.transaction_timeout = Duration::from_secs(4)))
    });
}

fn begin(producer: &mut dyn Producer, topic: &str, partitions: &[PartitionId]) {
    producer.begin().expect("it is alive");
    for partition in partitions {
        let record = NewRecord { value: Some(b"value".to_vec()), ..NewRecord::default() };
        producer.append(topic, *partition, record).expect("it is alive");
    }
}

#[test]
fn an_open_transaction_holds_back_what_is_stable_in_its_partitions_alone() {
    let (log, topic) = (open(), Broker::unique("stable"));
    let partitions = [PartitionId(0), PartitionId(1), PartitionId(2)];
    log.ensure(&TopicSpec { name: topic.clone(), partitions: 3, retention: Retention::Keep }).expect("a topic");
    let fence = |name| log.fence(&Broker::unique(name), Generation(1)).expect("a producer");
    let (mut held, mut other) = (fence("held"), fence("other"));
    begin(&mut *held, &topic, &partitions[1..2]);
    until("the record of the open transaction", || log.offsets(&topic, partitions[1]).expect("offsets").1 == 1);
    begin(&mut *other, &topic, &partitions[..2]);
    other.commit().expect("it is alive");
    let stable = || log.stable_ends(&topic, &partitions).expect("offsets");
    // A marker takes an offset.
    until("the end of the other transaction", || stable() == [2, 0, 0]);
    assert_eq!(log.offsets_of(&topic, &partitions).expect("offsets"), [(0, 2), (0, 3), (0, 0)]);
    held.commit().expect("it is alive");
    until("the end of the transaction", || stable() == [2, 4, 0]);
}
