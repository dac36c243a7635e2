//! Whole exchanges over a good network, and over bad ones.

use super::net::*;
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg, Secret};
use crate::ike::*;
use crate::sad::Mode;
use std::time::Duration;

#[test]
fn two_exchanges_from_either_end() {
    for starter in [A, B] {
        let net = standing(1, usual(), starter);
        net.assert_settled(1, 1);
        for n in &net.nodes {
            assert!(n.refusals().is_empty() && n.notices().is_empty(), "{:?} {:?}", n.refusals(), n.notices());
            assert_eq!(n.sent.len(), 2, "IKE_SA_INIT and IKE_AUTH");
        }
        assert!(net.nodes[starter].live()[0].initiator && !net.nodes[1 - starter].live()[0].initiator);
        assert!(net.nodes[starter].engine.view(net.now)[0].initiator);
    }
}

#[test]
fn every_suite_works() {
    use CipherAlg::*;
    let suites = [
        (proposal(TripleDes, Some(IntegAlg::HmacSha1), PrfAlg::HmacSha1, &[DhGroup::Modp1024]), (TripleDes, Some(IntegAlg::HmacMd5))),
        (proposal(Aes128, Some(IntegAlg::AesXcbc), PrfAlg::AesXcbc, &[DhGroup::Ecp384]), (Aes128, Some(IntegAlg::AesXcbc))),
        (proposal(Aes192, Some(IntegAlg::AesCmac), PrfAlg::AesCmac, &[DhGroup::Ecp256]), (Null, Some(IntegAlg::AesCmac))),
        (
            proposal(AesCtr(AesKey::Bits128), Some(IntegAlg::HmacSha384), PrfAlg::HmacSha384, &[DhGroup::Ecp256]),
            (AesCtr(AesKey::Bits256), Some(IntegAlg::HmacSha512)),
        ),
        (proposal(AesGcm(AesKey::Bits256, Icv::Bytes16), None, PrfAlg::HmacSha512, &[DhGroup::Ecp256]), GCM),
        (
            proposal(AesCcm(AesKey::Bits128, Icv::Bytes12), None, PrfAlg::HmacMd5, &[DhGroup::Ecp256]),
            (AesCcm(AesKey::Bits128, Icv::Bytes8), None),
        ),
        (proposal(ChaCha20Poly1305, None, PrfAlg::HmacSha256, &[DhGroup::Ecp256]), (ChaCha20Poly1305, None)),
    ];
    for (p, esp) in suites {
        let group = p.groups[0];
        for pfs in [None, Some(group)] {
            let mut net = standing(2, configs(2, &profile(vec![p.clone()]), esp, pfs), A);
            net.assert_settled(1, 2);
            net.rekey_child(B);
            net.rekey_ike(A);
            net.secs(5);
            net.assert_settled(1, 2);
            assert!(net.nodes[A].live().iter().any(|c| c.pfs == pfs));
        }
    }
}

#[test]
fn several_flows_under_one_ike_sa() {
    for pfs in [None, Some(DhGroup::Ecp256)] {
        let net = standing(3, configs(40, &profile(vec![fast()]), GCM, pfs), A);
        net.assert_settled(1, 40);
    }
}

#[test]
fn wrong_key_makes_no_sa_and_says_why() {
    for starter in [A, B] {
        let mut c = usual();
        c[B].keys[0].key = Secret::new(b"another key, also long enough".to_vec());
        let mut net = standing(4, c, starter);
        net.secs(60);
        net.assert_settled(0, 0);
        assert!(net.nodes[starter].notices().iter().any(|n| n.contains("AUTHENTICATION_FAILED")), "{:?}", net.nodes[starter].notices());
        assert!(net.nodes[1 - starter].refusals().contains(&"authentication_failed"));
    }
}

#[test]
fn identities_are_checked_at_both_ends() {
    let named = |s: &str| Some(Identity::Fqdn(s.into()));
    for (a, b_wants, b, a_wants, good) in [
        ("a.example", "a.example", "b.example", "b.example", true),
        ("a.example", "x.example", "b.example", "b.example", false),
        ("a.example", "a.example", "b.example", "x.example", false),
    ] {
        let mut c = usual();
        with_profile(&mut c, |i, p| {
            (p.local_id, p.remote_id) = if i == A { (named(a), named(a_wants)) } else { (named(b), named(b_wants)) };
        });
        let mut net = standing(5, c, A);
        net.secs(60);
        let n = usize::from(good);
        net.assert_settled(n, n);
    }
}

#[test]
fn bad_weather_is_survived() {
    for seed in 0..60 {
        let mut net = Net::new(seed, configs(3, &profile(vec![fast()]), GCM, (seed % 2 == 0).then_some(DhGroup::Ecp256)));
        net.weather = Weather { loss: 25, repeat: 20, delay_ms: 900 };
        net.initiate((seed % 2) as usize);
        if seed % 3 == 0 {
            net.initiate(1 - (seed % 2) as usize);
        }
        net.secs(150);
        net.weather = Weather::default();
        for _ in 0..12 {
            net.acquire((seed % 2) as usize);
            net.secs(20);
        }
        println!("seed {seed}");
        net.assert_flows(3);
    }
}

