//! A count at a steady rate, to be asked while it runs; words of its own tell how long a record takes to be readable.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thalweg::prelude::JobBuilder;
use thalweg_connectors::{BadRecord, ReadLimit, ReadState, RecordReader, RecordSource, RunningHash};
use thalweg_core::{ContentHash, PartitionId, PartitionSpec, Result, SourceKey};
use thalweg_operators::{OnError, SourceOf};

use crate::corpus::{Corpus, CorpusSpec};

/// The name of the job.
pub(crate) const JOB: &str = "steady";
/// The partitions of the source, so that several workers read.
const PARTITIONS: u16 = 2;
/// From one probe to the next; no multiple of the epoch's 20 ms.
const PROBE_EVERY: Duration = Duration::from_millis(53);

/// A count of words, again and again, with the default settings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Steady {
    pub(crate) corpus: CorpusSpec,
    /// Words per second.
    pub(crate) rate: f64,
    /// Whether there are probes.
    pub(crate) probes: bool,
}

/// A word that is unlike all others, and when it came in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) word: String,
    /// Since 1970.
    pub(crate) micros: u64,
}

/// Microseconds since 1970.
pub(crate) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

struct SteadySource {
    corpus: Arc<Corpus>,
    probes: bool,
}

impl RecordSource<String> for SteadySource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let spec = |index| PartitionSpec {
            of: SourceKey { source, partition: PartitionId(index) },
            name: format!("words-{index}"),
            identity: "words".to_owned(),
            start: 0,
            end: None,
        };
        Ok((0..PARTITIONS).map(spec).collect())
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<String>>> {
        let probes = (self.probes && partition.of.partition == PartitionId(0)).then(|| (Instant::now(), 0));
        Ok(Box::new(SteadyReader { corpus: self.corpus.clone(), position: from, probes, hash: RunningHash::default() }))
    }
}

struct SteadyReader {
    corpus: Arc<Corpus>,
    position: u64,
    /// When the last probe was given, and how many there were.
    probes: Option<(Instant, u64)>,
    hash: RunningHash,
}

impl RecordReader<String> for SteadyReader {
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<String>, _: &mut Vec<BadRecord>) -> Result<ReadState> {
        if let Some((last, count)) = self.probes.as_mut().filter(|(last, _)| last.elapsed() >= PROBE_EVERY) {
            (*last, *count) = (Instant::now(), *count + 1);
            let probe = Probe { word: format!("probe-{count}"), micros: micros() };
            crate::child::answer(&probe);
            out.push(probe.word);
        }
        let rest = limit.records - out.len();
        out.extend(
            (self.position..self.position + rest as u64).map(|index| self.corpus.word(index % self.corpus.len())),
        );
        self.position += limit.records as u64;
        out.iter().for_each(|word| self.hash.add(word.as_bytes()));
        Ok(ReadState::More)
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn take_hash(&mut self) -> ContentHash {
        self.hash.take()
    }
}

/// Runs until it is killed.
pub(crate) fn run(job: Steady) -> thalweg::Exit {
    let corpus = Arc::new(Corpus::new(job.corpus));
    thalweg::run_job(move || {
        let builder = JobBuilder::new(JOB)?;
        let source = Arc::new(SteadySource { corpus, probes: job.probes });
        let node = SourceOf { source, rate: Some(job.rate), on_error: OnError::Fail };
        let words = builder.source_node::<String>("words", "words", String::new(), Box::new(node));
        words.key_by(|word: String| (word, ())).count("counts").discard("out");
        builder.build()
    })
}
