//! Exactness over Kafka: the real binary over seeded jobs with sinks, changelogs and bindings there, against the interpreter.
//!
//! Every failure prints its seed and the command that repeats it.

use std::time::Duration;

use thalweg_tests::kafka::{Broker, BrokerSettings};
use thalweg_tests::{Fault, Home, Points, Random, Trial, TrialOptions, points};

/// Kills of one seed.
const KILLS_PER_SEED: u64 = 4;
/// Trials at the same time: a job waits for its broker more than it computes.
const THREADS: u64 = 3;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The job of a trial in Kafka, on the shared broker.
fn home() -> Home {
    Home::new(&Broker::shared().bootstrap(), Broker::shared().client())
}

/// Runs trials on the shared broker.
fn check(test: &str, from: u64, count: u64, options: impl Fn(u64) -> TrialOptions + Sync) -> Vec<Trial> {
    check_at(home, test, from, count, options)
}

/// Runs the trials of seeds from `from` on, several at once; of the given seed alone where `THALWEG_SEED` gives one.
fn check_at(
    home: impl Fn() -> Home + Sync,
    test: &str,
    from: u64,
    count: u64,
    options: impl Fn(u64) -> TrialOptions + Sync,
) -> Vec<Trial> {
    let given = number("THALWEG_SEED");
    let seeds: Vec<u64> = given.map_or((from..from + count).collect(), |seed| vec![seed]);
    let trials = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (home, seeds, trials, options) = (&home, &seeds, &trials, &options);
            scope.spawn(move || {
                for seed in seeds.iter().skip(thread as usize).step_by(THREADS as usize) {
                    let outcome = Trial::run(*seed, &TrialOptions { kafka: Some(home()), ..options(*seed) });
                    let repeat = format!(
                        "THALWEG_SEED={seed} cargo test --release -p thalweg-tests --test kafka {test} -- --exact"
                    );
                    let trial = outcome.unwrap_or_else(|error| panic!("{error}\n  repeat with: {repeat}"));
                    println!("seed {seed}: {trial:?}");
                    trials.lock().expect("no trial panics while it is locked").push(trial);
                }
            });
        }
    });
    trials.into_inner().expect("no trial panics while it is locked")
}

#[test]
fn without_faults_everything_is_what_the_interpreter_says() {
    let options = |seed: u64| TrialOptions {
        custom: seed % 2 == 1,
        observe: seed.is_multiple_of(3),
        life: 100,
        changelog: Some(true),
        ..TrialOptions::default()
    };
    check("exactness::without_faults_everything_is_what_the_interpreter_says", 4000, 4, options);
}

#[test]
fn kills_at_any_moment_change_nothing() {
    let seeds = number("THALWEG_KILLS").map_or(6, |kills| kills.div_ceil(KILLS_PER_SEED));
    let trials = check("exactness::kills_at_any_moment_change_nothing", 5000, seeds, |seed| {
        TrialOptions::kills(seed, KILLS_PER_SEED)
    });
    assert!(trials.iter().any(|trial| trial.kills > 0), "nothing was killed: {trials:?}");
}

/// Sources that read topics, in which some transactions are aborted, and which get more partitions meanwhile.
#[test]
fn topics_that_are_written_and_grow_meanwhile_give_what_the_interpreter_says() {
    let test = "exactness::topics_that_are_written_and_grow_meanwhile_give_what_the_interpreter_says";
    let trials = check(test, 5100, 5, |seed| {
        let mut random = Random::new(seed);
        // Over the whole time in which something is written.
        let faults = (0..3).map(|_| Fault::kill(Duration::from_millis(random.between(300, 1_300)))).collect();
        TrialOptions { topics: true, changelog: Some(true), life: 2_500, faults, ..TrialOptions::kills(seed, 0) }
    });
    assert!(trials.iter().any(|trial| trial.kills > 0), "nothing was killed: {trials:?}");
}

/// Failpoints on the way of a job in Kafka.
fn kafka_points() -> Vec<String> {
    const OF_KAFKA: [&str; 8] =
        ["kafka-", "claim-", "bindings-", "changelog-", "checkpoint-", "sink-write", "sink-sync", "epoch-"];
    let Points { points, .. } = points();
    points.into_iter().filter(|point| OF_KAFKA.iter().any(|start| point.starts_with(start))).collect()
}

/// Kills and errors at every point where the job has to do with Kafka, two in a row, and with the state lost.
#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn every_failpoint_is_hit_and_changes_nothing() {
    let points = kafka_points();
    let options = |seed: u64| {
        let point = &points[(seed as usize - 4500) % points.len()];
        let mut random = Random::new(seed);
        // A start claims the job once.
        let later = if point.starts_with("claim-") { 1 } else { random.between(1, 4) };
        let faults = vec![
            Fault::point(format!("{point}=kill@1")),
            Fault::point(format!("{point}=error@{later}")).losing_state(),
            Fault::point(format!("{point}=kill@{later}")).losing_state(),
        ];
        TrialOptions { every_sink: false, ..TrialOptions::points(seed, faults) }
    };
    let trials = check("exactness::every_failpoint_is_hit_and_changes_nothing", 4500, points.len() as u64, options);
    let hit: std::collections::BTreeSet<&String> = trials.iter().flat_map(|trial| &trial.points).collect();
    let missed: Vec<&String> = points.iter().filter(|point| !hit.contains(point)).collect();
    let alone = number("THALWEG_SEED").is_some();
    assert!(alone || missed == ["checkpoint-abandoned"], "not passed: {missed:?}");
}

/// A changelog that is cleaned all the time, and most of all while the job is away between two checkpoints; keys are deleted and come
/// back, and the state is restored from what cleaning has left.
#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn cleaning_a_changelog_takes_nothing_that_counts() {
    let broker = Broker::start(&BrokerSettings::new().always_cleaning());
    // What a killed job has left open is aborted while it is away, and is no bar to the cleaner any more. A broker that cleans all the time
    // takes a second or two for the changelogs of a checkpoint.
    let home = || Home::new(&broker.bootstrap(), broker.client()).with_transaction_timeout(4_000);
    let outage = Duration::from_millis(5_000);
    check_at(home, "exactness::cleaning_a_changelog_takes_nothing_that_counts", 4800, 3, |seed| {
        let options = TrialOptions::kills(seed, 3);
        let faults = options.faults.into_iter();
        let faults = faults.map(|fault| Fault { lose_state: true, ..fault.with_outage(outage) }).collect();
        TrialOptions { custom: true, changelog: Some(true), life: 1_500, faults, ..options }
    });
    let cleaned = std::fs::read_to_string(broker.log_folder().join("cleaner-offset-checkpoint")).unwrap_or_default();
    let changelogs = cleaned.lines().filter(|line| line.starts_with("changelog-") && !line.ends_with(" 0"));
    assert!(changelogs.count() > 0, "no changelog was cleaned: {cleaned}");
}
