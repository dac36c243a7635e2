//! The shapes of published advisories, each beside a live tunnel that must not notice (the rest stands in `attack` and `fragments`).

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg};
use crate::id::{IkeSaId, Spi};
use crate::ike::v1::message::*;
use crate::ike::v1::{MainState, Stage, crypt, keymat, proposal};
use crate::ike::*;

/// Payloads of a message, in order.
type Bodies = Vec<(PayloadKind, Vec<u8>)>;

fn up() -> Net {
    let mut net = Net::new(1, usual());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net.nodes[B].events.clear();
    net
}

fn first(n: u8, exchange: Exchange) -> Header {
    Header { id: IkeSaId { initiator: [n; 8], responder: [0; 8] }, next: 0, exchange, flags: 0, message_id: 0 }
}

/// Gives B bytes: they are refused for this reason, at most one short answer leaves, nothing else changes.
fn refused(net: &mut Net, name: &str, bytes: &[u8], reason: &str) {
    let n = &mut net.nodes[B];
    n.events.clear();
    let (sent, sas, timers) = (n.sent.len(), n.engine.sas.len(), n.engine.poll_timeout());
    net.inject(B, bytes);
    let n = &net.nodes[B];
    assert_eq!(n.refusals(), [reason], "{name}");
    assert!(n.sent.len() <= sent + 1, "{name}: at most one answer");
    assert!(n.sent.get(sent).is_none_or(|a| a.len() <= bytes.len() + 28), "{name}: no amplification");
    assert_eq!((n.engine.sas.len(), n.engine.poll_timeout()), (sas, timers), "{name}: no state");
    net.assert_settled(1);
}

/// CVE-2005-3669, -3671, -3732 (PROTOS c09-isakmp): payloads missing or too many in the first message of either mode.
#[test]
fn first_messages_with_missing_payloads() {
    let mut c = usual();
    c[B].peers.push(PeerPolicy { peer: PeerMatch::Any, aggressive: true, policies: Vec::new(), remote_id: None });
    let mut net = Net::new(2, c);
    net.initiate(A);
    net.secs(5);
    let sa = proposal::isakmp_offer(&usual()[A].policies).encode();
    let whole: [(PayloadKind, Vec<u8>); 4] = [
        (PayloadKind::Sa, sa),
        (PayloadKind::KeyExchange, vec![4; 64]),
        (PayloadKind::Nonce, vec![5; 16]),
        (PayloadKind::Id, vec![1, 0, 0, 0, 40, 0, 0, 1]),
    ];
    for missing in 0..4 {
        for doubled in [false, true] {
            let mut chain = Chain::new();
            for (n, (kind, body)) in whole.iter().enumerate() {
                let times = if n != missing {
                    1
                } else if doubled {
                    2
                } else {
                    0
                };
                for _ in 0..times {
                    chain.push(*kind, body);
                }
            }
            refused(&mut net, &format!("aggressive, {missing}"), &chain.message(first(9, Exchange::Aggressive)), "payloads");
        }
    }
    for exchange in [Exchange::Main, Exchange::Aggressive] {
        refused(&mut net, "no payload", &Chain::new().message(first(9, exchange)), "payloads");
    }
    let with = |change: &dyn Fn(&mut Bodies)| {
        let mut payloads = whole.to_vec();
        change(&mut payloads);
        let mut chain = Chain::new();
        for (kind, body) in &payloads {
            chain.push(*kind, body);
        }
        chain.message(first(9, Exchange::Aggressive))
    };
    refused(&mut net, "short KE", &with(&|p| p[1].1.truncate(63)), "ke_length");
    refused(&mut net, "empty KE", &with(&|p| p[1].1.clear()), "ke_length");
    refused(&mut net, "short nonce", &with(&|p| p[2].1.truncate(7)), "nonce_length");
    refused(&mut net, "cut ID", &with(&|p| p[3].1.truncate(3)), "peer_id");
    refused(&mut net, "short address", &with(&|p| p[3].1.truncate(6)), "peer_id");
    // CVE-2013-6075: a distinguished name shorter than what it is compared with.
    refused(&mut net, "empty name", &with(&|p| p[3].1 = vec![9, 0, 0, 0]), "peer_id");
    refused(&mut net, "short IPv6 address", &with(&|p| p[3].1 = vec![5, 0, 0, 0, 1, 2]), "peer_id");
}