#[test]
fn both_ends_start_at_once() {
    for seed in 0..40 {
        let mut net = Net::new(seed, configs(3, &profile(vec![fast()]), GCM, None));
        net.weather.delay_ms = seed as u32 * 3;
        net.initiate(A);
        net.ms(seed % 7);
        net.initiate(B);
        net.secs(90);
        println!("seed {seed}");
        net.assert_flows(3);
    }
}

#[test]
fn transport_mode_is_agreed_or_refused() {
    let mut c = usual();
    for c in &mut c {
        c.entries[0].transforms[0].mode = Mode::Transport;
    }
    let net = standing(6, c.clone(), A);
    net.assert_settled(1, 1);
    assert_eq!(net.nodes[A].live()[0].mode, Mode::Transport);
    c[B].entries[0].transforms[0].mode = Mode::Tunnel;
    // The responder takes a tunnel only: the IKE SA stands without a child.
    for starter in [A, B] {
        let net = standing(7, c.clone(), starter);
        assert_eq!(net.nodes[A].live().len() + net.nodes[B].live().len(), 0);
        assert_eq!(net.nodes[A].up(net.now), 1);
    }
}

#[test]
fn extended_sequence_numbers_when_both_want_them() {
    for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut c = usual();
        c[A].entries[0].esn = a;
        c[B].entries[0].esn = b;
        let net = standing(8, c, A);
        net.assert_settled(1, 1);
        assert_eq!(net.nodes[A].live()[0].esn, a && b);
    }
}

#[test]
fn the_responder_narrows_to_what_it_protects() {
    let mut c = usual();
    c[A].entries[0].flows[0].remote.prefix = 16;
    c[A].entries[0].flows[0].remote.addr = [192, 168, 0, 0].into();
    let net = standing(9, c.clone(), A);
    net.assert_settled(1, 1);
    assert_eq!(net.nodes[A].live()[0].ts_remote.prefix, 24);
    // Nothing in common: the IKE SA stands, the child does not.
    c[A].entries[0].flows[0].remote.addr = [10, 0, 0, 0].into();
    let net = standing(9, c, A);
    assert_eq!((net.nodes[A].up(net.now), net.nodes[A].live().len()), (1, 0));
    assert!(net.nodes[A].notices().iter().any(|n| n.contains("TS_UNACCEPTABLE")));
}

#[test]
fn a_silent_peer_is_found_dead_and_a_living_one_is_not() {
    let mut c = usual();
    for c in &mut c {
        c.dpd = Some(DpdConfig { interval: Duration::from_secs(10), retry: Duration::from_secs(2), retries: 3 });
    }
    let mut net = standing(10, c, A);
    net.secs(300);
    net.assert_settled(1, 1);
    let sent = net.nodes[A].sent.len();
    assert!(sent > 20, "probes: {sent}");
    // Verified packets keep it quiet.
    for _ in 0..100 {
        for node in [A, B] {
            let spi = net.nodes[node].live()[0].spi_in;
            net.nodes[node].engine.handle_traffic(spi, net.now);
        }
        net.secs(3);
    }
    assert!(net.nodes[A].sent.len() - sent <= 2);
    net.nodes[B].engine.set_active(false, net.now);
    net.secs(10 + 2 * 3 + 3);
    assert!(net.nodes[A].kernel.is_empty() && net.nodes[A].up(net.now) == 0, "{:?}", net.nodes[A].events);
}

#[test]
fn deletes_from_either_end() {
    for node in [A, B] {
        let mut net = standing(11, configs(3, &profile(vec![fast()]), GCM, None), A);
        let spi = net.nodes[node].live()[0].spi_in;
        net.nodes[node].engine.handle_expire(spi, true, net.now);
        net.secs(2);
        net.assert_settled(1, 2);
        net.request(node, IkeRequest::Clear(None));
        net.secs(2);
        net.assert_settled(0, 0);
        assert!(net.nodes[A].mirror.is_empty() && net.nodes[B].mirror.is_empty());
    }
}

#[test]
fn repeated_requests_draw_the_same_bytes() {
    let mut net = standing(12, usual(), A);
    net.secs(1);
    let (requests, answers) = (net.nodes[A].sent.clone(), net.nodes[B].sent.clone());
    net.inject(B, &requests[1]);
    assert_eq!(net.nodes[B].sent.last(), Some(&answers[1]), "IKE_AUTH");
    net.inject(B, &requests[1]);
    assert_eq!(net.nodes[B].sent.len(), 3, "not more often than is sensible");
    net.secs(1);
    net.rekey_child(A);
    net.secs(3);
    let sent = net.nodes[B].sent.len();
    net.inject(B, &requests[1]);
    assert_eq!(net.nodes[B].sent.len(), sent, "the window is one");
    net.inject(B, net.nodes[A].sent.last().unwrap().clone().as_slice());
    assert_eq!(net.nodes[B].sent[sent], net.nodes[B].sent[sent - 1]);
    net.assert_settled(1, 1);
}

#[test]
fn a_peer_that_starts_anew_says_so() {
    let mut net = standing(13, usual(), A);
    let config = (*net.nodes[A].engine.config).clone();
    let addr = net.nodes[A].addr;
    net.nodes[A] = Node::new(addr, config, 999, net.now);
    net.nodes[A].engine.set_active(true, net.now);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1, 1);
}
