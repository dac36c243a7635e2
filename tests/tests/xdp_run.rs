//! The programs on this machine's kernel: a table of packets through `BPF_PROG_TEST_RUN`, and live on veth pairs in network
//! namespaces. Needs CAP_BPF and CAP_NET_ADMIN: without them it fails.

#![expect(clippy::unwrap_used, reason = "tests")]

mod xdp;

use gateway_common::abi::{PROGRAM_CLASSIFY, PROGRAM_GUARD, PROGRAM_SHUNT, Program, REDIRECT_MARK};
use gateway_common::reason::{Classify, Guard, Shunt};
use gateway_user::config::{DataplaneConfig, XdpMode};
use gateway_user::dataplane::{DataplaneAdapter, RunInput};
use gateway_user::id::{Epoch, Spi};
use gateway_user::ports::{Dataplane, Partner, PathRole, RoleWord};
use gateway_user::sad::Selector;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use xdp::lab::{Lab, Sniffer};
use xdp::packet::{self as pk, Frame};

/// Loopback: where test runs happen.
const LO: u32 = 1;
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const PARTNER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xcc];
const VMAC: [u8; 6] = [0, 0, 0x0c, 7, 0xac, 2];
const FOREIGN_VMAC: [u8; 6] = [0, 0, 0x0c, 7, 0xac, 3];
const BROADCAST: [u8; 6] = [0xff; 6];
const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 9);
/// Index 5 of the table.
const SPI_IN: u32 = 0x8010_0005;
const SPI_OUT: u32 = 0xc0de_0001;
/// Index 9; extended sequence numbers.
const SPI_IN_ESN: u32 = 0x8010_0009;
const SPI_OUT_ESN: u32 = 0xc0de_0055;
const WRAP: u64 = 1 << 32;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_OK: u32 = 0;
const TC_SHOT: u32 = 2;
const TC_REDIRECT: u32 = 7;

fn word(role: PathRole, lease_until_ns: u64) -> RoleWord {
    RoleWord { role, epoch: Epoch(4), lease_until_ns }
}

/// A data path with one outside device, one VIP (group 2), one SA each way, one protected flow.
fn loaded() -> DataplaneAdapter {
    let mut dp = DataplaneAdapter::open_detached(1024, false, &[("lo", LO, OWN_MAC, true)]).unwrap();
    dp.set_vips("lo", &[(VIP, 2)]).unwrap();
    dp.set_partner("lo", Some(Partner { mac: PARTNER_MAC })).unwrap();
    dp.set_inbound(Spi(SPI_IN), VIP.into(), 100, false).unwrap();
    dp.set_outbound(Spi(SPI_OUT), PEER.into(), 1000, 2000, false).unwrap();
    dp.set_inbound(Spi(SPI_IN_ESN), VIP.into(), WRAP + 100, true).unwrap();
    dp.set_outbound(Spi(SPI_OUT_ESN), PEER.into(), WRAP - 10, WRAP + 10, true).unwrap();
    let net = |a: [u8; 4], prefix| Selector::net4(a.into(), prefix);
    dp.set_protected(
        "lo",
        &[
            (net([10, 0, 0, 0], 8), net([192, 168, 0, 0], 16)),
            (Selector { proto: 6, port: 80, ..net([172, 16, 0, 0], 12) }, net([192, 168, 7, 0], 24)),
        ],
    )
    .unwrap();
    dp
}

fn counts(dp: &mut DataplaneAdapter) -> BTreeMap<(&'static str, &'static str), u64> {
    dp.reasons().unwrap().into_iter().map(|r| ((r.program, r.reason), r.packets)).collect()
}

