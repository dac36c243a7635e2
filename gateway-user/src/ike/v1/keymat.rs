//! Key derivation of IKEv1 (RFC 2409 5 and appendix B). Pure functions over bytes.

use crate::crypto::{CipherAlg, HashAlg, Secret};
use crate::id::IkeSaId;

/// Keys that follow from SKEYID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skeyids {
    /// Derives keys of child SAs.
    pub d: Secret,
    /// Authenticates ISAKMP messages.
    pub a: Secret,
    /// Encrypts ISAKMP messages, after [`cipher_key`].
    pub e: Secret,
}

/// SKEYID = prf(pre-shared key, Ni_b | Nr_b).
pub fn skeyid_psk(hash: HashAlg, psk: &Secret, ni: &[u8], nr: &[u8]) -> Secret {
    Secret::new(hash.hmac(psk.expose(), &[ni, nr]))
}

/// SKEYID of signatures = prf(Ni_b | Nr_b, g^xy).
pub fn skeyid_signature(hash: HashAlg, ni: &[u8], nr: &[u8], gxy: &Secret) -> Secret {
    Secret::new(hash.hmac(&[ni, nr].concat(), &[gxy.expose()]))
}

/// SKEYID_d, _a and _e from SKEYID and the Diffie-Hellman secret.
pub fn skeyids(hash: HashAlg, skeyid: &Secret, gxy: &Secret, id: IkeSaId) -> Skeyids {
    let step =
        |previous: &[u8], n: u8| Secret::new(hash.hmac(skeyid.expose(), &[previous, gxy.expose(), &id.initiator, &id.responder, &[n]]));
    let d = step(&[], 0);
    let a = step(d.expose(), 1);
    let e = step(a.expose(), 2);
    Skeyids { d, a, e }
}

/// The encryption key of ISAKMP messages: the first bytes of SKEYID_e, expanded by K1 = prf(SKEYID_e, 0) … when that is too short.
pub fn cipher_key(hash: HashAlg, cipher: CipherAlg, skeyid_e: &Secret) -> Secret {
    let n = cipher.key_len();
    if skeyid_e.len() >= n {
        return Secret::new(skeyid_e.expose()[..n].to_vec());
    }
    expand(n, |previous| hash.hmac(skeyid_e.expose(), &[previous.unwrap_or(&[0])]))
}

/// Repeats `block` (which sees the previous block) until there are `n` bytes. The blocks are never empty.
fn expand(n: usize, block: impl Fn(Option<&[u8]>) -> Vec<u8>) -> Secret {
    let mut out = Vec::with_capacity(n + 64);
    let mut last = Secret::new(block(None));
    loop {
        out.extend_from_slice(last.expose());
        if out.len() >= n {
            break;
        }
        last = Secret::new(block(Some(last.expose())));
    }
    let key = Secret::new(out[..n].to_vec());
    drop(Secret::new(out));
    key
}

/// IV of the first encrypted message of phase 1: hash(g^xi | g^xr), one cipher block.
pub fn phase1_iv(hash: HashAlg, cipher: CipherAlg, gxi: &[u8], gxr: &[u8]) -> Vec<u8> {
    cut(hash.digest(&[gxi, gxr]), cipher)
}

/// IV of the first message of a phase 2 exchange: hash(last phase 1 block | message ID), one cipher block.
pub fn phase2_iv(hash: HashAlg, cipher: CipherAlg, last_block: &[u8], message_id: u32) -> Vec<u8> {
    cut(hash.digest(&[last_block, &message_id.to_be_bytes()]), cipher)
}

fn cut(mut iv: Vec<u8>, cipher: CipherAlg) -> Vec<u8> {
    iv.truncate(cipher.block_len());
    iv
}

/// What HASH_I and HASH_R cover.
#[derive(Clone, Copy, Debug)]
pub struct AuthInput<'a> {
    /// Initiator's public value.
    pub gxi: &'a [u8],
    /// Responder's public value.
    pub gxr: &'a [u8],
    /// Cookies.
    pub id: IkeSaId,
    /// Body of the initiator's SA payload.
    pub sai: &'a [u8],
}

/// HASH_I over the body of the initiator's ID payload.
pub fn hash_i(hash: HashAlg, skeyid: &Secret, x: &AuthInput<'_>, idii: &[u8]) -> Vec<u8> {
    hash.hmac(skeyid.expose(), &[x.gxi, x.gxr, &x.id.initiator, &x.id.responder, x.sai, idii])
}

/// HASH_R over the body of the responder's ID payload.
pub fn hash_r(hash: HashAlg, skeyid: &Secret, x: &AuthInput<'_>, idir: &[u8]) -> Vec<u8> {
    hash.hmac(skeyid.expose(), &[x.gxr, x.gxi, &x.id.responder, &x.id.initiator, x.sai, idir])
}

/// HASH(1) of quick mode and of every Informational: prf(SKEYID_a, M-ID | payloads behind the HASH).
pub fn hash_1(hash: HashAlg, a: &Secret, message_id: u32, rest: &[u8]) -> Vec<u8> {
    hash.hmac(a.expose(), &[&message_id.to_be_bytes(), rest])
}

