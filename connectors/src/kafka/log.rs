//! The log trait on Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::bindings as sys;
use thalweg_core::{Error, Generation, PartitionId, Result};

use super::KafkaConfig;
use super::cluster::Cluster;
use super::consumer::{Consumer, END_MS, Isolation, Next, PartitionQueue, headers, parts, timestamp};
use super::journal::KafkaJournal;
use super::producer::KafkaProducer;
use crate::log::{
    Delivery, Journal, Log, LogReader, LogRecord, LogRecordRef, NewRecord, NewRecordRef, Owner, Producer, Retention,
    TopicInfo, TopicSpec,
};

/// How soon, and how often, it is asked where the partition ends when nothing comes, not even its end.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);
/// How long a reader waits for messages before it looks at what has come: librdkafka waits so long for more where a batch is not full.
const WAIT_MS: i32 = 5;
/// How long the topics of a cluster may take to be known after they were made.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(20);

/// Tells the current generation of the job, linearizably: see [`KafkaLog::new`].
pub type Look = Arc<dyn Fn() -> Result<Generation> + Send + Sync>;

/// A cluster as a log.
///
/// Kafka gives a producer id to the last caller of `init_transactions`, even to a process that was left for dead. So a producer is
/// handed out only after a look at the job's generation, made after its `init_transactions`, has found it current.
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    cluster: Arc<Cluster>,
    /// Records are being dropped.
    trimming: Arc<AtomicBool>,
    readers: Arc<Consumer>,
    look: Look,
    /// The highest generation by which each id was fenced here.
    seen: Mutex<BTreeMap<String, Generation>>,
    /// How many partitions topics had when it was last asked: they only become more.
    counts: Mutex<BTreeMap<String, u32>>,
}

