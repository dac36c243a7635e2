//! What the algorithms are: names, sizes, numbers. What they do stands in the other files of this folder.

use serde::{Deserialize, Serialize};

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

    /// Name in lower case, as [`super::kat::self_test`] reports it.
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

    /// Name in lower case, as [`super::kat::self_test`] reports it.
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
    /// Every cipher in CBC mode, weakest first: those of ISAKMP.
    pub const ALL: [Self; 5] = [Self::Des, Self::TripleDes, Self::Aes128, Self::Aes192, Self::Aes256];

    /// Every cipher that encrypts: [`Self::ALL`], then the other modes.
    pub fn every() -> impl Iterator<Item = Self> {
        let ctr = AesKey::ALL.map(Self::AesCtr);
        let gcm = AesKey::ALL.into_iter().flat_map(|key| Icv::ALL.map(|icv| Self::AesGcm(key, icv)));
        let ccm = AesKey::ALL.into_iter().flat_map(|key| Icv::ALL.map(|icv| Self::AesCcm(key, icv)));
        Self::ALL.into_iter().chain(ctr).chain(ccm).chain(gcm).chain([Self::ChaCha20Poly1305])
    }

    /// Name in lower case, as [`super::kat::self_test`] reports it.
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
    /// Every algorithm, weakest first.
    pub const ALL: [Self; 7] =
        [Self::HmacMd5, Self::HmacSha1, Self::AesXcbc, Self::AesCmac, Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];

    /// Name in lower case, as [`super::kat::self_test`] reports it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacMd5 => "hmac-md5-96",
            Self::HmacSha1 => "hmac-sha1-96",
            Self::HmacSha256 => "hmac-sha256-128",
            Self::HmacSha384 => "hmac-sha384-192",
            Self::HmacSha512 => "hmac-sha512-256",
            Self::AesXcbc => "aes-xcbc-96",
            Self::AesCmac => "aes-cmac-96",
        }
    }

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

    /// Length on the wire in bytes.
    pub const fn wire_len(self) -> usize {
        self.trunc_bits() as usize / 8
    }
}
