//! Cryptographic primitives behind one table: names, key sizes, and calls. `ring` where it has the primitive, RustCrypto elsewhere.
//!
//! What an algorithm *is* stands here; what it *does* stands in `hash`, `cipher` and [`dh`]. [`kat`] runs a known answer per
//! algorithm at start-up: one that fails must not be offered to a peer.

pub(crate) mod cipher;
pub mod dh;
mod hash;
pub mod kat;

pub use dh::DhSecret;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a primitive refused its input. No variant carries key material or peer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The key has not the length of the algorithm.
    #[error("key of {got} bytes where the algorithm takes {want}")]
    KeyLength {
        /// Length in bytes as given.
        got: usize,
        /// Length in bytes that the algorithm takes.
        want: usize,
    },
    /// The IV is not one block long.
    #[error("IV of {got} bytes where the block has {want}")]
    IvLength {
        /// Length in bytes as given.
        got: usize,
        /// Block length in bytes.
        want: usize,
    },
    /// The data is not a whole number of blocks.
    #[error("{got} bytes are no whole number of blocks of {block}")]
    DataLength {
        /// Length in bytes as given.
        got: usize,
        /// Block length in bytes.
        block: usize,
    },
    /// A cipher that is not one of CBC was asked for CBC. NULL exists in ESP only, and there the kernel does it (RFC 2410).
    #[error("no cipher in CBC mode")]
    NotCbc,
    /// The peer's public value has not the fixed length of the group (RFC 2409 5, RFC 5903 7).
    #[error("public value of {got} bytes where the group has {want}")]
    PublicLength {
        /// Length in bytes as sent.
        got: usize,
        /// Length in bytes of the group ([`DhGroup::public_len`]).
        want: usize,
    },
    /// The peer's public value lies outside 2 to p - 2, or is no point of the curve.
    #[error("public value is not valid in the group")]
    PublicInvalid,
    /// The result would be the neutral element, or our own tables are damaged: start-up's self test failed as well.
    #[error("the group gives no result")]
    Internal,
}

/// Equal, in time that depends on the lengths only.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Secret bytes: zeroised when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Default)]
pub struct Secret(Vec<u8>);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        ct_eq(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the primitive that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Hash of ISAKMP (RFC 2409 appendix A; RFC 4868 for SHA-2), also used as HMAC for the PRF.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HashAlg {
    /// MD5: for old peers only.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Key length of AES in a mode of its own ([`CipherAlg`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AesKey {
    /// 16 bytes.
    Bits128,
    /// 24 bytes.
    Bits192,
    /// 32 bytes.
    Bits256,
}

/// Length of the integrity check value of a combined-mode cipher.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Icv {
    /// 8 bytes.
    Bytes8,
    /// 12 bytes.
    Bytes12,
    /// 16 bytes.
    Bytes16,
}

/// Encryption of ISAKMP, IKEv2 and ESP. The AES names without a mode are CBC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CipherAlg {
    /// DES, 8-byte key.
    Des,
    /// Triple DES, 24-byte key.
    TripleDes,
    /// AES, 16-byte key.
    Aes128,
    /// AES, 24-byte key.
    Aes192,
    /// AES, 32-byte key.
    Aes256,
    /// No encryption (ESP only, RFC 2410).
    Null,
    /// AES in counter mode (RFC 3686, RFC 5930): a 4-byte nonce follows the key.
    AesCtr(AesKey),
    /// AES-GCM (RFC 4106, RFC 5282): a 4-byte salt follows the key.
    AesGcm(AesKey, Icv),
    /// AES-CCM (RFC 4309, RFC 5282): a 3-byte salt follows the key.
    AesCcm(AesKey, Icv),
    /// ChaCha20-Poly1305 (RFC 7634): a 4-byte salt follows the key.
    ChaCha20Poly1305,
}

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

/// Integrity algorithm of ESP/AH, with the truncation that goes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IntegAlg {
    /// HMAC-MD5-96.
    HmacMd5,
    /// HMAC-SHA1-96.
    HmacSha1,
    /// HMAC-SHA2-256-128.
    HmacSha256,
    /// HMAC-SHA2-384-192.
    HmacSha384,
    /// HMAC-SHA2-512-256.
    HmacSha512,
    /// AES-XCBC-MAC-96 (RFC 3566).
    AesXcbc,
    /// AES-CMAC-96 (RFC 4494).
    AesCmac,
}

