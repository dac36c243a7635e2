//! IKEv1 exchanges (RFC 2409): main mode, aggressive mode, quick mode, Informational, DPD, NAT traversal. Each file adds its part to the engine.

mod aggressive;
mod child;
mod crypt;
mod dpd;
mod engine;
mod fragments;
mod informational;
mod isakmp;
pub mod keymat;
mod main_mode;
mod main_proof;
pub mod message;
mod mirror;
mod nat;
mod phase1;
pub mod proposal;
mod quick_body;
mod quick_mode;
mod quick_responder;
mod sa;
mod signature;
mod state;
#[cfg(test)]
mod tests;
mod timer;

pub(super) use child::Child;
pub use engine::Engine;
pub(super) use sa::{FlowKey, Handle, MainState, Pair, PairKey, Quick, Sa, Stage, Tell, Up, Want};
pub(super) use state::decode;