impl KafkaLog {
    /// A log on a cluster, whose name for the broker's books is `client`; `look` tells the current generation of the job.
    ///
    /// Errors: properties that librdkafka refuses. Nothing is asked of the cluster yet.
    pub fn new(config: KafkaConfig, client: &str, look: Look) -> Result<Self> {
        let config = Arc::new(config);
        let cluster = Arc::new(Cluster::new(&config, client)?);
        let readers = Consumer::open(&config, client, Isolation::Committed, END_MS)?;
        Ok(Self {
            config,
            cluster,
            trimming: Arc::default(),
            readers,
            look,
            seen: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// How it is reached.
    pub fn config(&self) -> &Arc<KafkaConfig> {
        &self.config
    }

    /// The settings that a topic must have, with their values.
    fn wanted(retention: Retention) -> Vec<(&'static str, String)> {
        let limit = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
        // Time is the broker's: an event time far in the past would make retention and cleaning drop what was just written.
        let mut all = vec![("message.timestamp.type", "LogAppendTime".to_owned())];
        match retention {
            Retention::Default => all.clear(),
            Retention::Compact { delete_retention_ms } => all.extend([
                ("cleanup.policy", "compact".to_owned()),
                ("delete.retention.ms", delete_retention_ms.to_string()),
            ]),
            Retention::Keep | Retention::Bounded { .. } => {
                let (age, bytes) = match retention {
                    Retention::Bounded { max_age_ms, max_bytes } => (max_age_ms, max_bytes),
                    _ => (None, None),
                };
                all.extend([
                    ("cleanup.policy", "delete".to_owned()),
                    ("retention.ms", limit(age)),
                    ("retention.bytes", limit(bytes)),
                ]);
            }
        }
        all
    }

    /// How many partitions a topic has; asked only where it is not known to have this one.
    fn partitions(&self, topic: &str, partition: PartitionId) -> Result<Option<u32>> {
        let known = self.counts.lock().get(topic).copied().filter(|count| u32::from(partition.0) < *count);
        if known.is_some() {
            return Ok(known);
        }
        let found = self.cluster.partitions(topic)?;
        self.counts.lock().extend(found.map(|count| (topic.to_owned(), count)));
        Ok(found)
    }

    /// [`Log::fence`].
    fn fenced(&self, id: &str, generation: Generation) -> Result<KafkaProducer> {
        let stale = |known: Generation| {
            let text = format!(
                "producer {id:?}: generation {generation} of the job is over, generation {known} writes: another process runs the job; \
                 leave it to that one, and do not start this copy of its data folder again"
            );
            Error::external("fenced", text)
        };
        let known = self.seen.lock().get(id).copied();
        if let Some(known) = known.filter(|known| *known > generation) {
            return Err(stale(known));
        }
        let producer = KafkaProducer::transactional(&self.config, id)?;
        let current = (self.look)()?;
        if current > generation {
            return Err(stale(current));
        }
        self.seen.lock().insert(id.to_owned(), generation);
        Ok(producer)
    }

    fn open_reader(&self, queue: PartitionQueue, from: u64) -> KafkaReader {
        KafkaReader { queue, config: Arc::clone(&self.config), position: from, at_end: false }
    }

    /// Checks a topic that is there against what the job needs.
    fn check(&self, topic: &TopicSpec) -> Result<()> {
        let settings = self.cluster.settings(&topic.name)?;
        for (name, wanted) in Self::wanted(topic.retention) {
            let number = |text: &str| text.parse::<i64>().ok();
            let found = settings.get(name).map_or("", String::as_str);
            let enough = name == "delete.retention.ms" && number(found) >= number(&wanted);
            if found != wanted && !enough {
                let text = format!(
                    "topic {:?} has {name} = {found}, the job needs {wanted}; set it: kafka-configs.sh --alter --topic {} --add-config {name}={wanted}",
                    topic.name, topic.name
                );
                return Err(Error::user("kafka-topic-settings", text));
            }
        }
        Ok(())
    }
}

impl Log for KafkaLog {
    fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        crate::log::check_topic_name(&topic.name)?;
        if let Some(found) = self.cluster.partitions(&topic.name)? {
            if found != topic.partitions {
                let text = format!(
                    "topic {:?} has {found} partitions, the job needs {}; make it anew with so many, or give another name",
                    topic.name, topic.partitions
                );
                return Err(Error::user("topic-partitions", text));
            }
            return self.check(topic);
        }
        let settings = Self::wanted(topic.retention);
        if self.cluster.create(&topic.name, topic.partitions, self.config.replication, &settings)? {
            tracing::info!("made topic {:?} with {} partitions", topic.name, topic.partitions);
        }
        // Each broker learns of it in its own time.
        let began = std::time::Instant::now();
        while self.cluster.partitions(&topic.name)? != Some(topic.partitions) {
            if began.elapsed() > self.config.patience {
                let text = format!("topic {:?} was made, but the cluster does not show it", topic.name);
                return Err(Error::external("kafka-away", text));
            }
            std::thread::sleep(SETTLE);
        }
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        let Some(partitions) = self.cluster.partitions(name)? else { return Ok(None) };
        let settings = self.cluster.settings(name)?;
        let compacted = settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"));
        Ok(Some(TopicInfo { partitions, compacted }))
    }

    fn topics(&self) -> Result<Vec<(String, u32)>> {
        self.cluster.topics()
    }

    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        Ok(Box::new(self.fenced(id, generation)?))
    }

    fn producer(&self, id: &str, generation: Generation, delivery: Delivery) -> Result<Box<dyn Producer>> {
        match delivery {
            Delivery::ExactlyOnce => self.fence(id, generation),
            Delivery::AtLeastOnce => Ok(Box::new(KafkaProducer::plain(&self.config, id)?)),
        }
    }

    fn journal(
        &self,
        topic: &str,
        partition: PartitionId,
        id: &str,
        generation: Generation,
    ) -> Result<Box<dyn Journal>> {
        let producer = self.fenced(id, generation)?;
        Ok(Box::new(KafkaJournal::open(producer, topic, partition, self.config.transaction_timeout)?))
    }

    fn journal_reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let (first, _) = self.cluster.offsets(topic, partition)?;
        Ok(Box::new(self.open_reader(self.cluster.records(topic, partition, from.max(first))?, from.max(first))))
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        match self.partitions(topic, partition)? {
            Some(count) if u32::from(partition.0) < count => {}
            Some(_) => {
                let text = format!("topic {topic:?} has no partition {partition}");
                return Err(Error::user("partition-missing", text));
            }
            None => {
                let text = format!("there is no topic {topic:?} at {}", self.config.bootstrap_servers());
                return Err(Error::user("topic-missing", text));
            }
        }
        // What is before the first offset is dropped; a reader begins with what is kept.
        let (first, _) = self.cluster.offsets(topic, partition)?;
        let from = from.max(first);
        Ok(Box::new(self.open_reader(self.readers.partition(topic, partition, from)?, from)))
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        self.cluster.offsets(topic, partition)
    }

