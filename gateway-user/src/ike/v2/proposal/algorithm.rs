//! Numbers of algorithms in the registry of RFC 7296 3.3.2 (types 1 to 4).

use super::codec::{Transform, transform_type};
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg};

/// Number and key length attribute of an encryption algorithm. Implicit-IV suites (RFC 8750) are not in this table on purpose: two nodes
/// that share a key must not count IVs by sequence numbers.
pub(super) const fn encryption(alg: CipherAlg) -> (u16, Option<u16>) {
    const fn bits(key: AesKey) -> Option<u16> {
        Some(key.len() as u16 * 8)
    }
    match alg {
        CipherAlg::Des => (2, None),
        CipherAlg::TripleDes => (3, None),
        CipherAlg::Null => (11, None),
        CipherAlg::Aes128 => (12, Some(128)),
        CipherAlg::Aes192 => (12, Some(192)),
        CipherAlg::Aes256 => (12, Some(256)),
        CipherAlg::AesCtr(key) => (13, bits(key)),
        CipherAlg::AesCcm(key, Icv::Bytes8) => (14, bits(key)),
        CipherAlg::AesCcm(key, Icv::Bytes12) => (15, bits(key)),
        CipherAlg::AesCcm(key, Icv::Bytes16) => (16, bits(key)),
        CipherAlg::AesGcm(key, Icv::Bytes8) => (18, bits(key)),
        CipherAlg::AesGcm(key, Icv::Bytes12) => (19, bits(key)),
        CipherAlg::AesGcm(key, Icv::Bytes16) => (20, bits(key)),
        CipherAlg::ChaCha20Poly1305 => (28, None),
    }
}

pub(super) const fn integrity(alg: IntegAlg) -> u16 {
    match alg {
        IntegAlg::HmacMd5 => 1,
        IntegAlg::HmacSha1 => 2,
        IntegAlg::AesXcbc => 5,
        IntegAlg::AesCmac => 8,
        IntegAlg::HmacSha256 => 12,
        IntegAlg::HmacSha384 => 13,
        IntegAlg::HmacSha512 => 14,
    }
}

pub(super) const fn prf(alg: PrfAlg) -> u16 {
    match alg {
        PrfAlg::HmacMd5 => 1,
        PrfAlg::HmacSha1 => 2,
        PrfAlg::AesXcbc => 4,
        PrfAlg::HmacSha256 => 5,
        PrfAlg::HmacSha384 => 6,
        PrfAlg::HmacSha512 => 7,
        PrfAlg::AesCmac => 8,
    }
}

impl Transform {
    pub(super) const fn new(kind: u8, id: u16) -> Self {
        Self { kind, id, key_bits: None, understood: true }
    }

    pub(super) const fn encr(alg: CipherAlg) -> Self {
        let (id, key_bits) = encryption(alg);
        Self { kind: transform_type::ENCR, id, key_bits, understood: true }
    }

    pub(super) const fn integ(alg: IntegAlg) -> Self {
        Self::new(transform_type::INTEG, integrity(alg))
    }

    pub(super) const fn prf(alg: PrfAlg) -> Self {
        Self::new(transform_type::PRF, prf(alg))
    }

    pub(super) const fn ke(group: DhGroup) -> Self {
        Self::new(transform_type::KE, group.number())
    }

    pub(super) const fn esn(on: bool) -> Self {
        Self::new(transform_type::ESN, if on { 1 } else { 0 })
    }

    /// Additional key exchange `slot`, from 0.
    pub(super) const fn additional(slot: u8, group: DhGroup) -> Self {
        Self::new(transform_type::ADDITIONAL_KE_1 + slot, group.number())
    }
}
