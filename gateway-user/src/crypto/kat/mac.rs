//! Hashes, HMACs, pseudorandom functions, integrity algorithms.

use crate::crypto::{HashAlg, IntegAlg, PrfAlg};
use hex_literal::hex;

/// Key and data of RFC 2202 and RFC 4868, case 2.
const KEY: &[u8] = b"Jefe";
const DATA: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];

pub(super) fn hash_passes(alg: HashAlg) -> bool {
    alg.digest(&[b"a", b"bc"]) == hash_answers(alg).1
}

pub(super) fn hmac_passes(alg: HashAlg) -> bool {
    alg.hmac(KEY, &DATA) == hash_answers(alg).2
}

pub(super) fn hmac_name(alg: HashAlg) -> &'static str {
    hash_answers(alg).0
}

/// HMAC's name, digest of "abc" (RFC 1321 A.5, FIPS 180-4 examples), HMAC of RFC 2202 and RFC 4868 case 2.
fn hash_answers(alg: HashAlg) -> (&'static str, &'static [u8], &'static [u8]) {
    match alg {
        HashAlg::Md5 => ("hmac-md5", &hex!("900150983cd24fb0d6963f7d28e17f72"), &hex!("750c783e6ab0b503eaa86e310a5db738")),
        HashAlg::Sha1 => {
            ("hmac-sha1", &hex!("a9993e364706816aba3e25717850c26c9cd0d89d"), &hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"))
        }
        HashAlg::Sha256 => (
            "hmac-sha256",
            &hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ),
        HashAlg::Sha384 => (
            "hmac-sha384",
            &hex!("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"),
            &hex!("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"),
        ),
        HashAlg::Sha512 => (
            "hmac-sha512",
            &hex!(
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd
                 454d4423643ce80e2a9ac94fa54ca49f"
            ),
            &hex!(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd
                 caeab1a34d4a6b4b636e070a38bce737"
            ),
        ),
    }
}

/// Message of 20 bytes whose first 16 are the key (RFC 3566 case 4, RFC 4615 4).
const COUNT: [u8; 20] = hex!("000102030405060708090a0b0c0d0e0f10111213");
const XCBC: [u8; 16] = hex!("47f51b4564966215b8985c63055ed308");
const CMAC: [u8; 16] = hex!("980ae87b5f4c9c5214f5b6a8455e4c2d");

/// RFC 2202 and RFC 4868 case 2, RFC 4434 2 and RFC 4615 4 with 10 and 18 bytes of key; and the first two rounds of prf+.
pub(super) fn prf_passes(alg: PrfAlg) -> bool {
    let aes = |short: [u8; 16], long: [u8; 16]| {
        let key = hex!("000102030405060708090a0b0c0d0e0fedcb");
        alg.prf(&key[..10], &[&COUNT]) == short && alg.prf(&key, &[&COUNT]) == long
    };
    let hmac = |hash: HashAlg| alg.prf(KEY, &DATA) == hash_answers(hash).2;
    let passes = match alg {
        PrfAlg::HmacMd5 => hmac(HashAlg::Md5),
        PrfAlg::HmacSha1 => hmac(HashAlg::Sha1),
        PrfAlg::HmacSha256 => hmac(HashAlg::Sha256),
        PrfAlg::HmacSha384 => hmac(HashAlg::Sha384),
        PrfAlg::HmacSha512 => hmac(HashAlg::Sha512),
        PrfAlg::AesXcbc => aes(hex!("0fa087af7d866e7653434e602fdde835"), hex!("8cd3c93ae598a9803006ffb67c40e9e4")),
        PrfAlg::AesCmac => aes(hex!("290d9e112edb09ee141fcf64c0b72f3d"), hex!("84a348a4a45d235babfffc0d2b4da09a")),
    };
    let first = alg.prf(KEY, &[DATA[0], DATA[1], &[1]]);
    let second = alg.prf(KEY, &[&first, DATA[0], DATA[1], &[2]]);
    passes && alg.prf_plus(KEY, &DATA, 2 * alg.len()).expose() == [first, second].concat()
}

/// The answers above, cut.
pub(super) fn integ_passes(alg: IntegAlg) -> bool {
    let (key, data, answer): (&[u8], &[&[u8]], &[u8]) = match alg {
        IntegAlg::HmacMd5 => (KEY, &DATA, hash_answers(HashAlg::Md5).2),
        IntegAlg::HmacSha1 => (KEY, &DATA, hash_answers(HashAlg::Sha1).2),
        IntegAlg::HmacSha256 => (KEY, &DATA, hash_answers(HashAlg::Sha256).2),
        IntegAlg::HmacSha384 => (KEY, &DATA, hash_answers(HashAlg::Sha384).2),
        IntegAlg::HmacSha512 => (KEY, &DATA, hash_answers(HashAlg::Sha512).2),
        IntegAlg::AesXcbc => (&COUNT[..16], &[&COUNT], &XCBC),
        IntegAlg::AesCmac => (&COUNT[..16], &[&COUNT], &CMAC),
    };
    let Some(answer) = answer.get(..alg.wire_len()) else { return false };
    alg.mac(key, data) == answer && alg.verify(key, data, answer) && !alg.verify(key, &data[1..], answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_differ_between_algorithms() {
        // A table that gave one answer twice would let one algorithm stand in for another.
        let mut answers: Vec<&[u8]> = HashAlg::ALL.iter().flat_map(|alg| [hash_answers(*alg).1, hash_answers(*alg).2]).collect();
        answers.extend([&XCBC[..], &CMAC]);
        answers.sort_unstable();
        answers.dedup();
        assert_eq!(answers.len(), 12);
    }
}
