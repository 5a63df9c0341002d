//! From the records of a changelog to the rows of a partition.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;

use foldhash::fast::RandomState;
use thalweg_core::{Epoch, Generation, Lineage, Result};

use super::record::body_range;
use super::{ChangelogKey, ChangelogValue, EndRecord, RecordBody, RowState, Slot};

/// Reads the changelog of one partition, record by record in log order, and gives its rows at the end.
///
/// It works for a full read (from the first record, no local rows) and for catching up (from the offset of the local
/// checkpoint L, with the local rows of L): of each slot that it met, the last record counts, and of each slot that it
/// did not meet, what the local row says. It must be given every record up to the fenced end of the log.
///
/// Memory: the last record of each slot of each key that it met, so at most two values per key of the partition.
///
/// ```
/// use thalweg_core::{Epoch, Generation, Lineage};
/// use thalweg_state::changelog::{ChangelogKey, ChangelogValue, Fold, Outcome, RecordBody, RowState, Slot};
/// # fn main() -> thalweg_core::Result<()> {
/// let mut fold = Fold::default();
/// for (slot, checkpoint, text) in [(Slot::Zero, 10, b"old"), (Slot::One, 20, b"new")] {
///     let (mut key, mut value) = (Vec::new(), Vec::new());
///     ChangelogKey::Row { key: b"paris", slot }.encode(&mut key);
///     let body = RecordBody::Version(text);
///     ChangelogValue { generation: Generation(1), checkpoint: Epoch(checkpoint), body }.encode(&key, &mut value);
///     fold.push(&key, Some(value))?;
/// }
/// let mut lineage = Lineage::default();
/// lineage.commit(Generation(1), Epoch(10));       // 20 was never committed
/// let restored = fold.finish(&lineage, RowState::None, |_| Ok(RowState::None))?;
/// assert_eq!(&*restored.rows[0].0, b"paris");
/// assert_eq!(restored.rows[0].1, Outcome::Live(Slot::Zero, b"old".as_slice().into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    rows: HashMap<Box<[u8]>, [Seen; 2], RandomState>,
    ends: [Seen; 2],
}

/// What the fold says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The local row is what it should be.
    Keep,
    /// The row has this value, committed in this slot.
    Live(Slot, RowValue),
    /// The row is DELETED, committed in this slot; it has no value, and a later checkpoint has to write its tombstones.
    Deleted(Slot),
    /// There is no row, neither of the key nor of its deletion: a local one has to go.
    Gone,
}

/// The encoded value of a row, in the record that brought it: what is restored is not copied once more.
#[derive(Clone)]
pub struct RowValue {
    record: Box<[u8]>,
    /// Where in it the value is.
    start: u32,
    end: u32,
}

impl Deref for RowValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.record[self.start as usize..self.end as usize]
    }
}

impl From<&[u8]> for RowValue {
    fn from(value: &[u8]) -> Self {
        Self { record: value.into(), start: 0, end: value.len() as u32 }
    }
}

impl PartialEq for RowValue {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for RowValue {}

impl fmt::Debug for RowValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What a [`Fold`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Every key that was met, in the order of the encoded keys.
    pub rows: Vec<(Box<[u8]>, Outcome)>,
    /// Where the end of the last committed checkpoint lies; its next end goes to the other slot.
    pub end_row: RowState,
    /// The end record of the last committed checkpoint, with the generation and the checkpoint that wrote it, where it was
    /// met. The rows must agree with it, and it with the record of C.
    pub end: Option<(Generation, Epoch, EndRecord)>,
}

/// The last record of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// No record of this slot was met.
    #[default]
    Nothing,
    Tombstone,
    Version(Generation, Epoch, Content),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Value(RowValue),
    Deleted,
    End(EndRecord),
}

/// Which slot has the later committed version.
#[derive(Clone, Copy)]
enum Winner {
    Local,
    Log(Slot, Generation, Epoch),
    None,
}

