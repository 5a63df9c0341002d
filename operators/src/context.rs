//! What the operators of one worker share with the rest of the task.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use thalweg_connectors::EncodedBatch;
use thalweg_core::{
    Epoch, Error, JobId, Metrics, PartitionCount, PartitionId, PartitionSpec, Query, QueryResult, Result, WorkerIndex,
};
use thalweg_state::{Backend, SealedStore};

use crate::epoch_gate::EpochGate;

/// The first error of a task: it stops the task.
#[derive(Default)]
pub struct Failure {
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
    wake: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Failure {
    /// Sets what is called once, at the first error.
    pub fn on_failure(&self, wake: impl Fn() + Send + 'static) {
        *self.wake.lock() = Some(Box::new(wake));
    }

    /// Remembers the error if it is the first one.
    pub fn fail(&self, error: Error) {
        let mut first = self.error.lock();
        if first.is_none() {
            *first = Some(error);
            self.failed.store(true, Ordering::Release);
            drop(first);
            if let Some(wake) = &*self.wake.lock() {
                wake();
            }
        }
    }

    /// Whether the task has failed: operators do nothing more.
    #[inline]
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first error; taken once.
    pub fn take(&self) -> Option<Error> {
        self.error.lock().take()
    }
}

/// The records of one epoch for one sink from one worker, encoded, in order of partition; sent once per epoch, also when empty.
pub struct SinkBatch {
    /// The index of the sink in the plan.
    pub sink: u16,
    /// Which worker sends it.
    pub worker: WorkerIndex,
    /// Which epoch is complete on this worker.
    pub epoch: Epoch,
    /// The records.
    pub partitions: Vec<(PartitionId, EncodedBatch)>,
    /// How many records there are.
    pub count: u64,
}

/// A store of an operator on one worker, as the worker's loop sees it.
pub trait OperatorStore {
    /// The operator id, with a suffix for stores that an operator keeps beside its own.
    fn id(&self) -> &str;
    /// Seals what changed up to the chosen checkpoint, where that is the epoch which was processed last.
    fn seal_if_due(&mut self, checkpoint: Epoch);
    /// Whether a sealed checkpoint is still to be encoded.
    fn is_sealed(&self) -> bool;
    /// Encodes at most `rows` sealed values; the sealed rows when all are encoded.
    fn encode(&mut self, rows: usize) -> Result<Option<SealedStore>>;
    /// The checkpoint is committed and applied: what did not change since is clean.
    fn committed(&mut self, epoch: Epoch) -> Result<()>;
    /// The checkpoint was abandoned: everything in it is dirty again, and a store that has not sealed it never does.
    fn abandoned(&mut self, epoch: Epoch);
    /// Bytes of changes that no applied checkpoint holds.
    fn dirty_bytes(&self) -> u64;
    /// Answers from the newest processed state.
    fn query(&mut self, query: &Query) -> QueryResult;
    /// The last epoch that the operator has processed.
    fn epoch(&self) -> Epoch;
}

/// Questions that wait for an epoch's boundary on this worker.
#[derive(Default)]
pub struct Barriers {
    pending: Mutex<VecDeque<Barrier>>,
    any: AtomicBool,
}

/// A question to be answered between `after` and the epoch behind it.
pub struct Barrier {
    /// The last epoch that the answer may include.
    pub after: Epoch,
    /// The operator id of the store.
    pub store: String,
    /// The question.
    pub query: Query,
    /// Where the answer goes.
    pub reply: Box<dyn FnOnce(QueryResult) + Send>,
}

impl Barriers {
    /// Adds a question; `after` must not be released to the sources yet beyond its epoch.
    pub fn push(&self, barrier: Barrier) {
        let mut pending = self.pending.lock();
        pending.push_back(barrier);
        self.any.store(true, Ordering::Release);
    }

    /// The questions of `store` that are due before `epoch` is processed.
    pub fn take_due(&self, store: &str, before: Epoch) -> Vec<Barrier> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut pending = self.pending.lock();
        let (due, rest): (VecDeque<_>, VecDeque<_>) =
            pending.drain(..).partition(|barrier| barrier.store == store && barrier.after < before);
        self.any.store(!rest.is_empty(), Ordering::Release);
        *pending = rest;
        due.into()
    }
}

/// Questions about single keys that wait for this worker.
///
/// An epoch may take longer than who asks should wait, so an operator answers them between two partitions of it: a partition is
/// either as the epoch before left it, or as this one does.
pub trait PointQuestions {
    /// Gives the text of each key that is asked for in the store `id` to `answer`. Nothing: not now, the question keeps its place.
    fn answer(&self, id: &str, answer: &mut dyn FnMut(&str) -> Option<QueryResult>);
}

/// Everything that the operators of one worker share.
pub struct WorkerContext {
    /// Which worker this is.
    pub worker: WorkerIndex,
    /// Whose random numbers are drawn: the job's own, or those of the run that is repeated.
    pub job_id: JobId,
    /// The name of the job, for metrics.
    pub job: String,
    /// The number of partitions.
    pub partitions: PartitionCount,
    /// For each partition the worker that hosts it.
    pub assignment: Arc<[u32]>,
    /// Every source partition of the job.
    pub sources: Arc<[PartitionSpec]>,
    /// Positions at C: where each source partition goes on.
    pub source_starts: Arc<dyn Fn(&PartitionSpec) -> u64 + Send + Sync>,
    /// The epochs.
    pub gate: Arc<EpochGate>,
    /// The task's RocksDB.
    pub backend: Arc<Backend>,
    /// Bytes of memory for the values of each store on this worker.
    pub store_budget: u64,
    /// The stores that operators have registered while the graph was built.
    pub stores: RefCell<Vec<Rc<RefCell<dyn OperatorStore>>>>,
    /// Where encoded output goes.
    pub sinks: Arc<dyn Fn(SinkBatch) + Send + Sync>,
    /// The first error.
    pub failure: Arc<Failure>,
    /// Questions at an epoch's boundary.
    pub barriers: Arc<Barriers>,
    /// Questions about single keys.
    pub questions: Rc<dyn PointQuestions>,
    /// The metrics of the process.
    pub metrics: Metrics,
}

impl WorkerContext {
    /// The worker that hosts a partition; source partitions follow the same table, modulo P, so that a partition number is
    /// always at home on one worker.
    #[inline]
    pub fn host_of(&self, partition: PartitionId) -> u32 {
        self.assignment[usize::from(partition.0) % self.assignment.len()]
    }

    /// The partitions that this worker hosts.
    pub fn hosted(&self) -> Vec<PartitionId> {
        self.partitions.all().filter(|partition| self.host_of(*partition) == self.worker.0).collect()
    }
}
