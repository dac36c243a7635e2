//! The Diffie-Hellman groups and key encapsulations: names, numbers, sizes. What they do stands in `dh`.

use serde::{Deserialize, Serialize};

/// Diffie-Hellman group by its IANA number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DhGroup {
    /// Group 1.
    Modp768,
    /// Group 2.
    Modp1024,
    /// Group 5.
    Modp1536,
    /// Group 14.
    Modp2048,
    /// Group 15.
    Modp3072,
    /// Group 16.
    Modp4096,
    /// Group 17.
    Modp6144,
    /// Group 18.
    Modp8192,
    /// Group 19 (RFC 5903).
    Ecp256,
    /// Group 20 (RFC 5903).
    Ecp384,
    /// Group 21 (RFC 5903).
    Ecp521,
    /// Group 31 (RFC 8031).
    X25519,
    /// Group 36 (FIPS 203; draft-ietf-ipsecme-ikev2-mlkem): a key encapsulation, IKEv2 only. The answer is shorter than the request.
    MlKem768,
}

impl DhGroup {
    /// Every group and key encapsulation, by number.
    pub const ALL: [Self; 13] = [
        Self::Modp768,
        Self::Modp1024,
        Self::Modp1536,
        Self::Modp2048,
        Self::Modp3072,
        Self::Modp4096,
        Self::Modp6144,
        Self::Modp8192,
        Self::Ecp256,
        Self::Ecp384,
        Self::Ecp521,
        Self::X25519,
        Self::MlKem768,
    ];

    /// Name in lower case, as [`super::kat::self_test`] reports it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modp768 => "modp768",
            Self::Modp1024 => "modp1024",
            Self::Modp1536 => "modp1536",
            Self::Modp2048 => "modp2048",
            Self::Modp3072 => "modp3072",
            Self::Modp4096 => "modp4096",
            Self::Modp6144 => "modp6144",
            Self::Modp8192 => "modp8192",
            Self::Ecp256 => "ecp256",
            Self::Ecp384 => "ecp384",
            Self::Ecp521 => "ecp521",
            Self::X25519 => "x25519",
            Self::MlKem768 => "mlkem768",
        }
    }

    /// IANA number of the group.
    pub const fn number(self) -> u16 {
        match self {
            Self::Modp768 => 1,
            Self::Modp1024 => 2,
            Self::Modp1536 => 5,
            Self::Modp2048 => 14,
            Self::Modp3072 => 15,
            Self::Modp4096 => 16,
            Self::Modp6144 => 17,
            Self::Modp8192 => 18,
            Self::Ecp256 => 19,
            Self::Ecp384 => 20,
            Self::Ecp521 => 21,
            Self::X25519 => 31,
            Self::MlKem768 => 36,
        }
    }

    /// The group with this IANA number.
    pub fn from_number(n: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.number() == n)
    }

    /// True for a key encapsulation: the responder needs the initiator's value to make its own.
    pub const fn is_kem(self) -> bool {
        matches!(self, Self::MlKem768)
    }

    /// Length in bytes of the initiator's public value on the wire (prime length; x‖y of ECP; the encapsulation key of a KEM).
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp768 => 96,
            Self::Modp1024 => 128,
            Self::Modp1536 => 192,
            Self::Modp2048 => 256,
            Self::Modp3072 => 384,
            Self::Modp4096 => 512,
            Self::Modp6144 => 768,
            Self::Modp8192 => 1024,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Ecp521 => 132,
            Self::X25519 => 32,
            Self::MlKem768 => 1184,
        }
    }

    /// Length in bytes of the responder's value: as [`Self::public_len`], but the ciphertext of a KEM.
    pub const fn response_len(self) -> usize {
        match self {
            Self::MlKem768 => 1088,
            other => other.public_len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_number_leads_back_to_its_group() {
        for group in DhGroup::ALL {
            assert_eq!(DhGroup::from_number(group.number()), Some(group));
        }
        assert_eq!(DhGroup::from_number(0), None);
        assert_eq!(DhGroup::from_number(3), None);
    }
}
