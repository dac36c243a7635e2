//! Path validation: each rule has a certificate that breaks only this one.

use crate::id::Identity;
use crate::pki::testdata::{NOW, chain, part, parts, trust};
use crate::pki::{CHAIN_MAX, PeerCertificate, PkiError, Trust};
use crate::rng::{Random, Seeded};

fn why(result: Result<PeerCertificate, PkiError>) -> String {
    result.expect_err("it was taken").to_string()
}

/// Refused with a text that names the rule.
fn refused(trust: &Trust, names: &[&str], rule: &str) {
    let text = why(trust.check(&chain(names), NOW));
    assert!(text.contains(rule), "{names:?}: {text}");
}

fn with_crls(names: &[&str]) -> Trust {
    Trust::from_pem(part("root.crt"), &parts(names)).unwrap()
}

#[test]
fn good_chains_are_taken() {
    for names in [
        &["ecdsa.crt"][..],
        &["p384.crt"],
        &["p521.crt"],
        &["ed25519.crt"],
        &["rsa.crt"],
        &["plain.crt"],
        &["nameless.crt"],
        &["nonrepudiation.crt"],
        &["server.crt"],
        &["inter0leaf.crt", "inter0.crt"],
        &["ncgood.crt", "nc.crt"],
        // The root is sent along, others as well, in any order.
        &["inter0leaf.crt", "other.crt", "root.crt", "nc.crt", "inter0.crt"],
    ] {
        if let Err(e) = trust().check(&chain(names), NOW) {
            panic!("{names:?}: {e}");
        }
    }
}

#[test]
fn authorities_of_other_kinds_of_keys_are_understood() {
    let by = |root, leaf| Trust::from_pem(part(root), b"").unwrap().check(&chain(&[leaf]), NOW);
    assert!(by("root521.crt", "by521.crt").is_ok());
    assert!(by("rootrsa.crt", "byrsa.crt").is_ok());
    assert!(by("rootrsa.crt", "bypss.crt").is_ok());
    let text = why(by("rootrsa.crt", "sha1.crt"));
    assert!(text.contains("SHA-1"), "{text}");
}

#[test]
fn a_wrong_signature_by_p_521_is_refused() {
    let trust = Trust::from_pem(part("root521.crt"), b"").unwrap();
    let mut der = chain(&["by521.crt"]);
    // The last byte is part of s.
    *der[0].last_mut().unwrap() ^= 1;
    assert!(why(trust.check(&der, NOW)).contains("signature"));
}

#[test]
fn the_clock_counts() {
    refused(&trust(), &["expired.crt"], "expired");
    refused(&trust(), &["early.crt"], "not valid yet");
    assert!(trust().check(&chain(&["expired.crt"]), NOW - 140 * 86400).is_ok());
    assert!(trust().check(&chain(&["early.crt"]), NOW + 365 * 86400).is_ok());
    let old = Trust::from_pem(part("oldroot.crt"), b"").unwrap();
    refused(&old, &["oldleaf.crt"], "authority's own certificate is expired");
    // A clock that was never set.
    assert!(trust().check(&chain(&["ecdsa.crt"]), 0).is_err());
    assert!(trust().check(&chain(&["ecdsa.crt"]), u64::MAX).is_err());
}

#[test]
fn a_chain_must_lead_to_a_configured_authority() {
    refused(&trust(), &["stranger.crt"], "no configured authority");
    refused(&trust(), &["stranger.crt", "other.crt"], "no configured authority");
    refused(&trust(), &["inter0leaf.crt"], "no configured authority");
    // Same name, another key.
    refused(&trust(), &["impostorleaf.crt"], "signature");
    refused(&trust(), &["impostorleaf.crt", "impostor.crt"], "signature");
    refused(&trust(), &["root.crt"], "digitalSignature");
    assert!(why(trust().check(&[], NOW)).contains("none"));
}

#[test]
fn usage_counts() {
    refused(&trust(), &["encipher.crt"], "digitalSignature");
    refused(&trust(), &["codesigning.crt"], "extended key usage");
    refused(&trust(), &["underleaf.crt", "ecdsa.crt"], "not an authority's");
    refused(&trust(), &["nosignleaf.crt", "nosign.crt"], "keyCertSign");
    refused(&trust(), &["critical.crt"], "critical");
}

#[test]
fn the_length_of_a_path_counts() {
    refused(&trust(), &["inter1leaf.crt", "inter1.crt", "inter0.crt"], "pathlen");
}

#[test]
fn name_constraints_count() {
    refused(&trust(), &["ncbadname.crt", "nc.crt"], "may not issue");
    refused(&trust(), &["ncbadaddress.crt", "nc.crt"], "may not issue");
    refused(&trust(), &["ncdnleaf.crt", "ncdn.crt"], "may not issue");
}

#[test]
fn revoked_certificates_are_refused() {
    refused(&with_crls(&["root.crl"]), &["revoked.crt"], "revoked");
    refused(&with_crls(&["root.crl"]), &["interrevokedleaf.crt", "interrevoked.crt"], "revoked");
    assert!(with_crls(&["root.crl"]).check(&chain(&["ecdsa.crt"]), NOW).is_ok());
    // The newest list of an issuer counts, in any order of the file.
    refused(&with_crls(&["empty.crl", "root.crl"]), &["revoked.crt"], "revoked");
    refused(&with_crls(&["root.crl", "empty.crl"]), &["revoked.crt"], "revoked");
    assert!(with_crls(&["empty.crl"]).check(&chain(&["revoked.crt"]), NOW).is_ok());
}

