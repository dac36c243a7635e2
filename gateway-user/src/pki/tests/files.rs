//! Reading files: what is refused says why.

use crate::id::Identity;
use crate::pki::testdata::{credential, part, parts};
use crate::pki::{CHAIN_MAX, Credential, PkiError, Trust};

fn read(certificates: &[&str], key: &str) -> Result<Credential, PkiError> {
    Credential::from_pem(&parts(certificates), part(key))
}

#[test]
fn keys_are_read_in_every_usual_form() {
    for (certificate, key) in [
        ("ecdsa.crt", "ecdsa.key"),
        ("ecdsa.crt", "ecdsa-sec1.key"),
        ("p384.crt", "p384.key"),
        ("p521.crt", "p521.key"),
        ("ed25519.crt", "ed25519.key"),
        ("rsa.crt", "rsa.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
    ] {
        assert!(read(&[certificate], key).is_ok(), "{certificate} {key}");
    }
}

#[test]
fn the_names_of_a_certificate_are_shown() {
    let gateway = credential("ecdsa");
    assert_eq!(
        gateway.alt_names(),
        [
            Identity::Fqdn("gw.example.org".into()),
            Identity::Address("192.0.2.1".parse().unwrap()),
            Identity::Address("2001:db8::1".parse().unwrap()),
            Identity::UserFqdn("Ops@example.org".into()),
        ]
    );
    let Identity::DerAsn1Dn(subject) = gateway.subject() else { panic!() };
    assert_eq!(crate::pki::name::text(&subject).as_deref(), Some("CN=gw,O=Example,C=CH"));
    assert_eq!(credential("inter0leaf").chain().len(), 2);
}

#[test]
fn an_encrypted_key_is_named_as_such() {
    assert_eq!(read(&["ecdsa.crt"], "ecdsa-encrypted.key").unwrap_err(), PkiError::KeyEncrypted);
    assert_eq!(read(&["ecdsa.crt"], "ecdsa-oldencrypted.key").unwrap_err(), PkiError::KeyEncrypted);
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_refused() {
    assert_eq!(read(&["ecdsa.crt"], "plain.key").unwrap_err(), PkiError::KeyMismatch);
    assert_eq!(read(&["rsa.crt"], "ecdsa.key").unwrap_err(), PkiError::KeyKind("RSA"));
    assert_eq!(read(&["ecdsa.crt"], "p384.key").unwrap_err(), PkiError::KeyKind("ECDSA P-256"));
    assert_eq!(read(&["p521.crt"], "ed25519.key").unwrap_err(), PkiError::KeyKind("ECDSA P-521"));
    assert_eq!(read(&["ed25519.crt"], "rsa-pkcs1.key").unwrap_err(), PkiError::KeyKind("Ed25519"));
    // The chain begins with the authority.
    assert_eq!(read(&["inter0.crt", "inter0leaf.crt"], "inter0leaf.key").unwrap_err(), PkiError::Order(2));
    assert_eq!(read(&["root.crt"], "ecdsa.key").unwrap_err(), PkiError::KeyMismatch);
}

#[test]
fn a_short_rsa_key_is_refused() {
    assert_eq!(read(&["rsa1024.crt"], "rsa1024.key").unwrap_err(), PkiError::RsaSize(1024));
}

#[test]
fn missing_parts_are_named() {
    let missing = |what, command| PkiError::Missing { what, command };
    assert_eq!(Credential::from_pem(part("ecdsa.key"), part("ecdsa.key")).unwrap_err(), missing("CERTIFICATE", "x509"));
    assert_eq!(Credential::from_pem(part("ecdsa.crt"), part("ecdsa.crt")).unwrap_err(), missing("PRIVATE KEY", "pkey"));
    assert_eq!(Credential::from_pem(b"", b"").unwrap_err(), missing("CERTIFICATE", "x509"));
    assert_eq!(Trust::from_pem(b"", b"").unwrap_err(), missing("CERTIFICATE", "x509"));
    assert_eq!(Credential::from_pem(part("rsa.crt"), &parts(&["rsa.key", "ecdsa.key"])).unwrap_err(), PkiError::KeyCount(2));
}

#[test]
fn chains_are_ordered_and_bounded() {
    assert_eq!(read(&["inter0leaf.crt", "root.crt"], "inter0leaf.key").unwrap_err(), PkiError::Order(2));
    assert_eq!(read(&["inter0leaf.crt", "inter0.crt", "other.crt"], "inter0leaf.key").unwrap_err(), PkiError::Order(3));
    assert!(read(&["inter0leaf.crt", "inter0.crt", "root.crt"], "inter0leaf.key").is_ok());
    let long = vec!["root.crt"; CHAIN_MAX + 1];
    assert_eq!(read(&long, "ecdsa.key").unwrap_err(), PkiError::ChainLength { got: CHAIN_MAX + 1 });
}

#[test]
fn damaged_pem_is_refused_without_showing_it() {
    let key = std::str::from_utf8(part("ecdsa.key")).unwrap();
    for bad in [key.replace("-----END", "----END"), key.replace("-----END PRIVATE KEY-----", ""), key.replace("MI", "M!")] {
        let error = Credential::from_pem(part("ecdsa.crt"), bad.as_bytes()).unwrap_err();
        let PkiError::Pem(text) = &error else { panic!("{error:?}") };
        for line in key.lines().filter(|l| l.len() > 20 && !l.contains('-')) {
            assert!(!text.contains(&line[..16]));
        }
    }
}

#[test]
fn nothing_of_the_key_is_shown() {
    assert_eq!(format!("{:?}", credential("rsa")), "Credential(1 certificates)");
}

#[test]
fn credentials_and_trust_are_compared_by_what_was_read() {
    assert_eq!(credential("rsa"), read(&["rsa.crt"], "rsa-pkcs1.key").unwrap());
    assert_ne!(credential("rsa"), credential("ecdsa"));
    let trust = |crls: &[u8]| Trust::from_pem(part("root.crt"), crls).unwrap();
    assert_eq!(trust(b""), trust(b""));
    assert_ne!(trust(b""), trust(part("root.crl")));
    assert_ne!(trust(part("empty.crl")), trust(part("root.crl")));
    assert_ne!(trust(b""), trust(b"").require_crls(true));
}

#[test]
fn only_authorities_can_be_trusted() {
    for (name, rule) in [("ecdsa.crt", "CA:TRUE"), ("plain.crt", "CA:TRUE"), ("nosign.crt", "keyCertSign")] {
        let error = Trust::from_pem(&parts(&["root.crt", name]), b"").unwrap_err();
        assert!(matches!(&error, PkiError::Certificate { place, why } if place == "authority 2" && why.contains(rule)), "{error:?}");
    }
    let crl = String::from_utf8(part("root.crl").to_vec()).unwrap();
    let damaged = crl.replace("MI", "MJ");
    assert!(matches!(Trust::from_pem(part("root.crt"), damaged.as_bytes()), Err(PkiError::Crl { number: 1, .. })));
}

#[test]
fn authorities_are_named_to_the_peer() {
    let trust = Trust::from_pem(&parts(&["root.crt", "other.crt"]), b"").unwrap();
    assert_eq!(trust.authority_names().len(), 2);
    assert_eq!(crate::pki::name::text(&trust.authority_names()[1]).as_deref(), Some("CN=Other,O=Example,C=CH"));
    // RFC 5280 4.2.1.2 (1) hashes the key alone, RFC 7296 3.7 the whole SubjectPublicKeyInfo: here it is the latter.
    let root = x509_cert::der::Decode::from_der(&crate::pki::testdata::chain(&["root.crt"])[0]);
    let root: x509_cert::Certificate = root.unwrap();
    let spki = x509_cert::der::Encode::to_der(root.tbs_certificate().subject_public_key_info()).unwrap();
    assert_eq!(trust.authority_hashes()[0].to_vec(), crate::crypto::HashAlg::Sha1.digest(&[&spki]));
}
