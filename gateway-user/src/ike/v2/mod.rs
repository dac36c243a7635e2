//! IKEv2 (RFC 7296). Each file adds its part to the engine.

mod engine;
pub mod fragment;
pub mod keymat;
pub mod message;
pub mod proposal;
pub mod selectors;
#[cfg(test)]
mod vectors;

pub use engine::{Engine, Fallback};

/// True when the body of a record is of this version: its first byte is 0x80 or above, version 1 stays below.
pub(super) fn is_record(body: &[u8]) -> bool {
    body.first().is_some_and(|v| *v >= 0x80)
}
