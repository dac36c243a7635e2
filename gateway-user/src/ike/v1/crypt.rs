//! Encryption of ISAKMP messages: CBC over everything behind the header (RFC 2409 appendix B).

use crate::crypto::{CipherAlg, Secret};
use crate::ike::v1::message::{Chain, HEADER_LEN, Header, flag};
use crate::wire::Writer;

/// Pads with zeros to the block, encrypts, and moves `iv` to the last block sent. `None` if the cipher refuses the key.
pub(super) fn seal(cipher: CipherAlg, key: &Secret, iv: &mut Vec<u8>, mut header: Header, chain: &Chain) -> Option<Vec<u8>> {
    let mut body = chain.bytes().to_vec();
    body.resize(body.len().next_multiple_of(cipher.block_len()), 0);
    cipher.cbc_encrypt(key.expose(), iv, &mut body).ok()?;
    *iv = body.get(body.len().checked_sub(cipher.block_len())?..)?.to_vec();
    header.next = chain.first();
    header.flags |= flag::ENCRYPTED;
    let mut w = Writer::new();
    header.encode(HEADER_LEN + body.len(), &mut w);
    w.bytes(&body);
    Some(w.into_vec())
}

/// Decrypts the body of a datagram. Gives the plain bytes with their padding and the IV of the next message; the caller takes over
/// that IV only if it accepts the message.
pub(super) fn open(cipher: CipherAlg, key: &Secret, iv: &[u8], datagram: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = datagram.get(HEADER_LEN..)?;
    let block = cipher.block_len();
    if body.is_empty() || !body.len().is_multiple_of(block) {
        return None;
    }
    let next = body.get(body.len() - block..)?.to_vec();
    let mut plain = body.to_vec();
    cipher.cbc_decrypt(key.expose(), iv, &mut plain).ok()?;
    Some((plain, next))
}
