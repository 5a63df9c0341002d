//! What every home of the log promises, clause by clause; the numbers are those of the contract in the module above.

use thalweg_core::{Error, Generation, PartitionId, Result};

use super::{
    Log, LogRecord, NewRecord, Owner, Producer, Retention, ToEnd, TopicSpec, await_settled, read_journal, read_to_end,
};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);
/// Most calls of a reader that waits for records that are committed.
const MAX_READS: usize = 1_000_000;

type Clause = fn(&dyn Log) -> Result<()>;

/// Checks an implementation; `make` gives a log that holds none of the topics `conformance-*` and knows no producer of that name.
///
/// Panics where a clause is broken, and says which.
pub fn check(make: impl Fn() -> Box<dyn Log>) {
    let clauses: [(&str, Clause); 13] = [
        ("1 a topic has a fixed number of partitions", topics_are_fixed),
        ("1 reading gives everything from an offset on, in order", reads_in_order),
        ("1 records keep key, value and headers", keeps_every_part),
        ("2 a newer producer ends the older one", fence_ends_the_older),
        ("2 a lower generation is refused", lower_generation_is_refused),
        ("3 a transaction is one per partition, and tells the ends", commit_tells_ends),
        ("3 a producer keeps to its phases", phases),
        ("4 what is not committed is not seen", only_committed),
        ("4 a reader sees what comes", reader_follows),
        ("5 what is acknowledged is decided soon, and stands", acknowledged_stands),
        ("6 time does not go back", time_grows),
        ("7 what a journal has acknowledged stands, and is read at once", journal_stands),
        ("7 a newer journal ends the older one", journal_ends_the_older),
    ];
    for (clause, run) in clauses {
        let log = make();
        if let Err(error) = run(&*log) {
            panic!("clause {clause}: {error:?}");
        }
    }
}

fn topic(log: &dyn Log, name: &str) -> Result<String> {
    let name = format!("conformance-{name}");
    log.ensure(&TopicSpec { name: name.clone(), partitions: 2, retention: Retention::Keep })?;
    Ok(name)
}

fn record(value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord { value: Some(value.into()), ..NewRecord::default() }
}

fn put(producer: &mut dyn Producer, topic: &str, partition: PartitionId, values: &[&str]) -> Result<u64> {
    producer.begin()?;
    for value in values {
        producer.append(topic, partition, record(*value))?;
    }
    Ok(producer.commit()?.first().map_or(0, |(_, _, end)| *end))
}

/// Reads up to the end that the log tells.
fn all(log: &dyn Log, topic: &str, partition: PartitionId, from: u64) -> Result<Vec<LogRecord>> {
    let mut out = Vec::new();
    let end = read_to_end(log, topic, partition, from, None, |record| {
        out.push(record);
        Ok(())
    })?;
    // Whoever only looks at them sees the same.
    let mut seen = out.iter();
    let looked = ToEnd::open(log, topic, partition, from, None)?.read_ref(|found| {
        if found.offset < end {
            let LogRecord { offset, record, .. } = seen.next().expect("as many records");
            let expected = (*offset, record.key.as_deref(), record.value.as_deref());
            assert_eq!((found.offset, found.key, found.value), expected, "topic {topic:?}");
        }
        Ok(())
    })?;
    assert!(looked >= end && seen.next().is_none(), "topic {topic:?}: {looked} of {end}");
    Ok(out)
}

fn values(records: &[LogRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(r.record.value.as_deref().unwrap_or(b"")).into_owned()).collect()
}

fn must_fail<T>(result: Result<T>, what: &str) -> Error {
    match result {
        Ok(_) => panic!("{what} must be an error"),
        Err(error) => error,
    }
}

fn topics_are_fixed(log: &dyn Log) -> Result<()> {
    let name = topic(log, "fixed")?;
    topic(log, "fixed")?;
    let spec = TopicSpec { name: name.clone(), partitions: 3, retention: Retention::Keep };
    must_fail(log.ensure(&spec), "another number of partitions");
    assert!(log.topics()?.contains(&(name.clone(), 2)), "topics() lists what ensure() made");
    for bad in ["", "a/b", "..", "a b"] {
        let spec = TopicSpec { name: bad.to_owned(), ..spec.clone() };
        must_fail(log.ensure(&spec), "a name that no folder may have");
    }
    must_fail(log.reader(&name, PartitionId(2), 0), "a partition beyond the last");
    must_fail(log.reader("conformance-absent", P0, 0), "a topic that is not there");
    assert_eq!(log.offsets(&name, P1)?, (0, 0), "an empty partition");
    Ok(())
}

