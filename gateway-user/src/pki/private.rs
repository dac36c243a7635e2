//! Private keys and what they sign.

use super::key::PublicKey;
use super::{EcdsaEncoding, PkiError, SignatureAlg};
use crate::crypto::HashAlg;
use crate::rng::Random;
use ed25519_dalek::Signer;
use hex_literal::hex;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs1v15::Pkcs1v15Sign;
use rsa::pkcs8::{DecodePrivateKey, PrivateKeyInfoRef};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::signature::hazmat::RandomizedPrehashSigner;
use rustls_pki_types::pem::SectionKind;
use std::convert::Infallible;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use zeroize::Zeroizing;

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A private key. Every variant zeroises itself when dropped; none of them shows itself.
pub(super) enum PrivateKey {
    Rsa(rsa::PrivateKey),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

/// Our randomness in the shape the libraries take.
struct Source<'a>(&'a mut dyn Random);

impl TryRng for Source<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.u32())
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.u64())
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Source<'_> {}

impl PrivateKey {
    /// Reads the private half of `public` from a PKCS#8, PKCS#1 or SEC 1 structure in DER.
    pub(super) fn from_der(kind: SectionKind, der: &[u8], public: &PublicKey) -> Result<Self, PkiError> {
        let wrong = PkiError::KeyKind(public.kind());
        macro_rules! ecdsa {
            ($curve:ident) => {
                match kind {
                    SectionKind::PrivateKey => $curve::SecretKey::from_pkcs8_der(der).ok(),
                    SectionKind::EcPrivateKey => $curve::SecretKey::from_sec1_der(der).ok(),
                    _ => None,
                }
                .map($curve::ecdsa::SigningKey::from)
            };
        }
        let key = match public {
            PublicKey::Rsa { .. } => match kind {
                SectionKind::PrivateKey => rsa::PrivateKey::from_pkcs8_der(der).ok(),
                SectionKind::RsaPrivateKey => rsa::PrivateKey::from_pkcs1_der(der).ok(),
                _ => None,
            }
            .map(Self::Rsa),
            PublicKey::P256(_) => ecdsa!(p256).map(Self::P256),
            PublicKey::P384(_) => ecdsa!(p384).map(Self::P384),
            PublicKey::P521(_) => ecdsa!(p521).map(Self::P521),
            PublicKey::Ed25519(_) => ed25519(kind, der).map(Self::Ed25519),
        };
        let key = key.ok_or(wrong)?;
        if key.matches(public) { Ok(key) } else { Err(PkiError::KeyMismatch) }
    }

    fn matches(&self, public: &PublicKey) -> bool {
        match (self, public) {
            (Self::Rsa(key), PublicKey::Rsa { key: want, .. }) => key.as_public_key() == want,
            (Self::P256(key), PublicKey::P256(want)) => key.verifying_key().to_sec1_point(false).as_bytes() == want,
            (Self::P384(key), PublicKey::P384(want)) => key.verifying_key().to_sec1_point(false).as_bytes() == want,
            (Self::P521(key), PublicKey::P521(want)) => key.verifying_key().to_sec1_point(false).as_bytes() == want,
            (Self::Ed25519(key), PublicKey::Ed25519(want)) => key.verifying_key().as_bytes() == want,
            _ => false,
        }
    }

