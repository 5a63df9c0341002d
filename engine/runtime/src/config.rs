//! What a task is started with.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_connectors::log::Log;
use thalweg_core::{Binding, Error, JobId, Metrics, PartitionSpec, Result, TaskIndex};
use thalweg_operators::{ChangelogKind, Plan};

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
    /// The logs for bindings and changelogs.
    pub logs: Logs,
    /// Where RocksDB keeps the state.
    pub state_dir: PathBuf,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Another run, to be repeated byte for byte; nothing more is read then.
    pub recorded: Option<RecordedRun>,
    /// Whether bindings stay in the log after their checkpoint, so that the run can be repeated.
    pub keep_bindings: bool,
}

/// The logs of a job.
#[derive(Clone)]
pub struct Logs {
    own: Arc<dyn Log>,
    kafka: Option<Arc<dyn Log>>,
}

impl Logs {
    /// The job's own log, and the cluster of its `[kafka]` where it has one.
    pub fn new(own: Arc<dyn Log>, kafka: Option<Arc<dyn Log>>) -> Self {
        Self { own, kafka }
    }

    /// Where bindings are kept: beside the output, where that is Kafka's, so that both outlive this disk.
    pub(crate) fn bindings(&self) -> &Arc<dyn Log> {
        self.kafka.as_ref().unwrap_or(&self.own)
    }

    /// Where changelogs of a kind are kept.
    ///
    /// Errors: a changelog in Kafka, and no cluster.
    pub(crate) fn changelog(&self, kind: ChangelogKind) -> Result<Option<&Arc<dyn Log>>> {
        match kind {
            ChangelogKind::None => Ok(None),
            ChangelogKind::Log => Ok(Some(&self.own)),
            ChangelogKind::Kafka => self.kafka.as_ref().map(Some).ok_or_else(|| {
                let text =
                    "a store keeps its changelog in Kafka, and the job has no [kafka]; add it with bootstrap_servers";
                Error::user("kafka-missing", text)
            }),
        }
    }
}

/// A run that is repeated.
pub struct RecordedRun {
    /// The job that ran: random numbers are drawn as its own.
    pub job_id: JobId,
    /// All of its source partitions.
    pub sources: Vec<PartitionSpec>,
    /// Its bindings, from the first epoch on.
    pub bindings: Vec<Binding>,
}