fn reads_in_order(log: &dyn Log) -> Result<()> {
    let name = topic(log, "order")?;
    let mut producer = log.fence("conformance-order", Generation(1))?;
    let expected: Vec<String> = (0..500).map(|n| format!("value {n}")).collect();
    for chunk in expected.chunks(7) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        put(&mut *producer, &name, P0, &chunk)?;
    }
    let records = all(log, &name, P0, 0)?;
    assert_eq!(values(&records), expected, "all, in order");
    assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
    assert!(all(log, &name, P1, 0)?.is_empty(), "the other partition is empty");
    for from in [0, 1, 6, 7, 8, 250, 499] {
        assert_eq!(all(log, &name, P0, records[from].offset)?, records[from..], "from record {from} on");
    }
    let (_, end) = log.offsets(&name, P0)?;
    assert!(all(log, &name, P0, end)?.is_empty(), "nothing from the end on");
    let mut one = Vec::new();
    let mut reader = log.reader(&name, P0, 0)?;
    for _ in 0..MAX_READS {
        if reader.read(0, &mut one)? {
            break;
        }
    }
    assert_eq!(one.len(), 1, "no room still gives one record");
    assert_eq!(reader.position(), one[0].offset + 1, "the position is after the last record");
    assert!(log.topic("conformance-absent")?.is_none(), "what is not there is not there");
    assert_eq!(log.topic(&name)?.map(|topic| topic.partitions), Some(2), "a topic has its partitions");
    Ok(())
}

fn acknowledged_stands(log: &dyn Log) -> Result<()> {
    let name = topic(log, "stands")?;
    let mut producer = log.fence("conformance-stands", Generation(1))?;
    let end = put(&mut *producer, &name, P0, &["stands"])?;
    let ended = await_settled(log, &name, &[(P0, end), (P1, 0)], None)?;
    assert!(!ended, "nothing is open");
    assert_eq!(log.offsets_of(&name, &[P1, P0])?, [log.offsets(&name, P1)?, log.offsets(&name, P0)?], "of each");
    log.release(Owner::fenced("conformance-stands", Generation(1)), &name, P0)?;
    assert_eq!(values(&all(log, &name, P0, 0)?), ["stands"], "what is visible stays, and nothing is added");
    Ok(())
}

/// Reads a journal up to its end.
fn journaled(log: &dyn Log, topic: &str) -> Result<Vec<LogRecord>> {
    let mut out = Vec::new();
    read_journal(log, topic, P0, 0, |record| {
        out.push(record);
        Ok(())
    })?;
    Ok(out)
}

fn journal_stands(log: &dyn Log) -> Result<()> {
    let name = topic(log, "journal")?;
    let mut journal = log.journal(&name, P0, "conformance-journal", Generation(1))?;
    assert!(journaled(log, &name)?.is_empty(), "nothing yet");
    let mut all = Vec::new();
    for (values, at_leisure) in [(&["a", "b"][..], false), (&["c"], true), (&["d", "e", "f"], false)] {
        let end = journal.append(values.iter().map(|value| record(*value)).collect())?;
        all.extend_from_slice(values);
        let found = journaled(log, &name)?;
        assert_eq!(self::values(&found), all, "all, in order, as soon as it is acknowledged");
        let place = |back: usize| found[found.len() - back].offset;
        assert_eq!(
            place(values.len()),
            end - values.len() as u64,
            "the end is that of the last record, and none is between"
        );
        // Where nobody waits it ends its transaction, when that has been open for long.
        while let Some(wait) = journal.tend().filter(|_| at_leisure) {
            log.wait(wait);
        }
        assert!(!journal.is_spent(), "nothing has failed");
    }
    // Its process is gone, in the middle of something or not.
    drop(journal);
    assert_eq!(self::values(&journaled(log, &name)?), all, "without the journal");
    drop(log.fence("conformance-journal", Generation(2))?);
    assert_eq!(self::values(&journaled(log, &name)?), all, "behind a fence");
    Ok(())
}

fn journal_ends_the_older(log: &dyn Log) -> Result<()> {
    let name = topic(log, "newer-journal")?;
    let open = |generation| log.journal(&name, P0, "conformance-newer-journal", Generation(generation));
    let mut older = open(1)?;
    older.append(vec![record("older")])?;
    let mut newer = open(2)?;
    must_fail(older.append(vec![record("never")]), "an append by a journal that another has ended");
    assert!(older.is_spent(), "it cannot go on");
    newer.append(vec![record("newer")])?;
    assert_eq!(values(&journaled(log, &name)?), ["older", "newer"], "nothing of the ended one behind its end");
    assert_eq!(must_fail(open(1), "a lower generation").code(), "fenced");
    Ok(())
}

fn keeps_every_part(log: &dyn Log) -> Result<()> {
    let name = topic(log, "parts")?;
    let mut producer = log.fence("conformance-parts", Generation(1))?;
    let headers = vec![("a".to_owned(), vec![0, 255]), ("a".to_owned(), Vec::new()), ("b".to_owned(), b"x".to_vec())];
    let sent = [
        NewRecord { key: Some(b"k".to_vec()), value: Some(b"v".to_vec()), headers },
        NewRecord { key: Some(Vec::new()), value: Some(Vec::new()), headers: Vec::new() },
        NewRecord { key: Some(b"gone".to_vec()), value: None, headers: Vec::new() },
        NewRecord { key: None, value: Some(vec![7; 300_000]), headers: Vec::new() },
    ];
    producer.begin()?;
    for record in &sent {
        producer.append(&name, P1, record.clone())?;
    }
    producer.commit()?;
    let got: Vec<NewRecord> = all(log, &name, P1, 0)?.into_iter().map(|record| record.record).collect();
    assert_eq!(got, sent);
    Ok(())
}

