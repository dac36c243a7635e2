//! Randomness for work on another thread.

use super::{HashAlg, Secret};
use crate::rng::Random;

/// Stretches a secret seed into as many random bytes as are asked for: HMAC-SHA-256 of a counter. For work that leaves the thread of
/// the generator that the seed is from.
pub struct Stretched {
    seed: Secret,
    block: u64,
}

impl Stretched {
    /// A generator whose whole output follows from `seed`; it is as strong as the seed, 32 bytes for full strength.
    pub fn new(seed: Secret) -> Self {
        Self { seed, block: 0 }
    }
}

impl Random for Stretched {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(HashAlg::Sha256.len()) {
            let block = Secret::new(HashAlg::Sha256.hmac(self.seed.expose(), &[&self.block.to_be_bytes()]));
            self.block += 1;
            chunk.copy_from_slice(&block.expose()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretched_bytes_follow_from_the_seed_and_do_not_repeat() {
        let run = |seed: u8| {
            let mut rng = Stretched::new(Secret::new(vec![seed; 32]));
            let mut out = [[0; 40]; 4];
            out.iter_mut().for_each(|o| rng.fill(o));
            out
        };
        assert_eq!(run(1), run(1));
        let blocks: Vec<[u8; 8]> = [run(1), run(2)].as_flattened().as_flattened().chunks(8).map(|c| c.try_into().unwrap()).collect();
        let distinct: std::collections::HashSet<_> = blocks.iter().collect();
        assert_eq!(distinct.len(), blocks.len());
    }
}
