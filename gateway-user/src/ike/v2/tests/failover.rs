//! The standby takes over from mirrored state alone.

use super::net::*;
use crate::crypto::DhGroup;
use crate::ike::v2::state::decode;
use crate::ike::*;
use crate::rng::{Random, Seeded};
use std::time::Duration;

fn with_dpd(mut c: [IkeConfig; 2]) -> [IkeConfig; 2] {
    for c in &mut c {
        c.dpd = Some(DpdConfig { interval: Duration::from_secs(5), retry: Duration::from_secs(2), retries: 4 });
    }
    c
}

fn heal(net: &mut Net) {
    for _ in 0..20 {
        for node in [A, B] {
            net.acquire(node);
        }
        net.ms(10_037);
    }
}

#[test]
fn the_peer_notices_nothing() {
    for starter in [A, B] {
        let mut net = standing(1, with_dpd(configs(2, &profile(vec![fast()]), GCM, None)), starter);
        let before: Vec<_> = net.nodes[B].kernel.keys().copied().collect();
        let id = net.nodes[B].sa(net.now);
        net.take_over(0);
        net.secs(60);
        net.assert_settled(1, 2);
        assert_eq!(net.nodes[B].kernel.keys().copied().collect::<Vec<_>>(), before);
        assert_eq!(net.nodes[B].sa(net.now), id);
        assert!(net.nodes[A].refusals().is_empty() && net.nodes[B].refusals().is_empty());
        // Rekeys of both kinds from both ends, another takeover, a delete.
        for node in [B, A] {
            net.rekey_child(node);
            net.secs(5);
            net.rekey_ike(node);
            net.secs(5);
            net.assert_settled(1, 2);
            net.take_over(0);
            net.secs(10);
            net.assert_settled(1, 2);
        }
        net.request(B, IkeRequest::Clear(None));
        net.secs(1);
        net.assert_settled(0, 0);
        assert!(net.nodes[A].mirror.is_empty());
    }
}

#[test]
fn an_answer_given_before_is_given_again_byte_for_byte() {
    let mut net = standing(2, usual(), B);
    let (requests, answers) = (net.nodes[B].sent.clone(), net.nodes[A].sent.clone());
    net.take_over(0);
    net.secs(1);
    net.inject(A, &requests[1]);
    assert_eq!(net.nodes[A].sent.last(), Some(&answers[1]), "IKE_AUTH");
    net.rekey_child(B);
    net.secs(3);
    net.take_over(0);
    net.secs(1);
    let request = net.nodes[B].sent.last().unwrap().clone();
    net.inject(A, &request);
    net.assert_settled(1, 1);
}

/// The active dies at every moment of a tunnel's start, and the standby misses the last records.
#[test]
fn death_at_any_moment_of_the_start_heals() {
    for starter in [A, B] {
        for step in 0..8 {
            for missed in 0..4 {
                let mut net = Net::new(3, with_dpd(usual()));
                net.initiate(starter);
                net.ms(step);
                net.take_over(missed);
                heal(&mut net);
                println!("starter {starter}, {step} ms, {missed} missed");
                net.assert_flows(1);
            }
        }
    }
}

type Act = fn(&mut Net, usize);

const ACTS: [(&str, Act); 6] = [
    ("child rekey", |n, node| n.rekey_child(node)),
    ("IKE rekey", |n, node| n.rekey_ike(node)),
    ("child delete", |n, node| {
        let spi = n.nodes[node].live()[0].spi_in;
        n.nodes[node].engine.handle_expire(spi, true, n.now);
    }),
    ("probe", |n, node| n.request(node, IkeRequest::ProbePeer(n.nodes[1 - node].addr))),
    ("clear", |n, node| n.request(node, IkeRequest::Clear(None))),
    ("new child", |n, node| {
        let spi = n.nodes[node].live()[0].spi_in;
        n.nodes[node].engine.handle_expire(spi, true, n.now);
        n.ms(20);
        n.acquire(node);
    }),
];

/// The active dies at every message of every exchange, the standby misses records, and everything is whole afterwards.
#[test]
fn death_at_any_message_of_any_exchange_heals() {
    for pfs in [None, Some(DhGroup::Ecp256)] {
        for (name, act) in ACTS {
            for node in [A, B] {
                for step in 0..10 {
                    for missed in 0..if pfs.is_none() { 3 } else { 1 } {
                        let mut net = standing(4, with_dpd(configs(2, &profile(vec![fast()]), GCM, pfs)), A);
                        act(&mut net, node);
                        net.ms(step);
                        net.take_over(missed);
                        heal(&mut net);
                        println!("{name} by {node}, {step} ms, {missed} missed, {pfs:?}");
                        net.assert_flows(2);
                    }
                }
            }
        }
    }
}

/// Without acquires: what was under way ends by itself, and the flows that stood still stand.
#[test]
fn rekeys_are_finished_by_the_other_node() {
    for pfs in [None, Some(DhGroup::Ecp256)] {
        for (name, act) in [ACTS[0], ACTS[1]] {
            for node in [A, B] {
                for step in 0..10 {
                    let mut net = standing(5, with_dpd(configs(2, &profile(vec![fast()]), GCM, pfs)), B);
                    act(&mut net, node);
                    net.ms(step);
                    net.take_over(0);
                    for _ in 0..200 {
                        net.ms(100);
                        assert!(!net.nodes[B].live().is_empty());
                    }
                    net.secs(60);
                    println!("{name} by {node}, {step} ms, {pfs:?}");
                    net.assert_settled(1, 2);
                }
            }
        }
    }
}