/// The reasons that one run counted.
fn counted(
    before: &BTreeMap<(&'static str, &'static str), u64>,
    after: &BTreeMap<(&'static str, &'static str), u64>,
) -> Vec<(&'static str, &'static str)> {
    let mut more = Vec::new();
    for (key, n) in after {
        let old = before.get(key).copied().unwrap_or(0);
        assert!(*n >= old, "{key:?} went back");
        more.extend(std::iter::repeat_n(*key, (n - old) as usize));
    }
    more
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Role {
    Standby,
    Armed,
    Active,
    Draining,
    Expired,
}

fn set_role(dp: &mut DataplaneAdapter, role: Role) {
    dp.set_role(match role {
        Role::Standby => word(PathRole::Standby, u64::MAX),
        Role::Armed => word(PathRole::Armed, u64::MAX),
        Role::Active => word(PathRole::Active, u64::MAX),
        Role::Draining => word(PathRole::Draining, u64::MAX),
        // One nanosecond after boot.
        Role::Expired => word(PathRole::Active, 1),
    })
    .unwrap();
}

fn esp_in(seq: u32) -> Frame {
    pk::eth(VMAC, PEER_MAC).ipv4(PEER, VIP, 50, &pk::esp(SPI_IN, seq))
}

fn natt(payload: &[u8]) -> Frame {
    pk::eth(VMAC, PEER_MAC).ipv4(PEER, VIP, 17, &pk::udp(31_000, 4500, payload))
}

fn esp_of(spi: u32, seq: u32) -> Frame {
    pk::eth(PEER_MAC, OWN_MAC).ipv4(VIP, PEER, 50, &pk::esp(spi, seq))
}

fn esp_out(seq: u32) -> Frame {
    esp_of(SPI_OUT, seq)
}

fn ike(src: Ipv4Addr, dst: Ipv4Addr, port: u16) -> Frame {
    let payload = if port == 500 { vec![1; 28] } else { [vec![0; 4], vec![1; 28]].concat() };
    pk::eth(VMAC, PEER_MAC).ipv4(src, dst, 17, &pk::udp(port, port, &payload))
}

/// (program, name, frame, mark, role, verdict, reason)
type Row = (Program, &'static str, Frame, u32, Role, u32, &'static str);

fn classify_rows() -> Vec<Row> {
    use Role::{Active, Armed, Draining, Expired, Standby};
    let row = |name, frame, role, verdict, reason: Classify| (Program::Classify, name, frame, 0, role, verdict, reason.name());
    let to_vip = |proto, payload: &[u8]| pk::eth(VMAC, PEER_MAC).ipv4(PEER, VIP, proto, payload);
    let keepalive = to_vip(17, &pk::udp(4500, 4500, &[0xff]));
    vec![
        row("ARP", pk::eth(BROADCAST, PEER_MAC).arp(PEER_MAC, PEER, VIP), Active, XDP_PASS, Classify::NotIp),
        row("IPv6", pk::eth(VMAC, PEER_MAC).raw(0x86dd, &[0x60; 40]), Active, XDP_PASS, Classify::Ipv6),
        row("to our own address", pk::eth(OWN_MAC, PEER_MAC).ipv4(PEER, OWN, 50, &pk::esp(7000, 1)), Active, XDP_PASS, Classify::NotForVip),
        row("cut IP header", esp_in(200).cut(14 + 19), Active, XDP_PASS, Classify::HeaderTruncated),
        row("ping", to_vip(1, &[8, 0, 0, 0]), Active, XDP_PASS, Classify::Other),
        row("ping at standby", to_vip(1, &[8, 0, 0, 0]), Standby, XDP_PASS, Classify::Other),
        row("ESP", esp_in(101), Active, XDP_PASS, Classify::Known),
        row("ESP, armed", esp_in(102), Armed, XDP_PASS, Classify::Known),
        row(
            "ESP behind options",
            pk::eth(VMAC, PEER_MAC).ipv4_with(PEER, VIP, 50, 0, 40, &pk::esp(SPI_IN, 103)),
            Active,
            XDP_PASS,
            Classify::Known,
        ),
        row("ESP, one tag", esp_in(104).tagged(&[0x8100]), Active, XDP_PASS, Classify::Known),
        row("ESP, two tags", esp_in(105).tagged(&[0x88a8, 0x8100]), Active, XDP_PASS, Classify::Known),
        row(
            "ESP, first fragment",
            pk::eth(VMAC, PEER_MAC).ipv4_with(PEER, VIP, 50, 0x2000, 0, &pk::esp(SPI_IN, 106)),
            Active,
            XDP_PASS,
            Classify::Known,
        ),
        row("AH of an unknown SA", to_vip(51, &[4, 4, 0, 0, 0x80, 0x10, 0, 6, 0, 0, 1, 1]), Active, XDP_DROP, Classify::UnknownSpi),
        row("NAT-T ESP", to_vip(17, &pk::udp(4500, 4500, &pk::esp(SPI_IN, 107))), Active, XDP_PASS, Classify::KnownNatt),
        row("IKE", ike(PEER, VIP, 500), Active, XDP_PASS, Classify::Ike),
        row("IKE on 4500", ike(PEER, VIP, 4500), Active, XDP_PASS, Classify::IkeNatt),
        row("keepalive", keepalive.clone(), Active, XDP_PASS, Classify::Keepalive),
        row("later fragment", pk::eth(VMAC, PEER_MAC).ipv4_with(PEER, VIP, 50, 0x2001, 0, &[0; 16]), Active, XDP_PASS, Classify::Fragment),
        row("ESP at standby", esp_in(200), Standby, XDP_PASS, Classify::Stray),
        row("ESP, draining", esp_in(200), Draining, XDP_PASS, Classify::Stray),
        row("ESP, lease run out", esp_in(200), Expired, XDP_PASS, Classify::Stray),
        row("IKE at standby", ike(PEER, VIP, 500), Standby, XDP_PASS, Classify::Stray),
        row("keepalive at standby", keepalive, Standby, XDP_PASS, Classify::Stray),
        row("unknown SPI", to_vip(50, &pk::esp(SPI_IN + 1, 200)), Active, XDP_DROP, Classify::UnknownSpi),
        row("same index, other generation", to_vip(50, &pk::esp(SPI_IN + (1 << 20), 200)), Active, XDP_DROP, Classify::UnknownSpi),
        row("index beyond the table", to_vip(50, &pk::esp(SPI_IN + 1024, 200)), Active, XDP_DROP, Classify::UnknownSpi),
        row("at the floor", esp_in(100), Active, XDP_DROP, Classify::BelowFloor),
        row("NAT-T below the floor", to_vip(17, &pk::udp(4500, 4500, &pk::esp(SPI_IN, 1))), Active, XDP_DROP, Classify::BelowFloor),
        row("long number at the floor", to_vip(50, &pk::esp(SPI_IN_ESN, 100)), Active, XDP_DROP, Classify::BelowFloor),
        row("long number, floor across the wrap", to_vip(50, &pk::esp(SPI_IN_ESN, u32::MAX)), Active, XDP_DROP, Classify::BelowFloor),
        row("long number above the floor", to_vip(50, &pk::esp(SPI_IN_ESN, 101)), Active, XDP_PASS, Classify::Known),
        row("long number half a round ahead", to_vip(50, &pk::esp(SPI_IN_ESN, 1 << 31)), Active, XDP_PASS, Classify::Known),
        row("long number in UDP", natt(&pk::esp(SPI_IN_ESN, 101)), Active, XDP_PASS, Classify::KnownNatt),
        row("long number in UDP at the floor", natt(&pk::esp(SPI_IN_ESN, 100)), Active, XDP_DROP, Classify::BelowFloor),
        row("NAT-T, unknown SPI", natt(&pk::esp(SPI_IN + 1, 200)), Active, XDP_DROP, Classify::UnknownSpi),
        row("NAT-T, reserved SPI", natt(&pk::esp(255, 200)), Active, XDP_DROP, Classify::ReservedSpi),
        row("NAT-T at standby", natt(&pk::esp(SPI_IN, 200)), Standby, XDP_PASS, Classify::Stray),
        row("NAT-T, armed", natt(&pk::esp(SPI_IN, 200)), Armed, XDP_PASS, Classify::KnownNatt),
        row("IKE on 4500 at standby", natt(&[0; 32]), Standby, XDP_PASS, Classify::Stray),
        row("NAT-T of 7 bytes", natt(&[0x80, 0x10, 0, 5, 0, 0, 1]), Active, XDP_DROP, Classify::Truncated),
        row("one byte that is no keepalive", natt(&[0xfe]), Active, XDP_DROP, Classify::Truncated),
        row("ESP of 7 bytes", to_vip(50, &[0x80, 0x10, 0, 5, 0, 0, 1]), Active, XDP_DROP, Classify::Truncated),
        row("cut behind the IP header", esp_in(200).cut(14 + 22), Active, XDP_DROP, Classify::Truncated),
        row("cut, at standby", esp_in(200).cut(14 + 22), Standby, XDP_DROP, Classify::Truncated),
        row(
            "UDP length lies",
            to_vip(17, &{
                let mut u = pk::udp(500, 500, &[1; 28]);
                u[5] = 99;
                u
            }),
            Active,
            XDP_DROP,
            Classify::BadLength,
        ),
        row("IP header length lies", esp_in(200).with_byte(14, 0x44), Active, XDP_DROP, Classify::BadLength),
        row("reserved SPI", to_vip(50, &pk::esp(255, 200)), Active, XDP_DROP, Classify::ReservedSpi),
    ]
}

fn shunt_rows() -> Vec<Row> {
    use Role::{Active, Armed, Draining, Expired, Standby};
    let row = |name, frame, role, verdict, reason: Shunt| (Program::Shunt, name, frame, 0, role, verdict, reason.name());
    let plain = |dst_mac, src_mac| pk::eth(dst_mac, src_mac).ipv4(FAR, INSIDE, 6, &[0; 20]);
    let stray_to = |dst_mac, src_mac| pk::eth(dst_mac, src_mac).ipv4(PEER, VIP, 50, &pk::esp(SPI_IN, 200));
    vec![
        row("ESP while active", esp_in(200), Active, TC_OK, Shunt::Pass),
        row("ESP while armed", esp_in(200), Armed, TC_OK, Shunt::Pass),
        row("to our own MAC", plain(OWN_MAC, PEER_MAC), Standby, TC_OK, Shunt::Pass),
        row("another pair's virtual MAC", plain(FOREIGN_VMAC, PEER_MAC), Standby, TC_OK, Shunt::Pass),
        row("ARP broadcast", pk::eth(BROADCAST, PEER_MAC).arp(PEER_MAC, PEER, VIP), Standby, TC_OK, Shunt::Group),
        row("HSRP", pk::eth([1, 0, 0x5e, 0, 0, 2], VMAC).hsrp(PEER, 0, 16), Standby, TC_OK, Shunt::Group),
        row("stray ESP", esp_in(200), Standby, TC_REDIRECT, Shunt::Redirected),
        row("stray NAT-T ESP", natt(&pk::esp(SPI_IN, 200)), Standby, TC_REDIRECT, Shunt::Redirected),
        row("stray NAT-T ESP, draining", natt(&pk::esp(SPI_IN, 200)), Draining, TC_REDIRECT, Shunt::Redirected),
        row("stray IKE on 4500", natt(&[0; 32]), Standby, TC_REDIRECT, Shunt::Redirected),
        row("stray keepalive", natt(&[0xff]), Standby, TC_REDIRECT, Shunt::Redirected),
        row("stray ESP, draining", esp_in(200), Draining, TC_REDIRECT, Shunt::Redirected),
        row("stray ESP, lease run out", esp_in(200), Expired, TC_REDIRECT, Shunt::Redirected),
        row("plain packet to the virtual MAC", plain(VMAC, PEER_MAC), Standby, TC_REDIRECT, Shunt::Redirected),
        row("from the partner", stray_to(VMAC, PARTNER_MAC), Standby, TC_SHOT, Shunt::Loop),
        row("ESP to our own MAC", stray_to(OWN_MAC, PEER_MAC), Standby, TC_SHOT, Shunt::NotVirtualMac),
        row("ESP in a broadcast", stray_to(BROADCAST, PEER_MAC), Standby, TC_SHOT, Shunt::NotVirtualMac),
        row(
            "IKE to our own MAC",
            {
                let mut f = ike(PEER, VIP, 500);
                f.0[..6].copy_from_slice(&OWN_MAC);
                f
            },
            Draining,
            TC_SHOT,
            Shunt::NotVirtualMac,
        ),
    ]
}

fn guard_rows() -> Vec<Row> {
    use Role::{Active, Armed, Draining, Expired, Standby};
    let marked = |name, frame, mark, role, verdict, reason: Guard| (Program::Guard, name, frame, mark, role, verdict, reason.name());
    let row = |name, frame, role, verdict, reason| marked(name, frame, 0, role, verdict, reason);
    let from_vip = |payload: &[u8]| pk::eth(PEER_MAC, OWN_MAC).ipv4(VIP, PEER, 17, payload);
    let clear = |src, proto, payload: &[u8]| pk::eth(PEER_MAC, OWN_MAC).ipv4(src, FAR, proto, payload);
    let hello = |src, state| pk::eth([1, 0, 0x5e, 0, 0, 2], src).hsrp(OWN, 0, state);
    let tcp = |port: u16| [port.to_be_bytes().to_vec(), vec![0; 18]].concat();
    vec![
        row("own traffic", pk::eth(PEER_MAC, OWN_MAC).ipv4(OWN, PEER, 6, &[0; 20]), Standby, TC_OK, Guard::Pass),
        marked("redirected", esp_out(1), REDIRECT_MARK, Standby, TC_OK, Guard::Redirected),
        row("ESP", esp_out(1001), Active, TC_OK, Guard::Esp),
        row("ESP, armed", esp_out(1002), Armed, TC_OK, Guard::Esp),
        row("ESP, draining", esp_out(1003), Draining, TC_OK, Guard::Esp),
        row("last of the lease", esp_out(2000), Active, TC_OK, Guard::Esp),
        row("NAT-T ESP", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT, 1500))), Active, TC_OK, Guard::Esp),
        row("NAT-T ESP outside the lease", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT, 2001))), Active, TC_SHOT, Guard::OutsideLease),
        row("NAT-T ESP, unknown SA", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT + 9, 1500))), Active, TC_SHOT, Guard::NoLease),
        row("NAT-T ESP at standby", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT, 1500))), Standby, TC_SHOT, Guard::EspRole),
        row("NAT-T ESP, draining", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT, 1500))), Draining, TC_OK, Guard::Esp),
        row("IKE on 4500 at standby", from_vip(&pk::udp(4500, 31_000, &[0; 32])), Standby, TC_SHOT, Guard::IkeRole),
        row("keepalive of our own", from_vip(&pk::udp(4500, 31_000, &[0xff])), Active, TC_OK, Guard::Ike),
        row("keepalive at standby", from_vip(&pk::udp(4500, 31_000, &[0xff])), Standby, TC_SHOT, Guard::IkeRole),
        row("long number before the wrap", esp_of(SPI_OUT_ESN, u32::MAX), Active, TC_OK, Guard::Esp),
        row("long number behind the wrap", esp_of(SPI_OUT_ESN, 10), Active, TC_OK, Guard::Esp),
        row("long number at the lower end", esp_of(SPI_OUT_ESN, u32::MAX - 9), Active, TC_SHOT, Guard::OutsideLease),
        row("long number above the upper end", esp_of(SPI_OUT_ESN, 11), Active, TC_SHOT, Guard::OutsideLease),
        row("long number in UDP", from_vip(&pk::udp(4500, 31_000, &pk::esp(SPI_OUT_ESN, 0))), Active, TC_OK, Guard::Esp),
        row("ESP at standby", esp_out(1001), Standby, TC_SHOT, Guard::EspRole),
        row("ESP, lease of the role run out", esp_out(1001), Expired, TC_SHOT, Guard::EspRole),
        row("AH at standby", pk::eth(PEER_MAC, OWN_MAC).ipv4(VIP, PEER, 51, &[0; 12]), Standby, TC_SHOT, Guard::EspRole),
        row("later fragment", pk::eth(PEER_MAC, OWN_MAC).ipv4_with(VIP, PEER, 50, 0x2001, 0, &[0; 16]), Active, TC_OK, Guard::EspFragment),
        row("IKE", from_vip(&pk::udp(500, 500, &[1; 28])), Active, TC_OK, Guard::Ike),
        row("IKE to another port", from_vip(&pk::udp(4500, 31_000, &[0; 32])), Active, TC_OK, Guard::Ike),
        row("IKE at standby", from_vip(&pk::udp(500, 500, &[1; 28])), Standby, TC_SHOT, Guard::IkeRole),
        row("IKE, draining", from_vip(&pk::udp(500, 500, &[1; 28])), Draining, TC_SHOT, Guard::IkeRole),
        row("gratuitous ARP", pk::eth(BROADCAST, VMAC).arp(VMAC, VIP, VIP), Active, TC_OK, Guard::Arp),
        row("gratuitous ARP, armed", pk::eth(BROADCAST, VMAC).arp(VMAC, VIP, VIP), Armed, TC_SHOT, Guard::ArpRole),
        row("ARP for the VIP from our own MAC", pk::eth(BROADCAST, OWN_MAC).arp(OWN_MAC, VIP, PEER), Active, TC_OK, Guard::ArpForeignMac),
        row("ARP for the VIP at standby", pk::eth(BROADCAST, OWN_MAC).arp(OWN_MAC, VIP, PEER), Standby, TC_SHOT, Guard::ArpRole),
        row("hello of the active", hello(VMAC, 16), Active, TC_OK, Guard::Hsrp),
        row("hello of a standby", hello(OWN_MAC, 8), Standby, TC_OK, Guard::Hsrp),
        row("hello that lies", hello(OWN_MAC, 16), Standby, TC_SHOT, Guard::HsrpRole),
        row("hello, lease run out", hello(VMAC, 16), Expired, TC_SHOT, Guard::HsrpRole),
        row("virtual MAC at standby", pk::eth(PEER_MAC, VMAC).ipv4(OWN, PEER, 6, &[0; 20]), Standby, TC_SHOT, Guard::VirtualMac),
        row("another pair's virtual MAC", pk::eth(PEER_MAC, FOREIGN_VMAC).ipv4(OWN, PEER, 6, &[0; 20]), Standby, TC_OK, Guard::Pass),
        row("unknown SA", pk::eth(PEER_MAC, OWN_MAC).ipv4(VIP, PEER, 50, &pk::esp(SPI_OUT + 1, 1001)), Active, TC_SHOT, Guard::NoLease),
        row(
            "right SPI, other peer",
            pk::eth(PEER_MAC, OWN_MAC).ipv4(VIP, FAR, 50, &pk::esp(SPI_OUT, 1001)),
            Active,
            TC_SHOT,
            Guard::NoLease,
        ),
        row("at the lower end", esp_out(1000), Active, TC_SHOT, Guard::OutsideLease),
        row("above the upper end", esp_out(2001), Active, TC_SHOT, Guard::OutsideLease),
        row("clear text", clear(INSIDE, 6, &tcp(99)), Active, TC_SHOT, Guard::ClearText),
        row(
            "clear text, fragment",
            pk::eth(PEER_MAC, OWN_MAC).ipv4_with(INSIDE, FAR, 6, 0x2001, 0, &[0; 16]),
            Active,
            TC_SHOT,
            Guard::ClearText,
        ),
        row("clear text, selector with a port", clear(Ipv4Addr::new(172, 16, 0, 1), 6, &tcp(80)), Standby, TC_SHOT, Guard::ClearText),
        row("another port", clear(Ipv4Addr::new(172, 16, 0, 1), 6, &tcp(81)), Active, TC_OK, Guard::Pass),
        row("no flow", clear(Ipv4Addr::new(11, 1, 2, 3), 6, &tcp(80)), Active, TC_OK, Guard::Pass),
        row("cut ESP from the VIP", esp_out(1001).cut(14 + 22), Active, TC_SHOT, Guard::Malformed),
    ]
}

