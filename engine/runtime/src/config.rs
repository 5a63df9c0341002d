//! What a task is started with.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_connectors::log::Log;
use thalweg_core::{Binding, JobId, Metrics, TaskIndex};
use thalweg_operators::Plan;

/// What a task is started with.
pub struct TaskConfig {
    /// The job.
    pub plan: Arc<Plan>,
    /// Its id.
    pub job_id: JobId,
    /// Which task of the job this is.
    pub task: TaskIndex,
    /// Worker threads.
    pub workers: usize,
    /// The log for bindings and changelogs.
    pub log: Arc<dyn Log>,
    /// Where RocksDB keeps the state.
    pub state_dir: PathBuf,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Another run, to be repeated byte for byte; nothing more is read then.
    pub recorded: Option<RecordedRun>,
    /// Whether bindings stay in the log after their checkpoint, so that the run can be repeated.
    pub keep_bindings: bool,
}

/// A run that is repeated.
pub struct RecordedRun {
    /// The job that ran: random numbers are drawn as its own.
    pub job_id: JobId,
    /// Its bindings, from the first epoch on.
    pub bindings: Vec<Binding>,
}
