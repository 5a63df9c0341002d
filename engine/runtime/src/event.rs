//! What the threads of a task tell each other.

use thalweg_core::{
    CheckpointAck, Command, Epoch, Error, Generation, Query, QueryResult, ReadOptions, SinkKey, StoreState,
};
use thalweg_operators::SourceEvent;
use thalweg_state::SealedStore;

/// To the driver.
pub(crate) enum DriverEvent {
    /// From the coordinator.
    Command(Command),
    /// From a source.
    Source(SourceEvent),
    /// A worker or the sinks have processed more.
    Progress,
    /// The checkpointer has made a checkpoint durable.
    Durable(Durable),
    /// The checkpointer has applied a committed checkpoint.
    Applied(Epoch),
    /// The changelogs of a checkpoint could not be written: it has to be given up.
    CheckpointFailed(Epoch, Error),
    /// A worker has been told of a decided checkpoint.
    Settled(Epoch),
    /// A question that all workers answer at one epoch.
    Ask(Box<Question>),
    /// Read no more input.
    Stop,
    /// A thread has failed; the error is in the task's failure.
    Failed,
}

/// A checkpoint that is durable on this task and not committed yet.
pub(crate) struct Durable {
    pub(crate) epoch: Epoch,
    pub(crate) stores: Vec<StoreState>,
    pub(crate) sinks: Vec<(SinkKey, u64)>,
    pub(crate) sinks_at: Epoch,
    pub(crate) changed: u64,
}

/// A question with where its answer goes.
pub(crate) struct Question {
    pub(crate) store: String,
    pub(crate) query: Query,
    pub(crate) options: ReadOptions,
    pub(crate) reply: thalweg_core::Reply,
}

/// To a worker.
pub(crate) enum WorkerMessage {
    /// Look at the chosen checkpoint and the waiting questions.
    Look,
    /// A question that this worker alone answers.
    Ask(Box<Question>),
    /// The checkpoint is committed and applied.
    Applied(Epoch),
    /// The checkpoint was given up.
    Abandoned(Epoch),
    /// Take the dataflow down.
    Stop,
}

/// To the checkpointer.
pub(crate) enum CheckpointMessage {
    /// A checkpoint begins.
    Begin(Epoch),
    /// A store of a worker is encoded.
    Sealed(Box<SealedStore>),
    /// Every sink is durable up to the checkpoint, with its end there.
    Synced(Epoch, Vec<(SinkKey, u64)>),
    /// It is committed.
    Committed(Epoch),
    /// It was given up.
    Abandoned(Epoch),
    /// The task is over.
    Stop,
}

/// From a task to whoever runs it.
#[derive(Debug)]
pub enum TaskEvent {
    /// For the coordinator.
    Report(thalweg_core::Report),
    /// Changes fill the memory: a checkpoint is wanted before its time.
    CheckpointWanted,
    /// A checkpoint cannot be written and has to be given up; the task goes on and tries another one later.
    CheckpointFailed {
        /// The task's generation.
        generation: Generation,
        /// Its epoch.
        epoch: Epoch,
    },
    /// All input is read (or reading was stopped) and processed: a last checkpoint completes the job.
    Drained(Epoch),
    /// A committed checkpoint is applied.
    Applied(Epoch),
    /// The task has stopped by an error.
    Failed(thalweg_core::Error),
}

/// The outcome of a question where a queue is full or the task is over.
pub(crate) fn unavailable(why: &str) -> QueryResult {
    Err(thalweg_core::QueryError::Unavailable(why.to_owned()))
}

impl From<CheckpointAck> for TaskEvent {
    fn from(ack: CheckpointAck) -> Self {
        TaskEvent::Report(thalweg_core::Report::Acknowledged(Box::new(ack)))
    }
}
