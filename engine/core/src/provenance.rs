//! Where a record comes from: the order in which everything is processed, whatever the timing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::PartitionId;

/// A place in the plan that numbers records: a source, a keyed operator, or an input that had to be told apart from another
/// (12 bits). The plan hands them out, in its own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OriginId(pub u16);

/// The origin of a record, the partition there, and its sequence number there within the epoch, as one ordered word.
///
/// Layout, high to low: origin 12 bits, partition 16 bits, sequence 36 bits. Ordering by provenance is the one order of an
/// epoch's records that does not depend on timing.
///
/// ```
/// use thalweg_core::{OriginId, PartitionId, Provenance};
/// let first = Provenance::new(OriginId(1), PartitionId(7), 0);
/// let second = Provenance::new(OriginId(1), PartitionId(7), 1);
/// assert!(first < second);
/// assert_eq!(second.partition(), PartitionId(7));
/// assert_eq!(second.sequence(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Provenance(u64);

const SEQUENCE_BITS: u32 = 36;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

impl Provenance {
    /// Origins that a plan may have.
    pub const MAX_ORIGINS: usize = 1 << 12;

    /// Puts the three parts together; panics if the origin or the sequence is out of range.
    #[inline]
    pub fn new(origin: OriginId, partition: PartitionId, sequence: u64) -> Self {
        assert!((origin.0 as usize) < Self::MAX_ORIGINS && sequence <= SEQUENCE_MASK, "provenance out of range");
        Self((origin.0 as u64) << 52 | (partition.0 as u64) << SEQUENCE_BITS | sequence)
    }

    /// The origin.
    #[inline]
    pub fn origin(self) -> OriginId {
        OriginId((self.0 >> 52) as u16)
    }

    /// The partition of the origin.
    #[inline]
    pub fn partition(self) -> PartitionId {
        PartitionId((self.0 >> SEQUENCE_BITS) as u16)
    }

    /// The number within (origin, partition, epoch), from 0; may have gaps after a filter.
    #[inline]
    pub fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }

    /// Origin and partition as one word: equal for records that one place numbered.
    #[inline]
    pub fn place(self) -> u64 {
        self.0 >> SEQUENCE_BITS
    }

    /// The same record after an operator has numbered its output anew.
    #[inline]
    #[must_use]
    pub fn with_sequence(self, sequence: u64) -> Self {
        assert!(sequence <= SEQUENCE_MASK, "provenance out of range");
        Self(self.0 & !SEQUENCE_MASK | sequence)
    }

    /// The same record, told apart from one that came another way.
    #[inline]
    #[must_use]
    pub fn with_origin(self, origin: OriginId) -> Self {
        Self::new(origin, self.partition(), self.sequence())
    }
}

impl fmt::Debug for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.origin().0, self.partition(), self.sequence())
    }
}
