//! What must survive of a job's control: a fold over its entries.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use thalweg_core::{
    CheckpointRecord, CheckpointZero, Epoch, Error, Generation, Lineage, PartitionId, PartitionSpec, RecoveryPlan,
    SourceKey, TaskIndex,
};

use crate::{Entry, ProducerId, Refusal};

/// How many committed checkpoints are remembered for people; only the last one is kept in full.
const PAST_CHECKPOINTS: usize = 32;

/// A job as its entries have made it. Copies that applied the same entries are equal.
///
/// ```
/// use thalweg_coordinator::{Entry, JobHistory, Refused};
/// use thalweg_core::{CheckpointZero, Generation, JobId, JobName, PartitionCount};
/// let zero = CheckpointZero {
///     job_id: JobId(1),
///     job: JobName::new("orders").unwrap(),
///     partitions: PartitionCount::new(4).unwrap(),
///     hash: "memcomparable xxh3-64".into(),
///     sources: vec![],
///     sinks: vec![],
///     created_at: 0,
/// };
/// let mut history = JobHistory::default();
/// history.apply(Entry::Created(zero)).unwrap();
/// history.apply(Entry::GenerationStarted { generation: Generation(1), tasks: 2 }).unwrap();
/// // Somebody who does not know of generation 1 yet:
/// let late = history.apply(Entry::GenerationStarted { generation: Generation(1), tasks: 2 });
/// assert_eq!(late, Err(Refused::Stale { generation: Generation(1), current: Generation(1) }));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHistory {
    zero: Option<CheckpointZero>,
    generation: Generation,
    tasks: u32,
    most_tasks: u32,
    planned: bool,
    plans: Vec<Plan>,
    checkpoint: Option<CheckpointRecord>,
    past: VecDeque<PastCheckpoint>,
    /// The last checkpoint of the current generation that was committed or abandoned.
    decided: Epoch,
    lineage: Lineage,
    /// Source partitions that have come since the job was created. The last field: a snapshot of before it had none.
    added: Vec<PartitionSpec>,
}

/// What a generation started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which generation.
    pub generation: Generation,
    /// C.
    pub checkpoint: Epoch,
    /// B.
    pub last_binding: Epoch,
    /// The fingerprint of the job's plan that it runs.
    pub fingerprint: u64,
}

/// A committed checkpoint, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCheckpoint {
    /// Its epoch.
    pub epoch: Epoch,
    /// The generation that wrote it.
    pub generation: Generation,
    /// The wall clock of its last epoch's binding, microseconds since 1970.
    pub minted_at: i64,
}

/// Why an entry did not change the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It comes from another generation than the current one, or starts one that is not the next.
    #[error("it is of generation {generation}, the current one is {current}")]
    Stale {
        /// The entry's.
        generation: Generation,
        /// The history's.
        current: Generation,
    },
    /// The job exists already.
    #[error("the job exists already")]
    Exists,
    /// The job does not exist.
    #[error("the job was not created")]
    Missing,
    /// A generation has at least one task.
    #[error("a generation has at least one task")]
    NoTasks,
    /// The generation has its plan.
    #[error("the generation has its plan already")]
    Planned,
    /// The generation has no plan yet.
    #[error("the generation has no plan yet")]
    NotPlanned,
    /// The epoch is not after what is decided.
    #[error("epoch {epoch} is not after epoch {decided}, which is decided")]
    Decided {
        /// The entry's.
        epoch: Epoch,
        /// The last that is decided.
        decided: Epoch,
    },
    /// The source partition, or its number, is there already.
    #[error("source {}, partition {}: the job has it already", of.source, of.partition)]
    SourceKnown {
        /// Its number.
        of: SourceKey,
    },
}

/// Whether both are the same partition of one source.
fn is_same(one: &PartitionSpec, other: &PartitionSpec) -> bool {
    one.of.source == other.of.source && one.identity == other.identity
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::internal("entry-refused", format!("an entry of the job's history was refused: {refused}"))
    }
}

