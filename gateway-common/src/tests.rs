//! Tests of the classifier and the verdicts on the host.

use crate::classify::{Direction, Kind, Parsed, mac, parse};
use crate::layout::{
    Device, InboundSa, OutboundSa, ROLE_ACTIVE, ROLE_ARMED, ROLE_DRAINING, ROLE_STANDBY, RoleWord, SA_ESN, SA_VALID, Table, multiplier,
    slot,
};
use crate::reason::{Action, Classify, Guard, Shunt};
use crate::verdict::{self, GuardFacts, Inbound, Lease, RoleNow, ShuntFacts};
use proptest::prelude::*;
use std::vec::Vec;

const PEER: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 1];

fn eth(tags: &[u16], ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut f = std::vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        f.extend_from_slice(&tag.to_be_bytes());
        f.extend_from_slice(&[0, 7]);
    }
    f.extend_from_slice(&ethertype.to_be_bytes());
    f.extend_from_slice(rest);
    f
}

fn ipv4(proto: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut p = std::vec![0_u8; header];
    p[0] = 0x40 | (header / 4) as u8;
    p[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    p[6..8].copy_from_slice(&fragment.to_be_bytes());
    p[9] = proto;
    p[12..16].copy_from_slice(&PEER);
    p[16..20].copy_from_slice(&VIP);
    p.extend_from_slice(payload);
    p
}

fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = Vec::new();
    p.extend_from_slice(&src.to_be_bytes());
    p.extend_from_slice(&dst.to_be_bytes());
    p.extend_from_slice(&((8 + payload.len()) as u16).to_be_bytes());
    p.extend_from_slice(&[0, 0]);
    p.extend_from_slice(payload);
    p
}

const ESP: [u8; 16] = [0x80, 0x10, 0, 5, 0, 0, 1, 2, 9, 9, 9, 9, 9, 9, 9, 9];

fn parsed(frame: &[u8]) -> Parsed {
    parse(&frame, Direction::In)
}

