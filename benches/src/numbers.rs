//! Jobs over numbers: state of a given size, and bursts of changed keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thalweg::prelude::{EpochCtx, JobBuilder, KeyedProcess, Output, ProcessError, RecordsOf};
use thalweg_connectors::{
    BadRecord, EncodedBatch, ReadLimit, ReadState, RecordReader, RecordSource, RunningHash, Sink, SinkContext,
    SinkWriter,
};
use thalweg_core::{ContentHash, Epoch, PartitionId, PartitionSpec, Result, SourceKey};

use crate::corpus::Random;

/// The name of the jobs.
pub(crate) const JOB: &str = "numbers";

/// State of a given size: every key once, then keys at random at a steady rate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fill {
    pub(crate) keys: u64,
    /// Of the state of each key; 0: a count alone.
    pub(crate) value_bytes: usize,
    /// After the fill.
    pub(crate) per_second: u64,
    /// For the values of all stores; nothing: the default.
    pub(crate) state_memory: Option<u64>,
}

/// What a process says when it shows its first new output.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FirstOutput {
    pub(crate) epoch: u64,
}

struct NumberSource(Fill);

impl RecordSource<u64> for NumberSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        Ok(vec![one_partition(source)])
    }

    fn open(&self, _: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<u64>>> {
        let hash = RunningHash::default();
        Ok(Box::new(NumberReader { fill: self.0, position: from, since: None, paced: 0, hash }))
    }
}

fn one_partition(source: u16) -> PartitionSpec {
    PartitionSpec {
        of: SourceKey { source, partition: PartitionId(0) },
        name: "numbers".to_owned(),
        identity: "numbers".to_owned(),
        start: 0,
        end: None,
    }
}

struct NumberReader {
    fill: Fill,
    position: u64,
    /// Since when it keeps to the rate, and how many it has given since.
    since: Option<Instant>,
    paced: u64,
    hash: RunningHash,
}

impl NumberReader {
    fn key(&self, position: u64) -> u64 {
        if position < self.fill.keys { position } else { Random(position).below(self.fill.keys) }
    }
}

impl RecordReader<u64> for NumberReader {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<u64>, _: &mut Vec<BadRecord>) -> Result<ReadState> {
        let mut most = limit.records as u64;
        // What was read before a restart is read again at full speed.
        if self.position >= self.fill.keys && limit.until.is_none() {
            let since = *self.since.get_or_insert_with(Instant::now);
            let due = (since.elapsed().as_secs_f64() * self.fill.per_second as f64) as u64;
            most = most.min(due.saturating_sub(self.paced));
            self.paced += most;
        }
        let stop = limit.until.unwrap_or(u64::MAX).min(self.position + most);
        for position in self.position..stop {
            let key = self.key(position);
            self.hash.add(&key.to_le_bytes());
            out.push(key);
        }
        let any = stop > self.position;
        self.position = stop;
        Ok(match limit.until {
            Some(until) if until == stop => ReadState::End,
            _ if any => ReadState::More,
            _ => ReadState::Idle,
        })
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}

/// Letters at random, other ones for each key and count: nothing that a compression makes small.
pub(crate) fn letters(key: u64, count: u64, bytes: usize) -> String {
    let mut random = Random(key ^ count << 40);
    let letters = (0..bytes / 8).flat_map(|_| random.next().to_le_bytes());
    letters.map(|byte| char::from(b'0' + byte % 64)).collect()
}

/// Keeps a text of a given length for each key, another one after each change.
struct Padded {
    bytes: usize,
}

impl KeyedProcess for Padded {
    type Key = u64;
    type In = ();
    type State = (u64, String);
    type Out = (u64, u64);
    const TIMERS: bool = false;

    fn process(
        &self,
        key: &u64,
        records: &mut RecordsOf<'_, u64, ()>,
        state: &mut Option<(u64, String)>,
        out: &mut Output<(u64, u64)>,
        _: &EpochCtx,
    ) -> std::result::Result<(), ProcessError> {
        let count = state.as_ref().map_or(0, |(count, _)| *count) + records.len() as u64;
        *state = Some((count, letters(*key, count, self.bytes)));
        out.emit((*key, count));
        Ok(())
    }
}

/// Says when the first records come out that did not before.
struct Telling;

struct TellingWriter {
    ends: Vec<(PartitionId, u64)>,
    replayed: bool,
    written: bool,
    told: bool,
}

impl Sink for Telling {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(Vec::new())
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let ends = context.partitions.clone();
        Ok(Box::new(TellingWriter { ends, replayed: false, written: false, told: false }))
    }
}

impl SinkWriter for TellingWriter {
    fn write(&mut self, _: Epoch, _: PartitionId, _: EncodedBatch) -> Result<()> {
        self.written = true;
        Ok(())
    }

    fn end_epoch(&mut self, epoch: Epoch) -> Result<()> {
        if self.written && self.replayed && !self.told {
            self.told = true;
            crate::child::answer(&FirstOutput { epoch: epoch.0 });
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.ends.clone())
    }

    fn replayed(&mut self) -> Result<()> {
        (self.replayed, self.written) = (true, false);
        Ok(())
    }
}

