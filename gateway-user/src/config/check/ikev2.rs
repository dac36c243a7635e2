//! `crypto.ikev2`: proposals and profiles.

use super::super::decode::Word;
use super::super::identity;
use super::super::model::{Profile, Trustpoint};
use super::super::raw::{Ikev2, RawPpk, RawProfile, RawProposal};
use super::super::report::{Report, one_of};
use super::super::secrets::Secrets;
use super::super::values;
use super::super::words::{self, Exchange};
use super::pki::{self, Trustpoints};
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg};
use crate::ike::{AuthMethod, Ikev2Profile, Ikev2Proposal, Ppk};
use std::sync::Arc;
use std::time::Duration;

const S: Duration = Duration::from_secs(1);
/// Lifetime of an IKE SA: one day, as version 1's.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(86_400);
/// Fragments that pass every link of the Internet (RFC 7383 2.5.1).
const FRAGMENT_DEFAULT: u16 = 1280;
/// Proposals of one profile, those included that leave an exchange out.
const PROPOSALS_MAX: usize = 16;
/// Additional key exchanges (RFC 9370 2.1).
const ADDITIONAL_MAX: usize = 7;
/// Longest PPK id, bytes.
const PPK_ID_MAX: usize = 255;
/// An additional exchange may be left out.
const LEFT_OUT: &str = "none";

/// The checked section.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) proposals: Vec<Ikev2Proposal>,
    pub(super) profiles: Vec<Profile>,
    /// Names of all profiles, refused ones included: what refers to one is not refused for it.
    pub(super) names: Vec<String>,
    pub(super) cookie_threshold: Option<usize>,
}

/// Checks the section.
pub(super) fn check(raw: &Ikev2, trustpoints: &Trustpoints, secrets: &mut Secrets<'_>, report: &mut Report) -> Checked {
    if raw.keyring.is_some() {
        let cause = "keys of both versions stand in one place";
        report.error_key(&raw.path.key("keyring"), cause, "write them as items of `crypto.isakmp.key`");
    }
    let mut out = Checked::default();
    let declared: &[(Word, RawProposal)] = raw.proposal.as_ref().map_or(&[], |t| &t.0);
    let mut named: Vec<(&str, Vec<Ikev2Proposal>)> = Vec::new();
    for (name, p) in declared {
        if let Some(list) = proposal(name, p, report) {
            out.proposals.extend(list.iter().cloned());
            named.push((&name.text, list));
        }
    }
    let declared: Vec<&str> = declared.iter().map(|(n, _)| n.text.as_str()).collect();
    for (name, p) in raw.profile.iter().flat_map(|t| &t.0) {
        out.names.push(name.text.clone());
        out.profiles.extend(profile(name, p, &declared, &named, trustpoints, secrets, report));
    }
    out.cookie_threshold = raw.cookie_threshold.as_ref().and_then(|w| values::size(w, 0..=100_000, report)).map(|n| n as usize);
    out
}

/// What is offered when a profile names no proposal: combined-mode ciphers first, then AES-CBC for peers without them.
pub(super) fn defaults() -> Vec<Ikev2Proposal> {
    let prf = vec![PrfAlg::HmacSha256, PrfAlg::HmacSha384, PrfAlg::HmacSha512];
    let groups = vec![DhGroup::X25519, DhGroup::Ecp256, DhGroup::Ecp384, DhGroup::Modp3072, DhGroup::Modp2048];
    let gcm = [AesKey::Bits256, AesKey::Bits128].map(|key| CipherAlg::AesGcm(key, Icv::Bytes16));
    vec![
        Ikev2Proposal {
            name: "default".to_owned(),
            encryption: gcm.to_vec(),
            integrity: Vec::new(),
            prf: prf.clone(),
            groups: groups.clone(),
            additional: Vec::new(),
        },
        Ikev2Proposal {
            name: "default-cbc".to_owned(),
            encryption: vec![CipherAlg::Aes256, CipherAlg::Aes128],
            integrity: vec![IntegAlg::HmacSha256, IntegAlg::HmacSha384, IntegAlg::HmacSha512],
            prf,
            groups,
            additional: Vec::new(),
        },
    ]
}

/// Each word of a list by a table, without repetitions.
fn list<T: Copy + PartialEq>(words: Option<&[Word]>, what: &str, table: &[(&str, T)], report: &mut Report) -> Option<Vec<(Word, T)>> {
    let mut out: Vec<(Word, T)> = Vec::new();
    let mut ok = true;
    for w in words.unwrap_or_default() {
        match values::choose(w, what, table, report) {
            Some(alg) if out.iter().any(|(_, a)| *a == alg) => {
                report.error(&w.path, format!("`{}` stands twice", w.text), "take one out");
                ok = false;
            }
            Some(alg) => out.push((w.clone(), alg)),
            None => ok = false,
        }
    }
    ok.then_some(out)
}

