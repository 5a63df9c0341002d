//! What a topic shows already behind the ends of C.

use std::collections::{BTreeMap, VecDeque};

use thalweg_core::{Epoch, Error, PartitionId, Result};
use xxhash_rust::xxh3::Xxh3;

use super::{LogSinkConfig, target};
use crate::SinkContext;
use crate::log::{Log, LogRecord, NewRecord, POSITION_HEADER, Position};

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

/// A record of the tail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) at: (Epoch, u64),
    pub(super) offset: u64,
    pub(super) hash: u64,
}

/// One job partition of a writer.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// Its end in the topic partition, where all of `shown` is replayed.
    pub(super) end: u64,
    /// What the tail shows of it, in order, and was not replayed yet.
    pub(super) shown: VecDeque<Shown>,
    /// The highest position that the tail shows.
    pub(super) highest: Option<(Epoch, u64)>,
}

/// What of a record must be the same when it is given again.
pub(super) fn hash(record: &NewRecord) -> u64 {
    let mut hash = Xxh3::new();
    for part in [&record.key, &record.value] {
        hash.update(&part.as_ref().map_or(0, |part| part.len() as u64 + 1).to_le_bytes());
        hash.update(part.as_deref().unwrap_or_default());
    }
    for (name, bytes) in record.headers.iter().filter(|(name, _)| name != POSITION_HEADER) {
        for part in [name.as_bytes(), bytes] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.digest()
}

/// Reads the tails of all partitions of a writer.
pub(super) fn scan(
    log: &dyn Log,
    config: &LogSinkConfig,
    context: &SinkContext,
) -> Result<BTreeMap<PartitionId, Part>> {
    let mut parts: BTreeMap<PartitionId, Part> = BTreeMap::new();
    let mut starts: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for (partition, end) in &context.partitions {
        parts.insert(*partition, Part { end: *end, ..Part::default() });
        let start = starts.entry(target(*partition, config.topic.partitions)).or_insert(*end);
        *start = (*start).min(*end);
    }
    for (topic_partition, start) in starts {
        scan_partition(log, config, context, topic_partition, start, &mut parts)?;
    }
    Ok(parts)
}

fn scan_partition(
    log: &dyn Log,
    config: &LogSinkConfig,
    context: &SinkContext,
    topic_partition: PartitionId,
    start: u64,
    parts: &mut BTreeMap<PartitionId, Part>,
) -> Result<()> {
    let topic = &config.topic.name;
    let (first, end) = log.offsets(topic, topic_partition)?;
    if first > start || end < start {
        let message = format!(
            "sink topic {topic:?} partition {topic_partition}: offset {start} of the checkpoint is not in it, it holds {first} to {end}; \
             what was written cannot be told: keep records longer, or create the job anew"
        );
        return Err(Error::external("sink-lost", message));
    }
    let mut reader = log.reader(topic, topic_partition, start)?;
    let mut records = Vec::new();
    while reader.position() < end && reader.read(READ_BYTES, &mut records)? {
        for record in records.drain(..) {
            let Some(position) = position(&record.record) else { continue };
            if position.job != context.job_id || position.sink != config.sink {
                continue;
            }
            let part = parts.get_mut(&position.partition).filter(|part| record.offset >= part.end);
            if let Some(part) = part {
                note(part, &record, position, topic)?;
            }
        }
    }
    for (_, part) in
        parts.iter_mut().filter(|(partition, _)| target(**partition, config.topic.partitions) == topic_partition)
    {
        part.end = end;
    }
    Ok(())
}

fn position(record: &NewRecord) -> Option<Position> {
    let header = record.headers.iter().find(|(name, _)| name == POSITION_HEADER);
    header.and_then(|(_, bytes)| Position::decode(bytes))
}

fn note(part: &mut Part, record: &LogRecord, position: Position, topic: &str) -> Result<()> {
    let at = (position.epoch, position.sequence);
    if part.highest.is_some_and(|highest| highest >= at) {
        let message = format!(
            "sink topic {topic:?}: offset {} holds epoch {} record {} of job partition {} after a later one",
            record.offset, at.0, at.1, position.partition
        );
        return Err(Error::internal("sink-order", message));
    }
    part.highest = Some(at);
    part.shown.push_back(Shown { at, offset: record.offset, hash: hash(&record.record) });
    Ok(())
}