/// Transforms that nobody can do: CVE-2005-3669 (key length of 3DES), CVE-2014-9221 (group 1025), CVE-2016-3071, methods 4 and 5.
#[test]
fn first_messages_with_impossible_transforms() {
    let policies = [policy(CipherAlg::TripleDes, HashAlg::Sha1, DhGroup::Modp1024)];
    let mut net = Net::new(1, configs(1, &policies, (CipherAlg::TripleDes, Some(IntegAlg::HmacSha1)), None));
    net.initiate(A);
    net.secs(5);
    let offer = |change: &dyn Fn(&mut Vec<Attribute>)| {
        let mut sa = proposal::isakmp_offer(&policies);
        for t in &mut sa.proposals[0].transforms {
            change(&mut t.attributes);
        }
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &sa.encode());
        chain.message(first(9, Exchange::Main))
    };
    let set = |kind: u16, value: u16| {
        move |list: &mut Vec<Attribute>| {
            list.retain(|a| a.kind != kind);
            list.push(Attribute::basic(kind, value));
        }
    };
    let cases: [(&str, Vec<u8>); 10] = [
        ("3DES with a key length", offer(&set(14, 192))),
        ("3DES with a key length of zero", offer(&set(14, 0))),
        ("group 1025", offer(&set(4, 1025))),
        ("group 0", offer(&set(4, 0))),
        ("cipher 65535", offer(&set(1, 65_535))),
        ("hash 0", offer(&set(2, 0))),
        ("RSA encryption (Bleichenbacher)", offer(&set(3, 4))),
        ("revised RSA encryption (Bleichenbacher)", offer(&set(3, 5))),
        ("a group of its own", offer(&|l| l.push(Attribute { kind: 6, value: AttributeValue::Variable(vec![0xff; 96]) }))),
        ("no attributes", offer(&Vec::clear)),
    ];
    for (name, bytes) in cases {
        refused(&mut net, name, &bytes, "no_proposal_chosen");
        assert!(net.nodes[B].sent.last().is_some_and(|b| b[16] == PayloadKind::Notify.number()), "{name}: NO-PROPOSAL-CHOSEN");
        net.secs(2);
    }
    net.nodes[B].events.clear();
    net.inject(B, &offer(&|_| {}));
    assert!(net.nodes[B].refusals().is_empty(), "as it was meant it is taken");
}

/// Lengths that lie: CVE-2004-0403, CVE-2005-0398, CVE-2004-0218 to -0222, the tcpdump set.
#[test]
fn lengths_that_lie() {
    let mut net = up();
    let mut chain = Chain::new();
    chain.push(PayloadKind::Sa, &proposal::isakmp_offer(&usual()[A].policies).encode()).push(PayloadKind::Vendor, b"x");
    let good = chain.message(first(9, Exchange::Main));
    let patched = |at: usize, bytes: &[u8]| {
        let mut b = good.clone();
        b[at..at + bytes.len()].copy_from_slice(bytes);
        b
    };
    let h = HEADER_LEN;
    for (name, bytes, reason) in [
        ("huge header length", patched(24, &[0xff; 4]), "header_length"),
        ("header length of zero", patched(24, &[0; 4]), "header_length"),
        ("payload length of zero", patched(h + 2, &[0, 0]), "payloads"),
        ("payload length of three", patched(h + 2, &[0, 3]), "payloads"),
        ("payload past the end", patched(h + 2, &[0xff, 0xff]), "payloads"),
        ("proposal of zero", patched(h + 14, &[0, 0]), "payloads"),
        ("proposal past the end", patched(h + 14, &[0xff, 0xff]), "payloads"),
        ("SPI size past the end", patched(h + 18, &[255]), "payloads"),
        ("255 transforms", patched(h + 19, &[255]), "payloads"),
        ("transform of zero", patched(h + 22, &[0, 0]), "payloads"),
        ("attribute past the end", patched(h + 28, &[0, 1, 0xff, 0xff]), "payloads"),
        ("next payload 15 (CVE-2015-3204)", patched(16, &[15]), "unknown_payload"),
        ("a second payload of type 15", patched(h, &[15]), "payloads"),
        ("a payload of version 2 behind the SA (CVE-2015-3991)", patched(h, &[41]), "payloads"),
    ] {
        refused(&mut net, name, &bytes, reason);
    }
}

