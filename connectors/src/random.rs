//! Numbers that look random and are a function of a seed and a counter.

/// A counter-based generator (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline]
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The generator for one of many things under the same seed.
    #[inline]
    pub(crate) fn at(seed: u64, counter: u64) -> Self {
        Self { state: mix(seed ^ counter.wrapping_mul(Self::STEP)) }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::STEP);
        mix(self.state)
    }

    /// Uniform in `0..limit`; 0 where the limit is 0. The bias is below limit / 2^64.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Uniform in `[0, 1)`, with 53 bits.
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A fresh seed, printed so that a failure can be repeated with `THALWEG_SEED`.
    #[cfg(test)]
    pub(crate) fn seed_for_tests() -> u64 {
        let given = std::env::var("THALWEG_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64)
        };
        let seed = given.unwrap_or_else(now);
        println!("repeat with THALWEG_SEED={seed}");
        seed
    }
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
