//! What the coordinator says to the tasks of a job, and what they answer. Runtime and coordinator meet only here.
//!
//! ```text
//! coordinator                      task
//!   Fence{g} ───────────────────────▶  fences every id of the past, opens its logs under g
//!   ◀─────────────────────── Fenced{g}          first barrier: all have fenced
//!   Scan{g, caps, C} ───────────────▶  reads bindings after C and the tails of its sinks
//!   ◀────────────────────── Scanned{g}          second barrier: all have reported
//!   Run(plan) ──────────────────────▶  restores C, replays (C, B], then mints new epochs
//!   Checkpoint{g} ──────────────────▶  picks an epoch c, seals, writes
//!   ◀─────────────────── Acknowledged{g, c}     every partition and every sink of that task
//!   Committed / Abandoned ──────────▶  applies c or marks its values dirty again
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    CheckpointRecord, CheckpointZero, Epoch, Generation, Lineage, PartitionSpec, SinkKey, SourceState, StoreState,
    TaskIndex,
};

/// From the coordinator to a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Fence every id that was ever handed out, under the new generation.
    Fence {
        /// The new generation.
        generation: Generation,
    },
    /// All fences are seen: read the bindings after `after`, and the tails of the sinks.
    Scan {
        /// The current generation.
        generation: Generation,
        /// C.
        after: Epoch,
        /// Plans of the past: bindings of generations before `.0` count only up to epoch `.1`.
        caps: Vec<(Generation, Epoch)>,
    },
    /// The committed plan: restore, replay, go on.
    Run(Box<RecoveryPlan>),
    /// Start a checkpoint at an epoch boundary of the task's choice.
    Checkpoint {
        /// The current generation.
        generation: Generation,
    },
    /// The checkpoint is committed: apply it.
    Committed {
        /// The current generation.
        generation: Generation,
        /// The checkpoint.
        epoch: Epoch,
    },
    /// The checkpoint was given up: its values are dirty again.
    Abandoned {
        /// The current generation.
        generation: Generation,
        /// The checkpoint.
        epoch: Epoch,
    },
    /// These source partitions have come and belong to the job now: they are taken in at an epoch boundary of the task's choice.
    AddSources {
        /// The current generation.
        generation: Generation,
        /// Each with its number and its start.
        sources: Vec<PartitionSpec>,
    },
    /// Stop for good: this generation is over.
    Stop,
}

/// What a new generation starts from; committed once, by compare-and-set on the generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPlan {
    /// The generation.
    pub generation: Generation,
    /// Checkpoint 0.
    pub zero: CheckpointZero,
    /// Every source partition: those of checkpoint 0, and those that have come since.
    pub sources: Vec<PartitionSpec>,
    /// C, or nothing where only checkpoint 0 is committed.
    pub checkpoint: Option<CheckpointRecord>,
    /// B: the last binding without a gap behind it; (C, B] is replayed.
    pub last_binding: Epoch,
    /// Which changelog records count.
    pub lineage: Lineage,
    /// As in [`Command::Scan`], with this plan's own cap.
    pub caps: Vec<(Generation, Epoch)>,
}

impl RecoveryPlan {
    /// The epoch of C.
    pub fn checkpoint_epoch(&self) -> Epoch {
        self.checkpoint.as_ref().map_or(Epoch::ZERO, |record| record.epoch)
    }
}

/// From a task to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Every id of the past is fenced.
    Fenced(Fenced),
    /// What was found after the first barrier.
    Scanned(ScanReport),
    /// The checkpoint is durable here.
    Acknowledged(Box<CheckpointAck>),
    /// Source partitions have come that the job does not know.
    Found(SourcesFound),
}

/// Answer to [`Command::Fence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The generation that was asked for.
    pub generation: Generation,
    /// Who answers.
    pub task: TaskIndex,
}

/// Answer to [`Command::Scan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// The generation that was asked for.
    pub generation: Generation,
    /// Who answers.
    pub task: TaskIndex,
    /// The bindings found, as (generation, epoch) in log order; only from the task that owns the bindings log.
    pub bindings: Vec<(Generation, Epoch)>,
    /// How far each sink partition got.
    pub sinks: Vec<SinkTail>,
}

/// Source partitions that were not there when the job was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcesFound {
    /// The generation that looked.
    pub generation: Generation,
    /// Each with the identity and the start that it will keep; the numbers are the coordinator's to give.
    pub sources: Vec<PartitionSpec>,
}

/// How far a sink partition got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkTail {
    /// Which one.
    pub of: SinkKey,
    /// The last epoch whose records it shows, where the sink can tell.
    pub epoch: Option<Epoch>,
    /// Its end, in the sink's own unit (bytes of a file, offset of a topic partition).
    pub end: u64,
}

/// A task's part of a checkpoint: everything that it names is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointAck {
    /// The generation.
    pub generation: Generation,
    /// Who answers.
    pub task: TaskIndex,
    /// The epoch of the checkpoint.
    pub epoch: Epoch,
    /// Fingerprint of the plan.
    pub fingerprint: u64,
    /// Wall clock of the epoch's binding.
    pub minted_at: i64,
    /// The task's source partitions.
    pub sources: Vec<SourceState>,
    /// The task's partitions of every store.
    pub stores: Vec<StoreState>,
    /// The task's sink partitions: each at or past the epoch.
    pub sinks: Vec<(SinkKey, u64)>,
    /// The last epoch that every sink of the task has made durable; at least `epoch`.
    pub sinks_at: Epoch,
}