#[test]
fn every_kind_is_recognised() {
    let ip = |proto, payload: &[u8]| eth(&[], 0x0800, &ipv4(proto, 0, 0, payload));
    let mut arp = std::vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2];
    arp.extend_from_slice(&PEER);
    arp.extend_from_slice(&[0; 6]);
    arp.extend_from_slice(&VIP);
    let mut marked = std::vec![0; 4];
    marked.extend_from_slice(&[1; 28]);
    let table: Vec<(&str, Vec<u8>, Kind)> = std::vec![
        ("empty", Vec::new(), Kind::NotIp),
        ("cut Ethernet header", std::vec![0; 13], Kind::NotIp),
        ("LLDP", eth(&[], 0x88cc, &[0; 40]), Kind::NotIp),
        ("ARP", eth(&[], 0x0806, &arp), Kind::Arp),
        ("cut ARP", eth(&[], 0x0806, &arp[..27]), Kind::NotIp),
        ("IPv6", eth(&[], 0x86dd, &[0x60; 40]), Kind::Ipv6),
        ("cut IPv4 header", eth(&[], 0x0800, &ipv4(50, 0, 0, &ESP)[..19]), Kind::HeaderTruncated),
        (
            "IP version 5",
            eth(&[], 0x0800, &{
                let mut p = ipv4(50, 0, 0, &ESP);
                p[0] = 0x55;
                p
            }),
            Kind::BadLength
        ),
        (
            "header of 16 bytes",
            eth(&[], 0x0800, &{
                let mut p = ipv4(50, 0, 0, &ESP);
                p[0] = 0x44;
                p
            }),
            Kind::BadLength
        ),
        (
            "total below header",
            eth(&[], 0x0800, &{
                let mut p = ipv4(50, 0, 0, &ESP);
                p[3] = 19;
                p
            }),
            Kind::BadLength
        ),
        (
            "total beyond frame",
            eth(&[], 0x0800, &{
                let mut p = ipv4(50, 0, 0, &ESP);
                p[3] += 1;
                p
            }),
            Kind::Truncated
        ),
        ("ESP", ip(50, &ESP), Kind::Esp),
        ("ESP, one tag", eth(&[0x8100], 0x0800, &ipv4(50, 0, 0, &ESP)), Kind::Esp),
        ("ESP, two tags", eth(&[0x88a8, 0x8100], 0x0800, &ipv4(50, 0, 0, &ESP)), Kind::Esp),
        ("three tags", eth(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(50, 0, 0, &ESP)), Kind::NotIp),
        ("ESP behind 40 bytes of options", eth(&[], 0x0800, &ipv4(50, 0, 40, &ESP)), Kind::Esp),
        ("ESP of 7 bytes", ip(50, &ESP[..7]), Kind::Truncated),
        ("ESP, first fragment", eth(&[], 0x0800, &ipv4(50, 0x2000, 0, &ESP)), Kind::Esp),
        ("ESP, later fragment", eth(&[], 0x0800, &ipv4(50, 0x2001, 0, &ESP)), Kind::LaterFragment),
        ("ESP, last fragment", eth(&[], 0x0800, &ipv4(50, 0x0001, 0, &ESP)), Kind::LaterFragment),
        ("AH", ip(51, &[4, 4, 0, 0, 0x80, 0x10, 0, 5, 0, 0, 1, 2]), Kind::Ah),
        ("AH of 11 bytes", ip(51, &[0; 11]), Kind::Truncated),
        ("IKE", ip(17, &udp(500, 500, &[1; 28])), Kind::Ike),
        ("IKE of 27 bytes", ip(17, &udp(500, 500, &[1; 27])), Kind::Truncated),
        ("from port 500 to another", ip(17, &udp(500, 53, &[1; 28])), Kind::Other),
        (
            "IKE, first fragment",
            eth(
                &[],
                0x0800,
                &ipv4(17, 0x2000, 0, &{
                    let mut u = udp(500, 500, &[1; 16]);
                    u[4] = 9;
                    u
                })
            ),
            Kind::Ike
        ),
        ("UDP of 7 bytes", ip(17, &[0; 7]), Kind::Truncated),
        (
            "UDP length 7",
            ip(17, &{
                let mut u = udp(500, 500, &[1; 28]);
                u[5] = 7;
                u
            }),
            Kind::BadLength
        ),
        (
            "UDP length beyond the packet",
            ip(17, &{
                let mut u = udp(500, 500, &[1; 28]);
                u[5] += 1;
                u
            }),
            Kind::BadLength
        ),
        ("keepalive", ip(17, &udp(4500, 4500, &[0xff])), Kind::Keepalive),
        ("one other byte", ip(17, &udp(4500, 4500, &[0xfe])), Kind::Truncated),
        ("empty 4500", ip(17, &udp(4500, 4500, &[])), Kind::Truncated),
        ("three bytes on 4500", ip(17, &udp(4500, 4500, &[1; 3])), Kind::Truncated),
        ("IKE on 4500", ip(17, &udp(4500, 4500, &marked)), Kind::NattIke),
        ("short IKE on 4500", ip(17, &udp(4500, 4500, &marked[..31])), Kind::Truncated),
        ("ESP on 4500", ip(17, &udp(4500, 4500, &ESP)), Kind::NattEsp),
        ("short ESP on 4500", ip(17, &udp(4500, 4500, &ESP[..7])), Kind::Truncated),
        ("HSRP", ip(17, &udp(1985, 1985, &[0, 0, 16, 3, 10, 100, 1, 0])), Kind::Hsrp),
        ("short HSRP", ip(17, &udp(1985, 1985, &[0; 7])), Kind::Truncated),
        ("TCP", ip(6, &[0; 20]), Kind::Other),
        ("ICMP", ip(1, &[8, 0, 0, 0]), Kind::Other),
        ("no payload", ip(6, &[]), Kind::Other),
    ];
    for (name, frame, kind) in table {
        assert_eq!(parsed(&frame).kind, kind, "{name}");
    }
}

