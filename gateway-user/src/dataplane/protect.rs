//! Protected selectors as a longest-prefix table over the remote network. Whatever does not fit is made wider, never dropped:
//! the guard may refuse a packet too much, never one too few.

use gateway_common::abi::MAX_LOCALS;
use gateway_common::layout::{Local, PROTECTED_V4_BITS, Protected, ProtectedKey, mapped};
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::sad::Selector;

/// Remote network and prefix length.
type Net = (u32, u8);

/// Entries for one device: (prefix length of the key, key, value). `Err` names a selector that is not IPv4.
pub(super) fn compile(
    ifindex: u32,
    flows: &[(Selector, Selector)],
    max_prefixes: usize,
) -> Result<Vec<(u32, ProtectedKey, Protected)>, Selector> {
    let mut nets: BTreeMap<Net, Vec<Local>> = BTreeMap::new();
    for (local, remote) in flows {
        let IpAddr::V4(l) = local.addr else { return Err(*local) };
        let IpAddr::V4(r) = remote.addr else { return Err(*remote) };
        let proto = match (local.proto, remote.proto) {
            (a, b) if a == b => a,
            (a, 0) => a,
            (0, b) => b,
            // Selectors that contradict each other: any protocol.
            _ => 0,
        };
        let mask = mask(local.prefix);
        let entry = Local { addr: l.to_bits() & mask, mask, local_port: local.port, remote_port: remote.port, proto, reserved: [0; 3] };
        let remote_prefix = remote.prefix.min(32);
        nets.entry((r.to_bits() & self::mask(remote_prefix), remote_prefix)).or_default().push(entry);
    }
    while nets.len() > max_prefixes.max(1) {
        widen_prefixes(&mut nets);
    }
    Ok(nets
        .iter()
        .map(|(&(net, prefix), own)| {
            // A look-up finds the longest prefix only, so it holds what the shorter ones hold as well.
            let mut locals = own.clone();
            for shorter in 0..prefix {
                if let Some(more) = nets.get(&(net & mask(shorter), shorter)) {
                    locals.extend_from_slice(more);
                }
            }
            let locals = fit(locals);
            let mut value = Protected { count: locals.len() as u32, ..Protected::default() };
            for (slot, local) in value.locals.iter_mut().zip(locals) {
                *slot = local;
            }
            let key = ProtectedKey { ifindex: ifindex.to_ne_bytes(), remote: mapped(net) };
            (PROTECTED_V4_BITS + u32::from(prefix), key, value)
        })
        .collect())
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Makes all of the longest prefixes one bit shorter.
fn widen_prefixes(nets: &mut BTreeMap<Net, Vec<Local>>) {
    let longest = nets.keys().map(|&(_, p)| p).max().unwrap_or(0);
    let Some(shorter) = longest.checked_sub(1) else { return };
    let keys: Vec<Net> = nets.keys().copied().filter(|&(_, p)| p == longest).collect();
    for key in keys {
        if let Some(locals) = nets.remove(&key) {
            nets.entry((key.0 & mask(shorter), shorter)).or_default().extend(locals);
        }
    }
}

/// At most [`MAX_LOCALS`] selectors that cover at least what the given ones do.
fn fit(mut locals: Vec<Local>) -> Vec<Local> {
    tidy(&mut locals);
    if locals.len() > MAX_LOCALS {
        for l in &mut locals {
            l.local_port = 0;
            l.remote_port = 0;
        }
        tidy(&mut locals);
    }
    if locals.len() > MAX_LOCALS {
        for l in &mut locals {
            l.proto = 0;
        }
        tidy(&mut locals);
    }
    while locals.len() > MAX_LOCALS {
        // Only networks are left, sorted: neighbours with the longest common prefix lose the least.
        let Some((i, prefix)) =
            locals.windows(2).enumerate().map(|(i, w)| (i, common_prefix(&w[0], &w[1]))).max_by_key(|&(_, prefix)| prefix)
        else {
            break;
        };
        let mask = mask(prefix);
        locals[i] = Local { addr: locals[i].addr & mask, mask, ..Local::default() };
        locals.remove(i + 1);
        tidy(&mut locals);
    }
    locals
}

fn common_prefix(a: &Local, b: &Local) -> u8 {
    let same = (a.addr ^ b.addr).leading_zeros();
    same.min(a.mask.leading_ones()).min(b.mask.leading_ones()) as u8
}

/// Sorts, and removes what another one covers.
fn tidy(locals: &mut Vec<Local>) {
    locals.sort_unstable();
    locals.dedup();
    let all = locals.clone();
    locals.retain(|l| !all.iter().any(|other| other != l && covers(other, l)));
}

fn covers(a: &Local, b: &Local) -> bool {
    a.mask & b.mask == a.mask
        && b.addr & a.mask == a.addr
        && (a.proto == 0 || a.proto == b.proto)
        && (a.local_port == 0 || a.local_port == b.local_port)
        && (a.remote_port == 0 || a.remote_port == b.remote_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_common::classify::{Kind, Parsed, parse};
    use gateway_common::verdict::is_protected;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// What the longest-prefix map would answer.
    fn lookup(entries: &[(u32, ProtectedKey, Protected)], dst: u32) -> Option<&Protected> {
        entries
            .iter()
            .filter(|(bits, key, _)| {
                let net = u32::from_be_bytes([key.remote[12], key.remote[13], key.remote[14], key.remote[15]]);
                dst & mask((bits - PROTECTED_V4_BITS) as u8) == net
            })
            .max_by_key(|(bits, _, _)| *bits)
            .map(|(_, _, value)| value)
    }

    fn packet(src: u32, dst: u32, proto: u8, ports: (u16, u16)) -> Parsed {
        let empty: &[u8] = &[];
        Parsed {
            kind: Kind::Other,
            src,
            dst,
            proto,
            has_ports: true,
            src_port: ports.0,
            dst_port: ports.1,
            ..parse(&empty, gateway_common::classify::Direction::Out)
        }
    }

    fn selector() -> impl Strategy<Value = Selector> {
        (any::<u32>(), 0..=32_u8, prop_oneof![Just(0_u8), Just(6), Just(17)], prop_oneof![Just(0_u16), 1..4_u16]).prop_map(
            |(addr, prefix, proto, port)| Selector {
                // Few addresses, so that selectors nest.
                addr: IpAddr::V4(Ipv4Addr::from_bits(addr & 0xc000_0003 & mask(prefix))),
                prefix,
                proto,
                port: if proto == 0 { 0 } else { port },
            },
        )
    }

    proptest! {
        /// Every packet of a flow is protected, however many flows there are and however few entries.
        #[test]
        fn nothing_protected_is_missed(
            flows in proptest::collection::vec((selector(), selector()), 1..40),
            pick in any::<prop::sample::Index>(),
            max in 1_usize..8,
            low in any::<(u32, u32)>(),
            ports in (1..4_u16, 1..4_u16),
            proto in prop_oneof![Just(6_u8), Just(17), Just(1)],
        ) {
            let (local, mut remote) = flows[pick.index(flows.len())];
            if local.proto != 0 && remote.proto != 0 {
                remote.proto = local.proto;
            }
            let flows: Vec<_> = flows.iter().copied().chain([(local, remote)]).collect();
            let entries = compile(3, &flows, max).unwrap();
            prop_assert!(entries.len() <= max.max(1));
            let at = |s: &Selector, low: u32| match s.addr {
                IpAddr::V4(a) => a.to_bits() | (low & !mask(s.prefix)),
                IpAddr::V6(_) => 0,
            };
            let wanted = local.proto.max(remote.proto);
            let p = packet(
                at(&local, low.0),
                at(&remote, low.1),
                if wanted == 0 { proto } else { wanted },
                (if local.port == 0 { ports.0 } else { local.port }, if remote.port == 0 { ports.1 } else { remote.port }),
            );
            let entry = lookup(&entries, p.dst);
            prop_assert!(entry.is_some_and(|e| is_protected(e, &p)));
        }
    }

    #[test]
    fn a_packet_of_no_flow_is_free() {
        let net = |a: [u8; 4], p| Selector::net4(Ipv4Addr::from(a), p);
        let flows = [
            (net([10, 0, 0, 0], 8), net([192, 168, 0, 0], 16)),
            (Selector { proto: 6, port: 80, ..net([172, 16, 0, 0], 12) }, net([192, 168, 7, 0], 24)),
        ];
        let entries = compile(3, &flows, 100).unwrap();
        let hit = |src: [u8; 4], dst: [u8; 4], proto, ports| {
            let p = packet(u32::from_be_bytes(src), u32::from_be_bytes(dst), proto, ports);
            lookup(&entries, p.dst).is_some_and(|e| is_protected(e, &p))
        };
        assert!(hit([10, 1, 2, 3], [192, 168, 1, 1], 17, (1, 2)));
        // The longer prefix holds the shorter one's selector too.
        assert!(hit([10, 1, 2, 3], [192, 168, 7, 1], 17, (1, 2)));
        assert!(hit([172, 16, 0, 1], [192, 168, 7, 1], 6, (80, 2)));
        assert!(!hit([172, 16, 0, 1], [192, 168, 7, 1], 6, (81, 2)));
        assert!(!hit([172, 16, 0, 1], [192, 168, 8, 1], 6, (80, 2)));
        assert!(!hit([11, 1, 2, 3], [192, 168, 1, 1], 17, (1, 2)));
        assert!(!hit([10, 1, 2, 3], [193, 168, 1, 1], 17, (1, 2)));
    }

    #[test]
    fn ipv6_is_named() {
        let six = Selector { addr: "2001:db8::".parse().unwrap(), prefix: 32, proto: 0, port: 0 };
        assert_eq!(compile(3, &[(Selector::ANY4, six)], 10), Err(six));
    }
}
