//! Log first: what cannot be read again is kept in a topic of the job's own log, and read from there.
//!
//! ```text
//!  pipe, growing files ──▶ a thread of the source ──▶ topic of the job's log ──▶ reader of the job
//!                             Appender: one sync          durable                 IngestReader
//!                             for what is there
//! ```
//! The job sees a record only when it is durable, so a crash loses nothing that an epoch holds, and a replay reads the same
//! records again. Three bounds hold:
//!
//! 1. The thread is at most [`MAX_AHEAD_BYTES`] ahead of what the job has read: then it waits, and whoever writes the input
//!    waits, or its files grow.
//! 2. What is before the last checkpoint goes, in whole segments, when the job says that it is committed.
//! 3. A failure of the thread is an error of the reader, after the records that were kept before it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use thalweg_core::{Error, Generation, PartitionId, PartitionSpec, Result};

use crate::log::{Log, LogSource, LogSourceConfig, NewRecord, Producer, Retention, Start, TopicSpec};
use crate::{Lag, RawBatch, RawReader, RawSource, ReadLimit, ReadState};

/// The one partition of such a topic.
pub(crate) const PARTITION: PartitionId = PartitionId(0);

/// Bytes that may be kept and not yet read by the job: enough to go on through the pauses of a job, little enough for any disk.
const MAX_AHEAD_BYTES: u64 = 64 << 20;
/// Between two looks at how far the job has come.
const AHEAD_LOOK: Duration = Duration::from_millis(5);
/// The input has not ended.
const OPEN: u64 = u64::MAX;

/// Where a source keeps what it reads.
#[derive(Clone)]
pub struct IngestTopic {
    access: Access,
    dir: PathBuf,
    name: String,
}

#[derive(Clone)]
enum Access {
    /// Filled by this process; with `keep` nothing is ever dropped.
    Written { log: Arc<dyn Log>, keep: bool },
    /// Of a recorded run, which is only read.
    Recorded,
}

impl IngestTopic {
    /// The topic `name` of `log`, whose folder is `dir`. What a checkpoint has committed is dropped, unless it is to be kept, for
    /// a run that will be repeated.
    pub fn new(log: Arc<dyn Log>, dir: PathBuf, name: String, keep: bool) -> Self {
        Self { access: Access::Written { log, keep }, dir, name }
    }

    /// The topic as a recorded run has left it in the log in `dir`: it is read, and nothing is added.
    pub fn recorded(dir: PathBuf, name: String) -> Self {
        Self { access: Access::Recorded, dir, name }
    }

    /// The folder of its log.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The log, where this process writes it.
    pub(crate) fn log(&self) -> Option<&Arc<dyn Log>> {
        match &self.access {
            Access::Written { log, .. } => Some(log),
            Access::Recorded => None,
        }
    }
}

/// A topic that a source fills and the job reads.
pub(crate) struct Ingest {
    topic: IngestTopic,
    records: LogSource,
    state: Arc<IngestState>,
    trimmed: AtomicU64,
    started: Mutex<bool>,
}

/// What the thread of a source and the reader of the job tell each other.
pub(crate) struct IngestState {
    /// The offset up to which the job has read.
    read: AtomicU64,
    /// The offset after the last record once the input has ended.
    end: AtomicU64,
    error: Mutex<Option<Error>>,
    /// What is before this offset is not needed by the thread itself.
    trimmable: AtomicU64,
    /// How often input was gone before it was certainly read.
    losses: AtomicU64,
    /// The line that names the columns, where the input has one.
    header: OnceLock<Vec<u8>>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

impl Ingest {
    /// Nothing is opened before it is used. `trimmable`: whether the thread that fills the topic never reads it.
    pub(crate) fn new(topic: IngestTopic, trimmable: bool) -> Self {
        let config = LogSourceConfig {
            path: topic.dir.clone(),
            topic: topic.name.clone(),
            start: Start::Earliest,
            bounded: matches!(topic.access, Access::Recorded),
        };
        let state = IngestState {
            read: AtomicU64::new(0),
            end: AtomicU64::new(OPEN),
            error: Mutex::new(None),
            trimmable: AtomicU64::new(if trimmable { u64::MAX } else { 0 }),
            losses: AtomicU64::new(0),
            header: OnceLock::new(),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
        };
        let state = Arc::new(state);
        Self { topic, records: LogSource::new(config), state, trimmed: AtomicU64::new(0), started: Mutex::new(false) }
    }

