//! Known answers at start-up: an algorithm that fails here must not be offered to any peer.

use super::{CipherAlg, DhGroup, DhSecret, HashAlg, ct_eq};
use hex_literal::hex;

/// Runs one known answer per algorithm: name ([`HashAlg::name`], `hmac-` and that name, [`CipherAlg::name`],
/// [`DhGroup::name`]) and whether it passed. A few milliseconds in all.
#[must_use]
pub fn self_test() -> Vec<(&'static str, bool)> {
    let mut results = Vec::new();
    for alg in HashAlg::ALL {
        let (name, digest, hmac) = hash_answers(alg);
        results.push((alg.name(), alg.digest(&[b"a", b"bc"]) == digest));
        results.push((name, alg.hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]) == hmac));
    }
    results.extend(CipherAlg::ALL.map(|alg| (alg.name(), cipher_passes(alg))));
    results.extend(DhGroup::ALL.map(|group| (group.name(), dh_passes(group))));
    results
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

fn cipher_passes(alg: CipherAlg) -> bool {
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
        // Nothing to test: the kernel does it.
        CipherAlg::Null => return true,
        CipherAlg::AesCtr(_) | CipherAlg::AesGcm(..) | CipherAlg::AesCcm(..) | CipherAlg::ChaCha20Poly1305 => return false,
    };
    let mut data = plain.to_vec();
    alg.cbc_encrypt(key, iv, &mut data).is_ok() && data == sealed && alg.cbc_decrypt(key, iv, &mut data).is_ok() && data == plain
}

fn dh_passes(group: DhGroup) -> bool {
    match group {
        // SHA-256 of g^x and of g^xy, computed independently. The exponents are short to keep the start quick; the loop is
        // the same.
        DhGroup::Modp768 => modp_passes(
            group,
            hex!("af26ee4b650c01c8fbbf391da4445e16773ce5953140b0a6a14a8b3292bb7b18"),
            hex!("0fd676a0daa88ccbe5708274febd3fe6d2266ae0a21bd9ce28683bd91bb0becb"),
        ),
        DhGroup::Modp1024 => modp_passes(
            group,
            hex!("0593d09449218ee48a2635a83bfcc2be309afa87d1f3ae6478a95dd7c0400081"),
            hex!("5b34b30baf210100b58dc49d1fc02c9e5878d0a1a62ad1b472fecc14a56d7106"),
        ),
        DhGroup::Modp1536 => modp_passes(
            group,
            hex!("5db820b442226d7f8904449ca016edf1fc8b8262bed66ddf854714e02a051386"),
            hex!("b1fc92fb8987bfcfe35f791a5a1bc9f8149a3b5c54a0f0de91361535ec245f44"),
        ),
        DhGroup::Modp2048 => modp_passes(
            group,
            hex!("25346730bf4bb11ee07b90132902dd6d6896cb68ecde0fa5cbf641ed33a0fdf7"),
            hex!("2614a6fd4f3f299de9fe237d830de5ada61f4508e7153ae918f16aa59e5c2567"),
        ),
        DhGroup::Modp3072 => modp_passes(
            group,
            hex!("2603ceaadf818f7c096384e8f05c95db960fd659abbdb475dd77cdbde09bf778"),
            hex!("66f2037a1953c4a7f3ac39e4edf428e1d3e48b81529f7aca0010966fd1a05383"),
        ),
        DhGroup::Modp4096 => modp_passes(
            group,
            hex!("afb04b9a02761b88fe3028a3c65ef774a6c90afcdce8397cff411b7b27fa210a"),
            hex!("e50a76ffcca1c14bf46e47d2d695df203445fd7eeba2d64d3ea36a2e49702832"),
        ),
        // RFC 5903 8.1 and 8.2
        DhGroup::Modp6144 | DhGroup::Modp8192 | DhGroup::Ecp521 | DhGroup::X25519 | DhGroup::MlKem768 => false,
        DhGroup::Ecp256 => ecp_passes(
            group,
            &hex!("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"),
            &hex!(
                "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c37725811805271a0461cdb8252d61f1c456fa3e59a
                 b1f45b33accf5f58389e0577b8990bb3"
            ),
            &hex!(
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157854c13c58d6a
                 ac23f046ada30f8353e74f33039872ab"
            ),
            &hex!("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de"),
        ),
        DhGroup::Ecp384 => ecp_passes(
            group,
            &hex!("099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194"),
            &hex!(
                "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa
                 9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c"
            ),
            &hex!(
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571
                 dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"
            ),
            &hex!("11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746"),
        ),
    }
}

