//! The bindings log: a journal in one topic with one partition, one record for each epoch, in order.
//!
//! Value: format version (1 byte, now 1), then the postcard form of [`Binding`]. Key: none. The log frames and checks the bytes.

use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::log::{Journal, Log, NewRecord, Retention, TopicSpec, read_journal};

use thalweg_core::{Binding, Blame, Epoch, Error, Generation, JobId, PartitionId, Result, failpoint};

const VERSION: u8 = 1;
const PARTITION: PartitionId = PartitionId(0);

/// Attempts to make bindings durable, each by a new journal, before the task gives up; each waits for the log by itself.
const MAX_ATTEMPTS: u32 = 8;
/// Bindings below C that are left in the log before it is trimmed: some seconds of epochs.
const TRIM_AFTER: usize = 256;

/// Appends bindings under an id that is fenced like every other.
pub struct BindingsWriter {
    log: Arc<dyn Log>,
    topic: String,
    id: String,
    generation: Generation,
    journal: Box<dyn Journal>,
    /// Everything in the log before this offset is known.
    known: u64,
    /// The offset of each binding since the last trim, so that the log can be trimmed to a checkpoint.
    offsets: Vec<(Epoch, u64)>,
}

/// A binding as it stands in the log.
#[derive(Clone, Debug)]
pub struct Stored {
    pub offset: u64,
    pub binding: Binding,
}

fn topic_of(job: JobId) -> String {
    format!("bindings-{job}")
}

fn id_of(job: JobId) -> String {
    format!("{job}-bindings")
}

impl BindingsWriter {
    /// Makes the topic where it is missing and fences every earlier writer.
    pub fn open(log: Arc<dyn Log>, job: JobId, generation: Generation) -> Result<Self> {
        let (topic, id) = (topic_of(job), id_of(job));
        log.ensure(&TopicSpec { name: topic.clone(), partitions: 1, retention: Retention::Keep })?;
        let journal = log.journal(&topic, PARTITION, &id, generation)?;
        let (_, known) = log.offsets(&topic, PARTITION)?;
        Ok(Self { log, topic, id, generation, journal, known, offsets: Vec::new() })
    }

