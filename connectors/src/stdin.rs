//! Standard input as a source: log first.
//!
//! What was read from a pipe cannot be read again. So each line becomes a record of a topic of the job's own log (see `ingest`).
//! When the job is started again it goes on with the lines that are in the log, then with the standard input that it has now.

use std::io::{BufRead, BufReader, Read};

use parking_lot::Mutex;
use thalweg_core::{Error, PartitionId, PartitionSpec, Result};

use crate::ingest::{Appender, Flow, Ingest, IngestTopic};
use crate::log::NewRecord;
use crate::{RawReader, RawSource};

/// Bytes that are read at once; what is there at once is made durable together.
const READ_BYTES: usize = 256 << 10;

/// Reads lines from standard input by way of a topic of the job's log.
pub struct StdinSource {
    ingest: Ingest,
    max_record_bytes: usize,
    input: Mutex<Option<Box<dyn Read + Send>>>,
}

impl StdinSource {
    /// Keeps the lines in `topic`.
    pub fn new(topic: IngestTopic, max_record_bytes: usize) -> Self {
        Self::of(topic, max_record_bytes, Box::new(std::io::stdin()))
    }

    fn of(topic: IngestTopic, max_record_bytes: usize, input: Box<dyn Read + Send>) -> Self {
        Self { ingest: Ingest::new(topic, true), max_record_bytes, input: Mutex::new(Some(input)) }
    }
}

impl RawSource for StdinSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        self.ingest.discover(source, "standard input")
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let records = self.ingest.open(partition, from)?;
        if let Some(input) = self.input.lock().take() {
            let max_record_bytes = self.max_record_bytes;
            let feed = move |appender| feed(appender, BufReader::with_capacity(READ_BYTES, input), max_record_bytes);
            // It ends with the input or with the process: nobody can wake a thread that waits for standard input.
            drop(self.ingest.start("stdin", feed)?);
        }
        Ok(records)
    }

    fn committed(&self, _: PartitionId, position: u64) -> Result<()> {
        self.ingest.committed(position)
    }
}

/// Turns input into records, until it ends.
fn feed(mut appender: Appender, mut input: impl BufRead, max_record_bytes: usize) -> Result<()> {
    let mut unfinished: Vec<u8> = Vec::new();
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("reading standard input", error)),
        };
        let length = bytes.len();
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            unfinished.extend_from_slice(&rest[..at]);
            lines.push(record(std::mem::take(&mut unfinished)));
            rest = &rest[at + 1..];
        }
        unfinished.extend_from_slice(rest);
        input.consume(length);
        if length == 0 && !unfinished.is_empty() {
            lines.push(record(std::mem::take(&mut unfinished)));
        }
        if unfinished.len() > max_record_bytes {
            let text = format!(
                "standard input: a line is longer than max_record_bytes = {max_record_bytes}; set it higher, or check the input"
            );
            return Err(Error::user("record-too-large", text));
        }
        if appender.append(&mut lines)? == Flow::Stop {
            return Ok(());
        }
        if length == 0 {
            appender.finish();
            return Ok(());
        }
    }
}

fn record(mut line: Vec<u8>) -> NewRecord {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    NewRecord { value: Some(line), ..NewRecord::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::EmbeddedLog;
    use crate::{RawBatch, ReadLimit, ReadState};

    fn lines(reader: &mut dyn RawReader) -> Vec<String> {
        let limit = ReadLimit { records: 2, bytes: 1 << 20, until: None };
        let (mut found, mut batch) = (Vec::new(), RawBatch::default());
        loop {
            batch.clear();
            let state = reader.read(limit, &mut batch).expect("reads");
            found.extend(batch.records.iter().map(|record| String::from_utf8_lossy(batch.value(record)).into_owned()));
            match state {
                ReadState::End => return found,
                ReadState::Idle | ReadState::Pending => std::thread::yield_now(),
                ReadState::More => {}
            }
        }
    }

    fn source(dir: &std::path::Path, input: &'static str) -> StdinSource {
        let log = Arc::new(EmbeddedLog::open(dir, Arc::new(|| 0)).expect("the log"));
        let topic = IngestTopic::new(log, dir.to_owned(), "stdin-in".to_owned(), false);
        StdinSource::of(topic, 100, Box::new(input.as_bytes()))
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
