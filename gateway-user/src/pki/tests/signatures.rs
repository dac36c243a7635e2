//! Signatures: what we sign openssl's rules accept, and nothing else passes.

use crate::pki::testdata::{NOW, chain, credential, trust};
use crate::pki::{PeerCertificate, PkiError, SignatureAlg};
use crate::rng::Seeded;
use SignatureAlg as A;

const KINDS: [&str; 5] = ["ecdsa", "p384", "p521", "ed25519", "rsa"];
const MESSAGE: &[u8] = b"the octets of RFC 7296 2.15";

fn peer(name: &str) -> PeerCertificate {
    trust().check(&chain(&[&format!("{name}.crt")]), NOW).unwrap()
}

#[test]
fn every_algorithm_of_every_key_verifies_and_no_other_does() {
    for kind in KINDS {
        let (own, peer) = (credential(kind), peer(kind));
        let algorithms = own.algorithms(&A::HASH_IDS);
        assert!(!algorithms.is_empty());
        for alg in A::ALL {
            if !algorithms.contains(&alg) && alg != A::RsaPkcs1Sha1 {
                assert_eq!(own.sign(alg, MESSAGE, &mut Seeded::new(1)).unwrap_err(), PkiError::Algorithm, "{kind} {alg:?}");
                continue;
            }
            if alg == A::RsaPkcs1Sha1 {
                continue;
            }
            let signature = own.sign(alg, MESSAGE, &mut Seeded::new(1)).unwrap();
            assert_eq!(peer.verify(alg, MESSAGE, &signature), Ok(()), "{kind} {alg:?}");
            assert_eq!(peer.verify(alg, b"other", &signature), Err(PkiError::Signature), "{kind} {alg:?}");
            for other in A::ALL.into_iter().filter(|other| *other != alg) {
                assert!(peer.verify(other, MESSAGE, &signature).is_err(), "{kind} {alg:?} as {other:?}");
            }
        }
    }
}

#[test]
fn the_peer_s_hashes_choose_the_algorithm() {
    let best = |kind, hashes: &[u16]| credential(kind).algorithms(hashes).first().copied();
    assert_eq!(best("rsa", &[1, 2, 3, 4]), Some(A::RsaPssSha256));
    assert_eq!(best("rsa", &[4]), Some(A::RsaPssSha512));
    assert_eq!(best("ecdsa", &[2, 3, 4, 5]), Some(A::EcdsaSha256));
    assert_eq!(best("p384", &[2, 3, 4]), Some(A::EcdsaSha384));
    assert_eq!(best("p521", &[2, 3, 4]), Some(A::EcdsaSha512));
    assert_eq!(best("p521", &[2]), Some(A::EcdsaSha256));
    assert_eq!(best("ed25519", &[2, 3, 4]), None);
    assert_eq!(best("ed25519", &[5]), Some(A::Ed25519));
    for kind in KINDS {
        assert_eq!(best(kind, &[1]), None, "SHA-1 alone, {kind}");
        assert_eq!(best(kind, &[]), None);
    }
}

#[test]
fn methods_without_a_name_work_with_their_own_form() {
    for (kind, method, len) in [("rsa", 1, 256), ("ecdsa", 9, 64), ("p384", 10, 96), ("p521", 11, 132)] {
        let (own, peer) = (credential(kind), peer(kind));
        assert_eq!(own.legacy_method(), Some(method));
        let signature = own.sign_legacy(MESSAGE, &mut Seeded::new(2)).unwrap();
        assert_eq!(signature.len(), len, "{kind}");
        assert_eq!(peer.verify_legacy(method, MESSAGE, &signature), Ok(()), "{kind}");
        assert_eq!(peer.verify_legacy(method, b"other", &signature), Err(PkiError::Signature), "{kind}");
        assert!(peer.verify_legacy(method, MESSAGE, &signature[1..]).is_err(), "{kind}");
        for other in (0..=255).filter(|m| *m != method) {
            assert_eq!(peer.verify_legacy(other, MESSAGE, &signature), Err(PkiError::Algorithm), "{kind} {other}");
        }
        // The form of method 14 is another one, except for RSA.
        if kind != "rsa" {
            let alg = A::from_legacy_method(method).unwrap();
            assert_eq!(peer.verify(alg, MESSAGE, &signature), Err(PkiError::Signature), "{kind}");
            let der = own.sign(alg, MESSAGE, &mut Seeded::new(2)).unwrap();
            assert_eq!(peer.verify_legacy(method, MESSAGE, &der), Err(PkiError::Signature), "{kind}");
        }
    }
    assert_eq!(credential("ed25519").legacy_method(), None);
    assert_eq!(credential("ed25519").sign_legacy(MESSAGE, &mut Seeded::new(2)), Err(PkiError::Algorithm));
}

