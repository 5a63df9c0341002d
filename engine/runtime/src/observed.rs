//! Metrics that are computed when somebody looks at them: nobody pays for them otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use thalweg_connectors::Lag;
use thalweg_core::{JobLag, Metrics, Phase, SourceKey, TaskIndex};
use thalweg_operators::{Activity, EpochGate};

/// The shortest time over which a share of busy time means something.
const LEAST_WINDOW: Duration = Duration::from_millis(100);
/// Every phase, with its name as a label.
const PHASES: [(Phase, &str); 6] = [
    (Phase::Restoring, "restoring"),
    (Phase::Replaying, "replaying"),
    (Phase::Running, "running"),
    (Phase::Finished, "finished"),
    (Phase::Stopped, "stopped"),
    (Phase::Failed, "failed"),
];

/// What the metrics of one task need.
pub(crate) struct Observed {
    job: String,
    task: TaskIndex,
    /// The ids of the sources, by index.
    sources: Vec<String>,
    workers: u32,
    /// Since when the busy times are counted that the next look divides by.
    since: Instant,
    busy: BTreeMap<String, Duration>,
}

/// What is seen at one look.
pub(crate) struct Seen<'a> {
    pub(crate) phase: Phase,
    pub(crate) restore_remaining: u64,
    pub(crate) gate: Option<&'a EpochGate>,
    /// Microseconds since 1970.
    pub(crate) now: i64,
}

impl Observed {
    pub(crate) fn new(job: &str, task: TaskIndex, sources: Vec<String>, workers: u32) -> Self {
        Self { job: job.to_owned(), task, sources, workers, since: Instant::now(), busy: BTreeMap::new() }
    }

    /// Sets every metric of this module.
    pub(crate) fn refresh(&mut self, metrics: &Metrics, seen: &Seen<'_>) {
        let (job, task) = (self.job.as_str(), self.task.to_string());
        for (phase, name) in PHASES {
            let labels = [("job", job), ("task", &task), ("state", name)];
            let state = metrics.gauge("task_state", "1 for the state that the task is in, 0 for the others", &labels);
            state.set(f64::from(u8::from(phase == seen.phase)));
        }
        let help = "Changelog records that a restore has still to read";
        metrics.gauge("restore_remaining_records", help, &[("job", job)]).set(seen.restore_remaining as f64);
        let Some(gate) = seen.gate else { return };
        self.refresh_lags(metrics, &gate.lags(), seen.now);
        let activities = gate.activities();
        self.refresh_frontiers(metrics, gate, &activities, seen.now);
        if self.since.elapsed() >= LEAST_WINDOW {
            self.refresh_busy(metrics, &activities);
        }
    }

    fn refresh_lags(&self, metrics: &Metrics, lags: &[(SourceKey, Lag)], now: i64) {
        for (of, lag) in lags {
            let source = self.sources.get(usize::from(of.source)).map_or("", String::as_str);
            let partition = of.partition.to_string();
            let labels = [("job", self.job.as_str()), ("source", source), ("partition", &partition)];
            let help = "Records of a source partition that are there and were not read";
            metrics.gauge("source_lag_records", help, &labels).set(lag.records as f64);
            if let Some(micros) = waiting(lag, now) {
                let help = "For how long the next record of a source partition has been there";
                metrics.gauge("source_lag_seconds", help, &labels).set(micros as f64 / 1e6);
            }
        }
    }

    /// Of operators that wait for epochs to be complete: the age of the first epoch that is bound and that they have not processed.
    fn refresh_frontiers(
        &self,
        metrics: &Metrics,
        gate: &EpochGate,
        activities: &[std::sync::Arc<Activity>],
        now: i64,
    ) {
        let mut processed = BTreeMap::new();
        for (operator, epoch) in activities.iter().filter_map(|one| Some((one.operator(), one.processed()?))) {
            let least = processed.entry(operator).or_insert(epoch);
            *least = epoch.min(*least);
        }
        for (operator, epoch) in processed {
            let waiting = if epoch < gate.released() { gate.try_time_of(epoch.next()) } else { None };
            let seconds = waiting.map_or(0.0, |minted_at| (now - minted_at).max(0) as f64 / 1e6);
            let help = "The age of the oldest epoch that an operator with state has not processed";
            let labels = [("job", self.job.as_str()), ("operator", operator)];
            metrics.gauge("operator_frontier_lag_seconds", help, &labels).set(seconds);
        }
    }

    /// The share of time, since the last look, that the workers spent in each operator.
    fn refresh_busy(&mut self, metrics: &Metrics, activities: &[std::sync::Arc<Activity>]) {
        let window = self.since.elapsed();
        self.since = Instant::now();
        // A worker may have several for one operator, as for its key and its state.
        let mut all: BTreeMap<&str, Duration> = BTreeMap::new();
        for activity in activities {
            *all.entry(activity.operator()).or_default() += activity.busy();
        }
        for (operator, busy) in all {
            let before = self.busy.insert(operator.to_owned(), busy).unwrap_or_default();
            let ratio = busy.saturating_sub(before).as_secs_f64() / (window * self.workers).as_secs_f64();
            let help = "Share of the workers' time that was spent in an operator, source or sink since the last scrape";
            let labels = [("job", self.job.as_str()), ("operator", operator)];
            metrics.gauge("operator_busy_ratio", help, &labels).set(ratio.min(1.0));
        }
    }
}

/// For how long the next record has been there, in microseconds; 0 where there is none, nothing where it is not known.
fn waiting(lag: &Lag, now: i64) -> Option<i64> {
    match lag.records {
        0 => Some(0),
        _ => lag.oldest.map(|oldest| (now - oldest).max(0)),
    }
}

/// The lag of a job out of those of its source partitions; nothing where none can tell.
pub(crate) fn job_lag(lags: &[(SourceKey, Lag)], now: i64) -> Option<JobLag> {
    let oldest = lags.iter().filter_map(|(_, lag)| waiting(lag, now)).max();
    let records = lags.iter().map(|(_, lag)| lag.records).sum();
    (!lags.is_empty())
        .then(|| JobLag { records, millis: oldest.map(|micros| u64::try_from(micros / 1000).unwrap_or(0)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::PartitionId;

    #[test]
    fn the_lag_of_a_job_is_the_sum_of_records_and_the_longest_wait() {
        let of = |partition| SourceKey { source: 0, partition: PartitionId(partition) };
        let check = |lags: &[(u64, Option<i64>)], expected: Option<(u64, Option<u64>)>| {
            let lags: Vec<_> = (0..)
                .zip(lags)
                .map(|(p, (records, oldest))| (of(p), Lag { records: *records, oldest: *oldest }))
                .collect();
            let expected = expected.map(|(records, millis)| JobLag { records, millis });
            assert_eq!(job_lag(&lags, 5_000_000), expected, "{lags:?}");
        };
        check(&[], None);
        check(&[(0, None)], Some((0, Some(0))));
        check(&[(7, None)], Some((7, None)));
        check(&[(7, Some(4_000_000)), (1, Some(2_000_000)), (0, None)], Some((8, Some(3000))));
        check(&[(7, Some(6_000_000))], Some((7, Some(0))));
    }
}
