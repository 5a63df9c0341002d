//! A raw source and a format: a source of values.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thalweg_core::{ContentHash, PartitionId, PartitionSpec, Result, Value};

use crate::dead_letter::{Retries, is_retry};
use crate::format::Untyped;
use crate::{
    BadRecord, Decoder, DecoderOf, Fields, Format, Lag, RawBatch, RawReader, RawSource, ReadLimit, ReadState,
    RecordReader, RecordSource, RunningHash, Waker,
};

/// Decodes the records of a raw source.
///
/// The hash of a share is over the raw bytes, so it finds out another input whatever is projected. A record that cannot be
/// decoded is reported with the partition's name and the position at which it begins.
pub struct FormattedSource<T> {
    raw: Box<dyn RawSource>,
    decoders: Arc<dyn DecoderOf<T>>,
    retries: Option<Retries>,
    /// The partition of retried records, once it is opened: the raw source knows nothing of it.
    retried: OnceLock<PartitionId>,
}

impl FormattedSource<Value> {
    /// Into untyped values.
    pub fn values(raw: Box<dyn RawSource>, format: Format, fields: Fields) -> Self {
        Self::new(raw, Arc::new(Untyped { format, fields }))
    }
}

impl<T> FormattedSource<T> {
    /// Into what the decoders give.
    pub fn new(raw: Box<dyn RawSource>, decoders: Arc<dyn DecoderOf<T>>) -> Self {
        Self { raw, decoders, retries: None, retried: OnceLock::new() }
    }

    /// With a partition for dead letters that are to be read once more.
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = Some(retries);
        self
    }
}

impl<T: 'static> RecordSource<T> for FormattedSource<T> {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let mut partitions = self.raw.discover(source)?;
        if let Some(retries) = self.retries.as_ref().filter(|retries| retries.wanted) {
            partitions.push(retries.discover(source, &partitions)?);
        }
        Ok(partitions)
    }

    fn discover_interval(&self) -> Option<Duration> {
        self.raw.discover_interval()
    }

    fn discover_more(&self, source: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let own: Vec<PartitionSpec> = known.iter().filter(|spec| !is_retry(spec)).cloned().collect();
        self.raw.discover_more(source, &own)
    }

    fn committed(&self, partition: PartitionId, position: u64) -> Result<()> {
        match self.retried.get() == Some(&partition) {
            true => Ok(()),
            false => self.raw.committed(partition, position),
        }
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<T>>> {
        if let Some(retries) = self.retries.as_ref().filter(|_| is_retry(partition)) {
            self.retried.get_or_init(|| partition.of.partition);
            return retries.open(from, self.decoders.clone());
        }
        let raw = self.raw.open(partition, from)?;
        let mut reader = FormattedReader {
            name: partition.name.clone(),
            raw,
            decoders: self.decoders.clone(),
            decoder: None,
            batch: RawBatch::default(),
            hash: RunningHash::default(),
            bytes: 0,
        };
        // A wrong field is better found before anything is read.
        if reader.raw.header().is_some() {
            reader.make_decoder()?;
        }
        Ok(Box::new(reader))
    }

    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        self.raw.topic_of(partition)
    }
}

struct FormattedReader<T> {
    name: String,
    raw: Box<dyn RawReader>,
    decoders: Arc<dyn DecoderOf<T>>,
    /// Made with the first records where the header was not there yet.
    decoder: Option<Box<dyn Decoder<T>>>,
    batch: RawBatch,
    hash: RunningHash,
    bytes: u64,
}

impl<T> FormattedReader<T> {
    fn make_decoder(&mut self) -> Result<&mut Box<dyn Decoder<T>>> {
        let decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.decoders.decoder(self.raw.header()).map_err(|error| error.context(&self.name))?,
        };
        Ok(self.decoder.insert(decoder))
    }
}

impl<T> RecordReader<T> for FormattedReader<T> {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<ReadState> {
        self.batch.clear();
        let start = self.raw.position();
        let state = self.raw.read(limit, &mut self.batch)?;
        if self.batch.records.is_empty() {
            return Ok(state);
        }
        for record in &self.batch.records {
            self.hash.add(self.batch.value(record));
        }
        self.bytes += self.batch.data.len() as u64;
        if !self.decoders.takes_tombstones() {
            self.batch.records.retain(|record| !record.tombstone);
        }
        let known_bad = bad.len();
        let batch = std::mem::take(&mut self.batch);
        self.make_decoder()?.decode(&batch, out, bad).map_err(|error| error.context(&self.name))?;
        if bad.len() > known_bad {
            self.raw.check_whole()?;
        }
        for bad in &mut bad[known_bad..] {
            let index = batch.records.partition_point(|record| record.next < bad.next);
            let position = match &batch.place {
                // In a topic a record begins at its offset, whatever is between it and the one before.
                Some(_) => bad.next - 1,
                None => index.checked_sub(1).map_or(start, |before| batch.records[before].next),
            };
            bad.why = format!("{}: record at {position}: {}", self.name, bad.why);
            bad.at = position;
            bad.header = self.raw.header().map(<[u8]>::to_vec);
        }
        self.batch = batch;
        Ok(state)
    }

    fn position(&self) -> u64 {
        self.raw.position()
    }

    fn fraction(&self) -> Option<f64> {
        self.raw.fraction()
    }

    fn losses(&self) -> u64 {
        self.raw.losses()
    }

    fn lag(&mut self) -> Option<Lag> {
        self.raw.lag()
    }

    fn wake(&mut self, waker: Waker) -> bool {
        self.raw.wake(waker)
    }

    fn take_lost(&mut self) -> u64 {
        self.raw.take_lost()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}
