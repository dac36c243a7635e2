//! The report of a run: numbers, promises, and whether they hold.

use super::analysis::{Ike, Wire};
use super::tcp::TcpResult;
use super::traffic::Loss;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A measurement in both directions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BothWays {
    /// Towards the inside host.
    pub inbound: Loss,
    /// From the inside host.
    pub outbound: Loss,
}

impl BothWays {
    /// Packets lost in both directions.
    pub fn lost(&self) -> u64 {
        self.inbound.lost + self.outbound.lost
    }
    /// Packets delivered more than once.
    pub fn duplicated(&self) -> u64 {
        self.inbound.duplicated + self.outbound.duplicated
    }
    /// The longer blackout.
    pub fn blackout_ms(&self) -> f64 {
        self.inbound.blackout_ms.max(self.outbound.blackout_ms)
    }
    /// True when packets went both ways at all.
    pub fn any(&self) -> bool {
        self.inbound.sent > 0 && self.outbound.sent > 0
    }
}

/// Something that had to work after an event.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Check {
    /// It works; packets may have been lost.
    pub works: bool,
    /// It did, and no packet was lost by it.
    pub ok: bool,
    /// How long until it was seen to work.
    pub took_ms: f64,
    /// Traffic meanwhile (none for DPD, which needs silence).
    pub traffic: BothWays,
    /// What happened.
    pub detail: String,
}

/// The checks after an event, by name.
pub type Checks = Vec<(&'static str, Check)>;

/// One event.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Short name: `power_loss`, `return`, `switchover`, `daemon_crash`.
    pub name: &'static str,
    /// For people.
    pub title: String,
    /// When it began, ns since 1970.
    pub at_ns: u64,
    /// When traffic flowed again for sure, ns.
    pub recovered_ns: u64,
    /// When the event's span ended, ns.
    pub until_ns: u64,
    /// Active node before and after.
    pub active: [&'static str; 2],
    /// Traffic over the event.
    pub traffic: BothWays,
    /// Worst lateness of the bare timer in the event's span, ms.
    pub jitter_ms: f64,
    /// Part of the blackout during which the bare timer was due and did not run, ms: the lab's own share.
    pub stalled_ms: f64,
    /// Inbound packets refused by the peer's kernel, by counter.
    pub peer_refused: BTreeMap<String, u64>,
    /// IKE messages in the event's span.
    pub ike: Ike,
    /// INITIAL-CONTACT notifications the peer received in the event's span.
    pub initial_contact: usize,
    /// The peer's SAs kept SPI and age.
    pub sas_kept: bool,
    /// Stage times of the takeover (ms), from the new active node.
    pub stages: Option<Value>,
    /// What had to work afterwards.
    pub checks: Checks,
}

/// A promise and whether it held.
#[derive(Clone, Debug, Serialize)]
pub struct Promise {
    /// What was promised.
    pub promise: String,
    /// It held.
    pub ok: bool,
    /// The numbers.
    pub detail: String,
}

/// Lateness of the bare timer, ms.
#[derive(Clone, Debug, Default, Serialize)]
pub struct JitterReport {
    /// Median.
    pub p50_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// Worst.
    pub max_ms: f64,
}

/// One capture.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CaptureReport {
    /// File.
    pub file: String,
    /// Frames in it.
    pub frames: u64,
    /// Frames the kernel dropped before we saw them.
    pub dropped: u64,
}

