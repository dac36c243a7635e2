//! IKE_SA_INIT: cookies, groups, limits, other peers and the other version.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, IntegAlg, PrfAlg};
use crate::ike::*;
use std::net::SocketAddr;
use std::time::Duration;

fn two_groups(a: &[DhGroup], b: &[DhGroup]) -> [IkeConfig; 2] {
    let mut c = usual();
    with_profile(&mut c, |i, p| p.proposals[0].groups = if i == A { a.to_vec() } else { b.to_vec() });
    c
}

#[test]
fn another_group_is_asked_for_once() {
    let (x, y) = (DhGroup::Ecp256, DhGroup::Ecp384);
    for (a, b) in [(vec![x, y], vec![y]), (vec![y, x], vec![x])] {
        let net = standing(1, two_groups(&a, &b), A);
        net.assert_settled(1, 1);
        assert_eq!(net.nodes[A].sent.len(), 3, "one more round trip");
        assert!(net.nodes[B].refusals().contains(&"ke_group"));
        // The other end knows its own preference.
        let net = standing(1, two_groups(&a, &b), B);
        net.assert_settled(1, 1);
        assert_eq!(net.nodes[B].sent.len(), 2);
    }
}

#[test]
fn nothing_in_common_is_refused_and_ends_the_attempt() {
    let mut net = standing(2, two_groups(&[DhGroup::Ecp256], &[DhGroup::Ecp384]), A);
    net.secs(120);
    net.assert_settled(0, 0);
    assert!(net.nodes[A].notices().iter().any(|n| n.contains("NO_PROPOSAL_CHOSEN")), "{:?}", net.nodes[A].notices());
    assert!(net.nodes[A].sent.len() <= 2, "an unauthenticated refusal is believed when nothing else comes");
}

#[test]
fn cookies_under_load() {
    let mut c = usual();
    c[B].cookie_threshold = 0;
    let net = standing(3, c.clone(), A);
    net.assert_settled(1, 1);
    assert_eq!(net.nodes[A].sent.len(), 3);
    assert_eq!(net.nodes[B].refusals(), ["cookie_wanted"]);
    // Cookie and group together.
    let mut c = two_groups(&[DhGroup::Ecp256, DhGroup::Ecp384], &[DhGroup::Ecp384]);
    c[B].cookie_threshold = 0;
    for seed in 0..20 {
        let mut net = Net::new(seed, c.clone());
        net.weather = Weather { loss: 20, repeat: 20, delay_ms: 300 };
        net.initiate(A);
        net.secs(120);
        net.weather = Weather::default();
        net.acquire(A);
        net.secs(60);
        net.assert_settled(1, 1);
    }
}

/// A request that says nothing but a first message of a stranger.
fn flood(net: &mut Net, template: &[u8], n: u64) {
    for i in 0..n {
        let mut m = template.to_vec();
        m[..8].copy_from_slice(&(i + 1).to_be_bytes());
        let from = SocketAddr::new(net.nodes[A].addr, 500);
        let to = SocketAddr::new(net.nodes[B].addr, 500);
        net.nodes[B].engine.handle_datagram(from, to, &m, net.now);
        net.nodes[B].drain();
    }
}

#[test]
fn half_open_sas_are_bounded_and_age_out() {
    let mut net = standing(4, usual(), A);
    let first = net.nodes[A].sent[0].clone();
    flood(&mut net, &first, 1000);
    // The second half is for those who show a cookie.
    assert_eq!(net.nodes[B].engine.half_open_total, net.nodes[B].engine.config.limits.half_open_per_source_max / 2);
    assert!(net.nodes[B].refusals().contains(&"cookie_wanted"));
    net.secs(40);
    net.assert_settled(1, 1);
    let sent = net.nodes[B].sent.len();
    flood(&mut net, &first, 8);
    net.pump();
    assert_eq!(net.nodes[B].sent.len() - sent, 8, "one answer for one request");
    net.secs(25);
    assert_eq!(net.nodes[B].sent.len() - sent, 8, "and none is repeated");
    net.secs(10);
    net.assert_settled(1, 1);
}

#[test]
fn under_a_flood_with_cookies_a_good_peer_gets_through() {
    let mut c = usual();
    c[B].cookie_threshold = 4;
    let net = standing(5, c.clone(), A);
    let first = net.nodes[A].sent[0].clone();
    let mut net = Net::new(6, c);
    flood(&mut net, &first, 1000);
    assert_eq!(net.nodes[B].engine.half_open_total, 4);
    net.initiate(A);
    net.secs(5);
    assert_eq!((net.nodes[A].up(net.now), net.nodes[A].live().len()), (1, 1));
    net.secs(40);
    net.assert_settled(1, 1);
}