fn algs<T: Copy>(list: &[(Word, T)]) -> Vec<T> {
    list.iter().map(|(_, a)| *a).collect()
}

/// One proposal, as several when an additional exchange may be left out: a transform type is in all or in none of a proposal's choices.
fn proposal(name: &Word, raw: &RawProposal, report: &mut Report) -> Option<Vec<Ikev2Proposal>> {
    let label = values::name(name, report);
    let encryption = encryption(raw, report);
    let integrity = list(raw.integrity.as_deref(), "integrity", &words::INTEGRITIES, report);
    let prf = list(raw.prf.as_deref(), "prf", &words::PRFS, report);
    let groups = groups(raw, report);
    let (encryption, integrity, prf) = (encryption?, integrity?, prf?);
    for (w, alg) in &encryption {
        words::warn_cipher(w, *alg, "aes-gcm-256", report);
    }
    for (w, alg) in &integrity {
        words::warn_hash(w, words::weak_integrity(*alg), "sha256", report);
    }
    for (w, alg) in &prf {
        words::warn_hash(w, words::weak_prf(*alg), "sha256", report);
    }
    let (first, aead) = encryption.first().map(|(w, a)| (w, a.is_aead()))?;
    if let Some((w, _)) = encryption.iter().find(|(_, a)| a.is_aead() != aead) {
        let cause =
            format!("`{}` and `{}` cannot stand in one proposal: one of them authenticates by itself (RFC 7296 3.3)", first.text, w.text);
        report.error(&w.path, cause, "write a second proposal for it and name both in the profile");
        return None;
    }
    match (aead, integrity.first()) {
        (true, Some((w, _))) => {
            let cause = format!("`{}` authenticates by itself (RFC 7296 3.3.3)", first.text);
            report.error(&w.path, cause, "take `integrity` out, or use aes-cbc-256");
            return None;
        }
        (false, None) => {
            let cause = format!("`{}` without `integrity`: messages could be changed on the way", first.text);
            report.error_key(&raw.path, cause, "write `integrity: [sha256]`, or use aes-gcm-256");
            return None;
        }
        (true, None) | (false, Some(_)) => {}
    }
    let prf = match (prf.is_empty(), aead) {
        (false, _) => algs(&prf),
        (true, true) => vec![PrfAlg::HmacSha256, PrfAlg::HmacSha384, PrfAlg::HmacSha512],
        (true, false) => integrity.iter().map(|(_, a)| same_prf(*a)).collect(),
    };
    let groups = groups?;
    let plain =
        Ikev2Proposal { name: label?, encryption: algs(&encryption), integrity: algs(&integrity), prf, groups, additional: Vec::new() };
    additional(raw, &plain, report)
}

/// The function that IOS takes when `prf` is left out: the one of the integrity algorithm.
const fn same_prf(alg: IntegAlg) -> PrfAlg {
    match alg {
        IntegAlg::HmacMd5 => PrfAlg::HmacMd5,
        IntegAlg::HmacSha1 => PrfAlg::HmacSha1,
        IntegAlg::HmacSha256 => PrfAlg::HmacSha256,
        IntegAlg::HmacSha384 => PrfAlg::HmacSha384,
        IntegAlg::HmacSha512 => PrfAlg::HmacSha512,
        IntegAlg::AesXcbc => PrfAlg::AesXcbc,
        IntegAlg::AesCmac => PrfAlg::AesCmac,
    }
}

fn encryption(raw: &RawProposal, report: &mut Report) -> Option<Vec<(Word, CipherAlg)>> {
    let words = raw.encryption.as_deref().unwrap_or_default();
    if words.is_empty() {
        report.error_key(&raw.path, "`encryption` is missing", "write `encryption: [aes-gcm-256]`");
        return None;
    }
    if let Some(w) = words.iter().find(|w| w.text.eq_ignore_ascii_case("null")) {
        report.error(&w.path, "IKE itself is never without encryption (RFC 7296 5)", "use aes-gcm-256");
        return None;
    }
    list(Some(words), "encryption", &words::IKEV2_CIPHERS, report)
}

