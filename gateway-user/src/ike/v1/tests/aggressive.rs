//! Aggressive mode: only where it is turned on, and then under loss, NAT, failover like everything else.

use super::net::*;
use crate::crypto::{CipherAlg, DhGroup, HashAlg, Secret};
use crate::ike::v1::message::{Exchange, Header};
use crate::ike::*;
use crate::rng::{Random, Seeded};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn turn_on(c: &mut IkeConfig, peer: PeerMatch) {
    c.peers.push(PeerPolicy { peer, aggressive: true, policies: Vec::new(), remote_id: None });
}

fn both() -> [IkeConfig; 2] {
    let mut c = usual();
    for c in &mut c {
        turn_on(c, PeerMatch::Any);
    }
    c
}

fn exchanges(net: &Net, node: usize) -> Vec<Exchange> {
    net.nodes[node].sent.iter().map(|b| Header::decode(b).unwrap().exchange).collect()
}

#[test]
fn three_messages_from_either_end() {
    use Exchange::{Aggressive, Quick};
    for starter in [A, B] {
        let mut net = Net::new(1, both());
        net.initiate(starter);
        net.secs(5);
        net.assert_settled(1);
        assert_eq!(exchanges(&net, starter), [Aggressive, Aggressive, Quick, Quick]);
        assert_eq!(exchanges(&net, 1 - starter), [Aggressive, Quick]);
        for n in &net.nodes {
            assert_eq!(n.up(net.now), 1);
            assert!(n.refusals().is_empty(), "{:?}", n.refusals());
        }
    }
}

/// What `ike-scan -A` does: without the switch nothing is answered, not even an error.
#[test]
fn a_responder_that_has_it_off_says_nothing() {
    let mut c = usual();
    turn_on(&mut c[A], PeerMatch::Any);
    // On for somebody else is off for this one; off for this one beats on for all.
    let b = c[B].clone();
    let mut other = b.clone();
    turn_on(&mut other, PeerMatch::Address([9, 9, 9, 9].into()));
    let mut named = b.clone();
    turn_on(&mut named, PeerMatch::Any);
    named.peers.push(PeerPolicy {
        peer: PeerMatch::Address([40, 0, 0, 1].into()),
        aggressive: false,
        policies: Vec::new(),
        remote_id: None,
    });
    for config in [b, other, named] {
        c[B] = config;
        let mut net = Net::new(1, c.clone());
        net.initiate(A);
        net.secs(200);
        assert!(net.nodes[B].sent.is_empty(), "no HASH_R, no notification");
        assert!(net.nodes[B].refusals().iter().all(|r| *r == "aggressive_mode"), "{:?}", net.nodes[B].refusals());
        assert!(net.nodes[B].engine.sas.is_empty() && net.nodes[B].engine.pairs.is_empty());
        assert!(net.nodes[A].notices().iter().any(|t| t.contains("does it allow aggressive mode")));
    }
}

#[test]
fn one_that_has_it_on_still_speaks_main_mode() {
    let mut c = usual();
    turn_on(&mut c[B], PeerMatch::Any);
    let mut net = Net::new(2, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(exchanges(&net, A)[0], Exchange::Main);
}

#[test]
fn a_wrong_key_is_seen_by_the_initiator_and_ages_out_at_the_responder() {
    let mut c = both();
    c[B].keys[0].key = Secret::new(b"another key, also long enough".to_vec());
    let mut net = Net::new(3, c);
    net.initiate(A);
    net.secs(5);
    assert!(net.nodes[A].refusals().contains(&"auth_failed"));
    assert_eq!(net.nodes[A].engine.sas.len(), 0);
    assert_eq!(net.nodes[B].engine.half_open_total, 1);
    net.secs(40);
    net.assert_settled(0);
    assert!(net.nodes[B].engine.sas.is_empty());
}

#[test]
fn keys_and_policies_by_identity() {
    let public = Ipv4Addr::new(203, 0, 113, 9);
    let me = Identity::Address([40, 0, 0, 1].into());
    let mut c = usual();
    turn_on(&mut c[A], PeerMatch::Any);
    turn_on(&mut c[B], PeerMatch::Identity(me.clone()));
    c[B].entries[0].peers = vec![public.into()];
    let right = c[B].keys[0].key.clone();
    c[B].keys = vec![
        PreSharedKey { peer: PeerMatch::Any, key: Secret::new(b"the key of everybody else".to_vec()) },
        PreSharedKey { peer: PeerMatch::Identity(me), key: right },
    ];
    let behind = |c: [IkeConfig; 2]| {
        let mut net = Net::new(4, c);
        net.nat = NatBox { inside: vec![net.nodes[A].addr.ip()], public: Some(public.into()), ..NatBox::default() };
        net.initiate(A);
        net.secs(5);
        net
    };
    let net = behind(c.clone());
    net.assert_settled(1);
    assert_eq!(net.nodes[B].live()[0].peer, IpAddr::from(public));
    assert!(net.nodes[B].live()[0].encap.is_some());
    // Another identity gets the other key, and no aggressive mode.
    c[B].peers[0].peer = PeerMatch::Identity(Identity::Fqdn("a.example".into()));
    let net = behind(c.clone());
    assert!(net.nodes[B].sent.is_empty());
    c[B].peers[0].peer = PeerMatch::Any;
    c[B].keys[1].peer = PeerMatch::Identity(Identity::Fqdn("a.example".into()));
    let net = behind(c);
    assert!(net.nodes[A].refusals().contains(&"auth_failed"));
}

#[test]
fn one_group_is_offered_and_the_policies_of_the_peer_alone() {
    let mut policies = vec![
        policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256),
        policy(CipherAlg::Aes128, HashAlg::Sha1, DhGroup::Ecp384),
        policy(CipherAlg::Aes128, HashAlg::Sha1, DhGroup::Ecp256),
    ];
    for (n, p) in policies.iter_mut().enumerate() {
        p.number = n as u32;
    }
    let make = |allowed: Vec<u32>, theirs: Vec<u32>| {
        let mut c = configs(1, &policies, (CipherAlg::Aes128, Some(crate::crypto::IntegAlg::HmacSha1)), None);
        c[A].peers = vec![PeerPolicy { peer: PeerMatch::Any, aggressive: true, policies: allowed, remote_id: None }];
        c[B].peers = vec![PeerPolicy { peer: PeerMatch::Any, aggressive: true, policies: theirs, remote_id: None }];
        let mut net = Net::new(5, c);
        net.initiate(A);
        net.secs(20);
        net
    };
    let used = |net: &Net| net.nodes[A].engine.sas.values().next().and_then(|s| s.up()).map(|u| u.policy_number);
    assert_eq!(used(&make(vec![], vec![])), Some(0));
    assert_eq!(used(&make(vec![], vec![2, 1])), Some(2), "policy 1 has another group, it was not offered");
    assert_eq!(used(&make(vec![1], vec![])), Some(1));
    let net = make(vec![0], vec![1]);
    assert_eq!(used(&net), None);
    assert!(net.nodes[B].refusals().contains(&"no_proposal_chosen"));
}

