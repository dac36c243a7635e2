//! ECP groups: P-256 (19), P-384 (20) and P-521 (21). A public value is x‖y without a format byte (RFC 5903 7), the result is x (9).

use crate::crypto::{CryptoError, Secret};
use crate::rng::Random;
use p256::elliptic_curve::sec1::ToSec1Point;
use zeroize::Zeroize;

/// Tries for a scalar below the order. One try fails with probability 2^-32 or less; a generator that fails all of them is
/// broken.
const MAX_TRIES: usize = 8;

macro_rules! curve {
    ($curve:ident, $len:literal, $top:literal, $scalar:ident, $public:ident, $shared:ident) => {
        /// A scalar from 1 to the order - 1, by rejection.
        pub(super) fn $scalar(rng: &mut dyn Random) -> Secret {
            let mut bytes = vec![0; $len];
            for _ in 0..MAX_TRIES {
                rng.fill(&mut bytes);
                // Bits above the order would refuse nearly every draw.
                bytes[0] &= $top;
                if $curve::SecretKey::from_slice(&bytes).is_ok() {
                    return Secret::new(bytes);
                }
            }
            // A stuck generator: stay in range instead of spinning. The result is no worse than the generator.
            bytes[0] &= $top >> 1;
            bytes[$len - 1] |= 1;
            Secret::new(bytes)
        }

        pub(super) fn $public(scalar: &Secret) -> Result<Vec<u8>, CryptoError> {
            let key = $curve::SecretKey::from_slice(scalar.expose()).map_err(|_| CryptoError::Internal)?;
            let point = key.public_key().to_sec1_point(false);
            // The first byte says "uncompressed".
            Ok(point.as_bytes().get(1..).unwrap_or_default().to_vec())
        }

        pub(super) fn $shared(scalar: &Secret, peer: &[u8]) -> Result<Secret, CryptoError> {
            let key = $curve::SecretKey::from_slice(scalar.expose()).map_err(|_| CryptoError::Internal)?;
            // Checks that both coordinates are below the prime and on the curve. The order is prime, so there is no small
            // subgroup, and infinity has no encoding of this form.
            let peer = $curve::PublicKey::from_sec1_bytes(&[&[0x04], peer].concat()).map_err(|_| CryptoError::PublicInvalid)?;
            let point = $curve::ecdh::diffie_hellman(key.to_nonzero_scalar(), peer.as_affine());
            let mut x = *point.raw_secret_bytes();
            let secret = Secret::new(x.to_vec());
            x.zeroize();
            Ok(secret)
        }
    };
}

curve!(p256, 32, 0xff, scalar256, public256, shared256);
curve!(p384, 48, 0xff, scalar384, public384, shared384);
curve!(p521, 66, 0x01, scalar521, public521, shared521);
