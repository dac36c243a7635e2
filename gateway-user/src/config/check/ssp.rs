//! `ssp`: the partner, and what must hold between its addresses and ours.

use super::super::decode::Word;
use super::super::model::SspGroup;
use super::super::raw::RawSsp;
use super::super::report::{KeyPath, Report, one_of};
use super::super::secrets::Secrets;
use super::super::values;
use super::interfaces::{Checked, required};
use crate::ssp::DEFAULT_PORT;
use std::net::{IpAddr, Ipv4Addr};

/// The SSP group, if there is one.
pub(super) fn check(raw: &[(Word, RawSsp)], interfaces: &[Checked], secrets: &mut Secrets<'_>, report: &mut Report) -> Option<SspGroup> {
    if let Some((second, _)) = raw.get(1) {
        report.error_key(&second.path, "a second SSP group", "keep one: a node has one partner");
    }
    let (word, raw) = raw.first()?;
    let Ok(id) = word.text.parse::<u32>() else {
        report.error_key(&word.path, format!("`{}` is not an SSP group's number", word.text), "use a whole number: `1`");
        return None;
    };
    let port = match &raw.port {
        Some(w) => values::number(w, 1..=u16::MAX, report),
        None => Some(DEFAULT_PORT),
    };
    let redundancy = redundancy(raw, interfaces, report);
    let secret = secrets.ssp(&raw.path, raw.secret_file.as_ref(), raw.secret.as_ref(), report);
    let remote = required(raw.remote.as_ref(), &raw.path, "remote", "write the partner's own address", report)
        .and_then(|w| Some((w, values::address(w, report)?)));
    let (word, remote) = remote?;
    let near = partner_address(word, remote, interfaces, report)?;
    if let Some(w) = &raw.remote_outside
        && let Some(far) = values::address(w, report)
    {
        order(w, far, remote, near, interfaces, report);
    }
    Some(SspGroup { id, remote: IpAddr::V4(remote), local: IpAddr::V4(near.interface.address), port: port?, redundancy, secret: secret? })
}

fn redundancy(raw: &RawSsp, interfaces: &[Checked], report: &mut Report) -> Vec<String> {
    let groups: Vec<&str> = interfaces.iter().flat_map(|c| &c.interface.groups).map(|g| g.name.as_str()).collect();
    let mut out: Vec<String> = Vec::new();
    for w in raw.redundancy.iter().flatten() {
        if !groups.contains(&w.text.as_str()) {
            report.error(&w.path, format!("there is no standby group named `{}`", w.text), one_of(&w.text, &groups));
        } else if out.contains(&w.text) {
            report.error(&w.path, format!("`{}` stands twice", w.text), "take one out");
        } else {
            out.push(w.text.clone());
        }
    }
    let at = raw.path.key("redundancy");
    if raw.redundancy.as_ref().is_none_or(Vec::is_empty) {
        let names = if groups.is_empty() { "NAME".to_owned() } else { groups.join(", ") };
        report.error_key(&at, "`redundancy` is missing", format!("name the standby groups to follow: `redundancy: [{names}]`"));
        return out;
    }
    for g in groups {
        if !raw.redundancy.iter().flatten().any(|w| w.text == g) {
            report.error_key(&at, format!("standby group `{g}` is not named: it would change state on its own"), format!("add `{g}`"));
        }
    }
    out
}

/// The interface that shares the partner's subnet.
fn partner_address<'c>(word: &Word, remote: Ipv4Addr, interfaces: &'c [Checked], report: &mut Report) -> Option<&'c Checked> {
    if let Some(c) = interfaces.iter().find(|c| c.interface.address == remote) {
        report.error(&word.path, format!("{remote} is this node's own address on `{}`", c.interface.name), "write the partner's address");
        return None;
    }
    if let Some(g) = interfaces.iter().flat_map(|c| &c.interface.groups).find(|g| g.vip == remote) {
        report.error(&word.path, format!("{remote} is the virtual address of group {}", g.group), "write the partner's own address");
        return None;
    }
    let near = interfaces.iter().find(|c| values::in_subnet(remote, c.interface.address, c.interface.prefix));
    if near.is_none() {
        let nets: Vec<String> = interfaces
            .iter()
            .map(|c| format!("{}/{}", values::network(c.interface.address, c.interface.prefix), c.interface.prefix))
            .collect();
        report.error(
            &word.path,
            format!("{remote} is in no interface's subnet"),
            format!("use the partner's address in {}", nets.join(" or ")),
        );
    }
    near
}