#[test]
fn a_list_out_of_its_time_refuses_everything_of_its_issuer() {
    refused(&with_crls(&["expired.crl"]), &["ecdsa.crt"], "list of its issuer has expired");
    refused(&with_crls(&["future.crl"]), &["ecdsa.crt"], "starts in the future");
    // Another issuer's list does not matter.
    let both = Trust::from_pem(&parts(&["root.crt", "other.crt"]), part("expired.crl")).unwrap();
    assert!(both.check(&chain(&["stranger.crt"]), NOW).is_ok());
}

#[test]
fn a_list_must_be_signed_by_the_issuer() {
    refused(&with_crls(&["impostor.crl"]), &["ecdsa.crt"], "signature of the revocation list");
}

#[test]
fn lists_can_be_required() {
    refused(&trust().require_crls(true), &["ecdsa.crt"], "none is configured");
    let root_only = || with_crls(&["root.crl"]).require_crls(true);
    assert!(root_only().check(&chain(&["ecdsa.crt"]), NOW).is_ok());
    refused(&root_only(), &["inter0leaf.crt", "inter0.crt"], "lists are required");
    let both = with_crls(&["root.crl", "inter0.crl"]).require_crls(true);
    assert!(both.check(&chain(&["inter0leaf.crt", "inter0.crt"]), NOW).is_ok());
}

#[test]
fn what_a_peer_sends_is_bounded() {
    let many = vec![chain(&["ecdsa.crt"])[0].clone(); CHAIN_MAX + 1];
    assert_eq!(trust().check(&many, NOW).unwrap_err(), PkiError::ChainLength { got: CHAIN_MAX + 1 });
    let large = vec![0x30; 9000];
    assert!(why(trust().check(std::slice::from_ref(&large), NOW)).contains("9000 bytes"));
    assert!(why(trust().check(&[chain(&["ecdsa.crt"])[0].clone(), large], NOW)).contains("9000 bytes"));
    // An authority that issued itself again and again leads nowhere, soon.
    let mut loops = chain(&["stranger.crt"]);
    loops.extend(vec![chain(&["other.crt"])[0].clone(); CHAIN_MAX - 1]);
    assert!(trust().check(&loops, NOW).is_err());
}

#[test]
fn a_short_key_of_a_peer_is_refused() {
    assert_eq!(trust().check(&chain(&["rsa1024.crt"]), NOW).unwrap_err(), PkiError::RsaSize(1024));
}

#[test]
fn identities_must_stand_in_the_certificate() {
    let peer = trust().check(&chain(&["ecdsa.crt"]), NOW).unwrap();
    let fqdn = |name: &str| Identity::Fqdn(name.into());
    let mail = |name: &str| Identity::UserFqdn(name.into());
    let address = |name: &str| Identity::Address(name.parse().unwrap());
    for good in [fqdn("gw.example.org"), fqdn("GW.example.ORG"), address("192.0.2.1"), address("2001:db8::1"), mail("Ops@EXAMPLE.org")] {
        assert!(peer.matches(&good), "{good:?}");
    }
    for bad in [
        fqdn("gw"),
        fqdn("gw.example.org."),
        fqdn("example.org"),
        fqdn("*.example.org"),
        fqdn("192.0.2.1"),
        fqdn(""),
        address("192.0.2.2"),
        address("::ffff:192.0.2.1"),
        mail("ops@example.org"),
        mail("gw.example.org"),
        Identity::KeyId(b"gw".to_vec()),
        Identity::KeyId(Vec::new()),
        Identity::DerAsn1Dn(Vec::new()),
        Identity::DerAsn1Dn(vec![0x30, 0]),
        Identity::DerAsn1Dn(vec![0x30]),
    ] {
        assert!(!peer.matches(&bad), "{bad:?}");
    }
    assert_eq!(peer.subject_text(), "CN=gw,O=Example,C=CH");
}

#[test]
fn an_empty_subject_is_nobody() {
    let peer = trust().check(&chain(&["nameless.crt"]), NOW).unwrap();
    assert!(!peer.matches(&Identity::DerAsn1Dn(vec![0x30, 0])));
    assert!(peer.matches(&Identity::Fqdn("gw.example.org".into())));
    assert!(peer.subject_text().contains("gw.example.org"));
}

#[test]
fn no_damaged_certificate_is_taken_and_none_panics() {
    let trust = Trust::from_pem(&parts(&["root.crt", "root521.crt", "rootrsa.crt"]), part("root.crl")).unwrap();
    let mut rng = Seeded::new(7);
    for names in [&["ecdsa.crt"][..], &["rsa.crt"], &["by521.crt"], &["bypss.crt"], &["ncgood.crt", "nc.crt"]] {
        let good = chain(names);
        assert!(trust.check(&good, NOW).is_ok(), "{names:?}");
        for which in 0..good.len() {
            for at in 0..good[which].len() {
                let mut bad = good.clone();
                bad[which][at] ^= 1 << (rng.u32() % 8);
                assert!(trust.check(&bad, NOW).is_err(), "{names:?} {which} byte {at}");
                if at % 8 != 0 {
                    continue;
                }
                bad[which].truncate(at);
                assert!(trust.check(&bad, NOW).is_err(), "{names:?} {which} cut at {at}");
            }
        }
    }
    for length in 0..200 {
        let mut noise = vec![0; length];
        rng.fill(&mut noise);
        assert!(trust.check(&[noise], NOW).is_err());
    }
}
