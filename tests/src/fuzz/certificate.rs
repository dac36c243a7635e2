//! Target of everything that a peer's certificate reaches.

use gateway_user::id::Identity;
use gateway_user::pki::{Credential, PeerCertificate, SignatureAlg, Trust, name_text};
use std::sync::LazyLock;

/// Certificates and keys of the unit tests.
const BUNDLE: &str = include_str!("../../../gateway-user/src/pki/testdata/bundle.pem");
/// 2026-06-01: the good ones are good then.
const NOW: u64 = 1_780_272_000;

fn part(name: &str) -> &'static [u8] {
    let rest = BUNDLE.split("\n@ ").find(|part| part.starts_with(&format!("{name}\n")));
    rest.expect("a part of the bundle").as_bytes()
}

/// Chains that are good, DER.
static CHAINS: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| {
    let read = |certificates: &[&str], key: &str| {
        let pem: Vec<u8> = certificates.iter().flat_map(|name| [part(name), b"\n"].concat()).collect();
        Credential::from_pem(&pem, part(key)).expect("a credential").chain().to_vec()
    };
    let single = ["rsa", "ecdsa", "p521", "ed25519", "plain"];
    let mut chains: Vec<_> = single.iter().map(|n| read(&[&format!("{n}.crt")], &format!("{n}.key"))).collect();
    chains.push(read(&["inter0leaf.crt", "inter0.crt"], "inter0leaf.key"));
    chains
});
static TRUST: LazyLock<Trust> = LazyLock::new(|| Trust::from_pem(part("root.crt"), part("root.crl")).expect("a root"));
static PEER: LazyLock<PeerCertificate> = LazyLock::new(|| TRUST.check(&CHAINS[0], NOW).expect("a good chain"));

/// Certificates, each behind its length in two bytes.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (der, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        out.push(der.to_vec());
        bytes = rest;
    }
    out
}

/// Chains, names, and algorithm identifiers.
pub fn certificates() -> Vec<Vec<u8>> {
    let join = |chain: &Vec<Vec<u8>>| chain.iter().flat_map(|der| [&(der.len() as u16).to_be_bytes()[..], der].concat()).collect();
    let mut seeds: Vec<Vec<u8>> = CHAINS.iter().map(join).collect();
    seeds.extend(TRUST.authority_names());
    seeds.extend(SignatureAlg::ALL.iter().map(|alg| alg.algorithm_identifier().to_vec()));
    seeds.extend([part("root.crt").to_vec(), part("root.crl").to_vec(), part("ecdsa.key").to_vec()]);
    seeds
}

/// Bytes as a chain, as a name, as an algorithm, as a signature, as files. Nobody gets in with a certificate that was not issued.
pub fn certificate(bytes: &[u8]) {
    let chain = split(bytes);
    if let Ok(peer) = TRUST.check(&chain, NOW) {
        assert!(CHAINS.iter().any(|good| good.first() == chain.first()), "a forged certificate: {}", peer.subject_text());
        assert!(peer.subject_text().chars().all(|c| !c.is_control()));
    }
    if let Some(text) = name_text(bytes) {
        assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
    }
    let _ = PEER.matches(&Identity::DerAsn1Dn(bytes.to_vec()));
    if let Some(alg) = SignatureAlg::from_algorithm_identifier(bytes) {
        assert_ne!(alg, SignatureAlg::RsaPkcs1Sha1, "SHA-1 by name");
    }
    for alg in SignatureAlg::ALL {
        assert!(PEER.verify(alg, b"message", bytes).is_err(), "a forged signature");
    }
    assert!(PEER.verify_ikev1(&[7; 20], bytes).is_err() && PEER.verify_legacy(1, b"message", bytes).is_err(), "a forged signature");
    let _ = (Trust::from_pem(bytes, b""), Trust::from_pem(part("root.crt"), bytes), Credential::from_pem(part("ecdsa.crt"), bytes));
}
