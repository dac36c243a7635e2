//! Ciphers.

use crate::crypto::{AesKey, CipherAlg, CryptoError, Icv};
use hex_literal::hex;

pub(super) fn passes(alg: CipherAlg) -> bool {
    match alg {
        CipherAlg::Des | CipherAlg::TripleDes | CipherAlg::Aes128 | CipherAlg::Aes192 | CipherAlg::Aes256 => cbc_passes(alg),
        // The kernel does it: nothing to test.
        CipherAlg::Null => true,
        CipherAlg::AesCtr(bits) => ctr_passes(bits),
        CipherAlg::AesGcm(bits, icv) => gcm_passes(bits, icv),
        CipherAlg::AesCcm(bits, icv) => ccm_passes(bits, icv),
        CipherAlg::ChaCha20Poly1305 => chacha_passes(),
    }
}

fn cbc_passes(alg: CipherAlg) -> bool {
    // FIPS 81 table C2, NIST's TDES CBC example, RFC 3602 case 1, SP 800-38A F.2.3 and F.2.5
    let iv = &hex!("000102030405060708090a0b0c0d0e0f");
    let block = &hex!("6bc1bee22e409f96e93d7e117393172a");
    let (key, iv, plain, sealed): (&[u8], &[u8], &[u8], &[u8]) = match alg {
        CipherAlg::Des => {
            (&hex!("0123456789abcdef"), &hex!("1234567890abcdef"), b"Now is the time ", &hex!("e5c7cdde872bf27c43e934008c389c0f"))
        }
        CipherAlg::TripleDes => (
            &hex!("0123456789abcdef23456789abcdef01456789abcdef0123"),
            &hex!("f69f2445df4f9b17"),
            block,
            &hex!("2079c3d53aa763e193b79e2569ab5262"),
        ),
        CipherAlg::Aes128 => (
            &hex!("06a9214036b8a15b512e03d534120006"),
            &hex!("3dafba429d9eb430b422da802c9fac41"),
            b"Single block msg",
            &hex!("e353779c1079aeb82708942dbe77181a"),
        ),
        CipherAlg::Aes192 => {
            (&hex!("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"), iv, block, &hex!("4f021db243bc633d7178183a9fa071e8"))
        }
        CipherAlg::Aes256 => (
            &hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            iv,
            block,
            &hex!("f58c4c04d6e5f1ba779eabfb5f7bfbd6"),
        ),
        CipherAlg::Null | CipherAlg::AesCtr(_) | CipherAlg::AesGcm(..) | CipherAlg::AesCcm(..) | CipherAlg::ChaCha20Poly1305 => {
            return false;
        }
    };
    let mut data = plain.to_vec();
    alg.cbc_encrypt(key, iv, &mut data).is_ok() && data == sealed && alg.cbc_decrypt(key, iv, &mut data).is_ok() && data == plain
}

/// RFC 3686 6, cases 1, 4 and 7.
fn ctr_passes(bits: AesKey) -> bool {
    let (keymat, iv, sealed): (&[u8], &[u8], [u8; 16]) = match bits {
        AesKey::Bits128 => {
            (&hex!("ae6852f8121067cc4bf7a5765577f39e 00000030"), &hex!("0000000000000000"), hex!("e4095d4fb7a7b3792d6175a3261311b8"))
        }
        AesKey::Bits192 => (
            &hex!("16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515 00000048"),
            &hex!("36733c147d6d93cb"),
            hex!("4b55384fe259c9c84e7935a003cbe928"),
        ),
        AesKey::Bits256 => (
            &hex!("776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104 00000060"),
            &hex!("db5672c97aa8f0b2"),
            hex!("145ad01dbf824ec7560863dc71e3e0c0"),
        ),
    };
    let mut data = *b"Single block msg";
    CipherAlg::AesCtr(bits).ctr_apply(keymat, iv, &mut data).is_ok() && data == sealed
}

/// Seals, opens, and refuses a changed check value.
fn aead_passes(alg: CipherAlg, keymat: &[u8], iv: &[u8], aad: &[u8], plain: &[u8], sealed: &[u8]) -> bool {
    let mut data = plain.to_vec();
    let seals = alg.aead_seal(keymat, iv, aad, &mut data).is_ok() && data == sealed;
    let opens = alg.aead_open(keymat, iv, aad, &mut data).is_ok() && data == plain;
    let mut forged = sealed.to_vec();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    seals && opens && alg.aead_open(keymat, iv, aad, &mut forged) == Err(CryptoError::Forged)
}

