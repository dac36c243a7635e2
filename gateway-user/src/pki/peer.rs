//! The certificate of a peer, after its path was checked.

use super::key::PublicKey;
use super::path::why;
use super::{CERTIFICATE_BYTES_MAX, EcdsaEncoding, PkiError, SignatureAlg, name};
use crate::id::Identity;
use rustls_pki_types::CertificateDer;
use std::net::{Ipv4Addr, Ipv6Addr};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};

/// What one certificate says about its holder.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Subject, DER.
    pub(super) subject: Vec<u8>,
    /// Issuer, DER.
    pub(super) issuer: Vec<u8>,
    /// Subject alternative names that can be an IKE identity.
    pub(super) names: Vec<Identity>,
    /// Key usage, if it says so.
    pub(super) usage: Option<KeyUsage>,
    pub(super) key: PublicKey,
}

/// Key usage of a certificate; `Err` for one that cannot be read.
pub(super) fn usage(certificate: &Certificate) -> Result<Option<KeyUsage>, PkiError> {
    let usage = certificate.tbs_certificate().get_extension::<KeyUsage>();
    Ok(usage.map_err(|e| unusable("the certificate", e))?.map(|(_, usage)| usage))
}

/// Wraps what a library says about a certificate.
pub(super) fn unusable(place: impl Into<String>, why: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate { place: place.into(), why: why.to_string() }
}

/// Puts the header of a SEQUENCE before its content.
pub(super) fn sequence(content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut der = vec![0x30];
    match len {
        0..=0x7f => der.push(len as u8),
        0x80..=0xff => der.extend([0x81, len as u8]),
        // Certificates are bounded far below.
        _ => der.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    der.extend_from_slice(content);
    der
}

impl Facts {
    /// Reads a certificate; `place` names it in errors.
    pub(super) fn read(der: &[u8], place: &str) -> Result<Self, PkiError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(unusable(place, format!("{} bytes, at most {CERTIFICATE_BYTES_MAX} are taken", der.len())));
        }
        let borrowed = CertificateDer::from(der);
        let raw = EndEntityCert::try_from(&borrowed).map_err(|e| unusable(place, why(&e)))?;
        let parsed = Certificate::from_der(der).map_err(|e| unusable(place, e))?;
        let alt = parsed.tbs_certificate().get_extension::<SubjectAltName>().map_err(|e| unusable(place, e))?;
        let names = alt.map(|(_, alt)| alt.0.iter().filter_map(identity).collect()).unwrap_or_default();
        Ok(Self {
            subject: sequence(raw.subject()),
            issuer: sequence(raw.issuer()),
            names,
            usage: usage(&parsed)?,
            key: PublicKey::from_spki(&raw.subject_public_key_info())?,
        })
    }
}

fn identity(name: &GeneralName) -> Option<Identity> {
    match name {
        GeneralName::DnsName(text) => Some(Identity::Fqdn(text.as_str().to_owned())),
        GeneralName::Rfc822Name(text) => Some(Identity::UserFqdn(text.as_str().to_owned())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).into());
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).into())).ok().map(Identity::Address)
        }
        _ => None,
    }
}

/// A certificate whose path was checked: [`Trust::check`](super::Trust::check) makes it.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    facts: Facts,
}

impl PeerCertificate {
    pub(super) fn new(facts: Facts) -> Self {
        Self { facts }
    }

    /// True if the certificate holds this identity (RFC 4945 3.1, RFC 7296 4): the whole subject for a distinguished name, a
    /// subject alternative name for an address, a host name or a mail address. The common name counts for nothing, nor do
    /// wildcards; a key ID says nothing that a certificate could confirm.
    pub fn matches(&self, id: &Identity) -> bool {
        let mut names = self.facts.names.iter();
        match id {
            Identity::DerAsn1Dn(der) => !name::is_empty(&self.facts.subject) && name::same(&self.facts.subject, der),
            Identity::Address(_) => names.any(|n| n == id),
            Identity::Fqdn(want) => names.any(|n| matches!(n, Identity::Fqdn(have) if have.eq_ignore_ascii_case(want))),
            Identity::UserFqdn(want) => names.any(|n| matches!(n, Identity::UserFqdn(have) if same_mail(have, want))),
            Identity::KeyId(_) => false,
        }
    }

    /// The subject as text (RFC 4514), or the first alternative name if the subject is empty. Safe for a log line.
    pub fn subject_text(&self) -> String {
        match name::text(&self.facts.subject) {
            Some(text) if !text.is_empty() => text,
            _ => self.facts.names.first().map_or_else(|| "(no name)".into(), |n| format!("{n:?}")),
        }
    }

    /// Checks the signature of an AUTH payload with method 14 (RFC 7427).
    ///
    /// # Errors
    /// [`PkiError::Algorithm`] if the key cannot have made it, [`PkiError::Signature`] if it is wrong.
    pub fn verify(&self, alg: SignatureAlg, message: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        // Method 14 must not go with SHA-1 (RFC 8247 3.2).
        if alg == SignatureAlg::RsaPkcs1Sha1 {
            return Err(PkiError::Algorithm);
        }
        self.facts.key.verify(alg, EcdsaEncoding::Der, message, signature)
    }

    /// Checks the signature of an AUTH payload with method 1, 9, 10 or 11 (RFC 7296 3.8, RFC 4754).
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_legacy(&self, method: u8, message: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        let alg = SignatureAlg::from_legacy_method(method).ok_or(PkiError::Algorithm)?;
        self.facts.key.verify(alg, EcdsaEncoding::Fixed, message, signature)
    }

    /// Checks the SIG payload of IKEv1 over HASH_I or HASH_R (RFC 2409 5.1): RSA only.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_ikev1(&self, hash: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        self.facts.key.verify_ikev1(hash, signature)
    }
}

impl std::fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerCertificate({})", self.subject_text())
    }
}

/// The part before the @ is the host's own affair, the host has no case (RFC 5280 4.2.1.6).
fn same_mail(a: &str, b: &str) -> bool {
    match (a.rsplit_once('@'), b.rsplit_once('@')) {
        (Some((user_a, host_a)), Some((user_b, host_b))) => user_a == user_b && host_a.eq_ignore_ascii_case(host_b),
        _ => a == b,
    }
}
