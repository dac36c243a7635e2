//! Helpers of the tests: simulated pair, packet builder, lab pieces.

pub mod fuzz;
pub mod lab;
pub mod sim;
