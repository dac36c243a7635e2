//! The main job, end to end: a tunnel that outlives its gateway.

use super::bench::{Bench, same_sas};
use super::gateways::{Gateways, Recipe};
use super::hostile::Hostile;
use super::jitter::{Jitter, Lateness};
use super::peer::{self, Implementation, Remote, Settings, Suite, refused, xfrm_stat};
use super::plan::plan;
use super::report::{Checks, Event, GATEWAY_IKE_REKEY, JitterReport, PEER_IKE_REKEY, Report};
use super::topology::{Node, PEER, PEER_IKE};
use super::traffic::{Loss, Way};
use super::{analysis, sys};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Both nodes agree on their roles within this time.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);
/// Traffic is back within this time after any event.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
/// Traffic is watched for at least this long after an event began, ms.
const WATCH_MS: u64 = 2500;
/// Traffic counted before an event begins, ms.
const LEAD_MS: u64 = 200;
/// Slow packets that start the tunnel from the gateway's side, per second.
const WAKE_PPS: u32 = 10;

/// Who starts the tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiator {
    /// The remote peer.
    Peer,
    /// The gateway, because a packet of the inside host wants to go there.
    Gateway,
}

impl Initiator {
    /// Name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Gateway => "gateway",
        }
    }
}

/// What to run.
pub struct Options {
    /// Folder for logs, captures, manifests.
    pub dir: PathBuf,
    /// The `gateway` binary.
    pub gateway: PathBuf,
    /// Folder of the example manifests.
    pub examples: PathBuf,
    /// Algorithms.
    pub suite: Suite,
    /// The remote peer.
    pub peer: Implementation,
    /// Where libreswan was unpacked.
    pub libreswan: Option<PathBuf>,
    /// Who starts the tunnel.
    pub initiator: Initiator,
    /// HSRP hello and hold, ms.
    pub timers_ms: [u64; 2],
    /// Traffic flows for this long before each event, ms, on top of what every run waits.
    pub kill_at_ms: [u64; 4],
    /// Seed of the hosts that send malformed packets the whole time; `None`: none do.
    pub hostile: Option<u64>,
    /// Where this runs, for the report.
    pub kernel: String,
}

/// Runs the scenario once; the report is complete even when something failed half-way.
pub fn run(options: &Options) -> Report {
    let mut report = Report {
        suite: options.suite.name().to_owned(),
        algorithms: options.suite.title().to_owned(),
        initiator: options.initiator.name().to_owned(),
        kernel: options.kernel.clone(),
        peer: options.peer.name().to_owned(),
        addresses: format!("{} and {}, peer {}", plan().vips[0], plan().vips[1], plan().peer_ike),
        hello_hold_ms: options.timers_ms,
        ..Report::default()
    };
    if let Err(error) = stage(options, &mut report) {
        report.error = Some(format!("{error:#}"));
    }
    report.judge();
    report
}

fn stage(options: &Options, report: &mut Report) -> Result<()> {
    println!("- namespaces, bridges, captures in {}", options.dir.display());
    let bench = Bench::start(&options.dir)?;
    let [hello_ms, hold_ms] = options.timers_ms;
    let recipe = Recipe { hello_ms, hold_ms, ..Recipe::new(&options.examples, options.suite) };
    let gateways = Gateways::prepare(&options.gateway, &recipe, &options.dir)?;
    let settings = Settings::peer(options.suite, &gateways.psk);
    let peer = peer::start(options.peer, settings, options.libreswan.as_deref(), &options.dir)?;
    let jitter = Jitter::start();
    let hostile = options.hostile.map(Hostile::start).transpose()?;
    let mut lab = Lab { bench, peer, gateways, active: Node::A, looked_ns: 0, unasked: Vec::new(), waits_ms: options.kill_at_ms.to_vec() };
    let outcome = lab.play(options.initiator, report);
    report.hostile = hostile.map(Hostile::finish);
    let lateness = jitter.finish();
    for event in &mut report.events {
        event.jitter_ms = lateness.worst_ms(event.at_ns, event.recovered_ns);
        event.stalled_ms = [&event.traffic.inbound, &event.traffic.outbound]
            .map(|flow| lab_share(&lateness, event.at_ns, flow, hold_ms - hello_ms))
            .into_iter()
            .fold(0.0, f64::max);
    }
    report.jitter = JitterReport {
        p50_ms: lateness.quantile_ms(500),
        p99_ms: lateness.quantile_ms(990),
        p999_ms: lateness.quantile_ms(999),
        max_ms: lateness.quantile_ms(1000),
    };
    report.unasked_takeovers = lab.unasked.len() as u64;
    // When nobody runs for longer than the hold time less one hello, the standby has every reason.
    let stood_still = |[from, to]: &[u64; 2]| lateness.worst_ms(*from, *to) >= (hold_ms - hello_ms) as f64;
    report.unasked_in_a_stall = lab.unasked.iter().filter(|span| stood_still(span)).count() as u64;
    lab.bench.conclude(report);
    outcome
}

