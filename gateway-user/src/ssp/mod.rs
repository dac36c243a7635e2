//! State Synchronization Protocol: mirrors state to the standby over TCP 3249.

mod message;
pub use message::*;
