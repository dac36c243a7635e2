//! From the raw manifest to the checked model.

mod ikev2;
mod interfaces;
mod isakmp;
mod keys;
mod maps;
mod pki;
mod ssp;
mod transforms;

use super::digest;
use super::model::{Config, DataplaneConfig, XdpMode};
use super::raw::{Isakmp, Manifest, RawDataplane};
use super::report::Report;
use super::secrets::Secrets;
use super::values;
use crate::ike::{AuthMethod, IkeConfig};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where the control socket is, unless the manifest says otherwise.
pub const CONTROL_SOCKET: &str = "/run/gateway/control.sock";
/// Where maps and programs are pinned, unless the manifest says otherwise.
const PIN_DIR: &str = "/sys/fs/bpf/gateway";

/// Checks everything; `None` when something was refused (the report knows what).
pub(super) fn check(raw: &Manifest, secrets: &mut Secrets<'_>, report: &mut Report) -> Option<Config> {
    // What is read across items is checked only while those items are sound: follow-up errors would hide the cause.
    let mut faces = interfaces::check(raw.interfaces.as_ref().map_or(&[], |t| &t.0), report);
    if raw.interfaces.as_ref().is_none_or(|t| t.0.is_empty()) {
        report.error_key(&raw.path, "`interfaces` is missing", "write at least the outside interface");
    }
    if report.is_clean() {
        interfaces::between(&faces, report);
    }
    let sound = report.is_clean();
    if !sound {
        faces.clear();
    }
    let ssp_raw = raw.ssp.as_ref().map_or(&[][..], |t| &t.0);
    let ssp = if sound { ssp::check(ssp_raw, &faces, secrets, report) } else { None };
    let hostname = interfaces::required(raw.hostname.as_ref(), &raw.path, "hostname", "name this node: `hostname: gw-1`", report)
        .and_then(|w| values::name(w, report));
    let crypto = raw.crypto.clone().unwrap_or_default();
    let crypto_at = raw.path.key("crypto");
    let isakmp_raw = crypto.isakmp.clone();
    let isakmp_at = crypto_at.key("isakmp");
    if isakmp_raw.is_none() && crypto.ikev2.is_none() {
        report.error_key(&crypto_at, "`crypto.isakmp` is missing", "write a policy and a key");
    }
    let trustpoints = pki::check(&crypto.pki.clone().unwrap_or_default(), secrets, report);
    let ikev2 = ikev2::check(&crypto.ikev2.clone().unwrap_or_default(), &trustpoints, secrets, report);
    let before = report.error_count();
    let isakmp = isakmp_raw
        .clone()
        .or_else(|| crypto.ikev2.as_ref().map(|_| Isakmp { path: isakmp_at.clone(), ..Isakmp::default() }))
        .map(|i| isakmp::check(&i, maps::speak_v1(&crypto), &trustpoints, secrets, report));
    let keys_ok = report.error_count() == before;
    let bound = sound
        && ssp::bindings(
            ssp_raw.first().map(|(w, _)| (w.text.as_str(), &w.path)),
            isakmp_raw.as_ref().and_then(|i| i.ssp.as_ref()),
            &isakmp_at,
            &faces,
            report,
        );
    let keys = isakmp
        .as_ref()
        .filter(|_| keys_ok)
        .map(|i| maps::Keys { list: i.keys.as_slice(), v1: i.policies.iter().any(|p| p.authentication == AuthMethod::PreShared) });
    let lists = raw.access_list.as_ref().map_or(&[][..], |t| &t.0);
    let maps = maps::check(&crypto, lists, keys, &ikev2, &faces, report);
    let metrics = raw.metrics.as_ref().and_then(|m| m.listen.as_ref()).and_then(|w| listener(w, report));
    let control_socket =
        raw.control.as_ref().and_then(|c| c.socket.as_ref()).map_or_else(|| Some(PathBuf::from(CONTROL_SOCKET)), |w| absolute(w, report));
    let dataplane = dataplane(&raw.dataplane.clone().unwrap_or_default(), report);
    if !report.is_clean() {
        return None;
    }
    let isakmp = isakmp?;
    let mut config = Config {
        hostname: hostname?,
        interfaces: faces.into_iter().map(|c| c.interface).collect(),
        ssp: ssp.filter(|_| bound),
        ike: IkeConfig {
            policies: isakmp.policies,
            keys: isakmp.keys,
            entries: maps.entries,
            dpd: isakmp.dpd,
            retransmit_first: isakmp.retransmit_first,
            retransmit_tries: isakmp.retransmit_tries,
            limits: isakmp.limits,
            cookie_threshold: ikev2.cookie_threshold.unwrap_or(IkeConfig::default().cookie_threshold),
            peers: isakmp.peers,
            credential: isakmp.trustpoint.as_ref().and_then(|t| t.credential.clone()),
            trust: isakmp.trustpoint.as_ref().and_then(|t| t.trust.clone()),
            nat_traversal: isakmp.nat_traversal,
            nat_keepalive: isakmp.nat_keepalive,
        },
        replay: maps.replay,
        metrics,
        control_socket: control_socket?,
        dataplane: dataplane?,
        digests: Vec::new(),
        warnings: Vec::new(),
        transform_sets: maps.sets,
        ikev2_proposals: ikev2.proposals,
        ikev2_profiles: ikev2.profiles,
        trustpoints: trustpoints.list,
        maps: maps.info,
    };
    config.digests = digest::items(&config);
    if config.digests.len() > digest::ITEMS_MAX {
        let cause = format!("{} items to compare with the partner, {} are possible", config.digests.len(), digest::ITEMS_MAX);
        report.error(&raw.path, cause, "use fewer crypto maps, policies or transform sets; entries of one map may be many");
        return None;
    }
    Some(config)
}

fn listener(word: &super::decode::Word, report: &mut Report) -> Option<SocketAddr> {
    match word.text.parse::<SocketAddr>() {
        Ok(a) => {
            if !a.ip().is_loopback() {
                report.warn(
                    &word.path,
                    "metrics are served without authentication to other hosts",
                    "listen on 127.0.0.1, or filter the port",
                );
            }
            Some(a)
        }
        Err(_) => {
            report.error(&word.path, format!("`{}` is not ADDRESS:PORT", word.text), "write `127.0.0.1:9480`");
            None
        }
    }
}

fn absolute(word: &super::decode::Word, report: &mut Report) -> Option<PathBuf> {
    if !word.text.starts_with('/') {
        report.error(&word.path, format!("`{}` is not an absolute path", word.text), "begin it with `/`");
        return None;
    }
    Some(PathBuf::from(&word.text))
}

fn dataplane(raw: &RawDataplane, report: &mut Report) -> Option<DataplaneConfig> {
    let sa_max = match &raw.sa_max {
        Some(w) => {
            let n = values::size(w, 1024..=1_048_576, report)?;
            if !n.is_power_of_two() {
                report.error(&w.path, format!("{n} is no power of two"), format!("use {}", n.next_power_of_two()));
                return None;
            }
            n as u32
        }
        None => 65_536,
    };
    let modes = [("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
    Some(DataplaneConfig {
        sa_max,
        xdp: raw.xdp.as_ref().map_or(Some(XdpMode::Auto), |w| values::choose(w, "XDP mode", &modes, report))?,
        pin_dir: raw.pin_dir.as_ref().map_or_else(|| Some(PathBuf::from(PIN_DIR)), |w| absolute(w, report))?,
        log: raw.log.unwrap_or(false),
    })
}