/// CVE-2020-1763, CVE-2022-23094: broken payloads for which no state exists. CVE-2009-0790: DPD without protection.
#[test]
fn informational_messages_of_nobody() {
    let mut net = up();
    let live = net.nodes[B].engine.view(net.now)[0].id;
    let nobody = IkeSaId { initiator: [7; 8], responder: [8; 8] };
    let header = |id, flags| Header { id, next: 0, exchange: Exchange::Informational, flags, message_id: 77 };
    let bodies: [(PayloadKind, Vec<u8>); 7] = [
        (PayloadKind::Notify, Notify::isakmp(notify_type::R_U_THERE, live, vec![0; 4]).encode()),
        (PayloadKind::Notify, Notify::isakmp(notify_type::R_U_THERE_ACK, live, vec![0; 4]).encode()),
        (PayloadKind::Notify, vec![0, 0, 0, 1, 1, 255, 0, 1]),
        (PayloadKind::Notify, vec![0]),
        (PayloadKind::Delete, vec![0, 0, 0, 1, 3, 4, 0xff, 0xff, 1, 2, 3, 4]),
        (PayloadKind::Delete, Delete::Isakmp(vec![live]).encode()),
        (PayloadKind::CertRequest, vec![]),
    ];
    for (kind, body) in bodies {
        let mut chain = Chain::new();
        chain.push(kind, &body);
        refused(&mut net, "of nobody", &chain.message(header(nobody, 0)), "unknown_cookies");
        refused(&mut net, "of nobody, encrypted", &chain.message(header(nobody, 1)), "unknown_cookies");
        refused(&mut net, "without protection", &chain.message(header(live, 0)), "not_encrypted");
    }
}

/// What an authenticated peer may send in an Informational: broken lists are refused whole.
#[test]
fn protected_lists_that_lie() {
    let mut net = up();
    let spi = net.nodes[A].live()[0].spi_in;
    let id = net.nodes[A].engine.view(net.now)[0].id;
    let bodies: [(&str, PayloadKind, Vec<u8>); 8] = [
        ("65535 SPIs (CVE-2004-0221)", PayloadKind::Delete, vec![0, 0, 0, 1, 3, 4, 0xff, 0xff, 1, 2, 3, 4]),
        ("no SPI", PayloadKind::Delete, vec![0, 0, 0, 1, 3, 4, 0, 0]),
        ("SPI size of zero", PayloadKind::Delete, vec![0, 0, 0, 1, 3, 0, 0, 1]),
        ("SPI size of 255", PayloadKind::Delete, vec![0, 0, 0, 1, 3, 255, 0, 1, 1, 2, 3, 4]),
        ("cut", PayloadKind::Delete, Delete::Esp(vec![spi]).encode()[..11].to_vec()),
        ("another DOI", PayloadKind::Delete, [&[0, 0, 0, 9], &Delete::Esp(vec![spi]).encode()[4..]].concat()),
        ("notification cut", PayloadKind::Notify, vec![0, 0, 0, 1, 1, 16, 0x8d]),
        ("DPD of three bytes", PayloadKind::Notify, Notify::isakmp(notify_type::R_U_THERE, id, vec![0; 3]).encode()),
    ];
    for (n, (name, kind, body)) in bodies.into_iter().enumerate() {
        let mut chain = Chain::new();
        chain.push(kind, &body);
        let bytes = net.protected(A, Exchange::Informational, 0x5000 + n as u32, &chain);
        net.nodes[B].events.clear();
        net.inject(B, &bytes);
        assert_eq!(net.nodes[B].refusals(), ["payloads"], "{name}");
        net.assert_settled(1);
    }
}

