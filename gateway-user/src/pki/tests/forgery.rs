//! RSA blocks that a lax reader takes (CVE-2006-4339, CVE-2018-16151 and their kin). The test holds the private key, so it can make
//! blocks of any shape; a forger with a small exponent needs only the lax reader.

use crate::crypto::HashAlg;
use crate::pki::key::PublicKey;
use crate::pki::testdata::{NOW, chain, part, trust};
use crate::pki::{PeerCertificate, PkiError, SignatureAlg, pem};
use hex_literal::hex;
use rsa::BoxedUint;
use rsa::pkcs8::DecodePrivateKey;
use rsa::traits::{PrivateKeyParts, PublicKeyParts};

const MESSAGE: &[u8] = b"message";
const LEN: usize = 256;

fn key() -> rsa::PrivateKey {
    rsa::PrivateKey::from_pkcs8_der(&pem::private_key(part("rsa.key")).unwrap().1).unwrap()
}

/// The block as it is, to the power of the private exponent.
fn raw(key: &rsa::PrivateKey, block: &[u8]) -> Vec<u8> {
    let block = BoxedUint::from_be_slice(block, LEN as u32 * 8).unwrap();
    let modulus = crypto_bigint::Odd::new(key.n().as_ref().clone()).unwrap();
    let params = crypto_bigint::modular::BoxedMontyParams::new(modulus);
    let power = crypto_bigint::modular::BoxedMontyForm::new(block, &params).pow(key.d()).retrieve();
    power.to_be_bytes().to_vec()
}

fn peer() -> PeerCertificate {
    trust().check(&chain(&["rsa.crt"]), NOW).unwrap()
}

/// 0, 1, padding up to the end, 0, content.
fn block(content: &[u8]) -> Vec<u8> {
    let padding = vec![0xff; LEN - 3 - content.len()];
    [&[0, 1], &padding[..], &[0], content].concat()
}

#[test]
fn only_the_exact_block_is_an_ikev1_signature() {
    let (key, peer) = (key(), peer());
    let hash = HashAlg::Sha1.digest(&[MESSAGE]);
    let check = |block: &[u8]| peer.verify_ikev1(&hash, &raw(&key, block));
    let good = block(&hash);
    assert_eq!(check(&good), Ok(()));
    let garbage = |n: usize| vec![0x42; n];
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let sha1_info = hex!("3021300906052b0e03021a05000414");
    for (shape, bad) in [
        ("bytes after the hash", [&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0][..], &hash, &garbage(LEN - 31)].concat()),
        ("one byte after the hash", block(&[&hash[..], &[0]].concat())),
        ("bytes before the hash", block(&[&garbage(4)[..], &hash].concat())),
        ("hash cut short", block(&hash[..19])),
        ("hash cut in front", block(&hash[1..])),
        ("no hash", block(&[])),
        ("DigestInfo around the hash", block(&[&sha1_info[..], &hash].concat())),
        ("encryption block type", with(1, 2)),
        ("block type 0", with(1, 0)),
        ("first byte set", with(0, 0x40)),
        ("hole in the padding", with(100, 0)),
        ("first byte of the padding", with(2, 0xfe)),
        ("last byte of the padding", with(LEN - hash.len() - 2, 0x7f)),
        ("no zero before the hash", with(LEN - hash.len() - 1, 0xff)),
        ("no padding", [&[0, 1, 0][..], &garbage(LEN - 23), &hash].concat()),
        ("nothing", vec![0; LEN]),
        ("one", [&vec![0; LEN - 1][..], &[1]].concat()),
    ] {
        assert_eq!(bad.len(), LEN, "{shape}");
        assert_eq!(check(&bad), Err(PkiError::Signature), "{shape}");
    }
}

