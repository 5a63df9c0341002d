//! The suites of `conformance` find known bugs: each is put into a source or a sink that is right otherwise.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use thalweg_connectors::conformance::{SinkBench, check_sink, check_source};
use thalweg_connectors::{
    BadRecord, EncodedBatch, GeneratorSource, ReadLimit, ReadState, RecordReader, RecordSource, Sink, SinkContext,
    SinkWriter,
};
use thalweg_core::{ContentHash, Epoch, Error, Generation, PartitionId, PartitionSpec, Result, Value};

/// The clause that a check finds broken; nothing where all is well.
fn broken_clause(check: impl FnOnce()) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(check)).err()?;
    let text =
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.expect("a message");
    let start = text.find("clause").unwrap_or_else(|| panic!("no clause in {text}"));
    Some(text[start..].split(':').next().expect("a clause").to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SourceBug {
    None,
    OtherIdentity,
    SameIds,
    SkipsAfterReopening,
    IgnoresRecords,
    IgnoresUntil,
    HashOfReads,
    NeverEnds,
}

struct Source(SourceBug);

struct Reader {
    inner: Box<dyn RecordReader<Value>>,
    bug: SourceBug,
    reads: u64,
}

impl RecordSource<Value> for Source {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let mut partitions = good().discover(source)?;
        match self.0 {
            SourceBug::OtherIdentity => partitions[0].identity = format!("{:p}", &*Box::leak(Box::new(0u8))),
            SourceBug::SameIds => partitions[1].of = partitions[0].of,
            _ => {}
        }
        Ok(partitions)
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<Value>>> {
        let skip = u64::from(self.0 == SourceBug::SkipsAfterReopening && from > 5);
        let inner = good().open(partition, from + skip)?;
        Ok(Box::new(Reader { inner, bug: self.0, reads: 0 }))
    }
}

fn good() -> GeneratorSource {
    GeneratorSource { count: Some(40), keys: 10, skew: 0.0, seed: 1, partitions: 2 }
}

impl RecordReader<Value> for Reader {
    fn read(&mut self, mut limit: ReadLimit, out: &mut Vec<Value>, bad: &mut Vec<BadRecord>) -> Result<ReadState> {
        self.reads += 1;
        match self.bug {
            SourceBug::IgnoresRecords => limit.records += 1,
            SourceBug::IgnoresUntil => limit.until = None,
            _ => {}
        }
        let state = self.inner.read(limit, out, bad)?;
        Ok(if self.bug == SourceBug::NeverEnds { ReadState::More } else { state })
    }

    fn position(&self) -> u64 {
        self.inner.position()
    }

    fn take_hash(&mut self) -> ContentHash {
        let hash = self.inner.take_hash();
        if self.bug == SourceBug::HashOfReads { ContentHash(hash.0 ^ self.reads) } else { hash }
    }
}

#[test]
fn bugs_of_sources_are_found() {
    for (bug, clause) in [
        (SourceBug::None, None),
        (SourceBug::OtherIdentity, Some("clause 1")),
        (SourceBug::SameIds, Some("clause 1")),
        (SourceBug::SkipsAfterReopening, Some("clause 2")),
        (SourceBug::IgnoresRecords, Some("clause 4")),
        (SourceBug::IgnoresUntil, Some("clause 4")),
        (SourceBug::HashOfReads, Some("clause 2")),
        (SourceBug::NeverEnds, Some("clause 3")),
    ] {
        let found = broken_clause(|| check_source(|| Box::new(Source(bug)), 1));
        assert_eq!(found.as_deref(), clause, "{bug:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SinkBug {
    None,
    CutsTheTail,
    AppendsAlways,
    ComparesNothing,
    KeepsForeign,
    NoFence,
    AcceptsLoss,
    Truncates,
}

static BUG: Mutex<SinkBug> = Mutex::new(SinkBug::None);

/// Partitions in memory, and the newest generation.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(Partitions, Generation)>>);

type Partitions = BTreeMap<PartitionId, Vec<u8>>;

struct MemoryWriter {
    memory: Memory,
    generation: Generation,
    bug: SinkBug,
    positions: BTreeMap<PartitionId, usize>,
    pending: Vec<(PartitionId, Vec<u8>)>,
}

impl Sink for Memory {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.0.lock().expect("lock").0.iter().map(|(partition, bytes)| (*partition, bytes.len() as u64)).collect())
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let bug = *BUG.lock().expect("lock");
        let mut state = self.0.lock().expect("lock");
        if context.generation < state.1 && bug != SinkBug::NoFence {
            return Err(Error::external("fenced", "a newer generation"));
        }
        state.1 = context.generation;
        let mut positions = BTreeMap::new();
        for (partition, position) in &context.partitions {
            let bytes = state.0.entry(*partition).or_default();
            if bytes.len() < *position as usize && bug != SinkBug::AcceptsLoss {
                return Err(Error::external("lost", "bytes are gone"));
            }
            match bug {
                SinkBug::CutsTheTail => bytes.truncate(*position as usize),
                SinkBug::Truncates => bytes.clear(),
                _ => {}
            }
            positions.insert(*partition, (*position as usize).min(bytes.len()));
        }
        Ok(Box::new(MemoryWriter {
            memory: self.clone(),
            generation: context.generation,
            bug,
            positions,
            pending: Vec::new(),
        }))
    }
}

impl SinkWriter for MemoryWriter {
    fn write(&mut self, _: Epoch, partition: PartitionId, batch: EncodedBatch) -> Result<()> {
        let mut bytes = Vec::new();
        for record in batch.records.iter().filter_map(|record| record.value.clone()) {
            bytes.extend_from_slice(&batch.data[record]);
            bytes.push(b'\n');
        }
        self.pending.push((partition, bytes));
        Ok(())
    }

    fn end_epoch(&mut self, _: Epoch) -> Result<()> {
        let mut state = self.memory.0.lock().expect("lock");
        if self.generation < state.1 && self.bug != SinkBug::NoFence {
            return Err(Error::external("fenced", "a newer generation"));
        }
        for (partition, bytes) in self.pending.drain(..) {
            let shown = state.0.entry(partition).or_default();
            let position = self.positions.get_mut(&partition).expect("own");
            let known = if self.bug == SinkBug::AppendsAlways { 0 } else { bytes.len().min(shown.len() - *position) };
            if shown[*position..*position + known] != bytes[..known] && self.bug != SinkBug::ComparesNothing {
                return Err(Error::internal("differs", "other bytes"));
            }
            shown.extend_from_slice(&bytes[known..]);
            *position += bytes.len();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.positions.iter().map(|(partition, position)| (*partition, *position as u64)).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        let state = self.memory.0.lock().expect("lock");
        let left = self.positions.iter().any(|(partition, position)| state.0[partition].len() > *position);
        if left && self.bug != SinkBug::KeepsForeign {
            Err(Error::external("beyond", "foreign records"))
        } else {
            Ok(())
        }
    }
}

impl SinkBench for Memory {
    fn sink(&self) -> Box<dyn Sink> {
        Box::new(self.clone())
    }
    fn shown(&self, partition: PartitionId) -> Vec<u8> {
        self.0.lock().expect("lock").0.get(&partition).cloned().unwrap_or_default()
    }
    fn tear(&self, partition: PartitionId, length: u64) -> bool {
        self.0.lock().expect("lock").0.entry(partition).or_default().truncate(length as usize);
        true
    }
    fn add_foreign(&self, partition: PartitionId) {
        self.0.lock().expect("lock").0.entry(partition).or_default().extend_from_slice(b"foreign\n");
    }
    fn fresh() -> Self {
        Self::default()
    }
}

#[test]
fn bugs_of_sinks_are_found() {
    for (bug, clause) in [
        (SinkBug::None, None),
        // What is cut off was visible before: it must be compared, and other output must not take its place.
        (SinkBug::CutsTheTail, Some("clause 2")),
        (SinkBug::AppendsAlways, Some("clause 2")),
        (SinkBug::ComparesNothing, Some("clause 2")),
        (SinkBug::KeepsForeign, Some("clause 4")),
        (SinkBug::NoFence, Some("clause 5")),
        (SinkBug::AcceptsLoss, Some("clause 2")),
        (SinkBug::Truncates, Some("clause 2")),
    ] {
        *BUG.lock().expect("lock") = bug;
        let found = broken_clause(check_sink::<Memory>);
        assert_eq!(found.as_deref(), clause, "{bug:?}");
    }
}
