//! A coordinator that gives checkpoints up at any moment, also before their stores have sealed, on a task with changelogs: what
//! is left is what was counted, in the running task and restored from the changelogs alone.

#![allow(clippy::disallowed_methods, reason = "a test waits for threads, with a limit")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use thalweg_connectors::log::EmbeddedLog;
use thalweg_connectors::{GeneratorSource, ReadLimit, ReadState, RecordSource};
use thalweg_core::{
    CheckpointAck, CheckpointRecord, CheckpointZero, Command, Epoch, Generation, JobId, Lineage, Metrics, Query,
    ReadOptions, RecoveryPlan, Report, ScanRange, TaskIndex, Value,
};
use thalweg_operators::{ChangelogKind, Count, JobBuilder, KeyedOf, OnError, Plan, SourceOf, StoreSettings};
use thalweg_runtime::{Task, TaskConfig, TaskEvent, checkpoint_zero};

const JOB: JobId = JobId(77);
const RECORDS: u64 = 120_000;
const KEYS: u64 = 20_000;
/// Far longer than a run takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(120);

fn generator(seed: u64) -> GeneratorSource {
    GeneratorSource { count: Some(RECORDS), keys: KEYS, skew: 0.5, seed, partitions: 3 }
}

fn key(row: &Value) -> i64 {
    match row.get("key") {
        Some(Value::Int(key)) => *key,
        other => panic!("no key: {other:?}"),
    }
}

/// Counts by key, with a changelog.
fn plan(seed: u64) -> Plan {
    let job = JobBuilder::new("given-up").expect("a name");
    job.partitions(4).expect("in range").epoch_interval(Some(Duration::from_millis(2)));
    let source = SourceOf { source: Arc::new(generator(seed)), rate: Some(100_000.0), on_error: OnError::Fail };
    let rows = job.source_node::<Value>("rows", "generator", String::new(), Box::new(source));
    let count = KeyedOf::new(Count::<i64, ()>::default(), |row: Value| Ok((key(&row), ())), OnError::Fail);
    let store = StoreSettings { changelog: ChangelogKind::Log, query: true };
    rows.operator_node::<(i64, u64)>("counts", "count", String::new(), store, Box::new(count)).discard("out");
    job.build().expect("a graph")
}

/// What the counts come to, read without the engine.
fn expected(seed: u64) -> BTreeMap<i64, u64> {
    let (source, mut counts) = (generator(seed), BTreeMap::new());
    for partition in source.discover(0).expect("a generator") {
        let mut reader = source.open(&partition, 0).expect("a generator");
        let mut rows: Vec<Value> = Vec::new();
        let limit = ReadLimit { records: 1000, bytes: 1 << 20, until: None };
        while reader.read(limit, &mut rows, &mut Vec::new()).expect("a generator") != ReadState::End {}
        rows.iter().for_each(|row| *counts.entry(key(row)).or_insert(0) += 1);
    }
    counts
}

/// A few bits that depend on the seed only.
struct Bits(u64);

impl Bits {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a coordinator remembers from generation to generation.
struct History {
    zero: CheckpointZero,
    generation: Generation,
    checkpoint: Option<CheckpointRecord>,
    lineage: Lineage,
    caps: Vec<(Generation, Epoch)>,
}

impl History {
    fn checkpoint_epoch(&self) -> Epoch {
        self.checkpoint.as_ref().map_or(Epoch::ZERO, |record| record.epoch)
    }

    fn commit(&mut self, ack: CheckpointAck) {
        let CheckpointAck { generation, epoch, fingerprint, minted_at, sources, stores, sinks, .. } = ack;
        self.lineage.commit(generation, epoch);
        self.checkpoint = Some(CheckpointRecord { epoch, generation, fingerprint, minted_at, sources, stores, sinks });
    }
}

/// One generation of the task, and what became of its checkpoints.
struct Run<'a> {
    task: Task,
    inbox: Receiver<TaskEvent>,
    history: &'a mut History,
    bits: &'a mut Bits,
    /// Epochs that count no more, whether a checkpoint was ever begun there or not.
    void: BTreeSet<Epoch>,
    open: bool,
    given_up: u64,
    committed: u64,
}

/// Starts the next generation and brings it to its plan.
fn start<'a>(seed: u64, dir: &Path, log: &Arc<EmbeddedLog>, history: &'a mut History, bits: &'a mut Bits) -> Run<'a> {
    history.generation = history.generation.next();
    let (events, inbox) = channel();
    let config = TaskConfig {
        plan: Arc::new(plan(seed)),
        job_id: JOB,
        task: TaskIndex(0),
        workers: 1 + bits.below(2) as usize,
        logs: thalweg_runtime::Logs::new(log.clone(), None),
        state_dir: dir.join("state"),
        metrics: Metrics::default(),
        recorded: None,
        keep_bindings: false,
    };
    let task = Task::start(config, Arc::new(move |event| drop(events.send(event)))).expect("starts");
    let (generation, after) = (history.generation, history.checkpoint_epoch());
    task.command(Command::Fence { generation });
    assert!(matches!(inbox.recv_timeout(LIMIT), Ok(TaskEvent::Report(Report::Fenced(_)))));
    task.command(Command::Scan { generation, after, caps: history.caps.clone() });
    let Ok(TaskEvent::Report(Report::Scanned(scan))) = inbox.recv_timeout(LIMIT) else { panic!("no scan") };
    let found: BTreeSet<Epoch> = scan.bindings.iter().map(|(_, epoch)| *epoch).collect();
    let mut last = after;
    while found.contains(&last.next()) {
        last = last.next();
    }
    history.caps.push((generation, last));
    task.command(Command::Run(Box::new(RecoveryPlan {
        generation,
        zero: history.zero.clone(),
        sources: history.zero.sources.clone(),
        checkpoint: history.checkpoint.clone(),
        last_binding: last,
        lineage: history.lineage.clone(),
        caps: history.caps.clone(),
    })));
    Run { task, inbox, history, bits, void: BTreeSet::new(), open: false, given_up: 0, committed: 0 }
}

