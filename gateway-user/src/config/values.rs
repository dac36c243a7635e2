//! Meaning of single values: durations, sizes, addresses, algorithm names.

use super::decode::Word;
use super::report::{Report, one_of};
use crate::crypto::{AesKey, CipherAlg, DhGroup, HashAlg, Icv, IntegAlg};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Units a duration may have.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// A duration in the largest unit that gives a whole number (`500ms`, `3s`, `24h`).
pub(super) fn show_duration(d: Duration) -> String {
    let ms = d.as_millis();
    for (unit, factor) in UNITS.iter().rev() {
        if ms > 0 && ms.is_multiple_of(u128::from(*factor)) {
            return format!("{}{unit}", ms / u128::from(*factor));
        }
    }
    "0s".to_owned()
}

/// Reads `500ms`, `3s`, `30m`, `24h` (zero may stand without unit); `Err` holds cause and cure.
fn parse_duration(text: &str) -> Result<Duration, (String, String)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return Err((format!("`{text}` is not a duration"), "write a whole number and a unit: `500ms`, `3s`, `30m`, `24h`".to_owned()));
    };
    let unit = unit.trim();
    if unit.is_empty() {
        if number == 0 {
            return Ok(Duration::ZERO);
        }
        return Err((format!("`{text}` has no unit"), format!("write `{number}s` for seconds or `{number}ms` for milliseconds")));
    }
    let Some((_, factor)) = UNITS.iter().find(|(u, _)| *u == unit) else {
        return Err((format!("`{unit}` is no unit of time"), "use ms, s, m or h".to_owned()));
    };
    match number.checked_mul(*factor) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err((format!("`{text}` is too long"), "write a shorter time".to_owned())),
    }
}

/// A duration within `range`.
pub(super) fn duration(word: &Word, range: RangeInclusive<Duration>, report: &mut Report) -> Option<Duration> {
    match parse_duration(&word.text) {
        Ok(d) if range.contains(&d) => Some(d),
        Ok(_) => {
            let (min, max) = (show_duration(*range.start()), show_duration(*range.end()));
            report.error(&word.path, format!("`{}` is out of range", word.text), format!("use {min} to {max}"));
            None
        }
        Err((cause, cure)) => {
            report.error(&word.path, cause, cure);
            None
        }
    }
}

/// A whole number within `range`; a trailing `k` or `M` multiplies by 1024 or 1 048 576.
pub(super) fn size(word: &Word, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
    let (digits, factor) = match word.text.strip_suffix(['k', 'K']) {
        Some(d) => (d, 1024),
        None => word.text.strip_suffix('M').map_or((word.text.as_str(), 1), |d| (d, 1024 * 1024)),
    };
    let value = digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bounded(word, value, range, "a whole number, `k` and `M` allowed", report)
}

/// A whole number within `range`.
pub(super) fn number<T>(word: &Word, range: RangeInclusive<T>, report: &mut Report) -> Option<T>
where
    T: FromStr + PartialOrd + Display,
{
    // Out of the type's own range is out of the wanted range too.
    if word.text.parse::<T>().is_err() && !word.text.is_empty() && word.text.bytes().all(|b| b.is_ascii_digit()) {
        report.error(&word.path, format!("{} is out of range", word.text), format!("use {} to {}", range.start(), range.end()));
        return None;
    }
    bounded(word, word.text.parse().ok(), range, "a whole number", report)
}

fn bounded<T: PartialOrd + Display>(word: &Word, value: Option<T>, range: RangeInclusive<T>, what: &str, report: &mut Report) -> Option<T> {
    match value {
        Some(v) if range.contains(&v) => Some(v),
        Some(v) => {
            report.error(&word.path, format!("{v} is out of range"), format!("use {} to {}", range.start(), range.end()));
            None
        }
        None => {
            report.error(&word.path, format!("`{}` is not {what}", word.text), format!("use {} to {}", range.start(), range.end()));
            None
        }
    }
}

/// An IPv4 address that a host can have.
pub(super) fn address(word: &Word, report: &mut Report) -> Option<Ipv4Addr> {
    match word.text.parse::<Ipv4Addr>() {
        Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() => {
            report.error(&word.path, format!("{a} is no address of one host"), "write the address of one host");
            None
        }
        Ok(a) => Some(a),
        Err(_) => {
            report.error(&word.path, format!("`{}` is not an IPv4 address", word.text), "write four numbers: `192.0.2.1`");
            None
        }
    }
}

/// `ADDRESS/LENGTH` of an interface.
pub(super) fn address_prefix(word: &Word, report: &mut Report) -> Option<(Ipv4Addr, u8)> {
    let parsed = word.text.split_once('/').and_then(|(a, p)| Some((a.parse::<Ipv4Addr>().ok()?, p.parse::<u8>().ok()?)));
    let Some((addr, prefix)) = parsed else {
        report.error(&word.path, format!("`{}` is not ADDRESS/LENGTH", word.text), "write `192.0.2.1/24`");
        return None;
    };
    if !(1..=30).contains(&prefix) {
        report.error(
            &word.path,
            format!("a /{prefix} has no room for two nodes and a virtual address"),
            "use a prefix length from 1 to 29",
        );
        return None;
    }
    let net = network(addr, prefix);
    if addr == net || addr == broadcast(addr, prefix) || addr.is_multicast() {
        report.error(&word.path, format!("{addr} is no host's address in {net}/{prefix}"), "use an address inside the subnet");
        return None;
    }
    Some((addr, prefix))
}

