//! Path validation: `rustls-webpki` and the rules of IKE it does not know.

use super::key::PublicKey;
use super::peer::Facts;
use super::trust::Trust;
use super::{EcdsaEncoding, PkiError, SignatureAlg, peer};
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime, alg_id};
use std::cell::RefCell;
use std::time::Duration;
use webpki::{
    EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RequiredEkuNotFoundContext,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Signatures that a certificate or a revocation list may carry. No MD5, no SHA-1.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    &Ecdsa { key: alg_id::ECDSA_P256, name: alg_id::ECDSA_SHA512, alg: SignatureAlg::EcdsaSha512, make: PublicKey::P256 },
    &Ecdsa { key: alg_id::ECDSA_P384, name: alg_id::ECDSA_SHA512, alg: SignatureAlg::EcdsaSha512, make: PublicKey::P384 },
    &Ecdsa { key: alg_id::ECDSA_P521, name: alg_id::ECDSA_SHA256, alg: SignatureAlg::EcdsaSha256, make: PublicKey::P521 },
    &Ecdsa { key: alg_id::ECDSA_P521, name: alg_id::ECDSA_SHA384, alg: SignatureAlg::EcdsaSha384, make: PublicKey::P521 },
    &Ecdsa { key: alg_id::ECDSA_P521, name: alg_id::ECDSA_SHA512, alg: SignatureAlg::EcdsaSha512, make: PublicKey::P521 },
];

/// Curve and hash that `ring` does not have together.
struct Ecdsa {
    key: AlgorithmIdentifier,
    name: AlgorithmIdentifier,
    alg: SignatureAlg,
    make: fn(Vec<u8>) -> PublicKey,
}

impl std::fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ecdsa({:?})", self.alg)
    }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.name
    }
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = (self.make)(key.to_vec());
        key.verify(self.alg, EcdsaEncoding::Der, message, signature).map_err(|_| InvalidSignature)
    }
}

/// Extended key usages that IKE takes, DER without header (RFC 4945 5.1.3.12, and what real authorities write).
const PURPOSES: [&[u8]; 8] = [
    &[0x55, 0x1d, 0x25, 0x00],                         // anyExtendedKeyUsage
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01], // serverAuth
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02], // clientAuth
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x05], // ipsecEndSystem
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x06], // ipsecTunnel
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x07], // ipsecUser
    IPSEC_IKE,
    &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x08, 0x02, 0x02], // iKEIntermediate
];
const IPSEC_IKE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x11];

/// Takes a certificate without purposes, or with one of ours.
struct Purposes;

impl ExtendedKeyUsageValidator for Purposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut any = false;
        for purpose in purposes {
            let purpose = purpose?;
            if PURPOSES.iter().any(|p| KeyPurposeId::new(p) == purpose) {
                return Ok(());
            }
            any = true;
        }
        if !any {
            return Ok(());
        }
        let required = webpki::KeyUsage::required_if_present(IPSEC_IKE);
        Err(Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present: Vec::new() }))
    }
}

/// Checks a peer's certificate `own` with the help of `others`.
pub(super) fn check(trust: &Trust, own: &[u8], others: &[Vec<u8>], facts: &Facts, unix_s: u64) -> Result<(), PkiError> {
    let refused = |why: &str| Err(PkiError::Path(why.into()));
    // RFC 4945 5.1.3.2: either bit will do.
    if facts.usage.is_some_and(|u| !u.digital_signature() && !u.non_repudiation()) {
        return refused("its key usage does not allow signatures (digitalSignature)");
    }
    if trust.crl_required && trust.crls.is_empty() {
        return refused("revocation lists are required and none is configured");
    }
    let own = CertificateDer::from(own);
    let others: Vec<_> = others.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let certificate = EndEntityCert::try_from(&own).map_err(|e| PkiError::Path(why(&e)))?;
    let lists: Vec<_> = trust.crls.iter().map(|crl| &crl.list).collect();
    let unknown = if trust.crl_required { UnknownStatusPolicy::Deny } else { UnknownStatusPolicy::Allow };
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
        let options = options.with_depth(RevocationCheckDepth::Chain).with_status_policy(unknown);
        options.with_expiration_policy(ExpirationPolicy::Enforce).build()
    });
    // The library's error type has no room for our reasons.
    let reason = RefCell::new(None);
    let ours = |path: &VerifiedPath<'_>| {
        extra_rules(trust, path, unix_s).map_err(|text| {
            *reason.borrow_mut() = Some(text);
            Error::UnknownIssuer
        })
    };
    let time = UnixTime::since_unix_epoch(Duration::from_secs(unix_s));
    let verified = certificate.verify_for_usage(SIGNATURES, &trust.anchors, &others, time, Purposes, revocation, Some(&ours));
    match verified {
        Ok(_) => Ok(()),
        Err(e) => Err(PkiError::Path(reason.take().unwrap_or_else(|| why(&e)))),
    }
}

