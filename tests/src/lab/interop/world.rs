//! A pair, a peer and traffic between them, and the steps every scenario is made of.

use crate::lab::bench::{Bench, same_sas};
use crate::lab::gateways::{Gateways, Recipe};
use crate::lab::peer::{self, Connection, Implementation, KernelSas, Remote, Settings, Suite, refused, xfrm_stat};
use crate::lab::report::Report;
use crate::lab::scenario::Initiator;
use crate::lab::sys;
use crate::lab::topology::{Node, PEER, PEER_IKE, VIP_OUT, ip_output};
use crate::lab::traffic::Way;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Packets each way, per second.
const PPS: u32 = 100;
/// A tunnel is up, or renewed, within this time.
const UP_LIMIT: Duration = Duration::from_secs(15);
/// Both nodes agree on their roles within this time.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// After a delete everything is gone within this time: a pair that was renewed receives for ten more seconds.
const GONE_LIMIT: Duration = Duration::from_secs(14);
/// HSRP of the suite, ms.
const TIMERS_MS: (u64, u64) = (200, 800);

/// What a case needs.
pub struct Spec {
    /// Changes to the example manifests: path and YAML.
    pub changes: Vec<(String, String)>,
    /// What the peer is told.
    pub connections: Vec<Connection>,
    /// Lines of strongSwan's daemon.
    pub swan_daemon: &'static str,
    /// What is played, once from each end.
    pub play: fn(&mut World, Initiator) -> Result<()>,
}

/// Where things are.
pub struct Places<'a> {
    /// The `gateway` binary.
    pub gateway: &'a Path,
    /// Folder of the example manifests.
    pub examples: &'a Path,
    /// Where libreswan was unpacked.
    pub libreswan: Option<&'a Path>,
}

/// A running pair with its peer.
pub struct World {
    /// Networks, traffic, captures.
    pub bench: Bench,
    /// The peer.
    pub peer: Box<dyn Remote>,
    /// The pair.
    pub gateways: Gateways,
    /// Who is active, as last seen.
    pub active: Node,
    /// The network loses, repeats and reorders: what the peer's kernel refuses then says nothing.
    pub rough: bool,
    /// Steps of the case so far, with their times in ms.
    pub steps: Vec<(String, u64)>,
}

impl World {
    /// Networks, pair and peer for a case, in order, without a tunnel.
    pub fn start(spec: &Spec, kind: Implementation, places: &Places<'_>, dir: &Path) -> Result<Self> {
        let bench = Bench::start(dir)?;
        let recipe =
            Recipe { hello_ms: TIMERS_MS.0, hold_ms: TIMERS_MS.1, changes: &spec.changes, ..Recipe::new(places.examples, Suite::Default) };
        let mut gateways = Gateways::prepare(places.gateway, &recipe, dir)?;
        for node in Node::BOTH {
            gateways.start(node)?;
        }
        let settings = Settings { ns: PEER, connections: spec.connections.clone(), hurry: true, swan_daemon: spec.swan_daemon.to_owned() };
        let peer = peer::start(kind, settings, places.libreswan, dir)?;
        let mut world = Self { bench, peer, gateways, active: Node::A, rough: false, steps: Vec::new() };
        world.step("start", Self::whole)?;
        Ok(world)
    }

