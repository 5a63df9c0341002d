//! The log as a source and as a sink: their duties, and what is particular to the log.

use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_connectors::conformance::{SinkBench, check_sink, check_source};
use thalweg_connectors::log::{
    EmbeddedLog, Log, LogSink, LogSinkConfig, LogSource, LogSourceConfig, NewRecord, POSITION_HEADER, Position,
    Retention, Start, TopicSpec,
};
use thalweg_connectors::{
    EncodedBatch, EncodedRecord, Fields, Format, FormattedSource, RawBatch, RawSource, ReadLimit, ReadState, Sink,
    SinkContext, SinkWriter,
};
use thalweg_core::{Epoch, Generation, JobId, PartitionCount, PartitionId, Result};

const SEED: u64 = 19_991_231;
const WIDE: ReadLimit = ReadLimit { records: 1000, bytes: 1 << 20, until: None };
const P0: PartitionId = PartitionId(0);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn open(dir: &std::path::Path, segment_bytes: u64) -> EmbeddedLog {
    let ticks = std::sync::atomic::AtomicI64::new(0);
    let clock = Arc::new(move || ticks.fetch_add(10, std::sync::atomic::Ordering::Relaxed));
    EmbeddedLog::open_with(dir, clock, segment_bytes).expect("open")
}

fn topic(retention: Retention, partitions: u32) -> TopicSpec {
    TopicSpec { name: "t".to_owned(), partitions, retention }
}

/// Appends lines, one transaction each, to partitions in turn.
fn fill(log: &EmbeddedLog, partitions: u16, lines: std::ops::Range<u16>) {
    let mut producer = log.fence("fill", Generation(1)).expect("fence");
    for n in lines {
        producer.begin().expect("begin");
        let record = NewRecord {
            key: Some(vec![(n % 7) as u8]),
            value: Some(format!("line {n}").into_bytes()),
            headers: Vec::new(),
        };
        producer.append("t", PartitionId(n % partitions), record).expect("append");
        producer.commit().expect("commit");
    }
}

fn source(dir: &std::path::Path, start: Start, bounded: bool) -> LogSource {
    LogSource::new(LogSourceConfig { path: dir.to_owned(), topic: "t".to_owned(), start, bounded })
}

#[test]
fn the_source_does_its_duty() {
    let dir = folder();
    let log = open(dir.path(), 500);
    log.ensure(&topic(Retention::Keep, 3)).expect("topic");
    fill(&log, 3, 0..90);
    for bounded in [true, false] {
        let make = || Box::new(source(dir.path(), Start::Earliest, bounded)) as Box<dyn RawSource>;
        check_source(|| Box::new(FormattedSource::values(make(), Format::Lines, Fields::All)), SEED);
    }
}

#[test]
fn a_source_begins_and_ends_where_it_is_told() {
    let dir = folder();
    let log = open(dir.path(), 500);
    log.ensure(&topic(Retention::Keep, 1)).expect("topic");
    fill(&log, 1, 0..40);
    let time = {
        let mut records = Vec::new();
        log.reader("t", P0, 25).and_then(|mut reader| reader.read(1, &mut records)).expect("read");
        records[0].time
    };
    for (start, offset) in [
        (Start::Earliest, 0),
        (Start::Latest, 40),
        (Start::Time(time), 25),
        (Start::Time(time + 1), 26),
        (Start::Time(0), 0),
    ] {
        for bounded in [false, true] {
            let source = source(dir.path(), start, bounded);
            let specs = source.discover(0).expect("discover");
            assert_eq!((specs[0].start, specs[0].end), (offset, bounded.then_some(40)), "{start:?}");
            let mut reader = source.open(&specs[0], offset).expect("open");
            let mut batch = RawBatch::default();
            let end = if bounded { ReadState::End } else { ReadState::Idle };
            assert_eq!(reader.read(WIDE, &mut batch).expect("read"), end);
            assert_eq!((batch.records.len() as u64, reader.position()), (40 - offset, 40));
        }
    }
}

#[test]
fn a_bounded_source_ends_where_compaction_left_nothing() {
    let dir = folder();
    let log = open(dir.path(), 500);
    log.ensure(&topic(Retention::Compact { delete_retention_ms: 0 }, 1)).expect("topic");
    fill(&log, 1, 0..40);
    let mut producer = log.fence("gone", Generation(1)).expect("fence");
    producer.begin().expect("begin");
    for key in 0..7 {
        producer.append("t", P0, NewRecord { key: Some(vec![key]), ..NewRecord::default() }).expect("append");
    }
    producer.commit().expect("commit");
    log.clean().expect("clean");
    log.clean().expect("clean");
    let source = source(dir.path(), Start::Earliest, true);
    let specs = source.discover(0).expect("discover");
    let mut reader = source.open(&specs[0], specs[0].start).expect("open");
    let mut batch = RawBatch::default();
    assert_eq!(reader.read(WIDE, &mut batch).expect("read"), ReadState::End);
    assert_eq!((specs[0].end, batch.records.len()), (Some(47), 0), "{batch:?}");
}

