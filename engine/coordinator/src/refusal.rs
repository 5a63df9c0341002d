//! Why a job cannot go on.

use thalweg_core::{Epoch, Error, Generation, SinkKey, TaskIndex};

/// What stops a job for good until somebody looks at it: going on would give a wrong answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A sink shows records of an epoch that no binding explains.
    #[error(
        "sink {}, partition {}: it holds records of epoch {epoch}, but the last binding is of epoch {last_binding}; the bindings log lost records, or something else writes to the sink",
        of.sink, of.partition
    )]
    SinkBeyondBinding {
        /// The sink's partition.
        of: SinkKey,
        /// The last epoch that it shows.
        epoch: Epoch,
        /// B.
        last_binding: Epoch,
    },
    /// A sink ends before the place that the checkpoint names.
    #[error(
        "sink {}, partition {}: it ends at {end}, but checkpoint {checkpoint} has written it up to {expected}; put the lost output back, or start the job under a new name",
        of.sink, of.partition
    )]
    SinkBehindCheckpoint {
        /// The sink's partition.
        of: SinkKey,
        /// Where it ends.
        end: u64,
        /// Where it ended at C.
        expected: u64,
        /// C.
        checkpoint: Epoch,
    },
    /// Bindings that a past plan has kept are missing.
    #[error(
        "the bindings log ends at epoch {found}, but generation {generation} has replayed it up to epoch {expected}; put the lost bindings back"
    )]
    BindingsLost {
        /// Who found it longer.
        generation: Generation,
        /// Its B.
        expected: Epoch,
        /// B now.
        found: Epoch,
    },
    /// Two bindings of one epoch count.
    #[error(
        "epoch {epoch} is bound by generation {first} and by generation {second}: the bindings log was written by two"
    )]
    BoundTwice {
        /// The epoch.
        epoch: Epoch,
        /// One generation.
        first: Generation,
        /// The other one.
        second: Generation,
    },
    /// The job's plan is another one, and epochs that the old one has bound are not in a checkpoint yet.
    #[error(
        "the job has changed (plan {current:016x}, was {stored:016x}), and epochs {} to {last_binding} of the old one are not in a checkpoint yet; run the old version once more and stop it, then start this one",
        checkpoint.next()
    )]
    FingerprintChanged {
        /// The fingerprint that bound them.
        stored: u64,
        /// The fingerprint of the plan that is to run.
        current: u64,
        /// C.
        checkpoint: Epoch,
        /// B.
        last_binding: Epoch,
    },
    /// A source has more partitions than there are numbers.
    #[error("{name}: a source has at most 65536 partitions; read its topics by several sources")]
    TooManyPartitions {
        /// The first that has no number.
        name: String,
    },
    /// A task has acknowledged what cannot be.
    #[error("task {task} acknowledged checkpoint {epoch} against the rules: {why}")]
    BrokenAcknowledgement {
        /// The task.
        task: TaskIndex,
        /// The epoch that it names.
        epoch: Epoch,
        /// The rule.
        why: &'static str,
    },
}

impl Refusal {
    /// A stable name, in kebab case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SinkBeyondBinding { .. } => "sink-beyond-binding",
            Self::SinkBehindCheckpoint { .. } => "sink-behind-checkpoint",
            Self::BindingsLost { .. } => "bindings-lost",
            Self::BoundTwice { .. } => "bound-twice",
            Self::FingerprintChanged { .. } => "fingerprint-changed",
            Self::TooManyPartitions { .. } => "too-many-partitions",
            Self::BrokenAcknowledgement { .. } => "broken-acknowledgement",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match &refusal {
            Refusal::FingerprintChanged { .. } | Refusal::TooManyPartitions { .. } => {
                Self::user(refusal.code(), message)
            }
            Refusal::SinkBeyondBinding { .. } | Refusal::SinkBehindCheckpoint { .. } | Refusal::BindingsLost { .. } => {
                Self::external(refusal.code(), message)
            }
            Refusal::BoundTwice { .. } | Refusal::BrokenAcknowledgement { .. } => {
                Self::internal(refusal.code(), message)
            }
        }
    }
}
