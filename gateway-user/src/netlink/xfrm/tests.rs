//! Byte tests of the codecs, and of what is decided before the kernel is asked.
#![cfg(target_endian = "little")]

use super::super::message::*;
use super::codec::*;
use super::events::event;
use super::policy::{self, BLOCK_BELOW, Dir, MARK_BLOCK, MARK_PROTECT, Plan, PolicyBody, PolicyKey, Tmpl};
use super::view::*;
use crate::crypto::{CipherAlg, IntegAlg, Secret};
use crate::id::IkeVersion;
use crate::id::Spi;
use crate::ike::Acquire;
use crate::ports::*;
use crate::sad::{ChildSa, EspKeys, Lifetime, Mode, Selector};
use hex_literal::hex;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub(super) fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn net(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Selector {
    Selector { addr: v4(a, b, c, d), prefix, proto: 0, port: 0 }
}

pub(super) fn keys(encr: usize, integ: usize) -> EspKeys {
    EspKeys { encr: Secret::new((1..=encr as u8).collect()), integ: Secret::new(vec![0xaa; integ]) }
}

pub(super) fn child() -> ChildSa {
    ChildSa {
        spi_in: Spi(0x8001_0203),
        spi_out: Spi(0x0a0b_0c0d),
        isakmp: Default::default(),
        map: "VPN".into(),
        map_seq: 10,
        ace: 0,
        digest: Default::default(),
        local: v4(192, 0, 2, 1),
        peer: v4(198, 51, 100, 9),
        ts_local: net(10, 1, 0, 0, 16),
        ts_remote: net(10, 2, 0, 0, 16),
        mode: Mode::Tunnel,
        encr: CipherAlg::Aes128,
        integ: Some(IntegAlg::HmacSha256),
        keys_in: keys(16, 32),
        keys_out: keys(16, 32),
        pfs: None,
        lifetime: Lifetime { seconds: 3600, kilobytes: 4 },
        soft: Lifetime { seconds: 3000, kilobytes: 0 },
        replay_window: 64,
        initiator: true,
        version: IkeVersion::V1,
        esn: false,
        encap: None,
    }
}

pub(super) fn install(child: &ChildSa, direction: Direction, replay: u64) -> SaInstall<'_> {
    let used = SaUsed { age_s: 100, bytes: 7, packets: 3 };
    SaInstall { child, direction, reqid: 0x1234, replay, used, event_packets: 32, event_time: Duration::from_millis(250) }
}

const ANY_SELECTOR: [u8; 56] = {
    let mut s = [0; 56];
    s[40] = 2;
    s
};

#[test]
fn an_inbound_sa_is_written_byte_by_byte() {
    let c = child();
    let r = new_sa(&install(&c, Direction::In, 5000), 100, 1_000_000);
    assert_eq!(r.kind(), 0x10);
    let mut want = Vec::new();
    want.extend(ANY_SELECTOR);
    want.extend(hex!("c0000201 000000000000000000000000 80010203 32000000")); // id: our address
    want.extend(hex!("c6336409 000000000000000000000000")); // source: the peer
    want.extend(hex!("ffffffffffffffff 0010000000000000 ffffffffffffffff ffffffffffffffff")); // soft none, hard 4096 bytes
    want.extend(hex!("b80b000000000000 100e000000000000 0000000000000000 0000000000000000"));
    want.extend([0; 32 + 12 + 4]);
    want.extend(hex!("34120000 0200 01 00 00 00000000000000")); // reqid, AF_INET, tunnel
    want.extend(hex!("5800 0200"));
    want.extend(b"cbc(aes)");
    want.extend([0; 56]);
    want.extend(hex!("80000000 0102030405060708090a0b0c0d0e0f10"));
    want.extend(hex!("6c00 1400"));
    want.extend(b"hmac(sha256)");
    want.extend([0; 52]);
    want.extend(hex!("00010000 80000000"));
    want.extend([0xaa; 32]);
    want.extend(hex!("2400 1700 02000000 00000000 88130000 00000000 00000000 40000000 ffffffffffffffff"));
    want.extend(hex!("2400 0900 0700000000000000 0300000000000000 dc410f0000000000 dc410f0000000000"));
    want.extend(hex!("0800 0b00 20000000 0800 0c00 19000000")); // 32 packets, 25 jiffies
    assert_eq!(r.body(), want);
}

