//! Bad input and protocol attacks (conformance list): the engine stays up, the live tunnel untouched, no state is kept, at most one
//! answer of similar size is sent.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg};
use crate::id::{IkeSaId, Spi};
use crate::ike::engine::NON_ESP_MARKER;
use crate::ike::v1::message::*;
use crate::ike::v1::{MainState, PairKey};
use crate::ike::*;
use crate::rng::{Random, Seeded};
use std::net::SocketAddr;
use std::time::Duration;

fn up() -> Net {
    let mut net = Net::new(1, usual());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net
}

fn header(id: IkeSaId, exchange: Exchange, message_id: u32) -> Header {
    Header { id, next: 0, exchange, flags: 0, message_id }
}

fn first_id(n: u8) -> IkeSaId {
    IkeSaId { initiator: [n; 8], responder: [0; 8] }
}

fn offer() -> Vec<u8> {
    crate::ike::v1::proposal::isakmp_offer(&usual()[A].policies).encode()
}

fn message_1(n: u8) -> Vec<u8> {
    let mut c = Chain::new();
    c.push(PayloadKind::Sa, &offer());
    c.message(header(first_id(n), Exchange::Main, 0))
}

/// Runs `bytes` against the responder of a live tunnel: nothing may change but the counters.
fn refused(net: &mut Net, bytes: &[u8]) -> Vec<&'static str> {
    let n = &mut net.nodes[B];
    n.events.clear();
    let (sent, sas, timers) = (n.sent.len(), n.engine.sas.len(), n.engine.poll_timeout());
    net.inject(B, bytes);
    let n = &net.nodes[B];
    assert!(n.sent.len() <= sent + 1, "at most one answer");
    if let Some(answer) = n.sent.get(sent) {
        assert!(answer.len() <= bytes.len() + 28, "no amplification: {} for {}", answer.len(), bytes.len());
    }
    assert_eq!((n.engine.sas.len(), n.engine.poll_timeout()), (sas, timers), "no state");
    assert!(n.engine.quicks.is_empty());
    net.assert_settled(1);
    net.nodes[B].refusals()
}

#[test]
fn shapes_of_main_mode_message_1() {
    let mut net = up();
    let build = |f: &dyn Fn(&mut Chain)| {
        let mut c = Chain::new();
        f(&mut c);
        c.message(header(first_id(3), Exchange::Main, 0))
    };
    let good = offer();
    let mut situation = good.clone();
    situation[7] = 0xff;
    let mut lengths = good.clone();
    lengths[10] = 0x7f;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "vendor ID first",
            build(&|c| {
                c.push(PayloadKind::Vendor, b"x").push(PayloadKind::Sa, &good);
            }),
            "payloads",
        ),
        (
            "no SA",
            build(&|c| {
                c.push(PayloadKind::Nonce, &[1; 16]);
            }),
            "payloads",
        ),
        (
            "two SAs",
            build(&|c| {
                c.push(PayloadKind::Sa, &good).push(PayloadKind::Sa, &good);
            }),
            "payloads",
        ),
        (
            "KE too early",
            build(&|c| {
                c.push(PayloadKind::Sa, &good).push(PayloadKind::KeyExchange, &[1; 64]);
            }),
            "payloads",
        ),
        (
            "situation bits (CVE-2015-3204)",
            build(&|c| {
                c.push(PayloadKind::Sa, &situation);
            }),
            "payloads",
        ),
        (
            "inner length past the end (CVE-2016-6415)",
            build(&|c| {
                c.push(PayloadKind::Sa, &lengths);
            }),
            "payloads",
        ),
        (
            "empty SA",
            build(&|c| {
                c.push(PayloadKind::Sa, b"");
            }),
            "payloads",
        ),
    ];
    for (name, bytes, reason) in cases {
        assert_eq!(refused(&mut net, &bytes), [reason], "{name}");
    }
    let mut encrypted = message_1(3);
    encrypted[19] = 1;
    assert_eq!(refused(&mut net, &encrypted), ["encrypted_too_early"]);
    let mut id = message_1(3);
    id[23] = 1;
    assert_eq!(refused(&mut net, &id), ["message_id"]);
    let mut long = message_1(3);
    long.extend([0; 9000]);
    assert_eq!(refused(&mut net, &long), ["datagram_size"]);
    for n in 0..message_1(3).len() {
        refused(&mut net, &message_1(3)[..n]);
    }
}

