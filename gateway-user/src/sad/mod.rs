//! Security association database: what the kernel should hold, on the active and, dormant, on the standby.

mod child;
pub use child::*;
