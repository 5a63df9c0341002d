//! Exactness of the whole engine: the real binary over seeded jobs, against the interpreter.
//!
//! Every failure prints its seed and the command that repeats it. `THALWEG_KILLS` says how many kills there are in all; without
//! it as many as fit into a few minutes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_tests::{
    Binary, Ended, Fault, Folder, Points, Process, Random, RunFlags, Trial, TrialOptions, points, repeat_with_workers,
    two_runs_agree,
};

/// Kills in a run of all tests.
const KILLS: u64 = 100;
/// Kills of one seed.
const KILLS_PER_SEED: u64 = 6;

/// Failpoints that a job does not pass in a test's time, with who hits them.
const ELSEWHERE: [(&str, &str); 11] = [
    // Of Kafka, as those below.
    ("backfill-over", "kafka/backfill.rs"),
    // A checkpoint is given up only where its changelogs cannot be written, which takes an error at another point first.
    ("checkpoint-abandoned", "a_checkpoint_that_cannot_be_written_is_made_up_for"),
    ("claim-append", "kafka/exactness.rs"),
    ("claim-durable", "kafka/exactness.rs"),
    ("growth-added", "kafka/growth.rs"),
    ("growth-bound", "kafka/growth.rs"),
    ("growth-found", "kafka/growth.rs"),
    ("growth-opened", "kafka/growth.rs"),
    ("kafka-commit", "kafka/exactness.rs"),
    ("kafka-committed", "kafka/exactness.rs"),
    // A log is cleaned each minute, and only segments that are full: connectors/tests/log_faults.rs kills it there.
    ("log-clean-rename", "connectors/tests/log_faults.rs"),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The outcome, or a panic with the command that repeats it.
fn check<T>(test: &str, seed: u64, outcome: Result<T, String>) -> T {
    let repeat =
        format!("THALWEG_SEED={seed} cargo test --release -p thalweg-tests --test exactness {test} -- --exact");
    outcome.unwrap_or_else(|error| panic!("{error}\n  repeat with: {repeat}"))
}

/// The given seed, or these.
fn seeds(from: u64, count: u64) -> impl Iterator<Item = u64> {
    let given = number("THALWEG_SEED");
    given.map_or(from..from + count, |seed| seed..seed + 1)
}

#[test]
fn without_faults_everything_is_what_the_interpreter_says() {
    let mut set_aside = 0;
    for seed in seeds(1, 8) {
        let options =
            TrialOptions { custom: seed % 2 == 1, observe: seed % 3 == 0, life: 100, ..TrialOptions::default() };
        let trial = check("without_faults_everything_is_what_the_interpreter_says", seed, Trial::run(seed, &options));
        println!("seed {seed}: {trial:?}");
        set_aside += trial.dead_letters;
    }
    assert!(number("THALWEG_SEED").is_some() || set_aside > 100, "{set_aside} dead letters prove little");
}

#[test]
fn a_recorded_run_repeats_byte_for_byte_with_any_number_of_workers() {
    for seed in seeds(100, 4) {
        let test = "a_recorded_run_repeats_byte_for_byte_with_any_number_of_workers";
        let epochs = check(test, seed, repeat_with_workers(seed, seed % 2 == 1));
        println!("seed {seed}: {epochs} epochs");
    }
}

/// Where epochs are cut by count, the others are far ahead when a slow source finds that nothing more is there: nobody wakes it for an
/// epoch that was reached before.
#[test]
fn a_slow_source_that_ends_behind_the_others_holds_up_nothing() {
    let folder = Folder::new();
    let rows = |count: usize| "{\"k\":1}\n".repeat(count);
    folder.write("fast.jsonl", rows(500));
    // The blank line keeps the reader from knowing with the last record that it is at the end.
    folder.write("slow.jsonl", rows(15) + "\n");
    let job = r#"version = 1
[job]
name = "ends"
[job.epoch]
interval = "none"
max_records = 10
[sources.fast]
connector = "file"
path = "fast.jsonl"
format = "json"
[sources.slow]
connector = "file"
path = "slow.jsonl"
format = "json"
rate = 200
[operators.rows]
uses = "count"
inputs = ["fast", "slow"]
key = "k"
[sinks.out]
connector = "file"
path = "out.jsonl"
single = true
inputs = ["rows"]
"#;
    folder.write("job.toml", job);
    let flags = RunFlags { workers: 2, ..RunFlags::new(folder.join("data")) };
    let mut process = Process::start(&Binary::thalweg(), &folder.join("job.toml"), &flags, &folder.join("run.log"));
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    let out = std::fs::read_to_string(folder.join("out.jsonl")).expect("it is written");
    assert_eq!(out.lines().last(), Some(r#"{"k":1,"rows":515}"#));
}

#[test]
fn without_a_clock_any_two_runs_agree() {
    for seed in seeds(200, 4) {
        check("without_a_clock_any_two_runs_agree", seed, two_runs_agree(seed));
    }
}

#[test]
fn kills_at_any_moment_change_nothing() {
    const THREADS: u64 = 3;
    let wanted = number("THALWEG_KILLS").unwrap_or(KILLS);
    let (kills, next) = (AtomicU64::new(0), AtomicU64::new(1000));
    let given = number("THALWEG_SEED");
    std::thread::scope(|scope| {
        for _ in 0..given.map_or(THREADS, |_| 1) {
            scope.spawn(|| {
                while kills.load(Ordering::Relaxed) < wanted {
                    let seed = given.unwrap_or_else(|| next.fetch_add(1, Ordering::Relaxed));
                    let outcome = Trial::run(seed, &TrialOptions::kills(seed, KILLS_PER_SEED));
                    let trial = check("kills_at_any_moment_change_nothing", seed, outcome);
                    println!("seed {seed}: {trial:?}");
                    // A job that ends early is not killed so often; it must not go on for ever.
                    kills.fetch_add(if given.is_some() { wanted } else { trial.kills.max(1) }, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Kills and errors at every failpoint: the first time that it is passed, and some time later.
#[test]
fn every_failpoint_is_hit_and_changes_nothing() {
    let Points { points, .. } = points();
    let mut hit = BTreeSet::new();
    for (index, point) in points.iter().enumerate() {
        let first = 2000 + index as u64;
        // Not every job comes to every point: another one may.
        let seeds = number("THALWEG_SEED").map_or_else(|| vec![first, first + 100, first + 200], |seed| vec![seed]);
        for seed in seeds {
            let mut random = Random::new(seed);
            let mut faults = Vec::new();
            for (kind, times) in [("kill", 1), ("error", random.between(1, 4)), ("kill", random.between(2, 12))] {
                let fault = Fault::point(format!("{point}={kind}@{times}"));
                faults.push(if random.once_in(3) { fault.losing_state() } else { fault });
            }
            let outcome = Trial::run(seed, &TrialOptions::points(seed, faults));
            let trial = check("every_failpoint_is_hit_and_changes_nothing", seed, outcome);
            println!("{point}, seed {seed}: {trial:?}");
            hit.extend(trial.points);
            if hit.contains(point) || ELSEWHERE.iter().any(|(other, _)| other == point) {
                break;
            }
        }
    }
    let missed: Vec<_> = points.iter().filter(|point| !hit.contains(*point)).map(String::as_str).collect();
    let elsewhere: Vec<_> = ELSEWHERE.iter().map(|(point, _)| *point).collect();
    assert_eq!(missed, elsewhere, "a failpoint that no job passes tests nothing");
}

/// Changelogs that cannot be written, or whose write is not known to have succeeded: the job goes on, also where it is killed right
/// after the decision to give that checkpoint up, and what was written is all there is left.
#[test]
fn a_checkpoint_that_cannot_be_written_is_made_up_for() {
    let test = "a_checkpoint_that_cannot_be_written_is_made_up_for";
    let (mut killed, mut went_on) = (0, 0);
    // How many checkpoints a run takes is the machine's to say: on a busy one it takes more seeds until enough have failed.
    for seed in seeds(2500, 32) {
        if seed >= 2508 && killed > 4 && went_on > 0 {
            break;
        }
        let mut random = Random::new(seed);
        let mut fails = || {
            let point = *random.pick(&["changelog-append", "checkpoint-changelog"]);
            format!("{point}=error@{}", random.between(1, 3))
        };
        let faults = vec![
            Fault::point(format!("{};checkpoint-abandoned=kill@1", fails())).losing_state(),
            Fault::point(format!("{};history-append=kill@9", fails())).losing_state(),
            Fault::point(format!("{};checkpoint-abandoned=kill@1", fails())),
            Fault::point(fails()),
        ];
        let trial = check(test, seed, Trial::run(seed, &TrialOptions::points(seed, faults)));
        println!("seed {seed}: {trial:?}");
        killed += u64::from(trial.points.contains("checkpoint-abandoned"));
        went_on += u64::from(trial.given_up > trial.kills);
    }
    assert!(number("THALWEG_SEED").is_some() || killed > 4 && went_on > 0, "{killed} and {went_on} are too few");
}

/// How a known bug is to be found: what happens to the runs of a trial.
fn faults_for(bug: &str, seed: u64) -> TrialOptions {
    let points = |points: &[&str]| points.iter().map(|point| Fault::point(*point)).collect::<Vec<_>>();
    match bug {
        // The epoch is written while its binding is not: so the binding has to fail.
        "sink-before-binding" => {
            TrialOptions::points(seed, points(&["bindings-append=error@3", "bindings-append=error@5"]))
        }
        "committed-slot-overwritten" => {
            let lost = points(&["checkpoint-changelog=kill@3", "checkpoint-changelog=kill@2"]);
            TrialOptions::points(seed, lost.into_iter().map(Fault::losing_state).collect())
        }
        _ => TrialOptions { changelog: Some(seed % 2 == 1), ..TrialOptions::kills(seed, KILLS_PER_SEED) },
    }
}

/// The harness itself: it has to notice each bug that is put back.
#[test]
fn every_known_bug_is_found_when_it_is_put_back() {
    const SEEDS: u64 = 12;
    let Points { bugs, .. } = points();
    assert!(bugs.len() >= 5, "{bugs:?}");
    for bug in bugs {
        let bug: &'static str = bug.leak();
        let found = (3000..3000 + SEEDS).find_map(|seed| {
            let options = TrialOptions { bug: Some(bug), ..faults_for(bug, seed) };
            Trial::run(seed, &options).err()
        });
        let found = found.unwrap_or_else(|| panic!("bug {bug} was not found with {SEEDS} seeds"));
        println!("{bug}: {}", found.lines().take(3).collect::<Vec<_>>().join(" | "));
    }
}
