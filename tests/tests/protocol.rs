//! The exactness protocol on a simulated Kafka with a virtual clock: the real decisions, sinks, bindings, stores and changelogs, every
//! choice of fate and order from a seed, or all of them in a small scope.
//!
//! A run is a sequence of choices. The first answer to each is what happens where nothing fails and nobody interrupts; an exploration
//! takes every run with at most so many other answers. After each step an observer looks at all that anybody may see, and compares it
//! with what a run without faults comes to. `THALWEG_EXPLORE=large` takes larger scopes and more seeds.

#[path = "protocol/chance.rs"]
mod chance;
#[path = "protocol/mistakes.rs"]
mod mistakes;
#[path = "protocol/observer.rs"]
mod observer;
#[path = "protocol/reference.rs"]
mod reference;
#[path = "protocol/state.rs"]
mod state;
#[path = "protocol/task.rs"]
mod task;
#[path = "protocol/world.rs"]
mod world;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chance::{Chance, Odds};
use mistakes::Mistake;
use world::{Scope, run};

const SMALL: Scope =
    Scope { tasks: 1, merged: false, stores: false, epochs: 2, generations: 2, checkpoints: 1, mistake: None };
const LARGE: Scope = Scope { epochs: 4, generations: 4, checkpoints: 2, ..SMALL };
const WITH_STORES: Scope = Scope { stores: true, epochs: 6, generations: 4, checkpoints: 5, ..SMALL };

/// Ends of transactions that fail in a run of a seed.
const FAULTS: u32 = 6;
/// Seeds in the gate, without and with stores: those need a disk.
const SEEDS: (u64, u64) = (3_000, 120);
/// Seeds in which every process misreads once.
const MISREAD: u64 = 40;
/// Seeds that are tried for a mistake.
const TRIES: u64 = 20_000;
const THREADS: u64 = 2;

fn odds(scope: Scope) -> Odds {
    // Other mistakes are found sooner where nothing else is lost.
    let markers = scope.mistake.is_none_or(Mistake::is_of_lost_markers);
    Odds { cleans: scope.stores, loses_markers: scope.tasks == 1 && markers }
}

fn is_large() -> bool {
    std::env::var_os("THALWEG_EXPLORE").is_some_and(|scope| scope == "large")
}

/// The scope of a seed: one task, two, or two and one in turn. Mistakes of the changelog need no more than one.
fn scope_of(seed: u64, stores: bool, mistake: Option<Mistake>) -> Scope {
    let scope = if stores { WITH_STORES } else { LARGE };
    let alone = seed.is_multiple_of(3) || mistake.is_some_and(|mistake| stores || mistake.is_of_lost_markers());
    Scope { tasks: 2 - u32::from(alone), merged: !alone && seed % 3 == 2, mistake, ..scope }
}

/// A run of a seed: how many steps it took, or what is wrong with it.
fn seeded(seed: u64, stores: bool, mistake: Option<Mistake>) -> Result<u64, String> {
    let scope = scope_of(seed, stores, mistake);
    let chance = Arc::new(Chance::seeded(seed, FAULTS, odds(scope)));
    let test = if stores { "seeds_with_stores_are_exact" } else { "seeds_are_exact" };
    run(scope, &chance).map(|world| world.steps as u64).map_err(|why| {
        let repeat =
            format!("THALWEG_SEED={seed} cargo test --release -p thalweg-tests --test protocol {test} -- --exact");
        format!("{scope:?}, seed {seed}: {why}\n  repeat with: {repeat}")
    })
}

