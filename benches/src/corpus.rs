//! The words that are counted: made once, before anything is measured, and read alike by the engine and by the program that it
//! is compared with.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What the words are.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct CorpusSpec {
    /// How many.
    pub(crate) words: u32,
    /// How many different ones they are drawn from.
    pub(crate) distinct: u32,
    /// The exponent of Zipf's law.
    pub(crate) skew: f64,
}

/// The words in one piece of memory, each followed by its length as u32 little endian (so that the content hash of a share is
/// one pass over its bytes).
pub(crate) struct Corpus {
    bytes: Vec<u8>,
    /// Where each word begins, and the end.
    starts: Vec<u32>,
}

const LENGTH_BYTES: usize = 4;

impl Corpus {
    pub(crate) fn new(spec: CorpusSpec) -> Self {
        let names: Vec<String> = (0..spec.distinct).map(name).collect();
        let law = Zipf::new(spec.distinct, spec.skew);
        let mut random = Random(7);
        let (mut bytes, mut starts) = (Vec::new(), Vec::with_capacity(spec.words as usize + 1));
        for _ in 0..spec.words {
            let word = &names[law.sample(&mut random) as usize];
            starts.push(bytes.len() as u32);
            bytes.extend_from_slice(word.as_bytes());
            bytes.extend_from_slice(&(word.len() as u32).to_le_bytes());
        }
        starts.push(u32::try_from(bytes.len()).expect("a corpus is below 4 GiB"));
        Self { bytes, starts }
    }

    pub(crate) fn len(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// The words of one of several readers.
    pub(crate) fn part(&self, index: u64, of: u64) -> Range<u64> {
        self.len() * index / of..self.len() * (index + 1) / of
    }

    #[inline]
    pub(crate) fn word(&self, index: u64) -> String {
        let (start, end) = (self.starts[index as usize], self.starts[index as usize + 1]);
        let bytes = &self.bytes[start as usize..end as usize - LENGTH_BYTES];
        std::str::from_utf8(bytes).expect("words are ASCII").to_owned()
    }

    /// The bytes of a range of words, lengths included.
    pub(crate) fn raw(&self, range: Range<u64>) -> &[u8] {
        &self.bytes[self.starts[range.start as usize] as usize..self.starts[range.end as usize] as usize]
    }
}

/// Four to eight letters; the frequent words are the short ones.
pub(crate) fn name(rank: u32) -> String {
    let letter = |n: u64| char::from(b'a' + (n % 26) as u8);
    let mixed = mix(u64::from(rank));
    let mut word: String = [mixed, mixed >> 16, mixed >> 32].map(letter).into_iter().collect();
    let mut rest = u64::from(rank) + 1;
    while rest > 0 {
        rest -= 1;
        word.push(letter(rest));
        rest /= 26;
    }
    word
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Samples ranks with Walker's alias method: two table look-ups, so that making the words is quick.
struct Zipf {
    /// Of each cell: up to where (of 2^32) it is its own, and what it is beyond.
    cells: Vec<(u32, u32)>,
}

impl Zipf {
    fn new(distinct: u32, skew: f64) -> Self {
        let weights: Vec<f64> = (1..=distinct).map(|rank| f64::from(rank).powf(-skew)).collect();
        let mean = weights.iter().sum::<f64>() / f64::from(distinct);
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let (mut large, mut small): (Vec<u32>, Vec<u32>) =
            (0..distinct).partition(|&cell| shares[cell as usize] >= 1.0);
        let mut cells: Vec<(u32, u32)> = (0..distinct).map(|cell| (u32::MAX, cell)).collect();
        while let (Some(&donor), Some(cell)) = (large.last(), small.pop()) {
            let share = shares[cell as usize];
            cells[cell as usize] = ((share * 4_294_967_295.0) as u32, donor);
            shares[donor as usize] -= 1.0 - share;
            if shares[donor as usize] < 1.0 {
                large.pop();
                small.push(donor);
            }
        }
        Self { cells }
    }

    fn sample(&self, random: &mut Random) -> u32 {
        let draw = random.next();
        let cell = ((draw >> 32) * self.cells.len() as u64) >> 32;
        let (own, alias) = self.cells[cell as usize];
        if (random.next() as u32) <= own { cell as u32 } else { alias }
    }
}