/// A whole run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Suite name.
    pub suite: String,
    /// Algorithms.
    pub algorithms: String,
    /// Who started the tunnel.
    pub initiator: String,
    /// Where it ran.
    pub kernel: String,
    /// The remote peer's implementation.
    pub peer: String,
    /// Virtual addresses and the peer's.
    pub addresses: String,
    /// Frames that hosts which mean no good sent during the run; `None` without such hosts.
    pub hostile: Option<u64>,
    /// HSRP timers, ms.
    pub hello_hold_ms: [u64; 2],
    /// UDP rate, packets per second each way.
    pub rate_pps: u32,
    /// From the first attempt to the first packet through the tunnel, ms.
    pub tunnel_up_ms: f64,
    /// Traffic before any event.
    pub baseline: BothWays,
    /// Bare timer while traffic flowed.
    pub jitter: JitterReport,
    /// Events in order.
    pub events: Vec<Event>,
    /// Checks before any event.
    pub checks_before: Checks,
    /// TCP transfer.
    pub tcp: TcpResult,
    /// Outside LAN.
    pub wire: Wire,
    /// IKE of the whole run.
    pub ike: Ike,
    /// Captures: outside, inside.
    pub captures: Vec<CaptureReport>,
    /// Sends refused by the hosts' own kernels.
    pub send_errors: u32,
    /// Takeovers that no event caused.
    pub unasked_takeovers: u64,
    /// Of these, while the bare timer of the guest stood still for nearly the hold time: the whole lab did not run.
    pub unasked_in_a_stall: u64,
    /// The promises.
    pub promises: Vec<Promise>,
    /// What ended the run early.
    pub error: Option<String>,
    /// All promises hold.
    pub ok: bool,
}

/// Refusals that mean "this number was seen before" (kernel: sequence check, and for extended numbers the integrity check).
const REPLAY_COUNTERS: [&str; 2] = ["XfrmInStateSeqError", "XfrmInStateProtoError"];
/// A gateway's own part of a takeover, ms: what may be added to the hold time.
const TAKEOVER_MS: f64 = 50.0;

impl Event {
    /// Packets the peer refused as replays.
    pub fn replays(&self) -> u64 {
        self.peer_refused.iter().filter(|(name, _)| REPLAY_COUNTERS.contains(&name.as_str())).map(|(_, n)| n).sum()
    }
}