fn run_row(dp: &mut DataplaneAdapter, row: &Row) -> Vec<u8> {
    let (program, name, frame, mark, role, verdict, reason) = row;
    set_role(dp, *role);
    let before = counts(dp);
    let out = dp.run(RunInput { program: *program, frame: &frame.0, ifindex: 0, mark: *mark, repeat: 1 }).unwrap();
    let label = format!("{} {name:?} {role:?}", program.name());
    assert_eq!(counted(&before, &counts(dp)), [(program.name(), *reason)], "{label}");
    assert_eq!(out.verdict, *verdict, "{label}");
    out.frame
}

#[test]
fn every_packet_gets_its_verdict_and_reason() {
    let mut dp = loaded();
    let mut rows = classify_rows();
    rows.extend(shunt_rows());
    rows.extend(guard_rows());
    for row in &rows {
        let out = run_row(&mut dp, row);
        let mut expected = row.2.0.clone();
        if row.5 == TC_REDIRECT {
            expected[..6].copy_from_slice(&PARTNER_MAC);
            expected[6..12].copy_from_slice(&OWN_MAC);
        }
        assert_eq!(out, expected, "{} {:?}: the frame after", row.0.name(), row.1);
    }
    // Rows that need another set-up than the table's.
    let mut seen: Vec<(&str, &str)> = rows.iter().map(|r| (r.0.name(), r.6)).collect();
    dp.set_partner("lo", None).unwrap();
    let no_partner = (Program::Shunt, "no partner", esp_in(200), 0, Role::Standby, TC_SHOT, Shunt::NoPartner.name());
    run_row(&mut dp, &no_partner);
    seen.extend([(PROGRAM_SHUNT, Shunt::NoPartner.name()), (PROGRAM_SHUNT, Shunt::Classified.name())]);
    for (program, all) in [
        (PROGRAM_CLASSIFY, Classify::ALL.iter().map(|r| r.name()).collect::<Vec<_>>()),
        (PROGRAM_SHUNT, Shunt::ALL.iter().map(|r| r.name()).collect()),
        (PROGRAM_GUARD, Guard::ALL.iter().map(|r| r.name()).collect()),
    ] {
        for reason in all {
            // Only a kernel out of memory makes the rewrite fail.
            if reason != Shunt::Rewrite.name() {
                assert!(seen.contains(&(program, reason)), "no row for {program} {reason}");
            }
        }
    }
}

