//! The same count as a job: its file, and the process that runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use thalweg::prelude::*;

use crate::child::{Task, command_of};
use crate::http::{free_addr, until};
use crate::numbers::letters;
use crate::running::Running;

/// The job's name.
pub(crate) const JOB: &str = "words";
/// The crate of its operators: this one.
pub(crate) const CRATE: &str = env!("CARGO_PKG_NAME");
/// How long a count may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Counts, and emits a result for each record.
#[derive(Deserialize)]
#[serde(crate = "thalweg::serde")]
struct EveryUpdate {}

/// What the count needs of a record beside its key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Nothing {}

#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Counted {
    line: String,
    counts: u64,
}

impl KeyedProcess for EveryUpdate {
    type Key = String;
    type In = Nothing;
    type State = u64;
    type Out = Counted;
    const TIMERS: bool = false;

    fn process(
        &self,
        word: &String,
        records: &mut Records<Self>,
        state: &mut Option<u64>,
        out: &mut Output<Counted>,
        _: &EpochCtx,
    ) -> Result<()> {
        let count = state.get_or_insert(0);
        for _ in records {
            *count += 1;
            out.emit(Counted { line: word.clone(), counts: *count });
        }
        Ok(())
    }
}

/// Keeps letters for each number, others after each change.
#[derive(Deserialize)]
#[serde(crate = "thalweg::serde", deny_unknown_fields)]
struct Padded {
    bytes: usize,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Changed {
    number: i64,
    counts: u64,
}

impl KeyedProcess for Padded {
    type Key = i64;
    type In = Nothing;
    type State = (u64, String);
    type Out = Changed;
    const TIMERS: bool = false;

    fn process(
        &self,
        number: &i64,
        records: &mut Records<Self>,
        state: &mut Option<(u64, String)>,
        out: &mut Output<Changed>,
        _: &EpochCtx,
    ) -> Result<()> {
        let counts = state.as_ref().map_or(0, |(count, _)| *count) + records.len() as u64;
        *state = Some((counts, letters(*number as u64, counts, self.bytes)));
        out.emit(Changed { number: *number, counts });
        Ok(())
    }
}

/// The command line of the engine, with the operators of the benchmarks.
pub(crate) fn main() -> thalweg::Exit {
    thalweg::job! { "bench::EveryUpdate" => EveryUpdate, "bench::Padded" => Padded }
}

/// What is counted, and how.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    pub(crate) bootstrap: String,
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) epoch_ms: u64,
    pub(crate) epoch_records: usize,
    pub(crate) every_update: bool,
    pub(crate) delivery: &'static str,
}

impl Counting {
    fn text(&self) -> String {
        let Self { bootstrap, input, output, epoch_ms, epoch_records, delivery, .. } = self;
        let (uses, partitions) = (if self.every_update { "bench::EveryUpdate" } else { "count" }, super::PARTITIONS);
        // The limit is of one partition of the source.
        let most = epoch_records / partitions;
        format!(
            r#"version = 1
[job]
name = "{JOB}"
crate = "{CRATE}"
partitions = {partitions}
workers = 1
delivery = "{delivery}"
epoch = {{ interval = "{epoch_ms}ms", max_records = {most} }}
[kafka]
bootstrap_servers = "{bootstrap}"
[sources.words]
connector = "kafka"
topics = ["{input}"]
format = "lines"
[operators.counts]
uses = "{uses}"
inputs = ["words"]
key = "line"
[stores.counts]
changelog = "kafka"
[sinks.out]
connector = "kafka"
inputs = ["counts"]
topic = "{output}"
partitions = {partitions}
key = "line"
"#
        )
    }

    /// Starts it on a data folder.
    pub(crate) fn start(&self, folder: &Path) -> Result<Running, String> {
        start(&self.text(), folder)
    }
}

/// Starts a job on a data folder.
pub(crate) fn start(text: &str, folder: &Path) -> Result<Running, String> {
    let file: PathBuf = folder.join("job.toml");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let addr = free_addr();
    let mut command: Command = command_of(&Task::Job);
    command.arg("run").arg(file).arg("--data").arg(folder.join("data")).args(["--quiet", "--http", &addr.to_string()]);
    command.stdin(Stdio::null());
    Running::start(command, addr)
}

/// Waits until so many records have been read, processed, and are in a committed checkpoint; the job's status then.
pub(crate) fn finished(job: &Running, records: u64) -> Result<Value, String> {
    let mut http = job.ready()?;
    let read = until(&mut http, JOB, LIMIT, |status| status["records_in"].as_u64() >= Some(records))?;
    let epoch = read["epoch"].as_u64().unwrap_or(0) + read["epochs_open"].as_u64().unwrap_or(0);
    until(&mut http, JOB, LIMIT, |status| status["checkpoint"]["epoch"].as_u64() >= Some(epoch))
}