impl JobHistory {
    /// Applies the next entry, or refuses it and stays as it is.
    pub fn apply(&mut self, entry: Entry) -> Result<(), Refused> {
        match entry {
            Entry::Created(zero) => {
                if self.zero.is_some() {
                    return Err(Refused::Exists);
                }
                self.zero = Some(zero);
            }
            Entry::GenerationStarted { generation, tasks } => self.start(generation, tasks)?,
            Entry::PlanCommitted { generation, last_binding, fingerprint } => {
                self.plan_committed(generation, last_binding, fingerprint)?;
            }
            Entry::CheckpointCommitted(record) => self.checkpoint_committed(record)?,
            Entry::CheckpointAbandoned { generation, epoch } => {
                self.undecided(generation, epoch)?;
                self.lineage.abandon(generation, epoch);
                self.decided = epoch;
            }
            Entry::SourcesAdded { generation, sources } => self.sources_added(generation, sources)?,
        }
        Ok(())
    }

    fn start(&mut self, generation: Generation, tasks: u32) -> Result<(), Refused> {
        if self.zero.is_none() {
            return Err(Refused::Missing);
        }
        if generation != self.generation.next() {
            return Err(Refused::Stale { generation, current: self.generation });
        }
        if tasks == 0 {
            return Err(Refused::NoTasks);
        }
        self.generation = generation;
        self.tasks = tasks;
        self.most_tasks = self.most_tasks.max(tasks);
        self.planned = false;
        self.decided = self.checkpoint_epoch();
        Ok(())
    }

    fn plan_committed(&mut self, generation: Generation, last_binding: Epoch, fingerprint: u64) -> Result<(), Refused> {
        self.current(generation)?;
        if self.planned {
            return Err(Refused::Planned);
        }
        let checkpoint = self.checkpoint_epoch();
        let least = self.plans.last().map_or(checkpoint, |plan| plan.last_binding.max(checkpoint));
        if last_binding < least {
            return Err(Refused::Decided { epoch: last_binding, decided: least });
        }
        self.planned = true;
        self.plans.push(Plan { generation, checkpoint, last_binding, fingerprint });
        self.forget_plans();
        Ok(())
    }

    fn checkpoint_committed(&mut self, record: CheckpointRecord) -> Result<(), Refused> {
        self.undecided(record.generation, record.epoch)?;
        self.lineage.commit(record.generation, record.epoch);
        self.decided = record.epoch;
        if self.past.len() == PAST_CHECKPOINTS {
            self.past.pop_front();
        }
        let CheckpointRecord { epoch, generation, minted_at, .. } = record;
        self.past.push_back(PastCheckpoint { epoch, generation, minted_at });
        self.checkpoint = Some(record);
        self.forget_plans();
        Ok(())
    }

    fn sources_added(&mut self, generation: Generation, sources: Vec<PartitionSpec>) -> Result<(), Refused> {
        self.current(generation)?;
        if !self.planned {
            return Err(Refused::NotPlanned);
        }
        for (index, spec) in sources.iter().enumerate() {
            let same = |other: &PartitionSpec| other.of == spec.of || is_same(other, spec);
            if self.sources().chain(&sources[..index]).any(same) {
                return Err(Refused::SourceKnown { of: spec.of });
            }
        }
        self.added.extend(sources);
        Ok(())
    }

    fn current(&self, generation: Generation) -> Result<(), Refused> {
        if generation == self.generation && self.zero.is_some() {
            Ok(())
        } else {
            Err(Refused::Stale { generation, current: self.generation })
        }
    }

    /// Whether the current generation may decide this checkpoint.
    fn undecided(&self, generation: Generation, epoch: Epoch) -> Result<(), Refused> {
        self.current(generation)?;
        if !self.planned {
            return Err(Refused::NotPlanned);
        }
        if epoch <= self.decided {
            return Err(Refused::Decided { epoch, decided: self.decided });
        }
        Ok(())
    }

    /// Drops plans that void nothing beyond what later ones void: bindings up to C are never looked at again.
    fn forget_plans(&mut self) {
        let checkpoint = self.checkpoint_epoch();
        let all = std::mem::take(&mut self.plans);
        for (index, plan) in all.iter().enumerate() {
            let voids = |plan: &Plan| plan.last_binding.max(checkpoint);
            if !all[index + 1..].iter().any(|later| voids(later) <= voids(plan)) {
                self.plans.push(*plan);
            }
        }
    }