#[test]
fn policies_of_a_peer_in_main_mode() {
    let mut policies =
        [policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256), policy(CipherAlg::Aes128, HashAlg::Sha1, DhGroup::Ecp256)];
    policies[1].number = 2;
    for (node, used) in [(A, 2), (B, 2)] {
        let mut c = configs(1, &policies, (CipherAlg::Aes128, Some(crate::crypto::IntegAlg::HmacSha1)), None);
        c[node].peers = vec![PeerPolicy { peer: PeerMatch::Any, aggressive: false, policies: vec![2], remote_id: None }];
        let mut net = Net::new(5, c);
        net.initiate(A);
        net.secs(5);
        net.assert_settled(1);
        for n in &net.nodes {
            assert_eq!(n.engine.sas.values().next().and_then(|s| s.up()).map(|u| u.policy_number), Some(used));
        }
    }
}

/// Drops the nth message of the initiator (counted from 0), once.
fn without(n: usize) -> Net {
    let mut net = Net::new(6, both());
    let mut count = 0;
    net.edit = Some(Box::new(move |bytes| {
        let ours = Header::decode(bytes).is_ok_and(|h| h.exchange == Exchange::Aggressive || h.exchange == Exchange::Quick);
        count += usize::from(ours);
        (ours && count == n + 1).then(Vec::new)
    }));
    net
}

/// Messages in order: aggressive 1, 2, 3, quick 1, 2, 3. Whichever is lost, the tunnel comes up by repetition.
#[test]
fn each_message_may_be_lost() {
    for n in 0..7 {
        let mut net = without(n);
        net.initiate(A);
        net.secs(30);
        println!("message {n} lost");
        net.assert_settled(1);
        assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (1, 1));
    }
}

/// Message 3 and quick mode 1 arrive the wrong way round, as libreswan's may.
#[test]
fn message_3_behind_quick_mode_1() {
    let mut net = Net::new(6, both());
    let mut held: Option<Vec<u8>> = None;
    let mut done = false;
    net.edit = Some(Box::new(move |bytes| {
        let h = Header::decode(bytes).ok()?;
        if !done && h.exchange == Exchange::Aggressive && h.flags & 1 == 1 {
            held = Some(bytes.to_vec());
            return Some(Vec::new());
        }
        if h.exchange == Exchange::Quick && !done {
            done = true;
            return held.take();
        }
        None
    }));
    net.initiate(A);
    net.secs(20);
    net.assert_settled(1);
}

#[test]
fn bad_networks_end_well() {
    for seed in 0..40 {
        let mut c = both();
        for c in &mut c {
            c.retransmit_tries = 8;
        }
        let mut net = Net::new(seed, c);
        net.weather = Weather { loss: (seed as u32 % 4) * 8, repeat: 30, delay_ms: (seed as u32 * 71) % 1500 };
        for _ in 0..15 {
            net.acquire((seed % 2) as usize);
            if seed % 4 == 3 {
                net.acquire(A);
            }
            net.secs(50);
        }
        net.weather = Weather::default();
        net.secs(100);
        println!("seed {seed}");
        net.assert_settled(1);
    }
}