/// Pseudorandom function of IKEv2 (RFC 7296 2.13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PrfAlg {
    /// HMAC-MD5: for old peers only.
    HmacMd5,
    /// HMAC-SHA-1.
    HmacSha1,
    /// HMAC-SHA-256.
    HmacSha256,
    /// HMAC-SHA-384.
    HmacSha384,
    /// HMAC-SHA-512.
    HmacSha512,
    /// AES-XCBC-PRF-128 (RFC 4434).
    AesXcbc,
    /// AES-CMAC-PRF-128 (RFC 4615).
    AesCmac,
}

impl PrfAlg {
    /// Every function, weakest first.
    pub const ALL: [Self; 7] =
        [Self::HmacMd5, Self::HmacSha1, Self::AesXcbc, Self::AesCmac, Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];

    /// Name in lower case, as [`kat::self_test`] reports it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacMd5 => "prf-hmac-md5",
            Self::HmacSha1 => "prf-hmac-sha1",
            Self::HmacSha256 => "prf-hmac-sha256",
            Self::HmacSha384 => "prf-hmac-sha384",
            Self::HmacSha512 => "prf-hmac-sha512",
            Self::AesXcbc => "prf-aes128-xcbc",
            Self::AesCmac => "prf-aes128-cmac",
        }
    }

    /// Preferred key length and output length in bytes (RFC 7296 2.13: for these functions they are equal).
    #[expect(clippy::len_without_is_empty, reason = "an output is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::HmacMd5 | Self::AesXcbc | Self::AesCmac => 16,
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }
}

impl HashAlg {
    /// Every hash, weakest first.
    pub const ALL: [Self; 5] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// Name in lower case, as [`kat::self_test`] reports it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Digest length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a digest is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl AesKey {
    /// Every length.
    pub const ALL: [Self; 3] = [Self::Bits128, Self::Bits192, Self::Bits256];

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a key is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Bits128 => 16,
            Self::Bits192 => 24,
            Self::Bits256 => 32,
        }
    }
}

impl Icv {
    /// Every length.
    pub const ALL: [Self; 3] = [Self::Bytes8, Self::Bytes12, Self::Bytes16];

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a check value is never empty")]
    pub const fn len(self) -> usize {
        match self {
            Self::Bytes8 => 8,
            Self::Bytes12 => 12,
            Self::Bytes16 => 16,
        }
    }
}

impl CipherAlg {
    /// Every cipher of ISAKMP (CBC), weakest first.
    pub const ALL: [Self; 5] = [Self::Des, Self::TripleDes, Self::Aes128, Self::Aes192, Self::Aes256];

