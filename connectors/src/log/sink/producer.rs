//! The one producer of a task's sinks on a log: fenced at the start of a generation, thrown away when it may be confused, replaced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Error, Generation, PartitionId, Result};

use crate::log::{Delivery, Log, NewRecordRef, Owner, Producer};

/// Replacements in a row without a commit in between, before the job is told that it cannot write. Each waits for the broker
/// by itself.
const MAX_REPLACEMENTS: u32 = 8;

/// Counts the producers of a task: what was appended to one is gone with it unless it was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Incarnation(u64);

/// One transaction of a task's producers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Transaction(u64);

/// How many committed transactions are remembered: more than there are sinks that could ask.
const REMEMBERED: usize = 1024;

/// See the module's description.
pub struct SinkProducer {
    log: Arc<dyn Log>,
    id: String,
    delivery: Delivery,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    generation: Option<Generation>,
    producer: Option<Box<dyn Producer>>,
    incarnation: u64,
    /// The one that is open, or the last one.
    transaction: Transaction,
    committed: VecDeque<Transaction>,
    /// A transaction is open.
    open: bool,
    /// The topics that it has records of.
    touched: Vec<String>,
    /// Topics of which a transaction has failed: it may have taken with it what was acknowledged before.
    doubted: BTreeSet<String>,
    /// Something failed in it: it can only be replaced.
    failed: Option<Error>,
    /// Replacements since the last commit.
    replaced: u32,
    /// Where committed transactions of this generation ended.
    ends: BTreeMap<(String, PartitionId), u64>,
}

/// What keeps what was acknowledged in a topic, and is decided there, from being taken for visible.
pub(super) enum Doubt {
    /// Nothing.
    None,
    /// This transaction, which is open: it may fail yet, or have failed.
    Open(Transaction),
    /// One that has failed.
    Failed,
}

/// What a commit came to.
pub(super) enum Committed {
    /// Everything that was appended is visible.
    Visible,
    /// It failed or its outcome is unknown: the producer has been replaced, see what is there.
    Replaced,
}

impl SinkProducer {
    /// The producer of id `id`, `{job_id}-sinks-{task}`.
    pub fn new(log: Arc<dyn Log>, id: String, delivery: Delivery) -> Self {
        Self { log, id, delivery, current: Mutex::default() }
    }

