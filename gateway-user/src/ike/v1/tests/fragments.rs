//! Messages in pieces: whole sessions, and every shape of the advisories.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg};
use crate::ike::v1::fragments::SETS_MAX;
use crate::ike::v1::message::*;
use crate::ike::*;
use std::net::SocketAddr;
use std::time::Duration;

/// Offers of 40 transform sets, which make quick mode's first message large.
fn large() -> [IkeConfig; 2] {
    let policies = [policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256)];
    let mut c = configs(1, &policies, (CipherAlg::Aes256, Some(IntegAlg::HmacSha256)), None);
    for c in &mut c {
        let set = c.entries[0].transforms[0].clone();
        c.entries[0].transforms = vec![set; 40];
    }
    c
}

fn is_piece(bytes: &[u8]) -> bool {
    bytes[16] == 132
}

#[test]
fn large_messages_leave_in_pieces_and_arrive() {
    for starter in [A, B] {
        let mut net = Net::new(1, large());
        net.initiate(starter);
        net.secs(5);
        net.assert_settled(1);
        let pieces: Vec<_> = net.nodes[starter].sent.iter().filter(|b| is_piece(b)).collect();
        assert_eq!(pieces.len(), 2);
        assert!(pieces.iter().all(|p| p.len() <= 1248));
        assert!(net.nodes.iter().all(|n| n.refusals().is_empty() && n.engine.fragments.len() == 0));
        assert!(net.nodes[A].engine.poll_timeout().is_some_and(|(_, why)| why == "ISAKMP rekey"), "no timer is left");
    }
}

#[test]
fn a_peer_that_did_not_announce_it_gets_whole_messages() {
    let mut net = Net::new(2, large());
    net.edit = Some(Box::new(|bytes| {
        let header = Header::decode(bytes).ok().filter(|h| h.exchange == Exchange::Main && h.flags == 0)?;
        let payloads = Payloads::decode_clear(header.next, &bytes[HEADER_LEN..]).ok()?;
        let mut chain = Chain::new();
        for p in payloads.items().iter().filter(|p| !p.body.starts_with(&[0x40, 0x48, 0xb7, 0xd5])) {
            chain.push(p.kind, p.body);
        }
        Some(chain.message(header))
    }));
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert!(!net.nodes[A].sent.iter().any(|b| is_piece(b)));
}

#[test]
fn pieces_through_bad_networks_and_a_nat() {
    for seed in 0..20 {
        let mut c = large();
        for c in &mut c {
            c.retransmit_tries = 8;
        }
        if seed % 2 == 0 {
            c[B].keys[0].peer = PeerMatch::Any;
            c[B].entries[0].peers = vec![[203, 0, 113, 9].into()];
        }
        let mut net = Net::new(seed, c);
        if seed % 2 == 0 {
            net.nat = NatBox { inside: vec![net.nodes[A].addr.ip()], public: Some([203, 0, 113, 9].into()), ..NatBox::default() };
        }
        net.weather = Weather { loss: 15, repeat: 30, delay_ms: 900 };
        for _ in 0..12 {
            net.acquire(A);
            net.secs(50);
        }
        net.weather = Weather::default();
        net.secs(100);
        println!("seed {seed}");
        net.assert_settled(1);
        assert!(net.nodes.iter().all(|n| n.engine.fragments.len() == 0));
    }
}

#[test]
fn the_standby_knows_that_the_peer_takes_pieces() {
    let mut net = Net::new(3, large());
    net.initiate(B);
    net.secs(5);
    net.take_over(A);
    let spi = net.nodes[A].live()[0].spi_in;
    net.request(A, IkeRequest::RekeyChild(spi));
    net.secs(40);
    net.assert_settled(1);
    assert!(net.nodes[A].sent.iter().any(|b| is_piece(b)));
}

fn up() -> Net {
    let mut net = Net::new(4, usual());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net.nodes[B].events.clear();
    net
}

