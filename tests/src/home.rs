//! A job of the harness that lives in Kafka: its sinks, changelogs and bindings, and how they are read back.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_connectors::log::{POSITION_HEADER, Position};
use thalweg_core::Epoch;

use crate::kafka::{Broker, Client, Isolation, Record};
use crate::sketch::{JobSketch, KeyOf, SinkKind};

/// Records of sinks in topics: by sink, job partition, and partition of the topic, which is the unit of comparison.
pub(crate) type Topics = BTreeMap<(usize, u16, u16), Vec<Vec<u8>>>;

/// Where the topics of a job are.
#[derive(Clone, Debug)]
pub struct Home {
    bootstrap: String,
    client: Client,
    prefix: String,
    transaction_timeout_ms: u64,
}

impl Home {
    /// A job that finds its cluster at `bootstrap`, whose topics the harness reads by `client`.
    pub fn new(bootstrap: &str, client: Client) -> Self {
        let prefix = Broker::unique("exact");
        Self { bootstrap: bootstrap.to_owned(), client, prefix, transaction_timeout_ms: 10_000 }
    }

    /// A transaction that nobody ends is aborted after so many milliseconds.
    #[must_use]
    pub fn with_transaction_timeout(mut self, ms: u64) -> Self {
        self.transaction_timeout_ms = ms;
        self
    }

    /// The client by which the harness reads.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `[kafka]` of the job file.
    pub(crate) fn to_toml(&self) -> String {
        let Self { bootstrap, transaction_timeout_ms, .. } = self;
        format!("[kafka]\nbootstrap_servers = \"{bootstrap}\"\ntransaction_timeout = \"{transaction_timeout_ms}ms\"\n")
    }

    /// The topic of a sink.
    pub(crate) fn topic(&self, sink: usize) -> String {
        format!("{}-sink{sink}", self.prefix)
    }

    /// The topic that a source reads.
    pub(crate) fn input(&self, source: usize) -> String {
        format!("{}-s{source}", self.prefix)
    }

    /// The body of a sink in the job file.
    pub(crate) fn sink_toml(&self, sink: usize, partitions: u64, key: Option<KeyOf>) -> String {
        let partitioner = match key {
            Some(key) => format!("key = {:?}", key.fields()),
            None => "keyed = false\npartitioner = \"job-partition\"".to_owned(),
        };
        format!("connector = \"kafka\"\ntopic = \"{}\"\npartitions = {partitions}\n{partitioner}", self.topic(sink))
    }

    /// What a committed reader sees of a job's sinks now.
    ///
    /// Errors: a record without a position, or whose position does not follow the one before it.
    pub(crate) fn read(&self, job: &JobSketch) -> Result<Topics, String> {
        let mut topics = Topics::new();
        for (sink, _) in job.kafka_sinks() {
            let topic = self.topic(sink);
            if !self.client.has_topic(&topic) {
                continue;
            }
            let mut last = BTreeMap::new();
            for record in self.client.read_all(&topic, Isolation::ReadCommitted) {
                let position = position(&record).ok_or_else(|| format!("{topic}: {record:?} has no position"))?;
                let partition = u16::try_from(record.partition.expect("it was read")).expect("few partitions");
                let unit = (sink, position.partition.0, partition);
                check_follows(last.insert(unit, (position.epoch, position.sequence)), &position)
                    .map_err(|error| format!("{topic}, partition {partition}, offset {:?}: {error}", record.offset))?;
                topics.entry(unit).or_default().push(shown(record.key.as_deref(), record.value.as_deref()));
            }
        }
        Ok(topics)
    }

    /// The topic of the job's bindings, found by the id that the positions of its output carry; nothing before there is any.
    pub(crate) fn bindings_topic(&self, job: &JobSketch) -> Option<(u128, String)> {
        let ids =
            job.kafka_sinks().filter(|(sink, _)| self.client.has_topic(&self.topic(*sink))).flat_map(|(sink, _)| {
                let records = self.client.read_all(&self.topic(sink), Isolation::ReadCommitted);
                records.iter().filter_map(|record| Some(position(record)?.job.0)).collect::<BTreeSet<_>>()
            });
        let ids: BTreeSet<u128> = ids.collect();
        assert!(ids.len() < 2, "a job keeps its id: {ids:?}");
        ids.first().map(|id| (*id, format!("bindings-{}", thalweg_core::JobId(*id))))
    }

    /// The values of the job's bindings, in their order. They are a journal: each counts, whatever became of its transaction.
    pub(crate) fn bindings(&self, topic: &str) -> Vec<Vec<u8>> {
        let records = self.client.read_all(topic, Isolation::ReadUncommitted);
        // One without a value only begins what a process writes.
        records.into_iter().filter_map(|record| record.value).collect()
    }
}

fn position(record: &Record) -> Option<Position> {
    let (_, bytes) = record.headers.iter().rfind(|(name, _)| name == POSITION_HEADER)?;
    Position::decode(bytes.as_deref()?)
}

/// Sequences count from 0 within an epoch, epochs grow.
pub(crate) fn check_follows(last: Option<(Epoch, u64)>, position: &Position) -> Result<(), String> {
    let follows = match last {
        Some((epoch, sequence)) if epoch == position.epoch => position.sequence == sequence + 1,
        Some((epoch, _)) => epoch < position.epoch && position.sequence == 0,
        None => position.sequence == 0,
    };
    if follows { Ok(()) } else { Err(format!("{position:?} does not follow {last:?}")) }
}

/// A record as it is compared: key, tab, value.
fn shown(key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<u8> {
    [key.unwrap_or(b"-"), b"\t", value.unwrap_or(b"-")].concat()
}

/// Where a line of JSON has to go, and as what: worked out from the documentation of the sink and of Kafka's clients.
pub(crate) fn expected(kind: SinkKind, job_partition: u16, line: &str) -> (u16, Vec<u8>) {
    match kind {
        SinkKind::Kafka(partitions, Some(key)) => {
            let key = key_text(key, line);
            let partition = u64::from(murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions;
            (partition as u16, shown(Some(key.as_bytes()), Some(line.as_bytes())))
        }
        SinkKind::Kafka(partitions, None) => {
            ((u64::from(job_partition) % partitions) as u16, shown(None, Some(line.as_bytes())))
        }
        SinkKind::Log(partitions) => ((u64::from(job_partition) % partitions) as u16, line.as_bytes().to_vec()),
        SinkKind::Folder | SinkKind::Single => unreachable!("files have no topics"),
    }
}

/// The key of a record: text as it is, other values and several fields as JSON.
fn key_text(key: KeyOf, line: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(line).expect("the interpreter writes JSON");
    match key.fields() {
        [field] => row[field].as_str().map_or_else(|| row[field].to_string(), str::to_owned),
        fields => serde_json::Value::from_iter(fields.iter().map(|field| row[field].clone())).to_string(),
    }
}

/// Austin Appleby's MurmurHash2 with the seed of Kafka's Java client, after `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}
