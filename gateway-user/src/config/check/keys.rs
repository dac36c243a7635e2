//! `crypto.isakmp.key`: pre-shared keys of both versions.

use super::super::decode::Word;
use super::super::identity;
use super::super::raw::{Isakmp, RawKey};
use super::super::report::{KeyPath, Report};
use super::super::secrets::Secrets;
use crate::ike::{PeerMatch, PreSharedKey};
use std::collections::HashSet;

/// Keys in order of the manifest.
pub(super) fn check(raw: &Isakmp, secrets: &mut Secrets<'_>, report: &mut Report) -> Vec<PreSharedKey> {
    let mut out: Vec<PreSharedKey> = Vec::new();
    let mut seen: HashSet<String> = HashSet::new();
    for k in raw.key.iter().flatten() {
        let secret = secrets.psk(&k.path, k.secret_file.as_ref(), k.secret.as_ref(), k.allow_weak.unwrap_or(false), report);
        let Some((word, peer)) = key_peer(k, report) else { continue };
        if !seen.insert(format!("{peer:?}")) {
            report.error(&word.path, format!("{} has a key already", word.text), "take one out");
            continue;
        }
        if let Some(key) = secret {
            out.push(PreSharedKey { peer, key });
        }
    }
    out
}

/// Whom a key is for.
fn key_peer<'w>(raw: &'w RawKey, report: &mut Report) -> Option<(&'w Word, PeerMatch)> {
    let (word, peer) = peer(&raw.path, raw.address.as_ref(), raw.identity.as_ref(), report)?;
    if peer == PeerMatch::Any {
        let cause = "a key for all peers lets each of them pose as any other";
        if !raw.allow_any.unwrap_or(false) {
            report.error(&word.path, cause, "write one key for each peer's address, or add `allow_any: true`");
            return None;
        }
        report.warn(&word.path, cause, "write one key for each peer's address");
    }
    Some((word, peer))
}

/// Whom an item is for: `address` or `identity`.
pub(super) fn peer<'w>(
    owner: &KeyPath,
    address: Option<&'w Word>,
    identity: Option<&'w Word>,
    report: &mut Report,
) -> Option<(&'w Word, PeerMatch)> {
    match (address, identity) {
        (Some(_), Some(w)) => {
            report.error_key(&w.path, "both `address` and `identity` are given", "keep one; write a second item for the other");
            None
        }
        (None, Some(w)) => identity::identity(w, report).map(|id| (w, PeerMatch::Identity(id))),
        (None, None) => {
            report.error_key(owner, "`address` is missing", "write the peer's address");
            None
        }
        (Some(w), None) => identity::peers(w, report).map(|peer| (w, peer)),
    }
}
