//! What is played with a tunnel, once from each end.

use super::{NotApplicable, World};
use crate::lab::bench::{is_informational, same_sas};
use crate::lab::frames::Port;
use crate::lab::scenario::Initiator;
use crate::lab::sys;
use crate::lab::topology::{HOST, HOST_IP, Node, OSW, PEER, PEER_IKE, PEER_IKE_2, PHOST, PHOST_IP_2};
use crate::lab::traffic::Way;
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

/// Pre-shared key of the suite.
pub const PSK: &str = "a key that only the interop suite has";
/// How long a negotiation that must fail is watched, ms.
const REFUSAL_MS: u64 = 2500;
/// Something the other end does by itself happens within this time.
const SOON: Duration = Duration::from_secs(15);

/// Manifest changes that every row has: the suite's key and fast repeats.
pub fn base(psk: &str) -> Vec<(String, String)> {
    vec![
        ("crypto/isakmp/key".into(), format!("[ {{ address: {PEER_IKE}, secret: '{psk}' }} ]")),
        ("crypto/isakmp/retransmit".into(), "{ first: 400ms, tries: 5 }".into()),
    ]
}

/// The other end.
pub const fn other(by: Initiator) -> Initiator {
    match by {
        Initiator::Peer => Initiator::Gateway,
        Initiator::Gateway => Initiator::Peer,
    }
}

/// The life of a tunnel: up, data, power loss, rekeys by both ends and of the ISAKMP SA, delete.
pub fn life(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.failover()?;
    w.carries()?;
    w.rekey_child(by)?;
    w.step("partner back", World::whole)?;
    w.rekey_child(other(by))?;
    w.rekey_ike(Initiator::Gateway)?;
    w.gone(by)
}

/// The same with one rekey only, for a difference that one rekey shows.
pub fn short_life(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.failover()?;
    w.rekey_child(other(by))?;
    w.carries()?;
    w.gone(by)
}

/// A negotiation that must fail, beside a tunnel that must not notice.
pub fn beside(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.step("refused", |w| {
        let sas = w.peer.sas()?;
        let from = sys::now_ns();
        let marks = Node::BOTH.map(|n| w.gateways.log(n).len());
        match by {
            Initiator::Peer => w.peer.begin("bad")?,
            Initiator::Gateway => w.ask(&["initiate", "CMAP_1", "2"]).map(drop)?,
        }
        sys::sleep_ms(REFUSAL_MS);
        let named = |w: &World| {
            let log = w.gateways.log(w.active);
            log.get(marks[w.active as usize]..).is_some_and(|new| new.contains(&PEER_IKE_2.to_string()))
        };
        // Our own attempts are repeated for some seconds before the log says that they came to nothing.
        w.wait(SOON, "the gateway's log says what became of the bad one", |w| Ok(named(w)))?;
        // What the peer has reserved for an answer that never came is no SA: one that it would send with is.
        let bad = PEER_IKE_2.to_string();
        let now = w.peer.sas()?;
        ensure!(now.values().all(|sa| sa.src != bad), "an SA came up: {now:?}");
        let good = now.into_iter().filter(|(_, sa)| sa.dst != bad).collect();
        ensure!(same_sas(&sas, &good), "the good SAs did not stay: {good:?}");
        let lost = w.bench.traffic_between(from, sys::now_ns().saturating_sub(400_000_000)).lost();
        ensure!(lost == 0, "the good tunnel lost {lost} packets");
        w.peer.close_child("bad").ok();
        Ok(())
    })?;
    w.failover()?;
    w.carries()?;
    w.step("partner back", World::whole)?;
    w.rekey_child(by)?;
    w.gone(by)
}

/// [`beside`] where only the peer's proposal is refused.
pub fn beside_by_the_peer(w: &mut World, by: Initiator) -> Result<()> {
    if by == Initiator::Gateway {
        return Err(NotApplicable("libreswan accepts PFS that it does not ask for").into());
    }
    beside(w, by)
}

/// Rekeys by either end, and by both at the same moment.
pub fn child_rekeys(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.rekey_child(by)?;
    w.rekey_child(other(by))?;
    both_rekey(w)?;
    w.carries()?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    both_rekey(w)?;
    w.carries()?;
    w.gone(by)
}

fn both_rekey(w: &mut World) -> Result<()> {
    w.renewed("child rekey by both at once", |w| {
        w.start_rekey_child(Initiator::Gateway)?;
        w.start_rekey_child(Initiator::Peer)
    })
}

/// New ISAKMP SAs by either end, and by both at the same moment.
pub fn ike_rekeys(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.rekey_ike(by)?;
    w.rekey_ike(other(by))?;
    w.step("IKE rekey by both at once", |w| {
        w.ask(&["rekey", "isakmp", &PEER_IKE.to_string()])?;
        w.peer.rekey_ike("net")?;
        sys::sleep_ms(1500);
        w.flowing()
    })?;
    w.failover()?;
    w.carries()?;
    w.step("partner back", World::whole)?;
    w.rekey_ike(by)?;
    w.rekey_child(by)?;
    w.gone(by)
}