#[test]
fn death_amid_collisions_and_bad_weather_heals() {
    for seed in 0..120u64 {
        let mut net = standing(100 + seed, with_dpd(configs(2, &profile(vec![fast()]), GCM, None)), (seed % 2) as usize);
        net.weather = Weather { loss: (seed as u32 % 3) * 10, repeat: 10, delay_ms: 20 };
        ACTS[(seed % 4) as usize].1(&mut net, A);
        ACTS[(seed / 4 % 4) as usize].1(&mut net, B);
        net.ms(seed * 7 % 60);
        net.take_over((seed % 3) as usize);
        net.secs(20);
        net.weather = Weather::default();
        heal(&mut net);
        println!("seed {seed}");
        net.assert_flows(2);
    }
}

#[test]
fn export_equals_the_mirror_and_comes_back() {
    let mut net = standing(6, configs(2, &profile(vec![fast()]), GCM, Some(DhGroup::Ecp256)), A);
    for step in 0..3 {
        let n = &net.nodes[A];
        let export = n.engine.export(net.now);
        let (IkeRecord::Upsert { id, body }, now) = (&export[0], net.now) else { panic!() };
        let imported = decode(body, &n.engine.config, now).unwrap();
        assert_eq!(imported.sa.id, *id);
        assert_eq!(imported.children.len(), 2);
        assert!(format!("{:?}", export[0]).len() < 100, "no key is printed");
        let mut other = Node::new(n.addr, (*n.engine.config).clone(), 1, now);
        for k in n.kernel.values() {
            other.engine.import_child_stage(&k.child, crate::sad::ChildStage::Live, Duration::ZERO, now).unwrap();
        }
        other.engine.import(&export[0], now).unwrap();
        assert_eq!(other.engine.export(now), export, "step {step}");
        match step {
            0 => net.rekey_child(A),
            _ => net.rekey_ike(A),
        }
        net.pump();
    }
}

#[test]
fn a_dormant_engine_says_nothing() {
    let mut net = standing(7, usual(), A);
    let last = net.nodes[B].sent.last().unwrap().clone();
    net.nodes[A].engine.set_active(false, net.now);
    let sent = net.nodes[A].sent.len();
    net.inject(A, &last);
    assert_eq!(net.nodes[A].refusals(), ["dormant"]);
    assert!(net.nodes[A].engine.handle_request(IkeRequest::Clear(None), net.now).is_err());
    assert!(net.nodes[A].engine.poll_timeout().is_none());
    net.acquire(A);
    let spi = net.nodes[A].live()[0].spi_in;
    net.nodes[A].engine.handle_expire(spi, false, net.now);
    net.nodes[A].engine.handle_timeout(net.now);
    net.pump();
    assert_eq!(net.nodes[A].sent.len(), sent);
    net.nodes[A].engine.clear_imported();
    assert!(net.nodes[A].engine.view(net.now).is_empty() && net.nodes[A].engine.children.is_empty());
}

#[test]
fn going_dormant_amid_exchanges_leaves_nothing_half() {
    for ms in 0..8 {
        let mut net = Net::new(8, usual());
        net.initiate(A);
        net.ms(ms);
        net.nodes[A].engine.set_active(false, net.now);
        net.pump();
        let n = &net.nodes[A];
        assert!(n.engine.half_open_total == 0 && n.engine.sas.values().all(|s| s.up().is_some()));
        assert_eq!(n.engine.children.len(), n.kernel.len());
        assert_eq!(n.kernel.keys().copied().collect::<std::collections::BTreeSet<_>>(), *n.spis.0.lock().unwrap());
    }
}

#[test]
fn broken_records_are_errors() {
    let mut net = standing(9, configs(2, &profile(vec![fast()]), GCM, Some(DhGroup::Ecp256)), B);
    net.rekey_child(A);
    net.pump();
    let record = net.nodes[A].engine.export(net.now).remove(0);
    let IkeRecord::Upsert { id, body } = record else { panic!() };
    assert!(crate::ike::v2::is_record(&body));
    let config = net.nodes[A].engine.config.clone();
    for n in 0..body.len() {
        assert!(decode(&body[..n], &config, net.now).is_err(), "cut at {n}");
    }
    let mut rng = Seeded::new(1);
    for _ in 0..20_000 {
        let mut b = body.clone();
        for _ in 0..1 + rng.u32() % 3 {
            let at = rng.u32() as usize % b.len();
            b[at] = rng.u32() as u8;
        }
        let _ = decode(&b, &config, net.now);
    }
    let mut engine = Node::new([40, 0, 0, 9].into(), (*config).clone(), 1, net.now).engine;
    let other = crate::id::IkeSaId { initiator: [9; 8], ..id };
    assert!(engine.import(&IkeRecord::Upsert { id: other, body: body.clone() }, net.now).is_err());
    engine.import(&IkeRecord::Upsert { id, body }, net.now).unwrap();
    engine.import(&IkeRecord::Delete { id }, net.now).unwrap();
    assert!(engine.view(net.now).is_empty());
}
