//! The exactness protocol on a simulated Kafka with a virtual clock: the real decisions, sinks and bindings writer, every choice of
//! fate and order from a seed, or all of them in a small scope.
//!
//! A run is a sequence of choices. The first answer to each is what happens where nothing fails and nobody interrupts; an exploration
//! takes every run with at most so many other answers. After each step an observer looks at all that anybody may see.

#[path = "protocol/chance.rs"]
mod chance;
#[path = "protocol/mistakes.rs"]
mod mistakes;
#[path = "protocol/observer.rs"]
mod observer;
#[path = "protocol/world.rs"]
mod world;

use std::sync::Arc;

use chance::Chance;
use mistakes::Mistake;
use world::{Scope, run};

/// What the exploration of a scope came to.
#[derive(Debug, Default)]
struct Explored {
    runs: u64,
    steps: u64,
    wrong: Option<String>,
}

/// Every run of a scope with at most so many departures from the one in which nothing fails.
fn explore(scope: Scope, departures: usize) -> Explored {
    let mut explored = Explored::default();
    let mut todo = vec![Vec::new()];
    while let Some(script) = todo.pop() {
        let chance = Arc::new(Chance::scripted(&script));
        explored.runs += 1;
        match run(scope, &chance) {
            Ok(world) => explored.steps += world.steps as u64,
            Err(why) => {
                explored.wrong = Some(format!("{scope:?}, departures {script:?}: {why}"));
                return explored;
            }
        }
        if script.len() < departures {
            let first = script.last().map_or(0, |(at, _)| at + 1);
            for (at, answers) in chance.answers().into_iter().enumerate().skip(first) {
                todo.extend((1..answers).map(|answer| [&script[..], &[(at, answer)]].concat()));
            }
        }
    }
    explored
}

fn seeded(scope: Scope, seed: u64) -> Result<u64, String> {
    let chance = Arc::new(Chance::seeded(seed, 6));
    let outcome = run(scope, &chance);
    outcome.map(|world| world.steps as u64).map_err(|why| {
        format!("{scope:?}: {why}\nrepeat with THALWEG_SEED={seed} cargo test --release -p thalweg-tests --test protocol seeds")
    })
}

const SMALL: Scope = Scope { tasks: 1, epochs: 2, generations: 2, checkpoints: 1, mistake: None };
const LARGE: Scope = Scope { tasks: 2, epochs: 4, generations: 4, checkpoints: 2, mistake: None };

#[test]
fn every_run_of_a_small_scope_is_exact() {
    for tasks in [1, 2] {
        let explored = explore(Scope { tasks, ..SMALL }, 2);
        println!("{tasks} tasks: {} runs, {} steps", explored.runs, explored.steps);
        assert!(explored.wrong.is_none(), "{}", explored.wrong.unwrap_or_default());
    }
}

#[test]
fn seeds_of_a_large_scope_are_exact() {
    let mut steps = 0;
    for seed in 0..2000 {
        let scope = Scope { tasks: 1 + (seed % 2) as u32, ..LARGE };
        steps += seeded(scope, seed).unwrap_or_else(|why| panic!("{why}"));
    }
    println!("2000 seeds, {steps} steps");
}

#[test]
fn every_mistake_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let found = (0..20_000).find_map(|seed| {
            let scope = Scope { tasks: 2 - (seed % 2) as u32, mistake: Some(mistake), ..LARGE };
            seeded(scope, seed).err().map(|why| (seed, why))
        });
        match found {
            Some((seed, why)) => {
                println!("{mistake:?}: seed {seed}: {}", why.lines().find(|l| !l.is_empty()).unwrap_or_default())
            }
            None => missed.push(mistake),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "{missed:?} were not found");
}
