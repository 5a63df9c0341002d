//! The brokers: topics, who owns which producer id, what is under way, and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Error, PartitionId, Result};

use super::partition::{Partition, ProducerNumber};
use super::{Fates, Step};
use crate::log::{LogRecord, NewRecord, Retention, TopicInfo, TopicSpec};

/// How long a transaction may stay open, and how far the clock goes at least when a client waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    pub(super) transaction_ms: u64,
    pub(super) client_ms: u64,
}

#[derive(Debug)]
struct Topic {
    retention: Retention,
    partitions: Vec<Partition>,
}

/// Who owns an id.
#[derive(Debug)]
struct Owner {
    number: ProducerNumber,
    epoch: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until_ms: u64,
    touched: BTreeSet<(String, PartitionId)>,
}

/// A request to end a transaction: that of the id which is open when it arrives, if the epoch is still the id's.
#[derive(Clone, Debug)]
pub(super) struct EndRequest {
    pub(super) id: String,
    pub(super) epoch: u64,
    pub(super) commit: bool,
}

#[derive(Debug, Default)]
struct State {
    now_ms: u64,
    topics: BTreeMap<String, Topic>,
    owners: BTreeMap<String, Owner>,
    under_way: Vec<EndRequest>,
}

/// See the module's description.
pub struct SimulatedCluster {
    state: Mutex<State>,
    fates: Arc<dyn Fates>,
    pub(super) waits: Waits,
}

impl SimulatedCluster {
    /// Brokers without topics, at time 0. A transaction is aborted after `transaction_ms`; a client that waits for something does so
    /// for at least `client_ms`.
    pub fn new(fates: Arc<dyn Fates>, transaction_ms: u64, client_ms: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), fates, waits: Waits { transaction_ms, client_ms } })
    }

    pub(super) fn before(&self, step: Step) {
        self.fates.before(self, step);
    }

    pub(super) fn fates(&self) -> &dyn Fates {
        &*self.fates
    }

    /// Time passes; transactions that are open for too long are aborted, and their producers with them.
    pub fn advance(&self, ms: u64) {
        let state = &mut *self.state.lock();
        state.now_ms += ms;
        let now = state.now_ms;
        let late = |owner: &Owner| owner.open.as_ref().is_some_and(|open| open.until_ms <= now);
        let late: Vec<String> =
            state.owners.iter().filter(|(_, owner)| late(owner)).map(|(id, _)| id.clone()).collect();
        for id in late {
            state.finish(&id, false, self.fates());
            state.owner_of(&id).epoch += 1;
        }
    }

    /// How many requests to end a transaction are under way.
    pub fn under_way(&self) -> usize {
        self.state.lock().under_way.len()
    }

    /// One of them arrives. Where its epoch is not its id's any more, nothing happens.
    pub fn deliver(&self, index: usize) {
        let request = self.state.lock().under_way.remove(index);
        // Nobody waits for the answer.
        let _ = self.finish(&request);
    }

    /// Cleans a prefix of a partition of a compacted topic.
    pub fn clean(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        let state = &mut *self.state.lock();
        let now = state.now_ms;
        let Retention::Compact { delete_retention_ms } = state.topic(topic)?.retention else { return Ok(()) };
        state.partition(topic, partition)?.clean(before, now, delete_retention_ms);
        Ok(())
    }

    /// Somebody drops the records before an offset.
    pub fn drop_records(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.state.lock().partition(topic, partition)?.drop_before(before);
        Ok(())
    }

    /// What a reader of committed records sees of a partition now.
    pub fn visible(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Vec<LogRecord>> {
        Ok(self.state.lock().partition(topic, partition)?.visible(from).cloned().collect())
    }

    /// What a reader of uncommitted records sees of a partition now: all that producers were told is there.
    pub fn appended(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Vec<LogRecord>> {
        Ok(self.state.lock().partition(topic, partition)?.appended(from).cloned().collect())
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.state.lock().now_ms
    }

    /// The offset after the last record or marker.
    pub fn end(&self, topic: &str, partition: PartitionId) -> Result<u64> {
        Ok(self.ends(topic, partition)?.1)
    }

    /// Where a reader of committed records stops.
    pub fn stable_end(&self, topic: &str, partition: PartitionId) -> Result<u64> {
        Ok(self.state.lock().partition(topic, partition)?.stable_end())
    }

    pub(super) fn first_open(&self, topic: &str, partition: PartitionId) -> Result<Option<LogRecord>> {
        Ok(self.state.lock().partition(topic, partition)?.first_open().cloned())
    }

    /// The epoch that an id has: a client that asks for it, rather than for the next one, keeps using a producer.
    pub(super) fn epoch(&self, id: &str) -> u64 {
        self.state.lock().owners.get(id).map_or(0, |owner| owner.epoch)
    }

    pub(super) fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        crate::log::check_topic_name(&topic.name)?;
        let state = &mut *self.state.lock();
        let count = topic.partitions as usize;
        let made = || Topic { retention: topic.retention, partitions: vec![Partition::default(); count] };
        let found = state.topics.entry(topic.name.clone()).or_insert_with(made).partitions.len();
        if found == count {
            return Ok(());
        }
        let text = format!("topic {:?} has {found} partitions, {count} are asked for; give another name", topic.name);
        Err(Error::user("topic-partitions", text))
    }

    pub(super) fn topics(&self) -> Vec<(String, u32)> {
        let state = self.state.lock();
        state.topics.iter().map(|(name, topic)| (name.clone(), topic.partitions.len() as u32)).collect()
    }

    pub(super) fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.state.lock().topics.get(name).map(|topic| TopicInfo {
            partitions: topic.partitions.len() as u32,
            compacted: matches!(topic.retention, Retention::Compact { .. }),
        })
    }

    pub(super) fn ends(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        Ok(self.state.lock().partition(topic, partition)?.ends())
    }

    /// Gives an id to its caller: what is open is aborted, whoever had it before can do nothing more.
    pub(super) fn init(&self, id: &str) -> u64 {
        let state = &mut *self.state.lock();
        state.finish(id, false, self.fates());
        let owner = state.owner_of(id);
        owner.epoch += 1;
        owner.epoch
    }

    /// Appends in the open transaction of a producer, which begins with its first record; without one, at once.
    pub(super) fn append(
        &self,
        producer: Option<(&str, u64)>,
        topic: &str,
        partition: PartitionId,
        record: NewRecord,
    ) -> Result<u64> {
        let state = &mut *self.state.lock();
        state.partition(topic, partition)?;
        let mut open = None;
        if let Some((id, epoch)) = producer {
            let until_ms = state.now_ms + self.waits.transaction_ms;
            let owner = state.owner(id, epoch)?;
            let begun = owner.open.get_or_insert(Open { until_ms, touched: BTreeSet::new() });
            begun.touched.insert((topic.to_owned(), partition));
            open = Some(owner.number);
        }
        let now = state.now_ms;
        Ok(state.partition(topic, partition)?.append(record, open, now))
    }

    /// A request to end a transaction has arrived.
    pub(super) fn finish(&self, request: &EndRequest) -> Result<()> {
        let state = &mut *self.state.lock();
        state.owner(&request.id, request.epoch)?;
        state.finish(&request.id, request.commit, self.fates());
        Ok(())
    }

    pub(super) fn delay(&self, request: EndRequest) {
        self.state.lock().under_way.push(request);
    }
}