    /// Its log.
    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.log)
    }

    /// Who writes, to those who read it back.
    pub(super) fn owner(&self) -> Owner<'_> {
        let generation = self.current.lock().generation;
        Owner::fenced(&self.id, generation.expect("a writer enters before it reads back"))
    }

    /// What is promised.
    pub(super) fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Begins a generation, or joins it: fences whoever wrote before.
    ///
    /// Errors: `fenced` where a newer generation writes.
    pub(super) fn enter(&self, generation: Generation) -> Result<Incarnation> {
        let mut current = self.current.lock();
        if current.generation.is_some_and(|known| known > generation) {
            let (id, known) = (&self.id, current.generation.unwrap_or_default());
            let message = format!("producer {id:?}: generation {generation} is over, generation {known} writes");
            return Err(Error::external("fenced", message));
        }
        if current.generation < Some(generation) || current.producer.is_none() {
            let producer = self.log.producer(&self.id, generation, self.delivery)?;
            let incarnation = current.incarnation + 1;
            let transaction = current.transaction;
            let fresh = Current { generation: Some(generation), producer: Some(producer), ..Current::default() };
            *current = Current { incarnation, transaction, ..fresh };
        }
        Ok(Incarnation(current.incarnation))
    }

    /// The producer that is appended to now.
    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation(self.current.lock().incarnation)
    }

    /// Whether a transaction is known to be committed.
    pub(super) fn is_committed(&self, transaction: Transaction) -> bool {
        self.current.lock().committed.contains(&transaction)
    }

    /// Appends records to the open transaction, and opens one where there is none: `fill` is given where to put each.
    /// Returns the transaction that was open at the end; where nothing was appended, the one before. An error of the log makes the
    /// transaction fail at its commit, so that one place mends it; one that only the user can mend comes at once.
    pub(super) fn append(
        &self,
        topic: &str,
        fill: impl FnOnce(&mut dyn FnMut(PartitionId, NewRecordRef<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<Transaction> {
        let current = &mut *self.current.lock();
        fill(&mut |partition, record| Self::append_one(current, topic, partition, record))?;
        if current.open && !current.touched.iter().any(|touched| touched == topic) {
            current.touched.push(topic.to_owned());
        }
        Ok(current.transaction)
    }

    /// What is to be known of a topic before what is decided there is taken for visible.
    pub(super) fn doubt(&self, topic: &str) -> Doubt {
        let current = self.current.lock();
        if current.doubted.contains(topic) {
            Doubt::Failed
        } else if current.open && current.touched.iter().any(|touched| touched == topic) {
            Doubt::Open(current.transaction)
        } else {
            Doubt::None
        }
    }

    /// Everything that was acknowledged in a topic was found there.
    pub(super) fn trust(&self, topic: &str) {
        self.current.lock().doubted.remove(topic);
    }

    /// Whether a transaction is the one that is open.
    pub(super) fn is_open(&self, transaction: Transaction) -> bool {
        let current = self.current.lock();
        current.open && current.transaction == transaction
    }

    fn append_one(current: &mut Current, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        if current.failed.is_some() {
            return Ok(());
        }
        let producer = current.producer.as_mut().expect("a writer enters before it appends");
        let mut begun = Ok(());
        if !current.open {
            current.open = true;
            current.transaction = Transaction(current.transaction.0 + 1);
            begun = producer.begin();
        }
        match begun.and_then(|()| producer.append_ref(topic, partition, record)) {
            Ok(()) => Ok(()),
            Err(error) if error.blame() == thalweg_core::Blame::External => {
                current.failed = Some(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The end of the last transaction of this generation that touched a partition.
    pub(super) fn end(&self, topic: &str, partition: PartitionId) -> Option<u64> {
        self.current.lock().ends.get(&(topic.to_owned(), partition)).copied()
    }

    /// Commits what is open.
    ///
    /// Errors: what no new producer can mend: a newer generation, a broker that stays away, a record that nobody takes.
    pub(super) fn commit(&self) -> Result<Committed> {
        let current = &mut *self.current.lock();
        let producer = current.producer.as_mut().expect("a writer enters before it commits");
        let outcome = match (current.failed.take(), current.open) {
            (Some(error), _) => Err(error),
            (None, true) => producer.commit(),
            (None, false) => Ok(Vec::new()),
        };
        match outcome {
            Ok(ends) => {
                if std::mem::take(&mut current.open) {
                    current.committed.push_back(current.transaction);
                    let surplus = current.committed.len().saturating_sub(REMEMBERED);
                    current.committed.drain(..surplus);
                }
                current.replaced = 0;
                current.touched.clear();
                current.ends.extend(ends.into_iter().map(|(topic, partition, end)| ((topic, partition), end)));
                if producer.is_spent() {
                    tracing::debug!("producer {:?} was slow or lost a connection: it is replaced", self.id);
                    self.replace(current)?;
                }
                Ok(Committed::Visible)
            }
            Err(error) if error.blame() == thalweg_core::Blame::User => Err(error),
            Err(error) => {
                tracing::warn!("producer {:?}: {error}; a new one fences it and looks what is there", self.id);
                current.replaced += 1;
                if current.replaced > MAX_REPLACEMENTS {
                    return Err(error.context(format!("{MAX_REPLACEMENTS} producers in a row could not write")));
                }
                self.replace(current)?;
                Ok(Committed::Replaced)
            }
        }
    }

    /// A new producer under the same id and generation. Being fenced proves no newer generation: the log looks.
    fn replace(&self, current: &mut Current) -> Result<()> {
        current.producer = None;
        current.open = false;
        // Before the fence, which drops what is left of it.
        current.doubted.extend(std::mem::take(&mut current.touched));
        current.failed = None;
        current.incarnation += 1;
        let generation = current.generation.expect("a writer enters before it commits");
        current.producer = Some(self.log.producer(&self.id, generation, self.delivery)?);
        Ok(())
    }
}
