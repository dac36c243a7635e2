//! Pure decisions. Table look-ups come in as closures, so that a program only pays for those that a packet needs.

use crate::abi::MAX_LOCALS;
use crate::classify::{Kind, PROTO_AH, PROTO_ESP, PROTO_UDP, Parsed};
use crate::layout::{Device, InboundSa, Local, OutboundSa, Protected, ROLE_ACTIVE, ROLE_ARMED, ROLE_DRAINING, RoleWord, SA_ESN, SA_VALID};
use crate::reason::{Classify, Guard, Shunt};

/// First five bytes of an HSRP version 1 virtual MAC (RFC 2281 5.3); the last byte is the group.
pub const VIRTUAL_MAC: u64 = 0x00_000c_07ac;

/// HSRP state byte of an active router.
const HSRP_ACTIVE: u8 = 16;
/// HSRP op code of a router that gives up.
const HSRP_RESIGN: u8 = 2;
/// How far down from its floor an SA with extended numbers refuses. The low half alone does not tell a number that is long past from one
/// that is far ahead. A floor closes what the partner verified before it handed over and this kernel's window may still have open, which
/// is far less than this; the distance to the floor grows with the traffic, and long before it comes round user space raises the floor.
pub const ESN_BELOW: u32 = 1 << 24;
/// SPIs below are reserved (RFC 4303 2.1).
const FIRST_SPI: u32 = 256;

/// What this node may do at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RoleNow {
    /// Standby, unknown, or an active whose lease has run out.
    Quiet,
    /// Forwards what reaches it.
    Armed,
    /// Owns the virtual addresses.
    Active,
    /// Lets out what is inside.
    Draining,
}

impl RoleNow {
    /// True when inbound IPsec is for this node's kernel.
    #[inline(always)]
    pub const fn takes(self) -> bool {
        matches!(self, Self::Armed | Self::Active)
    }
}

/// Role at this moment; `now_ns` is only asked for when a lease must be compared.
#[inline(always)]
pub fn role_now(word: &RoleWord, now_ns: impl FnOnce() -> u64) -> RoleNow {
    match word.role {
        ROLE_ACTIVE if word.lease_until_ns == u64::MAX || now_ns() <= word.lease_until_ns => RoleNow::Active,
        ROLE_ARMED => RoleNow::Armed,
        ROLE_DRAINING => RoleNow::Draining,
        _ => RoleNow::Quiet,
    }
}

/// True when `mac` is the virtual MAC of `group`.
#[inline(always)]
pub const fn is_virtual_mac(mac: u64, group: u32) -> bool {
    mac == VIRTUAL_MAC << 8 | group as u64
}

/// True when `mac` is the virtual MAC of one of the groups on the device.
#[inline(always)]
pub const fn virtual_mac_on(device: &Device, mac: u64) -> bool {
    if mac >> 8 != VIRTUAL_MAC {
        return false;
    }
    // Constant indices: a variable one would be a pointer the verifier must bound.
    let word = match mac >> 6 & 3 {
        0 => device.groups[0],
        1 => device.groups[1],
        2 => device.groups[2],
        _ => device.groups[3],
    };
    word >> (mac & 63) & 1 == 1
}

/// Answer of the inbound table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Inbound {
    /// No such SPI.
    Unknown,
    /// At or below the floor.
    Below,
    /// Good.
    Known,
}

/// Compares a packet with the entry at its SPI's index.
#[inline(always)]
pub const fn inbound(entry: &InboundSa, spi: u32, seq: u32) -> Inbound {
    if entry.state & SA_VALID == 0 || entry.spi != spi {
        return Inbound::Unknown;
    }
    let below = if entry.state & SA_ESN == 0 {
        seq as u64 <= entry.floor
    } else {
        let down = (entry.floor as u32).wrapping_sub(seq);
        entry.floor != 0 && down < ESN_BELOW && down as u64 <= entry.floor
    };
    if below { Inbound::Below } else { Inbound::Known }
}

