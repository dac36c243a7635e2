use super::*;
use crate::crypto::DhGroup;
use crate::id::Identity;
use crate::ike::{AuthMethod, PeerMatch, PeerPolicy};
use std::net::IpAddr;
use std::time::Duration;

const EXAMPLE: &str = include_str!("../../../config/example-1.yaml");
const PKI: &str =
    "  pki: { trustpoint: { ORG: { ca_file: ca.pem, certificate_file: cert.pem, key_file: key.pem, crl_file: crl.pem } } }\n  ipsec:\n";
const KEY: &str = "    key:\n      - { address: 192.168.3.1, secret_file: secrets/example-psk }\n";

fn read(path: &Path) -> Vec<u8> {
    match path.file_name().and_then(|n| n.to_str()).unwrap() {
        "ca.pem" => include_bytes!("../../../config/secrets/example-ca.pem").to_vec(),
        "cert.pem" => include_bytes!("../../../config/secrets/example-certificate.pem").to_vec(),
        "key.pem" => include_bytes!("../../../config/secrets/example-key.pem").to_vec(),
        "crl.pem" => include_bytes!("../../../config/secrets/example-crl.pem").to_vec(),
        _ => b"0123456789abcdef-unit-test\n".to_vec(),
    }
}

fn with(text: &str) -> Result<Config, Vec<ConfigError>> {
    parse(text, "x", &mut |p| Ok(read(p)))
}

fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

const SIGNED: [(&str, &str); 3] = [("authentication: pre-share", "authentication: rsa-sig"), ("  ipsec:\n", PKI), (KEY, "")];

#[test]
fn signatures_of_version_1_take_the_only_trustpoint_and_need_no_key() {
    let config = with(&changed(&SIGNED)).unwrap();
    assert_eq!(config.ike.policies[0].authentication, AuthMethod::Signature);
    assert!(config.ike.credential.as_ref().is_some_and(|c| c.signs_ikev1()));
    assert!(config.ike.trust.is_some());
    assert_eq!(config.trustpoints[0].name, "ORG");
    let posing = |text: &str| with(text).unwrap().warnings.iter().filter(|w| w.contains("can pose as any peer")).count();
    let bound = "    peer: [{ address: 192.168.3.1, identity_remote: 'fqdn:b.example' }]\n    policy:\n";
    assert_eq!((posing(&changed(&SIGNED)), posing(&changed(&SIGNED).replace("    policy:\n", bound))), (1, 0));
    // Left out where nothing signs.
    let config = with(&changed(&SIGNED[1..2])).unwrap();
    assert!(config.ike.credential.is_none() && config.ike.trust.is_none());
    // One policy with a pre-shared key is enough to need one.
    let text = changed(&SIGNED).replace("    policy:\n", "    policy:\n      2: {}\n");
    assert!(with(&text).unwrap_err()[0].cause.contains("there is no key for peer 192.168.3.1"));
}

#[test]
fn certificates_of_a_profile() {
    let example = include_str!("../../../config/example-1-ikev2.yaml");
    let profile = "{ authentication_local: ecdsa-sig, authentication_remote: signature, trustpoint: ORG }";
    let text = example.replace("{ proposal: [AEAD] }", profile).replace("  ipsec:\n", PKI).replace(KEY, "");
    let config = with(&text).unwrap();
    let p = config.ike.entries[0].ikev2.as_deref().unwrap();
    assert_eq!((p.local_auth, p.remote_auth), (AuthMethod::Signature, AuthMethod::Signature));
    assert!(p.credential.is_some() && p.trust.is_some());
    assert_eq!(config.ikev2_profiles[0].trustpoint.as_deref(), Some("ORG"));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("whoever has a certificate of this authority can pose as the peer"), "{:?}", config.warnings);
    // We sign, the peer proves a key: no authority is handed to the engine.
    let config =
        with(&example.replace("{ proposal: [AEAD] }", "{ authentication_local: signature, trustpoint: ORG }").replace("  ipsec:\n", PKI))
            .unwrap();
    let p = config.ike.entries[0].ikev2.as_deref().unwrap();
    assert!(p.credential.is_some() && p.trust.is_none());
}

#[test]
fn an_open_private_key_is_warned_of() {
    let mut reader = |p: &Path, _: u64| Ok(SecretFile { bytes: read(p), open_mode: Some(0o644) });
    let warnings = parse_with(&changed(&SIGNED), "x", &mut reader).unwrap().warnings;
    let open: Vec<&str> = warnings.iter().filter(|w| w.contains("is open to everybody")).map(|w| w.split(' ').nth(2).unwrap()).collect();
    assert_eq!(open, ["secrets/example-ssp", "key.pem"]);
}

#[test]
fn peers_of_version_1() {
    let peer = "    peer:\n      - { address: 192.168.3.1, aggressive_mode: true, policy: [1] }\n      - { address: 10.0.0.0/8, identity_remote: 'fqdn:b.example' }\n    \
                nat_traversal: { enabled: false, keepalive: 1m }\n    key:\n";
    let config = with(&changed(&[("    key:\n", peer)])).unwrap();
    assert_eq!(
        config.ike.peers,
        [
            PeerPolicy { peer: PeerMatch::Address(IpAddr::from([192, 168, 3, 1])), aggressive: true, policies: vec![1], remote_id: None },
            PeerPolicy {
                peer: PeerMatch::Network(IpAddr::from([10, 0, 0, 0]), 8),
                aggressive: false,
                policies: vec![],
                remote_id: Some(Identity::Fqdn("b.example".into()))
            },
        ]
    );
    assert_eq!((config.ike.nat_traversal, config.ike.nat_keepalive), (false, Duration::from_secs(60)));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("aggressive mode sends a hash of the key to whoever asks"), "{:?}", config.warnings);
    let names: Vec<&str> = config.digests.iter().map(|d| d.0.as_str()).filter(|n| n.starts_with("crypto isakmp peer")).collect();
    assert_eq!(names, ["crypto isakmp peer 10.0.0.0/8", "crypto isakmp peer 192.168.3.1"]);
}

#[test]
fn groups_of_version_1() {
    for (word, group) in [("17", DhGroup::Modp6144), ("group18", DhGroup::Modp8192), ("21", DhGroup::Ecp521), ("ecp384", DhGroup::Ecp384)] {
        let config = with(&changed(&[("group: 14", &format!("group: {word}"))])).unwrap();
        assert_eq!(config.ike.policies[0].group, group);
    }
}

#[test]
fn a_pair_may_have_two_certificates_of_one_name() {
    let digest = |text: &str| with(text).unwrap().digests.into_iter().find(|d| d.0 == "crypto pki trustpoint ORG").unwrap().1;
    let text = changed(&SIGNED[1..2]);
    let base = digest(&text);
    // The second node fetched no revocation list yet.
    assert_eq!(base, digest(&text.replace(", crl_file: crl.pem", "")));
    assert_ne!(base, digest(&text.replace(", crl_file: crl.pem", ", crl_file: crl.pem, crl_required: true")));
    assert_ne!(base, digest(&text.replace("certificate_file: cert.pem, key_file: key.pem, ", "")));
    assert_ne!(base, digest(&text.replace("ca_file: ca.pem, ", "").replace(", crl_file: crl.pem", "")));
}
