//! Standard input as a source: log first.
//!
//! What was read from a pipe cannot be read again. So each line becomes a record of a topic of the job's own log, durable before
//! the job sees it, and the job reads that topic as it reads any other. A crash loses no line that an epoch holds, and a
//! replay reads the same lines. When the job is started again it goes on with the lines that are in the log, then with the standard
//! input that it has now.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use thalweg_core::{Error, Generation, PartitionId, PartitionSpec, Result};

use crate::log::{Log, LogSource, LogSourceConfig, NewRecord, Producer, Retention, Start, TopicSpec};
use crate::{RawBatch, RawReader, RawSource, ReadLimit, ReadState};

/// Bytes that are read at once; what is there at once is made durable together.
const READ_BYTES: usize = 256 << 10;
const PARTITION: PartitionId = PartitionId(0);
/// Standard input has not ended.
const OPEN: u64 = u64::MAX;

/// Reads lines from standard input by way of a topic of the job's log.
pub struct StdinSource {
    log: Arc<dyn Log>,
    topic: String,
    records: LogSource,
    max_record_bytes: usize,
    input: Mutex<Option<Box<dyn Read + Send>>>,
    state: Arc<Ingest>,
}

/// What the thread that reads standard input tells.
struct Ingest {
    /// The offset after the last line once the input has ended.
    end: AtomicU64,
    error: Mutex<Option<Error>>,
}

impl StdinSource {
    /// Keeps the lines in `topic` of `log`, whose folder is `log_dir`.
    pub fn new(log: Arc<dyn Log>, log_dir: PathBuf, topic: String, max_record_bytes: usize) -> Self {
        Self::of(log, log_dir, topic, max_record_bytes, Box::new(std::io::stdin()))
    }

    fn of(
        log: Arc<dyn Log>,
        log_dir: PathBuf,
        topic: String,
        max_record_bytes: usize,
        input: Box<dyn Read + Send>,
    ) -> Self {
        let config = LogSourceConfig { path: log_dir, topic: topic.clone(), start: Start::Earliest, bounded: false };
        let state = Arc::new(Ingest { end: AtomicU64::new(OPEN), error: Mutex::new(None) });
        Self { log, topic, records: LogSource::new(config), max_record_bytes, input: Mutex::new(Some(input)), state }
    }

    /// Begins to read, once.
    fn start(&self) -> Result<()> {
        let Some(input) = self.input.lock().take() else { return Ok(()) };
        // The folder's lock keeps other processes out, so one generation is enough.
        let producer = self.log.fence(&self.topic, Generation(0))?;
        let (_, end) = self.log.offsets(&self.topic, PARTITION)?;
        let mut feed = Feed { topic: self.topic.clone(), producer, end, max_record_bytes: self.max_record_bytes };
        let state = self.state.clone();
        let work = move || match feed.run(BufReader::with_capacity(READ_BYTES, input)) {
            Ok(()) => state.end.store(feed.end, Ordering::Release),
            Err(error) => *state.error.lock() = Some(error),
        };
        let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(work);
        // It ends with the input or with the process: nobody can wake a thread that waits for standard input.
        thread.map(drop).map_err(|error| Error::io("starting the thread that reads standard input", error))
    }
}

impl RawSource for StdinSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        self.log.ensure(&TopicSpec { name: self.topic.clone(), partitions: 1, retention: Retention::Keep })?;
        self.records.discover(source)
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let records = self.records.open(partition, from)?;
        self.start()?;
        Ok(Box::new(StdinReader { records, state: self.state.clone() }))
    }
}

/// Turns input into records.
struct Feed {
    topic: String,
    producer: Box<dyn Producer>,
    end: u64,
    max_record_bytes: usize,
}

impl Feed {
    fn run(&mut self, mut input: impl BufRead) -> Result<()> {
        let mut unfinished: Vec<u8> = Vec::new();
        loop {
            let bytes = match input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("reading standard input", error)),
            };
            let length = bytes.len();
            if length == 0 {
                let last = std::mem::take(&mut unfinished);
                return if last.is_empty() { Ok(()) } else { self.keep(vec![last]) };
            }
            let mut lines = Vec::new();
            let mut rest = bytes;
            while let Some(at) = memchr::memchr(b'\n', rest) {
                unfinished.extend_from_slice(&rest[..at]);
                lines.push(std::mem::take(&mut unfinished));
                rest = &rest[at + 1..];
            }
            unfinished.extend_from_slice(rest);
            input.consume(length);
            if unfinished.len() > self.max_record_bytes {
                let text = format!(
                    "standard input: a line is longer than max_record_bytes = {}; set it higher, or check the input",
                    self.max_record_bytes
                );
                return Err(Error::user("record-too-large", text));
            }
            self.keep(lines)?;
        }
    }

    /// Makes lines durable.
    fn keep(&mut self, lines: Vec<Vec<u8>>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.producer.begin()?;
        for mut line in lines {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            self.producer.append(&self.topic, PARTITION, NewRecord { value: Some(line), ..NewRecord::default() })?;
        }
        let ends = self.producer.commit()?;
        self.end = ends.first().map_or(self.end, |(_, _, end)| *end);
        Ok(())
    }
}

/// The lines that are in the log; their end when standard input has ended and all are read.
struct StdinReader {
    records: Box<dyn RawReader>,
    state: Arc<Ingest>,
}

impl RawReader for StdinReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        // Looked at first: the lines before it are in the log then.
        let end = self.state.end.load(Ordering::Acquire);
        let state = self.records.read(limit, batch)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::EmbeddedLog;

    fn lines(reader: &mut dyn RawReader) -> Vec<String> {
        let limit = ReadLimit { records: 2, bytes: 1 << 20, until: None };
        let (mut found, mut batch) = (Vec::new(), RawBatch::default());
        loop {
            batch.clear();
            let state = reader.read(limit, &mut batch).expect("reads");
            found.extend(batch.records.iter().map(|record| String::from_utf8_lossy(batch.value(record)).into_owned()));
            match state {
                ReadState::End => return found,
                ReadState::Idle => std::thread::yield_now(),
                ReadState::More => {}
            }
        }
    }

    fn source(dir: &std::path::Path, input: &'static str) -> StdinSource {
        let log = Arc::new(EmbeddedLog::open(dir, Arc::new(|| 0)).expect("the log"));
        StdinSource::of(log, dir.to_owned(), "stdin-in".to_owned(), 100, Box::new(input.as_bytes()))
    }

    #[test]
    fn lines_are_kept_before_they_are_read_and_the_next_run_goes_on() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = source(dir.path(), "a\nb\r\n\nlast");
        let partition = first.discover(0).expect("one partition").remove(0);
        let mut reader = first.open(&partition, 0).expect("opens");
        assert_eq!(lines(&mut *reader), ["a", "b", "", "last"]);
        drop((reader, first));
        let second = source(dir.path(), "more\n");
        assert_eq!(lines(&mut *second.open(&partition, 2).expect("opens")), ["", "last", "more"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = source(dir.path(), Box::leak("x".repeat(300).into_boxed_str()));
        let partition = long.discover(0).expect("one partition").remove(0);
        let mut reader = long.open(&partition, 0).expect("opens");
        let limit = ReadLimit { records: 2, bytes: 1 << 20, until: None };
        let error = loop {
            match reader.read(limit, &mut RawBatch::default()) {
                Ok(_) => std::thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "record-too-large");
    }
}
