//! Several peers of one entry, entries without version 1, and Deletes.

use super::net::*;
use crate::ike::v1::message::{Delete, PayloadKind};
use crate::ike::v1::{PairKey, Tell};
use crate::ike::*;
use std::net::IpAddr;
use std::time::Duration;

const DEAD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

fn two_peers() -> [IkeConfig; 2] {
    let mut c = usual();
    c[A].entries[0].peers.insert(0, DEAD);
    c[A].keys[0].peer = PeerMatch::Any;
    c[A].retransmit_tries = 3;
    c
}

#[test]
fn the_next_peer_has_its_turn_when_the_first_does_not_answer() {
    let mut net = Net::new(1, two_peers());
    net.initiate(A);
    net.secs(20);
    net.assert_settled(1);
    assert!(net.lost >= 3, "the first one was asked");
    assert!(net.nodes[A].notices().iter().any(|t| t.contains("goes on with peer 192.168.3.1")), "{:?}", net.nodes[A].notices());
    // For a while the silent one comes last.
    net.request(A, IkeRequest::Clear(None));
    net.secs(5);
    let lost = net.lost;
    net.acquire(A);
    net.secs(2);
    net.assert_settled(1);
    assert_eq!(net.lost, lost);
    net.request(A, IkeRequest::Clear(None));
    net.secs(400);
    net.acquire(A);
    net.secs(2);
    assert!(net.lost > lost, "later it is asked again");
}

#[test]
fn every_peer_is_asked_once_and_no_more() {
    let mut c = two_peers();
    let third: IpAddr = [198, 51, 100, 8].into();
    c[A].entries[0].peers.push(third);
    let mut net = Net::new(2, c);
    net.weather.loss = 100;
    net.initiate(A);
    net.secs(300);
    let to = |net: &Net, ip: IpAddr| net.nodes[A].paths.iter().filter(|(_, to)| to.ip() == ip).count();
    let b = net.nodes[B].addr.ip();
    assert_eq!((to(&net, DEAD), to(&net, b), to(&net, third)), (3, 3, 3));
    assert!(net.nodes[A].engine.sas.is_empty());
    assert!(net.nodes[A].engine.poll_timeout().is_none());
}

#[test]
fn a_peer_without_a_key_is_passed_over() {
    let mut c = two_peers();
    c[A].keys[0].peer = PeerMatch::Address([192, 168, 3, 1].into());
    let mut net = Net::new(3, c);
    net.initiate(A);
    net.secs(2);
    net.assert_settled(1);
    assert_eq!(net.lost, 0);
}

#[test]
fn a_peer_that_dies_hands_over_to_the_next() {
    let mut c = two_peers();
    c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(10), retry: Duration::from_secs(2), retries: 3 });
    c[A].entries[0].peers.reverse();
    let mut net = Net::new(4, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net.nodes[B].engine.set_active(false, net.now);
    net.secs(30);
    assert!(net.nodes[A].live().is_empty());
    let lost = net.lost;
    net.acquire(A);
    net.secs(1);
    assert!(net.lost > lost, "the kernel still names the dead one, the other one is asked");
}

#[test]
fn keys_by_network_and_range() {
    for peer in [
        PeerMatch::Network([192, 168, 0, 0].into(), 16),
        PeerMatch::Range([192, 168, 3, 0].into(), [192, 168, 3, 9].into()),
        PeerMatch::Any,
    ] {
        let mut c = usual();
        let other = crate::crypto::Secret::new(b"a key for nobody that is here".to_vec());
        c[A].keys.push(PreSharedKey { peer: PeerMatch::Network([192, 0, 0, 0].into(), 8), key: other });
        if peer == PeerMatch::Any {
            c[A].keys.pop();
        }
        c[A].keys[0].peer = peer;
        let mut net = Net::new(5, c);
        net.initiate(B);
        net.secs(5);
        net.assert_settled(1);
    }
}

#[test]
fn an_entry_without_version_1_refuses_it() {
    let mut c = usual();
    c[B].entries[0].ikev1 = false;
    let mut net = Net::new(6, c);
    net.initiate(A);
    net.secs(100);
    assert!(net.nodes[B].refusals().iter().all(|r| *r == "ikev1_disabled"));
    assert!(net.nodes[B].sent.is_empty() && net.nodes[B].engine.sas.is_empty());
    net.initiate(B);
    net.secs(1);
    assert!(net.nodes[B].notices().iter().any(|t| t.contains("no crypto map entry names this peer for version 1")));
    assert!(net.nodes[B].engine.sas.is_empty() && net.nodes[B].engine.poll_timeout().is_none());
}

#[test]
fn a_delete_that_is_lost_is_said_again() {
    let mut net = Net::new(7, usual());
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net.weather.loss = 100;
    net.request(A, IkeRequest::Clear(None));
    net.secs(1);
    net.weather.loss = 0;
    assert_eq!(net.nodes[B].live().len(), 1);
    net.secs(2);
    net.assert_settled(0);
    assert!(net.nodes[B].kernel.is_empty());
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (0, 0));
    assert!(net.nodes[A].engine.poll_timeout().is_none());
}