/// Quick mode of an authenticated peer: CVE-2023-38711 (IDs of the wrong type), CVE-2024-3652 (nothing that protects), and others.
#[test]
fn protected_requests_that_cannot_be() {
    let mut net = up();
    let entry = net.nodes[A].engine.config.entries[0].clone();
    let flow = entry.flows[0].clone();
    let ends = proposal::Ends { nat: None, tunnel: true, transport: false };
    let sa = proposal::esp_offer(&entry, Spi(0x1234_5678), ends);
    let id = |s| Id::from_selector(&s).unwrap().encode();
    let good: Bodies = vec![
        (PayloadKind::Sa, sa.encode()),
        (PayloadKind::Nonce, vec![5; 16]),
        (PayloadKind::Id, id(flow.local)),
        (PayloadKind::Id, id(flow.remote)),
    ];
    let name = |text: &str| [&[2, 0, 0, 0], text.as_bytes()].concat();
    let nothing = {
        let mut sa = sa.clone();
        sa.proposals[0].transforms[0].id = 11;
        sa.proposals[0].transforms[0].attributes.retain(|a| a.kind < 5);
        sa.encode()
    };
    let gmac = {
        let mut sa = sa.clone();
        sa.proposals[0].transforms[0].id = 23;
        sa.encode()
    };
    let cases: Vec<(&str, Vec<(usize, Vec<u8>)>, &str)> = vec![
        ("IDcr is a name", vec![(3, name("gw.example"))], "invalid_id"),
        ("both IDs are names", vec![(2, name("a")), (3, name("b"))], "invalid_id"),
        ("ID of length zero", vec![(3, vec![4, 0, 0, 0])], "invalid_id"),
        ("ID cut", vec![(3, vec![4, 0])], "invalid_id"),
        ("IPv6 subnet cut (tcpdump)", vec![(3, vec![6, 0, 0, 0, 1, 2, 3])], "invalid_id"),
        ("a range", vec![(3, vec![7, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])], "invalid_id"),
        ("a wider net", vec![(3, vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])], "invalid_id"),
        ("another protocol", vec![(3, [&[4, 6, 0, 0], &id(flow.remote)[4..]].concat())], "invalid_id"),
        ("null encryption without a check", vec![(0, nothing)], "no_proposal_chosen"),
        ("GMAC beside a check", vec![(0, gmac)], "no_proposal_chosen"),
        ("reserved SPI", vec![(0, proposal::esp_offer(&entry, Spi(255), ends).encode())], "no_proposal_chosen"),
        ("short nonce", vec![(1, vec![5; 7])], "nonce_length"),
        ("long nonce", vec![(1, vec![5; 257])], "nonce_length"),
        ("situation bits", vec![(0, [&[0, 0, 0, 1, 0, 0, 0, 7], &sa.encode()[8..]].concat())], "payloads"),
    ];
    for (n, (name, changes, reason)) in cases.into_iter().enumerate() {
        let mut payloads = good.clone();
        for (at, body) in changes {
            payloads[at].1 = body;
        }
        let mut chain = Chain::new();
        for (kind, body) in &payloads {
            chain.push(*kind, body);
        }
        let bytes = net.protected(A, Exchange::Quick, 0x6000 + n as u32, &chain);
        net.nodes[B].events.clear();
        let spis = net.nodes[B].kernel.len();
        net.inject(B, &bytes);
        assert_eq!(net.nodes[B].refusals(), [reason], "{name}");
        assert_eq!(net.nodes[B].kernel.len(), spis);
        assert!(net.nodes[B].engine.quicks.is_empty(), "{name}");
        net.secs(1);
        net.assert_settled(1);
    }
    // Payloads missing, doubled, in another order, of other exchanges.
    let shapes: Vec<(&str, Vec<usize>)> = vec![
        ("no SA", vec![1, 2, 3]),
        ("no nonce", vec![0, 2, 3]),
        ("one ID", vec![0, 1, 2]),
        ("three IDs", vec![0, 1, 2, 3, 3]),
        ("SA third", vec![1, 0, 2, 3]),
        ("two SAs", vec![0, 0, 1, 2, 3]),
        ("two nonces", vec![0, 1, 1, 2, 3]),
    ];
    for (n, (name, order)) in shapes.into_iter().enumerate() {
        let mut chain = Chain::new();
        for at in order {
            chain.push(good[at].0, &good[at].1);
        }
        let bytes = net.protected(A, Exchange::Quick, 0x7000 + n as u32, &chain);
        net.nodes[B].events.clear();
        net.inject(B, &bytes);
        assert_eq!(net.nodes[B].refusals(), ["payloads"], "{name}");
        net.assert_settled(1);
    }
    assert!(net.nodes[B].engine.quicks.is_empty());
    let mut chain = Chain::new();
    for (kind, body) in &good {
        chain.push(*kind, body);
    }
    let bytes = net.protected(A, Exchange::Quick, 0x8000, &chain);
    net.nodes[B].events.clear();
    net.inject(B, &bytes);
    assert!(net.nodes[B].refusals().is_empty(), "as it was meant it is taken");
    assert_eq!(net.nodes[B].engine.quicks.len(), 1);
}

