//! Ordered reads over the overlay and RocksDB.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map};
use std::iter::Peekable;

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::{Key, Result, decode_key};

use super::{Scope, Store};
use crate::KeyRange;
use crate::codec::decode_value;
use crate::cursor::Cursor;

/// One partition: the ordered entries of the overlay, and the rows of RocksDB that they do not replace.
struct Source<'a> {
    entries: Peekable<btree_map::Range<'a, Box<[u8]>, u32>>,
    rows: Option<Cursor<'a>>,
}

enum Side {
    Overlay,
    Rows,
}

impl Source<'_> {
    /// The next key and where it is.
    fn peek(&mut self) -> Option<(&[u8], Side)> {
        let entry = self.entries.peek().map(|(key, _)| &***key);
        let row = self.rows.as_ref().and_then(Cursor::key);
        match (entry, row) {
            (Some(entry), Some(row)) if row < entry => Some((row, Side::Rows)),
            (Some(entry), _) => Some((entry, Side::Overlay)),
            (None, Some(row)) => Some((row, Side::Rows)),
            (None, None) => None,
        }
    }
}

impl<K: Key, V: Serialize + DeserializeOwned + 'static> Store<K, V> {
    /// Gives the newest entries in a range to `visit` as (encoded key, key, value), in the order of their keys, at most
    /// `limit`. Returns whether there are more.
    ///
    /// The first scan of a store that is not [`super::StoreOptions::ordered`] puts its changed keys in order, and every newly
    /// changed key costs an insertion from then on.
    ///
    /// Errors: reading; whatever `visit` returns, which ends the scan.
    pub fn scan(
        &mut self,
        scope: Scope,
        range: &KeyRange,
        limit: usize,
        mut visit: impl FnMut(&[u8], &K, &V) -> Result<()>,
    ) -> Result<bool> {
        let hosted = match scope {
            Scope::All => 0..self.hosted.len(),
            Scope::One(partition) => {
                let place = self.place_of(partition)?;
                place..place + 1
            }
        };
        if range.is_empty() {
            return Ok(false);
        }
        self.ensure_ordered();
        let mut sources = Vec::with_capacity(hosted.len());
        let mut next = BinaryHeap::new();
        for place in hosted {
            let mut source = self.source(place, range)?;
            if let Some((key, _)) = source.peek() {
                next.push(Reverse((key.to_vec(), sources.len())));
            }
            sources.push(source);
        }
        let mut left = limit;
        while let Some(Reverse((mut key, index))) = next.pop() {
            let source = &mut sources[index];
            if self.has_entry(source, &key)? {
                if left == 0 {
                    return Ok(true);
                }
                left -= 1;
                self.visit_next(source, &key, &mut visit)?;
            }
            self.step(source, &key)?;
            if let Some((following, _)) = source.peek() {
                key.clear();
                key.extend_from_slice(following);
                next.push(Reverse((key, index)));
            }
        }
        Ok(false)
    }

    fn source<'a>(&'a self, hosted: usize, range: &KeyRange) -> Result<Source<'a>> {
        let ordered = self.ordered.as_ref().expect("an order was made first");
        let entries = ordered.map(hosted).range::<[u8], _>(range.bounds()).peekable();
        let Self { hosted: partitions, backend, store, .. } = self;
        let partition = &partitions[hosted];
        // All entries of a complete partition are in such an order: there is nothing else to read.
        let rows = if partition.complete && ordered.is_of_all() {
            None
        } else {
            Some(backend.cursor(*store, partition.id, range)?)
        };
        Ok(Source { entries, rows })
    }

    /// Whether the next key has a newest value: a row may be deleted in the overlay.
    fn has_entry(&self, source: &mut Source<'_>, key: &[u8]) -> Result<bool> {
        match source.peek() {
            Some((_, Side::Overlay)) => Ok(true),
            Some((_, Side::Rows)) => {
                let place = self.find(self.hash_of(key), &decode_key(key)?);
                Ok(place.is_none_or(|place| self.slab.get(place).value.is_some()))
            }
            None => Ok(false),
        }
    }

    fn visit_next(
        &self,
        source: &mut Source<'_>,
        key: &[u8],
        visit: &mut impl FnMut(&[u8], &K, &V) -> Result<()>,
    ) -> Result<()> {
        let found = match source.entries.peek() {
            Some((entry, place)) if ***entry == *key => Some(**place),
            _ => None,
        };
        if let Some(place) = found {
            let entry = self.slab.get(place);
            return visit(key, &entry.key, entry.value.as_ref().expect("only entries with a value are in order"));
        }
        // A row that is in the overlay, too, and not in the order is clean: the row is its value.
        let row = source.rows.as_ref().map(Cursor::row).transpose()?.flatten().expect("the key came from a row");
        visit(key, &decode_key(key)?, &decode_value(&self.name, row.value)?)
    }

    /// Past the key, on both sides.
    fn step(&self, source: &mut Source<'_>, key: &[u8]) -> Result<()> {
        if source.entries.peek().is_some_and(|(entry, _)| ***entry == *key) {
            source.entries.next();
        }
        if let Some(rows) = source.rows.as_mut().filter(|rows| rows.key() == Some(key)) {
            rows.advance()?;
        }
        Ok(())
    }
}
