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
key_format = "KEY_FORMAT"
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

/// Waits for something that a job does, and stops it.
fn finish(mut process: Process, what: &str, mut done: impl FnMut(&Process) -> bool) {
    until(what, || {
        assert_eq!(process.ended(), None, "{}", process.log());
        done(&process)
    });
    process.interrupt();
    assert!(matches!(process.wait(), Ended::Code(_)), "{}", process.log());
}

/// Lets a running job read its dead letters once more.
fn retry_all(process: &mut Process) {
    let mut command = Command::new(Binary::thalweg().path());
    let at = process.address().expect("it serves").to_string();
    command.args(["dlq", "retry", "both", "--all", "-o", "json", "--addr", &at]);
    let output = command.output().expect("the binary starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"left\":0,\"retried\":3}\n", "{output:?}");
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

    let start = |kind: &str, key_format: &str| {
        let (names, mut command) = match kind {
            "file" => (&of_file, Command::new(Binary::exact_job().path())),
            _ => (&of_rust, Command::new(Binary::beside_exact_job("kafka_job").path())),
        };
        if kind == "file" {
            let toml = names.iter().fold(JOB.to_owned(), |toml, (name, value)| toml.replace(name, value));
            folder.write("job.toml", toml.replace("KEY_FORMAT", key_format));
            command.arg("run").arg(folder.join("job.toml"));
        }
        command.envs(names).env("KEY_FORMAT", key_format);
        command.args(["--http", "127.0.0.1:0", "--data"]).arg(folder.join(kind));
        (Process::spawn(command, &folder.join(&format!("{kind}-{key_format}.log"))), names)
    };
    for kind in ["file", "rust"] {
        let (process, names) = start(kind, "json");
        finish(process, "all is read, and the group says so", |_| {
            client.group_positions(&names["GROUP"], &first).get(&0) == Some(&FIRST)
        });
    }

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

    // A key that is no JSON is text: its record is read as it was, with everything beside it. The others fail once more.
    for kind in ["file", "rust"] {
        let (mut process, names) = start(kind, "text");
        retry_all(&mut process);
        finish(process, "what is retried is read, or set aside anew", |_| {
            content(&client, &names["LETTERS"]).len() == 5
        });
        let rows = content(&client, &names["OUT_NAMED"]);
        let text = |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        let [row] = &rows.iter().map(text).filter(|row| row.contains(r#""key":"{""#)).collect::<Vec<_>>()[..] else {
            panic!("{kind}: {rows:?}");
        };
        let beside =
            format!(r#""at":"2023-11-14T22:13:20.01Z","with":{{"trace":"t10"}},"topic":"{first}","of":0,"offset":9"#);
        assert!(row.contains(&beside), "{kind}: {row} does not contain {beside}");
    }
}
