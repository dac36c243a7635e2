//! IKEv2 (RFC 7296). Each file adds its part to the engine.

mod auth;
mod auth_responder;
mod child;
mod child_exchange;
mod child_responder;
mod cookie;
mod detail;
mod engine;
mod exchange;
pub mod fragment;
mod ike;
mod informational;
mod init;
mod init_responder;
mod intermediate;
pub mod keymat;
pub mod message;
mod mirror;
mod nat;
mod peer;
mod ppk;
mod proof;
pub mod proposal;
mod rekey;
mod sa;
pub mod selectors;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod timer;
#[cfg(test)]
mod vectors;

pub use engine::{Engine, Fallback};

/// True when the body of a record is of this version: its first byte is 0x80 or above, version 1 stays below.
pub(super) fn is_record(body: &[u8]) -> bool {
    body.first().is_some_and(|v| *v >= 0x80)
}
