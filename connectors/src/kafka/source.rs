//! The source `connector = "kafka"`: the committed records of topics, each partition assigned by the job itself.
//!
//! A position is the offset behind a record, and where everything up to the end was read that end: behind markers of transactions
//! and records that were aborted, which are no records. A partition's identity is the ids of its cluster and of its topic, so another
//! topic of the same name is refused.

mod bound;
mod group;
mod identity;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg_core::{Error, PartitionId, PartitionSpec, Result, SourceKey};

pub use self::bound::Bound;
use self::group::Told;
use self::identity::Identity;
use self::reader::KafkaReader;
use super::KafkaConfig;
use super::cluster::Cluster;
use super::consumer::{Consumer, Isolation};
use super::describe::Described;
use crate::log::{Start, check_topic_name};
use crate::{RawReader, RawSource};

/// How long a broker that has just become the leader of a partition may take to know where it ends.
const SETTLE: Duration = Duration::from_secs(10);
/// In front of the id of a job, in the names of the topics that it makes for itself.
const OF_ENGINE: [&str; 4] = ["bindings-", "changelog-", "dead-letters-", "generation-"];
/// Most topics that are named where a pattern finds none.
const MOST_NAMED: usize = 10;
/// How soon it is asked again.
const SETTLE_POLL: Duration = Duration::from_millis(100);
/// How long a broker holds a request that it has nothing for.
const WAIT_MS: u32 = 100;

/// Which topics are read.
#[derive(Clone, Debug)]
pub enum Topics {
    /// These.
    Named(Vec<String>),
    /// All whose name this finds, but the cluster's own and those that jobs make for themselves.
    Pattern(regex::Regex),
}

impl Topics {
    /// Topics by name.
    ///
    /// Errors: `topic-name` where one has characters that no topic's name has.
    pub fn named(names: Vec<String>) -> Result<Self> {
        names.iter().try_for_each(|name| check_topic_name(name))?;
        Ok(Self::Named(names))
    }

    /// All whose name a regular expression finds, but the cluster's own.
    ///
    /// Errors: `kafka-topics` where it is none.
    pub fn pattern(text: &str) -> Result<Self> {
        regex::Regex::new(text).map(Self::Pattern).map_err(|error| {
            let text = format!("{text:?} is no regular expression: {error}; its syntax is that of the crate regex");
            Error::user("kafka-topics", text)
        })
    }

    /// Whether a topic of this name is one of them.
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Self::Named(names) => names.iter().any(|name| name == topic),
            Self::Pattern(pattern) => pattern.is_match(topic),
        }
    }
}

/// What is done where records were lost before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDataLoss {
    /// The job stops, and says which.
    #[default]
    Fail,
    /// It goes on with the first record that is kept, says how many are missing, and counts them. For what retention has dropped;
    /// a topic that was cut at its end or made anew has no first record that would follow.
    Skip,
}

/// What to read.
#[derive(Clone, Debug)]
pub struct KafkaSourceConfig {
    /// The topics.
    pub topics: Topics,
    /// Where to begin.
    pub start: Bound,
    /// Where to end; nothing where it is read on and on. As the start, what it means is found when the job is created.
    pub end: Option<Bound>,
    /// What is done where records were lost before they were read.
    pub on_data_loss: OnDataLoss,
    /// The consumer group to which positions of checkpoints are written, for the usual tools.
    pub group: String,
    /// How often it is looked for partitions and topics that have come since; nothing where nobody looks.
    pub discover_interval: Option<Duration>,
}

impl KafkaSourceConfig {
    /// From the first record that is kept, on and on, with the defaults of a job file.
    pub fn new(topics: Topics, group: impl Into<String>) -> Self {
        Self {
            topics,
            start: Start::Earliest.into(),
            end: None,
            on_data_loss: OnDataLoss::Fail,
            group: group.into(),
            discover_interval: Some(Self::DISCOVER_INTERVAL),
        }
    }

    /// How often it is looked for partitions, where nothing else is said.
    pub const DISCOVER_INTERVAL: Duration = Duration::from_secs(30);
}

/// Reads topics as raw records, with key, headers and time of each.
pub struct KafkaSource {
    kafka: Arc<KafkaConfig>,
    config: KafkaSourceConfig,
    connected: Mutex<Option<Arc<Connected>>>,
}

