//! The log as a source and as a sink: their duties, and what is particular to the log.

use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_connectors::conformance::{SinkBench, check_sink, check_source};
use thalweg_connectors::log::{
    Delivery, EmbeddedLog, Log, LogReader, LogSink, LogSinkConfig, LogSource, LogSourceConfig, NewRecord, NewRecordRef,
    POSITION_HEADER, Partitioner, Position, Producer, Retention, SinkProducer, Start, TopicInfo, TopicSpec,
};
use thalweg_connectors::{
    EncodedBatch, EncodedRecord, Fields, Format, FormattedSource, RawBatch, RawSource, ReadLimit, ReadState, Sink,
    SinkContext, SinkWriter,
};
use thalweg_core::{Epoch, Error, Generation, JobId, PartitionCount, PartitionId, Result};

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

fn config(partitions: u32, partitioner: Partitioner) -> LogSinkConfig {
    LogSinkConfig {
        topic: "t".to_owned(),
        topic_partitions: Some(partitions),
        partitioner,
        sink: 2,
        partitions: PartitionCount::new(8).expect("8 partitions"),
    }
}

/// A sink with a producer of its own, as a process has.
fn sink(log: Arc<dyn Log>, partitions: u32, partitioner: Partitioner) -> LogSink {
    let producer = SinkProducer::new(log, "7-sinks-0".to_owned(), Delivery::ExactlyOnce);
    LogSink::new(Arc::new(producer), config(partitions, partitioner)).expect("a sink")
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
        Box::new(sink(log, TARGETS, Partitioner::JobPartition))
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
        .map(|(key, value)| EncodedRecord {
            key: Some(add(key)),
            value: value.map(&mut add),
            ..EncodedRecord::default()
        })
        .collect();
    EncodedBatch { data: batch.data, records }
}

/// Opens a writer at the ends of a checkpoint, by partition of the topic.
fn writer(sink: &LogSink, generation: u64, checkpoint: u64, ends: &[u64]) -> Result<Box<dyn SinkWriter>> {
    let partitions = (0..).zip(ends).map(|(partition, end)| (PartitionId(partition), *end)).collect();
    let (generation, checkpoint) = (Generation(generation), Epoch(checkpoint));
    sink.open(&SinkContext { job_id: JobId(7), generation, checkpoint, partitions })
}

fn epoch(writer: &mut dyn SinkWriter, epoch: u64, parts: &[(u16, &[Put<'_>])]) -> Result<()> {
    for (partition, records) in parts {
        writer.write(Epoch(epoch), PartitionId(*partition), batch(records))?;
    }
    writer.end_epoch(Epoch(epoch))?;
    writer.flush()
}

/// Two job partitions in one topic partition, and a checkpoint in the middle of a replay: the end that it names is before
/// everything that was not replayed yet.
#[test]
fn a_checkpoint_within_a_replay_loses_nothing() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 200));
    let sink = || sink(log.clone(), 1, Partitioner::JobPartition);
    let run = |writer: &mut dyn SinkWriter, n| {
        epoch(writer, n, &[(0, &[("a", Some("1")), ("b", None)]), (5, &[("c", Some("2"))])])
    };
    let mut first = writer(&sink(), 1, 0, &[0]).expect("open");
    for n in 1..=3 {
        run(&mut *first, n).expect("write");
    }
    let mut second = writer(&sink(), 2, 0, &[0]).expect("open");
    run(&mut *second, 1).expect("replay");
    let ends = second.sync().expect("sync");
    assert_eq!(ends, [(P0, 3)], "the first record that was not given again");
    let mut third = writer(&sink(), 3, 1, &[3]).expect("open");
    for n in 2..=4 {
        run(&mut *third, n).expect("replay");
    }
    third.replayed().expect("nothing left");
    assert_eq!(third.sync().expect("sync"), [(P0, 12)]);
    let shown: Vec<_> =
        records(&log, P0).into_iter().map(|r| Position::decode(&r.headers[0].1).expect("a position")).collect();
    let places: Vec<_> = shown.iter().map(|p| (p.epoch.0, p.partition.0, p.sequence)).collect();
    assert_eq!(places, (1..=4).flat_map(|n| [(n, 0, 0), (n, 0, 1), (n, 5, 0)]).collect::<Vec<_>>());
}