#[test]
fn fields_are_read_where_they_are() {
    for (tags, options) in [(&[][..], 0), (&[0x8100][..], 4), (&[0x88a8, 0x8100][..], 40)] {
        let p = parsed(&eth(tags, 0x0800, &ipv4(50, 0, options, &ESP)));
        assert_eq!((p.spi, p.seq), (0x8010_0005, 0x0102));
        assert_eq!((p.src.to_be_bytes(), p.dst.to_be_bytes()), (PEER, VIP));
        assert_eq!((p.dst_mac, p.src_mac), (0x0200_0000_0001, 0x0200_0000_0002));
        assert_eq!(p.ip_len as usize, 20 + options + ESP.len());
        let p = parsed(&eth(tags, 0x0800, &ipv4(17, 0, options, &udp(4500, 4500, &ESP))));
        assert_eq!((p.spi, p.seq, p.src_port, p.dst_port), (0x8010_0005, 0x0102, 4500, 4500));
    }
    let p = parsed(&eth(&[], 0x0800, &ipv4(51, 0, 0, &[4, 4, 0, 0, 0x80, 0x10, 0, 5, 0, 0, 1, 2])));
    assert_eq!((p.spi, p.seq), (0x8010_0005, 0x0102));
    let p = parsed(&eth(&[], 0x0800, &ipv4(17, 0, 0, &udp(1985, 1985, &[0, 2, 16, 3, 10, 100, 1, 0]))));
    assert_eq!((p.hsrp_opcode, p.hsrp_state), (2, 16));
    let out = ipv4(17, 0, 0, &udp(4500, 31_000, &ESP));
    assert_eq!(parse(&&eth(&[], 0x0800, &out)[..], Direction::Out).kind, Kind::NattEsp);
    assert_eq!(parsed(&eth(&[], 0x0800, &out)).kind, Kind::Other);
}

#[test]
fn a_lease_that_has_run_out_makes_an_active_quiet() {
    let word = |role, lease_until_ns| RoleWord { role, reserved: 0, epoch: 1, lease_until_ns };
    for (role, lease, now, expected) in [
        (0, u64::MAX, 5, RoleNow::Quiet),
        (ROLE_STANDBY, u64::MAX, 5, RoleNow::Quiet),
        (ROLE_ARMED, 0, 5, RoleNow::Armed),
        (ROLE_DRAINING, 0, 5, RoleNow::Draining),
        (ROLE_ACTIVE, u64::MAX, u64::MAX, RoleNow::Active),
        (ROLE_ACTIVE, 5, 5, RoleNow::Active),
        (ROLE_ACTIVE, 4, 5, RoleNow::Quiet),
        (9, u64::MAX, 5, RoleNow::Quiet),
    ] {
        assert_eq!(verdict::role_now(&word(role, lease), || now), expected, "role {role}, lease {lease}, now {now}");
    }
    // The clock is only read when it matters.
    assert_eq!(verdict::role_now(&word(ROLE_ACTIVE, u64::MAX), || panic!("clock read")), RoleNow::Active);
    assert_eq!(verdict::role_now(&word(ROLE_STANDBY, 1), || panic!("clock read")), RoleNow::Quiet);
}

const ROLES: [RoleNow; 4] = [RoleNow::Quiet, RoleNow::Armed, RoleNow::Active, RoleNow::Draining];

fn of_kind(kind: Kind, proto: u8) -> Parsed {
    Parsed { kind, proto, spi: 0x8010_0005, seq: 258, ..parsed(&[]) }
}

#[test]
fn inbound_verdicts_by_kind_role_and_table() {
    let known = |_, _| Inbound::Known;
    let esp = of_kind(Kind::Esp, 50);
    for role in ROLES {
        let takes = matches!(role, RoleNow::Armed | RoleNow::Active);
        let at = |pass| if takes { pass } else { Classify::Stray };
        for (kind, proto, reason) in [
            (Kind::Esp, 50, at(Classify::Known)),
            (Kind::Ah, 51, at(Classify::Known)),
            (Kind::NattEsp, 17, at(Classify::KnownNatt)),
            (Kind::Ike, 17, at(Classify::Ike)),
            (Kind::NattIke, 17, at(Classify::IkeNatt)),
            (Kind::Keepalive, 17, at(Classify::Keepalive)),
            (Kind::LaterFragment, 50, at(Classify::Fragment)),
            (Kind::LaterFragment, 17, at(Classify::Fragment)),
            (Kind::LaterFragment, 6, Classify::Other),
            (Kind::Hsrp, 17, Classify::Other),
            (Kind::Other, 6, Classify::Other),
            (Kind::Truncated, 50, Classify::Truncated),
            (Kind::BadLength, 6, Classify::BadLength),
        ] {
            let p = of_kind(kind, proto);
            assert_eq!(verdict::classify(&p, role, true, known), reason, "{kind:?} {role:?}");
            assert_eq!(verdict::classify(&p, role, false, |_, _| panic!("asked")), Classify::NotForVip);
        }
        for (kind, reason) in [
            (Kind::NotIp, Classify::NotIp),
            (Kind::Arp, Classify::NotIp),
            (Kind::Ipv6, Classify::Ipv6),
            (Kind::HeaderTruncated, Classify::HeaderTruncated),
        ] {
            assert_eq!(verdict::classify(&of_kind(kind, 0), role, true, known), reason);
        }
        assert_eq!(verdict::classify(&esp, role, true, |_, _| Inbound::Unknown), at(Classify::UnknownSpi));
        assert_eq!(verdict::classify(&esp, role, true, |_, _| Inbound::Below), at(Classify::BelowFloor));
        let reserved = Parsed { spi: 255, ..esp };
        assert_eq!(verdict::classify(&reserved, role, true, |_, _| panic!("asked")), at(Classify::ReservedSpi));
    }
}

