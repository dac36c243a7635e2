//! IKE: both versions behind one engine.
//!
//! The engine is pure: datagrams, kernel events, job results, operator commands and time come in by `handle_*`; work leaves by `poll_*`.
//! The caller drains every `poll_*` before the next input: commands first, then events, then transmits.

mod api;
mod engine;
mod job;
mod policy;
mod timers;
pub mod v1;
pub mod v2;

pub use api::*;
pub use engine::Engine;
pub use job::{Job, JobDone};
pub use policy::*;
