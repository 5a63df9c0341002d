//! What makes an epoch repeatable: which input it holds, and when it was.

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, PartitionId};

/// xxh3-64 over the raw bytes of the records of a share, in order: a replay that reads other bytes is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContentHash(pub u64);

/// One partition of one source; sources are numbered in the order of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceKey {
    /// The index of the source in the plan.
    pub source: u16,
    /// The partition of the source.
    pub partition: PartitionId,
}

/// The part of an epoch that one source partition gives; also the manifest with which a source ends its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Whose share.
    pub of: SourceKey,
    /// The position after the last record of the share.
    pub next: u64,
    /// Records in the share.
    pub count: u64,
    /// What they were.
    pub hash: ContentHash,
}

/// The durable record "epoch e = these offset ranges of every source partition, minted at this wall-clock time".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Which epoch.
    pub epoch: Epoch,
    /// Who cut it.
    pub generation: Generation,
    /// Wall clock when it was opened, microseconds since 1970; the only clock that user code sees.
    pub minted_at: i64,
    /// One share for every source partition that the job has in this epoch, in order of [`SourceKey`]. One that has come later is in
    /// this and all later ones from the epoch on at which it was taken in.
    pub shares: Vec<Share>,
}