/// A piece as the peer might send it, with every field at will.
fn piece(net: &Net, id: u16, number: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let cookies = net.nodes[B].engine.view(net.now)[0].id;
    let body = [&id.to_be_bytes()[..], &[number, flags], data].concat();
    let mut chain = Chain::new();
    chain.push(PayloadKind::Fragment, &body);
    chain.message(Header { id: cookies, next: 0, exchange: Exchange::Quick, flags: 0, message_id: 7 })
}

#[test]
fn shapes_of_pieces() {
    let mut net = up();
    let sent = net.nodes[B].sent.len();
    let mut short = piece(&net, 1, 1, 0, b"x");
    let at = HEADER_LEN + 3;
    for length in [0, 1, 4, 7] {
        short[at] = length;
        net.inject(B, &short);
        assert_eq!(net.nodes[B].refusals(), ["fragment"], "length {length} (CVE-2016-1287)");
        net.nodes[B].events.clear();
    }
    let cases: [(&str, u8, &[u8]); 4] =
        [("number 0", 0, b"x"), ("number 255", 255, b"x"), ("number 33", 33, b"x"), ("no data (CVE-2009-1574)", 1, b"")];
    for (name, number, data) in cases {
        let b = piece(&net, 1, number, 0, data);
        net.inject(B, &b);
        assert_eq!(net.nodes[B].refusals(), ["fragment"], "{name}");
        net.nodes[B].events.clear();
        assert_eq!(net.nodes[B].engine.fragments.len(), 0);
    }
    // CVE-2013-6076: the first piece alone, cookies of nobody, a piece in a message of another exchange.
    let mut stranger = piece(&net, 1, 1, 1, b"x");
    stranger[0] ^= 1;
    net.inject(B, &stranger);
    assert_eq!(net.nodes[B].refusals(), ["fragment_unexpected"]);
    assert_eq!(net.nodes[B].sent.len(), sent, "nothing is answered");
    net.assert_settled(1);
}

#[test]
fn pieces_that_contradict_each_other() {
    let mut net = up();
    // Each row: numbers and flags in order of arrival; the last one is refused and the whole forgotten, except for a mere repetition.
    let rows: [(&str, &[(u8, u8)], usize); 6] = [
        ("shrinking total", &[(5, 0), (3, 1)], 0),
        ("two ends", &[(3, 1), (4, 1)], 0),
        ("beyond the end", &[(3, 1), (4, 0)], 0),
        ("the end is no end", &[(3, 1), (3, 0)], 0),
        ("overlap", &[(2, 0), (2, 0)], 1),
        ("the same end twice", &[(3, 1), (3, 1)], 1),
    ];
    for (name, row, left) in rows {
        for (n, (number, flags)) in row.iter().enumerate() {
            let b = piece(&net, 9, *number, *flags, &[n as u8; 20]);
            net.inject(B, &b);
        }
        assert_eq!(net.nodes[B].refusals(), ["fragment"], "{name}");
        assert_eq!(net.nodes[B].engine.fragments.len(), left, "{name}");
        net.nodes[B].events.clear();
        net.secs(11);
        assert_eq!(net.nodes[B].engine.fragments.len(), 0, "aged out");
    }
    net.assert_settled(1);
}