/// What the lab's own stalls added to a blackout that began with an event at `at_ns`, ms: before the event (packets that were due and
/// not sent), and from the first moment at which the hold time can have ended. A stall in between costs nothing.
fn lab_share(lateness: &Lateness, at_ns: u64, flow: &Loss, shortest_hold_ms: u64) -> f64 {
    let [begin, end] = flow.gap_ns;
    lateness.stalled_ms(begin, at_ns) + lateness.stalled_ms(at_ns + shortest_hold_ms * 1_000_000, end)
}

struct Lab {
    bench: Bench,
    peer: Box<dyn Remote>,
    gateways: Gateways,
    active: Node,
    /// When the roles were last seen in order.
    looked_ns: u64,
    /// Spans in which the active node changed without an event.
    unasked: Vec<[u64; 2]>,
    /// How long traffic flows before the events still to come, ms.
    waits_ms: Vec<u64>,
}

impl Lab {
    fn play(&mut self, initiator: Initiator, report: &mut Report) -> Result<()> {
        for node in Node::BOTH {
            self.gateways.start(node)?;
        }
        self.active = self.gateways.wait_settled(SETTLE_LIMIT)?;
        println!("- both gateways run, {} is active", self.active.name());
        let begin = Instant::now();
        match initiator {
            Initiator::Peer => {
                self.peer.initiate("net")?;
                self.bench.traffic.set_rate(WAKE_PPS);
            }
            Initiator::Gateway => self.bench.traffic.one_way(Way::Out, WAKE_PPS),
        }
        self.bench.wait_received(Way::Out, RECOVERY_LIMIT).context("bringing the tunnel up")?;
        report.tunnel_up_ms = begin.elapsed().as_secs_f64() * 1e3;
        self.bench.traffic.set_rate(WAKE_PPS);
        self.bench.wait_received(Way::In, RECOVERY_LIMIT)?;
        println!("- tunnel up in {:.0} ms, started by the {}", report.tunnel_up_ms, initiator.name());
        self.bench.start_tcp()?;
        report.rate_pps = self.bench.calibrate()?;
        println!("- UDP {} packets/s each way and a TCP transfer", report.rate_pps);
        report.baseline = self.bench.measure(|_| {
            sys::sleep_ms(3000);
            Ok(())
        })?;
        self.look_who_is_active()?;
        report.checks_before = self.checks(None)?;
        self.events(report)
    }

    fn events(&mut self, report: &mut Report) -> Result<()> {
        self.look_who_is_active()?;
        let lost = self.active;
        let event = self.event("power_loss", format!("power loss of {}", lost.name()), |lab| {
            lab.bench.topology.cut(lost)?;
            lab.gateways.kill(lost)
        })?;
        self.after(event, Some(Initiator::Peer), report)?;

        let event = self.event("return", format!("return of {}", lost.name()), |lab| {
            let _ = std::fs::remove_dir_all(Gateways::pin_dir(lost));
            lab.bench.topology.reboot(lost)?;
            lab.gateways.start(lost)
        })?;
        self.after(event, Some(Initiator::Gateway), report)?;

        self.look_who_is_active()?;
        let from = self.active;
        let event = self.event("switchover", format!("planned switchover from {} to {}", from.name(), from.other().name()), |lab| {
            lab.gateways.command(from, &["switchover"]).map(drop)
        })?;
        self.after(event, None, report)?;

        self.look_who_is_active()?;
        let victim = self.active;
        let event = self.event("daemon_crash", format!("SIGKILL of the daemon of {} and restart", victim.name()), |lab| {
            lab.gateways.kill(victim)?;
            lab.gateways.start(victim)
        })?;
        self.after(event, None, report)
    }

