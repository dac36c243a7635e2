//! The kernel's IPsec (XFRM): SAs, policies, events.
//!
//! Facts this rests on, each found by experiment (6.1 and 6.12):
//! - Replay windows are always in the bitmap form (`XFRMA_REPLAY_ESN_VAL`), with and without the ESN flag, the same on both directions
//!   and without `XFRMA_SA_DIR`: one code path for all kernels. The other attribute kind would be answered "ok" and do nothing.
//! - The kernel lets replay numbers go backwards; [`XfrmAdapter`] does not.
//! - An inbound number set without an all-ones bitmap would let older packets inside the window in again.
//! - `XFRMA_ETIMER_THRESH` is written in jiffies and read in 100 ms.
//! - The kernel takes CBC without integrity and weak keys; [`codec::check`] does not.

mod adapter;
mod algs;
pub mod codec;
mod events;
mod moves;
pub mod policy;
pub mod view;
mod weak;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transform_tests;

pub use adapter::XfrmAdapter;
pub use events::XfrmEvents;
