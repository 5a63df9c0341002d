//! Large state: how soon a killed job goes on, what memory it takes, and how long a checkpoint holds a worker up.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::Task;
use crate::figure::{Report, Target, median};
use crate::http::until;
use crate::numbers::{Bursts, Fill, FirstOutput, JOB, Pauses};
use crate::running::Running;
use crate::usage::memory;

/// The state of one key.
const VALUE_BYTES: usize = 1000;
/// Changes per second after the fill.
const CHANGES_PER_SECOND: u64 = 20_000;
/// How often a job of a size is killed.
const KILLS: usize = 3;
/// How long it runs before: not a multiple of the second between checkpoints, so that there is something to repeat.
const BEFORE_KILL: Duration = Duration::from_millis(1700);
/// How long a fill may take.
const FILL_LIMIT: Duration = Duration::from_secs(300);

/// Runs a fill until all of it, and a little more, is in a committed checkpoint.
fn filled(fill: Fill, data: &Path) -> Result<Running, String> {
    let job = Running::task(&Task::Fill(fill), data)?;
    let mut http = job.ready()?;
    let full = until(&mut http, JOB, FILL_LIMIT, |status| status["records_in"].as_u64() > Some(fill.keys))?;
    let epoch = full["epoch"].as_u64().unwrap_or(0) + full["epochs_open"].as_u64().unwrap_or(0);
    until(&mut http, JOB, FILL_LIMIT, |status| status["checkpoint"]["epoch"].as_u64() > Some(epoch))?;
    Ok(job)
}

/// `kill -9` with a lot of state, to the first new output.
pub(crate) fn restart(report: &mut Report, short: bool) -> Result<(), String> {
    let sizes: [(&str, u64); 2] =
        if short { [("0.02 GB", 20_000), ("0.2 GB", 200_000)] } else { [("0.1 GB", 100_000), ("1 GB", 1_000_000)] };
    for (size, keys) in sizes {
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let fill = Fill { keys, value_bytes: VALUE_BYTES, per_second: CHANGES_PER_SECOND, state_memory: None };
        let mut job = filled(fill, data.path())?;
        report.note(&format!("state folder, {size}"), folder_bytes(data.path()) as f64 / 1e6, "MB");
        let mut took = Vec::new();
        for _ in 0..KILLS {
            std::thread::sleep(BEFORE_KILL);
            job.kill();
            let began = Instant::now();
            job = Running::task(&Task::Fill(fill), data.path())?;
            let _: FirstOutput = job.hear()?;
            took.push(began.elapsed().as_secs_f64());
        }
        report.note(&format!("the longest of {KILLS}, {size}"), took.iter().copied().fold(0.0, f64::max), "s");
        report.check(&format!("kill -9 to new output, {size}"), median(took), "s", Target::AtMost(3.0));
    }
    Ok(())
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Many small keys under a budget.
pub(crate) fn budget(report: &mut Report, short: bool) -> Result<(), String> {
    let (keys, budget) = if short { (2_000_000, 64 << 20) } else { (10_000_000, 256 << 20) };
    let data = tempfile::tempdir().map_err(|error| error.to_string())?;
    let fill = Fill { keys, value_bytes: 0, per_second: CHANGES_PER_SECOND, state_memory: Some(budget) };
    let job = filled(fill, data.path())?;
    std::thread::sleep(Duration::from_secs(3));
    let (now, highest) = memory(job.pid());
    report.note("keys", keys as f64, "");
    report.note("memory after the fill", now as f64 / 1e6, "MB");
    report.check("memory at most", highest as f64 / 1e6, "MB", Target::AtMost(budget as f64 / 1e6 + 200.0));
    Ok(())
}

/// The pauses of a worker for a checkpoint.
pub(crate) fn pause(report: &mut Report, short: bool) -> Result<(), String> {
    let (keys, bursts) = if short { (100_000, 2) } else { (500_000, 5) };
    let data = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut job = Running::task(&Task::Bursts(Bursts { keys, bursts }), data.path())?;
    let pauses: Pauses = job.hear()?;
    let checkpoints = job.ready()?.json(&format!("/v1/jobs/{JOB}/checkpoints"))?;
    let changed = checkpoints["checkpoints"].as_array().into_iter().flatten();
    let changed = changed.filter_map(|checkpoint| checkpoint["changed_keys"].as_u64()).max().unwrap_or(0);
    report.note("changed keys of a checkpoint, at most", changed as f64, "");
    let longest = |of: &[f64]| of.iter().copied().fold(0.0, f64::max);
    report.note("longest pause of all", longest(&pauses.longest_ms), "ms");
    report.note("longest pause with nothing to do", longest(&pauses.idle_ms), "ms");
    report.check("longest pause, median of bursts", median(pauses.longest_ms), "ms", Target::AtMost(20.0));
    Ok(())
}
