//! The netlink adapters against a real kernel with ESP: SAs, replay state, policies, events, virtual addresses.
//!
//! Needs root and a kernel with ESP (user-mode Linux will do) and is run there with `GATEWAY_LAB=1`, one thread. Elsewhere every test says
//! on stderr that it did not run. With the variable set, a kernel without ESP is a failure.
#![expect(clippy::unwrap_used, reason = "tests")]

mod lab;
mod links;
mod natt;
mod pair;
mod policies;
mod rate;
mod sas;
mod traffic;
mod transforms;