    pub(crate) fn topic(&self) -> &IngestTopic {
        &self.topic
    }

    pub(crate) fn state(&self) -> &Arc<IngestState> {
        &self.state
    }

    /// Makes the topic where it is missing; it is the one partition, called `name`.
    pub(crate) fn discover(&self, source: u16, name: &str) -> Result<Vec<PartitionSpec>> {
        if let Some(log) = self.topic.log() {
            log.ensure(&TopicSpec { name: self.topic.name.clone(), partitions: 1, retention: Retention::Keep })?;
        }
        let mut partitions = self.records.discover(source)?;
        partitions.iter_mut().for_each(|partition| name.clone_into(&mut partition.name));
        Ok(partitions)
    }

    /// Opens the topic at an offset.
    pub(crate) fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let records = self.records.open(partition, from)?;
        self.state.read.store(from, Ordering::Release);
        Ok(Box::new(IngestReader { records, state: self.state.clone() }))
    }

    /// Starts the thread that fills the topic, once, and not where a recorded run is read; it is given the way into the topic.
    pub(crate) fn start(
        &self,
        thread: &str,
        feed: impl FnOnce(Appender) -> Result<()> + Send + 'static,
    ) -> Result<Option<JoinHandle<()>>> {
        let Some(log) = self.topic.log() else { return Ok(None) };
        if std::mem::replace(&mut *self.started.lock(), true) {
            return Ok(None);
        }
        let appender = Appender::new(&**log, &self.topic.name, self.state.clone())?;
        let state = self.state.clone();
        let work = move || {
            if let Err(error) = feed(appender) {
                *state.error.lock() = Some(error);
            }
        };
        let started = std::thread::Builder::new().name(thread.to_owned()).spawn(work);
        started.map(Some).map_err(|error| Error::io(format!("starting the thread {thread:?}"), error))
    }

    /// A checkpoint holds everything before this offset: it may go.
    pub(crate) fn committed(&self, position: u64) -> Result<()> {
        let Access::Written { log, keep: false } = &self.topic.access else { return Ok(()) };
        let before = position.min(self.state.trimmable.load(Ordering::Acquire));
        if self.trimmed.fetch_max(before, Ordering::Relaxed) >= before {
            return Ok(());
        }
        log.trim(&self.topic.name, PARTITION, before)
    }
}

impl IngestState {
    /// What is before this offset is not needed by the thread any more.
    pub(crate) fn set_trimmable(&self, offset: u64) {
        self.trimmable.store(offset, Ordering::Release);
    }

    /// Input was gone before it was certainly read.
    pub(crate) fn lost(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
    }

    /// The line that names the columns.
    pub(crate) fn header(&self) -> Option<&[u8]> {
        self.header.get().map(Vec::as_slice)
    }

    /// Says what it is; the first time counts.
    pub(crate) fn set_header(&self, header: Vec<u8>) {
        let _ = self.header.set(header);
    }

    /// Asks the thread to end.
    pub(crate) fn stop(&self) {
        *self.stopping.lock() = true;
        self.wake.notify_all();
    }

    /// Waits so long, or until the thread is to end; whether it is.
    pub(crate) fn pause(&self, wait: Duration) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.wake.wait_for(&mut stopping, wait);
        }
        *stopping
    }
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    /// The source is given up; the records of the call were not kept.
    Stop,
}

/// The way into the topic.
pub(crate) struct Appender {
    topic: String,
    producer: Box<dyn Producer>,
    state: Arc<IngestState>,
    end: u64,
    /// What the job has not read, as far as is known: where each part ends, and its bytes.
    ahead: VecDeque<(u64, u64)>,
    ahead_bytes: u64,
}

impl Appender {
    fn new(log: &dyn Log, topic: &str, state: Arc<IngestState>) -> Result<Self> {
        // The folder's lock keeps other processes out, so one generation is enough.
        let producer = log.fence(topic, Generation(0))?;
        let (_, end) = log.offsets(topic, PARTITION)?;
        let mut appender =
            Self { topic: topic.to_owned(), producer, state, end, ahead: VecDeque::new(), ahead_bytes: 0 };
        // What is there from an earlier run is read first: how much it is, is not known.
        appender.note(MAX_AHEAD_BYTES);
        Ok(appender)
    }