#[test]
fn headers_of_other_protocols_and_exchanges() {
    let mut net = up();
    for (at, value, reason) in [
        (18, 4, "aggressive_mode"),
        (18, 6, "transaction_exchange"),
        (18, 34, "unknown_exchange"),
        (18, 33, "unknown_exchange"),
        (17, 0x20, "header_version"),
        (16, 33, "unknown_payload"),
        (16, 133, "unknown_payload"),
        (16, 132, "fragment_unexpected"),
        (19, 0x80, "header_flags"),
        (27, 1, "header_length"),
    ] {
        let mut b = message_1(3);
        b[at] = value;
        assert_eq!(refused(&mut net, &b), [reason], "byte {at} = {value}");
    }
    assert_eq!(refused(&mut net, b""), ["header_short"]);
    assert_eq!(refused(&mut net, &[0xff]), ["header_short"]);
}

#[test]
fn what_is_no_ike_at_port_4500_is_refused_and_a_keepalive_draws_nothing() {
    let mut c = usual();
    c[B].nat_traversal = false;
    let mut net = Net::new(1, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    let to = SocketAddr::new(net.nodes[B].addr.ip(), 4500);
    let from = SocketAddr::new(net.nodes[A].addr.ip(), 4500);
    let mut b = NON_ESP_MARKER.to_vec();
    b.extend(message_1(3));
    net.nodes[B].engine.handle_datagram(from, to, &b, net.now);
    net.nodes[B].engine.handle_datagram(from, to, &[0xff], net.now);
    net.nodes[B].engine.handle_datagram(from, to, &[0xff, 0xff], net.now);
    net.nodes[B].engine.handle_datagram(from, to, &[0, 0, 0], net.now);
    net.nodes[B].engine.handle_datagram(from, to, b"", net.now);
    net.pump();
    assert_eq!(net.nodes[B].refusals(), ["nat_t_disabled", "nat_t_not_ike", "nat_t_not_ike", "nat_t_not_ike"]);
    assert_eq!(net.nodes[B].sent.len(), 4);
}

#[test]
fn strangers_cost_nothing() {
    let mut net = up();
    let stranger = SocketAddr::new([10, 9, 8, 7].into(), 500);
    let to = net.nodes[B].addr;
    let sent = net.nodes[B].sent.len();
    for n in 1..200 {
        net.nodes[B].engine.handle_datagram(stranger, to, &message_1(n), net.now);
    }
    net.pump();
    assert_eq!(net.nodes[B].sent.len(), sent);
    assert!(net.nodes[B].refusals().iter().all(|r| *r == "unknown_peer"));
    assert_eq!(net.nodes[B].engine.sas.len(), 1);
    assert_eq!(net.nodes[B].engine.pairs.len(), 1);
}

#[test]
fn one_message_1_draws_one_message_2() {
    let mut net = Net::new(1, usual());
    net.inject(B, &message_1(3));
    assert_eq!(net.nodes[B].sent.len(), 1);
    net.weather.loss = 100;
    net.secs(25);
    assert_eq!(net.nodes[B].sent.len(), 1, "never by a timer (CVE-2016-5361)");
    for _ in 0..100 {
        net.inject(B, &message_1(3));
    }
    assert_eq!(net.nodes[B].sent.len(), 2, "a burst of repetitions draws one more");
    net.secs(10);
    assert!(net.nodes[B].engine.sas.is_empty(), "aged out");
    assert_eq!(net.nodes[B].engine.half_open_total, 0);
    assert!(net.nodes[B].engine.by_first.is_empty() && net.nodes[B].engine.by_id.is_empty());
}

#[test]
fn half_open_floods_are_bounded_and_leave_the_tunnel_alone() {
    let mut c = usual();
    c[B].limits.half_open_max = 6;
    c[B].limits.half_open_per_source_max = 4;
    let extra = c[B].keys[0].clone();
    for n in 0..10 {
        let peer = [10, 0, 0, n].into();
        c[B].keys.push(PreSharedKey { peer: PeerMatch::Address(peer), ..extra.clone() });
        c[B].entries[0].peers.push(peer);
    }
    let mut net = Net::new(1, c);
    net.initiate(A);
    net.secs(5);
    let to = net.nodes[B].addr;
    for n in 0..10 {
        for round in 1..50 {
            net.nodes[B].engine.handle_datagram(SocketAddr::new([10, 0, 0, n].into(), 500), to, &message_1(round), net.now);
        }
    }
    net.pump();
    assert_eq!(net.nodes[B].engine.half_open_total, 6);
    assert!(net.nodes[B].refusals().contains(&"half_open_limit"));
    assert!(net.nodes[B].refusals().contains(&"half_open_per_source"));
    // The peer with a tunnel still gets its rekeys.
    let id = net.nodes[A].engine.view(net.now)[0].id;
    net.request(A, IkeRequest::RekeyIsakmp(id));
    let spi = net.nodes[A].live()[0].spi_in;
    net.request(A, IkeRequest::RekeyChild(spi));
    net.secs(4);
    assert_eq!(net.nodes[A].up(net.now), 2);
    assert_ne!(net.nodes[A].live()[0].spi_in, spi);
    net.secs(40);
    net.assert_settled(1);
}

/// An initiator under the tester's control: sends messages 1 and 3 of its own making.
fn message_3(net: &mut Net, ke: &[u8], nonce: &[u8]) -> Vec<u8> {
    net.inject(B, &message_1(9));
    let answer = net.nodes[B].sent.last().unwrap().clone();
    let id = Header::decode(&answer).unwrap().id;
    let mut c = Chain::new();
    c.push(PayloadKind::KeyExchange, ke).push(PayloadKind::Nonce, nonce);
    c.message(header(id, Exchange::Main, 0))
}

#[test]
fn bad_public_values_and_nonces() {
    let policies = [policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Modp768)];
    let config = || configs(1, &policies, (CipherAlg::Aes256, Some(crate::crypto::IntegAlg::HmacSha1)), None);
    let ke = |last: u8| {
        let mut v = vec![0; 96];
        v[95] = last;
        v
    };
    let mut one_more = Chain::new();
    one_more.push(PayloadKind::Sa, &crate::ike::v1::proposal::isakmp_offer(&policies).encode());
    let cases: [(&str, Vec<u8>, usize, &str); 7] = [
        ("zero (CVE-2015-3240)", ke(0), 32, "phase_1_failed"),
        ("one", ke(1), 32, "phase_1_failed"),
        ("all ones, above p", vec![0xff; 96], 32, "phase_1_failed"),
        ("short", vec![2; 95], 32, "ke_length"),
        ("another group's length", vec![2; 128], 32, "ke_length"),
        ("nonce of 7", ke(7), 7, "nonce_length"),
        ("nonce of 257", ke(7), 257, "nonce_length"),
    ];
    for (name, ke, nonce, reason) in cases {
        let mut net = Net::new(1, config());
        net.inject(B, &one_more.message(header(first_id(9), Exchange::Main, 0)));
        let id = Header::decode(&net.nodes[B].sent[0]).unwrap().id;
        let mut c = Chain::new();
        c.push(PayloadKind::KeyExchange, &ke).push(PayloadKind::Nonce, &vec![5; nonce]);
        net.inject(B, &c.message(header(id, Exchange::Main, 0)));
        assert_eq!(net.nodes[B].refusals(), [reason], "{name}");
        assert_eq!(net.nodes[B].sent.len(), 1, "{name}: no answer");
        net.secs(60);
        assert!(net.nodes[B].engine.sas.is_empty());
    }
}

