//! Block ciphers in CBC mode, without padding (RFC 2409 appendix B, RFC 2405, RFC 2451, RFC 3602).

use super::{CipherAlg, CryptoError};
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use subtle::{Choice, ConstantTimeEq};

/// Weak and semi-weak DES keys of RFC 2409 appendix A, with the parity bits cleared: DES ignores them, and derived keys have
/// none.
pub(crate) const DES_WEAK: [[u8; 8]; 16] = {
    let mut keys = [
        // weak
        [0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01],
        [0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe, 0xfe],
        [0x1f, 0x1f, 0x1f, 0x1f, 0x0e, 0x0e, 0x0e, 0x0e],
        [0xe0, 0xe0, 0xe0, 0xe0, 0xf1, 0xf1, 0xf1, 0xf1],
        // semi-weak, in pairs that undo each other
        [0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe],
        [0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01, 0xfe, 0x01],
        [0x1f, 0xe0, 0x1f, 0xe0, 0x0e, 0xf1, 0x0e, 0xf1],
        [0xe0, 0x1f, 0xe0, 0x1f, 0xf1, 0x0e, 0xf1, 0x0e],
        [0x01, 0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1],
        [0xe0, 0x01, 0xe0, 0x01, 0xf1, 0x01, 0xf1, 0x01],
        [0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e, 0xfe],
        [0xfe, 0x1f, 0xfe, 0x1f, 0xfe, 0x0e, 0xfe, 0x0e],
        [0x01, 0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e],
        [0x1f, 0x01, 0x1f, 0x01, 0x0e, 0x01, 0x0e, 0x01],
        [0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1, 0xfe],
        [0xfe, 0xe0, 0xfe, 0xe0, 0xfe, 0xf1, 0xfe, 0xf1],
    ];
    let mut i = 0;
    while i < keys.len() {
        let mut j = 0;
        while j < 8 {
            keys[i][j] &= 0xfe;
            j += 1;
        }
        i += 1;
    }
    keys
};

impl CipherAlg {
    /// Encrypts `data` in place. `key`, `iv` and `data` must have the lengths of the algorithm; `data` is a multiple of the
    /// block (the caller pads). The next IV is the last block of `data`.
    ///
    /// # Errors
    /// A length is wrong, or the cipher is NULL; `data` is then untouched.
    pub fn cbc_encrypt(self, key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
        self.check_lengths(key, iv, data)?;
        match self {
            Self::Des => encrypt::<cbc::Encryptor<des::Des>>(key, iv, data),
            Self::TripleDes => encrypt::<cbc::Encryptor<des::TdesEde3>>(key, iv, data),
            Self::Aes128 => encrypt::<cbc::Encryptor<aes::Aes128>>(key, iv, data),
            Self::Aes192 => encrypt::<cbc::Encryptor<aes::Aes192>>(key, iv, data),
            Self::Aes256 => encrypt::<cbc::Encryptor<aes::Aes256>>(key, iv, data),
            Self::Null | Self::AesCtr(_) | Self::AesGcm(..) | Self::AesCcm(..) | Self::ChaCha20Poly1305 => Err(CryptoError::NotCbc),
        }
    }

    /// Decrypts `data` in place; the padding stays. Save the last block of `data` before if it is the next IV.
    ///
    /// # Errors
    /// As [`CipherAlg::cbc_encrypt`].
    pub fn cbc_decrypt(self, key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
        self.check_lengths(key, iv, data)?;
        match self {
            Self::Des => decrypt::<cbc::Decryptor<des::Des>>(key, iv, data),
            Self::TripleDes => decrypt::<cbc::Decryptor<des::TdesEde3>>(key, iv, data),
            Self::Aes128 => decrypt::<cbc::Decryptor<aes::Aes128>>(key, iv, data),
            Self::Aes192 => decrypt::<cbc::Decryptor<aes::Aes192>>(key, iv, data),
            Self::Aes256 => decrypt::<cbc::Decryptor<aes::Aes256>>(key, iv, data),
            Self::Null | Self::AesCtr(_) | Self::AesGcm(..) | Self::AesCcm(..) | Self::ChaCha20Poly1305 => Err(CryptoError::NotCbc),
        }
    }

