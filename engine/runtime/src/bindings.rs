//! The bindings log: one topic with one partition, one record for each epoch, in order.
//!
//! Value: format version (1 byte, now 1), then the postcard form of [`Binding`]. Key: none. The log frames and checks the bytes.

use thalweg_connectors::log::{Log, NewRecord, Producer, Retention, TopicSpec};
use thalweg_core::{Binding, Epoch, Error, Generation, JobId, PartitionId, Result, failpoint};

const VERSION: u8 = 1;
const PARTITION: PartitionId = PartitionId(0);
/// Bytes read from the log at once.
const READ_BYTES: usize = 1 << 20;

/// Appends bindings under an id that is fenced like every other.
pub(crate) struct BindingsWriter {
    topic: String,
    producer: Box<dyn Producer>,
    /// The offset of each binding since the last trim, so that the log can be trimmed to a checkpoint.
    offsets: Vec<(Epoch, u64)>,
}

/// A binding as it stands in the log.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) binding: Binding,
}

fn topic_of(job: JobId) -> String {
    format!("bindings-{job}")
}

impl BindingsWriter {
    /// Makes the topic where it is missing and fences every earlier writer.
    pub(crate) fn open(log: &dyn Log, job: JobId, generation: Generation) -> Result<Self> {
        let topic = topic_of(job);
        log.ensure(&TopicSpec { name: topic.clone(), partitions: 1, retention: Retention::Keep })?;
        let producer = log.fence(&format!("{job}-bindings"), generation)?;
        Ok(Self { topic, producer, offsets: Vec::new() })
    }

    /// Makes the bindings durable, in one transaction.
    ///
    /// Errors: the outcome is unknown then; the task stops, and the next generation reads what is there.
    pub(crate) fn append(&mut self, bindings: &[Binding]) -> Result<()> {
        failpoint::pass("bindings-append")?;
        self.producer.begin()?;
        for binding in bindings {
            let mut value = vec![VERSION];
            value = postcard::to_extend(binding, value).map_err(|error| {
                Error::internal("binding-encode", format!("binding of epoch {}: {error}", binding.epoch))
            })?;
            self.producer.append(&self.topic, PARTITION, NewRecord { value: Some(value), ..NewRecord::default() })?;
        }
        let ends = self.producer.commit()?;
        failpoint::pass("bindings-durable")?;
        let end = ends.first().map_or(0, |(_, _, end)| *end);
        let first = end.saturating_sub(bindings.len() as u64);
        self.offsets.extend(bindings.iter().zip(first..).map(|(binding, offset)| (binding.epoch, offset)));
        Ok(())
    }

    /// Remembers where bindings of the past stand.
    pub(crate) fn remember(&mut self, stored: &[Stored]) {
        self.offsets.extend(stored.iter().map(|stored| (stored.binding.epoch, stored.offset)));
    }

    /// Drops the bindings up to a committed checkpoint.
    pub(crate) fn trim(&mut self, log: &dyn Log, checkpoint: Epoch) -> Result<()> {
        let kept = self.offsets.partition_point(|(epoch, _)| *epoch <= checkpoint);
        if kept == 0 {
            return Ok(());
        }
        let before = self.offsets[kept - 1].1 + 1;
        self.offsets.drain(..kept);
        log.trim(&self.topic, PARTITION, before)
    }
}

/// All bindings after `after` that are in the log, of every generation, in log order.
pub(crate) fn read(log: &dyn Log, job: JobId, after: Epoch) -> Result<Vec<Stored>> {
    let mut reader = log.reader(&topic_of(job), PARTITION, 0)?;
    let (mut found, mut records) = (Vec::new(), Vec::new());
    while reader.read(READ_BYTES, &mut records)? {
        for record in records.drain(..) {
            let binding = decode(record.record.value.as_deref().unwrap_or_default())
                .map_err(|error| error.context(format!("bindings log, offset {}", record.offset)))?;
            if binding.epoch > after {
                found.push(Stored { offset: record.offset, binding });
            }
        }
    }
    Ok(found)
}

/// Which of the stored bindings count: of (C, B], each of the last generation that has it under the caps.
///
/// A binding of generation h counts only up to the cap of every plan of a later generation; what is beyond is void for ever.
pub(crate) fn valid(stored: Vec<Stored>, caps: &[(Generation, Epoch)], last: Epoch) -> Vec<Stored> {
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
