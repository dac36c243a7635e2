//! Names of algorithms, as the guide and later releases of IOS write them.

use super::decode::Word;
use super::report::Report;
use crate::crypto::{AesKey, CipherAlg, DhGroup, HashAlg, Icv, IntegAlg, PrfAlg};

/// ISAKMP ciphers by the guide's names (`aes` is AES with 128-bit keys).
pub(super) const CIPHERS: [(&str, CipherAlg); 6] = [
    ("des", CipherAlg::Des),
    ("3des", CipherAlg::TripleDes),
    ("aes", CipherAlg::Aes128),
    ("aes-128", CipherAlg::Aes128),
    ("aes-192", CipherAlg::Aes192),
    ("aes-256", CipherAlg::Aes256),
];

/// ISAKMP hashes.
pub(super) const HASHES: [(&str, HashAlg); 5] =
    [("md5", HashAlg::Md5), ("sha", HashAlg::Sha1), ("sha256", HashAlg::Sha256), ("sha384", HashAlg::Sha384), ("sha512", HashAlg::Sha512)];

/// IKEv2 ciphers. None takes its IV from the packet's number alone (RFC 8750): two nodes with one key would repeat it.
pub(super) const IKEV2_CIPHERS: [(&str, CipherAlg); 27] = {
    use {AesKey::*, CipherAlg::*, Icv::*};
    [
        ("aes-cbc-128", Aes128),
        ("aes-cbc-192", Aes192),
        ("aes-cbc-256", Aes256),
        ("aes-gcm-128", AesGcm(Bits128, Bytes16)),
        ("aes-gcm-192", AesGcm(Bits192, Bytes16)),
        ("aes-gcm-256", AesGcm(Bits256, Bytes16)),
        ("chacha20-poly1305", ChaCha20Poly1305),
        ("aes-ctr-128", AesCtr(Bits128)),
        ("aes-ctr-192", AesCtr(Bits192)),
        ("aes-ctr-256", AesCtr(Bits256)),
        ("aes-ccm-128", AesCcm(Bits128, Bytes16)),
        ("aes-ccm-192", AesCcm(Bits192, Bytes16)),
        ("aes-ccm-256", AesCcm(Bits256, Bytes16)),
        ("aes-gcm-128-icv12", AesGcm(Bits128, Bytes12)),
        ("aes-gcm-192-icv12", AesGcm(Bits192, Bytes12)),
        ("aes-gcm-256-icv12", AesGcm(Bits256, Bytes12)),
        ("aes-gcm-128-icv8", AesGcm(Bits128, Bytes8)),
        ("aes-gcm-192-icv8", AesGcm(Bits192, Bytes8)),
        ("aes-gcm-256-icv8", AesGcm(Bits256, Bytes8)),
        ("aes-ccm-128-icv12", AesCcm(Bits128, Bytes12)),
        ("aes-ccm-192-icv12", AesCcm(Bits192, Bytes12)),
        ("aes-ccm-256-icv12", AesCcm(Bits256, Bytes12)),
        ("aes-ccm-128-icv8", AesCcm(Bits128, Bytes8)),
        ("aes-ccm-192-icv8", AesCcm(Bits192, Bytes8)),
        ("aes-ccm-256-icv8", AesCcm(Bits256, Bytes8)),
        ("3des", TripleDes),
        ("des", Des),
    ]
};

/// Integrity algorithms of IKEv2.
pub(super) const INTEGRITIES: [(&str, IntegAlg); 8] = [
    ("sha256", IntegAlg::HmacSha256),
    ("sha384", IntegAlg::HmacSha384),
    ("sha512", IntegAlg::HmacSha512),
    ("aes-xcbc", IntegAlg::AesXcbc),
    ("aes-cmac", IntegAlg::AesCmac),
    ("sha1", IntegAlg::HmacSha1),
    ("sha", IntegAlg::HmacSha1),
    ("md5", IntegAlg::HmacMd5),
];

/// Pseudorandom functions of IKEv2.
pub(super) const PRFS: [(&str, PrfAlg); 8] = [
    ("sha256", PrfAlg::HmacSha256),
    ("sha384", PrfAlg::HmacSha384),
    ("sha512", PrfAlg::HmacSha512),
    ("aes-xcbc", PrfAlg::AesXcbc),
    ("aes-cmac", PrfAlg::AesCmac),
    ("sha1", PrfAlg::HmacSha1),
    ("sha", PrfAlg::HmacSha1),
    ("md5", PrfAlg::HmacMd5),
];

