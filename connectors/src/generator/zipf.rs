//! Keys by Zipf's law.

use std::sync::Arc;

use crate::random::Random;

/// Up to so many keys the law is a table of 8 bytes per key, which costs one look into memory per sample; beyond it is computed.
pub(super) const TABLE_KEYS: u64 = 1 << 20;

/// Samples `0..keys`, `k` as often as `1 / (k + 1)^skew`.
#[derive(Clone, Debug)]
pub(super) enum Zipf {
    Uniform { keys: u64 },
    Alias { table: Arc<[Slot]> },
    Inversion(Inversion),
}

/// A slot of an alias table (Walker 1977, Vose 1991): its own key below the threshold, else another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    threshold: u32,
    alias: u32,
}

impl Zipf {
    /// Beyond that nearly every record has the first key, and the weights of the others are no numbers any more.
    pub(super) const MAX_SKEW: f64 = 10.0;

    pub(super) fn new(keys: u64, skew: f64) -> Self {
        if skew == 0.0 {
            Zipf::Uniform { keys }
        } else if keys <= TABLE_KEYS {
            Zipf::Alias { table: alias_table(keys, skew) }
        } else {
            Zipf::Inversion(Inversion::new(keys, skew))
        }
    }

    #[inline]
    pub(super) fn sample(&self, random: &mut Random) -> u64 {
        match self {
            Zipf::Uniform { keys } => random.below(*keys),
            Zipf::Alias { table } => {
                let draw = random.next();
                // The high half chooses the slot, the low half one of its two keys.
                let index = ((draw >> 32) * table.len() as u64) >> 32;
                let slot = table[index as usize];
                if (draw as u32) < slot.threshold { index } else { u64::from(slot.alias) }
            }
            Zipf::Inversion(inversion) => inversion.sample(random),
        }
    }
}

fn alias_table(keys: u64, skew: f64) -> Arc<[Slot]> {
    let weights: Vec<f64> = (1..=keys).map(|rank| (rank as f64).powf(-skew)).collect();
    let scale = keys as f64 / weights.iter().sum::<f64>();
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
    let mut table: Vec<Slot> = (0..keys).map(|key| Slot { threshold: u32::MAX, alias: key as u32 }).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|key| shares[*key] < 1.0);
    while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
        table[poor] = Slot { threshold: (shares[poor] * 4_294_967_296.0) as u32, alias: rich as u32 };
        shares[rich] -= 1.0 - shares[poor];
        if shares[rich] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    table.into()
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
