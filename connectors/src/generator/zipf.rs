//! Keys by Zipf's law.

use crate::random::Random;

/// Samples `0..keys`, `k` as often as `1 / (k + 1)^skew`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zipf {
    Uniform { keys: u64 },
    Skewed(Inversion),
}

impl Zipf {
    /// Beyond that nearly every record has the first key, and the weights of the others are no numbers any more.
    pub(super) const MAX_SKEW: f64 = 10.0;

    pub(super) fn new(keys: u64, skew: f64) -> Self {
        if skew == 0.0 { Zipf::Uniform { keys } } else { Zipf::Skewed(Inversion::new(keys, skew)) }
    }

    #[inline]
    pub(super) fn sample(&self, random: &mut Random) -> u64 {
        match self {
            Zipf::Uniform { keys } => random.below(*keys),
            Zipf::Skewed(inversion) => inversion.sample(random),
        }
    }
}

/// Rejection-inversion (Hörmann and Derflinger 1996): inverts the integral of the density, and rejects the few samples for which
/// the sum differs from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inversion {
    keys: u64,
    skew: f64,
    first: f64,
    last: f64,
    surely: f64,
}

impl Inversion {
    fn new(keys: u64, skew: f64) -> Self {
        let mut law = Self { keys, skew, first: 0.0, last: 0.0, surely: 0.0 };
        law.first = law.integral(1.5) - 1.0;
        law.last = law.integral(keys as f64 + 0.5);
        law.surely = 2.0 - law.inverse(law.integral(2.5) - law.density(2.0));
        law
    }

    fn sample(&self, random: &mut Random) -> u64 {
        // Each round succeeds with a probability above one half, so this ends.
        loop {
            let area = self.last + random.unit() * (self.first - self.last);
            let x = self.inverse(area);
            let rank = (x + 0.5).floor().clamp(1.0, self.keys as f64);
            if rank - x <= self.surely || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.skew * x.ln()).exp()
    }

    /// The integral of the density from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.skew) * log;
        log * if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }
    }

    fn inverse(&self, area: f64) -> f64 {
        let t = (area * (1.0 - self.skew)).max(-1.0);
        (area * if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }).exp()
    }
}
