//! Outputs that prove themselves, looked at by a committed reader all the time while the job runs and is killed; and two processes
//! that both take themselves for the job.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use thalweg_tests::kafka::Broker;
use thalweg_tests::{Disturbance, Ended, Random, until};

use super::job::{Job, row};

/// Kills in one test.
const KILLS: u64 = 4;

/// Runs a job that is killed again and again at random moments, and looks at its output all the time.
fn check(seed: u64, job: &Job, look: fn(&Job) -> u64) -> u64 {
    let mut random = Random::new(seed);
    let (mut looks, mut shown) = (0, 0);
    for _ in 0..KILLS {
        let mut process = job.start();
        let life = Duration::from_millis(random.between(200, 1500));
        while process.age() < life && process.ended().is_none() {
            shown = look(job).max(shown);
            looks += 1;
        }
        process.kill();
    }
    job.finish();
    let last = look(job);
    assert!(last >= shown && looks > KILLS, "{last} after {shown}, {looks} looks");
    last
}

#[test]
fn chained_results_are_a_chain_whenever_one_looks() {
    let (seed, records) = (7000, 6000);
    let job = Job::chain(Broker::shared(), records, 2000);
    assert_eq!(check(seed, &job, Job::check_chain), records, "seed {seed}");
}

/// Transfers between accounts: what one loses another gets in the same epoch; balances go to one partition.
fn transfers(broker: &Broker, records: u64, rate: u64) -> Job {
    Job::new(
        (&broker.bootstrap(), broker.client()),
        records,
        rate,
        r#"
[operators.debits]
uses = "map"
inputs = ["numbers"]
fields = { account = "key", amount = "0 - value" }
[operators.credits]
uses = "map"
inputs = ["numbers"]
fields = { account = "(key * 7 + 1) % 40", amount = "value" }
[operators.balance]
uses = "sum"
inputs = ["debits", "credits"]
key = "account"
of = "amount"
as = "balance"
[stores.balance]
changelog = "kafka"
[sinks.out]
connector = "kafka"
topic = "TOPIC"
partitions = 1
inputs = ["balance"]
"#,
    )
}

/// Nothing is lost between the accounts; how many balances there are.
fn check_balances(job: &Job) -> u64 {
    let mut balances: BTreeMap<i64, i64> = BTreeMap::new();
    let records = job.read();
    for record in &records {
        let row = row(record);
        balances.insert(row["account"].as_i64().expect("an account"), row["balance"].as_i64().expect("a number"));
    }
    assert_eq!(balances.values().sum::<i64>(), 0, "after {} records: {balances:?}", records.len());
    records.len() as u64
}

#[test]
fn transfers_conserve_the_total_whenever_one_looks() {
    let seed = 7001;
    let job = transfers(Broker::shared(), 6000, 2000);
    assert!(check(seed, &job, check_balances) > 0, "seed {seed}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a temporary folder");
    for entry in from.read_dir().expect("a folder") {
        let entry = entry.expect("a folder can be listed");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file can be copied");
        }
    }
}

/// A machine is snapshotted while the job runs on it, and the snapshot started beside it.
#[test]
fn of_two_copies_of_a_job_the_older_stops_and_nothing_is_written_twice() {
    let records = 8000;
    let job = Job::chain(Broker::shared(), records, 600);
    let mut first = job.start();
    until("some output", || {
        assert_eq!(first.ended(), None, "{}", first.log());
        job.check_chain() > 200
    });
    let (data, twin) = (job.folder.join("data"), job.folder.join("twin"));
    let mut second = None;
    Disturbance::frozen(first.id(), || {
        copy(&data, &twin);
        let mut process = job.start_in("twin", "");
        let before = job.check_chain();
        until("output of the copy", || {
            assert_eq!(process.ended(), None, "{}", process.log());
            job.check_chain() > before
        });
        second = Some(process);
    });
    let mut second = second.expect("it was started");
    assert_eq!(first.wait(), Ended::Code(1), "{}", first.log());
    let log = first.log();
    assert!(log.contains("error[fenced]") && log.contains("another process runs the job"), "{log}");
    assert_eq!(second.wait(), Ended::Code(0), "{}", second.log());
    assert_eq!(job.check_chain(), records);
    // Whoever starts the older copy all the same is told, and the output stays.
    let mut again = job.start();
    assert_eq!(again.wait(), Ended::Code(1), "{}", again.log());
    assert!(again.log().contains("error[fenced]"), "{}", again.log());
    assert_eq!(job.check_chain(), records);
}
