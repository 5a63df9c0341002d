//! Partitions and topics that come while a job runs: taken in once, from their first record on, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use thalweg_tests::kafka::{Broker, Client, Record};
use thalweg_tests::{Binary, Ended, Fault, Folder, Home, Process, RunFlags, Trial, TrialOptions, until};

/// A job whose sources grow twice, killed twice at a point on the way of what is new into it.
fn check_killed_at(seed: u64, point: &str) -> BTreeSet<String> {
    let kill = || Fault::point(format!("{point}=kill@1"));
    let options = TrialOptions {
        faults: vec![kill(), kill()],
        life: 2_500,
        changelog: Some(true),
        topics: true,
        kafka: Some(Home::new(&Broker::shared().bootstrap(), Broker::shared().client())),
        ..TrialOptions::default()
    };
    let trial = Trial::run(seed, &options).unwrap_or_else(|error| panic!("{error}"));
    println!("seed {seed}, {point}: {trial:?}");
    trial.points
}

#[test]
fn a_job_that_is_killed_while_it_grows_gives_what_the_interpreter_says() {
    let points = ["growth-found", "growth-added", "growth-bound", "growth-opened"];
    std::thread::scope(|scope| {
        for (seed, point) in (5200..).zip(points) {
            scope.spawn(move || assert!(check_killed_at(seed, point).contains(point), "not passed: {point}"));
        }
    });
}

/// A job that passes on what is in topics whose names it finds, and counts it by topic.
struct Growing {
    folder: Folder,
    prefix: String,
    client: Client,
}

impl Growing {
    fn new(broker: &Broker) -> Self {
        let (folder, prefix) = (Folder::new(), Broker::unique("growing"));
        let job = Self { folder, prefix, client: broker.client() };
        let toml = r#"version = 1
[job]
name = "growing"
partitions = 2
[job.epoch]
interval = "5ms"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "BOOTSTRAP"
[sources.in]
connector = "kafka"
topic_pattern = "^PREFIX-"
discover_interval = "50ms"
format = "raw"
include = { topic = "t", partition = "p", offset = "o" }
[operators.n]
uses = "count"
inputs = ["in"]
key = "t"
[sinks.rows]
connector = "file"
path = "rows"
inputs = ["in"]
[sinks.counts]
connector = "file"
path = "counts"
inputs = ["n"]
"#;
        let toml = toml.replace("BOOTSTRAP", &broker.bootstrap()).replace("PREFIX", &job.prefix);
        for place in ["first", "again-1", "again-2", "again-4"] {
            job.folder.write(&format!("{place}/job.toml"), &toml);
        }
        job
    }

    fn topic(&self, name: &str, partitions: i32) -> String {
        let topic = format!("{}-{name}", self.prefix);
        self.client.create_topic(&topic, partitions, &[]);
        topic
    }

    fn write(&self, topic: &str, partition: i32, count: usize) {
        self.client.write(topic, &vec![Record::new(partition, "k", "v"); count]);
    }

    fn start(&self, place: &str, flags: RunFlags) -> Process {
        let folder = self.folder.join(place);
        Process::start(&Binary::thalweg(), &folder.join("job.toml"), &flags, &folder.join("log"))
    }

    /// How many rows there are of each partition of each topic, which have to be all up to there, in order.
    fn rows(&self) -> BTreeMap<(String, u64), u64> {
        let mut rows: BTreeMap<(String, u64), u64> = BTreeMap::new();
        for (_, text) in files(&self.folder.join("first/rows")) {
            // The last line may not be whole yet.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for row in whole.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")) {
                let (topic, partition) = (row["t"].as_str().expect("a topic"), row["p"].as_u64().expect("a partition"));
                let next = rows.entry((topic.replace(&self.prefix, ""), partition)).or_default();
                assert_eq!(row["o"].as_u64(), Some(*next), "{row}");
                *next += 1;
            }
        }
        rows
    }

    fn until_rows(&self, process: &mut Process, wanted: &[(&str, u64, u64)]) {
        let wanted = wanted.iter().map(|(topic, partition, rows)| (((*topic).to_owned(), *partition), *rows)).collect();
        until("all rows", || {
            assert_eq!(process.ended(), None, "{}", process.log());
            self.rows() == wanted
        });
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let Ok(entries) = folder.read_dir() else { return BTreeMap::new() };
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let own = paths.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    own.map(|path| {
        let text = std::fs::read_to_string(&path).expect("a file of the sink");
        (path.file_name().expect("a name").into(), text)
    })
    .collect()
}

#[test]
fn topics_and_partitions_that_come_are_read_from_their_first_record_on_and_a_repeated_run_takes_them_in_as_well() {
    let job = Growing::new(Broker::shared());
    let a = job.topic("a", 1);
    job.write(&a, 0, 5);
    let data = job.folder.join("data");
    let mut process = job.start("first", RunFlags { workers: 2, http: true, ..RunFlags::new(&data) });
    job.until_rows(&mut process, &[("-a", 0, 5)]);
    let served = thalweg_tests::Client::new(process.address().expect("it serves"));
    let lag_of_a = |text: String| {
        text.lines().any(|line| {
            let series = line.rsplit_once(' ').filter(|(series, _)| series.starts_with("thalweg_source_lag_records{"));
            series.is_some_and(|(_, value)| value.parse() == Ok(0.0))
        })
    };
    until("the lag in the status and in a metric", || {
        let (status, metrics) = (served.get("/v1/jobs/growing"), served.get("/metrics"));
        status.is_ok_and(|status| status.json["lag"]["records"] == 0)
            && metrics.is_ok_and(|metrics| lag_of_a(metrics.text))
    });
    // One topic more, then a partition of the first.
    let b = job.topic("b", 2);
    job.write(&b, 1, 4);
    job.until_rows(&mut process, &[("-a", 0, 5), ("-b", 1, 4)]);
    job.client.add_partitions(&a, 2);
    until("a second partition", || job.client.offsets(&a).len() == 2);
    job.write(&a, 1, 3);
    job.write(&b, 0, 2);
    let all = [("-a", 0, 5), ("-a", 1, 3), ("-b", 0, 2), ("-b", 1, 4)];
    job.until_rows(&mut process, &all);
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    // What came while it was away is found at its start.
    let c = job.topic("c", 1);
    job.write(&c, 0, 6);
    let mut process = job.start("first", RunFlags { workers: 4, ..RunFlags::new(&data) });
    let all = [&all[..], &[("-c", 0, 6)]].concat();
    job.until_rows(&mut process, &all);
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    // What comes later is no part of that run.
    job.write(&c, 0, 1);
    job.topic("d", 1);
    for workers in [1, 2, 4] {
        let place = format!("again-{workers}");
        let again = job.folder.join(&place);
        let flags = RunFlags { workers, bindings: Some(data.clone()), ..RunFlags::new(again.join("data")) };
        let mut process = job.start(&place, flags);
        assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
        for sink in ["rows", "counts"] {
            assert_eq!(
                files(&again.join(sink)),
                files(&job.folder.join("first").join(sink)),
                "{sink}, {workers} workers"
            );
        }
    }
}