#[test]
fn a_source_that_lost_records_or_is_another_one_is_an_error() {
    let dir = folder();
    let log = open(dir.path(), 65);
    log.ensure(&topic(Retention::Bounded { max_age_ms: None, max_bytes: Some(1) }, 1)).expect("topic");
    fill(&log, 1, 0..10);
    let source = source(dir.path(), Start::Earliest, false);
    let spec = source.discover(0).expect("discover").remove(0);
    let mut reader = source.open(&spec, 0).expect("open");
    let mut batch = RawBatch::default();
    reader.read(ReadLimit { records: 2, ..WIDE }, &mut batch).expect("read");
    log.clean().expect("clean");
    let error =
        (0..20).find_map(|_| reader.read(ReadLimit { records: 1, ..WIDE }, &mut batch).err()).expect("an error");
    assert_eq!(error.code(), "source-lost");
    assert_eq!(source.open(&spec, 2).err().expect("an error").code(), "source-lost");
    let mut other = spec.clone();
    other.identity = "another".to_owned();
    assert_eq!(source.open(&other, 10).err().expect("an error").code(), "source-changed");
}

/// A log sink, looked at as one byte for each record, so that bytes and offsets are the same.
struct Bench {
    dir: Mutex<tempfile::TempDir>,
    log: Mutex<EmbeddedLog>,
}

const TARGETS: u32 = 4;

fn config(retention: Retention, partitions: u32) -> LogSinkConfig {
    LogSinkConfig {
        topic: topic(retention, partitions),
        sink: 2,
        producer: "7-sink-out-0".to_owned(),
        partitions: PartitionCount::new(8).expect("8 partitions"),
    }
}

fn records(log: &EmbeddedLog, partition: PartitionId) -> Vec<NewRecord> {
    let mut out = Vec::new();
    let mut reader = log.reader("t", partition, 0).expect("reader");
    while reader.read(1 << 20, &mut out).expect("read") {}
    out.into_iter().map(|record| record.record).collect()
}

impl SinkBench for Bench {
    fn sink(&self) -> Box<dyn Sink> {
        let log = Arc::new(self.log.lock().clone());
        Box::new(LogSink::new(log, config(Retention::Keep, TARGETS)).expect("a sink"))
    }

    fn shown(&self, partition: PartitionId) -> Vec<u8> {
        let values = records(&self.log.lock(), partition).into_iter().map(|record| record.value.unwrap_or_default());
        values.map(|value| value.iter().fold(7u8, |hash, byte| hash.wrapping_mul(31) ^ byte)).collect()
    }

    /// A log that holds only the first `length` records of the partition.
    fn tear(&self, partition: PartitionId, length: u64) -> bool {
        let dir = folder();
        let log = open(dir.path(), 1 << 20);
        log.ensure(&topic(Retention::Keep, TARGETS)).expect("topic");
        let mut producer = log.fence("tear", Generation(1)).expect("fence");
        producer.begin().expect("begin");
        for place in (0..TARGETS as u16).map(PartitionId) {
            let keep = if place == partition { length as usize } else { usize::MAX };
            for record in records(&self.log.lock(), place).into_iter().take(keep) {
                producer.append("t", place, record).expect("append");
            }
        }
        producer.commit().expect("commit");
        *self.log.lock() = log;
        *self.dir.lock() = dir;
        true
    }

    fn add_foreign(&self, partition: PartitionId) {
        let mut producer = self.log.lock().fence("foreign", Generation(1)).expect("fence");
        let position = Position { job: JobId(7), sink: 2, partition, epoch: Epoch(99), sequence: 0 };
        let headers = vec![(POSITION_HEADER.to_owned(), position.encode())];
        producer.begin().expect("begin");
        producer.append("t", partition, NewRecord { key: None, value: None, headers }).expect("append");
        producer.commit().expect("commit");
    }

    fn fresh() -> Self {
        let dir = folder();
        let log = open(dir.path(), 1 << 20);
        Self { dir: Mutex::new(dir), log: Mutex::new(log) }
    }
}

#[test]
fn the_sink_does_its_duty() {
    check_sink::<Bench>();
}

/// A key, and a value where it is no tombstone.
type Put<'a> = (&'a str, Option<&'a str>);