    /// The offset after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Makes records durable, all together; waits before that while the job is too far behind.
    pub(crate) fn append(&mut self, records: &mut Vec<NewRecord>) -> Result<Flow> {
        if records.is_empty() {
            return Ok(Flow::Continue);
        }
        while self.is_ahead() {
            if self.state.pause(AHEAD_LOOK) {
                return Ok(Flow::Stop);
            }
        }
        let mut bytes = 0;
        self.producer.begin()?;
        for record in records.drain(..) {
            bytes += record.value.as_ref().map_or(0, Vec::len) as u64;
            self.producer.append(&self.topic, PARTITION, record)?;
        }
        let ends = self.producer.commit()?;
        self.end = ends.first().map_or(self.end, |(_, _, end)| *end);
        self.note(bytes);
        Ok(Flow::Continue)
    }

    /// The input has ended: the reader gives the end after the last record.
    pub(crate) fn finish(self) {
        self.state.end.store(self.end, Ordering::Release);
    }

    fn note(&mut self, bytes: u64) {
        self.ahead.push_back((self.end, bytes));
        self.ahead_bytes += bytes;
    }

    fn is_ahead(&mut self) -> bool {
        let read = self.state.read.load(Ordering::Acquire);
        while let Some((_, bytes)) = self.ahead.pop_front_if(|(end, _)| *end <= read) {
            self.ahead_bytes -= bytes;
        }
        self.ahead_bytes >= MAX_AHEAD_BYTES
    }
}

/// The records that are in the topic; their end when the input has ended and all are read.
struct IngestReader {
    records: Box<dyn RawReader>,
    state: Arc<IngestState>,
}

impl RawReader for IngestReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        // Looked at first: the records before it are in the log then.
        let end = self.state.end.load(Ordering::Acquire);
        let state = self.records.read(limit, batch)?;
        self.state.read.store(self.records.position(), Ordering::Release);
        if state == ReadState::Idle {
            if let Some(error) = self.state.error.lock().take() {
                return Err(error);
            }
            if self.records.position() >= end {
                return Ok(ReadState::End);
            }
        }
        Ok(state)
    }

    fn position(&self) -> u64 {
        self.records.position()
    }

    fn header(&self) -> Option<&[u8]> {
        self.state.header()
    }

    fn losses(&self) -> u64 {
        self.state.losses.load(Ordering::Relaxed)
    }

    fn lag(&mut self) -> Option<Lag> {
        self.records.lag()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::EmbeddedLog;

    const LINE: usize = 1 << 20;

    fn read_all(reader: &mut dyn RawReader) -> usize {
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX, until: None };
        let mut batch = RawBatch::default();
        assert_eq!(reader.read(limit, &mut batch).expect("reads"), ReadState::Idle);
        batch.records.len()
    }

    /// The thread stops when the job is too far behind, goes on when it has read, and what is committed goes from the disk.
    #[test]
    fn the_topic_is_bounded_by_what_the_job_reads_and_commits() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = EmbeddedLog::open_with(dir.path(), Arc::new(|| 0), 1 << 22).expect("the log");
        let topic = IngestTopic::new(Arc::new(log.clone()), dir.path().to_owned(), "input".to_owned(), false);
        let ingest = Ingest::new(topic, true);
        let partition = ingest.discover(0, "a source").expect("discovers").remove(0);
        assert_eq!(partition.name, "a source");
        let mut reader = ingest.open(&partition, 0).expect("opens");
        let feed = |mut appender: Appender| loop {
            let line = NewRecord { value: Some(vec![b'x'; LINE]), ..NewRecord::default() };
            if appender.append(&mut vec![line])? == Flow::Stop {
                return Ok(());
            }
        };
        let thread = ingest.start("feed", feed).expect("starts").expect("is the first");
        assert!(ingest.start("feed", |_| Ok(())).expect("starts").is_none(), "a second thread fills the topic");
        let end = || log.offsets("input", PARTITION).expect("offsets").1;
        let most = MAX_AHEAD_BYTES.div_ceil(LINE as u64);
        let mut read = 0;
        for _ in 0..3 {
            let wanted = read + most;
            while end() < wanted {
                std::thread::yield_now();
            }
            assert_eq!(end(), wanted, "it is further ahead than it may be");
            read += read_all(&mut *reader) as u64;
            ingest.committed(reader.position()).expect("drops");
        }
        ingest.state().stop();
        thread.join().expect("ends");
        let (first, last) = log.offsets("input", PARTITION).expect("offsets");
        assert!(first > 2 * most && last >= 3 * most, "{first} is kept of {last}");
    }
}
