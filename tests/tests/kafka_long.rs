//! What takes too long for the gate, and what needs three brokers: `scripts/long-kafka` runs it.

#[path = "kafka/exactness.rs"]
mod exactness;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/job.rs"]
mod job;
#[path = "kafka/simulated.rs"]
mod simulated;
#[path = "kafka/surroundings.rs"]
mod surroundings;

use std::sync::{Arc, Mutex};

use thalweg_tests::kafka::{BrokerSettings, Cluster, Isolation, Record};
use thalweg_tests::{Disturbance, Fault, Home, Trial, TrialOptions};

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

/// Every broker is stopped in order and started again, then killed and started again, while jobs run: coordinators and leaders move.
#[test]
fn a_job_bears_a_rolling_restart() {
    let settings = BrokerSettings::new().with("default.replication.factor", 3).with("min.insync.replicas", 2);
    let cluster = Arc::new(Mutex::new(Cluster::start(3, &settings)));
    let (bootstrap, client) = {
        let cluster = cluster.lock().expect("nobody panics while it is locked");
        (cluster.bootstrap(), cluster.client())
    };
    let rolling = Arc::clone(&cluster);
    let restart = Disturbance::new("rolling restart", move |_| {
        let mut cluster = rolling.lock().expect("nobody panics while it is locked");
        for (id, killed) in (1..=3).flat_map(|id| [(id, false), (id, true)]) {
            if killed {
                cluster.broker(id).kill();
            } else {
                cluster.broker(id).stop();
            }
            cluster.wait_until_alive(2);
            cluster.broker(id).start_again();
            cluster.wait_until_alive(3);
        }
    });
    std::thread::scope(|scope| {
        for (seed, disturbance) in [(8000, restart), (8001, Disturbance::none())] {
            let home = Home::new(&bootstrap, client.clone()).with_transaction_timeout(5_000);
            scope.spawn(move || {
                let options = TrialOptions {
                    custom: seed % 2 == 1,
                    faults: vec![Fault::during(disturbance)],
                    life: 25_000,
                    changelog: Some(true),
                    kafka: Some(home),
                    ..TrialOptions::default()
                };
                let trial = Trial::run(seed, &options).unwrap_or_else(|error| panic!("{error}"));
                println!("seed {seed}: {trial:?}");
            });
        }
    });
}

#[test]
fn every_failpoint_of_kafka_is_hit_and_changes_nothing() {
    exactness::every_failpoint_is_hit_and_changes_nothing();
}

#[test]
fn cleaning_a_changelog_takes_nothing_that_counts() {
    exactness::cleaning_a_changelog_takes_nothing_that_counts();
}

#[test]
fn a_broker_that_goes_and_comes_is_waited_for() {
    faults::a_broker_that_goes_and_comes_is_waited_for();
}

#[test]
fn what_the_user_of_the_job_may_not_do() {
    surroundings::what_the_user_of_the_job_may_not_do();
}

#[test]
fn a_broker_that_stays_away_and_a_stop_while_it_does() {
    surroundings::a_broker_that_stays_away_and_a_stop_while_it_does();
}

#[test]
fn the_simulated_log_does_what_kafka_does_for_long() {
    simulated::the_simulated_log_does_what_kafka_does_for_long();
}

#[test]
fn the_simulated_cleaning_leaves_what_that_of_kafka_leaves() {
    simulated::the_simulated_cleaning_leaves_what_that_of_kafka_leaves();
}