/// For a peer that renews its ISAKMP SA by its lifetime only.
pub fn ike_rekey_by_lifetime(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.rekey_ike(Initiator::Gateway)?;
    w.failover()?;
    w.step("IKE rekey by the peer's lifetime", |w| {
        let (mark, sas) = (w.peer.mark(), w.peer.sas()?);
        w.wait(Duration::from_secs(25), "a new ISAKMP SA", |w| Ok(w.peer.established_since(mark) > 0))?;
        ensure!(same_sas(&sas, &w.peer.sas()?), "the IPsec SAs did not survive it");
        w.flowing()
    })?;
    w.step("partner back", World::whole)?;
    w.rekey_child(by)?;
    w.gone(by)
}

/// Both ends ask whether the other lives, and are answered; one that is dead is cleared, and comes back.
pub fn dead_peer(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    w.step("DPD by the peer", |w| {
        let check = w.bench.check_dpd()?;
        ensure!(check.works, "{}", check.detail);
        Ok(())
    })?;
    w.step("DPD by the gateway", |w| {
        w.quiet();
        let from = sys::now_ns();
        w.ask(&["probe", &PEER_IKE.to_string()])?;
        w.wait(Duration::from_secs(4), "the gateway's question is answered", |w| {
            Ok(w.bench.outside.with(|log| {
                let later: Vec<_> = log.records.iter().filter(|r| r.at_ns >= from && is_informational(&r.frame)).map(|r| r.port).collect();
                let asked = later.iter().position(|p| *p != Port::Far);
                asked.is_some_and(|n| later[n..].contains(&Port::Far))
            }))
        })
    })?;
    w.step("dead peer cleared", |w| {
        w.peer.crash()?;
        w.wait(SOON, "the dead peer's SAs are cleared", |w| Ok(w.pairs()? == 0 && w.ike_sas()? == 0))
    })?;
    w.step("peer starts again", |w| w.peer.revive())?;
    w.up(by)?;
    w.carries()?;
    w.gone(by)
}

/// The peer loses its power and comes back without the other end having noticed.
pub fn restart(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.step("peer restarts", |w| {
        w.peer.crash()?;
        w.peer.revive()?;
        if by == Initiator::Peer {
            w.peer.initiate("net")?;
        }
        // Started by the gateway: its own packets find no answer, and it has to find that out.
        w.wait(SOON, "traffic flows again", |w| {
            let now = sys::now_ns();
            Ok(Way::BOTH.iter().all(|way| now.saturating_sub(w.bench.traffic.last_received_ns(*way)) < 200_000_000))
        })
    })?;
    w.carries()?;
    w.step("only the new SAs are left", |w| w.wait(SOON, "one pair is left", |w| Ok(w.pairs()? == 1)))?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    w.rekey_child(by)?;
    w.gone(by)
}

/// Both ends start the tunnel at the same moment.
pub fn crossing(w: &mut World, by: Initiator) -> Result<()> {
    w.step("up, both at once", |w| {
        match by {
            Initiator::Peer => {
                w.peer.begin("net")?;
                w.ask(&["initiate", "CMAP_1", "1"])?;
            }
            Initiator::Gateway => {
                w.ask(&["initiate", "CMAP_1", "1"])?;
                w.peer.begin("net")?;
            }
        }
        w.wait(SOON, "an IPsec SA", |w| Ok(w.pairs()? > 0))?;
        w.flow()
    })?;
    w.carries()?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    w.rekey_child(by)?;
    w.gone(by)
}

/// Deletes of everything there is, from either end, and of what is gone already.
pub fn deletes(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.step("child deleted by the peer", |w| {
        w.quiet();
        w.peer.close_child("net")?;
        w.wait(SOON, "the pair is gone here, too", |w| Ok(w.pairs()? == 0))
    })?;
    w.up(by)?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    w.gone(other(by))?;
    // Once more: nothing is there, and nothing happens.
    w.gone(by)?;
    w.up(other(by))?;
    w.carries()?;
    w.gone(by)
}

/// A lifetime in bytes ends while traffic flows: a new pair is there in time.
pub fn by_volume(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    let volume = |w: &mut World| {
        w.bench.traffic.set_payload(1200);
        w.bench.traffic.set_rate(500);
        Ok(())
    };
    let outcome = w.renewed("rekey by volume", volume);
    w.bench.traffic.set_payload(200);
    outcome?;
    w.flow()?;
    w.carries()?;
    w.gone(by)
}

