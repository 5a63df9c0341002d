//! Reads one partition of a source.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::bindings as sys;
use thalweg_core::{PartitionId, PartitionSpec, Result};

use super::identity::Identity;
use super::{Connected, OnDataLoss, SETTLE, cut_off, dropped};
use crate::kafka::consumer::{Next, PartitionQueue, headers, parts, timestamp};
use crate::raw::{RawHeader, TopicPartition};
use crate::{Lag, RawBatch, RawReader, RawRecord, ReadLimit, ReadState, Waker};

/// See the module `source`.
pub(super) struct KafkaReader {
    connected: Arc<Connected>,
    identity: Identity,
    /// The number of the partition in the source.
    partition: PartitionId,
    place: Arc<TopicPartition>,
    name: String,
    /// Nothing only while another one is made.
    queue: Option<PartitionQueue>,
    waker: Option<Waker>,
    start: u64,
    end: Option<u64>,
    position: u64,
    /// The position behind the last record.
    behind_record: u64,
    /// Everything that is kept is at or behind this offset, which is behind the position: what is between them is lost.
    gap: Option<u64>,
    /// Nothing stands between the last record and this offset.
    read_up_to: Option<u64>,
    /// That offset was the end.
    at_end: bool,
    /// Since when the end stands before what is to be read.
    short_since: Option<Instant>,
    lost: u64,
}

impl KafkaReader {
    /// Begins at `from`, or where that is lost at `first`.
    pub(super) fn open(
        connected: Arc<Connected>,
        identity: Identity,
        partition: &PartitionSpec,
        from: u64,
        first: u64,
    ) -> Result<Self> {
        let queue = connected.consumer.partition(&identity.topic, identity.partition, from.max(first))?;
        let place = TopicPartition { topic: identity.topic.clone(), partition: u32::from(identity.partition.0) };
        Ok(Self {
            connected,
            identity,
            partition: partition.of.partition,
            place: Arc::new(place),
            name: partition.name.clone(),
            queue: Some(queue),
            waker: None,
            start: partition.start,
            end: partition.end,
            position: from,
            behind_record: from,
            gap: (from < first).then_some(first),
            read_up_to: None,
            at_end: false,
            short_since: None,
            lost: 0,
        })
    }

    fn queue(&mut self) -> &mut PartitionQueue {
        self.queue.as_mut().expect("a reader has a queue between two calls")
    }

    /// Goes over what is known to hold no records, but not beyond `until`.
    fn advance(&mut self, until: u64) {
        if let Some(first) = self.gap.take() {
            let missing = first - self.position;
            tracing::warn!(
                "{}: {missing} records from offset {} on are lost; going on at {first}",
                self.name,
                self.position
            );
            self.lost += missing;
            self.read_up_to = Some(first);
        }
        if let Some(free) = self.read_up_to {
            self.position = self.position.max(free.min(until));
        }
    }

    /// The offset that is wanted next is not there any more.
    fn out_of_range(&mut self) -> Result<()> {
        self.connected.check(&self.identity)?;
        let (first, end) = self.connected.cluster.offsets(&self.identity.topic, self.identity.partition)?;
        if self.position > end {
            return Err(cut_off(&self.name, self.position, end));
        }
        if self.position < first && self.connected.on_data_loss == OnDataLoss::Fail {
            return Err(dropped(&self.name, self.position, first));
        }
        // The old one has to leave the partition before it is read anew.
        self.queue = None;
        let from = self.position.max(first);
        let mut queue = self.connected.consumer.partition(&self.identity.topic, self.identity.partition, from)?;
        if let Some(waker) = &self.waker {
            queue.wake(Arc::clone(waker));
        }
        self.queue = Some(queue);
        self.gap = (self.position < first).then_some(first);
        (self.read_up_to, self.at_end) = (None, false);
        Ok(())
    }

