//! What a group gives out: packets, events, refusals.

use super::{Opcode, State};
use crate::wire::DecodeError;
use std::net::Ipv4Addr;
use thiserror::Error;

/// A packet to send from UDP port 1985 to [`super::MULTICAST`] port 1985 with TTL 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// UDP payload.
    pub payload: Vec<u8>,
    /// Source MAC is the virtual MAC (the sender is active) instead of the interface's own.
    pub virtual_source: bool,
    /// What the packet says.
    pub opcode: Opcode,
    /// State that the packet carries.
    pub sent_state: State,
}

/// What the node must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The group changed its state; one line for the log.
    StateChanged {
        /// State before.
        from: State,
        /// State now.
        to: State,
        /// Why.
        cause: &'static str,
    },
    /// The group wants to become active; repeated once per hello time while the reason lasts. Answered by
    /// [`super::Group::grant_active`], or not.
    Proposal {
        /// Why: "active timer expired", "resign heard", "no active router", "preempt".
        cause: &'static str,
    },
    /// We are active and heard another active router (or its Coup) that wins by priority, then address. Answered by
    /// [`super::Group::yield_active`], or not.
    ActiveHeard {
        /// Address of the router.
        router: Ipv4Addr,
        /// Its priority.
        priority: u8,
    },
    /// We are active and heard another active router that loses; our hello was repeated at once.
    LoserHeard {
        /// Address of the router.
        router: Ipv4Addr,
    },
}

/// Why a packet was refused, one counter each ([`Refused::reason`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// Sent to another address than 224.0.0.2.
    #[error("HSRP packet to another address than 224.0.0.2")]
    BadDestination,
    /// TTL other than 1: it may come from another network.
    #[error("HSRP packet with TTL {0} instead of 1")]
    BadTtl(u8),
    /// The source is no unicast address, or is the virtual address itself.
    #[error("HSRP packet from {0}, which is no router's own address")]
    BadSource(Ipv4Addr),
    /// Our own packet came back, or somebody uses our address.
    #[error("HSRP packet from our own address")]
    OwnAddress,
    /// Not a packet of version 1.
    #[error("HSRP packet is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Of another group on the same LAN: no fault.
    #[error("HSRP packet of group {0}")]
    OtherGroup(u8),
    /// Another password.
    #[error("HSRP packet with other authentication data: compare `authentication` on both routers")]
    BadAuth,
    /// Our group number with another virtual address.
    #[error("HSRP packet of our group for the virtual address {0}: compare `ip` on both routers")]
    WrongVip(Ipv4Addr),
    /// The interface is down.
    #[error("HSRP packet while the group does not run")]
    NotRunning,
}

impl Refused {
    /// Label of the counter.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadDestination => "bad_destination",
            Self::BadTtl(_) => "bad_ttl",
            Self::BadSource(_) => "bad_source",
            Self::OwnAddress => "own_address",
            Self::Malformed(DecodeError::Truncated { .. }) => "truncated",
            Self::Malformed(DecodeError::Length { .. } | DecodeError::Trailing { .. }) => "bad_length",
            Self::Malformed(DecodeError::Value { .. }) => "bad_value",
            Self::OtherGroup(_) => "other_group",
            Self::BadAuth => "bad_auth",
            Self::WrongVip(_) => "wrong_vip",
            Self::NotRunning => "not_running",
        }
    }
}