impl Report {
    /// Judges the run: fills `promises` and `ok`.
    pub fn judge(&mut self) {
        let mut promises = Vec::new();
        let mut promise = |text: String, ok: bool, detail: String| promises.push(Promise { promise: text, ok, detail });
        for event in &self.events {
            let t = &event.traffic;
            let numbers = format!(
                "blackout in {:.1} / out {:.1} ms, lost in {} of {} / out {} of {}",
                t.inbound.blackout_ms, t.outbound.blackout_ms, t.inbound.lost, t.inbound.sent, t.outbound.lost, t.outbound.sent
            );
            match event.name {
                "power_loss" => {
                    // A machine's own kernel gets no allowance.
                    let stalled_ms = if self.kernel.contains("guest") { event.stalled_ms } else { 0.0 };
                    let limit = self.hello_hold_ms[1] as f64 + TAKEOVER_MS + stalled_ms;
                    promise(
                        format!("{}: blackout at most hold + 50 ms + lab jitter {stalled_ms:.1} ms = {limit:.1} ms", event.title),
                        t.any() && t.blackout_ms() <= limit && event.active[0] != event.active[1] && event.stages.is_some(),
                        numbers,
                    );
                }
                "return" => promise(
                    format!("{}: joins as standby, no packet lost", event.title),
                    t.any() && t.lost() == 0 && event.active[0] == event.active[1],
                    numbers,
                ),
                "switchover" => promise(
                    format!("{}: no packet lost, the other node is active", event.title),
                    t.any() && t.lost() == 0 && event.active[0] != event.active[1] && event.stages.is_some(),
                    numbers,
                ),
                _ => promise(format!("{}: no packet lost", event.title), t.any() && t.lost() == 0, numbers),
            }
        }
        let sum = |f: &dyn Fn(&Event) -> u64| self.events.iter().map(f).sum::<u64>();
        let complete = self.events.len() == EVENTS;
        let (isakmp, quick) = (sum(&|e| e.ike.new_isakmp), sum(&|e| e.ike.quick_modes));
        promise(
            "no renegotiation by any event".into(),
            complete && isakmp + quick == 0,
            format!("{isakmp} new ISAKMP SAs, {quick} quick modes"),
        );
        let contacts = sum(&|e| e.initial_contact as u64);
        promise("no INITIAL-CONTACT to the peer by any event".into(), complete && contacts == 0, format!("{contacts} received"));
        let kept = self.events.iter().filter(|e| e.sas_kept).count();
        promise("the peer's SAs keep SPI and age in every event".into(), kept == EVENTS, format!("{kept} of {EVENTS} events"));
        let replays = sum(&Event::replays);
        let refused = sum(&|e| e.peer_refused.values().sum());
        promise(
            "no packet refused by the peer as a replay".into(),
            complete && replays == 0,
            format!("{replays} replays, {refused} refusals of any kind"),
        );
        promise(
            "no (SPI, sequence) pair twice on the outside wire".into(),
            complete && self.wire.pairs_twice == 0 && self.wire.esp_in > 0 && self.wire.esp_out > 0,
            format!(
                "{} pairs twice in {} ESP packets ({} passed on between the nodes)",
                self.wire.pairs_twice,
                self.wire.esp_in + self.wire.esp_out,
                self.wire.shunted
            ),
        );
        promise(
            "no clear text of a protected flow on the outside wire".into(),
            complete && self.wire.clear_text == 0 && self.wire.esp_in + self.wire.esp_out > 0,
            format!("{} packets", self.wire.clear_text),
        );
        for (name, text) in CHECKS {
            if *name == PEER_IKE_REKEY && self.peer == "libreswan" {
                // It renews a phase 1 by its lifetime only.
                continue;
            }
            let all: Vec<(&str, &Check)> = std::iter::once(("before any event", &self.checks_before))
                .chain(self.events.iter().map(|e| (e.name, &e.checks)))
                .flat_map(|(at, checks)| checks.iter().filter(|(n, _)| n == name).map(move |(_, c)| (at, c)))
                .collect();
            let failed: Vec<String> = all.iter().filter(|(_, c)| !c.ok).map(|(at, c)| format!("{at}: {}", c.detail)).collect();
            let wanted = if [PEER_IKE_REKEY, GATEWAY_IKE_REKEY].contains(name) { 1 } else { EVENTS + 1 };
            promise(
                (*text).to_owned(),
                failed.is_empty() && all.len() >= wanted,
                if failed.is_empty() { format!("{} of {wanted}", all.len()) } else { failed.join("; ") },
            );
        }
        let excused = if self.kernel.contains("guest") { self.unasked_in_a_stall } else { 0 };
        promise(
            "no takeover without an event (but for stalls of the whole guest)".into(),
            complete && self.unasked_takeovers <= excused,
            format!("{}, of these {} in a stall", self.unasked_takeovers, self.unasked_in_a_stall),
        );
        let duplicated = self.baseline.duplicated() + self.events.iter().map(|e| e.traffic.duplicated()).sum::<u64>();
        promise("no packet is delivered twice".into(), complete && duplicated == 0, format!("{duplicated}"));
        promise(
            "the TCP transfer survives with every byte right".into(),
            self.tcp.survived && self.tcp.received > 0,
            self.tcp
                .error
                .clone()
                .unwrap_or_else(|| format!("{} bytes, checksum {}", self.tcp.received, self.tcp.checksum.as_deref().unwrap_or("-"))),
        );
        let dropped: u64 = self.captures.iter().map(|c| c.dropped).sum();
        // Every packet that arrived in the watched spans was ESP on the outside wire.
        let arrived = |f: &dyn Fn(&BothWays) -> u64| f(&self.baseline) + self.events.iter().map(|e| f(&e.traffic)).sum::<u64>();
        let arrived_in = arrived(&|t| t.inbound.sent.saturating_sub(t.inbound.lost));
        let arrived_out = arrived(&|t| t.outbound.sent.saturating_sub(t.outbound.lost));
        promise(
            "the captures are complete and hold the traffic as ESP".into(),
            self.captures.len() == 2
                && dropped == 0
                && arrived_in > 0
                && arrived_out > 0
                && self.wire.esp_in >= arrived_in
                && self.wire.esp_out >= arrived_out,
            format!("{dropped} frames missed by the captures; {arrived_in} in and {arrived_out} out arrived in the watched spans"),
        );
        promise(
            "traffic before any event passes without loss".into(),
            self.baseline.any() && self.baseline.lost() == 0,
            format!("{} lost", self.baseline.lost()),
        );
        if let Some(error) = &self.error {
            promise("the scenario runs to its end".into(), false, error.clone());
        }
        self.ok = promises.iter().all(|p| p.ok);
        self.promises = promises;
    }