#[test]
fn without_xdp_shunt_classifies_and_counts_for_it() {
    let mut dp = loaded();
    dp.classify_in_shunt("lo").unwrap();
    for (name, frame, role, verdict, reasons) in [
        ("known", esp_in(101), Role::Active, TC_OK, [(PROGRAM_CLASSIFY, "known"), (PROGRAM_SHUNT, "pass")]),
        ("below the floor", esp_in(99), Role::Active, TC_SHOT, [(PROGRAM_CLASSIFY, "below_floor"), (PROGRAM_SHUNT, "classified")]),
        ("stray", esp_in(200), Role::Standby, TC_REDIRECT, [(PROGRAM_CLASSIFY, "stray"), (PROGRAM_SHUNT, "redirected")]),
    ] {
        set_role(&mut dp, role);
        let before = counts(&mut dp);
        let out = dp.run(RunInput { program: Program::Shunt, frame: &frame.0, ifindex: 0, mark: 0, repeat: 1 }).unwrap();
        assert_eq!((out.verdict, counted(&before, &counts(&mut dp))), (verdict, reasons.to_vec()), "{name}");
    }
}

#[test]
fn hints_count_what_passed() {
    let mut dp = loaded();
    set_role(&mut dp, Role::Active);
    let go = |dp: &mut DataplaneAdapter, program, frame: Frame| {
        dp.run(RunInput { program, frame: &frame.0, ifindex: 0, mark: 0, repeat: 1 }).unwrap();
    };
    for seq in [101, 105, 103, 90] {
        go(&mut dp, Program::Classify, esp_in(seq));
    }
    for seq in [1001, 1002, 5000] {
        go(&mut dp, Program::Guard, esp_out(seq));
    }
    let hints = dp.hints(Spi(SPI_IN), Spi(SPI_OUT), PEER.into()).unwrap();
    assert_eq!((hints.seq_in, hints.packets_in, hints.bytes_in), (105, 3, 3 * 36));
    assert_eq!((hints.seq_out, hints.packets_out, hints.bytes_out), (1002, 2, 2 * 36));
    // Raising the lease and the floor keeps the counts.
    dp.set_outbound(Spi(SPI_OUT), PEER.into(), 1000, 6000, false).unwrap();
    dp.set_inbound(Spi(SPI_IN), VIP.into(), 105, false).unwrap();
    go(&mut dp, Program::Guard, esp_out(5000));
    go(&mut dp, Program::Classify, esp_in(105));
    let hints = dp.hints(Spi(SPI_IN), Spi(SPI_OUT), PEER.into()).unwrap();
    assert_eq!((hints.packets_in, hints.packets_out, hints.seq_out), (3, 3, 5000));
    dp.remove_inbound(Spi(SPI_IN)).unwrap();
    dp.remove_outbound(Spi(SPI_OUT), PEER.into()).unwrap();
    assert_eq!(dp.hints(Spi(SPI_IN), Spi(SPI_OUT), PEER.into()).unwrap(), Default::default());
    // The index may be used again, but not by two.
    dp.set_inbound(Spi(SPI_IN + (3 << 20)), VIP.into(), 0, false).unwrap();
    assert!(dp.set_inbound(Spi(SPI_IN), VIP.into(), 0, false).is_err());
}