#[test]
fn what_compaction_dropped_is_not_written_again() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 1));
    log.ensure(&topic(Retention::Compact { delete_retention_ms: 1_000_000 }, 1)).expect("topic");
    let sink = || sink(log.clone(), 1, Partitioner::JobPartition);
    let run = |writer: &mut dyn SinkWriter, n| epoch(writer, n, &[(0, &[("a", Some("1")), ("b", Some("2"))])]);
    let mut first = writer(&sink(), 1, 0, &[0]).expect("open");
    (1..=5).try_for_each(|n| run(&mut *first, n)).expect("write");
    log.clean().expect("clean");
    let before = records(&log, P0);
    assert_eq!(before.len(), 2);
    let mut second = writer(&sink(), 2, 0, &[0]).expect("open");
    (1..=5).try_for_each(|n| run(&mut *second, n)).expect("replay");
    second.replayed().expect("nothing left");
    assert_eq!(records(&log, P0), before);
}

/// Two sinks of a task share its producer, and so one transaction for what is ready in both.
#[test]
fn sinks_of_one_task_share_its_producer() {
    let dir = folder();
    let log = Arc::new(open(dir.path(), 1 << 20));
    let producer = Arc::new(SinkProducer::new(log.clone(), "7-sinks-0".to_owned(), Delivery::ExactlyOnce));
    let mut writers: Vec<_> = (0..2)
        .map(|index| {
            let config =
                LogSinkConfig { topic: format!("t{index}"), sink: index, ..config(1, Partitioner::JobPartition) };
            let sink = LogSink::new(producer.clone(), config).expect("a sink");
            writer(&sink, 1, 0, &[0]).expect("open")
        })
        .collect();
    let end = |topic: &str| log.offsets(topic, P0).expect("offsets").1;
    for writer in &mut writers {
        writer.write(Epoch(1), P0, batch(&[("k", Some("v"))])).expect("write");
        writer.end_epoch(Epoch(1)).expect("end");
    }
    assert_eq!((end("t0"), end("t1")), (0, 0), "nothing is committed before the first flush");
    writers[0].flush().expect("flush");
    assert_eq!((end("t0"), end("t1")), (1, 1), "one transaction holds both");
    writers[1].flush().expect("flush");
    assert_eq!((end("t0"), end("t1")), (1, 1), "and is not repeated");
}

/// A commit of unknown outcome: whatever it came to, nothing is lost and nothing is there twice, also for the other sink that was in
/// the same transaction.
#[test]
fn a_commit_of_unknown_outcome_is_looked_up() {
    for outcome in [Outcome::Lost, Outcome::Done] {
        let dir = folder();
        let log = Arc::new(open(dir.path(), 1 << 20));
        let flaky = Arc::new(Flaky { log: (*log).clone(), next: Arc::default() });
        let producer = Arc::new(SinkProducer::new(flaky.clone(), "7-sinks-0".to_owned(), Delivery::ExactlyOnce));
        let mut writers: Vec<_> = (0..2)
            .map(|index| {
                let config = LogSinkConfig { sink: index, ..config(2, Partitioner::Key) };
                writer(&LogSink::new(producer.clone(), config).expect("a sink"), 1, 0, &[0, 0]).expect("open")
            })
            .collect();
        for n in 1..=6 {
            if n % 2 == 0 {
                *flaky.next.lock() = Some(outcome);
            }
            for writer in &mut writers {
                let records: Vec<String> = (0..5).map(|key| format!("key {key}")).collect();
                let records: Vec<Put<'_>> = records.iter().map(|key| (key.as_str(), Some("v"))).collect();
                writer.write(Epoch(n), PartitionId(3), batch(&records)).expect("write");
                writer.end_epoch(Epoch(n)).expect("end");
            }
            writers.iter_mut().for_each(|writer| writer.flush().expect("flush"));
            assert!(flaky.next.lock().is_none(), "the outcome was unknown once");
        }
        let mut places: Vec<_> = [P0, PartitionId(1)]
            .into_iter()
            .flat_map(|partition| {
                let positions = records(&log, partition).into_iter().map(|r| Position::decode(&r.headers[0].1));
                positions.map(move |p| p.map(|p| (p.sink, p.epoch.0, partition.0, p.sequence)).expect("a position"))
            })
            .collect();
        places.sort_unstable();
        let count = places.len();
        places.dedup();
        assert_eq!((places.len(), count), (60, 60), "{outcome:?}: {places:?}");
    }
}