#[test]
fn sha_1_counts_with_method_1_only() {
    let own = credential("rsa");
    let signature = own.sign_legacy(MESSAGE, &mut Seeded::new(3)).unwrap();
    assert_eq!(peer("rsa").verify(A::RsaPkcs1Sha1, MESSAGE, &signature), Err(PkiError::Algorithm));
}

#[test]
fn randomness_comes_from_the_argument() {
    for kind in KINDS {
        let own = credential(kind);
        let alg = own.algorithms(&A::HASH_IDS)[0];
        let sign = |seed| own.sign(alg, MESSAGE, &mut Seeded::new(seed)).unwrap();
        assert_eq!(sign(5), sign(5), "{kind}");
        assert_eq!(sign(5) == sign(6), kind == "ed25519", "{kind}");
    }
}

#[test]
fn no_flipped_bit_verifies() {
    for kind in KINDS {
        let (own, peer) = (credential(kind), peer(kind));
        let alg = own.algorithms(&A::HASH_IDS)[0];
        let signature = own.sign(alg, MESSAGE, &mut Seeded::new(4)).unwrap();
        for at in 0..signature.len() {
            let mut bad = signature.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(peer.verify(alg, MESSAGE, &bad), Err(PkiError::Signature), "{kind} byte {at}");
            assert_eq!(peer.verify(alg, MESSAGE, &signature[..at]), Err(PkiError::Signature), "{kind} cut at {at}");
        }
        for bad in [[&signature[..], &[0]].concat(), [&[0], &signature[..]].concat(), vec![0; signature.len()], vec![0xff; 9000]] {
            assert_eq!(peer.verify(alg, MESSAGE, &bad), Err(PkiError::Signature), "{kind}");
        }
    }
}

#[test]
fn ikev1_signatures_hold_the_hash_alone() {
    let (own, peer) = (credential("rsa"), peer("rsa"));
    for len in [16, 20, 32, 48, 64] {
        let hash = vec![0x5a; len];
        let signature = own.sign_ikev1(&hash, &mut Seeded::new(1)).unwrap();
        assert_eq!(signature.len(), 256);
        assert_eq!(signature, own.sign_ikev1(&hash, &mut Seeded::new(99)).unwrap(), "blinding does not show");
        assert_eq!(peer.verify_ikev1(&hash, &signature), Ok(()));
        assert_eq!(peer.verify_ikev1(&vec![0x5b; len], &signature), Err(PkiError::Signature));
        assert_eq!(peer.verify_ikev1(&hash[1..], &signature), Err(PkiError::Signature));
    }
    // No hash is that long.
    for len in [0, 15, 21, 65] {
        assert_eq!(own.sign_ikev1(&vec![0; len], &mut Seeded::new(1)), Err(PkiError::Sign));
    }
    for kind in ["ecdsa", "ed25519"] {
        assert!(!credential(kind).signs_ikev1());
        assert_eq!(credential(kind).sign_ikev1(&[0; 20], &mut Seeded::new(1)), Err(PkiError::Algorithm));
        assert_eq!(self::peer(kind).verify_ikev1(&[0; 20], &[0; 64]), Err(PkiError::Algorithm));
    }
}
