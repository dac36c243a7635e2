//! The standby takes over from mirrored state alone.

use super::net::*;
use crate::ike::*;
use crate::rng::{Random, Seeded};
use crate::wire::Reader;
use std::time::Duration;

fn up(seed: u64, starter: usize) -> Net {
    let mut c = usual();
    c[B].dpd = Some(DpdConfig { interval: Duration::from_secs(5), retry: Duration::from_secs(2), retries: 3 });
    let mut net = Net::new(seed, c);
    net.initiate(starter);
    net.secs(7);
    net.assert_settled(1);
    net
}

#[test]
fn the_peer_notices_nothing() {
    for starter in [A, B] {
        let mut net = up(1, starter);
        let sent = net.nodes[B].sent.len();
        let spi = net.nodes[B].live()[0].spi_in;
        net.take_over(A);
        net.secs(60);
        net.assert_settled(1);
        assert_eq!(net.nodes[B].live()[0].spi_in, spi);
        let probes = net.nodes[B].sent.len() - sent;
        assert!((10..=13).contains(&probes), "only its probes, each answered: {probes}");
        assert_eq!(net.nodes[A].sent.len(), probes);
        assert!(net.nodes[A].refusals().is_empty() && net.nodes[B].refusals().is_empty());
        // Rekey from both ends, of both phases, then a Delete.
        for node in [B, A] {
            let spi = net.nodes[node].live()[0].spi_in;
            net.request(node, IkeRequest::RekeyChild(spi));
            net.secs(40);
            net.assert_settled(1);
            assert_ne!(net.nodes[node].live()[0].spi_in, spi);
            let id = net.nodes[node].engine.view(net.now)[0].id;
            net.request(node, IkeRequest::RekeyIsakmp(id));
            net.secs(40);
            net.assert_settled(1);
            assert_eq!(net.nodes[B].kernel.len(), 1);
        }
        net.request(B, IkeRequest::Clear(None));
        net.secs(1);
        net.assert_settled(0);
        assert!(net.nodes[A].kernel.is_empty() && net.nodes[A].mirror.is_empty());
    }
}

#[test]
fn probe_numbers_go_on_where_they_were() {
    let mut c = usual();
    for c in &mut c {
        c.dpd = Some(DpdConfig { interval: Duration::from_secs(4), retry: Duration::from_secs(2), retries: 3 });
    }
    let mut net = Net::new(1, c);
    net.initiate(A);
    for _ in 0..6 {
        net.secs(23);
        let next = |n: &Node| n.engine.sas.values().next().and_then(|s| s.up()).map(|u| u.dpd_numbers());
        let before = next(&net.nodes[A]).unwrap();
        net.take_over(A);
        assert_eq!(next(&net.nodes[A]), Some(before));
        net.secs(23);
        let after = next(&net.nodes[A]).unwrap();
        assert!(after.0 >= before.0);
        net.assert_settled(1);
        assert!(net.nodes[B].refusals().is_empty(), "{:?}", net.nodes[B].refusals());
    }
}

#[test]
fn answers_given_before_are_given_again_byte_for_byte() {
    let mut net = up(2, B);
    let requests = net.nodes[B].sent.clone();
    let answers = net.nodes[A].sent.clone();
    net.take_over(A);
    net.secs(1);
    net.inject(A, &requests[2]);
    assert_eq!(net.nodes[A].sent.last(), answers.get(2), "message 6");
    let probe = requests.last().unwrap();
    net.inject(A, probe);
    assert_eq!(net.nodes[A].sent.last(), answers.last(), "R-U-THERE-ACK");
    let sent = net.nodes[A].sent.len();
    net.inject(A, &requests[3]);
    net.inject(A, &requests[4]);
    assert_eq!(net.nodes[A].sent.len(), sent, "a finished quick mode is not begun again");
    assert!(net.nodes[A].refusals().contains(&"repeated"));
    net.assert_settled(1);
}