/// Key exchanges by number and by name.
const GROUPS: [(u16, &str, DhGroup); 13] = [
    (1, "modp768", DhGroup::Modp768),
    (2, "modp1024", DhGroup::Modp1024),
    (5, "modp1536", DhGroup::Modp1536),
    (14, "modp2048", DhGroup::Modp2048),
    (15, "modp3072", DhGroup::Modp3072),
    (16, "modp4096", DhGroup::Modp4096),
    (17, "modp6144", DhGroup::Modp6144),
    (18, "modp8192", DhGroup::Modp8192),
    (19, "ecp256", DhGroup::Ecp256),
    (20, "ecp384", DhGroup::Ecp384),
    (21, "ecp521", DhGroup::Ecp521),
    (31, "x25519", DhGroup::X25519),
    (36, "mlkem768", DhGroup::MlKem768),
];

/// Name of an IKEv2 cipher.
pub fn ikev2_encr_word(alg: CipherAlg) -> &'static str {
    IKEV2_CIPHERS.iter().find(|(_, a)| *a == alg).map_or(alg.name(), |(w, _)| w)
}

/// Name of an IKEv2 integrity algorithm.
pub fn ikev2_integ_word(alg: IntegAlg) -> &'static str {
    INTEGRITIES.iter().find(|(_, a)| *a == alg).map_or("", |(w, _)| w)
}

/// Name of an IKEv2 pseudorandom function.
pub fn ikev2_prf_word(alg: PrfAlg) -> &'static str {
    PRFS.iter().find(|(_, a)| *a == alg).map_or(alg.name(), |(w, _)| w)
}

/// One transform of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transform {
    /// ESP encryption.
    Encr(CipherAlg),
    /// ESP authentication.
    Auth(IntegAlg),
    /// Named by the guide, not offered.
    Absent(&'static str),
}

const AH_CURE: &str = "use an ESP authentication transform, such as esp-sha256-hmac";

/// Transforms by the guide's names. A key length may also stand apart, as IOS writes it (`esp-gcm 256`).
pub(super) const TRANSFORMS: [(&str, Transform); 44] = {
    use {AesKey::*, CipherAlg::*, Icv::*, Transform::*};
    [
        ("esp-des", Encr(Des)),
        ("esp-3des", Encr(TripleDes)),
        ("esp-aes", Encr(Aes128)),
        ("esp-aes-128", Encr(Aes128)),
        ("esp-aes-192", Encr(Aes192)),
        ("esp-aes-256", Encr(Aes256)),
        ("esp-gcm", Encr(AesGcm(Bits128, Bytes16))),
        ("esp-gcm-128", Encr(AesGcm(Bits128, Bytes16))),
        ("esp-gcm-192", Encr(AesGcm(Bits192, Bytes16))),
        ("esp-gcm-256", Encr(AesGcm(Bits256, Bytes16))),
        ("esp-chacha20-poly1305", Encr(ChaCha20Poly1305)),
        ("esp-ccm", Encr(AesCcm(Bits128, Bytes16))),
        ("esp-ccm-192", Encr(AesCcm(Bits192, Bytes16))),
        ("esp-ccm-256", Encr(AesCcm(Bits256, Bytes16))),
        ("esp-ctr", Encr(AesCtr(Bits128))),
        ("esp-ctr-192", Encr(AesCtr(Bits192))),
        ("esp-ctr-256", Encr(AesCtr(Bits256))),
        ("esp-null", Encr(Null)),
        ("esp-md5-hmac", Auth(IntegAlg::HmacMd5)),
        ("esp-sha-hmac", Auth(IntegAlg::HmacSha1)),
        ("esp-sha256-hmac", Auth(IntegAlg::HmacSha256)),
        ("esp-sha384-hmac", Auth(IntegAlg::HmacSha384)),
        ("esp-sha512-hmac", Auth(IntegAlg::HmacSha512)),
        ("esp-aes-xcbc-mac", Auth(IntegAlg::AesXcbc)),
        ("esp-aes-cmac", Auth(IntegAlg::AesCmac)),
        ("esp-gcm-icv12", Encr(AesGcm(Bits128, Bytes12))),
        ("esp-gcm-192-icv12", Encr(AesGcm(Bits192, Bytes12))),
        ("esp-gcm-256-icv12", Encr(AesGcm(Bits256, Bytes12))),
        ("esp-gcm-icv8", Encr(AesGcm(Bits128, Bytes8))),
        ("esp-gcm-192-icv8", Encr(AesGcm(Bits192, Bytes8))),
        ("esp-gcm-256-icv8", Encr(AesGcm(Bits256, Bytes8))),
        ("esp-ccm-icv12", Encr(AesCcm(Bits128, Bytes12))),
        ("esp-ccm-192-icv12", Encr(AesCcm(Bits192, Bytes12))),
        ("esp-ccm-256-icv12", Encr(AesCcm(Bits256, Bytes12))),
        ("esp-ccm-icv8", Encr(AesCcm(Bits128, Bytes8))),
        ("esp-ccm-192-icv8", Encr(AesCcm(Bits192, Bytes8))),
        ("esp-ccm-256-icv8", Encr(AesCcm(Bits256, Bytes8))),
        ("esp-gmac", Absent("use esp-gcm, which encrypts as well, or esp-null with esp-sha256-hmac")),
        ("esp-gcm-iiv", Absent("use esp-gcm: two nodes with one key must not take the IV from the packet's number alone")),
        ("esp-seal", Absent("use esp-aes-256 or esp-gcm-256")),
        ("ah-md5-hmac", Absent(AH_CURE)),
        ("ah-sha-hmac", Absent(AH_CURE)),
        ("ah-sha256-hmac", Absent(AH_CURE)),
        ("comp-lzs", Absent("leave it out: Linux has no LZS")),
    ]
};