/// Mask of a prefix length.
pub(super) const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix as u32) }
}

/// Network of an address.
pub(super) fn network(addr: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(addr) & mask(prefix))
}

/// Broadcast address of an address's network.
pub(super) fn broadcast(addr: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(addr) | !mask(prefix))
}

/// True when `addr` is in the network of `of`/`prefix`.
pub(super) fn in_subnet(addr: Ipv4Addr, of: Ipv4Addr, prefix: u8) -> bool {
    network(addr, prefix) == network(of, prefix)
}

/// A name: a letter or digit, then letters, digits, `_`, `-`, `.`; at most 63 characters.
pub(super) fn name(word: &Word, report: &mut Report) -> Option<String> {
    let ok = word.text.len() <= 63
        && word.text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && word.text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if !ok {
        report.error(&word.path, format!("`{}` is not a name", word.text), "use up to 63 letters, digits, `_`, `-`, `.`");
    }
    ok.then(|| word.text.clone())
}

/// Picks `word` out of a table of names.
pub(super) fn choose<T: Copy>(word: &Word, what: &str, table: &[(&str, T)], report: &mut Report) -> Option<T> {
    let found = table.iter().find(|(n, _)| n.eq_ignore_ascii_case(&word.text)).map(|(_, v)| *v);
    if found.is_none() {
        let names: Vec<&str> = table.iter().map(|(n, _)| *n).collect();
        report.error(&word.path, format!("unknown {what} `{}`", word.text), one_of(&word.text, &names));
    }
    found
}

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

/// Transforms by the guide's names.
pub(super) const TRANSFORMS: [(&str, Transform); 16] = [
    ("esp-des", Transform::Encr(CipherAlg::Des)),
    ("esp-3des", Transform::Encr(CipherAlg::TripleDes)),
    ("esp-aes", Transform::Encr(CipherAlg::Aes128)),
    ("esp-aes-128", Transform::Encr(CipherAlg::Aes128)),
    ("esp-aes-192", Transform::Encr(CipherAlg::Aes192)),
    ("esp-aes-256", Transform::Encr(CipherAlg::Aes256)),
    ("esp-null", Transform::Encr(CipherAlg::Null)),
    ("esp-md5-hmac", Transform::Auth(IntegAlg::HmacMd5)),
    ("esp-sha-hmac", Transform::Auth(IntegAlg::HmacSha1)),
    ("esp-sha256-hmac", Transform::Auth(IntegAlg::HmacSha256)),
    ("esp-sha384-hmac", Transform::Auth(IntegAlg::HmacSha384)),
    ("esp-sha512-hmac", Transform::Auth(IntegAlg::HmacSha512)),
    ("ah-md5-hmac", Transform::Absent(AH_CURE)),
    ("ah-sha-hmac", Transform::Absent(AH_CURE)),
    ("ah-sha256-hmac", Transform::Absent(AH_CURE)),
    ("comp-lzs", Transform::Absent("leave it out: Linux has no LZS")),
];

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

/// A Diffie-Hellman group, as `14` or `group14`, with a warning for a weak one.
pub(super) fn dh_group(word: &Word, report: &mut Report) -> Option<DhGroup> {
    const GROUPS: &str = "use 14, 15, 16, 19 or 20 (1, 2 and 5 for old peers only)";
    let digits = word.text.strip_prefix("group").unwrap_or(&word.text);
    let Ok(n) = digits.parse::<u16>() else {
        report.error(&word.path, format!("`{}` is not a Diffie-Hellman group", word.text), GROUPS);
        return None;
    };
    let Some(group) = DhGroup::from_number(n) else {
        report.error(&word.path, format!("Diffie-Hellman group {n} is not offered"), GROUPS);
        return None;
    };
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
        CipherAlg::Aes128
        | CipherAlg::Aes192
        | CipherAlg::Aes256
        | CipherAlg::Null
        | CipherAlg::AesCtr(_)
        | CipherAlg::AesGcm(..)
        | CipherAlg::AesCcm(..)
        | CipherAlg::ChaCha20Poly1305 => return,
    };
    report.warn(&word.path, why, format!("use {stronger} if the peer has it"));
}

/// Warns of a weak hash.
pub(super) fn warn_hash(word: &Word, weak: Option<&str>, stronger: &str, report: &mut Report) {
    if let Some(name) = weak {
        report.warn(&word.path, format!("{name} is outdated"), format!("use {stronger} if the peer has it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2 m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "-1s", "3", "3 days", "1.5s", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_duration("30").is_err_and(|(_, cure)| cure.contains("`30s`")));
    }

    #[test]
    fn durations_print_as_they_are_written() {
        for text in ["500ms", "3s", "30m", "24h", "90s", "0s"] {
            assert_eq!(parse_duration(text).map(show_duration), Ok(text.to_owned()));
        }
    }

    #[test]
    fn masks() {
        assert_eq!(mask(0), 0);
        assert_eq!(mask(24), 0xffff_ff00);
        assert_eq!(mask(32), u32::MAX);
        assert_eq!(broadcast(Ipv4Addr::new(10, 1, 2, 3), 24), Ipv4Addr::new(10, 1, 2, 255));
        assert!(in_subnet(Ipv4Addr::new(10, 1, 2, 9), Ipv4Addr::new(10, 1, 2, 3), 24));
    }
}
