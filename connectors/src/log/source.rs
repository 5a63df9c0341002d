//! The source `connector = "log"`: the records of a topic of an embedded log, of this process or another.

use std::path::PathBuf;

use thalweg_core::{Error, PartitionId, PartitionSpec, Result, SourceKey};

use super::embedded::EmbeddedReader;
use super::{EmbeddedLog, Log, Retention};
use crate::{Lag, RawBatch, RawReader, RawRecord, RawSource, ReadLimit, ReadState};

/// Where a source begins that no checkpoint knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is kept.
    Earliest,
    /// After the last record.
    Latest,
    /// At the first record that was appended at or after this time, microseconds since 1970.
    Time(i64),
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSourceConfig {
    /// The folder of the log.
    pub path: PathBuf,
    /// The topic.
    pub topic: String,
    /// Where to begin.
    pub start: Start,
    /// Whether to end where the topic ended when the job was created.
    pub bounded: bool,
}

/// Reads the topic as raw records: value, key and time of each; a tombstone is an empty value.
///
/// Positions are offsets. A partition's identity is the random id of the topic, so another topic of the same name is refused. Records
/// of a topic that is not compacted and that retention dropped before they were read are an error.
pub struct LogSource {
    config: LogSourceConfig,
}

impl LogSource {
    /// A source; the log is opened when it is used.
    pub fn new(config: LogSourceConfig) -> Self {
        Self { config }
    }

    fn name(&self, partition: PartitionId) -> String {
        format!("{}/{}/{partition}", self.config.path.display(), self.config.topic)
    }

    fn open_log(&self) -> Result<(EmbeddedLog, String, Retention)> {
        let log = EmbeddedLog::open_read_only(&self.config.path)?;
        let (id, retention) = log.describe(&self.config.topic)?;
        Ok((log, format!("{id:032x}"), retention))
    }
}

impl RawSource for LogSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let (log, identity, _) = self.open_log()?;
        let topic = &self.config.topic;
        let count = log.topics()?.into_iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| count);
        let spec = |index: u32| {
            let partition = PartitionId(index as u16);
            let (first, end) = log.offsets(topic, partition)?;
            let start = match self.config.start {
                Start::Earliest => first,
                Start::Latest => end,
                Start::Time(time) => log.offset_at(topic, partition, time)?,
            };
            let end = self.config.bounded.then_some(end.max(start));
            let of = SourceKey { source, partition };
            Ok(PartitionSpec { of, name: self.name(partition), identity: identity.clone(), start, end })
        };
        (0..count).map(spec).collect()
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let (log, identity, retention) = self.open_log()?;
        let name = self.name(partition.of.partition);
        if identity != partition.identity {
            let message = format!(
                "{name}: this is another topic than the job was created with; bring the old one back, or create the job anew"
            );
            return Err(Error::user("source-changed", message));
        }
        let (first, end) = log.offsets(&self.config.topic, partition.of.partition)?;
        let gapless = !matches!(retention, Retention::Compact { .. });
        if gapless && from < first {
            return Err(lost(&name, from, first));
        }
        if partition.end.is_some_and(|wanted| wanted > end) {
            let message =
                format!("{name}: ends at offset {end}, the job was promised more; bring the lost records back");
            return Err(Error::external("source-lost", message));
        }
        let reader = log.raw_reader(&self.config.topic, partition.of.partition, from)?;
        Ok(Box::new(LogRawReader { reader, name, gapless, end: partition.end, position: from }))
    }

    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        Some((self.config.topic.clone(), u32::from(partition.of.partition.0)))
    }
}

fn lost(name: &str, from: u64, first: u64) -> Error {
    let message = format!(
        "{name}: offset {from} is not kept any more, the first is {first}; keep records longer than a job may stand still"
    );
    Error::external("source-lost", message)
}

struct LogRawReader {
    reader: EmbeddedReader,
    name: String,
    /// Offsets follow each other: one that is missing was dropped before it was read.
    gapless: bool,
    end: Option<u64>,
    position: u64,
}

impl LogRawReader {
    fn until(&self, limit: ReadLimit) -> Option<u64> {
        match (limit.until, self.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl RawReader for LogRawReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        let until = self.until(limit);
        let (mut records, mut bytes) = (0, 0);
        loop {
            if until.is_some_and(|until| self.position >= until) {
                return Ok(ReadState::End);
            }
            if records >= limit.records || bytes >= limit.bytes {
                return Ok(ReadState::More);
            }
            let Some(record) = self.reader.peek()? else {
                // Compaction may have dropped the last offsets before the end.
                let ended = until.is_some_and(|until| self.reader.wanted() >= until);
                return Ok(if ended { ReadState::End } else { ReadState::Idle });
            };
            if self.gapless && record.offset != self.position {
                return Err(lost(&self.name, self.position, record.offset));
            }
            if until.is_some_and(|until| record.offset >= until) {
                return Ok(ReadState::End);
            }
            let start = batch.data.len();
            let (value, tombstone) = (record.value.unwrap_or_default(), record.value.is_none());
            batch.data.extend_from_slice(value);
            let value = start..batch.data.len();
            let key = record.key.map(|key| {
                batch.data.extend_from_slice(key);
                value.end..batch.data.len()
            });
            records += 1;
            bytes += batch.data.len() - start;
            self.position = record.offset + 1;
            let (time, next) = (Some(record.time), self.position);
            batch.records.push(RawRecord { value, tombstone, key, time, next, ..RawRecord::default() });
            self.reader.step();
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn lag(&mut self) -> Option<Lag> {
        let end = self.reader.committed_end().ok()?;
        let records = self.end.map_or(end, |last| last.min(end)).saturating_sub(self.position);
        let next = if records > 0 { self.reader.peek().ok()? } else { None };
        // Compaction may have dropped all that is left.
        Some(next.map_or_else(Lag::default, |record| Lag { records, oldest: Some(record.time) }))
    }
}
