//! Small jobs with their output in Kafka, whose results prove by themselves that they are exact.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use thalweg_connectors::log::{POSITION_HEADER, Position};
use thalweg_tests::kafka::{Broker, Client, Isolation, Record};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags};

/// A job in a folder of its own.
pub(crate) struct Job {
    pub(crate) folder: Folder,
    pub(crate) topic: String,
    pub(crate) client: Client,
    toml: String,
    runs: std::cell::Cell<u32>,
}

/// Keys of the generator.
const KEYS: i64 = 40;

impl Job {
    /// The first lines of a job file: its cluster, and a source of `records` numbers, so many a second.
    pub(crate) fn new((bootstrap, client): (&str, Client), records: u64, rate: u64, rest: &str) -> Self {
        let (topic, folder) = (Broker::unique("result"), Folder::new());
        let toml = format!(
            r#"version = 1
[job]
name = "proof"
partitions = 4
crate = "thalweg-tests"
[job.epoch]
interval = "10ms"
[job.checkpoint]
interval = "100ms"
[kafka]
bootstrap_servers = "{}"
wait = "30s"
[sources.numbers]
connector = "generator"
count = {records}
rate = {rate}
keys = {KEYS}
partitions = 2
seed = 7
{rest}"#,
            bootstrap
        );
        let toml = toml.replace("TOPIC", &topic);
        folder.write("job.toml", &toml);
        Self { folder, topic, client, toml, runs: std::cell::Cell::new(0) }
    }

    /// Chains of results, by key over three partitions.
    pub(crate) fn chain(broker: &Broker, records: u64, rate: u64) -> Self {
        Self::new(
            (&broker.bootstrap(), broker.client()),
            records,
            rate,
            r#"
[operators.rows]
uses = "map"
inputs = ["numbers"]
fields = { k = "key", w = "string(key)", v = "value", f = "0.5" }
[operators.chain]
uses = "exact::Chain"
inputs = ["rows"]
key = "w"
[stores.chain]
changelog = "kafka"
[sinks.out]
connector = "kafka"
topic = "TOPIC"
partitions = 3
key = "w"
inputs = ["chain"]
"#,
        )
    }

    /// Writes the job file anew with a text replaced.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        // An empty text is in every text: then the file is as it was.
        assert!(self.toml.contains(from), "{from:?} is not in {}", self.toml);
        self.folder.write("job.toml", self.toml.replacen(from, to, 1));
    }

    /// Starts it on a data folder of its own, with failpoints as `THALWEG_FAILPOINTS` has them.
    pub(crate) fn start_in(&self, data: &str, failpoints: &str) -> Process {
        let failpoints = failpoints.to_owned();
        let flags = RunFlags { workers: 2, failpoints, ..RunFlags::new(self.folder.join(data)) };
        self.runs.set(self.runs.get() + 1);
        let log = self.folder.join(&format!("run-{}.log", self.runs.get()));
        Process::start(&Binary::exact_job(), &self.folder.join("job.toml"), &flags, &log)
    }

    /// Starts it on its data folder.
    pub(crate) fn start(&self) -> Process {
        self.start_in("data", "")
    }

    /// Runs it to its end.
    pub(crate) fn finish(&self) {
        let mut process = self.start();
        assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    }

    /// The topic that the job made for itself whose name begins so.
    pub(crate) fn own_topic(&self, prefix: &str) -> String {
        let record = self.read().into_iter().next().expect("some output");
        let (_, bytes) = record.headers.iter().rfind(|(name, _)| name == POSITION_HEADER).expect("a position");
        let position = Position::decode(bytes.as_deref().expect("a value")).expect("a position");
        let start = format!("{prefix}{}", position.job);
        let found = self.client.topics().into_iter().find(|topic| topic.starts_with(&start));
        found.unwrap_or_else(|| panic!("no topic {start}"))
    }

    /// What a committed reader sees of its output now.
    pub(crate) fn read(&self) -> Vec<Record> {
        if self.client.has_topic(&self.topic) {
            self.client.read_all(&self.topic, Isolation::ReadCommitted)
        } else {
            Vec::new()
        }
    }

    /// Every chain goes from link to link; how many links there are.
    pub(crate) fn check_chain(&self) -> u64 {
        let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        let records = self.read();
        for record in &records {
            let row = row(record);
            let word = row["w"].as_str().expect("a key").to_owned();
            assert_eq!(record.key.as_deref(), Some(word.as_bytes()));
            let number = |name: &str| row[name].as_i64().expect("a number");
            let (count, hash) = last.get(&word).copied().unwrap_or_default();
            assert_eq!((number("count"), number("before")), (count + 1, hash), "{row} follows {count} of {word}");
            let next = (hash * 31 + number("v") + count + 1) % 1_000_000_007;
            assert_eq!(number("hash"), next, "{row}");
            last.insert(word, (count + 1, next));
        }
        records.len() as u64
    }
}

/// The value of a record.
pub(crate) fn row(record: &Record) -> Json {
    serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON")
}