#[test]
fn the_floor_is_the_last_number_dropped() {
    let entry = InboundSa { spi: 300, state: SA_VALID, floor: 100, ..InboundSa::default() };
    for (spi, seq, expected) in
        [(300, 100, Inbound::Below), (300, 101, Inbound::Known), (300, u32::MAX, Inbound::Known), (301, 101, Inbound::Unknown)]
    {
        assert_eq!(verdict::inbound(&entry, spi, seq), expected, "{spi} {seq}");
    }
    assert_eq!(verdict::inbound(&InboundSa { floor: 1 << 32, ..entry }, 300, u32::MAX), Inbound::Below);
    assert_eq!(verdict::inbound(&InboundSa { state: 0, ..entry }, 300, 101), Inbound::Unknown);
}

#[test]
fn the_lease_is_open_below_and_closed_above() {
    let entry = OutboundSa { spi: 300, state: SA_VALID, lo: 100, hi: 200, ..OutboundSa::default() };
    for (spi, seq, expected) in [
        (300, 100, Lease::Outside),
        (300, 101, Lease::Inside),
        (300, 200, Lease::Inside),
        (300, 201, Lease::Outside),
        (301, 150, Lease::None),
    ] {
        assert_eq!(verdict::lease(&entry, spi, seq), expected, "{spi} {seq}");
    }
}

#[test]
fn with_extended_numbers_the_floor_looks_down_and_not_round() {
    let at = |floor| InboundSa { spi: 300, state: SA_VALID | SA_ESN, floor, ..InboundSa::default() };
    let wrap = 1_u64 << 32;
    let reach = u64::from(verdict::ESN_BELOW);
    for (floor, number, expected) in [
        // No floor: nothing is below, whatever the low half says.
        (0, 0, Inbound::Known),
        (0, 1, Inbound::Known),
        (0, wrap, Inbound::Known),
        (100, 100, Inbound::Below),
        (100, 1, Inbound::Below),
        (100, 101, Inbound::Known),
        // There is no number below zero.
        (100, wrap - 1, Inbound::Known),
        (wrap + 5, wrap + 5, Inbound::Below),
        (wrap + 5, wrap, Inbound::Below),
        (wrap + 5, wrap - 1, Inbound::Below),
        (wrap + 5, wrap + 6, Inbound::Known),
        (3 * wrap, 3 * wrap - 7, Inbound::Below),
        (3 * wrap, 3 * wrap + 1, Inbound::Known),
        (3 * wrap, 3 * wrap + wrap / 2, Inbound::Known),
        (3 * wrap, 3 * wrap - reach + 1, Inbound::Below),
        // Below the reach the window of the kernel refuses.
        (3 * wrap, 3 * wrap - reach, Inbound::Known),
    ] {
        assert_eq!(verdict::inbound(&at(floor), 300, number as u32), expected, "floor {floor}, number {number}");
    }
    assert_eq!(verdict::inbound(&at(100), 301, 5), Inbound::Unknown);
    assert_eq!(verdict::inbound(&InboundSa { state: SA_ESN, ..at(100) }, 300, 500), Inbound::Unknown, "not valid");
    for number in [wrap - 3, wrap, wrap + 4, wrap + wrap / 2] {
        let seen = InboundSa { seen: wrap + 1, ..at(7) };
        assert_eq!(verdict::inbound_number(&seen, number as u32), number);
    }
    assert_eq!(verdict::inbound_number(&InboundSa { state: SA_VALID, ..at(7) }, 9), 9);
}

