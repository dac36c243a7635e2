//! Digests and HMAC (RFC 2104).

use super::HashAlg;
use hmac::{KeyInit, Mac};
use md5::Digest;
use ring::{digest, hmac as ring_hmac};

impl HashAlg {
    /// Digest over the concatenation of `parts`; [`HashAlg::len`] bytes.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Self::Md5 => {
                let mut md5 = md5::Md5::new();
                parts.iter().for_each(|part| md5.update(part));
                return md5.finalize().to_vec();
            }
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }

    /// HMAC (RFC 2104) over the concatenation of `parts`, untruncated. The key may have any length, none included.
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Self::Md5 => return hmac_md5(key, parts),
            Self::Sha1 => ring_hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => ring_hmac::HMAC_SHA256,
            Self::Sha384 => ring_hmac::HMAC_SHA384,
            Self::Sha512 => ring_hmac::HMAC_SHA512,
        };
        let mut context = ring_hmac::Context::with_key(&ring_hmac::Key::new(algorithm, key));
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }
}

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // The library accepts every length (it hashes a long key), so the fallback is never taken; it is the safe side all the
    // same: an empty tag equals no tag.
    let Ok(mut mac) = hmac::Hmac::<md5::Md5>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// Algorithm, key, data, answer.
    type Case = (HashAlg, Vec<u8>, Vec<u8>, Vec<u8>);

    /// RFC 2202 2 and 3, RFC 4868 2.7.1.
    fn cases() -> Vec<Case> {
        let large: &[u8] = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let larger: &[u8] = b"Test Using Larger Than Block-Size Key and Larger Than One Block-Size Data";
        let count: Vec<u8> = (1..=25).collect();
        let jefe: &[u8] = b"what do ya want for nothing?";
        let prf6: &[u8] = b"This is a test using a larger than block-size key and a larger than block-size data. \
The key needs to be hashed before being used by the HMAC algorithm.";
        let case = |alg, key: &[u8], data: &[u8], answer: &[u8]| (alg, key.to_vec(), data.to_vec(), answer.to_vec());
        vec![
            // RFC 2202 2, cases 1 to 4, 6, 7
            case(HashAlg::Md5, &[0x0b; 16], b"Hi There", &hex!("9294727a3638bb1c13f48ef8158bfc9d")),
            case(HashAlg::Md5, b"Jefe", jefe, &hex!("750c783e6ab0b503eaa86e310a5db738")),
            case(HashAlg::Md5, &[0xaa; 16], &[0xdd; 50], &hex!("56be34521d144c88dbb8c733f0e8b3f6")),
            case(HashAlg::Md5, &count, &[0xcd; 50], &hex!("697eaf0aca3a3aea3a75164746ffaa79")),
            case(HashAlg::Md5, &[0xaa; 80], large, &hex!("6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd")),
            case(HashAlg::Md5, &[0xaa; 80], larger, &hex!("6f630fad67cda0ee1fb1f562db3aa53e")),
            // RFC 2202 3, cases 1 to 4, 6, 7
            case(HashAlg::Sha1, &[0x0b; 20], b"Hi There", &hex!("b617318655057264e28bc0b6fb378c8ef146be00")),
            case(HashAlg::Sha1, b"Jefe", jefe, &hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")),
            case(HashAlg::Sha1, &[0xaa; 20], &[0xdd; 50], &hex!("125d7342b9ac11cd91a39af48aa17b4f63f175d3")),
            case(HashAlg::Sha1, &count, &[0xcd; 50], &hex!("4c9007f4026250c6bc8414f9bf50c86c2d7235da")),
            case(HashAlg::Sha1, &[0xaa; 80], large, &hex!("aa4ae5e15272d00e95705637ce8a3b55ed402112")),
            case(HashAlg::Sha1, &[0xaa; 80], larger, &hex!("e8e99d0f45237d786d6bbaa7965c7808bbff1a91")),
            // RFC 4868 2.7.1, PRF-1, PRF-2, PRF-5, PRF-6
            case(HashAlg::Sha256, &[0x0b; 20], b"Hi There", &hex!("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")),
            case(HashAlg::Sha256, b"Jefe", jefe, &hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")),
            case(HashAlg::Sha256, &[0xaa; 131], large, &hex!("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")),
            case(HashAlg::Sha256, &[0xaa; 131], prf6, &hex!("9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2")),
            case(
                HashAlg::Sha384,
                b"Jefe",
                jefe,
                &hex!("af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"),
            ),
            case(
                HashAlg::Sha384,
                &[0xaa; 131],
                large,
                &hex!("4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952"),
            ),
            case(
                HashAlg::Sha512,
                b"Jefe",
                jefe,
                &hex!(
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd
                     caeab1a34d4a6b4b636e070a38bce737"
                ),
            ),
            case(
                HashAlg::Sha512,
                &[0xaa; 131],
                large,
                &hex!(
                    "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e52
                     95e64f73f63f0aec8b915a985d786598"
                ),
            ),
        ]
    }

    #[test]
    fn hmac_gives_the_answers_of_the_rfcs() {
        for (n, (alg, key, data, answer)) in cases().into_iter().enumerate() {
            assert_eq!(alg.hmac(&key, &[&data]), answer, "case {n}, {}", alg.name());
        }
    }

    #[test]
    fn parts_are_concatenated() {
        for alg in HashAlg::ALL {
            assert_eq!(alg.digest(&[b"a", b"", b"bc"]), alg.digest(&[b"abc"]));
            assert_eq!(alg.hmac(b"key", &[b"a", b"", b"bc"]), alg.hmac(b"key", &[b"abc"]));
            assert_ne!(alg.digest(&[b"abc"]), alg.digest(&[b"abd"]));
            assert_eq!(alg.digest(&[]).len(), alg.len());
            assert_eq!(alg.hmac(&[], &[]).len(), alg.len());
        }
    }

    #[test]
    fn a_key_longer_than_the_block_is_hashed_first() {
        for alg in HashAlg::ALL {
            let key = [0x5a; 200];
            assert_eq!(alg.hmac(&key, &[b"data"]), alg.hmac(&alg.digest(&[&key]), &[b"data"]));
        }
    }
}