impl Run<'_> {
    /// Takes and gives up checkpoints until so many are decided, or until all input is in a committed one; says which.
    fn until(&mut self, decided: u64) -> bool {
        let began = Instant::now();
        let mut drained = None;
        while self.given_up + self.committed < decided {
            assert!(began.elapsed() < LIMIT, "stuck after {} and {}", self.given_up, self.committed);
            if drained.is_some_and(|last| self.history.checkpoint_epoch() >= last) {
                return true;
            }
            if !self.open {
                self.open = true;
                self.task.command(Command::Checkpoint { generation: self.history.generation });
                if self.bits.below(3) > 0 {
                    self.give_up_blindly();
                }
            }
            match self.inbox.recv_timeout(Duration::from_micros(200 + self.bits.below(2000))) {
                Ok(TaskEvent::Report(Report::Acknowledged(ack))) => self.acknowledged(*ack),
                Ok(TaskEvent::Applied(_)) => {
                    self.open = false;
                    self.committed += 1;
                }
                // Said when one is given up: there is too much memory here for any other reason.
                Ok(TaskEvent::CheckpointWanted) => {
                    self.open = false;
                    self.given_up += 1;
                }
                Ok(TaskEvent::Drained(last)) => drained = Some(last),
                Ok(event) => panic!("{event:?}"),
                Err(RecvTimeoutError::Timeout) if drained.is_none() => self.give_up_blindly(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the task is gone"),
            }
        }
        false
    }

    /// Gives up every epoch that may have been chosen just now: often one that no store has reached.
    fn give_up_blindly(&mut self) {
        let processed = self.task.service().status().epoch.0.max(self.history.checkpoint_epoch().0);
        for epoch in (processed + 1..processed + 4).map(Epoch) {
            self.void.insert(epoch);
            self.give_up(epoch);
        }
    }

    fn give_up(&mut self, epoch: Epoch) {
        let generation = self.history.generation;
        self.history.lineage.abandon(generation, epoch);
        self.task.command(Command::Abandoned { generation, epoch });
    }

    fn acknowledged(&mut self, ack: CheckpointAck) {
        let (generation, epoch) = (ack.generation, ack.epoch);
        // Perhaps it was given up before it was begun, and that was no news to the task.
        if self.void.contains(&epoch) || self.bits.below(4) == 0 {
            return self.give_up(epoch);
        }
        self.history.commit(ack);
        self.task.command(Command::Committed { generation, epoch });
    }

    fn counts(&self) -> BTreeMap<i64, u64> {
        let (answer, answered) = channel();
        let query = Query::Scan(ScanRange { limit: usize::MAX, ..ScanRange::default() });
        let reply = Box::new(move |result| drop(answer.send(result)));
        self.task.service().ask("counts", query, ReadOptions::default(), reply);
        let entries = answered.recv_timeout(LIMIT).expect("an answer").expect("entries").entries;
        let count = |value: Option<String>| value.expect("a value").parse().expect("a count");
        entries.into_iter().map(|entry| (entry.key.parse().expect("a number"), count(entry.value))).collect()
    }
}

fn check(seed: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let log = Arc::new(EmbeddedLog::open(&dir.path().join("log"), Arc::new(|| 0)).expect("a log"));
    let zero = checkpoint_zero(&plan(seed), JOB, &[]).expect("a generator");
    let mut history =
        History { zero, generation: Generation(0), checkpoint: None, lineage: Lineage::default(), caps: Vec::new() };
    let mut bits = Bits(seed);
    let mut given_up = 0;
    // Generations that end in the middle, one that comes to the end, and one that finds everything done.
    for decided in [12, 25, u64::MAX, u64::MAX] {
        let mut run = start(seed, dir.path(), &log, &mut history, &mut bits);
        let ended = run.until(decided);
        assert_eq!(ended, decided == u64::MAX, "seed {seed}: the input is too short");
        if ended {
            assert_eq!(run.counts(), expected(seed), "seed {seed}");
        }
        given_up += run.given_up;
        drop(run);
        // Next time the changelog is all there is.
        std::fs::remove_dir_all(dir.path().join("state")).expect("removed");
    }
    println!("seed {seed}: {given_up} given up");
    assert!(given_up > 20, "seed {seed}: only {given_up} checkpoints were given up");
}

#[test]
fn checkpoints_that_are_given_up_at_any_moment_lose_nothing() {
    (1..=2).for_each(check);
}