    /// Names a step, so that a report can say which one failed and what each took.
    pub fn step<T>(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        let outcome = work(self).with_context(|| name.to_owned());
        self.steps.push((name.to_owned(), begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX)));
        outcome
    }

    /// Both nodes run, one is active, the other holds everything.
    pub fn whole(&mut self) -> Result<()> {
        self.active = self.gateways.wait_settled(SETTLE_LIMIT)?;
        Ok(())
    }

    /// Asks the active node.
    pub fn ask(&self, args: &[&str]) -> Result<Json> {
        match self.gateways.json(self.active, args) {
            // A guest that stood still for the hold time had its nodes change places: the other one knows, then.
            Err(error) if format!("{error:#}").contains("not active") => self.gateways.json(self.active.other(), args),
            answer => answer,
        }
    }

    /// Brings the tunnel up from one end and lets traffic flow.
    pub fn up(&mut self, by: Initiator) -> Result<()> {
        self.step("up", |w| {
            match by {
                Initiator::Peer => w.peer.initiate("net")?,
                // A packet that has nowhere to go is how a gateway's tunnel starts.
                Initiator::Gateway => w.bench.traffic.one_way(Way::Out, 20),
            }
            let end = Instant::now() + UP_LIMIT;
            while w.pairs()? == 0 {
                ensure!(Instant::now() < end, "no IPsec SA within {} s", UP_LIMIT.as_secs());
                sys::sleep_ms(50);
            }
            w.flow()
        })
    }

    /// Traffic both ways, and it arrives.
    pub fn flow(&mut self) -> Result<()> {
        self.bench.traffic.set_rate(PPS);
        self.flowing()
    }

    /// Waits until something holds.
    pub fn wait(&mut self, limit: Duration, what: &str, mut holds: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + limit;
        while !holds(self)? {
            ensure!(Instant::now() < end, "not within {} s: {what}", limit.as_secs());
            sys::sleep_ms(100);
        }
        Ok(())
    }

    /// Traffic arrives in both directions.
    pub fn flowing(&mut self) -> Result<()> {
        self.bench.wait_flowing(UP_LIMIT)
    }

    /// ESP carries data both ways: the counters of both ends say so.
    pub fn carries(&mut self) -> Result<()> {
        self.step("data", |w| {
            w.flowing()?;
            let before = (w.peer.sas()?, w.our_counters()?);
            let stat = xfrm_stat(PEER)?;
            let end = Instant::now() + Duration::from_secs(6);
            loop {
                sys::sleep_ms(250);
                let after = (w.peer.sas()?, w.our_counters()?);
                let peer = [true, false].map(|to_us| packets(&after.0, to_us).saturating_sub(packets(&before.0, to_us)));
                let ours = [after.1[0].saturating_sub(before.1[0]), after.1[1].saturating_sub(before.1[1])];
                if peer.iter().chain(&ours).all(|n| *n > 0) {
                    return w.nothing_refused(&stat);
                }
                ensure!(Instant::now() < end, "ESP counters rose by {peer:?} at the peer (to us, from us) and by {ours:?} here (in, out)");
            }
        })
    }

    fn nothing_refused(&self, before: &BTreeMap<String, u64>) -> Result<()> {
        let refusals = refused(before, &xfrm_stat(PEER)?);
        ensure!(self.rough || refusals.is_empty(), "the peer's kernel refused {refusals:?}");
        Ok(())
    }

    /// Packets the active node counts over all flows: verified, sent.
    fn our_counters(&self) -> Result<[u64; 2]> {
        let flows = self.ask(&["show", "crypto", "ipsec", "sa"])?;
        Ok(["packets_in", "packets_out"].map(|key| flows.as_array().into_iter().flatten().filter_map(|f| f[key].as_u64()).sum()))
    }

    /// IPsec SAs the active node holds, in pairs.
    pub fn pairs(&self) -> Result<usize> {
        sas_of(&self.ask(&["show", "crypto", "ipsec", "sa"])?, "inbound")
    }

    /// ISAKMP or IKE SAs the active node holds.
    pub fn ike_sas(&self) -> Result<usize> {
        Ok(self.ask(&["show", "crypto", "isakmp", "sa"])?.as_array().map_or(0, Vec::len))
    }

    /// Power loss of the active node: traffic goes on under the same SAs, and the peer refuses nothing.
    pub fn failover(&mut self) -> Result<()> {
        self.step("failover", |w| {
            w.whole()?;
            let lost = w.active;
            w.bench.wait_flowing(UP_LIMIT)?;
            let (sas, stat, mark) = (w.peer.sas()?, xfrm_stat(PEER)?, w.peer.mark());
            w.bench.topology.cut(lost)?;
            w.gateways.kill(lost)?;
            sys::sleep_ms(TIMERS_MS.1);
            w.flowing()?;
            w.active = w.gateways.wait_settled(SETTLE_LIMIT)?;
            ensure!(w.active == lost.other(), "{} is active after its own power loss", lost.name());
            w.nothing_refused(&stat)?;
            ensure!(w.peer.established_since(mark) == 0, "the peer negotiated anew");
            ensure!(same_sas(&sas, &w.peer.sas()?), "the peer's SAs are not those of before");
            // It comes back while everything else goes on.
            let _ = std::fs::remove_dir_all(Gateways::pin_dir(lost));
            w.bench.topology.reboot(lost)?;
            w.gateways.start(lost)
        })
    }

    /// New SAs that `start` asks for carry traffic both ways; the traffic never stops for long.
    pub fn renewed(&mut self, name: &str, start: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.step(name, |w| {
            let before = w.peer.sas()?;
            start(w)?;
            let end = Instant::now() + UP_LIMIT;
            loop {
                let new: KernelSas = w.peer.sas()?.into_iter().filter(|(spi, sa)| !before.contains_key(spi) && sa.packets > 0).collect();
                if [true, false].iter().all(|to_us| packets(&new, *to_us) > 0) {
                    break;
                }
                ensure!(Instant::now() < end, "no new SAs carry traffic both ways within {} s", UP_LIMIT.as_secs());
                sys::sleep_ms(100);
            }
            w.flowing()
        })
    }

    /// Rekey of the child SA by one end.
    pub fn rekey_child(&mut self, by: Initiator) -> Result<()> {
        self.renewed(&format!("child rekey by the {}", by.name()), |w| w.start_rekey_child(by))
    }

    /// Asks one end for a rekey of the child SA.
    pub fn start_rekey_child(&mut self, by: Initiator) -> Result<()> {
        match by {
            Initiator::Peer => self.peer.rekey_child("net"),
            Initiator::Gateway => match self.ask(&["rekey", "ipsec", "peer", &PEER_IKE.to_string()]) {
                // Of several pairs it says so of the older ones; whether the newest was renewed is seen on the wire.
                Err(error) if format!("{error:#}").contains("being replaced already") => Ok(()),
                answer => answer.map(drop),
            },
        }
    }

    /// Rekey of the ISAKMP or IKE SA by one end; the children go on.
    pub fn rekey_ike(&mut self, by: Initiator) -> Result<()> {
        self.step(&format!("IKE rekey by the {}", by.name()), |w| {
            let (mark, sas) = (w.peer.mark(), w.peer.sas()?);
            match by {
                Initiator::Peer => w.peer.rekey_ike("net")?,
                Initiator::Gateway => w.ask(&["rekey", "isakmp", &PEER_IKE.to_string()]).map(drop)?,
            }
            let end = Instant::now() + UP_LIMIT;
            while w.peer.established_since(mark) == 0 {
                ensure!(Instant::now() < end, "the peer established no new SA within {} s", UP_LIMIT.as_secs());
                sys::sleep_ms(100);
            }
            ensure!(same_sas(&sas, &w.peer.sas()?), "the IPsec SAs did not survive it");
            w.flowing()
        })
    }

    /// No more traffic: a packet still on its way would bring the tunnel up again.
    pub fn quiet(&self) {
        self.bench.traffic.pause();
        sys::sleep_ms(150);
    }

    /// Deletes everything from one end; nothing may be left anywhere.
    pub fn gone(&mut self, by: Initiator) -> Result<()> {
        self.quiet();
        self.step(&format!("delete by the {}", by.name()), |w| {
            match by {
                Initiator::Gateway => {
                    let before = w.peer.sas()?;
                    w.ask(&["clear", "crypto", "sa", "peer", &PEER_IKE.to_string()])?;
                    w.wait(UP_LIMIT, "the peer gives up the SAs that were deleted", |w| {
                        Ok(w.peer.sas()?.keys().all(|spi| !before.contains_key(spi)))
                    })?;
                    // libreswan brings a connection that it once started itself up again at once.
                    w.peer.close()?;
                }
                Initiator::Peer => w.peer.close()?,
            }
            w.nothing_left()
        })
    }

    /// No SA is left in any kernel or daemon.
    pub fn nothing_left(&mut self) -> Result<()> {
        let end = Instant::now() + GONE_LIMIT;
        loop {
            let mut left = Vec::new();
            let at_peer = self.peer.sas()?.len();
            if at_peer > 0 {
                left.push(format!("{at_peer} IPsec SAs at the peer"));
            } else {
                let ike = self.peer.ike_sas()?;
                if ike > 0 {
                    left.push(format!("{ike} IKE SAs at the peer"));
                }
            }
            for node in Node::BOTH {
                let pairs = sas_of(&self.gateways.json(node, &["show", "crypto", "ipsec", "sa"])?, "inbound")?;
                let ike = self.gateways.json(node, &["show", "crypto", "isakmp", "sa"])?.as_array().map_or(0, Vec::len);
                let kernel = peer::parse_states(&ip_output(node.ns(), &["-s", "xfrm", "state"])?).len();
                if pairs + ike + kernel > 0 {
                    left.push(format!("{}: {pairs} pairs, {ike} IKE SAs, {kernel} SAs in its kernel", node.name()));
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("left over: {}", left.join("; "));
            }
            sys::sleep_ms(200);
        }
    }

    /// What the captures must never show; ends the case.
    pub fn conclude(self) -> Result<()> {
        let Self { bench, peer, mut gateways, .. } = self;
        gateways.check_alive()?;
        let mut report = Report::default();
        bench.conclude(&mut report);
        drop((peer, gateways));
        let wire = &report.wire;
        let twice = wire.pairs_twice - wire.pairs_twice_of_peer;
        ensure!(twice == 0, "{twice} (SPI, sequence) pairs twice from the pair: {:?}", wire.samples);
        let ours = wire.clear_text - wire.clear_text_of_peer;
        ensure!(ours == 0, "{ours} packets of a protected flow in clear from the pair: {:?}", wire.samples);
        report.error.map_or(Ok(()), |e| bail!("{e}"))
    }
}

fn packets(sas: &KernelSas, to_us: bool) -> u64 {
    let vip = VIP_OUT.to_string();
    sas.values().filter(|sa| (sa.dst == vip) == to_us).map(|sa| sa.packets).sum()
}

fn sas_of(flows: &Json, key: &str) -> Result<usize> {
    let flows = flows.as_array().context("show crypto ipsec sa: not a list")?;
    Ok(flows.iter().filter_map(|f| f[key].as_array()).map(Vec::len).sum())
}
