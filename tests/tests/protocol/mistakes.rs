//! Known mistakes, each put back by a client of the log that does what an implementation with that mistake would do, or in a step of the
//! job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thalweg_connectors::log::simulated::{SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{
    Journal, Log, LogReader, LogRecord, NewRecord, NewRecordRef, Owner, Producer, Retention, TopicInfo, TopicSpec,
};
use thalweg_coordinator::JobHistory;
use thalweg_core::{Error, Generation, PartitionId, Result};
use thalweg_state::changelog::{ChangelogKey, ChangelogValue, Slot};

use crate::world::changelog;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    NoFirstBarrier,
    NoSecondBarrier,
    NoLookAfterInit,
    OnlyNewIdsFenced,
    BindingsNotFenced,
    FencedMeansOver,
    LastBindingFromSinks,
    BindingsUnderRetention,
    BindingsReadCommitted,
    VisibleBeforeDurable,
    CheckpointBeforeSinks,
    StaleAckCounted,
    ProducerReused,
    PositionsIgnored,
    MarkerForPositions,
    NoRescan,
    ScanToStableEnd,
    // Of markers that a broker loses.
    NotReleased,
    SettledNotAwaited,
    DecidedTakenForVisible,
    SinksReleasedByCommit,
    AcknowledgedNotLookedFor,
    // Of the changelog.
    ChangelogNotAwaited,
    ChangelogNotFenced,
    CheckpointBeforeChangelog,
    SingleSlot,
    TombstonesIgnored,
    ReadToTheOffsetOfC,
    UncommittedSkipped,
    NoRetentionOfTombstones,
    AbandonedCounted,
    AbandonedTakenForCommitted,
    /// Of every read, what is written is not given.
    Misread,
    /// Of the first one of a process. That one may be: it is made up for.
    MisreadOnce,
}

impl Mistake {
    pub(crate) const ALL: [Self; 33] = [
        Self::NoFirstBarrier,
        Self::NoSecondBarrier,
        Self::NoLookAfterInit,
        Self::OnlyNewIdsFenced,
        Self::BindingsNotFenced,
        Self::FencedMeansOver,
        Self::LastBindingFromSinks,
        Self::BindingsUnderRetention,
        Self::BindingsReadCommitted,
        Self::VisibleBeforeDurable,
        Self::CheckpointBeforeSinks,
        Self::StaleAckCounted,
        Self::ProducerReused,
        Self::PositionsIgnored,
        Self::MarkerForPositions,
        Self::NoRescan,
        Self::ScanToStableEnd,
        Self::NotReleased,
        Self::SettledNotAwaited,
        Self::DecidedTakenForVisible,
        Self::SinksReleasedByCommit,
        Self::AcknowledgedNotLookedFor,
        Self::ChangelogNotAwaited,
        Self::ChangelogNotFenced,
        Self::CheckpointBeforeChangelog,
        Self::SingleSlot,
        Self::TombstonesIgnored,
        Self::ReadToTheOffsetOfC,
        Self::UncommittedSkipped,
        Self::NoRetentionOfTombstones,
        Self::AbandonedCounted,
        Self::AbandonedTakenForCommitted,
        Self::Misread,
    ];

    pub(crate) fn first_seed(self) -> u64 {
        FIRST_SEEDS.iter().find(|(mistake, _)| *mistake == self).map_or(0, |(_, seed)| *seed)
    }

    fn is_from(self, first: Self) -> bool {
        let place = |of: Self| Self::ALL.iter().position(|mistake| *mistake == of);
        place(self) >= place(first)
    }

    /// Whether it can only be made where there is state.
    pub(crate) fn is_of_changelog(self) -> bool {
        self.is_from(Self::ChangelogNotAwaited)
    }

    /// Whether it can only be made where brokers lose markers.
    pub(crate) fn is_of_lost_markers(self) -> bool {
        self.is_from(Self::NotReleased) && !self.is_from(Self::ChangelogNotFenced)
    }
}

