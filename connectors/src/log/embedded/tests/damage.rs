//! Torn tails and flipped bytes: an error, or the cut of what was never committed; never wrong or fewer records.

use std::fs;
use std::path::PathBuf;

use super::folder::copy_dir;
use super::random::Random;
use super::*;

fn active_segment(dir: &Path) -> PathBuf {
    let partition = dir.join("topics/t/0");
    let names = fs::read_dir(partition).expect("list").map(|entry| entry.expect("entry").path());
    names.filter(|path| path.extension().is_some_and(|e| e == "log")).max().expect("a segment")
}

/// Every file below a folder.
fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
    out.sort();
}

/// A log with `commits` transactions of some size; gives its records, and the bytes of the active segment after each.
fn build(dir: &Path, commits: u64, segment_bytes: u64) -> (Vec<LogRecord>, Vec<u64>) {
    let log = open(dir, &Time::default(), segment_bytes).expect("open");
    log.ensure(&spec("t", 1, Retention::Keep)).expect("topic");
    let mut producer = fenced(&log);
    let mut lengths = Vec::new();
    for n in 0..commits {
        let records = (0..=n % 3).map(|k| keyed(&format!("{n}-{k}"), Some(&"v".repeat(20 * k as usize)))).collect();
        put(&mut *producer, "t", records).expect("commit");
        lengths.push(fs::metadata(active_segment(dir)).expect("metadata").len());
    }
    (all(&log, "t", P0, 0).expect("read"), lengths)
}

/// As after a power loss: the last transactions are on disk, the committed end of an earlier time.
fn with_old_end(from: &Path, to: &Path, end: &[u8]) {
    copy_dir(from, to);
    fs::write(to.join("topics/t/0/end"), end).expect("write");
}

#[test]
fn a_torn_tail_is_cut_at_a_transaction() {
    let dir = folder();
    let (_, _) = build(dir.path(), 5, 1 << 20);
    let end = fs::read(dir.path().join("topics/t/0/end")).expect("read");
    let acknowledged = fs::metadata(active_segment(dir.path())).expect("metadata").len();
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    // One transaction of three batches, then none: its end is unknown to `end`.
    let large = || NewRecord { value: Some(vec![9; 300 << 10]), ..NewRecord::default() };
    put(&mut *fenced(&log), "t", vec![large(), large(), large()]).expect("commit");
    let whole = all(&log, "t", P0, 0).expect("read");
    drop(log);
    let length = fs::metadata(active_segment(dir.path())).expect("metadata").len();
    let mut random = Random(7);
    for round in 0..60 {
        let copy = folder();
        with_old_end(dir.path(), copy.path(), &end);
        let cut = match round {
            0 => length,
            1 => acknowledged,
            2 => acknowledged + 1,
            _ => acknowledged + random.below(length - acknowledged),
        };
        let segment = active_segment(copy.path());
        fs::OpenOptions::new().write(true).open(&segment).and_then(|f| f.set_len(cut)).expect("cut");
        let tail = EmbeddedLog::open_read_only(copy.path()).expect("open for reading");
        assert_eq!(all(&tail, "t", P0, 0).expect("read").len(), whole.len() - 3, "a reader stops at the committed end");
        let log = open(copy.path(), &Time::default(), 1 << 20).expect("open");
        let kept = all(&log, "t", P0, 0).expect("read");
        let expected = if cut == length { whole.len() } else { whole.len() - 3 };
        assert_eq!(kept, whole[..expected], "cut at {cut}");
        put(&mut *fenced(&log), "t", vec![keyed("next", None)]).expect("commit");
        assert_eq!(all(&log, "t", P0, 0).expect("read").len(), expected + 1);
    }
}

#[test]
fn a_cut_of_what_was_acknowledged_is_an_error() {
    let dir = folder();
    let (_, lengths) = build(dir.path(), 8, 1 << 20);
    for cut in [64, 65, lengths[3], lengths[6], lengths[7] - 1] {
        let copy = folder();
        copy_dir(dir.path(), copy.path());
        let segment = active_segment(copy.path());
        fs::OpenOptions::new().write(true).open(&segment).and_then(|f| f.set_len(cut)).expect("cut");
        let error = open(copy.path(), &Time::default(), 1 << 20).err().expect("an error");
        assert_eq!(error.code(), "log-corrupt");
        assert!(error.message().contains("00000000000000000000.log"), "{error}");
    }
}

#[test]
fn damage_before_a_later_transaction_is_an_error_even_with_an_old_end() {
    let dir = folder();
    build(dir.path(), 1, 1 << 20);
    let end = fs::read(dir.path().join("topics/t/0/end")).expect("read");
    let acknowledged = fs::metadata(active_segment(dir.path())).expect("metadata").len();
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    let mut producer = fenced(&log);
    for n in 0..3 {
        put(&mut *producer, "t", vec![keyed(&n.to_string(), Some("value"))]).expect("commit");
    }
    drop((producer, log));
    let last = 80 + 5 + "value".len() as u64 + 1;
    let segment = fs::read(active_segment(dir.path())).expect("read");
    for at in acknowledged as usize..segment.len() {
        let copy = folder();
        with_old_end(dir.path(), copy.path(), &end);
        let mut bytes = segment.clone();
        bytes[at] ^= 0x10;
        fs::write(active_segment(copy.path()), &bytes).expect("write");
        let in_last = at as u64 >= segment.len() as u64 - last;
        match open(copy.path(), &Time::default(), 1 << 20) {
            Ok(_) => assert!(in_last, "byte {at}"),
            Err(error) => assert!(!in_last && error.code() == "log-corrupt", "byte {at}: {error}"),
        }
    }
}

