//! Gives out what is new, holds back what is there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use thalweg_core::{Epoch, Error, JobId, PartitionId, Result};

use super::Target;
use super::producer::{Committed, Incarnation, SinkProducer, Transaction};
use super::settling::Settling;
use super::tail::{Part, Parts, hash, scan};
use crate::log::{Delivery, NewRecordRef, POSITION_HEADER, Position};
use crate::{EncodedBatch, EncodedRecord, SinkWriter};

/// Writes all partitions of a log sink.
pub(super) struct LogSinkWriter {
    target: Target,
    job: JobId,
    producer: Arc<SinkProducer>,
    /// The producer that everything in `pending` was appended to.
    incarnation: Incarnation,
    settling: Arc<Settling>,
    /// Per partition of the topic where the last checkpoint ended: what of this sink is before it is of epochs that are visible.
    /// Where a tail is read again, it begins here: what was found shown may be a part of what is pending.
    tail_from: BTreeMap<PartitionId, u64>,
    /// Up to where the tail was read.
    ends: BTreeMap<PartitionId, u64>,
    parts: Parts,
    /// Everything of this epoch and earlier ones is visible.
    visible: Epoch,
    /// The last complete epoch.
    complete: Epoch,
    /// What was written and is not known to be visible, and the transaction that it is in.
    pending: Vec<(Epoch, PartitionId, EncodedBatch)>,
    transaction: Option<Transaction>,
    /// Records by partition of the topic, within one batch.
    sequences: Vec<u64>,
}

impl LogSinkWriter {
    pub(super) fn new(
        target: Target,
        job: JobId,
        checkpoint: Epoch,
        (producer, incarnation): (Arc<SinkProducer>, Incarnation),
        settling: Arc<Settling>,
        ends: BTreeMap<PartitionId, u64>,
    ) -> Self {
        Self {
            sequences: vec![0; target.count as usize],
            target,
            job,
            producer,
            incarnation,
            settling,
            tail_from: ends.clone(),
            ends,
            parts: Parts::new(),
            visible: checkpoint,
            complete: checkpoint,
            pending: Vec::new(),
            transaction: None,
        }
    }

    /// Reads what the topic shows of epochs that are not known to be visible. What the producers of this generation have
    /// acknowledged was forgotten here, so it has to be there.
    pub(super) fn scan(&mut self) -> Result<()> {
        let acknowledged = self.settling.acknowledged();
        self.parts.clear();
        self.ends.clone_from(&self.tail_from);
        for (partition, end) in &acknowledged {
            let from = self.ends.entry(*partition).or_default();
            *from = (*from).min(end - 1);
        }
        let Self { producer, target, ends, parts, .. } = self;
        scan(producer, target, self.job, self.visible, &acknowledged, ends, parts)?;
        self.settling.seen(&acknowledged);
        Ok(())
    }

    /// Where what is visible ends. While a tail is given again, that is before its first record that was not.
    fn visible_ends(&self) -> BTreeMap<PartitionId, u64> {
        let end = |(partition, end): (&PartitionId, &u64)| {
            let committed = self.producer.end(self.target.name(), *partition);
            let first = self.parts.values().filter_map(|parts| parts[usize::from(partition.0)].shown.front());
            let first = first.map(|shown| shown.offset).min();
            (*partition, first.unwrap_or_else(|| committed.map_or(*end, |committed| committed.max(*end))))
        };
        self.ends.iter().map(end).collect()
    }

    /// Appends what of a batch is not shown already.
    fn append(&mut self, epoch: Epoch, partition: PartitionId, batch: &EncodedBatch) -> Result<()> {
        let Self { target, job, producer, parts, sequences, .. } = self;
        let exactly_once = producer.delivery() == Delivery::ExactlyOnce;
        let mut parts = parts.get_mut(&partition).filter(|_| exactly_once);
        sequences.fill(0);
        let mut position_bytes = Vec::with_capacity(64);
        let transaction = producer.append(target.name(), |put| {
            for record in &batch.records {
                let key = bytes(batch, &record.key);
                let value = bytes(batch, &record.value);
                let mut headers: Vec<_> = user_headers(batch, record).collect();
                let content = NewRecordRef { key, value, headers: &headers };
                let to = target.partition(partition, record.partition, key);
                let next = &mut sequences[usize::from(to.0)];
                let sequence = std::mem::replace(next, *next + 1);
                if let Some(parts) = &mut parts
                    && is_shown(target, partition, &mut parts[usize::from(to.0)], (epoch, sequence), content)?
                {
                    continue;
                }
                let position = Position { job: *job, sink: target.config.sink, partition, epoch, sequence };
                position.encode_into(&mut position_bytes);
                let position = (POSITION_HEADER, position_bytes.as_slice());
                if headers.is_empty() {
                    put(to, NewRecordRef { key, value, headers: &[position] })?;
                } else {
                    headers.push(position);
                    put(to, NewRecordRef { key, value, headers: &headers })?;
                }
            }
            Ok(())
        })?;
        self.transaction = Some(transaction);
        Ok(())
    }

