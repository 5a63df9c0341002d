//! The Kafka source: what other programs have written is read, once and in order; what is lost is said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thalweg_connectors::kafka::{Bound, KafkaConfig, KafkaSource, KafkaSourceConfig, OnDataLoss, Topics};
use thalweg_connectors::log::Start;
use thalweg_connectors::{
    Fields, Format, FormattedSource, Lag, RawBatch, RawReader, RawSource, ReadLimit, ReadState, RecordSource,
    conformance,
};
use thalweg_core::{PartitionId, PartitionSpec, Value};
use thalweg_tests::kafka::{Broker, Client, Record, WrittenRecord};
use thalweg_tests::until;

const WIDE: ReadLimit = ReadLimit { records: 1000, bytes: 1 << 20, until: None };

fn kafka(broker: &Broker) -> Arc<KafkaConfig> {
    Arc::new(KafkaConfig::new(&broker.bootstrap(), BTreeMap::new()).expect("no properties"))
}

fn reads(topics: &[&str]) -> KafkaSourceConfig {
    KafkaSourceConfig {
        topics: Topics::Named(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        start: Start::Earliest.into(),
        end: None,
        on_data_loss: OnDataLoss::Fail,
        group: Broker::unique("group"),
        discover_interval: None,
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<WrittenRecord> {
    range.map(|number| WrittenRecord::new(&format!("k{number}"), &number.to_string())).collect()
}

/// The same for partition 0, by a client that is not Kafka's own.
fn made(range: std::ops::Range<u32>) -> Vec<Record> {
    range.map(|number| Record::new(0, format!("k{number}"), number.to_string())).collect()
}

/// The values up to the state that is waited for, with the offset of each.
fn values(reader: &mut dyn RawReader, limit: ReadLimit, end: ReadState) -> Vec<(u64, String)> {
    let (mut batch, mut found) = (RawBatch::default(), Vec::new());
    until("the end of a partition", || {
        batch.clear();
        let state = reader.read(limit, &mut batch).unwrap_or_else(|error| panic!("{error}"));
        let value = |record| String::from_utf8_lossy(batch.value(record)).into_owned();
        found.extend(batch.records.iter().map(|record| (record.next - 1, value(record))));
        state == end
    });
    found
}

/// What a read comes to in the end, where it is an error.
fn failure(reader: &mut dyn RawReader, limit: ReadLimit) -> thalweg_core::Error {
    let mut error = None;
    until("an error", || {
        error = reader.read(limit, &mut RawBatch::default()).err();
        error.is_some()
    });
    error.expect("it was waited for")
}

fn only(source: &KafkaSource) -> PartitionSpec {
    let mut partitions = source.discover(0).expect("discovers");
    assert_eq!(partitions.len(), 1);
    partitions.remove(0)
}

fn texts(found: &[(u64, String)]) -> Vec<&str> {
    found.iter().map(|(_, value)| value.as_str()).collect()
}

#[test]
fn every_compression_is_read() {
    let (broker, topic) = (Broker::shared(), Broker::unique("compressed"));
    let tools = broker.tools();
    tools.create_topic(&topic, 1, &[]);
    let all = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (index, compression) in all.into_iter().enumerate() {
        let first = index as u32 * 100;
        tools.write(&topic, &numbers(first..first + 100), &[("compression.type", compression)]);
    }
    let source = KafkaSource::new(kafka(broker), reads(&[&topic]));
    let found = values(&mut *source.open(&only(&source), 0).expect("opens"), WIDE, ReadState::Idle);
    let wanted: Vec<(u64, String)> = (0..500).map(|number| (number, number.to_string())).collect();
    assert_eq!(found, wanted);
}

#[test]
fn aborted_records_are_no_records_and_a_bounded_partition_ends_behind_them() {
    let (broker, from, to) = (Broker::shared(), Broker::unique("from"), Broker::unique("to"));
    let tools = broker.tools();
    tools.create_topic(&from, 1, &[]);
    tools.create_topic(&to, 1, &[]);
    tools.write(&from, &numbers(0..200), &[]);
    tools.copy_in_transactions((&from, 0), &to, &to, 5, true);
    let source =
        KafkaSource::new(kafka(broker), KafkaSourceConfig { end: Some(Start::Latest.into()), ..reads(&[&to]) });
    let partition = only(&source);
    let end = partition.end.expect("it is bounded");
    assert_eq!(i64::try_from(end), Ok(tools.end_offsets(&to)[&0]));
    let mut reader = source.open(&partition, 0).expect("opens");
    let found = values(&mut *reader, WIDE, ReadState::End);
    assert_eq!(texts(&found), (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(reader.position(), end, "the marker of the last transaction belongs to what was read");
    assert!(found.last().is_some_and(|(offset, _)| offset + 1 < end));
    // A share that ended anywhere, also behind markers, is read again.
    drop(reader);
    let middle = found[77].0 + 1;
    for (first, last) in [(0, middle), (middle, end), (found[9].0 + 1, found[10].0)] {
        let mut reader = source.open(&partition, first).expect("opens");
        let share = values(&mut *reader, ReadLimit { until: Some(last), ..WIDE }, ReadState::End);
        let wanted: Vec<_> = found.iter().filter(|(offset, _)| (first..last).contains(offset)).cloned().collect();
        assert_eq!((share, reader.position()), (wanted, last));
    }
}

#[test]
fn the_source_keeps_the_clauses() {
    let (broker, topic) = (Broker::shared(), Broker::unique("clauses"));
    let client = broker.client();
    client.create_topic(&topic, 2, &[]);
    let record = |number| Record::new(number % 2, format!("k{number}"), format!("{{\"n\":{number}}}"));
    let mut records: Vec<_> = (0..12).map(record).collect();
    records.push(Record::new(1, "bad", "no json"));
    client.write(&topic, &records);
    for end in [None, Some(Start::Latest.into())] {
        let config = KafkaSourceConfig { end, ..reads(&[&topic]) };
        let make = || -> Box<dyn RecordSource<Value>> {
            let raw = KafkaSource::new(kafka(broker), config.clone());
            Box::new(FormattedSource::values(Box::new(raw), Format::Json, Fields::All))
        };
        conformance::check_source(make, 7);
    }
}

#[test]
fn a_source_begins_where_it_is_told() {
    let (broker, topic) = (Broker::shared(), Broker::unique("start"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &made(0..10));
    let now = || i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("a clock").as_micros()).expect("this century");
    let between = now();
    // Kafka's times are whole milliseconds.
    until("the next millisecond", || now() / 1000 > between / 1000);
    client.write(&topic, &made(10..15));
    let offset = |offset| Bound::Offsets { offsets: [((topic.clone(), PartitionId(0)), offset)].into(), other: None };
    for (start, wanted) in [
        (Start::Earliest.into(), 0),
        (Start::Latest.into(), 15),
        (Start::Time(0).into(), 0),
        (Start::Time(between).into(), 10),
        (Start::Time(i64::MAX / 4).into(), 15),
        (offset(7), 7),
        (offset(15), 15),
    ] {
        let (start, end): (Bound, _) = (start, Some(offset(12)));
        let config = KafkaSourceConfig { start: start.clone(), end, ..reads(&[&topic]) };
        let partition = only(&KafkaSource::new(kafka(broker), config));
        assert_eq!((partition.start, partition.end), (wanted, Some(wanted.max(12))), "{start:?}");
    }
    client.delete_records(&topic, 0, 5);
    for (start, code) in [(offset(16), "kafka-offset"), (offset(4), "source-lost")] {
        let source = KafkaSource::new(kafka(broker), KafkaSourceConfig { start, ..reads(&[&topic]) });
        assert_eq!(source.discover(0).expect_err("it is not there").code(), code);
    }
}

#[test]
fn a_reader_says_how_far_it_is_behind() {
    let (broker, topic) = (Broker::shared(), Broker::unique("lag"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &(0..10).map(|number| Record::new(0, "k", "v").at(1_000 + number)).collect::<Vec<_>>());
    let source = KafkaSource::new(kafka(broker), reads(&[&topic]));
    let mut reader = source.open(&only(&source), 0).expect("opens");
    let mut read = |records: usize, wanted: Lag| {
        let mut batch = RawBatch::default();
        until("so many records", || {
            let limit = ReadLimit { records: records - batch.records.len(), ..WIDE };
            reader.read(limit, &mut batch).expect("reads");
            batch.records.len() == records
        });
        until("its lag", || {
            // Behind the last record it goes over what is none.
            if wanted.records == 0 {
                reader.read(WIDE, &mut batch).expect("reads");
            }
            reader.lag() == Some(wanted)
        });
    };
    read(4, Lag { records: 6, oldest: Some(1_004_000) });
    read(5, Lag { records: 1, oldest: Some(1_009_000) });
    read(1, Lag { records: 0, oldest: None });
    // Markers of transactions are no records.
    let writer = client.producer(Some(&topic), &[]);
    writer.begin();
    writer.write(&topic, &made(0..3));
    writer.commit().expect("nobody else has this id");
    read(3, Lag { records: 0, oldest: None });
}

#[test]
fn several_topics_and_patterns_have_partitions_in_one_order() {
    let (broker, prefix) = (Broker::shared(), Broker::unique("many"));
    let client = broker.client();
    for (name, partitions) in [("b", 1), ("a", 2), ("c.x", 1)] {
        client.create_topic(&format!("{prefix}-{name}"), partitions, &[]);
    }
    let names = |config: KafkaSourceConfig| -> Vec<String> {
        let found = KafkaSource::new(kafka(broker), config).discover(3).expect("discovers");
        assert!(found.iter().enumerate().all(|(index, spec)| usize::from(spec.of.partition.0) == index));
        found.into_iter().map(|spec| spec.name.replace(&format!("{prefix}-"), "")).collect()
    };
    let listed = reads(&[&format!("{prefix}-b"), &format!("{prefix}-a")]);
    assert_eq!(names(listed), ["b/0", "a/0", "a/1"]);
    let pattern = |text: String| Topics::pattern(&text).expect("a pattern");
    let matching = KafkaSourceConfig { topics: pattern(format!("^{prefix}-[a-z]$")), ..reads(&[]) };
    assert_eq!(names(matching), ["a/0", "a/1", "b/0"]);
    let missing = |topics| {
        let source = KafkaSource::new(kafka(broker), KafkaSourceConfig { topics, ..reads(&[]) });
        source.discover(0).expect_err("there is no such topic")
    };
    let nothing = missing(Topics::Named(vec![format!("{prefix}-d")]));
    assert_eq!((nothing.code(), nothing.message().contains("-d")), ("kafka-topic-missing", true));
    assert_eq!(missing(pattern(format!("^{prefix}-zz"))).code(), "kafka-topic-missing");
}

/// A topic with 20 records.
fn shortened(client: &Client, prefix: &str) -> String {
    let topic = Broker::unique(prefix);
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &made(0..20));
    topic
}

#[test]
fn records_that_retention_has_dropped_stop_the_job_or_are_counted() {
    let broker = Broker::shared();
    let client = broker.client();
    let topic = shortened(&client, "dropped");
    let source = KafkaSource::new(kafka(broker), reads(&[&topic]));
    let partition = only(&source);
    client.delete_records(&topic, 0, 10);
    let error = source.open(&partition, 4).err().expect("six records are lost");
    assert_eq!(error.code(), "source-lost");
    for word in [topic.as_str(), "4 to 9", "10"] {
        assert!(error.message().contains(word), "{word} is missing in: {error}");
    }
    assert!(source.open(&partition, 10).is_ok(), "nothing is lost");

    let skipping = KafkaSourceConfig { on_data_loss: OnDataLoss::Skip, ..reads(&[&topic]) };
    let source = KafkaSource::new(kafka(broker), skipping);
    let mut reader = source.open(&partition, 4).expect("it goes on");
    let found = values(&mut *reader, WIDE, ReadState::Idle);
    assert_eq!(found.first().map(|(offset, _)| *offset), Some(10));
    assert_eq!((found.len(), reader.take_lost(), reader.take_lost()), (10, 6, 0));
    // A recorded share: it has only what is still there, which whoever repeats it compares.
    drop(reader);
    let mut reader = source.open(&partition, 4).expect("it goes on");
    let share = values(&mut *reader, ReadLimit { until: Some(12), ..WIDE }, ReadState::End);
    assert_eq!(texts(&share), ["10", "11"]);
}

#[test]
fn records_that_are_dropped_while_the_job_reads_are_found() {
    let (broker, topic) = (Broker::shared(), Broker::unique("running"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    // One record is fetched at a time: the others are still at the broker when they are deleted.
    let small =
        [("queued.max.messages.kbytes", "1"), ("fetch.message.max.bytes", "1000"), ("queued.min.messages", "1")];
    let small = small.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let kafka = Arc::new(KafkaConfig::new(&broker.bootstrap(), BTreeMap::from(small)).expect("properties"));
    let writer = client.producer(None, &[]);
    (0..40).for_each(|_| writer.write(&topic, &[Record::new(0, "k", [b'x'; 5000])]));
    let mut below = 0;
    for on_data_loss in [OnDataLoss::Skip, OnDataLoss::Fail] {
        let source = KafkaSource::new(kafka.clone(), KafkaSourceConfig { on_data_loss, ..reads(&[&topic]) });
        let partition = only(&source);
        let mut reader = source.open(&partition, partition.start).expect("opens");
        let mut batch = RawBatch::default();
        until("a first record", || {
            reader.read(ReadLimit { records: 1, ..WIDE }, &mut batch).expect("reads");
            !batch.records.is_empty()
        });
        below += 20;
        client.delete_records(&topic, 0, below);
        if on_data_loss == OnDataLoss::Skip {
            let rest = values(&mut *reader, WIDE, ReadState::Idle).len() as u64;
            let lost = reader.take_lost();
            assert_eq!((1 + rest + lost, reader.position()), (40, 40));
            assert!((10..20).contains(&lost), "{lost} lost: hardly any were fetched before");
        } else {
            (40..60).for_each(|_| writer.write(&topic, &[Record::new(0, "k", [b'x'; 5000])]));
            client.delete_records(&topic, 0, 59);
            let error = failure(&mut *reader, WIDE);
            assert_eq!(error.code(), "source-lost", "{error}");
            assert!(error.message().contains(&topic) && error.message().contains("59"), "{error}");
        }
    }
}

#[test]
fn a_topic_that_was_made_anew_is_refused() {
    let (broker, topic) = (Broker::shared(), Broker::unique("anew"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &made(0..20));
    let source = KafkaSource::new(kafka(broker), reads(&[&topic]));
    let partition = only(&source);
    let mut reader = source.open(&partition, 0).expect("opens");
    assert_eq!(values(&mut *reader, WIDE, ReadState::Idle).len(), 20);
    client.delete_topic(&topic);
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &made(0..30));
    let error = failure(&mut *reader, WIDE);
    assert_eq!(error.code(), "source-changed", "{error}");
    let error = source.open(&partition, 20).err().expect("another topic");
    assert_eq!(error.code(), "source-changed");
    assert!(error.message().contains(&topic) && error.message().contains("made anew"), "{error}");
}

#[test]
fn positions_of_checkpoints_are_written_to_the_group() {
    let (broker, topic) = (Broker::shared(), Broker::unique("group"));
    let client = broker.client();
    client.create_topic(&topic, 2, &[]);
    let config = reads(&[&topic]);
    let source = KafkaSource::new(kafka(broker), config.clone());
    let partitions = source.discover(0).expect("discovers");
    let _open: Vec<_> = partitions.iter().map(|spec| source.open(spec, 0).expect("opens")).collect();
    partitions
        .iter()
        .zip([7, 9])
        .for_each(|(spec, position)| source.committed(spec.of.partition, position).expect("told"));
    until("two positions", || client.group_positions(&config.group, &topic) == BTreeMap::from([(0, 7), (1, 9)]));
    assert_eq!(source.topic_of(&partitions[1]), Some((topic, 1)));
}

/// Markers, and what was aborted, stand behind the last record: no checkpoint holds them, and no lag is seen.
#[test]
fn a_group_is_told_of_what_holds_no_records_behind_a_checkpoint() {
    let (broker, topic) = (Broker::shared(), Broker::unique("markers"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    let writer = client.producer(Some(&topic), &[]);
    writer.begin();
    writer.write(&topic, &made(0..7));
    writer.commit().expect("commits");
    let config = reads(&[&topic]);
    let source = KafkaSource::new(kafka(broker), config.clone());
    let partition = only(&source);
    let mut reader = source.open(&partition, 0).expect("opens");
    let told = || client.group_positions(&config.group, &topic).get(&0).copied();
    let end = || client.offsets(&topic)[&0].1;
    let found = values(&mut *reader, ReadLimit { records: 5, ..WIDE }, ReadState::Idle);
    assert_eq!(found.len(), 7);
    source.committed(partition.of.partition, 4).expect("told");
    until("a checkpoint that is behind", || told() == Some(4));
    source.committed(partition.of.partition, 7).expect("told");
    until("the marker behind the checkpoint", || told() == Some(8) && end() == 8);
    writer.begin();
    writer.write(&topic, &made(7..9));
    writer.abort();
    until("what was aborted later", || {
        assert_eq!(values(&mut *reader, WIDE, ReadState::Idle), []);
        told() == Some(end()) && end() == 11
    });
}

#[test]
fn an_idle_partition_wakes_its_reader() {
    let (broker, topic) = (Broker::shared(), Broker::unique("wakes"));
    let client = broker.client();
    client.create_topic(&topic, 1, &[]);
    let source = KafkaSource::new(kafka(broker), reads(&[&topic]));
    let mut reader = source.open(&only(&source), 0).expect("opens");
    let woken = Arc::new(AtomicBool::new(false));
    let flag = woken.clone();
    assert!(reader.wake(Arc::new(move || flag.store(true, Ordering::Relaxed))));
    assert!(values(&mut *reader, WIDE, ReadState::Idle).is_empty());
    woken.store(false, Ordering::Relaxed);
    client.write(&topic, &made(0..1));
    until("a call of the waker", || woken.load(Ordering::Relaxed));
    let mut batch = RawBatch::default();
    reader.read(WIDE, &mut batch).expect("reads");
    assert_eq!(batch.records.len(), 1, "it was woken because something is there");
}