    /// Name in lower case, as [`kat::self_test`] reports it.
    pub const fn name(self) -> &'static str {
        use {AesKey::*, Icv::*};
        match self {
            Self::Des => "des-cbc",
            Self::TripleDes => "3des-cbc",
            Self::Aes128 => "aes128-cbc",
            Self::Aes192 => "aes192-cbc",
            Self::Aes256 => "aes256-cbc",
            Self::Null => "null",
            Self::AesCtr(Bits128) => "aes128-ctr",
            Self::AesCtr(Bits192) => "aes192-ctr",
            Self::AesCtr(Bits256) => "aes256-ctr",
            Self::AesGcm(Bits128, Bytes8) => "aes128-gcm8",
            Self::AesGcm(Bits192, Bytes8) => "aes192-gcm8",
            Self::AesGcm(Bits256, Bytes8) => "aes256-gcm8",
            Self::AesGcm(Bits128, Bytes12) => "aes128-gcm12",
            Self::AesGcm(Bits192, Bytes12) => "aes192-gcm12",
            Self::AesGcm(Bits256, Bytes12) => "aes256-gcm12",
            Self::AesGcm(Bits128, Bytes16) => "aes128-gcm16",
            Self::AesGcm(Bits192, Bytes16) => "aes192-gcm16",
            Self::AesGcm(Bits256, Bytes16) => "aes256-gcm16",
            Self::AesCcm(Bits128, Bytes8) => "aes128-ccm8",
            Self::AesCcm(Bits192, Bytes8) => "aes192-ccm8",
            Self::AesCcm(Bits256, Bytes8) => "aes256-ccm8",
            Self::AesCcm(Bits128, Bytes12) => "aes128-ccm12",
            Self::AesCcm(Bits192, Bytes12) => "aes192-ccm12",
            Self::AesCcm(Bits256, Bytes12) => "aes256-ccm12",
            Self::AesCcm(Bits128, Bytes16) => "aes128-ccm16",
            Self::AesCcm(Bits192, Bytes16) => "aes192-ccm16",
            Self::AesCcm(Bits256, Bytes16) => "aes256-ccm16",
            Self::ChaCha20Poly1305 => "chacha20poly1305",
        }
    }

    /// Key length in bytes, without salt.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Des => 8,
            Self::TripleDes => 24,
            Self::Aes128 => 16,
            Self::Aes192 => 24,
            Self::Aes256 | Self::ChaCha20Poly1305 => 32,
            Self::Null => 0,
            Self::AesCtr(key) | Self::AesGcm(key, _) | Self::AesCcm(key, _) => key.len(),
        }
    }

    /// Length in bytes of the salt (or nonce) that follows the key in the keying material.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Des | Self::TripleDes | Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::Null => 0,
            Self::AesCtr(_) | Self::AesGcm(..) | Self::ChaCha20Poly1305 => 4,
            Self::AesCcm(..) => 3,
        }
    }

    /// Keying material in bytes: key and salt, in this order (RFC 4106 8.1, RFC 4309 7.1, RFC 3686 5.1).
    pub const fn keymat_len(self) -> usize {
        self.key_len() + self.salt_len()
    }

    /// True for a cipher that protects integrity as well: it takes no [`IntegAlg`].
    pub const fn is_aead(self) -> bool {
        self.icv_len() != 0
    }

    /// Length in bytes of a combined-mode cipher's check value; 0 for the others.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Des | Self::TripleDes | Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::Null | Self::AesCtr(_) => 0,
            Self::AesGcm(_, icv) | Self::AesCcm(_, icv) => icv.len(),
            Self::ChaCha20Poly1305 => 16,
        }
    }

    /// Length in bytes of the IV on the wire.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Des | Self::TripleDes | Self::AesCtr(_) | Self::AesGcm(..) | Self::AesCcm(..) | Self::ChaCha20Poly1305 => 8,
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
        }
    }

    /// Block length in bytes: what the plain text is padded to. For a CBC cipher also the length of its IV.
    pub const fn block_len(self) -> usize {
        match self {
            Self::Des | Self::TripleDes => 8,
            Self::Aes128 | Self::Aes192 | Self::Aes256 => 16,
            Self::Null | Self::AesCtr(_) | Self::AesGcm(..) | Self::AesCcm(..) | Self::ChaCha20Poly1305 => 1,
        }
    }
}

impl IntegAlg {
    /// Key length in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacMd5 | Self::AesXcbc | Self::AesCmac => 16,
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// Length on the wire in bits, as the kernel's truncation length wants it.
    pub const fn trunc_bits(self) -> u32 {
        match self {
            Self::HmacMd5 | Self::HmacSha1 | Self::AesXcbc | Self::AesCmac => 96,
            Self::HmacSha256 => 128,
            Self::HmacSha384 => 192,
            Self::HmacSha512 => 256,
        }
    }
}

impl DhGroup {
    /// Every group and key encapsulation, by number.
    pub const ALL: [Self; 8] =
        [Self::Modp768, Self::Modp1024, Self::Modp1536, Self::Modp2048, Self::Modp3072, Self::Modp4096, Self::Ecp256, Self::Ecp384];

    /// Name in lower case, as [`kat::self_test`] reports it.
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
    fn a_secret_never_shows_its_bytes() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(7 bytes)");
    }

    #[test]
    fn comparison_sees_length_and_content() {
        assert!(ct_eq(b"abc", b"abc"));
        assert!(!ct_eq(b"abc", b"abd"));
        assert!(!ct_eq(b"abc", b"ab"));
        assert!(ct_eq(b"", b""));
        assert_eq!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 3]));
    }

    #[test]
    fn every_group_number_leads_back_to_its_group() {
        for group in DhGroup::ALL {
            assert_eq!(DhGroup::from_number(group.number()), Some(group));
        }
        assert_eq!(DhGroup::from_number(0), None);
        assert_eq!(DhGroup::from_number(3), None);
    }
}