    fn offsets_of(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<(u64, u64)>> {
        self.cluster.offsets_of(topic, partitions)
    }

    fn stable_ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>> {
        self.cluster.stable_ends(topic, partitions)
    }

    fn first_held_back(&self, topic: &str, partition: PartitionId) -> Result<Option<LogRecord>> {
        let stable = self.cluster.stable_ends(topic, &[partition])?.first().copied().unwrap_or(0);
        if stable >= self.cluster.offsets(topic, partition)?.1 {
            return Ok(None);
        }
        let queue = self.cluster.records(topic, partition, stable)?;
        let (mut reader, mut first) = (self.open_reader(queue, stable), Vec::new());
        reader.read(1, &mut first)?;
        Ok(first.into_iter().next())
    }

    /// A broker that dies while it coordinates a transaction can, when it is back, hold it for ended without having written the
    /// marker into every partition (seen with 4.3.1: killed behind PrepareCommit, it went on before it knew the partition's new
    /// leader). Nothing ends the transaction then but the marker of another one of the same producer id, which gives the records of
    /// both the same fate.
    fn release(&self, owner: Owner<'_>, topic: &str, partition: PartitionId) -> Result<()> {
        let mut producer = self.fenced(owner.id, owner.generation)?;
        producer.begin()?;
        // A compacted topic takes no record without a key.
        let filler = NewRecordRef { key: Some(&[]), ..NewRecordRef::default() };
        producer.append_ref(topic, partition, filler)?;
        // What is not delivered is not of the transaction.
        producer.deliver(self.config.transaction_timeout)?;
        producer.abort()
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        // Beside whoever asks, who must not wait for it; what is left over goes with the next call.
        if self.trimming.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (cluster, trimming, topic) = (Arc::clone(&self.cluster), Arc::clone(&self.trimming), topic.to_owned());
        let work = move || {
            if let Err(error) = cluster.delete_records(&topic, partition, before) {
                tracing::warn!("{error}; it is tried again later");
            }
            trimming.store(false, Ordering::Release);
        };
        let thread = std::thread::Builder::new().name("kafka-trim".to_owned()).spawn(work);
        thread.map(drop).map_err(|error| Error::io("starting a thread", error))
    }
}

/// Reads one partition, of the records that its queue is given.
struct KafkaReader {
    queue: PartitionQueue,
    config: Arc<KafkaConfig>,
    position: u64,
    /// Everything that was visible has been read; librdkafka says so once.
    at_end: bool,
}

impl KafkaReader {
    /// [`LogReader::read`], message by message.
    fn each(
        &mut self,
        max_bytes: usize,
        mut take: impl FnMut(u64, &sys::rd_kafka_message_t) -> Result<()>,
    ) -> Result<bool> {
        let (mut any, began, mut bytes, mut next_look) = (false, std::time::Instant::now(), 0, LOOK);
        loop {
            if any && bytes >= max_bytes {
                return Ok(true);
            }
            match self.queue.peek(if any || self.at_end { 0 } else { WAIT_MS })? {
                Next::Record(message) => {
                    let (key, value) = parts(message);
                    bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
                    let offset = u64::try_from(message.offset).unwrap_or(0);
                    take(offset, message)?;
                    any = true;
                    self.position = offset + 1;
                    self.at_end = false;
                    self.queue.step();
                }
                Next::End(offset) => {
                    self.position = self.position.max(offset);
                    self.at_end = true;
                    self.queue.step();
                    return Ok(any);
                }
                Next::Nothing if any || self.at_end => return Ok(any),
                Next::Nothing if began.elapsed() >= next_look => {
                    next_look += LOOK;
                    // Whoever reads from behind the first record of an open transaction is told nothing, not even that it is the end.
                    if self.queue.end()? < self.position {
                        return Ok(false);
                    }
                    if began.elapsed() >= self.config.patience {
                        let text =
                            format!("{}: nothing has come for {} s", self.queue.name(), began.elapsed().as_secs());
                        return Err(Error::external("kafka-away", text).retryable());
                    }
                }
                Next::Nothing => {}
            }
        }
    }
}

impl LogReader for KafkaReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        self.each(max_bytes, |offset, message| {
            let (key, value) = parts(message);
            let record = NewRecord {
                key: key.map(<[u8]>::to_vec),
                value: value.map(<[u8]>::to_vec),
                headers: headers(message).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            };
            out.push(LogRecord { offset, time: timestamp(message).unwrap_or(0), record });
            Ok(())
        })
    }

    fn read_ref(&mut self, max_bytes: usize, take: &mut dyn FnMut(LogRecordRef<'_>) -> Result<()>) -> Result<bool> {
        self.each(max_bytes, |offset, message| {
            let (key, value) = parts(message);
            take(LogRecordRef { offset, key, value })
        })
    }

    fn position(&self) -> u64 {
        self.position
    }
}
