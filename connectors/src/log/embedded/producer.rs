//! Transactions: collected in memory, written at the commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use thalweg_core::{Error, PartitionId, Result, failpoint, format_bytes};

use super::MAX_RECORD_BYTES;
use super::batch::{BatchHeader, Staged};
use super::fence::Pass;
use super::log::Inner;
use super::partition::Appender;
use super::topic::Topic;
use crate::log::{NewRecordRef, Producer, Retention};

/// Most bytes of a transaction: it is held in memory, and a segment holds it as a whole.
const MAX_TRANSACTION_BYTES: usize = 1 << 30;
/// Most memory that is kept from one transaction for the next, per partition.
const KEPT_BYTES: usize = 1 << 20;

/// Most files that are synced side by side.
const MAX_SYNC_THREADS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    /// A commit failed: its outcome is unknown.
    Broken,
}

struct StagedTopic {
    topic: Arc<Topic>,
    partitions: BTreeMap<PartitionId, Staged>,
}

/// The producer of an embedded log.
pub(super) struct EmbeddedProducer {
    log: Arc<Inner>,
    pass: Pass,
    stamp: BatchHeader,
    phase: Phase,
    /// Per topic, its partitions; kept from transaction to transaction.
    staged: BTreeMap<String, StagedTopic>,
    bytes: usize,
}

impl EmbeddedProducer {
    pub(super) fn new(log: Arc<Inner>, pass: Pass) -> Self {
        let producer = xxhash_rust::xxh3::xxh3_64(pass.id().as_bytes());
        let stamp = BatchHeader { producer, generation: pass.generation.0, ..BatchHeader::default() };
        Self { log, pass, stamp, phase: Phase::Idle, staged: BTreeMap::new(), bytes: 0 }
    }

    fn expect(&self, phase: Phase, doing: &str) -> Result<()> {
        if self.phase == phase {
            return Ok(());
        }
        let why = match self.phase {
            Phase::Broken => "a commit failed; fence anew",
            Phase::Open => "a transaction is open already",
            Phase::Idle => "no transaction is open; begin one first",
        };
        Err(Error::internal("producer-state", format!("producer {:?} cannot {doing}: {why}", self.pass.id())))
    }

    /// Writes all partitions, then syncs all, then moves all ends: one write and one sync for each. Where a step fails, every
    /// partition that was written and is not shown stops for good.
    fn write(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        let _alive = self.pass.check()?;
        let stamp = BatchHeader { time: self.log.now(), ..self.stamp };
        // In the order of the map: two producers can never wait for each other.
        let mut parts = Vec::new();
        for (name, StagedTopic { topic, partitions }) in &mut self.staged {
            for (partition, staged) in partitions.iter_mut().filter(|(_, staged)| !staged.is_empty()) {
                parts.push((name, *partition, topic.partition(*partition)?.lock(), staged));
            }
        }
        for (_, _, appender, _) in &parts {
            appender.check()?;
        }
        let mut run = || {
            parts.iter_mut().try_for_each(|(_, _, appender, staged)| appender.write(staged, stamp))?;
            sync_all(&mut parts.iter_mut().map(|(_, _, appender, _)| &mut **appender).collect::<Vec<_>>())?;
            failpoint::pass("log-commit")?;
            let ends = parts
                .iter_mut()
                .map(|(name, partition, appender, _)| Ok((name.clone(), *partition, appender.publish()?)));
            ends.collect::<Result<Vec<_>>>()
        };
        let outcome = run();
        if let Err(error) = &outcome {
            // What was written and is not shown must not be written over.
            parts.iter_mut().for_each(|(_, _, appender, _)| appender.fail_unpublished(error.message()));
        }
        outcome
    }

    fn forget(&mut self) {
        self.bytes = 0;
        let all = self.staged.values_mut().flat_map(|topic| topic.partitions.values_mut());
        all.for_each(|staged| staged.clear(KEPT_BYTES));
    }
}

/// Syncs side by side: the file system then writes its journal once for many files, not once for each.
fn sync_all(appenders: &mut [&mut Appender]) -> Result<()> {
    if let [only] = appenders {
        return only.sync();
    }
    let share = appenders.len().div_ceil(MAX_SYNC_THREADS).max(1);
    let sync = |share: &mut [&mut Appender]| share.iter_mut().try_for_each(|appender| appender.sync());
    std::thread::scope(|scope| {
        let threads: Vec<_> = appenders.chunks_mut(share).map(|share| scope.spawn(move || sync(share))).collect();
        let join = |thread: ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let outcomes: Vec<_> = threads.into_iter().map(join).collect();
        outcomes.into_iter().collect()
    })
}

impl Producer for EmbeddedProducer {
    fn begin(&mut self) -> Result<()> {
        self.expect(Phase::Idle, "begin")?;
        drop(self.pass.check()?);
        self.phase = Phase::Open;
        Ok(())
    }

    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        self.expect(Phase::Open, "append")?;
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + headers;
        if bytes > MAX_RECORD_BYTES {
            let (bytes, most) = (format_bytes(bytes as u64), format_bytes(MAX_RECORD_BYTES as u64));
            return Err(Error::user(
                "record-too-large",
                format!("a record of {bytes} for topic {topic:?}: at most {most} fit"),
            ));
        }
        if self.bytes + bytes > MAX_TRANSACTION_BYTES {
            let most = format_bytes(MAX_TRANSACTION_BYTES as u64);
            return Err(Error::user(
                "transaction-too-large",
                format!("topic {topic:?}: a transaction holds {most} at most; commit more often"),
            ));
        }
        if !self.staged.contains_key(topic) {
            let found = StagedTopic { topic: self.log.topic(topic)?, partitions: BTreeMap::new() };
            self.staged.insert(topic.to_owned(), found);
        }
        let StagedTopic { topic: found, partitions } = self.staged.get_mut(topic).expect("inserted above");
        found.partition(partition)?;
        if record.key.is_none() && matches!(found.retention(), Retention::Compact { .. }) {
            return Err(Error::user(
                "key-missing",
                format!("topic {topic:?} is compacted by key: every record needs one"),
            ));
        }
        partitions.entry(partition).or_default().add(record);
        self.bytes += bytes;
        Ok(())
    }

    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        self.expect(Phase::Open, "commit")?;
        let outcome = self.write();
        self.phase = if outcome.is_ok() { Phase::Idle } else { Phase::Broken };
        self.forget();
        outcome
    }

    fn abort(&mut self) -> Result<()> {
        self.expect(Phase::Open, "abort")?;
        self.phase = Phase::Idle;
        self.forget();
        Ok(())
    }
}
