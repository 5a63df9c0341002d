//! The corpus as a source of the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_connectors::{BadRecord, ReadLimit, ReadState, RecordReader, RecordSource};
use thalweg_core::{ContentHash, PartitionId, PartitionSpec, Result, SourceKey};
use xxhash_rust::xxh3::Xxh3;

use crate::corpus::Corpus;

/// Gives the words of a corpus; a position is the index of a word.
pub(crate) struct WordSource {
    pub(crate) corpus: Arc<Corpus>,
    pub(crate) partitions: u16,
    /// Whether the job waits for more words after the last one, or ends.
    pub(crate) endless: bool,
    /// How many words have been read.
    pub(crate) read: Arc<AtomicU64>,
}

impl RecordSource<String> for WordSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let spec = |index: u16| {
            let part = self.corpus.part(index.into(), self.partitions.into());
            PartitionSpec {
                of: SourceKey { source, partition: PartitionId(index) },
                name: format!("words-{index}"),
                identity: format!("words:{}", self.corpus.len()),
                start: part.start,
                end: (!self.endless).then_some(part.end),
            }
        };
        Ok((0..self.partitions).map(spec).collect())
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<String>>> {
        let end = self.corpus.part(partition.of.partition.0.into(), self.partitions.into()).end;
        Ok(Box::new(WordReader {
            corpus: self.corpus.clone(),
            position: from,
            end,
            endless: self.endless,
            hash: Box::default(),
            hashed: false,
            read: self.read.clone(),
        }))
    }
}

struct WordReader {
    corpus: Arc<Corpus>,
    position: u64,
    end: u64,
    endless: bool,
    hash: Box<Xxh3>,
    hashed: bool,
    read: Arc<AtomicU64>,
}

impl RecordReader<String> for WordReader {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<String>, _: &mut Vec<BadRecord>) -> Result<ReadState> {
        let end = limit.until.map_or(self.end, |until| until.min(self.end));
        let stop = end.min(self.position + limit.records as u64);
        out.extend((self.position..stop).map(|index| self.corpus.word(index)));
        if stop > self.position {
            self.hash.update(self.corpus.raw(self.position..stop));
            self.hashed = true;
            self.read.fetch_add(stop - self.position, Ordering::Relaxed);
        }
        self.position = stop;
        Ok(match stop == end {
            true if self.endless && limit.until.is_none() => ReadState::Idle,
            true => ReadState::End,
            false => ReadState::More,
        })
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn take_hash(&mut self) -> ContentHash {
        if !std::mem::take(&mut self.hashed) {
            return ContentHash::default();
        }
        let digest = self.hash.digest();
        self.hash.reset();
        ContentHash(digest)
    }
}
