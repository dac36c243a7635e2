//! IKE: messages, version 1 exchanges, the engine.
//!
//! The engine is pure: datagrams, kernel events, job results, operator commands and time come in by `handle_*`; work leaves by `poll_*`.
//! The caller drains every `poll_*` before the next input: commands first, then events, then transmits.

mod api;
mod engine;
mod job;
pub mod keymat;
pub mod message;
mod mirror;
mod policy;
pub mod proposal;
mod timer;
mod v1;

pub use api::*;
pub use engine::{Engine, SpiSource};
pub use job::{Job, JobDone};
pub use policy::*;

#[cfg(test)]
mod tests;