/// What the readers of a source share.
struct Connected {
    cluster: Cluster,
    consumer: Arc<Consumer>,
    cluster_id: String,
    /// The partitions that were opened, by their number in the source.
    opened: Mutex<BTreeMap<PartitionId, Told>>,
    on_data_loss: OnDataLoss,
}

impl KafkaSource {
    /// A source; nothing is connected before it is used.
    pub fn new(kafka: Arc<KafkaConfig>, config: KafkaSourceConfig) -> Self {
        Self { kafka, config, connected: Mutex::new(None) }
    }

    fn connected(&self) -> Result<Arc<Connected>> {
        let mut connected = self.connected.lock();
        if let Some(connected) = &*connected {
            return Ok(Arc::clone(connected));
        }
        let cluster = Cluster::new(&self.kafka, &self.config.group)?;
        let consumer = Consumer::open(&self.kafka, &self.config.group, Isolation::Committed, WAIT_MS)?;
        let cluster_id = cluster.id()?;
        let on_data_loss = self.config.on_data_loss;
        let made = Arc::new(Connected { cluster, consumer, cluster_id, opened: Mutex::default(), on_data_loss });
        Ok(Arc::clone(connected.insert(made)))
    }

    /// The topics that are read, in the order in which their partitions are numbered.
    fn topics(&self, cluster: &Cluster) -> Result<Vec<String>> {
        match &self.config.topics {
            Topics::Named(names) => Ok(names.clone()),
            Topics::Pattern(pattern) => {
                let all = cluster.topics()?.into_iter().map(|(name, _)| name);
                let mut found: Vec<String> = all.filter(|name| pattern.is_match(name) && !is_of_engine(name)).collect();
                found.sort_unstable();
                Ok(found)
            }
        }
    }

    /// A topic whose name is nearly this one, as what may have been meant.
    fn nearest(&self, cluster: &Cluster, topic: &str) -> Result<String> {
        let all = cluster.topics()?;
        let near = all.iter().map(|(name, _)| (strsim::damerau_levenshtein(name, topic), name)).min();
        let near = near.filter(|(distance, name)| distance * 3 <= name.len().max(topic.len()));
        Ok(near.map_or_else(String::new, |(_, name)| format!("did you mean {name:?}? Else ")))
    }

    /// The partitions of a topic, the first of them as number `first` of the source.
    fn partitions(&self, connected: &Connected, topic: &str, source: u16, first: usize) -> Result<Vec<PartitionSpec>> {
        let Some(described) = connected.cluster.describe(topic)? else {
            let near = self.nearest(&connected.cluster, topic)?;
            let text = format!(
                "there is no topic {topic:?} at {}; {near}check its name, or make it",
                self.kafka.bootstrap_servers()
            );
            return Err(Error::user("kafka-topic-missing", text));
        };
        if described.internal && matches!(self.config.topics, Topics::Pattern(_)) {
            return Ok(Vec::new());
        }
        let spec = |index: u32| {
            let partition = u16::try_from(index).map(PartitionId).map_err(|_| too_many(topic))?;
            let (start, end) = self.ends(connected, topic, partition)?;
            let number = u16::try_from(first + usize::from(partition.0)).map_err(|_| too_many(topic))?;
            let of = SourceKey { source, partition: PartitionId(number) };
            Ok(connected.spec(of, &described, topic, partition, (start, end)))
        };
        (0..described.partitions).map(spec).collect()
    }

    /// The partitions of a topic that are not known, each from its first record on.
    fn more_partitions(
        &self,
        connected: &Connected,
        source: u16,
        topic: &str,
        known: &[Identity],
    ) -> Result<Vec<PartitionSpec>> {
        let own: Vec<&Identity> = known.iter().filter(|identity| identity.topic == topic).collect();
        let Some(described) = connected.cluster.describe(topic)? else { return Ok(Vec::new()) };
        if let Some(other) = own.iter().find(|identity| identity.id != described.id) {
            connected.check(other)?;
        }
        if described.internal && matches!(self.config.topics, Topics::Pattern(_)) {
            return Ok(Vec::new());
        }
        let spec = |index: u32| {
            let partition = u16::try_from(index).map(PartitionId).map_err(|_| too_many(topic))?;
            if own.iter().any(|identity| identity.partition == partition) {
                return Ok(None);
            }
            let (first, _) = connected.cluster.offsets(topic, partition)?;
            let of = SourceKey { source, partition };
            Ok(Some(connected.spec(of, &described, topic, partition, (first, None))))
        };
        (0..described.partitions).filter_map(|index| spec(index).transpose()).collect()
    }

