//! `crypto.ipsec` and `crypto.map`: transform sets, lifetimes, entries with their flows.

use super::super::acl;
use super::super::decode::Word;
use super::super::digest;
use super::super::model::{MapInfo, OutboundInterval, ReplayInterval, TransformSet};
use super::super::raw::{Crypto, CryptoMap, MapHa, MapSeq, RawEntry, RawLifetime};
use super::super::report::{KeyPath, Report, one_of};
use super::super::values;
use super::super::words::{self, Exchange};
use super::interfaces::{self, required};
use super::{ikev2, transforms};
use crate::ike::{AuthMethod, EspTransform, Flow, Ikev2Profile, MapEntry, PreSharedKey};
use crate::sad::{Lifetime, Mode};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// The guide's default lifetimes.
const LIFETIME_DEFAULT: Lifetime = Lifetime { seconds: 3600, kilobytes: 4_608_000 };
/// Window of 1024 packets: wide enough for several CPUs and priority queues.
const WINDOW_DEFAULT: u32 = 1024;
/// Largest replay window of the kernel (XFRMA_REPLAY_ESN_MAX), packets.
const WINDOW_MAX: u32 = 4096;
/// Access lists that an error names.
const LISTS_NAMED_MAX: usize = 50;
/// Transform sets of one entry, the guide's limit.
const SETS_MAX: usize = 6;

/// The checked section.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) sets: Vec<TransformSet>,
    pub(super) entries: Vec<MapEntry>,
    pub(super) info: Vec<MapInfo>,
    pub(super) replay: BTreeMap<String, ReplayInterval>,
}

/// Pre-shared keys.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) list: &'a [PreSharedKey],
    /// Version 1 has a policy that needs one.
    pub(super) v1: bool,
}

/// What entries refer to.
struct Names<'a> {
    sets: &'a [(TransformSet, EspTransform)],
    set_names: Vec<&'a str>,
    lists: HashMap<&'a str, &'a [Word]>,
    keys: Option<Keys<'a>>,
    ikev2: &'a ikev2::Checked,
    global: Lifetime,
}

/// True when an entry speaks version 1, or when there is no entry yet.
pub(super) fn speak_v1(raw: &Crypto) -> bool {
    let mut entries =
        raw.map.iter().flat_map(|t| &t.0).flat_map(|(_, m)| &m.entries).filter_map(|(_, _, e)| e.ipsec_isakmp.as_ref()).peekable();
    entries.peek().is_none() || entries.any(|e| e.ikev1.unwrap_or(e.ikev2_profile.is_none()))
}

