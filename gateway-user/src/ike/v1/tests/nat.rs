//! NAT traversal: finding NATs, moving to port 4500, mappings that change, several peers behind one address.

use super::net::*;
use crate::ike::v1::PairKey;
use crate::ike::*;
use crate::sad::{ChildStage, Encap, Selector};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// A is behind a NAT and calls B, which knows it by the NAT's address.
fn a_behind() -> [IkeConfig; 2] {
    let mut c = usual();
    c[B].keys[0].peer = PeerMatch::Address(PUBLIC.into());
    c[B].entries[0].peers = vec![PUBLIC.into()];
    c
}

fn net_behind(seed: u64, c: [IkeConfig; 2]) -> Net {
    let mut net = Net::new(seed, c);
    net.nat.inside = vec![net.nodes[A].addr.ip()];
    net.nat.public = Some(PUBLIC.into());
    net
}

fn up(seed: u64) -> Net {
    let mut net = net_behind(seed, a_behind());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net
}

fn encap(net: &Net, node: usize) -> Option<Encap> {
    net.nodes[node].live()[0].encap
}

#[test]
fn without_a_nat_everything_stays_at_port_500() {
    let mut net = Net::new(1, usual());
    net.initiate(A);
    net.secs(100);
    net.assert_settled(1);
    for n in &net.nodes {
        assert_eq!(n.live()[0].encap, None);
        assert!(n.paths.iter().all(|(from, to)| (from.port(), to.port()) == (500, 500)));
        assert_eq!(n.keepalives, 0);
    }
}

#[test]
fn a_peer_behind_a_nat_moves_at_message_5() {
    let net = up(1);
    let ports: Vec<_> = net.nodes[A].paths.iter().map(|(from, to)| (from.port(), to.port())).collect();
    assert_eq!(ports, [(500, 500), (500, 500), (4500, 4500), (4500, 4500), (4500, 4500)]);
    let b: Vec<_> = net.nodes[B].paths.iter().map(|(from, to)| (from.port(), *to)).collect();
    let at = |port| SocketAddr::new(PUBLIC.into(), port);
    assert_eq!(b, [(500, at(1024)), (500, at(1024)), (4500, at(1025)), (4500, at(1025))], "answers go where the request came from");
    assert_eq!(encap(&net, A), Some(Encap { local_port: 4500, peer_port: 4500 }));
    assert_eq!(encap(&net, B), Some(Encap { local_port: 4500, peer_port: 1025 }));
    assert_eq!(net.nodes[B].live()[0].peer, IpAddr::from(PUBLIC));
    for n in &net.nodes {
        assert!(n.refusals().is_empty(), "{:?}", n.refusals());
    }
}

#[test]
fn it_can_be_turned_off_at_either_end() {
    for node in [A, B] {
        let mut c = usual();
        c[node].nat_traversal = false;
        let mut net = Net::new(1, c);
        net.initiate(A);
        net.secs(5);
        net.assert_settled(1);
        assert_eq!(encap(&net, A), None);
        let mut c = a_behind();
        c[node].nat_traversal = false;
        let mut net = net_behind(1, c);
        net.initiate(A);
        net.secs(5);
        assert!(net.nodes[A].paths.iter().all(|(from, _)| from.port() == 500));
    }
}

#[test]
fn rekeys_of_both_phases_and_deletes_go_through_the_nat() {
    for node in [A, B] {
        let mut net = up(2);
        net.secs(100);
        let spi = net.nodes[node].live()[0].spi_in;
        net.request(node, IkeRequest::RekeyChild(spi));
        net.secs(40);
        net.assert_settled(1);
        let id = net.nodes[node].engine.view(net.now)[0].id;
        let paths = net.nodes[node].paths.len();
        net.request(node, IkeRequest::RekeyIsakmp(id));
        net.secs(40);
        net.assert_settled(1);
        assert_ne!(net.nodes[node].engine.view(net.now)[0].id, id);
        assert!(net.nodes[node].paths[paths..].iter().all(|(from, _)| from.port() == 4500), "the whole rekey is at port 4500");
        let spi = net.nodes[node].live()[0].spi_in;
        net.request(node, IkeRequest::RekeyChild(spi));
        net.secs(40);
        net.assert_settled(1);
        assert_eq!(net.nodes[B].engine.pairs.len(), 1);
        net.request(node, IkeRequest::Clear(None));
        net.secs(5);
        net.assert_settled(0);
        assert!(net.nodes[A].kernel.is_empty() && net.nodes[B].kernel.is_empty());
        assert!(net.nodes[B].engine.pairs.is_empty(), "nothing is kept of a port that comes and goes");
    }
}

