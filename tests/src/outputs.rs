//! What a run has written.

use std::collections::BTreeMap;
use std::path::Path;

use thalweg_connectors::dead_letter::StoredLetter;
use thalweg_connectors::log::{Log, LogRecord, Position};
use thalweg_core::{Epoch, PartitionId};

use crate::home::{Topics, check_follows};
use crate::letters::{Letter, check_letters};
use crate::reference::{Reference, job_id_of, open_log};
use crate::sketch::{JobSketch, SinkKind};

/// The bytes of every sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Files, by path below `out/`; empty ones are not there.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The records of sinks on a log, by sink, job partition and partition of the topic.
    pub topics: Topics,
    /// The records that were set aside.
    pub dead_letters: Vec<Letter>,
}

impl Outputs {
    /// Reads the outputs of a job in its folder; nobody may be writing its log.
    ///
    /// Errors: a topic whose positions have a gap or a repetition.
    pub fn read(job: &JobSketch, folder: &Path, data: &Path) -> Result<Self, String> {
        let mut outputs = Self::default();
        read_files(&folder.join("out"), "", &mut outputs.files)?;
        let logged = job.sinks.iter().enumerate().filter(|(_, sink)| matches!(sink.kind, SinkKind::Log(_)));
        let logged: Vec<usize> = logged.map(|(index, _)| index).collect();
        if (!logged.is_empty() || job.aside) && data.exists() {
            let log = open_log(data)?;
            for index in logged {
                read_topic(&log, &format!("sink{index}"), |(job_partition, partition), record| {
                    let of = outputs.topics.entry((index, job_partition.0, partition)).or_default();
                    of.push(record.record.value.unwrap_or_default());
                    Ok(())
                })?;
            }
            if let Some(id) = job_id_of(&log)? {
                read_topic(&log, &format!("dead-letters-{id}"), |_, record| {
                    let letter = StoredLetter::read(record).ok_or("a record of the dead letters is none")?;
                    outputs.dead_letters.push(letter.into());
                    Ok(())
                })?;
            }
        }
        if let Some(home) = &job.kafka {
            outputs.topics.append(&mut home.read(job)?);
        }
        Ok(outputs)
    }

    /// Compares with what has to be there, byte by byte.
    pub fn check(&self, reference: &Reference) -> Result<(), String> {
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        if names(&self.files) != names(&reference.files) {
            return Err(format!("files {:?}, but there should be {:?}", names(&self.files), names(&reference.files)));
        }
        for (name, bytes) in &self.files {
            check_lines(name, &lines(bytes), &lines(&reference.files[name]))?;
        }
        let keys = |topics: &Topics| topics.keys().copied().collect::<Vec<_>>();
        if keys(&self.topics) != keys(&reference.topics) {
            return Err(format!("topics {:?}, but there should be {:?}", keys(&self.topics), keys(&reference.topics)));
        }
        for (of, records) in &self.topics {
            let expected: Vec<&[u8]> = reference.topics[of].iter().map(Vec::as_slice).collect();
            check_lines(&format!("topic {of:?}"), &records.iter().map(Vec::as_slice).collect::<Vec<_>>(), &expected)?;
        }
        check_letters(&self.dead_letters, &reference.dead_letters)
    }
}

/// Reads the records of a topic, where it is there, and checks their positions.
fn read_topic(
    log: &dyn Log,
    name: &str,
    mut take: impl FnMut((PartitionId, u16), LogRecord) -> Result<(), String>,
) -> Result<(), String> {
    let topics = log.topics().map_err(|error| error.to_string())?;
    let Some((_, partitions)) = topics.into_iter().find(|(topic, _)| topic == name) else { return Ok(()) };
    let mut last: BTreeMap<PartitionId, (Epoch, u64)> = BTreeMap::new();
    for partition in 0..partitions as u16 {
        let mut reader = log.reader(name, PartitionId(partition), 0).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        while reader.read(1 << 20, &mut records).map_err(|error| error.to_string())? {
            for record in records.drain(..) {
                let position = Position::of(&record.record.headers);
                let position = position.ok_or_else(|| format!("{name}: offset {} has no position", record.offset))?;
                check_follows(last.insert(position.partition, (position.epoch, position.sequence)), &position)
                    .map_err(|error| format!("{name}, partition {partition}: {error}"))?;
                take((position.partition, partition), record)?;
            }
        }
    }
    Ok(())
}

/// What a reader saw before a crash has to be a prefix of what is there after it, up to a line that was torn.
pub fn check_prefix(before: &Outputs, after: &Outputs) -> Result<(), String> {
    for (name, bytes) in &before.files {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let now = after.files.get(name).map_or(&[][..], Vec::as_slice);
        if !now.starts_with(&bytes[..whole]) {
            return Err(format!("{name}: what a reader saw before a crash is not there any more"));
        }
    }
    if !after.dead_letters.starts_with(&before.dead_letters) {
        return Err("dead letters that a reader saw before a crash are not there any more".to_owned());
    }
    for (of, records) in &before.topics {
        let now = after.topics.get(of).map_or(&[][..], Vec::as_slice);
        if !now.starts_with(records) {
            return Err(format!("topic {of:?}: what a reader saw before a crash is not there any more"));
        }
    }
    Ok(())
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

fn check_lines(name: &str, found: &[&[u8]], expected: &[&[u8]]) -> Result<(), String> {
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    let at = match differs {
        None if found.len() == expected.len() => return Ok(()),
        None => found.len().min(expected.len()),
        Some(at) => at,
    };
    let show = |lines: &[&[u8]]| {
        lines.get(at).map_or("nothing".into(), |line| String::from_utf8_lossy(line).trim_end().to_owned())
    };
    Err(format!(
        "{name}: line {} of {} is {}, but it should be {} of {}",
        at + 1,
        found.len(),
        show(found),
        show(expected),
        expected.len()
    ))
}

fn read_files(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let Ok(entries) = folder.read_dir() else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read_files(&entry.path(), &format!("{name}/"), files)?;
        } else if !entry.file_name().to_string_lossy().starts_with('.') {
            let bytes = std::fs::read(entry.path()).map_err(|error| error.to_string())?;
            if !bytes.is_empty() {
                files.insert(name, bytes);
            }
        }
    }
    Ok(())
}