    /// Where a partition begins and, where that is asked for, ends.
    fn ends(&self, connected: &Connected, topic: &str, partition: PartitionId) -> Result<(u64, Option<u64>)> {
        // The end is that of committed records: what is behind an open transaction may never be one.
        let (first, last) = connected.consumer.offsets(topic, partition)?;
        let found = |bound: &Bound| {
            let at_time = |time| connected.cluster.offset_at(topic, partition, time);
            bound.resolve((topic, partition), (first, last), at_time)
        };
        let start = found(&self.config.start)?;
        if start < first && self.config.on_data_loss == OnDataLoss::Fail {
            return Err(dropped(&format!("{topic}/{partition}"), start, first));
        }
        let end = self.config.end.as_ref().map(found).transpose()?;
        Ok((start, end.map(|end| end.max(start))))
    }
}

/// Whether a topic is one that some job has made for itself: `changelog-ID-STORE` and the like.
fn is_of_engine(topic: &str) -> bool {
    let rest = OF_ENGINE.iter().find_map(|prefix| topic.strip_prefix(prefix)).unwrap_or_default();
    let id = rest.split_once('-').map_or(rest, |(id, _)| id);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn too_many(topic: &str) -> Error {
    let text = format!("topic {topic:?}: a source has at most 65536 partitions; read its topics by several sources");
    Error::user("kafka-partitions", text)
}

impl RawSource for KafkaSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let connected = self.connected()?;
        let mut found = Vec::new();
        for topic in self.topics(&connected.cluster)? {
            let more = self.partitions(&connected, &topic, source, found.len())?;
            found.extend(more);
        }
        for bound in std::iter::once(&self.config.start).chain(&self.config.end) {
            bound.check_known(|topic, partition| {
                found.iter().any(|spec: &PartitionSpec| spec.name == format!("{topic}/{partition}"))
            })?;
        }
        if let (true, Topics::Pattern(pattern)) = (found.is_empty(), &self.config.topics) {
            let mut names: Vec<String> = connected.cluster.topics()?.into_iter().map(|(name, _)| name).collect();
            names.retain(|name| !name.starts_with("__") && !is_of_engine(name));
            names.sort_unstable();
            names.truncate(MOST_NAMED);
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let text = format!(
                "no topic at {} has a name that topic_pattern = \"{pattern}\" finds; check the pattern, or make one of them (there are: \
                 {there})",
                self.kafka.bootstrap_servers()
            );
            return Err(Error::user("kafka-topic-missing", text));
        }
        Ok(found)
    }

    fn discover_interval(&self) -> Option<Duration> {
        self.config.discover_interval.filter(|_| self.config.end.is_none())
    }

    fn discover_more(&self, source: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let connected = self.connected()?;
        let known: Vec<Identity> = known.iter().map(|spec| Identity::parse(&spec.identity)).collect::<Result<_>>()?;
        let mut found = Vec::new();
        for topic in self.topics(&connected.cluster)? {
            found.extend(self.more_partitions(&connected, source, &topic, &known)?);
        }
        Ok(found)
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let connected = self.connected()?;
        let identity = Identity::parse(&partition.identity)?;
        connected.check(&identity)?;
        let first = connected.bounds(&identity, partition, from)?;
        connected.opened.lock().insert(partition.of.partition, Told::new(identity.clone()));
        Ok(Box::new(KafkaReader::open(connected, identity, partition, from, first)?))
    }

    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        let identity = Identity::parse(&partition.identity).ok()?;
        Some((identity.topic, u32::from(identity.partition.0)))
    }

    fn committed(&self, partition: PartitionId, position: u64) -> Result<()> {
        let connected = self.connected()?;
        let mut opened = connected.opened.lock();
        let Some(told) = opened.get_mut(&partition) else { return Ok(()) };
        let offset = told.committed(position);
        connected.consumer.commit(&told.identity.topic, told.identity.partition, offset)
    }
}

