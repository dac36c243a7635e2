//! IKEv1 exchanges (RFC 2409): main mode, quick mode, Informational, DPD. Each file adds its part to the engine.

mod child;
mod crypt;
mod dpd;
mod informational;
mod isakmp;
mod main_mode;
mod main_proof;
mod quick_body;
mod quick_mode;
mod quick_responder;
mod sa;
mod state;

pub(super) use child::Child;
pub(super) use sa::{FlowKey, Handle, MainState, Pair, PairKey, Quick, Sa, Stage, Up, Want};
pub(super) use state::decode;