/// Every run of a scope with at most so many departures from the one in which nothing fails.
fn explore(scope: Scope, departures: usize) {
    #[allow(clippy::disallowed_methods, reason = "says how long it took; decides nothing")]
    let began = Instant::now();
    let (mut runs, mut steps) = (0_u64, 0_usize);
    let mut todo = vec![Vec::new()];
    while let Some(script) = todo.pop() {
        let chance = Arc::new(Chance::scripted(&script, odds(scope)));
        runs += 1;
        match run(scope, &chance) {
            Ok(world) => steps += world.steps,
            Err(why) => panic!("{scope:?}, departures {script:?}: {why}"),
        }
        if script.len() < departures {
            let first = script.last().map_or(0, |(at, _)| at + 1);
            for (at, answers) in chance.answers().into_iter().enumerate().skip(first) {
                todo.extend((1..answers).map(|answer| [&script[..], &[(at, answer)]].concat()));
            }
        }
    }
    println!("{scope:?}, {departures} departures: {runs} runs, {steps} steps in {:.1?}", began.elapsed());
}

#[test]
fn every_run_of_a_small_scope_is_exact() {
    let more = usize::from(is_large());
    explore(SMALL, 2 + more);
    explore(Scope { tasks: 2, ..SMALL }, 2 + more);
    explore(Scope { tasks: 2, merged: true, epochs: 3, generations: 3, checkpoints: 2, ..SMALL }, 1 + more);
}

#[test]
fn every_run_of_a_small_scope_with_stores_is_exact() {
    let more = usize::from(is_large());
    explore(Scope { stores: true, epochs: 3, checkpoints: 2, ..SMALL }, 1 + more);
}

/// A changelog that is misread, once in each process, is read again: the run is exact.
#[test]
fn a_misread_changelog_is_read_again() {
    for seed in 0..MISREAD {
        seeded(seed, true, Some(Mistake::MisreadOnce)).unwrap_or_else(|why| panic!("{why}"));
    }
}

fn check_seeds(count: u64, stores: bool) {
    let given = std::env::var("THALWEG_SEED").ok().and_then(|seed| seed.parse().ok());
    let (first, count) = given.map_or((0, if is_large() { 50 * count } else { count }), |seed| (seed, 1));
    #[allow(clippy::disallowed_methods, reason = "says how long it took; decides nothing")]
    let (began, steps) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let steps = &steps;
            scope.spawn(move || {
                for seed in (first..first + count).filter(|seed| seed % THREADS == thread) {
                    let taken = seeded(seed, stores, None).unwrap_or_else(|why| panic!("{why}"));
                    steps.fetch_add(taken, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{count} seeds, stores: {stores}: {} steps in {:.1?}", steps.into_inner(), began.elapsed());
}

#[test]
fn seeds_are_exact() {
    check_seeds(SEEDS.0, false);
}

#[test]
fn seeds_with_stores_are_exact() {
    check_seeds(SEEDS.1, true);
}

/// The first seed that finds a mistake, with what it finds.
fn find(mistake: Mistake) -> Option<String> {
    let stores = mistake.is_of_changelog();
    let first = mistake.first_seed();
    (first..first + TRIES).find_map(|seed| {
        let why = seeded(seed, stores, Some(mistake)).err()?;
        let steps = why.matches(" > ").count() + 1;
        let what = why.lines().find(|line| !line.is_empty()).unwrap_or_default();
        Some(format!("seed {seed}, {steps} steps: {what}"))
    })
}

/// Each mistake, put back, is found: by the first of so many seeds.
#[test]
fn every_mistake_is_found() {
    const THREAD: &str = "mistakes";
    let hook = std::panic::take_hook();
    // Many are found by an assertion of the engine.
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(THREAD) {
            hook(panic);
        }
    }));
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let search = || {
                while let Some(mistake) = Mistake::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match find(*mistake) {
                        Some(found) => println!("{mistake:?}: {found}"),
                        None => missed.lock().expect("nobody panics with it").push(*mistake),
                    }
                }
            };
            std::thread::Builder::new().name(THREAD.to_owned()).spawn_scoped(scope, search).expect("a thread");
        }
    });
    let missed = missed.into_inner().expect("nobody panics with it");
    assert!(missed.is_empty(), "{missed:?} were not found");
}