#[test]
fn an_outbound_sa_starts_at_its_number_without_bitmap() {
    let mut c = child();
    c.mode = Mode::Transport;
    c.encr = CipherAlg::Null;
    c.keys_out = keys(0, 32);
    let r = new_sa(&install(&c, Direction::Out, 9000), 250, 1_000_000);
    let view = sa_view(r.body()).unwrap();
    assert_eq!((view.spi, view.src, view.dst), (c.spi_out, c.local, c.peer));
    assert_eq!((view.tunnel, view.reqid, view.proto, view.hard_s), (false, 0x1234, 50, 3600));
    assert_eq!(view.replay, Replay { seq: 0, oseq: 9000, words: Some(2), window: 64, bits: 0 });
    assert!(r.body().windows(15).any(|w| w == b"ecb(cipher_null"));
    let timer = Attrs::after(r.body(), SA_INFO_LEN).find(|(k, _)| *k == 12).unwrap().1;
    assert_eq!(timer, 63u32.to_ne_bytes(), "62.5 ticks, rounded up");
}

#[test]
fn an_unused_inbound_sa_has_an_empty_bitmap() {
    let c = child();
    let r = new_sa(&install(&c, Direction::In, 0), 100, 1_000_000);
    let view = sa_view(r.body()).unwrap();
    assert_eq!(view.replay, Replay { seq: 0, oseq: 0, words: Some(2), window: 64, bits: 0 });
}

#[test]
fn bitmaps_cover_their_windows() {
    for (window, words) in [(0, 1), (1, 1), (32, 1), (33, 2), (64, 2), (1024, 32), (REPLAY_WINDOW_MAX, BITMAP_WORDS_MAX)] {
        assert_eq!(bitmap_words(window), words);
    }
}

#[test]
fn ticks_round_up_and_zero_stays_zero() {
    assert_eq!([0, 1, 4, 10, 250].map(|ms| jiffies(ms, 250)), [0, 1, 1, 3, 63]);
    assert_eq!(jiffies(u128::from(u64::MAX), 1000), u32::MAX);
}

#[test]
fn the_end_of_the_number_space_stops_the_sa() {
    let end = u64::from(u32::MAX);
    assert_eq!(replay_number(end, false), end);
    assert_eq!(replay_number(1 << 32, false), end, "the kernel refuses to send after this number; it never starts again at 1");
    assert_eq!(replay_number(1 << 32, true), 1 << 32);
}

#[test]
fn a_replay_write_is_written_byte_by_byte() {
    let mut set = ReplaySet {
        spi: Spi(0x8001_0203),
        dst: v4(192, 0, 2, 1),
        direction: Direction::In,
        replay: 6000,
        window: 32,
        esn: false,
        used: None,
    };
    let r = new_ae(&set, &[u32::MAX], 1_000_000);
    let mut want = hex!("c0000201 000000000000000000000000 80010203 0200 32 00").to_vec();
    want.extend([0; 16 + 4 + 4]);
    want.extend(hex!("2000 1700 01000000 00000000 70170000 00000000 00000000 20000000 ffffffff"));
    assert_eq!((r.kind(), r.body()), (0x1e, &want[..]));
    let mut framed = Vec::new();
    r.write_to(&mut framed, 1, NLM_F_ACK);
    assert_eq!(framed[6..8], hex!("0501"), "REQUEST, ACK, REPLACE");
    set.direction = Direction::Out;
    set.used = Some(SaUsed { age_s: 1, bytes: 2, packets: 0 });
    want.truncate(48);
    want.extend(hex!("2000 1700 01000000 70170000 00000000 00000000 00000000 20000000 00000000"));
    want.extend(hex!("2400 0900 0200000000000000 0000000000000000 3f420f0000000000 0000000000000000"));
    assert_eq!(new_ae(&set, &[0], 1_000_000).body(), want);
}

/// What the kernel's check (`xfrm_replay_check_bmp`) says to a number: true = not seen, taken.
fn takes(seq: u64, bitmap: &[u32], window: u64, number: u64) -> bool {
    if number > seq {
        return true;
    }
    let bit = (number - 1) % window;
    seq - number < window && bitmap[bit as usize / 32] >> (bit % 32) & 1 == 0
}

