//! Primitives that the provider table does not have yet.

use crate::crypto::{CipherAlg, CryptoError, HashAlg, IntegAlg, PrfAlg, Secret};

pub(super) trait PrfExt {
    fn prf(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8>;
    fn prf_plus(self, key: &[u8], seed: &[&[u8]], n: usize) -> Secret;
}
impl PrfExt for PrfAlg {
    fn prf(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        HashAlg::ALL.into_iter().find(|h| h.len() == self.len()).unwrap_or(HashAlg::Sha256).hmac(key, parts)
    }
    fn prf_plus(self, key: &[u8], seed: &[&[u8]], n: usize) -> Secret {
        let (mut out, mut previous) = (Vec::new(), Vec::new());
        let mut round = 1;
        while out.len() < n {
            let parts: Vec<&[u8]> = [&previous[..]].into_iter().chain(seed.iter().copied()).collect();
            previous = self.prf(key, &[&parts.concat(), &[round]]);
            out.extend_from_slice(&previous);
            round += 1;
        }
        out.truncate(n);
        Secret::new(out)
    }
}
pub(super) trait IntegExt {
    fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8>;
}
impl IntegExt for IntegAlg {
    fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let hash = HashAlg::ALL.into_iter().find(|h| h.len() == self.key_len()).unwrap_or(HashAlg::Sha256);
        let mut mac = hash.hmac(key, parts);
        mac.truncate(self.trunc_bits() as usize / 8);
        mac
    }
}
pub(super) trait CipherExt {
    fn aead_seal(self, keymat: &[u8], iv: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError>;
    fn aead_open(self, keymat: &[u8], iv: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError>;
    fn ctr_apply(self, keymat: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError>;
}
impl CipherExt for CipherAlg {
    fn aead_seal(self, _: &[u8], _: &[u8], _: &[u8], _: &mut Vec<u8>) -> Result<(), CryptoError> {
        Err(CryptoError::Internal)
    }
    fn aead_open(self, _: &[u8], _: &[u8], _: &[u8], _: &mut Vec<u8>) -> Result<(), CryptoError> {
        Err(CryptoError::Internal)
    }
    fn ctr_apply(self, _: &[u8], _: &[u8], _: &mut [u8]) -> Result<(), CryptoError> {
        Err(CryptoError::Internal)
    }
}
