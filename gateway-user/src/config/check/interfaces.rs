//! `interfaces`: addresses, HSRP groups, tracking.

use super::super::decode::Word;
use super::super::model::Interface;
use super::super::raw::{Group, RawInterface, Standby, Timers};
use super::super::report::{KeyPath, Report, one_of};
use super::super::values;
use crate::hsrp::GroupConfig;
use std::net::Ipv4Addr;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// HSRP's defaults (RFC 2281 5.5, the guide's `standby timers`).
const HELLO_DEFAULT: Duration = Duration::from_secs(3);
const HOLD_DEFAULT: Duration = Duration::from_secs(10);
const HELLO_MIN: Duration = Duration::from_millis(15);
const HELLO_MAX: Duration = Duration::from_secs(254);
const HOLD_MAX: Duration = Duration::from_secs(255);
const DELAY_MAX: Duration = Duration::from_secs(10_000);
/// Longest device name of Linux (IFNAMSIZ less the final zero).
const DEVICE_MAX: usize = 15;

/// A checked interface and the raw words that later checks point at.
pub(super) struct Checked {
    pub(super) interface: Interface,
    pub(super) path: KeyPath,
    /// Name of the map and the group of `crypto_map`.
    pub(super) map: Option<(Word, Option<Word>)>,
    /// Path and group, in the order of `interface.groups`.
    group_paths: Vec<KeyPath>,
    track: Vec<(Word, String)>,
}

/// All interfaces of the manifest, each for itself.
pub(super) fn check(raw: &[(Word, RawInterface)], report: &mut Report) -> Vec<Checked> {
    raw.iter().filter_map(|(name, i)| one(name, i, report)).collect()
}

fn one(name: &Word, raw: &RawInterface, report: &mut Report) -> Option<Checked> {
    let label = values::name(name, report);
    let device = required(raw.device.as_ref(), &raw.path, "device", "name the kernel's device: `device: eth0`", report).and_then(|d| {
        let ok = !d.text.is_empty() && d.text.len() <= DEVICE_MAX && !d.text.contains(|c: char| c == '/' || c.is_whitespace());
        if !ok {
            report.error(&d.path, format!("`{}` is no name of a device", d.text), format!("use up to {DEVICE_MAX} characters, no `/`"));
        }
        ok.then(|| d.text.clone())
    });
    let address = required(raw.address.as_ref(), &raw.path, "address", "write this node's own address: `192.0.2.1/24`", report)
        .and_then(|a| values::address_prefix(a, report));
    let mut checked = Checked {
        interface: Interface {
            name: label.clone().unwrap_or_default(),
            device: device.clone().unwrap_or_default(),
            description: raw.description.as_ref().map(|w| w.text.clone()).unwrap_or_default(),
            address: address.map_or(Ipv4Addr::UNSPECIFIED, |a| a.0),
            prefix: address.map_or(32, |a| a.1),
            groups: Vec::new(),
            track: Vec::new(),
            crypto_map: None,
        },
        path: raw.path.clone(),
        map: None,
        group_paths: Vec::new(),
        track: Vec::new(),
    };
    if let (Some(standby), Some(address)) = (&raw.standby, address) {
        groups(&mut checked, standby, address, report);
    }
    if let Some(u) = &raw.crypto_map
        && let Some(map) = required(u.name.as_ref(), &u.path, "name", "name a crypto map: `{ name: CMAP_1, ssp: 1 }`", report)
    {
        checked.interface.crypto_map = Some(map.text.clone());
        checked.map = Some((map.clone(), u.ssp.clone()));
    }
    (label.is_some() && device.is_some() && address.is_some()).then_some(checked)
}

/// A key that must be there.
pub(super) fn required<'w>(word: Option<&'w Word>, at: &KeyPath, key: &str, cure: &str, report: &mut Report) -> Option<&'w Word> {
    if word.is_none() {
        report.error_key(at, format!("`{key}` is missing"), cure);
    }
    word
}

