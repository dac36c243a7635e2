//! Hot Standby Router Protocol, version 1 (RFC 2281).
//!
//! [`packet`] is the wire, [`fsm`] the table of the RFC as a pure function, [`group`] one group with its timers: inputs are
//! method calls with the time, work leaves by `poll_transmit`, `poll_event` and `poll_timeout`. Drain all after every input.
//!
//! # Differences to RFC 2281
//! - **A group never becomes active by itself.** Where the RFC's table goes to Active, the group emits [`Event::Proposal`], at
//!   once and then once per hello interval while the reason lasts, and stays where it is until [`Group::grant_active`]. In
//!   the same way an active group that hears a better active router emits [`Event::ActiveHeard`] and stays until [`Group::yield_active`]: who is
//!   active is decided for all groups of a node together, outside of this module.
//! - **The address does not preempt.** Only a strictly higher configured priority does. The address stays the tie-break of
//!   elections: between two speakers, two standby routers, two active routers.
//! - **Configured timers always win.** The packet carries whole seconds, ours may be milliseconds (sent rounded up); nothing is
//!   learned from others, neither timers nor the virtual address, so that the state Learn is never entered.
//! - An active router heard during the start delay is remembered already in Initial: it costs nothing and tells a restarted
//!   node that it was replaced.
//! - Against an active router that loses, the group sends a Hello instead of a Coup: it says the same and moves the
//!   virtual MAC back at once. A Coup goes out only when a grant preempts a living active router.
//! - The Resign is sent after the state was left, from the interface's own MAC: the virtual MAC may already be the successor's.

pub mod fsm;
pub mod group;
mod output;
pub mod packet;

#[cfg(test)]
mod fsm_tests;
#[cfg(test)]
mod group_fuzz_tests;
#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod sim_tests;

pub use group::Group;
pub use output::{Event, Refused, Transmit};
pub use packet::Opcode;

use serde::Serialize;
use std::net::Ipv4Addr;
use std::time::Duration;

/// State of a group on this node (RFC 2281 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize)]
pub enum State {
    /// Not running: interface down or not configured.
    Initial,
    /// Virtual address not yet known.
    Learn,
    /// Listening for hellos.
    Listen,
    /// Takes part in the election.
    Speak,
    /// Next in line.
    Standby,
    /// Owns the virtual address.
    Active,
}

impl State {
    /// Name as the operator reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initial => "Init",
            Self::Learn => "Learn",
            Self::Listen => "Listen",
            Self::Speak => "Speak",
            Self::Standby => "Standby",
            Self::Active => "Active",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Configuration of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// Group number, 0 to 255.
    pub group: u8,
    /// Name (`standby G name NAME`).
    pub name: String,
    /// Virtual IP address.
    pub vip: Ipv4Addr,
    /// Our address on the interface.
    pub address: Ipv4Addr,
    /// Priority, default 100.
    pub priority: u8,
    /// Time between hellos.
    pub hello: Duration,
    /// Time without hellos after which a router is held for dead.
    pub hold: Duration,
    /// Take over from an active router of lower configured priority.
    pub preempt: bool,
    /// Authentication data, 8 bytes (default `cisco`).
    pub authentication: [u8; 8],
    /// Wait after the interface came up.
    pub delay_minimum: Duration,
    /// Wait after the daemon started.
    pub delay_reload: Duration,
}

/// Where every packet goes: all routers of the LAN (RFC 2281 5).
pub const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// UDP port, source and destination.
pub const PORT: u16 = 1985;
/// IP TTL of every packet.
pub const TTL: u8 = 1;

/// Virtual MAC address of a version 1 group: 00:00:0c:07:ac:GG.
pub const fn virtual_mac(group: u8) -> [u8; 6] {
    [0x00, 0x00, 0x0c, 0x07, 0xac, group]
}
