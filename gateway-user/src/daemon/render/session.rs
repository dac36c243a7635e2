//! `show crypto session`.

use super::hms;
use super::ipsec::network;
use super::policy::protocol;
use crate::daemon::views::{IsakmpSaView, SessionFlowView, SessionView};
use crate::id::IkeVersion;
use std::fmt::Write;

/// `show crypto session [detail]`.
pub(super) fn sessions(list: &[SessionView], detail: bool) -> String {
    let mut out = "Crypto session current status\n".to_owned();
    for s in list {
        // Writing to a String cannot fail.
        let _ = session(&mut out, s, detail);
    }
    out
}

fn session(out: &mut String, s: &SessionView, detail: bool) -> std::fmt::Result {
    writeln!(out)?;
    if !s.interface.is_empty() {
        writeln!(out, "Interface: {}", s.interface)?;
    }
    writeln!(out, "Session status: {}", s.state.word())?;
    writeln!(out, "Peer: {} port {}", s.peer.ip(), s.peer.port())?;
    for i in &s.ike {
        ike(out, i, detail)?;
    }
    for f in &s.flows {
        flow(out, f, detail)?;
    }
    Ok(())
}

fn ike(out: &mut String, s: &IsakmpSaView, detail: bool) -> std::fmt::Result {
    let version = match s.version {
        IkeVersion::V1 => "IKEv1",
        IkeVersion::V2 => "IKEv2",
    };
    let state = if s.is_up() { s.status.word() } else { "Inactive" };
    writeln!(out, "  {version} SA: local {}/{} remote {}/{} {state}", s.local.ip(), s.local.port(), s.remote.ip(), s.remote.port())?;
    if detail {
        writeln!(out, "          conn-id: {}, lifetime: {}", s.conn_id, hms(s.remaining_s))?;
    }
    Ok(())
}

fn flow(out: &mut String, f: &SessionFlowView, detail: bool) -> std::fmt::Result {
    writeln!(out, "  IPSEC FLOW: permit {} {} {}", protocol(f.local.proto), network(&f.local), network(&f.remote))?;
    writeln!(out, "        Active SAs: {}, origin: crypto map", f.sas)?;
    if detail {
        let left = f.remaining_s.map_or_else(|| "none".to_owned(), |s| s.to_string());
        writeln!(out, "        Inbound:  #pkts dec'ed {}", f.packets_in)?;
        writeln!(out, "        Outbound: #pkts enc'ed {}, life (Sec) {left}", f.packets_out)?;
    }
    Ok(())
}
