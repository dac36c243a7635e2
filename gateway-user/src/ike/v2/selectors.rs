//! Traffic selectors (RFC 7296 2.9, 3.13).

use crate::ike::policy::Flow;
use crate::sad::Selector;
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Types of selectors, with their lengths of 16 and 40 bytes.
const IPV4_RANGE: u8 = 7;
const IPV6_RANGE: u8 = 8;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// One range of addresses and ports. Both addresses are of one family, the first is not above the second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TrafficSelector {
    /// IP protocol, 0 = any.
    pub proto: u8,
    /// First port; of ICMP the type (high byte) and code. 0 to 65535 is any, 65535 to 0 is OPAQUE: only packets whose ports are not known.
    pub port_from: u16,
    /// Last port.
    pub port_to: u16,
    /// First address.
    pub from: IpAddr,
    /// Last address.
    pub to: IpAddr,
}

/// Address as a number, with its family.
fn number(a: IpAddr) -> u128 {
    match a {
        IpAddr::V4(a) => a.to_bits().into(),
        IpAddr::V6(a) => a.to_bits(),
    }
}

fn width(a: IpAddr) -> u8 {
    if a.is_ipv4() { 32 } else { 128 }
}

fn address(like: IpAddr, n: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(n as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(n).into(),
    }
}

impl TrafficSelector {
    /// Reads the body of a TSi or TSr payload. Selectors of a type that we do not know are left out.
    pub(in crate::ike::v2) fn decode_all(mut r: Reader<'_>) -> Decode<Vec<Self>> {
        let count = r.u8("traffic selector count")?;
        r.take(3, "reserved")?;
        let mut out = Vec::with_capacity(usize::from(count).min(r.remaining() / 16));
        for _ in 0..count {
            let kind = r.u8("traffic selector type")?;
            let proto = r.u8("traffic selector protocol")?;
            let length = usize::from(r.u16("traffic selector length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length { field: "traffic selector length", got: length })?;
            let mut body = r.sub(body, "traffic selector")?;
            if !matches!(kind, IPV4_RANGE | IPV6_RANGE) {
                continue;
            }
            let (port_from, port_to) = (body.u16("first port")?, body.u16("last port")?);
            let mut read = || -> Decode<IpAddr> {
                Ok(match kind {
                    IPV4_RANGE => Ipv4Addr::from(body.array::<4>("address")?).into(),
                    _ => Ipv6Addr::from(body.array::<16>("address")?).into(),
                })
            };
            let (from, to) = (read()?, read()?);
            body.finish("traffic selector")?;
            let opaque = (port_from, port_to) == (u16::MAX, 0);
            if port_from > port_to && !opaque {
                return Err(DecodeError::Value { field: "last port", got: port_to.into() });
            }
            if number(from) > number(to) {
                return Err(DecodeError::Value { field: "last address", got: number(to) as u64 });
            }
            out.push(Self { proto, port_from, port_to, from, to });
        }
        r.finish("traffic selectors")?;
        Ok(out)
    }

    /// Body of a TSi or TSr payload.
    pub(in crate::ike::v2) fn encode_all(selectors: &[Self]) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(selectors.len() as u8).bytes(&[0; 3]);
        for s in selectors {
            let (kind, length) = if s.from.is_ipv4() { (IPV4_RANGE, 16) } else { (IPV6_RANGE, 40) };
            w.u8(kind).u8(s.proto).u16(length).u16(s.port_from).u16(s.port_to);
            for a in [s.from, s.to] {
                match a {
                    IpAddr::V4(a) => w.bytes(&a.octets()),
                    IpAddr::V6(a) => w.bytes(&a.octets()),
                };
            }
        }
        w.into_vec()
    }

    /// The range of a configured selector.
    pub fn of(s: Selector) -> Self {
        let host = u128::MAX.checked_shr((128 - width(s.addr) + s.prefix.min(width(s.addr))).into()).unwrap_or(0);
        let first = number(s.addr) & !host;
        let (port_from, port_to) = if s.port == 0 { (0, u16::MAX) } else { (s.port, s.port) };
        Self { proto: s.proto, port_from, port_to, from: address(s.addr, first), to: address(s.addr, first | host) }
    }

    /// As one prefix and one port; `None` for a range that is no prefix, several ports, OPAQUE, or single types of ICMP.
    pub fn selector(&self) -> Option<Selector> {
        let port = match (self.port_from, self.port_to) {
            (0, u16::MAX) => 0,
            (p, q) if p == q && p != 0 && self.proto != 0 && !matches!(self.proto, ICMP | ICMPV6) => p,
            _ => return None,
        };
        let (first, last) = (number(self.from), number(self.to));
        let host = first ^ last;
        // A prefix: the bits that differ are the lowest ones, all of them zero in the first and one in the last address.
        if host & host.wrapping_add(1) != 0 || first & host != 0 {
            return None;
        }
        let prefix = width(self.from) - host.count_ones() as u8;
        Some(Selector { addr: self.from, prefix, proto: self.proto, port })
    }

    /// True when every packet of `other` is in this range.
    pub fn covers(&self, other: &Self) -> bool {
        self.intersect(other).is_some_and(|i| i == *other)
    }

    /// Packets that are in both.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self.from.is_ipv4() != other.from.is_ipv4() {
            return None;
        }
        let proto = match (self.proto, other.proto) {
            (0, p) | (p, 0) => p,
            (p, q) if p == q => p,
            _ => return None,
        };
        let (port_from, port_to) = match ((self.port_from, self.port_to), (other.port_from, other.port_to)) {
            (a, b) if a == b => a,
            // Any port includes OPAQUE, nothing else does.
            ((0, u16::MAX), b) => b,
            (a, (0, u16::MAX)) => a,
            ((u16::MAX, 0), _) | (_, (u16::MAX, 0)) => return None,
            ((a, b), (c, d)) => (a.max(c), b.min(d)),
        };
        let from = number(self.from).max(number(other.from));
        let to = number(self.to).min(number(other.to));
        if from > to || (port_from > port_to && (port_from, port_to) != (u16::MAX, 0)) {
            return None;
        }
        Some(Self { proto, port_from, port_to, from: address(self.from, from), to: address(self.from, to) })
    }

    /// Number of addresses less one.
    fn span(&self) -> u128 {
        number(self.to) - number(self.from)
    }
}