/// Runs until it is killed.
pub(crate) fn fill(job: Fill) -> thalweg::Exit {
    thalweg::run_job(move || {
        let builder = JobBuilder::new(JOB)?;
        if let Some(bytes) = job.state_memory {
            builder.state_memory(bytes);
        }
        let numbers = builder.source("numbers", NumberSource(job)).key_by(|number: u64| (number, ()));
        match job.value_bytes {
            0 => numbers.count("state").discard("out"),
            bytes => numbers.process("state", Padded { bytes }).sink("out", Telling),
        }
        builder.build()
    })
}

/// Bursts of changed keys, and in between a trickle by which the worker's pauses are seen.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Bursts {
    pub(crate) keys: u64,
    pub(crate) bursts: usize,
}

/// The longest pause of each burst's checkpoint, and before it, where there is nothing to do: milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pauses {
    pub(crate) longest_ms: Vec<f64>,
    pub(crate) idle_ms: Vec<f64>,
}

/// From burst to burst, and from checkpoint to checkpoint.
const BURST_EVERY: Duration = Duration::from_secs(3);
/// The first burst comes so long after the start, so that the checkpoint comes when it has been processed.
const BURST_OFFSET: Duration = Duration::from_millis(500);
/// So long after the beginning of a burst no checkpoint has begun for certain.
const BEFORE_CHECKPOINT: Duration = Duration::from_millis(2300);

struct BurstSource {
    job: Bursts,
    /// Keys that have been processed.
    processed: Arc<AtomicU64>,
}

impl RecordSource<u64> for BurstSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        Ok(vec![one_partition(source)])
    }

    fn open(&self, _: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<u64>>> {
        let now = Instant::now();
        Ok(Box::new(BurstReader {
            job: self.job,
            processed: self.processed.clone(),
            position: from,
            hash: RunningHash::default(),
            opened: now,
            last: now,
            left: 0,
            wanted: 0,
            pauses: Pauses { longest_ms: Vec::new(), idle_ms: Vec::new() },
            told: AtomicBool::new(false),
        }))
    }
}

struct BurstReader {
    job: Bursts,
    processed: Arc<AtomicU64>,
    position: u64,
    hash: RunningHash,
    opened: Instant,
    /// When the worker was last here.
    last: Instant,
    /// Of the present burst.
    left: u64,
    /// How many keys will have been processed when all bursts so far have been.
    wanted: u64,
    pauses: Pauses,
    told: AtomicBool,
}

impl BurstReader {
    /// Notes how long the worker was away, where it had nothing to do but a checkpoint.
    fn note(&mut self) {
        let gap = self.last.elapsed();
        self.last = Instant::now();
        let bursts = self.pauses.longest_ms.len() as u32;
        if bursts == 0 || self.left > 0 || self.processed.load(Ordering::Relaxed) < self.wanted {
            return;
        }
        let since = self.opened.elapsed().saturating_sub(BURST_EVERY * (bursts - 1) + BURST_OFFSET);
        let of = if since < BEFORE_CHECKPOINT { &mut self.pauses.idle_ms } else { &mut self.pauses.longest_ms };
        if let Some(longest) = of.last_mut() {
            *longest = longest.max(gap.as_secs_f64() * 1e3);
        }
    }

    fn begin_burst(&mut self) {
        let bursts = self.pauses.longest_ms.len();
        let due = BURST_EVERY * bursts as u32 + BURST_OFFSET;
        if self.opened.elapsed() < due {
            return;
        }
        if bursts < self.job.bursts {
            self.left = self.job.keys;
            self.wanted += self.job.keys;
            self.pauses.longest_ms.push(0.0);
            self.pauses.idle_ms.push(0.0);
        } else if !self.told.swap(true, Ordering::Relaxed) {
            crate::child::answer(&self.pauses);
        }
    }
}

impl RecordReader<u64> for BurstReader {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<u64>, _: &mut Vec<BadRecord>) -> Result<ReadState> {
        self.note();
        self.begin_burst();
        // One record at a time keeps the worker turning, so that it is seen when it does not.
        let count = (limit.records as u64).min(self.left.max(1));
        for _ in 0..count {
            let key = if self.left > 0 { self.left } else { 0 };
            self.left = self.left.saturating_sub(1);
            self.hash.add(&key.to_le_bytes());
            out.push(key);
        }
        self.position += count;
        Ok(ReadState::More)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}

/// Counts, and counts the keys that it has been called for.
struct Counting {
    processed: Arc<AtomicU64>,
}

impl KeyedProcess for Counting {
    type Key = u64;
    type In = ();
    type State = u64;
    type Out = (u64, u64);
    const TIMERS: bool = false;

    fn process(
        &self,
        key: &u64,
        records: &mut RecordsOf<'_, u64, ()>,
        state: &mut Option<u64>,
        out: &mut Output<(u64, u64)>,
        _: &EpochCtx,
    ) -> std::result::Result<(), ProcessError> {
        let count = state.get_or_insert(0);
        *count += records.len() as u64;
        out.emit((*key, *count));
        if *key > 0 {
            self.processed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Runs until it is killed.
pub(crate) fn bursts(job: Bursts) -> thalweg::Exit {
    thalweg::run_job(move || {
        let builder = JobBuilder::new(JOB)?;
        builder.workers(1).checkpoint_interval(BURST_EVERY);
        let processed = Arc::new(AtomicU64::new(0));
        let source = BurstSource { job, processed: processed.clone() };
        let numbers = builder.source("numbers", source).key_by(|number: u64| (number, ()));
        numbers.process("state", Counting { processed }).discard("out");
        builder.build()
    })
}
