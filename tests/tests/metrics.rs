//! The metrics of a job that is behind, and of the same job when it has caught up.

use std::sync::Arc;

use thalweg_connectors::log::{EmbeddedLog, Log, NewRecord, Retention, TopicSpec};
use thalweg_core::{Generation, PartitionId};
use thalweg_tests::{Binary, Client, Folder, Process, RunFlags, until};

/// Records that are in the log before the job starts.
const RECORDS: u64 = 3000;

/// What the contract names, where it applies to one process.
const NAMES: [&str; 18] = [
    "thalweg_records_in_total",
    "thalweg_records_out_total",
    "thalweg_records_dropped_total",
    "thalweg_source_lag_records",
    "thalweg_source_lag_seconds",
    "thalweg_operator_frontier_lag_seconds",
    "thalweg_end_to_end_latency_seconds_count",
    "thalweg_operator_busy_ratio",
    "thalweg_epochs_open",
    "thalweg_checkpoint_duration_seconds_count",
    "thalweg_checkpoint_last_success_timestamp_seconds",
    "thalweg_checkpoint_failures_total",
    "thalweg_state_keys",
    "thalweg_state_bytes",
    "thalweg_changelog_bytes_total",
    "thalweg_restore_remaining_records",
    "thalweg_generation",
    "thalweg_task_state",
];

/// One scrape.
struct Scrape(Vec<(String, String, f64)>);

impl Scrape {
    fn of(client: &Client) -> Self {
        let text = client.get("/metrics").expect("an answer").text;
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(series).collect())
    }

    /// The sum of the series with this name and all of these labels; nothing where there is none.
    fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let fits = |own: &str| labels.iter().all(|label| own.split(',').any(|own| own == *label));
        let found: Vec<f64> =
            self.0.iter().filter(|(own, with, _)| own == name && fits(with)).map(|(_, _, value)| *value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }
}

/// A topic with records in two partitions, and a job that reads it slowly.
fn job(folder: &Folder) {
    let log = EmbeddedLog::open(&folder.join("input"), Arc::new(|| 1_000_000)).expect("a log");
    let topic = TopicSpec { name: "rows".to_owned(), partitions: 2, retention: Retention::Keep };
    log.ensure(&topic).expect("a topic");
    let mut producer = log.fence("test", Generation(1)).expect("a producer");
    producer.begin().expect("begun");
    for n in 0..RECORDS {
        let value = Some(format!("{{\"k\":{}}}", n % 17).into_bytes());
        let record = NewRecord { value, ..NewRecord::default() };
        producer.append("rows", PartitionId((n % 2) as u16), record).expect("appended");
    }
    producer.commit().expect("committed");
    folder.write(
        "job.toml",
        r#"version = 1
[job]
name = "behind"
partitions = 4
[job.checkpoint]
interval = "50ms"
[sources.rows]
connector = "log"
path = "input"
topic = "rows"
rate = 1000
[operators.counts]
uses = "count"
inputs = ["rows"]
key = "k"
[stores.counts]
changelog = "log"
[sinks.out]
connector = "blackhole"
inputs = ["counts"]
"#,
    );
}

#[test]
fn a_job_that_is_behind_says_so_until_it_has_caught_up() {
    let folder = Folder::new();
    job(&folder);
    let flags = RunFlags { workers: 2, http: true, ..RunFlags::new(folder.join("data")) };
    let mut process = Process::start(&Binary::thalweg(), &folder.join("job.toml"), &flags, &folder.join("run.log"));
    let client = Client::new(process.address().expect("it serves"));
    let lag = || client.get("/v1/jobs/behind").expect("an answer").json["lag"].clone();

    until("a lag", || Scrape::of(&client).sum("thalweg_source_lag_records", &["source=\"rows\""]) > Some(0.0));
    until("a lag in the status", || lag()["records"].as_u64() > Some(0) && lag()["seconds"].as_f64() > Some(1.0));
    until("every name", || {
        let scrape = Scrape::of(&client);
        NAMES.iter().all(|name| scrape.sum(name, &["job=\"behind\""]).is_some())
    });
    let scrape = Scrape::of(&client);
    let check = |name: &str, labels: &[&str], fits: &dyn Fn(f64) -> bool| {
        let value = scrape.sum(&format!("thalweg_{name}"), labels);
        assert!(value.is_some_and(fits), "{name} {labels:?} is {value:?}");
    };
    for partition in ["partition=\"0\"", "partition=\"1\""] {
        check("source_lag_records", &[partition], &|records| records <= RECORDS as f64 / 2.0);
        check("source_lag_seconds", &[partition], &|seconds| seconds >= 0.0);
    }
    for operator in ["operator=\"rows\"", "operator=\"counts\"", "operator=\"out\""] {
        check("operator_busy_ratio", &[operator], &|ratio| (0.0..=1.0).contains(&ratio));
    }
    check("operator_frontier_lag_seconds", &["operator=\"counts\""], &|seconds| (0.0..60.0).contains(&seconds));
    check("task_state", &["task=\"0\"", "state=\"running\""], &|state| state == 1.0);
    check("task_state", &["task=\"0\""], &|sum| sum == 1.0);
    check("restore_remaining_records", &[], &|records| records == 0.0);
    check("checkpoint_failures_total", &[], &|failures| failures == 0.0);
    check("records_dropped_total", &["reason=\"decode\""], &|dropped| dropped == 0.0);

    until("everything is read", || {
        let scrape = Scrape::of(&client);
        scrape.sum("thalweg_records_in_total", &[]) == Some(RECORDS as f64)
            && scrape.sum("thalweg_source_lag_records", &[]) == Some(0.0)
            && scrape.sum("thalweg_source_lag_seconds", &[]) == Some(0.0)
            && scrape.sum("thalweg_operator_frontier_lag_seconds", &[]) == Some(0.0)
    });
    assert_eq!((lag()["records"].as_u64(), lag()["seconds"].as_f64()), (Some(0), Some(0.0)));
    process.kill();
}