#[test]
fn exchange_switch_and_wrong_order_in_main_mode() {
    let mut net = Net::new(1, usual());
    let third = message_3(&mut net, &[4; 64], &[5; 32]);
    let id = Header::decode(&third).unwrap().id;
    let state = |net: &Net| net.nodes[B].engine.view(net.now)[0].state;
    let before = state(&net);
    for (bytes, reason) in [
        (Chain::new().prepend(PayloadKind::Hash, &[1; 32]).message(header(id, Exchange::Quick, 7)), "not_encrypted"),
        (
            Chain::new().prepend(PayloadKind::Hash, &[1; 32]).message(Header { flags: 1, ..header(id, Exchange::Quick, 7) }),
            "not_established",
        ),
        (
            Chain::new().prepend(PayloadKind::Delete, &Delete::Isakmp(vec![id]).encode()).message(header(id, Exchange::Informational, 7)),
            "not_encrypted",
        ),
        (Chain::new().prepend(PayloadKind::Id, &[1, 0, 0, 0, 40, 0, 0, 1]).message(header(id, Exchange::Main, 0)), "payloads"),
        (message_1(9), "repeated"),
    ] {
        net.nodes[B].events.clear();
        net.inject(B, &bytes);
        assert_eq!(net.nodes[B].refusals(), [reason]);
        assert_eq!(state(&net), before);
    }
    // From another address the cookies are worth nothing.
    let elsewhere = SocketAddr::new(net.nodes[A].addr.ip(), 501);
    let to = net.nodes[B].addr;
    net.nodes[B].engine.handle_datagram(elsewhere, to, &third, net.now);
    net.pump();
    assert_eq!(net.nodes[B].refusals().last(), Some(&"wrong_address"));
}

