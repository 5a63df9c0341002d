//! From keys to entries, reading RocksDB for what is not in memory.

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::{Key, KeyHash, Result, decode_key};

use super::{Handle, Store, encoded, stored_key};
use crate::KeyRange;
use crate::changelog::RowState;
use crate::codec::decode_value;
use crate::entry::Entry;
use crate::index::Mixed;
use crate::layout::{digest_into, split_row};
use crate::rocks_error::Doing;

/// Keys whose index words are read before the first entry is touched: independent reads overlap in the processor.
const BLOCK: usize = 32;

/// Keys per read of RocksDB.
const BATCH: usize = 4096;

/// The largest key is the partition's prefix and its encoding; all keys of a batch in one vector.
struct Wanted {
    bytes: Vec<u8>,
    /// Start, end and place.
    keys: Vec<(usize, usize, u32)>,
}

impl<K: Key, V: Serialize + DeserializeOwned + 'static> Store<K, V> {
    /// Appends a handle for each key, in their order. A key that is nowhere gets an entry without a value.
    ///
    /// Call it once for all distinct keys of an epoch: what is not in memory is read from RocksDB together.
    ///
    /// Errors: reading; `state-value` where a row is not of the type `V`; a key of a partition that is not hosted.
    pub fn load<'k>(&mut self, keys: impl Iterator<Item = (KeyHash, &'k K)>, handles: &mut Vec<Handle>) -> Result<()> {
        let mut missing = Vec::new();
        let mut keys = keys.into_iter();
        let mut block: [Option<(KeyHash, &K, Option<u32>)>; BLOCK] = [const { None }; BLOCK];
        loop {
            let mut filled = 0;
            for (slot, (hash, key)) in block.iter_mut().zip(&mut keys) {
                *slot = Some((hash, key, self.index.candidate(Mixed::of(hash.0))));
                filled += 1;
            }
            for (hash, key, candidate) in block[..filled].iter().flatten() {
                let place = match candidate {
                    Some(place) if self.is(*place, *hash, key) => *place,
                    _ => match self.find(*hash, key) {
                        Some(place) => place,
                        None => self.add_absent(*hash, key, &mut missing)?,
                    },
                };
                let entry = self.slab.get_mut(place);
                entry.used = true;
                handles.push(Handle(place));
            }
            if filled < BLOCK {
                break;
            }
        }
        let result = missing.chunks(BATCH).try_for_each(|places| self.read(places));
        if result.is_err() {
            // An entry that was not read must not be taken for an absent key.
            missing.iter().for_each(|place| self.forget(*place));
        }
        result
    }

    #[inline]
    fn is(&self, place: u32, hash: KeyHash, key: &K) -> bool {
        let entry = self.slab.get(place);
        entry.hash == hash && entry.key == *key
    }

    /// Adds an entry without a value, and to `missing` if RocksDB may have its row.
    fn add_absent(&mut self, hash: KeyHash, key: &K, missing: &mut Vec<u32>) -> Result<u32> {
        let hosted = self.hosted_of(hash)?;
        let place = self.add(Entry::absent(key.clone(), hash));
        if !self.hosted[hosted].complete {
            missing.push(place);
        }
        Ok(place)
    }

    fn add(&mut self, entry: Entry<K, V>) -> u32 {
        let mixed = Mixed::of(entry.hash.0);
        self.value_bytes += u64::from(entry.size);
        let place = self.slab.insert(entry);
        self.index.insert(mixed, place);
        place
    }

    /// Takes an entry out of everything.
    pub(super) fn forget(&mut self, place: u32) {
        self.unorder(place);
        let entry = self.slab.remove(place);
        self.value_bytes -= u64::from(entry.size);
        self.index.remove(Mixed::of(entry.hash.0), place);
    }

    /// Reads the rows of entries that have just been added.
    fn read(&mut self, places: &[u32]) -> Result<()> {
        let mut wanted = Wanted { bytes: Vec::new(), keys: Vec::with_capacity(places.len()) };
        for place in places {
            let entry = self.slab.get(*place);
            let start = wanted.bytes.len();
            stored_key(entry.hash.partition(self.partitions), &entry.key, &mut wanted.bytes)?;
            wanted.keys.push((start, wanted.bytes.len(), *place));
        }
        let Wanted { bytes, mut keys } = wanted;
        keys.sort_unstable_by(|left, right| bytes[left.0..left.1].cmp(&bytes[right.0..right.1]));
        let backend = self.backend.clone();
        let family = backend.family(self.store);
        let rows =
            backend.db().batched_multi_get_cf(family, keys.iter().map(|(start, end, _)| &bytes[*start..*end]), true);
        for (row, (start, end, place)) in rows.into_iter().zip(&keys) {
            if let Some(row) = row.doing(format_args!("reading store {:?}", self.name))? {
                let (state, value) = split_row(&self.name, &row)?;
                self.fill(*place, encoded(&bytes[*start..*end]), state, value)?;
            }
        }
        Ok(())
    }

    /// Gives a clean entry its row.
    fn fill(&mut self, place: u32, key: &[u8], state: RowState, value: &[u8]) -> Result<()> {
        let entry = self.slab.get_mut(place);
        let size = u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX);
        self.value_bytes = self.value_bytes + u64::from(size) - u64::from(entry.size);
        entry.size = size;
        entry.row = state;
        if state.is_deleted() {
            self.graves.push(place);
        } else {
            entry.value = Some(decode_value(&self.name, value)?);
            entry.set_digest(digest_into(&mut self.scratch, key, value).0);
        }
        Ok(())
    }

    /// Finds the DELETED rows that the next checkpoint has to erase.
    pub(super) fn load_graves(&mut self) -> Result<()> {
        if !self.changelog {
            return Ok(());
        }
        for hosted in 0..self.hosted.len() {
            for (bytes, state) in self.backend.deleted(self.store, self.hosted[hosted].id)? {
                let place = self.add(Entry::absent(decode_key(&bytes)?, self.hash_of(&bytes)));
                self.fill(place, &bytes, state, &[])?;
            }
        }
        Ok(())
    }

    /// Loads all rows, partition by partition, until the budget is used.
    pub(super) fn preload(&mut self) -> Result<()> {
        let backend = self.backend.clone();
        for hosted in 0..self.hosted.len() {
            if self.hosted[hosted].complete {
                continue;
            }
            let mut cursor = backend.cursor(self.store, self.hosted[hosted].id, &KeyRange::all())?;
            while let Some(row) = cursor.row()?.filter(|_| self.bytes() < self.budget_bytes) {
                let place = self.add(Entry::absent(decode_key(row.key)?, self.hash_of(row.key)));
                self.fill(place, row.key, row.state, row.value)?;
                self.order(place);
                cursor.advance()?;
            }
            self.hosted[hosted].complete = cursor.key().is_none();
        }
        Ok(())
    }
}
