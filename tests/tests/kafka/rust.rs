//! A job on Kafka that is written in Rust does what a job file with the same settings does.

use std::collections::BTreeMap;
use std::process::Command;

use thalweg_connectors::log::POSITION_HEADER;
use thalweg_tests::kafka::{Broker, Client, Isolation, Record};
use thalweg_tests::{Binary, Ended, Folder, Process, until};

/// Records of the first topic, which are begun at the third; the second one has one more than is wanted of its history.
const FIRST: i64 = 31;
const SECOND: i64 = 3;

const JOB: &str = r#"version = 1
[job]
name = "both"
partitions = 2
on_error = "dead-letter"
delivery = "exactly-once"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "BOOTSTRAP"
replication = 1
wait = "20s"
transaction_timeout = "5s"
[kafka.properties]
"client.id" = "thalweg-in-toml"
[sources.listed]
connector = "kafka"
topics = ["FIRST", "SECOND"]
start = { offsets = { "FIRST/0" = 2 }, other = "earliest" }
rate = 100_000
group = "GROUP"
on_data_loss = "skip"
discover_interval = "none"
include = { key = "key", timestamp = "at", headers = "with", topic = "topic", partition = "of", offset = "offset", tombstone = "gone" }
key_format = "json"
[sources.listed.backfill]
connector = "file"
path = "history.jsonl"
max_record_bytes = "1kB"
[sources.found]
connector = "kafka"
topic_pattern = "PATTERN"
start = "1970-01-01T00:00:01Z"
group = "GROUP"
include = { key = "key", topic = "topic" }
key_format = "raw"
[sources.found.backfill]
connector = "kafka"
topic = "SECOND"
end = { offsets = { 0 = 1 } }
[operators.counts]
uses = "count"
inputs = ["found"]
key = "key"
[stores.counts]
changelog = "kafka"
query = false
[sinks.nothing]
connector = "blackhole"
inputs = ["counts"]
[operators.rows]
uses = "filter"
inputs = ["listed"]
where = "!gone"
[sinks.named]
connector = "kafka"
inputs = ["rows"]
topic = "OUT_NAMED"
partitions = 3
key = ["n", "topic"]
partition = "p"
headers = ["key", "of"]
[sinks.keyed]
connector = "kafka"
inputs = ["listed"]
topic = "OUT_KEYED"
partitions = 4
key = "key"
tombstone = "gone"
[sinks.found-too]
connector = "kafka"
inputs = ["found"]
topic = "OUT_FOUND"
partitions = 3
keyed = false
partitioner = "job-partition"
format = "csv"
[dead_letters]
connector = "kafka"
topic = "LETTERS"
"#;

/// The topics that a job writes.
const WRITTEN: [&str; 4] = ["OUT_NAMED", "OUT_KEYED", "OUT_FOUND", "LETTERS"];

/// Records with a number, a partition for it, and two that no format reads; the last one deletes.
fn write_input(client: &Client, first: &str, second: &str) {
    let numbered = |n: i64| {
        let record =
            Record::new(0, format!("{n}"), format!(r#"{{"n": {n}, "p": {}}}"#, n % 5)).at(1_700_000_000_000 + n);
        record.header("trace", format!("t{n}"))
    };
    let mut records: Vec<Record> = (1..FIRST).map(numbered).collect();
    records.push(Record { value: None, ..numbered(1) });
    records[7].value = Some(b"no JSON".to_vec());
    // A key that is none in JSON.
    records[9].key = Some(b"{".to_vec());
    client.write(first, &records);
    client.write(second, &(0..SECOND).map(|n| numbered(100 + n)).collect::<Vec<_>>());
}

/// Waits until a job has read all, and stops it.
fn finish(mut process: Process, client: &Client, group: &str, first: &str) {
    until("all is read, and the group says so", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        client.group_positions(group, first).get(&0) == Some(&FIRST)
    });
    process.interrupt();
    assert!(matches!(process.wait(), Ended::Code(_)), "{}", process.log());
}

/// What a topic holds, but for where each record is of what run: by partition, key, value and headers.
fn content(client: &Client, topic: &str) -> Vec<Record> {
    let cleared = client.read_all(topic, Isolation::ReadCommitted).into_iter().map(|mut record| {
        record.headers.retain(|(name, _)| name != POSITION_HEADER);
        Record { offset: None, timestamp: None, ..record }
    });
    let mut content: Vec<Record> = cleared.collect();
    content.sort();
    content
}

#[test]
fn a_job_in_rust_writes_what_the_same_job_file_writes() {
    let (broker, folder) = (Broker::shared(), Folder::new());
    let client = broker.client();
    let [first, second] = ["first", "second"].map(Broker::unique);
    [&first, &second].into_iter().for_each(|topic| client.create_topic(topic, 1, &[]));
    write_input(&client, &first, &second);
    let history = "{\"n\": -1, \"p\": 0, \"gone\": false}\n{\"n\": -2, \"p\": 1, \"gone\": false}\n";
    folder.write("history.jsonl", history);
    let names = |kind: &str| {
        let mut names = BTreeMap::from([
            ("BOOTSTRAP", broker.bootstrap()),
            ("FOLDER", folder.path().display().to_string()),
            ("FIRST", first.clone()),
            ("SECOND", second.clone()),
            ("PATTERN", format!("^{first}$")),
            ("GROUP", Broker::unique(kind)),
        ]);
        names.extend(WRITTEN.map(|name| (name, Broker::unique(kind))));
        names
    };
    let (of_file, of_rust) = (names("file"), names("rust"));

    let toml = of_file.iter().fold(JOB.to_owned(), |toml, (name, value)| toml.replace(name, value));
    folder.write("job.toml", toml);
    let mut command = Command::new(Binary::exact_job().path());
    command.arg("run").arg(folder.join("job.toml")).args(["--http", "none", "--data"]).arg(folder.join("file"));
    finish(Process::spawn(command, &folder.join("file.log")), &client, &of_file["GROUP"], &first);

    let mut command = Command::new(Binary::beside_exact_job("kafka_job").path());
    command.envs(&of_rust).args(["--http", "none", "--data"]).arg(folder.join("rust"));
    finish(Process::spawn(command, &folder.join("rust.log")), &client, &of_rust["GROUP"], &first);

    for name in WRITTEN.iter().filter(|name| **name != "LETTERS") {
        let [file, rust] = [&of_file, &of_rust].map(|names| content(&client, &names[*name]));
        assert!(file.len() > 25, "{name}: {file:?}");
        assert_eq!(rust, file, "{name}");
    }
    // What is said of a dead letter names its source, which is the same, and when it was set aside, which is not.
    let [file, rust] = [&of_file, &of_rust].map(|names| {
        let letters = content(&client, &names["LETTERS"]);
        letters.into_iter().map(|letter| (letter.key, letter.value)).collect::<Vec<_>>()
    });
    assert_eq!(file.len(), 3, "{file:?}");
    assert_eq!(rust, file);
}