fn groups(raw: &RawProposal, report: &mut Report) -> Option<Vec<DhGroup>> {
    let words = raw.group.as_deref().unwrap_or_default();
    if words.is_empty() {
        report.error_key(&raw.path, "`group` is missing", "write `group: [31, 19, 14]`");
        return None;
    }
    let mut out = Vec::new();
    for w in words {
        let group = words::dh_group(w, Exchange::First, report)?;
        if out.contains(&group) {
            report.error(&w.path, format!("`{}` stands twice", w.text), "take one out");
            return None;
        }
        out.push(group);
    }
    Some(out)
}

fn additional(raw: &RawProposal, plain: &Ikev2Proposal, report: &mut Report) -> Option<Vec<Ikev2Proposal>> {
    let rounds = raw.additional_key_exchange.as_deref().unwrap_or_default();
    let at = raw.path.key("additional_key_exchange");
    if rounds.len() > ADDITIONAL_MAX {
        report.error(&at, format!("more than {ADDITIONAL_MAX} additional key exchanges"), "keep one: `[[mlkem768]]`");
        return None;
    }
    let mut out = vec![plain.clone()];
    let mut used = plain.groups.clone();
    for (n, round) in rounds.iter().enumerate() {
        let mut methods = Vec::new();
        let mut optional = false;
        for w in round {
            if w.text.eq_ignore_ascii_case(LEFT_OUT) {
                optional = true;
                continue;
            }
            let method = words::dh_group(w, Exchange::Additional, report)?;
            if used.contains(&method) {
                let cause = format!("`{}` stands in `group` or in another exchange already (RFC 9370 2.2.1)", w.text);
                report.error(&w.path, cause, "take one out");
                return None;
            }
            used.push(method);
            methods.push(method);
        }
        if methods.is_empty() {
            report.error(&at.item(n), "an additional key exchange without a method", "write `[mlkem768]`, or take it out");
            return None;
        }
        let with = |p: &Ikev2Proposal| Ikev2Proposal { additional: [p.additional.clone(), vec![methods.clone()]].concat(), ..p.clone() };
        let without = if optional { out.clone() } else { Vec::new() };
        out = out.iter().map(with).chain(without).collect();
    }
    Some(out)
}

fn profile(
    name: &Word,
    raw: &RawProfile,
    declared: &[&str],
    named: &[(&str, Vec<Ikev2Proposal>)],
    trustpoints: &Trustpoints,
    secrets: &mut Secrets<'_>,
    report: &mut Report,
) -> Option<Profile> {
    let label = values::name(name, report);
    let proposals = proposals(raw, declared, named, report);
    let identity = |w: &Option<Word>, report: &mut Report| match w {
        Some(w) => identity::identity(w, report).map(Some),
        None => Some(None),
    };
    let local_id = identity(&raw.identity_local, report);
    let remote_id = identity(&raw.identity_remote, report);
    let local_auth = authentication(raw.authentication_local.as_ref(), report);
    let remote_auth = authentication(raw.authentication_remote.as_ref(), report);
    let lifetime = raw.lifetime.as_ref().map_or(Some(LIFETIME_DEFAULT), |w| values::duration(w, 120 * S..=7 * LIFETIME_DEFAULT, report));
    let fragment_bytes = raw.fragmentation.as_ref().map_or(Some(FRAGMENT_DEFAULT), |w| match w.text.as_str() {
        "false" => Some(0),
        "true" => Some(FRAGMENT_DEFAULT),
        _ => values::number(w, 576..=8192, report),
    });
    let ppk = match &raw.ppk {
        Some(p) => ppk(p, secrets, report).map(Some),
        None => Some(None),
    };
    let (proposals, names) = proposals?;
    let (local_auth, remote_auth) = (local_auth?, remote_auth?);
    let trustpoint = signatures(raw, (local_auth, remote_auth), trustpoints, report)?;
    let signs = |m: AuthMethod| trustpoint.as_ref().filter(|_| m == AuthMethod::Signature);
    let profile = Ikev2Profile {
        name: label?,
        proposals,
        local_id: local_id?,
        remote_id: remote_id?,
        local_auth,
        remote_auth,
        credential: signs(local_auth).and_then(|t| t.credential.clone()),
        trust: signs(remote_auth).and_then(|t| t.trust.clone()),
        ppk: ppk?,
        lifetime_s: lifetime?.as_secs(),
        fragment_bytes: fragment_bytes?,
        childless: raw.childless.unwrap_or(false),
    };
    Some(Profile { profile: Arc::new(profile), proposals: names, trustpoint: trustpoint.map(|t| t.name) })
}

