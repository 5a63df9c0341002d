//! Known mistakes, each put back by a client of the log that does what an implementation with that mistake would do, or in a step of the
//! job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thalweg_connectors::log::simulated::{SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{
    Log, LogReader, LogRecord, NewRecord, NewRecordRef, Producer, Retention, TopicInfo, TopicSpec,
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
    VisibleBeforeDurable,
    CheckpointBeforeSinks,
    StaleAckCounted,
    ProducerReused,
    PositionsIgnored,
    MarkerForPositions,
    NoRescan,
    ScanToStableEnd,
    // Of the changelog.
    ChangelogNotFenced,
    CheckpointBeforeChangelog,
    SingleSlot,
    TombstonesIgnored,
    ReadToTheOffsetOfC,
    UncommittedSkipped,
    NoRetentionOfTombstones,
    AbandonedCounted,
    AbandonedTakenForCommitted,
}

impl Mistake {
    pub(crate) const ALL: [Self; 25] = [
        Self::NoFirstBarrier,
        Self::NoSecondBarrier,
        Self::NoLookAfterInit,
        Self::OnlyNewIdsFenced,
        Self::BindingsNotFenced,
        Self::FencedMeansOver,
        Self::LastBindingFromSinks,
        Self::BindingsUnderRetention,
        Self::VisibleBeforeDurable,
        Self::CheckpointBeforeSinks,
        Self::StaleAckCounted,
        Self::ProducerReused,
        Self::PositionsIgnored,
        Self::MarkerForPositions,
        Self::NoRescan,
        Self::ScanToStableEnd,
        Self::ChangelogNotFenced,
        Self::CheckpointBeforeChangelog,
        Self::SingleSlot,
        Self::TombstonesIgnored,
        Self::ReadToTheOffsetOfC,
        Self::UncommittedSkipped,
        Self::NoRetentionOfTombstones,
        Self::AbandonedCounted,
        Self::AbandonedTakenForCommitted,
    ];

    pub(crate) fn first_seed(self) -> u64 {
        FIRST_SEEDS.iter().find(|(mistake, _)| *mistake == self).map_or(0, |(_, seed)| *seed)
    }

    /// Whether it can only be made where there is state.
    pub(crate) fn is_of_changelog(self) -> bool {
        Self::ALL.iter().position(|mistake| *mistake == self)
            >= Self::ALL.iter().position(|mistake| *mistake == Self::ChangelogNotFenced)
    }
}

/// Where the search begins: at a seed that has found the mistake, where those before it have not for long.
const FIRST_SEEDS: [(Mistake, u64); 4] = [
    (Mistake::TombstonesIgnored, 186),
    (Mistake::ReadToTheOffsetOfC, 882),
    (Mistake::UncommittedSkipped, 1246),
    (Mistake::NoRetentionOfTombstones, 186),
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
    /// Ids that were fenced, and partitions that were read, by this process.
    pub(crate) done: Mutex<BTreeSet<String>>,
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
        let never = self.is(Mistake::BindingsNotFenced) && id.ends_with("-bindings")
            || self.is(Mistake::ChangelogNotFenced) && id.contains("-changelogs-");
        if never {
            return Ok(self.inner.same(id));
        }
        let reused = self.is(Mistake::ProducerReused) && id.contains("-sinks-");
        let fresh = !reused || self.is_first(&format!("{id} {generation}"));
        let inner = if fresh { self.inner.fence(id, generation)? } else { self.inner.same(id) };
        Ok(Box::new(WrongProducer {
            mistake: self.mistake,
            log: Arc::clone(&self.inner),
            cluster: Arc::clone(&self.cluster),
            known: Arc::clone(&self.known),
            id: id.to_owned(),
            inner,
            appended: Vec::new(),
        }))
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let sink = topic.starts_with("sink-");
        let first = self.is_first(&format!("read {topic} {partition}"));
        let (_, end) = self.inner.offsets(topic, partition)?;
        let from = if self.is(Mistake::NoRescan) && sink && !first { end } else { from };
        let own = topic == changelog() || sink && self.is(Mistake::MarkerForPositions);
        let inner = self.inner.reader(topic, partition, from)?;
        if !(own || sink && self.is(Mistake::PositionsIgnored)) {
            return Ok(inner);
        }
        let (topic, mistake) = (topic.to_owned(), self.mistake);
        let (history, known) = (Arc::clone(&self.history), Arc::clone(&self.known));
        Ok(Box::new(WrongReader { mistake, topic, partition, history, known, inner }))
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let (first, end) = self.inner.offsets(topic, partition)?;
        let end = match self.mistake {
            Mistake::ScanToStableEnd => self.cluster.stable_end(topic, partition)?,
            Mistake::ReadToTheOffsetOfC if topic == changelog() => end_of_c(&held(&self.known), partition).min(end),
            _ => end,
        };
        Ok((first, end))
    }

    fn stable_end(&self, topic: &str, partition: PartitionId) -> Result<u64> {
        self.inner.stable_end(topic, partition)
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.inner.trim(topic, partition, before)
    }

    fn wait(&self, time: Duration) {
        self.inner.wait(time);
    }
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

/// A reader that knows no positions, or only some of what a changelog says.
struct WrongReader {
    mistake: Mistake,
    topic: String,
    partition: PartitionId,
    history: Arc<Mutex<JobHistory>>,
    known: Arc<Mutex<Known>>,
    inner: Box<dyn LogReader>,
}

impl WrongReader {
    fn keeps(&self, LogRecord { offset, record, .. }: &LogRecord) -> bool {
        match (self.mistake, &record.value) {
            (Mistake::MarkerForPositions, _) => {
                !held(&self.known).unmarked.contains(&(self.topic.clone(), self.partition, *offset))
            }
            (Mistake::TombstonesIgnored, value) => value.is_some(),
            (Mistake::ReadToTheOffsetOfC, _) => *offset < end_of_c(&held(&self.known), self.partition),
            (Mistake::UncommittedSkipped, Some(value)) => {
                let value = ChangelogValue::decode(record.key.as_deref().unwrap_or_default(), value).expect("a record");
                held(&self.history).lineage().contains(value.generation, value.checkpoint)
            }
            _ => true,
        }
    }
}

impl LogReader for WrongReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        let mut new = Vec::new();
        let any = self.inner.read(max_bytes, &mut new)?;
        new.retain(|record| self.keeps(record));
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
