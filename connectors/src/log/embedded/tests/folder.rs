//! Locks, readers of other processes, limits, retention, and a format that stays readable.

use std::path::PathBuf;

use super::*;
use crate::log::MAX_RECORD_BYTES;

fn code<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

#[test]
fn one_writer_per_folder() {
    let dir = folder();
    let first = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    let error = open(dir.path(), &Time::default(), 1 << 20).err().expect("locked");
    assert_eq!(error.code(), "locked");
    assert!(error.message().contains(&dir.path().display().to_string()) && error.message().contains("another process"));
    let producer = fenced(&first);
    drop(first);
    assert_eq!(code(open(dir.path(), &Time::default(), 1 << 20)), "locked", "a producer keeps the lock");
    drop(producer);
    assert_eq!(code(open(dir.path(), &Time::default(), 1 << 20)), "ok");
}

#[test]
fn errors_say_what_is_wrong() {
    let dir = folder();
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    log.ensure(&spec("t", 1, Retention::Compact { delete_retention_ms: 0 })).expect("topic");
    let mut producer = fenced(&log);
    producer.begin().expect("begin");
    let large = NewRecord { key: Some(Vec::new()), value: Some(vec![0; MAX_RECORD_BYTES + 1]), headers: Vec::new() };
    assert_eq!(code(producer.append("t", P0, large)), "record-too-large");
    assert_eq!(code(producer.append("t", P0, NewRecord::default())), "key-missing");
    assert_eq!(code(producer.append("absent", P0, NewRecord::default())), "topic-missing");
    assert_eq!(code(producer.append("t", PartitionId(1), NewRecord::default())), "partition-missing");
    assert_eq!(code(log.fence("", Generation(1))), "producer-id");
    assert_eq!(code(log.ensure(&spec("t", 2, Retention::Keep))), "topic-partitions");
    let tail = EmbeddedLog::open_read_only(dir.path()).expect("open for reading");
    assert_eq!(code(tail.fence("x", Generation(1))), "read-only");
    assert_eq!(code(tail.trim("t", P0, 0)), "read-only");
    assert_eq!(code(tail.clean()), "read-only");
    let other = folder();
    assert_eq!(code(EmbeddedLog::open_read_only(other.path())), "not-a-log");
    std::fs::write(other.path().join("file"), "x").expect("write");
    assert_eq!(code(open(other.path(), &Time::default(), 1)), "not-a-log");
}

#[test]
fn a_record_at_the_limit_fits() {
    let dir = folder();
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    log.ensure(&spec("t", 1, Retention::Keep)).expect("topic");
    let mut producer = fenced(&log);
    let value = vec![3; MAX_RECORD_BYTES];
    let record = NewRecord { value: Some(value.clone()), ..NewRecord::default() };
    put(&mut *producer, "t", vec![keyed("a", None), record, keyed("b", None)]).expect("commit");
    drop((producer, log));
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open again");
    let records = all(&log, "t", P0, 0).expect("read");
    assert!(records.len() == 3 && records[1].record.value.as_deref() == Some(&value[..]));
}

#[test]
fn a_reader_of_another_process_follows_the_writer() {
    let dir = folder();
    let time = Time::default();
    let log = open(dir.path(), &time, 2000).expect("open");
    log.ensure(&spec("t", 1, Retention::Keep)).expect("topic");
    let tail = EmbeddedLog::open_read_only(dir.path()).expect("open for reading");
    let mut reader = tail.reader("t", P0, 0).expect("reader");
    let mut producer = fenced(&log);
    let mut out = Vec::new();
    for n in 0..200u64 {
        time.set(n as i64 * 10);
        put(&mut *producer, "t", vec![keyed("k", Some(&"v".repeat(n as usize)))]).expect("commit");
        assert!(reader.read(usize::MAX, &mut out).expect("read"));
        assert_eq!(out.len() as u64, n + 1);
    }
    log.ensure(&spec("later", 3, Retention::Keep)).expect("topic");
    assert_eq!(tail.topics().expect("topics"), [("later".to_owned(), 3), ("t".to_owned(), 1)]);
    for (at, offset) in [(0, 0), (5, 1), (10, 1), (1001, 101), (1990, 199), (1991, 200)] {
        assert_eq!(tail.offset_at("t", P0, at).expect("seek"), offset, "at {at}");
    }
}