fn proposals(
    raw: &RawProfile,
    declared: &[&str],
    named: &[(&str, Vec<Ikev2Proposal>)],
    report: &mut Report,
) -> Option<(Vec<Ikev2Proposal>, Vec<String>)> {
    let Some(words) = &raw.proposal else {
        let list = defaults();
        let names = list.iter().map(|p| p.name.clone()).collect();
        return Some((list, names));
    };
    let mut out = Vec::new();
    let mut ok = !words.is_empty();
    if words.is_empty() {
        report.error(&raw.path.key("proposal"), "the list is empty", "name a proposal, or leave `proposal` out for the default ones");
    }
    for (n, w) in words.iter().enumerate() {
        if words.iter().take(n).any(|x| x.text == w.text) {
            report.error(&w.path, format!("`{}` stands twice", w.text), "take one out");
            ok = false;
        } else if !declared.contains(&w.text.as_str()) {
            report.error(&w.path, format!("there is no IKEv2 proposal `{}`", w.text), one_of(&w.text, declared));
            ok = false;
        }
        match named.iter().find(|(name, _)| *name == w.text) {
            Some((_, list)) => out.extend(list.iter().cloned()),
            None => ok = false,
        }
    }
    if out.len() > PROPOSALS_MAX {
        let cause = format!("{} proposals, {PROPOSALS_MAX} are possible (each `none` doubles those of its proposal)", out.len());
        report.error(&raw.path.key("proposal"), cause, "name fewer");
        ok = false;
    }
    ok.then(|| (out, words.iter().map(|w| w.text.clone()).collect()))
}

fn authentication(word: Option<&Word>, report: &mut Report) -> Option<AuthMethod> {
    const METHODS: [(&str, AuthMethod); 4] = [
        ("pre-share", AuthMethod::PreShared),
        ("signature", AuthMethod::Signature),
        ("rsa-sig", AuthMethod::Signature),
        ("ecdsa-sig", AuthMethod::Signature),
    ];
    let Some(w) = word else { return Some(AuthMethod::PreShared) };
    values::choose(w, "authentication", &METHODS, report)
}

/// Certificates of a profile whose ends sign.
fn signatures(
    raw: &RawProfile,
    (local, remote): (AuthMethod, AuthMethod),
    trustpoints: &Trustpoints,
    report: &mut Report,
) -> Option<Option<Trustpoint>> {
    let Some(w) = &raw.trustpoint else {
        let signed = [(local, &raw.authentication_local), (remote, &raw.authentication_remote)];
        if let Some((_, w)) = signed.into_iter().find(|(m, _)| *m == AuthMethod::Signature) {
            let at = w.as_ref().map_or(&raw.path, |w| &w.path);
            report.error(at, "signatures need a certificate", "add `trustpoint: NAME`, and the trustpoint under `crypto.pki`");
            return None;
        }
        return Some(None);
    };
    let t = trustpoints.find(w, report)?;
    if local == AuthMethod::Signature && t.credential.is_none() {
        report.error(&w.path, format!("trustpoint `{}` has no certificate of our own", t.name), pki::OWN);
        return None;
    }
    if remote == AuthMethod::Signature && t.trust.is_none() {
        report.error(&w.path, format!("trustpoint `{}` has no authority to check the peer by", t.name), "add `ca_file` to it");
        return None;
    }
    if remote == AuthMethod::Signature && raw.identity_remote.is_none() {
        let cause = "whoever has a certificate of this authority can pose as the peer";
        report.warn(&w.path, cause, "add `identity_remote`, a name that the peer's certificate holds");
    }
    if local != AuthMethod::Signature && remote != AuthMethod::Signature {
        report.error(&w.path, "a trustpoint, but neither end signs", "add `authentication_local: signature`, or take it out");
        return None;
    }
    Some(Some(t))
}

fn ppk(raw: &RawPpk, secrets: &mut Secrets<'_>, report: &mut Report) -> Option<Ppk> {
    let key = secrets.ppk(&raw.path, raw.secret_file.as_ref(), raw.secret.as_ref(), report);
    let id = super::interfaces::required(raw.id.as_ref(), &raw.path, "id", "write the name that both ends give this key", report)?;
    if id.text.is_empty() || id.text.len() > PPK_ID_MAX {
        report.error(&id.path, format!("the id has {} bytes", id.text.len()), format!("use 1 to {PPK_ID_MAX}"));
        return None;
    }
    Some(Ppk { id: id.text.clone().into_bytes(), key: key?, required: raw.required.unwrap_or(false) })
}
