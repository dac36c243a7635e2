//! Topology, captures and traffic together, and what must work after an event.

use super::capture::Capture;
use super::frames::{Frame, Port, exchange};
use super::peer::{DPD_DELAY_S, KernelSas, Remote};
use super::report::{BothWays, CaptureReport, Check, Report};
use super::tcp::Transfer;
use super::topology::{ISW, OSW, PEER_IKE, Topology, VIP_OUT};
use super::traffic::{Traffic, Way};
use super::{analysis, sys};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rates tried, packets per second each way, until one passes without loss.
const RATES: [u32; 6] = [1000, 800, 500, 300, 200, 100];
/// How long a rate must pass without loss, ms.
const CALIBRATION_MS: u64 = 4000;
/// Packets under way at the end of a measurement get this long to arrive, ms.
const LATE_MS: u64 = 400;
/// How long a rekey may take until traffic uses the new SAs.
const REKEY_LIMIT: Duration = Duration::from_secs(15);
/// Traffic goes on for this long after a rekey was seen, ms.
const REKEY_TAIL_MS: u64 = 1000;

/// The lab with traffic and captures.
pub struct Bench {
    /// Traffic, silent until a rate is set.
    pub traffic: Traffic,
    /// The TCP transfer, once started.
    pub tcp: Option<Transfer>,
    /// Capture of the outside LAN.
    pub outside: Capture,
    /// Capture of the inside LAN.
    pub inside: Capture,
    /// Networks. Last: everything else is closed before they go.
    pub topology: Topology,
}

