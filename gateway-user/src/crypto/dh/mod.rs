//! Diffie-Hellman: MODP groups 1, 2, 5, 14 to 18 (RFC 2409 6, RFC 3526), ECP groups 19 to 21 (RFC 5903), X25519 (RFC 8031), and the
//! key encapsulation ML-KEM-768 (FIPS 203) in the same clothes. X448 (group 32) is missing: its maintained implementations are
//! pre-releases only.
//!
//! Drawing the secret is cheap and happens in the pure core; [`DhSecret::public`] and [`DhSecret::shared`] are costly, so the
//! secret is `Send` and travels to a worker thread.

mod ecp;
mod mlkem;
mod modp;
mod x25519;

use super::{CryptoError, DhGroup, Secret};
use crate::rng::Random;

/// The private half of one exchange: exponent or scalar, zeroised when dropped, never printed.
pub struct DhSecret {
    group: DhGroup,
    /// MODP: the short exponent, ECP: the scalar, both big endian; X25519: the scalar before its bits are set; ML-KEM: d‖z‖m.
    exponent: Secret,
}

impl DhGroup {
    /// Draws a private value. Cheap: no group operation.
    #[must_use]
    pub fn generate(self, rng: &mut dyn Random) -> DhSecret {
        let exponent = match self {
            Self::Modp768
            | Self::Modp1024
            | Self::Modp1536
            | Self::Modp2048
            | Self::Modp3072
            | Self::Modp4096
            | Self::Modp6144
            | Self::Modp8192 => modp::exponent(self, rng),
            Self::Ecp256 => ecp::scalar256(rng),
            Self::Ecp384 => ecp::scalar384(rng),
            Self::Ecp521 => ecp::scalar521(rng),
            Self::X25519 => random(32, rng),
            Self::MlKem768 => random(mlkem::RANDOM_LEN, rng),
        };
        DhSecret { group: self, exponent }
    }
}

impl DhSecret {
    /// A known private value: of a mirrored exchange, or for known answers.
    pub(crate) fn from_bytes(group: DhGroup, exponent: &[u8]) -> Self {
        Self { group, exponent: Secret::new(exponent.to_vec()) }
    }

    /// The private value, for the standby's copy of an exchange under way: [`Self::from_bytes`] takes it back.
    pub(crate) fn bytes(&self) -> &Secret {
        &self.exponent
    }

    /// The group the secret belongs to.
    pub fn group(&self) -> DhGroup {
        self.group
    }

    /// Our public value, exactly [`DhGroup::public_len`] bytes: padded with zeros on the left for MODP, x‖y for ECP. For a KEM the
    /// initiator's encapsulation key; a responder uses [`Self::respond`]. Costly.
    ///
    /// # Errors
    /// [`CryptoError::Internal`] only: our tables are damaged.
    pub fn public(&self) -> Result<Vec<u8>, CryptoError> {
        match self.group {
            DhGroup::Modp768
            | DhGroup::Modp1024
            | DhGroup::Modp1536
            | DhGroup::Modp2048
            | DhGroup::Modp3072
            | DhGroup::Modp4096
            | DhGroup::Modp6144
            | DhGroup::Modp8192 => modp::public(self.group, &self.exponent),
            DhGroup::Ecp256 => ecp::public256(&self.exponent),
            DhGroup::Ecp384 => ecp::public384(&self.exponent),
            DhGroup::Ecp521 => ecp::public521(&self.exponent),
            DhGroup::X25519 => x25519::public(&self.exponent),
            DhGroup::MlKem768 => mlkem::public(&self.exponent),
        }
    }

    /// The shared secret g^xy: as long as the prime for MODP (RFC 2409 5), the x coordinate for ECP (RFC 5903 9), 32 bytes for X25519.
    /// For a KEM the initiator's half, from the responder's ciphertext. Costly.
    ///
    /// # Errors
    /// [`CryptoError::PublicLength`] and [`CryptoError::PublicInvalid`] blame the peer: wrong length, a value of 0, 1, p - 1 or
    /// more, a point that is not on the curve (the point at infinity has no encoding), a point of small order. A KEM's ciphertext
    /// can only have the wrong length: a changed one gives another secret, and authentication fails.
    pub fn shared(&self, peer_public: &[u8]) -> Result<Secret, CryptoError> {
        // A KEM's answer has its own length; for the groups both are the same.
        check_len(peer_public, self.group.response_len())?;
        match self.group {
            DhGroup::Modp768
            | DhGroup::Modp1024
            | DhGroup::Modp1536
            | DhGroup::Modp2048
            | DhGroup::Modp3072
            | DhGroup::Modp4096
            | DhGroup::Modp6144
            | DhGroup::Modp8192 => modp::shared(self.group, &self.exponent, peer_public),
            DhGroup::Ecp256 => ecp::shared256(&self.exponent, peer_public),
            DhGroup::Ecp384 => ecp::shared384(&self.exponent, peer_public),
            DhGroup::Ecp521 => ecp::shared521(&self.exponent, peer_public),
            DhGroup::X25519 => x25519::shared(&self.exponent, peer_public),
            DhGroup::MlKem768 => mlkem::decapsulate(&self.exponent, peer_public),
        }
    }

    /// The responder's half at once: our value for the wire ([`DhGroup::response_len`] bytes) and the shared secret. The only way for a
    /// KEM, whose answer is made from the initiator's value. Costly.
    ///
    /// # Errors
    /// As [`Self::public`] and [`Self::shared`].
    pub fn respond(&self, peer_public: &[u8]) -> Result<(Vec<u8>, Secret), CryptoError> {
        check_len(peer_public, self.group.public_len())?;
        if self.group.is_kem() {
            return mlkem::encapsulate(&self.exponent, peer_public);
        }
        Ok((self.public()?, self.shared(peer_public)?))
    }
}

fn random(len: usize, rng: &mut dyn Random) -> Secret {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    Secret::new(bytes)
}

fn check_len(value: &[u8], want: usize) -> Result<(), CryptoError> {
    if value.len() == want { Ok(()) } else { Err(CryptoError::PublicLength { got: value.len(), want }) }
}

impl std::fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DhSecret({})", self.group.name())
    }
}

#[cfg(test)]
mod tests;
