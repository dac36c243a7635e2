//! ML-KEM-768 (FIPS 203) as a key exchange of IKEv2 (draft-ietf-ipsecme-ikev2-mlkem): the initiator sends its encapsulation key,
//! the responder answers with a ciphertext.

use crate::crypto::{CryptoError, Secret};
use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
use ml_kem::{B32, Seed};
use zeroize::Zeroize;

/// Random bytes of one exchange: d and z of FIPS 203 7.1 for the initiator, m of 7.2 for the responder. Separate, so that a
/// secret used in both roles tells neither: the initiator learns the responder's m.
pub(super) const RANDOM_LEN: usize = 96;

/// The initiator's key pair. Made twice, once for each message: 64 bytes wait in between instead of 2400.
fn key_pair(random: &Secret) -> Result<DecapsulationKey, CryptoError> {
    let mut seed: Seed = random.expose().get(..64).and_then(|s| s.try_into().ok()).ok_or(CryptoError::Internal)?;
    let pair = DecapsulationKey::from_seed(seed);
    seed.zeroize();
    Ok(pair)
}

/// The initiator's encapsulation key, 1184 bytes.
pub(super) fn public(random: &Secret) -> Result<Vec<u8>, CryptoError> {
    Ok(key_pair(random)?.encapsulation_key().to_bytes().to_vec())
}

/// The responder's half: ciphertext of 1088 bytes and shared secret. The peer's key must have coefficients below the modulus
/// (FIPS 203 7.2).
pub(super) fn encapsulate(random: &Secret, peer: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
    let peer = EncapsulationKey::new(peer.try_into().map_err(|_| CryptoError::PublicInvalid)?);
    let peer = peer.map_err(|_| CryptoError::PublicInvalid)?;
    let mut m: B32 = random.expose().get(64..RANDOM_LEN).and_then(|m| m.try_into().ok()).ok_or(CryptoError::Internal)?;
    let (ciphertext, mut key) = peer.encapsulate_deterministic(&m);
    m.zeroize();
    let shared = Secret::new(key.to_vec());
    key.zeroize();
    Ok((ciphertext.to_vec(), shared))
}

/// The initiator's second half. A ciphertext that was not made for our key gives another secret, no error (FIPS 203 7.3).
pub(super) fn decapsulate(random: &Secret, ciphertext: &[u8]) -> Result<Secret, CryptoError> {
    let ciphertext = ciphertext.try_into().map_err(|_| CryptoError::PublicInvalid)?;
    let mut key = key_pair(random)?.decapsulate(ciphertext);
    let shared = Secret::new(key.to_vec());
    key.zeroize();
    Ok(shared)
}