impl Connected {
    /// Lets the group know that a partition has no record from `from` on up to `to`.
    fn free(&self, partition: PartitionId, from: u64, to: u64) -> Result<()> {
        let mut opened = self.opened.lock();
        let Some(told) = opened.get_mut(&partition) else { return Ok(()) };
        let Some(offset) = told.free(from, to) else { return Ok(()) };
        self.consumer.commit(&told.identity.topic, told.identity.partition, offset)
    }

    fn spec(
        &self,
        of: SourceKey,
        topic: &Described,
        name: &str,
        partition: PartitionId,
        (start, end): (u64, Option<u64>),
    ) -> PartitionSpec {
        let (cluster, id) = (self.cluster_id.clone(), topic.id.clone());
        let identity = Identity { cluster, id, topic: name.to_owned(), partition };
        PartitionSpec { of, name: format!("{name}/{partition}"), identity: identity.to_string(), start, end }
    }

    /// Checks that a topic is the one that the job was created with.
    fn check(&self, wanted: &Identity) -> Result<()> {
        let changed = |what: String| {
            let text = format!(
                "topic {:?}, partition {}: {what}; bring the old one back, or create the job anew (another --data or name)",
                wanted.topic, wanted.partition
            );
            Error::user("source-changed", text)
        };
        if self.cluster_id != wanted.cluster {
            let text =
                format!("this is cluster {}, the job was created with cluster {}", self.cluster_id, wanted.cluster);
            return Err(changed(text));
        }
        match self.cluster.describe(&wanted.topic)? {
            None => Err(changed("the topic was deleted".to_owned())),
            Some(found) if found.id != wanted.id => Err(changed(format!(
                "the topic was deleted and made anew, with id {}; the job reads {}",
                found.id, wanted.id
            ))),
            Some(found) if found.partitions <= u32::from(wanted.partition.0) => {
                Err(changed(format!("the topic has {} partitions now", found.partitions)))
            }
            Some(_) => Ok(()),
        }
    }

    /// The first offset that is kept, after a check that nothing is lost from `from` on, or that the job bears it.
    fn bounds(&self, of: &Identity, partition: &PartitionSpec, from: u64) -> Result<u64> {
        let needed = partition.end.map_or(from, |end| end.max(from));
        let began = Instant::now();
        loop {
            let (first, end) = self.cluster.offsets(&of.topic, of.partition)?;
            if from < first && self.on_data_loss == OnDataLoss::Fail {
                return Err(dropped(&partition.name, from, first));
            }
            if needed <= end {
                return Ok(first);
            }
            if began.elapsed() > SETTLE {
                return Err(cut_off(&partition.name, needed, end));
            }
            std::thread::sleep(SETTLE_POLL);
        }
    }
}

/// Records that retention has dropped, or somebody has deleted.
fn dropped(name: &str, from: u64, first: u64) -> Error {
    let text = format!(
        "{name}: the records at offsets {from} to {} are lost, the first that is kept is {first}; keep records longer than a job may \
         stand still, or set on_data_loss = \"skip\" to go on without them",
        first - 1
    );
    Error::external("source-lost", text)
}

/// A partition that is shorter than it was.
fn cut_off(name: &str, needed: u64, end: u64) -> Error {
    let text = format!(
        "{name}: the partition ends at offset {end}, the job knows records before offset {needed}: it was cut off (an unclean \
         election of a leader, a restored disk); bring the lost records back, or create the job anew (another --data or name)"
    );
    Error::external("source-lost", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_jobs_make_for_themselves_are_known_by_their_names() {
        let id = "0123456789abcdef0123456789abcdef";
        for (topic, own) in [
            (format!("bindings-{id}"), true),
            (format!("changelog-{id}-totals"), true),
            (format!("generation-{id}"), true),
            (format!("dead-letters-{id}"), true),
            ("changelog-orders".to_owned(), false),
            (format!("orders-{id}"), false),
            (id.to_owned(), false),
        ] {
            assert_eq!(is_of_engine(&topic), own, "{topic}");
        }
    }
}
