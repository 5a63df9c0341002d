//! Runs in processes of their own, so that each is measured alone: this binary again, told by its environment what to do.

use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use thalweg::Exit;

use crate::count::Count;
use crate::handwritten::Handwritten;
use crate::kafka::{self, Bare, Scan};
use crate::numbers::{Bursts, Fill};
use crate::steady::Steady;

const TASK: &str = "THALWEG_BENCH_TASK";

/// What a child process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    Count(Count),
    Handwritten(Handwritten),
    Steady(Steady),
    Fill(Fill),
    Bursts(Bursts),
    Bare(Bare),
    Scan(Scan),
    /// The engine's command line, with the operators of the benchmarks.
    Job,
}

/// What this process is told to do, if it is a child.
pub(crate) fn task() -> Option<Task> {
    let text = std::env::var(TASK).ok()?;
    Some(serde_json::from_str(&text).expect("the parent wrote it"))
}

/// Does the task of a child.
pub(crate) fn run(task: Task) -> bool {
    let measured = match task {
        Task::Count(job) => crate::count::run(job),
        Task::Handwritten(job) => Some(crate::handwritten::run(job)),
        Task::Steady(job) => return crate::steady::run(job) == Exit::Done,
        Task::Fill(job) => return crate::numbers::fill(job) == Exit::Done,
        Task::Bursts(job) => return crate::numbers::bursts(job) == Exit::Done,
        Task::Bare(job) => Some(kafka::run_bare(job)),
        Task::Scan(job) => {
            answer(&kafka::run_scan(&job));
            return true;
        }
        Task::Job => return kafka::run_job() == Exit::Done,
    };
    if let Some(measured) = &measured {
        answer(measured);
    }
    measured.is_some()
}

/// Tells the parent.
pub(crate) fn answer(answer: &impl Serialize) {
    println!("{}", serde_json::to_string(answer).expect("plain data"));
}

/// The command that does a task; it has no arguments yet.
pub(crate) fn command_of(task: &Task) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command.env(TASK, serde_json::to_string(task).expect("plain data"));
    command
}

/// The command that does a task with the flags of `run`.
pub(crate) fn command(task: &Task, data: &Path, http: &str) -> Command {
    let mut command = command_of(task);
    command.arg("--data").arg(data).args(["--http", http, "--quiet"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Does a task to its end, in a fresh data folder.
pub(crate) fn ask<T: DeserializeOwned>(task: &Task) -> Result<T, String> {
    let data = tempfile::tempdir().map_err(|error| format!("making a data folder: {error}"))?;
    let output =
        command(task, data.path(), "none").stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("a run has failed ({}): {task:?}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("a run has answered nothing: {error}"))
}
