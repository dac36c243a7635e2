//! `crypto.isakmp`: policies, keys, timers, limits.

use super::super::decode::Word;
use super::super::identity;
use super::super::model::Trustpoint;
use super::super::raw::{Isakmp, RawPolicy};
use super::super::report::{KeyPath, Report, one_of};
use super::super::secrets::Secrets;
use super::super::values;
use super::super::words::{self, Exchange};
use super::keys;
use super::pki::{self, Trustpoints};
use crate::crypto::{CipherAlg, DhGroup, HashAlg};
use crate::ike::{AuthMethod, DpdConfig, IkeLimits, IsakmpPolicy, PeerPolicy, PreSharedKey};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// Highest policy number (guide: 1 to 10 000).
const POLICY_MAX: u32 = 10_000;
/// Default lifetime of an ISAKMP SA: one day, as the guide's.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(86_400);
/// Time between NAT keepalives (RFC 3948 4).
const NAT_KEEPALIVE_DEFAULT: Duration = Duration::from_secs(20);

/// The engine's part of the section.
pub(super) struct Checked {
    pub(super) policies: Vec<IsakmpPolicy>,
    pub(super) keys: Vec<PreSharedKey>,
    pub(super) dpd: Option<DpdConfig>,
    pub(super) retransmit_first: Duration,
    pub(super) retransmit_tries: u32,
    pub(super) limits: IkeLimits,
    pub(super) peers: Vec<PeerPolicy>,
    pub(super) nat_traversal: bool,
    pub(super) nat_keepalive: Duration,
    pub(super) trustpoint: Option<Trustpoint>,
}

/// Checks the section.
///
/// `v1` says whether version 1 is spoken at all: only then a policy is needed.
pub(super) fn check(raw: &Isakmp, v1: bool, trustpoints: &Trustpoints, secrets: &mut Secrets<'_>, report: &mut Report) -> Checked {
    let mut policies: Vec<IsakmpPolicy> = raw.policy.iter().flat_map(|t| &t.0).filter_map(|(n, p)| policy(n, p, report)).collect();
    policies.sort_by_key(|p| p.number);
    if v1 && raw.policy.as_ref().is_none_or(|t| t.0.is_empty()) {
        report.error_key(&raw.path, "`policy` is missing", "write `policy: { 1: { encryption: aes-256, hash: sha256, group: 14 } }`");
    }
    if let Some(w) = &raw.keepalive {
        report.error_key(
            &w.path,
            "IKE keepalives tear the connection down after a takeover",
            "use dead peer detection: `dpd: { interval: 10s }`",
        );
    }
    let retransmit = raw.retransmit.clone().unwrap_or_default();
    let peers = peers(raw, &policies, report);
    let nat = raw.nat_traversal.clone().unwrap_or_default();
    Checked {
        trustpoint: trustpoint(raw, &policies, trustpoints, report),
        policies,
        keys: keys::check(raw, secrets, report),
        dpd: dpd(raw, report),
        retransmit_first: retransmit.first.and_then(|w| values::duration(&w, 100 * MS..=60 * S, report)).unwrap_or(S),
        retransmit_tries: retransmit.tries.and_then(|w| values::number(&w, 1..=12, report)).unwrap_or(6),
        limits: limits(raw, report),
        peers,
        nat_traversal: nat.enabled.unwrap_or(true),
        nat_keepalive: nat.keepalive.and_then(|w| values::duration(&w, 5 * S..=3600 * S, report)).unwrap_or(NAT_KEEPALIVE_DEFAULT),
    }
}

