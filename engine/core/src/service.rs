//! What a running job shows to the outside: status and stores. The runtime implements it, HTTP and the command line read it.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, JobId, JobName, PartitionId, Query, QueryResult, ReadOptions};

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Fencing, scanning, restoring state.
    Restoring,
    /// Replaying epochs that were bound before the restart.
    Replaying,
    /// Minting new epochs.
    Running,
    /// All bounded input is read and the final checkpoint is committed; queries are still answered.
    Finished,
    /// Stopped on request after a last checkpoint.
    Stopped,
    /// Stopped by an error; the reason says which.
    Failed,
}

/// The last committed checkpoint, for people and scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Its epoch.
    pub epoch: Epoch,
    /// The generation that wrote it.
    pub generation: Generation,
    /// When it was committed, microseconds since 1970.
    pub committed_at: i64,
    /// From its start to the commit, milliseconds.
    pub duration_ms: u64,
    /// Changed keys that it wrote.
    pub changed_keys: u64,
}

/// How a job is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its name.
    pub job: JobName,
    /// Its id.
    pub job_id: JobId,
    /// Where it is in its life.
    pub state: Phase,
    /// Why it is not running, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The current generation.
    pub generation: Generation,
    /// The newest epoch that all operators have processed and whose binding is durable.
    pub epoch: Epoch,
    /// Epochs that are minted and not processed.
    pub epochs_open: u64,
    /// The last committed checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointInfo>,
    /// Why the checkpoints since then could not be written; the job goes on and tries again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_failure: Option<String>,
    /// Records read since the process started.
    pub records_in: u64,
    /// Records given to sinks since the process started.
    pub records_out: u64,
    /// Dead letters written since the process started.
    pub dead_letters: u64,
    /// Of bounded input: how much is read, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressRatio>,
    /// How far the sources are behind, where they can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<JobLag>,
    /// What is left to read of the changelogs, while state is restored from them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreInfo>,
    /// Worker threads.
    pub workers: u32,
}

/// How far the sources of a job are behind what they could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLag {
    /// Records that are there and were not read, in all source partitions that can tell.
    pub records: u64,
    /// For how long the oldest of them has been there, milliseconds, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

/// A restore from changelogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreInfo {
    /// Changelog records that are read.
    pub done: u64,
    /// Of so many, as offsets tell.
    pub total: u64,
    /// How long the rest will take at the pace so far, milliseconds; nothing before the first is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// A ratio between 0 and 1 in millionths, so that it compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProgressRatio(pub u32);

/// A store of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// The operator id that it belongs to.
    pub store: String,
    /// The shape of its keys.
    pub key: String,
    /// The shape of its values.
    pub value: String,
    /// Whether it may be queried.
    pub query: bool,
    /// Its partitions on this task.
    pub partitions: Vec<PartitionId>,
    /// How its changes are kept: `kafka`, `log` or `none`.
    pub changelog: String,
}

/// Where an answer goes; called once, from any thread, and must not block.
pub type Reply = Box<dyn FnOnce(QueryResult) + Send>;

/// A running job, as it is seen from outside. Every call returns at once.
pub trait JobService: Send + Sync {
    /// How it is doing.
    fn status(&self) -> JobStatus;

    /// Its stores.
    fn stores(&self) -> Vec<StoreInfo>;

    /// The last committed checkpoints, newest first.
    fn checkpoints(&self) -> Vec<CheckpointInfo>;

    /// The graph as JSON: `{"nodes":[{"id","kind","uses"}],"edges":[{"from","to"}]}`.
    fn graph(&self) -> serde_json::Value;

    /// Asks a store; the answer comes later, or an error at once where the queue of the owner is full.
    fn ask(&self, store: &str, query: Query, options: ReadOptions, reply: Reply);
}
