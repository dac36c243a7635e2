//! Combined-mode ciphers of the IKEv2 encrypted payload (RFC 5282, RFC 7634) and AES in counter mode (RFC 5930).
//!
//! AES-128/256-GCM with the full check value and ChaCha20-Poly1305 come from `ring`. It has neither 192-bit keys nor short check
//! values, so GCM with those is put together here from the libraries' AES-CTR and GHASH.

use super::{AesKey, CipherAlg, CryptoError, Icv, ct_eq};
use aes::cipher::array::typenum::Unsigned;
use aes::cipher::{Array, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher, consts};
use ccm::aead::AeadInOut;
use ctr::{Ctr32BE, CtrCore};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use ring::aead;
use zeroize::{Zeroize, Zeroizing};

/// Length of the explicit IV of these ciphers in bytes.
const IV_LEN: usize = 8;

impl CipherAlg {
    /// Encrypts `data` in place and appends the check value ([`CipherAlg::icv_len`] bytes). `keymat` is key‖salt
    /// ([`CipherAlg::keymat_len`] bytes), `iv` the 8 bytes that go on the wire: never the same twice under one key.
    ///
    /// # Errors
    /// A length is wrong, or the cipher is no combined mode; `data` is then untouched.
    pub fn aead_seal(self, keymat: &[u8], iv: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError> {
        let (key, nonce) = self.key_and_nonce(keymat, iv)?;
        match self {
            Self::AesGcm(AesKey::Bits128, Icv::Bytes16) => ring_seal(&aead::AES_128_GCM, key, &nonce, aad, data),
            Self::AesGcm(AesKey::Bits256, Icv::Bytes16) => ring_seal(&aead::AES_256_GCM, key, &nonce, aad, data),
            Self::ChaCha20Poly1305 => ring_seal(&aead::CHACHA20_POLY1305, key, &nonce, aad, data),
            Self::AesGcm(AesKey::Bits128, icv) => gcm_seal::<aes::Aes128>(key, &nonce, aad, data, icv),
            Self::AesGcm(AesKey::Bits192, icv) => gcm_seal::<aes::Aes192>(key, &nonce, aad, data, icv),
            Self::AesGcm(AesKey::Bits256, icv) => gcm_seal::<aes::Aes256>(key, &nonce, aad, data, icv),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes8) => ccm_seal::<Ccm<aes::Aes128, consts::U8>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes12) => ccm_seal::<Ccm<aes::Aes128, consts::U12>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes16) => ccm_seal::<Ccm<aes::Aes128, consts::U16>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes8) => ccm_seal::<Ccm<aes::Aes192, consts::U8>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes12) => ccm_seal::<Ccm<aes::Aes192, consts::U12>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes16) => ccm_seal::<Ccm<aes::Aes192, consts::U16>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes8) => ccm_seal::<Ccm<aes::Aes256, consts::U8>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes12) => ccm_seal::<Ccm<aes::Aes256, consts::U12>>(key, &nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes16) => ccm_seal::<Ccm<aes::Aes256, consts::U16>>(key, &nonce, aad, data),
            Self::Des | Self::TripleDes | Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::Null | Self::AesCtr(_) => {
                Err(CryptoError::NotAead)
            }
        }
    }

    /// Verifies the check value at the end of `data`, strips it and decrypts the rest in place. Arguments as for
    /// [`CipherAlg::aead_seal`].
    ///
    /// # Errors
    /// [`CryptoError::Forged`] when the check value does not fit or is not there: `data` is then wiped and empty, so that nothing
    /// unverified can be read. Wrong lengths of key and IV leave `data` untouched.
    pub fn aead_open(self, keymat: &[u8], iv: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError> {
        let (key, nonce) = self.key_and_nonce(keymat, iv)?;
        let result = self.open(key, &nonce, aad, data);
        match result {
            Ok(plain_len) => data.truncate(plain_len),
            Err(_) => data.zeroize(),
        }
        result.map(drop)
    }

    /// Length of the plain text that now stands at the start of `data`.
    fn open(self, key: &[u8], nonce: &[u8], aad: &[u8], data: &mut [u8]) -> Result<usize, CryptoError> {
        match self {
            Self::AesGcm(AesKey::Bits128, Icv::Bytes16) => ring_open(&aead::AES_128_GCM, key, nonce, aad, data),
            Self::AesGcm(AesKey::Bits256, Icv::Bytes16) => ring_open(&aead::AES_256_GCM, key, nonce, aad, data),
            Self::ChaCha20Poly1305 => ring_open(&aead::CHACHA20_POLY1305, key, nonce, aad, data),
            Self::AesGcm(AesKey::Bits128, icv) => gcm_open::<aes::Aes128>(key, nonce, aad, data, icv),
            Self::AesGcm(AesKey::Bits192, icv) => gcm_open::<aes::Aes192>(key, nonce, aad, data, icv),
            Self::AesGcm(AesKey::Bits256, icv) => gcm_open::<aes::Aes256>(key, nonce, aad, data, icv),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes8) => ccm_open::<Ccm<aes::Aes128, consts::U8>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes12) => ccm_open::<Ccm<aes::Aes128, consts::U12>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits128, Icv::Bytes16) => ccm_open::<Ccm<aes::Aes128, consts::U16>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes8) => ccm_open::<Ccm<aes::Aes192, consts::U8>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes12) => ccm_open::<Ccm<aes::Aes192, consts::U12>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits192, Icv::Bytes16) => ccm_open::<Ccm<aes::Aes192, consts::U16>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes8) => ccm_open::<Ccm<aes::Aes256, consts::U8>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes12) => ccm_open::<Ccm<aes::Aes256, consts::U12>>(key, nonce, aad, data),
            Self::AesCcm(AesKey::Bits256, Icv::Bytes16) => ccm_open::<Ccm<aes::Aes256, consts::U16>>(key, nonce, aad, data),
            Self::Des | Self::TripleDes | Self::Aes128 | Self::Aes192 | Self::Aes256 | Self::Null | Self::AesCtr(_) => {
                Err(CryptoError::NotAead)
            }
        }
    }

    /// Encrypts or decrypts `data` in place with AES in counter mode; both are the same. `keymat` is key‖nonce
    /// ([`CipherAlg::keymat_len`] bytes), `iv` the 8 bytes of the wire: never the same twice under one key. The counter block is
    /// nonce‖IV‖1 (RFC 3686 4).
    ///
    /// # Errors
    /// A length is wrong, or the cipher is not AES-CTR; `data` is then untouched.
    pub fn ctr_apply(self, keymat: &[u8], iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
        let Self::AesCtr(bits) = self else { return Err(CryptoError::NotCtr) };
        self.check_keymat(keymat, iv)?;
        let (key, nonce) = keymat.split_at(self.key_len());
        let mut counter = Block::default();
        for (o, b) in counter.iter_mut().zip([nonce, iv, &1u32.to_be_bytes()].into_iter().flatten()) {
            *o = *b;
        }
        match bits {
            AesKey::Bits128 => key_stream(&block_cipher::<aes::Aes128>(key)?, &counter, data),
            AesKey::Bits192 => key_stream(&block_cipher::<aes::Aes192>(key)?, &counter, data),
            AesKey::Bits256 => key_stream(&block_cipher::<aes::Aes256>(key)?, &counter, data),
        }
    }

    fn check_keymat(self, keymat: &[u8], iv: &[u8]) -> Result<(), CryptoError> {
        if keymat.len() != self.keymat_len() {
            return Err(CryptoError::KeyLength { got: keymat.len(), want: self.keymat_len() });
        }
        if iv.len() != IV_LEN {
            return Err(CryptoError::IvLength { got: iv.len(), want: IV_LEN });
        }
        Ok(())
    }

    /// Key and nonce = salt‖IV.
    fn key_and_nonce<'a>(self, keymat: &'a [u8], iv: &[u8]) -> Result<(&'a [u8], Zeroizing<Vec<u8>>), CryptoError> {
        if !self.is_aead() {
            return Err(CryptoError::NotAead);
        }
        self.check_keymat(keymat, iv)?;
        let (key, salt) = keymat.split_at(self.key_len());
        Ok((key, Zeroizing::new([salt, iv].concat())))
    }
}

