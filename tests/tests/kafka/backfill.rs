//! History first, then what goes on: one source without a gap or a double, wherever the job is killed.

use std::path::Path;

use serde_json::Value as Json;
use thalweg_tests::kafka::{Broker, Client, Record};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags, until};

/// Parts of the history, and records in each.
const HISTORY: (u64, u64) = (3, 300);
/// Partitions of the topic, records in each, and the first offset that is read.
const TOPIC: (u64, u64, u64) = (2, 300, 40);

/// Record `index` of a part: all numbers are different.
fn number(kind: u64, part: u64, index: u64) -> u64 {
    kind * 1_000_000 + part * 10_000 + index
}

fn write(client: &Client, topic: &str, partitions: u64, kind: u64, records: u64) {
    client.create_topic(topic, partitions as i32, &[]);
    let record = |part: u64, index| Record::new(part as i32, "k", format!("{{\"n\":{}}}", number(kind, part, index)));
    let all: Vec<_> = (0..partitions).flat_map(|part| (0..records).map(move |index| record(part, index))).collect();
    client.write(topic, &all);
}

/// The job, whose output is one file: its folders differ, and nothing else.
fn job(broker: &Broker, topic: &str, backfill: &str, folder: &Folder) {
    let toml = format!(
        r#"version = 1
[job]
name = "backfill"
partitions = 3
[job.epoch]
interval = "5ms"
[job.checkpoint]
interval = "30ms"
[kafka]
bootstrap_servers = "{}"
[sources.in]
connector = "kafka"
topic = "{topic}"
rate = 3000
start = {{ offsets = {{ 0 = {from}, 1 = {from} }} }}
[sources.in.backfill]
{backfill}
[operators.all]
uses = "count"
inputs = ["in"]
key = "n"
[sinks.rows]
connector = "file"
path = "rows.jsonl"
single = true
inputs = ["in"]
[sinks.counts]
connector = "file"
path = "counts"
inputs = ["all"]
"#,
        broker.bootstrap(),
        from = TOPIC.2,
    );
    for place in ["first", "again-1", "again-2", "again-4"] {
        folder.write(&format!("{place}/job.toml"), &toml);
    }
}

fn start(folder: &Folder, place: &str, flags: &RunFlags) -> Process {
    let own = folder.join(place);
    Process::start(&Binary::thalweg(), &own.join("job.toml"), flags, &own.join("log"))
}

/// The numbers in the output, as far as its lines are whole.
fn rows(folder: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let row = |line| serde_json::from_str::<Json>(line).expect("JSON")["n"].as_u64().expect("a number");
    whole.lines().map(row).collect()
}

/// All of the history is before all of the topic, and each part is whole and in order.
fn check_rows(rows: &[u64]) {
    let seam = rows.iter().position(|row| *row >= number(1, 0, 0)).unwrap_or(rows.len());
    assert!(rows[seam..].iter().all(|row| *row >= number(1, 0, 0)), "history behind the first record of the topic");
    for (kind, (parts, first, end)) in [(0, (HISTORY.0, 0, HISTORY.1)), (1, (TOPIC.0, TOPIC.2, TOPIC.1))] {
        for part in 0..parts {
            let of_part = |row: &&u64| (number(kind, part, 0)..number(kind, part + 1, 0)).contains(*row);
            let found: Vec<u64> = rows.iter().filter(of_part).copied().collect();
            let wanted: Vec<u64> = (first..end).map(|index| number(kind, part, index)).collect();
            assert!(found == wanted, "part {part} of {kind}: {found:?}");
        }
    }
}

fn check(broker: &Broker, topic: &str, backfill: &str, folder: &Folder) {
    job(broker, topic, backfill, folder);
    let data = folder.join("data");
    let all = HISTORY.0 * HISTORY.1 + TOPIC.0 * (TOPIC.1 - TOPIC.2);
    let is_whole = || rows(&folder.join("first")).len() as u64 >= all;
    let kills = ["epoch-released=kill@9", "backfill-over=kill@1", "backfill-over=kill@1", "epoch-released=kill@5"];
    for (kill, workers) in kills.iter().zip([1, 4, 2, 1]) {
        let flags = RunFlags { workers, failpoints: (*kill).to_owned(), ..RunFlags::new(&data) };
        let mut process = start(folder, "first", &flags);
        // With few and large epochs it may be ready before its last one.
        let seam = kill.starts_with("backfill-over");
        until("a kill", || process.ended().is_some() || !seam && is_whole());
        assert_eq!(process.kill(), Ended::Killed, "{kill}: {}", process.log());
    }
    let mut process = start(folder, "first", &RunFlags { workers: 2, http: true, ..RunFlags::new(&data) });
    let client = thalweg_tests::Client::new(process.address().expect("it serves"));
    until("all rows", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        client.is_running("backfill") && is_whole()
    });
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    check_rows(&rows(&folder.join("first")));
    for workers in [1, 2, 4] {
        let place = format!("again-{workers}");
        let flags =
            RunFlags { workers, bindings: Some(data.clone()), ..RunFlags::new(folder.join(&place).join("data")) };
        let mut process = start(folder, &place, &flags);
        assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
        for file in ["rows.jsonl", "counts/part-00000.jsonl", "counts/part-00002.jsonl"] {
            let read = |place: &str| std::fs::read(folder.join(place).join(file)).expect("an output");
            assert!(read(&place) == read("first"), "{file} with {workers} workers");
        }
    }
}

#[test]
fn files_are_read_before_a_topic_wherever_the_job_is_killed() {
    let (broker, topic, folder) = (Broker::shared(), Broker::unique("orders"), Folder::new());
    write(&broker.client(), &topic, TOPIC.0, 1, TOPIC.1);
    for part in 0..HISTORY.0 {
        let lines: Vec<String> = (0..HISTORY.1).map(|index| number(0, part, index).to_string()).collect();
        folder.write(&format!("in/{part}.csv"), format!("n\n{}\n", lines.join("\n")));
    }
    let backfill = "connector = \"file\"\npath = \"../in/*.csv\"\nformat = \"csv\"";
    check(broker, &topic, backfill, &folder);
}

#[test]
fn an_older_topic_is_read_up_to_an_offset_before_the_one_that_goes_on() {
    let (broker, folder) = (Broker::shared(), Folder::new());
    let (older, topic) = (Broker::unique("older"), Broker::unique("orders"));
    write(&broker.client(), &topic, TOPIC.0, 1, TOPIC.1);
    // What is behind the end is not read.
    write(&broker.client(), &older, HISTORY.0, 0, HISTORY.1 + 50);
    let ends: Vec<String> = (0..HISTORY.0).map(|part| format!("{part} = {}", HISTORY.1)).collect();
    let backfill =
        format!("connector = \"kafka\"\ntopic = \"{older}\"\nend = {{ offsets = {{ {} }} }}", ends.join(", "));
    check(broker, &topic, &backfill, &folder);
}