    /// One JSON line.
    pub fn json_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"ok\":false,\"error\":\"{error}\"}}"))
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "== {} ({}), tunnel started by the {}, {}", self.suite, self.algorithms, self.initiator, self.kernel)?;
        if !self.peer.is_empty() {
            writeln!(out, "peer {}, addresses {}", self.peer, self.addresses)?;
        }
        if let Some(frames) = self.hostile {
            writeln!(out, "{frames} malformed frames from hosts on both LANs during the run")?;
        }
        writeln!(
            out,
            "HSRP hello {} ms, hold {} ms; UDP {} packets/s each way; tunnel up in {:.0} ms; lab jitter p50 {:.2} / p99 {:.2} / p99.9 {:.2} / max {:.2} ms",
            self.hello_hold_ms[0],
            self.hello_hold_ms[1],
            self.rate_pps,
            self.tunnel_up_ms,
            self.jitter.p50_ms,
            self.jitter.p99_ms,
            self.jitter.p999_ms,
            self.jitter.max_ms
        )?;
        writeln!(
            out,
            "{:<14} {:>18} {:>15} {:>8} {:>8} {:>12} {:>6} {:>7}",
            "event", "blackout in/out ms", "lost in/out", "replays", "refused", "IKE messages", "rekeys", "active"
        )?;
        let row = |out: &mut String, name: &str, t: &BothWays, e: Option<&Event>| {
            writeln!(
                out,
                "{name:<14} {:>18} {:>15} {:>8} {:>8} {:>12} {:>6} {:>7}",
                format!("{:.1}/{:.1}", t.inbound.blackout_ms, t.outbound.blackout_ms),
                format!("{}/{}", t.inbound.lost, t.outbound.lost),
                e.map_or(0, Event::replays),
                e.map_or(0, |e| e.peer_refused.values().sum()),
                e.map_or(0, |e| e.ike.messages),
                e.map_or(0, |e| e.ike.new_isakmp + e.ike.quick_modes),
                e.map_or("-", |e| e.active[1])
            )
        };
        row(out, "before", &self.baseline, None)?;
        for event in &self.events {
            row(out, event.name, &event.traffic, Some(event))?;
        }
        for event in &self.events {
            if let Some(stages) = &event.stages {
                writeln!(out, "stages of {}: {stages}", event.name)?;
            }
        }
        writeln!(
            out,
            "outside wire: {} ESP in, {} ESP out (gw-a {}, gw-b {}), {} passed on between the nodes, {} pairs twice, {} in clear; IKE {} messages, {} ISAKMP SAs, {} quick modes",
            self.wire.esp_in,
            self.wire.esp_out,
            self.wire.esp_out_by_node[0],
            self.wire.esp_out_by_node[1],
            self.wire.shunted,
            self.wire.pairs_twice,
            self.wire.clear_text,
            self.ike.messages,
            self.ike.new_isakmp,
            self.ike.quick_modes
        )?;
        for sample in &self.wire.samples {
            writeln!(out, "  {sample}")?;
        }
        for capture in &self.captures {
            writeln!(out, "capture {}: {} frames, {} missed", capture.file, capture.frames, capture.dropped)?;
        }
        for p in &self.promises {
            writeln!(out, "{:<6} {} ({})", if p.ok { "ok" } else { "FAILED" }, p.promise, p.detail)?;
        }
        writeln!(out, "{}", if self.ok { "all promises hold" } else { "PROMISES BROKEN" })
    }
}

