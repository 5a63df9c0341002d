//! How far each followed file is kept: what a restart goes on from.
//!
//! The last record that a transaction has of a file carries the file's mark in the header `thalweg-file`, so records and mark
//! are durable together. As bytes, numbers little endian:
//! ```text
//!  0 version u8 = 1
//!  1 device u64 | 9 inode u64
//! 17 xxh3-64 of the first bytes of the file u64 | 25 how many, at most 4,096 and at most the position u32
//! 29 position after the record u64
//! 37 the path at that time, UTF-8
//! ```
//! A table of all marks goes to a topic of its own now and then, so that a restart need not read the whole topic of records, and
//! what is before the table may be dropped. Its last record counts, as bytes:
//! ```text
//!  0 version u8 = 1
//!  1 offset in the topic of records u64: the marks of the records from there on come on top
//!  9 length of the line that names the columns u32, all ones = none; the line
//!    number of files u32; for each the length of its mark u32 and the mark
//! ```

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use thalweg_core::{Error, Generation, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::START_BYTES;
use crate::ingest::PARTITION;
use crate::log::{Log, LogRecord, NewRecord, Retention, TopicSpec};

/// The header of a record that has the mark of its file.
pub(super) const MARK_HEADER: &str = "thalweg-file";

const VERSION: u8 = 1;
const NO_COLUMNS: u32 = u32::MAX;
/// Bytes of records that are looked through at once.
const SCAN_BYTES: usize = 1 << 20;

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// How far a file is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: FileId,
    /// Of its first `hashed` bytes.
    pub(super) hash: u64,
    pub(super) hashed: u32,
    pub(super) position: u64,
    pub(super) name: String,
}

impl Mark {
    pub(super) fn of(id: FileId, start: &[u8], position: u64, name: &str) -> Self {
        Self { id, hash: xxh3_64(start), hashed: start.len() as u32, position, name: name.to_owned() }
    }

    /// Whether a file that begins so, and is so long, can be the one.
    pub(super) fn fits(&self, start: &[u8], length: u64) -> bool {
        length >= self.position && start.len() == self.hashed as usize && xxh3_64(start) == self.hash
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.id.device.to_le_bytes());
        out.extend_from_slice(&self.id.inode.to_le_bytes());
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.hashed.to_le_bytes());
        out.extend_from_slice(&self.position.to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        (take::<1>(&mut rest)? == [VERSION]).then_some(())?;
        let id = FileId { device: take_u64(&mut rest)?, inode: take_u64(&mut rest)? };
        let (hash, hashed, position) = (take_u64(&mut rest)?, take_u32(&mut rest)?, take_u64(&mut rest)?);
        let name = std::str::from_utf8(rest).ok()?.to_owned();
        (hashed as usize <= START_BYTES && u64::from(hashed) <= position).then_some(())?;
        Some(Self { id, hash, hashed, position, name })
    }
}

/// What is known of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The marks of the records before this offset are in it.
    pub(super) offset: u64,
    /// The line that names the columns.
    pub(super) columns: Option<Vec<u8>>,
    pub(super) marks: BTreeMap<FileId, Mark>,
}

