//! Public keys and what they verify.

use super::{EcdsaEncoding, PkiError, RSA_BITS_MAX, RSA_BITS_MIN, SignatureAlg};
use crate::crypto::HashAlg;
use ring::signature as rs;
use rsa::pkcs1::{DecodeRsaPublicKey, RsaPublicKeyRef};
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::signature::hazmat::PrehashVerifier;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

/// Largest RSA public exponent, bits: above that a verification costs as much as a signature.
const RSA_EXPONENT_BITS_MAX: u32 = 33;

/// A public key within our bounds.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum PublicKey {
    /// RSAPublicKey in DER, and the same parsed.
    Rsa { der: Vec<u8>, key: rsa::PublicKey },
    /// Uncompressed point: 4, x, y.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    /// Uncompressed point.
    P521(Vec<u8>),
    /// RFC 8410.
    Ed25519([u8; 32]),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    pub(super) fn from_spki(der: &[u8]) -> Result<Self, PkiError> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| PkiError::KeyUnsupported)?;
        let bits = spki.subject_public_key.as_bytes().ok_or(PkiError::KeyUnsupported)?;
        let parameters: Option<AnyRef<'_>> = spki.algorithm.parameters;
        let point = |len: usize| {
            let good = bits.len() == 1 + 2 * len && bits[0] == 4;
            good.then(|| bits.to_vec()).ok_or(PkiError::KeyUnsupported)
        };
        match (spki.algorithm.oid, parameters) {
            (RSA, None) => Self::rsa(bits),
            (RSA, Some(p)) if p.tag() == Tag::Null => Self::rsa(bits),
            (ED25519, None) => Ok(Self::Ed25519(bits.try_into().map_err(|_| PkiError::KeyUnsupported)?)),
            (EC, Some(p)) => match p.decode_as::<ObjectIdentifier>() {
                Ok(P256) => point(32).map(Self::P256),
                Ok(P384) => point(48).map(Self::P384),
                Ok(P521) => point(66).map(Self::P521),
                Ok(_) | Err(_) => Err(PkiError::KeyUnsupported),
            },
            _ => Err(PkiError::KeyUnsupported),
        }
    }

    fn rsa(der: &[u8]) -> Result<Self, PkiError> {
        let raw = RsaPublicKeyRef::from_der(der).map_err(|_| PkiError::KeyUnsupported)?;
        let bits = |bytes: &[u8]| bytes.len() as u32 * 8 - bytes.first().map_or(0, |b| b.leading_zeros());
        let modulus = bits(raw.modulus.as_bytes());
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&modulus) {
            return Err(PkiError::RsaSize(modulus));
        }
        let exponent = raw.public_exponent.as_bytes();
        let odd = exponent.last().is_some_and(|b| b & 1 == 1);
        if !odd || exponent == [1] || bits(exponent) > RSA_EXPONENT_BITS_MAX {
            return Err(PkiError::RsaExponent);
        }
        // Refuses an even modulus as well.
        let key = rsa::PublicKey::from_pkcs1_der(der).map_err(|_| PkiError::KeyUnsupported)?;
        Ok(Self::Rsa { der: der.to_vec(), key })
    }

    /// Kind of key, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "ECDSA P-256",
            Self::P384(_) => "ECDSA P-384",
            Self::P521(_) => "ECDSA P-521",
            Self::Ed25519(_) => "Ed25519",
        }
    }

    /// True for the curve that a method without AlgorithmIdentifier goes with.
    fn fits_fixed(&self, alg: SignatureAlg) -> bool {
        matches!(
            (self, alg),
            (Self::P256(_), SignatureAlg::EcdsaSha256)
                | (Self::P384(_), SignatureAlg::EcdsaSha384)
                | (Self::P521(_), SignatureAlg::EcdsaSha512)
        )
    }

    /// Algorithms the key can sign with under method 14, best first.
    pub(super) fn algorithms(&self) -> &'static [SignatureAlg] {
        use SignatureAlg::*;
        match self {
            // PSS before PKCS#1 (RFC 8247 3.2). A key of 2048 to 4096 bits is no stronger than SHA-256.
            Self::Rsa { .. } => &[RsaPssSha256, RsaPssSha384, RsaPssSha512, RsaPkcs1Sha256, RsaPkcs1Sha384, RsaPkcs1Sha512],
            Self::P256(_) => &[EcdsaSha256, EcdsaSha384, EcdsaSha512],
            Self::P384(_) => &[EcdsaSha384, EcdsaSha512, EcdsaSha256],
            Self::P521(_) => &[EcdsaSha512, EcdsaSha384, EcdsaSha256],
            Self::Ed25519(_) => &[SignatureAlg::Ed25519],
        }
    }

    /// Algorithm of the method without AlgorithmIdentifier.
    pub(super) fn legacy_algorithm(&self) -> Option<SignatureAlg> {
        match self {
            Self::Rsa { .. } => Some(SignatureAlg::RsaPkcs1Sha1),
            Self::P256(_) => Some(SignatureAlg::EcdsaSha256),
            Self::P384(_) => Some(SignatureAlg::EcdsaSha384),
            Self::P521(_) => Some(SignatureAlg::EcdsaSha512),
            Self::Ed25519(_) => None,
        }
    }

    /// Checks a signature.
    pub(super) fn verify(&self, alg: SignatureAlg, encoding: EcdsaEncoding, message: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        use EcdsaEncoding::{Der, Fixed};
        use SignatureAlg as A;
        if encoding == Fixed && matches!(self, Self::P256(_) | Self::P384(_) | Self::P521(_)) && !self.fits_fixed(alg) {
            return Err(PkiError::Algorithm);
        }
        let (method, key): (&'static dyn rs::VerificationAlgorithm, &[u8]) = match (self, alg, encoding) {
            (Self::Rsa { der, .. }, A::RsaPkcs1Sha1, _) => (&rs::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, der),
            (Self::Rsa { der, .. }, A::RsaPkcs1Sha256, _) => (&rs::RSA_PKCS1_2048_8192_SHA256, der),
            (Self::Rsa { der, .. }, A::RsaPkcs1Sha384, _) => (&rs::RSA_PKCS1_2048_8192_SHA384, der),
            (Self::Rsa { der, .. }, A::RsaPkcs1Sha512, _) => (&rs::RSA_PKCS1_2048_8192_SHA512, der),
            (Self::Rsa { der, .. }, A::RsaPssSha256, _) => (&rs::RSA_PSS_2048_8192_SHA256, der),
            (Self::Rsa { der, .. }, A::RsaPssSha384, _) => (&rs::RSA_PSS_2048_8192_SHA384, der),
            (Self::Rsa { der, .. }, A::RsaPssSha512, _) => (&rs::RSA_PSS_2048_8192_SHA512, der),
            (Self::P256(point), A::EcdsaSha256, Der) => (&rs::ECDSA_P256_SHA256_ASN1, point),
            (Self::P256(point), A::EcdsaSha256, Fixed) => (&rs::ECDSA_P256_SHA256_FIXED, point),
            (Self::P384(point), A::EcdsaSha384, Der) => (&rs::ECDSA_P384_SHA384_ASN1, point),
            (Self::P384(point), A::EcdsaSha384, Fixed) => (&rs::ECDSA_P384_SHA384_FIXED, point),
            (Self::Ed25519(key), A::Ed25519, _) => (&rs::ED25519, key),
            (Self::P256(_) | Self::P384(_) | Self::P521(_), A::EcdsaSha256 | A::EcdsaSha384 | A::EcdsaSha512, _) => {
                return self.verify_prehash(alg, encoding, message, signature);
            }
            _ => return Err(PkiError::Algorithm),
        };
        rs::UnparsedPublicKey::new(method, key).verify(message, signature).map_err(|_| PkiError::Signature)
    }

    /// ECDSA where `ring` has not this curve with this hash.
    fn verify_prehash(&self, alg: SignatureAlg, encoding: EcdsaEncoding, message: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        let hash = alg.hash().ok_or(PkiError::Algorithm)?.digest(&[message]);
        macro_rules! verify {
            ($curve:ident, $point:expr) => {{
                let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes($point).map_err(|_| PkiError::Signature)?;
                let signature = match encoding {
                    EcdsaEncoding::Der => $curve::ecdsa::Signature::from_der(signature),
                    EcdsaEncoding::Fixed => $curve::ecdsa::Signature::from_slice(signature),
                };
                signature.and_then(|s| key.verify_prehash(&hash, &s)).map_err(|_| PkiError::Signature)
            }};
        }
        match self {
            Self::P256(point) => verify!(p256, point),
            Self::P384(point) => verify!(p384, point),
            Self::P521(point) => verify!(p521, point),
            Self::Rsa { .. } | Self::Ed25519(_) => Err(PkiError::Algorithm),
        }
    }

    /// Checks a signature of IKEv1: the block of PKCS#1 type 1 holds the hash alone, without DigestInfo (RFC 2409 5.1). The whole
    /// block is compared with the one we build, so there is no room for other bytes in it.
    pub(super) fn verify_ikev1(&self, hash: &[u8], signature: &[u8]) -> Result<(), PkiError> {
        let Self::Rsa { key, .. } = self else { return Err(PkiError::Algorithm) };
        if !HashAlg::ALL.iter().any(|h| h.len() == hash.len()) {
            return Err(PkiError::Signature);
        }
        key.verify(Pkcs1v15Sign::new_unprefixed(), hash, signature).map_err(|_| PkiError::Signature)
    }
}
