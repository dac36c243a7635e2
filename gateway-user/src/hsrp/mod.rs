//! Hot Standby Router Protocol, version 1 (RFC 2281).

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

/// Virtual MAC address of a version 1 group: 00:00:0c:07:ac:GG.
pub const fn virtual_mac(group: u8) -> [u8; 6] {
    [0x00, 0x00, 0x0c, 0x07, 0xac, group]
}