/// The number of an inbound packet, for the hints: with extended numbers the one nearest to what was seen.
#[inline(always)]
pub const fn inbound_number(entry: &InboundSa, seq: u32) -> u64 {
    if entry.state & SA_ESN == 0 {
        return seq as u64;
    }
    let near = if entry.seen > entry.floor { entry.seen } else { entry.floor };
    near.wrapping_add(seq.wrapping_sub(near as u32) as i32 as i64 as u64)
}

/// Verdict of `classify`. `to_vip`: the destination is a virtual address; `lookup` is asked for ESP and AH only.
#[inline(always)]
pub fn classify(p: &Parsed, role: RoleNow, to_vip: bool, lookup: impl FnOnce(u32, u32) -> Inbound) -> Classify {
    match p.kind {
        Kind::NotIp | Kind::Arp => return Classify::NotIp,
        Kind::Ipv6 => return Classify::Ipv6,
        Kind::HeaderTruncated => return Classify::HeaderTruncated,
        Kind::Truncated
        | Kind::BadLength
        | Kind::LaterFragment
        | Kind::Esp
        | Kind::Ah
        | Kind::Ike
        | Kind::NattIke
        | Kind::NattEsp
        | Kind::Keepalive
        | Kind::Hsrp
        | Kind::Other => {}
    }
    if !to_vip {
        return Classify::NotForVip;
    }
    match p.kind {
        Kind::Truncated => return Classify::Truncated,
        Kind::BadLength => return Classify::BadLength,
        _ if !p.ipsec() => return Classify::Other,
        _ if !role.takes() => return Classify::Stray,
        Kind::Ike => return Classify::Ike,
        Kind::NattIke => return Classify::IkeNatt,
        Kind::Keepalive => return Classify::Keepalive,
        Kind::LaterFragment => return Classify::Fragment,
        _ => {}
    }
    if p.spi < FIRST_SPI {
        return Classify::ReservedSpi;
    }
    match lookup(p.spi, p.seq) {
        Inbound::Unknown => Classify::UnknownSpi,
        Inbound::Below => Classify::BelowFloor,
        Inbound::Known if matches!(p.kind, Kind::NattEsp) => Classify::KnownNatt,
        Inbound::Known => Classify::Known,
    }
}

/// What `shunt` knows of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShuntFacts {
    /// Destination MAC is a virtual MAC of this device.
    pub to_virtual_mac: bool,
    /// Source MAC is the partner's.
    pub from_partner: bool,
    /// The partner's MAC is known.
    pub partner_known: bool,
    /// Destination address is a virtual address.
    pub to_vip: bool,
}

/// Verdict of `shunt`.
#[inline(always)]
pub fn shunt(p: &Parsed, role: RoleNow, facts: ShuntFacts) -> Shunt {
    if role.takes() {
        return Shunt::Pass;
    }
    if facts.to_virtual_mac {
        return if facts.from_partner {
            Shunt::Loop
        } else if facts.partner_known {
            Shunt::Redirected
        } else {
            Shunt::NoPartner
        };
    }
    if facts.to_vip && p.ipsec() {
        return Shunt::NotVirtualMac;
    }
    if p.to_group() {
        return Shunt::Group;
    }
    Shunt::Pass
}

/// Answer of the lease table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Lease {
    /// No entry.
    None,
    /// Outside the range.
    Outside,
    /// Inside.
    Inside,
}

/// Compares a packet with its lease.
#[inline(always)]
pub const fn lease(entry: &OutboundSa, spi: u32, seq: u32) -> Lease {
    if entry.state & SA_VALID == 0 || entry.spi != spi {
        return Lease::None;
    }
    // With extended numbers: whether some number with this low half lies in the range, which user space keeps shorter than 2^32.
    let number = outbound_number(entry, seq);
    if number <= entry.lo || number > entry.hi {
        return Lease::Outside;
    }
    Lease::Inside
}

/// The number of an outbound packet: with extended numbers the first above the range's lower end that has this low half.
#[inline(always)]
pub const fn outbound_number(entry: &OutboundSa, seq: u32) -> u64 {
    if entry.state & SA_ESN == 0 {
        return seq as u64;
    }
    let up = seq.wrapping_sub(entry.lo as u32).wrapping_sub(1) as u64 + 1;
    entry.lo.saturating_add(up)
}

