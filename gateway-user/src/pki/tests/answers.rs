//! Known answers of RFCs.

use crate::pki::key::PublicKey;
use crate::pki::{EcdsaEncoding, PkiError, SignatureAlg};
use hex_literal::hex;

fn point(xy: &[u8]) -> Vec<u8> {
    [&[4], xy].concat()
}

/// RFC 4754 8.1 to 8.3: the message is "abc", the signature r‖s.
#[test]
fn rfc_4754_signatures_verify() {
    let p256 = PublicKey::P256(point(&hex!(
        "2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970
         6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d"
    )));
    let p256_signature = hex!(
        "cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c
         86fa3bb4e26cad5bf90b7f81899256ce7594bb1ea0c89212748bff3b3d5b0315"
    );
    let p384 = PublicKey::P384(point(&hex!(
        "96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922
         447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca"
    )));
    let p384_signature = hex!(
        "fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3
         b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f"
    );
    let p521 = PublicKey::P521(point(&hex!(
        "0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d40188901cecd650699c9b5e456aea5add19052a8
         006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e85317d9df45cad7803c6c20035b2f3ff63aff4e1ba64d1c077577da3f4286c58f0aeae643"
    )));
    let p521_signature = hex!(
        "0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a9278880ed7dbb8d9362caeacee544320552251
         017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c8362df4975367101f67d1cf9bccbf2f3d239534fa509e70aac851ae01aac68d62f866472660"
    );
    let cases: [(&PublicKey, SignatureAlg, &[u8]); 3] = [
        (&p256, SignatureAlg::EcdsaSha256, &p256_signature),
        (&p384, SignatureAlg::EcdsaSha384, &p384_signature),
        (&p521, SignatureAlg::EcdsaSha512, &p521_signature),
    ];
    for (key, alg, signature) in cases {
        assert_eq!(key.verify(alg, EcdsaEncoding::Fixed, b"abc", signature), Ok(()), "{alg:?}");
        assert_eq!(key.verify(alg, EcdsaEncoding::Fixed, b"abd", signature), Err(PkiError::Signature), "{alg:?}");
        // Zero and the order itself are outside the range of r and s; so is swapping them, which is in range but wrong.
        let half = signature.len() / 2;
        for bad in [
            [&vec![0; half], &signature[half..]].concat(),
            [&signature[..half], &vec![0; half]].concat(),
            [&vec![0xff; half], &signature[half..]].concat(),
            [&signature[half..], &signature[..half]].concat(),
        ] {
            assert_eq!(key.verify(alg, EcdsaEncoding::Fixed, b"abc", &bad), Err(PkiError::Signature), "{alg:?}");
        }
    }
}

/// RFC 8032 7.1, test 3.
#[test]
fn rfc_8032_signature_verifies() {
    let key = PublicKey::Ed25519(hex!("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"));
    let signature = hex!(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac
         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    );
    assert_eq!(key.verify(SignatureAlg::Ed25519, EcdsaEncoding::Der, &hex!("af82"), &signature), Ok(()));
    assert_eq!(key.verify(SignatureAlg::Ed25519, EcdsaEncoding::Der, &hex!("af83"), &signature), Err(PkiError::Signature));
}