#[test]
fn tables_are_bounded_and_can_be_refilled() {
    let mut dp = loaded();
    let far = IpAddr::V4(FAR);
    // Two are in use already.
    for spi in 0..1022 {
        dp.set_outbound(Spi(0x1000 + spi), far, 0, 10, false).unwrap();
    }
    assert!(dp.set_outbound(Spi(0x9999), far, 0, 10, false).is_err());
    dp.remove_outbound(Spi(0x1000), far).unwrap();
    dp.set_outbound(Spi(0x9999), far, 0, 10, false).unwrap();
    let many: Vec<_> = (0..33).map(|i| (Ipv4Addr::new(203, 0, 113, i), i)).collect();
    assert!(dp.set_vips("lo", &many).is_err());
    dp.set_vips("lo", &many[..32]).unwrap();
    assert!(dp.set_vips("eth9", &[]).is_err());
    assert!(DataplaneAdapter::open_detached(1000, false, &[]).is_err());
    // Protected flows can be taken away again.
    set_role(&mut dp, Role::Active);
    let clear = pk::eth(PEER_MAC, OWN_MAC).ipv4(INSIDE, FAR, 6, &[0; 20]);
    let verdict = |dp: &mut DataplaneAdapter| {
        dp.run(RunInput { program: Program::Guard, frame: &clear.0, ifindex: 0, mark: 0, repeat: 1 }).unwrap().verdict
    };
    assert_eq!(verdict(&mut dp), TC_SHOT);
    dp.set_protected("lo", &[]).unwrap();
    assert_eq!(verdict(&mut dp), TC_OK);
}

