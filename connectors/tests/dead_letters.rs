//! Dead letters: as they are written and read, decided on, and read once more.

use std::sync::Arc;

use thalweg_connectors::dead_letter::{
    self, DeadLetter, Decision, Desk, FailedNode, HeaderNames, Held, Place, Range, Reason, Retries, StoredLetter, Which,
};
use thalweg_connectors::log::{Delivery, EmbeddedLog, Log, LogSink, POSITION_HEADER, Position, SinkProducer};
use thalweg_connectors::{
    Backfilled, BadRecord, CsvOptions, EncodedBatch, Fields, FileSource, Format, FormattedSource, Messages, ReadLimit,
    ReadState, RecordSource, Sink, SinkContext, Untyped,
};
use thalweg_core::{Epoch, Generation, JobId, PartitionId, PartitionSpec, Value};

const JOB: JobId = JobId(7);
const WIDE: ReadLimit = ReadLimit { records: 100, bytes: 1 << 20, until: None };

fn log(dir: &std::path::Path) -> Arc<dyn Log> {
    Arc::new(EmbeddedLog::open(dir, Arc::new(|| 5)).expect("a log"))
}

fn of_source(value: &str, csv_header: Option<&str>) -> DeadLetter {
    let place = Place { topic: "in".to_owned(), partition: "in.csv".to_owned(), offset: 12 };
    let bad = BadRecord {
        at: 12,
        next: 20,
        why: "in.csv: record at 12: not what it should be".to_owned(),
        key: Some(b"key".to_vec()),
        raw: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
        time: None,
        header: csv_header.map(|line| line.as_bytes().to_vec()),
        retried: None,
    };
    DeadLetter::of_source("in", false, place, bad)
}

fn of_operator(held: Held) -> DeadLetter {
    let letter = DeadLetter::of_operator("sums", Reason::Panicked, "panicked: é".repeat(1000), held);
    DeadLetter { key: Some(b"\"k\"".to_vec()), timer: (held == Held::Timer).then_some(-4), ..letter }
}

/// Writes letters as the sink of a job does.
fn write(log: &Arc<dyn Log>, letters: &[DeadLetter]) {
    let ends = sink(log).ends().expect("ends");
    write_from(log, Generation(1), ends, letters);
}

fn sink(log: &Arc<dyn Log>) -> LogSink {
    let producer = SinkProducer::new(log.clone(), format!("{JOB}-sinks-0"), Delivery::ExactlyOnce);
    dead_letter::sink(Arc::new(producer), &dead_letter::default_topic(JOB)).expect("a sink")
}

/// The same of a process that goes on from these ends.
fn write_from(log: &Arc<dyn Log>, generation: Generation, partitions: Vec<(PartitionId, u64)>, letters: &[DeadLetter]) {
    let context = SinkContext { job_id: JOB, generation, checkpoint: Epoch::ZERO, partitions };
    let mut writer = sink(log).open(&context).expect("a writer");
    let mut batch = EncodedBatch::default();
    letters.iter().for_each(|letter| letter.encode("orders", Epoch(3), HeaderNames::Streams, &mut batch));
    writer.write(Epoch(3), PartitionId(0), batch).expect("writes");
    writer.end_epoch(Epoch(3)).expect("ends");
    writer.sync().expect("is durable");
}

fn desk(log: &Arc<dyn Log>) -> Desk {
    Desk::new(JOB, log.clone(), dead_letter::default_topic(JOB), log.clone())
}

fn offsets(desk: &Desk) -> Vec<u64> {
    let page = desk.page(0, 100, None).expect("a page");
    page.letters.iter().map(|(letter, _)| letter.offset).collect()
}

/// What a source reads in the partition of its retried records.
fn reread<T>(source: &dyn RecordSource<T>, from: u64) -> (Vec<T>, Vec<BadRecord>, ReadState) {
    let partitions = source.discover(0).expect("partitions");
    let partition = partitions.iter().find(|spec| dead_letter::is_retry(spec)).expect("one of retried records");
    let mut reader = source.open(partition, from).expect("opens");
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    let state = reader.read(WIDE, &mut out, &mut bad).expect("reads");
    (out, bad, state)
}

fn retries(log: &Arc<dyn Log>) -> Retries {
    Retries { log: log.clone(), topic: dead_letter::retry_topic(JOB, "in", false), wanted: true }
}