#[test]
fn a_responder_behind_a_nat_that_forwards() {
    // B's NAT forwards the well-known ports; B calls itself by its inside address.
    let mut c = usual();
    c[A].keys[0].peer = PeerMatch::Address(PUBLIC.into());
    c[A].entries[0].peers = vec![PUBLIC.into()];
    let mut net = Net::new(3, c);
    let b = net.nodes[B].addr.ip();
    net.nat = NatBox { inside: vec![b], public: Some(PUBLIC.into()), forward: Some(b), ..NatBox::default() };
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(encap(&net, B), Some(Encap { local_port: 4500, peer_port: 4500 }));
    net.secs(100);
    assert!(net.nodes[B].keepalives >= 4, "the end behind the NAT keeps its mapping");
    assert_eq!(net.nodes[A].keepalives, 0);
}

#[test]
fn both_ends_behind_nats() {
    let far = Ipv4Addr::new(198, 51, 100, 20);
    let mut c = a_behind();
    c[A].keys[0].peer = PeerMatch::Address(far.into());
    c[A].entries[0].peers = vec![far.into()];
    for node in [A, B] {
        let mut net = net_behind(3, c.clone());
        let b = net.nodes[B].addr.ip();
        net.far_nat = NatBox { inside: vec![b], public: Some(far.into()), forward: Some(b), ..NatBox::default() };
        net.initiate(A);
        net.secs(50);
        net.assert_settled(1);
        assert_eq!(encap(&net, A), Some(Encap { local_port: 4500, peer_port: 4500 }));
        assert_eq!(encap(&net, B), Some(Encap { local_port: 4500, peer_port: 1025 }));
        assert!(net.nodes.iter().all(|n| n.keepalives == 2), "each end keeps its own mapping");
        net.secs(60);
        let (id, spi) = (net.nodes[node].engine.view(net.now)[0].id, net.nodes[node].live()[0].spi_in);
        net.request(node, IkeRequest::RekeyIsakmp(id));
        net.request(node, IkeRequest::RekeyChild(spi));
        net.secs(60);
        net.assert_settled(1);
        net.take_over(node);
        net.secs(30);
        net.assert_settled(1);
        // Both rekey at once: the ends see other addresses, and still agree on who goes first.
        for n in [A, B] {
            let spi = net.nodes[n].live()[0].spi_in;
            net.request(n, IkeRequest::RekeyChild(spi));
        }
        net.secs(60);
        net.assert_settled(1);
        assert_eq!((net.nodes[A].kernel.len(), net.nodes[B].kernel.len()), (1, 1));
    }
}

#[test]
fn keepalives_come_from_the_active_behind_the_nat_and_prove_nothing() {
    let mut c = a_behind();
    c[B].dpd = Some(DpdConfig { interval: Duration::from_secs(30), retry: Duration::from_secs(2), retries: 3 });
    let mut net = net_behind(4, c);
    net.initiate(A);
    net.secs(5);
    net.secs(20);
    let (a, b) = (net.nodes[A].keepalives, net.nodes[B].keepalives);
    assert_eq!((a, b), (1, 0));
    let refused = net.nodes[B].refusals().len();
    net.secs(200);
    assert_eq!(net.nodes[A].keepalives, 11);
    assert_eq!(net.nodes[B].refusals().len(), refused, "a keepalive is no fault");
    let probes = net.nodes[B].sent.len();
    net.secs(31);
    assert!(net.nodes[B].sent.len() > probes, "keepalives do not put off a probe");
    net.nodes[A].engine.set_active(false, net.now);
    let before = net.nodes[A].keepalives;
    net.secs(100);
    assert_eq!(net.nodes[A].keepalives, before, "a dormant node is mute");
}