#[test]
fn the_role_word_is_read_back() {
    let mut dp = DataplaneAdapter::open_detached(16, false, &[("lo", LO, OWN_MAC, true)]).unwrap();
    assert_eq!(dp.role().unwrap(), None);
    for role in [PathRole::Standby, PathRole::Armed, PathRole::Active, PathRole::Draining] {
        let word = word(role, 77);
        dp.set_role(word).unwrap();
        assert_eq!(dp.role().unwrap(), Some(word));
    }
}

#[test]
fn a_restart_adopts_and_strays_reach_the_partner() {
    let lab = Lab::new("xt");
    let _inside = lab.enter("gw");
    let config = DataplaneConfig { sa_max: 1024, xdp: XdpMode::Auto, pin_dir: lab.pin_dir(), log: true };
    let devices = [("out0".to_owned(), true), ("in0".to_owned(), false)];
    let fill = |dp: &mut DataplaneAdapter| {
        dp.set_vips("out0", &[(VIP, 2)]).unwrap();
        dp.set_vips("in0", &[(Ipv4Addr::new(10, 0, 0, 1), 1)]).unwrap();
        dp.set_partner("out0", Some(Partner { mac: lab.partner_mac() })).unwrap();
        dp.set_inbound(Spi(SPI_IN), VIP.into(), 100, false).unwrap();
        dp.set_outbound(Spi(SPI_OUT), PEER.into(), 1000, 2000, false).unwrap();
    };
    let stray = || esp_in(300);
    let get = |dp: &mut DataplaneAdapter, program, reason| counts(dp)[&(program, reason)];

    let mut dp = DataplaneAdapter::open(&config, &devices).unwrap();
    assert!(!dp.adopted());
    let attached: BTreeMap<_, _> = dp.attached().into_iter().collect();
    assert_eq!(attached["out0"], "native");
    fill(&mut dp);
    set_role(&mut dp, Role::Active);
    let mut in_gw = Sniffer::open("out0");
    lab.send("peer", "peer0", &esp_in(101).0);
    lab.send("peer", "peer0", &esp_in(50).0);
    lab.wait(|| get(&mut dp, PROGRAM_CLASSIFY, "known") == 1 && get(&mut dp, PROGRAM_CLASSIFY, "below_floor") == 1);
    assert!(in_gw.saw(&esp_in(101).0), "passed to the kernel");
    assert!(!in_gw.saw(&esp_in(50).0), "dropped before the kernel");
    let hints = dp.hints(Spi(SPI_IN), Spi(SPI_OUT), PEER.into()).unwrap();

    // As after SIGKILL: nothing is detached, everything goes on without a process.
    drop(dp);
    lab.send("peer", "peer0", &esp_in(102).0);
    let mut dp = DataplaneAdapter::open(&config, &devices).unwrap();
    assert!(dp.adopted());
    assert_eq!(dp.attached().into_iter().collect::<BTreeMap<_, _>>()["out0"], "native");
    assert_eq!(dp.role().unwrap(), Some(word(PathRole::Active, u64::MAX)));
    lab.wait(|| get(&mut dp, PROGRAM_CLASSIFY, "known") == 2);
    let after = dp.hints(Spi(SPI_IN), Spi(SPI_OUT), PEER.into()).unwrap();
    assert_eq!((after.packets_in, after.seq_in), (hints.packets_in + 1, 102));
    // The virtual addresses were adopted too, and one filter per side is left.
    lab.send("peer", "peer0", &esp_in(103).0);
    lab.wait(|| get(&mut dp, PROGRAM_CLASSIFY, "known") == 3);
    for side in ["ingress", "egress"] {
        for device in ["out0", "in0"] {
            assert_eq!(lab.filters(device, side), 1, "{device} {side}");
        }
    }

    // Standby: a stray goes to the partner, out of the same device, and not into this kernel.
    set_role(&mut dp, Role::Standby);
    let mut at_partner = lab.sniff("partner", "par0");
    lab.send("peer", "peer0", &stray().0);
    lab.wait(|| get(&mut dp, PROGRAM_SHUNT, "redirected") == 1);
    let mut expected = stray().0;
    expected[..6].copy_from_slice(&lab.partner_mac());
    expected[6..12].copy_from_slice(&lab.own_mac());
    assert!(at_partner.saw(&expected), "the partner got it");
    assert_eq!(get(&mut dp, PROGRAM_GUARD, "redirected"), 1);

    // Egress: nothing of the virtual address leaves.
    let before = get(&mut dp, PROGRAM_GUARD, "esp_role");
    lab.send("gw", "out0", &esp_out(1001).0);
    lab.wait(|| get(&mut dp, PROGRAM_GUARD, "esp_role") == before + 1);
    set_role(&mut dp, Role::Active);
    let mut at_peer = lab.sniff("peer", "peer0");
    lab.send("gw", "out0", &esp_out(1001).0);
    lab.wait(|| get(&mut dp, PROGRAM_GUARD, "esp") == 1);
    assert!(at_peer.saw(&esp_out(1001).0));

    // Another table size: replaced, the role starts unset, and traffic is classified at once.
    drop(dp);
    let larger = DataplaneConfig { sa_max: 2048, ..config.clone() };
    let mut dp = DataplaneAdapter::open(&larger, &devices).unwrap();
    assert!(!dp.adopted());
    assert_eq!(dp.role().unwrap(), None);
    fill(&mut dp);
    lab.send("peer", "peer0", &stray().0);
    lab.wait(|| get(&mut dp, PROGRAM_CLASSIFY, "stray") == 1);

    // A device that is no longer named is let go.
    drop(dp);
    let dp = DataplaneAdapter::open(&larger, &devices[..1]).unwrap();
    assert_eq!((lab.filters("in0", "egress"), lab.filters("out0", "egress")), (0, 1));
    dp.close_all().unwrap();
    assert_eq!((lab.filters("out0", "ingress"), lab.filters("out0", "egress")), (0, 0));
    assert!(!lab.has_xdp("out0"));
    assert_eq!(std::fs::read_dir(lab.pin_dir()).unwrap().count(), 0);
}