#[test]
fn unprotected_and_forged_messages_change_nothing() {
    let mut net = up();
    let id = net.nodes[B].engine.view(net.now)[0].id;
    let child = net.nodes[B].live()[0].spi_out;
    let bodies = [
        (PayloadKind::Delete, Delete::Isakmp(vec![id]).encode()),
        (PayloadKind::Delete, Delete::Isakmp(vec![id, id]).encode()),
        (PayloadKind::Delete, Delete::Esp(vec![child]).encode()),
        (PayloadKind::Notify, Notify::isakmp(notify_type::INITIAL_CONTACT, id, vec![]).encode()),
        (PayloadKind::Notify, Notify::isakmp(notify_type::R_U_THERE, id, vec![0; 4]).encode()),
        (PayloadKind::Notify, Notify::isakmp(notify_type::NO_PROPOSAL_CHOSEN, id, vec![]).encode()),
    ];
    for (kind, body) in &bodies {
        for flags in [0, 1, 2] {
            for id in [id, IkeSaId { responder: [9; 8], ..id }] {
                let hash = [7; 32];
                let mut c = Chain::new();
                c.push(PayloadKind::Hash, &hash).push(*kind, body);
                let mut bytes = c.message(Header { flags, ..header(id, Exchange::Informational, 77) });
                while !(bytes.len() - HEADER_LEN).is_multiple_of(16) {
                    bytes.push(0);
                }
                let n = bytes.len() as u32;
                bytes[24..28].copy_from_slice(&n.to_be_bytes());
                let reasons = refused(&mut net, &bytes);
                assert!(matches!(reasons[..], ["not_encrypted" | "hash" | "unknown_cookies"]), "{reasons:?}");
            }
        }
    }
}

/// Padding, structure and HASH errors look alike: same reason, same detail, no answer.
#[test]
fn no_oracle_in_cbc() {
    let mut net = up();
    let spi = net.nodes[A].live()[0].spi_in;
    net.weather.loss = 100;
    net.request(A, IkeRequest::RekeyChild(spi));
    net.pump();
    let good = net.nodes[A].sent.last().unwrap().clone();
    let mut seen = std::collections::BTreeSet::new();
    for at in HEADER_LEN..good.len() {
        for bit in [1, 0x80] {
            let mut b = good.clone();
            b[at] ^= bit;
            net.nodes[B].events.clear();
            let sent = net.nodes[B].sent.len();
            net.inject(B, &b);
            assert_eq!(net.nodes[B].sent.len(), sent);
            for e in &net.nodes[B].events {
                seen.insert(format!("{e:?}"));
            }
        }
    }
    // Only a change in the padding behind the last payload is not covered by the HASH; it is the request itself then.
    assert_eq!(seen.iter().filter(|e| e.contains("Refused")).count(), 1, "{seen:#?}");
    assert!(seen.iter().all(|e| e.contains("\"hash\"") || !e.contains("Refused")));
}

