//! Entries of the overlay, in a slab whose entries never move.

use thalweg_core::KeyHash;

use crate::changelog::RowState;

/// Never a round: the value of [`Entry::encoded_in`] of an entry that was never encoded.
pub(crate) const NEVER: u32 = 0;

/// One key. 64 bytes for `u64` keys and values: a cache line.
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    /// The newest value.
    pub(crate) value: Option<V>,
    pub(crate) hash: KeyHash,
    /// The digest of the row as it was last read or encoded; 0 where there is none.
    pub(crate) digest: [u64; 2],
    /// The round in whose list of changed entries it is; 0 where it is in none.
    pub(crate) round: u32,
    /// The round for which it was encoded last.
    pub(crate) encoded_in: u32,
    /// Bytes of the encoded key and value when it was last seen.
    pub(crate) size: u32,
    /// The row as it was last read or encoded.
    pub(crate) row: RowState,
    /// Used since the clock last came by.
    pub(crate) used: bool,
    /// Whether it is in the ordered index.
    pub(crate) ordered: bool,
}

impl<K, V> Entry<K, V> {
    pub(crate) fn absent(key: K, hash: KeyHash) -> Self {
        Self {
            key,
            value: None,
            hash,
            digest: [0; 2],
            round: 0,
            encoded_in: NEVER,
            size: 0,
            row: RowState::None,
            used: true,
            ordered: false,
        }
    }

    /// In two halves: as a `u128` it would need 16 more bytes for its alignment.
    #[inline]
    pub(crate) fn digest(&self) -> u128 {
        u128::from(self.digest[0]) | u128::from(self.digest[1]) << 64
    }

    #[inline]
    pub(crate) fn set_digest(&mut self, digest: u128) {
        self.digest = [digest as u64, (digest >> 64) as u64];
    }
}

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Entries by place, in chunks that never move.
pub(crate) struct Slab<K, V> {
    chunks: Vec<Vec<Option<Entry<K, V>>>>,
    free: Vec<u32>,
    next: u32,
}

impl<K, V> Slab<K, V> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.next as usize - self.free.len()
    }

    /// One more than the largest place ever used.
    pub(crate) fn places(&self) -> u32 {
        self.next
    }

    pub(crate) fn insert(&mut self, entry: Entry<K, V>) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.slot_mut(place) = Some(entry);
            return place;
        }
        let place = self.next;
        assert!(place < u32::MAX - 1, "the overlay of a worker holds less than 2^32 entries");
        if place as usize & (CHUNK - 1) == 0 {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[(place >> CHUNK_BITS) as usize].push(Some(entry));
        self.next += 1;
        place
    }

    pub(crate) fn remove(&mut self, place: u32) -> Entry<K, V> {
        let entry = self.slot_mut(place).take().expect("a place in the index has an entry");
        self.free.push(place);
        entry
    }

    #[inline]
    fn slot_mut(&mut self, place: u32) -> &mut Option<Entry<K, V>> {
        &mut self.chunks[(place >> CHUNK_BITS) as usize][place as usize & (CHUNK - 1)]
    }

    #[inline]
    pub(crate) fn slot(&self, place: u32) -> Option<&Entry<K, V>> {
        self.chunks[(place >> CHUNK_BITS) as usize][place as usize & (CHUNK - 1)].as_ref()
    }

    #[inline]
    pub(crate) fn get(&self, place: u32) -> &Entry<K, V> {
        self.slot(place).expect("a place in use has an entry")
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, place: u32) -> &mut Entry<K, V> {
        self.slot_mut(place).as_mut().expect("a place in use has an entry")
    }

    #[inline]
    pub(crate) fn try_get_mut(&mut self, place: u32) -> Option<&mut Entry<K, V>> {
        self.slot_mut(place).as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_entry_fits_a_cache_line() {
        assert_eq!(size_of::<Option<Entry<u64, u64>>>(), 64);
    }
}