fn batch(records: &[Put<'_>]) -> EncodedBatch {
    let mut batch = EncodedBatch::default();
    let mut add = |text: &str| {
        let start = batch.data.len();
        batch.data.extend_from_slice(text.as_bytes());
        start..batch.data.len()
    };
    let records = records
        .iter()
        .map(|(key, value)| EncodedRecord { key: Some(add(key)), value: value.map(&mut add), ..Default::default() })
        .collect();
    EncodedBatch { data: batch.data, records }
}

fn writer(sink: &LogSink, generation: u64, ends: &[(u16, u64)]) -> Result<Box<dyn SinkWriter>> {
    let partitions = ends.iter().map(|(partition, end)| (PartitionId(*partition), *end)).collect();
    sink.open(&SinkContext { job_id: JobId(7), generation: Generation(generation), partitions })
}

fn epoch(writer: &mut dyn SinkWriter, epoch: u64, parts: &[(u16, &[Put<'_>])]) -> Result<()> {
    for (partition, records) in parts {
        writer.write(Epoch(epoch), PartitionId(*partition), &batch(records))?;
    }
    writer.end_epoch(Epoch(epoch))
}

/// Two job partitions in one topic partition, and a checkpoint in the middle of a replay: the end that it names is before
/// everything that was not replayed yet.
#[test]
fn a_checkpoint_within_a_replay_loses_nothing() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 200));
    let sink = |log: &Arc<EmbeddedLog>| LogSink::new(log.clone(), config(Retention::Keep, 1)).expect("a sink");
    let run = |writer: &mut dyn SinkWriter, n| {
        epoch(writer, n, &[(0, &[("a", Some("1")), ("b", None)]), (5, &[("c", Some("2"))])])
    };
    let mut first = writer(&sink(&log), 1, &[(0, 0), (5, 0)]).expect("open");
    for n in 1..=3 {
        run(&mut *first, n).expect("write");
    }
    let mut second = writer(&sink(&log), 2, &[(0, 0), (5, 0)]).expect("open");
    run(&mut *second, 1).expect("replay");
    let ends = second.sync().expect("sync");
    assert_eq!(ends, [(PartitionId(0), 3), (PartitionId(5), 5)], "the first records that were not given again");
    let mut third = writer(&sink(&log), 3, &[(0, 3), (5, 5)]).expect("open");
    for n in 2..=4 {
        run(&mut *third, n).expect("replay");
    }
    third.replayed().expect("nothing left");
    assert_eq!(third.sync().expect("sync"), [(PartitionId(0), 12), (PartitionId(5), 12)]);
    let shown: Vec<_> =
        records(&log, P0).into_iter().map(|r| Position::decode(&r.headers[0].1).expect("a position")).collect();
    let places: Vec<_> = shown.iter().map(|p| (p.epoch.0, p.partition.0, p.sequence)).collect();
    assert_eq!(places, (1..=4).flat_map(|n| [(n, 0, 0), (n, 0, 1), (n, 5, 0)]).collect::<Vec<_>>());
}

#[test]
fn what_compaction_dropped_is_not_written_again() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 1));
    let retention = Retention::Compact { delete_retention_ms: 1_000_000 };
    let sink = |log: &Arc<EmbeddedLog>| LogSink::new(log.clone(), config(retention, 1)).expect("a sink");
    let run = |writer: &mut dyn SinkWriter, n| epoch(writer, n, &[(0, &[("a", Some("1")), ("b", Some("2"))])]);
    let mut first = writer(&sink(&log), 1, &[(0, 0)]).expect("open");
    (1..=5).try_for_each(|n| run(&mut *first, n)).expect("write");
    log.clean().expect("clean");
    let before = records(&log, P0);
    assert_eq!(before.len(), 2);
    let mut second = writer(&sink(&log), 2, &[(0, 0)]).expect("open");
    (1..=5).try_for_each(|n| run(&mut *second, n)).expect("replay");
    second.replayed().expect("nothing left");
    assert_eq!(records(&log, P0), before);
}

#[test]
fn workers_of_one_task_share_its_producer() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 1 << 20));
    let sink = LogSink::new(log.clone(), config(Retention::Keep, 2)).expect("a sink");
    let mut workers: Vec<_> = (0..4).map(|p| writer(&sink, 1, &[(p, 0)]).expect("open")).collect();
    for n in 1..=10 {
        for (partition, worker) in (0u16..).zip(&mut workers) {
            epoch(&mut **worker, n, &[(partition, &[("k", Some("v"))])]).expect("write");
        }
    }
    assert_eq!(records(&log, PartitionId(0)).len() + records(&log, PartitionId(1)).len(), 40);
    let again = LogSink::new(log, config(Retention::Keep, 2)).expect("a sink");
    assert_eq!(again.ends().expect("ends").len(), 8);
    assert_eq!(again.ends().expect("ends")[3], (PartitionId(3), 20));
}
