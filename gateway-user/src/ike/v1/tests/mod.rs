//! Engines against each other in virtual time, over a network that loses, repeats and reorders.

mod aggressive;
mod attack;
mod basic;
mod cve;
mod dpd;
mod failover;
mod fragments;
mod nat;
mod net;
mod peers;
mod rekey;
mod signature;
