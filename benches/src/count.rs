//! The count in the engine, in a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thalweg::prelude::JobBuilder;
use thalweg_connectors::{EncodedBatch, Sink, SinkContext, SinkWriter};
use thalweg_core::{Epoch, PartitionId, Result};
use thalweg_operators::SinkOf;

use crate::corpus::{Corpus, CorpusSpec};
use crate::measured::Measured;
use crate::usage::{own_cpu, thread_cpus};
use crate::words::WordSource;

/// How often the process looks whether an endless job has done all its words.
const LOOK: Duration = Duration::from_millis(20);
/// After so long without an epoch it has.
const QUIET: Duration = Duration::from_millis(300);

/// A count of words as a job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) corpus: CorpusSpec,
    pub(crate) workers: usize,
    /// Nothing: no checkpoint is ever made, and the state stays in memory.
    pub(crate) checkpoint_ms: Option<u64>,
}

/// What the sink has seen.
struct Seen {
    began: Instant,
    cpu: Duration,
    epochs: AtomicU64,
    /// CPU and wall time when the last epoch ended, microseconds since the start.
    cpu_micros: AtomicU64,
    wall_micros: AtomicU64,
}

impl Seen {
    fn now(&self) {
        self.cpu_micros.store((own_cpu() - self.cpu).as_micros() as u64, Ordering::Relaxed);
        self.wall_micros.store(self.began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn measured(&self, records: u64) -> Measured {
        let busiest = thread_cpus(std::process::id(), "timely").into_iter().max().unwrap_or_default();
        Measured {
            cpu_seconds: self.cpu_micros.load(Ordering::Relaxed) as f64 / 1e6,
            wall_seconds: self.wall_micros.load(Ordering::Relaxed) as f64 / 1e6,
            busiest_seconds: busiest.as_secs_f64(),
            records,
            epochs: self.epochs.load(Ordering::Relaxed),
            emitted: 0,
        }
    }
}

/// Notes when each epoch has come out.
struct Noting(Arc<Seen>);

struct NotingWriter {
    seen: Arc<Seen>,
    ends: Vec<(PartitionId, u64)>,
}

impl Sink for Noting {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(Vec::new())
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(NotingWriter { seen: self.0.clone(), ends: context.partitions.clone() }))
    }
}

impl SinkWriter for NotingWriter {
    fn write(&mut self, _: Epoch, _: PartitionId, _: EncodedBatch) -> Result<()> {
        Ok(())
    }

    fn end_epoch(&mut self, _: Epoch) -> Result<()> {
        self.seen.epochs.fetch_add(1, Ordering::Relaxed);
        self.seen.now();
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.ends.clone())
    }

    fn replayed(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Runs the job with the flags of this process.
///
/// With checkpoints the job ends with its input and its last checkpoint is part of what is measured. Without, it is measured up
/// to the last epoch, and the process ends there, before the checkpoint that ends a job.
pub(crate) fn run(job: Count) -> Option<Measured> {
    let corpus = Arc::new(Corpus::new(job.corpus));
    let records = corpus.len();
    let read = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(Seen {
        began: Instant::now(),
        cpu: own_cpu(),
        epochs: AtomicU64::new(0),
        cpu_micros: AtomicU64::new(0),
        wall_micros: AtomicU64::new(0),
    });
    let endless = job.checkpoint_ms.is_none();
    if endless {
        let (read, seen) = (read.clone(), seen.clone());
        thread::spawn(move || end_when_quiet(&read, &seen, records));
    }
    let source = WordSource { corpus, partitions: job.workers as u16, endless, read };
    let sink = Noting(seen.clone());
    let exit = thalweg::run_job(move || {
        let builder = JobBuilder::new("count")?;
        builder.workers(job.workers).state_memory(2 << 30);
        builder.checkpoint_interval(Duration::from_millis(job.checkpoint_ms.unwrap_or(86_400_000)));
        let counts = builder.source("words", source).key_by(|word: String| (word, ())).count("counts");
        counts.sink_node("out", "none", String::new(), Box::new(SinkOf::<(String, u64)>::counting(Arc::new(sink))));
        builder.build()
    });
    seen.now();
    (exit == thalweg::Exit::Done).then(|| seen.measured(records))
}

fn end_when_quiet(read: &AtomicU64, seen: &Seen, records: u64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        thread::sleep(LOOK);
        let epochs = seen.epochs.load(Ordering::Relaxed);
        if epochs != last || read.load(Ordering::Relaxed) < records {
            (last, since) = (epochs, Instant::now());
        } else if since.elapsed() > QUIET {
            crate::child::answer(&seen.measured(records));
            std::process::exit(0);
        }
    }
}
