//! Gives out what is new, holds back what is there.

use std::collections::BTreeMap;

use thalweg_core::{Epoch, Error, JobId, PartitionId, Result};

use super::tail::{Part, hash};
use super::{LogSinkConfig, SharedProducer, target};
use crate::log::{NewRecord, POSITION_HEADER, Position, Retention};
use crate::{EncodedBatch, EncodedRecord, SinkWriter};

/// Writes some partitions of a log sink.
pub(super) struct LogSinkWriter {
    config: LogSinkConfig,
    job: JobId,
    producer: SharedProducer,
    parts: BTreeMap<PartitionId, Part>,
    /// New records of the open epoch, with their topic partitions.
    open: Vec<(PartitionId, NewRecord)>,
}

impl LogSinkWriter {
    pub(super) fn new(
        config: LogSinkConfig,
        job: JobId,
        producer: SharedProducer,
        parts: BTreeMap<PartitionId, Part>,
    ) -> Self {
        Self { config, job, producer, parts, open: Vec::new() }
    }

    fn differs(&self, partition: PartitionId, at: (Epoch, u64), why: &str) -> Error {
        let topic = &self.config.topic.name;
        let message =
            format!("sink topic {topic:?}: job partition {partition}, epoch {}, record {}: {why}", at.0, at.1);
        Error::internal("sink-differs", message)
    }

    /// Whether the topic shows the record already; then it must be the same.
    fn is_shown(&mut self, partition: PartitionId, at: (Epoch, u64), record: &NewRecord) -> Result<bool> {
        let part = self.parts.get_mut(&partition).ok_or_else(|| {
            let topic = &self.config.topic.name;
            Error::internal(
                "sink-partition",
                format!("sink topic {topic:?}: job partition {partition} is not this writer's"),
            )
        })?;
        if part.highest.is_none_or(|highest| at > highest) {
            return match part.shown.front() {
                None => Ok(false),
                Some(_) => {
                    Err(self.differs(partition, at, "the topic shows records before it that were not given again"))
                }
            };
        }
        match part.shown.front().copied() {
            Some(shown) if shown.at == at => {
                part.shown.pop_front();
                let same = shown.hash == hash(record);
                if same { Ok(true) } else { Err(self.differs(partition, at, "the topic shows another record there")) }
            }
            Some(shown) if shown.at < at => {
                Err(self.differs(partition, shown.at, "the topic shows it, but it was not given again"))
            }
            // Compaction may have dropped it; its position is proof enough that it was there.
            _ if matches!(self.config.topic.retention, Retention::Compact { .. }) => Ok(true),
            _ => Err(self.differs(partition, at, "the topic shows later records, but not this one")),
        }
    }

    fn commit(&mut self) -> Result<()> {
        let mut shared = self.producer.lock();
        if shared.failed {
            let topic = &self.config.topic.name;
            let message = format!("sink topic {topic:?}: a commit of this task failed; open the sink again");
            return Err(Error::external("sink-failed", message));
        }
        let topic = &self.config.topic.name;
        let producer = &mut shared.producer;
        let open = &mut self.open;
        let mut run = || {
            producer.begin()?;
            open.drain(..).try_for_each(|(partition, record)| producer.append(topic, partition, record))?;
            producer.commit()
        };
        let outcome = run();
        shared.failed = outcome.is_err();
        for (_, topic_partition, end) in outcome? {
            let count = self.config.topic.partitions;
            let parts = self.parts.iter_mut().filter(|(partition, _)| target(**partition, count) == topic_partition);
            parts.for_each(|(_, part)| part.end = end);
        }
        Ok(())
    }
}

fn owned(batch: &EncodedBatch, record: &EncodedRecord) -> NewRecord {
    let bytes = |range: &Option<std::ops::Range<usize>>| range.clone().map(|range| batch.data[range].to_vec());
    let headers = record.headers.iter().map(|(name, range)| ((*name).to_owned(), batch.data[range.clone()].to_vec()));
    NewRecord { key: bytes(&record.key), value: bytes(&record.value), headers: headers.collect() }
}

impl SinkWriter for LogSinkWriter {
    fn write(&mut self, epoch: Epoch, partition: PartitionId, batch: &EncodedBatch) -> Result<()> {
        let topic_partition = target(partition, self.config.topic.partitions);
        for (sequence, record) in (0u64..).zip(&batch.records) {
            let mut record = owned(batch, record);
            if self.is_shown(partition, (epoch, sequence), &record)? {
                continue;
            }
            let position = Position { job: self.job, sink: self.config.sink, partition, epoch, sequence };
            record.headers.push((POSITION_HEADER.to_owned(), position.encode()));
            self.open.push((topic_partition, record));
        }
        Ok(())
    }

    fn end_epoch(&mut self, _: Epoch) -> Result<()> {
        if self.open.is_empty() { Ok(()) } else { self.commit() }
    }

    /// A commit is durable already. While a tail is replayed, the end is before its first record that was not given again.
    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        let end = |(partition, part): (&PartitionId, &Part)| {
            (*partition, part.shown.front().map_or(part.end, |shown| shown.offset))
        };
        Ok(self.parts.iter().map(end).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        for (partition, part) in &self.parts {
            if let Some(shown) = part.shown.front() {
                let why = "the topic shows it, but no binding does: the topic is ahead of the job's log";
                return Err(self.differs(*partition, shown.at, why));
            }
        }
        Ok(())
    }
}
