//! From the records of a changelog to the rows of a partition.

use std::fmt;
use std::ops::Deref;

use thalweg_core::{Epoch, Error, Generation, Lineage, Result};

use super::{ChangelogKey, ChangelogValue, EndRecord, RecordBody, RowState, Slot};
use crate::sorter::{Sorter, Spill};

/// Reads the changelog of one partition, record by record in log order, and gives its rows at the end.
///
/// It works for a full read (from the first record, no local rows) and for catching up (from the offset of the local
/// checkpoint L, with the local rows of L): of each slot that it met, the last record counts, and of each slot that it
/// did not meet, what the local row says. It must be given every record up to the fenced end of the log.
///
/// Memory: every record that it was given; one that [`crate::Backend::fold`] makes sorts what is beyond a limit on disk.
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
///     fold.push(&key, Some(&value))?;
/// }
/// let mut lineage = Lineage::default();
/// lineage.commit(Generation(1), Epoch(10));       // 20 was never committed
/// let mut rows = Vec::new();
/// fold.finish(&lineage, |_| Ok(RowState::None), |key, outcome| {
///     let Outcome::Live(slot, value) = outcome else { panic!("{outcome:?}") };
///     rows.push((key.to_vec(), slot, value.to_vec()));
///     Ok(())
/// })?;
/// assert_eq!(rows, [(b"paris".to_vec(), Slot::Zero, b"old".to_vec())]);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Fold {
    /// For each key what its slots hold, see [`seen`].
    rows: Sorter,
    ends: [Seen<EndRecord>; 2],
}

/// What the fold says of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The local row is what it should be.
    Keep,
    /// The row has this value, committed in this slot.
    Live(Slot, RowValue<'a>),
    /// The row is DELETED, committed in this slot; it has no value, and a later checkpoint has to write its tombstones.
    Deleted(Slot),
    /// There is no row, neither of the key nor of its deletion: a local one has to go.
    Gone,
}

/// The encoded value of a live row, behind its state, as it is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RowValue<'a> {
    stored: &'a [u8],
}

impl<'a> RowValue<'a> {
    pub(crate) fn new(stored: &'a [u8]) -> Self {
        Self { stored }
    }

    /// With its state.
    pub(crate) fn stored(self) -> &'a [u8] {
        self.stored
    }
}

impl Deref for RowValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.stored[1..]
    }
}

impl fmt::Debug for RowValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What a [`Fold`] found of the ends of checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoredEnd {
    /// Where the end of the last committed checkpoint lies; its next end goes to the other slot.
    pub row: RowState,
    /// The end record of the last committed checkpoint, with the generation and the checkpoint that wrote it, where it was
    /// met. The rows must agree with it, and it with the record of C.
    pub record: Option<(Generation, Epoch, EndRecord)>,
}

/// The last record of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen<C> {
    /// No record of this slot was met.
    #[default]
    Nothing,
    Tombstone,
    Version(Generation, Epoch, C),
}

/// Which slot has the later committed version.
#[derive(Clone, Copy)]
enum Winner<C> {
    Local,
    Log(Slot, Generation, Epoch, C),
    None,
}

impl Fold {
    pub(crate) fn spilling(spill: Spill) -> Self {
        Self { rows: Sorter::spilling(spill), ends: Default::default() }
    }