/// The active dies at every possible moment of a tunnel's start; the tunnel stands afterwards, by retransmission or by a new start.
#[test]
fn death_at_any_moment_heals() {
    for starter in [A, B] {
        for step in 0..14 {
            let mut c = usual();
            for c in &mut c {
                c.dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(3), retries: 3 });
            }
            let mut net = Net::new(3, c);
            net.initiate(starter);
            net.run(Duration::from_millis(step));
            net.take_over(A);
            for _ in 0..30 {
                net.acquire(starter);
                net.secs(10);
            }
            println!("starter {starter}, {step} ms");
            net.assert_settled(1);
        }
    }
}

/// The pair of a quick mode whose last message is still to come survives: it must not end half.
#[test]
fn a_quick_mode_between_two_and_three_is_finished_by_the_other_node() {
    let mut net = Net::new(3, usual());
    net.initiate(B);
    net.run(Duration::from_millis(7));
    assert!(net.nodes[A].kernel.values().any(|k| !k.outbound), "message 2 is out, message 3 is not in");
    assert!(net.nodes[A].live().is_empty());
    net.take_over(A);
    net.secs(5);
    net.assert_settled(1);
}

/// The active dies at any moment of rekeys of both phases under loss: no flow is lost for good, nothing leaks.
#[test]
fn death_amid_rekeys_heals() {
    for seed in 0..40 {
        let mut net = up(100 + seed, (seed % 2) as usize);
        net.weather = Weather { loss: (seed as u32 % 3) * 10, repeat: 10, delay_ms: 20 };
        let node = (seed / 2 % 2) as usize;
        let spi = net.nodes[node].live()[0].spi_in;
        net.request(node, IkeRequest::RekeyChild(spi));
        if seed % 5 == 0 {
            let id = net.nodes[node].engine.view(net.now)[0].id;
            net.request(node, IkeRequest::RekeyIsakmp(id));
        }
        net.run(Duration::from_millis(seed * 7 % 60));
        net.take_over(A);
        net.secs(20);
        net.weather = Weather::default();
        for _ in 0..20 {
            net.acquire(A);
            net.acquire(B);
            net.secs(10);
        }
        println!("seed {seed}");
        net.assert_settled(1);
    }
}

#[test]
fn export_equals_the_mirror_and_comes_back() {
    let net = up(4, A);
    let n = &net.nodes[A];
    let export = n.engine.export(net.now);
    assert_eq!(export.len(), 1);
    let (IkeRecord::Upsert { id, body }, now) = (&export[0], net.now) else { panic!() };
    let imported = crate::ike::v1::decode(body, &n.engine.config, now).unwrap();
    assert_eq!(imported.sa.id, *id);
    assert_eq!(n.engine.encode(0, &imported.sa, now), Some(export[0].clone()));
    assert!(format!("{:?}", export[0]).len() < 100, "no key is printed");
}

#[test]
fn a_dormant_engine_says_nothing() {
    let mut net = up(5, A);
    let probe = net.nodes[B].sent.last().unwrap().clone();
    net.nodes[A].engine.set_active(false, net.now);
    let sent = net.nodes[A].sent.len();
    net.inject(A, &probe);
    assert_eq!(net.nodes[A].refusals(), ["dormant"]);
    assert!(net.nodes[A].engine.handle_request(IkeRequest::Clear(None), net.now).is_err());
    assert!(net.nodes[A].engine.poll_timeout().is_none());
    net.acquire(A);
    let spi = net.nodes[A].live()[0].spi_in;
    net.nodes[A].engine.handle_expire(spi, false, net.now);
    net.nodes[A].engine.handle_timeout(net.now);
    net.pump();
    assert_eq!(net.nodes[A].sent.len(), sent);
    assert_eq!(net.nodes[A].engine.view(net.now).len(), 1);
    net.nodes[A].engine.clear_imported();
    assert!(net.nodes[A].engine.view(net.now).is_empty() && net.nodes[A].engine.pairs.is_empty());
}

#[test]
fn going_dormant_amid_exchanges_leaves_nothing_half() {
    for ms in 0..12 {
        let mut net = Net::new(6, usual());
        net.initiate(A);
        net.run(Duration::from_millis(ms));
        net.nodes[A].engine.set_active(false, net.now);
        net.pump();
        let n = &net.nodes[A];
        assert!(n.engine.quicks.is_empty() && n.engine.half_open_total == 0);
        assert!(n.engine.sas.values().all(|s| s.up().is_some()));
        assert_eq!(n.engine.children.len(), n.kernel.len());
    }
}