    /// Reads what is there after the producer was replaced, and writes again what is not.
    fn resume(&mut self, incarnation: Incarnation) -> Result<()> {
        self.incarnation = incarnation;
        if self.producer.delivery() == Delivery::ExactlyOnce {
            self.scan()?;
        }
        let pending = std::mem::take(&mut self.pending);
        let outcome = pending.iter().try_for_each(|(epoch, partition, batch)| self.append(*epoch, *partition, batch));
        self.pending = pending;
        outcome
    }
}

fn bytes<'a>(batch: &'a EncodedBatch, range: &Option<Range<usize>>) -> Option<&'a [u8]> {
    range.clone().map(|range| &batch.data[range])
}

fn user_headers<'a>(batch: &'a EncodedBatch, record: &'a EncodedRecord) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    record.headers.iter().map(|(name, range)| (&**name, &batch.data[range.clone()]))
}

fn differs(target: &Target, partition: PartitionId, at: (Epoch, u64), why: &str) -> Error {
    let topic = target.name();
    let message = format!("sink topic {topic:?}: job partition {partition}, epoch {}, record {}: {why}", at.0, at.1);
    Error::internal("sink-differs", message)
}

/// Whether the topic shows the record already; then it must be the same.
fn is_shown(
    target: &Target,
    partition: PartitionId,
    part: &mut Part,
    at: (Epoch, u64),
    record: NewRecordRef<'_>,
) -> Result<bool> {
    if part.highest.is_none_or(|highest| at > highest) {
        return match part.shown.front() {
            None => Ok(false),
            Some(_) => {
                Err(differs(target, partition, at, "the topic shows records before it that were not given again"))
            }
        };
    }
    match part.shown.front().copied() {
        Some(shown) if shown.at == at => {
            part.shown.pop_front();
            let same = shown.hash == hash(record);
            if same { Ok(true) } else { Err(differs(target, partition, at, "the topic shows another record there")) }
        }
        Some(shown) if shown.at < at => {
            Err(differs(target, partition, shown.at, "the topic shows it, but it was not given again"))
        }
        // Compaction may have dropped it; its position is proof enough that it was there.
        _ if target.compacted => Ok(true),
        _ => Err(differs(target, partition, at, "the topic shows later records, but not this one")),
    }
}

impl SinkWriter for LogSinkWriter {
    fn write(&mut self, epoch: Epoch, partition: PartitionId, batch: EncodedBatch) -> Result<()> {
        // A producer that was replaced meanwhile is given everything at once when the tail has been read.
        if self.producer.incarnation() == self.incarnation {
            self.append(epoch, partition, &batch)?;
        }
        self.pending.push((epoch, partition, batch));
        Ok(())
    }

    fn end_epoch(&mut self, epoch: Epoch) -> Result<()> {
        self.complete = epoch;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            // Another sink of the task may have committed the transaction that they share.
            let committed = self.transaction.is_some_and(|transaction| self.producer.is_committed(transaction));
            if !committed {
                let incarnation = self.producer.incarnation();
                if incarnation != self.incarnation {
                    self.resume(incarnation)?;
                }
                if let Committed::Replaced = self.producer.commit()? {
                    continue;
                }
            }
            self.pending.clear();
        }
        self.incarnation = self.producer.incarnation();
        self.transaction = None;
        self.visible = self.complete;
        Ok(())
    }

    /// A commit is durable already.
    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        self.flush()?;
        self.tail_from = self.visible_ends();
        Ok(self.tail_from.iter().map(|(partition, end)| (*partition, *end)).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        // What was only kept, because another sink's commit had the producer replaced, is compared first.
        let incarnation = self.producer.incarnation();
        if incarnation != self.incarnation {
            self.resume(incarnation)?;
        }
        for (partition, parts) in &self.parts {
            if let Some(shown) = parts.iter().find_map(|part| part.shown.front()) {
                let why = "the topic shows it, but no binding does: the topic is ahead of the job's log";
                return Err(differs(&self.target, *partition, shown.at, why));
            }
        }
        self.parts.clear();
        Ok(())
    }
}
