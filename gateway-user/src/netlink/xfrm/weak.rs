//! DES keys that must not be used (RFC 2409 appendix A, RFC 2451 2.2).

use crate::crypto::CipherAlg;

/// True for a DES key (8 bytes) that is weak or semi-weak, whatever its parity bits.
pub(super) fn des(key: &[u8]) -> bool {
    CipherAlg::Des.is_weak_key(key)
}

/// True for a Triple-DES key (24 bytes) that degenerates to single DES (K1 = K2 or K2 = K3) or has a weak third.
pub(super) fn triple_des(key: &[u8]) -> bool {
    CipherAlg::TripleDes.is_weak_key(key) || key.chunks(8).any(des)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::cipher::DES_WEAK as WEAK;

    #[test]
    fn weak_keys_are_found_with_any_parity() {
        assert!(WEAK.iter().all(|k| des(k)));
        assert!(des(&[0; 8]), "0101… with even parity");
        assert!(!des(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]));
    }

    #[test]
    fn degenerate_triple_des_is_found() {
        let (a, b, c) = ([0x13u8; 8], [0x57u8; 8], [0x9bu8; 8]);
        let key = |k: [[u8; 8]; 3]| k.concat();
        assert!(!triple_des(&key([a, b, c])));
        assert!(!triple_des(&key([a, b, a])), "two-key Triple-DES is allowed");
        assert!(triple_des(&key([a, a, b])));
        assert!(triple_des(&key([b, a, a])));
        assert!(triple_des(&key([a, b, [0xfe; 8]])));
    }
}