#[test]
fn old_segments_go_by_age_bytes_and_trim() {
    const SECOND: i64 = 1_000_000;
    let age = Retention::Bounded { max_age_ms: Some(10_000), max_bytes: None };
    let bytes = Retention::Bounded { max_age_ms: None, max_bytes: Some(5000) };
    // (retention, trim before, the first kept offset of 100 records, one a second, each in its own segment of 202 bytes)
    for (retention, trim, first) in
        [(age, None, 88), (bytes, None, 75), (Retention::Keep, Some(40), 40), (Retention::Keep, Some(1000), 99)]
    {
        let dir = folder();
        let time = Time::default();
        let log = open(dir.path(), &time, 65).expect("open");
        log.ensure(&spec("t", 1, retention)).expect("topic");
        let mut producer = fenced(&log);
        for n in 0..100 {
            time.set(n * SECOND);
            put(&mut *producer, "t", vec![keyed("key", Some(&"v".repeat(50)))]).expect("commit");
        }
        let mut early = log.reader("t", P0, 3).expect("reader");
        let report = match trim {
            Some(before) => log.trim("t", P0, before).map(|()| None).expect("trim"),
            None => Some(log.clean().expect("clean")),
        };
        let (start, end) = log.offsets("t", P0).expect("offsets");
        assert_eq!((start, end), (first, 100), "{retention:?} {trim:?} {report:?}");
        assert_eq!(all(&log, "t", P0, 0).expect("read")[0].offset, start, "a read goes on at the first kept offset");
        let mut out = Vec::new();
        assert!(early.read(1 << 20, &mut out).expect("an early reader goes on"));
        assert!(out[0].offset >= 3 && out.last().expect("some").offset == 99);
        drop((producer, log));
        let log = open(dir.path(), &time, 65).expect("open again");
        assert_eq!(log.offsets("t", P0).expect("offsets"), (first, 100));
    }
}

#[test]
fn an_idle_bounded_topic_is_emptied() {
    let dir = folder();
    let time = Time::default();
    let log = open(dir.path(), &time, 1 << 20).expect("open");
    log.ensure(&spec("t", 1, Retention::Bounded { max_age_ms: Some(1), max_bytes: None })).expect("topic");
    put(&mut *fenced(&log), "t", vec![keyed("a", None)]).expect("commit");
    for at in [2_000, 4_000] {
        time.set(at);
        log.clean().expect("clean");
    }
    assert_eq!(log.offsets("t", P0).expect("offsets"), (1, 1));
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/log-v1")
}

/// What the fixture was made of; `THALWEG_WRITE_FIXTURE=1` makes it, where it does not exist.
fn write_fixture(dir: &Path) {
    let time = Time::default();
    let log = open(dir, &time, 600).expect("open");
    log.ensure(&spec("kept", 2, Retention::Keep)).expect("topic");
    log.ensure(&spec("compact", 1, Retention::Compact { delete_retention_ms: 1000 })).expect("topic");
    log.ensure(&spec("bounded", 1, Retention::Bounded { max_age_ms: Some(7), max_bytes: None })).expect("topic");
    let mut producer = log.fence("fixture", Generation(3)).expect("fence");
    for n in 0..30u16 {
        time.set(i64::from(n) * 1000);
        producer.begin().expect("begin");
        let headers = vec![("n".to_owned(), n.to_le_bytes().to_vec())];
        let record = NewRecord { key: None, value: Some(vec![n as u8; usize::from(n)]), headers };
        producer.append("kept", PartitionId(n % 2), record).expect("append");
        let value = (n % 4 != 0).then(|| format!("value {n}"));
        producer.append("compact", P0, keyed(&format!("key {}", n % 6), value.as_deref())).expect("append");
        producer.commit().expect("commit");
        if n == 20 {
            log.clean().expect("clean");
        }
    }
}

#[test]
fn the_first_format_stays_readable() {
    if std::env::var_os("THALWEG_WRITE_FIXTURE").is_some() && !fixture().exists() {
        write_fixture(&fixture());
    }
    let copy = folder();
    copy_dir(&fixture(), copy.path());
    let tail = EmbeddedLog::open_read_only(&fixture()).expect("open for reading");
    let log = open(copy.path(), &Time::default(), 600).expect("open");
    for log in [&tail, &log] {
        for partition in [0, 1u16] {
            let records = all(log, "kept", PartitionId(partition), 0).expect("read");
            assert_eq!(records.len(), 15);
            for (record, n) in records.iter().zip((partition..30).step_by(2)) {
                assert_eq!(record.time, i64::from(n) * 1000);
                assert_eq!(record.record.value, Some(vec![n as u8; usize::from(n)]));
                assert_eq!(record.record.headers, [("n".to_owned(), n.to_le_bytes().to_vec())]);
            }
        }
        let compact = shown(&all(log, "compact", P0, 0).expect("read"));
        let offsets: Vec<u64> = compact.iter().map(|(offset, ..)| *offset).collect();
        assert_eq!(offsets, (15..30).collect::<Vec<_>>());
        assert!(compact.iter().all(|(n, key, value)| {
            *key == format!("key {}", n % 6) && *value == (n % 4 != 0).then(|| format!("value {n}"))
        }));
        assert_eq!(log.offsets("bounded", P0).expect("offsets"), (0, 0));
    }
    assert_eq!(code(log.fence("fixture", Generation(2))), "fenced");
    log.fence("fixture", Generation(3)).expect("the same generation");
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("make a folder");
    for entry in std::fs::read_dir(from).expect("list") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}
