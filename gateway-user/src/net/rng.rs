//! Randomness of the operating system.

use crate::rng::Random;
use ring::rand::{SecureRandom, SystemRandom};

/// `getrandom(2)` through ring.
pub struct OsRandom(SystemRandom);

impl OsRandom {
    /// A source; costs nothing.
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for OsRandom {
    /// Ends the process when the kernel has no randomness: keys made without it would be worse than none, and what the kernel forwards
    /// goes on without us.
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            tracing::error!("getrandom failed: no keys can be made; the process ends, kernel SAs stay");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let mut rng = OsRandom::new();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        rng.fill(&mut a);
        rng.fill(&mut b);
        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
