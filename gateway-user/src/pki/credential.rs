//! Our own certificate and private key.

use super::peer::Facts;
use super::private::PrivateKey;
use super::{CHAIN_MAX, EcdsaEncoding, PkiError, SignatureAlg, pem};
use crate::id::Identity;
use crate::rng::Random;
use std::sync::Arc;

/// Our certificate, the chain above it, and the private key. The key is zeroised when dropped and never printed.
#[derive(Clone)]
pub struct Credential {
    /// DER, our own first, then upwards.
    chain: Vec<Vec<u8>>,
    facts: Facts,
    key: Arc<PrivateKey>,
}

/// By the certificates: two keys to one certificate cannot exist.
impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Eq for Credential {}

impl Credential {
    /// Reads certificates (our own first, then upwards, the root may be left out) and the private key (PKCS#8, PKCS#1 or SEC 1,
    /// not encrypted) from PEM.
    ///
    /// # Errors
    /// Says what is wrong and what to do: no or damaged sections, an encrypted key, a key that does not belong to the first
    /// certificate, kinds and sizes of keys that are not taken, certificates out of order.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, PkiError> {
        let chain = pem::certificates(chain)?;
        if chain.len() > CHAIN_MAX {
            return Err(PkiError::ChainLength { got: chain.len() });
        }
        let mut facts = Vec::new();
        for (n, der) in chain.iter().enumerate() {
            facts.push(Facts::read(der, &format!("certificate {}", n + 1))?);
        }
        for n in 1..facts.len() {
            if facts[n - 1].issuer != facts[n].subject {
                return Err(PkiError::Order(n + 1));
            }
        }
        let facts = facts.swap_remove(0);
        let (kind, der) = pem::private_key(key)?;
        let key = PrivateKey::from_der(kind, &der, &facts.key)?;
        Ok(Self { chain, facts, key: Arc::new(key) })
    }

    /// Certificates in DER: our own first, then upwards.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// The subject of our certificate.
    pub fn subject(&self) -> Identity {
        Identity::DerAsn1Dn(self.facts.subject.clone())
    }

    /// Subject alternative names of our certificate.
    pub fn alt_names(&self) -> &[Identity] {
        &self.facts.names
    }

    /// Algorithms for method 14 that our key can do and the peer takes, best first; `peer_hashes` are the numbers of its
    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 4).
    pub fn algorithms(&self, peer_hashes: &[u16]) -> Vec<SignatureAlg> {
        self.facts.key.algorithms().iter().copied().filter(|alg| peer_hashes.contains(&alg.hash_id())).collect()
    }

    /// Method of the AUTH payload for a peer that does not speak RFC 7427: 1, 9, 10 or 11. `None` for Ed25519, which has none.
    pub fn legacy_method(&self) -> Option<u8> {
        self.facts.key.legacy_algorithm().and_then(SignatureAlg::legacy_method)
    }

    /// True if the key can sign in IKEv1 (RSA).
    pub fn signs_ikev1(&self) -> bool {
        matches!(*self.key, PrivateKey::Rsa(_))
    }

    /// Signs for method 14 (RFC 7427): the signature value alone, without AlgorithmIdentifier.
    ///
    /// # Errors
    /// [`PkiError::Algorithm`] if the key cannot do it, [`PkiError::Sign`] if the result does not verify.
    pub fn sign(&self, alg: SignatureAlg, message: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
        self.sign_checked(alg, EcdsaEncoding::Der, message, rng)
    }

    /// Signs for [`Self::legacy_method`].
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_legacy(&self, message: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
        let alg = self.facts.key.legacy_algorithm().ok_or(PkiError::Algorithm)?;
        self.sign_checked(alg, EcdsaEncoding::Fixed, message, rng)
    }

    /// Signs HASH_I or HASH_R of IKEv1 (RFC 2409 5.1): RSA only.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_ikev1(&self, hash: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
        let signature = self.key.sign_ikev1(hash, rng)?;
        self.facts.key.verify_ikev1(hash, &signature).map_err(|_| PkiError::Sign)?;
        Ok(signature)
    }

    /// For tests: another name than the certificate's.
    #[cfg(test)]
    pub(super) fn rename(&mut self, name: Identity) {
        (self.facts.subject, self.facts.names) = match name {
            Identity::DerAsn1Dn(der) => (der, Vec::new()),
            other => (vec![0x30, 0], vec![other]),
        };
    }

    /// No signature leaves that does not verify: a fault in the arithmetic can give the key away.
    fn sign_checked(&self, alg: SignatureAlg, encoding: EcdsaEncoding, message: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
        let signature = self.key.sign(alg, encoding, message, rng)?;
        self.facts.key.verify(alg, encoding, message, &signature).map_err(|_| PkiError::Sign)?;
        Ok(signature)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} certificates)", self.chain.len())
    }
}
