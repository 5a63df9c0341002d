//! The benchmarks: each one is a name, prints one line per figure, and says whether its target is reached.

#![allow(clippy::disallowed_methods, reason = "benchmarks measure time, and wait for what they measure")]

mod child;
mod corpus;
mod count;
mod figure;
mod handwritten;
mod http;
mod kafka;
mod measured;
mod numbers;
mod plain_server;
mod process;
mod running;
mod serving;
mod state;
mod steady;
mod usage;
mod wordcount;
mod words;

use std::process::ExitCode;

use clap::Parser;

use figure::{Form, Report};

/// The engine's and every job's allocator, so that both sides of a comparison have it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Bench = fn(&mut Report, bool) -> Result<(), String>;

const BENCHES: &[(&str, Bench)] = &[
    ("count-disk", wordcount::on_disk),
    ("count-memory", wordcount::in_memory),
    ("workers", wordcount::workers),
    ("get", serving::get),
    ("latency", serving::latency),
    ("start", process::start),
    ("restart", state::restart),
    ("memory", state::budget),
    ("pause", state::pause),
    ("size", process::size),
    ("kafka-count", kafka::count),
    ("kafka-latency", kafka::latency),
    ("kafka-restore", kafka::restore),
    ("kafka-restart", kafka::restart),
    ("kafka-changelog", kafka::changelog),
];

/// Measures the engine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which benchmarks; all of them where none is named
    names: Vec<String>,

    /// Smaller inputs and fewer rounds, for a first look
    #[arg(long)]
    short: bool,

    /// The form of the figures
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
}

fn main() -> ExitCode {
    if let Some(task) = child::task() {
        return if child::run(task) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.names.iter().find(|name| BENCHES.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = BENCHES.iter().map(|(name, _)| *name).collect();
        eprintln!("no benchmark is called {unknown:?}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut failed = false;
    for &(bench, run) in BENCHES {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|name| name == bench) {
            continue;
        }
        let mut report = Report { bench, form: arguments.output, missed: 0 };
        if let Err(error) = run(&mut report, arguments.short) {
            eprintln!("{bench}: {error}");
            failed = true;
        }
        failed |= report.missed > 0;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
