//! Allocation of inbound SPIs.
//!
//! ```text
//!  31  30        20 19                 0
//! +---+------------+--------------------+
//! |node| generation |  SA table index    |
//! +---+------------+--------------------+
//! ```
//! The data path finds an SA by its index alone; the generation makes an SPI that was used before miss. The node bit keeps the two nodes of a
//! pair from ever allocating the same one, also while they cannot hear each other.

use crate::id::Spi;
use crate::rng::Random;
use std::collections::HashMap;

/// Bits of an SPI that index the SA table.
pub const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
/// How often a random index is tried before the table is searched.
const TRIES_MAX: u32 = 16;

/// Which SA table slots are taken, by both nodes' SPIs.
#[derive(Debug)]
pub struct SpiTable {
    node_high: bool,
    slots: u32,
    used: HashMap<u32, Spi>,
}

impl SpiTable {
    /// A table for `slots` SAs (at most 2^20). `node_high`: this node has the higher address of the pair.
    pub fn new(node_high: bool, slots: u32) -> Self {
        Self { node_high, slots: slots.clamp(1, 1 << INDEX_BITS), used: HashMap::new() }
    }

    /// Table index of an SPI.
    pub fn index(spi: Spi) -> u32 {
        spi.0 & INDEX_MASK
    }

    /// Takes a free slot; `None` when the table is full.
    pub fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        if self.used.len() as u32 >= self.slots {
            return None;
        }
        let start = rng.u32() % self.slots;
        let index = (0..TRIES_MAX)
            .map(|_| rng.u32() % self.slots)
            .find(|i| !self.used.contains_key(i))
            .or_else(|| (0..self.slots).map(|i| (start + i) % self.slots).find(|i| !self.used.contains_key(i)))?;
        // 1..=2047: SPIs below 256 are reserved (RFC 4303 2.1), and so is everything with zero top bits here.
        let generation = 1 + rng.u32() % 2047;
        let spi = Spi(u32::from(self.node_high) << 31 | generation << INDEX_BITS | index);
        self.used.insert(index, spi);
        Some(spi)
    }

    /// Marks a mirrored or adopted SPI as used. False when its slot belongs to another SPI, or lies outside the table.
    pub fn reserve(&mut self, spi: Spi) -> bool {
        let index = Self::index(spi);
        index < self.slots && *self.used.entry(index).or_insert(spi) == spi
    }

    /// Gives a slot back; an SPI that does not hold its slot changes nothing.
    pub fn release(&mut self, spi: Spi) {
        let index = Self::index(spi);
        if self.used.get(&index) == Some(&spi) {
            self.used.remove(&index);
        }
    }

    /// Slots taken.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// True when nothing is allocated.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seeded;

    #[test]
    fn nodes_never_allocate_the_same_spi_and_slots_are_unique() {
        let (mut low, mut high) = (SpiTable::new(false, 64), SpiTable::new(true, 64));
        let mut rng = Seeded::new(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..64 {
            for t in [&mut low, &mut high] {
                let spi = t.allocate(&mut rng).unwrap();
                assert!(spi.0 >= 1 << INDEX_BITS && SpiTable::index(spi) < 64);
                assert!(seen.insert(spi));
            }
        }
        assert_eq!(low.allocate(&mut rng), None);
        let spi = *seen.iter().find(|s| s.0 >> 31 == 0).unwrap();
        low.release(spi);
        let again = low.allocate(&mut rng).unwrap();
        assert_eq!(SpiTable::index(again), SpiTable::index(spi));
    }

    #[test]
    fn a_mirrored_spi_cannot_steal_a_slot() {
        let mut t = SpiTable::new(false, 16);
        assert!(t.reserve(Spi(0x8010_0003)));
        assert!(t.reserve(Spi(0x8010_0003)));
        assert!(!t.reserve(Spi(0x0020_0003)));
        assert!(!t.reserve(Spi(0x8010_0010)));
        t.release(Spi(0x0020_0003));
        assert_eq!(t.len(), 1);
    }
}