/// What an initiator asks for one side of a flow: the packet that asked, when there is one and it is narrower, then the flow (RFC 7296 2.9).
pub fn offer(flow: Selector, packet: Option<Selector>) -> Vec<TrafficSelector> {
    let flow = TrafficSelector::of(flow);
    let packet = packet.map(TrafficSelector::of).filter(|p| *p != flow && flow.covers(p));
    packet.into_iter().chain([flow]).collect()
}

/// What a responder chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Narrowed {
    /// Access-list entry of the flow.
    pub ace: u32,
    /// Traffic behind us.
    pub local: Selector,
    /// Traffic behind the peer.
    pub remote: Selector,
    /// The peer asked for more: say ADDITIONAL_TS_POSSIBLE.
    pub narrowed: bool,
}

/// Chooses as responder one pair of selectors from what the peer asks (`remote` is its side). First flow that holds the packet the peer names
/// first, else first flow that the peer's ranges cover, else first that meets them. The result is never larger than the flow. `None`:
/// TS_UNACCEPTABLE.
pub fn narrow<'a>(
    flows: impl IntoIterator<Item = &'a Flow> + Clone,
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
) -> Option<Narrowed> {
    let (first_local, first_remote) = (local.first()?, remote.first()?);
    let sides = |flow: &Flow| (TrafficSelector::of(flow.local), TrafficSelector::of(flow.remote));
    let holds_packet = |flow: &Flow| {
        let (l, r) = sides(flow);
        l.covers(first_local) && r.covers(first_remote)
    };
    let covered = |flow: &Flow| {
        let (l, r) = sides(flow);
        local.iter().any(|t| t.covers(&l)) && remote.iter().any(|t| t.covers(&r))
    };
    let all = || flows.clone().into_iter();
    let ranked = all().filter(|f| holds_packet(f)).chain(all().filter(|f| covered(f))).chain(all());
    ranked.filter_map(|flow| meet(flow, local, remote)).next()
}

fn meet(flow: &Flow, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<Narrowed> {
    let (local_meet, remote_meet) = one_protocol(best(flow.local, local)?, best(flow.remote, remote)?)?;
    // The peer's packet may be named before a range that we take whole.
    let whole = |asked: &[TrafficSelector], got: Selector| asked.iter().all(|t| TrafficSelector::of(got).covers(t));
    let narrowed = !(whole(local, local_meet) && whole(remote, remote_meet));
    Some(Narrowed { ace: flow.ace, local: local_meet, remote: remote_meet, narrowed })
}

/// The largest expressible part of the flow's side that is asked for; one that holds the peer's first range is preferred.
fn best(flow: Selector, asked: &[TrafficSelector]) -> Option<Selector> {
    let range = TrafficSelector::of(flow);
    let first = asked.first()?;
    let parts = asked.iter().filter_map(|t| range.intersect(t)).filter_map(|t| t.selector().map(|s| (t, s)));
    let rank = |t: &TrafficSelector| (t.covers(first), t.span(), t.proto == 0, (t.port_from, t.port_to) == (0, u16::MAX));
    // `max_by_key` takes the last of equals; the first is wanted.
    parts.rev().max_by_key(|(t, _)| rank(t)).map(|(_, s)| s)
}

/// Checks as initiator what the responder answered: every selector inside the flow, and all of them one pair for one SA. Gives the pair
/// (local, remote).
pub fn accept(flow: &Flow, local: &[TrafficSelector], remote: &[TrafficSelector]) -> Option<(Selector, Selector)> {
    one_protocol(one(flow.local, local)?, one(flow.remote, remote)?)
}

/// A packet has one protocol: what one side leaves open, the other side says.
fn one_protocol(local: Selector, remote: Selector) -> Option<(Selector, Selector)> {
    let proto = match (local.proto, remote.proto) {
        (0, p) | (p, 0) => p,
        (p, q) if p == q => p,
        _ => return None,
    };
    Some((Selector { proto, ..local }, Selector { proto, ..remote }))
}

fn one(flow: Selector, answer: &[TrafficSelector]) -> Option<Selector> {
    let range = TrafficSelector::of(flow);
    let largest = answer.iter().find(|t| answer.iter().all(|o| t.covers(o)))?;
    range.covers(largest).then(|| largest.selector()).flatten()
}

#[cfg(test)]
#[path = "selectors_tests.rs"]
mod tests;
