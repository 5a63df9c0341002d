//! A raw source and a format: a source of values.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thalweg_core::{ContentHash, PartitionId, PartitionSpec, Result, Value};

use crate::dead_letter::{Retries, is_retry};
use crate::format::Untyped;
use crate::{
    BadRecord, Decoder, DecoderOf, Fields, Format, Lag, RawBatch, RawReader, RawRecord, RawSource, ReadLimit,
    ReadState, RecordReader, RecordSource, RunningHash, Waker,
};

/// Decodes the records of a raw source.
///
/// The hash of a share is over the raw bytes, so it finds out another input whatever is projected. A record that cannot be
/// decoded is reported with the partition's name and the position at which it begins.
pub struct FormattedSource<T> {
    raw: Box<dyn RawSource>,
    decoders: Arc<dyn DecoderOf<T>>,
    retries: OnceLock<Retries>,
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
        Self { raw, decoders, retries: OnceLock::new(), retried: OnceLock::new() }
    }
}

impl<T: 'static> RecordSource<T> for FormattedSource<T> {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let mut partitions = self.raw.discover(source)?;
        if let Some(retries) = self.retries.get().filter(|retries| retries.wanted) {
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

    fn set_retries(&self, retries: Retries) {
        self.retries.get_or_init(|| retries);
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<T>>> {
        if let Some(retries) = self.retries.get().filter(|_| is_retry(partition)) {
            self.retried.get_or_init(|| partition.of.partition);
            return retries.open(from, self.decoders.clone());
        }
        let raw = self.raw.open(partition, from)?;
        let mut reader = FormattedReader::new(partition.name.clone(), raw, self.decoders.clone());
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
    /// Nothing where the records of the batch are given.
    held: Option<HeldBatch>,
    waker: Waker,
    hash: RunningHash,
    bytes: u64,
}

/// What is read and not given yet: its records may wait for their schemas.
#[derive(Clone, Copy)]
struct HeldBatch {
    /// The position before its first record.
    start: u64,
    /// What the raw reader said when it read it, and up to where it was to read.
    state: ReadState,
    until: Option<u64>,
}

impl<T> FormattedReader<T> {
    fn new(name: String, raw: Box<dyn RawReader>, decoders: Arc<dyn DecoderOf<T>>) -> Self {
        Self {
            name,
            raw,
            decoders,
            decoder: None,
            batch: RawBatch::default(),
            held: None,
            waker: Arc::new(|| ()),
            hash: RunningHash::default(),
            bytes: 0,
        }
    }

    fn make_decoder(&mut self) -> Result<&mut Box<dyn Decoder<T>>> {
        let decoder = match self.decoder.take() {
            Some(decoder) => decoder,
            None => self.decoders.decoder(self.raw.header()).map_err(|error| error.context(&self.name))?,
        };
        Ok(self.decoder.insert(decoder))
    }

    /// Decodes records of one batch; `start` is the position before the first of them.
    fn give(
        &mut self,
        mut batch: RawBatch,
        start: u64,
        out: &mut Vec<T>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<RawBatch> {
        for record in &batch.records {
            self.hash.add(batch.value(record));
        }
        if !self.decoders.takes_tombstones() {
            batch.records.retain(|record| !record.tombstone);
        }
        let known_bad = bad.len();
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
        Ok(batch)
    }

    /// Gives what the limits allow of a batch that was held over from an earlier call, and holds the rest.
    fn give_held(
        &mut self,
        mut batch: RawBatch,
        mut held: HeldBatch,
        limit: ReadLimit,
        out: &mut Vec<T>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<ReadState> {
        let before_end = |record: &&RawRecord| limit.until.is_none_or(|until| record.next <= until);
        let count = batch.records.iter().take_while(before_end).take(limit.records).count();
        let rest = batch.records.split_off(count);
        let start = held.start;
        held.start = batch.records.last().map_or(start, |record| record.next);
        self.batch = self.give(batch, start, out, bad)?;
        let Some(first) = rest.first() else {
            // The end that was told may be that of the earlier call alone.
            return Ok(if held.until == limit.until { held.state } else { ReadState::More });
        };
        let state = if before_end(&first) { ReadState::More } else { ReadState::End };
        self.batch.records = rest;
        self.held = Some(held);
        Ok(state)
    }
}

impl<T> RecordReader<T> for FormattedReader<T> {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<ReadState> {
        let held = self.held.take();
        let now = match held {
            Some(held) => held,
            None => {
                self.batch.clear();
                let start = self.raw.position();
                let state = self.raw.read(limit, &mut self.batch)?;
                if self.batch.records.is_empty() {
                    return Ok(state);
                }
                self.bytes += self.batch.data.len() as u64;
                HeldBatch { start, state, until: limit.until }
            }
        };
        let (batch, waker) = (std::mem::take(&mut self.batch), self.waker.clone());
        let ready = self.make_decoder()?.prepare(&batch, &waker);
        if !ready.map_err(|error| error.context(&self.name))? {
            (self.batch, self.held) = (batch, Some(now));
            return Ok(ReadState::Pending);
        }
        if held.is_some() {
            return self.give_held(batch, now, limit, out, bad);
        }
        self.batch = self.give(batch, now.start, out, bad)?;
        Ok(now.state)
    }

    fn position(&self) -> u64 {
        self.held.map_or_else(|| self.raw.position(), |held| held.start)
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
        self.waker = waker.clone();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of one byte, all of them there.
    struct Bytes(u64);

    impl RawReader for Bytes {
        fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
            for _ in 0..limit.records {
                if limit.until.is_some_and(|until| self.0 >= until) {
                    return Ok(ReadState::End);
                }
                batch.data.push(self.0 as u8);
                self.0 += 1;
                let value = batch.data.len() - 1..batch.data.len();
                batch.records.push(RawRecord { value, next: self.0, ..RawRecord::default() });
            }
            Ok(ReadState::More)
        }

        fn position(&self) -> u64 {
            self.0
        }
    }

    /// Is ready from the second time on that it is asked about a record.
    struct Slow(Vec<u8>);

    impl Decoder<u8> for Slow {
        fn record(
            &mut self,
            batch: &RawBatch,
            record: &RawRecord,
            out: &mut Vec<u8>,
            _: &mut Vec<BadRecord>,
        ) -> Result<()> {
            out.push(batch.value(record)[0]);
            Ok(())
        }

        fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
            let missing: Vec<u8> = batch.data.iter().copied().filter(|byte| !self.0.contains(byte)).collect();
            self.0.extend(&missing);
            waker();
            Ok(missing.is_empty())
        }
    }

    struct AnySlow;

    impl DecoderOf<u8> for AnySlow {
        fn decoder(&self, _: Option<&[u8]>) -> Result<Box<dyn Decoder<u8>>> {
            Ok(Box::new(Slow(Vec::new())))
        }
    }

    fn reader() -> FormattedReader<u8> {
        FormattedReader::new("slow".to_owned(), Box::new(Bytes(0)), Arc::new(AnySlow))
    }

    /// What reads with these limits (records, until) give: state, records, and the position behind them.
    fn check(limits: &[(usize, Option<u64>)], wanted: &[(ReadState, &[u8], u64)]) {
        let mut reader = reader();
        for ((records, until), (state, values, position)) in limits.iter().zip(wanted) {
            let limit = ReadLimit { records: *records, bytes: 1 << 20, until: *until };
            let (mut out, mut bad) = (Vec::new(), Vec::new());
            let found = reader.read(limit, &mut out, &mut bad).expect("reads");
            assert_eq!((found, &*out, reader.position()), (*state, *values, *position), "{limits:?}");
            let mut hash = RunningHash::default();
            values.iter().for_each(|value| hash.add(&[*value]));
            assert_eq!(reader.take_hash(), hash.take(), "of what was given: {limits:?}");
        }
    }

    #[test]
    fn what_waits_is_given_within_the_limits_of_the_call_that_gets_it() {
        use ReadState::{End, More, Pending};
        check(&[(3, None), (3, None)], &[(Pending, &[], 0), (More, &[0, 1, 2], 3)]);
        check(
            &[(3, None), (2, None), (2, None), (2, None), (2, None)],
            &[(Pending, &[], 0), (More, &[0, 1], 2), (More, &[2], 3), (Pending, &[], 3), (More, &[3, 4], 5)],
        );
        check(&[(3, None), (3, Some(2)), (3, Some(3))], &[(Pending, &[], 0), (End, &[0, 1], 2), (More, &[2], 3)]);
        check(&[(3, Some(2)), (3, Some(2))], &[(Pending, &[], 0), (End, &[0, 1], 2)]);
        check(&[(3, Some(2)), (3, None)], &[(Pending, &[], 0), (More, &[0, 1], 2)]);
    }
}