impl Bench {
    /// Lays out the networks and starts capturing into `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let topology = Topology::build()?;
        let outside = Capture::start(OSW, &dir.join("outside.pcap"))?;
        let inside = Capture::start(ISW, &dir.join("inside.pcap"))?;
        Ok(Self { traffic: Traffic::start()?, tcp: None, outside, inside, topology })
    }

    /// Finds the highest rate that passes without loss and leaves the traffic running at it.
    pub fn calibrate(&mut self) -> Result<u32> {
        let mut last = BothWays::default();
        for rate in RATES {
            self.traffic.set_rate(rate);
            sys::sleep_ms(500);
            last = self.measure(|_| {
                sys::sleep_ms(CALIBRATION_MS);
                Ok(())
            })?;
            if last.any() && last.lost() == 0 {
                return Ok(rate);
            }
            println!(
                "  {rate} packets/s each way lose {} of {} before any event: the lab does not carry them",
                last.lost(),
                last.inbound.sent + last.outbound.sent
            );
        }
        bail!("the lab loses packets at every rate: {last:?}")
    }

    /// Traffic while `work` runs.
    pub fn measure(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<BothWays> {
        let from = sys::now_ns();
        work(self)?;
        let to = sys::now_ns();
        sys::sleep_ms(LATE_MS);
        Ok(self.traffic_between(from, to))
    }

    /// Traffic between two times.
    pub fn traffic_between(&self, from_ns: u64, to_ns: u64) -> BothWays {
        BothWays { inbound: self.traffic.loss(Way::In, from_ns, to_ns), outbound: self.traffic.loss(Way::Out, from_ns, to_ns) }
    }

    /// Waits until packets arrive in both directions.
    pub fn wait_flowing(&self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let now = sys::now_ns();
            let quiet: Vec<Way> =
                Way::BOTH.into_iter().filter(|w| now.saturating_sub(self.traffic.last_received_ns(*w)) > 100_000_000).collect();
            if quiet.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "no traffic {quiet:?} within {} s", limit.as_secs());
            sys::sleep_ms(20);
        }
    }

    /// Silences everything.
    pub fn pause(&self) {
        self.traffic.pause();
        if let Some(tcp) = &self.tcp {
            tcp.pause(true);
        }
    }

    /// Lets everything flow again.
    pub fn resume(&self) {
        self.traffic.resume();
        if let Some(tcp) = &self.tcp {
            tcp.pause(false);
        }
    }

    /// The peer asks whether we live as soon as the tunnel is silent, and has to get its answer. Both are informational messages on the outside
    /// LAN, and nothing else is while no packet flows.
    pub fn check_dpd(&self) -> Result<Check> {
        self.pause();
        sys::sleep_ms(50);
        let from_ns = sys::now_ns();
        let begin = Instant::now();
        let end = begin + Duration::from_secs(3 * DPD_DELAY_S + 4);
        let outcome = loop {
            let (asked, answered) = self.outside.with(|log| {
                let informational = |far: bool, since: u64| {
                    let later = log.records.iter().rev().take_while(|r| r.at_ns >= since);
                    later.filter(|r| (r.port == Port::Far) == far).filter(|r| is_informational(&r.frame)).map(|r| r.at_ns).last()
                };
                let asked = informational(true, from_ns);
                (asked, asked.and_then(|asked| informational(false, asked)))
            });
            match (asked, answered) {
                (Some(_), Some(_)) => break Ok(()),
                (asked, _) if Instant::now() > end => {
                    break Err(if asked.is_some() { "the peer's question was not answered" } else { "the peer did not ask" });
                }
                _ => sys::sleep_ms(100),
            }
        };
        let took_ms = begin.elapsed().as_secs_f64() * 1e3;
        self.resume();
        self.wait_flowing(Duration::from_secs(5))?;
        Ok(Check {
            works: outcome.is_ok(),
            ok: outcome.is_ok(),
            took_ms,
            detail: outcome.err().unwrap_or("answered").to_owned(),
            ..Check::default()
        })
    }

    /// A rekey of the child SA, started by `start`: new SAs carry traffic both ways and nothing is lost.
    pub fn check_rekey(&mut self, peer: &dyn Remote, start: impl FnOnce() -> Result<()>) -> Result<Check> {
        let before = peer.sas()?;
        let begin = Instant::now();
        let mut took_ms = 0.0;
        let mut problem = None;
        let traffic = self.measure(|_| {
            sys::sleep_ms(100);
            if let Err(error) = start() {
                problem = Some(format!("{error:#}"));
                return Ok(());
            }
            loop {
                let new: KernelSas = peer.sas()?.into_iter().filter(|(spi, sa)| !before.contains_key(spi) && sa.packets > 0).collect();
                let ways = [true, false].iter().filter(|to_vip| new.values().any(|sa| (sa.dst == VIP_OUT.to_string()) == **to_vip)).count();
                if ways == 2 {
                    took_ms = begin.elapsed().as_secs_f64() * 1e3;
                    break;
                }
                if begin.elapsed() > REKEY_LIMIT {
                    problem = Some(format!("after {} s the new SAs carry traffic in {ways} of 2 directions", REKEY_LIMIT.as_secs()));
                    break;
                }
                sys::sleep_ms(150);
            }
            sys::sleep_ms(REKEY_TAIL_MS);
            Ok(())
        })?;
        Ok(verdict(problem, traffic, took_ms))
    }

    /// A new phase 1 from the peer's side; the children go on.
    pub fn check_ike_rekey(
        &mut self,
        name: &'static str,
        peer: &dyn Remote,
        start: impl FnOnce() -> Result<()>,
    ) -> Result<(&'static str, Check)> {
        let before = peer.sas()?;
        let mark = peer.mark();
        let begin = Instant::now();
        let mut problem = None;
        let mut took_ms = 0.0;
        let traffic = self.measure(|_| {
            if let Err(error) = start() {
                problem = Some(format!("{error:#}"));
                return Ok(());
            }
            while peer.established_since(mark) == 0 {
                if begin.elapsed() > REKEY_LIMIT {
                    problem = Some("the peer established no new ISAKMP SA".to_owned());
                    break;
                }
                sys::sleep_ms(100);
            }
            took_ms = begin.elapsed().as_secs_f64() * 1e3;
            // The old ISAKMP SA goes away while traffic flows.
            sys::sleep_ms(2 * REKEY_TAIL_MS);
            Ok(())
        })?;
        if problem.is_none() && !same_sas(&before, &peer.sas()?) {
            problem = Some("the IPsec SAs did not survive the new phase 1".to_owned());
        }
        Ok((name, verdict(problem, traffic, took_ms)))
    }

    /// Stops everything and fills in what traffic and captures showed.
    pub fn conclude(mut self, report: &mut Report) {
        self.resume();
        report.tcp = self.tcp.take().map(Transfer::finish).unwrap_or_default();
        report.send_errors = self.traffic.send_errors();
        let Self { traffic, tcp: _, outside, inside, topology } = self;
        traffic.finish();
        let files = [outside.file.clone(), inside.file.clone()];
        let logs = [outside.finish(), inside.finish()];
        report.wire = analysis::wire(&logs[0].records, VIP_OUT.ip());
        report.ike = analysis::ike(&logs[0].records, VIP_OUT.ip(), 0, u64::MAX);
        for event in &mut report.events {
            event.ike = analysis::ike(&logs[0].records, VIP_OUT.ip(), event.at_ns, event.until_ns);
        }
        for (file, log) in files.iter().zip(&logs) {
            report.captures.push(CaptureReport { file: file.display().to_string(), frames: log.frames, dropped: log.dropped });
            if let Some(error) = &log.error {
                report.error.get_or_insert_with(|| format!("capture {}: {error}", file.display()));
            }
        }
        drop(topology);
    }

    /// The first packet through the tunnel in a direction.
    pub fn wait_received(&self, way: Way, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while self.traffic.received(way) == 0 {
            ensure!(Instant::now() < end, "no packet came through the tunnel within {} s", limit.as_secs());
            sys::sleep_ms(5);
        }
        Ok(())
    }

    /// Starts the TCP transfer.
    pub fn start_tcp(&mut self) -> Result<()> {
        self.tcp = Some(Transfer::start().context("TCP transfer")?);
        Ok(())
    }
}

/// A message between the two tunnel ends that asks or answers whether the other lives, as far as the outside can tell.
pub fn is_informational(frame: &Frame) -> bool {
    let peer = PEER_IKE.ip();
    matches!(frame, Frame::Ike { exchange: exchange::INFORMATIONAL | exchange::INFORMATIONAL_2, src, dst, .. } if *src == peer || *dst == peer)
}

fn verdict(problem: Option<String>, traffic: BothWays, took_ms: f64) -> Check {
    let works = problem.is_none();
    let problem = problem.or_else(|| (!traffic.any() || traffic.lost() > 0).then(|| format!("{} packets lost", traffic.lost())));
    Check { works, ok: problem.is_none(), took_ms, traffic, detail: problem.unwrap_or_else(|| "done".to_owned()) }
}

/// True when the SAs in use went on: there is no new one, none was made again, and the newest of `before` are still there (an older pair of an
/// earlier rekey may end at its time).
pub fn same_sas(before: &KernelSas, after: &KernelSas) -> bool {
    let newest = before.values().map(|sa| &sa.added).max();
    newest.is_some()
        && after.iter().all(|(spi, sa)| before.get(spi).is_some_and(|then| then.added == sa.added))
        && before.iter().filter(|(_, sa)| Some(&sa.added) == newest).all(|(spi, _)| after.contains_key(spi))
}
