//! Signatures, fragments, NATs.

use super::net::*;
use crate::crypto::{DhGroup, Secret};
use crate::ike::*;
use crate::pki::testdata;
use crate::sad::Encap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Both ends sign, A with the first and B with the second key.
fn signing(a: &str, b: &str) -> [IkeConfig; 2] {
    let mut c = usual();
    with_profile(&mut c, |i, p| {
        p.local_auth = AuthMethod::Signature;
        p.remote_auth = AuthMethod::Signature;
        p.credential = Some(Arc::new(testdata::credential(if i == A { a } else { b })));
        p.trust = Some(Arc::new(testdata::trust()));
        p.fragment_bytes = 1280;
    });
    c
}

#[test]
fn both_ends_sign_with_every_kind_of_key() {
    for (a, b) in [("rsa", "ecdsa"), ("ecdsa", "p384"), ("p521", "ed25519"), ("ed25519", "rsa"), ("inter0leaf", "rsa")] {
        let mut net = standing(1, signing(a, b), A);
        net.assert_settled(1, 1);
        net.rekey_ike(B);
        net.secs(2);
        net.assert_settled(1, 1);
    }
}

#[test]
fn one_end_signs_and_the_other_has_the_shared_key() {
    for signer in [A, B] {
        for starter in [A, B] {
            let mut c = signing("ecdsa", "rsa");
            let id = |c: &[IkeConfig; 2], i: usize| c[i].entries[0].ikev2.as_ref().unwrap().credential.as_ref().unwrap().subject();
            let subject = id(&c, signer);
            with_profile(&mut c, |i, p| {
                if i == signer {
                    p.remote_auth = AuthMethod::PreShared;
                } else {
                    p.local_auth = AuthMethod::PreShared;
                    p.remote_id = Some(subject.clone());
                }
            });
            let net = standing(2, c, starter);
            net.assert_settled(1, 1);
        }
    }
}

#[test]
fn a_certificate_must_hold_the_name_and_be_trusted() {
    // A name that is not in the certificate.
    for (i, starter) in [(A, A), (A, B), (B, A), (B, B)] {
        let mut c = signing("ecdsa", "rsa");
        with_profile(&mut c, |n, p| {
            if n == i {
                p.local_id = Some(Identity::Fqdn("somebody.else.example".into()));
            }
        });
        let mut net = standing(3, c, starter);
        net.secs(60);
        net.assert_settled(0, 0);
        // A certificate of another time.
        let mut net = Net::new(4, signing("ecdsa", "rsa"));
        net.nodes[i].engine.set_wall(testdata::NOW + 100 * 365 * 86_400, net.now);
        net.initiate(starter);
        net.secs(60);
        net.assert_settled(0, 0);
    }
}

#[test]
fn large_messages_travel_in_fragments() {
    for seed in 0..20 {
        let mut c = signing("rsa", "rsa");
        with_profile(&mut c, |_, p| p.fragment_bytes = 576);
        let mut net = Net::new(seed, c);
        net.weather = Weather { loss: 10, repeat: 20, delay_ms: 300 };
        net.initiate((seed % 2) as usize);
        net.secs(100);
        net.weather = Weather::default();
        for _ in 0..3 {
            net.acquire((seed % 2) as usize);
            net.secs(60);
        }
        println!("seed {seed}");
        net.assert_settled(1, 1);
        for n in &net.nodes {
            let largest = n.sent.iter().skip(1).map(Vec::len).max().unwrap();
            assert!(largest <= 576 - 28, "{largest}");
            assert!(n.sent.len() > 3);
        }
    }
    // A repeated request in fragments draws the repeated answer.
    let mut c = signing("rsa", "rsa");
    with_profile(&mut c, |_, p| p.fragment_bytes = 576);
    let mut net = standing(50, c, A);
    let (requests, answers) = (net.nodes[A].sent.clone(), net.nodes[B].sent.clone());
    net.secs(1);
    for r in &requests[1..] {
        net.inject(B, r);
    }
    assert_eq!(net.nodes[B].sent[answers.len()..], answers[1..]);
}

/// A behind a NAT that shows it at another address.
fn behind_nat(seed: u64, starter: usize) -> Net {
    let outside: IpAddr = [203, 0, 113, 77].into();
    let mut c = usual();
    c[B].entries[0].peers = vec![outside];
    c[B].keys[0].peer = PeerMatch::Any;
    with_profile(&mut c, |i, p| {
        p.local_id = Some(Identity::Fqdn(["a", "b"][i].into()));
        p.remote_id = Some(Identity::Fqdn(["b", "a"][i].into()));
    });
    let mut net = Net::new(seed, c);
    net.nat = Some(Nat { outside, shift: 0 });
    if starter == A {
        net.nat = Some(Nat { outside, shift: 1000 });
    }
    net.initiate(starter);
    net.secs(5);
    net
}

