//! Main mode with RSA signatures.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg};
use crate::id::{Identity, IkeSaId};
use crate::ike::v1::message::*;
use crate::ike::*;
use crate::pki::testdata::{NOW, credential, part, trust};
use crate::pki::{Credential, Trust};
use hex_literal::hex;
use std::sync::Arc;
use std::time::Duration;

/// The first certificate with the RSA key, under the root: the bundle's gateway.
fn gateway() -> Arc<Credential> {
    Arc::new(credential("rsa"))
}

/// Two gateways that prove themselves with RSA signatures and have no pre-shared key.
fn signed() -> [IkeConfig; 2] {
    let mut c = usual();
    for c in &mut c {
        c.policies[0].authentication = AuthMethod::Signature;
        c.keys.clear();
        c.credential = Some(gateway());
        c.trust = Some(Arc::new(trust()));
    }
    c
}

fn net(seed: u64, configs: [IkeConfig; 2]) -> Net {
    let mut net = Net::new(seed, configs);
    let now = net.now;
    for node in &mut net.nodes {
        node.engine.set_wall(NOW, now);
    }
    net
}

fn kinds(bytes: &[u8]) -> Vec<PayloadKind> {
    let header = Header::decode(bytes).unwrap();
    let payloads = Payloads::decode_clear(header.next, &bytes[HEADER_LEN..]).unwrap();
    payloads.items().iter().map(|p| p.kind).collect()
}

#[test]
fn both_ends_prove_themselves_by_certificate() {
    for (starter, hash) in [(A, HashAlg::Sha256), (B, HashAlg::Md5), (A, HashAlg::Sha1), (B, HashAlg::Sha512)] {
        let mut c = signed();
        for c in &mut c {
            c.policies[0].hash = hash;
        }
        let mut net = net(1, c);
        net.initiate(starter);
        net.secs(5);
        net.assert_settled(1);
        for n in &net.nodes {
            assert_eq!(n.up(net.now), 1);
            assert!(n.notices().iter().any(|t| t.contains("calls itself CN=gw,O=Example,C=CH")), "{:?}", n.notices());
        }
        // Messages 3 and 4 ask for a certificate of the authority; it is not shown before the keys are there.
        for (node, message) in [(starter, 1), (1 - starter, 1)] {
            let sent = &net.nodes[node].sent;
            assert!(kinds(&sent[message]).contains(&PayloadKind::CertRequest));
            for m in sent {
                assert!(!m.windows(12).any(|w| w == &gateway().chain()[0][300..312]));
            }
        }
    }
}

#[test]
fn rekeys_and_takeover_go_on_with_signatures() {
    let mut c = signed();
    for c in &mut c {
        c.policies[0].lifetime_s = 600;
    }
    let mut net = net(2, c);
    net.initiate(A);
    net.secs(1500);
    net.assert_settled(1);
    net.take_over(B);
    let now = net.now;
    net.nodes[B].engine.set_wall(NOW + 1500, now);
    net.secs(1500);
    net.assert_settled(1);
    assert!(net.nodes[A].up(net.now) >= 1 && net.nodes[B].up(net.now) >= 1);
}

#[test]
fn bad_networks_end_well_with_signatures() {
    for seed in 0..20 {
        let mut c = signed();
        for c in &mut c {
            c.retransmit_tries = 8;
        }
        let mut net = net(seed, c);
        net.weather = Weather { loss: 20, repeat: 25, delay_ms: 1500 };
        for _ in 0..10 {
            net.acquire(if seed % 2 == 0 { A } else { B });
            net.secs(50);
        }
        net.weather = Weather::default();
        net.secs(100);
        net.assert_settled(1);
    }
}

#[test]
fn a_gateway_with_both_methods_takes_what_the_peer_can() {
    for (node, other) in [(A, B), (B, A)] {
        for starter in [A, B] {
            let plain = usual();
            let mut c = signed();
            let mut psk = policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256);
            psk.number = 2;
            c[node].policies.push(psk);
            c[node].keys.clone_from(&plain[node].keys);
            c[other] = plain[other].clone();
            let mut net = net(3, c);
            net.initiate(starter);
            net.secs(5);
            net.assert_settled(1);
        }
    }
}

/// Runs A's start against `configs`; nothing may come up. Gives what B refused and what A noticed.
fn fails(seed: u64, configs: [IkeConfig; 2]) -> (String, String) {
    let mut net = net(seed, configs);
    net.initiate(A);
    net.secs(200);
    net.assert_settled(0);
    assert_eq!(net.nodes[A].up(net.now) + net.nodes[B].up(net.now), 0);
    let text = |n: usize| format!("{:?}", net.nodes[n].events);
    (text(B), text(A))
}

#[test]
fn a_certificate_must_be_good_at_the_responder() {
    // Another authority is trusted.
    let mut c = signed();
    c[B].trust = Some(Arc::new(Trust::from_pem(part("other.crt"), b"").unwrap()));
    let (b, a) = fails(1, c);
    assert!(b.contains("no configured authority issued it"), "{b}");
    assert!(a.contains("does it refuse our certificate?"), "{a}");
    // A list says so.
    let mut c = signed();
    c[B].trust = Some(Arc::new(Trust::from_pem(part("root.crt"), part("expired.crl")).unwrap()));
    assert!(fails(1, c).0.contains("list of its issuer has expired"));
}

#[test]
fn a_certificate_must_be_good_at_the_initiator() {
    let mut c = signed();
    c[A].trust = Some(Arc::new(Trust::from_pem(part("other.crt"), b"").unwrap()));
    let mut net = net(1, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(0);
    // The responder cannot know: it believes the initiator.
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (0, 1));
    let a = format!("{:?}", net.nodes[A].events);
    assert!(a.contains("no configured authority issued it"), "{a}");
}