impl State {
    fn topic(&mut self, name: &str) -> Result<&mut Topic> {
        self.topics.get_mut(name).ok_or_else(|| Error::user("topic-missing", format!("there is no topic {name:?}")))
    }

    fn partition(&mut self, topic: &str, partition: PartitionId) -> Result<&mut Partition> {
        self.topic(topic)?
            .partitions
            .get_mut(usize::from(partition.0))
            .ok_or_else(|| Error::user("partition-missing", format!("topic {topic:?} has no partition {partition}")))
    }

    fn owner(&mut self, id: &str, epoch: u64) -> Result<&mut Owner> {
        let owner = self.owner_of(id);
        if owner.epoch == epoch {
            return Ok(owner);
        }
        let text = format!("producer {id:?}: epoch {epoch} is over, {} writes", owner.epoch);
        Err(Error::external("producer-fenced", text))
    }

    fn owner_of(&mut self, id: &str) -> &mut Owner {
        let number = ProducerNumber(self.owners.len());
        self.owners.entry(id.to_owned()).or_insert(Owner { number, epoch: 0, open: None })
    }

    /// Ends what is open of an id: a marker in each partition, except where a dying broker loses it.
    fn finish(&mut self, id: &str, commit: bool, fates: &dyn Fates) {
        let Some(owner) = self.owners.get_mut(id) else { return };
        let (number, Some(open)) = (owner.number, owner.open.take()) else { return };
        let lost = fates.lost_marker(id, open.touched.len());
        for (index, (topic, partition)) in open.touched.into_iter().enumerate() {
            if let (false, Ok(partition)) = (lost == Some(index), self.partition(&topic, partition)) {
                partition.finish(number, commit);
            }
        }
    }
}
