//! The loop that a job is compared with, as somebody would write it against librdkafka and RocksDB: one thread that reads an epoch,
//! counts, looks up and puts each distinct word once, writes changelog and output, and commits. It cannot be asked, and a crash
//! between commit and RocksDB loses or doubles nothing only because its state would have to be restored.

use std::hash::BuildHasher;
use std::io::Write;
use std::time::{Duration, Instant};

use rocksdb::{DB, Options, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::native::{Reader, Topic, Writer};
use super::{PARTITIONS, Words};
use crate::measured::Measured;
use crate::usage::own_cpu;

/// What is counted, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) bootstrap: String,
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) changelog: String,
    /// After so many records it ends; nothing: never.
    pub(crate) records: Option<u64>,
    /// An epoch is over after so long, or so many records.
    pub(crate) epoch_ms: u64,
    pub(crate) epoch_records: usize,
    /// A result for each record, not for each distinct word of an epoch.
    pub(crate) every_update: bool,
}

/// One epoch: words with how often they came, in the order of their first coming.
struct Epoch {
    places: Words<usize>,
    words: Vec<(Vec<u8>, u64)>,
    /// The words one by one, where every update is written.
    sequence: Vec<usize>,
}

struct Loop {
    job: Bare,
    db: DB,
    writer: Writer,
    output: Topic,
    changelog: Topic,
    hasher: foldhash::fast::FixedState,
    emitted: u64,
    text: Vec<u8>,
}

/// Counts to the end, and says what it took.
pub(crate) fn run(job: Bare) -> Measured {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, folder.path()).expect("an empty database");
    let (began, cpu) = (Instant::now(), own_cpu());
    let more = [("linger.ms", "1"), ("queue.buffering.max.messages", "1000000")];
    let writer = Writer::new(&job.bootstrap, Some(&job.output), &more);
    let mut reader = Reader::new(&job.bootstrap, &job.input, PARTITIONS, &[("fetch.wait.max.ms", "10")]);
    let (output, changelog) = (writer.topic(&job.output), writer.topic(&job.changelog));
    let hasher = foldhash::fast::FixedState::default();
    let mut counting = Loop { job, db, writer, output, changelog, hasher, emitted: 0, text: Vec::new() };
    let (mut read, mut epochs) = (0, 0);
    while counting.job.records.is_none_or(|records| read < records) {
        let epoch = counting.fill(&mut reader, read);
        let count = epoch.words.iter().map(|(_, count)| count).sum::<u64>();
        if count > 0 {
            counting.close(epoch, &reader);
            (read, epochs) = (read + count, epochs + 1);
        }
    }
    let emitted = counting.emitted;
    Measured {
        cpu_seconds: (own_cpu() - cpu).as_secs_f64(),
        wall_seconds: began.elapsed().as_secs_f64(),
        busiest_seconds: 0.0,
        records: read,
        epochs,
        emitted,
    }
}

impl Loop {
    fn fill(&self, reader: &mut Reader, already: u64) -> Epoch {
        let mut epoch = Epoch { places: Words::default(), words: Vec::new(), sequence: Vec::new() };
        let (began, open) = (Instant::now(), Duration::from_millis(self.job.epoch_ms));
        let left = self.job.records.map_or(u64::MAX, |records| records - already);
        let most = self.job.epoch_records.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut count = 0;
        while count < most {
            let wait = open.saturating_sub(began.elapsed()).as_millis() as i64;
            count += reader.read(most - count, wait, |message| {
                let place = match epoch.places.get(message.value) {
                    Some(place) => *place,
                    None => {
                        let word = message.value.to_vec();
                        epoch.places.insert(word.clone(), epoch.words.len());
                        epoch.words.push((word, 0));
                        epoch.words.len() - 1
                    }
                };
                epoch.words[place].1 += 1;
                if self.job.every_update {
                    epoch.sequence.push(place);
                }
            });
            if began.elapsed() >= open {
                break;
            }
        }
        epoch
    }

    fn close(&mut self, epoch: Epoch, reader: &Reader) {
        self.writer.begin();
        let before = self.db.multi_get(epoch.words.iter().map(|(word, _)| word));
        let number = |found: Option<Vec<u8>>| {
            found.map_or(0, |bytes| u64::from_le_bytes(bytes.as_slice().try_into().expect("eight bytes")))
        };
        let mut counts: Vec<u64> =
            before.into_iter().map(|found| number(found.expect("a readable database"))).collect();
        if self.job.every_update {
            for place in &epoch.sequence {
                counts[*place] += 1;
                self.emit(&epoch.words[*place].0, counts[*place]);
            }
        }
        let mut batch = WriteBatch::default();
        for ((word, count), total) in epoch.words.iter().zip(&mut counts) {
            if !self.job.every_update {
                *total += count;
                self.emit(word, *total);
            }
            let bytes = total.to_le_bytes();
            batch.put(word, bytes);
            self.writer.write(&self.changelog, self.partition(word), word, &bytes);
        }
        // The changelog is what state is restored from.
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        self.db.write_opt(batch, &unlogged).expect("a writable database");
        self.writer.commit(reader);
    }

    fn emit(&mut self, word: &[u8], count: u64) {
        self.text.clear();
        self.text.extend_from_slice(b"{\"line\":\"");
        self.text.extend_from_slice(word);
        write!(self.text, "\",\"counts\":{count}}}").expect("memory can be written to");
        self.writer.write(&self.output, self.partition(word), word, &self.text);
        self.emitted += 1;
    }

    fn partition(&self, word: &[u8]) -> i32 {
        (self.hasher.hash_one(word) % PARTITIONS as u64) as i32
    }
}