#[test]
fn a_nat_is_found_and_passed() {
    for starter in [A, B] {
        let mut net = behind_nat(1, starter);
        let shift = net.nat.unwrap().shift;
        let (a, b) = (net.nodes[A].live()[0].clone(), net.nodes[B].live()[0].clone());
        assert_eq!(a.encap, Some(Encap { local_port: 4500, peer_port: 4500 }));
        assert_eq!(b.encap, Some(Encap { local_port: 4500, peer_port: 4500 + shift }));
        assert_eq!(b.peer, IpAddr::from([203, 0, 113, 77]));
        assert!(a.keys_in == b.keys_out);
        assert!(net.nodes[A].sent.last().unwrap().starts_with(&[0; 4]), "behind the marker");
        // Only the end behind the NAT sends keepalives.
        let sent = [net.nodes[A].sent.len(), net.nodes[B].sent.len()];
        net.secs(61);
        assert_eq!(net.nodes[A].sent[sent[A]..], [vec![0xff], vec![0xff], vec![0xff]]);
        assert_eq!(net.nodes[B].sent.len(), sent[B]);
        assert!(net.nodes[B].refusals().is_empty());
        net.rekey_ike(B);
        net.rekey_child(A);
        net.secs(5);
        assert_eq!((net.nodes[A].live().len(), net.nodes[B].live().len()), (1, 1));
        // The mapping changes: the first authentic message tells.
        net.nat = Some(Nat { outside: [203, 0, 113, 88].into(), shift: 2000 });
        net.request(A, IkeRequest::ProbePeer([192, 168, 3, 1].into()));
        net.secs(5);
        let b = net.nodes[B].live()[0];
        assert_eq!((b.peer, b.encap.unwrap().peer_port), ([203, 0, 113, 88].into(), 6500));
        // And it goes on after a takeover of the end behind it.
        net.take_over(0);
        net.secs(30);
        net.rekey_child(B);
        net.secs(5);
        assert_eq!((net.nodes[A].live().len(), net.nodes[B].live().len()), (1, 1));
    }
}

#[test]
fn a_forged_source_moves_nothing() {
    let mut net = behind_nat(2, A);
    let before = net.nodes[B].live()[0].clone();
    let sent = net.nodes[A].sent.iter().rev().find(|p| p.len() > 40).unwrap().clone();
    let mut forged = sent.clone();
    let n = forged.len();
    forged[n - 1] ^= 1;
    let (from, to): (SocketAddr, SocketAddr) = ("198.51.100.9:4500".parse().unwrap(), "192.168.3.1:4500".parse().unwrap());
    for bytes in [&sent, &forged] {
        net.nodes[B].engine.handle_datagram(from, to, bytes, net.now + Duration::from_secs(1));
        net.pump();
    }
    assert_eq!(net.nodes[B].live()[0].peer, before.peer);
    net.secs(2);
    net.rekey_child(A);
    net.secs(3);
    assert_eq!(net.nodes[B].live().len(), 1);
}

/// Both ends want ML-KEM-768, and a second one of another kind, besides the first group.
fn hybrid() -> [IkeConfig; 2] {
    let mut c = usual();
    with_profile(&mut c, |_, p| {
        p.proposals[0].additional = vec![vec![DhGroup::MlKem768], vec![DhGroup::X25519]];
        p.fragment_bytes = 1280;
    });
    c
}

#[test]
fn additional_key_exchanges_with_ml_kem() {
    for starter in [A, B] {
        let mut net = standing(7, hybrid(), starter);
        net.assert_settled(1, 1);
        let sa = net.nodes[A].engine.sas.values().next().unwrap().up().unwrap();
        assert_eq!(sa.suite.additional, [DhGroup::MlKem768, DhGroup::X25519]);
        assert_eq!(sa.send_id.max(sa.recv_id), 4, "IKE_SA_INIT, two IKE_INTERMEDIATE, IKE_AUTH");
        net.rekey_ike(A);
        net.rekey_child(B);
        net.secs(5);
        net.assert_settled(1, 1);
        net.take_over(0);
        net.secs(5);
        net.assert_settled(1, 1);
    }
    for seed in 0..10 {
        let mut net = Net::new(seed, hybrid());
        net.weather = Weather { loss: 15, repeat: 20, delay_ms: 300 };
        net.initiate(A);
        net.secs(150);
        net.weather = Weather::default();
        for _ in 0..3 {
            net.acquire(A);
            net.secs(60);
        }
        net.assert_settled(1, 1);
    }
}

#[test]
fn a_peer_without_additional_key_exchanges_is_refused_unless_they_may_be_left_out() {
    let mut c = hybrid();
    with_profile(&mut c[B..], |_, p| p.proposals[0].additional.clear());
    for starter in [A, B] {
        let mut net = standing(8, c.clone(), starter);
        net.secs(60);
        net.assert_settled(0, 0);
    }
}

#[test]
fn a_post_quantum_key_is_mixed_in_when_both_ends_have_it() {
    let key = |id: &[u8], key: &[u8], required| Some(Ppk { id: id.to_vec(), key: Secret::new(key.to_vec()), required });
    let (k, other) = (b"0123456789abcdef0123456789abcdef", b"another key, another key, anothe");
    let cases = [
        (key(b"x", k, true), key(b"x", k, true), true),
        (key(b"x", k, false), key(b"x", k, false), true),
        (key(b"x", k, true), key(b"x", other, true), false),
        (key(b"x", k, false), key(b"y", k, false), true),
        (key(b"x", k, true), key(b"y", k, false), false),
        (key(b"x", k, false), key(b"y", k, true), false),
        (key(b"x", k, false), None, true),
        (key(b"x", k, true), None, false),
        (None, key(b"x", k, true), false),
        (None, key(b"x", k, false), true),
    ];
    for (n, (a, b, good)) in cases.into_iter().enumerate() {
        for starter in [A, B] {
            let mut c = usual();
            with_profile(&mut c, |i, p| p.ppk = if i == A { a.clone() } else { b.clone() });
            let mut net = standing(9, c, starter);
            net.secs(60);
            println!("case {n}, {starter} starts");
            net.assert_settled(usize::from(good), usize::from(good));
        }
    }
    // It also goes with signatures, and changes the keys.
    let mut c = signing("ecdsa", "rsa");
    with_profile(&mut c, |_, p| p.ppk = key(b"x", k, true));
    let net = standing(10, c, A);
    net.assert_settled(1, 1);
    let plain = standing(10, signing("ecdsa", "rsa"), A);
    assert!(plain.nodes[A].live()[0].keys_in != net.nodes[A].live()[0].keys_in);
}