impl Fold {
    /// Takes the next record of the log; no value is a tombstone.
    ///
    /// Error (`changelog-record`): the bytes are no changelog record.
    pub fn push(&mut self, key: &[u8], value: Option<impl Into<Box<[u8]>>>) -> Result<()> {
        let place = ChangelogKey::decode(key)?;
        let seen = match value {
            None => Seen::Tombstone,
            Some(record) => {
                let record = record.into();
                let ChangelogValue { generation, checkpoint, body } = ChangelogValue::decode(key, &record)?;
                let content = match body {
                    RecordBody::Version(value) => {
                        let (start, end) = body_range(&record, value);
                        Content::Value(RowValue { record, start, end })
                    }
                    RecordBody::Deleted => Content::Deleted,
                    RecordBody::End(end) => Content::End(end),
                };
                Seen::Version(generation, checkpoint, content)
            }
        };
        match place {
            ChangelogKey::End { slot } => self.ends[slot.index()] = seen,
            ChangelogKey::Row { key, slot } => match self.rows.get_mut(key) {
                Some(slots) => slots[slot.index()] = seen,
                None => {
                    let mut slots = [Seen::Nothing, Seen::Nothing];
                    slots[slot.index()] = seen;
                    self.rows.insert(key.into(), slots);
                }
            },
        }
        Ok(())
    }

    /// How many keys were met.
    pub fn keys(&self) -> usize {
        self.rows.len()
    }

    /// Decides every key that was met.
    ///
    /// `lineage` says which checkpoints are committed. `local` gives the local row of a key at the checkpoint from whose
    /// changelog offset the fold began, `local_end` the same of the end records; [`RowState::None`] in a full read.
    pub fn finish(
        self,
        lineage: &Lineage,
        local_end: RowState,
        mut local: impl FnMut(&[u8]) -> Result<RowState>,
    ) -> Result<Restored> {
        let mut rows = Vec::with_capacity(self.rows.len());
        for (key, mut slots) in self.rows {
            let outcome = match winner(&slots, lineage, local(&key)?) {
                Winner::Local => Outcome::Keep,
                Winner::None => Outcome::Gone,
                Winner::Log(slot, ..) => match std::mem::take(&mut slots[slot.index()]) {
                    Seen::Version(_, _, Content::Value(value)) => Outcome::Live(slot, value),
                    Seen::Version(_, _, Content::Deleted) => Outcome::Deleted(slot),
                    Seen::Version(_, _, Content::End(_)) | Seen::Nothing | Seen::Tombstone => {
                        return Err(misplaced("an end record under the key of a row"));
                    }
                },
            };
            rows.push((key, outcome));
        }
        rows.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let (end_row, end) = match winner(&self.ends, lineage, local_end) {
            Winner::Local => (local_end, None),
            Winner::None => (RowState::None, None),
            Winner::Log(slot, generation, epoch) => match &self.ends[slot.index()] {
                Seen::Version(_, _, Content::End(end)) => (RowState::Live(slot), Some((generation, epoch, *end))),
                Seen::Version(..) | Seen::Nothing | Seen::Tombstone => {
                    return Err(misplaced("a row under the key of the end records"));
                }
            },
        };
        Ok(Restored { rows, end_row, end })
    }
}

fn winner(slots: &[Seen; 2], lineage: &Lineage, local: RowState) -> Winner {
    let mut best = Winner::None;
    for slot in Slot::BOTH {
        match &slots[slot.index()] {
            Seen::Version(generation, epoch, _) if lineage.contains(*generation, *epoch) => {
                // A committed record was read after the local checkpoint, and so is later than what is local.
                let later = match best {
                    Winner::Log(_, held_by, held) => (*epoch, *generation) > (held, held_by),
                    Winner::Local | Winner::None => true,
                };
                if later {
                    best = Winner::Log(slot, *generation, *epoch);
                }
            }
            Seen::Nothing if local.slot() == Some(slot) => {
                if matches!(best, Winner::None) {
                    best = Winner::Local;
                }
            }
            Seen::Nothing | Seen::Tombstone | Seen::Version(..) => {}
        }
    }
    best
}

