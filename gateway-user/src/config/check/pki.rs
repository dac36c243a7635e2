//! `crypto.pki`: certificates, keys, authorities, revocation lists.

use super::super::decode::Word;
use super::super::model::Trustpoint;
use super::super::raw::{Pki, RawTrustpoint};
use super::super::report::{Report, one_of};
use super::super::secrets::Secrets;
use super::super::values;
use crate::pki::{Credential, PkiError, Trust};
use std::sync::Arc;

/// Largest file of certificates, bytes.
const CERTIFICATES_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of revocation lists, bytes.
const CRL_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Largest private key file, bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// What a revocation list in PEM begins with.
const CRL_LABEL: &[u8] = b"-----BEGIN X509 CRL-----";
/// What to do about a missing certificate.
pub(super) const OWN: &str = "add `certificate_file` and `key_file` to it";

/// The checked section.
#[derive(Default)]
pub(super) struct Trustpoints {
    pub(super) list: Vec<Trustpoint>,
    /// Names of all, refused ones included.
    pub(super) names: Vec<String>,
}

impl Trustpoints {
    /// The trustpoint, if there is just one.
    pub(super) fn only(&self) -> Option<&Trustpoint> {
        self.list.first().filter(|_| self.names.len() == 1)
    }

    /// The trustpoint that `word` names. A name that does not exist is reported; one that was refused is not, again.
    pub(super) fn find(&self, word: &Word, report: &mut Report) -> Option<Trustpoint> {
        if !self.names.contains(&word.text) {
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            report.error(&word.path, format!("there is no trustpoint `{}`", word.text), one_of(&word.text, &names));
        }
        self.list.iter().find(|t| t.name == word.text).cloned()
    }
}

/// Reads every trustpoint's files.
pub(super) fn check(raw: &Pki, secrets: &mut Secrets<'_>, report: &mut Report) -> Trustpoints {
    let mut out = Trustpoints::default();
    for (name, t) in raw.trustpoint.iter().flat_map(|t| &t.0) {
        out.names.push(name.text.clone());
        out.list.extend(trustpoint(name, t, secrets, report));
    }
    out
}

fn trustpoint(name: &Word, raw: &RawTrustpoint, secrets: &mut Secrets<'_>, report: &mut Report) -> Option<Trustpoint> {
    let label = values::name(name, report);
    if raw.ca_file.is_none() && raw.certificate_file.is_none() {
        report.error_key(
            &raw.path,
            "neither `ca_file` nor `certificate_file` is given",
            "name the certificates of the authority: `ca_file: FILE`",
        );
        return None;
    }
    let credential = match (&raw.certificate_file, &raw.key_file) {
        (Some(chain), Some(key)) => credential(chain, key, secrets, report).map(Some),
        (None, None) => Some(None),
        (Some(w), None) => {
            report.error(&w.path, "a certificate without its private key", "add `key_file: FILE`");
            None
        }
        (None, Some(w)) => {
            report.error(&w.path, "a private key without its certificate", "add `certificate_file: FILE`");
            None
        }
    };
    let trust = match &raw.ca_file {
        Some(w) => trust(w, raw, secrets, report).map(Some),
        None => {
            if let Some(w) = &raw.crl_file {
                report.error(&w.path, "a revocation list without its authority", "add `ca_file: FILE`");
            }
            Some(None)
        }
    };
    Some(Trustpoint { name: label?, credential: credential?, trust: trust?, crl_required: raw.crl_required.unwrap_or(false) })
}

fn credential(chain: &Word, key: &Word, secrets: &mut Secrets<'_>, report: &mut Report) -> Option<Arc<Credential>> {
    let pem = secrets.file(chain, CERTIFICATES_BYTES_MAX, report);
    let secret = secrets.key_file(key, KEY_BYTES_MAX, report);
    let (pem, secret) = (pem?, secret?);
    match Credential::from_pem(&pem, secret.expose()) {
        Ok(c) => Some(Arc::new(c)),
        Err(e) => {
            let at = match e {
                PkiError::KeyEncrypted | PkiError::KeyCount(_) | PkiError::KeyKind(_) | PkiError::KeyMismatch => key,
                PkiError::Missing { what, .. } if what.contains("KEY") => key,
                _ => chain,
            };
            refused(at, &e, report);
            None
        }
    }
}

fn trust(ca: &Word, raw: &RawTrustpoint, secrets: &mut Secrets<'_>, report: &mut Report) -> Option<Arc<Trust>> {
    let pem = secrets.file(ca, CERTIFICATES_BYTES_MAX, report);
    let crls = match &raw.crl_file {
        Some(w) => secrets.file(w, CRL_BYTES_MAX, report),
        None => Some(Vec::new()),
    };
    let required = raw.crl_required.unwrap_or(false);
    if required && raw.crl_file.is_none() {
        let cause = "revocation lists are required, but none is named: every certificate would be refused";
        report.error(&raw.path.key("crl_required"), cause, "add `crl_file: FILE`");
        return None;
    }
    let (pem, crls) = (pem?, crls?);
    if let Some(w) = raw.crl_file.as_ref().filter(|_| !crls.windows(CRL_LABEL.len()).any(|x| x == CRL_LABEL)) {
        let cause = format!("{}: no PEM section `X509 CRL` in it", w.text);
        report.error(&w.path, cause, "a DER file becomes PEM with `openssl crl -inform der`");
        return None;
    }
    match Trust::from_pem(&pem, &crls) {
        Ok(t) => Some(Arc::new(t.require_crls(required))),
        Err(e) => {
            let of_crl = matches!(e, PkiError::Crl { .. });
            refused(raw.crl_file.as_ref().filter(|_| of_crl).unwrap_or(ca), &e, report);
            None
        }
    }
}

/// The error of a file; what it says behind a semicolon is the cure.
fn refused(at: &Word, e: &PkiError, report: &mut Report) {
    let text = e.to_string();
    let (cause, cure) = text.split_once("; ").unwrap_or((&text, "look at it with `openssl x509 -noout -text -in FILE`"));
    report.error(&at.path, format!("{}: {cause}", at.text), cure);
}