/// Where the search begins: at a seed that has found the mistake, where those before it have not for long.
const FIRST_SEEDS: [(Mistake, u64); 4] = [
    (Mistake::TombstonesIgnored, 250),
    (Mistake::ReadToTheOffsetOfC, 1241),
    (Mistake::UncommittedSkipped, 1805),
    (Mistake::NoRetentionOfTombstones, 356),
];

/// What clients that make a mistake know, besides what they ask of the log.
#[derive(Default)]
pub(crate) struct Known {
    /// Where the changelog of a partition stood after the last committed checkpoint that wrote it.
    pub(crate) ends_of_c: BTreeMap<PartitionId, u64>,
    /// Records of transactions that have no marker at their end.
    unmarked: BTreeSet<(String, PartitionId, u64)>,
}

/// A client that makes a mistake.
pub(crate) struct WrongLog {
    pub(crate) inner: Arc<SimulatedLog>,
    pub(crate) cluster: Arc<SimulatedCluster>,
    pub(crate) history: Arc<Mutex<JobHistory>>,
    pub(crate) mistake: Mistake,
    pub(crate) known: Arc<Mutex<Known>>,
    /// Ids that were fenced, partitions that were read, and ids whose last transaction was acknowledged, by this process.
    pub(crate) done: Arc<Mutex<BTreeSet<String>>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl WrongLog {
    /// Whether this process does it for the first time.
    fn is_first(&self, what: &str) -> bool {
        held(&self.done).insert(what.to_owned())
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }
}

impl Log for WrongLog {
    fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        let mut topic = topic.clone();
        if let (Mistake::NoRetentionOfTombstones, Retention::Compact { delete_retention_ms }) =
            (self.mistake, &mut topic.retention)
        {
            *delete_retention_ms = 0;
        }
        self.inner.ensure(&topic)
    }

    fn topics(&self) -> Result<Vec<(String, u32)>> {
        self.inner.topics()
    }

    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        self.inner.topic(name)
    }

    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        if self.is(Mistake::ChangelogNotFenced) && id.contains("-changelogs-") {
            return Ok(self.inner.same(id));
        }
        held(&self.done).remove(&acknowledged(id));
        let reused = self.is(Mistake::ProducerReused) && id.contains("-sinks-");
        let fresh = !reused || self.is_first(&format!("{id} {generation}"));
        let inner = if fresh { self.inner.fence(id, generation)? } else { self.inner.same(id) };
        Ok(Box::new(WrongProducer {
            mistake: self.mistake,
            log: Arc::clone(&self.inner),
            cluster: Arc::clone(&self.cluster),
            known: Arc::clone(&self.known),
            done: Arc::clone(&self.done),
            id: id.to_owned(),
            inner,
            appended: Vec::new(),
        }))
    }

    fn journal(
        &self,
        topic: &str,
        partition: PartitionId,
        id: &str,
        generation: Generation,
    ) -> Result<Box<dyn Journal>> {
        match self.mistake {
            Mistake::BindingsNotFenced => Ok(self.inner.same_journal(topic, partition, id)),
            _ => self.inner.journal(topic, partition, id, generation),
        }
    }

    fn journal_reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let inner = self.inner.journal_reader(topic, partition, from)?;
        if !self.is(Mistake::BindingsReadCommitted) {
            return Ok(inner);
        }
        let committed = self.cluster.visible(topic, partition, from)?.iter().map(|record| record.offset).collect();
        Ok(Box::new(CommittedOnly { committed, inner }))
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let sink = topic.starts_with("sink-");
        let first = self.is_first(&format!("read {topic} {partition}"));
        let (_, end) = self.inner.offsets(topic, partition)?;
        let from = if self.is(Mistake::NoRescan) && sink && !first { end } else { from };
        // A second look makes up for most of what a first one has got wrong: it would hide the mistake.
        if topic == changelog() && !first && !matches!(self.mistake, Mistake::Misread | Mistake::MisreadOnce) {
            return Err(Error::internal("read-again", format!("partition {partition} of the changelog is read again")));
        }
        let inner = self.inner.reader(topic, partition, from)?;
        let of_sinks = [Mistake::MarkerForPositions, Mistake::PositionsIgnored, Mistake::AcknowledgedNotLookedFor];
        if !(topic == changelog() || sink && of_sinks.contains(&self.mistake)) {
            return Ok(inner);
        }
        let mistake = match self.mistake {
            Mistake::MisreadOnce if first => Mistake::Misread,
            mistake => mistake,
        };
        let topic = topic.to_owned();
        let (history, known) = (Arc::clone(&self.history), Arc::clone(&self.known));
        Ok(Box::new(WrongReader { mistake, topic, partition, history, known, from, inner }))
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let (first, end) = self.inner.offsets(topic, partition)?;
        let end = match self.mistake {
            Mistake::ScanToStableEnd => self.cluster.stable_end(topic, partition)?.min(end),
            Mistake::ReadToTheOffsetOfC if topic == changelog() => end_of_c(&held(&self.known), partition).min(end),
            _ => end,
        };
        Ok((first, end))
    }

    fn stable_ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>> {
        let writer = match self.mistake {
            Mistake::ChangelogNotAwaited if topic == changelog() => Some("-changelogs-"),
            _ => None,
        };
        // Whoever reads back what is there has fenced before.
        let is_write =
            |writer: &str| held(&self.done).iter().any(|done| done.starts_with(ACKNOWLEDGED) && done.contains(writer));
        if writer.is_some_and(is_write) {
            return Ok(vec![u64::MAX; partitions.len()]);
        }
        self.inner.stable_ends(topic, partitions)
    }

    fn release(&self, owner: Owner<'_>, topic: &str, partition: PartitionId) -> Result<()> {
        match self.mistake {
            Mistake::NotReleased => Ok(()),
            Mistake::SinksReleasedByCommit if owner.id.contains("-sinks-") => {
                let mut producer = self.inner.fence(owner.id, owner.generation)?;
                producer.begin()?;
                producer.append(topic, partition, NewRecord::default())?;
                producer.commit().map(drop)
            }
            _ => self.inner.release(owner, topic, partition),
        }
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.inner.trim(topic, partition, before)
    }

    fn wait(&self, time: Duration) {
        self.inner.wait(time);
    }
}