#[test]
fn a_protected_delete_ends_only_what_it_may() {
    let mut net = up();
    let a = net.nodes[A].engine.primary(PairKey::host(net.nodes[A].addr.ip(), net.nodes[B].addr.ip())).unwrap();
    let send = |net: &mut Net, kind, body: &[u8]| {
        net.nodes[A].engine.send_informational(a, kind, body);
        net.secs(1);
        let r = net.nodes[B].refusals();
        net.nodes[B].events.clear();
        r
    };
    let other = IkeSaId { initiator: [1; 8], responder: [2; 8] };
    assert_eq!(send(&mut net, PayloadKind::Delete, &Delete::Isakmp(vec![other]).encode()), ["delete_other_sa"]);
    assert_eq!(send(&mut net, PayloadKind::Delete, &Delete::Esp(vec![Spi(0x9999)]).encode()), ["delete_unknown"]);
    assert_eq!(send(&mut net, PayloadKind::Delete, &Delete::Other(protocol::AH).encode()), ["payloads"]);
    assert_eq!(send(&mut net, PayloadKind::Nonce, &[1; 16]), ["payloads"]);
    net.assert_settled(1);
    // One ISAKMP SA named twice in one message (CVE-2023-38712).
    let id = net.nodes[B].engine.view(net.now)[0].id;
    assert!(send(&mut net, PayloadKind::Delete, &Delete::Isakmp(vec![id, id]).encode()).is_empty());
    assert_eq!(net.nodes[B].up(net.now), 0);
    assert_eq!(net.nodes[B].live().len(), 1, "the child pair stays");
}

#[test]
fn replays_of_a_whole_session_do_nothing() {
    let mut net = up();
    let spi = net.nodes[A].live()[0].spi_in;
    net.request(A, IkeRequest::RekeyChild(spi));
    net.secs(40);
    let recorded: Vec<Vec<Vec<u8>>> = net.nodes.iter().map(|n| n.sent.clone()).collect();
    let ups = |n: &Node| n.events.iter().filter(|e| matches!(e, IkeEvent::ChildUp { .. } | IkeEvent::ChildDown { .. })).count();
    let before: Vec<_> = net.nodes.iter().map(ups).collect();
    let kernel: Vec<_> = net.nodes[B].kernel.keys().copied().collect();
    for _ in 0..3 {
        for (from, list) in recorded.iter().enumerate() {
            for b in list {
                net.inject(1 - from, b);
                net.run(Duration::from_millis(150));
            }
        }
    }
    net.secs(60);
    net.assert_settled(1);
    assert_eq!(net.nodes.iter().map(ups).collect::<Vec<_>>(), before);
    assert_eq!(net.nodes[B].kernel.keys().copied().collect::<Vec<_>>(), kernel);
    assert_eq!(net.nodes[B].up(net.now), 1);
}

/// Real messages of a session with random changes, at every stage of it.
#[test]
fn mutated_sessions_never_panic_and_heal() {
    for seed in 0..60 {
        let mut net = Net::new(seed, usual());
        let mut rng = Seeded::new(seed + 1000);
        net.initiate(A);
        for _ in 0..12 {
            net.run(Duration::from_millis(1));
            for from in [A, B] {
                let Some(last) = net.nodes[from].sent.last().cloned() else { continue };
                for _ in 0..20 {
                    let mut b = last.clone();
                    for _ in 0..1 + rng.u32() % 4 {
                        let at = rng.u32() as usize % b.len();
                        b[at] = rng.u32() as u8;
                    }
                    if rng.u32().is_multiple_of(4) {
                        b.truncate(rng.u32() as usize % b.len());
                    }
                    if rng.u32().is_multiple_of(2) && b.len() >= HEADER_LEN {
                        let n = b.len() as u32;
                        b[24..28].copy_from_slice(&n.to_be_bytes());
                    }
                    net.inject(1 - from, &b);
                }
            }
        }
        for _ in 0..10 {
            net.acquire(A);
            net.secs(50);
        }
        net.assert_settled(1);
    }
}

#[test]
fn our_own_first_message_reflected() {
    let mut net = Net::new(1, usual());
    net.weather.loss = 100;
    net.initiate(A);
    net.pump();
    let first = net.nodes[A].sent[0].clone();
    net.inject(A, &first);
    assert_eq!(net.nodes[A].refusals(), ["reflected"]);
    assert_eq!(net.nodes[A].engine.view(net.now)[0].state, IsakmpState::MM_NO_STATE);
    assert!(matches!(
        net.nodes[A].engine.sas.values().next().map(|s| &s.stage),
        Some(crate::ike::v1::Stage::Main(m)) if m.state == MainState::WaitSa
    ));
}
