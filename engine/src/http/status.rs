//! What the status routes answer: the wire types of jobs, checkpoints, tasks and stores.

use serde::Serialize;
use thalweg_core::{CheckpointInfo, JobService, JobStatus, Phase, StoreInfo};

use super::answer::age_ms;
use crate::progress::restore_text;

/// A job.
#[derive(Serialize)]
pub(super) struct JobAnswer {
    job: String,
    job_id: String,
    state: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    generation: u64,
    epoch: u64,
    epochs_open: u64,
    checkpoint: Option<CheckpointAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_failure: Option<String>,
    records_in: u64,
    records_out: u64,
    dead_letters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<LagAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore: Option<RestoreAnswer>,
    workers: u32,
}

/// How far the sources are behind.
#[derive(Serialize)]
pub(super) struct LagAnswer {
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

/// A restore from changelogs.
#[derive(Serialize)]
pub(super) struct RestoreAnswer {
    records_done: u64,
    records_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
}

/// A committed checkpoint.
#[derive(Serialize)]
pub(super) struct CheckpointAnswer {
    epoch: u64,
    generation: u64,
    committed_at: String,
    age_ms: u64,
    duration_ms: u64,
    changed_keys: u64,
}

/// A worker process of the job: on one machine there is one.
#[derive(Serialize)]
pub(super) struct TaskAnswer {
    task: u32,
    state: Phase,
    generation: u64,
    workers: u32,
    partitions: Vec<u16>,
}

/// A store.
#[derive(Serialize)]
pub(super) struct StoreAnswer {
    store: String,
    key: String,
    value: String,
    query: bool,
    partitions: Vec<u16>,
    changelog: String,
}

impl From<JobStatus> for JobAnswer {
    fn from(status: JobStatus) -> Self {
        Self {
            job: status.job.into(),
            // As text: JSON numbers of 128 bits are not read exactly by most clients.
            job_id: status.job_id.to_string(),
            state: status.state,
            reason: status.reason,
            generation: status.generation.0,
            epoch: status.epoch.0,
            epochs_open: status.epochs_open,
            checkpoint: status.checkpoint.map(Into::into),
            checkpoint_failure: status.checkpoint_failure,
            records_in: status.records_in,
            records_out: status.records_out,
            dead_letters: status.dead_letters,
            progress: status.progress.map(|ratio| f64::from(ratio.0) / 1e6),
            lag: status.lag.map(|lag| LagAnswer { records: lag.records, seconds: lag.millis.map(seconds) }),
            restore: status.restore.map(|restore| RestoreAnswer {
                records_done: restore.done,
                records_total: restore.total,
                seconds_left: restore.left_ms.map(seconds),
            }),
            workers: status.workers,
        }
    }
}

impl From<CheckpointInfo> for CheckpointAnswer {
    fn from(info: CheckpointInfo) -> Self {
        Self {
            epoch: info.epoch.0,
            generation: info.generation.0,
            committed_at: rfc3339(info.committed_at),
            age_ms: age_ms(info.committed_at),
            duration_ms: info.duration_ms,
            changed_keys: info.changed_keys,
        }
    }
}

impl From<StoreInfo> for StoreAnswer {
    fn from(info: StoreInfo) -> Self {
        Self {
            store: info.store,
            key: info.key,
            value: info.value,
            query: info.query,
            partitions: info.partitions.iter().map(|partition| partition.0).collect(),
            changelog: info.changelog,
        }
    }
}

/// The tasks of a job that runs in this process.
pub(super) fn tasks(job: &dyn JobService) -> Vec<TaskAnswer> {
    let status = job.status();
    let mut partitions: Vec<u16> =
        job.stores().iter().flat_map(|store| &store.partitions).map(|partition| partition.0).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let task = TaskAnswer {
        task: 0,
        state: status.state,
        generation: status.generation.0,
        workers: status.workers,
        partitions,
    };
    vec![task]
}

/// Why a job cannot answer questions now, if it cannot.
pub(super) fn not_ready(status: &JobStatus) -> Option<String> {
    let doing = match status.state {
        Phase::Running | Phase::Finished => return None,
        Phase::Restoring => "is restoring its state",
        Phase::Replaying => "is replaying the epochs since its last checkpoint",
        Phase::Stopped => "has been stopped",
        Phase::Failed => "has failed",
    };
    let restore = status.restore.map(|restore| format!(": {}", restore_text(&restore))).unwrap_or_default();
    let reason = status.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(format!("job {} {doing}{restore}{reason}", status.job))
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

fn rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}