const ACKNOWLEDGED: &str = "acknowledged ";

fn acknowledged(id: &str) -> String {
    format!("{ACKNOWLEDGED}{id}")
}

fn end_of_c(known: &Known, partition: PartitionId) -> u64 {
    known.ends_of_c.get(&partition).copied().unwrap_or(0)
}

/// A producer that goes on after an unknown outcome, takes being fenced for the end, writes one slot alone, or marks what is complete.
struct WrongProducer {
    mistake: Mistake,
    log: Arc<SimulatedLog>,
    cluster: Arc<SimulatedCluster>,
    known: Arc<Mutex<Known>>,
    done: Arc<Mutex<BTreeSet<String>>>,
    id: String,
    inner: Box<dyn Producer>,
    /// What is in the open transaction.
    appended: Vec<(String, PartitionId, u64)>,
}

impl WrongProducer {
    fn append_marked(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        let before = self.cluster.end(topic, partition)?;
        self.inner.append_ref(topic, partition, record)?;
        if self.cluster.end(topic, partition)? > before {
            let place = (topic.to_owned(), partition, before);
            held(&self.known).unmarked.insert(place.clone());
            self.appended.push(place);
        }
        Ok(())
    }
}

impl Producer for WrongProducer {
    fn begin(&mut self) -> Result<()> {
        self.appended.clear();
        self.inner.begin()
    }

    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        match self.mistake {
            Mistake::MarkerForPositions if self.id.contains("-sinks-") => self.append_marked(topic, partition, record),
            Mistake::SingleSlot if self.id.contains("-changelogs-") => {
                let bytes = record.key.unwrap_or_default();
                let ChangelogKey::Row { key, .. } = ChangelogKey::decode(bytes)? else {
                    return self.inner.append_ref(topic, partition, record);
                };
                let mut one = Vec::new();
                ChangelogKey::Row { key, slot: Slot::Zero }.encode(&mut one);
                // The checksum covers the key.
                let value = record.value.map(|value| ChangelogValue::decode(bytes, value)).transpose()?;
                let value = value.map(|value| {
                    let mut out = Vec::new();
                    value.encode(&one, &mut out);
                    out
                });
                self.inner.append(topic, partition, NewRecord { key: Some(one), value, headers: vec![] })
            }
            _ => self.inner.append_ref(topic, partition, record),
        }
    }

    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        // The marker is the last record of the transaction, and shares its fate.
        for place in self.appended.drain(..) {
            held(&self.known).unmarked.remove(&place);
        }
        let outcome = self.inner.commit();
        if self.mistake == Mistake::ProducerReused && self.inner.is_spent() && self.id.contains("-sinks-") {
            self.inner = self.log.same(&self.id);
        }
        if outcome.is_ok() {
            held(&self.done).insert(acknowledged(&self.id));
        }
        match outcome {
            Err(error) if self.mistake == Mistake::FencedMeansOver && error.code() == "producer-fenced" => {
                Err(Error::user("fenced", error.message()))
            }
            outcome => outcome,
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.inner.abort()
    }

    fn is_spent(&self) -> bool {
        self.inner.is_spent()
    }
}