/// Two pairs under one ISAKMP SA; one goes, the other does not notice.
pub fn two_children(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.step("second child", |w| {
        if by == Initiator::Peer {
            w.peer.initiate("net2")?;
        }
        echo((HOST, HOST_IP.ip()), (PHOST, PHOST_IP_2))?;
        ensure!(w.pairs()? == 2 && w.ike_sas()? == 1, "{} pairs under {} ISAKMP SAs", w.pairs()?, w.ike_sas()?);
        Ok(())
    })?;
    w.failover()?;
    w.step("both carry", |_| echo((HOST, HOST_IP.ip()), (PHOST, PHOST_IP_2)))?;
    w.carries()?;
    w.step("partner back", World::whole)?;
    w.step("second child deleted", |w| {
        let from = sys::now_ns();
        match by {
            Initiator::Peer => w.peer.close_child("net2")?,
            Initiator::Gateway => {
                let flows = w.ask(&["show", "crypto", "ipsec", "sa"])?;
                let second = flows.as_array().into_iter().flatten().find(|f| f["remote"]["addr"] == "192.168.5.0");
                let spi = second.and_then(|f| f["current_spi_out"].as_u64()).context("the second flow has no SPI")?;
                let spi = format!("0x{spi:08x}");
                w.ask(&["clear", "crypto", "sa", "spi", &PEER_IKE.to_string(), "esp", &spi]).map(drop)?;
            }
        }
        w.wait(SOON, "one pair is left", |w| Ok(w.pairs()? == 1))?;
        w.wait(SOON, "two SAs are left at the peer", |w| Ok(w.peer.sas()?.len() == 2))?;
        sys::sleep_ms(400);
        let lost = w.bench.traffic_between(from, sys::now_ns().saturating_sub(300_000_000)).lost();
        ensure!(lost == 0, "the other one lost {lost} packets");
        Ok(())
    })?;
    w.carries()?;
    w.rekey_child(other(by))?;
    w.gone(by)
}

/// A datagram there and back between two hosts, within the time a tunnel may take to come up.
pub fn echo(from: (&str, Ipv4Addr), to: (&str, Ipv4Addr)) -> Result<()> {
    const PORT: u16 = 41_007;
    let there = sys::udp_in(to.0, SocketAddrV4::new(to.1, PORT))?;
    let here = sys::udp_in(from.0, SocketAddrV4::new(from.1, PORT))?;
    for socket in [&here, &there] {
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    }
    let end = std::time::Instant::now() + SOON;
    let mut buffer = [0; 64];
    while std::time::Instant::now() < end {
        here.send_to(b"there", SocketAddrV4::new(to.1, PORT))?;
        if let Ok((n, address)) = there.recv_from(&mut buffer) {
            there.send_to(&buffer[..n], address)?;
            if here.recv_from(&mut buffer).is_ok() {
                return Ok(());
            }
        }
    }
    anyhow::bail!("no datagram went from {} to {} and back", from.1, to.1)
}

/// Everything works over a wire that loses, repeats and reorders.
pub fn rough_wire(w: &mut World, by: Initiator) -> Result<()> {
    w.rough = true;
    netem("add")?;
    let outcome = rough_life(w, by);
    netem("del")?;
    w.rough = false;
    outcome?;
    w.gone(by)
}

fn rough_life(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.carries()?;
    w.rekey_child(by)?;
    w.failover()?;
    w.step("partner back", World::whole)?;
    w.rekey_child(other(by))?;
    w.carries()
}

/// Both directions of the peer's cable.
fn netem(verb: &str) -> Result<()> {
    for (ns, device) in [(OSW, "p-peer"), (PEER, "eth1")] {
        let mut command = Command::new("tc");
        command.args(["-n", ns, "qdisc", verb, "dev", device, "root"]);
        if verb == "add" {
            command.args("netem delay 8ms 6ms loss 8% duplicate 5% reorder 20%".split(' '));
        }
        let out = command.output().context("tc (package iproute2)")?;
        ensure!(out.status.success(), "tc: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

/// Power loss in a flood; then everything a peer may want from the new active, a planned failback, and the delete.
pub fn flood(w: &mut World, by: Initiator) -> Result<()> {
    w.up(by)?;
    w.bench.traffic.set_rate(500);
    w.failover()?;
    w.carries()?;
    w.flow()?;
    w.step("partner back", World::whole)?;
    w.step("DPD by the peer", |w| {
        let check = w.bench.check_dpd()?;
        ensure!(check.works, "{}", check.detail);
        Ok(())
    })?;
    w.rekey_child(Initiator::Peer)?;
    w.step("failback", |w| {
        let (from, before, sas) = (sys::now_ns(), w.active, w.peer.sas()?);
        w.ask(&["switchover"])?;
        w.wait(SOON, "the other node is active", |w| {
            w.whole()?;
            Ok(w.active != before)
        })?;
        sys::sleep_ms(500);
        let lost = w.bench.traffic_between(from, sys::now_ns().saturating_sub(300_000_000)).lost();
        ensure!(lost == 0, "{lost} packets lost");
        ensure!(same_sas(&sas, &w.peer.sas()?), "the peer's SAs are not those of before");
        Ok(())
    })?;
    w.carries()?;
    w.gone(by)
}

/// [`short_life`] with a libreswan that asks everybody for a cookie.
pub fn busy_life(w: &mut World, by: Initiator) -> Result<()> {
    w.step("peer made busy", |w| w.peer.tool(&["--ddos-busy"]).map(drop))?;
    short_life(w, by)
}

/// What an old or careless implementation sends: bits and flags that should be zero.
pub fn oddities(w: &mut World, by: Initiator) -> Result<()> {
    w.step("peer made odd", |w| w.peer.tool(&["--impair", "send-bogus-isakmp-flag"]).map(drop))?;
    short_life(w, by)
}