#[test]
fn with_extended_numbers_the_lease_admits_the_low_halves_of_its_range() {
    let range = |lo, hi| OutboundSa { spi: 300, state: SA_VALID | SA_ESN, lo, hi, ..OutboundSa::default() };
    let wrap = 1_u64 << 32;
    for (lo, hi, number, expected) in [
        (0, 10, 0, Lease::Outside),
        (0, 10, 1, Lease::Inside),
        (0, 10, 10, Lease::Inside),
        (0, 10, 11, Lease::Outside),
        (wrap - 5, wrap + 5, wrap - 5, Lease::Outside),
        (wrap - 5, wrap + 5, wrap - 4, Lease::Inside),
        (wrap - 5, wrap + 5, wrap, Lease::Inside),
        (wrap - 5, wrap + 5, wrap + 5, Lease::Inside),
        (wrap - 5, wrap + 5, wrap + 6, Lease::Outside),
        (7 * wrap + 100, 7 * wrap + 200, 7 * wrap + 101, Lease::Inside),
        (7 * wrap + 100, 7 * wrap + 200, 7 * wrap + 99, Lease::Outside),
        (7 * wrap + 100, 7 * wrap + 200, 7 * wrap + 201, Lease::Outside),
        // No limit: every low half has a number above the lower end.
        (7 * wrap + 100, u64::MAX, 7 * wrap + 100, Lease::Inside),
        (7 * wrap + 100, 7 * wrap + 100, 7 * wrap + 101, Lease::Outside),
        (u64::MAX, u64::MAX, 5, Lease::Outside),
    ] {
        assert_eq!(verdict::lease(&range(lo, hi), 300, number as u32), expected, "{lo} to {hi}, number {number}");
    }
    assert_eq!(verdict::outbound_number(&range(wrap - 5, wrap + 5), 3), wrap + 3);
    assert_eq!(verdict::lease(&OutboundSa { state: SA_VALID, ..range(wrap - 5, wrap + 5) }, 300, 3), Lease::Outside, "short numbers");
}

#[test]
fn strays_go_to_the_partner_and_never_back() {
    let facts = |to_virtual_mac, from_partner, partner_known, to_vip| ShuntFacts { to_virtual_mac, from_partner, partner_known, to_vip };
    let esp = of_kind(Kind::Esp, 50);
    let other = of_kind(Kind::Other, 6);
    let group = Parsed { dst_mac: mac([0xff; 6]), ..other };
    for role in ROLES {
        for (p, f, quiet) in [
            (&esp, facts(true, false, true, true), Shunt::Redirected),
            (&of_kind(Kind::NattEsp, 17), facts(true, false, true, true), Shunt::Redirected),
            (&of_kind(Kind::NattIke, 17), facts(false, false, true, true), Shunt::NotVirtualMac),
            (&of_kind(Kind::Keepalive, 17), facts(true, true, true, true), Shunt::Loop),
            (&other, facts(true, false, true, false), Shunt::Redirected),
            (&esp, facts(true, false, false, true), Shunt::NoPartner),
            (&esp, facts(true, true, true, true), Shunt::Loop),
            (&esp, facts(false, false, true, true), Shunt::NotVirtualMac),
            (&esp, facts(false, true, true, true), Shunt::NotVirtualMac),
            (&Parsed { dst_mac: mac([0xff; 6]), ..esp }, facts(false, false, true, true), Shunt::NotVirtualMac),
            (&esp, facts(false, false, true, false), Shunt::Pass),
            (&other, facts(false, false, true, true), Shunt::Pass),
            (&group, facts(false, false, true, true), Shunt::Group),
        ] {
            let expected = if role.takes() { Shunt::Pass } else { quiet };
            assert_eq!(verdict::shunt(p, role, f), expected, "{role:?} {f:?} {:?}", p.kind);
        }
    }
}