#[test]
fn a_delete_that_comes_twice_does_nothing_the_second_time() {
    let mut net = Net::new(8, usual());
    net.initiate(A);
    net.secs(5);
    net.request(A, IkeRequest::Clear(None));
    net.secs(1);
    let down = |net: &Net| net.nodes[B].events.iter().filter(|e| matches!(e, IkeEvent::IsakmpDown { .. })).count();
    assert_eq!(down(&net), 1);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    assert_eq!(down(&net), 1, "the new tunnel is another one");
    let sent = net.nodes[A].sent.len();
    net.secs(5);
    assert_eq!(net.nodes[A].sent.len(), sent);
}

#[test]
fn two_deletes_of_one_sa_in_one_message() {
    use crate::ike::v1::message::{Chain, Exchange};
    let mut net = Net::new(9, usual());
    net.initiate(A);
    net.secs(5);
    let id = net.nodes[B].engine.view(net.now)[0].id;
    let child = net.nodes[A].live()[0].spi_in;
    let mut chain = Chain::new();
    // CVE-2023-38712, and the child pair behind the SA that carried the message.
    for delete in [Delete::Isakmp(vec![id]), Delete::Isakmp(vec![id]), Delete::Esp(vec![child]), Delete::Esp(vec![child])] {
        chain.push(PayloadKind::Delete, &delete.encode());
    }
    let bytes = net.protected(A, Exchange::Informational, 0x7777, &chain);
    net.inject(B, &bytes);
    assert_eq!(net.nodes[B].up(net.now), 0);
    assert!(net.nodes[B].mirror.is_empty());
    assert_eq!(net.nodes[B].live().len(), 1, "nothing is read under an SA that is gone");
}

/// The end of an ISAKMP SA's life is told where the peer loses nothing by it.
#[test]
fn the_end_of_a_lifetime() {
    let mut c = usual();
    for c in &mut c {
        c.policies[0].lifetime_s = 600;
    }
    // Nothing uses it: it is told.
    let mut net = Net::new(10, c.clone());
    net.initiate(A);
    net.secs(5);
    let spi = net.nodes[A].live()[0].spi_in;
    net.nodes[A].engine.handle_expire(spi, true, net.now);
    net.secs(5);
    let sent = net.nodes[A].sent.len() + net.nodes[B].sent.len();
    net.secs(700);
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (0, 0));
    assert_eq!(net.nodes[A].sent.len() + net.nodes[B].sent.len(), sent + 1, "one Delete by whoever is first");
    // A child pair needs it and the rekey failed: each end lets it go by itself.
    let mut net = Net::new(10, c);
    net.initiate(A);
    net.secs(5);
    for n in &mut net.nodes {
        let mut broken = (*n.engine.config).clone();
        broken.policies.clear();
        n.engine.reload(broken.into(), net.now);
    }
    let sent = net.nodes[A].sent.len() + net.nodes[B].sent.len();
    net.secs(700);
    assert_eq!((net.nodes[A].up(net.now), net.nodes[B].up(net.now)), (0, 0));
    assert_eq!(net.nodes[A].sent.len() + net.nodes[B].sent.len(), sent, "no Delete");
    net.assert_settled(1);
}

/// An authenticated peer names the SPI of another one (CVE-2004-0164).
#[test]
fn a_peer_cannot_delete_what_belongs_to_another() {
    let mut c = usual();
    let third: std::net::Ipv4Addr = [40, 0, 0, 9].into();
    let mut other = c[A].clone();
    other.entries[0].local = third.into();
    other.entries[0].flows[0].local = crate::sad::Selector::net4([172, 16, 77, 0].into(), 24);
    let mut entry = c[B].entries[0].clone();
    (entry.seq, entry.peers) = (2, vec![third.into()]);
    entry.flows[0].remote = other.entries[0].flows[0].local;
    c[B].entries.push(entry);
    c[B].keys[0].peer = PeerMatch::Any;
    let mut net = Net::new(11, c);
    net.nodes.push(Node::new(third, other, 77, net.now));
    let now = net.now;
    net.nodes[2].engine.set_active(true, now);
    net.initiate(A);
    net.initiate(2);
    net.secs(5);
    assert_eq!(net.nodes[B].live().len(), 2);
    let victim = net.nodes[B].live().iter().find(|c| c.peer == net.nodes[A].addr.ip()).map(|c| (c.spi_in, c.spi_out, c.isakmp)).unwrap();
    let local = net.nodes[2].addr.ip();
    let attacker = net.nodes[2].engine.primary(PairKey::host(local, net.nodes[B].addr.ip())).unwrap();
    net.nodes[B].events.clear();
    for delete in [Delete::Esp(vec![victim.0, victim.1]), Delete::Isakmp(vec![victim.2])] {
        net.nodes[2].engine.send_delete(attacker, &delete, Tell::Once, net.now);
        net.secs(1);
    }
    assert_eq!(net.nodes[B].refusals(), ["delete_unknown", "delete_unknown", "delete_other_sa"]);
    assert_eq!(net.nodes[B].live().len(), 2);
    assert_eq!(net.nodes[B].up(net.now), 2);
}
