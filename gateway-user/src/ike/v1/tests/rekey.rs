//! Rekeys and deletes from either end, and from both at once.

use super::net::*;
use crate::crypto::DhGroup;
use crate::ike::*;
use std::time::Duration;

fn up(seed: u64) -> Net {
    let mut net = Net::new(seed, usual());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net
}

fn rekey(net: &mut Net, node: usize) {
    let spi = net.nodes[node].live()[0].spi_in;
    net.request(node, IkeRequest::RekeyChild(spi));
}

#[test]
fn child_rekey_from_either_end() {
    for node in [A, B] {
        let mut net = up(1);
        let old = net.nodes[node].live()[0].spi_in;
        let spi = if node == A { old } else { net.nodes[node].live()[0].spi_out };
        // The kernel may name either half.
        net.nodes[node].engine.handle_expire(spi, false, net.now);
        net.secs(2);
        net.assert_settled(1);
        assert_ne!(net.nodes[node].live()[0].spi_in, old);
        assert_eq!(net.nodes[A].kernel.len(), 2, "the old pair still receives");
        net.secs(15);
        net.assert_settled(1);
        assert_eq!((net.nodes[A].kernel.len(), net.nodes[B].kernel.len()), (1, 1));
        let rekeyed = |e: &IkeEvent| matches!(e, IkeEvent::ChildUp { rekey: Some(spi), .. } if *spi == old);
        assert!(net.nodes[node].events.iter().any(rekeyed));
        assert_eq!(net.nodes[A].up(net.now), 1);
    }
}

#[test]
fn child_rekey_from_both_ends_at_once_ends_with_one_pair() {
    for seed in 0..60 {
        let mut net = up(seed);
        net.weather = Weather { loss: (seed as u32 % 3) * 12, repeat: 20, delay_ms: (seed as u32 * 37) % 900 };
        rekey(&mut net, A);
        net.run(Duration::from_millis(seed * 41 % 1200));
        if !net.nodes[B].live().is_empty() {
            rekey(&mut net, B);
        }
        net.secs(200);
        net.weather = Weather::default();
        net.secs(100);
        net.assert_settled(1);
        assert_eq!((net.nodes[A].kernel.len(), net.nodes[B].kernel.len()), (1, 1), "seed {seed}");
    }
}

#[test]
fn isakmp_rekey_keeps_the_children() {
    for node in [A, B] {
        let mut net = up(3);
        net.secs(100);
        let spi = net.nodes[A].live()[0].spi_in;
        let old = net.nodes[node].engine.view(net.now)[0].id;
        net.request(node, IkeRequest::RekeyIsakmp(old));
        net.secs(3);
        assert_eq!(net.nodes[A].up(net.now), 2, "overlap");
        net.secs(20);
        net.assert_settled(1);
        for n in &net.nodes {
            let view = n.engine.view(net.now);
            assert_eq!(view.len(), 1);
            assert_ne!(view[0].id, old);
            assert_eq!(view[0].children, [n.live()[0].spi_in]);
            assert_eq!(n.mirror.len(), 1);
        }
        assert_eq!(net.nodes[A].live()[0].spi_in, spi);
        // The new SA carries the next rekey of the child.
        rekey(&mut net, 1 - node);
        net.secs(40);
        net.assert_settled(1);
        assert_eq!(net.nodes[A].kernel.len(), 1);
    }
}

#[test]
fn isakmp_rekey_from_both_ends_at_once_settles() {
    for seed in 0..20 {
        let mut net = up(seed);
        net.weather = Weather { loss: 0, repeat: 10, delay_ms: seed as u32 * 30 };
        let id = net.nodes[A].engine.view(net.now)[0].id;
        net.request(A, IkeRequest::RekeyIsakmp(id));
        net.request(B, IkeRequest::RekeyIsakmp(id));
        net.secs(60);
        net.assert_settled(1);
        let (a, b) = (net.nodes[A].engine.view(net.now), net.nodes[B].engine.view(net.now));
        assert!(!a.is_empty() && a.len() <= 2 && a.len() == b.len(), "seed {seed}: {} {}", a.len(), b.len());
        rekey(&mut net, A);
        net.secs(60);
        net.assert_settled(1);
    }
}

/// Three days of ordinary life with short lifetimes: the tunnel never goes, nothing piles up.
#[test]
fn lifetimes_roll_over_for_days() {
    let mut c = usual();
    for c in &mut c {
        c.policies[0].lifetime_s = 3600;
    }
    let mut net = Net::new(9, c);
    net.initiate(B);
    net.secs(5);
    for hour in 0..24 {
        net.secs(3600);
        net.assert_settled(1);
        assert!(net.nodes[A].up(net.now) >= 1, "hour {hour}");
        rekey(&mut net, hour % 2);
        net.secs(60);
        for n in &net.nodes {
            assert!(n.engine.sas.len() <= 3 && n.engine.pairs.len() == 1);
            assert_eq!(n.kernel.len(), 1);
        }
    }
    let ups = net.nodes[A].events.iter().filter(|e| matches!(e, IkeEvent::IsakmpUp { .. })).count();
    assert!((24..60).contains(&ups), "{ups} ISAKMP SAs in a day");
}

