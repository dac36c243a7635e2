//! Whole engines against each other over a network with a seed.

mod attack;
mod basic;
mod collide;
mod failover;
pub(super) mod net;
mod rekey;
mod start;