#[test]
fn what_never_becomes_whole_is_bounded() {
    let mut c = large();
    c[B].limits.half_open_per_source_max = 1000;
    let mut net = Net::new(5, c);
    net.initiate(A);
    net.secs(5);
    // Many half-open SAs, each with a piece that waits for others (CVE-2016-6381).
    net.weather.loss = 100;
    let first = net.nodes[A].sent[0].clone();
    let mut ids = Vec::new();
    for n in 0..SETS_MAX + 50 {
        let mut b = first.clone();
        b[..8].copy_from_slice(&(n as u64 + 1).to_be_bytes());
        net.inject(B, &b);
        ids.push(Header::decode(net.nodes[B].sent.last().unwrap()).unwrap().id);
    }
    for id in ids {
        let mut b = piece(&net, 1, 2, 0, &[7; 1000]);
        b[..8].copy_from_slice(&id.initiator);
        b[8..16].copy_from_slice(&id.responder);
        net.inject(B, &b);
    }
    assert_eq!(net.nodes[B].engine.fragments.len(), SETS_MAX);
    // One SA holds one message: new ones (other IDs, message IDs) replace it; too many bytes end it.
    for id in 0..255 {
        let b = piece(&net, id, 1, 0, &[id as u8; 100]);
        net.inject(B, &b);
    }
    assert_eq!(net.nodes[B].engine.fragments.len(), SETS_MAX);
    net.nodes[B].events.clear();
    for number in 1..=20 {
        let b = piece(&net, 999, number, 0, &[1; 1000]);
        net.inject(B, &b);
    }
    assert!(net.nodes[B].refusals().contains(&"fragment"), "more bytes than a message may have");
    net.weather.loss = 0;
    let spi = net.nodes[A].live()[0].spi_in;
    net.request(A, IkeRequest::RekeyChild(spi));
    net.secs(5);
    assert_ne!(net.nodes[A].live()[0].spi_in, spi, "the tunnel's own pieces still get through");
    net.secs(60);
    assert_eq!(net.nodes[B].engine.fragments.len(), 0);
    net.assert_settled(1);
}

/// CVE-2026-12413 and CVE-2016-10396: the largest sets, in the worst order, of the smallest payloads.
#[test]
fn the_worst_order_and_the_most_payloads() {
    let mut net = up();
    let id = net.nodes[B].engine.view(net.now)[0].id;
    let mut chain = Chain::new();
    for _ in 0..200 {
        chain.push(PayloadKind::Vendor, b"");
    }
    let whole = chain.message(Header { id, next: 0, exchange: Exchange::Main, flags: 0, message_id: 0 });
    let pieces = Fragment::split(&whole, HEADER_LEN + 8 + whole.len().div_ceil(usize::from(FRAGMENTS_MAX))).unwrap();
    for p in pieces.iter().rev() {
        net.inject(B, p);
    }
    assert_eq!(net.nodes[B].refusals(), ["repeated"], "whole, and judged like any other message");
    assert_eq!(net.nodes[B].engine.fragments.len(), 0);
    // A piece whose content is a piece again.
    let inner = piece(&net, 1, 1, 1, b"x");
    let outer = Fragment::split(&inner, 1000).unwrap().remove(0);
    net.nodes[B].events.clear();
    net.inject(B, &outer);
    assert_eq!(net.nodes[B].refusals(), ["fragment"]);
    // A whole message of other cookies, with a wrong length, of another version.
    for (at, value) in [(0, 0xaa), (27, 9), (17, 0x20)] {
        let mut b = whole.clone();
        b[at] ^= value;
        let mut p = Fragment::split(&b, 600).unwrap();
        for p in &mut p {
            p[..8].copy_from_slice(&id.initiator);
            p[17] = 0x10;
        }
        net.nodes[B].events.clear();
        for p in p {
            net.inject(B, &p);
        }
        assert_eq!(net.nodes[B].refusals(), ["fragment"]);
    }
    net.assert_settled(1);
}

#[test]
fn pieces_from_elsewhere_do_not_mix() {
    let mut net = Net::new(6, large());
    net.initiate(A);
    net.run(Duration::from_millis(6));
    net.secs(3);
    let whole: Vec<_> = net.nodes[A].sent.iter().filter(|b| is_piece(b)).cloned().collect();
    net.nodes[B].events.clear();
    let (a, to) = (net.nodes[A].addr, net.nodes[B].addr);
    net.inject_at(B, a, to, &whole[0]);
    net.inject_at(B, SocketAddr::new(a.ip(), 501), to, &whole[1]);
    assert_eq!(net.nodes[B].engine.fragments.len(), 1, "not whole");
    net.inject_at(B, SocketAddr::new([9, 9, 9, 9].into(), 500), to, &whole[0]);
    assert_eq!(net.nodes[B].refusals(), ["wrong_address"]);
}