/// The guide's name of an ESP encryption.
pub const fn encr_word(alg: CipherAlg) -> &'static str {
    match alg {
        CipherAlg::Des => "esp-des",
        CipherAlg::TripleDes => "esp-3des",
        CipherAlg::Aes128 => "esp-aes",
        CipherAlg::Aes192 => "esp-aes-192",
        CipherAlg::Aes256 => "esp-aes-256",
        CipherAlg::Null => "esp-null",
        CipherAlg::AesCtr(AesKey::Bits128) => "esp-ctr",
        CipherAlg::AesCtr(AesKey::Bits192) => "esp-ctr-192",
        CipherAlg::AesCtr(AesKey::Bits256) => "esp-ctr-256",
        CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16) => "esp-gcm",
        CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes12) => "esp-gcm-icv12",
        CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes8) => "esp-gcm-icv8",
        CipherAlg::AesGcm(AesKey::Bits192, Icv::Bytes16) => "esp-gcm-192",
        CipherAlg::AesGcm(AesKey::Bits192, Icv::Bytes12) => "esp-gcm-192-icv12",
        CipherAlg::AesGcm(AesKey::Bits192, Icv::Bytes8) => "esp-gcm-192-icv8",
        CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16) => "esp-gcm-256",
        CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes12) => "esp-gcm-256-icv12",
        CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes8) => "esp-gcm-256-icv8",
        CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes16) => "esp-ccm",
        CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes12) => "esp-ccm-icv12",
        CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes8) => "esp-ccm-icv8",
        CipherAlg::AesCcm(AesKey::Bits192, Icv::Bytes16) => "esp-ccm-192",
        CipherAlg::AesCcm(AesKey::Bits192, Icv::Bytes12) => "esp-ccm-192-icv12",
        CipherAlg::AesCcm(AesKey::Bits192, Icv::Bytes8) => "esp-ccm-192-icv8",
        CipherAlg::AesCcm(AesKey::Bits256, Icv::Bytes16) => "esp-ccm-256",
        CipherAlg::AesCcm(AesKey::Bits256, Icv::Bytes12) => "esp-ccm-256-icv12",
        CipherAlg::AesCcm(AesKey::Bits256, Icv::Bytes8) => "esp-ccm-256-icv8",
        CipherAlg::ChaCha20Poly1305 => "esp-chacha20-poly1305",
    }
}

/// The guide's name of an ESP authentication.
pub const fn integ_word(alg: IntegAlg) -> &'static str {
    match alg {
        IntegAlg::HmacMd5 => "esp-md5-hmac",
        IntegAlg::HmacSha1 => "esp-sha-hmac",
        IntegAlg::HmacSha256 => "esp-sha256-hmac",
        IntegAlg::HmacSha384 => "esp-sha384-hmac",
        IntegAlg::HmacSha512 => "esp-sha512-hmac",
        IntegAlg::AesXcbc => "esp-aes-xcbc-mac",
        IntegAlg::AesCmac => "esp-aes-cmac",
    }
}