/// Certificates of version 1: the trustpoint that is named, or the only one.
fn trustpoint(raw: &Isakmp, policies: &[IsakmpPolicy], trustpoints: &Trustpoints, report: &mut Report) -> Option<Trustpoint> {
    let signed = policies.iter().find(|p| p.authentication == AuthMethod::Signature);
    let (trustpoint, at) = match (&raw.trustpoint, trustpoints.only()) {
        (Some(w), _) => (trustpoints.find(w, report)?, w.path.clone()),
        (None, Some(only)) => (only.clone(), raw.path.key("policy")),
        (None, None) => {
            // A trustpoint that was refused is named where it stands.
            if let Some(p) = signed.filter(|_| trustpoints.names.len() != 1) {
                let at = raw.path.key("policy").key(&p.number.to_string()).key("authentication");
                report.error(
                    &at,
                    "signatures need a certificate",
                    "write `trustpoint: NAME` under `crypto.isakmp` and `crypto.pki.trustpoint`",
                );
            }
            return None;
        }
    };
    if signed.is_none() {
        return raw.trustpoint.is_some().then_some(trustpoint);
    }
    match &trustpoint.credential {
        None => report.error(&at, format!("trustpoint `{}` has no certificate of our own", trustpoint.name), pki::OWN),
        Some(c) if !c.signs_ikev1() => {
            let cause = format!("the key of trustpoint `{}` is no RSA key: version 1 has no other signature here", trustpoint.name);
            report.error(&at, cause, "use an RSA certificate, or IKEv2");
        }
        Some(_) if trustpoint.trust.is_none() => {
            report.error(&at, format!("trustpoint `{}` has no authority to check the peer by", trustpoint.name), "add `ca_file` to it");
        }
        Some(_) => {
            let peers: Vec<_> = raw.peer.iter().flatten().collect();
            if peers.is_empty() || peers.iter().any(|p| p.identity_remote.is_none()) {
                let cause = "whoever has a certificate of this authority can pose as any peer";
                report.warn(&at, cause, "add `peer: [{ address: …, identity_remote: … }]`, a name that the peer's certificate holds");
            }
        }
    }
    Some(trustpoint)
}

fn peers(raw: &Isakmp, policies: &[IsakmpPolicy], report: &mut Report) -> Vec<PeerPolicy> {
    let mut out: Vec<PeerPolicy> = Vec::new();
    let declared: Vec<&str> = raw.policy.iter().flat_map(|t| &t.0).map(|(n, _)| n.text.as_str()).collect();
    for p in raw.peer.iter().flatten() {
        let Some((word, peer)) = keys::peer(&p.path, p.address.as_ref(), p.identity.as_ref(), report) else { continue };
        if out.iter().any(|o| o.peer == peer) {
            report.error(&word.path, format!("{} stands twice", word.text), "keep one item for each peer");
            continue;
        }
        let mut numbers = Vec::new();
        for w in p.policy.iter().flatten() {
            match policies.iter().find(|x| x.number.to_string() == w.text) {
                Some(x) if numbers.contains(&x.number) => report.error(&w.path, format!("`{}` stands twice", w.text), "take one out"),
                Some(x) => numbers.push(x.number),
                // A policy that was refused is named where it stands.
                None if declared.contains(&w.text.as_str()) => {}
                None => report.error(&w.path, format!("there is no ISAKMP policy `{}`", w.text), one_of(&w.text, &declared)),
            }
        }
        let aggressive = p.aggressive_mode.unwrap_or(false);
        if aggressive {
            let used: Vec<&IsakmpPolicy> = policies.iter().filter(|x| numbers.is_empty() || numbers.contains(&x.number)).collect();
            aggressive_mode(&p.path.key("aggressive_mode"), &used, report);
        }
        if let (Some(_), Some(w)) = (&p.identity, &p.identity_remote) {
            let cause = "version 1 finds a peer with a certificate by its address: this name would not be asked for";
            report.error(&w.path, cause, "write `address` instead of `identity`");
        }
        let remote_id = match &p.identity_remote {
            Some(w) => match identity::identity(w, report) {
                Some(id) => Some(id),
                None => continue,
            },
            None => None,
        };
        out.push(PeerPolicy { peer, aggressive, policies: numbers, remote_id });
    }
    out
}

/// What aggressive mode cannot do, and what it gives away (RFC 2409 5.4).
fn aggressive_mode(at: &KeyPath, used: &[&IsakmpPolicy], report: &mut Report) {
    let first = used.first();
    if let Some((a, b)) = first.and_then(|a| used.iter().find(|b| b.group != a.group).map(|b| (a, b))) {
        report.error(
            at,
            format!("aggressive mode cannot agree on a group, but policies {} and {} have different ones", a.number, b.number),
            format!("add `policy: [{}]`", a.number),
        );
    }
    if used.iter().any(|p| p.authentication == AuthMethod::PreShared) {
        report.warn(
            at,
            "aggressive mode sends a hash of the key to whoever asks: the key can be guessed without another packet",
            "use main mode or IKEv2; if the peer has neither, a random key of 32 bytes",
        );
    }
}

