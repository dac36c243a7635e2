//! Whom we believe.

use super::path;
use super::peer::{self, Facts, PeerCertificate, sequence, unusable};
use super::{CERTIFICATE_BYTES_MAX, CHAIN_MAX, PkiError, pem};
use crate::crypto::HashAlg;
use rustls_pki_types::pem::SectionKind;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

/// What an authority's own certificate says about it.
pub(super) struct Authority {
    pub(super) not_before_s: u64,
    pub(super) not_after_s: u64,
    pub(super) usage: Option<KeyUsage>,
}

/// A revocation list that was read but not yet believed: its signature is checked against the issuer that a path has.
pub(super) struct Crl {
    /// The bytes, for comparison of configurations.
    der: Vec<u8>,
    pub(super) list: CertRevocationList<'static>,
    pub(super) this_update_s: u64,
}

/// Authorities and revocation lists.
pub struct Trust {
    /// Certificates in DER.
    certificates: Vec<Vec<u8>>,
    /// The same for path validation, in the same order.
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    /// What the validation does not look at, in the same order.
    pub(super) authorities: Vec<Authority>,
    /// Newest first.
    pub(super) crls: Vec<Crl>,
    pub(super) crl_required: bool,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        let crls = |t: &Self| t.crls.iter().map(|c| c.der.clone()).collect::<Vec<_>>();
        self.certificates == other.certificates && self.crl_required == other.crl_required && crls(self) == crls(other)
    }
}

impl Eq for Trust {}

impl Trust {
    /// Reads the certificates of authorities and revocation lists (none is fine) from PEM.
    ///
    /// # Errors
    /// Names the certificate or list and what is wrong with it: not an authority, unreadable, too large.
    pub fn from_pem(anchors: &[u8], crls: &[u8]) -> Result<Self, PkiError> {
        let mut trust = Self {
            certificates: pem::certificates(anchors)?,
            anchors: Vec::new(),
            authorities: Vec::new(),
            crls: Vec::new(),
            crl_required: false,
        };
        for (n, der) in trust.certificates.iter().enumerate() {
            let place = format!("authority {}", n + 1);
            trust.authorities.push(authority(der, &place)?);
            let der = CertificateDer::from(der.as_slice());
            trust.anchors.push(webpki::anchor_from_trusted_cert(&der).map_err(|e| unusable(&place, e))?.to_owned());
        }
        for (n, (_, der)) in pem::sections(crls, &[SectionKind::Crl])?.into_iter().enumerate() {
            trust.crls.push(crl(&der).map_err(|why| PkiError::Crl { number: n + 1, why })?);
        }
        // The validation takes the first list of an issuer.
        trust.crls.sort_by_key(|crl| std::cmp::Reverse(crl.this_update_s));
        Ok(trust)
    }

    /// With `true`, a certificate whose issuer has no revocation list here is refused. A list that is here always counts: one that
    /// has expired refuses every certificate of its issuer.
    #[must_use]
    pub fn require_crls(mut self, required: bool) -> Self {
        self.crl_required = required;
        self
    }

    /// SHA-1 of every authority's SubjectPublicKeyInfo, for CERTREQ of IKEv2 (RFC 7296 3.7).
    pub fn authority_hashes(&self) -> Vec<[u8; 20]> {
        let hash = |anchor| HashAlg::Sha1.digest(&[&webpki::spki_for_anchor(anchor)]);
        self.anchors.iter().filter_map(|anchor| hash(anchor).try_into().ok()).collect()
    }

    /// Names of the authorities in DER, for CERTREQ of IKEv1 (RFC 2408 3.10).
    pub fn authority_names(&self) -> Vec<Vec<u8>> {
        self.anchors.iter().map(|anchor| sequence(&anchor.subject)).collect()
    }

    /// Checks the certificates that a peer sent (DER, its own first, the others in any order) at `unix_s` seconds.
    ///
    /// # Errors
    /// Says which rule is broken; nothing of it may go to the peer.
    pub fn check(&self, chain: &[Vec<u8>], unix_s: u64) -> Result<PeerCertificate, PkiError> {
        if chain.len() > CHAIN_MAX {
            return Err(PkiError::ChainLength { got: chain.len() });
        }
        let (own, others) = chain.split_first().ok_or_else(|| PkiError::Path("it sent none".into()))?;
        if let Some(large) = others.iter().find(|der| der.len() > CERTIFICATE_BYTES_MAX) {
            return Err(unusable(
                "a certificate of the chain",
                format!("{} bytes, at most {CERTIFICATE_BYTES_MAX} are taken", large.len()),
            ));
        }
        let facts = Facts::read(own, "the peer's certificate")?;
        path::check(self, own, others, &facts, unix_s)?;
        Ok(PeerCertificate::new(facts))
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({} authorities, {} revocation lists)", self.anchors.len(), self.crls.len())
    }
}

fn authority(der: &[u8], place: &str) -> Result<Authority, PkiError> {
    let parsed = Certificate::from_der(der).map_err(|e| unusable(place, e))?;
    let tbs = parsed.tbs_certificate();
    let constraints = tbs.get_extension::<BasicConstraints>().map_err(|e| unusable(place, e))?;
    if !constraints.is_some_and(|(_, c)| c.ca) {
        return Err(unusable(place, "it is not the certificate of an authority (basicConstraints CA:TRUE)"));
    }
    let usage = peer::usage(&parsed)?;
    if usage.is_some_and(|u| !u.key_cert_sign()) {
        return Err(unusable(place, "its key usage does not allow it to sign certificates (keyCertSign)"));
    }
    let validity = tbs.validity();
    Ok(Authority {
        not_before_s: validity.not_before.to_unix_duration().as_secs(),
        not_after_s: validity.not_after.to_unix_duration().as_secs(),
        usage,
    })
}

fn crl(der: &[u8]) -> Result<Crl, String> {
    let list = OwnedCertRevocationList::from_der(der).map_err(|e| e.to_string())?;
    let parsed = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).map_err(|e| e.to_string())?;
    debug_assert!(parsed.encoded_len().is_ok());
    let this_update_s = parsed.tbs_cert_list.this_update.to_unix_duration().as_secs();
    Ok(Crl { der: der.to_vec(), list: list.into(), this_update_s })
}