#[test]
fn unused_isakmp_sa_just_ends() {
    let mut c = usual();
    for c in &mut c {
        c.policies[0].lifetime_s = 600;
    }
    let mut net = Net::new(9, c);
    net.initiate(A);
    net.secs(5);
    net.request(A, IkeRequest::Clear(None));
    net.secs(5);
    net.assert_settled(0);
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (0, 0), "deleted at both ends");
    assert!(net.nodes[B].mirror.is_empty());
    assert!(net.nodes[A].engine.poll_timeout().is_none() && net.nodes[B].engine.poll_timeout().is_none());
}

#[test]
fn hard_expiry_removes_the_pair_at_both_ends() {
    let mut net = up(4);
    let spi = net.nodes[A].live()[0].spi_in;
    net.nodes[A].engine.handle_expire(spi, true, net.now);
    net.secs(1);
    net.assert_settled(0);
    assert_eq!((net.nodes[A].kernel.len(), net.nodes[B].kernel.len()), (0, 0));
    net.acquire(A);
    net.secs(5);
    net.assert_settled(1);
}

#[test]
fn a_rekey_that_fails_is_tried_again() {
    let mut net = up(5);
    let wanted = net.nodes[B].engine.config.clone();
    let mut broken = (*wanted).clone();
    broken.entries[0].pfs = Some(DhGroup::Ecp256);
    net.nodes[B].engine.reload(broken.into(), net.now);
    rekey(&mut net, A);
    net.secs(10);
    let old = net.nodes[A].live()[0].spi_in;
    net.assert_settled(1);
    net.nodes[B].engine.reload(wanted, net.now);
    net.secs(60);
    net.assert_settled(1);
    assert_ne!(net.nodes[A].live()[0].spi_in, old);
}

#[test]
fn acquire_for_a_flow_that_just_came_up_is_ignored() {
    let mut net = up(6);
    let spi = net.nodes[A].live()[0].spi_in;
    let entry = net.nodes[A].engine.config.entries[0].clone();
    let f = &entry.flows[0];
    let acquire = Acquire { peer: entry.peers[0], reqid: 1, src: f.local, dst: f.remote };
    let came_up = net.now - Duration::from_secs(5);
    net.nodes[A].engine.handle_acquire(acquire, "CMAP_1", 1, 0, came_up + Duration::from_secs(1));
    net.secs(5);
    assert_eq!(net.nodes[A].live()[0].spi_in, spi);
    net.nodes[A].engine.handle_acquire(acquire, "CMAP_1", 1, 0, net.now);
    net.secs(50);
    net.assert_settled(1);
    assert_ne!(net.nodes[A].live()[0].spi_in, spi, "a late one means that the kernel lost the pair");
}

#[test]
fn restart_of_a_peer_with_initial_contact_drops_what_it_had() {
    let mut net = up(7);
    let (addr, config) = (net.nodes[A].addr, (*net.nodes[A].engine.config).clone());
    let std::net::IpAddr::V4(ip) = addr.ip() else { unreachable!() };
    net.nodes[A] = Node::new(ip, config, 99, net.now);
    net.nodes[A].engine.set_active(true, net.now);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(net.nodes[B].kernel.len(), 1);
    assert_eq!(net.nodes[B].up(net.now), 1);
    let anew = |e: &&IkeEvent| matches!(e, IkeEvent::ChildDown { cause, .. } if cause.contains("INITIAL-CONTACT"));
    assert_eq!(net.nodes[B].events.iter().filter(anew).count(), 1);
}

#[test]
fn initial_contact_is_sent_once() {
    let mut net = up(8);
    net.request(A, IkeRequest::Clear(None));
    net.secs(1);
    let sent = net.nodes[A].sent.len();
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    let lens: Vec<_> = net.nodes[A].sent[..3].iter().map(Vec::len).collect();
    let again: Vec<_> = net.nodes[A].sent[sent..sent + 3].iter().map(Vec::len).collect();
    assert_eq!(lens[..2], again[..2]);
    assert!(again[2] < lens[2], "message 5 is shorter without the notification");
}

#[test]
fn shorter_lifetime_of_the_responder_is_obeyed() {
    let mut c = usual();
    c[B].entries[0].lifetime.seconds = 600;
    c[B].policies[0].lifetime_s = 1000;
    let mut net = Net::new(11, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    for n in &net.nodes {
        let child = n.live()[0];
        assert_eq!(child.lifetime.seconds, 600);
        assert!((470..=570).contains(&child.soft.seconds), "{}", child.soft.seconds);
    }
    assert!(net.nodes[B].engine.view(net.now)[0].remaining_s <= 1000);
}
