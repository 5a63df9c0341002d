//! Kafka with three brokers. Not in the gate: `scripts/long-kafka` runs it.

use thalweg_tests::kafka::{BrokerSettings, Cluster, Isolation, Record};

#[test]
fn a_cluster_bears_the_loss_of_each_broker_in_turn() {
    let mut cluster = Cluster::start(3, &BrokerSettings::new().with("default.replication.factor", 3));
    let client = cluster.client();
    client.create_topic("kept", 3, &[("min.insync.replicas", "2")]);
    let mut written = Vec::new();
    for lost in 1..=3 {
        let records: Vec<Record> = (0..3).map(|partition| Record::new(partition, lost.to_string(), "v")).collect();
        cluster.broker(lost).kill();
        cluster.wait_until_alive(2);
        client.write("kept", &records);
        cluster.broker(lost).start_again();
        cluster.wait_until_alive(3);
        written.extend(records);
    }
    let read = client.read_all("kept", Isolation::ReadCommitted).into_iter();
    let mut read: Vec<Record> = read.map(|read| Record { offset: None, timestamp: None, ..read }).collect();
    read.sort();
    written.sort();
    assert_eq!(read, written);
}