/// Checks both sections. `keys` is `None` when keys were refused, so that a missing one is not named twice.
pub(super) fn check(
    raw: &Crypto,
    lists: &[(Word, Vec<Word>)],
    keys: Option<Keys<'_>>,
    ikev2: &ikev2::Checked,
    interfaces: &[interfaces::Checked],
    report: &mut Report,
) -> Checked {
    let ipsec = raw.ipsec.clone().unwrap_or_default();
    let sets: Vec<(TransformSet, EspTransform)> =
        ipsec.transform_set.iter().flat_map(|t| &t.0).filter_map(|(name, set)| transforms::set(name, set, report)).collect();
    let declared: Vec<&str> = ipsec.transform_set.iter().flat_map(|t| &t.0).map(|(n, _)| n.text.as_str()).collect();
    let global = ipsec.security_association.and_then(|s| s.lifetime).map_or(LIFETIME_DEFAULT, |l| lifetime(&l, LIFETIME_DEFAULT, report));
    list_names(lists, report);
    let names = Names {
        sets: &sets,
        set_names: declared,
        lists: lists.iter().map(|(n, l)| (n.text.as_str(), l.as_slice())).collect(),
        keys,
        ikev2,
        global,
    };

    let mut out = Checked { sets: sets.iter().map(|s| s.0.clone()).collect(), ..Checked::default() };
    let maps: &[(Word, CryptoMap)] = raw.map.as_ref().map_or(&[], |t| &t.0);
    bindings(maps, interfaces, report);
    for (name, map) in maps {
        if values::name(name, report).is_none() {
            continue;
        }
        out.replay.insert(name.text.clone(), replay(map.ha.as_ref(), report));
        if map.entries.is_empty() {
            report.error_key(&name.path, "this crypto map has no entry", "add one: `1: { ipsec-isakmp: { … } }`");
        }
        let on = interfaces.iter().find(|c| c.interface.crypto_map.as_deref() == Some(&name.text));
        if on.is_none() {
            report.warn(&name.path, "no interface uses this crypto map", "add `crypto_map: { name: … }` to the outside interface");
        }
        for (seq, at, entry) in &map.entries {
            let local = on.map(|c| c.interface.groups.first().map_or(c.interface.address, |g| g.vip));
            if let Some((entry, info)) = one(&name.text, *seq, at, entry, local.map(IpAddr::V4), &names, report)
                && let Some(c) = on
            {
                out.entries.push(entry);
                out.info.push(MapInfo { interface: c.interface.name.clone(), ..info });
            }
        }
    }
    out.entries.sort_by(|a, b| (&a.map, a.seq).cmp(&(&b.map, b.seq)));
    out.info.sort_by(|a, b| (&a.map, a.seq).cmp(&(&b.map, b.seq)));
    overlaps(&out, maps, report);
    out
}

fn list_names(lists: &[(Word, Vec<Word>)], report: &mut Report) {
    for (name, _) in lists {
        match name.text.parse::<u32>() {
            Ok(100..=199 | 2000..=2699) => {}
            Ok(n) => report.error_key(
                &name.path,
                format!("access list {n} is not an extended one"),
                "use 100 to 199, 2000 to 2699, or a name that begins with a letter",
            ),
            Err(_) if name.text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                values::name(name, report);
            }
            Err(_) => report.error_key(
                &name.path,
                format!("`{}` does not name an access list", name.text),
                "use 100 to 199, 2000 to 2699, or a name that begins with a letter",
            ),
        }
    }
}

fn bindings(maps: &[(Word, CryptoMap)], interfaces: &[interfaces::Checked], report: &mut Report) {
    let names: Vec<&str> = maps.iter().map(|(n, _)| n.text.as_str()).collect();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for c in interfaces {
        let Some((word, ssp)) = &c.map else { continue };
        if !names.contains(&word.text.as_str()) {
            report.error(&word.path, format!("there is no crypto map `{}`", word.text), one_of(&word.text, &names));
        }
        if let Some((_, other)) = seen.iter().find(|(m, _)| *m == word.text) {
            report.error(
                &word.path,
                format!("`{other}` uses this crypto map already"),
                "one crypto map for several interfaces is not offered yet: write a second map",
            );
        }
        seen.push((&word.text, &c.interface.name));
        if c.interface.groups.len() > 1 {
            report.error(
                &word.path,
                "the interface has several standby groups: which virtual address is the tunnel's end is undefined",
                "keep one group on an interface with a crypto map",
            );
        }
        if let (Some(ssp), true) = (ssp, c.interface.groups.is_empty()) {
            report.error(
                &ssp.path,
                "state is transferred, but the interface has no virtual address for the tunnel's end",
                "add a standby group to this interface",
            );
        }
    }
}

fn lifetime(raw: &RawLifetime, default: Lifetime, report: &mut Report) -> Lifetime {
    let mut out = default;
    if let Some(w) = &raw.seconds
        && let Some(d) = values::duration(w, 30 * S..=168 * 3600 * S, report)
    {
        out.seconds = d.as_secs();
        if d < 120 * S {
            report.warn(&w.path, "the SAs will be renewed all the time", "use 120s or more; the guide's default is 1h");
        }
    }
    if let Some(w) = &raw.kilobytes {
        match w.text.as_str() {
            "0" => out.kilobytes = 0,
            _ => {
                if let Some(n) = values::size(w, 2560..=536_870_912, report) {
                    out.kilobytes = n;
                }
            }
        }
    }
    out
}

