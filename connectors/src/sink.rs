//! The duties of a sink.
//!
//! A sink is a set of partitions, each an ordered sequence of records with an end position. Contract:
//!
//! 1. **Order.** The engine calls [`SinkWriter::write`] for a partition in the order of epochs, only when the bindings of that
//!    epoch and of all before it are durable, with all records of (epoch, partition) at once, and then
//!    [`SinkWriter::end_epoch`]; when no further epoch is ready, [`SinkWriter::flush`].
//! 2. **Exactly once.** Opened at the position of checkpoint C, the sink is given every epoch after C again. What it shows
//!    already it compares and suppresses; a difference is an error of kind internal. What is torn it completes.
//! 3. **Durability.** When [`SinkWriter::sync`] returns, everything written before is durable, and the positions are the ends.
//!    A checkpoint waits until [`Sink::is_settled`] says so of them.
//! 4. **Nothing else.** After [`SinkWriter::replayed`] nothing may be left of the old tail: records beyond the last binding
//!    are an error that names the sink.
//! 5. **Fencing.** A sink opened under a generation keeps out every older one.
//!
//! `conformance` checks each clause for any implementation.

use std::ops::Range;
use std::sync::Arc;

use thalweg_core::{Epoch, Generation, JobId, PartitionId, Result};

/// What a sink is opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkContext {
    /// The job.
    pub job_id: JobId,
    /// The current generation.
    pub generation: Generation,
    /// C: what is of this epoch and earlier ones is there, and is not given again.
    pub checkpoint: Epoch,
    /// The partitions that this writer hosts, each with its end at C.
    pub partitions: Vec<(PartitionId, u64)>,
}

/// The encoded records of one epoch and one partition, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedBatch {
    /// All bytes.
    pub data: Vec<u8>,
    /// Where each record's value is in `data`, with its key where the sink has keys.
    pub records: Vec<EncodedRecord>,
}

/// Where one encoded record is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The key.
    pub key: Option<Range<usize>>,
    /// The value; nothing is a tombstone.
    pub value: Option<Range<usize>>,
    /// The partition of the sink that the record itself names, where it does.
    pub partition: Option<u32>,
    /// Named bytes, where the sink has headers.
    pub headers: Vec<(Arc<str>, Range<usize>)>,
}

impl EncodedBatch {
    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.records.clear();
    }
}

/// Something to write to.
pub trait Sink: Send + Sync {
    /// The ends of the partitions that exist before the job does; for checkpoint 0.
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>>;

    /// Whether all partitions go through one writer, in the order (epoch, partition, sequence).
    fn single(&self) -> bool {
        false
    }

    /// Whether what is before these ends of partitions, which [`SinkWriter::sync`] has told, is visible and stays so. A checkpoint is
    /// acknowledged when it is: a log may have acknowledged a commit, and its readers see it later.
    fn is_settled(&self, ends: &[(PartitionId, u64)]) -> Result<bool> {
        let _ = ends;
        Ok(true)
    }

    /// Opens the writer of some partitions.
    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>>;
}

/// Writes some partitions of a sink; owned by one worker.
pub trait SinkWriter: Send {
    /// Writes all records of one epoch and one partition.
    fn write(&mut self, epoch: Epoch, partition: PartitionId, batch: EncodedBatch) -> Result<()>;

    /// One more partition is written from now on, which had nothing at C: the job has grown by a source partition.
    fn add_partition(&mut self, _partition: PartitionId) -> Result<()> {
        Ok(())
    }

    /// The epoch is complete in all partitions of this writer.
    fn end_epoch(&mut self, epoch: Epoch) -> Result<()>;

    /// Makes the complete epochs visible, where the sink has not done so at the end of each: a log commits several in one
    /// transaction. Called when no further epoch is ready.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes everything durable; returns the end of each partition.
    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>>;

    /// The replay of (C, B] is over.
    fn replayed(&mut self) -> Result<()>;
}
