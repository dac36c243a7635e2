//! `crypto.ipsec.transform_set`.

use super::super::decode::Word;
use super::super::model::TransformSet;
use super::super::raw::RawTransformSet;
use super::super::report::{Report, one_of};
use super::super::values;
use super::super::words::{self, Transform};
use crate::crypto::{CipherAlg, IntegAlg};
use crate::ike::EspTransform;
use crate::sad::Mode;

/// Transforms of one set, the guide's limit.
const TRANSFORMS_MAX: usize = 3;

/// Checks one set; `None` when it was refused.
pub(super) fn set(name: &Word, raw: &RawTransformSet, report: &mut Report) -> Option<(TransformSet, EspTransform)> {
    let label = values::name(name, report);
    let list = raw.transforms.as_deref().unwrap_or_default();
    if list.is_empty() {
        report.error_key(&raw.path, "`transforms` is missing", "write `transforms: [esp-aes-256, esp-sha256-hmac]`");
        return None;
    }
    if let Some(w) = list.get(TRANSFORMS_MAX) {
        report.error(&w.path, format!("more than {TRANSFORMS_MAX} transforms"), "keep one encryption and one authentication");
        return None;
    }
    let mut encr: Option<CipherAlg> = None;
    let mut integ: Option<IntegAlg> = None;
    let mut ok = label.is_some();
    for w in list {
        // IOS writes a key length apart.
        let w = &Word { text: w.text.split_whitespace().collect::<Vec<_>>().join("-"), path: w.path.clone() };
        match words::TRANSFORMS.iter().find(|(n, _)| n.eq_ignore_ascii_case(&w.text)).map(|(_, t)| *t) {
            None => {
                let offered: Vec<&str> =
                    words::TRANSFORMS.iter().filter(|(_, t)| !matches!(t, Transform::Absent(_))).map(|(n, _)| *n).collect();
                report.error(&w.path, format!("unknown transform `{}`", w.text), one_of(&w.text, &offered));
                ok = false;
            }
            Some(Transform::Absent(cure)) => {
                report.error(&w.path, format!("transform `{}` is not offered", w.text), cure);
                ok = false;
            }
            Some(Transform::Encr(_)) if encr.is_some() => {
                report.error(
                    &w.path,
                    "a second ESP encryption transform in one set",
                    "keep one; write a second transform set for the other",
                );
                ok = false;
            }
            Some(Transform::Auth(_)) if integ.is_some() => {
                report.error(
                    &w.path,
                    "a second ESP authentication transform in one set",
                    "keep one; write a second transform set for the other",
                );
                ok = false;
            }
            Some(Transform::Encr(alg)) => {
                words::warn_cipher(w, alg, "esp-aes-256", report);
                if alg == CipherAlg::Null {
                    report.warn(&w.path, "esp-null does not encrypt: everybody on the way can read the traffic", "use esp-aes-256");
                }
                encr = Some(alg);
            }
            Some(Transform::Auth(alg)) => {
                words::warn_hash(w, words::weak_integrity(alg), "esp-sha256-hmac", report);
                integ = Some(alg);
            }
        }
    }
    let mode = match &raw.mode {
        Some(w) => values::choose(w, "mode", &[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)], report),
        None => Some(Mode::Tunnel),
    };
    if !ok {
        return None;
    }
    let Some(encr) = encr else {
        report.error(
            &raw.path.key("transforms"),
            "no ESP encryption transform in the set",
            "add esp-aes-256, or esp-null to authenticate only",
        );
        return None;
    };
    if encr.is_aead() && integ.is_some() {
        let cause = format!(
            "{} authenticates by itself (RFC 7296 3.3.3): no peer accepts an authentication transform beside it",
            words::encr_word(encr)
        );
        report.error(&raw.path.key("transforms"), cause, "take the authentication transform out");
        return None;
    }
    if !encr.is_aead() && integ.is_none() {
        report.error(
            &raw.path.key("transforms"),
            "encryption without authentication: packets could be changed on the way, and replays not be seen",
            "add esp-sha256-hmac, or use esp-gcm-256",
        );
        return None;
    }
    let (name, mode) = (label?, mode?);
    let set = TransformSet { name: name.clone(), words: list.iter().map(|w| w.text.clone()).collect(), mode };
    Some((set, EspTransform { name, encr, integ, mode }))
}