#[test]
fn a_mapping_that_changes_is_followed_when_the_peer_proves_itself() {
    for rekey in [false, true] {
        let mut c = a_behind();
        c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(5), retries: 5 });
        let mut net = net_behind(5, c);
        net.initiate(A);
        net.secs(5);
        let old = encap(&net, B).unwrap();
        net.nat.reboot();
        if rekey {
            let spi = net.nodes[A].live()[0].spi_in;
            net.request(A, IkeRequest::RekeyChild(spi));
        }
        net.secs(45);
        net.assert_settled(1);
        let new = encap(&net, B).unwrap();
        assert_ne!(old, new);
        assert!(net.nodes[B].notices().iter().any(|t| t.contains("the peer moved from")), "{:?}", net.nodes[B].notices());
        let sa = net.nodes[B].engine.view(net.now)[0].id;
        assert!(net.nodes[B].mirror.contains_key(&sa));
        assert_eq!(net.nodes[B].engine.pairs.len(), 1, "the old port is forgotten");
        // Everything goes on at the new port, from both ends.
        for node in [B, A] {
            let spi = net.nodes[node].live()[0].spi_in;
            net.request(node, IkeRequest::RekeyChild(spi));
            net.secs(40);
            net.assert_settled(1);
            assert_ne!(net.nodes[node].live()[0].spi_in, spi);
        }
    }
}

#[test]
fn a_replay_or_forgery_from_elsewhere_moves_nothing() {
    let mut c = a_behind();
    c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(10), retry: Duration::from_secs(5), retries: 5 });
    let mut net = net_behind(6, c);
    net.initiate(A);
    net.secs(60);
    let recorded = net.nodes[A].sent.clone();
    let before = encap(&net, B);
    let to = SocketAddr::new(net.nodes[B].addr.ip(), 4500);
    for (from, bytes) in recorded
        .iter()
        .flat_map(|b| [(SocketAddr::new(PUBLIC.into(), 7777), b.clone()), (SocketAddr::new([198, 51, 100, 1].into(), 4500), b.clone())])
    {
        net.inject_at(B, from, to, &bytes);
        let mut forged = bytes;
        let last = forged.len() - 1;
        forged[last] ^= 1;
        net.inject_at(B, from, to, &forged);
        net.secs(1);
    }
    assert_eq!(encap(&net, B), before);
    net.secs(20);
    net.assert_settled(1);
    assert_eq!(net.nodes[B].up(net.now), 1);
}

#[test]
fn an_address_that_is_not_configured_is_not_followed() {
    let mut c = a_behind();
    c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(10), retry: Duration::from_secs(2), retries: 3 });
    let mut net = net_behind(7, c.clone());
    net.initiate(A);
    net.secs(5);
    net.nat.public = Some([203, 0, 113, 10].into());
    net.secs(15);
    assert!(net.nodes[B].refusals().contains(&"moved_away"));
    assert_eq!(net.nodes[B].live()[0].peer, IpAddr::from(PUBLIC));
    // Where the entry and a key name both addresses, it is.
    c[B].entries[0].peers.push([203, 0, 113, 10].into());
    c[B].keys[0].peer = PeerMatch::Network(Ipv4Addr::new(203, 0, 113, 0).into(), 24);
    let mut net = net_behind(7, c);
    net.initiate(A);
    net.secs(5);
    net.nat.public = Some([203, 0, 113, 10].into());
    net.secs(15);
    net.assert_settled(1);
    assert_eq!(net.nodes[B].live()[0].peer, IpAddr::from([203, 0, 113, 10]));
}

#[test]
fn a_peer_that_restarts_behind_its_nat_replaces_what_it_had() {
    let mut net = up(8);
    let (addr, config) = (net.nodes[A].addr, (*net.nodes[A].engine.config).clone());
    let IpAddr::V4(ip) = addr.ip() else { unreachable!() };
    net.nodes[A] = Node::new(ip, config, 99, net.now);
    net.nodes[A].engine.set_active(true, net.now);
    net.nat.reboot();
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(net.nodes[B].kernel.len(), 1);
    assert_eq!(net.nodes[B].up(net.now), 1);
    assert_eq!(net.nodes[B].engine.pairs.len(), 1);
}

