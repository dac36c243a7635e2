use super::tests::{errors, with};
use super::*;
use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg};
use crate::id::Identity;
use crate::ike::{AuthMethod, PeerMatch};
use crate::sad::{Mode, Selector};
use std::net::{IpAddr, Ipv4Addr};

const EXAMPLE: &str = include_str!("../../../config/example-1-ikev2.yaml");

fn changed(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from}");
    EXAMPLE.replacen(from, to, 1)
}

#[test]
fn a_profile_reaches_the_engine() {
    let config = with(EXAMPLE).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let e = &config.ike.entries[0];
    assert!(!e.ikev1 && !e.esn);
    let p = e.ikev2.as_deref().unwrap();
    assert_eq!((p.name.as_str(), p.lifetime_s, p.fragment_bytes, p.childless), ("PROFILE_1", 86_400, 1280, false));
    assert_eq!((p.local_auth, p.remote_auth, &p.local_id, &p.remote_id), (AuthMethod::PreShared, AuthMethod::PreShared, &None, &None));
    let gcm = |key| CipherAlg::AesGcm(key, Icv::Bytes16);
    assert_eq!(p.proposals.len(), 1);
    assert_eq!(p.proposals[0].encryption, [gcm(AesKey::Bits256), gcm(AesKey::Bits128)]);
    assert_eq!(p.proposals[0].prf, [PrfAlg::HmacSha384, PrfAlg::HmacSha256]);
    assert_eq!(p.proposals[0].groups, [DhGroup::X25519, DhGroup::Ecp256, DhGroup::Modp2048]);
    assert_eq!((e.transforms[0].encr, e.transforms[0].integ), (gcm(AesKey::Bits256), None));
    assert!(config.ike.policies.is_empty());
}

#[test]
fn a_profile_without_proposals_offers_good_ones() {
    let config = with(&changed("{ proposal: [AEAD] }", "{}")).unwrap();
    let p = config.ike.entries[0].ikev2.clone().unwrap();
    assert_eq!(p.proposals.len(), 2);
    for p in &p.proposals {
        assert_eq!(p.encryption.iter().all(|c| c.is_aead()), p.integrity.is_empty());
        assert_eq!(p.groups.first(), Some(&DhGroup::X25519));
        assert!(!p.groups.iter().any(|g| g.is_kem() || g.number() < 14), "{:?}", p.groups);
        assert!(!p.prf.contains(&PrfAlg::HmacSha1));
    }
}

#[test]
fn everything_of_a_profile() {
    let profile = "{ proposal: [AEAD], identity_local: fqdn:gw.example.org, identity_remote: 'email:b@example.org', lifetime: 8h, \
                   fragmentation: false, childless: true, ppk: { id: p1, secret_file: ppk, required: true } }";
    let config = with(&changed("{ proposal: [AEAD] }", profile)).unwrap();
    let p = config.ike.entries[0].ikev2.clone().unwrap();
    assert_eq!(p.local_id, Some(Identity::Fqdn("gw.example.org".into())));
    assert_eq!(p.remote_id, Some(Identity::UserFqdn("b@example.org".into())));
    assert_eq!((p.lifetime_s, p.fragment_bytes, p.childless), (28_800, 0, true));
    let ppk = p.ppk.as_ref().unwrap();
    assert_eq!((ppk.id.as_slice(), ppk.required, ppk.key.expose()), (&b"p1"[..], true, &b"0123456789abcdef-unit-test"[..]));
    assert!(config.warnings.iter().any(|w| w.contains("the post-quantum key has 26 bytes; use 32 or more")), "{:?}", config.warnings);
    assert!(!format!("{config:?}").contains("unit-test"));
}

#[test]
fn an_additional_exchange_that_may_be_left_out_is_a_second_proposal() {
    let config = with(&changed("group: [31, 19, 14]", "group: [31], additional_key_exchange: [[mlkem768, none], [14]]")).unwrap();
    let p = config.ike.entries[0].ikev2.clone().unwrap();
    let additional: Vec<_> = p.proposals.iter().map(|p| p.additional.clone()).collect();
    let (kem, modp) = (vec![DhGroup::MlKem768], vec![DhGroup::Modp2048]);
    assert_eq!(additional, [vec![kem, modp.clone()], vec![modp]]);
}

#[test]
fn what_ios_takes_for_a_left_out_prf() {
    let config =
        with(&changed("[aes-gcm-256, aes-gcm-128], prf: [sha384, sha256]", "[aes-cbc-256], integrity: [sha512, aes-xcbc]")).unwrap();
    let p = config.ike.entries[0].ikev2.clone().unwrap();
    assert_eq!(p.proposals[0].integrity, [IntegAlg::HmacSha512, IntegAlg::AesXcbc]);
    assert_eq!(p.proposals[0].prf, [PrfAlg::HmacSha512, PrfAlg::AesXcbc]);
}

#[test]
fn version_1_beside_a_profile_is_a_fallback_with_a_warning() {
    let text = changed("ikev2_profile: PROFILE_1,", "ikev2_profile: PROFILE_1, ikev1: true, esn: true,")
        .replace("    key:", "    policy: { 1: {} }\n    key:");
    let config = with(&text).unwrap();
    let e = &config.ike.entries[0];
    assert!(e.ikev1 && e.esn && e.ikev2.is_some());
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("whoever drops packets on the way can force version 1"), "{:?}", config.warnings);
}