/// Where the check value begins.
fn plain_len(data: &[u8], icv: usize) -> Result<usize, CryptoError> {
    data.len().checked_sub(icv).ok_or(CryptoError::Forged)
}

fn ring_key(algorithm: &'static aead::Algorithm, key: &[u8], nonce: &[u8]) -> Result<(aead::LessSafeKey, aead::Nonce), CryptoError> {
    let key = aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError::Internal)?;
    let nonce = aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::Internal)?;
    Ok((aead::LessSafeKey::new(key), nonce))
}

fn ring_seal(algorithm: &'static aead::Algorithm, key: &[u8], nonce: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError> {
    let (key, nonce) = ring_key(algorithm, key, nonce)?;
    key.seal_in_place_append_tag(nonce, aead::Aad::from(aad), data).map_err(|_| CryptoError::Internal)
}

fn ring_open(algorithm: &'static aead::Algorithm, key: &[u8], nonce: &[u8], aad: &[u8], data: &mut [u8]) -> Result<usize, CryptoError> {
    let (key, nonce) = ring_key(algorithm, key, nonce)?;
    match key.open_in_place(nonce, aead::Aad::from(aad), data) {
        Ok(plain) => Ok(plain.len()),
        Err(_) => Err(CryptoError::Forged),
    }
}

