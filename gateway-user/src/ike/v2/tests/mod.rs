//! Whole engines against each other over a network with a seed.

mod attack;
mod basic;
mod collide;
mod failover;
mod features;
pub(super) mod net;
mod rekey;
mod start;
