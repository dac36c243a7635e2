//! Pseudorandom functions of IKEv2 (RFC 7296 2.13) and integrity algorithms. The HMACs stand in `hash`; AES-XCBC-MAC (RFC 3566) is
//! built here on the block cipher, AES-CMAC is a library's.

use super::{HashAlg, IntegAlg, PrfAlg, Secret, ct_eq};
use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit, consts};
use cmac::{Cmac, Mac};
use zeroize::{Zeroize, Zeroizing};

/// Rounds of prf+: its counter is one byte (RFC 7296 2.13).
const MAX_ROUNDS: u8 = 255;

impl PrfAlg {
    /// prf(key, concatenation of `parts`), [`PrfAlg::len`] bytes. The key may have any length: the AES functions bring it to
    /// 16 bytes as RFC 4434 2 and RFC 4615 3 say.
    #[must_use]
    pub fn prf(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::HmacMd5 => HashAlg::Md5.hmac(key, parts),
            Self::HmacSha1 => HashAlg::Sha1.hmac(key, parts),
            Self::HmacSha256 => HashAlg::Sha256.hmac(key, parts),
            Self::HmacSha384 => HashAlg::Sha384.hmac(key, parts),
            Self::HmacSha512 => HashAlg::Sha512.hmac(key, parts),
            Self::AesXcbc => {
                // Short keys are padded with zeros, long ones hashed under a key of zeros.
                let key = sixteen(key).unwrap_or_else(|| match key.len() {
                    0..16 => padded(key),
                    _ => xcbc(&[0; 16], &[key]),
                });
                xcbc(&key, parts).to_vec()
            }
            Self::AesCmac => {
                let key = sixteen(key).unwrap_or_else(|| cmac(&[0; 16], &[key]));
                cmac(&key, parts).to_vec()
            }
        }
    }

    /// prf+(key, concatenation of `seed`): `n` bytes, at most 255 times [`PrfAlg::len`] (RFC 7296 2.13); a longer wish gets that
    /// many.
    #[must_use]
    pub fn prf_plus(self, key: &[u8], seed: &[&[u8]], n: usize) -> Secret {
        // Never grows, so that no copy is left behind.
        let mut out = Vec::with_capacity(n.min(self.len() * usize::from(MAX_ROUNDS)));
        let mut previous = Zeroizing::new(Vec::new());
        for round in 1..=MAX_ROUNDS {
            if out.len() >= n {
                break;
            }
            let counter = [round];
            let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
            parts.push(&previous);
            parts.extend_from_slice(seed);
            parts.push(&counter);
            let next = self.prf(key, &parts);
            out.extend(next.iter().take(n - out.len()));
            previous = Zeroizing::new(next);
        }
        Secret::new(out)
    }
}

impl IntegAlg {
    /// The check value over the concatenation of `parts`, cut to the length of the wire ([`IntegAlg::wire_len`]).
    #[must_use]
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = match self {
            Self::HmacMd5 => HashAlg::Md5.hmac(key, parts),
            Self::HmacSha1 => HashAlg::Sha1.hmac(key, parts),
            Self::HmacSha256 => HashAlg::Sha256.hmac(key, parts),
            Self::HmacSha384 => HashAlg::Sha384.hmac(key, parts),
            Self::HmacSha512 => HashAlg::Sha512.hmac(key, parts),
            // With the key of 16 bytes these two are the MAC itself (RFC 3566, RFC 4494).
            Self::AesXcbc => PrfAlg::AesXcbc.prf(key, parts),
            Self::AesCmac => PrfAlg::AesCmac.prf(key, parts),
        };
        mac.truncate(self.wire_len());
        mac
    }

    /// True when `icv` is the check value over `parts`: constant time in its bytes. One of any other length is refused.
    #[must_use]
    pub fn verify(self, key: &[u8], parts: &[&[u8]], icv: &[u8]) -> bool {
        icv.len() == self.wire_len() && ct_eq(&self.mac(key, parts), icv)
    }
}

type Key = Zeroizing<[u8; 16]>;
type Block = Array<u8, consts::U16>;

fn sixteen(key: &[u8]) -> Option<Key> {
    key.try_into().ok().map(Zeroizing::new)
}