/// With equal priorities the higher address is active, so one node must be the higher one on every interface.
fn order(word: &Word, far: Ipv4Addr, remote: Ipv4Addr, near: &Checked, interfaces: &[Checked], report: &mut Report) {
    let Some(other) = interfaces.iter().find(|c| values::in_subnet(far, c.interface.address, c.interface.prefix)) else {
        report.error(&word.path, format!("{far} is in no interface's subnet"), "write the partner's own address on the other interface");
        return;
    };
    if other.interface.name == near.interface.name {
        report.error(
            &word.path,
            format!("{far} is on the same interface as `remote`"),
            "write the partner's own address on the other interface",
        );
        return;
    }
    if other.interface.address == far {
        report.error(&word.path, format!("{far} is this node's own address"), "write the partner's address");
        return;
    }
    let here = near.interface.address > remote;
    let there = other.interface.address > far;
    if here != there {
        let side = |higher: bool| if higher { "higher" } else { "lower" };
        report.error(
            &word.path,
            format!(
                "this node's address is {} on `{}` but {} on `{}`: each node would be active on one side",
                side(here),
                near.interface.name,
                side(there),
                other.interface.name
            ),
            "renumber one interface so that one node has the higher address on both",
        );
    }
}

/// A key that names the SSP group.
pub(super) fn names_group(word: &Word, group: Option<&str>, report: &mut Report) -> bool {
    let known: Vec<&str> = group.into_iter().collect();
    let ok = known.contains(&word.text.as_str());
    if !ok {
        let cure = if known.is_empty() { "add it under `ssp`, or take this key out".to_owned() } else { one_of(&word.text, &known) };
        report.error(&word.path, format!("there is no SSP group {}", word.text), cure);
    }
    ok
}

/// IKE and IPsec state must be bound to the group both or not at all.
pub(super) fn bindings(
    group: Option<(&str, &KeyPath)>,
    isakmp: Option<&Word>,
    isakmp_at: &KeyPath,
    interfaces: &[Checked],
    report: &mut Report,
) -> bool {
    let id = group.map(|g| g.0);
    let mut ike = false;
    if let Some(w) = isakmp {
        ike = names_group(w, id, report);
    }
    let mut ipsec = false;
    let mut unbound: Vec<&Word> = Vec::new();
    for (map, ssp) in interfaces.iter().filter_map(|c| c.map.as_ref()) {
        match ssp {
            Some(w) => ipsec |= names_group(w, id, report),
            None => unbound.push(map),
        }
    }
    let Some((id, path)) = group else { return false };
    match (ike, ipsec) {
        (true, true) => {
            for map in unbound {
                report.error(
                    &map.path,
                    "this crypto map is not bound to the SSP group as the others are",
                    format!("add `ssp: {id}` beside `name`"),
                );
            }
        }
        (true, false) => match unbound.first() {
            Some(map) => report.error(
                &map.path,
                "IKE state is transferred, but the state of its IPsec SAs is not",
                format!("add `ssp: {id}` beside `name`"),
            ),
            None if isakmp.is_some() => {
                report.error_key(
                    path,
                    "no interface has a crypto map bound to this group",
                    format!("add `crypto_map: {{ name: …, ssp: {id} }}` to the outside interface"),
                );
            }
            None => {}
        },
        (false, true) if isakmp.is_none() => {
            report.error_key(
                isakmp_at,
                "IPsec state is transferred, but IKE state is not: nothing could be rekeyed after a takeover",
                format!("add `ssp: {id}` under `crypto.isakmp`"),
            );
        }
        (false, false) if isakmp.is_none() && interfaces.iter().filter_map(|c| c.map.as_ref()).all(|m| m.1.is_none()) => {
            report.warn(
                path,
                "nothing is bound to this group: SAs will not survive a failover",
                format!("add `ssp: {id}` under `crypto.isakmp` and to the interface's crypto_map"),
            );
        }
        (false, _) => {}
    }
    ike && ipsec
}