#[test]
fn only_the_exact_block_is_a_pkcs_1_signature() {
    let (key, peer) = (key(), peer());
    let hash = HashAlg::Sha256.digest(&[MESSAGE]);
    let check = |block: &[u8]| peer.verify(SignatureAlg::RsaPkcs1Sha256, MESSAGE, &raw(&key, block));
    let info = |head: &[u8]| [head, &hash].concat();
    assert_eq!(check(&block(&info(&hex!("3031300d060960864801650304020105000420")))), Ok(()));
    let garbage = [0x42; 16];
    for (shape, content) in [
        ("parameters left out", info(&hex!("302f300b0609608648016503040201 0420"))),
        ("garbage as parameters", [&hex!("3041301d0609608648016503040201 0410")[..], &garbage, &hex!("0420"), &hash].concat()),
        ("long form of a length", info(&hex!("308131300d060960864801650304020105000420"))),
        ("long form of the hash's length", info(&hex!("3032300d06096086480165030402010500048120"))),
        ("indefinite length", [&hex!("3080300d060960864801650304020105000420")[..], &hash, &[0, 0]].concat()),
        ("constructed hash", [&hex!("3033300d06096086480165030402010500242204 20")[..], &hash].concat()),
        ("bytes after the hash, counted", [&hex!("3041300d060960864801650304020105000420")[..], &hash, &garbage].concat()),
        ("bytes after the hash, not counted", [&hex!("3031300d060960864801650304020105000420")[..], &hash, &garbage].concat()),
        ("hash alone", hash.clone()),
        ("another hash's name", info(&hex!("3031300d060960864801650304020305000420"))),
        ("MD5's name", info(&hex!("3030300c06082a864886f70d020505000420"))),
    ] {
        assert_eq!(check(&block(&content)), Err(PkiError::Signature), "{shape}");
    }
    // Short padding with the rest after the hash: the shape that a cube root can reach.
    let head =
        [&[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0][..], &info(&hex!("3031300d060960864801650304020105000420"))].concat();
    let short = [&head[..], &vec![0x42; LEN - head.len()]].concat();
    assert_eq!(check(&short), Err(PkiError::Signature));
}

#[test]
fn a_number_above_the_modulus_is_no_signature() {
    let (key, peer) = (key(), peer());
    let hash = HashAlg::Sha1.digest(&[MESSAGE]);
    let good = raw(&key, &block(&hash));
    let modulus = key.n().as_ref().to_be_bytes();
    // The same value modulo n, one length longer, as long as it fits.
    let mut sum = vec![0; LEN + 1];
    let mut carry = 0;
    for i in (0..LEN).rev() {
        let v = u16::from(good[i]) + u16::from(modulus[i]) + carry;
        sum[i + 1] = v as u8;
        carry = v >> 8;
    }
    sum[0] = carry as u8;
    for bad in [&sum[..], &sum[1..], &modulus, &[0xff; LEN], &[&[0][..], &good].concat(), &[0; LEN]] {
        assert_eq!(peer.verify_ikev1(&hash, bad), Err(PkiError::Signature));
        assert!(peer.verify(SignatureAlg::RsaPkcs1Sha256, MESSAGE, bad).is_err());
    }
}

/// SubjectPublicKeyInfo around RSAPublicKey.
fn spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, body: &[u8]| [&[tag, 0x82, (body.len() >> 8) as u8, body.len() as u8], body].concat();
    let short = |tag: u8, body: &[u8]| [&[tag, body.len() as u8], body].concat();
    let unsigned = |n: &[u8]| if n[0] & 0x80 == 0 { n.to_vec() } else { [&[0], n].concat() };
    let numbers = [tlv(2, &unsigned(modulus)), short(2, &unsigned(exponent))].concat();
    let bits = [&[0][..], &tlv(0x30, &numbers)].concat();
    tlv(0x30, &[&hex!("300d06092a864886f70d0101010500")[..], &tlv(3, &bits)].concat())
}

#[test]
fn rsa_keys_are_bounded() {
    let key = key();
    let modulus = key.n().as_ref().to_be_bytes();
    let read = |modulus: &[u8], exponent: &[u8]| PublicKey::from_spki(&spki(modulus, exponent)).err();
    assert_eq!(read(&modulus, &[1, 0, 1]), None);
    assert_eq!(read(&modulus, &[3]), None);
    for exponent in [&[1][..], &[2], &[1, 0, 0], &[0], &[2, 0, 0, 0, 1], &[0x80, 0, 0, 0, 1]] {
        assert_eq!(read(&modulus, exponent), Some(PkiError::RsaExponent), "{exponent:?}");
    }
    assert_eq!(read(&modulus, &[1, 0, 0, 0, 0, 0, 1]), Some(PkiError::RsaExponent));
    let odd = |bytes: usize| [&[0xff][..], &vec![0x11; bytes - 1]].concat();
    assert_eq!(read(&odd(1024), &[1, 0, 1]), None);
    assert_eq!(read(&odd(1025), &[1, 0, 1]), Some(PkiError::RsaSize(8200)));
    assert_eq!(read(&odd(4000), &[1, 0, 1]), Some(PkiError::RsaSize(32000)));
    assert_eq!(read(&odd(255), &[1, 0, 1]), Some(PkiError::RsaSize(2040)));
    let mut even = modulus.to_vec();
    even[LEN - 1] &= 0xfe;
    assert_eq!(read(&even, &[1, 0, 1]), Some(PkiError::KeyUnsupported));
}
