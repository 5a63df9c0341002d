//! kcat and Python on the other side: a job reads what they write, and they read what a job writes.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use thalweg_core::Value;
use thalweg_tests::kafka::{Broker, Isolation, Others, Record, Step};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags, until};

use super::job::{Job, row};

/// What librdkafka and its clients can compress with.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Records of the jobs that write.
const RECORDS: u64 = 400;

/// Writes records of every form with one client, each codec in turn; how many committed ones there are then.
fn write_with_kcat(others: &Others, topic: &str) -> i64 {
    for codec in CODECS {
        let settings = [("compression.codec", codec)];
        let longer = format!("{codec}:{{\"long\": \"{}\"}}", codec.repeat(200));
        let lines = ["k1:{\"a\": 1}", "k2:", "ключ:{\"a\": \"ä\"}", longer.as_str()];
        others.kcat_writes(topic, &lines, &["from=kcat", &format!("codec={codec}")], &settings);
    }
    let transactional = [("transactional.id", topic)];
    others.kcat_writes(topic, &["t:{\"a\": 2}"], &["from=kcat in a transaction"], &transactional);
    5 * 4 + 1
}

/// The same with Python, also in transactions; its records have times of their own.
fn write_with_python(others: &Others, topic: &str) -> i64 {
    let record = |partition, key: &str, value: &str| {
        Record::new(partition, key, value).at(1_700_000_000_123).header("from", "python").header("from", "ü")
    };
    for codec in CODECS {
        let records = [
            record(0, "k1", "{\"b\": 1}").header("codec", codec),
            Record { value: None, ..record(1, "k2", "") },
            Record { key: None, ..record(1, "", &format!("{{\"long\": \"{}\"}}", codec.repeat(200))) },
            Record { headers: vec![("empty".to_owned(), None)], ..record(0, "", "{\"b\": 2}") },
        ];
        others.python_writes(topic, &records.map(Step::Write), &[("compression.type", codec)]);
    }
    let write = |number: i64| Step::Write(record(0, "t", &format!("{{\"b\": {number}}}")));
    let steps = [write(3), Step::Commit, write(4), write(5), Step::Abort, write(6)];
    others.python_writes(topic, &steps, &[("transactional.id", topic), ("compression.type", "lz4")]);
    5 * 4 + 2
}

/// A row as the job gives it of a record: the fields of the value, and those of all that stands beside it.
fn wanted(record: &Record) -> Json {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("the records of these tests are text");
    let value = record.value.as_ref().map(|value| serde_json::from_slice::<Json>(value).expect("JSON"));
    let mut row = value.unwrap_or_else(|| json!({}));
    let headers: BTreeMap<&str, String> = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_ref().map_or_else(String::new, text)))
        .collect();
    let time = Value::Time(record.timestamp.expect("it was read") * 1000);
    for (name, part) in [
        ("key", json!(record.key.as_ref().map(text))),
        ("at", json!(time)),
        ("headers", json!(headers)),
        ("partition", json!(record.partition)),
        ("offset", json!(record.offset)),
        ("gone", json!(record.value.is_none())),
    ] {
        row[name] = part;
    }
    row
}

/// Runs a job on a topic of two partitions that another client has written, and compares every record with what that client reads.
fn check_source(write: fn(&Others, &str) -> i64) {
    let (broker, folder, topic) = (Broker::shared(), Folder::new(), Broker::unique("others"));
    let (client, others) = (broker.client(), broker.others());
    client.create_topic(&topic, 2, &[]);
    let records = write(&others, &topic);
    let toml = format!(
        r#"version = 1
[job]
name = "others"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "{}"
[sources.all]
connector = "kafka"
topic = "{topic}"
group = "{topic}"
include = {{ key = "key", timestamp = "at", headers = "headers", partition = "partition", offset = "offset", tombstone = "gone" }}
[sinks.out]
connector = "file"
path = "out.jsonl"
single = true
inputs = ["all"]
"#,
        broker.bootstrap()
    );
    folder.write("job.toml", toml);
    let flags = RunFlags::new(folder.join("data"));
    let mut process = Process::start(&Binary::exact_job(), &folder.join("job.toml"), &flags, &folder.join("run.log"));
    let ends: BTreeMap<i32, i64> =
        client.offsets(&topic).into_iter().map(|(partition, (_, end))| (partition, end)).collect();
    until("a checkpoint with all records", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        client.group_positions(&topic, &topic) == ends
    });
    process.interrupt();
    assert!(matches!(process.wait(), Ended::Code(_)), "{}", process.log());

    let text = std::fs::read_to_string(folder.join("out.jsonl")).expect("the output");
    let mut rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let place = |row: &Json| (row["partition"].as_i64(), row["offset"].as_i64());
    rows.sort_by_key(place);
    let read = others.python_reads(&topic);
    assert_eq!(i64::try_from(read.len()), Ok(records));
    assert_eq!(rows, read.iter().map(wanted).collect::<Vec<_>>());
    assert_eq!(others.python_sees_positions(&topic, &topic), ends);
}