#[test]
fn a_floor_closes_what_lies_below_and_keeps_what_was_received_above() {
    for window in [32u64, 50, 64, 1000] {
        for (held, floor) in [(0, 0), (0, 7), (7, 7), (7, 90), (90, 7), (90, 89), (5000, 4990), (5000, 100), (40, 0)] {
            // Every third number was received.
            let mut bitmap = vec![0; bitmap_words(window as u32) as usize];
            for n in (1..=held).filter(|n| n % 3 == 0 && held - n < window) {
                let bit = (n - 1) % window;
                bitmap[bit as usize / 32] |= 1 << (bit % 32);
            }
            let (seq, after) = merged(held, &bitmap, window as u32, floor);
            assert_eq!(seq, held.max(floor));
            for n in 1..=held.max(floor) + 3 {
                let want = n > floor && takes(held, &bitmap, window, n);
                assert_eq!(takes(seq, &after, window, n), want, "number {n}, window {window}, held {held}, floor {floor}");
            }
        }
    }
    assert_eq!(merged(0, &[], 0, 5), (5, vec![]));
    assert_eq!(merged(9, &[0], 0, 5), (9, vec![0]), "no window, no numbers");
}

#[test]
fn bitmaps_are_read_back() {
    let c = child();
    let r = new_sa(&install(&c, Direction::In, 5), 100, 1);
    assert_eq!(bitmap_of(Attrs::after(r.body(), SA_INFO_LEN)), [u32::MAX; 2]);
    assert_eq!(bitmap_of(Attrs::after(r.body(), r.body().len())), [0u32; 0]);
}

#[test]
fn ids_and_dumps_are_written_byte_by_byte() {
    let id = hex!("c0000201 000000000000000000000000 80010203 0200 32 00");
    let (spi, dst) = (Spi(0x8001_0203), v4(192, 0, 2, 1));
    assert_eq!((delete_sa(spi, dst).kind(), delete_sa(spi, dst).body()), (0x11, &id[..]));
    assert_eq!((get_sa(spi, dst).kind(), get_sa(spi, dst).body()), (0x12, &id[..]));
    assert_eq!((dump_sas().kind(), dump_sas().body()), (0x12, &hex!("0500 1900 32000000")[..]));
    let r = get_ae(spi, dst);
    assert_eq!((r.kind(), r.body().len(), &r.body()[40..44]), (0x1f, 48, &hex!("09000000")[..]));
}

