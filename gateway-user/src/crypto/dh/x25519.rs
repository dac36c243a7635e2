//! X25519 (RFC 7748, RFC 8031). Scalar and values are 32 bytes, little endian.

use crate::crypto::{CryptoError, Secret};
use curve25519_dalek::MontgomeryPoint;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

fn scalar(secret: &Secret) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
    secret.expose().try_into().map(Zeroizing::new).map_err(|_| CryptoError::Internal)
}

/// The bits that RFC 7748 5 fixes are set on use, not in the stored secret.
pub(super) fn public(secret: &Secret) -> Result<Vec<u8>, CryptoError> {
    Ok(MontgomeryPoint::mul_base_clamped(*scalar(secret)?).to_bytes().to_vec())
}

/// The peer's highest bit is ignored and values above the prime are reduced, as RFC 7748 5 demands. A value of small order gives
/// zeros whatever our secret is: refused (RFC 7748 6.1).
pub(super) fn shared(secret: &Secret, peer: &[u8]) -> Result<Secret, CryptoError> {
    let peer = MontgomeryPoint(peer.try_into().map_err(|_| CryptoError::PublicInvalid)?);
    let mut point = peer.mul_clamped(*scalar(secret)?);
    let shared = Secret::new(point.to_bytes().to_vec());
    point.zeroize();
    if shared.expose().ct_eq(&[0; 32]).into() {
        return Err(CryptoError::PublicInvalid);
    }
    Ok(shared)
}
