//! All chance of a world comes from one seed.

use gateway_user::rng::{Random, Seeded};
use std::ops::RangeInclusive;

/// A seeded source of decisions.
pub struct Dice(Seeded);

impl Dice {
    /// Decisions that follow from `seed` and `purpose`, independent of other purposes.
    pub fn new(seed: u64, purpose: u64) -> Self {
        // Two steps apart in the generator's own constant would give the same stream shifted.
        Self(Seeded::new(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose.wrapping_mul(0xaf25_1af3_b0f0_25b5)))
    }

    /// A number in the range.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (lo, hi) = range.into_inner();
        lo + self.0.u64() % (hi - lo + 1)
    }

    /// True in `per_10k` of ten thousand cases.
    pub fn chance(&mut self, per_10k: u32) -> bool {
        per_10k > 0 && self.0.u32() % 10_000 < per_10k
    }

    /// One of the items.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.range(0..=items.len() as u64 - 1) as usize]
    }

    /// A generator for somebody else.
    pub fn child(&mut self) -> Box<dyn Random> {
        Box::new(Seeded::new(self.0.u64()))
    }
}
