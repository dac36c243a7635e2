//! Known answers and hostile values from `vectors/`, for every group that has them.

use super::*;
use crate::crypto::{HashAlg, vectors};
use crate::rng::Seeded;
use hex_literal::hex;
use std::collections::BTreeMap;

/// The biggest groups take long without optimisation, and run the same code as the others.
fn quick(group: &DhGroup) -> bool {
    !matches!(group, DhGroup::Modp6144 | DhGroup::Modp8192)
}

#[test]
fn curves_give_wycheproof_s_answers_and_refuse_points_off_the_curve() {
    let mut seen = BTreeMap::new();
    for line in vectors::lines(include_str!("../vectors/dh.txt")) {
        let [name, private, public, answer] = line[..] else { panic!("{line:?}") };
        let group = DhGroup::ALL.into_iter().find(|g| g.name() == name).unwrap();
        let got = DhSecret::from_bytes(group, &vectors::hex(private)).shared(&vectors::hex(public));
        match answer {
            "!" => assert_eq!(got.unwrap_err(), CryptoError::PublicInvalid, "{line:?}"),
            answer => assert_eq!(got.unwrap().expose(), vectors::hex(answer), "{line:?}"),
        }
        *seen.entry((name, answer == "!")).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    assert!(seen.values().all(|&n| n >= 8), "{seen:?}");
}

#[test]
fn ml_kem_gives_wycheproof_s_answers_and_refuses_keys_above_the_modulus() {
    let mut seen = BTreeMap::new();
    for line in vectors::lines(include_str!("../vectors/mlkem768.txt")) {
        match line[..] {
            ["encapsulate", m, key, ciphertext, shared] => {
                let secret = DhSecret::from_bytes(DhGroup::MlKem768, &[vec![0; 64], vectors::hex(m)].concat());
                let got = secret.respond(&vectors::hex(key));
                if shared == "!" {
                    assert_eq!(got.unwrap_err(), CryptoError::PublicInvalid);
                } else {
                    let (value, key) = got.unwrap();
                    assert_eq!(HashAlg::Sha256.digest(&[&value]), vectors::hex(ciphertext));
                    assert_eq!(key.expose(), vectors::hex(shared));
                }
                *seen.entry(if shared == "!" { "refused" } else { "encapsulated" }).or_insert(0) += 1;
            }
            ["decapsulate", seed, key, ciphertext, shared] => {
                let secret = DhSecret::from_bytes(DhGroup::MlKem768, &[vectors::hex(seed), vec![0; 32]].concat());
                assert_eq!(HashAlg::Sha256.digest(&[&secret.public().unwrap()]), vectors::hex(key));
                assert_eq!(secret.shared(&vectors::hex(ciphertext)).unwrap().expose(), vectors::hex(shared));
                *seen.entry("decapsulated").or_insert(0) += 1;
            }
            _ => panic!("{line:?}"),
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [("decapsulated", 15), ("encapsulated", 15), ("refused", 6)]);
}

#[test]
fn a_changed_ciphertext_gives_another_secret() {
    let (a, b) = (DhGroup::MlKem768.generate(&mut Seeded::new(1)), DhGroup::MlKem768.generate(&mut Seeded::new(2)));
    let (mut ciphertext, key) = b.respond(&a.public().unwrap()).unwrap();
    assert_eq!(a.shared(&ciphertext).unwrap(), key);
    ciphertext[1087] ^= 1;
    let other = a.shared(&ciphertext).unwrap();
    assert_ne!(other, key);
    // Implicit rejection answers the same each time (FIPS 203 7.3).
    assert_eq!(a.shared(&ciphertext).unwrap(), other);
}

#[test]
fn both_sides_of_rfc_5903_and_rfc_8031_agree() {
    // The responder's view; the start test runs the initiator's.
    let public = |group, private: &[u8]| DhSecret::from_bytes(group, private).public().unwrap();
    assert_eq!(
        public(DhGroup::Ecp256, &hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53")),
        hex!(
            "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
             56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
        )
    );
    assert_eq!(
        public(DhGroup::Ecp384, &hex!("41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc")),
        hex!(
            "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571
             dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"
        )
    );
    assert_eq!(
        public(
            DhGroup::Ecp521,
            &hex!(
                "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e9c677d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f
                 5cb151685eb9"
            )
        ),
        hex!(
            "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171
             640012d9460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f47
             32296579ab44fcd17f0fc56a"
        )
    );
    assert_eq!(
        public(DhGroup::X25519, &hex!("0a54645253290d60ddadd0e030bacd9e5501efdc220755a1e978f1b839a05688")),
        hex!("0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25")
    );
}

#[test]
fn a_coordinate_at_or_above_the_prime_is_refused() {
    let secret = DhSecret::from_bytes(DhGroup::Ecp256, &hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"));
    // x = p is 0 modulo p, and (0, sqrt(b)) is on the curve: only the range check refuses it.
    let p = hex!("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    let y = hex!("66485c780e2f83d72433bd5d84a06bb6541c2af31dae871728bf856a174f93f4");
    assert!(secret.shared(&[[0; 32], y].concat()).is_ok());
    assert_eq!(secret.shared(&[p, y].concat()).unwrap_err(), CryptoError::PublicInvalid);
    for group in [DhGroup::Ecp256, DhGroup::Ecp384, DhGroup::Ecp521] {
        let secret = group.generate(&mut Seeded::new(3));
        assert_eq!(secret.shared(&vec![0; group.public_len()]).unwrap_err(), CryptoError::PublicInvalid);
        assert_eq!(secret.shared(&vec![0xff; group.public_len()]).unwrap_err(), CryptoError::PublicInvalid);
    }
}

#[test]
fn a_generator_that_is_stuck_still_gives_a_secret_that_works() {
    struct Stuck(u8);
    impl Random for Stuck {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }
    for group in DhGroup::ALL.into_iter().filter(quick) {
        for byte in [0, 0xff] {
            let (a, b) = (group.generate(&mut Stuck(byte)), group.generate(&mut Seeded::new(4)));
            let (value, key) = b.respond(&a.public().unwrap()).unwrap();
            assert_eq!(a.shared(&value).unwrap(), key, "{} {byte}", group.name());
        }
    }
}

#[test]
fn both_sides_reach_the_same_secret_in_every_group() {
    let mut rng = Seeded::new(7);
    for group in DhGroup::ALL {
        let (a, b) = (group.generate(&mut rng), group.generate(&mut rng));
        let ya = a.public().unwrap();
        assert_eq!(ya.len(), group.public_len());
        let (yb, kb) = b.respond(&ya).unwrap();
        assert_eq!(yb.len(), group.response_len());
        assert_ne!(ya, yb);
        let ka = a.shared(&yb).unwrap();
        assert_eq!(ka, kb, "{}", group.name());
        let want = match group {
            DhGroup::Ecp256 | DhGroup::Ecp384 | DhGroup::Ecp521 => group.public_len() / 2,
            DhGroup::MlKem768 => 32,
            _ => group.public_len(),
        };
        assert_eq!(ka.len(), want);
        if !group.is_kem() {
            assert_eq!(b.public().unwrap(), yb);
            assert_eq!(b.shared(&ya).unwrap(), kb);
        }
    }
}

#[test]
fn a_public_value_of_the_wrong_length_is_refused() {
    let mut rng = Seeded::new(8);
    for group in DhGroup::ALL {
        let secret = group.generate(&mut rng);
        let want = group.response_len();
        for got in [0, 1, want - 1, want + 1] {
            assert_eq!(secret.shared(&vec![2; got]).unwrap_err(), CryptoError::PublicLength { got, want });
        }
        let want = group.public_len();
        for got in [0, 1, want - 1, want + 1] {
            assert_eq!(secret.respond(&vec![2; got]).unwrap_err(), CryptoError::PublicLength { got, want });
        }
    }
}

#[test]
fn the_secret_travels_between_threads_and_prints_only_its_group() {
    fn travels<T: Send>(_: &T) {}
    let secret = DhGroup::Modp2048.generate(&mut Seeded::new(1));
    travels(&secret);
    assert_eq!(format!("{secret:?}"), "DhSecret(modp2048)");
}

#[test]
fn a_seed_reproduces_the_exchange() {
    for group in DhGroup::ALL.into_iter().filter(quick) {
        let public = |seed| group.generate(&mut Seeded::new(seed)).public().unwrap();
        assert_eq!(public(3), public(3));
        assert_ne!(public(3), public(4));
    }
    // A KEM's answer too.
    let key = DhGroup::MlKem768.generate(&mut Seeded::new(5)).public().unwrap();
    let answer = |seed| DhGroup::MlKem768.generate(&mut Seeded::new(seed)).respond(&key).unwrap();
    assert_eq!(answer(3), answer(3));
    assert_ne!(answer(3).0, answer(4).0);
    assert_ne!(answer(3).1, answer(4).1);
}