#[test]
fn where_there_is_no_native_xdp_tc_does_it_all() {
    let lab = Lab::new("xu");
    let _inside = lab.enter("gw");
    let mut config = DataplaneConfig { sa_max: 64, xdp: XdpMode::Generic, pin_dir: lab.pin_dir(), log: false };
    let devices = [("out0".to_owned(), true)];
    let fill = |dp: &mut DataplaneAdapter| {
        dp.set_vips("out0", &[(VIP, 2)]).unwrap();
        dp.set_partner("out0", Some(Partner { mac: lab.partner_mac() })).unwrap();
    };
    let unknown_and_stray = |dp: &mut DataplaneAdapter| {
        fill(dp);
        let before = counts(dp);
        set_role(dp, Role::Active);
        lab.send("peer", "peer0", &esp_in(9).0);
        lab.wait(|| counts(dp)[&(PROGRAM_CLASSIFY, "unknown_spi")] == before[&(PROGRAM_CLASSIFY, "unknown_spi")] + 1);
        set_role(dp, Role::Standby);
        let mut at_partner = lab.sniff("partner", "par0");
        lab.send("peer", "peer0", &esp_in(10).0);
        lab.wait(|| counts(dp)[&(PROGRAM_SHUNT, "redirected")] == before[&(PROGRAM_SHUNT, "redirected")] + 1);
        let mut expected = esp_in(10).0;
        expected[..6].copy_from_slice(&lab.partner_mac());
        expected[6..12].copy_from_slice(&lab.own_mac());
        assert!(at_partner.saw(&expected));
    };
    let mut dp = DataplaneAdapter::open(&config, &devices).unwrap();
    assert_eq!(dp.attached(), [("out0".to_owned(), "generic")]);
    unknown_and_stray(&mut dp);
    // To native, the same again, and back: each time one program, and nothing is counted twice.
    for (mode, name) in [(XdpMode::Native, "native"), (XdpMode::Auto, "native"), (XdpMode::Generic, "generic")] {
        drop(dp);
        config.xdp = mode;
        dp = DataplaneAdapter::open(&config, &devices).unwrap();
        assert!(dp.adopted());
        assert_eq!(dp.attached(), [("out0".to_owned(), name)]);
        assert_eq!(lab.has_xdp("out0"), name == "native");
        unknown_and_stray(&mut dp);
    }
    dp.close_all().unwrap();

    // Somebody else's program in native mode: tc classifies. In generic mode tc cannot be relied on, so that is refused.
    let foreign = lab.foreign_xdp("out0", true);
    config.xdp = XdpMode::Native;
    assert!(DataplaneAdapter::open(&config, &devices).is_err(), "native was asked for");
    config.xdp = XdpMode::Auto;
    let mut dp = DataplaneAdapter::open(&config, &devices).unwrap();
    assert_eq!(dp.attached(), [("out0".to_owned(), "generic")]);
    unknown_and_stray(&mut dp);
    drop((foreign, dp));
    let foreign = lab.foreign_xdp("out0", false);
    let error = DataplaneAdapter::open(&config, &devices).unwrap_err().to_string();
    assert!(error.contains("detach it"), "{error}");
    drop(foreign);
    DataplaneAdapter::flush(&config, &[]).unwrap();
    assert_eq!((lab.filters("out0", "ingress"), lab.filters("out0", "egress")), (0, 0));
}