/// Two gateways behind one address with nets of their own.
fn two_behind(seed: u64, same_net: bool) -> Net {
    let mut c = a_behind();
    let mut second = c[A].clone();
    let second_addr = Ipv4Addr::new(40, 0, 0, 2);
    second.entries[0].local = second_addr.into();
    if !same_net {
        second.entries[0].flows[0].local = Selector::net4(Ipv4Addr::new(172, 16, 99, 0), 24);
        let mut flow = c[B].entries[0].flows[0].clone();
        flow.ace = 1;
        flow.remote = second.entries[0].flows[0].local;
        c[B].entries[0].flows.push(flow);
    }
    let mut net = net_behind(seed, c);
    net.nodes.push(Node::new(second_addr, second, seed * 10 + 7, net.now));
    let now = net.now;
    net.nodes[2].engine.set_active(true, now);
    net.nat.inside.push(second_addr.into());
    net
}

#[test]
fn two_peers_behind_one_nat_are_two_peers() {
    for keeps_ports in [false, true] {
        let mut net = two_behind(9, false);
        net.nat.keeps_ports = keeps_ports;
        net.initiate(A);
        net.initiate(2);
        net.secs(5);
        let live = |net: &Net, n: usize| net.nodes[n].live().iter().map(|c| (c.spi_in, c.ts_remote)).collect::<Vec<_>>();
        assert_eq!((live(&net, A).len(), live(&net, 2).len(), live(&net, B).len()), (1, 1, 2));
        assert_eq!(net.nodes[B].engine.pairs.len(), 2, "{:?}", net.nodes[B].engine.pairs.keys());
        let ports: Vec<_> = net.nodes[B].live().iter().map(|c| c.encap.unwrap().peer_port).collect();
        assert_ne!(ports[0], ports[1]);
        // Each end has its own counterpart.
        for n in [A, 2] {
            let c = net.nodes[n].live()[0].clone();
            let other = &net.nodes[B].kernel[&c.spi_out].child;
            assert_eq!((other.ts_remote, other.spi_out), (c.ts_local, c.spi_in));
        }
        // A Delete, an INITIAL-CONTACT, a rekey of one touch nothing of the other.
        let second = live(&net, 2);
        net.request(A, IkeRequest::Clear(None));
        net.secs(2);
        assert_eq!(net.nodes[B].live().len(), 1);
        assert_eq!(live(&net, 2), second);
        let (addr, config) = (Ipv4Addr::new(40, 0, 0, 1), (*net.nodes[A].engine.config).clone());
        net.nodes[A] = Node::new(addr, config, 77, net.now);
        net.nodes[A].engine.set_active(true, net.now);
        net.initiate(A);
        net.secs(5);
        assert_eq!(net.nodes[B].live().len(), 2);
        assert_eq!(live(&net, 2), second);
        // B's own rekeys find the right one.
        for spi in net.nodes[B].live().iter().map(|c| c.spi_in).collect::<Vec<_>>() {
            net.request(B, IkeRequest::RekeyChild(spi));
        }
        net.secs(40);
        for n in [A, 2] {
            let c = net.nodes[n].live()[0].clone();
            assert_eq!(net.nodes[B].kernel[&c.spi_out].child.ts_remote, c.ts_local);
            assert_eq!(net.nodes[n].kernel.len(), 1);
        }
        assert_ne!(live(&net, 2), second);
    }
}

