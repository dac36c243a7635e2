//! The Encrypted payload (RFC 7296 3.14, RFC 5282).
//!
//! ```text
//! header | generic header of SK | IV | encrypted (payloads | padding | pad length) | integrity check value
//! ```
//! The integrity check covers everything before it. A combined-mode cipher takes header and generic header as associated data. An
//! encrypted fragment has two more numbers behind the generic header and is the same in all else.

use super::{Fault, HEADER_LEN, Header, PayloadKind};
use crate::crypto::{CipherAlg, CryptoError, IntegAlg, Secret};
use crate::wire::{DecodeError, Reader, Writer};

/// Length of the generic payload header.
const GENERIC_LEN: usize = 4;

/// Keys of one direction of an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealKeys {
    /// Encryption.
    pub encr: CipherAlg,
    /// Integrity; `None` with a combined-mode cipher.
    pub integ: Option<IntegAlg>,
    /// SK_e: `encr.keymat_len()` bytes, salt included.
    pub encr_key: Secret,
    /// SK_a: `integ.key_len()` bytes; empty with a combined-mode cipher.
    pub integ_key: Secret,
}

impl SealKeys {
    /// Length in bytes of the IV that the caller makes: unpredictable for CBC, never repeated under one key for the others.
    pub const fn iv_len(&self) -> usize {
        self.encr.iv_len()
    }

    fn icv_len(&self) -> usize {
        self.integ.map_or(self.encr.icv_len(), IntegAlg::wire_len)
    }

    /// Length in bytes of IV, cipher text and check value for `plain` bytes of payloads.
    pub(in crate::ike::v2) fn sealed_len(&self, plain: usize) -> usize {
        self.iv_len() + (plain + 1).next_multiple_of(self.encr.block_len()) + self.icv_len()
    }
}

/// Content of an Encrypted payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Type of the first payload inside; 0 when there is none.
    pub first: u8,
    /// The chain of payloads.
    pub plain: Vec<u8>,
}

/// Builds a whole message: header, Encrypted payload with `plain` inside.
///
/// # Errors
/// Keys or `iv` have not the length of the algorithm.
pub fn seal(header: &Header, first: u8, plain: &[u8], keys: &SealKeys, iv: &[u8]) -> Result<Vec<u8>, CryptoError> {
    let payload = GENERIC_LEN + keys.sealed_len(plain.len());
    let mut w = Writer::new();
    Header { next: PayloadKind::Sk.number(), ..*header }.encode(HEADER_LEN + payload, &mut w);
    w.u8(first).u8(0).u16(payload as u16);
    seal_body(w, plain, keys, iv)
}

/// Opens a whole message whose only outer payload is an Encrypted payload. `header` is that of `datagram`.
///
/// # Errors
/// The form is wrong, which anybody can see; or [`Fault::Integrity`].
pub fn open(datagram: &[u8], header: &Header, keys: &SealKeys) -> Result<Opened, Fault> {
    let (first, at) = outer(datagram, header, PayloadKind::Sk)?;
    Ok(Opened { first, plain: open_body(datagram, at, keys)? })
}

/// Checks the one outer payload: gives the next-payload field of its generic header and where its body begins.
pub(in crate::ike::v2) fn outer(datagram: &[u8], header: &Header, want: PayloadKind) -> Result<(u8, usize), Fault> {
    if header.next != want.number() {
        return Err(Fault::Unsealed);
    }
    let mut r = Reader::new(datagram);
    r.take(HEADER_LEN, "header")?;
    let first = r.u8("next payload")?;
    r.u8("payload flags")?;
    let length = usize::from(r.u16("payload length")?);
    // The encrypted payload is the last one: it reaches to the end.
    if length != r.remaining() + GENERIC_LEN {
        return Err(DecodeError::Length { field: "encrypted payload", got: length }.into());
    }
    Ok((first, HEADER_LEN + GENERIC_LEN))
}

/// Appends IV, cipher text and check value to `head`, whose lengths count them already.
pub(in crate::ike::v2) fn seal_body(head: Writer, plain: &[u8], keys: &SealKeys, iv: &[u8]) -> Result<Vec<u8>, CryptoError> {
    if iv.len() != keys.iv_len() {
        return Err(CryptoError::IvLength { got: iv.len(), want: keys.iv_len() });
    }
    let pad = (plain.len() + 1).next_multiple_of(keys.encr.block_len()) - plain.len() - 1;
    let mut text = Vec::with_capacity(plain.len() + pad + 1 + keys.icv_len());
    text.extend_from_slice(plain);
    text.resize(plain.len() + pad, 0);
    text.push(pad as u8);
    let mut out = head.into_vec();
    match keys.integ {
        None => {
            keys.encr.aead_seal(keys.encr_key.expose(), iv, &out, &mut text)?;
            out.extend_from_slice(iv);
            out.extend_from_slice(&text);
        }
        Some(integ) => {
            match keys.encr {
                CipherAlg::AesCtr(_) => keys.encr.ctr_apply(keys.encr_key.expose(), iv, &mut text)?,
                cbc => cbc.cbc_encrypt(keys.encr_key.expose(), iv, &mut text)?,
            }
            out.extend_from_slice(iv);
            out.extend_from_slice(&text);
            let mac = integ.mac(keys.integ_key.expose(), &[&out]);
            out.extend_from_slice(&mac);
        }
    }
    Ok(out)
}

/// Verifies and decrypts the body that begins at `at`; everything before is header.
pub(in crate::ike::v2) fn open_body(datagram: &[u8], at: usize, keys: &SealKeys) -> Result<Vec<u8>, Fault> {
    let short = DecodeError::Truncated { field: "encrypted payload" };
    let (head, body) = datagram.split_at_checked(at).ok_or(short)?;
    let (iv, rest) = body.split_at_checked(keys.iv_len()).ok_or(short)?;
    let text_len = rest.len().checked_sub(keys.icv_len()).ok_or(short)?;
    if text_len == 0 || !text_len.is_multiple_of(keys.encr.block_len()) {
        return Err(DecodeError::Length { field: "encrypted payload", got: text_len }.into());
    }
    let mut text = match keys.integ {
        None => {
            let mut text = rest.to_vec();
            keys.encr.aead_open(keys.encr_key.expose(), iv, head, &mut text).map_err(|_| Fault::Integrity)?;
            text
        }
        Some(integ) => {
            let (text, icv) = rest.split_at(text_len);
            let (covered, _) = datagram.split_at(datagram.len() - icv.len());
            if !integ.verify(keys.integ_key.expose(), &[covered], icv) {
                return Err(Fault::Integrity);
            }
            let mut text = text.to_vec();
            match keys.encr {
                CipherAlg::AesCtr(_) => keys.encr.ctr_apply(keys.encr_key.expose(), iv, &mut text),
                cbc => cbc.cbc_decrypt(keys.encr_key.expose(), iv, &mut text),
            }
            .map_err(|_| Fault::Integrity)?;
            text
        }
    };
    let pad = text.pop().map_or(usize::MAX, usize::from);
    let plain = text.len().checked_sub(pad).ok_or(Fault::Integrity)?;
    text.truncate(plain);
    Ok(text)
}
