//! Entries in the order of their encoded keys, for scans.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::Key;

use super::Store;
use crate::entry::NEVER;

/// What a node of the map costs beside the bytes of the key, about.
const NODE_BYTES: u64 = 32;

/// Per hosted partition, the places of entries with a value that RocksDB may not hold.
pub(super) struct Ordered {
    maps: Vec<BTreeMap<Box<[u8]>, u32>>,
    bytes: u64,
    /// Not only changed entries: all that are in the overlay of a complete partition.
    all: bool,
}

impl Ordered {
    pub(super) fn of_all(partitions: usize) -> Self {
        Self { maps: vec![BTreeMap::new(); partitions], bytes: 0, all: true }
    }

    fn of_changed(partitions: usize) -> Self {
        Self { all: false, ..Self::of_all(partitions) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_of_all(&self) -> bool {
        self.all
    }

    pub(super) fn map(&self, hosted: usize) -> &BTreeMap<Box<[u8]>, u32> {
        &self.maps[hosted]
    }
}

impl<K: Key, V: Serialize + DeserializeOwned + 'static> Store<K, V> {
    /// Makes the order agree with an entry that has changed.
    pub(super) fn order(&mut self, place: u32) {
        let entry = self.slab.get(place);
        if entry.value.is_some() != entry.ordered {
            self.reorder(place);
        }
    }

    /// Takes an entry out of the order.
    pub(super) fn unorder(&mut self, place: u32) {
        if self.slab.get(place).ordered {
            self.reorder(place);
        }
    }

    /// Puts an entry into the order, or takes it out.
    fn reorder(&mut self, place: u32) {
        let Some(ordered) = &mut self.ordered else { return };
        let entry = self.slab.get_mut(place);
        self.scratch.clear();
        // A key that has been hashed has been encoded, and its partition was looked at when it came.
        thalweg_core::encode_key(&entry.key, &mut self.scratch).expect("a key that has a hash can be encoded");
        let hosted = self.local[entry.hash.partition(self.partitions).0 as usize];
        let map = &mut ordered.maps[usize::from(hosted)];
        let bytes = self.scratch.len() as u64 + NODE_BYTES;
        if entry.ordered {
            map.remove(self.scratch.as_slice());
            ordered.bytes -= bytes;
        } else {
            map.insert(self.scratch.as_slice().into(), place);
            ordered.bytes += bytes;
        }
        entry.ordered = !entry.ordered;
    }

    /// At the first scan: puts all changed entries into an order, which is kept from then on.
    pub(super) fn ensure_ordered(&mut self) {
        if self.ordered.is_some() {
            return;
        }
        self.ordered = Some(Ordered::of_changed(self.hosted.len()));
        let mut places = self.changed.clone();
        if let Some(sealing) = &self.sealing {
            places.extend_from_slice(sealing.places());
        }
        for place in places {
            let Some(entry) = self.slab.slot(place) else { continue };
            let in_flight = entry.encoded_in != NEVER && entry.encoded_in == self.sealed_round;
            if entry.round != 0 || in_flight {
                self.order(place);
            }
        }
    }
}
