//! Diffie-Hellman: MODP groups 1, 2, 5, 14, 15, 16 (RFC 2409 6, RFC 3526) and ECP groups 19 and 20 (RFC 5903).
//!
//! Drawing the secret is cheap and happens in the pure core; [`DhSecret::public`] and [`DhSecret::shared`] are costly, so the
//! secret is `Send` and travels to a worker thread.

mod ecp;
mod modp;
mod primes;

use super::{CryptoError, DhGroup, Secret};
use crate::rng::Random;

/// The private half of one exchange: exponent or scalar, zeroised when dropped, never printed.
pub struct DhSecret {
    group: DhGroup,
    /// Big endian; MODP: the short exponent, ECP: the scalar.
    exponent: Secret,
}

impl DhGroup {
    /// Draws a private value. Cheap: no group operation.
    #[must_use]
    pub fn generate(self, rng: &mut dyn Random) -> DhSecret {
        let exponent = match self {
            Self::Modp768 | Self::Modp1024 | Self::Modp1536 | Self::Modp2048 | Self::Modp3072 | Self::Modp4096 => modp::exponent(self, rng),
            Self::Ecp256 => ecp::scalar256(rng),
            Self::Ecp384 => ecp::scalar384(rng),
            // Not in `ALL` yet.
            Self::Modp6144 | Self::Modp8192 | Self::Ecp521 | Self::X25519 | Self::MlKem768 => Secret::default(),
        };
        DhSecret { group: self, exponent }
    }
}

impl DhSecret {
    /// A known private value, for known answers.
    pub(crate) fn from_bytes(group: DhGroup, exponent: &[u8]) -> Self {
        Self { group, exponent: Secret::new(exponent.to_vec()) }
    }

    /// The group the secret belongs to.
    pub fn group(&self) -> DhGroup {
        self.group
    }

    /// Our public value, exactly [`DhGroup::public_len`] bytes: padded with zeros on the left for MODP, x‖y for ECP. Costly.
    ///
    /// # Errors
    /// [`CryptoError::Internal`] only: our tables are damaged.
    pub fn public(&self) -> Result<Vec<u8>, CryptoError> {
        match self.group {
            DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536 | DhGroup::Modp2048 | DhGroup::Modp3072 | DhGroup::Modp4096 => {
                modp::public(self.group, &self.exponent)
            }
            DhGroup::Ecp256 => ecp::public256(&self.exponent),
            DhGroup::Ecp384 => ecp::public384(&self.exponent),
            DhGroup::Modp6144 | DhGroup::Modp8192 | DhGroup::Ecp521 | DhGroup::X25519 | DhGroup::MlKem768 => Err(CryptoError::Internal),
        }
    }

    /// The shared secret g^xy: as long as the prime for MODP (RFC 2409 5), the x coordinate for ECP (RFC 5903 9). Costly.
    ///
    /// # Errors
    /// [`CryptoError::PublicLength`] and [`CryptoError::PublicInvalid`] blame the peer: wrong length, a value of 0, 1, p - 1 or
    /// more, a point that is not on the curve (the point at infinity has no encoding).
    pub fn shared(&self, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        let want = self.group.public_len();
        if peer_public.len() != want {
            return Err(CryptoError::PublicLength { got: peer_public.len(), want });
        }
        match self.group {
            DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536 | DhGroup::Modp2048 | DhGroup::Modp3072 | DhGroup::Modp4096 => {
                modp::shared(self.group, &self.exponent, peer_public)
            }
            DhGroup::Ecp256 => ecp::shared256(&self.exponent, peer_public),
            DhGroup::Ecp384 => ecp::shared384(&self.exponent, peer_public),
            DhGroup::Modp6144 | DhGroup::Modp8192 | DhGroup::Ecp521 | DhGroup::X25519 | DhGroup::MlKem768 => Err(CryptoError::Internal),
        }
    }

    /// The responder's half at once: our value for the wire ([`DhGroup::response_len`] bytes) and the shared secret. The only way for a
    /// KEM, whose answer is made from the initiator's value. Costly.
    ///
    /// # Errors
    /// As [`Self::public`] and [`Self::shared`].
    pub fn respond(&self, peer_public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        Ok((self.public()?, self.shared(peer_public)?))
    }
}

impl std::fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DhSecret({})", self.group.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Seeded;

    #[test]
    fn both_sides_reach_the_same_secret_in_every_group() {
        let mut rng = Seeded::new(7);
        for group in DhGroup::ALL {
            let (a, b) = (group.generate(&mut rng), group.generate(&mut rng));
            let (ya, yb) = (a.public().unwrap(), b.public().unwrap());
            assert_eq!(ya.len(), group.public_len());
            assert_ne!(ya, yb);
            let (ka, kb) = (a.shared(&yb).unwrap(), b.shared(&ya).unwrap());
            assert_eq!(ka, kb, "{}", group.name());
            let want = if group.number() >= 19 { group.public_len() / 2 } else { group.public_len() };
            assert_eq!(ka.len(), want);
        }
    }

    #[test]
    fn a_public_value_of_the_wrong_length_is_refused() {
        let mut rng = Seeded::new(8);
        for group in DhGroup::ALL {
            let secret = group.generate(&mut rng);
            let want = group.public_len();
            for got in [0, 1, want - 1, want + 1] {
                assert_eq!(secret.shared(&vec![2; got]).unwrap_err(), CryptoError::PublicLength { got, want });
            }
        }
    }

    #[test]
    fn the_secret_travels_between_threads_and_prints_only_its_group() {
        fn travels<T: Send>(_: &T) {}
        let secret = DhGroup::Modp2048.generate(&mut Seeded::new(1));
        travels(&secret);
        assert_eq!(format!("{secret:?}"), "DhSecret(modp2048)");
    }

    #[test]
    fn a_seed_reproduces_the_exchange() {
        let public = |seed| DhGroup::Modp1024.generate(&mut Seeded::new(seed)).public().unwrap();
        assert_eq!(public(3), public(3));
        assert_ne!(public(3), public(4));
    }
}