    /// Makes something happen and watches traffic, peer and roles until everything is calm again.
    fn event(&mut self, name: &'static str, title: String, action: impl FnOnce(&mut Self) -> Result<()>) -> Result<Event> {
        println!("- {title}");
        self.gateways.check_alive()?;
        self.bench.wait_flowing(RECOVERY_LIMIT)?;
        self.look_who_is_active()?;
        let before = self.active;
        let (sas, stat, mark) = (self.peer.sas()?, xfrm_stat(PEER)?, self.peer.mark());
        sys::sleep_ms(2 * LEAD_MS + if self.waits_ms.is_empty() { 0 } else { self.waits_ms.remove(0) });
        let at_ns = sys::now_ns();
        action(self)?;
        sys::sleep_ms(WATCH_MS);
        self.bench.wait_flowing(RECOVERY_LIMIT).with_context(|| format!("after {title}"))?;
        let recovered_ns = sys::now_ns();
        self.active = self.gateways.wait_settled(SETTLE_LIMIT).with_context(|| format!("after {title}"))?;
        self.looked_ns = sys::now_ns();
        sys::sleep_ms(LEAD_MS);
        let until_ns = sys::now_ns();
        sys::sleep_ms(400);
        let initial_contact = self.peer.initial_contacts_since(mark);
        let event = Event {
            name,
            title,
            at_ns,
            recovered_ns,
            until_ns,
            active: [before.name(), self.active.name()],
            traffic: self.bench.traffic_between(at_ns.saturating_sub(LEAD_MS * 1_000_000), until_ns),
            jitter_ms: 0.0,
            stalled_ms: 0.0,
            peer_refused: refused(&stat, &xfrm_stat(PEER)?),
            ike: analysis::Ike::default(),
            initial_contact,
            sas_kept: same_sas(&sas, &self.peer.sas()?),
            stages: if before == self.active { None } else { self.gateways.takeover_stages(self.active) },
            checks: Vec::new(),
        };
        println!(
            "  blackout in {:.1} / out {:.1} ms, lost in {} / out {}, {} is active",
            event.traffic.inbound.blackout_ms,
            event.traffic.outbound.blackout_ms,
            event.traffic.inbound.lost,
            event.traffic.outbound.lost,
            event.active[1]
        );
        Ok(event)
    }

    /// Nothing may change hands without an event; if it did, that is counted and the run goes on.
    fn look_who_is_active(&mut self) -> Result<()> {
        let active = self.gateways.wait_settled(SETTLE_LIMIT)?;
        if active != self.active {
            println!("  {} took over without an event: was the lab stalled?", active.name());
            self.unasked.push([self.looked_ns, sys::now_ns()]);
            self.active = active;
        }
        self.looked_ns = sys::now_ns();
        Ok(())
    }

    fn after(&mut self, mut event: Event, phase_1: Option<Initiator>, report: &mut Report) -> Result<()> {
        let checks = self.checks(phase_1);
        // The event's own numbers are reported even when a check could not be made.
        if let Ok(checks) = &checks {
            event.checks.clone_from(checks);
        }
        report.events.push(event);
        checks.map(drop)
    }

    fn checks(&mut self, phase_1: Option<Initiator>) -> Result<Checks> {
        let mut checks: Checks = Vec::new();
        let address = PEER_IKE.to_string();
        match phase_1 {
            Some(Initiator::Peer) if self.peer.forces_ike_rekeys("net") => {
                let peer = &*self.peer;
                checks.push(self.bench.check_ike_rekey(PEER_IKE_REKEY, peer, || peer.rekey_ike("net"))?);
            }
            Some(_) => {
                let (peer, gateways, active) = (&*self.peer, &self.gateways, self.active);
                let start = || gateways.command(active, &["rekey", "isakmp", &address]).map(drop);
                checks.push(self.bench.check_ike_rekey(GATEWAY_IKE_REKEY, peer, start)?);
            }
            None => {}
        }
        self.look_who_is_active()?;
        let peer = &*self.peer;
        checks.push(("peer_rekey", self.bench.check_rekey(peer, || peer.rekey_child("net"))?));
        self.look_who_is_active()?;
        let (peer, gateways, active) = (&*self.peer, &self.gateways, self.active);
        let by_gateway = || gateways.command(active, &["rekey", "ipsec", "peer", &address]).map(drop);
        checks.push(("gateway_rekey", self.bench.check_rekey(peer, by_gateway)?));
        checks.push(("dpd", self.bench.check_dpd()?));
        let text: Vec<String> = checks
            .iter()
            .map(|(name, c)| format!("{name} {} ({:.0} ms)", if c.ok { "ok" } else { c.detail.as_str() }, c.took_ms))
            .collect();
        println!("  {}", text.join(", "));
        Ok(checks)
    }
}