#[test]
fn weak_choices_are_warned_of() {
    let weak = "encryption: [3des, des], integrity: [sha1, md5], prf: [sha1, md5], group: [2]";
    let config = with(&changed("encryption: [aes-gcm-256, aes-gcm-128], prf: [sha384, sha256], group: [31, 19, 14]", weak)).unwrap();
    let places: Vec<&str> = config.warnings.iter().map(|w| w.split(": ").nth(1).unwrap().rsplit_once("AEAD.").unwrap().1).collect();
    assert_eq!(places, ["encryption[0]", "encryption[1]", "integrity[0]", "integrity[1]", "prf[0]", "prf[1]", "group[0]"]);
}

#[test]
fn keys_for_more_than_one_address() {
    let config = with(&changed(
        "      - { address: 192.168.3.1, secret_file: secrets/example-psk }",
        "      - { address: 192.168.3.0/24, secret_file: psk }\n      - { address: 10.0.0.1 - 10.0.0.9, secret_file: psk }\n      \
         - { identity: fqdn:branch, secret_file: psk }\n      - { address: 0.0.0.0, secret_file: psk, allow_any: true }",
    ))
    .unwrap();
    let ip = |a: [u8; 4]| IpAddr::from(a);
    let peers: Vec<PeerMatch> = config.ike.keys.iter().map(|k| k.peer.clone()).collect();
    assert_eq!(
        peers,
        [
            PeerMatch::Network(ip([192, 168, 3, 0]), 24),
            PeerMatch::Range(ip([10, 0, 0, 1]), ip([10, 0, 0, 9])),
            PeerMatch::Identity(Identity::Fqdn("branch".into())),
            PeerMatch::Any,
        ]
    );
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("a key for all peers"), "{:?}", config.warnings);
    // A key by identity serves the peer of a profile that asks for this identity.
    let by_identity = changed("address: 192.168.3.1, secret_file", "identity: fqdn:branch, secret_file");
    assert!(errors(&by_identity)[0].contains("there is no key for peer 192.168.3.1"));
    assert!(with(&by_identity.replace("proposal: [AEAD] }", "proposal: [AEAD], identity_remote: fqdn:branch }")).is_ok());
}

#[test]
fn transform_sets_with_ciphers_that_authenticate_by_themselves() {
    for (words, encr, integ) in [
        ("esp-gcm 256", CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None),
        ("esp-gcm-192-icv8", CipherAlg::AesGcm(AesKey::Bits192, Icv::Bytes8), None),
        ("esp-ccm-icv12", CipherAlg::AesCcm(AesKey::Bits128, Icv::Bytes12), None),
        ("esp-chacha20-poly1305", CipherAlg::ChaCha20Poly1305, None),
        ("esp-ctr-256, esp-aes-xcbc-mac", CipherAlg::AesCtr(AesKey::Bits256), Some(IntegAlg::AesXcbc)),
        ("esp-aes 256, esp-aes-cmac", CipherAlg::Aes256, Some(IntegAlg::AesCmac)),
    ] {
        let config = with(&changed("[esp-gcm-256]", &format!("[{words}]"))).unwrap();
        let t = &config.ike.entries[0].transforms[0];
        assert_eq!((t.encr, t.integ, t.mode), (encr, integ, Mode::Tunnel), "{words}");
    }
}

#[test]
fn every_transform_has_one_name() {
    let offered: Vec<CipherAlg> =
        words::TRANSFORMS.iter().filter_map(|(_, t)| if let words::Transform::Encr(a) = t { Some(*a) } else { None }).collect();
    for (name, t) in words::TRANSFORMS {
        match t {
            words::Transform::Encr(a) => assert!(words::TRANSFORMS.iter().any(|(n, x)| *n == encr_word(a) && *x == t), "{name}"),
            words::Transform::Auth(a) => assert_eq!(integ_word(a), name),
            words::Transform::Absent(_) => {}
        }
    }
    for (name, alg) in words::IKEV2_CIPHERS {
        assert_eq!(ikev2_encr_word(alg), name);
        assert!(offered.contains(&alg), "{name} is IKE's only");
    }
}

#[test]
fn transport_mode_between_the_two_gateways() {
    let text = changed("[esp-gcm-256]", "[esp-gcm-256], mode: transport")
        .replace("permit ip any 192.168.4.0 0.0.0.255", "permit gre host 40.0.0.1 host 192.168.3.1");
    let e = with(&text).unwrap().ike.entries.remove(0);
    assert_eq!(e.transforms[0].mode, Mode::Transport);
    assert_eq!(e.flows[0].local, Selector { proto: 47, ..Selector::net4(Ipv4Addr::new(40, 0, 0, 1), 32) });
}

#[test]
fn a_difference_in_a_profile_is_named() {
    let a = with(EXAMPLE).unwrap();
    assert_eq!(a.digests, with(include_str!("../../../config/example-2-ikev2.yaml")).unwrap().digests);
    for (from, to, items) in [
        ("aes-gcm-128]", "aes-gcm-192]", &["crypto ikev2 profile PROFILE_1"][..]),
        ("proposal: [AEAD] }", "proposal: [AEAD], childless: true }", &["crypto ikev2 profile PROFILE_1"]),
        ("proposal: [AEAD] }", "proposal: [AEAD], ppk: { id: x, secret_file: ppk } }", &["crypto ikev2 profile PROFILE_1"]),
        ("esp-gcm-256", "esp-gcm-192", &["crypto ipsec transform-set TRANSFORMSET_1", "crypto map CMAP_1 1"]),
        ("ikev2_profile: PROFILE_1,", "ikev2_profile: PROFILE_1, esn: true,", &["crypto map CMAP_1 1"]),
    ] {
        let b = with(&changed(from, to)).unwrap();
        let differing: Vec<&str> = b.digests.iter().filter(|d| !a.digests.contains(d)).map(|d| d.0.as_str()).collect();
        assert_eq!(differing, items, "{from} -> {to}");
    }
}
