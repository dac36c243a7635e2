//! Security association database: what the kernel should hold, on the active and, dormant, on the standby.

mod child;
mod lease;
mod record;
mod spi;
pub use child::*;
pub use lease::*;
pub use record::*;
pub use spi::*;
