//! Policies: what each flow wants in the kernel, what the kernel holds, and the difference.
//!
//! **Ownership.** Two policies of the kernel are the same when their selectors are equal in every byte, whatever their priority.
//! `xfrm_selector.user` takes part in that comparison and in nothing else, so it carries our mark: [`MARK_PROTECT`] on policies
//! with a template, [`MARK_BLOCK`] on those beneath. Thus ours never replace a stranger's policy, we never remove one, both
//! kinds can stand beside each other on one selector, and priorities are exactly those the caller gave.
//!
//! **Blocks** come [`BLOCK_BELOW`] after their template policy. They let nothing pass that the template policy would not: they
//! are what is left should someone delete it.

use super::super::message::*;
use super::codec::{SELECTOR_LEN, XFRMA_TMPL};
use crate::ports::FlowPolicy;
use crate::sad::{Mode, Selector};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_DELPOLICY: u16 = 0x14;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_UPDPOLICY: u16 = 0x19;
/// `struct xfrm_userpolicy_info`.
pub(super) const POLICY_LEN: usize = 168;
/// `struct xfrm_user_tmpl`.
pub(super) const TMPL_LEN: usize = 64;

/// `xfrm_selector.user` of our policies with a template ("GW", 1).
pub const MARK_PROTECT: u32 = 0x4757_0001;
/// `xfrm_selector.user` of our block policies ("GW", 2).
pub const MARK_BLOCK: u32 = 0x4757_0002;
/// How much lower (in the kernel: higher number) a block stands than its template policy.
pub const BLOCK_BELOW: u32 = 1_000_000;

/// Direction of a policy, in the kernel's numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dir {
    /// To us.
    In = 0,
    /// From us or forwarded out.
    Out = 1,
    /// Forwarded in.
    Fwd = 2,
}

/// What makes a policy the same one: our mark, direction, selector.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PolicyKey {
    /// [`MARK_PROTECT`] or [`MARK_BLOCK`].
    pub mark: u32,
    /// Direction.
    pub dir: Dir,
    /// Source of the packets.
    pub src: Selector,
    /// Destination of the packets.
    pub dst: Selector,
}

/// What may change without making it another policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyBody {
    /// Lower wins.
    pub priority: u32,
    /// Template; `None` blocks.
    pub tmpl: Option<Tmpl>,
}

/// A template: ESP, always required.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tmpl {
    /// Tunnel source. Unspecified where packets come in: the SA is known by its reqid, and a peer behind a NAT moves.
    pub src: IpAddr,
    /// Tunnel destination.
    pub dst: IpAddr,
    /// reqid of the SAs.
    pub reqid: u32,
    /// Encapsulation mode.
    pub mode: Mode,
}

/// A set of policies.
pub type PolicySet = BTreeMap<PolicyKey, PolicyBody>;

/// Why flows cannot be made policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFlow {
    /// IPv4 on one side, IPv6 on the other.
    #[error("local and remote selector are of different address families")]
    MixedSelectors,
    /// Tunnel ends differ in family.
    #[error("tunnel ends are of different address families")]
    MixedEnds,
    /// Longer than the address.
    #[error("prefix length {0} is longer than the address")]
    Prefix(u8),
    /// One side names a protocol the other does not.
    #[error("local and remote selector name different protocols")]
    Protocols,
    /// No room for the block beneath.
    #[error("priority {0} leaves no room for the block policy {BLOCK_BELOW} beneath")]
    Priority(u32),
}