    /// True for a key that must not be used: a weak or semi-weak DES key (RFC 2409 appendix A and B), or a 3DES key whose
    /// first two or last two thirds are equal, which is single DES (RFC 2451 2.3). Parity bits do not count. Constant time
    /// in the key; a key of the wrong length is reported by the cipher, not here.
    #[must_use]
    pub fn is_weak_key(self, key: &[u8]) -> bool {
        match self {
            Self::Des => match key.first_chunk() {
                Some(key) => DES_WEAK.iter().fold(Choice::from(0), |weak, bad| weak | without_parity(key).ct_eq(bad)).into(),
                None => false,
            },
            Self::TripleDes => match key.as_chunks::<8>() {
                ([k1, k2, k3], []) => {
                    let (k1, k2, k3) = (without_parity(k1), without_parity(k2), without_parity(k3));
                    (k1.ct_eq(&k2) | k2.ct_eq(&k3)).into()
                }
                _ => false,
            },
            Self::Aes128
            | Self::Aes192
            | Self::Aes256
            | Self::Null
            | Self::AesCtr(_)
            | Self::AesGcm(..)
            | Self::AesCcm(..)
            | Self::ChaCha20Poly1305 => false,
        }
    }

    fn check_lengths(self, key: &[u8], iv: &[u8], data: &[u8]) -> Result<(), CryptoError> {
        if !Self::ALL.contains(&self) {
            return Err(CryptoError::NotCbc);
        }
        if key.len() != self.key_len() {
            return Err(CryptoError::KeyLength { got: key.len(), want: self.key_len() });
        }
        if iv.len() != self.block_len() {
            return Err(CryptoError::IvLength { got: iv.len(), want: self.block_len() });
        }
        if !data.len().is_multiple_of(self.block_len()) {
            return Err(CryptoError::DataLength { got: data.len(), block: self.block_len() });
        }
        Ok(())
    }
}

fn without_parity(key: &[u8; 8]) -> [u8; 8] {
    key.map(|b| b & 0xfe)
}

/// The lengths were checked by [`CipherAlg::check_lengths`]; the library checks key and IV again.
fn encrypt<M: BlockModeEncrypt + KeyIvInit>(key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
    let mut mode = M::new_from_slices(key, iv).map_err(|_| CryptoError::Internal)?;
    let (blocks, _) = Array::slice_as_chunks_mut(data);
    mode.encrypt_blocks(blocks);
    Ok(())
}