/// Who does a Diffie-Hellman exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exchange {
    /// Version 1: the groups of its own registry.
    V1,
    /// Version 2, the first exchange of a negotiation.
    First,
    /// Version 2, an additional exchange (RFC 9370): a key encapsulation may stand here.
    Additional,
}

/// A key exchange, as `14`, `group14` or by name, with a warning for a weak one.
pub(super) fn dh_group(word: &Word, exchange: Exchange, report: &mut Report) -> Option<DhGroup> {
    let good = match exchange {
        Exchange::V1 => "use 14 to 21 (1, 2 and 5 for old peers only)",
        Exchange::First => "use 14 to 21 or 31 (1, 2 and 5 for old peers only)",
        Exchange::Additional => "use mlkem768, 14 to 21 or 31",
    };
    let lower = word.text.to_ascii_lowercase();
    // strongSwan calls group 31 by the curve.
    let digits = match lower.strip_prefix("group").unwrap_or(&lower) {
        "curve25519" => "x25519",
        other => other,
    };
    let number = digits.parse::<u16>().ok();
    let Some((n, name, group)) = GROUPS.into_iter().find(|(n, name, _)| number == Some(*n) || digits == *name) else {
        let cause = match number {
            Some(n) => format!("Diffie-Hellman group {n} is not offered"),
            None => format!("`{}` is not a Diffie-Hellman group", word.text),
        };
        report.error(&word.path, cause, good);
        return None;
    };
    if group.is_kem() && exchange != Exchange::Additional {
        let cause = format!("{name} is a key encapsulation: it can only stand in `additional_key_exchange`, after one of the groups");
        report.error(&word.path, cause, good);
        return None;
    }
    if group == DhGroup::X25519 && exchange == Exchange::V1 {
        report.error(&word.path, format!("group {n} ({name}) exists in IKEv2 only (RFC 8031)"), good);
        return None;
    }
    if let DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536 = group {
        report.warn(&word.path, format!("Diffie-Hellman group {n} can be broken"), "use 14 or higher if the peer has it");
    }
    Some(group)
}

/// Warns of a weak cipher.
pub(super) fn warn_cipher(word: &Word, alg: CipherAlg, stronger: &str, report: &mut Report) {
    let why = match alg {
        CipherAlg::Des => "DES can be broken within a day",
        CipherAlg::TripleDes => "3DES has 8-byte blocks, unsafe after some gigabytes under one key",
        CipherAlg::AesGcm(_, Icv::Bytes8) | CipherAlg::AesCcm(_, Icv::Bytes8) => "a check value of 8 bytes is within reach of a forger",
        CipherAlg::Aes128
        | CipherAlg::Aes192
        | CipherAlg::Aes256
        | CipherAlg::Null
        | CipherAlg::AesCtr(_)
        | CipherAlg::AesGcm(_, Icv::Bytes12 | Icv::Bytes16)
        | CipherAlg::AesCcm(_, Icv::Bytes12 | Icv::Bytes16)
        | CipherAlg::ChaCha20Poly1305 => return,
    };
    report.warn(&word.path, why, format!("use {stronger} if the peer has it"));
}

/// What is said against an integrity algorithm, for [`warn_hash`].
pub(super) const fn weak_integrity(alg: IntegAlg) -> Option<&'static str> {
    match alg {
        IntegAlg::HmacMd5 => Some("MD5"),
        IntegAlg::HmacSha1 => Some("SHA-1"),
        IntegAlg::HmacSha256 | IntegAlg::HmacSha384 | IntegAlg::HmacSha512 | IntegAlg::AesXcbc | IntegAlg::AesCmac => None,
    }
}

/// What is said against a pseudorandom function, for [`warn_hash`].
pub(super) const fn weak_prf(alg: PrfAlg) -> Option<&'static str> {
    match alg {
        PrfAlg::HmacMd5 => Some("MD5"),
        PrfAlg::HmacSha1 => Some("SHA-1"),
        PrfAlg::HmacSha256 | PrfAlg::HmacSha384 | PrfAlg::HmacSha512 | PrfAlg::AesXcbc | PrfAlg::AesCmac => None,
    }
}

/// Warns of a weak hash.
pub(super) fn warn_hash(word: &Word, weak: Option<&str>, stronger: &str, report: &mut Report) {
    if let Some(name) = weak {
        report.warn(&word.path, format!("{name} is outdated"), format!("use {stronger} if the peer has it"));
    }
}