    /// Makes the bindings durable. Where the outcome is unknown, a new journal fences the old one, reads what is there, and appends
    /// unchanged what is not.
    ///
    /// Errors: a newer generation; a log that stays away.
    pub fn append(&mut self, mut bindings: &[Binding]) -> Result<()> {
        for attempt in 1.. {
            match self.try_append(bindings) {
                Err(error) if error.blame() == Blame::External && attempt < MAX_ATTEMPTS && self.can_look(&error) => {
                    tracing::warn!("{}: {error}; a new producer looks what is there", self.topic);
                    let there = self.renew(bindings)?;
                    bindings = &bindings[there..];
                    if bindings.is_empty() {
                        return Ok(());
                    }
                }
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Does what the log leaves for when nobody waits; says when it wants to be called again.
    pub fn tend(&mut self) -> Option<Duration> {
        self.journal.tend()
    }

    /// A failure of the disk is for the next process to look at, and one of a newer generation for nobody.
    fn can_look(&self, error: &Error) -> bool {
        self.journal.is_spent() && !matches!(error.code(), "disk-full" | "io" | "fenced")
    }

    fn try_append(&mut self, bindings: &[Binding]) -> Result<()> {
        failpoint::pass("bindings-append")?;
        if self.journal.is_spent() {
            self.journal = self.log.journal(&self.topic, PARTITION, &self.id, self.generation)?;
        }
        let end = self.journal.append(bindings.iter().map(encode).collect::<Result<_>>()?)?;
        failpoint::pass("bindings-durable")?;
        let first = end.saturating_sub(bindings.len() as u64);
        self.offsets.extend(bindings.iter().zip(first..).map(|(binding, offset)| (binding.epoch, offset)));
        self.known = self.known.max(end);
        Ok(())
    }

    /// Fences the journal of an append whose outcome is unknown; says how many of its bindings are there, which are its first ones.
    fn renew(&mut self, bindings: &[Binding]) -> Result<usize> {
        self.journal = self.log.journal(&self.topic, PARTITION, &self.id, self.generation)?;
        let (mut there, offsets) = (0, &mut self.offsets);
        self.known = read_journal(&*self.log, &self.topic, PARTITION, self.known, |record| {
            let binding = decode(record.record.value.as_deref().unwrap_or_default())?;
            if bindings.get(there) == Some(&binding) {
                offsets.push((binding.epoch, record.offset));
                there += 1;
            }
            Ok(())
        })?;
        Ok(there)
    }

    /// Remembers where bindings of the past stand.
    pub fn remember(&mut self, stored: &[Stored]) {
        self.offsets.extend(stored.iter().map(|stored| (stored.binding.epoch, stored.offset)));
    }

    /// Drops the bindings up to a committed checkpoint, when they have become many.
    pub fn trim(&mut self, checkpoint: Epoch) -> Result<()> {
        let kept = self.offsets.partition_point(|(epoch, _)| *epoch <= checkpoint);
        if kept < TRIM_AFTER {
            return Ok(());
        }
        let before = self.offsets[kept - 1].1 + 1;
        self.offsets.drain(..kept);
        self.log.trim(&self.topic, PARTITION, before)
    }
}

/// All bindings after `after` that are in the log, of every generation, in log order.
pub fn read(log: &dyn Log, job: JobId, after: Epoch) -> Result<Vec<Stored>> {
    let mut found = Vec::new();
    read_journal(log, &topic_of(job), PARTITION, 0, |record| {
        let binding = decode(record.record.value.as_deref().unwrap_or_default())
            .map_err(|error| error.context(format!("bindings log, offset {}", record.offset)))?;
        if binding.epoch > after {
            found.push(Stored { offset: record.offset, binding });
        }
        Ok(())
    })?;
    Ok(found)
}

/// Which of the stored bindings count: of (C, B], each of the last generation that has it under the caps.
///
/// A binding of generation h counts only up to the cap of every plan of a later generation; what is beyond is void for ever.
pub fn valid(stored: Vec<Stored>, caps: &[(Generation, Epoch)], last: Epoch) -> Vec<Stored> {
    let counts = |binding: &Binding| {
        let capped = caps.iter().any(|(generation, cap)| binding.generation < *generation && binding.epoch > *cap);
        binding.epoch <= last && !capped
    };
    let mut valid: Vec<Stored> = stored.into_iter().filter(|stored| counts(&stored.binding)).collect();
    valid.sort_by_key(|stored| stored.binding.epoch);
    valid.dedup_by(|later, earlier| {
        let same = later.binding.epoch == earlier.binding.epoch;
        assert!(!same || later.binding == earlier.binding, "binding(e) never changes: epoch {}", later.binding.epoch);
        same
    });
    valid
}

fn encode(binding: &Binding) -> Result<NewRecord> {
    let value = postcard::to_extend(binding, vec![VERSION])
        .map_err(|error| Error::internal("binding-encode", format!("binding of epoch {}: {error}", binding.epoch)))?;
    Ok(NewRecord { value: Some(value), ..NewRecord::default() })
}

/// Decodes the value of a record of the bindings log.
///
/// Errors: another version, or bytes that are no binding.
pub fn decode(value: &[u8]) -> Result<Binding> {
    let (version, body) = value.split_first().unwrap_or((&0, &[]));
    if *version != VERSION {
        let text =
            format!("a binding of format {version}; this version reads format {VERSION}, use the one that wrote it");
        return Err(Error::external("binding-version", text));
    }
    postcard::from_bytes(body)
        .map_err(|error| Error::external("binding-corrupt", format!("a binding does not decode: {error}")))
}
