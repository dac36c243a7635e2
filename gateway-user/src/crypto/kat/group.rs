//! Groups and key encapsulations.

use crate::crypto::{DhGroup, DhSecret, HashAlg, ct_eq};
use hex_literal::hex;

pub(super) fn passes(group: DhGroup) -> bool {
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
        DhGroup::Modp6144 => modp_passes(
            group,
            hex!("8220f34439e193bdcd4fd662d25a1f3219ac979c876d4b7616b4862da4c70856"),
            hex!("757c1e2bee70f9ac8836e9ebcdfcf6eec7eef3f78834e7d7dd21f7d8ec0db0c6"),
        ),
        DhGroup::Modp8192 => modp_passes(
            group,
            hex!("806f4eceff772ac7c9555c03c73e567cfbc4023a7bd99226672aae19fed12b41"),
            hex!("c912f9c3628186da4d147c86e6dbd047fe6a1441495600a1998e72006f4cc8ab"),
        ),
        // RFC 5903 8.1 to 8.3
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
        DhGroup::Ecp521 => ecp_passes(
            group,
            &hex!(
                "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c2
                 7a57382d4a52"
            ),
            &hex!(
                "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbee1e3bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4
                 195d176ced3e017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4a10ad8a788015ac405d7799dc75e7b7d5b6cf2261a6a7f15
                 07438bf01beb6ca3926f9582"
            ),
            &hex!(
                "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171
                 640012d9460f015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87220b6536c5c408a1d2aebb8e86d678ae49cb57091f47
                 32296579ab44fcd17f0fc56a"
            ),
            &hex!(
                "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d1427e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417
                 996d19f3ddea"
            ),
        ),
        // RFC 8031 appendix A
        DhGroup::X25519 => ecp_passes(
            group,
            &hex!("751fb4308655b476b6789b7325f9ea8cddd16a58533ff6d9e60009464a5f9d94"),
            &hex!("48d5ddd4061257ba166fa3f9bbdb74f1a4e81c089384fa77f790709f0dfbc766"),
            &hex!("0be7c1f5aad87d7e448662673298a443478b859745179eaf564c79c0ef6eee25"),
            &hex!("c74950607a12327f3204d94b6825bfb068b7f8319a9e3708ed3d43ce8130c950"),
        ),
        DhGroup::MlKem768 => kem_passes(),
    }
}

/// The exponents are c3a5c85c97cb3127 and 9ae16a3b2f90404f. Zeros before them give the generator's table of the groups that have
/// one the length it is made for.
fn modp_passes(group: DhGroup, public: [u8; 32], shared: [u8; 32]) -> bool {
    let zeros = match group {
        DhGroup::Modp2048 => 32 - 8,
        DhGroup::Modp3072 => 56 - 8,
        _ => 0,
    };
    let secret = |exponent: [u8; 8]| DhSecret::from_bytes(group, &[&vec![0; zeros][..], &exponent].concat());
    let (x, y) = (secret(hex!("c3a5c85c97cb3127")), secret(hex!("9ae16a3b2f90404f")));
    let (Ok(gx), Ok(gy)) = (x.public(), y.public()) else { return false };
    let Ok(gxy) = x.shared(&gy) else { return false };
    ct_eq(&HashAlg::Sha256.digest(&[&gx]), &public) && ct_eq(&HashAlg::Sha256.digest(&[gxy.expose()]), &shared)
}

fn ecp_passes(group: DhGroup, i: &[u8], gi: &[u8], gr: &[u8], x: &[u8]) -> bool {
    let secret = DhSecret::from_bytes(group, i);
    secret.public().is_ok_and(|public| public == gi) && secret.shared(gr).is_ok_and(|shared| ct_eq(shared.expose(), x))
}

/// Wycheproof `mlkem_768_test.json` case 2 and the case of `mlkem_768_encaps_test.json` for the same key.
fn kem_passes() -> bool {
    let random = hex!(
        "7c9935a0b07694aa0c6d10e4db6b1add2fd81a25ccb148032dcd739936737f2d8626ed79d451140800e03b59b956f8210e556067407d13dc90fa9e8b872bfb8f
         147c03f7a5bebba406c8fae1874d7f13c80efe79a3a9a874cc09fe76f6997615"
    );
    let secret = DhSecret::from_bytes(DhGroup::MlKem768, &random);
    let Ok(public) = secret.public() else { return false };
    let Ok((ciphertext, key)) = secret.respond(&public) else { return false };
    let answer = hex!("e7184a0975ee3470878d2d159ec83129c8aec253d4ee17b4810311d198cd0368");
    HashAlg::Sha256.digest(&[&public]) == hex!("86adbca81f4fee893e2fb58fb98aa2fe188f501fed268d7f4056f8c05c4e53c4")
        && HashAlg::Sha256.digest(&[&ciphertext]) == hex!("36829a2f35cbf4deb62c0a12a15c22dae9f8d2c252566fc24f88abe805cb575e")
        && ct_eq(key.expose(), &answer)
        && secret.shared(&ciphertext).is_ok_and(|key| ct_eq(key.expose(), &answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_fails_the_start_test() {
        assert!(!modp_passes(DhGroup::Modp768, [0; 32], [0; 32]));
        assert!(!ecp_passes(DhGroup::Ecp256, &[1; 32], &[0; 64], &[0; 64], &[]));
    }
}
