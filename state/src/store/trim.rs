//! Lets clean entries go.

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::Key;

use super::Store;
use crate::changelog::RowState;

impl<K: Key, V: Serialize + DeserializeOwned + 'static> Store<K, V> {
    /// Between epochs: while the overlay is over its budget, looks at no more than `max_entries` entries, and lets those go
    /// that are clean and were not used since the last look (second chance). Handles are void afterwards.
    ///
    /// An entry is clean if what RocksDB holds is its value. Returns how many went.
    pub fn trim(&mut self, max_entries: usize) -> usize {
        let mut gone = 0;
        for _ in 0..max_entries.min(2 * self.slab.places() as usize) {
            if !self.is_over_budget() {
                break;
            }
            if self.hand >= self.slab.places() {
                self.hand = 0;
            }
            let place = self.hand;
            self.hand += 1;
            let (round, sealed_round) = (0, self.sealed_round);
            let Some(entry) = self.slab.try_get_mut(place) else { continue };
            let clean = entry.round == round && entry.encoded_in != sealed_round && !entry.row.is_deleted();
            if !clean || std::mem::take(&mut entry.used) {
                continue;
            }
            let (hash, stored) = (entry.hash, matches!(entry.row, RowState::Live(_)));
            if stored && let Ok(hosted) = self.hosted_of(hash) {
                self.hosted[hosted].complete = false;
            }
            self.forget(place);
            gone += 1;
        }
        gone
    }

    /// By what is in use: the slab and the index keep the memory of entries that went, for those that come. A checkpoint on its
    /// way, or the lists that are kept for the next one, take their room from the entries, up to a half.
    fn is_over_budget(&self) -> bool {
        let entry = size_of::<Option<crate::entry::Entry<K, V>>>() + 16;
        let order = self.ordered.as_ref().map_or(0, super::Ordered::bytes);
        let sealing = self.sealing.as_ref().map_or(0, super::seal::Sealing::memory) + self.spare.memory();
        let sealing = sealing.min(self.budget_bytes / 2);
        (self.slab.len() * entry) as u64 + self.value_bytes + order + sealing > self.budget_bytes
    }
}
