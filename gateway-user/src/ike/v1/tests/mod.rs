//! Engines against each other in virtual time, over a network that loses, repeats and reorders.

mod aggressive;
mod attack;
mod basic;
mod dpd;
mod failover;
mod fragments;
mod nat;
mod net;
mod rekey;
mod signature;