fn decrypt<M: BlockModeDecrypt + KeyIvInit>(key: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
    let mut mode = M::new_from_slices(key, iv).map_err(|_| CryptoError::Internal)?;
    let (blocks, _) = Array::slice_as_chunks_mut(data);
    mode.decrypt_blocks(blocks);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;
    use proptest::prelude::*;

    #[track_caller]
    fn both_ways(alg: CipherAlg, key: &[u8], iv: &[u8], plain: &[u8], sealed: &[u8]) {
        let mut data = plain.to_vec();
        alg.cbc_encrypt(key, iv, &mut data).unwrap();
        assert_eq!(data, sealed);
        alg.cbc_decrypt(key, iv, &mut data).unwrap();
        assert_eq!(data, plain);
    }

    #[test]
    fn aes_128_gives_the_answers_of_rfc_3602_section_4() {
        both_ways(
            CipherAlg::Aes128,
            &hex!("06a9214036b8a15b512e03d534120006"),
            &hex!("3dafba429d9eb430b422da802c9fac41"),
            b"Single block msg",
            &hex!("e353779c1079aeb82708942dbe77181a"),
        );
        both_ways(
            CipherAlg::Aes128,
            &hex!("6c3ea0477630ce21a2ce334aa746c2cd"),
            &hex!("c782dc4c098c66cbd9cd27d825682c81"),
            b"This is a 48-byte message (exactly 3 AES blocks)",
            &hex!("d0a02b3836451753d493665d33f0e8862dea54cdb293abc7506939276772f8d5021c19216bad525c8579695d83ba2684"),
        );
        // Case 5: the encrypted part of an ESP packet
        both_ways(
            CipherAlg::Aes128,
            &hex!("90d382b410eeba7ad938c46cec1a82bf"),
            &hex!("e96e8c08ab465763fd098d45dd3ff893"),
            &hex!(
                "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223242526272829
                 2a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01"
            ),
            &hex!(
                "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b
                 07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6"
            ),
        );
    }

    #[test]
    fn longer_aes_keys_give_the_answers_of_sp_800_38a_f_2() {
        let iv = hex!("000102030405060708090a0b0c0d0e0f");
        let plain = hex!("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        both_ways(
            CipherAlg::Aes192,
            &hex!("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
            &iv,
            &plain,
            &hex!("4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"),
        );
        both_ways(
            CipherAlg::Aes256,
            &hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            &iv,
            &plain,
            &hex!("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"),
        );
    }

    #[test]
    fn des_gives_the_answer_of_fips_81_table_c2() {
        both_ways(
            CipherAlg::Des,
            &hex!("0123456789abcdef"),
            &hex!("1234567890abcdef"),
            b"Now is the time for all ",
            &hex!("e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6"),
        );
    }

    #[test]
    fn triple_des_gives_the_answer_of_nist_s_tdes_cbc_example() {
        both_ways(
            CipherAlg::TripleDes,
            &hex!("0123456789abcdef23456789abcdef01456789abcdef0123"),
            &hex!("f69f2445df4f9b17"),
            &hex!("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"),
            &hex!("2079c3d53aa763e193b79e2569ab5262516570481f25b50f73c0bda85c8e0da7"),
        );
    }

    #[test]
    fn wrong_lengths_are_errors_and_leave_the_data() {
        for alg in CipherAlg::ALL {
            let (key, iv) = (vec![7; alg.key_len()], vec![9; alg.block_len()]);
            let mut data = vec![1; alg.block_len() + 1];
            let short = CryptoError::DataLength { got: alg.block_len() + 1, block: alg.block_len() };
            assert_eq!(alg.cbc_encrypt(&key, &iv, &mut data), Err(short));
            assert_eq!(alg.cbc_decrypt(&key, &iv, &mut data), Err(short));
            data.truncate(alg.block_len());
            let bad_key = CryptoError::KeyLength { got: key.len() - 1, want: key.len() };
            assert_eq!(alg.cbc_encrypt(&key[1..], &iv, &mut data), Err(bad_key));
            let bad_iv = CryptoError::IvLength { got: iv.len() - 1, want: iv.len() };
            assert_eq!(alg.cbc_decrypt(&key, &iv[1..], &mut data), Err(bad_iv));
            assert!(data.iter().all(|&b| b == 1));
            assert_eq!(alg.cbc_encrypt(&key, &iv, &mut []), Ok(()));
        }
        assert_eq!(CipherAlg::Null.cbc_encrypt(&[], &[0], &mut [0]), Err(CryptoError::NotCbc));
    }

    #[test]
    fn the_weak_des_keys_are_weak_by_what_they_do() {
        // A weak key undoes itself; each semi-weak key undoes its neighbour in the table.
        let undoes = |a: &[u8; 8], b: &[u8; 8]| {
            let mut data = *b"8 bytes!";
            CipherAlg::Des.cbc_encrypt(a, &[0; 8], &mut data).unwrap();
            CipherAlg::Des.cbc_encrypt(b, &[0; 8], &mut data).unwrap();
            &data == b"8 bytes!"
        };
        assert!(DES_WEAK[..4].iter().all(|k| undoes(k, k)));
        assert!(DES_WEAK[4..].as_chunks::<2>().0.iter().all(|[a, b]| undoes(a, b) && undoes(b, a)));
    }

    #[test]
    fn weak_keys_are_found_whatever_their_parity() {
        assert!(CipherAlg::Des.is_weak_key(&hex!("0101010101010101")));
        assert!(CipherAlg::Des.is_weak_key(&[0; 8]));
        assert!(CipherAlg::Des.is_weak_key(&[0xff; 8]));
        assert!(CipherAlg::Des.is_weak_key(&hex!("1fe01fe00ef10ef1")));
        assert!(CipherAlg::Des.is_weak_key(&hex!("fee0fee0fef1fef1")));
        assert!(!CipherAlg::Des.is_weak_key(&hex!("0123456789abcdef")));
        let triple = |a: u8, b: u8, c: u8| {
            let key = [[a; 8], [b; 8], [c; 8]].concat();
            CipherAlg::TripleDes.is_weak_key(&key)
        };
        assert!(triple(0x10, 0x10, 0x20));
        assert!(triple(0x10, 0x11, 0x20));
        assert!(triple(0x10, 0x20, 0x20));
        assert!(!triple(0x10, 0x20, 0x10), "two-key 3DES is allowed by RFC 2451");
        assert!(!triple(0x10, 0x20, 0x30));
        assert!(!CipherAlg::Aes128.is_weak_key(&[0; 16]));
        assert!(!CipherAlg::TripleDes.is_weak_key(&[0; 5]));
    }

    proptest! {
        #[test]
        fn decryption_undoes_encryption(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed in any::<u8>()) {
            for alg in CipherAlg::ALL {
                let key: Vec<u8> = (0..alg.key_len()).map(|i| seed.wrapping_add(i as u8).wrapping_mul(37)).collect();
                let iv = vec![seed; alg.block_len()];
                let mut data = bytes.clone();
                data.truncate(bytes.len() / alg.block_len() * alg.block_len());
                let plain = data.clone();
                alg.cbc_encrypt(&key, &iv, &mut data).unwrap();
                prop_assert!(plain.is_empty() || data != plain);
                alg.cbc_decrypt(&key, &iv, &mut data).unwrap();
                prop_assert_eq!(data, plain);
            }
        }
    }
}
