//! What a committed checkpoint says.

use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, JobId, JobName, PartitionCount, PartitionId, SourceKey};

/// An additive 128-bit digest of a store's partition: the sum, modulo 2^128, of xxh3-128(key ++ value) over its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(pub u128);

impl Add for Digest {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for Digest {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Digest {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

/// A source partition as it was found when the job was created: a persistent identity, not a place in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSpec {
    /// Which partition.
    pub of: SourceKey,
    /// For people: the path, the topic partition.
    pub name: String,
    /// What makes it the same thing later (device, inode and hash of the start of a file; the id of a topic).
    pub identity: String,
    /// The first position to read.
    pub start: u64,
    /// The position at which a bounded run ends, if it is bounded.
    pub end: Option<u64>,
}

/// One partition of one sink; sinks are numbered in the order of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SinkKey {
    /// The index of the sink in the plan.
    pub sink: u16,
    /// The job partition (the source partition where nothing is keyed).
    pub partition: PartitionId,
}

/// Checkpoint 0: committed before the first epoch, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointZero {
    /// The random id.
    pub job_id: JobId,
    /// The name.
    pub job: JobName,
    /// The number of partitions.
    pub partitions: PartitionCount,
    /// The name of the key encoding and hash.
    pub hash: String,
    /// Every source partition with its resolved start.
    pub sources: Vec<PartitionSpec>,
    /// Where every sink partition that existed already ended.
    pub sinks: Vec<(SinkKey, u64)>,
    /// Wall clock, microseconds since 1970.
    pub created_at: i64,
}

/// Where a source partition stands at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// Which one.
    pub of: SourceKey,
    /// The position of the first record that is not in the checkpoint.
    pub next: u64,
}

/// What one partition of one store holds at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreState {
    /// The operator id of the store.
    pub store: String,
    /// The partition.
    pub partition: PartitionId,
    /// The digest of its entries.
    pub digest: Digest,
    /// How many entries.
    pub entries: u64,
    /// The changelog's offset after the end record of this checkpoint; 0 without a changelog.
    pub changelog: u64,
}

/// A committed checkpoint: state, sources and sink positions agree at its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The last epoch that is in it.
    pub epoch: Epoch,
    /// The generation that wrote it.
    pub generation: Generation,
    /// The fingerprint of the plan that it was written with.
    pub fingerprint: u64,
    /// The wall clock of its last epoch's binding.
    pub minted_at: i64,
    /// Every source partition.
    pub sources: Vec<SourceState>,
    /// Every partition of every store.
    pub stores: Vec<StoreState>,
    /// Every sink partition that was written.
    pub sinks: Vec<(SinkKey, u64)>,
}

/// Which (generation, checkpoint) pairs are committed: per generation an interval, less the abandoned numbers.
///
/// ```
/// use thalweg_core::{Epoch, Generation, Lineage};
/// let mut lineage = Lineage::default();
/// lineage.commit(Generation(1), Epoch(10));
/// lineage.abandon(Generation(1), Epoch(20));
/// lineage.commit(Generation(1), Epoch(30));
/// assert!(lineage.contains(Generation(1), Epoch(10)));
/// assert!(!lineage.contains(Generation(1), Epoch(20)));
/// assert!(!lineage.contains(Generation(2), Epoch(10)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    spans: Vec<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    generation: Generation,
    first: Epoch,
    last: Epoch,
    abandoned: Vec<Epoch>,
}

impl Lineage {
    /// Adds a committed checkpoint.
    pub fn commit(&mut self, generation: Generation, epoch: Epoch) {
        match self.spans.last_mut() {
            Some(span) if span.generation == generation => {
                span.abandoned.retain(|abandoned| *abandoned != epoch);
                span.last = epoch;
            }
            _ => self.spans.push(Span { generation, first: epoch, last: epoch, abandoned: Vec::new() }),
        }
    }

    /// Remembers that a checkpoint was given up: its number lies inside a later interval, but is not in it.
    pub fn abandon(&mut self, generation: Generation, epoch: Epoch) {
        match self.spans.last_mut() {
            Some(span) if span.generation == generation => span.abandoned.push(epoch),
            // Nothing of this generation is committed: its interval is to begin later.
            _ => {}
        }
    }

    /// Whether the checkpoint was committed.
    pub fn contains(&self, generation: Generation, epoch: Epoch) -> bool {
        self.spans.iter().any(|span| {
            span.generation == generation
                && (span.first..=span.last).contains(&epoch)
                && !span.abandoned.contains(&epoch)
        })
    }
}