/// A salt of 3 and an IV of 8 bytes leave 4 for the counter (RFC 4309 4).
type Ccm<C, Tag> = ccm::Ccm<C, Tag, consts::U11>;

fn ccm_seal<C: AeadInOut + ccm::KeyInit>(key: &[u8], nonce: &[u8], aad: &[u8], data: &mut Vec<u8>) -> Result<(), CryptoError> {
    let cipher = C::new_from_slice(key).map_err(|_| CryptoError::Internal)?;
    let nonce = nonce.try_into().map_err(|_| CryptoError::Internal)?;
    let tag = cipher.encrypt_inout_detached(nonce, aad, data.as_mut_slice().into()).map_err(|_| CryptoError::Internal)?;
    data.extend_from_slice(&tag);
    Ok(())
}

fn ccm_open<C: AeadInOut + ccm::KeyInit>(key: &[u8], nonce: &[u8], aad: &[u8], data: &mut [u8]) -> Result<usize, CryptoError> {
    let cipher = C::new_from_slice(key).map_err(|_| CryptoError::Internal)?;
    let nonce = nonce.try_into().map_err(|_| CryptoError::Internal)?;
    let len = plain_len(data, <C::TagSize as Unsigned>::USIZE)?;
    let (text, tag) = data.split_at_mut(len);
    let tag = (&*tag).try_into().map_err(|_| CryptoError::Internal)?;
    cipher.decrypt_inout_detached(nonce, aad, text.into(), tag).map_err(|_| CryptoError::Forged)?;
    Ok(len)
}

type Block = Array<u8, consts::U16>;

/// AES with a key of any length.
trait Aes: BlockCipherEncrypt + BlockSizeUser<BlockSize = consts::U16> + KeyInit {}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = consts::U16> + KeyInit> Aes for C {}

fn block_cipher<C: Aes>(key: &[u8]) -> Result<C, CryptoError> {
    C::new_from_slice(key).map_err(|_| CryptoError::Internal)
}

