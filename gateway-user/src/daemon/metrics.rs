//! Metrics in the Prometheus text format, from one table of names.

use super::views::{DatapathView, HaStatus};
use prometheus::core::Collector;
use prometheus::{Encoder, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A metric of the table.
struct Row {
    name: &'static str,
    counter: bool,
    labels: &'static [&'static str],
    help: &'static str,
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, counter: false, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Row {
    Row { name, counter: true, labels, help }
}

/// Every metric there is. Label values are words of the program, never of a peer, so their number is bounded.
const TABLE: [Row; 25] = [
    gauge("gateway_build_info", &["version"], "Always 1; the version is in the label."),
    gauge("gateway_start_time_seconds", &[], "Unix time the daemon started."),
    gauge("gateway_role", &["role"], "1 for the role this node has (init, standby, active), 0 for the others."),
    gauge("gateway_epoch", &[], "Ownership epoch; rises with every takeover."),
    gauge("gateway_ready", &[], "1 when this node could take over, or is active."),
    gauge("gateway_config_differing_items", &[], "Configuration items that differ from the partner's."),
    gauge("gateway_isakmp_sas", &["version", "state"], "ISAKMP SAs and IKEv2 SAs by version of IKE (1, 2) and state (active, standby)."),
    gauge("gateway_sas", &["state"], "IPsec SA pairs by state (active, standby)."),
    gauge("gateway_ssp_connected", &[], "1 while the partner answers on SSP."),
    gauge("gateway_ssp_lag_packets", &[], "Verified inbound packets that the standby has not acknowledged, largest of all SAs."),
    gauge("gateway_ssp_lag_seconds", &[], "Age of the oldest SSP message that the partner has not acknowledged."),
    gauge("gateway_last_takeover_duration_seconds", &[], "From detection to the end of the last takeover of this node."),
    gauge("gateway_lease_left_seconds", &[], "Time until the role ends by itself; +Inf without a limit."),
    counter("gateway_ssp_messages_total", &["direction"], "SSP frames by direction (sent, received)."),
    counter("gateway_ssp_bytes_total", &["direction"], "SSP bytes by direction (sent, received)."),
    counter("gateway_ssp_refused_total", &["reason"], "SSP connections and frames refused."),
    counter("gateway_dropped_packets_total", &["program", "reason"], "Packets the data path dropped."),
    counter("gateway_passed_packets_total", &["program", "reason"], "Packets the data path let through or redirected."),
    counter("gateway_takeovers_total", &["cause"], "Takeovers by this node."),
    counter("gateway_ike_messages_total", &["direction"], "IKE datagrams by direction (sent, received)."),
    counter("gateway_ike_refused_total", &["reason"], "IKE datagrams refused."),
    counter("gateway_hsrp_refused_total", &["reason"], "HSRP packets refused."),
    counter("gateway_xfrm_errors_total", &["call"], "XFRM calls the kernel refused."),
    counter("gateway_lease_stalls_total", &[], "Times an SA ran out of leased sequence numbers."),
    counter("gateway_queue_drops_total", &["queue"], "Items dropped because a queue was full."),
];

/// What the daemon knows at one moment. Counters are totals since it started.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Version of the program.
    pub version: &'static str,
    /// Unix time the daemon started.
    pub started_unix: f64,
    /// Role of this node; `None` counts as init.
    pub role: Option<HaStatus>,
    /// Epoch.
    pub epoch: u64,
    /// Active, or could take over.
    pub ready: bool,
    /// Items that differ from the partner's.
    pub config_differing: u64,
    /// ISAKMP SAs of version 1, IKE SAs of version 2: active, standby.
    pub isakmp_sas: [(u64, u64); 2],
    /// IPsec SA pairs: active, standby.
    pub sas: (u64, u64),
    /// The partner answers.
    pub ssp_connected: bool,
    /// Largest exposure of an SA in packets.
    pub ssp_lag_packets: u64,
    /// Age of the oldest unacknowledged message, seconds.
    pub ssp_lag_seconds: f64,
    /// Duration of the last takeover, seconds; `None` = none yet.
    pub last_takeover_seconds: Option<f64>,
    /// SSP frames sent and received.
    pub ssp_messages: (u64, u64),
    /// SSP bytes sent and received.
    pub ssp_bytes: (u64, u64),
    /// IKE datagrams sent and received.
    pub ike_messages: (u64, u64),
    /// SSP refusals by reason.
    pub ssp_refused: Vec<(&'static str, u64)>,
    /// IKE refusals by reason.
    pub ike_refused: Vec<(&'static str, u64)>,
    /// HSRP refusals by reason.
    pub hsrp_refused: Vec<(&'static str, u64)>,
    /// Takeovers by cause.
    pub takeovers: Vec<(&'static str, u64)>,
    /// Refused XFRM calls by call.
    pub xfrm_errors: Vec<(&'static str, u64)>,
    /// Lease stalls.
    pub lease_stalls: u64,
    /// Full queues by name.
    pub queue_drops: Vec<(&'static str, u64)>,
    /// The data path; `None` when it could not be read.
    pub datapath: Option<DatapathView>,
}

type Key = (&'static str, Vec<&'static str>);

/// The registry.
pub struct Metrics {
    registry: Registry,
    gauges: HashMap<&'static str, GaugeVec>,
    counters: HashMap<&'static str, IntCounterVec>,
    /// Totals as last seen, to turn them into increments.
    seen: Mutex<HashMap<Key, u64>>,
}

impl Metrics {
    /// Registers the table. Fails only if the table itself is wrong.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut out = Self { registry: Registry::new(), gauges: HashMap::new(), counters: HashMap::new(), seen: Mutex::default() };
        for row in &TABLE {
            let opts = Opts::new(row.name, row.help);
            if row.counter {
                let vec = IntCounterVec::new(opts, row.labels)?;
                out.register(&vec)?;
                out.counters.insert(row.name, vec);
            } else {
                let vec = GaugeVec::new(opts, row.labels)?;
                out.register(&vec)?;
                out.gauges.insert(row.name, vec);
            }
        }
        Ok(out)
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: &C) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(collector.clone()))
    }

    fn set(&self, name: &'static str, labels: &[&str], value: f64) {
        let metric = self.gauges.get(name).and_then(|g| g.get_metric_with_label_values(labels).ok());
        debug_assert!(metric.is_some(), "{name}: not in the table, or wrong labels");
        if let Some(m) = metric {
            m.set(value);
        }
    }

    /// Brings a counter up to `total`. A total that went back began anew (maps were replaced): what it has now is added.
    fn raise(&self, name: &'static str, labels: &[&'static str], total: u64) {
        let metric = self.counters.get(name).and_then(|c| c.get_metric_with_label_values(labels).ok());
        debug_assert!(metric.is_some(), "{name}: not in the table, or wrong labels");
        let Some(metric) = metric else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.entry((name, labels.to_vec())).or_default();
        metric.inc_by(if total >= *last { total - *last } else { total });
        *last = total;
    }

    fn by_label(&self, name: &'static str, list: &[(&'static str, u64)]) {
        for (label, total) in list {
            self.raise(name, &[label], *total);
        }
    }

    /// Takes over what the daemon knows now.
    pub fn update(&self, s: &Sample) {
        self.set("gateway_build_info", &[s.version], 1.0);
        self.set("gateway_start_time_seconds", &[], s.started_unix);
        let role = s.role.unwrap_or(HaStatus::Init);
        for (word, this) in [("init", HaStatus::Init), ("standby", HaStatus::Standby), ("active", HaStatus::Active)] {
            self.set("gateway_role", &[word], flag(role == this));
        }
        self.set("gateway_epoch", &[], s.epoch as f64);
        self.set("gateway_ready", &[], flag(s.ready));
        self.set("gateway_config_differing_items", &[], s.config_differing as f64);
        for (version, (active, standby)) in ["1", "2"].into_iter().zip(s.isakmp_sas) {
            self.set("gateway_isakmp_sas", &[version, "active"], active as f64);
            self.set("gateway_isakmp_sas", &[version, "standby"], standby as f64);
        }
        self.set("gateway_sas", &["active"], s.sas.0 as f64);
        self.set("gateway_sas", &["standby"], s.sas.1 as f64);
        self.set("gateway_ssp_connected", &[], flag(s.ssp_connected));
        self.set("gateway_ssp_lag_packets", &[], s.ssp_lag_packets as f64);
        self.set("gateway_ssp_lag_seconds", &[], s.ssp_lag_seconds);
        if let Some(seconds) = s.last_takeover_seconds {
            self.set("gateway_last_takeover_duration_seconds", &[], seconds);
        }
        for (name, (sent, received)) in [
            ("gateway_ssp_messages_total", s.ssp_messages),
            ("gateway_ssp_bytes_total", s.ssp_bytes),
            ("gateway_ike_messages_total", s.ike_messages),
        ] {
            self.raise(name, &["sent"], sent);
            self.raise(name, &["received"], received);
        }
        self.by_label("gateway_ssp_refused_total", &s.ssp_refused);
        self.by_label("gateway_ike_refused_total", &s.ike_refused);
        self.by_label("gateway_hsrp_refused_total", &s.hsrp_refused);
        self.by_label("gateway_takeovers_total", &s.takeovers);
        self.by_label("gateway_xfrm_errors_total", &s.xfrm_errors);
        self.by_label("gateway_queue_drops_total", &s.queue_drops);
        self.raise("gateway_lease_stalls_total", &[], s.lease_stalls);
        if let Some(d) = &s.datapath {
            let left = d.lease_left_ms.map_or(f64::INFINITY, |ms| ms as f64 / 1000.0);
            self.set("gateway_lease_left_seconds", &[], left);
            for r in &d.reasons {
                let name = if r.drop { "gateway_dropped_packets_total" } else { "gateway_passed_packets_total" };
                self.raise(name, &[r.program, r.reason], r.packets);
            }
        }
    }

    /// The text that a scrape gets.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(e) => format!("# cannot write the metrics: {e}\n"),
        }
    }
}

const fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::ports::{PathRole, ReasonCount};

    fn sample(dropped: u64) -> Sample {
        Sample {
            version: "0.1.0",
            role: Some(HaStatus::Standby),
            epoch: 3,
            isakmp_sas: [(0, 860), (0, 40)],
            sas: (0, 900),
            ssp_connected: true,
            ike_messages: (7, 9),
            ssp_refused: vec![("bad_hello", 1)],
            ike_refused: vec![("bad_cookie", 2)],
            hsrp_refused: vec![("bad_auth", 3)],
            takeovers: vec![("hold_timer", 1)],
            xfrm_errors: vec![("XFRM_MSG_NEWSA", 1)],
            queue_drops: vec![("ike", 1)],
            last_takeover_seconds: Some(0.25),
            datapath: Some(DatapathView {
                role: PathRole::Standby,
                epoch: Epoch(3),
                lease_left_ms: None,
                attached: Vec::new(),
                reasons: vec![
                    ReasonCount { program: "guard", reason: "standby", drop: true, packets: dropped },
                    ReasonCount { program: "classify", reason: "esp", drop: false, packets: 12 },
                ],
            }),
            ..Sample::default()
        }
    }

    #[test]
    fn the_table_follows_the_conventions() {
        for row in &TABLE {
            assert!(row.name.starts_with("gateway_"), "{}", row.name);
            assert_eq!(row.counter, row.name.ends_with("_total"), "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
            assert!(!row.name.contains("_ms") && !row.name.contains("milli"), "{}: base units only", row.name);
        }
    }

    #[test]
    fn every_metric_of_the_table_is_rendered() {
        let m = Metrics::new().unwrap();
        m.update(&sample(5));
        let text = m.render();
        for row in &TABLE {
            let kind = if row.counter { "counter" } else { "gauge" };
            assert!(text.contains(&format!("# TYPE {} {kind}\n", row.name)), "{}\n{text}", row.name);
        }
        for line in [
            "gateway_role{role=\"standby\"} 1\n",
            "gateway_role{role=\"active\"} 0\n",
            "gateway_sas{state=\"standby\"} 900\n",
            "gateway_isakmp_sas{state=\"standby\",version=\"2\"} 40\n",
            "gateway_isakmp_sas{state=\"active\",version=\"1\"} 0\n",
            "gateway_dropped_packets_total{program=\"guard\",reason=\"standby\"} 5\n",
            "gateway_ike_messages_total{direction=\"received\"} 9\n",
            "gateway_last_takeover_duration_seconds 0.25\n",
            "gateway_lease_stalls_total 0\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn totals_become_increments() {
        let m = Metrics::new().unwrap();
        let dropped = |m: &Metrics| {
            let text = m.render();
            let line = text.lines().find(|l| l.starts_with("gateway_dropped_packets_total{")).unwrap().to_owned();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        for (total, want) in [(5, 5), (5, 5), (8, 8), (2, 10), (3, 11)] {
            m.update(&sample(total));
            assert_eq!(dropped(&m), want);
        }
    }
}
