//! Module daemon.

pub mod render;
pub mod views;