#[test]
fn nothing_of_the_virtual_addresses_leaves_without_the_role() {
    let vip = GuardFacts { from_virtual_mac: false, from_vip: true, arp_mac_matches: true, outside: true };
    let real = GuardFacts { from_vip: false, ..vip };
    let vmac = GuardFacts { from_virtual_mac: true, ..real };
    let hello = Parsed { hsrp_state: 16, ..of_kind(Kind::Hsrp, 17) };
    let resign = Parsed { hsrp_opcode: 2, ..hello };
    let standby = Parsed { hsrp_state: 8, ..hello };
    use Guard as G;
    // Reasons in the order of ROLES: quiet, armed, active, draining.
    for (name, p, facts, expected) in [
        ("ESP", of_kind(Kind::Esp, 50), vip, [G::EspRole, G::Esp, G::Esp, G::Esp]),
        ("AH", of_kind(Kind::Ah, 51), vip, [G::EspRole, G::Esp, G::Esp, G::Esp]),
        ("NAT-T", of_kind(Kind::NattEsp, 17), vip, [G::EspRole, G::Esp, G::Esp, G::Esp]),
        ("fragment", of_kind(Kind::LaterFragment, 50), vip, [G::EspRole, G::EspFragment, G::EspFragment, G::EspFragment]),
        ("IKE", of_kind(Kind::Ike, 17), vip, [G::IkeRole, G::Ike, G::Ike, G::IkeRole]),
        ("IKE 4500", of_kind(Kind::NattIke, 17), vip, [G::IkeRole, G::Ike, G::Ike, G::IkeRole]),
        ("keepalive", of_kind(Kind::Keepalive, 17), vip, [G::IkeRole, G::Ike, G::Ike, G::IkeRole]),
        ("ARP", of_kind(Kind::Arp, 0), vip, [G::ArpRole, G::ArpRole, G::Arp, G::ArpRole]),
        (
            "ARP, own MAC",
            of_kind(Kind::Arp, 0),
            GuardFacts { arp_mac_matches: false, ..vip },
            [G::ArpRole, G::ArpRole, G::ArpForeignMac, G::ArpRole],
        ),
        ("malformed", of_kind(Kind::Truncated, 50), vip, [G::Malformed; 4]),
        ("ARP of others", of_kind(Kind::Arp, 0), real, [G::Pass; 4]),
        ("virtual MAC", of_kind(Kind::Other, 6), vmac, [G::VirtualMac, G::VirtualMac, G::Pass, G::VirtualMac]),
        ("hello", hello, vmac, [G::HsrpRole, G::HsrpRole, G::Hsrp, G::HsrpRole]),
        ("hello, own MAC", hello, real, [G::HsrpRole, G::HsrpRole, G::Hsrp, G::HsrpRole]),
        ("resign", resign, real, [G::Hsrp; 4]),
        ("standby hello", standby, real, [G::Hsrp; 4]),
        ("transit ESP", of_kind(Kind::Esp, 50), real, [G::Pass; 4]),
    ] {
        for (role, reason) in ROLES.into_iter().zip(expected) {
            assert_eq!(verdict::guard(&p, role, facts, |_, _| Lease::Inside, || false), reason, "{name} {role:?}");
        }
    }
    let esp = of_kind(Kind::Esp, 50);
    assert_eq!(verdict::guard(&esp, RoleNow::Active, vip, |_, _| Lease::None, || false), G::NoLease);
    assert_eq!(verdict::guard(&esp, RoleNow::Active, vip, |_, _| Lease::Outside, || false), G::OutsideLease);
}

#[test]
fn clear_text_of_a_protected_flow_is_dropped_outside_only() {
    let real = GuardFacts { from_virtual_mac: false, from_vip: false, arp_mac_matches: false, outside: true };
    let run = |p: &Parsed, facts| verdict::guard(p, RoleNow::Active, facts, |_, _| Lease::Inside, || true);
    for kind in [Kind::Other, Kind::LaterFragment, Kind::Truncated, Kind::BadLength, Kind::Ike, Kind::NattEsp] {
        assert_eq!(run(&of_kind(kind, 17), real), Guard::ClearText, "{kind:?}");
    }
    assert_eq!(run(&of_kind(Kind::Other, 6), GuardFacts { outside: false, ..real }), Guard::Pass);
    assert_eq!(run(&of_kind(Kind::Esp, 50), real), Guard::Pass);
    assert_eq!(run(&of_kind(Kind::Arp, 0), real), Guard::Pass);
    assert_eq!(run(&of_kind(Kind::Ike, 17), GuardFacts { from_vip: true, ..real }), Guard::Ike);
    assert_eq!(run(&of_kind(Kind::Other, 17), GuardFacts { from_vip: true, ..real }), Guard::ClearText);
    assert_eq!(run(&of_kind(Kind::Hsrp, 17), real), Guard::Hsrp);
}