/// A reader of a journal that leaves out what no transaction has committed.
struct CommittedOnly {
    committed: BTreeSet<u64>,
    inner: Box<dyn LogReader>,
}

impl LogReader for CommittedOnly {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        let mut new = Vec::new();
        let any = self.inner.read(max_bytes, &mut new)?;
        out.extend(new.into_iter().filter(|record| self.committed.contains(&record.offset)));
        Ok(any)
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }
}

/// A reader that knows no positions, or only some of what a changelog says.
struct WrongReader {
    mistake: Mistake,
    topic: String,
    partition: PartitionId,
    history: Arc<Mutex<JobHistory>>,
    known: Arc<Mutex<Known>>,
    /// What is before it was given.
    from: u64,
    inner: Box<dyn LogReader>,
}

impl WrongReader {
    fn keeps(&self, LogRecord { offset, record, .. }: &LogRecord) -> bool {
        match (self.mistake, &record.value) {
            (Mistake::MarkerForPositions, _) => {
                !held(&self.known).unmarked.contains(&(self.topic.clone(), self.partition, *offset))
            }
            (Mistake::TombstonesIgnored, value) => value.is_some(),
            (Mistake::Misread, value) => value.is_none(),
            (Mistake::ReadToTheOffsetOfC, _) => *offset < end_of_c(&held(&self.known), self.partition),
            (Mistake::UncommittedSkipped, Some(value)) => {
                let value = ChangelogValue::decode(record.key.as_deref().unwrap_or_default(), value).expect("a record");
                held(&self.history).lineage().contains(value.generation, value.checkpoint)
            }
            _ => true,
        }
    }
}

impl WrongReader {
    /// Whatever is not there is taken for there: a record that says nothing.
    fn filled(&mut self, new: Vec<LogRecord>) -> Vec<LogRecord> {
        let end = self.inner.position();
        let mut there: BTreeMap<u64, LogRecord> = new.into_iter().map(|record| (record.offset, record)).collect();
        let nothing = |offset| LogRecord { offset, time: 0, record: NewRecord::default() };
        (std::mem::replace(&mut self.from, end)..end)
            .map(|offset| there.remove(&offset).unwrap_or_else(|| nothing(offset)))
            .collect()
    }
}

impl LogReader for WrongReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        let mut new = Vec::new();
        let any = self.inner.read(max_bytes, &mut new)?;
        new.retain(|record| self.keeps(record));
        if self.mistake == Mistake::AcknowledgedNotLookedFor {
            new = self.filled(new);
        }
        if self.mistake == Mistake::PositionsIgnored {
            new.iter_mut().for_each(|record| record.record.headers.clear());
        }
        out.extend(new);
        Ok(any)
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }
}