    /// Takes the next record of the log; no value is a tombstone.
    ///
    /// Errors: `changelog-record` where the bytes are no changelog record; disk.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let place = ChangelogKey::decode(key)?;
        let value = value.map(|value| ChangelogValue::decode(key, value)).transpose()?;
        match place {
            ChangelogKey::End { slot } => {
                self.ends[slot.index()] = match value {
                    None => Seen::Tombstone,
                    Some(ChangelogValue { generation, checkpoint, body: RecordBody::End(end) }) => {
                        Seen::Version(generation, checkpoint, end)
                    }
                    Some(_) => return Err(misplaced("a row under the key of the end records")),
                };
                Ok(())
            }
            ChangelogKey::Row { key, slot } => self.push_row(key, slot, value),
        }
    }

    fn push_row(&mut self, key: &[u8], slot: Slot, value: Option<ChangelogValue<'_>>) -> Result<()> {
        let Some(ChangelogValue { generation, checkpoint, body }) = value else {
            return self.rows.push(key, slot.index(), (&[], &[]));
        };
        let (state, value) = match body {
            RecordBody::Version(value) => (RowState::Live(slot), value),
            RecordBody::Deleted => (RowState::Deleted(slot), &[][..]),
            RecordBody::End(_) => return Err(misplaced("an end record under the key of a row")),
        };
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&generation.0.to_le_bytes());
        head[8..16].copy_from_slice(&checkpoint.0.to_le_bytes());
        head[HEAD - 1] = state.to_bits().expect("there is a row");
        self.rows.push(key, slot.index(), (&head, value))
    }

    /// Decides every key that was met, and gives them to `take` in the order of the encoded keys.
    ///
    /// `lineage` says which checkpoints are committed. `local` gives the local row of a key at the checkpoint from whose
    /// changelog offset the fold began; [`RowState::None`] in a full read.
    ///
    /// Errors: those of `local` and of `take`; disk.
    pub fn finish(
        self,
        lineage: &Lineage,
        mut local: impl FnMut(&[u8]) -> Result<RowState>,
        mut take: impl FnMut(&[u8], Outcome<'_>) -> Result<()>,
    ) -> Result<()> {
        self.rows.merge(|key, slots| {
            let outcome = match winner(&slots.map(seen), lineage, local(key)?) {
                Winner::Local => Outcome::Keep,
                Winner::None => Outcome::Gone,
                Winner::Log(_, _, _, stored) => match RowState::from_bits(stored[0]) {
                    Some(RowState::Live(slot)) => Outcome::Live(slot, RowValue { stored }),
                    Some(RowState::Deleted(slot)) => Outcome::Deleted(slot),
                    Some(RowState::None) | None => return Err(misplaced("a row without a state")),
                },
            };
            take(key, outcome)
        })
    }

    /// The end of the last committed checkpoint; `local` is the same of the checkpoint from whose offset the fold began,
    /// [`RowState::None`] in a full read.
    pub fn end(&self, lineage: &Lineage, local: RowState) -> RestoredEnd {
        match winner(&self.ends, lineage, local) {
            Winner::Local => RestoredEnd { row: local, record: None },
            Winner::None => RestoredEnd::default(),
            Winner::Log(slot, generation, epoch, end) => {
                RestoredEnd { row: RowState::Live(slot), record: Some((generation, epoch, end)) }
            }
        }
    }
}

/// Of a record of a row that is no tombstone: generation, checkpoint (u64, little endian), and the state of the row, which its value
/// follows as in the row that is stored.
const HEAD: usize = 8 + 8 + 1;

/// What a slot holds, out of what [`Fold::push_row`] has made of its record.
fn seen(payload: Option<&[u8]>) -> Seen<&[u8]> {
    let Some(payload) = payload else { return Seen::Nothing };
    let number = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    match (number(0), number(8)) {
        (Some(generation), Some(checkpoint)) => {
            Seen::Version(Generation(generation), Epoch(checkpoint), &payload[HEAD - 1..])
        }
        _ => Seen::Tombstone,
    }
}