fn masked(s: Selector) -> Result<Selector, BadFlow> {
    let addr = match s.addr {
        IpAddr::V4(a) if s.prefix <= 32 => {
            IpAddr::V4(Ipv4Addr::from(u32::from(a) & u32::MAX.checked_shl(32 - u32::from(s.prefix)).unwrap_or(0)))
        }
        IpAddr::V6(a) if s.prefix <= 128 => {
            IpAddr::V6((u128::from(a) & u128::MAX.checked_shl(128 - u32::from(s.prefix)).unwrap_or(0)).into())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return Err(BadFlow::Prefix(s.prefix)),
    };
    Ok(Selector { addr, ..s })
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The six policies of every flow. Of two flows with equal selectors the one of the lower priority number stands.
pub fn wanted(flows: &[FlowPolicy]) -> Result<PolicySet, BadFlow> {
    let mut set = PolicySet::new();
    for flow in flows {
        let (local, remote) = (masked(flow.local)?, masked(flow.remote)?);
        if local.addr.is_ipv4() != remote.addr.is_ipv4() {
            return Err(BadFlow::MixedSelectors);
        }
        if flow.tunnel_local.is_ipv4() != flow.tunnel_peer.is_ipv4() {
            return Err(BadFlow::MixedEnds);
        }
        if local.proto != remote.proto {
            return Err(BadFlow::Protocols);
        }
        let below = flow.priority.checked_add(BLOCK_BELOW).ok_or(BadFlow::Priority(flow.priority))?;
        for dir in [Dir::In, Dir::Fwd, Dir::Out] {
            let outward = dir == Dir::Out;
            let (src, dst) = if outward { (local, remote) } else { (remote, local) };
            let (from, to) = (flow.tunnel_local, flow.tunnel_peer);
            let (src_end, dst_end) = if outward { (from, to) } else { (unspecified(from), from) };
            let tmpl = Tmpl { src: src_end, dst: dst_end, reqid: flow.reqid, mode: flow.mode };
            let protect = PolicyBody { priority: flow.priority, tmpl: Some(tmpl) };
            let block = PolicyBody { priority: below, tmpl: None };
            for (mark, body) in [(MARK_PROTECT, protect), (MARK_BLOCK, block)] {
                let held = set.entry(PolicyKey { mark, dir, src, dst }).or_insert(body);
                if body.priority < held.priority {
                    *held = body;
                }
            }
        }
    }
    Ok(set)
}

/// What has to be done, in this order, so that no packet finds a gap.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Add or replace (one step in the kernel): blocks first, then templates.
    pub put: Vec<(PolicyKey, PolicyBody)>,
    /// Remove: templates first, then blocks.
    pub delete: Vec<PolicyKey>,
}

/// From what the kernel holds to what is wanted. `odd`: keys held in a form we would not have given them.
pub fn plan(held: &PolicySet, odd: &BTreeSet<PolicyKey>, wanted: &PolicySet) -> Plan {
    let differs = |key: &PolicyKey, body: &PolicyBody| held.get(key) != Some(body) || odd.contains(key);
    let mut put: Vec<_> = wanted.iter().filter(|(k, b)| differs(k, b)).map(|(k, b)| (*k, *b)).collect();
    put.sort_by_key(|(k, _)| k.mark == MARK_PROTECT);
    let mut delete: Vec<_> = held.keys().chain(odd).filter(|k| !wanted.contains_key(k)).copied().collect();
    delete.sort_by_key(|k| (k.mark == MARK_BLOCK, *k));
    delete.dedup();
    Plan { put, delete }
}

fn put_selector(r: &mut Request, key: &PolicyKey) {
    let mask = |port: u16| if port == 0 { 0 } else { u16::MAX };
    r.addr16(key.dst.addr).addr16(key.src.addr);
    r.be16(key.dst.port).be16(mask(key.dst.port)).be16(key.src.port).be16(mask(key.src.port));
    r.u16(family_of(key.dst.addr)).u8(key.dst.prefix).u8(key.src.prefix).u8(key.dst.proto).zeros(3).u32(0).u32(key.mark);
}

/// XFRM_MSG_UPDPOLICY: adds the policy or replaces it in one step.
pub fn put(key: &PolicyKey, body: &PolicyBody) -> Request {
    let mut r = Request::new(XFRM_MSG_UPDPOLICY, 0);
    put_selector(&mut r, key);
    // No limits of bytes, packets, seconds; nothing used.
    r.u64(u64::MAX).u64(u64::MAX).u64(u64::MAX).u64(u64::MAX).zeros(32 + 32);
    r.u32(body.priority).u32(0).u8(key.dir as u8).u8(u8::from(body.tmpl.is_none())).zeros(6);
    if let Some(t) = body.tmpl {
        r.attr(XFRMA_TMPL, |r| {
            r.addr16(t.dst).be32(0).u8(libc::IPPROTO_ESP as u8).zeros(3).u16(family_of(t.dst)).zeros(2);
            // Any share, required, every algorithm: the SA was made by our own negotiation.
            r.addr16(t.src)
                .u32(t.reqid)
                .u8(u8::from(t.mode == Mode::Tunnel))
                .u8(0)
                .u8(0)
                .zeros(1)
                .u32(u32::MAX)
                .u32(u32::MAX)
                .u32(u32::MAX);
        });
    }
    r
}

/// XFRM_MSG_DELPOLICY.
pub fn delete(key: &PolicyKey) -> Request {
    let mut r = Request::new(XFRM_MSG_DELPOLICY, 0);
    put_selector(&mut r, key);
    r.u32(0).u8(key.dir as u8).zeros(3);
    r
}

/// XFRM_MSG_GETPOLICY as a dump.
pub fn dump() -> Request {
    Request::new(XFRM_MSG_GETPOLICY, 0)
}

/// A policy of ours in a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Key.
    pub key: PolicyKey,
    /// Body; `None` when it has a form we would not give it.
    pub body: Option<PolicyBody>,
}

