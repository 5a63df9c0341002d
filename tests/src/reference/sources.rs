//! Reads exactly what the bindings say.

use std::path::Path;

use thalweg_connectors::dead_letter::{self as letter, DeadLetter};
use thalweg_connectors::{
    BadRecord, CsvOptions, Fields, FileSource, Format, FormattedSource, GeneratorSource, ReadLimit, ReadState,
    RecordReader, RecordSource,
};
use thalweg_core::{Binding, ContentHash, PartitionId, Share, SourceKey, Value};

use super::item::Item;
use super::order::{Aside, Origins, Place, Stream};
use super::{Run, topic};
use crate::sketch::{JobSketch, SourceFormat, SourceSketch};

/// A source partition that is read once, from its start to its end.
struct Part {
    of: SourceKey,
    /// The partition's name.
    name: String,
    /// Nothing for a partition in which nothing may be.
    reader: Option<Box<dyn RecordReader<Value>>>,
    /// It may have come while the job ran: no binding before the first that names it has to.
    later: bool,
}

/// All source partitions.
pub(super) struct Inputs {
    sources: usize,
    parts: Vec<Part>,
}

impl Inputs {
    pub(super) fn open(job: &JobSketch, folder: &Path) -> Result<Self, String> {
        let mut parts = Vec::new();
        for (index, sketch) in job.sources.iter().enumerate() {
            let source = match &job.kafka {
                Some(home) if sketch.topic => topic::source(home, index, format_of(sketch.format)),
                _ => source(index, sketch, job.seed, folder),
            };
            let specs = source.discover(index as u16).map_err(|error| error.to_string())?;
            // What sets records aside has one more partition, for those that are retried.
            let last = specs.iter().map(|spec| spec.of).max().filter(|_| job.aside && sketch.has_format());
            for spec in specs {
                let reader = source.open(&spec, spec.start).map_err(|error| error.to_string())?;
                let later = sketch.topic && u64::from(spec.of.partition.0) >= sketch.parts;
                parts.push(Part { of: spec.of, name: spec.name, reader: Some(reader), later });
            }
            parts.extend(last.map(|last| {
                let partition = PartitionId(last.partition.0 + 1);
                Part { of: SourceKey { partition, ..last }, name: String::new(), reader: None, later: false }
            }));
        }
        parts.sort_by_key(|part| part.of);
        Ok(Self { sources: job.sources.len(), parts })
    }

    /// The records of one epoch, by source, and what the sources set aside.
    pub(super) fn epoch(&mut self, binding: &Binding, origins: &Origins) -> Result<(Vec<Stream>, Vec<Aside>), String> {
        let named: Vec<SourceKey> = binding.shares.iter().map(|share| share.of).collect();
        // From the first binding on that names it, every one does.
        self.parts.iter_mut().filter(|part| named.contains(&part.of)).for_each(|part| part.later = false);
        let known: Vec<SourceKey> = self.parts.iter().filter(|part| !part.later).map(|part| part.of).collect();
        if named != known {
            return Err(format!("binding of epoch {} names {named:?}, the sources have {known:?}", binding.epoch));
        }
        let mut streams = vec![Stream::new(); self.sources];
        let mut aside = vec![Aside::new(); self.sources];
        for (part, share) in self.parts.iter_mut().filter(|part| !part.later).zip(&binding.shares) {
            let (values, bad) = part.read(share).map_err(|error| format!("epoch {}: {error}", binding.epoch))?;
            let source = usize::from(part.of.source);
            let place = |sequence| Place { origin: origins.own(source), partition: part.of.partition.0, sequence };
            let records = values.iter().zip(0..).map(|(value, sequence)| (place(sequence), Item::decoded(value)));
            streams[source].extend(records);
            let letter = |bad: BadRecord| {
                let topic = format!("s{source}");
                let at = letter::Place { topic: topic.clone(), partition: part.name.clone(), offset: bad.at };
                DeadLetter { message: String::new(), ..DeadLetter::of_source(&topic, false, at, bad) }
            };
            aside[source].extend(bad.into_iter().zip(0..).map(|(bad, sequence)| (place(sequence), letter(bad))));
        }
        Ok((streams, aside))
    }

    /// All bounded input is bound.
    pub(super) fn check_finished(&mut self, run: &Run) -> Result<(), String> {
        for part in &mut self.parts {
            let Some(reader) = &mut part.reader else { continue };
            let (mut values, position) = (Vec::new(), reader.position());
            let limit = ReadLimit { records: 1, bytes: 1 << 20, until: None };
            reader.read(limit, &mut values, &mut Vec::new()).map_err(|error| error.to_string())?;
            if let Some(value) = values.first() {
                let epochs = run.bindings.len();
                return Err(format!("{:?}: after {epochs} epochs {value} at {position} is in none", part.of));
            }
        }
        Ok(())
    }
}

impl Part {
    fn read(&mut self, share: &Share) -> Result<(Vec<Value>, Vec<BadRecord>), String> {
        let (mut values, mut bad) = (Vec::new(), Vec::new());
        let Some(reader) = &mut self.reader else {
            let nothing = Share { of: share.of, next: 0, count: 0, hash: ContentHash::default() };
            return if nothing == *share {
                Ok((values, bad))
            } else {
                Err(format!("{share:?}, and nothing was retried"))
            };
        };
        while reader.position() < share.next {
            let limit = ReadLimit { records: 1000, bytes: 1 << 20, until: Some(share.next) };
            let state = reader.read(limit, &mut values, &mut bad).map_err(|error| error.to_string())?;
            if state != ReadState::More && reader.position() < share.next {
                return Err(format!("{share:?} goes beyond the end, {}", reader.position()));
            }
        }
        let read = Share {
            of: share.of,
            next: reader.position(),
            count: (values.len() + bad.len()) as u64,
            hash: reader.take_hash(),
        };
        if read == *share {
            Ok((values, bad))
        } else {
            Err(format!("the binding says {share:?}, the input has {read:?}"))
        }
    }
}

fn source(index: usize, sketch: &SourceSketch, seed: u64, folder: &Path) -> Box<dyn RecordSource<Value>> {
    let file = |format: Format| -> Box<dyn RecordSource<Value>> {
        let files = FileSource::new(folder, [format!("in/s{index}-*")], &format);
        Box::new(FormattedSource::values(Box::new(files), format, Fields::All))
    };
    match sketch.format {
        SourceFormat::Json | SourceFormat::Csv | SourceFormat::Lines => file(format_of(sketch.format)),
        SourceFormat::Generator => Box::new(GeneratorSource {
            count: Some(sketch.records),
            keys: 40,
            skew: 0.8,
            seed: seed % 1_000_003,
            partitions: sketch.parts as u16,
        }),
    }
}

/// How the records of files are written; those of topics have no line with the names of columns.
fn format_of(format: SourceFormat) -> Format {
    match format {
        SourceFormat::Csv => Format::Csv(CsvOptions::default()),
        SourceFormat::Lines => Format::Lines,
        SourceFormat::Json | SourceFormat::Generator => Format::Json,
    }
}
