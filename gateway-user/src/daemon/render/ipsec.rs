//! `show crypto ipsec ha` and `show crypto ipsec sa …`.

use super::{both, since, table, wanted};
use crate::cli::command::SaFilter;
use crate::daemon::views::{FlowView, IpsecHaView, SaView};
use crate::sad::Selector;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `show crypto ipsec ha`.
pub fn ipsec_ha(rows: &[IpsecHaView]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|r| vec![r.interface.clone(), r.vip.to_string(), r.sas.to_string(), since(r.state, r.since)]).collect();
    table(&["Interface", "VIP", "SAs", "IPSec HA State"], &rows)
}

/// How much of a flow's block is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Identity,
    Sas,
    Detail,
}

/// Answers `show crypto ipsec sa FILTER`.
pub(super) fn answer(filter: &SaFilter, mut list: Vec<FlowView>) -> Result<(Value, String), String> {
    match filter {
        SaFilter::All => both(&list, |v| flows(v)),
        SaFilter::Detail => both(&list, |v| blocks(v, Depth::Detail)),
        SaFilter::Identity => both(&list, |v| blocks(v, Depth::Identity)),
        SaFilter::ByAddress => both(&list, |v| by_address(v)),
        SaFilter::Ha(ha) => {
            for f in &mut list {
                f.inbound.retain(|s| wanted(*ha, s.status));
                f.outbound.retain(|s| wanted(*ha, s.status));
            }
            list.retain(|f| !f.inbound.is_empty() || !f.outbound.is_empty());
            both(&list, |v| flows(v))
        }
        SaFilter::Map(map) => {
            list.retain(|f| f.map == *map);
            both(&list, |v| flows(v))
        }
        SaFilter::Peer(peer) => {
            list.retain(|f| f.peer == *peer);
            both(&list, |v| flows(v))
        }
        SaFilter::Interface(name) => {
            list.retain(|f| f.interface == *name || f.interface_name == *name);
            both(&list, |v| flows(v))
        }
    }
}

/// `show crypto ipsec sa`.
pub fn flows(list: &[FlowView]) -> String {
    blocks(list, Depth::Sas)
}

fn blocks(list: &[FlowView], depth: Depth) -> String {
    let mut out = String::new();
    let mut interface: Option<&str> = None;
    for f in list {
        if interface != Some(&f.interface) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "\ninterface: {}\n    Crypto map tag: {}, local addr. {}", f.interface, f.map, f.local_addr);
            interface = Some(&f.interface);
        }
        let _ = block(&mut out, f, depth);
    }
    out
}

fn block(out: &mut String, f: &FlowView, depth: Depth) -> std::fmt::Result {
    writeln!(out)?;
    writeln!(out, "   local  ident (addr/mask/prot/port): ({})", ident(&f.local))?;
    writeln!(out, "   remote ident (addr/mask/prot/port): ({})", ident(&f.remote))?;
    writeln!(out, "   current_peer: {}", f.peer)?;
    writeln!(out, "     PERMIT, flags={{origin_is_acl,}}")?;
    writeln!(out, "    #pkts encaps: {0}, #pkts encrypt: {0}, #pkts digest {0}", f.packets_out)?;
    writeln!(out, "    #pkts decaps: {0}, #pkts decrypt: {0}, #pkts verify {0}", f.packets_in)?;
    writeln!(out, "    #pkts compressed: 0, #pkts decompressed: 0")?;
    writeln!(out, "    #pkts not compressed: 0, #pkts compr. failed: 0, #pkts decompress failed: 0")?;
    writeln!(out, "    #send errors {}, #recv errors {}", f.send_errors, f.recv_errors)?;
    writeln!(out)?;
    writeln!(out, "     local crypto endpt.: {}, remote crypto endpt.: {}", f.local_addr, f.peer)?;
    writeln!(out, "     path mtu {}, media mtu {}", f.path_mtu, f.media_mtu)?;
    if let Some(mtu) = f.plaintext_mtu.filter(|_| depth == Depth::Detail) {
        writeln!(out, "     plaintext mtu {mtu}")?;
    }
    writeln!(out, "     current outbound spi: {:X}", f.current_spi_out.map_or(0, |s| s.0))?;
    if depth == Depth::Identity {
        return Ok(());
    }
    for (direction, sas) in [("inbound", &f.inbound), ("outbound", &f.outbound)] {
        writeln!(out, "\n     {direction} esp sas:")?;
        for s in sas {
            sa(out, s, 6, depth)?;
        }
        writeln!(out, "\n     {direction} ah sas:")?;
        writeln!(out, "\n     {direction} pcp sas:")?;
    }
    Ok(())
}

fn sa(out: &mut String, s: &SaView, indent: usize, depth: Depth) -> std::fmt::Result {
    let (a, b) = (" ".repeat(indent), " ".repeat(indent + 2));
    writeln!(out, "{a}spi: 0x{0:X}({0})", s.spi.0)?;
    writeln!(out, "{b}transform: {} ,", s.transform)?;
    writeln!(out, "{b}in use settings ={{{:?}{}, }}", s.mode, if s.encap.is_some() { " UDP-Encaps" } else { "" })?;
    writeln!(out, "{b}slot: 0, conn id: {}, flow_id: {}, crypto map: {}", s.conn_id, s.flow_id, s.map)?;
    writeln!(out, "{b}sa timing: remaining key lifetime (k/sec): ({}/{})", limit(s.remaining_kb), limit(s.remaining_s))?;
    writeln!(out, "{b}IV size: {} bytes", s.iv_bytes)?;
    writeln!(out, "{b}replay detection support: {}", if s.replay_window > 0 { "Y" } else { "N" })?;
    if s.esn {
        writeln!(out, "{b}extended sequence number support: Y")?;
    }
    if depth == Depth::Detail {
        if let Some(e) = s.encap {
            writeln!(out, "{b}UDP ports: local {}, remote {}", e.local_port, e.peer_port)?;
        }
        writeln!(out, "{b}replay window: {} packets, sequence number: {}", s.replay_window, s.seq)?;
        if let Some(hi) = s.lease_hi {
            writeln!(out, "{b}sequence lease: up to {hi}, {} left", hi.saturating_sub(s.seq))?;
        }
    }
    writeln!(out, "{b}HA Status: {}", s.status.capitals())
}

fn limit(left: Option<u64>) -> String {
    left.map_or_else(|| "none".to_owned(), |n| n.to_string())
}

/// `ADDRESS/MASK/PROTOCOL/PORT`.
fn ident(s: &Selector) -> String {
    format!("{}/{}/{}", network(s), s.proto, s.port)
}

/// `ADDRESS/MASK`.
pub(super) fn network(s: &Selector) -> String {
    let mask = match s.addr {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(s.prefix.min(32))).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX.checked_shl(128 - u32::from(s.prefix.min(128))).unwrap_or(0))),
    };
    format!("{}/{mask}", s.addr)
}

/// `show crypto ipsec sa address`: by destination, then protocol.
fn by_address(list: &[FlowView]) -> String {
    let mut by: BTreeMap<IpAddr, Vec<&SaView>> = BTreeMap::new();
    for f in list {
        by.entry(f.local_addr).or_default().extend(&f.inbound);
        by.entry(f.peer).or_default().extend(&f.outbound);
    }
    let mut out = String::new();
    for (address, sas) in by.into_iter().filter(|(_, sas)| !sas.is_empty()) {
        let _ = writeln!(out, "\ndest address: {address}\n   protocol: ESP");
        for s in sas {
            let _ = sa(&mut out, s, 6, Depth::Sas);
        }
    }
    out
}