/// A flow without a pair goes back to the one of several peers behind its address that had it.
#[test]
fn an_acquire_finds_the_right_peer_behind_the_nat() {
    let mut net = two_behind(15, false);
    net.initiate(A);
    net.initiate(2);
    net.secs(5);
    for n in [2, A, 2] {
        let spi = net.nodes[n].live()[0].spi_out;
        net.nodes[B].engine.handle_expire(spi, true, net.now);
        net.secs(5);
        assert!(net.nodes[n].live().is_empty());
        assert_eq!(net.nodes[B].live().len(), 1);
        net.acquire(B);
        net.secs(5);
        assert_eq!(net.nodes[n].live().len(), 1);
        assert_eq!(net.nodes[B].live().len(), 2);
        assert!(!net.nodes[A].refusals().contains(&"invalid_id") && !net.nodes[2].refusals().contains(&"invalid_id"));
    }
}

#[test]
fn a_second_peer_cannot_take_the_traffic_of_the_first() {
    let mut net = two_behind(10, true);
    for c in [A, 2, B] {
        let mut config = (*net.nodes[c].engine.config).clone();
        config.dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(2), retries: 3 });
        net.nodes[c].engine.reload(config.into(), net.now);
    }
    net.initiate(A);
    net.secs(5);
    let spi = net.nodes[B].live()[0].spi_in;
    net.initiate(2);
    net.secs(5);
    assert!(net.nodes[B].refusals().contains(&"flow_taken"));
    assert_eq!(net.nodes[B].live().iter().map(|c| c.spi_in).collect::<Vec<_>>(), [spi]);
    assert!(net.nodes[2].live().is_empty());
    assert_eq!(net.nodes[B].up(net.now), 2);
    // When the first is gone, its silence shows, and the second gets it.
    net.nodes[A].engine.set_active(false, net.now);
    for _ in 0..6 {
        net.secs(10);
        net.acquire(2);
    }
    net.secs(5);
    assert_eq!(net.nodes[2].live().len(), 1);
    assert_eq!(net.nodes[B].live().len(), 1);
}

#[test]
fn the_old_dialects_work_as_well() {
    use crate::ike::v1::message::*;
    for dialect in NatDialect::ALL {
        let mut net = net_behind(11, a_behind());
        // A peer that knows only this one: the others are taken out of message 1 on the way.
        net.edit = Some(Box::new(move |bytes: &[u8]| {
            let header = Header::decode(bytes).ok()?;
            let payloads = Payloads::decode_clear(header.next, &bytes[HEADER_LEN..]).ok()?;
            let other = |body: &[u8]| NatDialect::ALL.iter().any(|d| *d != dialect && d.vendor() == body);
            let mut chain = Chain::new();
            for p in payloads.items().iter().filter(|p| !other(p.body)) {
                chain.push(p.kind, p.body);
            }
            (header.exchange == Exchange::Main && header.flags == 0).then(|| chain.message(header))
        }));
        net.initiate(A);
        net.secs(5);
        net.assert_settled(1);
        assert!(encap(&net, A).is_some(), "{dialect:?}");
        let nat = net.nodes[A].engine.sas.values().next().unwrap().nat;
        assert_eq!(nat.found(), Some(dialect));
    }
}

#[test]
fn transport_mode_through_a_nat() {
    let mut c = a_behind();
    let host = |a: IpAddr| Selector { addr: a, prefix: 32, proto: 47, port: 0 };
    let (a, b): (IpAddr, IpAddr) = ([40, 0, 0, 1].into(), [192, 168, 3, 1].into());
    for c in &mut c {
        c.entries[0].transforms[0].mode = crate::sad::Mode::Transport;
    }
    (c[A].entries[0].flows[0].local, c[A].entries[0].flows[0].remote) = (host(a), host(b));
    (c[B].entries[0].flows[0].local, c[B].entries[0].flows[0].remote) = (host(b), host(PUBLIC.into()));
    for node in [A, B] {
        let mut net = net_behind(12, c.clone());
        net.initiate(A);
        net.secs(5);
        assert_eq!((net.nodes[A].live().len(), net.nodes[B].live().len()), (1, 1), "{:?}", net.nodes[B].refusals());
        net.secs(100);
        let spi = net.nodes[node].live()[0].spi_in;
        net.request(node, IkeRequest::RekeyChild(spi));
        net.secs(40);
        let (x, y) = (net.nodes[A].live()[0], net.nodes[B].live()[0]);
        assert_ne!(net.nodes[node].live()[0].spi_in, spi);
        assert_eq!((x.ts_local, x.ts_remote), (host(a), host(b)));
        assert_eq!((y.ts_local, y.ts_remote), (host(b), host(PUBLIC.into())));
        assert!(x.encap.is_some() && y.encap.is_some());
        assert_eq!(x.mode, crate::sad::Mode::Transport);
    }
}

