//! The gateway's library: pure protocol cores below, adapters and the daemon above.
//!
//! Layers, an arrow points down only (`cargo xtask tidy` checks it):
//! `daemon`, `cli` → `net`, `netlink`, `dataplane` → `config` → `ha` → `ike`, `ssp`, `hsrp`, `sad` → `crypto`, `wire` → `id`, `rng`.
//! Everything from `ha` down is pure: no sockets, no clock, no thread RNG.

pub mod cli;
pub mod config;
pub mod crypto;
pub mod daemon;
pub mod dataplane;
pub mod ha;
pub mod hsrp;
pub mod id;
pub mod ike;
pub mod net;
pub mod netlink;
pub mod pki;
pub mod ports;
pub mod rng;
pub mod sad;
pub mod ssp;
pub mod wire;