#[test]
fn rekeys_of_both_phases() {
    for node in [A, B] {
        let mut net = Net::new(7, both());
        net.initiate(A);
        net.secs(100);
        let id = net.nodes[node].engine.view(net.now)[0].id;
        let spi = net.nodes[node].live()[0].spi_in;
        net.request(node, IkeRequest::RekeyIsakmp(id));
        net.request(node, IkeRequest::RekeyChild(spi));
        net.secs(60);
        net.assert_settled(1);
        let view = net.nodes[node].engine.view(net.now);
        assert!(view.len() == 1 && view[0].id != id);
        assert_ne!(net.nodes[node].live()[0].spi_in, spi);
    }
}

#[test]
fn initial_contact_of_a_restarted_peer() {
    let mut net = Net::new(8, both());
    net.initiate(A);
    net.secs(5);
    let config = (*net.nodes[A].engine.config).clone();
    net.nodes[A] = Node::new([40, 0, 0, 1].into(), config, 99, net.now);
    net.nodes[A].engine.set_active(true, net.now);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(net.nodes[B].kernel.len(), 1);
}

#[test]
fn a_shorter_lifetime_is_told() {
    let mut c = both();
    c[B].policies[0].lifetime_s = 1000;
    let mut net = Net::new(9, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    for n in &net.nodes {
        let left = n.engine.view(net.now)[0].remaining_s;
        assert!((900..=1000).contains(&left), "{left}");
    }
}

#[test]
fn a_half_open_flood_is_bounded_and_each_costs_one_answer() {
    let mut c = both();
    c[B].limits.half_open_per_source_max = 3;
    let mut net = Net::new(10, c);
    net.initiate(A);
    net.pump();
    let first = net.nodes[A].sent[0].clone();
    net.weather.loss = 100;
    for n in 0..50 {
        let mut b = first.clone();
        b[..8].fill(n + 1);
        net.inject(B, &b);
        net.inject(B, &b);
    }
    assert_eq!(net.nodes[B].sent.len(), 3);
    assert_eq!(net.nodes[B].engine.half_open_total, 3);
    net.secs(25);
    assert_eq!(net.nodes[B].sent.len(), 3, "never by a timer");
    net.secs(10);
    assert!(net.nodes[B].engine.sas.is_empty());
}

/// CVE-2023-30570: an unacceptable offer, then the cookie the responder made for the refusal.
#[test]
fn the_cookie_of_a_refusal_is_worth_nothing() {
    let mut c = both();
    c[B].policies[0].hash = HashAlg::Sha1;
    let mut net = Net::new(11, c);
    net.initiate(A);
    net.run(Duration::from_millis(100));
    assert_eq!(net.nodes[B].refusals(), ["no_proposal_chosen"]);
    let id = Header::decode(&net.nodes[B].sent[0]).unwrap().id;
    for exchange in [4, 2] {
        let mut again = net.nodes[A].sent[0].clone();
        again[8..16].copy_from_slice(&id.responder);
        again[18] = exchange;
        net.inject(B, &again);
        assert_eq!(net.nodes[B].refusals().last(), Some(&"unknown_cookies"));
    }
    assert!(net.nodes[B].engine.sas.is_empty());
}

#[test]
fn mutated_sessions_never_panic_and_heal() {
    for seed in 0..40 {
        let mut net = Net::new(seed, both());
        let mut rng = Seeded::new(seed + 1000);
        net.initiate(A);
        for _ in 0..10 {
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
                    if rng.u32().is_multiple_of(2) && b.len() >= 28 {
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
        println!("seed {seed}");
        net.assert_settled(1);
    }
}

/// Either end dies at any moment.
#[test]
fn death_at_any_moment_heals() {
    for dead in [A, B] {
        for starter in [A, B] {
            for step in 0..10 {
                let mut c = both();
                for c in &mut c {
                    c.dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(3), retries: 3 });
                }
                let mut net = Net::new(12, c);
                net.initiate(starter);
                net.run(Duration::from_millis(step));
                net.take_over(dead);
                for _ in 0..30 {
                    net.acquire(starter);
                    net.secs(10);
                }
                println!("node {dead} dies, {starter} started, {step} ms");
                net.assert_settled(1);
            }
        }
    }
}

/// The standby of an initiator repeats message 3 for a responder that repeats message 2.
#[test]
fn message_3_is_repeated_by_the_standby() {
    let mut net = without(2);
    net.initiate(A);
    net.run(Duration::from_millis(3));
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (1, 0));
    let third = net.nodes[A].sent[1].clone();
    net.take_over(A);
    net.run(Duration::from_millis(500));
    let second = net.nodes[B].sent[0].clone();
    net.inject(A, &second);
    assert_eq!(net.nodes[A].sent, [third]);
    net.run(Duration::from_millis(100));
    assert_eq!(net.nodes[B].up(net.now), 1);
}