fn csv_source(dir: &std::path::Path, log: &Arc<dyn Log>) -> FormattedSource<Value> {
    std::fs::write(dir.join("in.csv"), "a,b\n1,2\n").expect("a file");
    let format = Format::Csv(CsvOptions::default());
    let files = FileSource::new(dir, ["in.csv"], &format);
    let source = FormattedSource::values(Box::new(files), format, Fields::All);
    source.set_retries(retries(log));
    source
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    let large = DeadLetter { value: Some(vec![b'x'; (32 << 20) + 1]), ..of_source("", None) };
    let letters =
        [of_source("1,2,3", Some("a,b")), of_operator(Held::Grouped), of_operator(Held::Timer), large.clone()];
    write(&log, &letters);
    let desk = desk(&log);
    let read: Vec<StoredLetter> = (0..4).map(|offset| desk.get(offset).expect("is there").0).collect();
    for (stored, letter) in read.iter().zip(&letters) {
        assert_eq!((stored.job.as_str(), stored.epoch, stored.time), ("orders", Epoch(3), 5));
        assert_eq!(
            (&stored.letter.node, stored.letter.held, stored.letter.timer),
            (&letter.node, letter.held, letter.timer)
        );
        assert_eq!((&stored.letter.key, &stored.letter.place), (&letter.key, &letter.place));
        assert!(letter.message.starts_with(&stored.letter.message) && !stored.letter.message.is_empty());
    }
    assert_eq!(read[0].letter, letters[0]);
    assert_eq!(read[1].letter.message.len(), 4096, "messages are cut between characters");
    assert_eq!(read[3].truncated, Some((32 << 20) + 1));
    assert_eq!(read[3].letter.value.as_ref().map(Vec::len), Some(32 << 20));
    assert_eq!(desk.get(4).err().map(|error| error.code()), Some("no-dead-letter"));
}

#[test]
fn decisions_are_made_once_and_outlive_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    let large = DeadLetter { value: Some(vec![b'x'; (32 << 20) + 1]), ..of_source("", None) };
    write(&log, &[of_source("a", None), of_source("b", None), of_operator(Held::Record), large, of_source("c", None)]);
    let first = desk(&log);
    let code = |which: Which, decision| first.decide(&which, decision).err().map(|error| error.code());
    let one = |offset| Which::Offsets(vec![offset]);
    assert_eq!(code(one(0), Decision::Retried), Some("cannot-retry"), "no source has a partition for it yet");
    csv_source(dir.path(), &log).discover(0).expect("makes the topic");
    assert_eq!(code(one(2), Decision::Retried), Some("cannot-retry"), "an operator failed on it");
    assert_eq!(code(one(3), Decision::Retried), Some("cannot-retry"), "it is not whole");
    assert_eq!(code(Which::Offsets(vec![0, 9]), Decision::Dropped), Some("no-dead-letter"));
    assert_eq!(offsets(&first), [0, 1, 2, 3, 4], "what fails decides nothing");
    assert_eq!(code(one(1), Decision::Dropped), None);
    assert_eq!(code(Which::Offsets(vec![0, 0]), Decision::Retried), None);
    for desk in [&first, &desk(&log)] {
        assert_eq!(offsets(desk), [2, 3, 4]);
        let decided = |offset| desk.get(offset).expect("is there").1;
        assert_eq!([decided(0), decided(1), decided(2)], [Some(Decision::Retried), Some(Decision::Dropped), None]);
        for (offset, decision) in [(0, Decision::Retried), (0, Decision::Dropped), (1, Decision::Retried)] {
            let error = desk.decide(&one(offset), decision).expect_err("it is decided");
            assert_eq!(error.code(), "decided");
        }
    }
    let of = |node: &str| Which::All(Range { node: Some(node.to_owned()), ..Range::default() });
    let retried = first.decide(&Which::All(Range::default()), Decision::Retried).expect("decides");
    assert_eq!((retried.count, retried.left, retried.next), (1, 2, None));
    assert_eq!(first.decide(&of("sums"), Decision::Dropped).expect("decides").count, 1);
    assert_eq!(offsets(&first), [3]);
    let page = first.page(0, 100, Some("in")).expect("a page");
    assert_eq!(page.letters.iter().map(|(letter, bytes)| (letter.offset, *bytes)).collect::<Vec<_>>(), [(3, 32 << 20)]);
}