#[test]
fn strangers_hear_nothing() {
    let mut net = standing(7, usual(), A);
    let first = net.nodes[A].sent[0].clone();
    let sent = net.nodes[B].sent.len();
    let to = SocketAddr::new(net.nodes[B].addr, 500);
    net.nodes[B].engine.handle_datagram("203.0.113.9:500".parse().unwrap(), to, &first, net.now);
    net.pump();
    assert_eq!(net.nodes[B].sent.len(), sent);
    assert!(net.nodes[B].refusals().contains(&"no_profile"));
}

#[test]
fn the_next_peer_of_an_entry_is_tried() {
    let mut c = usual();
    let b = c[A].entries[0].peers[0];
    c[A].entries[0].peers = vec![[203, 0, 113, 1].into(), [203, 0, 113, 2].into(), b];
    let mut net = standing(8, c, A);
    net.secs(400);
    net.assert_settled(1, 1);
    // What is asked for later goes where the SA is.
    let sent = net.nodes[A].sent.len();
    let spi = net.nodes[A].live()[0].spi_in;
    net.nodes[A].engine.handle_expire(spi, true, net.now);
    net.pump();
    net.acquire(A);
    net.secs(5);
    net.assert_settled(1, 1);
    assert_eq!(net.nodes[A].sent.len() - sent, 2);
}

#[test]
fn version_1_is_tried_when_nobody_speaks_version_2() {
    let mut c = usual();
    c[A].entries[0].ikev1 = true;
    let mut net = Net::new(9, c.clone());
    net.nodes[B].engine.set_active(false, net.now);
    net.acquire(A);
    net.secs(300);
    let n = &net.nodes[A];
    assert_eq!(n.fallbacks.len(), 1);
    assert_eq!((n.fallbacks[0].map.as_str(), n.fallbacks[0].seq, n.fallbacks[0].ace), ("CMAP_1", 1, 0));
    assert_eq!(n.fallbacks[0].acquire.reqid, 1);
    assert!(n.engine.view(net.now).is_empty());
    // A peer that says so is believed for a while, and at once.
    let mut net = Net::new(10, c.clone());
    net.acquire(A);
    net.pump();
    net.cut();
    let mut answer = net.nodes[A].sent[0][..28].to_vec();
    answer.extend([0, 0, 0, 8, 0, 0, 0, 5]);
    answer[16] = 41;
    answer[19] = 0x20;
    answer[24..28].copy_from_slice(&36u32.to_be_bytes());
    net.inject(A, &answer);
    assert!(net.nodes[A].fallbacks.is_empty(), "not before the repetition is due");
    net.secs(3);
    assert_eq!(net.nodes[A].fallbacks.len(), 1);
    let sent = net.nodes[A].sent.len();
    net.acquire(A);
    net.pump();
    net.nodes[A].drain();
    assert_eq!((net.nodes[A].fallbacks.len(), net.nodes[A].sent.len()), (2, sent));
    // Without version 1 there is no fallback.
    c[A].entries[0].ikev1 = false;
    let mut net = Net::new(9, c);
    net.nodes[B].engine.set_active(false, net.now);
    net.acquire(A);
    net.secs(300);
    assert!(net.nodes[A].fallbacks.is_empty());
}

#[test]
fn a_higher_version_is_told_ours() {
    let mut net = standing(11, usual(), A);
    let mut m = net.nodes[A].sent[0].clone();
    m[17] = 0x30;
    let sent = net.nodes[B].sent.len();
    for _ in 0..100 {
        net.inject(B, &m);
    }
    let answers = &net.nodes[B].sent[sent..];
    assert!((1..=10).contains(&answers.len()), "{}", answers.len());
    assert_eq!(answers[0][17], 0x20);
    assert!(answers[0].len() <= m.len());
}

#[test]
fn several_proposals_and_profiles() {
    let mut c = usual();
    with_profile(&mut c, |i, p| {
        let old = proposal(CipherAlg::Aes128, Some(IntegAlg::HmacSha1), PrfAlg::HmacSha1, &[DhGroup::Ecp384]);
        p.proposals = if i == A { vec![fast(), old] } else { vec![old] };
    });
    let net = standing(12, c, A);
    net.assert_settled(1, 1);
    // Two entries of one peer under two profiles: two IKE SAs.
    let mut c = configs(2, &profile(vec![fast()]), GCM, None);
    for (i, c) in c.iter_mut().enumerate() {
        let mut second = c.entries[0].clone();
        second.seq = 2;
        second.flows.remove(0);
        c.entries[0].flows.truncate(1);
        let mut p = profile(vec![fast()]);
        p.name = "OTHER".into();
        let (l, r) = if i == A { ("a", "b") } else { ("b", "a") };
        p.local_id = Some(Identity::Fqdn(l.into()));
        p.remote_id = Some(Identity::Fqdn(r.into()));
        second.ikev2 = Some(std::sync::Arc::new(p));
        c.entries.push(second);
    }
    let mut net = standing(13, c, A);
    net.request(A, IkeRequest::Initiate { map: "CMAP_1".into(), seq: 2 });
    net.secs(5);
    net.assert_settled(2, 2);
    net.run(Duration::from_secs(60));
    net.assert_settled(2, 2);
}
