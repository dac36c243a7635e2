//! IKE: messages, version 1 exchanges, the engine.
//!
//! The engine is pure: datagrams, kernel events, job results, operator commands and time come in by `handle_*`; work leaves by `poll_*`.
//! The caller drains every `poll_*` before the next input.

mod api;
pub mod message;
mod policy;
pub use api::*;
pub use policy::*;