#[test]
fn without_a_clock_no_certificate_is_believed() {
    let mut net = Net::new(1, signed());
    net.initiate(A);
    net.secs(100);
    net.assert_settled(0);
    assert!(net.nodes[B].refusals().contains(&"no_clock"));
    // The clock runs on from where it was set: the certificates end in 2046.
    let now = net.now;
    for n in &mut net.nodes {
        n.engine.set_wall(NOW + 19 * 365 * 86_400, now - Duration::from_secs(2 * 365 * 86_400));
    }
    net.initiate(A);
    net.secs(100);
    net.assert_settled(0);
    assert!(format!("{:?}", net.nodes[B].events).contains("has expired"));
}

#[test]
fn encryption_methods_and_strange_offers_are_refused() {
    // Methods of public key encryption (Bleichenbacher oracles), DSS, and methods that nobody speaks.
    for method in [2u16, 4, 5, 6, 7, 8, 9, 65001, 65005] {
        let mut net = net(1, signed());
        let mut offer = crate::ike::v1::proposal::isakmp_offer(&signed()[A].policies);
        for a in &mut offer.proposals[0].transforms[0].attributes {
            if a.kind == 3 {
                *a = Attribute::basic(3, method);
            }
        }
        let id = IkeSaId { initiator: [9; 8], responder: [0; 8] };
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &offer.encode());
        let bytes = chain.message(Header { id, next: 0, exchange: Exchange::Main, flags: 0, message_id: 0 });
        net.inject(B, &bytes);
        assert!(net.nodes[B].refusals().contains(&"no_proposal_chosen"), "method {method}");
        assert_eq!(net.nodes[B].engine.sas.len(), 0);
    }
}

#[test]
fn a_policy_without_certificate_is_not_offered_nor_taken() {
    let mut c = signed();
    c[B].credential = None;
    let (b, _) = fails(1, c);
    assert!(b.contains("unknown_peer") || b.contains("no_proposal_chosen"), "{b}");
    // An ECDSA key cannot sign in version 1.
    let mut c = signed();
    c[A].credential = Some(Arc::new(credential("ecdsa")));
    let mut net = net(1, c);
    net.initiate(A);
    net.secs(20);
    assert!(net.nodes[A].notices().iter().any(|t| t.contains("phase 1 cannot start")), "{:?}", net.nodes[A].notices());
}

#[test]
fn every_byte_of_the_proof_counts() {
    // Message 5 and message 6, damaged at any place, never convince the other end. CBC without a check lets the damage through to us.
    let (five, six) = {
        let mut net = net(5, signed());
        net.initiate(A);
        net.secs(5);
        (net.nodes[A].sent[2].len(), net.nodes[B].sent[2].len())
    };
    // INITIAL-CONTACT at the end of message 5, and the padding, have no protection in version 1.
    for (node, length) in [(A, five - 64), (B, six - 32)] {
        for at in (HEADER_LEN..length).step_by(61) {
            let mut net = net(5, signed());
            let mut encrypted = 0;
            net.edit = Some(Box::new(move |bytes| {
                let header = Header::decode(bytes).ok()?;
                encrypted += usize::from(header.exchange == Exchange::Main && header.flags & flag::ENCRYPTED != 0);
                (encrypted == 1 + node).then(|| {
                    let mut bad = bytes.to_vec();
                    bad[at] ^= 0x10;
                    bad
                })
            }));
            net.initiate(A);
            net.secs(1);
            assert_eq!(net.nodes[1 - node].up(net.now), 0, "byte {at} of message {}", 5 + node);
        }
    }
}

#[test]
fn the_identity_must_stand_in_the_certificate() {
    // SEQUENCE { SET { SEQUENCE { commonName, UTF8String "other" } } }
    let other = hex!("3010310e300c06035504030c056f74686572").to_vec();
    for node in [A, B] {
        let mut c = signed();
        c[node].credential = Some(Arc::new(credential("rsa").pretending(Identity::DerAsn1Dn(other.clone()))));
        let mut net = net(6, c);
        net.initiate(A);
        net.secs(100);
        net.assert_settled(0);
        assert_eq!(net.nodes[1 - node].up(net.now), 0);
        let events = format!("{:?}", net.nodes[1 - node].events);
        assert!(events.contains("the certificate of CN=gw,O=Example,C=CH is not of CN=other"), "{events}");
    }
    // An alternative name will do as well.
    for id in [Identity::Fqdn("gw.example.org".into()), Identity::UserFqdn("Ops@example.org".into())] {
        let mut c = signed();
        c[A].credential = Some(Arc::new(credential("rsa").pretending(id)));
        let mut net = net(6, c);
        net.initiate(A);
        net.secs(5);
        net.assert_settled(1);
    }
}

#[test]
fn a_peer_may_be_bound_to_a_name() {
    let bind = |id: Identity| {
        let mut c = signed();
        let peer = PeerMatch::Address([40, 0, 0, 1].into());
        c[B].peers = vec![PeerPolicy { peer, aggressive: false, policies: Vec::new(), remote_id: Some(id) }];
        c
    };
    // The peer sends its subject; the alternative name stands in the same certificate.
    let mut net = net(7, bind(Identity::Fqdn("gw.example.org".into())));
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    let (b, _) = fails(7, bind(Identity::Fqdn("other.example.org".into())));
    assert!(b.contains("is not that of the peer at 40.0.0.1"), "{b}");
}