/// Selector of a `struct xfrm_selector`: (source, destination).
pub(super) fn selectors(f: &Fields<'_>) -> (Selector, Selector) {
    let family = f.u16(40);
    let one = |at: usize, prefix: usize, port: usize| Selector {
        addr: f.addr16(at, family),
        prefix: f.u8(prefix),
        proto: f.u8(44),
        port: if f.be16(port + 2) == 0 { 0 } else { f.be16(port) },
    };
    (one(16, 43, 36), one(0, 42, 32))
}

/// A template as its attribute carries it, with its mode and its "optional" mark.
pub(super) fn tmpl(f: &Fields<'_>) -> (Tmpl, bool) {
    let family = f.u16(24);
    let plain = f.u8(20) == libc::IPPROTO_ESP as u8 && f.u8(48) <= 1 && f.u8(50) == 0 && f.be32(16) == 0;
    let mode = if f.u8(48) == 1 { Mode::Tunnel } else { Mode::Transport };
    (Tmpl { dst: f.addr16(0, family), src: f.addr16(28, family), reqid: f.u32(44), mode }, plain)
}

/// Decodes an entry of a policy dump; `None` for one that is not ours.
pub fn held(kind: u16, body: &[u8]) -> Option<Held> {
    if kind != XFRM_MSG_NEWPOLICY {
        return None;
    }
    let f = Fields::new(body, POLICY_LEN)?;
    let mark = f.u32(52);
    if mark != MARK_PROTECT && mark != MARK_BLOCK {
        return None;
    }
    let dir = match f.u8(160) {
        0 => Dir::In,
        1 => Dir::Out,
        2 => Dir::Fwd,
        _ => return None,
    };
    let (src, dst) = selectors(&f.sub(0, SELECTOR_LEN)?);
    let value = Attrs::after(body, POLICY_LEN).find(|(k, _)| *k == XFRMA_TMPL).map(|(_, v)| v);
    let tmpl = match value {
        None => Some(None),
        Some(v) if v.len() == TMPL_LEN => Fields::new(v, TMPL_LEN).map(|t| tmpl(&t)).and_then(|(t, plain)| plain.then_some(Some(t))),
        Some(_) => None,
    };
    let blocks = f.u8(161) == 1;
    let body = tmpl.filter(|t| t.is_none() == blocks).map(|tmpl| PolicyBody { priority: f.u32(152), tmpl });
    Some(Held { key: PolicyKey { mark, dir, src, dst }, body })
}