/// HASH(2): prf(SKEYID_a, M-ID | Ni_b | payloads behind the HASH).
pub fn hash_2(hash: HashAlg, a: &Secret, message_id: u32, ni: &[u8], rest: &[u8]) -> Vec<u8> {
    hash.hmac(a.expose(), &[&message_id.to_be_bytes(), ni, rest])
}

/// HASH(3): prf(SKEYID_a, 0 | M-ID | Ni_b | Nr_b).
pub fn hash_3(hash: HashAlg, a: &Secret, message_id: u32, ni: &[u8], nr: &[u8]) -> Vec<u8> {
    hash.hmac(a.expose(), &[&[0], &message_id.to_be_bytes(), ni, nr])
}

/// What the keys of one direction of a child SA follow from.
#[derive(Clone, Copy, Debug)]
pub struct ChildInput<'a> {
    /// Quick mode's own Diffie-Hellman secret (PFS).
    pub gxy: Option<&'a Secret>,
    /// Protocol identifier.
    pub protocol: u8,
    /// SPI of the receiver of this direction.
    pub spi: u32,
    /// Initiator's nonce.
    pub ni: &'a [u8],
    /// Responder's nonce.
    pub nr: &'a [u8],
}

/// KEYMAT of one direction, `n` bytes (RFC 2409 5.5).
pub fn child_keymat(hash: HashAlg, d: &Secret, x: &ChildInput<'_>, n: usize) -> Secret {
    let gxy = x.gxy.map_or(&[][..], Secret::expose);
    expand(n, |previous| hash.hmac(d.expose(), &[previous.unwrap_or_default(), gxy, &[x.protocol], &x.spi.to_be_bytes(), x.ni, x.nr]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// NIST CAVS 17.3, IKE v1 pre-shared key authentication, ikev1_psk: every case with SHA-1 and SHA-2.
    const CAVS: &str = include_str!("testdata/cavs_ikev1_psk.fax");

    fn unhex(s: &str) -> Vec<u8> {
        assert_eq!(s.len() % 2, 0);
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn skeyids_match_cavs() {
        let mut hash = None;
        let mut fields = std::collections::HashMap::new();
        let mut checked = 0;
        for line in CAVS.lines().chain(["COUNT = end"]) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                match name {
                    "SHA-1" => hash = Some(HashAlg::Sha1),
                    "SHA-256" => hash = Some(HashAlg::Sha256),
                    "SHA-384" => hash = Some(HashAlg::Sha384),
                    "SHA-512" => hash = Some(HashAlg::Sha512),
                    _ => {}
                }
                continue;
            }
            let Some((name, value)) = line.split_once(" = ") else { continue };
            if name == "COUNT" {
                fields.clear();
                continue;
            }
            fields.insert(name, unhex(value));
            if name == "SKEYID_e" {
                let hash = hash.unwrap();
                let f = |n: &str| fields[n].clone();
                let id = IkeSaId { initiator: f("CKY_I").try_into().unwrap(), responder: f("CKY_R").try_into().unwrap() };
                let skeyid = skeyid_psk(hash, &Secret::new(f("pre-shared-key")), &f("Ni"), &f("Nr"));
                assert_eq!(skeyid.expose(), f("SKEYID"));
                let keys = skeyids(hash, &skeyid, &Secret::new(f("g^xy")), id);
                assert_eq!(keys.d.expose(), f("SKEYID_d"));
                assert_eq!(keys.a.expose(), f("SKEYID_a"));
                assert_eq!(keys.e.expose(), f("SKEYID_e"));
                checked += 1;
            }
        }
        assert_eq!(checked, 44);
    }

    /// NIST CAVS 17.3, IKEv1 digital signature authentication, first case of each hash.
    #[test]
    fn signature_keys_are_those_of_nist() {
        let cases = [
            (
                HashAlg::Sha1,
                hex!("8c3bcd3a69831d7f"),
                hex!("d2d9a7ff4fbe95a7"),
                hex!("69a62284195f1680").to_vec(),
                hex!("80c94ba25c8abda5").to_vec(),
                hex!("8ba4cbc73c0187301dc19a975823854dbd641c597f637f8d053a83b9514673eb"),
                [hex!("707197817fb2d90cf54d1842606bdea59b9f4823").to_vec(), hex!("384be709a8a5e63c3ed160cfe3921c4b37d5b32d").to_vec(), hex!("48b327575abe3adba0f279849e289022a13e2b47").to_vec(), hex!("a4a415c8e0c38c0da847c356cc61c24df8025560").to_vec()],
            ),
            (
                HashAlg::Sha256,
                hex!("30293584b2cd84c2"),
                hex!("2402d7e8cf6958ca"),
                hex!("9da2d58f57f039f9").to_vec(),
                hex!("204e0dd0ef04f372").to_vec(),
                hex!("33f17afcb6134cbf1cab59877d42db3582226eff74dd37eb8b75e675645fc169"),
                [hex!("804b4a1e0ec593cfb6e454524149396de234d0dae29f34a8fdb5f9afe76ea652").to_vec(), hex!("f8ee9b1e8b7c03cf1595f7e197b0d873c5665453d512978c418823f53f18e055").to_vec(), hex!("3c9d88515fdd981741b99c482e8d88dacdb6f9fcec2dd22af286087174645f49").to_vec(), hex!("960563201c344d72797c3f92d81a1c36c7dbe9cbd59780cbaaeba7aa23deaf3c").to_vec()],
            ),
            (
                HashAlg::Sha384,
                hex!("1c8aba986a00af0f"),
                hex!("b049d9672f73c920"),
                hex!("cec89d845add83ef").to_vec(),
                hex!("cebd43ab71d17db9").to_vec(),
                hex!("1724dbd893523764bfef8c6fa927856fccfb77ae254358cce29c2769a32915c1"),
                [hex!("6e4514610bf82d0ab7bf0260096f6146a153c712071abb633ced813c572156c783e36874a65a64690ca701d40d56ea18").to_vec(), hex!("b083234e9ed7745911f93eb31faa66fcf88906266830eb17ef166d295cb1f86a3543b8b8efa5df918533df537e9c809c").to_vec(), hex!("938295a374aceb4147a8024c9a007dd313403fd8fd7070dbd0cfbe1ccd308dbfbb7b9e9c64049e4df44ff551016cb7b5").to_vec(), hex!("8595b249dc1fa8599729f87eb6b9dd13bfbfdfd4f9ebd78929bab6ecc402539ad32cb6e7ef4ba6a0f53da14e4df07ed4").to_vec()],
            ),
            (
                HashAlg::Sha512,
                hex!("1ff4d76565b3151a"),
                hex!("1f11b8eb20d57a16"),
                hex!("acadc6314a69cfcd").to_vec(),
                hex!("4e4ad17718fea7ce").to_vec(),
                hex!("b15a9cfce8c8d7eab879d6243029d40188d3b740875a6ac62f56cac4377e2edd"),
                [hex!("f05aa036dfce45a558d40418dea98096e519bc7841e3db3dd93658d118c3e83b502f398ecb1361ec77d38a8855efff407f6f772e5d65b58eb1134096e8478d2b").to_vec(), hex!("3c4be16a631aa49018fa6740745a61ab1f1a2455a96e91f159a134ccfe30303d68721696195e95bfd530510ef2f9532491878710944db7854f00ad13c68fca01").to_vec(), hex!("15ecf5c80b675585e10c4388f6f9c37e8b63269a0a99851f08ba617e28c561f43eaf4112223ff97525bf0b3897f514fce7a3acee10a61ae088c01efc5f643587").to_vec(), hex!("60f6b6c10c2b6bedc085ad6546d993c9ce1f86918d1c935c89d6631170a5dab0e37298f21ca3b7901a53bde55a15fad39f782039ce26fc8c2ba8cbd9d4287669").to_vec()],
            ),
        ];
        for (hash, initiator, responder, ni, nr, gxy, want) in cases {
            let gxy = Secret::new(gxy.to_vec());
            let skeyid = skeyid_signature(hash, &ni, &nr, &gxy);
            let keys = skeyids(hash, &skeyid, &gxy, IkeSaId { initiator, responder });
            assert_eq!(
                [skeyid.expose(), keys.d.expose(), keys.a.expose(), keys.e.expose()],
                want.each_ref().map(Vec::as_slice),
                "{hash:?}"
            );
        }
    }

    #[test]
    fn long_cipher_keys_are_chained_from_a_single_zero() {
        let e = Secret::new((0..16).collect());
        let k1 = HashAlg::Md5.hmac(e.expose(), &[&[0]]);
        let k2 = HashAlg::Md5.hmac(e.expose(), &[&k1]);
        let key = cipher_key(HashAlg::Md5, CipherAlg::Aes256, &e);
        assert_eq!(key.expose(), [k1, k2].concat());
        let short = cipher_key(HashAlg::Md5, CipherAlg::Des, &e);
        assert_eq!(short.expose(), &e.expose()[..8]);
    }

    #[test]
    fn child_keys_chain_and_depend_on_every_input() {
        let d = Secret::new(vec![7; 20]);
        let gxy = Secret::new(vec![9; 32]);
        let x = ChildInput { gxy: None, protocol: 3, spi: 0x0102_0304, ni: b"initiator", nr: b"responder" };
        let all = child_keymat(HashAlg::Sha1, &d, &x, 64);
        let seed: &[u8] = b"\x03\x01\x02\x03\x04initiatorresponder";
        let k1 = HashAlg::Sha1.hmac(d.expose(), &[seed]);
        let k2 = HashAlg::Sha1.hmac(d.expose(), &[&k1, seed]);
        assert_eq!(&all.expose()[..40], [k1, k2].concat());
        assert_eq!(child_keymat(HashAlg::Sha1, &d, &x, 20).expose(), &all.expose()[..20]);
        for other in [
            ChildInput { gxy: Some(&gxy), ..x },
            ChildInput { protocol: 2, ..x },
            ChildInput { spi: 1, ..x },
            ChildInput { ni: b"other", ..x },
        ] {
            assert_ne!(child_keymat(HashAlg::Sha1, &d, &other, 64), all);
        }
    }
}
