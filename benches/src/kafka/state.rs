//! State whose changelog is in Kafka: how quickly it is restored, how soon a killed job goes on, and how much is written for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};
use thalweg_tests::kafka::{Broker, BrokerSettings};

use super::PARTITIONS;
use super::job::{CRATE, JOB, finished, start};
use super::native::Reader;
use crate::child::{Task, ask};
use crate::figure::{Report, Target, median};
use crate::http::until;
use crate::running::Running;
use crate::usage::{cpu, own_cpu};

/// Of the state of one key.
const VALUE_BYTES: usize = 1000;
/// After the fill, and where a small set of keys changes again and again.
const CHANGES_PER_SECOND: u64 = 1000;
const OUTPUT: &str = "out";
const LIMIT: Duration = Duration::from_secs(300);
const KILLS: usize = 3;
/// How long it runs before it is killed: not a multiple of the second between checkpoints.
const BEFORE_KILL: Duration = Duration::from_millis(1700);
/// The most that a plain restore puts into one batch.
const BATCH_RECORDS: usize = 1000;

/// A job with a state of so many keys, which goes on to change it.
fn text(broker: &Broker, keys: u64, value_bytes: usize, (key, rate): (&str, u64)) -> String {
    format!(
        r#"version = 1
[job]
name = "{JOB}"
crate = "{CRATE}"
partitions = {PARTITIONS}
workers = 1
[kafka]
bootstrap_servers = "{}"
[sources.fill]
connector = "generator"
count = {keys}
keys = {keys}
[sources.changes]
connector = "generator"
keys = {keys}
rate = {rate}
[operators.counts]
uses = "bench::Padded"
inputs = ["fill", "changes"]
key = "{key}"
bytes = {value_bytes}
[stores.counts]
changelog = "kafka"
[sinks.out]
connector = "kafka"
inputs = ["counts"]
topic = "{OUTPUT}"
partitions = {PARTITIONS}
key = "number"
"#,
        broker.bootstrap()
    )
}

/// A job that has filled its state.
struct Filled {
    broker: Broker,
    folder: tempfile::TempDir,
    text: String,
}

impl Filled {
    fn new(keys: u64) -> Result<(Self, Running), String> {
        let broker = Broker::start(&BrokerSettings::new());
        let text = text(&broker, keys, VALUE_BYTES, ("n", CHANGES_PER_SECOND));
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let job = start(&text, folder.path())?;
        finished(&job, keys)?;
        Ok((Self { broker, folder, text }, job))
    }

    fn start(&self) -> Result<Running, String> {
        start(&self.text, self.folder.path())
    }
}

/// The one changelog of a broker.
fn changelog_topic(broker: &Broker) -> Result<String, String> {
    let entries = std::fs::read_dir(broker.log_folder()).map_err(|error| error.to_string())?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let topic = names
        .filter(|name| name.starts_with("changelog-"))
        .find_map(|name| name.rsplit_once('-').map(|(topic, _)| topic.to_owned()));
    topic.ok_or_else(|| "the broker has no changelog".to_owned())
}

/// What is read back and put into RocksDB.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scan {
    bootstrap: String,
    topic: String,
}

/// What that came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Scanned {
    records: u64,
    bytes: u64,
    cpu_seconds: f64,
    wall_seconds: f64,
}

/// A restore as one would write it: every record of the changelog goes into a write batch.
pub(crate) fn scan(job: &Scan) -> Scanned {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut options = Options::default();
    options.create_if_missing(true);
    // As the engine keeps its rows.
    options.set_compression_type(DBCompressionType::Lz4);
    let db = DB::open(&options, folder.path()).expect("an empty database");
    let mut unlogged = WriteOptions::default();
    unlogged.disable_wal(true);
    let (began, cpu) = (Instant::now(), own_cpu());
    let mut reader = Reader::new(&job.bootstrap, &job.topic, PARTITIONS, &[]);
    let (mut records, mut bytes) = (0, 0);
    while !reader.at_end() {
        let mut batch = WriteBatch::default();
        records += reader.read(BATCH_RECORDS, 10, |message| {
            bytes += (message.key.len() + message.value.len()) as u64;
            batch.put(message.key, message.value);
        }) as u64;
        db.write_opt(batch, &unlogged).expect("a writable database");
    }
    db.flush().expect("a writable database");
    let cpu_seconds = (own_cpu() - cpu).as_secs_f64();
    Scanned { records, bytes, cpu_seconds, wall_seconds: began.elapsed().as_secs_f64() }
}