fn fence_ends_the_older(log: &dyn Log) -> Result<()> {
    let name = topic(log, "fence")?;
    for generation in [1, 2, 2] {
        let mut old = log.fence("conformance-fence", Generation(generation))?;
        old.begin()?;
        old.append(&name, P0, record("lost"))?;
        let mut new = log.fence("conformance-fence", Generation(2))?;
        let error = must_fail(old.commit(), "a commit of a producer that is fenced");
        assert!(matches!(error.code(), "fenced" | "producer-fenced"), "{error}");
        put(&mut *new, &name, P0, &["kept"])?;
        must_fail(old.begin().and_then(|()| old.commit()), "a fenced producer that goes on");
    }
    let mut other = log.fence("conformance-fence-other", Generation(1))?;
    put(&mut *other, &name, P0, &["other"])?;
    assert_eq!(values(&all(log, &name, P0, 0)?), ["kept", "kept", "kept", "other"]);
    Ok(())
}

fn lower_generation_is_refused(log: &dyn Log) -> Result<()> {
    let name = topic(log, "lower")?;
    let mut living = log.fence("conformance-lower", Generation(5))?;
    let error = must_fail(log.fence("conformance-lower", Generation(4)), "a fence by a lower generation");
    assert_eq!(error.code(), "fenced");
    put(&mut *living, &name, P0, &["still alive"])?;
    Ok(())
}

fn commit_tells_ends(log: &dyn Log) -> Result<()> {
    let name = topic(log, "ends")?;
    let mut producer = log.fence("conformance-ends", Generation(1))?;
    producer.begin()?;
    for n in 0..10 {
        producer.append(&name, PartitionId(n % 2), record(format!("{n}")))?;
    }
    let mut ends = producer.commit()?;
    ends.sort();
    assert_eq!(
        ends.iter().map(|(t, p, _)| (t.as_str(), *p)).collect::<Vec<_>>(),
        [(name.as_str(), P0), (name.as_str(), P1)]
    );
    for (_, partition, end) in ends {
        let last = all(log, &name, partition, 0)?.pop().expect("five records");
        assert_eq!(end, last.offset + 1, "the offset after the last record");
        assert!(log.offsets(&name, partition)?.1 >= end, "the end of the partition");
    }
    producer.begin()?;
    assert_eq!(producer.commit()?, [], "an empty transaction touches nothing");
    Ok(())
}

fn phases(log: &dyn Log) -> Result<()> {
    let name = topic(log, "phases")?;
    let mut producer = log.fence("conformance-phases", Generation(1))?;
    must_fail(producer.append(&name, P0, record("early")), "append before begin");
    must_fail(producer.commit(), "commit before begin");
    producer.begin()?;
    must_fail(producer.begin(), "begin in a transaction");
    producer.append(&name, P0, record("dropped"))?;
    producer.abort()?;
    must_fail(producer.append("conformance-absent", P0, record("nowhere")), "append after abort");
    if producer.is_spent() {
        producer = log.fence("conformance-phases", Generation(1))?;
    }
    put(&mut *producer, &name, P0, &["kept"])?;
    assert_eq!(values(&all(log, &name, P0, 0)?), ["kept"]);
    Ok(())
}

fn only_committed(log: &dyn Log) -> Result<()> {
    let name = topic(log, "committed")?;
    let mut producer = log.fence("conformance-committed", Generation(1))?;
    producer.begin()?;
    for _ in 0..1000 {
        producer.append(&name, P0, record(vec![1; 1000]))?;
    }
    let mut out = Vec::new();
    assert!(!log.reader(&name, P0, 0)?.read(1 << 20, &mut out)? && out.is_empty(), "an open transaction is not seen");
    producer.commit()?;
    assert_eq!(all(log, &name, P0, 0)?.len(), 1000);
    Ok(())
}

fn reader_follows(log: &dyn Log) -> Result<()> {
    let name = topic(log, "follow")?;
    let mut producer = log.fence("conformance-follow", Generation(1))?;
    let mut reader = log.reader(&name, P0, 0)?;
    let mut out = Vec::new();
    for n in 0..50 {
        let end = put(&mut *producer, &name, P0, &[&format!("{n}")])?;
        for _ in 0..MAX_READS {
            if reader.position() >= end {
                break;
            }
            reader.read(1 << 20, &mut out)?;
        }
        assert!(reader.position() >= end, "the reader follows");
    }
    assert_eq!(values(&out), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    Ok(())
}

fn time_grows(log: &dyn Log) -> Result<()> {
    let name = topic(log, "time")?;
    let mut producer = log.fence("conformance-time", Generation(1))?;
    for n in 0..20 {
        put(&mut *producer, &name, P0, &[&n.to_string()])?;
    }
    let records = all(log, &name, P0, 0)?;
    assert!(records.windows(2).all(|pair| pair[0].time <= pair[1].time), "time goes back");
    Ok(())
}