fn groups(checked: &mut Checked, raw: &Standby, address: (Ipv4Addr, u8), report: &mut Report) {
    if let Some(version) = &raw.version
        && version.text != "1"
    {
        report.error(&version.path, format!("HSRP version {} is not offered yet", version.text), "use 1, or leave `version` out");
    }
    let delay = raw.delay.clone().unwrap_or_default();
    let wait = |w: &Option<Word>, report: &mut Report| {
        w.as_ref().and_then(|w| values::duration(w, Duration::ZERO..=DELAY_MAX, report)).unwrap_or_default()
    };
    let minimum = wait(&delay.minimum, report);
    let reload = wait(&delay.reload, report);
    let Some(groups) = &raw.groups else {
        report.error_key(&raw.path, "`groups` is missing", "write `groups: { 1: { name: …, ip: … } }`, or take `standby` out");
        return;
    };
    for (number, group) in &groups.0 {
        let Ok(n) = number.text.parse::<u8>() else {
            report.error_key(&number.path, format!("group number `{}` is out of range", number.text), "use 0 to 255");
            continue;
        };
        if let Some(mut config) = one_group(n, group, address, report) {
            config.delay_minimum = minimum;
            config.delay_reload = reload;
            checked.interface.groups.push(config);
            checked.group_paths.push(group.path.clone());
        }
        for t in group.track.iter().flatten() {
            checked.track.push((t.clone(), group.name.as_ref().map(|w| w.text.clone()).unwrap_or_default()));
            if !checked.interface.track.contains(&t.text) {
                checked.interface.track.push(t.text.clone());
            }
        }
    }
}

fn one_group(number: u8, raw: &Group, (own, prefix): (Ipv4Addr, u8), report: &mut Report) -> Option<GroupConfig> {
    let name = required(raw.name.as_ref(), &raw.path, "name", "name the group, as `redundancy` will: `name: ISP`", report)
        .and_then(|w| values::name(w, report));
    let vip = required(raw.ip.as_ref(), &raw.path, "ip", "write the group's virtual address: `ip: 192.0.2.1`", report)
        .and_then(|w| virtual_address(w, own, prefix, report));
    let (hello, hold) = timers(&raw.timers.clone().unwrap_or_default(), report)?;
    let priority = match &raw.priority {
        Some(w) => values::number(w, 0..=255_u8, report)?,
        None => 100,
    };
    let authentication = match &raw.authentication {
        Some(w) if w.text.is_empty() || w.text.len() > 8 || !w.text.is_ascii() => {
            report.error(
                &w.path,
                "HSRP authentication is 1 to 8 ASCII characters",
                "shorten it; it is sent in clear and protects against mistakes only",
            );
            return None;
        }
        Some(w) => auth_bytes(w.text.as_bytes()),
        None => auth_bytes(b"cisco"),
    };
    Some(GroupConfig {
        group: number,
        name: name?,
        vip: vip?,
        address: own,
        priority,
        hello,
        hold,
        preempt: raw.preempt.unwrap_or(false),
        authentication,
        delay_minimum: Duration::ZERO,
        delay_reload: Duration::ZERO,
    })
}

fn virtual_address(word: &Word, own: Ipv4Addr, prefix: u8, report: &mut Report) -> Option<Ipv4Addr> {
    let vip = values::address(word, report)?;
    let net = values::network(own, prefix);
    if vip == own {
        report.error(&word.path, format!("{vip} is this node's own address"), "use an address that neither node has of its own");
        return None;
    }
    if !values::in_subnet(vip, own, prefix) {
        report.error(
            &word.path,
            format!("{vip} is outside of the interface's subnet {net}/{prefix}"),
            format!("use an address inside {net}/{prefix}"),
        );
        return None;
    }
    if vip == net || vip == values::broadcast(own, prefix) {
        report.error(&word.path, format!("{vip} is no host's address in {net}/{prefix}"), "use an address inside the subnet");
        return None;
    }
    Some(vip)
}