fn winner<C: Copy>(slots: &[Seen<C>; 2], lineage: &Lineage, local: RowState) -> Winner<C> {
    let mut best = Winner::None;
    for slot in Slot::BOTH {
        match slots[slot.index()] {
            Seen::Version(generation, epoch, content) if lineage.contains(generation, epoch) => {
                // A committed record was read after the local checkpoint, and so is later than what is local.
                let later = match best {
                    Winner::Log(_, held_by, held, _) => (epoch, generation) > (held, held_by),
                    Winner::Local | Winner::None => true,
                };
                if later {
                    best = Winner::Log(slot, generation, epoch, content);
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

fn misplaced(what: &str) -> Error {
    Error::internal("changelog-record", format!("the changelog holds {what}"))
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

    fn check(what: &str, local: RowState, steps: &[Step], expected: Outcome<'_>) {
        let mut lineage = Lineage::default();
        lineage.commit(Generation(1), Epoch(10));
        lineage.abandon(Generation(1), Epoch(20));
        lineage.commit(Generation(1), Epoch(30));
        lineage.commit(Generation(3), Epoch(40));
        let mut found = 0;
        let take = |key: &[u8], outcome: Outcome<'_>| {
            found += 1;
            assert_eq!((key, outcome), (&b"k"[..], expected), "{what}");
            Ok(())
        };
        fold(steps).finish(&lineage, |_| Ok(local), take).unwrap();
        assert_eq!(found, 1, "{what}");
    }

    #[test]
    fn the_last_record_of_each_slot_counts() {
        use Slot::{One, Zero};
        let none = RowState::None;
        fn live(slot: Slot, stored: &'static str) -> Outcome<'static> {
            Outcome::Live(slot, RowValue { stored: stored.as_bytes() })
        }
        check("one version", none, &[(Zero, 1, 10, Some("a"))], live(Zero, "\0a"));
        check("the later of two", none, &[(Zero, 1, 10, Some("a")), (One, 1, 30, Some("b"))], live(One, "\x01b"));
        check("in any order", none, &[(One, 1, 30, Some("b")), (Zero, 1, 10, Some("a"))], live(One, "\x01b"));
        check(
            "by checkpoint, over generations",
            none,
            &[(One, 3, 40, Some("b")), (Zero, 1, 30, Some("a"))],
            live(One, "\x01b"),
        );
        check("an abandoned one", none, &[(Zero, 1, 10, Some("a")), (One, 1, 20, Some("b"))], live(Zero, "\0a"));
        check(
            "one of a dead generation",
            none,
            &[(Zero, 1, 10, Some("a")), (One, 2, 30, Some("b"))],
            live(Zero, "\0a"),
        );
        check("hides what was in its slot", none, &[(Zero, 1, 10, Some("a")), (Zero, 2, 30, Some("b"))], Outcome::Gone);
        check("DELETED", none, &[(Zero, 1, 10, Some("a")), (One, 1, 30, Some(""))], Outcome::Deleted(One));
        check("tombstones", none, &[(Zero, 1, 10, Some("a")), (Zero, 0, 0, None), (One, 0, 0, None)], Outcome::Gone);
        check("a local row not met", RowState::Live(Zero), &[(One, 1, 20, Some("b"))], Outcome::Keep);
        check("a local row overtaken", RowState::Live(Zero), &[(One, 1, 30, Some("b"))], live(One, "\x01b"));
        check("a local row in the higher slot", RowState::Live(One), &[(Zero, 1, 30, Some("b"))], live(Zero, "\0b"));
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
            fold.push(&key, Some(&value)).unwrap();
        }
        let mut lineage = Lineage::default();
        lineage.commit(Generation(1), Epoch(10));
        lineage.abandon(Generation(1), Epoch(20));
        lineage.commit(Generation(1), Epoch(30));
        let end = EndRecord { entries: 30, digest: Digest(7) };
        let record = Some((Generation(1), Epoch(30), end));
        assert_eq!(fold.end(&lineage, RowState::None), RestoredEnd { row: RowState::Live(Slot::One), record });
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let record = |key: &[u8], body| {
            let mut bytes = Vec::new();
            ChangelogValue { generation: Generation(1), checkpoint: Epoch(1), body }.encode(key, &mut bytes);
            bytes
        };
        let row = record(b"\x02", RecordBody::Version(b"v"));
        let end = record(b"k\x00", RecordBody::End(EndRecord { entries: 1, digest: Digest(7) }));
        for (key, value) in [
            (&b"k\x07"[..], None),
            (b"k\x00", Some(&b"junk"[..])),
            (b"", None),
            (b"\x02", Some(&row)),
            (b"k\x00", Some(&end)),
        ] {
            assert_eq!(Fold::default().push(key, value).unwrap_err().code(), "changelog-record");
        }
    }
}
