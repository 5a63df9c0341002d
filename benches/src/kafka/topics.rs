//! What goes in, and whether what came out is right.

use super::native::{Reader, Writer};
use super::{PARTITIONS, Words};
use crate::corpus::{Corpus, CorpusSpec};

/// How long a reader waits for a batch to fill.
const BATCH_MS: i64 = 20;
/// The counts of a JSON record follow this.
const COUNT_FIELD: &[u8] = b"\"counts\":";

/// Writes the words of a corpus, one after the other to each partition; returns how often each word comes.
pub(crate) fn write_words(bootstrap: &str, topic: &str, spec: CorpusSpec) -> Words<u64> {
    let corpus = Corpus::new(spec);
    let writer = Writer::new(bootstrap, None, &[("linger.ms", "5"), ("queue.buffering.max.messages", "1000000")]);
    let topic = writer.topic(topic);
    let mut counts = Words::default();
    for index in 0..corpus.len() {
        let word = corpus.word(index);
        writer.write(&topic, (index % PARTITIONS as u64) as i32, &[], word.as_bytes());
        *counts.entry_ref(word.as_bytes()).or_default() += 1;
    }
    writer.flush();
    counts
}

/// What an output topic holds for a committed reader.
pub(crate) struct Found {
    pub(crate) records: u64,
    /// The last count of each word.
    counts: Words<u64>,
    /// Records whose count does not go up.
    wrong: u64,
}

/// Reads an output topic from the beginning to its end; knows nothing of who wrote it.
pub(crate) fn read_counts(bootstrap: &str, topic: &str) -> Found {
    let mut reader = Reader::new(bootstrap, topic, PARTITIONS, &[]);
    let mut found = Found { records: 0, counts: Words::default(), wrong: 0 };
    while !reader.at_end() {
        reader.read(4096, BATCH_MS, |message| {
            let count = count(message.value).unwrap_or(0);
            let last = found.counts.entry_ref(message.key).or_insert(0);
            found.wrong += u64::from(count <= *last);
            *last = count;
            found.records += 1;
        });
    }
    found
}

/// The count in a result.
pub(super) fn count(json: &[u8]) -> Option<u64> {
    let at = json.windows(COUNT_FIELD.len()).position(|window| window == COUNT_FIELD)? + COUNT_FIELD.len();
    let digits: &[u8] = &json[at..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

impl Found {
    /// Errors where the words or their counts are others than those that went in; `exactly` says that no count may come twice.
    pub(crate) fn check(&self, who: &str, expected: &Words<u64>, exactly: bool) -> Result<(), String> {
        let differs = expected.iter().filter(|(word, count)| self.counts.get(*word) != Some(*count)).count();
        if differs > 0 || self.counts.len() != expected.len() {
            return Err(format!("{who}: {differs} of {} words are counted wrongly", expected.len()));
        }
        if exactly && self.wrong > 0 {
            return Err(format!("{who}: {} of {} results do not count up", self.wrong, self.records));
        }
        Ok(())
    }
}