fn modp_passes(group: DhGroup, public: [u8; 32], shared: [u8; 32]) -> bool {
    let x = DhSecret::from_bytes(group, &hex!("c3a5c85c97cb3127"));
    let y = DhSecret::from_bytes(group, &hex!("9ae16a3b2f90404f"));
    let (Ok(gx), Ok(gy)) = (x.public(), y.public()) else { return false };
    let Ok(gxy) = x.shared(&gy) else { return false };
    ct_eq(&HashAlg::Sha256.digest(&[&gx]), &public) && ct_eq(&HashAlg::Sha256.digest(&[gxy.expose()]), &shared)
}

fn ecp_passes(group: DhGroup, i: &[u8], gi: &[u8], gr: &[u8], x: &[u8]) -> bool {
    let secret = DhSecret::from_bytes(group, i);
    secret.public().is_ok_and(|public| public == gi) && secret.shared(gr).is_ok_and(|shared| ct_eq(shared.expose(), x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::CryptoError;

    #[test]
    fn every_algorithm_passes_its_own_start_test() {
        let results = self_test();
        assert_eq!(results.len(), 5 + 5 + 5 + 8);
        let failed: Vec<_> = results.iter().filter(|(_, passed)| !passed).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let mut names: Vec<_> = results.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), results.len(), "a name stands for one algorithm");
    }

    #[test]
    fn a_wrong_answer_fails_the_start_test() {
        assert!(!modp_passes(DhGroup::Modp768, [0; 32], [0; 32]));
        assert!(!ecp_passes(DhGroup::Ecp256, &[1; 32], &[0; 64], &[0; 64], &[]));
    }

    /// Number, private, x‖y, shared (none: must be refused).
    type Wycheproof = (u32, [u8; 32], [u8; 64], Option<[u8; 32]>);

    /// Wycheproof `ecdh_secp256r1_ecpoint_test.json`, a choice.
    const WYCHEPROOF: [Wycheproof; 14] = [
        (
            1,
            hex!("0612465c89a023ab17855b0a6bcebfd3febb53aef84138647b5352e02c10c346"),
            hex!(
                "62d5bd3372af75fe85a040715d0f502428e07046868b0bfdfa61d731afe44f26
                 ac333a93a9e70a81cd5a95b5bf8d13990eb741c8c38872b4a07d275a014e30cf"
            ),
            Some(hex!("53020d908b0219328b658b525f26780e3ae12bcd952bb25a93bc0895e1714285")),
        ),
        (
            3,
            hex!("0a0d622a47e48f6bc1038ace438c6f528aa00ad2bd1da5f13ee46bf5f633d71a"),
            hex!(
                "58fd4168a87795603e2b04390285bdca6e57de6027fe211dd9d25e2212d29e62
                 080d36bd224d7405509295eed02a17150e03b314f96da37445b0d1d29377d12c"
            ),
            Some(hex!("0000000000000000000000000000000000000000000000000000000000000000")),
        ),
        (
            4,
            hex!("0a0d622a47e48f6bc1038ace438c6f528aa00ad2bd1da5f13ee46bf5f633d71a"),
            hex!(
                "a1ecc24bf0d0053d23f5fd80ddf1735a1925039dc1176c581a7e795163c8b9ba
                 2cb5a4e4d5109f4527575e3137b83d79a9bcb3faeff90d2aca2bed71bb523e7e"
            ),
            Some(hex!("ffffffff00000001000000000000000000000000fffffffffffffffffffffffc")),
        ),
        (
            48,
            hex!("55d55f11bb8da1ea318bca7266f0376662441ea87270aa2077f1b770c4854a48"),
            hex!(
                "7fffffffffffffffffffffffeecf2230ffffffffffffffffffffffffffffffff
                 00000001c7c30643abed0af0a49fe352cb483ff9b97dccdf427c658e8793240d"
            ),
            Some(hex!("6fd26661851a8de3c6d06f834ef3acb8f2a5f9c136a985ffe10d5eeb51edcfa3")),
        ),
        (
            49,
            hex!("55d55f11bb8da1ea318bca7266f0376662441ea87270aa2077f1b770c4854a48"),
            hex!(
                "000000000000000000000000111124f400000000000000000000000000000000
                 0000000d12d381b0760b1c50be8acf859385052c7f53cde67ce13759de3123a0"
            ),
            Some(hex!("f1f0e43b374feb7e7f96d4ffe7519fa8bb6c3cfd25f6f87dab2623d2a2d33851")),
        ),
        (
            111,
            hex!("e461c5b5e63d75b4c8c123bf8b9cd45e712af08f7e2e494a8f255ac9d80e058b"),
            hex!(
                "851eb1b8699d1cc01c6b6048139797dab3981c924f9ef81bd1f464c3182c8709
                 01285b2ae7cbcabfd5bccb9441eb3376b491595f60a1ec21dbe9f972bc32abbe"
            ),
            Some(hex!("6d03fef6b354840f4642fba1c8fce9f7d1cda8ae27b6ca01510fb44573fdaffb")),
        ),
        (
            315,
            hex!("0000000000000000000000000000000000000000000000000000000000000003"),
            hex!(
                "31028f3377fc8f2b1967edaab90213acad0da9f50897f08f57537f78f1167447
                 43a1930189363bbde2ac4cbd1649cdc6f451add71dd2f16a8a867f2b17caa16b"
            ),
            Some(hex!("85a0b58519b28e70a694ec5198f72c4bfdabaa30a70f7143b5b1cd7536f716ca")),
        ),
        (
            330,
            hex!("2a265f8bcbdcaf94d58519141e578124cb40d64a501fba9c11847b28965bc737"),
            hex!(
                "023819813ac969847059028ea88a1f30dfbcde03fc791d3a252c6b41211882ea
                 f93e4ae433cc12cf2a43fc0ef26400c0e125508224cdb649380f25479148a4ad"
            ),
            Some(hex!("4d4de80f1534850d261075997e3049321a0864082d24a917863366c0724f5ae3")),
        ),
        (
            331,
            hex!("313f72ff9fe811bf573176231b286a3bdb6f1b14e05c40146590727a71c3bccd"),
            hex!(
                "cc11887b2d66cbae8f4d306627192522932146b42f01d3c6f92bd5c8ba739b06
                 a2f08a029cd06b46183085bae9248b0ed15b70280c7ef13a457f5af382426031"
            ),
            Some(hex!("831c3f6b5f762d2f461901577af41354ac5f228c2591f84f8a6e51e2e3f17991")),
        ),
        (
            332,
            hex!("7e4aa54f714bf01df85c50269bea3a86721f84afe74f7b41ea58abcf3474e88d"),
            hex!(
                "0000000000000000000000000000000000000000000000000000000000000000
                 0000000000000000000000000000000000000000000000000000000000000000"
            ),
            None,
        ),
        (
            333,
            hex!("7e4aa54f714bf01df85c50269bea3a86721f84afe74f7b41ea58abcf3474e88d"),
            hex!(
                "0000000000000000000000000000000000000000000000000000000000000000
                 0000000000000000000000000000000000000000000000000000000000000001"
            ),
            None,
        ),
        (
            345,
            hex!("7e4aa54f714bf01df85c50269bea3a86721f84afe74f7b41ea58abcf3474e88d"),
            hex!(
                "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff
                 0000000000000000000000000000000000000000000000000000000000000001"
            ),
            None,
        ),
        (
            346,
            hex!("7e4aa54f714bf01df85c50269bea3a86721f84afe74f7b41ea58abcf3474e88d"),
            hex!(
                "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff
                 ffffffff00000001000000000000000000000000fffffffffffffffffffffffe"
            ),
            None,
        ),
        (
            347,
            hex!("7e4aa54f714bf01df85c50269bea3a86721f84afe74f7b41ea58abcf3474e88d"),
            hex!(
                "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff
                 ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
            ),
            None,
        ),
    ];

    #[test]
    fn p256_gives_wycheproof_s_answers_and_refuses_points_off_the_curve() {
        for (id, private, public, answer) in WYCHEPROOF {
            let got = DhSecret::from_bytes(DhGroup::Ecp256, &private).shared(&public);
            match answer {
                Some(answer) => assert_eq!(got.unwrap().expose(), answer, "case {id}"),
                None => assert_eq!(got.unwrap_err(), CryptoError::PublicInvalid, "case {id}"),
            }
        }
    }

    #[test]
    fn both_sides_of_rfc_5903_agree() {
        // The responder's view; the start test runs the initiator's.
        let r = DhSecret::from_bytes(DhGroup::Ecp256, &hex!("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"));
        assert_eq!(
            r.public().unwrap(),
            hex!(
                "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63
                 56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
            )
        );
        let r = DhSecret::from_bytes(
            DhGroup::Ecp384,
            &hex!("41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc"),
        );
        assert_eq!(
            r.public().unwrap(),
            hex!(
                "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571
                 dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c"
            )
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
        assert_eq!(secret.shared(&[0; 64]).unwrap_err(), CryptoError::PublicInvalid);
        assert_eq!(secret.shared(&[0xff; 64]).unwrap_err(), CryptoError::PublicInvalid);
    }
}
