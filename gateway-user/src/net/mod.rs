//! Adapters to the network and to the machine: sockets, listeners, randomness. Nothing here decides anything.

pub mod control;
pub mod hsrp;
pub mod http;
pub mod ike;
pub mod rng;
pub mod ssp;

mod sockopt;
#[cfg(test)]
mod testing;