    /// Checkpoint 0, once the job is created.
    pub fn zero(&self) -> Option<&CheckpointZero> {
        self.zero.as_ref()
    }

    /// Every source partition: those that the job was created with, and those that have come since.
    pub fn sources(&self) -> impl Iterator<Item = &PartitionSpec> {
        self.zero.iter().flat_map(|zero| &zero.sources).chain(&self.added)
    }

    /// Those of `found` that the job does not know, each with the next number of its source.
    ///
    /// Errors: a source has no number left.
    pub(crate) fn unknown(&self, found: Vec<PartitionSpec>) -> Result<Vec<PartitionSpec>, Refusal> {
        let mut added: Vec<PartitionSpec> = Vec::new();
        for spec in found {
            if self.sources().chain(&added).any(|known| is_same(known, &spec)) {
                continue;
            }
            let source = spec.of.source;
            let own = self.sources().chain(&added).filter(|known| known.of.source == source);
            let next = own.map(|known| u32::from(known.of.partition.0) + 1).max().unwrap_or(0);
            let Ok(next) = u16::try_from(next) else { return Err(Refusal::TooManyPartitions { name: spec.name }) };
            added.push(PartitionSpec { of: SourceKey { source, partition: PartitionId(next) }, ..spec });
        }
        Ok(added)
    }

    /// The current generation; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many tasks the current generation has.
    pub fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The last committed checkpoint; nothing where only checkpoint 0 is committed.
    pub fn checkpoint(&self) -> Option<&CheckpointRecord> {
        self.checkpoint.as_ref()
    }

    /// C.
    pub fn checkpoint_epoch(&self) -> Epoch {
        self.checkpoint.as_ref().map_or(Epoch::ZERO, |record| record.epoch)
    }

    /// The last committed checkpoints, newest first.
    pub fn past_checkpoints(&self) -> impl Iterator<Item = &PastCheckpoint> {
        self.past.iter().rev()
    }

    /// The last checkpoint epoch that is decided in the current generation, committed or abandoned; C at its start.
    pub fn decided(&self) -> Epoch {
        self.decided
    }

    /// The plan of the last generation that had one.
    pub fn last_plan(&self) -> Option<&Plan> {
        self.plans.last()
    }

    /// Which changelog records count.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Plans of the past, as [`last_binding`](crate::last_binding) takes them: bindings of generations before `.0` count only
    /// up to epoch `.1`.
    pub fn caps(&self) -> Vec<(Generation, Epoch)> {
        self.plans.iter().map(|plan| (plan.generation, plan.last_binding)).collect()
    }

    /// What the current generation starts from, once its plan is committed.
    pub fn recovery_plan(&self) -> Option<RecoveryPlan> {
        let plan = self.plans.last().filter(|plan| self.planned && plan.generation == self.generation)?;
        Some(RecoveryPlan {
            generation: self.generation,
            zero: self.zero.clone()?,
            sources: self.sources().cloned().collect(),
            checkpoint: self.checkpoint.clone(),
            last_binding: plan.last_binding,
            lineage: self.lineage.clone(),
            caps: self.caps(),
        })
    }

    /// Every id that was ever handed out, those of the current generation included.
    pub fn producers(&self) -> impl Iterator<Item = ProducerId> {
        let of_tasks = (0..self.most_tasks).map(TaskIndex);
        std::iter::once(ProducerId::Bindings)
            .chain(of_tasks.flat_map(|task| [ProducerId::Sinks(task), ProducerId::Changelog(task)]))
    }

    /// The ids that a task of the current generation fences: together its tasks fence every one, those of tasks that exist
    /// no more too.
    pub fn fences_of(&self, task: TaskIndex) -> impl Iterator<Item = ProducerId> {
        let tasks = self.tasks.max(1);
        self.producers().filter(move |id| match id {
            ProducerId::Bindings => task == TaskIndex(0),
            ProducerId::Sinks(owner) | ProducerId::Changelog(owner) => owner.0 % tasks == task.0,
        })
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