fn replay(ha: Option<&MapHa>, report: &mut Report) -> ReplayInterval {
    let raw = ha.and_then(|h| h.replay_interval.clone()).unwrap_or_default();
    let mut out =
        ReplayInterval { inbound_packets: 1000, inbound_time: Duration::from_millis(100), outbound: OutboundInterval::Packets(1_000_000) };
    if let Some(n) = raw.inbound.and_then(|w| values::number(&w, 1..=1_000_000, report)) {
        out.inbound_packets = n;
    }
    if let Some(d) = raw.inbound_time.and_then(|w| values::duration(&w, 10 * S / 1000..=10 * S, report)) {
        out.inbound_time = d;
    }
    if let Some(w) = raw.outbound {
        if w.text == "auto" {
            out.outbound = OutboundInterval::Auto;
        } else if let Some(n) = values::number(&w, 1..=1000_u64, report) {
            out.outbound = OutboundInterval::Packets(n * 1_000_000);
        }
    }
    out
}

fn one(
    map: &str,
    seq: u32,
    at: &Word,
    raw: &MapSeq,
    local: Option<IpAddr>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<(MapEntry, MapInfo)> {
    if raw.ipsec_manual.is_some() {
        report.error_key(
            &at.path.key("ipsec-manual"),
            "manual SAs are not offered yet: their numbers could not be renewed",
            "use `ipsec-isakmp`",
        );
        return None;
    }
    let Some(raw) = &raw.ipsec_isakmp else {
        report.error_key(
            &at.path,
            "`ipsec-isakmp` is missing",
            "write `ipsec-isakmp: { peer: […], transform_set: […], match_address: … }`",
        );
        return None;
    };
    if let Some(w) = &raw.dynamic {
        report.error_key(&w.path, "dynamic crypto maps are not offered yet", "write one entry for each peer");
        return None;
    }
    let versions = versions(raw, names, report);
    let peers = peers(raw, local, versions.as_ref(), names, report);
    let transforms = transforms(raw, names, report);
    let flows = flows(raw, names, report);
    let versions = versions?;
    let exchange = if versions.ikev1 { Exchange::V1 } else { Exchange::First };
    let pfs = match &raw.pfs {
        Some(w) => Some(words::dh_group(w, exchange, report)?),
        None => None,
    };
    let lifetime = raw.lifetime.as_ref().map_or(names.global, |l| lifetime(l, names.global, report));
    let replay_window = raw.replay_window.as_ref().map_or(Some(WINDOW_DEFAULT), |w| window(w, report))?;
    let (match_address, flows) = flows?;
    let (peers, transforms) = (peers?, transforms?);
    one_mode(raw, &transforms, &flows, local, &peers, report);
    let mut entry = MapEntry {
        map: map.to_owned(),
        seq,
        local: local.unwrap_or(IpAddr::from([0, 0, 0, 0])),
        peers,
        transforms,
        pfs,
        lifetime,
        replay_window,
        flows,
        esn: versions.esn,
        ikev1: versions.ikev1,
        ikev2: versions.ikev2,
        digest: crate::id::PolicyDigest::default(),
    };
    entry.digest = digest::map_entry(&entry);
    let description = raw.description.as_ref().map(|w| w.text.clone()).unwrap_or_default();
    Some((entry, MapInfo { map: map.to_owned(), seq, description, match_address, interface: String::new() }))
}

fn window(w: &Word, report: &mut Report) -> Option<u32> {
    let n = values::number(w, 32..=WINDOW_MAX, report)?;
    if n % 32 != 0 {
        report.error(&w.path, format!("replay window {n} is no multiple of 32"), format!("use {}", n.div_ceil(32) * 32));
        return None;
    }
    Some(n)
}

/// Versions of IKE that an entry speaks.
struct Versions {
    ikev1: bool,
    ikev2: Option<Arc<Ikev2Profile>>,
    esn: bool,
}

impl Versions {
    /// True when a pre-shared key is needed.
    fn pre_shared(&self, v1: bool) -> bool {
        let by_key = |p: &Ikev2Profile| p.local_auth == AuthMethod::PreShared || p.remote_auth == AuthMethod::PreShared;
        self.ikev1 && v1 || self.ikev2.as_deref().is_some_and(by_key)
    }
}

fn versions(raw: &RawEntry, names: &Names<'_>, report: &mut Report) -> Option<Versions> {
    let ikev2 = match &raw.ikev2_profile {
        Some(w) if !names.ikev2.names.contains(&w.text) => {
            let known: Vec<&str> = names.ikev2.names.iter().map(String::as_str).collect();
            report.error(&w.path, format!("there is no IKEv2 profile `{}`", w.text), one_of(&w.text, &known));
            return None;
        }
        // A profile that was refused is named where it stands.
        Some(w) => Some(names.ikev2.profiles.iter().find(|p| p.profile.name == w.text)?.profile.clone()),
        None => None,
    };
    let ikev1 = raw.ikev1.unwrap_or(ikev2.is_none());
    let at = |key: &str| raw.path.key(key);
    if !ikev1 && ikev2.is_none() {
        report.error(&at("ikev1"), "neither version of IKE is left", "name an `ikev2_profile`, or take `ikev1` out");
        return None;
    }
    let esn = raw.esn.unwrap_or(false);
    if esn && ikev2.is_none() {
        report.error(&at("esn"), "extended sequence numbers need IKEv2 here", "name an `ikev2_profile`, or take `esn` out");
        return None;
    }
    if ikev1 && ikev2.is_some() {
        report.warn(
            &at("ikev1"),
            "whoever drops packets on the way can force version 1",
            "write `ikev1: false` once the peer speaks IKEv2",
        );
    }
    Some(Versions { ikev1, ikev2, esn })
}

/// One policy of the kernel has one mode; transport mode carries what the two gateways themselves say.
fn one_mode(raw: &RawEntry, sets: &[EspTransform], flows: &[Flow], local: Option<IpAddr>, peers: &[IpAddr], report: &mut Report) {
    let at = raw.path.key("transform_set");
    let Some(mode) = sets.first().map(|s| s.mode) else { return };
    if sets.iter().any(|s| s.mode != mode) {
        report.error(&at, "transform sets of both modes in one entry", "keep the sets of one mode");
        return;
    }
    let between = |f: &Flow| {
        local.is_none_or(|l| f.local.addr == l && f.local.prefix == 32) && peers.contains(&f.remote.addr) && f.remote.prefix == 32
    };
    if mode == Mode::Transport
        && let Some(f) = flows.iter().find(|f| !between(f))
    {
        let end = local.map_or_else(String::new, |l| format!(", such as `permit gre host {l} host PEER`"));
        report.error(
            &at,
            format!(
                "transport mode protects what the two gateways say to each other, but line {} is wider: {:?} to {:?}",
                f.ace + 1,
                f.local,
                f.remote
            ),
            format!("use `mode: tunnel`, or permit the two addresses only{end}"),
        );
    }
}

fn peers(
    raw: &RawEntry,
    local: Option<IpAddr>,
    versions: Option<&Versions>,
    names: &Names<'_>,
    report: &mut Report,
) -> Option<Vec<IpAddr>> {
    let words = raw.peer.as_deref().unwrap_or_default();
    if words.is_empty() {
        report.error_key(&raw.path, "`peer` is missing", "write the peer's address: `peer: [192.0.2.1]`");
        return None;
    }
    let mut out: Vec<IpAddr> = Vec::new();
    for w in words {
        let addr = IpAddr::V4(values::address(w, report)?);
        if Some(addr) == local {
            report.error(&w.path, format!("{addr} is our own end of the tunnel"), "write the peer's address");
            return None;
        }
        if out.contains(&addr) {
            report.error(&w.path, format!("{addr} stands twice"), "take one out");
            return None;
        }
        let id = versions.and_then(|v| v.ikev2.as_ref()).and_then(|p| p.remote_id.as_ref());
        let missing =
            |k: Keys<'_>| versions.is_some_and(|v| v.pre_shared(k.v1)) && !k.list.iter().any(|k| k.peer.specificity(addr, id).is_some());
        if names.keys.is_some_and(missing) {
            report.error(
                &w.path,
                format!("there is no key for peer {addr}"),
                format!("add `{{ address: {addr}, secret_file: … }}` to `crypto.isakmp.key`"),
            );
        }
        out.push(addr);
    }
    Some(out)
}

fn transforms(raw: &RawEntry, names: &Names<'_>, report: &mut Report) -> Option<Vec<EspTransform>> {
    let words = raw.transform_set.as_deref().unwrap_or_default();
    if words.is_empty() {
        report.error_key(&raw.path, "`transform_set` is missing", format!("name one: {}", names.set_names.join(", ")));
        return None;
    }
    if let Some(w) = words.get(SETS_MAX) {
        report.error(&w.path, format!("more than {SETS_MAX} transform sets"), "keep the strongest");
        return None;
    }
    let mut out = Vec::new();
    for w in words {
        if !names.set_names.contains(&w.text.as_str()) {
            report.error(&w.path, format!("there is no transform set `{}`", w.text), one_of(&w.text, &names.set_names));
            return None;
        }
        out.extend(names.sets.iter().find(|(s, _)| s.name == w.text).map(|(_, t)| t.clone()));
    }
    Some(out)
}

fn flows(raw: &RawEntry, names: &Names<'_>, report: &mut Report) -> Option<(String, Vec<Flow>)> {
    let w = required(raw.match_address.as_ref(), &raw.path, "match_address", "name the access list of the traffic to protect", report)?;
    let Some(lines) = names.lists.get(w.text.as_str()) else {
        let mut known: Vec<&str> = names.lists.keys().copied().collect();
        known.sort_unstable();
        known.truncate(LISTS_NAMED_MAX);
        report.error(&w.path, format!("there is no access list `{}`", w.text), one_of(&w.text, &known));
        return None;
    };
    let before = report.error_count();
    let flows = acl::flows(lines, report);
    if flows.is_empty() && report.error_count() == before {
        report.error(&w.path, format!("access list {} permits nothing", w.text), "add a `permit` line");
    }
    Some((w.text.clone(), flows))
}

/// Two entries must not protect the very same flow: the kernel has one policy for it.
fn overlaps(checked: &Checked, maps: &[(Word, CryptoMap)], report: &mut Report) {
    let mut seen: BTreeMap<(crate::sad::Selector, crate::sad::Selector), (&str, u32)> = BTreeMap::new();
    for e in &checked.entries {
        for f in &e.flows {
            match seen.get(&(f.local, f.remote)) {
                Some((map, seq)) if (*map, *seq) != (e.map.as_str(), e.seq) => {
                    let at = maps
                        .iter()
                        .find(|(n, _)| n.text == e.map)
                        .map_or_else(KeyPath::default, |(n, _)| n.path.key(&e.seq.to_string()).key("ipsec-isakmp").key("match_address"));
                    report.error(
                        &at,
                        format!("{:?} to {:?} is protected by {map} {seq} already", f.local, f.remote),
                        "give each flow one entry; name further peers in `peer`",
                    );
                }
                Some(_) => {}
                None => {
                    seen.insert((f.local, f.remote), (&e.map, e.seq));
                }
            }
        }
    }
}
