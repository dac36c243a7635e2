//! Dead peer detection between two engines.

use super::net::*;
use crate::ike::*;
use std::time::Duration;

fn dpd(interval: u64) -> [IkeConfig; 2] {
    let mut c = usual();
    c[A].dpd = Some(DpdConfig { interval: Duration::from_secs(interval), retry: Duration::from_secs(2), retries: 5 });
    c
}

fn up(c: [IkeConfig; 2]) -> Net {
    let mut net = Net::new(1, c);
    net.initiate(A);
    net.secs(5);
    net.assert_settled(1);
    net
}

#[test]
fn idle_peers_are_probed_and_answer() {
    let mut net = up(dpd(10));
    let (a, b) = (net.nodes[A].sent.len(), net.nodes[B].sent.len());
    net.secs(100);
    let probes = net.nodes[A].sent.len() - a;
    assert!((9..=10).contains(&probes), "{probes}");
    assert_eq!(net.nodes[B].sent.len() - b, probes, "each is answered, and B does not probe");
    net.assert_settled(1);
    assert!(net.nodes[A].refusals().is_empty() && net.nodes[B].refusals().is_empty());
}

#[test]
fn no_probe_while_traffic_arrives() {
    let mut net = up(dpd(10));
    let sent = net.nodes[A].sent.len();
    let spi = net.nodes[A].live()[0].spi_in;
    for _ in 0..50 {
        net.secs(5);
        net.nodes[A].engine.handle_traffic(spi, net.now);
    }
    assert_eq!(net.nodes[A].sent.len(), sent);
}

#[test]
fn a_dead_peer_loses_its_sas_without_a_delete() {
    let mut net = up(dpd(10));
    net.weather.loss = 100;
    let sent = net.nodes[A].sent.len();
    net.secs(9);
    assert_eq!(net.nodes[A].kernel.len(), 1);
    net.secs(13);
    assert!(net.nodes[A].kernel.is_empty() && net.nodes[A].mirror.is_empty());
    assert_eq!(net.nodes[A].sent.len() - sent, 5, "five probes, nothing else");
    assert_eq!(net.nodes[A].up(net.now), 0);
    let dead = |e: &&IkeEvent| matches!(e, IkeEvent::IsakmpDown { cause, .. } if cause.contains("dead peer"));
    assert_eq!(net.nodes[A].events.iter().filter(dead).count(), 1);
    assert!(net.nodes[A].engine.poll_timeout().is_none());
    // It is back: traffic starts anew.
    net.weather.loss = 0;
    net.acquire(A);
    net.secs(5);
    assert_eq!(net.nodes[A].live().len(), 1);
}

#[test]
fn probes_survive_loss() {
    let mut net = up(dpd(10));
    net.weather = Weather { loss: 15, repeat: 20, delay_ms: 300 };
    net.secs(600);
    net.weather = Weather::default();
    net.secs(20);
    net.assert_settled(1);
}

#[test]
fn a_probe_on_request() {
    let mut net = up(usual());
    let sent = net.nodes[B].sent.len();
    let peer = net.nodes[B].addr.ip();
    net.request(A, IkeRequest::ProbePeer(peer));
    net.secs(1);
    assert_eq!(net.nodes[B].sent.len(), sent + 1);
    let nobody = IkeRequest::ProbePeer([9, 9, 9, 9].into());
    assert!(net.nodes[A].engine.handle_request(nobody, net.now).is_err());
}

#[test]
fn a_replayed_probe_or_answer_is_worth_nothing() {
    let mut net = up(dpd(10));
    net.secs(12);
    let probe = net.nodes[A].sent.last().unwrap().clone();
    let ack = net.nodes[B].sent.last().unwrap().clone();
    let sent = net.nodes[B].sent.len();
    net.secs(1);
    net.inject(B, &probe);
    assert_eq!(net.nodes[B].sent.len(), sent + 1, "the same answer again");
    assert_eq!(net.nodes[B].sent[sent], ack);
    net.inject(B, &probe);
    assert_eq!(net.nodes[B].sent.len(), sent + 1, "but not at once");
    net.weather.loss = 100;
    for _ in 0..20 {
        net.secs(1);
        net.inject(A, &ack);
    }
    assert_eq!(net.nodes[A].up(net.now), 0, "an old answer keeps no dead peer alive");
}
