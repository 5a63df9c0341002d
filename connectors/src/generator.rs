//! Made-up records, for trying out and for measuring.

mod zipf;

use std::sync::Arc;

use thalweg_core::{ContentHash, Error, PartitionId, PartitionSpec, Result, Row, Shape, SourceKey, Value};

use crate::random::Random;
use crate::{BadRecord, Lag, ReadLimit, ReadState, RecordReader, RecordSource, RunningHash};
use zipf::Zipf;

/// Values are in `0..VALUES`.
const VALUES: u64 = 1000;

/// Raw bytes of a record: `n`, `key` and `value` as 64-bit little-endian numbers.
const RECORD_BYTES: usize = 24;

/// Gives `{"n":…,"key":…,"value":…}`: a running number, a key in `0..keys` of which the small ones are the frequent ones where
/// there is a skew, and a value in `0..1000`.
///
/// Record `i` of a partition is a function of the seed, the partition and `i`, and its position is `i`: nothing needs to be kept to
/// read it again. `n` is unique over all partitions: `i * partitions + partition`.
///
/// ```
/// use thalweg_connectors::{GeneratorSource, ReadLimit, RecordSource};
///
/// let source = GeneratorSource { count: Some(10), keys: 3, skew: 1.0, seed: 7, partitions: 2 };
/// let partitions = source.discover(0)?;
/// assert_eq!(partitions[0].end, Some(5));
/// let mut out = Vec::new();
/// source.open(&partitions[0], 0)?.read(ReadLimit { records: 100, bytes: 1 << 20, until: None }, &mut out, &mut Vec::new())?;
/// assert_eq!(out.len(), 5);
/// # Ok::<(), thalweg_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorSource {
    /// How many records there are in all partitions together; nothing means without end.
    pub count: Option<u64>,
    /// How many keys.
    pub keys: u64,
    /// The exponent of Zipf's law: key `k` is as frequent as `1 / (k + 1)^skew`; 0 makes all the same.
    pub skew: f64,
    /// Another seed gives other records.
    pub seed: u64,
    /// How many partitions.
    pub partitions: u16,
}

impl GeneratorSource {
    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::user("generator", format!("connector \"generator\": {what}")));
        if self.keys == 0 || self.keys > i64::MAX as u64 {
            return wrong(format!("keys = {}: there are 1 to 2^63 - 1 keys", self.keys));
        }
        if !(0.0..=Zipf::MAX_SKEW).contains(&self.skew) {
            return wrong(format!("skew = {}: a skew is from 0 to {}", self.skew, Zipf::MAX_SKEW));
        }
        if self.partitions == 0 {
            return wrong("partitions = 0: there is at least 1".to_owned());
        }
        Ok(())
    }

    /// What makes the records what they are.
    fn identity(&self) -> String {
        format!("generator:1:seed={}:keys={}:skew={}:partitions={}", self.seed, self.keys, self.skew, self.partitions)
    }
}

impl RecordSource<Value> for GeneratorSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        self.check()?;
        let partitions = u64::from(self.partitions);
        let spec = |index: u16| PartitionSpec {
            of: SourceKey { source, partition: PartitionId(index) },
            name: format!("generator-{index}"),
            identity: self.identity(),
            start: 0,
            end: self.count.map(|count| count / partitions + u64::from(u64::from(index) < count % partitions)),
        };
        Ok((0..self.partitions).map(spec).collect())
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<Value>>> {
        self.check()?;
        if partition.identity != self.identity() {
            return Err(Error::user(
                "generator-changed",
                format!(
                    "{}: the job began with {} and now says {}; put the old settings back, or begin a new run",
                    partition.name,
                    partition.identity,
                    self.identity()
                ),
            ));
        }
        let index = u64::from(partition.of.partition.0);
        Ok(Box::new(GeneratorReader {
            seed: Random::at(self.seed, index).next(),
            index,
            step: u64::from(self.partitions),
            zipf: Zipf::new(self.keys, self.skew),
            shape: Shape::new(["n", "key", "value"]),
            end: partition.end.unwrap_or(u64::MAX),
            position: from,
            hash: RunningHash::default(),
        }))
    }
}

struct GeneratorReader {
    seed: u64,
    index: u64,
    step: u64,
    zipf: Zipf,
    shape: Arc<Shape>,
    end: u64,
    position: u64,
    hash: RunningHash,
}

