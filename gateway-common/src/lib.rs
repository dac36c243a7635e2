//! Packet classifier, map layouts and names shared by the kernel half and the user half.
//!
//! - [`abi`]: version, map and program names, bounds.
//! - [`layout`]: what lies in the maps.
//! - [`classify`]: one bounds-checked parser, generic over where the packet lies.
//! - [`verdict`]: pure decisions from a parsed packet, the role and the table entries.
//! - [`reason`]: the named outcome of every packet.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod classify;
pub mod layout;
pub mod reason;
#[cfg(test)]
mod tests;
pub mod verdict;
