//! Rekeys of both kinds, lifetimes, over days.

use super::net::*;
use crate::crypto::DhGroup;
use crate::ike::*;
use std::time::Duration;

#[test]
fn a_child_rekey_never_leaves_the_flow_alone() {
    for (rekeyer, starter) in [(A, A), (A, B), (B, A), (B, B)] {
        for pfs in [None, Some(DhGroup::Ecp256)] {
            let mut net = standing(1, configs(1, &profile(vec![fast()]), GCM, pfs), starter);
            let old = net.nodes[rekeyer].live()[0].spi_in;
            net.rekey_child(rekeyer);
            for _ in 0..60 {
                net.ms(1);
                for n in &net.nodes {
                    assert_eq!(n.live().len(), 1, "one pair sends at any moment");
                }
            }
            net.secs(2);
            net.assert_settled(1, 1);
            let new = net.nodes[rekeyer].live()[0];
            assert_ne!(new.spi_in, old);
            assert!(new.initiator);
        }
    }
}

#[test]
fn the_responder_sends_on_the_new_pair_when_the_peer_uses_it() {
    let mut net = standing(2, usual(), A);
    let old = net.nodes[B].live()[0].spi_in;
    net.rekey_child(A);
    // The request arrives and is answered; the answer gets lost.
    net.pump();
    net.ms(1);
    net.cut();
    assert_eq!(net.nodes[B].live()[0].spi_in, old);
    let new = *net.nodes[B].kernel.iter().find(|(_, k)| !k.outbound).unwrap().0;
    net.nodes[B].engine.handle_traffic(new, net.now);
    net.pump();
    assert_eq!(net.nodes[B].live()[0].spi_in, new);
    net.secs(5);
    net.assert_settled(1, 1);
}

#[test]
fn an_ike_rekey_keeps_the_children() {
    for rekeyer in [A, B] {
        let mut net = standing(3, configs(3, &profile(vec![fast()]), GCM, None), A);
        let old = net.nodes[A].sa(net.now);
        let spis: Vec<_> = net.nodes[A].kernel.keys().copied().collect();
        net.rekey_ike(rekeyer);
        net.secs(2);
        net.assert_settled(1, 3);
        assert_ne!(net.nodes[A].sa(net.now), old);
        assert_eq!(net.nodes[A].kernel.keys().copied().collect::<Vec<_>>(), spis);
        assert_eq!(net.nodes[rekeyer].engine.view(net.now)[0].initiator, true);
        // Everything works under the new one.
        net.rekey_child(A);
        net.rekey_child(B);
        net.secs(3);
        net.assert_settled(1, 3);
        net.rekey_ike(1 - rekeyer);
        net.secs(2);
        let spi = net.nodes[B].live()[0].spi_in;
        net.nodes[B].engine.handle_expire(spi, true, net.now);
        net.secs(2);
        net.assert_settled(1, 2);
    }
}

#[test]
fn an_ike_rekey_takes_another_group_when_the_peer_wants_it() {
    let mut net = standing(4, usual(), A);
    for node in [A, B] {
        let mut c = (*net.nodes[node].engine.config).clone();
        let groups = if node == A { vec![DhGroup::Ecp256, DhGroup::Ecp384] } else { vec![DhGroup::Ecp384] };
        with_profile(std::slice::from_mut(&mut c), |_, p| p.proposals[0].groups.clone_from(&groups));
        let addr = net.nodes[node].addr;
        net.nodes[node] = Node::new(addr, c, 77 + node as u64, net.now);
        net.nodes[node].engine.set_active(true, net.now);
    }
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1, 1);
    net.rekey_ike(A);
    net.secs(5);
    net.assert_settled(1, 1);
    net.rekey_ike(B);
    net.secs(5);
    net.assert_settled(1, 1);
}

#[test]
fn lifetimes_roll_over_for_days() {
    let mut c = configs(2, &profile(vec![fast()]), GCM, Some(DhGroup::Ecp256));
    with_profile(&mut c, |_, p| p.lifetime_s = 7200);
    for c in &mut c {
        c.dpd = Some(DpdConfig { interval: Duration::from_secs(60), retry: Duration::from_secs(5), retries: 6 });
    }
    let mut net = standing(5, c, A);
    net.weather = Weather { loss: 5, repeat: 5, delay_ms: 200 };
    let mut seen = std::collections::BTreeSet::new();
    for hour in 0..48 {
        for minute in 0..60 {
            net.secs(60);
            for node in [A, B] {
                let due: Vec<_> = net.nodes[node].live().iter().map(|c| (c.spi_in, c.initiator)).collect();
                for (spi, initiator) in due {
                    // Soft lifetimes come from the kernel; here by a clock, earlier at the initiator.
                    if minute % 30 == (if initiator { 20 } else { 29 }) && hour % 2 == 0 {
                        net.nodes[node].engine.handle_expire(spi, false, net.now);
                    }
                }
            }
        }
        for v in net.nodes[A].engine.view(net.now) {
            seen.insert(v.id);
        }
    }
    net.weather = Weather::default();
    net.secs(120);
    net.assert_settled(1, 2);
    assert!(seen.len() > 20, "{} IKE SAs", seen.len());
}

#[test]
fn rekeys_in_bad_weather() {
    for seed in 0..80 {
        let mut net =
            standing(seed, configs(2, &profile(vec![fast()]), GCM, (seed % 2 == 0).then_some(DhGroup::Ecp256)), (seed % 2) as usize);
        net.weather = Weather { loss: 15, repeat: 15, delay_ms: 700 };
        for round in 0..6u64 {
            let dice = seed.wrapping_mul(31).wrapping_add(round * 7);
            let node = (dice % 2) as usize;
            match dice % 5 {
                0 => net.rekey_ike(node),
                1 if !net.nodes[node].live().is_empty() => net.rekey_child(node),
                2 if !net.nodes[1 - node].live().is_empty() => {
                    net.rekey_child(1 - node);
                    net.rekey_ike(node);
                }
                _ if !net.nodes[node].live().is_empty() && !net.nodes[1 - node].live().is_empty() => {
                    net.rekey_child(node);
                    net.ms(dice % 900);
                    net.rekey_child(1 - node);
                }
                _ => {}
            }
            net.ms(dice % 4000);
        }
        net.secs(120);
        net.weather = Weather::default();
        for _ in 0..12 {
            net.acquire(A);
            net.acquire(B);
            net.secs(20);
        }
        println!("seed {seed}");
        net.assert_flows(2);
    }
}