/// XORs the key stream that starts at `counter`; its last 32 bits count.
fn key_stream<C: Aes>(cipher: &C, counter: &Block, data: &mut [u8]) -> Result<(), CryptoError> {
    let core = CtrCore::<&C, ctr::flavors::Ctr32BE>::inner_iv_init(cipher, counter);
    // Ends only after 2^32 blocks.
    Ctr32BE::<&C>::from_core(core).try_apply_keystream(data).map_err(|_| CryptoError::DataLength { got: data.len(), block: 1 })
}

/// GCM with a nonce of 12 bytes (SP 800-38D 7), for the lengths that `ring` has not.
struct Gcm<C: Aes> {
    cipher: C,
    /// The first counter block: nonce‖1. It masks the check value; the text starts with the next.
    first: Block,
}

impl<C: Aes> Gcm<C> {
    fn new(key: &[u8], nonce: &[u8]) -> Result<Self, CryptoError> {
        let mut first = Block::default();
        for (o, b) in first.iter_mut().zip([nonce, &1u32.to_be_bytes()].into_iter().flatten()) {
            *o = *b;
        }
        Ok(Self { cipher: block_cipher(key)?, first })
    }

    fn text(&self, data: &mut [u8]) -> Result<(), CryptoError> {
        let mut counter = self.first;
        counter[15] = 2;
        key_stream(&self.cipher, &counter, data)
    }

    /// The check value over associated data and cipher text, in full length.
    fn tag(&self, aad: &[u8], sealed: &[u8]) -> Zeroizing<[u8; 16]> {
        let mut hash_key = Block::default();
        self.cipher.encrypt_block(&mut hash_key);
        let mut hash = GHash::new(&hash_key);
        hash_key.zeroize();
        hash.update_padded(aad);
        hash.update_padded(sealed);
        let bits = |len: usize| (len as u64).wrapping_mul(8).to_be_bytes();
        hash.update_padded(&[bits(aad.len()), bits(sealed.len())].concat());
        let mut mask = self.first;
        self.cipher.encrypt_block(&mut mask);
        let mut tag = Zeroizing::new([0; 16]);
        for ((o, a), b) in tag.iter_mut().zip(hash.finalize()).zip(mask) {
            *o = a ^ b;
        }
        mask.zeroize();
        tag
    }
}

fn gcm_seal<C: Aes>(key: &[u8], nonce: &[u8], aad: &[u8], data: &mut Vec<u8>, icv: Icv) -> Result<(), CryptoError> {
    let gcm = Gcm::<C>::new(key, nonce)?;
    gcm.text(data)?;
    let tag = gcm.tag(aad, data);
    data.extend(tag.iter().take(icv.len()));
    Ok(())
}

