//! Reading retried records: each source that sets records aside has one more partition, which reads a topic of the job's log.

use std::collections::VecDeque;
use std::sync::Arc;

use thalweg_core::{ContentHash, Error, PartitionId, PartitionSpec, Result, SourceKey};

use super::header;
use super::letter::{RecordHeaders, split};
use crate::log::{Log, LogReader, LogRecord, Retention, TopicSpec};
use crate::{
    BadRecord, Decoder, DecoderOf, RawBatch, RawHeader, RawRecord, ReadLimit, ReadState, RecordReader, Retried,
    RunningHash, TopicPartition, Waker,
};

/// The only partition of a topic of retried records.
pub(super) const PARTITION: PartitionId = PartitionId(0);
/// In front of the identity of a partition of retried records.
const IDENTITY: &str = "retry:";
/// Bytes that are read from the log at once.
const READ_BYTES: usize = 1 << 20;

/// The retried records of a source.
#[derive(Clone)]
pub struct Retries {
    /// The job's own log, open for writing.
    pub log: Arc<dyn Log>,
    /// The topic, [`super::retry_topic`].
    pub topic: String,
    /// Whether the source is to have the partition from its beginning on. A source that has it reads it in any case: a job may set
    /// nothing aside for a while.
    pub wanted: bool,
}

/// Whether a partition of a source is that of its retried records.
pub fn is_retry(partition: &PartitionSpec) -> bool {
    partition.identity.starts_with(IDENTITY)
}

/// The identity of a partition of retried records that is this beside others of its kind.
pub(crate) fn retry_identity(identity: &str) -> String {
    format!("{IDENTITY}{identity}")
}

/// An identity without what says that it is that of retried records.
pub(crate) fn without_retry(identity: &str) -> &str {
    identity.strip_prefix(IDENTITY).unwrap_or(identity)
}

impl Retries {
    /// The same for records of the source's backfill.
    pub(crate) fn of_backfill(&self) -> Self {
        Self { topic: format!("{}{}", self.topic, super::BACKFILL), ..self.clone() }
    }

    /// The partition, behind those that the source has.
    pub(crate) fn discover(&self, source: u16, others: &[PartitionSpec]) -> Result<PartitionSpec> {
        self.ensure()?;
        let next = others.iter().map(|spec| u32::from(spec.of.partition.0) + 1).max().unwrap_or(0);
        let partition = u16::try_from(next).map(PartitionId).map_err(|_| {
            Error::user("too-many-partitions", "a source has no number left for the partition of its retried records")
        })?;
        Ok(PartitionSpec {
            of: SourceKey { source, partition },
            name: self.topic.clone(),
            identity: retry_identity(&self.topic),
            start: 0,
            end: None,
        })
    }

    /// Makes the topic where it is missing.
    fn ensure(&self) -> Result<()> {
        self.log.ensure(&TopicSpec { name: self.topic.clone(), partitions: 1, retention: Retention::Keep })
    }

    pub(crate) fn open<T: 'static>(
        &self,
        from: u64,
        decoders: Arc<dyn DecoderOf<T>>,
    ) -> Result<Box<dyn RecordReader<T>>> {
        // A job that repeats another's run has that partition from there.
        self.ensure()?;
        Ok(Box::new(RetryReader {
            reader: self.log.reader(&self.topic, PARTITION, from)?,
            waiting: VecDeque::new(),
            waker: Arc::new(|| ()),
            decoders,
            decoder: None,
            position: from,
            hash: RunningHash::default(),
            bytes: 0,
        }))
    }
}

/// Reads retried records and decodes each as the partition that it came from does.
struct RetryReader<T> {
    reader: Box<dyn LogReader>,
    /// Read from the log and not given yet.
    waiting: VecDeque<LogRecord>,
    waker: Waker,
    decoders: Arc<dyn DecoderOf<T>>,
    /// With the header line that it was made for.
    decoder: Option<(Option<Vec<u8>>, Box<dyn Decoder<T>>)>,
    position: u64,
    hash: RunningHash,
    bytes: u64,
}

impl<T> RetryReader<T> {
    fn next(&mut self) -> Result<Option<LogRecord>> {
        if self.waiting.is_empty() {
            let mut records = Vec::new();
            self.reader.read(READ_BYTES, &mut records)?;
            self.waiting = records.into();
        }
        Ok(self.waiting.pop_front())
    }