#[test]
fn flipped_bytes_never_give_wrong_records() {
    let dir = folder();
    let (expected, _) = build(dir.path(), 40, 900);
    let mut names = Vec::new();
    files(dir.path(), &mut names);
    let mut random = Random(11);
    let (mut errors, mut harmless) = (0, 0);
    for name in &names {
        let original = fs::read(name).expect("read");
        let rounds = if original.is_empty() { 0 } else { 25 };
        for _ in 0..rounds {
            let copy = folder();
            copy_dir(dir.path(), copy.path());
            let mut bytes = original.clone();
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
            let relative = name.strip_prefix(dir.path()).expect("inside");
            fs::write(copy.path().join(relative), &bytes).expect("write");
            let seek = random.below(expected.len() as u64);
            let outcome = open(copy.path(), &Time::default(), 900).and_then(|log| {
                log.fence("test", Generation(1))?;
                Ok((all(&log, "t", P0, 0)?, all(&log, "t", P0, seek)?))
            });
            match outcome {
                Err(error) => {
                    assert!(
                        ["log-corrupt", "log-version"].contains(&error.code()),
                        "{}: {error:?}",
                        relative.display()
                    );
                    errors += 1;
                }
                Ok((records, rest)) => {
                    assert_eq!(records, expected, "{} byte {at}", relative.display());
                    assert_eq!(rest, expected[seek as usize..], "{} byte {at}", relative.display());
                    harmless += 1;
                }
            }
        }
    }
    // Segments, meta and fence are checked; the index and one slot of the end can be done without.
    assert!(errors > 150 && harmless > 15, "{errors} errors, {harmless} harmless");
}

#[test]
fn a_missing_segment_is_an_error() {
    let dir = folder();
    build(dir.path(), 40, 900);
    let mut names = Vec::new();
    files(&dir.path().join("topics/t/0"), &mut names);
    let segments: Vec<_> = names.iter().filter(|name| name.extension().is_some_and(|e| e == "log")).collect();
    for missing in &segments[1..] {
        let copy = folder();
        copy_dir(dir.path(), copy.path());
        fs::remove_file(copy.path().join(missing.strip_prefix(dir.path()).expect("inside"))).expect("remove");
        let outcome = open(copy.path(), &Time::default(), 900).and_then(|log| all(&log, "t", P0, 0));
        assert_eq!(outcome.expect_err("an error").code(), "log-corrupt", "without {}", missing.display());
    }
}

/// A compacted topic of several cleaned and several appended segments.
fn build_compacted(dir: &Path) -> EmbeddedLog {
    let log = open(dir, &Time::default(), 400).expect("open");
    log.ensure(&spec("t", 1, Retention::Compact { delete_retention_ms: 1 })).expect("topic");
    let mut producer = fenced(&log);
    for n in 0..120 {
        put(&mut *producer, "t", vec![keyed(&(n % 20).to_string(), Some("value"))]).expect("commit");
        if n == 40 {
            log.clean().expect("clean");
        }
    }
    drop(producer);
    log
}

#[test]
fn cleaning_never_covers_up_a_hole() {
    let dir = folder();
    drop(build_compacted(dir.path()));
    let mut names = Vec::new();
    files(&dir.path().join("topics/t/0"), &mut names);
    let segments: Vec<_> = names.iter().filter(|name| name.extension().is_some_and(|e| e == "log")).collect();
    assert!(segments.len() > 8, "{segments:?}");
    let one_batch = 80 + 3 + 2 + 1 + "value".len() as u64 + 1;
    for (index, damaged) in segments[1..segments.len() - 1].iter().enumerate() {
        for cut in [true, false] {
            let copy = folder();
            copy_dir(dir.path(), copy.path());
            let path = copy.path().join(damaged.strip_prefix(dir.path()).expect("inside"));
            let length = fs::metadata(&path).expect("metadata").len();
            if cut && length > 64 + one_batch {
                fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .and_then(|f| f.set_len(length - one_batch))
                    .expect("cut");
            } else {
                fs::remove_file(&path).expect("remove");
            }
            let tail = EmbeddedLog::open_read_only(copy.path()).expect("open for reading");
            assert_eq!(
                all(&tail, "t", P0, 0).expect_err("an error").code(),
                "log-corrupt",
                "read, segment {index}, cut {cut}"
            );
            let outcome = open(copy.path(), &Time::default(), 400).and_then(|log| log.clean());
            assert_eq!(outcome.expect_err("an error").code(), "log-corrupt", "clean, segment {index}, cut {cut}");
        }
    }
}