#[test]
fn broken_records_are_errors() {
    let mut net = up(7, B);
    let old = net.now;
    net.run(Duration::from_millis(1));
    let record = net.nodes[A].engine.export(old).remove(0);
    let IkeRecord::Upsert { id, body } = record else { panic!() };
    let config = net.nodes[A].engine.config.clone();
    for n in 0..body.len() {
        assert!(crate::ike::v1::decode(&body[..n], &config, net.now).is_err(), "cut at {n}");
    }
    let mut rng = Seeded::new(1);
    for _ in 0..20_000 {
        let mut b = body.clone();
        for _ in 0..1 + rng.u32() % 3 {
            let at = rng.u32() as usize % b.len();
            b[at] = rng.u32() as u8;
        }
        let _ = crate::ike::v1::decode(&b, &config, net.now);
    }
    let mut engine = Node::new([40, 0, 0, 9].into(), (*config).clone(), 1, net.now).engine;
    let other = crate::id::IkeSaId { initiator: [9; 8], ..id };
    assert!(engine.import(&IkeRecord::Upsert { id: other, body: body.clone() }, net.now).is_err());
    assert_eq!(Reader::new(&body).u8("version"), Ok(2));
    engine.import(&IkeRecord::Upsert { id, body }, net.now).unwrap();
    engine.import(&IkeRecord::Delete { id }, net.now).unwrap();
    assert!(engine.view(net.now).is_empty());
}

/// Either end dies after any message of an end (Delete of both phases), a probe, a rekey of either phase or a hard expiry, started at
/// either end: what remains is the same on both sides, and the flow comes back where it was meant to.
#[test]
fn death_after_any_message_of_what_comes_later_heals() {
    let actions: [(&str, fn(&mut Net, usize)); 5] = [
        ("clear", |net, n| net.request(n, IkeRequest::Clear(None))),
        ("probe", |net, n| {
            let peer = net.nodes[1 - n].addr.ip();
            net.request(n, IkeRequest::ProbePeer(peer));
        }),
        ("rekey of the pair", |net, n| {
            let spi = net.nodes[n].live()[0].spi_in;
            net.request(n, IkeRequest::RekeyChild(spi));
        }),
        ("rekey of the ISAKMP SA", |net, n| {
            let id = net.nodes[n].engine.view(net.now)[0].id;
            net.request(n, IkeRequest::RekeyIsakmp(id));
        }),
        ("hard expiry", |net, n| {
            let spi = net.nodes[n].live()[0].spi_in;
            net.nodes[n].engine.handle_expire(spi, true, net.now);
        }),
    ];
    for (name, action) in actions {
        for starter in [A, B] {
            for dead in [A, B] {
                for messages in 0..8 {
                    let mut c = usual();
                    for c in &mut c {
                        c.dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(3), retries: 3 });
                    }
                    let mut net = Net::new(9, c);
                    net.initiate(A);
                    net.secs(5);
                    net.assert_settled(1);
                    let before = net.nodes[A].sent.len() + net.nodes[B].sent.len();
                    action(&mut net, starter);
                    // Until so many messages are on their way: the last of them is not answered yet.
                    for _ in 0..200 {
                        net.pump();
                        if net.nodes[A].sent.len() + net.nodes[B].sent.len() >= before + messages {
                            break;
                        }
                        net.run(Duration::from_millis(1));
                    }
                    net.take_over(dead);
                    for _ in 0..30 {
                        net.acquire(starter);
                        net.secs(10);
                    }
                    println!("{name} by {starter}, {dead} dies after {messages}");
                    net.assert_settled(1);
                    for n in &net.nodes {
                        assert_eq!(n.kernel.len(), 1, "no pair is left over");
                        assert!(n.up(net.now) >= 1);
                        assert_eq!(n.mirror.len(), n.engine.sas.len(), "the standby knows exactly the SAs there are");
                    }
                }
            }
        }
    }
}
