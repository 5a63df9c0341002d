//! The process itself: how soon it is there, what it holds when there is nothing to do, and how large it is.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::figure::{Report, Target, median};
use crate::http::free_addr;
use crate::running::Running;
use crate::usage::{cpu, memory};

/// A job whose source gives one record a second.
const IDLE_JOB: &str = r#"version = 1
[job]
name = "idle"
[sources.numbers]
connector = "generator"
keys = 10
rate = 1
[operators.counts]
uses = "count"
inputs = ["numbers"]
key = "key"
[sinks.out]
connector = "blackhole"
inputs = ["counts"]
"#;

/// The binary, which lies beside this one.
fn binary() -> PathBuf {
    std::env::current_exe().expect("this binary has a path").with_file_name("thalweg")
}

fn idle(folder: &std::path::Path) -> Result<Running, String> {
    let file = folder.join("idle.toml");
    std::fs::write(&file, IDLE_JOB).map_err(|error| error.to_string())?;
    let addr = free_addr();
    let mut command = Command::new(binary());
    command.arg("run").arg(file).arg("--data").arg(folder.join("data")).args(["--quiet", "--http", &addr.to_string()]);
    Running::start(command, addr)
}

/// From the start of the process to its first ready, and what it takes when idle.
pub(crate) fn start(report: &mut Report, short: bool) -> Result<(), String> {
    let mut took = Vec::new();
    for _ in 0..if short { 5 } else { 20 } {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let began = Instant::now();
        let job = idle(folder.path())?;
        job.ready()?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    report.check("start to ready, median", median(took), "ms", Target::AtMost(100.0));

    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let job = idle(folder.path())?;
    job.ready()?;
    thread::sleep(Duration::from_secs(2));
    let (before, began) = (cpu(job.pid()), Instant::now());
    thread::sleep(Duration::from_secs(if short { 3 } else { 10 }));
    let share = (cpu(job.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
    report.check("idle memory", memory(job.pid()).0 as f64 / 1e6, "MB", Target::AtMost(30.0));
    report.check("idle CPU", share * 100.0, "% of a core", Target::AtMost(1.0));
    Ok(())
}

/// The size of the binary.
pub(crate) fn size(report: &mut Report, _: bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let stripped = folder.path().join("thalweg");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(binary()).status();
    if !done.is_ok_and(|status| status.success()) {
        return Err(format!("strip has failed on {}; build it first: cargo build --release", binary().display()));
    }
    let bytes = std::fs::metadata(&stripped).map_err(|error| error.to_string())?.len();
    report.check("binary, stripped", bytes as f64 / 1e6, "MB", Target::AtMost(25.0));
    Ok(())
}
