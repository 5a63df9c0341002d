//! Queries to a job that runs with several workers.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use thalweg_tests::{Answer, Binary, Client, Folder, Process, RunFlags, until};

/// Records of a bounded job.
const RECORDS: u64 = 4000;
/// Keys of the generator.
const KEYS: u64 = 40;

/// A job that counts made-up records by number, by text and by both.
struct Counting {
    folder: Folder,
    process: Process,
    client: Client,
}

impl Counting {
    /// With `source` in the generator's table.
    fn start(source: &str) -> Self {
        let folder = Folder::new();
        let job = format!(
            r#"version = 1
[job]
name = "counting"
partitions = 8
[job.epoch]
interval = "5ms"
[job.checkpoint]
interval = "50ms"
[sources.made]
connector = "generator"
keys = {KEYS}
partitions = 3
{source}
[operators.rows]
uses = "map"
inputs = ["made"]
fields = {{ key = "key", name = "'k/' + string(key)" }}
[operators.numbers]
uses = "count"
inputs = ["rows"]
key = "key"
[operators.names]
uses = "count"
inputs = ["rows"]
key = "name"
[operators.pairs]
uses = "aggregate"
inputs = ["rows"]
key = ["key", "name"]
aggregates = {{ n = "count()", greatest = "max(key)" }}
[operators.secret]
uses = "count"
inputs = ["rows"]
key = "key"
[stores.secret]
query = false
[stores.numbers]
changelog = "log"
[sinks.out]
connector = "blackhole"
inputs = ["numbers", "names", "pairs", "secret"]
"#
        );
        folder.write("job.toml", job);
        let flags = RunFlags { workers: 3, http: true, serve: true, ..RunFlags::new(folder.join("data")) };
        let log = folder.join("run.log");
        let mut process = Process::start(&Binary::thalweg(), &folder.join("job.toml"), &flags, &log);
        let client = Client::new(process.address().expect("it serves"));
        Self { folder, process, client }
    }

    /// One that has counted everything and goes on serving.
    fn finished() -> Self {
        let mut job = Self::start(&format!("count = {RECORDS}"));
        job.process.wait_for_log("input has ended").expect("it ends");
        job
    }

    /// One that goes on for ever and has begun.
    fn endless() -> Self {
        let mut job = Self::start("rate = 3000");
        until("a checkpoint", || {
            assert_eq!(job.process.ended(), None, "{}", job.process.log());
            let answer = job.get("");
            answer.status == 200 && answer.json["checkpoint"]["epoch"].as_u64() > Some(1)
        });
        job
    }

    fn get(&self, path: &str) -> Answer {
        self.client.get(&format!("/v1/jobs/counting{path}")).expect("an answer")
    }

    fn post(&self, path: &str, body: &Json) -> Answer {
        self.client.post(&format!("/v1/jobs/counting{path}"), body).expect("an answer")
    }

    fn ok(&self, path: &str) -> Json {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json
    }

    fn refused(&self, path: &str, status: u16, code: &str) -> Answer {
        let answer = self.get(path);
        assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{path}: {}", answer.text);
        answer
    }
}

fn keys_of(answer: &Json) -> Vec<Json> {
    answer["entries"].as_array().expect("entries").iter().map(|entry| entry["key"].clone()).collect()
}

fn sum(answer: &Json) -> u64 {
    answer["entries"].as_array().expect("entries").iter().filter_map(|entry| entry["value"].as_u64()).sum()
}