fn policy(number: &Word, raw: &RawPolicy, report: &mut Report) -> Option<IsakmpPolicy> {
    let n = match number.text.parse::<u32>() {
        Ok(n) if (1..=POLICY_MAX).contains(&n) => n,
        Ok(_) | Err(_) => {
            report.error_key(&number.path, format!("policy number `{}` is out of range", number.text), format!("use 1 to {POLICY_MAX}"));
            return None;
        }
    };
    let encryption = match &raw.encryption {
        Some(w) => {
            let alg = values::choose(w, "encryption", &words::CIPHERS, report);
            if let Some(alg) = alg {
                words::warn_cipher(w, alg, "aes-256", report);
            }
            alg
        }
        None => Some(CipherAlg::Aes256),
    };
    let hash = match &raw.hash {
        Some(w) => {
            let alg = values::choose(w, "hash", &words::HASHES, report);
            let weak = match alg {
                Some(HashAlg::Md5) => Some("MD5"),
                Some(HashAlg::Sha1) => Some("SHA-1"),
                Some(HashAlg::Sha256 | HashAlg::Sha384 | HashAlg::Sha512) | None => None,
            };
            words::warn_hash(w, weak, "sha256", report);
            alg
        }
        None => Some(HashAlg::Sha256),
    };
    let authentication = raw.authentication.as_ref().map_or(Some(AuthMethod::PreShared), |w| authentication(w, report));
    let group = match &raw.group {
        Some(w) => words::dh_group(w, Exchange::V1, report),
        None => Some(DhGroup::Modp2048),
    };
    let lifetime = match &raw.lifetime {
        Some(w) => values::duration(w, 60 * S..=7 * LIFETIME_DEFAULT, report),
        None => Some(LIFETIME_DEFAULT),
    };
    Some(IsakmpPolicy {
        number: n,
        encryption: encryption?,
        hash: hash?,
        group: group?,
        lifetime_s: lifetime?.as_secs(),
        authentication: authentication?,
    })
}

fn authentication(w: &Word, report: &mut Report) -> Option<AuthMethod> {
    match w.text.as_str() {
        "pre-share" => Some(AuthMethod::PreShared),
        "rsa-sig" | "signature" => Some(AuthMethod::Signature),
        "rsa-encr" => {
            report.error(&w.path, "RSA encryption is not offered: its answers give keys away (CVE-2018-5389)", "use rsa-sig or pre-share");
            None
        }
        "ecdsa-sig" => {
            report.error(
                &w.path,
                "version 1 signs with RSA only here",
                "use rsa-sig, or an IKEv2 profile with `authentication_local: signature`",
            );
            None
        }
        _ => {
            report.error(&w.path, format!("unknown authentication `{}`", w.text), one_of(&w.text, &["pre-share", "rsa-sig"]));
            None
        }
    }
}

fn dpd(raw: &Isakmp, report: &mut Report) -> Option<DpdConfig> {
    let raw = raw.dpd.as_ref()?;
    let interval = raw.interval.as_ref().map_or(Some(10 * S), |w| values::duration(w, S..=3600 * S, report))?;
    let retry = raw.retry.as_ref().map_or(Some(2 * S), |w| values::duration(w, 100 * MS..=60 * S, report))?;
    let retries = raw.retries.as_ref().map_or(Some(5), |w| values::number(w, 1..=20, report))?;
    Some(DpdConfig { interval, retry, retries })
}

fn limits(raw: &Isakmp, report: &mut Report) -> IkeLimits {
    let mut out = IkeLimits::default();
    let Some(raw) = &raw.limits else { return out };
    let mut count = |w: &Option<Word>, to: &mut usize, max: u64| {
        if let Some(n) = w.as_ref().and_then(|w| values::size(w, 1..=max, report)) {
            *to = n as usize;
        }
    };
    count(&raw.half_open, &mut out.half_open_max, 100_000);
    count(&raw.half_open_per_source, &mut out.half_open_per_source_max, 1_000);
    count(&raw.established, &mut out.established_max, 1_000_000);
    count(&raw.quick_modes, &mut out.quick_modes_max, 1_000);
    if let Some(age) = raw.half_open_age.as_ref().and_then(|w| values::duration(w, S..=600 * S, report)) {
        out.half_open_age_max = age;
    }
    out
}