    fn decoder(&mut self, csv_header: Option<&[u8]>) -> Result<&mut Box<dyn Decoder<T>>> {
        let known = self.decoder.take().filter(|(known, _)| known.as_deref() == csv_header);
        let decoder = match known {
            Some(known) => known,
            None => (csv_header.map(<[u8]>::to_vec), self.decoders.decoder(csv_header)?),
        };
        Ok(&mut self.decoder.insert(decoder).1)
    }

    /// Decodes a record, unless what it needs for that is not there yet: says whether it has.
    fn decode(&mut self, record: &LogRecord, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<bool> {
        let (own, headers) = split(&record.record.headers);
        let batch = batch_of(record, own, &headers);
        let known_bad = bad.len();
        let csv_header = headers.bytes(header::CSV_HEADER);
        let (waker, takes_tombstones) = (self.waker.clone(), self.decoders.takes_tombstones());
        let decoder = self.decoder(csv_header)?;
        if !decoder.prepare(&batch, &waker)? {
            return Ok(false);
        }
        if !batch.records[0].tombstone || takes_tombstones {
            decoder.decode(&batch, out, bad)?;
        }
        let value = batch.value(&batch.records[0]);
        self.hash.add(value);
        self.bytes += value.len() as u64;
        for bad in &mut bad[known_bad..] {
            let retried = headers.number(header::RETRY_OF).map(|dead_letter| (dead_letter, headers.place()));
            bad.at = record.offset;
            bad.header = csv_header.map(<[u8]>::to_vec);
            if let Some((dead_letter, place)) = retried {
                bad.why = format!("dead letter {dead_letter}, retried: {}", bad.why);
                bad.retried = Some(Box::new(Retried { dead_letter, place }));
            }
        }
        Ok(true)
    }
}

/// The record as its source has read it: with its own headers, its time and its place where it is one of a topic.
fn batch_of(record: &LogRecord, own: &[(String, Vec<u8>)], headers: &RecordHeaders<'_>) -> RawBatch {
    let mut batch = RawBatch::default();
    let value = batch.put(record.record.value.as_deref().unwrap_or_default());
    let key = record.record.key.as_deref().map(|key| batch.put(key));
    for (name, bytes) in own {
        let header = RawHeader { name: batch.put(name.as_bytes()), value: batch.put(bytes) };
        batch.headers.push(header);
    }
    let of_topic = headers.place().and_then(|place| {
        let partition = place.partition.parse().ok()?;
        Some((TopicPartition { topic: place.topic, partition }, place.offset))
    });
    let next = of_topic.as_ref().map_or(record.offset, |(_, offset)| *offset) + 1;
    batch.place = of_topic.map(|(place, _)| Arc::new(place));
    batch.records.push(RawRecord {
        value,
        tombstone: record.record.value.is_none(),
        key,
        headers: 0..own.len(),
        time: headers.time(),
        next,
    });
    batch
}

impl<T> RecordReader<T> for RetryReader<T> {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<ReadState> {
        let (mut records, start) = (0, self.bytes);
        loop {
            if limit.until.is_some_and(|until| self.position >= until) {
                return Ok(ReadState::End);
            }
            if records >= limit.records || self.bytes - start >= limit.bytes as u64 {
                return Ok(ReadState::More);
            }
            let Some(record) = self.next()? else {
                return Ok(ReadState::Idle);
            };
            if limit.until.is_some_and(|until| record.offset >= until) {
                self.waiting.push_front(record);
                return Ok(ReadState::End);
            }
            if !self.decode(&record, out, bad)? {
                self.waiting.push_front(record);
                return Ok(ReadState::Pending);
            }
            records += 1;
            self.position = record.offset + 1;
        }
    }

    fn position(&self) -> u64 {
        self.position
    }

    /// It is looked into again and again; a schema that has come is only the sooner used.
    fn wake(&mut self, waker: Waker) -> bool {
        self.waker = waker;
        false
    }

    /// What is retried meanwhile is no part of how far the input is read.
    fn fraction(&self) -> Option<f64> {
        Some(1.0)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}