#[test]
fn virtual_macs_belong_to_a_device() {
    let mut device = Device { ifindex: 3, ..Device::default() };
    for group in [0_u8, 63, 64, 130, 255] {
        device.groups[usize::from(group >> 6)] |= 1 << (group & 63);
    }
    for group in 0..=255_u8 {
        let address = mac([0, 0, 0x0c, 0x07, 0xac, group]);
        assert_eq!(verdict::virtual_mac_on(&device, address), [0, 63, 64, 130, 255].contains(&group), "{group}");
        assert!(verdict::is_virtual_mac(address, group.into()));
    }
    assert!(!verdict::virtual_mac_on(&device, mac([0, 0, 0x0c, 0x07, 0xad, 0])));
    assert!(!verdict::virtual_mac_on(&device, mac([1, 0, 0x0c, 0x07, 0xac, 0])));
}

#[test]
fn reason_names_are_unique() {
    let names: [Vec<&str>; 3] = [
        Classify::ALL.iter().map(|r| r.name()).collect(),
        Shunt::ALL.iter().map(|r| r.name()).collect(),
        Guard::ALL.iter().map(|r| r.name()).collect(),
    ];
    for mut names in names {
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
    assert!(Classify::ALL.iter().enumerate().all(|(i, r)| *r as usize == i));
    assert_eq!(Shunt::Redirected.action(), Action::Redirect);
}

proptest! {
    /// Whatever bytes come: no panic, and what is read lies inside the frame.
    #[test]
    fn random_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..160), out in any::<bool>()) {
        let direction = if out { Direction::Out } else { Direction::In };
        let p = parse(&&frame[..], direction);
        prop_assert!(p.kind == Kind::NotIp || frame.len() >= 14);
        if matches!(p.kind, Kind::Esp | Kind::Ah | Kind::NattEsp | Kind::Ike | Kind::NattIke) {
            prop_assert!(p.ip_len as usize + 14 <= frame.len());
        }
    }

    /// The same with a plausible start, so that the deep paths are reached, cut and damaged anywhere.
    #[test]
    fn damaged_packets_never_panic(
        proto in prop_oneof![Just(50_u8), Just(51), Just(17), Just(6)],
        port in prop_oneof![Just(500_u16), Just(4500), Just(1985), any::<u16>()],
        options in 0..=10_usize,
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        cut in any::<prop::sample::Index>(),
        damage in any::<(prop::sample::Index, u8)>(),
        takes in any::<bool>(),
    ) {
        let l4 = if proto == 17 { udp(port, port, &payload) } else { payload };
        let mut frame = eth(&[], 0x0800, &ipv4(proto, 0, options * 4, &l4));
        let at = damage.0.index(frame.len());
        frame[at] = damage.1;
        frame.truncate(cut.index(frame.len() + 1));
        let p = parse(&&frame[..], Direction::In);
        let role = if takes { RoleNow::Active } else { RoleNow::Quiet };
        let reason = verdict::classify(&p, role, true, |_, _| Inbound::Known);
        // A quiet node's kernel sees no IPsec: what it passes is a stray for `shunt`, or none at all.
        if !takes && p.ipsec() {
            prop_assert!(reason == Classify::Stray || reason.action() == Action::Drop);
        }
    }

    /// Tables find a layout for any set of keys of the sizes allowed.
    #[test]
    fn tables_have_a_layout(keys in proptest::collection::hash_set(any::<u32>(), 0..=32), bank in 0..2_u32) {
        let keys: Vec<u32> = keys.into_iter().collect();
        let m = multiplier(&keys, 256).expect("a layout");
        let mut slots: Vec<u32> = keys.iter().map(|&k| slot(k, m, 256)).collect();
        slots.sort_unstable();
        slots.dedup();
        prop_assert_eq!(slots.len(), keys.len());
        let table = Table { multiplier: m, bank };
        prop_assert!(keys.iter().all(|&k| table.index(k, 256) / 256 == bank));
    }
}