#[test]
fn one_key_several_keys_and_ranges_of_a_finished_job() {
    let job = Counting::finished();
    for at in ["latest", "committed"] {
        let all = job.ok(&format!("/stores/numbers/keys?limit=1000&at={at}"));
        assert_eq!(sum(&all), RECORDS);
        assert_eq!(keys_of(&all), (0..KEYS).map(|key| json!(key)).collect::<Vec<_>>(), "in order over all partitions");
        assert_eq!(all["cursor"], Json::Null);
        let of = |key: u64| all["entries"][key as usize]["value"].clone();

        let one = job.ok(&format!("/stores/numbers/keys/7?at={at}"));
        assert_eq!((&one["key"], &one["value"], &one["role"]), (&json!(7), &of(7), &json!("active")));
        assert_eq!(one["epoch"], all["epoch"]);
        assert!(one["age_ms"].is_u64(), "{one}");
        let text = job.ok(&format!("/stores/names/keys/k%2F7?at={at}"));
        assert_eq!((&text["key"], &text["value"]), (&json!("k/7"), &of(7)));
        let pair = job.ok(&format!("/stores/pairs/keys/%5B7%2C%22k%2F7%22%5D?at={at}"));
        assert_eq!(pair["key"], json!([7, "k/7"]));
        assert_eq!(pair["value"], json!({ "n": of(7), "greatest": 7 }));

        // A part of the keys, by bounds and by prefix.
        let some = job.ok(&format!("/stores/numbers/keys?from=5&to=9&at={at}"));
        assert_eq!(keys_of(&some), [5, 6, 7, 8].map(|key| json!(key)));
        let some = job.ok(&format!("/stores/names/keys?prefix=k%2F3&at={at}"));
        let expected = ["k/3", "k/30", "k/31", "k/32", "k/33", "k/34", "k/35", "k/36", "k/37", "k/38", "k/39"];
        assert_eq!(keys_of(&some), expected.map(|key| json!(key)));

        // The same in pages.
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = job.ok(&format!("/stores/names/keys?limit=7&at={at}{cursor}"));
            pages.extend(page["entries"].as_array().expect("entries").iter().cloned());
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(json!(pages), job.ok(&format!("/stores/names/keys?limit=1000&at={at}"))["entries"]);

        let many = job.post(&format!("/stores/numbers/get?at={at}"), &json!({ "keys": [3, 1, 4000] }));
        assert_eq!(many.status, 200, "{}", many.text);
        let values: Vec<_> =
            many.json["entries"].as_array().expect("entries").iter().map(|entry| &entry["value"]).collect();
        assert_eq!(values, [&of(3), &of(1), &Json::Null]);
    }
    // It says how it stands.
    let status = job.ok("");
    assert_eq!((&status["state"], &status["records_in"]), (&json!("finished"), &json!(RECORDS)));
    assert_eq!((&status["workers"], &status["checkpoint"]["epoch"]), (&json!(3), &status["epoch"]));
}

#[test]
fn what_cannot_be_told() {
    let job = Counting::endless();
    job.refused("/stores/numbers/keys/4000", 404, "key-not-found");
    job.refused("/stores/number/keys/1", 404, "store-not-found");
    job.refused("/stores/secret/keys/1", 404, "store-not-found");
    job.refused("/stores/numbers/keys?limit=0", 400, "bad-parameter");
    job.refused("/stores/numbers/keys?lmit=1", 400, "bad-parameter");
    job.refused("/stores/numbers/keys/1?at=yesterday", 400, "bad-parameter");
    let other = job.client.get("/v1/jobs/other").expect("an answer");
    assert_eq!((other.status, other.json["code"].as_str()), (404, Some("job-not-found")));
    // It is there, and cannot be told now.
    for at in ["latest", "committed"] {
        for path in ["/stores/numbers/keys/1", "/stores/numbers/keys"] {
            let answer = job.get(&format!("{path}?at={at}&min_epoch=1000000000"));
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(answer.retry_after.is_some(), "{}", answer.text);
        }
    }
}

#[test]
fn reads_of_a_running_job_are_of_one_epoch() {
    let mut job = Counting::endless();
    // By epoch: how many records there were. Every read of that epoch, of any store, has to say the same.
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    let all: Vec<u64> = (0..KEYS).collect();
    for round in 0..60 {
        let at = if round % 2 == 0 { "latest" } else { "committed" };
        let read = match round % 3 {
            0 => job.ok(&format!("/stores/numbers/keys?limit=1000&at={at}")),
            1 => job.ok(&format!("/stores/names/keys?limit=1000&at={at}")),
            _ => job.post(&format!("/stores/numbers/get?at={at}"), &json!({ "keys": all })).json,
        };
        let epoch = read["epoch"].as_u64().expect("an epoch");
        let known = *counts.entry(epoch).or_insert_with(|| sum(&read));
        assert_eq!(known, sum(&read), "epoch {epoch}, {at}");
    }
    let values: Vec<u64> = counts.values().copied().collect();
    assert!(values.is_sorted(), "counts only grow: {counts:?}");
    // The bindings say what every epoch had.
    job.process.kill();
    let run = thalweg_tests::recorded_run_of(&job.folder.join("data"), "counting").expect("bindings");
    let mut total = 0;
    let totals: BTreeMap<u64, u64> = run
        .bindings
        .iter()
        .map(|binding| {
            total += binding.shares.iter().map(|share| share.count).sum::<u64>();
            (binding.epoch.0, total)
        })
        .collect();
    for (epoch, count) in counts.into_iter().filter(|(epoch, _)| *epoch > 0) {
        assert_eq!(totals.get(&epoch), Some(&count), "epoch {epoch}");
    }
}