/// Message 5 of a peer that has the key, with an identity that cannot be (CVE-2013-6075 and others), and a Delete in its company.
#[test]
fn identities_that_cannot_be_in_message_5() {
    let address = [40, 0, 0, 1];
    let with = |head: [u8; 4], rest: &[u8]| [&head[..], rest].concat();
    let cases: [(&str, Vec<u8>, Option<&str>); 12] = [
        ("its address", with([1, 0, 0, 0], &address), None),
        ("its address, UDP 500", with([1, 17, 1, 0xf4], &address), None),
        ("a name", with([2, 0, 0, 0], b"gw.example"), None),
        ("a distinguished name of two bytes", with([9, 0, 0, 0], &[0x30, 0]), None),
        ("a distinguished name without a byte", with([9, 0, 0, 0], &[]), Some("peer_id")),
        ("a key ID of 513 bytes", with([11, 0, 0, 0], &[7; 513]), Some("peer_id")),
        ("another address", with([1, 0, 0, 0], &[40, 0, 0, 2]), Some("peer_id")),
        ("an address of three bytes", with([1, 0, 0, 0], &[40, 0, 0]), Some("peer_id")),
        ("an IPv6 address of four bytes", with([5, 0, 0, 0], &address), Some("peer_id")),
        ("TCP", with([1, 6, 0, 0], &address), Some("peer_id")),
        ("another port", with([1, 17, 0, 1], &address), Some("peer_id")),
        ("not even a port", vec![1, 0], Some("peer_id")),
    ];
    for (name, body, reason) in cases {
        let mut net = Net::new(3, usual());
        net.initiate(A);
        // Until A has sent message 5, which the tester replaces.
        net.edit = Some(Box::new(|b| (b[19] == 1).then(Vec::new)));
        net.run(std::time::Duration::from_millis(100));
        net.edit = None;
        net.nodes[B].events.clear();
        let sa = net.nodes[A].engine.sas.values().next().unwrap();
        let Stage::Main(main) = &sa.stage else { panic!("{name}") };
        assert_eq!(main.state, MainState::WaitAuth);
        let (hash, cipher) = main.suite().unwrap();
        let mut iv = keymat::phase1_iv(hash, cipher, &main.gxi, &main.gxr);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &body).push(PayloadKind::Hash, &keymat::hash_i(hash, &main.skeyid, &main.auth_input(sa.id), &body));
        let header = Header { id: sa.id, next: 0, exchange: Exchange::Main, flags: 0, message_id: 0 };
        let bytes = crypt::seal(cipher, &main.key, &mut iv, header, &chain).unwrap();
        net.inject(B, &bytes);
        assert_eq!(net.nodes[B].refusals().first().copied(), reason, "{name}");
        assert_eq!(net.nodes[B].up(net.now), usize::from(reason.is_none()), "{name}");
        net.weather.loss = 100;
        net.secs(40);
        assert_eq!(net.nodes[B].engine.half_open_total, 0);
    }
}

/// Message 3 with a certificate request without a body (CVE-2004-0220) is message 3; one with payloads of other messages is not.
#[test]
fn payloads_in_message_3() {
    let mut net = Net::new(4, usual());
    let mut seen = 0;
    net.edit = Some(Box::new(move |b| {
        let header = Header::decode(b).ok()?;
        let payloads = Payloads::decode_clear(header.next, &b[HEADER_LEN..]).ok()?;
        payloads.one(PayloadKind::KeyExchange).ok()?;
        seen += 1;
        let mut chain = Chain::new();
        for p in payloads.items() {
            chain.push(p.kind, p.body);
        }
        chain.push(PayloadKind::CertRequest, b"");
        (seen == 1).then(|| chain.message(header))
    }));
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    for kind in [PayloadKind::Sa, PayloadKind::Id, PayloadKind::Hash, PayloadKind::Delete, PayloadKind::NatOriginal] {
        let mut net = Net::new(4, usual());
        net.edit = Some(Box::new(move |b| {
            let header = Header::decode(b).ok()?;
            let payloads = Payloads::decode_clear(header.next, &b[HEADER_LEN..]).ok()?;
            payloads.one(PayloadKind::KeyExchange).ok()?;
            let mut chain = Chain::new();
            for p in payloads.items() {
                chain.push(p.kind, p.body);
            }
            chain.push(kind, b"xxxx");
            Some(chain.message(header))
        }));
        net.initiate(A);
        net.run(std::time::Duration::from_millis(100));
        assert_eq!(net.nodes[B].refusals(), ["payloads"], "{kind:?}");
        assert_eq!(net.nodes[B].sent.len(), 1);
    }
}

/// Every datagram of a session, cut and with each byte changed once, at a moment when it is not expected: the tunnel does not notice.
#[test]
fn a_session_bent_in_every_byte() {
    let policies = [policy(CipherAlg::Aes128, HashAlg::Sha1, DhGroup::Ecp256)];
    let mut net = Net::new(5, configs(1, &policies, (CipherAlg::Aes128, Some(IntegAlg::HmacSha1)), None));
    net.initiate(A);
    net.secs(5);
    let recorded = net.nodes[A].sent.clone();
    for bytes in recorded {
        for at in 0..bytes.len() {
            let mut b = bytes.clone();
            b[at] ^= 0x5a;
            net.inject(B, &b);
            net.inject(B, &bytes[..at]);
        }
        net.secs(40);
        net.assert_settled(1);
        assert_eq!(net.nodes[B].up(net.now), 1);
        net.nodes[B].events.clear();
    }
    assert_eq!(net.nodes[B].engine.half_open_total, 0);
}