#[test]
fn unfit_sas_are_refused() {
    let refused = |change: &dyn Fn(&mut ChildSa)| {
        let mut c = child();
        change(&mut c);
        check(&install(&c, Direction::In, 0)).err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(refused(&|c| c.integ = None), Some(Unfit::NoIntegrity));
    assert_eq!(
        refused(&|c| {
            c.encr = CipherAlg::Null;
            c.integ = None;
        }),
        Some(Unfit::NoIntegrity)
    );
    assert_eq!(refused(&|c| c.keys_in = keys(15, 32)), Some(Unfit::KeyLength { what: "encryption", got: 15, want: 16 }));
    assert_eq!(refused(&|c| c.keys_in = keys(16, 20)), Some(Unfit::KeyLength { what: "integrity", got: 20, want: 32 }));
    assert_eq!(refused(&|c| c.replay_window = 4097), Some(Unfit::Window(4097)));
    assert_eq!(refused(&|c| c.spi_in = Spi(255)), Some(Unfit::ReservedSpi(Spi(255))));
    assert_eq!(refused(&|c| c.local = "2001:db8::1".parse().unwrap()), Some(Unfit::MixedFamilies));
    let des = |key: &[u8]| {
        let key = Secret::new(key.to_vec());
        refused(&move |c| {
            c.encr = if key.len() == 8 { CipherAlg::Des } else { CipherAlg::TripleDes };
            c.keys_in.encr = key.clone();
        })
    };
    assert_eq!(des(&[1; 8]), Some(Unfit::WeakKey));
    assert_eq!(des(&[0x42; 24]), Some(Unfit::WeakKey));
    assert_eq!(des(&hex!("0123456789abcdef")), None);
}

#[test]
fn only_the_same_sa_is_taken_over() {
    let c = child();
    let sa = install(&c, Direction::In, 0);
    let message = new_sa(&sa, 100, 1_000_000);
    let view = sa_view(message.body()).unwrap();
    assert!(view.is(&sa));
    assert!(view.is(&install(&c, Direction::In, 77)), "numbers may differ");
    assert!(!view.is(&install(&c, Direction::Out, 0)));
    assert!(!view.is(&SaInstall { reqid: 1, ..install(&c, Direction::In, 0) }));
    let other = |change: &dyn Fn(&mut ChildSa)| {
        let mut c = child();
        change(&mut c);
        !view.is(&install(&c, Direction::In, 0))
    };
    assert!(other(&|c| c.local = v4(192, 0, 2, 10)));
    assert!(other(&|c| c.mode = Mode::Transport));
    assert!(other(&|c| c.replay_window = 65));
    assert!(other(&|c| c.keys_in.encr = Secret::new(vec![9; 16])));
    assert!(other(&|c| c.keys_in.integ = Secret::new(vec![9; 32])));
    assert!(other(&|c| c.encr = CipherAlg::Null));
    for cut in 0..SA_INFO_LEN {
        assert!(sa_view(&message.body()[..cut]).is_none());
    }
    for cut in SA_INFO_LEN..message.body().len() {
        let _ = sa_view(&message.body()[..cut]).unwrap().is(&sa);
    }
}

fn flow() -> FlowPolicy {
    FlowPolicy {
        local: net(10, 1, 0, 0, 16),
        remote: Selector { proto: 6, port: 443, ..net(10, 2, 0, 0, 16) },
        tunnel_local: v4(192, 0, 2, 1),
        tunnel_peer: v4(198, 51, 100, 9),
        reqid: 0x1234,
        priority: 100,
        mode: Mode::Tunnel,
    }
}

fn tcp_flow() -> FlowPolicy {
    FlowPolicy { local: Selector { proto: 6, ..flow().local }, ..flow() }
}

#[test]
fn a_policy_is_written_byte_by_byte_and_read_back() {
    let wanted = policy::wanted(&[tcp_flow()]).unwrap();
    assert_eq!(wanted.len(), 6);
    let (key, body) = wanted.iter().find(|(k, _)| (k.mark, k.dir) == (MARK_PROTECT, Dir::Out)).unwrap();
    let r = policy::put(key, body);
    assert_eq!(r.kind(), 0x19);
    let mut want = Vec::new();
    let selector = hex!(
        "0a020000 000000000000000000000000 0a010000 000000000000000000000000"
        "01bb ffff 0000 0000 0200 10 10 06 000000 00000000 01005747"
    );
    want.extend(selector);
    want.extend([0xff; 32]);
    want.extend([0; 32 + 32]);
    want.extend(hex!("64000000 00000000 01 00 00 00 00000000"));
    want.extend(hex!("4400 0500 c6336409 000000000000000000000000 00000000 32000000 0200 0000"));
    want.extend(hex!("c0000201 000000000000000000000000 34120000 01 00 00 00 ffffffff ffffffff ffffffff"));
    assert_eq!(r.body(), want);
    let r = policy::delete(key);
    assert_eq!((r.kind(), &r.body()[..56], &r.body()[56..]), (0x14, &selector[..], &hex!("00000000 01 000000")[..]));
    for (key, body) in &wanted {
        let held = policy::held(policy::XFRM_MSG_NEWPOLICY, policy::put(key, body).body());
        assert_eq!(held, Some(policy::Held { key: *key, body: Some(*body) }));
    }
}

#[test]
fn each_flow_gets_templates_both_ways_and_blocks_beneath() {
    let wanted = policy::wanted(&[tcp_flow()]).unwrap();
    let (local, remote) = (tcp_flow().local, tcp_flow().remote);
    let (us, peer) = (v4(192, 0, 2, 1), v4(198, 51, 100, 9));
    let anyone = v4(0, 0, 0, 0);
    for (dir, src, dst, from, to) in
        [(Dir::Out, local, remote, us, peer), (Dir::In, remote, local, anyone, us), (Dir::Fwd, remote, local, anyone, us)]
    {
        let tmpl = Some(Tmpl { src: from, dst: to, reqid: 0x1234, mode: Mode::Tunnel });
        let key = |mark| PolicyKey { mark, dir, src, dst };
        assert_eq!(wanted.get(&key(MARK_PROTECT)), Some(&PolicyBody { priority: 100, tmpl }));
        assert_eq!(wanted.get(&key(MARK_BLOCK)), Some(&PolicyBody { priority: 100 + BLOCK_BELOW, tmpl: None }));
    }
}

#[test]
fn host_bits_are_cut_and_equal_selectors_keep_the_best_priority() {
    let loose = FlowPolicy { local: Selector { addr: v4(10, 1, 2, 3), ..tcp_flow().local }, priority: 50, ..tcp_flow() };
    for flows in [[tcp_flow(), loose.clone()], [loose.clone(), tcp_flow()]] {
        let wanted = policy::wanted(&flows).unwrap();
        assert_eq!(wanted.len(), 6);
        assert!(wanted.iter().all(|(k, b)| b.priority == if k.mark == MARK_BLOCK { 50 + BLOCK_BELOW } else { 50 }));
    }
    let any = FlowPolicy { local: Selector { addr: v4(10, 1, 2, 3), prefix: 0, proto: 6, port: 0 }, ..tcp_flow() };
    assert!(policy::wanted(&[any]).unwrap().keys().any(|k| k.src == Selector { proto: 6, ..Selector::ANY4 }));
}

#[test]
fn flows_that_cannot_be_policies_are_refused() {
    use policy::BadFlow;
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let refused = |f: FlowPolicy| policy::wanted(&[f]).err();
    assert_eq!(refused(flow()), Some(BadFlow::Protocols));
    assert_eq!(refused(FlowPolicy { priority: u32::MAX, ..tcp_flow() }), Some(BadFlow::Priority(u32::MAX)));
    assert_eq!(refused(FlowPolicy { tunnel_peer: v6, ..tcp_flow() }), Some(BadFlow::MixedEnds));
    assert_eq!(refused(FlowPolicy { local: Selector { addr: v6, ..tcp_flow().local }, ..tcp_flow() }), Some(BadFlow::MixedSelectors));
    assert_eq!(refused(FlowPolicy { local: Selector { prefix: 33, ..tcp_flow().local }, ..tcp_flow() }), Some(BadFlow::Prefix(33)));
}

#[test]
fn a_plan_changes_only_what_differs_and_leaves_no_gap() {
    let old = policy::wanted(&[tcp_flow()]).unwrap();
    let none = BTreeSet::new();
    assert_eq!(policy::plan(&old, &none, &old), Plan::default());
    let moved = policy::wanted(&[FlowPolicy { reqid: 9, ..tcp_flow() }]).unwrap();
    let plan = policy::plan(&old, &none, &moved);
    assert_eq!((plan.put.len(), plan.delete.len()), (3, 0), "three templates replaced in place");
    let odd = BTreeSet::from([*old.keys().next().unwrap()]);
    assert_eq!(policy::plan(&old, &odd, &old).put.len(), 1, "one in a strange form is put right");
    let gone = policy::plan(&old, &none, &Default::default());
    assert_eq!(gone.delete.len(), 6);
    assert!(gone.delete[..3].iter().all(|k| k.mark == MARK_PROTECT), "templates go first, blocks last");
    let new = policy::plan(&Default::default(), &none, &old);
    assert!(new.put[..3].iter().all(|(k, _)| k.mark == MARK_BLOCK), "blocks come first, templates last");
}

#[test]
fn strangers_policies_are_not_seen() {
    let wanted = policy::wanted(&[tcp_flow()]).unwrap();
    let (key, body) = wanted.iter().next().unwrap();
    let mut message = policy::put(key, body).body().to_vec();
    message[52..56].fill(0);
    assert_eq!(policy::held(policy::XFRM_MSG_NEWPOLICY, &message), None);
    assert_eq!(policy::held(0x19, policy::put(key, body).body()), None);
    assert_eq!(policy::held(policy::XFRM_MSG_NEWPOLICY, &message[..100]), None);
}

/// `struct xfrm_user_acquire` with its template: a UDP packet from 10.1.0.1 port 5000 to 10.2.0.1 port 53 that found a policy and no SA.
fn acquire_message() -> Vec<u8> {
    let mut m = hex!("c6336409 000000000000000000000000 00000000 32000000 c0000201 000000000000000000000000").to_vec();
    m.extend(hex!(
        "0a020001 000000000000000000000000 0a010001 000000000000000000000000"
        "0035 ffff 1388 ffff 0200 20 20 11 000000 00000000 00000000"
    ));
    let wanted = policy::wanted(&[tcp_flow()]).unwrap();
    let (key, body) = wanted.iter().find(|(k, _)| (k.mark, k.dir) == (MARK_PROTECT, Dir::Out)).unwrap();
    let put = policy::put(key, body);
    m.extend(&put.body()[..168]);
    m.extend(hex!("ffffffff ffffffff ffffffff 01000000"));
    m.extend(&put.body()[168..]);
    m
}

#[test]
fn an_acquire_names_peer_reqid_and_packet() {
    let mut m = acquire_message();
    let host = |addr, port| Selector { addr, prefix: 32, proto: 17, port };
    let want = Acquire { peer: v4(198, 51, 100, 9), reqid: 0x1234, src: host(v4(10, 1, 0, 1), 5000), dst: host(v4(10, 2, 0, 1), 53) };
    assert_eq!(event(0x17, &m), Some(XfrmEvent::Acquire(want)));
    m[40 + 44] = 1;
    let Some(XfrmEvent::Acquire(icmp)) = event(0x17, &m) else { panic!("no acquire") };
    assert_eq!((icmp.src.port, icmp.dst.port, icmp.dst.proto), (0, 0, 1), "ICMP types are no ports");
    for cut in 0..m.len() {
        let _ = event(0x17, &m[..cut]);
    }
    m[20] = 51;
    assert_eq!(event(0x17, &m), None, "AH");
}

#[test]
fn expiries_are_soft_or_hard_and_placeholders_are_passed_over() {
    let c = child();
    let mut m = new_sa(&install(&c, Direction::In, 0), 100, 1).body()[..SA_INFO_LEN].to_vec();
    m.extend([0; 8]);
    let want = |hard| Some(XfrmEvent::Expire { spi: c.spi_in, dst: c.local, hard });
    assert_eq!(event(0x18, &m), want(false));
    m[SA_INFO_LEN] = 1;
    assert_eq!(event(0x18, &m), want(true));
    m[72..76].fill(0);
    assert_eq!(event(0x18, &m), None);
    assert_eq!(event(0x18, &m[..231]), None);
}

#[test]
fn replay_events_carry_both_forms_and_echoes_are_dropped() {
    let mut head = hex!("c0000201 000000000000000000000000 80010203 0200 32 00").to_vec();
    head.extend([0; 16]);
    head.extend(hex!("10000000 34120000"));
    let ltime = hex!("2400 0900 e803000000000000 0a00000000000000 0000000000000000 0000000000000000");
    let bitmap = [&head[..], &hex!("2000 1700 01000000 02000000 03000000 00000000 01000000 20000000 ffffffff"), &ltime].concat();
    let want = |seq, oseq| Some(XfrmEvent::Replay { spi: Spi(0x8001_0203), dst: v4(192, 0, 2, 1), seq, oseq, bytes: 1000, packets: 10 });
    assert_eq!(event(0x1e, &bitmap), want(3 | 1 << 32, 2));
    let legacy = [&head[..], &hex!("1000 0a00 02000000 03000000 ffffffff"), &ltime].concat();
    assert_eq!(event(0x1e, &legacy), want(3, 2));
    let mut echo = bitmap;
    echo[40] = 64;
    assert_eq!(event(0x1e, &echo), None);
    for cut in 0..legacy.len() {
        let _ = event(0x1e, &legacy[..cut]);
    }
}

#[test]
fn thresholds_are_read() {
    let mut m = vec![0; AEVENT_LEN];
    m.extend(hex!("0800 0b00 20000000 0800 0c00 02000000"));
    assert_eq!(thresholds(&m), Some((32, 2)));
    m.truncate(AEVENT_LEN + 8);
    assert_eq!(thresholds(&m), None);
}