#[test]
fn pages_follow_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    write(&log, &vec![of_source("a", None); 7]);
    let desk = desk(&log);
    let (mut from, mut seen) = (Some(0), Vec::new());
    while let Some(cursor) = from {
        let page = desk.page(cursor, 3, None).expect("a page");
        assert!(page.letters.len() <= 3);
        seen.extend(page.letters.iter().map(|(letter, _)| letter.offset));
        from = page.next;
    }
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
}

#[test]
fn what_is_retried_is_read_as_it_was_and_fails_as_what_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    let letters = [of_source("7,8", Some("a,b")), of_source("8,7", Some("b,a")), of_source("1,2,3", Some("a,b"))];
    write(&log, &letters);
    for first in [true, false] {
        let source = csv_source(dir.path(), &log);
        let names: Vec<_> = source.discover(4).expect("partitions").iter().map(|spec| spec.of).collect();
        assert_eq!(names.iter().map(|of| (of.source, of.partition.0)).collect::<Vec<_>>(), [(4, 0), (4, 1)]);
        if first {
            assert_eq!(reread(&source, 0), (vec![], vec![], ReadState::Idle));
            desk(&log).decide(&Which::Offsets(vec![0, 1, 2]), Decision::Retried).expect("decides");
        }
        let (values, bad, state) = reread(&source, 0);
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        assert_eq!(
            (values.as_slice(), state),
            (&[r#"{"a":7,"b":8}"#.to_owned(), r#"{"b":8,"a":7}"#.to_owned()][..], ReadState::Idle)
        );
        let again = DeadLetter::of_source(
            "in",
            false,
            Place { topic: String::new(), partition: String::new(), offset: 0 },
            bad[0].clone(),
        );
        assert!(again.message.starts_with("dead letter 2, retried: 3 columns"), "{}", again.message);
        let expected = DeadLetter { message: again.message.clone(), retry_of: Some(2), ..letters[2].clone() };
        assert_eq!(again, expected);
        assert_eq!(again.node, FailedNode::Source("in".to_owned()));
        assert_eq!(reread(&source, 2).1.len(), 1, "from a position on");
    }
}

/// Decides that all dead letters are read once more.
fn retry_all(log: &Arc<dyn Log>, count: u64) {
    let decided = desk(log).decide(&Which::All(Range::default()), Decision::Retried).expect("decides");
    assert_eq!((decided.count, decided.left), (count, 0));
}

#[test]
fn what_stood_beside_a_record_stands_there_when_it_is_read_once_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    // A record that another job has set aside, and that this one reads and sets aside, too: it has headers of our names.
    let headers = ["trace", "thalweg.headers", "thalweg.retry-of", "thalweg.time", "thalweg.truncated", "trace"];
    let headers: Vec<(String, Vec<u8>)> = headers.iter().map(|name| ((*name).to_owned(), b"9".to_vec())).collect();
    let place = Place { topic: "orders".to_owned(), partition: "3".to_owned(), offset: 41 };
    let letter = |value: Option<&str>, headers: &[(String, Vec<u8>)]| DeadLetter {
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: headers.to_vec(),
        time: Some(-12),
        place: Some(place.clone()),
        ..of_source("", None)
    };
    let letters = [letter(Some("text"), &headers), letter(None, &headers[..1]), letter(Some("more"), &[])];
    write(&log, &letters);
    for (offset, letter) in letters.iter().enumerate() {
        let (stored, _) = desk(&log).get(offset as u64).expect("is there");
        assert_eq!((&stored.letter, stored.truncated), (letter, None));
    }
    let raw = || Box::new(FileSource::new(dir.path(), ["*.txt"], &Format::Lines));
    let decoders = || Arc::new(Untyped { format: Format::Lines, fields: Fields::All });
    std::fs::write(dir.path().join("in.txt"), "").expect("a file");
    let source = FormattedSource::new(raw(), Arc::new(Messages::new(decoders())));
    source.set_retries(retries(&log));
    let (read, ..) = reread(&source, 0);
    assert_eq!(read, []);
    retry_all(&log, 3);
    let (read, bad, _) = reread(&source, 0);
    assert_eq!(bad, []);
    for (message, letter) in read.iter().zip(&letters) {
        let value = letter.value.as_deref().map(|line| format!(r#"{{"line":"{}"}}"#, String::from_utf8_lossy(line)));
        assert_eq!(message.value.as_ref().map(Value::to_string), value);
        assert_eq!((&message.key, &message.headers, message.timestamp), (&letter.key, &letter.headers, letter.time));
        assert_eq!((message.topic.as_str(), message.partition, message.offset), ("orders", 3, 41));
    }
    assert_eq!(read.len(), 3);
    // A source of values reads no tombstones, also where they are retried.
    let values = FormattedSource::new(raw(), decoders());
    values.set_retries(retries(&log));
    let (read, bad, state) = reread(&values, 0);
    assert_eq!((read.len(), bad, state), (2, vec![], ReadState::Idle));
}

#[test]
fn too_many_headers_are_left_out_and_the_record_cannot_be_retried() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    let headers = vec![("large".to_owned(), vec![0; 8 << 20]); 2];
    write(&log, &[DeadLetter { headers, ..of_source("seven", None) }]);
    csv_source(dir.path(), &log).discover(0).expect("makes the topic");
    let (stored, _) = desk(&log).get(0).expect("is there");
    assert_eq!((stored.letter.headers, stored.truncated), (vec![], Some(5)));
    let error = desk(&log).decide(&Which::Offsets(vec![0]), Decision::Retried).expect_err("it is not whole");
    assert_eq!(error.code(), "cannot-retry");
}

#[test]
fn a_backfill_reads_its_own_records_once_more_in_its_own_format() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    std::fs::write(dir.path().join("in.txt"), "").expect("a file");
    let of = |format: Format| -> Arc<dyn RecordSource<Value>> {
        let files = FileSource::new(dir.path(), ["in.txt"], &format);
        Arc::new(FormattedSource::values(Box::new(files), format, Fields::All))
    };
    let source = Backfilled::new(of(Format::Json), of(Format::Lines));
    source.set_retries(retries(&log));
    let partitions = source.discover(0).expect("partitions");
    let (retried, others): (Vec<_>, Vec<_>) = partitions.into_iter().partition(dead_letter::is_retry);
    let backfill = |specs: &[PartitionSpec]| specs.iter().map(|spec| source.is_backfill(spec)).collect::<Vec<_>>();
    assert_eq!((backfill(&others), backfill(&retried)), (vec![true, false], vec![true, false]));
    assert!(retried.iter().all(|spec| !source.follows(spec)), "they wait for nothing");
    let line = r#"{"a":1}"#;
    write(&log, &[DeadLetter { backfill: true, ..of_source(line, None) }, of_source(line, None)]);
    retry_all(&log, 2);
    let read = retried.iter().map(|spec| {
        let mut out = Vec::new();
        source.open(spec, 0).expect("opens").read(WIDE, &mut out, &mut Vec::new()).expect("reads");
        // Nothing of it is known to a raw source.
        source.committed(spec.of.partition, 1).expect("is nothing to do");
        out.iter().map(ToString::to_string).collect::<Vec<_>>()
    });
    assert_eq!(read.collect::<Vec<_>>(), [[line.to_owned()], [r#"{"line":"{\"a\":1}"}"#.to_owned()]]);
}

/// A record that another job has written has that job's position, which is set aside with it.
#[test]
fn the_position_of_another_job_is_none_of_this_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = log(dir.path());
    let other = Position { job: JobId(99), sink: 0, partition: PartitionId(4), epoch: Epoch(70), sequence: 5 };
    let headers = vec![(POSITION_HEADER.to_owned(), other.encode())];
    let letters = vec![DeadLetter { headers, ..of_source("a", None) }; 3];
    let ends = sink(&log).ends().expect("ends");
    write_from(&log, Generation(1), ends.clone(), &letters);
    assert_eq!(offsets(&desk(&log)), [0, 1, 2], "they are this job's");
    write_from(&log, Generation(2), ends, &letters);
    assert_eq!(offsets(&desk(&log)), [0, 1, 2], "what is there is not written again");
    let (stored, _) = desk(&log).get(2).expect("is there");
    assert_eq!(stored.letter, letters[2]);
}
