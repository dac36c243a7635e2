//! `show crypto ikev2 …`.

use super::both;
use crate::config::{Config, Profile, identity_text, ikev2_encr_word, ikev2_integ_word, ikev2_prf_word};
use crate::crypto::DhGroup;
use crate::daemon::views::{Ikev2SaView, IsakmpSaView, cookie};
use crate::ike::{AuthMethod, Ikev2Proposal};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write;

/// `show crypto ikev2 sa [detailed]`: under each row what was agreed.
pub(super) fn sas(rows: &[IsakmpSaView], detailed: bool) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![r.conn_id.to_string(), r.local.to_string(), r.remote.to_string(), format!("{:?}", r.state), r.status.capitals().to_owned()]
        })
        .collect();
    let table = super::table(&["Tunnel-id", "Local", "Remote", "Status", "HA Status"], &cells);
    let mut lines = table.lines();
    let mut out = format!("{}\n", lines.next().unwrap_or_default());
    for (line, r) in lines.zip(rows) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{line}");
        if let Some(d) = &r.ikev2 {
            let _ = agreed(&mut out, d);
            if detailed {
                let _ = detail(&mut out, r, d);
            }
        }
    }
    out
}

fn agreed(out: &mut String, d: &Ikev2SaView) -> std::fmt::Result {
    let hash = d.integrity.map_or_else(|| "None".to_owned(), str::to_ascii_uppercase);
    let groups: Vec<String> = std::iter::once(d.group).chain(d.additional.iter().copied()).map(|g| g.to_string()).collect();
    writeln!(
        out,
        "      Encr: {}, PRF: {}, Hash: {hash}, DH Grp: {}, Auth sign: {}, Auth verify: {}",
        d.encryption.to_ascii_uppercase(),
        d.prf.to_ascii_uppercase(),
        groups.join("+"),
        d.sign,
        d.verify
    )?;
    writeln!(out, "      Life/Active Time: {}/{} sec", d.lifetime_s, d.active_s)
}

fn detail(out: &mut String, r: &IsakmpSaView, d: &Ikev2SaView) -> std::fmt::Result {
    let (local, remote) = if r.initiator { (r.id.initiator, r.id.responder) } else { (r.id.responder, r.id.initiator) };
    writeln!(out, "      Local spi: {}, Remote spi: {}", cookie(local), cookie(remote))?;
    writeln!(out, "      Local id: {}", d.local_id.clone().unwrap_or_else(|| r.local.ip().to_string()))?;
    writeln!(out, "      Remote id: {}", d.remote_id)?;
    writeln!(out, "      Local next msg id: {}, Remote next msg id: {}", d.next_request, d.next_remote_request)?;
    writeln!(out, "      Profile: {}", d.profile)?;
    writeln!(out, "      Fragmentation: {}", if d.fragmentation { "on" } else { "off" })?;
    writeln!(out, "      NAT detected: {}", d.nat)?;
    writeln!(out, "      Initiator of SA: {}", if r.initiator { "Yes" } else { "No" })
}

/// `show crypto ikev2 proposal`, one proposal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct ProposalView {
    name: String,
    encryption: Vec<&'static str>,
    integrity: Vec<&'static str>,
    prf: Vec<&'static str>,
    groups: Vec<String>,
    additional: Vec<Vec<String>>,
}

impl ProposalView {
    fn new(p: &Ikev2Proposal) -> Self {
        Self {
            name: p.name.clone(),
            encryption: p.encryption.iter().map(|a| ikev2_encr_word(*a)).collect(),
            integrity: p.integrity.iter().map(|a| ikev2_integ_word(*a)).collect(),
            prf: p.prf.iter().map(|a| ikev2_prf_word(*a)).collect(),
            groups: p.groups.iter().map(|g| group(*g)).collect(),
            additional: p.additional.iter().map(|round| round.iter().map(|g| group(*g)).collect()).collect(),
        }
    }
}

/// A group as IOS names it.
fn group(g: DhGroup) -> String {
    let name = match g {
        DhGroup::Modp768 => "DH_GROUP_768_MODP",
        DhGroup::Modp1024 => "DH_GROUP_1024_MODP",
        DhGroup::Modp1536 => "DH_GROUP_1536_MODP",
        DhGroup::Modp2048 => "DH_GROUP_2048_MODP",
        DhGroup::Modp3072 => "DH_GROUP_3072_MODP",
        DhGroup::Modp4096 => "DH_GROUP_4096_MODP",
        DhGroup::Modp6144 => "DH_GROUP_6144_MODP",
        DhGroup::Modp8192 => "DH_GROUP_8192_MODP",
        DhGroup::Ecp256 => "DH_GROUP_256_ECP",
        DhGroup::Ecp384 => "DH_GROUP_384_ECP",
        DhGroup::Ecp521 => "DH_GROUP_521_ECP",
        DhGroup::X25519 => "CURVE25519",
        DhGroup::MlKem768 => "ML_KEM_768",
    };
    format!("{name}/Group {}", g.number())
}