    /// What it means that nothing is there.
    fn nothing(&mut self, until: Option<u64>) -> Result<ReadState> {
        let Some(end) = self.read_up_to.filter(|_| self.at_end) else { return Ok(ReadState::Pending) };
        let Some(until) = until else { return Ok(ReadState::Idle) };
        // A new leader may not know the end yet: what was read once comes back then.
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() > SETTLE {
            self.connected.check(&self.identity)?;
            return Err(cut_off(&self.name, until, end));
        }
        Ok(ReadState::Pending)
    }
}

/// Copies a message into a batch.
fn push(batch: &mut RawBatch, message: &sys::rd_kafka_message_t, next: u64) {
    let (key, value) = parts(message);
    let data = &mut batch.data;
    let mut append = |bytes: &[u8]| {
        let start = data.len();
        data.extend_from_slice(bytes);
        start..data.len()
    };
    let range = append(value.unwrap_or_default());
    let key = key.map(&mut append);
    let first_header = batch.headers.len();
    for (name, value) in headers(message) {
        batch.headers.push(RawHeader { name: append(name.as_bytes()), value: append(value) });
    }
    batch.records.push(RawRecord {
        value: range,
        tombstone: value.is_none(),
        key,
        headers: first_header..batch.headers.len(),
        time: timestamp(message),
        next,
    });
}

impl RawReader for KafkaReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        let until = [limit.until, self.end].into_iter().flatten().min();
        batch.place = Some(Arc::clone(&self.place));
        let (mut records, first_byte) = (0, batch.data.len());
        loop {
            self.advance(until.unwrap_or(u64::MAX));
            if until.is_some_and(|until| self.position >= until) {
                self.short_since = None;
                return Ok(ReadState::End);
            }
            if records >= limit.records || batch.data.len() - first_byte >= limit.bytes {
                return Ok(ReadState::More);
            }
            let position = self.position;
            match self.queue().peek(0) {
                Ok(Next::Record(message)) => {
                    let offset = u64::try_from(message.offset).unwrap_or(0);
                    if until.is_some_and(|until| offset >= until) {
                        // What is between was aborted, or is a marker.
                        (self.read_up_to, self.at_end) = (Some(offset), false);
                        continue;
                    }
                    if offset >= position {
                        push(batch, message, offset + 1);
                        records += 1;
                        (self.position, self.behind_record) = (offset + 1, offset + 1);
                        (self.read_up_to, self.at_end) = (None, false);
                    }
                    self.queue().step();
                }
                Ok(Next::End(offset)) => {
                    (self.read_up_to, self.at_end) = (Some(offset), true);
                    self.queue().step();
                    let free = until.map_or(offset, |until| until.min(offset));
                    self.connected.free(self.partition, self.behind_record, free)?;
                }
                Ok(Next::Nothing) => return self.nothing(until),
                Err(error) if error.code() == "kafka-out-of-range" => self.out_of_range()?,
                Err(error) => {
                    // That the topic was deleted, or made anew, is the better answer.
                    self.connected.check(&self.identity)?;
                    return Err(error);
                }
            }
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn fraction(&self) -> Option<f64> {
        let length = self.end?.saturating_sub(self.start);
        Some(if length == 0 { 1.0 } else { (self.position - self.start) as f64 / length as f64 })
    }

    /// By what the last fetch has said of the end: markers and records of transactions that are open or aborted are counted as well.
    fn lag(&mut self) -> Option<Lag> {
        let end = self.queue().known_end()?;
        let end = self.end.map_or(end, |last| last.min(end));
        let free = self.gap.or(self.read_up_to).unwrap_or(0);
        let records = end.saturating_sub(self.position.max(free));
        let oldest = if records > 0 { self.queue().next_time() } else { None };
        Some(Lag { records, oldest })
    }

    fn wake(&mut self, waker: Waker) -> bool {
        self.queue().wake(Arc::clone(&waker));
        self.waker = Some(waker);
        true
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}
