//! What a topic shows already behind the ends of C.

use std::collections::{BTreeMap, VecDeque};

use thalweg_core::{Epoch, Error, JobId, PartitionId, Result};
use xxhash_rust::xxh3::Xxh3;

use super::{SinkProducer, Target};
use crate::log::{LogRecord, NewRecord, NewRecordRef, POSITION_HEADER, Position, ToEnd};

/// A record of the tail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) at: (Epoch, u64),
    pub(super) offset: u64,
    pub(super) hash: u64,
}

/// What one partition of the topic shows of one job partition: the unit of comparison.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// What the tail shows of it, in order, and was not given again yet.
    pub(super) shown: VecDeque<Shown>,
    /// The highest position that the tail shows.
    pub(super) highest: Option<(Epoch, u64)>,
}

/// The parts of a writer, by job partition, then by partition of the topic.
pub(super) type Parts = BTreeMap<PartitionId, Vec<Part>>;

/// What of a record must be the same when it is given again.
pub(super) fn hash(record: NewRecordRef<'_>) -> u64 {
    let mut hash = Xxh3::new();
    for part in [record.key, record.value] {
        hash.update(&part.map_or(0, |part| part.len() as u64 + 1).to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    for (name, bytes) in record.headers.iter().filter(|(name, _)| *name != POSITION_HEADER) {
        for part in [name.as_bytes(), bytes] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.digest()
}

/// Partitions that are read side by side.
const AT_ONCE: usize = 16;

/// Reads the tails of the topic from `ends` on, which move to where they end now. Records of `known` and earlier epochs are
/// there, and known to be; so is, in each partition, the last record before the end in `acknowledged`.
///
/// Errors: those of the log; `sink-lost` where what the checkpoint names is not there any more; `sink-acknowledged-lost` where what
/// was acknowledged is not.
pub(super) fn scan(
    producer: &SinkProducer,
    target: &Target,
    job: JobId,
    known: Epoch,
    acknowledged: &BTreeMap<PartitionId, u64>,
    ends: &mut BTreeMap<PartitionId, u64>,
    parts: &mut Parts,
) -> Result<()> {
    let mut note_one = |partition: PartitionId, record: &LogRecord| {
        let Some(position) = Position::of(&record.record.headers) else { return Ok(()) };
        if position.job != job || position.sink != target.config.sink || position.epoch <= known {
            return Ok(());
        }
        let count = target.count as usize;
        let of_job = parts.entry(position.partition).or_insert_with(|| vec![Part::default(); count]);
        note(&mut of_job[usize::from(partition.0)], record, position, target.name())
    };
    let mut rest: Vec<_> = ends.iter_mut().collect();
    for some in rest.chunks_mut(AT_ONCE) {
        let from: Vec<_> = some.iter().map(|(partition, end)| (**partition, **end)).collect();
        let tails = tails(producer, target.name(), &from)?;
        for ((partition, end), tail) in some.iter_mut().zip(tails) {
            let last = acknowledged.get(*partition).map(|end| end - 1);
            let mut is_there = last.is_none();
            **end = tail.read(|record| {
                is_there |= Some(record.offset) == last;
                note_one(**partition, &record)
            })?;
            if !is_there {
                return Err(gone(target.name(), **partition, last));
            }
        }
    }
    Ok(())
}

/// Only a restart from the last checkpoint can write it again: here it is forgotten.
fn gone(topic: &str, partition: PartitionId, last: Option<u64>) -> Error {
    let message = format!(
        "sink topic {topic:?} partition {partition}: what the broker has acknowledged up to offset {} is not there, it has lost the end \
         of that transaction; start the job again, which writes it once more",
        last.unwrap_or_default()
    );
    Error::external("sink-acknowledged-lost", message)
}

/// The tails of some partitions, each from its end at the checkpoint on.
fn tails(producer: &SinkProducer, topic: &str, ends: &[(PartitionId, u64)]) -> Result<Vec<ToEnd>> {
    let log = producer.log();
    let partitions: Vec<_> = ends.iter().map(|(partition, _)| *partition).collect();
    let part = |((partition, end), (first, last)): (&(PartitionId, u64), (u64, u64))| {
        if first > *end || last < *end {
            let message = format!(
                "sink topic {topic:?} partition {partition}: offset {end} of the checkpoint is not in it, it holds {first} to {last}; \
                 what was written cannot be told: keep records longer, or create the job anew"
            );
            return Err(Error::external("sink-lost", message));
        }
        Ok((*partition, *end..last))
    };
    let parts = ends.iter().zip(log.offsets_of(topic, &partitions)?).map(part);
    ToEnd::open_all(&*log, topic, &parts.collect::<Result<Vec<_>>>()?, Some(producer.owner()))
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
    let NewRecord { key, value, headers } = &record.record;
    let headers: Vec<_> = headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let content = NewRecordRef { key: key.as_deref(), value: value.as_deref(), headers: &headers };
    part.shown.push_back(Shown { at, offset: record.offset, hash: hash(content) });
    Ok(())
}
