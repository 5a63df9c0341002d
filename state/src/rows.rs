//! Sealed rows on their way from a worker to a file: bytes in chunks, not a vector per row.

use crate::changelog::RowState;
use crate::layout::{MARK, PREFIX, ROW, put_prefix};
use thalweg_core::PartitionId;

/// Chunks never grow, so a worker never waits for a large copy.
const CHUNK: usize = 1 << 20;

/// The key goes: no row, no mark.
const ERASE: u8 = 0x80;
/// The row that is replaced was DELETED: its mark goes.
const WAS_DELETED: u8 = 0x40;
const STATE: u8 = 0x03;

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowChange {
    /// It has this state from now on (and a value, where that is live).
    Put(RowState),
    /// It goes.
    Erase,
}

#[derive(Clone, Copy)]
struct Place {
    chunk: u32,
    at: u32,
    key: u32,
    value: u32,
}

/// Rows of any partitions, in the order in which they were pushed.
#[derive(Default)]
pub(crate) struct Rows {
    /// Rows go to the last one.
    chunks: Vec<Vec<u8>>,
    places: Vec<Place>,
    bytes: usize,
}

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct SealedRow<'a> {
    stored_key: &'a [u8],
    flags: u8,
    /// `flags` and the encoded value.
    stored: &'a [u8],
}

impl<'a> SealedRow<'a> {
    /// The key with its prefix, as it is stored.
    pub(crate) fn stored_key(&self) -> &'a [u8] {
        self.stored_key
    }

    pub(crate) fn partition(&self) -> PartitionId {
        PartitionId(u16::from_be_bytes([self.stored_key[0], self.stored_key[1]]))
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        &self.stored_key[PREFIX..]
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        &self.stored[1..]
    }

    /// The new state and what was there; of an erased row the state that is erased.
    pub(crate) fn change(&self) -> RowChange {
        if self.flags & ERASE != 0 { RowChange::Erase } else { RowChange::Put(self.state()) }
    }

    /// The state that is put, or that was erased.
    pub(crate) fn state(&self) -> RowState {
        RowState::from_bits(self.flags & STATE).expect("two bits are always a state")
    }

    pub(crate) fn was_deleted(&self) -> bool {
        self.flags & WAS_DELETED != 0
    }

    /// Flags and value as they are stored.
    pub(crate) fn stored(&self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.flags == self.flags & STATE {
            return self.stored;
        }
        scratch.clear();
        scratch.push(self.flags & STATE);
        scratch.extend_from_slice(self.value());
        scratch
    }
}

impl Rows {
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { places: Vec::with_capacity(rows), ..Self::default() }
    }

    /// Adds a row; `before` is what it was, `value` the encoded value of a live one.
    pub(crate) fn push(
        &mut self,
        partition: PartitionId,
        key: &[u8],
        before: RowState,
        change: RowChange,
        value: &[u8],
    ) {
        let state = match change {
            RowChange::Put(state) => state,
            RowChange::Erase => before,
        };
        let mut flags = state.to_bits().unwrap_or(0);
        if change == RowChange::Erase {
            flags |= ERASE;
        }
        if before.is_deleted() {
            flags |= WAS_DELETED;
        }
        let length = PREFIX + key.len() + 1 + value.len();
        if self.chunks.last().is_none_or(|chunk| chunk.capacity() - chunk.len() < length) {
            self.chunks.push(Vec::with_capacity(length.max(CHUNK)));
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let at = chunk.len();
        put_prefix(chunk, partition, ROW);
        chunk.extend_from_slice(key);
        chunk.push(flags);
        chunk.extend_from_slice(value);
        self.bytes += length;
        self.places.push(Place {
            chunk: index as u32,
            at: u32::try_from(at).expect("a chunk has at most one row beyond its size"),
            key: u32::try_from(key.len()).expect("a key is shorter than 4 GiB"),
            value: u32::try_from(value.len()).expect("a value is shorter than 4 GiB"),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they take, with what is kept for more.
    pub(crate) fn memory(&self) -> u64 {
        let chunks: usize = self.chunks.iter().map(Vec::capacity).sum();
        (chunks + self.places.capacity() * size_of::<Place>()) as u64
    }

    /// In the order of their pushes, or of their stored keys after [`Rows::sort`].
    pub(crate) fn iter(&self) -> impl Iterator<Item = SealedRow<'_>> {
        self.places.iter().map(|place| self.row(*place))
    }

    fn row(&self, place: Place) -> SealedRow<'_> {
        let at = place.at as usize;
        let value_at = at + PREFIX + place.key as usize;
        let end = value_at + 1 + place.value as usize;
        let chunk = &self.chunks[place.chunk as usize];
        let stored = &chunk[value_at..end];
        SealedRow { stored_key: &chunk[at..value_at], flags: stored[0], stored }
    }

    /// By stored key. The first 16 bytes decide nearly always, without touching the row. It needs 24 bytes a row.
    pub(crate) fn sort(&mut self) {
        let by_head = |(index, place): (u32, &Place)| {
            let head = head(self.row(*place).stored_key);
            ((head >> 64) as u64, head as u64, index)
        };
        let mut order: Vec<(u64, u64, u32)> = (0..).zip(&self.places).map(by_head).collect();
        order.sort_unstable_by(|left, right| {
            let key = |index: u32| self.row(self.places[index as usize]).stored_key;
            (left.0, left.1).cmp(&(right.0, right.1)).then_with(|| key(left.2).cmp(key(right.2)))
        });
        // Each cycle of the permutation in turn; a place that is done points to itself.
        for start in 0..order.len() {
            let mut at = start;
            loop {
                let from = std::mem::replace(&mut order[at].2, at as u32) as usize;
                if from == start || from == at {
                    break;
                }
                self.places.swap(at, from);
                at = from;
            }
        }
    }
}

/// The beginning of a key as a number: numbers that differ are in the order of their keys.
pub(crate) fn head(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let length = key.len().min(16);
    bytes[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(bytes)
}

/// The key of the mark of a row with this stored key.
pub(crate) fn mark_key(stored_key: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(stored_key);
    out[PREFIX - 1] = MARK;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_their_keys() {
        for count in [0_u32, 1, 2, 3, 10, 1000] {
            let mut rows = Rows::default();
            // Any order; keys that differ behind their sixteenth byte among them.
            let keys = (0..count).map(|number| (number * 7919 + 13) % count);
            for number in keys {
                let key =
                    [if number % 3 == 0 { &b"the same beginning"[..] } else { b"" }, &number.to_be_bytes()].concat();
                let put = RowChange::Put(RowState::None);
                rows.push(PartitionId(number as u16 % 3), &key, RowState::None, put, &number.to_le_bytes());
            }
            let found = |rows: &Rows| {
                rows.iter().map(|row| (row.stored_key().to_vec(), row.value().to_vec())).collect::<Vec<_>>()
            };
            let mut expected = found(&rows);
            expected.sort();
            rows.sort();
            assert_eq!(found(&rows), expected);
        }
    }
}