/// Answers `show crypto ikev2 proposal [NAME]`: those of the manifest, and the default ones where a profile uses them.
pub(super) fn proposals(config: &Config, name: Option<&str>) -> Result<(Value, String), String> {
    let mut list: Vec<ProposalView> = Vec::new();
    let used = config.ikev2_profiles.iter().flat_map(|p| &p.profile.proposals);
    for p in config.ikev2_proposals.iter().chain(used).map(ProposalView::new) {
        if name.is_none_or(|n| p.name == n) && !list.contains(&p) {
            list.push(p);
        }
    }
    if let (Some(n), true) = (name, list.is_empty()) {
        return Err(format!("there is no IKEv2 proposal {n}"));
    }
    both(&list, |list| {
        let mut out = String::new();
        for p in list {
            let _ = proposal(&mut out, p);
        }
        out
    })
}

fn proposal(out: &mut String, p: &ProposalView) -> std::fmt::Result {
    let words = |list: &[&str]| list.iter().map(|w| w.to_ascii_uppercase()).collect::<Vec<_>>().join(" ");
    writeln!(out, "IKEv2 proposal: {}", p.name)?;
    writeln!(out, "     Encryption : {}", words(&p.encryption))?;
    writeln!(out, "     Integrity  : {}", if p.integrity.is_empty() { "none".to_owned() } else { words(&p.integrity) })?;
    writeln!(out, "     PRF        : {}", words(&p.prf))?;
    writeln!(out, "     DH Group   : {}", p.groups.join(" "))?;
    for (n, round) in p.additional.iter().enumerate() {
        writeln!(out, "     Additional : {} {}", n + 1, round.join(" "))?;
    }
    Ok(())
}

/// `show crypto ikev2 profile`, one profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct ProfileView {
    name: String,
    proposals: Vec<String>,
    local_identity: Option<String>,
    remote_identity: Option<String>,
    local_authentication: &'static str,
    remote_authentication: &'static str,
    trustpoint: Option<String>,
    ppk: Option<String>,
    ppk_required: bool,
    lifetime_s: u64,
    fragment_bytes: u16,
    childless: bool,
    /// Crypto map entries that use it.
    entries: Vec<String>,
}

const fn method(m: AuthMethod) -> &'static str {
    match m {
        AuthMethod::PreShared => "pre-share",
        AuthMethod::Signature => "signature",
    }
}

impl ProfileView {
    fn new(config: &Config, p: &Profile) -> Self {
        let of = &p.profile;
        let uses = |e: &&crate::ike::MapEntry| e.ikev2.as_ref().is_some_and(|x| x.name == of.name);
        Self {
            name: of.name.clone(),
            proposals: p.proposals.clone(),
            local_identity: of.local_id.as_ref().map(identity_text),
            remote_identity: of.remote_id.as_ref().map(identity_text),
            local_authentication: method(of.local_auth),
            remote_authentication: method(of.remote_auth),
            trustpoint: p.trustpoint.clone(),
            ppk: of.ppk.as_ref().map(|k| String::from_utf8_lossy(&k.id).into_owned()),
            ppk_required: of.ppk.as_ref().is_some_and(|k| k.required),
            lifetime_s: of.lifetime_s,
            fragment_bytes: of.fragment_bytes,
            childless: of.childless,
            entries: config.ike.entries.iter().filter(uses).map(|e| format!("{} {}", e.map, e.seq)).collect(),
        }
    }
}

/// Answers `show crypto ikev2 profile [NAME]`.
pub(super) fn profiles(config: &Config, name: Option<&str>) -> Result<(Value, String), String> {
    let wanted = config.ikev2_profiles.iter().filter(|p| name.is_none_or(|n| p.profile.name == n));
    let list: Vec<ProfileView> = wanted.map(|p| ProfileView::new(config, p)).collect();
    if let (Some(n), true) = (name, list.is_empty()) {
        return Err(format!("there is no IKEv2 profile {n}"));
    }
    both(&list, |list| {
        let mut out = String::new();
        for p in list {
            let _ = profile(&mut out, p);
        }
        out
    })
}

fn profile(out: &mut String, p: &ProfileView) -> std::fmt::Result {
    let or = |v: &Option<String>, none: &str| v.clone().unwrap_or_else(|| none.to_owned());
    writeln!(out, "IKEv2 profile: {}", p.name)?;
    writeln!(out, " Proposals: {}", p.proposals.join(", "))?;
    writeln!(out, " Local identity: {}", or(&p.local_identity, "none"))?;
    writeln!(out, " Remote identity: {}", or(&p.remote_identity, "none"))?;
    writeln!(out, " Local authentication method: {}", p.local_authentication)?;
    writeln!(out, " Remote authentication method(s): {}", p.remote_authentication)?;
    writeln!(out, " Trustpoint(s): {}", or(&p.trustpoint, "none"))?;
    writeln!(out, " PPK: {}{}", or(&p.ppk, "none"), if p.ppk_required { ", required" } else { "" })?;
    writeln!(out, " Lifetime: {} seconds", p.lifetime_s)?;
    match p.fragment_bytes {
        0 => writeln!(out, " Fragmentation: off")?,
        n => writeln!(out, " Fragmentation: MTU {n}")?,
    }
    writeln!(out, " Childless: {}", if p.childless { "on" } else { "off" })?;
    writeln!(out, " Crypto map entries: {}", if p.entries.is_empty() { "none".to_owned() } else { p.entries.join(", ") })
}