/// Epochs that the topic shows already and new ones become ready together, and the commit of the new ones has an unknown outcome: what
/// was shown before is not written a second time, nor missed.
#[test]
fn a_commit_of_unknown_outcome_right_after_a_replay_is_looked_up() {
    for (outcome, replayed) in [Outcome::Lost, Outcome::Done].into_iter().flat_map(|o| [(o, 1), (o, 2), (o, 3)]) {
        let dir = folder();
        let log = Arc::new(open(dir.path(), 1 << 20));
        let put = |writer: &mut dyn SinkWriter, n| {
            writer.write(Epoch(n), P0, batch(&[("a", Some("1")), ("b", Some("2"))])).expect("write");
            writer.end_epoch(Epoch(n)).expect("end");
        };
        let mut first = writer(&sink(log.clone(), 1, Partitioner::JobPartition), 1, 0, &[0]).expect("open");
        (1..=3).for_each(|n| put(&mut *first, n));
        first.flush().expect("flush");
        let flaky = Arc::new(Flaky { log: (*log).clone(), next: Arc::default() });
        let mut second = writer(&sink(flaky.clone(), 1, Partitioner::JobPartition), 2, 0, &[0]).expect("open");
        for n in 1..=5 {
            put(&mut *second, n);
            if n < replayed {
                second.flush().expect("flush");
            }
            if n == 3 {
                second.replayed().expect("nothing left");
            }
        }
        *flaky.next.lock() = Some(outcome);
        second.flush().expect("flush");
        assert!(flaky.next.lock().is_none(), "the outcome was unknown once");
        let positions = records(&log, P0).into_iter().map(|r| Position::decode(&r.headers[0].1).expect("a position"));
        let places: Vec<_> = positions.map(|p| (p.epoch.0, p.sequence)).collect();
        let expected: Vec<_> = (1..=5).flat_map(|n| [(n, 0), (n, 1)]).collect();
        assert_eq!(places, expected, "{outcome:?}, alone up to epoch {replayed}");
        assert_eq!(second.sync().expect("sync"), [(P0, 10)]);
    }
}

/// The commit of one sink has an unknown outcome while another one, of the same producer, is in the middle of its replay: what that one
/// is given again is compared with what it shows all the same.
#[test]
fn a_replay_goes_on_after_the_producer_was_replaced_for_another_sink() {
    for outcome in [Outcome::Lost, Outcome::Done] {
        let dir = folder();
        let log = Arc::new(open(dir.path(), 1 << 20));
        let flaky = Arc::new(Flaky { log: (*log).clone(), next: Arc::default() });
        let open = |generation| {
            let producer = Arc::new(SinkProducer::new(flaky.clone(), "7-sinks-0".to_owned(), Delivery::ExactlyOnce));
            let open = move |index| {
                let config =
                    LogSinkConfig { topic: format!("t{index}"), sink: index, ..config(1, Partitioner::JobPartition) };
                writer(&LogSink::new(producer.clone(), config).expect("a sink"), generation, 0, &[0]).expect("open")
            };
            [0, 1].map(open)
        };
        let put = |writer: &mut dyn SinkWriter, n| epoch(writer, n, &[(0, &[("a", Some("1"))])]).expect("write");
        let [mut first, _] = open(1);
        (1..=3).for_each(|n| put(&mut *first, n));
        let [mut first, mut second] = open(2);
        put(&mut *first, 1);
        *flaky.next.lock() = Some(outcome);
        put(&mut *second, 1);
        for n in 2..=3 {
            first.write(Epoch(n), P0, batch(&[("a", Some("1"))])).expect("write");
            first.end_epoch(Epoch(n)).expect("end");
        }
        first.replayed().expect("nothing left");
        first.flush().expect("flush");
        put(&mut *first, 4);
        let end = |topic: &str| log.offsets(topic, P0).expect("offsets").1;
        assert_eq!((end("t0"), end("t1")), (4, 1), "{outcome:?}");
    }
}

/// What becomes of a transaction whose commit returns an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Lost,
    Done,
}

/// A log whose next commit has an unknown outcome.
struct Flaky {
    log: EmbeddedLog,
    next: Arc<Mutex<Option<Outcome>>>,
}

struct FlakyProducer {
    producer: Box<dyn Producer>,
    next: Arc<Mutex<Option<Outcome>>>,
}

impl Log for Flaky {
    fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        self.log.ensure(topic)
    }
    fn topics(&self) -> Result<Vec<(String, u32)>> {
        self.log.topics()
    }
    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        self.log.topic(name)
    }
    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        let producer = self.log.fence(id, generation)?;
        Ok(Box::new(FlakyProducer { producer, next: self.next.clone() }))
    }
    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        self.log.reader(topic, partition, from)
    }
    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        self.log.offsets(topic, partition)
    }
    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.log.trim(topic, partition, before)
    }
}

impl Producer for FlakyProducer {
    fn begin(&mut self) -> Result<()> {
        self.producer.begin()
    }
    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        self.producer.append_ref(topic, partition, record)
    }
    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        let outcome = self.next.lock().take();
        match outcome {
            None => return self.producer.commit(),
            Some(Outcome::Done) => drop(self.producer.commit()?),
            Some(Outcome::Lost) => self.producer.abort()?,
        }
        Err(Error::external("kafka-away", "the answer to the commit was lost"))
    }
    fn abort(&mut self) -> Result<()> {
        self.producer.abort()
    }
}