fn gcm_open<C: Aes>(key: &[u8], nonce: &[u8], aad: &[u8], data: &mut [u8], icv: Icv) -> Result<usize, CryptoError> {
    let gcm = Gcm::<C>::new(key, nonce)?;
    let len = plain_len(data, icv.len())?;
    let (text, tag) = data.split_at_mut(len);
    if !ct_eq(tag, gcm.tag(aad, text).get(..icv.len()).unwrap_or_default()) {
        return Err(CryptoError::Forged);
    }
    gcm.text(text)?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors;
    use hex_literal::hex;
    use proptest::prelude::*;

    fn combined() -> impl Iterator<Item = CipherAlg> {
        CipherAlg::every().filter(|alg| alg.is_aead())
    }

    #[track_caller]
    fn check(alg: CipherAlg, keymat: &[u8], iv: &[u8], aad: &[u8], plain: &[u8], sealed: &[u8], valid: bool) {
        let mut data = sealed.to_vec();
        if !valid {
            assert_eq!(alg.aead_open(keymat, iv, aad, &mut data), Err(CryptoError::Forged), "{}", alg.name());
            assert!(data.is_empty());
            return;
        }
        assert_eq!(alg.aead_open(keymat, iv, aad, &mut data), Ok(()), "{}", alg.name());
        assert_eq!(data, plain);
        assert_eq!(alg.aead_seal(keymat, iv, aad, &mut data), Ok(()));
        assert_eq!(data, sealed);
    }

    #[test]
    fn every_cipher_gives_the_known_answers() {
        let mut seen = std::collections::BTreeMap::new();
        for line in vectors::lines(include_str!("vectors/aead.txt")) {
            let [name, rest @ ..] = &line[..] else { panic!("{line:?}") };
            let (valid, tag) = match rest[5].strip_prefix('!') {
                Some(tag) => (false, tag),
                None => (true, rest[5]),
            };
            let fields: Vec<_> = rest[..5].iter().map(|f| vectors::hex(f)).collect();
            let [key, nonce, aad, plain, sealed] = &fields[..] else { panic!("{line:?}") };
            let alg = combined().find(|alg| alg.name() == *name).unwrap();
            let (salt, iv) = nonce.split_at(alg.salt_len());
            let tag = vectors::hex(tag);
            check(alg, &[key, salt].concat(), iv, aad, plain, &[&sealed[..], &tag].concat(), valid);
            *seen.entry(alg).or_insert(0) += 1;
            // SP 800-38D 7.1 cuts the full check value; our own GCM must agree with ring's where both exist.
            if let (CipherAlg::AesGcm(bits, _), true) = (alg, valid) {
                for icv in [Icv::Bytes8, Icv::Bytes12] {
                    let alg = CipherAlg::AesGcm(bits, icv);
                    check(alg, &[key, salt].concat(), iv, aad, plain, &[&sealed[..], &tag[..icv.len()]].concat(), true);
                    *seen.entry(alg).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(seen.len(), 19, "{seen:?}");
        assert!(seen.values().all(|&n| n >= 5), "{seen:?}");
    }

    #[test]
    fn chacha_gives_the_answers_of_rfc_7634_appendix_b() {
        let keymat = hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3");
        check(
            CipherAlg::ChaCha20Poly1305,
            &keymat,
            &hex!("1011121314151617"),
            &hex!("c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e202500000000090000004529000029"),
            &hex!("0000000c000040010000000a00"),
            &hex!("610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2"),
            true,
        );
    }

    #[test]
    fn counter_mode_gives_the_answers_of_rfc_3686() {
        let count: Vec<u8> = (0..36).collect();
        // Key, keying material, IV, plain text, sealed.
        type Case<'a> = (AesKey, &'a [u8], &'a [u8], &'a [u8], &'a [u8]);
        let cases: [Case; 6] = [
            (
                AesKey::Bits128,
                &hex!("ae6852f8121067cc4bf7a5765577f39e 00000030"),
                &hex!("0000000000000000"),
                b"Single block msg",
                &hex!("e4095d4fb7a7b3792d6175a3261311b8"),
            ),
            (
                AesKey::Bits128,
                &hex!("7691be035e5020a8ac6e618529f9a0dc 00e0017b"),
                &hex!("27777f3f4a1786f0"),
                &count,
                &hex!("c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f"),
            ),
            (
                AesKey::Bits192,
                &hex!("16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515 00000048"),
                &hex!("36733c147d6d93cb"),
                b"Single block msg",
                &hex!("4b55384fe259c9c84e7935a003cbe928"),
            ),
            (
                AesKey::Bits192,
                &hex!("02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe 0007bdfd"),
                &hex!("5cbd60278dcc0912"),
                &count,
                &hex!("96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935"),
            ),
            (
                AesKey::Bits256,
                &hex!("776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104 00000060"),
                &hex!("db5672c97aa8f0b2"),
                b"Single block msg",
                &hex!("145ad01dbf824ec7560863dc71e3e0c0"),
            ),
            (
                AesKey::Bits256,
                &hex!("ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d 001cc5b7"),
                &hex!("51a51d70a1c11148"),
                &count,
                &hex!("eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8"),
            ),
        ];
        for (bits, keymat, iv, plain, sealed) in cases {
            let mut data = plain.to_vec();
            CipherAlg::AesCtr(bits).ctr_apply(keymat, iv, &mut data).unwrap();
            assert_eq!(data, sealed);
            CipherAlg::AesCtr(bits).ctr_apply(keymat, iv, &mut data).unwrap();
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn wrong_lengths_and_modes_are_errors_and_leave_the_data() {
        for alg in CipherAlg::every() {
            let (keymat, iv) = (vec![7; alg.keymat_len()], vec![9; 8]);
            let mut data = vec![1; 40];
            if alg.is_aead() {
                let bad_key = Err(CryptoError::KeyLength { got: keymat.len() - 1, want: keymat.len() });
                assert_eq!(alg.aead_seal(&keymat[1..], &iv, &[], &mut data), bad_key);
                assert_eq!(alg.aead_open(&keymat[1..], &iv, &[], &mut data), bad_key);
                let bad_iv = Err(CryptoError::IvLength { got: 7, want: 8 });
                assert_eq!(alg.aead_seal(&keymat, &iv[1..], &[], &mut data), bad_iv);
                assert_eq!(alg.aead_open(&keymat, &iv[1..], &[], &mut data), bad_iv);
                let mut short = vec![1; alg.icv_len() - 1];
                assert_eq!(alg.aead_open(&keymat, &iv, &[], &mut short), Err(CryptoError::Forged));
            } else {
                assert_eq!(alg.aead_seal(&keymat, &iv, &[], &mut data), Err(CryptoError::NotAead));
                assert_eq!(alg.aead_open(&keymat, &iv, &[], &mut data), Err(CryptoError::NotAead));
            }
            if matches!(alg, CipherAlg::AesCtr(_)) {
                let bad_key = Err(CryptoError::KeyLength { got: keymat.len() - 1, want: keymat.len() });
                assert_eq!(alg.ctr_apply(&keymat[1..], &iv, &mut data), bad_key);
                assert_eq!(alg.ctr_apply(&keymat, &[0; 16], &mut data), Err(CryptoError::IvLength { got: 16, want: 8 }));
            } else {
                assert_eq!(alg.ctr_apply(&keymat, &iv, &mut data), Err(CryptoError::NotCtr));
            }
            assert_eq!(data, [1; 40], "{}", alg.name());
        }
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        for alg in combined() {
            let (keymat, iv) = (vec![7; alg.keymat_len()], [9; 8]);
            let mut sealed = b"text".to_vec();
            alg.aead_seal(&keymat, &iv, b"head", &mut sealed).unwrap();
            assert_eq!(sealed.len(), 4 + alg.icv_len());
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                check(alg, &keymat, &iv, b"head", &[], &bad, false);
            }
            check(alg, &keymat, &iv, b"Head", &[], &sealed, false);
            check(alg, &keymat, &[8; 8], b"head", &[], &sealed, false);
            // The salt is part of the nonce.
            let mut other = keymat.clone();
            *other.last_mut().unwrap() ^= 1;
            check(alg, &other, &iv, b"head", &[], &sealed, false);
            check(alg, &keymat, &iv, b"head", b"text", &sealed, true);
        }
    }

    proptest! {
        #[test]
        fn opening_undoes_sealing(plain in proptest::collection::vec(any::<u8>(), 0..300),
                                  aad in proptest::collection::vec(any::<u8>(), 0..80), iv in any::<[u8; 8]>(), seed in any::<u8>()) {
            for alg in combined() {
                let keymat: Vec<u8> = (0..alg.keymat_len()).map(|i| seed.wrapping_add(i as u8).wrapping_mul(37)).collect();
                let mut data = plain.clone();
                alg.aead_seal(&keymat, &iv, &aad, &mut data).unwrap();
                prop_assert_eq!(data.len(), plain.len() + alg.icv_len());
                alg.aead_open(&keymat, &iv, &aad, &mut data).unwrap();
                prop_assert_eq!(&data, &plain);
            }
        }
    }
}