fn misplaced(what: &str) -> thalweg_core::Error {
    thalweg_core::Error::internal("changelog-record", format!("the changelog holds {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::Digest;

    /// `(slot, generation, checkpoint, what)`: a value, `Some("")` for DELETED, nothing for a tombstone.
    type Step = (Slot, u64, u64, Option<&'static str>);

    fn fold(steps: &[Step]) -> Fold {
        let mut fold = Fold::default();
        for (slot, generation, checkpoint, what) in steps {
            let mut key = Vec::new();
            ChangelogKey::Row { key: b"k", slot: *slot }.encode(&mut key);
            let value = what.map(|text| {
                let body = if text.is_empty() { RecordBody::Deleted } else { RecordBody::Version(text.as_bytes()) };
                let mut bytes = Vec::new();
                ChangelogValue { generation: Generation(*generation), checkpoint: Epoch(*checkpoint), body }
                    .encode(&key, &mut bytes);
                bytes
            });
            fold.push(&key, value.as_deref()).unwrap();
        }
        fold
    }

    fn check(what: &str, local: RowState, steps: &[Step], expected: Outcome) {
        let mut lineage = Lineage::default();
        lineage.commit(Generation(1), Epoch(10));
        lineage.abandon(Generation(1), Epoch(20));
        lineage.commit(Generation(1), Epoch(30));
        lineage.commit(Generation(3), Epoch(40));
        let restored = fold(steps).finish(&lineage, RowState::None, |_| Ok(local)).unwrap();
        assert_eq!(restored.rows, [(b"k".as_slice().into(), expected)], "{what}");
    }

    #[test]
    fn the_last_record_of_each_slot_counts() {
        use Slot::{One, Zero};
        let none = RowState::None;
        let live = |slot, text: &str| Outcome::Live(slot, text.as_bytes().into());
        check("one version", none, &[(Zero, 1, 10, Some("a"))], live(Zero, "a"));
        check("the later of two", none, &[(Zero, 1, 10, Some("a")), (One, 1, 30, Some("b"))], live(One, "b"));
        check("in any order", none, &[(One, 1, 30, Some("b")), (Zero, 1, 10, Some("a"))], live(One, "b"));
        check(
            "by checkpoint, over generations",
            none,
            &[(One, 3, 40, Some("b")), (Zero, 1, 30, Some("a"))],
            live(One, "b"),
        );
        check("an abandoned one", none, &[(Zero, 1, 10, Some("a")), (One, 1, 20, Some("b"))], live(Zero, "a"));
        check("one of a dead generation", none, &[(Zero, 1, 10, Some("a")), (One, 2, 30, Some("b"))], live(Zero, "a"));
        check("hides what was in its slot", none, &[(Zero, 1, 10, Some("a")), (Zero, 2, 30, Some("b"))], Outcome::Gone);
        check("DELETED", none, &[(Zero, 1, 10, Some("a")), (One, 1, 30, Some(""))], Outcome::Deleted(One));
        check("tombstones", none, &[(Zero, 1, 10, Some("a")), (Zero, 0, 0, None), (One, 0, 0, None)], Outcome::Gone);
        check("a local row not met", RowState::Live(Zero), &[(One, 1, 20, Some("b"))], Outcome::Keep);
        check("a local row overtaken", RowState::Live(Zero), &[(One, 1, 30, Some("b"))], live(One, "b"));
        check("a local row in the higher slot", RowState::Live(One), &[(Zero, 1, 30, Some("b"))], live(Zero, "b"));
        check("a local row proved obsolete", RowState::Live(Zero), &[(Zero, 1, 20, Some("b"))], Outcome::Gone);
        check("a local row buried", RowState::Deleted(One), &[(Zero, 0, 0, None), (One, 0, 0, None)], Outcome::Gone);
        check("a local deletion", RowState::Deleted(One), &[(Zero, 1, 20, Some("b"))], Outcome::Keep);
    }

    #[test]
    fn ends_alternate_like_rows() {
        let mut fold = Fold::default();
        for (slot, checkpoint) in [(Slot::Zero, 10), (Slot::One, 20), (Slot::One, 30), (Slot::Zero, 40)] {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            ChangelogKey::End { slot }.encode(&mut key);
            let end = EndRecord { entries: checkpoint, digest: Digest(7) };
            ChangelogValue { generation: Generation(1), checkpoint: Epoch(checkpoint), body: RecordBody::End(end) }
                .encode(&key, &mut value);
            fold.push(&key, Some(value)).unwrap();
        }
        let mut lineage = Lineage::default();
        lineage.commit(Generation(1), Epoch(10));
        lineage.abandon(Generation(1), Epoch(20));
        lineage.commit(Generation(1), Epoch(30));
        let restored = fold.finish(&lineage, RowState::None, |_| Ok(RowState::None)).unwrap();
        assert_eq!(restored.end_row, RowState::Live(Slot::One));
        let end = EndRecord { entries: 30, digest: Digest(7) };
        assert_eq!(restored.end, Some((Generation(1), Epoch(30), end)));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (key, value) in [(&b"k\x07"[..], None), (b"k\x00", Some(&b"junk"[..])), (b"", None)] {
            assert_eq!(Fold::default().push(key, value).unwrap_err().code(), "changelog-record");
        }
    }
}
