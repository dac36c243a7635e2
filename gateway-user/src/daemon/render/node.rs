//! `show ssp …`, `show standby brief`, and what is ours: takeover, datapath, version, digests.

use super::{clock, hms, table};
use crate::daemon::views::{
    DatapathView, DigestView, Router, SspClientView, SspPacketView, SspPeerView, SspRedundancyView, SspView, StandbyView, TakeoverView,
    VersionView,
};
use std::fmt::Write;

/// `show ssp`: all four parts in the guide's order.
pub fn ssp(v: &SspView) -> String {
    [ssp_clients(&v.clients), ssp_packet(&v.packet), ssp_peers(&v.peers), ssp_redundancy(&v.redundancy)].join("\n")
}

/// `show ssp client`.
pub fn ssp_clients(rows: &[SspClientView]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|r| vec![r.doi.to_string(), r.name.clone(), r.version.clone(), r.running.clone()]).collect();
    format!("SSP Client Information\n\n{}", table(&["DOI", "Client Name", "Version", "Running Ver"], &rows))
}

/// `show ssp packet`.
pub fn ssp_packet(v: &SspPacketView) -> String {
    let age = v.socket_age_s.map_or_else(|| "none".to_owned(), hms);
    format!(
        "SSP packet Information\n\n\
         Socket creation time: {age}\n\
         Local port: {} Server port: {}\n\
         Packets Sent = {}, Bytes Sent = {}\n\
         Packets Received = {}, Bytes Received = {}\n",
        v.local_port, v.server_port, v.packets_sent, v.bytes_sent, v.packets_received, v.bytes_received
    )
}

/// `show ssp peers`.
pub fn ssp_peers(rows: &[SspPeerView]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| vec![r.address.to_string(), r.state.clone(), r.interface.clone()]).collect();
    format!("SSP Peer Information\n\n{}", table(&["IP Address", "Connection State", "Local Interface"], &rows))
}

/// `show ssp redundancy`. The line on readiness is ours and stands on a standby only.
pub fn ssp_redundancy(v: &SspRedundancyView) -> String {
    let rows: Vec<Vec<String>> = v.groups.iter().map(|g| vec![g.vip.to_string(), g.name.clone(), g.interface.clone()]).collect();
    let mut out = format!("SSP Redundancy Information\n\nDevice has been {} for {}\n", v.state.capitals(), hms(v.for_s));
    if let Some(why) = &v.not_ready {
        let _ = writeln!(out, "Not ready to take over: {why}");
    }
    let _ = write!(out, "\n{}", table(&["Virtual IP", "Redundancy Name", "Interface"], &rows));
    out
}

/// `show standby brief`.
pub fn standby_brief(rows: &[StandbyView]) -> String {
    let router = |r: Option<Router>| match r {
        None => "unknown".to_owned(),
        Some(Router::Local) => "local".to_owned(),
        Some(Router::Address(a)) => a.to_string(),
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.interface.clone(),
                r.group.to_string(),
                r.priority.to_string(),
                if r.preempt { "P" } else { "" }.to_owned(),
                format!("{:?}", r.state),
                router(r.active),
                router(r.standby),
                r.vip.to_string(),
            ]
        })
        .collect();
    table(&["Interface", "group", "priority", "p", "state", "active address", "standby address", "group address"], &rows)
}

/// `show takeover`.
pub fn takeovers(list: &[TakeoverView]) -> String {
    if list.is_empty() {
        return "No takeover since the daemon started\n".to_owned();
    }
    let ms = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let rows: Vec<Vec<String>> = list
        .iter()
        .map(|t| {
            vec![
                t.epoch.to_string(),
                t.cause.clone(),
                t.pairs.to_string(),
                ms(t.detected_ms),
                ms(t.role_ms),
                ms(t.vips_ms),
                ms(t.garp_ms),
                ms(t.ike_ms),
                ms(t.total_ms),
                clock(t.at),
            ]
        })
        .collect();
    let head = ["Epoch", "Cause", "Pairs", "detected", "role", "vips", "garp", "ike", "total", "At"];
    format!("Takeover Information (stage times in ms; `detected` from the old active's last sign)\n\n{}", table(&head, &rows))
}

/// `show datapath`.
pub fn datapath(v: &DatapathView) -> String {
    let lease = v.lease_left_ms.map_or_else(|| "no limit".to_owned(), |ms| format!("{ms} ms"));
    let attached: Vec<Vec<String>> = v.attached.iter().map(|(d, m)| vec![d.clone(), (*m).to_owned()]).collect();
    let reasons: Vec<Vec<String>> = v
        .reasons
        .iter()
        .map(|r| {
            let action = if r.drop { "drop" } else { "pass" };
            vec![r.program.to_owned(), r.reason.to_owned(), action.to_owned(), r.packets.to_string()]
        })
        .collect();
    format!(
        "Datapath Information\n\nRole: {:?}, epoch {}, lease: {lease}\n\n{}\n{}",
        v.role,
        v.epoch,
        table(&["Interface", "XDP mode"], &attached),
        table(&["Program", "Reason", "Action", "Packets"], &reasons)
    )
}

/// `show version`.
pub fn version(v: &VersionView) -> String {
    format!(
        "gateway {} on {}, kernel {}\n\
         Data path ABI {}, SSP version {}\n\
         Manifest: {}\n\
         Uptime is {}\n",
        v.version,
        v.hostname,
        v.kernel,
        v.abi,
        v.ssp,
        v.manifest,
        hms(v.uptime_s)
    )
}

/// `show config digest`.
pub fn digests(v: &DigestView) -> String {
    let cell = |d: &Option<String>| d.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = v
        .items
        .iter()
        .map(|r| {
            let verdict = match (v.partner_known, r.equal) {
                (false, _) => "unknown",
                (true, true) => "equal",
                (true, false) => "DIFFERENT",
            };
            vec![r.item.clone(), cell(&r.local), cell(&r.partner), verdict.to_owned()]
        })
        .collect();
    let differing: Vec<&str> = v.items.iter().filter(|r| !r.equal).map(|r| r.item.as_str()).collect();
    let summary = match (v.partner_known, differing.is_empty()) {
        (false, _) => "The partner has not announced its configuration yet".to_owned(),
        (true, true) => "Both nodes have the same configuration".to_owned(),
        (true, false) => format!("The nodes differ in: {}", differing.join(", ")),
    };
    format!("{}\n{summary}\n", table(&["Item", "Here", "Partner", "Verdict"], &rows))
}

/// `show debugging`.
pub fn debugging(on: &[String]) -> String {
    if on.is_empty() {
        return "No debug output is switched on\n".to_owned();
    }
    on.iter().map(|t| format!("{t} debugging is on\n")).collect()
}