/// Rules for a path that is otherwise good.
fn extra_rules(trust: &Trust, path: &VerifiedPath<'_>, unix_s: u64) -> Result<(), String> {
    let authorities = trust.anchors.iter().zip(&trust.authorities).filter(|(anchor, _)| *anchor == path.anchor());
    let valid = |a: &super::trust::Authority| (a.not_before_s..=a.not_after_s).contains(&unix_s);
    let authority = authorities.map(|(_, authority)| authority).find(|a| valid(a));
    let authority = authority.ok_or("the authority's own certificate is expired or not yet valid; renew it, or check the clock")?;

    // Names of everyone who signed something in this path.
    let mut issuers: Vec<&[u8]> = vec![&path.anchor().subject];
    for issuer in path.intermediate_certificates() {
        let parsed = Certificate::from_der(&issuer.der()).map_err(|e| format!("an authority on the way cannot be read: {e}"))?;
        let usage = peer::usage(&parsed).map_err(|e| e.to_string())?;
        if usage.is_some_and(|u| !u.key_cert_sign()) {
            return Err("an authority on the way must not sign certificates (keyCertSign)".into());
        }
        issuers.push(issuer.subject());
    }
    for crl in trust.crls.iter().filter(|crl| issuers.contains(&crl.list.issuer())) {
        if crl.this_update_s > unix_s {
            return Err("the revocation list of its issuer starts in the future; check the clock".into());
        }
        let from_anchor = crl.list.issuer() == path.anchor().subject.as_ref();
        if from_anchor && authority.usage.is_some_and(|u| !u.crl_sign()) {
            return Err("the authority must not sign revocation lists (cRLSign)".into());
        }
    }
    Ok(())
}

/// The library's error as a sentence an operator can act on.
pub(super) fn why(error: &Error) -> String {
    match error {
        Error::CertExpired { .. } => "a certificate has expired; renew it, or check the clock".into(),
        Error::CertNotValidYet { .. } => "a certificate is not valid yet; check the clock".into(),
        Error::CertRevoked => "it is revoked".into(),
        Error::CrlExpired { .. } => "the revocation list of its issuer has expired; fetch a new one".into(),
        Error::UnknownRevocationStatus => "its issuer has no revocation list here, and lists are required".into(),
        Error::UnknownIssuer => "no configured authority issued it".into(),
        Error::InvalidSignatureForPublicKey => "a signature in the chain is wrong".into(),
        Error::InvalidCrlSignatureForPublicKey => "the signature of the revocation list is wrong".into(),
        Error::NameConstraintViolation => {
            "an authority on the way may not issue for this name, or constrains names in a way that cannot be judged".into()
        }
        Error::PathLenConstraintViolated => "the chain is longer than an authority on the way allows (pathlen)".into(),
        Error::EndEntityUsedAsCa => "a certificate on the way is not an authority's".into(),
        Error::CaUsedAsEndEntity => "it is an authority's certificate, not a gateway's".into(),
        Error::RequiredEkuNotFoundContext(_) => "its extended key usage allows none of IKE, serverAuth, clientAuth".into(),
        Error::UnsupportedCriticalExtension => "a critical extension is unknown".into(),
        Error::UnsupportedSignatureAlgorithmContext(_) => {
            "a signature in the chain uses an algorithm that is not taken (SHA-1, or a rare one)".into()
        }
        other => format!("{other:?}"),
    }
}
