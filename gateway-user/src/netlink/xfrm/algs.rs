//! Algorithms of an SA as the kernel names and packs them: which attribute, which name, which lengths.

use super::super::message::*;
use super::codec::Unfit;
use super::weak;
use crate::crypto::{CipherAlg, IntegAlg};
use crate::sad::{ChildSa, EspKeys};
use subtle::ConstantTimeEq;

const XFRMA_ALG_CRYPT: u16 = 2;
const XFRMA_ALG_AEAD: u16 = 18;
const XFRMA_ALG_AUTH_TRUNC: u16 = 20;

/// The kernel's name. Keys of the modes with a salt or nonce carry it behind the key, as our key material does.
const fn cipher_name(cipher: CipherAlg) -> &'static str {
    match cipher {
        CipherAlg::Des => "cbc(des)",
        CipherAlg::TripleDes => "cbc(des3_ede)",
        CipherAlg::Aes128 | CipherAlg::Aes192 | CipherAlg::Aes256 => "cbc(aes)",
        CipherAlg::Null => "ecb(cipher_null)",
        CipherAlg::AesCtr(_) => "rfc3686(ctr(aes))",
        CipherAlg::AesGcm(..) => "rfc4106(gcm(aes))",
        CipherAlg::AesCcm(..) => "rfc4309(ccm(aes))",
        CipherAlg::ChaCha20Poly1305 => "rfc7539esp(chacha20,poly1305)",
    }
}

const fn integ_name(integ: IntegAlg) -> &'static str {
    match integ {
        IntegAlg::HmacMd5 => "hmac(md5)",
        IntegAlg::HmacSha1 => "hmac(sha1)",
        IntegAlg::HmacSha256 => "hmac(sha256)",
        IntegAlg::HmacSha384 => "hmac(sha384)",
        IntegAlg::HmacSha512 => "hmac(sha512)",
        IntegAlg::AesXcbc => "xcbc(aes)",
        IntegAlg::AesCmac => "cmac(aes)",
    }
}

/// What the kernel would take and we do not: no integrity, wrong lengths, weak keys.
pub(super) fn check(child: &ChildSa, keys: &EspKeys) -> Result<(), Unfit> {
    match (child.encr.is_aead(), child.integ) {
        (false, None) => return Err(Unfit::NoIntegrity),
        (true, Some(_)) => return Err(Unfit::SecondIntegrity),
        (true, None) | (false, Some(_)) => {}
    }
    let sized = |what, got, want| if got == want { Ok(()) } else { Err(Unfit::KeyLength { what, got, want }) };
    sized("encryption", keys.encr.len(), child.encr.keymat_len())?;
    sized("integrity", keys.integ.len(), child.integ.map_or(0, IntegAlg::key_len))?;
    let weak = match child.encr {
        CipherAlg::Des => weak::des(keys.encr.expose()),
        CipherAlg::TripleDes => weak::triple_des(keys.encr.expose()),
        CipherAlg::Aes128
        | CipherAlg::Aes192
        | CipherAlg::Aes256
        | CipherAlg::Null
        | CipherAlg::AesCtr(_)
        | CipherAlg::AesGcm(..)
        | CipherAlg::AesCcm(..)
        | CipherAlg::ChaCha20Poly1305 => false,
    };
    if weak { Err(Unfit::WeakKey) } else { Ok(()) }
}

fn name64(r: &mut Request, name: &str) {
    r.bytes(name.as_bytes()).zeros(64 - name.len());
}

/// `XFRMA_ALG_AEAD`, or `XFRMA_ALG_CRYPT` and `XFRMA_ALG_AUTH_TRUNC`. Lengths are in bits.
pub(super) fn put(r: &mut Request, child: &ChildSa, keys: &EspKeys) {
    let encr = keys.encr.expose();
    if child.encr.is_aead() {
        r.attr(XFRMA_ALG_AEAD, |r| {
            name64(r, cipher_name(child.encr));
            r.u32(encr.len() as u32 * 8).u32(child.encr.icv_len() as u32 * 8).bytes(encr);
        });
        return;
    }
    r.attr(XFRMA_ALG_CRYPT, |r| {
        name64(r, cipher_name(child.encr));
        r.u32(encr.len() as u32 * 8).bytes(encr);
    });
    if let Some(integ) = child.integ {
        r.attr(XFRMA_ALG_AUTH_TRUNC, |r| {
            name64(r, integ_name(integ));
            // Always with its length: the kernel's own default for HMAC-SHA-256 is the 96 bits of a draft.
            r.u32(keys.integ.len() as u32 * 8).u32(integ.trunc_bits()).bytes(keys.integ.expose());
        });
    }
}

/// True when the attributes of an SA name these algorithms, lengths and keys. A kernel in lockdown shows no keys (zeros); they are then
/// taken for equal.
pub(super) fn same(attrs: &[u8], child: &ChildSa, keys: &EspKeys) -> bool {
    let find = |kind: u16| Attrs::after(attrs, 0).find(|(k, _)| *k == kind).map(|(_, v)| v);
    // `bits`: the second length, when there is one, in front of the key.
    let held = |kind: u16, name: &str, bits: Option<u32>, key: &[u8]| {
        find(kind).is_some_and(|v| {
            let named = v.get(..64).is_some_and(|n| n.split(|b| *b == 0).next() == Some(name.as_bytes()));
            let cut = bits.is_none_or(|want| Fields::new(v, 72).is_some_and(|f| f.u32(68) == want));
            let held = v.get(if bits.is_some() { 72 } else { 68 }..).unwrap_or_default();
            let hidden = held.len() == key.len() && held.iter().all(|b| *b == 0);
            named && cut && (hidden || held.ct_eq(key).into())
        })
    };
    let name = cipher_name(child.encr);
    let encr = keys.encr.expose();
    match child.integ {
        None => child.encr.is_aead() && held(XFRMA_ALG_AEAD, name, Some(child.encr.icv_len() as u32 * 8), encr),
        Some(integ) => {
            held(XFRMA_ALG_CRYPT, name, None, encr)
                && held(XFRMA_ALG_AUTH_TRUNC, integ_name(integ), Some(integ.trunc_bits()), keys.integ.expose())
        }
    }
}