/// What `guard` knows of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuardFacts {
    /// Source MAC is a virtual MAC of this device.
    pub from_virtual_mac: bool,
    /// Source address (ARP: sender) is a virtual address.
    pub from_vip: bool,
    /// ARP sender's MAC is that address's virtual MAC.
    pub arp_mac_matches: bool,
    /// Outside device: clear text is looked for.
    pub outside: bool,
}

/// Verdict of `guard`. `lookup` is asked for ESP and AH of virtual addresses, `protected` for what could be clear text.
#[inline(always)]
pub fn guard(
    p: &Parsed,
    role: RoleNow,
    facts: GuardFacts,
    lookup: impl FnOnce(u32, u32) -> Lease,
    protected: impl FnOnce() -> bool,
) -> Guard {
    let active = matches!(role, RoleNow::Active);
    if facts.from_vip {
        match p.kind {
            Kind::Arp if !active => return Guard::ArpRole,
            Kind::Arp if facts.arp_mac_matches => return Guard::Arp,
            Kind::Arp => return Guard::ArpForeignMac,
            Kind::Esp | Kind::Ah | Kind::NattEsp => {
                if matches!(role, RoleNow::Quiet) {
                    return Guard::EspRole;
                }
                return match lookup(p.spi, p.seq) {
                    Lease::None => Guard::NoLease,
                    Lease::Outside => Guard::OutsideLease,
                    Lease::Inside => Guard::Esp,
                };
            }
            Kind::LaterFragment if matches!(p.proto, PROTO_ESP | PROTO_AH | PROTO_UDP) => {
                return if matches!(role, RoleNow::Quiet) { Guard::EspRole } else { Guard::EspFragment };
            }
            Kind::Ike | Kind::NattIke | Kind::Keepalive => {
                return if role.takes() { Guard::Ike } else { Guard::IkeRole };
            }
            Kind::Truncated | Kind::BadLength => return Guard::Malformed,
            Kind::LaterFragment | Kind::NotIp | Kind::Ipv6 | Kind::HeaderTruncated | Kind::Hsrp | Kind::Other => {}
        }
    }
    let hsrp = matches!(p.kind, Kind::Hsrp);
    if hsrp && !active && p.hsrp_state == HSRP_ACTIVE && p.hsrp_opcode != HSRP_RESIGN {
        return Guard::HsrpRole;
    }
    if facts.from_virtual_mac && !active {
        return Guard::VirtualMac;
    }
    if hsrp {
        return Guard::Hsrp;
    }
    let ipv4 = !matches!(p.kind, Kind::NotIp | Kind::Arp | Kind::Ipv6 | Kind::HeaderTruncated);
    if facts.outside && ipv4 && p.proto != PROTO_ESP && protected() {
        return Guard::ClearText;
    }
    Guard::Pass
}

/// True when the packet belongs to one of the selector pairs. Ports that were not read match: when in doubt, it is protected.
#[inline(always)]
pub const fn is_protected(entry: &Protected, p: &Parsed) -> bool {
    // Written out: the compiler would end a loop by comparing pointers, which the verifier does not follow.
    const { assert!(MAX_LOCALS == 8) };
    let (l, n) = (&entry.locals, entry.count);
    (n > 0 && matches_local(&l[0], p))
        || (n > 1 && matches_local(&l[1], p))
        || (n > 2 && matches_local(&l[2], p))
        || (n > 3 && matches_local(&l[3], p))
        || (n > 4 && matches_local(&l[4], p))
        || (n > 5 && matches_local(&l[5], p))
        || (n > 6 && matches_local(&l[6], p))
        || (n > 7 && matches_local(&l[7], p))
}

#[inline(always)]
const fn matches_local(local: &Local, p: &Parsed) -> bool {
    p.src & local.mask == local.addr
        && (local.proto == 0 || local.proto == p.proto)
        && (!p.has_ports || local.local_port == 0 || local.local_port == p.src_port)
        && (!p.has_ports || local.remote_port == 0 || local.remote_port == p.dst_port)
}