/// Events of a run.
pub const EVENTS: usize = 4;
/// Checks that are made only once.
pub const PEER_IKE_REKEY: &str = "peer_ike_rekey";
/// The same, started by the gateway.
pub const GATEWAY_IKE_REKEY: &str = "gateway_ike_rekey";
/// Checks after an event: name, and the promise for people.
pub const CHECKS: &[(&str, &str)] = &[
    ("dpd", "the peer's DPD is answered before and after every event"),
    ("peer_rekey", "a rekey started by the peer works before and after every event, without loss"),
    ("gateway_rekey", "a rekey started by the gateway works before and after every event, without loss"),
    (PEER_IKE_REKEY, "a phase 1 rekey started by the peer works after a takeover, without loss"),
    (GATEWAY_IKE_REKEY, "a phase 1 rekey started by the gateway works after a takeover, without loss"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(lost: u64, blackout_ms: f64) -> BothWays {
        let loss = Loss { sent: 1000, lost, duplicated: 0, blackout_ms, gap_ns: [0, 0] };
        BothWays { inbound: loss.clone(), outbound: loss }
    }

    fn checks(ike: bool) -> Checks {
        CHECKS
            .iter()
            .filter(|(n, _)| ike || ![PEER_IKE_REKEY, GATEWAY_IKE_REKEY].contains(n))
            .map(|(n, _)| (*n, Check { ok: true, ..Check::default() }))
            .collect()
    }

    fn event(name: &'static str, moved: bool, traffic: BothWays) -> Event {
        Event {
            name,
            title: name.to_owned(),
            at_ns: 0,
            recovered_ns: 0,
            until_ns: 0,
            active: ["gw-a", if moved { "gw-b" } else { "gw-a" }],
            traffic,
            jitter_ms: 1.5,
            stalled_ms: 1.5,
            peer_refused: BTreeMap::new(),
            ike: Ike::default(),
            initial_contact: 0,
            sas_kept: true,
            stages: moved.then(|| serde_json::json!({ "total_ms": 1.0 })),
            checks: checks(name == "power_loss"),
        }
    }

    fn good() -> Report {
        Report {
            hello_hold_ms: [100, 300],
            baseline: flow(0, 0.0),
            events: vec![
                event("power_loss", true, flow(300, 300.0)),
                event("return", false, flow(0, 1.0)),
                event("switchover", true, flow(0, 5.0)),
                event("daemon_crash", false, flow(0, 1.0)),
            ],
            checks_before: checks(false),
            tcp: TcpResult { sent: 5, received: 5, checksum: Some("x".into()), survived: true, error: None },
            wire: Wire { esp_in: 5000, esp_out: 5000, ..Wire::default() },
            captures: vec![CaptureReport::default(), CaptureReport::default()],
            ..Report::default()
        }
    }

    #[test]
    fn a_good_run_holds_and_each_fault_breaks_it() {
        let mut report = good();
        report.judge();
        assert!(report.ok, "{}", report.text());
        type Fault = fn(&mut Report);
        let faults: &[(&str, Fault)] = &[
            ("late takeover", |r| r.events[0].traffic.outbound.blackout_ms = 352.0),
            ("power loss without takeover", |r| r.events[0].active[1] = "gw-a"),
            ("no traffic at all", |r| r.events[0].traffic.inbound.sent = 0),
            ("loss on return", |r| r.events[1].traffic.inbound.lost = 1),
            ("loss on switchover", |r| r.events[2].traffic.outbound.lost = 1),
            ("switchover that did nothing", |r| r.events[2].active[1] = "gw-a"),
            ("loss on crash", |r| r.events[3].traffic.inbound.lost = 1),
            ("quick mode", |r| r.events[3].ike.quick_modes = 1),
            ("main mode", |r| r.events[0].ike.new_isakmp = 1),
            ("initial contact", |r| r.events[1].initial_contact = 1),
            ("no stage times", |r| r.events[0].stages = None),
            ("new SAs", |r| r.events[2].sas_kept = false),
            ("replay refused", |r| r.events[0].peer_refused.extend([("XfrmInStateSeqError".to_owned(), 1)])),
            ("pair twice", |r| r.wire.pairs_twice = 1),
            ("clear text", |r| r.wire.clear_text = 1),
            ("nothing captured", |r| r.wire.esp_in = 0),
            ("capture incomplete", |r| r.captures[1].dropped = 1),
            ("tcp broken", |r| r.tcp.survived = false),
            ("duplicate", |r| r.events[0].traffic.inbound.duplicated = 1),
            ("DPD unanswered", |r| r.events[3].checks[0].1.ok = false),
            ("check missing", |r| drop(r.events[3].checks.pop())),
            ("event missing", |r| drop(r.events.pop())),
            ("baseline loss", |r| r.baseline.inbound.lost = 1),
            ("takeover without cause", |r| r.unasked_takeovers = 1),
            ("scenario error", |r| r.error = Some("x".into())),
        ];
        for (name, fault) in faults {
            let mut report = good();
            fault(&mut report);
            report.judge();
            assert!(!report.ok, "{name} went unnoticed");
        }
    }
}
