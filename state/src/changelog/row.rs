//! What is remembered of a row, and what a checkpoint writes of it.

/// One of the two places of a row in the changelog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Where a key that is not in the changelog begins.
    Zero,
    /// The other one.
    One,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Zero, Self::One];

    /// The other slot.
    #[inline]
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }

    /// 0 or 1.
    #[inline]
    pub fn index(self) -> usize {
        match self {
            Self::Zero => 0,
            Self::One => 1,
        }
    }
}

/// What is remembered of a key besides its value: where its last *committed* version lies in the changelog.
///
/// It changes only when a checkpoint commits, and is stored with the row (a row of a deleted key has no value).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowState {
    /// Nothing of the key is in the changelog that could count: there is no row.
    #[default]
    None,
    /// The committed version is in this slot.
    Live(Slot),
    /// The key is deleted; the committed DELETED is in this slot. Such a row is in no digest and in no answer.
    Deleted(Slot),
}

impl RowState {
    /// The slot of the committed version.
    #[inline]
    pub fn slot(self) -> Option<Slot> {
        match self {
            Self::None => None,
            Self::Live(slot) | Self::Deleted(slot) => Some(slot),
        }
    }

    /// Whether a later checkpoint has to write tombstones for it.
    #[inline]
    pub fn is_deleted(self) -> bool {
        matches!(self, Self::Deleted(_))
    }

    /// Two bits for a stored row: live in slot 0 or 1, DELETED in slot 2 or 3; nothing where there is no row.
    #[inline]
    pub fn to_bits(self) -> Option<u8> {
        match self {
            Self::None => None,
            Self::Live(slot) => Some(slot.index() as u8),
            Self::Deleted(slot) => Some(2 + slot.index() as u8),
        }
    }

    /// The inverse of [`RowState::to_bits`]; nothing where the bits mean nothing.
    #[inline]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Live(Slot::Zero)),
            1 => Some(Self::Live(Slot::One)),
            2 => Some(Self::Deleted(Slot::Zero)),
            3 => Some(Self::Deleted(Slot::One)),
            _ => None,
        }
    }
}

/// What a key is at the checkpoint that is being written, against its last *committed* version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It has a value, and another one than the committed (or none is committed).
    Put,
    /// It has no value.
    Delete,
    /// What is committed is what it is.
    Untouched,
}

/// What the transaction of one checkpoint writes for one key.
///
/// All of it goes into one transaction of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WritePlan {
    /// Nothing; the row stays as it is.
    Nothing(RowState),
    /// The value, into this slot.
    Version(Slot),
    /// DELETED, into this slot.
    Deleted(Slot),
    /// A tombstone into the slot of the older version, then one into the slot of DELETED.
    Tombstones {
        /// The slot of what was there before DELETED.
        older: Slot,
        /// The slot of DELETED.
        deleted: Slot,
    },
}

impl WritePlan {
    /// What is remembered of the row once this checkpoint is committed. After an abandoned checkpoint, and while the outcome
    /// is unknown, the row stays what it was.
    #[inline]
    pub fn committed(self) -> RowState {
        match self {
            Self::Nothing(row) => row,
            Self::Version(slot) => RowState::Live(slot),
            Self::Deleted(slot) => RowState::Deleted(slot),
            Self::Tombstones { .. } => RowState::None,
        }
    }
}

/// Decides what a checkpoint writes for a key.
///
/// `row` is what is remembered of the *committed* version, `change` how the key stands against that version at the checkpoint.
/// The caller asks for every key that may differ from the last committed checkpoint, and for every DELETED row.
///
/// ```
/// use thalweg_state::changelog::{Change, RowState, Slot, WritePlan, decide_write};
/// let first = decide_write(RowState::None, Change::Put);
/// assert_eq!(first, WritePlan::Version(Slot::Zero));
/// // The checkpoint was abandoned: the row is what it was, and the same slot is written again.
/// assert_eq!(decide_write(RowState::None, Change::Put), WritePlan::Version(Slot::Zero));
/// // It was committed: the next version goes to the other slot.
/// assert_eq!(decide_write(first.committed(), Change::Put), WritePlan::Version(Slot::One));
/// ```
#[inline]
pub fn decide_write(row: RowState, change: Change) -> WritePlan {
    match (row, change) {
        (RowState::None, Change::Put) => WritePlan::Version(Slot::Zero),
        (RowState::Live(slot) | RowState::Deleted(slot), Change::Put) => WritePlan::Version(slot.other()),
        (RowState::Live(slot), Change::Delete) => WritePlan::Deleted(slot.other()),
        // DELETED is committed and the key is still absent.
        (RowState::Deleted(deleted), Change::Delete | Change::Untouched) => {
            WritePlan::Tombstones { older: deleted.other(), deleted }
        }
        (RowState::None, Change::Delete | Change::Untouched) | (RowState::Live(_), Change::Untouched) => {
            WritePlan::Nothing(row)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change::*, RowState, Slot::*, WritePlan, decide_write};

    #[test]
    fn every_row_and_every_change() {
        let none = RowState::None;
        let table = [
            (none, Put, WritePlan::Version(Zero), RowState::Live(Zero)),
            (none, Delete, WritePlan::Nothing(none), none),
            (none, Untouched, WritePlan::Nothing(none), none),
            (RowState::Live(Zero), Put, WritePlan::Version(One), RowState::Live(One)),
            (RowState::Live(Zero), Delete, WritePlan::Deleted(One), RowState::Deleted(One)),
            (RowState::Live(Zero), Untouched, WritePlan::Nothing(RowState::Live(Zero)), RowState::Live(Zero)),
            (RowState::Live(One), Put, WritePlan::Version(Zero), RowState::Live(Zero)),
            (RowState::Live(One), Delete, WritePlan::Deleted(Zero), RowState::Deleted(Zero)),
            (RowState::Live(One), Untouched, WritePlan::Nothing(RowState::Live(One)), RowState::Live(One)),
            (RowState::Deleted(Zero), Put, WritePlan::Version(One), RowState::Live(One)),
            (RowState::Deleted(Zero), Delete, WritePlan::Tombstones { older: One, deleted: Zero }, none),
            (RowState::Deleted(Zero), Untouched, WritePlan::Tombstones { older: One, deleted: Zero }, none),
            (RowState::Deleted(One), Put, WritePlan::Version(Zero), RowState::Live(Zero)),
            (RowState::Deleted(One), Delete, WritePlan::Tombstones { older: Zero, deleted: One }, none),
            (RowState::Deleted(One), Untouched, WritePlan::Tombstones { older: Zero, deleted: One }, none),
        ];
        for (row, change, plan, after) in table {
            assert_eq!(decide_write(row, change), plan, "{row:?} {change:?}");
            assert_eq!(plan.committed(), after, "{row:?} {change:?}");
        }
    }

    #[test]
    fn row_states_survive_their_bits() {
        for bits in 0..=u8::MAX {
            match RowState::from_bits(bits) {
                Some(row) => assert_eq!(row.to_bits(), Some(bits)),
                None => assert!(bits > 3),
            }
        }
        assert_eq!(RowState::None.to_bits(), None);
    }
}
