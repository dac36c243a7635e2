//! `crypto.isakmp`: policies, keys, timers, limits.

use super::super::decode::Word;
use super::super::raw::{Isakmp, RawPolicy};
use super::super::report::{Report, one_of};
use super::super::secrets::Secrets;
use super::super::values;
use super::super::words::{self, Exchange};
use super::keys;
use crate::crypto::{CipherAlg, DhGroup, HashAlg};
use crate::ike::{AuthMethod, DpdConfig, IkeLimits, IsakmpPolicy, PreSharedKey};
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// Highest policy number (guide: 1 to 10 000).
const POLICY_MAX: u32 = 10_000;
/// Default lifetime of an ISAKMP SA: one day, as the guide's.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(86_400);

/// The engine's part of the section.
pub(super) struct Checked {
    pub(super) policies: Vec<IsakmpPolicy>,
    pub(super) keys: Vec<PreSharedKey>,
    pub(super) dpd: Option<DpdConfig>,
    pub(super) retransmit_first: Duration,
    pub(super) retransmit_tries: u32,
    pub(super) limits: IkeLimits,
}

/// Checks the section.
///
/// `v1` says whether version 1 is spoken at all: only then a policy is needed.
pub(super) fn check(raw: &Isakmp, v1: bool, secrets: &mut Secrets<'_>, report: &mut Report) -> Checked {
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
    Checked {
        policies,
        keys: keys::check(raw, secrets, report),
        dpd: dpd(raw, report),
        retransmit_first: retransmit.first.and_then(|w| values::duration(&w, 100 * MS..=60 * S, report)).unwrap_or(S),
        retransmit_tries: retransmit.tries.and_then(|w| values::number(&w, 1..=12, report)).unwrap_or(6),
        limits: limits(raw, report),
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
    let authentication = raw.authentication.as_ref().is_none_or(|w| authentication(w, report));
    let group = match &raw.group {
        Some(w) => words::dh_group(w, Exchange::V1, report),
        None => Some(DhGroup::Modp2048),
    };
    let lifetime = match &raw.lifetime {
        Some(w) => values::duration(w, 60 * S..=7 * LIFETIME_DEFAULT, report),
        None => Some(LIFETIME_DEFAULT),
    };
    authentication.then_some(IsakmpPolicy {
        number: n,
        encryption: encryption?,
        hash: hash?,
        group: group?,
        lifetime_s: lifetime?.as_secs(),
        authentication: AuthMethod::PreShared,
    })
}

fn authentication(w: &Word, report: &mut Report) -> bool {
    match w.text.as_str() {
        "pre-share" => true,
        "rsa-sig" | "rsa-encr" | "ecdsa-sig" => {
            report.error(
                &w.path,
                format!("authentication `{}` is not offered yet", w.text),
                "use `pre-share` and a key under `crypto.isakmp.key`",
            );
            false
        }
        _ => {
            report.error(&w.path, format!("unknown authentication `{}`", w.text), one_of(&w.text, &["pre-share"]));
            false
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