impl GeneratorReader {
    #[inline]
    fn record(&self, index: u64) -> [u64; 3] {
        let mut random = Random::at(self.seed, index);
        let key = self.zipf.sample(&mut random);
        // Past 2^63 records the numbers begin anew; a machine makes that many in a thousand years.
        let n = index.wrapping_mul(self.step).wrapping_add(self.index) & i64::MAX as u64;
        [n, key, random.below(VALUES)]
    }
}

impl RecordReader<Value> for GeneratorReader {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<Value>, _bad: &mut Vec<BadRecord>) -> Result<ReadState> {
        let end = limit.until.map_or(self.end, |until| until.min(self.end));
        let most = limit.records.min(limit.bytes.div_ceil(RECORD_BYTES).max(1)) as u64;
        let stop = end.min(self.position.saturating_add(most)).max(self.position);
        out.reserve((stop - self.position) as usize);
        for index in self.position..stop {
            let record = self.record(index);
            let mut raw = [0; RECORD_BYTES];
            for (bytes, number) in raw.chunks_exact_mut(8).zip(record) {
                bytes.copy_from_slice(&number.to_le_bytes());
            }
            self.hash.add(&raw);
            out.push(Value::Row(Row::new(self.shape.clone(), record.map(|number| Value::Int(number as i64)).to_vec())));
        }
        self.position = stop;
        Ok(if stop >= end { ReadState::End } else { ReadState::More })
    }

    fn fraction(&self) -> Option<f64> {
        (self.end != u64::MAX).then(|| self.position as f64 / self.end.max(1) as f64)
    }

    fn lag(&mut self) -> Option<Lag> {
        (self.end != u64::MAX).then(|| Lag { records: self.end - self.position, oldest: None })
    }

    fn bytes(&self) -> u64 {
        self.position * RECORD_BYTES as u64
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(skew: f64, keys: u64, count: u64) -> Vec<u64> {
        let source = GeneratorSource { count: Some(count), keys, skew, seed: 42, partitions: 1 };
        let partition = source.discover(0).expect("discovers").remove(0);
        let mut out = Vec::new();
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX, until: None };
        source.open(&partition, 0).expect("opens").read(limit, &mut out, &mut Vec::new()).expect("reads");
        let mut counts = vec![0; keys.min(1000) as usize];
        for value in &out {
            let Some(Value::Int(key)) = value.get("key") else { panic!("{value}") };
            assert!((0..keys as i64).contains(key), "{value}");
            if let Some(count) = counts.get_mut(*key as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// The frequency of the first keys is that of Zipf's law within five standard deviations.
    fn check(skew: f64, key_count: u64) {
        let count = 400_000;
        let counts = keys(skew, key_count, count);
        let weight = |key: u64| ((key + 1) as f64).powf(-skew);
        let sum: f64 = (0..key_count).map(weight).sum();
        for (key, found) in counts.iter().enumerate().take(20) {
            let expected = count as f64 * weight(key as u64) / sum;
            assert!(
                (*found as f64 - expected).abs() < 5.0 * expected.sqrt() + 1.0,
                "skew {skew}, key {key}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn keys_follow_zipf() {
        for skew in [0.0, 0.5, 1.0, 1.2, 2.0] {
            check(skew, 10);
            check(skew, 5000);
            check(skew, 2_000_000);
        }
    }

    #[test]
    fn records_are_the_same_forever() {
        let source = GeneratorSource { count: None, keys: 1000, skew: 1.1, seed: 7, partitions: 4 };
        let partition = source.discover(0).expect("discovers").remove(2);
        let mut out = Vec::new();
        let mut reader = source.open(&partition, 1_000_000).expect("opens");
        reader.read(ReadLimit { records: 2, bytes: 1000, until: None }, &mut out, &mut Vec::new()).expect("reads");
        assert_eq!(out.iter().map(ToString::to_string).collect::<Vec<_>>(), FROZEN);
        let other = GeneratorSource { seed: 8, ..source.clone() };
        assert_eq!(other.open(&partition, 0).err().expect("refused").code(), "generator-changed");
        for wrong in [
            GeneratorSource { keys: 0, ..source.clone() },
            GeneratorSource { skew: -1.0, ..source.clone() },
            GeneratorSource { partitions: 0, ..source },
        ] {
            assert_eq!(wrong.discover(0).expect_err("refused").code(), "generator");
        }
    }

    const FROZEN: [&str; 2] = [r#"{"n":4000002,"key":6,"value":431}"#, r#"{"n":4000006,"key":1,"value":409}"#];
}
