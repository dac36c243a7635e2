//! The daemon: one core that decides, adapters around it, an operator's socket, metrics.

pub mod clock;
pub mod core;
pub mod metrics;
mod priority;
pub mod render;
mod run;
pub mod views;

pub use run::run;