#[test]
fn what_kcat_writes_is_read_as_it_is() {
    check_source(write_with_kcat);
}

#[test]
fn what_python_writes_is_read_as_it_is() {
    check_source(write_with_python);
}

/// What a job that was killed meanwhile has written is the same to all readers of committed records, and is exact.
#[test]
fn kcat_and_python_read_what_a_job_writes_exactly_once() {
    let (broker, others) = (Broker::shared(), Broker::shared().others());
    let job = Job::chain(broker, RECORDS, 400);
    job.rewrite("key = \"w\"\ninputs = [\"chain\"]", "key = \"w\"\nheaders = [\"count\", \"w\"]\ninputs = [\"chain\"]");
    let mut process = job.start();
    until("some output", || job.check_chain() > 50);
    process.kill();
    job.finish();
    assert_eq!(job.check_chain(), RECORDS);

    let ours = job.client.read_all(&job.topic, Isolation::ReadCommitted);
    assert_eq!(others.python_reads(&job.topic), ours);
    let printed = others.kcat_reads(&job.topic);
    assert_eq!(printed.len(), ours.len());
    for (printed, ours) in printed.iter().zip(&ours) {
        let place = (Some(printed.partition), Some(printed.offset), Some(printed.timestamp));
        assert_eq!(place, (ours.partition, ours.offset, ours.timestamp));
        assert_eq!((&printed.key, &printed.value), (&ours.key, &ours.value));
        let headers = format!("count={},w={}", row(ours)["count"], row(ours)["w"].as_str().expect("a text"));
        let shown = String::from_utf8_lossy(&printed.headers).into_owned();
        assert!(shown.contains(&headers), "{headers:?} is not in {shown:?}");
    }
}

/// The partitions of keys, as one client chose them.
fn partitions(records: &[Record]) -> BTreeMap<Vec<u8>, i32> {
    let chosen =
        records.iter().map(|record| (record.key.clone().expect("a key"), record.partition.expect("it was read")));
    chosen.collect()
}

#[test]
fn a_key_goes_to_the_partition_that_javas_and_pythons_clients_choose() {
    let broker = Broker::shared();
    let (client, others) = (broker.client(), broker.others());
    let job = Job::chain(broker, RECORDS, 100_000);
    job.finish();
    let ours = partitions(&client.read_all(&job.topic, Isolation::ReadCommitted));
    assert!(ours.len() > 10, "{ours:?}");
    let [java, python] = ["java", "python"].map(Broker::unique);
    [&java, &python].into_iter().for_each(|topic| client.create_topic(topic, 3, &[]));
    let text = |key: &Vec<u8>| String::from_utf8(key.clone()).expect("the keys of this job are text");
    let records: Vec<_> = ours.keys().map(|key| thalweg_tests::kafka::WrittenRecord::new(&text(key), "v")).collect();
    broker.tools().write(&java, &records, &[]);
    let written = ours.keys().map(|key| Record { partition: None, ..Record::new(0, key, "v") });
    let steps: Vec<Step> = written.map(Step::Write).collect();
    others.python_writes(&python, &steps, &[("partitioner", "murmur2_random")]);
    for topic in [java, python] {
        assert_eq!(partitions(&client.read_all(&topic, Isolation::ReadCommitted)), ours, "{topic}");
    }
}