impl Table {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.offset.to_le_bytes());
        let columns = self.columns.as_ref().map_or(NO_COLUMNS, |columns| columns.len() as u32);
        out.extend_from_slice(&columns.to_le_bytes());
        out.extend_from_slice(self.columns.as_deref().unwrap_or_default());
        out.extend_from_slice(&(self.marks.len() as u32).to_le_bytes());
        for mark in self.marks.values().map(Mark::encode) {
            out.extend_from_slice(&(mark.len() as u32).to_le_bytes());
            out.extend_from_slice(&mark);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        (take::<1>(&mut rest)? == [VERSION]).then_some(())?;
        let offset = take_u64(&mut rest)?;
        let columns = match take_u32(&mut rest)? {
            NO_COLUMNS => None,
            length => Some(rest.split_off(..length as usize)?.to_vec()),
        };
        let mut marks = BTreeMap::new();
        for _ in 0..take_u32(&mut rest)? {
            let length = take_u32(&mut rest)?;
            let mark = Mark::decode(rest.split_off(..length as usize)?)?;
            marks.insert(mark.id, mark);
        }
        rest.is_empty().then_some(Self { offset, columns, marks })
    }

    /// The last table that was written; an empty one where there is none.
    pub(super) fn load(log: &dyn Log, topic: &str) -> Result<Self> {
        let (first, end) = log.offsets(topic, PARTITION)?;
        if first == end {
            return Ok(Self::default());
        }
        let mut records = Vec::new();
        log.reader(topic, PARTITION, end - 1)?.read(1, &mut records)?;
        let value = records.first().and_then(|found| found.record.value.as_deref());
        value.and_then(Self::decode).ok_or_else(|| damaged(topic, end - 1))
    }

    /// Adds the marks of the records from its offset on.
    pub(super) fn catch_up(&mut self, log: &dyn Log, topic: &str) -> Result<()> {
        let mut reader = log.reader(topic, PARTITION, self.offset)?;
        let mut records: Vec<LogRecord> = Vec::new();
        while reader.read(SCAN_BYTES, &mut records)? {
            for found in records.drain(..) {
                let marks = found.record.headers.iter().filter(|(name, _)| name == MARK_HEADER);
                for (_, bytes) in marks {
                    let mark = Mark::decode(bytes).ok_or_else(|| damaged(topic, found.offset))?;
                    self.marks.insert(mark.id, mark);
                }
            }
        }
        self.offset = reader.position();
        Ok(())
    }

    /// Makes it durable, then drops the older ones.
    pub(super) fn save(&self, log: &dyn Log, topic: &str) -> Result<()> {
        let mut producer = log.fence(topic, Generation(0))?;
        producer.begin()?;
        producer.append(topic, PARTITION, NewRecord { value: Some(self.encode()), ..NewRecord::default() })?;
        producer.commit()?;
        log.trim(topic, PARTITION, log.offsets(topic, PARTITION)?.1 - 1)
    }
}

/// The topic of the tables of the topic of records.
pub(super) fn tables_of(topic: &str) -> TopicSpec {
    TopicSpec { name: format!("{topic}-files"), partitions: 1, retention: Retention::Keep }
}

fn damaged(topic: &str, offset: u64) -> Error {
    let text = format!(
        "topic {topic:?}, offset {offset}: how far the followed files are read is damaged, or of a later version; use the program \
         that wrote it, or restore the job's log from a copy"
    );
    Error::external("follow-marks", text)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn example() -> Table {
        let mark = |inode, position| {
            let id = FileId { device: 1, inode };
            (id, Mark { id, hash: 0x0102_0304_0506_0708, hashed: 3, position, name: format!("in/{inode}.log") })
        };
        Table { offset: 9, columns: Some(b"a,b".to_vec()), marks: [mark(7, 3), mark(8, 1 << 40)].into() }
    }

    #[test]
    fn frozen_bytes() {
        let hex: String = example().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "01",
            "0900000000000000",
            "03000000612c62",
            "02000000",
            "2d000000",
            "01010000000000000007000000000000000807060504030201030000000300000000000000696e2f372e6c6f67",
            "2d000000",
            "01010000000000000008000000000000000807060504030201030000000000000000010000696e2f382e6c6f67",
        ];
        assert_eq!(hex, expected.concat());
        assert_eq!(Table::decode(&example().encode()), Some(example()));
    }

    #[test]
    fn other_bytes_are_refused_or_mean_what_they_say() {
        let seed = Random::seed_for_tests();
        let (mut random, good) = (Random::new(seed), example().encode());
        for round in 0..20_000 {
            let mut bytes = good.clone();
            bytes.truncate(random.below(good.len() as u64 + 1) as usize);
            for _ in 0..random.below(4) {
                let index = random.below(good.len() as u64) as usize;
                if let Some(byte) = bytes.get_mut(index) {
                    *byte = random.below(256) as u8;
                }
            }
            if let Some(table) = Table::decode(&bytes) {
                assert_eq!(Table::decode(&table.encode()), Some(table), "seed {seed}, round {round}");
            }
        }
    }
}