/// `key` and zeros behind it.
fn padded(key: &[u8]) -> Key {
    let mut out = Zeroizing::new([0; 16]);
    for (o, b) in out.iter_mut().zip(key) {
        *o = *b;
    }
    out
}

fn cmac(key: &[u8; 16], parts: &[&[u8]]) -> Key {
    let mut mac = Cmac::<Aes128>::new(key.into());
    parts.iter().for_each(|part| mac.update(part));
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// AES-XCBC-MAC (RFC 3566 4), untruncated.
fn xcbc(key: &[u8; 16], parts: &[&[u8]]) -> Key {
    let outer = Aes128::new(key.into());
    let derived = |n: u8| {
        let mut block = Block::from([n; 16]);
        outer.encrypt_block(&mut block);
        Zeroizing::new(<[u8; 16]>::from(block))
    };
    let cipher = Aes128::new((&*derived(1)).into());
    let mut state = Block::default();
    // Bytes XORed into the state since the last encryption. A full block waits: the last one is treated differently.
    let mut filled = 0;
    for &byte in parts.iter().copied().flatten() {
        if filled == 16 {
            cipher.encrypt_block(&mut state);
            filled = 0;
        }
        state[filled] ^= byte;
        filled += 1;
    }
    let last = if filled == 16 {
        derived(2)
    } else {
        state[filled] ^= 0x80;
        derived(3)
    };
    for (o, b) in state.iter_mut().zip(last.iter()) {
        *o ^= b;
    }
    cipher.encrypt_block(&mut state);
    let out = Zeroizing::new(state.into());
    state.zeroize();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors;
    use hex_literal::hex;

    const COUNT: [u8; 20] = hex!("000102030405060708090a0b0c0d0e0f10111213");

    #[test]
    fn xcbc_gives_the_answers_of_rfc_3566() {
        let count: Vec<u8> = (0..34).collect();
        let zeros = [0; 1000];
        let cases: [(&[u8], [u8; 16]); 7] = [
            (&count[..0], hex!("75f0251d528ac01c4573dfd584d79f29")),
            (&count[..3], hex!("5b376580ae2f19afe7219ceef172756f")),
            (&count[..16], hex!("d2a246fa349b68a79998a4394ff7a263")),
            (&count[..20], hex!("47f51b4564966215b8985c63055ed308")),
            (&count[..32], hex!("f54f0ec8d2b9f3d36807734bd5283fd4")),
            (&count, hex!("becbb3bccdb518a30677d5481fb6b4d8")),
            (&zeros, hex!("f0dafee895db30253761103b5d84528f")),
        ];
        let key: [u8; 16] = *COUNT.first_chunk().unwrap();
        for (data, answer) in cases {
            let (head, tail) = data.split_at(data.len() / 2);
            assert_eq!(*xcbc(&key, &[head, b"", tail]), answer, "{} bytes", data.len());
            assert_eq!(IntegAlg::AesXcbc.mac(&key, &[data]), &answer[..12]);
        }
    }

    #[test]
    fn the_aes_functions_take_keys_of_every_length() {
        let (long, short) = (hex!("000102030405060708090a0b0c0d0e0fedcb"), &COUNT[..10]);
        let cases: [(PrfAlg, &[u8], [u8; 16]); 6] = [
            // RFC 4434 2
            (PrfAlg::AesXcbc, &COUNT[..16], hex!("47f51b4564966215b8985c63055ed308")),
            (PrfAlg::AesXcbc, short, hex!("0fa087af7d866e7653434e602fdde835")),
            (PrfAlg::AesXcbc, &long, hex!("8cd3c93ae598a9803006ffb67c40e9e4")),
            // RFC 4615 4
            (PrfAlg::AesCmac, &long, hex!("84a348a4a45d235babfffc0d2b4da09a")),
            (PrfAlg::AesCmac, &COUNT[..16], hex!("980ae87b5f4c9c5214f5b6a8455e4c2d")),
            (PrfAlg::AesCmac, short, hex!("290d9e112edb09ee141fcf64c0b72f3d")),
        ];
        for (alg, key, answer) in cases {
            assert_eq!(alg.prf(key, &[&COUNT[..7], &COUNT[7..]]), answer, "{} with {} bytes", alg.name(), key.len());
        }
    }

    #[test]
    fn cmac_gives_wycheproof_s_answers() {
        let mut seen = 0;
        for line in vectors::lines(include_str!("vectors/aes_cmac.txt")) {
            let [key, data, tag] = line[..] else { panic!("{line:?}") };
            let mac = PrfAlg::AesCmac.prf(&vectors::hex(key), &[&vectors::hex(data)]);
            match tag.strip_prefix('!') {
                Some(bad) => assert_ne!(mac, vectors::hex(bad), "{line:?}"),
                None => assert_eq!(mac, vectors::hex(tag), "{line:?}"),
            }
            seen += 1;
        }
        assert_eq!(seen, 33);
    }

    #[test]
    fn hmac_functions_derive_the_keys_of_nist_s_ikev2_sample() {
        let mut seen = Vec::new();
        for line in vectors::lines(include_str!("vectors/ikev2_kdf.txt")) {
            let [hash, fields @ ..] = &line[..] else { panic!("{line:?}") };
            let fields: Vec<_> = fields.iter().map(|f| vectors::hex(f)).collect();
            let [ni, nr, gir, spi_i, spi_r, skeyseed, dkm] = &fields[..] else { panic!("{line:?}") };
            let prf = PrfAlg::ALL.into_iter().find(|p| p.name().ends_with(hash)).unwrap();
            assert_eq!(&prf.prf(&[&ni[..], nr].concat(), &[gir]), skeyseed, "{hash}");
            assert_eq!(prf.prf_plus(skeyseed, &[ni, nr, spi_i, spi_r], dkm.len()).expose(), dkm, "{hash}");
            seen.push(prf);
        }
        seen.dedup();
        assert_eq!(seen, [PrfAlg::HmacSha1, PrfAlg::HmacSha256, PrfAlg::HmacSha384, PrfAlg::HmacSha512]);
    }

    #[test]
    fn prf_plus_counts_to_255_and_ends() {
        for alg in PrfAlg::ALL {
            let most = alg.len() * 255;
            let all = alg.prf_plus(b"key", &[b"se", b"ed"], usize::MAX);
            assert_eq!(all.len(), most);
            for n in [0, 1, alg.len(), alg.len() + 1, most - 1, most] {
                assert_eq!(alg.prf_plus(b"key", &[b"seed"], n).expose(), &all.expose()[..n]);
            }
            let block = |n: usize| &all.expose()[(n - 1) * alg.len()..n * alg.len()];
            assert_eq!(block(1), alg.prf(b"key", &[b"seed", &[1]]));
            assert_eq!(block(2), alg.prf(b"key", &[block(1), b"seed", &[2]]));
            assert_eq!(block(255), alg.prf(b"key", &[block(254), b"seed", &[255]]));
        }
    }

    #[test]
    fn check_values_are_cut_and_compared_whole() {
        for alg in IntegAlg::ALL {
            let key = vec![0x0b; alg.key_len()];
            let icv = alg.mac(&key, &[b"Hi ", b"There"]);
            assert_eq!(icv.len(), alg.wire_len());
            assert!(alg.verify(&key, &[b"Hi There"], &icv));
            assert!(!alg.verify(&key, &[b"Hi there"], &icv));
            assert!(!alg.verify(&key[1..], &[b"Hi There"], &icv));
            assert!(!alg.verify(&key, &[b"Hi There"], &icv[1..]));
            assert!(!alg.verify(&key, &[b"Hi There"], &[]));
            for byte in 0..icv.len() {
                let mut bad = icv.clone();
                bad[byte] ^= 0x80;
                assert!(!alg.verify(&key, &[b"Hi There"], &bad), "{} byte {byte}", alg.name());
            }
        }
        // RFC 2202 2 and 3, case 1, and RFC 4868 2.7.2, AUTH256-1, cut.
        let sha1 = IntegAlg::HmacSha1.mac(&[0x0b; 20], &[b"Hi There"]);
        assert_eq!(sha1, hex!("b617318655057264e28bc0b6"));
        assert_eq!(IntegAlg::HmacMd5.mac(&[0x0b; 16], &[b"Hi There"]), hex!("9294727a3638bb1c13f48ef8"));
        assert_eq!(IntegAlg::HmacSha256.mac(&[0x0b; 32], &[b"Hi There"]), hex!("198a607eb44bfbc69903a0f1cf2bbdc5"));
    }
}
