//! What happens to a job and to its broker while it runs: it goes on by itself, and its output is exact.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_tests::kafka::{Break, Broker, BrokerSettings, Proxy};
use thalweg_tests::{Disturbance, Fault, Home, Trial, TrialOptions};

const MS: Duration = Duration::from_millis(1);
/// Shorter than the default, so that transactions time out in a test's time.
const TRANSACTION_TIMEOUT_MS: u64 = 2_000;

/// Runs a seed whose job is disturbed, and killed later on; the second run is disturbed as well.
fn check(seed: u64, home: Home, disturbance: &Disturbance, life: u64) -> Trial {
    let faults = vec![Fault::kill(700 * MS), Fault::during(disturbance.clone())];
    let options = TrialOptions {
        custom: seed % 2 == 1,
        faults,
        life,
        changelog: Some(true),
        kafka: Some(home.with_transaction_timeout(TRANSACTION_TIMEOUT_MS)),
        ..TrialOptions::default()
    };
    let trial = Trial::run(seed, &options).unwrap_or_else(|error| panic!("{error}"));
    println!("seed {seed}, {disturbance:?}: {trial:?}");
    trial
}

#[test]
fn a_job_that_stands_still_for_longer_than_its_transactions_goes_on() {
    let home = || Home::new(&Broker::shared().bootstrap(), Broker::shared().client());
    std::thread::scope(|scope| {
        for seed in [6000, 6001, 6002] {
            let after = 300 * MS * (seed - 5999) as u32;
            scope.spawn(move || check(seed, home(), &Disturbance::standstill(after, 3_500 * MS), 2_500));
        }
    });
}

/// A broker that is killed, started again, and paused for longer than a transaction may take; three jobs at once go through that.
#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn a_broker_that_goes_and_comes_is_waited_for() {
    let broker = Arc::new(Mutex::new(Broker::start(&BrokerSettings::new())));
    let home = || {
        let broker = broker.lock().expect("nobody panics while it is locked");
        Home::new(&broker.bootstrap(), broker.client())
    };
    let disturbances = [
        Disturbance::broker_killed(&broker, 600 * MS, 500 * MS),
        Disturbance::broker_paused(&broker, 3_000 * MS, 4_000 * MS),
        Disturbance::broker_killed(&broker, 1_500 * MS, 10 * MS),
    ];
    std::thread::scope(|scope| {
        for (seed, disturbance) in (6100..).zip(&disturbances) {
            let home = home();
            scope.spawn(move || check(seed, home, disturbance, 4_000));
        }
    });
}

/// Connections that are lost around the end of transactions, before and after the broker hears of it; ends that arrive when their
/// connection is long gone, and ends that are slow.
#[test]
fn the_end_of_a_transaction_that_is_lost_late_or_slow_changes_nothing() {
    let proxy = Proxy::start();
    let address = format!("PLAINTEXT://{}", proxy.address());
    let broker = Broker::start(&BrokerSettings::new().with("advertised.listeners", address));
    proxy.forward_to(broker.bootstrap());
    proxy.script(|count| match count % 15 {
        3 => Some(Break::Before),
        6 => Some(Break::After),
        9 => Some(Break::Late(300 * MS)),
        12 => Some(Break::Slow(1_200 * MS)),
        14 => Some(Break::Late(2_500 * MS)),
        _ => None,
    });
    std::thread::scope(|scope| {
        for seed in 6200..6203 {
            let home = Home::new(&proxy.address().to_string(), broker.client());
            scope.spawn(move || check(seed, home, &Disturbance::none(), 2_500));
        }
    });
    assert!(proxy.broken() >= 10, "only {} ends of transactions were broken", proxy.broken());
}