#[test]
fn pins_outlive_a_private_mount_namespace() {
    let lab = Lab::new("xv");
    let name = lab.name("gw");
    let child = || {
        let status = std::process::Command::new("ip")
            .args(["netns", "exec", &name])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child_opens_in_a_private_mount_namespace", "--ignored"])
            .env("XDP_RUN_PIN_DIR", lab.pin_dir())
            .status()
            .unwrap();
        assert!(status.success());
    };
    child();
    assert!(lab.pin_dir().join("META").exists(), "pinned where it stays");
    assert!(lab.has_xdp("out0"));
    // The second one adopts what the first one, long gone, has left.
    child();
    let _inside = lab.enter("gw");
    let config = DataplaneConfig { sa_max: 64, xdp: XdpMode::Auto, pin_dir: lab.pin_dir(), log: false };
    let mut dp = DataplaneAdapter::open(&config, &[("out0".to_owned(), true)]).unwrap();
    assert!(dp.adopted());
    assert_eq!(dp.role().unwrap().map(|w| w.epoch), Some(Epoch(2)), "each of the two counted on");
    dp.close_all().unwrap();
}

#[test]
#[ignore = "run by pins_outlive_a_private_mount_namespace inside `ip netns exec`"]
fn child_opens_in_a_private_mount_namespace() {
    let pin_dir = std::env::var_os("XDP_RUN_PIN_DIR").unwrap().into();
    let config = DataplaneConfig { sa_max: 64, xdp: XdpMode::Auto, pin_dir, log: false };
    let mut dp = DataplaneAdapter::open(&config, &[("out0".to_owned(), true)]).unwrap();
    let epoch = dp.role().unwrap().map_or(0, |w| w.epoch.0);
    dp.set_role(RoleWord { role: PathRole::Standby, epoch: Epoch(epoch + 1), lease_until_ns: 0 }).unwrap();
}

#[test]
fn drops_are_logged_when_asked_for() {
    static LINES: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    struct Lines;
    struct Text(String);
    impl tracing::field::Visit for Text {
        fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!("{value:?}");
        }
    }
    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.target() == "gateway::bpf"
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            LINES.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    // The reader is another thread; no other test of this file looks at events.
    tracing::subscriber::set_global_default(Lines).unwrap();
    let lines = |with: &str| LINES.lock().unwrap().iter().filter(|l| l.contains(with)).count();
    let run = |log: bool, spi: u32, times: u32| {
        let mut dp = DataplaneAdapter::open_detached(16, log, &[("lo", LO, OWN_MAC, true)]).unwrap();
        dp.set_vips("lo", &[(VIP, 2)]).unwrap();
        set_role(&mut dp, Role::Active);
        let frame = pk::eth(VMAC, PEER_MAC).ipv4(PEER, VIP, 50, &pk::esp(spi, 7));
        dp.run(RunInput { program: Program::Classify, frame: &frame.0, ifindex: 0, mark: 0, repeat: times }).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
    };
    run(true, 0xabcd_0001, 1);
    assert_eq!(lines("src=198.51.100.7 dst=203.0.113.1 spi=abcd0001 seq=7"), 1);
    // 16, and each power of two up to 1024.
    run(true, 0xabcd_0002, 1024);
    assert_eq!(lines("spi=abcd0002"), 16 + 6);
    run(false, 0xabcd_0003, 1);
    assert_eq!(lines("spi=abcd0003"), 0);
}