/// A worker that is at work on an epoch answers between two of its partitions.
#[test]
fn a_key_of_a_busy_job_is_of_the_epoch_that_the_answer_says() {
    // As fast as it can: a worker is nearly always in the middle of an epoch.
    let job = Counting::start("");
    until("an epoch", || job.get("/stores/numbers/keys/0").json["value"].as_u64() > Some(0));
    for key in [0, KEYS - 1] {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for round in 0..150 {
            let (epoch, count) = if round % 10 == 0 {
                let read = job.post("/stores/numbers/get", &json!({ "keys": [key] })).json;
                (read["epoch"].as_u64(), sum(&read))
            } else {
                let read = job.ok(&format!("/stores/numbers/keys/{key}"));
                (read["epoch"].as_u64(), read["value"].as_u64().expect("a count"))
            };
            let epoch = epoch.expect("an epoch");
            assert_eq!(*counts.entry(epoch).or_insert(count), count, "key {key}, epoch {epoch}, read {round}");
        }
        assert!(counts.len() > 1, "it runs: {counts:?}");
        assert!(counts.values().is_sorted(), "counts only grow: {counts:?}");
    }
}

#[test]
fn how_fresh_an_answer_is() {
    let job = Counting::endless();
    let latest = job.ok("/stores/numbers/keys/1")["epoch"].as_u64().expect("an epoch");
    let committed = job.ok("/stores/numbers/keys/1?at=committed")["epoch"].as_u64().expect("an epoch");
    let later = job.ok("/stores/numbers/keys/1")["epoch"].as_u64().expect("an epoch");
    assert!(latest <= later);
    let checkpoints = job.ok("/checkpoints");
    let epochs: Vec<_> =
        checkpoints["checkpoints"].as_array().expect("a list").iter().filter_map(|one| one["epoch"].as_u64()).collect();
    assert!(epochs.contains(&committed) || epochs.len() > 1, "{committed}: {checkpoints}");
    // An answer waits for the epoch that is asked for.
    let soon = later + 5;
    let waited = job.ok(&format!("/stores/numbers/keys/1?min_epoch={soon}"))["epoch"].as_u64();
    assert!(waited >= Some(soon), "{waited:?} < {soon}");
    job.ok("/stores/numbers/keys/1?max_staleness=1h");
    job.ok("/stores/numbers/keys?max_staleness=1h&at=committed");
    let answer = job.get("/stores/numbers/keys/1?at=committed&max_staleness=1ns");
    assert!(answer.status == 200 || answer.status == 503 && answer.retry_after.is_some(), "{}", answer.text);
}

#[test]
fn ready_metrics_and_what_there_is() {
    let job = Counting::endless();
    assert_eq!(job.client.get("/livez").expect("an answer").status, 200);
    assert_eq!(job.client.get("/readyz").expect("an answer").status, 200);
    let stores = job.ok("/stores");
    let names: Vec<_> =
        stores["stores"].as_array().expect("a list").iter().map(|store| store["store"].clone()).collect();
    assert_eq!(names, ["numbers", "names", "pairs", "secret"].map(|name| json!(name)));
    assert_eq!(job.ok("/tasks")["tasks"][0]["workers"], json!(3));
    let metrics = job.client.get("/metrics").expect("an answer").text;
    for name in [
        "records_in_total",
        "records_out_total",
        "epochs_open",
        "checkpoint_duration_seconds",
        "checkpoint_last_success_timestamp_seconds",
        "state_keys",
        "changelog_bytes_total",
        "generation",
        "end_to_end_latency_seconds",
    ] {
        assert!(metrics.contains(&format!("\nthalweg_{name}")), "no thalweg_{name}:\n{metrics}");
    }
    // Labels are of a fixed set: never a record's key.
    const LABELS: [&str; 11] =
        ["job", "operator", "source", "sink", "store", "partition", "task", "reason", "state", "le", "version"];
    for line in metrics.lines().filter(|line| line.starts_with("thalweg_")) {
        let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let name = label.split_once('=').map_or(label, |(name, _)| name);
            assert!(LABELS.contains(&name), "label {name:?} in {line}");
        }
    }
}