/// The node at either end of the NAT dies at any moment; the standby goes on with ports, NAT and mapping as they were.
#[test]
fn takeover_behind_and_before_a_nat() {
    for dead in [A, B] {
        for step in 0..16 {
            let mut c = a_behind();
            for c in &mut c {
                c.dpd = Some(DpdConfig { interval: Duration::from_secs(15), retry: Duration::from_secs(3), retries: 3 });
            }
            let mut net = net_behind(13, c);
            net.initiate(A);
            net.run(Duration::from_millis(step));
            net.take_over(dead);
            for _ in 0..20 {
                net.acquire(A);
                net.secs(10);
            }
            println!("node {dead} dies at {step} ms");
            net.assert_settled(1);
            let before = encap(&net, B);
            net.take_over(dead);
            net.secs(60);
            net.assert_settled(1);
            assert_eq!(encap(&net, B), before);
            let spi = net.nodes[B].live()[0].spi_in;
            net.request(B, IkeRequest::RekeyChild(spi));
            net.secs(40);
            net.assert_settled(1);
            if dead == A {
                assert!(net.nodes[A].keepalives >= 4, "the new active keeps the mapping");
            }
        }
    }
}

#[test]
fn a_mirrored_peer_that_moves_is_moved_on_the_standby() {
    let mut c = a_behind();
    c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(5), retries: 5 });
    let mut net = net_behind(14, c);
    net.initiate(A);
    net.secs(5);
    let IpAddr::V4(ip) = net.nodes[B].addr.ip() else { unreachable!() };
    let mut standby = Node::new(ip, (*net.nodes[B].engine.config).clone(), 3, net.now).engine;
    let feed = |standby: &mut crate::ike::v1::Engine, net: &Net| {
        for record in net.nodes[B].mirror.values() {
            standby.import(record, net.now).unwrap();
        }
        for k in net.nodes[B].kernel.values() {
            standby.import_child_stage(&k.child, ChildStage::Live, Duration::ZERO, net.now).unwrap();
        }
    };
    feed(&mut standby, &net);
    let keys = |e: &crate::ike::v1::Engine| e.pairs.keys().copied().collect::<Vec<PairKey>>();
    let before = keys(&standby);
    net.nat.reboot();
    net.secs(40);
    feed(&mut standby, &net);
    assert_eq!(keys(&standby), keys(&net.nodes[B].engine));
    assert_ne!(keys(&standby), before);
}

/// Loss, repetition, delay and a NAT that forgets: the tunnel stands at the end.
#[test]
fn bad_networks_with_a_forgetful_nat_end_well() {
    for seed in 0..40 {
        let mut c = a_behind();
        for c in &mut c {
            c.retransmit_tries = 8;
            c.dpd = Some(DpdConfig { interval: Duration::from_secs(20), retry: Duration::from_secs(5), retries: 6 });
        }
        let mut net = net_behind(seed, c);
        net.weather = Weather { loss: (seed as u32 % 4) * 8, repeat: 20, delay_ms: (seed as u32 * 53) % 700 };
        for round in 0..12 {
            net.acquire(A);
            net.secs(25);
            if net.nodes[A].engine.rng.u32().is_multiple_of(3) {
                net.nat.reboot();
            }
            if round % 4 == 3
                && let Some(spi) = net.nodes[A].live().first().map(|c| c.spi_in)
            {
                net.request(A, IkeRequest::RekeyChild(spi));
            }
        }
        net.weather = Weather::default();
        for _ in 0..10 {
            net.acquire(A);
            net.secs(30);
        }
        println!("seed {seed}");
        net.assert_settled(1);
        assert!(net.nodes[B].engine.pairs.len() <= 2);
    }
}