    /// Signs a message.
    pub(super) fn sign(
        &self,
        alg: SignatureAlg,
        encoding: EcdsaEncoding,
        message: &[u8],
        rng: &mut dyn Random,
    ) -> Result<Vec<u8>, PkiError> {
        use SignatureAlg as A;
        let hash = alg.hash().map(|h| h.digest(&[message]));
        // RFC 6979 nonces with fresh randomness mixed in: neither a bad generator nor a repeated message gives the key away.
        macro_rules! ecdsa {
            ($curve:ident, $key:expr) => {{
                let hash = hash.as_deref().ok_or(PkiError::Algorithm)?;
                let signature: $curve::ecdsa::Signature =
                    $key.sign_prehash_with_rng(&mut Source(rng), hash).map_err(|_| PkiError::Algorithm)?;
                Ok(match encoding {
                    EcdsaEncoding::Der => signature.to_der().as_bytes().to_vec(),
                    EcdsaEncoding::Fixed => signature.to_bytes().to_vec(),
                })
            }};
        }
        match (self, alg) {
            (Self::Rsa(key), A::RsaPkcs1Sha1 | A::RsaPkcs1Sha256 | A::RsaPkcs1Sha384 | A::RsaPkcs1Sha512) => {
                let (Some(hash), Some(prefix)) = (hash, alg.hash().and_then(digest_info)) else { return Err(PkiError::Algorithm) };
                let scheme = Pkcs1v15Sign { hash_len: Some(hash.len()), prefix: prefix.into() };
                key.sign_with_rng(&mut Source(rng), scheme, &hash).map_err(|_| PkiError::Sign)
            }
            (Self::Rsa(key), A::RsaPssSha256 | A::RsaPssSha384 | A::RsaPssSha512) => {
                let hash = hash.ok_or(PkiError::Algorithm)?;
                let rng = &mut Source(rng);
                match alg {
                    A::RsaPssSha256 => key.pss_sign_prehash_with_rng::<sha2::Sha256, _>(rng, &hash),
                    A::RsaPssSha384 => key.pss_sign_prehash_with_rng::<sha2::Sha384, _>(rng, &hash),
                    _ => key.pss_sign_prehash_with_rng::<sha2::Sha512, _>(rng, &hash),
                }
                .map_err(|_| PkiError::Sign)
            }
            (Self::P256(key), A::EcdsaSha256 | A::EcdsaSha384 | A::EcdsaSha512) => ecdsa!(p256, key),
            (Self::P384(key), A::EcdsaSha256 | A::EcdsaSha384 | A::EcdsaSha512) => ecdsa!(p384, key),
            (Self::P521(key), A::EcdsaSha256 | A::EcdsaSha384 | A::EcdsaSha512) => ecdsa!(p521, key),
            (Self::Ed25519(key), A::Ed25519) => Ok(key.sign(message).to_bytes().to_vec()),
            _ => Err(PkiError::Algorithm),
        }
    }

    /// Signs HASH_I or HASH_R of IKEv1: PKCS#1 block type 1 around the hash alone (RFC 2409 5.1).
    pub(super) fn sign_ikev1(&self, hash: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
        let Self::Rsa(key) = self else { return Err(PkiError::Algorithm) };
        key.sign_with_rng(&mut Source(rng), Pkcs1v15Sign::new_unprefixed(), hash).map_err(|_| PkiError::Sign)
    }
}

/// RFC 8410 7: an OCTET STRING of 32 bytes inside PKCS#8.
fn ed25519(kind: SectionKind, der: &[u8]) -> Option<ed25519_dalek::SigningKey> {
    if kind != SectionKind::PrivateKey {
        return None;
    }
    let info = PrivateKeyInfoRef::from_der(der).ok()?;
    let seed = info.private_key.as_bytes().strip_prefix(&[4, 32])?;
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().ok()?);
    (info.algorithm.oid == ED25519).then(|| ed25519_dalek::SigningKey::from_bytes(&seed))
}

/// What stands before the hash in a PKCS#1 signature (RFC 8017 9.2 note 1).
fn digest_info(hash: HashAlg) -> Option<&'static [u8]> {
    match hash {
        HashAlg::Md5 => None,
        HashAlg::Sha1 => Some(&hex!("3021300906052b0e03021a05000414")),
        HashAlg::Sha256 => Some(&hex!("3031300d060960864801650304020105000420")),
        HashAlg::Sha384 => Some(&hex!("3041300d060960864801650304020205000430")),
        HashAlg::Sha512 => Some(&hex!("3051300d060960864801650304020305000440")),
    }
}
