//! Compaction: what stays, what goes, at any moment, with readers in the middle of it.

use std::collections::BTreeMap;

use super::random::Random;
use super::*;

const COMPACT: Retention = Retention::Compact { delete_retention_ms: 1 };

#[test]
fn the_last_record_of_each_key_stays() {
    type Put = (&'static str, Option<&'static str>);
    /// Records, when each cleaning runs, what is left.
    type Case = (&'static [Put], &'static [i64], &'static [(u64, Put)]);
    let cases: [Case; 5] = [
        (
            &[("a", Some("1")), ("b", Some("2")), ("a", Some("3"))],
            &[0],
            &[(1, ("b", Some("2"))), (2, ("a", Some("3")))],
        ),
        (&[("a", Some("1")), ("a", None), ("b", Some("2"))], &[0], &[(1, ("a", None)), (2, ("b", Some("2")))]),
        (&[("a", Some("1")), ("a", None), ("b", Some("2"))], &[0, 999], &[(1, ("a", None)), (2, ("b", Some("2")))]),
        (&[("a", Some("1")), ("a", None), ("b", Some("2"))], &[0, 1000], &[(2, ("b", Some("2")))]),
        (&[("a", None), ("a", Some("1"))], &[0, 1000], &[(1, ("a", Some("1")))]),
    ];
    for (index, (records, cleanings, expected)) in cases.into_iter().enumerate() {
        let dir = folder();
        let time = Time::default();
        let log = open(dir.path(), &time, 1 << 20).expect("open");
        log.ensure(&spec("t", 1, COMPACT)).expect("topic");
        let mut producer = fenced(&log);
        for (key, value) in records {
            put(&mut *producer, "t", vec![keyed(key, *value)]).expect("commit");
        }
        for at in cleanings {
            time.set(*at);
            log.clean().expect("clean");
        }
        let left = expected.iter().map(|(offset, (key, value))| (*offset, (*key).to_owned(), value.map(str::to_owned)));
        assert_eq!(shown(&all(&log, "t", P0, 0).expect("read")), left.collect::<Vec<_>>(), "case {index}");
        assert_eq!(log.offsets("t", P0).expect("offsets").1, records.len() as u64, "the end stays");
    }
}

#[test]
fn a_topic_that_does_not_change_is_left_alone() {
    let dir = folder();
    let log = open(dir.path(), &Time::default(), 1 << 20).expect("open");
    log.ensure(&spec("t", 1, COMPACT)).expect("topic");
    put(&mut *fenced(&log), "t", (0..1000).map(|n| keyed(&(n % 10).to_string(), Some("v"))).collect()).expect("commit");
    let report = log.clean().expect("clean");
    assert!(report.records_dropped == 990 && report.bytes_freed > 5000, "{report:?}");
    assert_eq!(log.clean().expect("clean"), Default::default());
}

/// The last value of each key, and where; tombstones count as none.
fn table(records: &[LogRecord]) -> BTreeMap<Vec<u8>, (u64, Vec<u8>)> {
    let mut table = BTreeMap::new();
    for LogRecord { offset, record, .. } in records {
        let key = record.key.clone().expect("a key");
        match &record.value {
            Some(value) => drop(table.insert(key, (*offset, value.clone()))),
            None => drop(table.remove(&key)),
        }
    }
    table
}

fn run(seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let dir = folder();
    let time = Time::default();
    let segment_bytes = [300, 3_000, 1 << 20][random.below(3) as usize];
    let mut log = open(dir.path(), &time, segment_bytes)?;
    log.ensure(&spec("t", 1, Retention::Compact { delete_retention_ms: 1_000_000 }))?;
    let mut producer = fenced(&log);
    let mut everything = Vec::new();
    let mut readers: Vec<(Box<dyn crate::log::LogReader>, Vec<LogRecord>)> = Vec::new();
    for _ in 0..200 {
        time.set(time.get() + 1 + random.below(1000) as i64);
        match random.below(10) {
            0..4 => {
                let count = 1 + random.below(8);
                let records: Vec<_> = (0..count)
                    .map(|_| {
                        let value = (random.below(4) > 0).then(|| format!("{}", random.next()));
                        keyed(&random.below(30).to_string(), value.as_deref())
                    })
                    .collect();
                let first = put(&mut *producer, "t", records.clone())? - count;
                let stamped = records.into_iter().zip(first..);
                everything.extend(stamped.map(|(record, offset)| LogRecord { offset, time: time.get(), record }));
            }
            4..6 => drop(log.clean()?),
            6 => {
                drop((producer, log));
                readers.clear();
                log = open(dir.path(), &time, segment_bytes)?;
                producer = fenced(&log);
            }
            7 => readers.push((log.reader("t", P0, 0)?, Vec::new())),
            _ => {
                for (reader, out) in &mut readers {
                    reader.read(random.below(200) as usize, out)?;
                }
            }
        }
    }
    log.clean()?;
    readers.push((log.reader("t", P0, 0)?, Vec::new()));
    for (reader, out) in &mut readers {
        while reader.read(100, out)? {}
        assert_eq!(table(out), table(&everything), "a reader that began at any moment sees the same table");
        assert!(out.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
        let original = |record: &LogRecord| {
            everything.binary_search_by_key(&record.offset, |r| r.offset).map(|at| &everything[at] == record)
        };
        assert!(out.iter().all(|record| original(record) == Ok(true)), "records stay what and where they were");
    }
    Ok(())
}

#[test]
fn cleaning_at_any_moment_keeps_the_table() {
    for seed in 0..60 {
        println!("seed {seed}");
        run(seed).expect("no error");
    }
}

#[test]
fn cleaning_goes_on_beside_a_writer_and_readers() {
    let dir = folder();
    let time = Time::default();
    let log = open(dir.path(), &time, 4_000).expect("open");
    log.ensure(&spec("t", 1, COMPACT)).expect("topic");
    let keys = 50u64;
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut producer = fenced(&log);
            for n in 0..600u64 {
                put(&mut *producer, "t", vec![keyed(&(n % keys).to_string(), Some(&n.to_string()))]).expect("commit");
            }
        });
        let cleaner = scope.spawn({
            let log = log.clone();
            move || {
                while !writer.is_finished() {
                    log.clean().expect("clean");
                }
            }
        });
        while !cleaner.is_finished() {
            let tail = EmbeddedLog::open_read_only(dir.path()).expect("open for reading");
            let (_, end) = tail.offsets("t", P0).expect("offsets");
            let records = all(&tail, "t", P0, 0).expect("read");
            let last: BTreeMap<_, _> = table(&records).into_iter().filter(|(_, (offset, _))| *offset < end).collect();
            // Among any `keys` records in a row is one of every key.
            assert!(
                end < keys || last.len() as u64 == keys || records.last().is_some_and(|last| last.offset >= end),
                "{} of {end}",
                last.len()
            );
            assert!(records.iter().all(|r| r.record.value == Some(r.offset.to_string().into_bytes())));
        }
    });
}