/// The test cases 4, 10 and 16 of the GCM specification (McGrew and Viega): key, nonce and associated data.
const KEY: [u8; 32] = hex!("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
const NONCE: [u8; 12] = hex!("cafebabefacedbaddecaf888");
const AAD: [u8; 20] = hex!("feedfacedeadbeeffeedfacedeadbeefabaddad2");
const PLAIN: [u8; 60] =
    hex!("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");

fn gcm_passes(bits: AesKey, icv: Icv) -> bool {
    let sealed = match bits {
        AesKey::Bits128 => hex!(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091
             5bc94fbc3221a5db94fae95ae7121a47"
        ),
        AesKey::Bits192 => hex!(
            "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710
             2519498e80f1478f37ba55bd6d27618c"
        ),
        AesKey::Bits256 => hex!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662
             76fc6ece0f4e1768cddf8853bb2d551b"
        ),
    };
    let (salt, iv) = NONCE.split_at(4);
    // A shorter check value is the beginning of the long one (SP 800-38D 7.1).
    let sealed = &sealed[..PLAIN.len() + icv.len()];
    aead_passes(CipherAlg::AesGcm(bits, icv), &[&KEY[..bits.len()], salt].concat(), iv, &AAD, &PLAIN, sealed)
}

/// The first 20 bytes of the same text under the first 11 of the same nonce; answers computed with OpenSSL 3.
fn ccm_passes(bits: AesKey, icv: Icv) -> bool {
    let sealed: [u8; 20] = match bits {
        AesKey::Bits128 => hex!("f3e0224c5eeabc4289605a86b326fd895c6653f8"),
        AesKey::Bits192 => hex!("82f1ba877089976a5387ef8d61577bb9e785d493"),
        AesKey::Bits256 => hex!("22c889c05709e49738aa7f8f9509a9a38d688b0b"),
    };
    let tag: &[u8] = match (bits, icv) {
        (AesKey::Bits128, Icv::Bytes8) => &hex!("19a0f01cac468a98"),
        (AesKey::Bits128, Icv::Bytes12) => &hex!("9b040d6745f74d4f5d6a8caf"),
        (AesKey::Bits128, Icv::Bytes16) => &hex!("dd9134de4a710bb5ca6e3d78487e3749"),
        (AesKey::Bits192, Icv::Bytes8) => &hex!("db091b20c741d558"),
        (AesKey::Bits192, Icv::Bytes12) => &hex!("d6ae264843f46e7243d4a43e"),
        (AesKey::Bits192, Icv::Bytes16) => &hex!("11b30806c6d0550adb3d7bda730cad63"),
        (AesKey::Bits256, Icv::Bytes8) => &hex!("f618cbdc80f522ef"),
        (AesKey::Bits256, Icv::Bytes12) => &hex!("79483ed0a09546cbbe69c005"),
        (AesKey::Bits256, Icv::Bytes16) => &hex!("b192f04fe783e07f24b27fac6d6c2f45"),
    };
    let (salt, iv) = NONCE[..11].split_at(3);
    let keymat = [&KEY[..bits.len()], salt].concat();
    aead_passes(CipherAlg::AesCcm(bits, icv), &keymat, iv, &AAD, &PLAIN[..20], &[&sealed, tag].concat())
}

/// RFC 7634 appendix B.
fn chacha_passes() -> bool {
    aead_passes(
        CipherAlg::ChaCha20Poly1305,
        &hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3"),
        &hex!("1011121314151617"),
        &hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029"),
        &hex!("0000000c000040010000000a00"),
        &hex!("610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_fails_the_start_test() {
        let alg = CipherAlg::AesGcm(AesKey::Bits128, Icv::Bytes16);
        let keymat = [1; 20];
        let mut sealed = b"text".to_vec();
        alg.aead_seal(&keymat, &[2; 8], &[], &mut sealed).unwrap();
        assert!(aead_passes(alg, &keymat, &[2; 8], &[], b"text", &sealed));
        assert!(!aead_passes(alg, &keymat, &[2; 8], &[], b"test", &sealed));
        assert!(!aead_passes(alg, &keymat, &[3; 8], &[], b"text", &sealed));
    }
}
