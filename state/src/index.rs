//! From the hash of a key to the place of its entry.
//!
//! Open addressing with linear probing. A word holds 32 bits of the mixed hash and the place, so that a probe touches an
//! entry only where it is nearly surely the right one, and growing touches no entry at all. The table is cut into shards
//! that grow one by one: no single insertion pays for a large copy.

const SHARDS: usize = 64;
const FIRST: usize = 16;
const EMPTY: u64 = 0;

/// The hash of a key after mixing: the keys of one worker share their hash modulo the number of partitions.
#[derive(Clone, Copy)]
pub(crate) struct Mixed(u64);

impl Mixed {
    #[inline]
    pub(crate) fn of(hash: u64) -> Self {
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(mixed ^ mixed >> 32)
    }

    #[inline]
    fn shard(self) -> usize {
        (self.0 >> 58) as usize
    }

    #[inline]
    fn tag(self) -> u32 {
        self.0 as u32
    }
}

struct Shard {
    words: Vec<u64>,
    used: usize,
}

pub(crate) struct Index {
    shards: Vec<Shard>,
}

#[inline]
fn word(tag: u32, place: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(place + 1)
}

#[inline]
fn tag_of(word: u64) -> u32 {
    (word >> 32) as u32
}

#[inline]
fn place_of(word: u64) -> u32 {
    (word as u32) - 1
}

impl Index {
    pub(crate) fn new() -> Self {
        let shard = || Shard { words: vec![EMPTY; FIRST], used: 0 };
        Self { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Bytes of the table.
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.words.len() as u64 * 8).sum()
    }

    /// The first place whose tag fits; whether it is the right key is for the caller to see.
    #[inline]
    pub(crate) fn candidate(&self, mixed: Mixed) -> Option<u32> {
        self.find(mixed, |_| true)
    }

    /// The place of a key; `is` compares the key at a place.
    #[inline]
    pub(crate) fn find(&self, mixed: Mixed, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let words = &self.shards[mixed.shard()].words;
        let mask = words.len() - 1;
        let mut at = mixed.tag() as usize & mask;
        loop {
            let word = words[at];
            if word == EMPTY {
                return None;
            }
            if tag_of(word) == mixed.tag() && is(place_of(word)) {
                return Some(place_of(word));
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a place; the caller knows that its key is not there.
    pub(crate) fn insert(&mut self, mixed: Mixed, place: u32) {
        let shard = &mut self.shards[mixed.shard()];
        if (shard.used + 1) * 4 > shard.words.len() * 3 {
            shard.grow();
        }
        shard.used += 1;
        shard.put(word(mixed.tag(), place));
    }

    /// Removes a place.
    pub(crate) fn remove(&mut self, mixed: Mixed, place: u32) {
        let shard = &mut self.shards[mixed.shard()];
        let mask = shard.words.len() - 1;
        let mut hole = mixed.tag() as usize & mask;
        while shard.words[hole] != word(mixed.tag(), place) {
            assert!(shard.words[hole] != EMPTY, "every entry is in the index");
            hole = (hole + 1) & mask;
        }
        // Whatever probed past the hole moves into it, so that no marks of removed words are needed.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let word = shard.words[at];
            if word == EMPTY {
                break;
            }
            let home = tag_of(word) as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                shard.words[hole] = word;
                hole = at;
            }
        }
        shard.words[hole] = EMPTY;
        shard.used -= 1;
    }
}

impl Shard {
    fn put(&mut self, word: u64) {
        let mask = self.words.len() - 1;
        let mut at = tag_of(word) as usize & mask;
        while self.words[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.words[at] = word;
    }

    fn grow(&mut self) {
        let larger = vec![EMPTY; self.words.len() * 2];
        for word in std::mem::replace(&mut self.words, larger) {
            if word != EMPTY {
                self.put(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn it_agrees_with_a_map() {
        let mut index = Index::new();
        let mut model: HashMap<u64, u32> = HashMap::new();
        let mut random = 0x1234_5678_u64;
        for step in 0..200_000_u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Few hashes, all equal modulo 64, as those of a worker are.
            let hash = (random % 4_000) * 64;
            let mixed = Mixed::of(hash);
            match model.get(&hash).copied() {
                Some(place) => {
                    assert_eq!(index.find(mixed, |found| found == place), Some(place), "step {step}");
                    if random >> 40 & 1 == 0 {
                        index.remove(mixed, place);
                        model.remove(&hash);
                    }
                }
                None => {
                    assert_eq!(index.candidate(mixed), None, "step {step}");
                    index.insert(mixed, step);
                    model.insert(hash, step);
                }
            }
        }
        assert_eq!(index.shards.iter().map(|shard| shard.used).sum::<usize>(), model.len());
    }
}