fn timers(raw: &Timers, report: &mut Report) -> Option<(Duration, Duration)> {
    let hello = match &raw.hello {
        Some(w) => values::duration(w, HELLO_MIN..=HELLO_MAX, report)?,
        None => HELLO_DEFAULT,
    };
    let hold = match &raw.hold {
        Some(w) => values::duration(w, HELLO_MIN..=HOLD_MAX, report)?,
        None => HOLD_DEFAULT,
    };
    let at = raw.hold.as_ref().or(raw.hello.as_ref()).map_or(&raw.path, |w| &w.path);
    if hold <= hello {
        report.error(
            at,
            format!("hold time {} is not longer than hello time {}", values::show_duration(hold), values::show_duration(hello)),
            format!("use at least {}", values::show_duration(hello * 3)),
        );
        return None;
    }
    if hold < hello * 3 {
        report.warn(
            at,
            "one lost hello could cause a takeover",
            format!("use a hold time of at least {}", values::show_duration(hello * 3)),
        );
    }
    if hello > HELLO_DEFAULT + S * 57 {
        report.warn(at, "a takeover will take minutes", "use a shorter hello time");
    }
    Some((hello, hold))
}

fn auth_bytes(text: &[u8]) -> [u8; 8] {
    let mut out = [0; 8];
    out[..text.len()].copy_from_slice(text);
    out
}

/// What the interfaces must agree on.
pub(super) fn between(all: &[Checked], report: &mut Report) {
    for (n, a) in all.iter().enumerate() {
        for b in &all[..n] {
            if a.interface.device == b.interface.device {
                report.error(
                    &a.path.key("device"),
                    format!("device {} is used by `{}` too", a.interface.device, b.interface.name),
                    "give each interface its own device",
                );
            }
            let shortest = a.interface.prefix.min(b.interface.prefix);
            if values::in_subnet(a.interface.address, b.interface.address, shortest) {
                report.error(
                    &a.path.key("address"),
                    format!("its subnet overlaps with that of `{}`", b.interface.name),
                    "inside and outside need subnets of their own",
                );
            }
        }
    }
    let groups: Vec<(&KeyPath, &GroupConfig)> = all.iter().flat_map(|c| c.group_paths.iter().zip(&c.interface.groups)).collect();
    for (n, (path, g)) in groups.iter().enumerate() {
        for (_, other) in &groups[..n] {
            if g.group == other.group {
                report.error_key(path, format!("group number {} stands twice", g.group), "inside and outside belong to separate groups");
            }
            if g.name == other.name {
                report.error(&path.key("name"), format!("two groups are named `{}`", g.name), "give each group its own name");
            }
            if g.vip == other.vip {
                report.error(
                    &path.key("ip"),
                    format!("{} is the address of group {} too", g.vip, other.group),
                    "give each group its own address",
                );
            }
        }
        if let Some((_, first)) = groups.first()
            && g.priority != first.priority
        {
            report.error(
                &path.key("priority"),
                format!("priority {} differs from {} of group {}", g.priority, first.priority, first.group),
                "use one priority for all groups of both nodes; the addresses decide who is active",
            );
        }
    }
    tracking(all, report);
}

/// Groups on different interfaces must change state together, so each interface tracks every other one that has a group.
fn tracking(all: &[Checked], report: &mut Report) {
    let names: Vec<&str> = all.iter().map(|c| c.interface.name.as_str()).collect();
    for c in all {
        for (word, group) in &c.track {
            if word.text == c.interface.name {
                report.error(&word.path, format!("group {group} tracks its own interface"), "name the other interface");
            } else if !names.contains(&word.text.as_str()) {
                report.error(&word.path, format!("there is no interface `{}`", word.text), one_of(&word.text, &names));
            }
        }
        for path in c.interface.groups.iter().zip(&c.group_paths).map(|(_, p)| p) {
            for other in all.iter().filter(|o| o.interface.name != c.interface.name && !o.interface.groups.is_empty()) {
                let tracked = c.track.iter().any(|(w, _)| w.text == other.interface.name && w.path.0.starts_with(&path.0));
                if !tracked {
                    report.error_key(
                        path,
                        format!(
                            "`{}` does not track `{}`: one could be active while the other is standby, a black hole",
                            c.interface.name, other.interface.name
                        ),
                        format!("add `track: [{}]`", other.interface.name),
                    );
                }
            }
        }
    }
}