/// A start without local state, beside a plain restore of the same changelog.
pub(crate) fn restore(report: &mut Report, short: bool) -> Result<(), String> {
    let keys = if short { 50_000 } else { 1_000_000 };
    let (filled, mut job) = Filled::new(keys)?;
    job.kill();
    let topic = changelog_topic(&filled.broker)?;
    let state = filled.folder.path().join("data").join(JOB).join("state");
    let (mut engine, mut plain, mut changelog) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..if short { 1 } else { 3 } {
        let scan = Scan { bootstrap: filled.broker.bootstrap(), topic: topic.clone() };
        let scanned: Scanned = ask(&Task::Scan(scan))?;
        // With its state, for what a start costs by itself; then without.
        let warm = until_ready(&filled)?;
        std::fs::remove_dir_all(&state).map_err(|error| error.to_string())?;
        let cold = until_ready(&filled)?;
        let megabytes = scanned.bytes as f64 / 1e6;
        changelog = megabytes;
        engine.push((megabytes / (cold.0 - warm.0), megabytes / (cold.1 - warm.1)));
        plain.push((megabytes / scanned.cpu_seconds, megabytes / scanned.wall_seconds));
    }
    report.note("changelog", changelog, "MB");
    let of = |all: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| median(all.iter().map(pick));
    let (cpu, wall): (fn(&(f64, f64)) -> f64, fn(&(f64, f64)) -> f64) = (|one| one.0, |one| one.1);
    report.note("plain write batches, per CPU-second", of(&plain, cpu), "MB/s");
    report.note("plain write batches, wall", of(&plain, wall), "MB/s");
    report.note("restore, wall", of(&engine, wall), "MB/s");
    report.check("restore, per CPU-second", of(&engine, cpu), "MB/s", Target::AtLeast(100.0));
    for (name, pick) in [("restore by plain write batches, wall", wall), ("restore by plain write batches, CPU", cpu)] {
        let ratios = engine.iter().zip(&plain).map(|(engine, plain)| pick(engine) / pick(plain));
        report.check(name, median(ratios), "", Target::AtLeast(2.0));
    }
    Ok(())
}

/// CPU and wall seconds of a start up to its first ready.
fn until_ready(filled: &Filled) -> Result<(f64, f64), String> {
    let began = Instant::now();
    let mut job = filled.start()?;
    let mut ready = job.ready()?;
    let took = (cpu(job.pid()).as_secs_f64(), began.elapsed().as_secs_f64());
    // It has to be in order, too: a checkpoint of now.
    let first = ready.json(&format!("/v1/jobs/{JOB}"))?["checkpoint"]["epoch"].as_u64();
    until(&mut ready, JOB, LIMIT, |status| status["checkpoint"]["epoch"].as_u64() > first)?;
    job.kill();
    Ok(took)
}

/// `kill -9` with its state on disk, to the first new committed output.
pub(crate) fn restart(report: &mut Report, short: bool) -> Result<(), String> {
    let keys = if short { 50_000 } else { 1_000_000 };
    let (filled, mut job) = Filled::new(keys)?;
    let mut reader = Reader::new(&filled.broker.bootstrap(), OUTPUT, PARTITIONS, &[("fetch.wait.max.ms", "10")]);
    let mut took = Vec::new();
    for _ in 0..KILLS {
        thread::sleep(BEFORE_KILL);
        job.kill();
        drain(&mut reader);
        let began = Instant::now();
        job = filled.start()?;
        let mut fresh = 0;
        while fresh == 0 {
            fresh = reader.read(1, 5, |_| {});
            if began.elapsed() > LIMIT {
                return Err(format!("no new output within {LIMIT:?}"));
            }
        }
        took.push(began.elapsed().as_secs_f64());
    }
    report.note("state", (keys * VALUE_BYTES as u64) as f64 / 1e6, "MB");
    report.note(&format!("the longest of {KILLS}"), took.iter().copied().fold(0.0, f64::max), "s");
    report.check("kill -9 to new committed output", median(took), "s", Target::AtMost(3.0));
    Ok(())
}

/// Reads what is visible.
fn drain(reader: &mut Reader) {
    while reader.read(4096, 500, |_| {}) > 0 {}
}

/// A small set of keys that all change between two checkpoints.
pub(crate) fn changelog(report: &mut Report, short: bool) -> Result<(), String> {
    let (keys, value_bytes, checkpoints) = (10_000, 100, if short { 4 } else { 20 });
    let broker = Broker::start(&BrokerSettings::new());
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    // Each key changes about ten times a second.
    let mut job = start(&text(&broker, keys, value_bytes, ("key", keys * 10)), folder.path())?;
    let mut http = job.ready()?;
    let mut seen = BTreeSet::new();
    until(&mut http, JOB, LIMIT, |status| {
        seen.extend(status["checkpoint"]["epoch"].as_u64().filter(|epoch| *epoch > 0));
        seen.len() > checkpoints
    })?;
    job.kill();
    let topic = changelog_topic(&broker)?;
    let mut reader = Reader::new(&broker.bootstrap(), &topic, PARTITIONS, &[]);
    let (mut records, mut bytes) = (0, 0);
    while !reader.at_end() {
        records += reader.read(4096, 10, |message| bytes += message.key.len() + message.value.len()) as u64;
    }
    let on_disk = log_bytes(&broker.log_folder(), &topic) as f64;
    let (size, changed) = (bytes as f64 / records as f64, keys as f64 * seen.len() as f64);
    report.note("checkpoints", seen.len() as f64, "");
    report.note("bytes of a record", size, "");
    report.note("records by distinct changed keys", records as f64 / changed, "");
    report.note("broker's bytes per record", on_disk / records as f64, "");
    report.check("bytes by keys x record size", bytes as f64 / (changed * size), "", Target::AtMost(1.2));
    Ok(())
}

/// What the segments of a topic hold.
fn log_bytes(folder: &Path, topic: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let own = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(topic));
    let files = own.filter_map(|entry| std::fs::read_dir(entry.path()).ok()).flatten().flatten();
    let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
    logs.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}
