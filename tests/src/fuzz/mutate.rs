//! Mutations that need no coverage feedback: for the test command, where every run must be the same.

use crate::sim::dice::Dice;

/// Longest input a mutation makes, bytes.
const BYTES_MAX: usize = 4096;
/// Values that sit at the edges of lengths and counts.
const EDGES: [u8; 8] = [0, 1, 3, 4, 7, 0x7f, 0x80, 0xff];

fn below(dice: &mut Dice, n: u64) -> u64 {
    dice.range(0..=n - 1)
}

/// Changes `input` in one to eight places, or mixes it with `other`.
pub fn mutate(input: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=below(dice, 8) {
        let len = out.len();
        let at = if len == 0 { 0 } else { below(dice, len as u64) as usize };
        match below(dice, 9) {
            0 if len > 0 => out[at] ^= 1 << below(dice, 8),
            1 if len > 0 => out[at] = EDGES[below(dice, EDGES.len() as u64) as usize],
            2 if len > 0 => out[at] = below(dice, 256) as u8,
            3 => out.truncate(at),
            4 => out.insert(at, below(dice, 256) as u8),
            5 if len > 0 => {
                let n = (below(dice, 16) as usize + 1).min(len - at);
                out.drain(at..at + n);
            }
            6 if len > 0 => {
                let n = (below(dice, 32) as usize + 1).min(len - at);
                let part = out[at..at + n].to_vec();
                let to = below(dice, len as u64) as usize;
                out.splice(to..to, part);
            }
            7 if !other.is_empty() => {
                let from = below(dice, other.len() as u64) as usize;
                out.truncate(at);
                out.extend(&other[from..]);
            }
            // Two bytes in network order: most lengths are such.
            8 if at + 1 < len => {
                let value = (below(dice, 66) as u16).wrapping_sub(2);
                out[at..at + 2].copy_from_slice(&value.to_be_bytes());
            }
            _ => {}
        }
    }
    out.truncate(BYTES_MAX);
    out
}
