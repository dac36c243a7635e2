//! Cisco's fragmentation of ISAKMP messages: a message in clear whose only payload is a piece of another message.
//!
//! ```text
//! header of the whole message, with next payload 132 and flags 0
//! 0 (1) | reserved (1) | payload length (2) | fragment ID (2) | number, from 1 (1) | flags: 1 = last (1) | data
//! ```

use super::header::HEADER_LEN;
use super::payload::{Chain, PayloadKind, Payloads};
use crate::crypto::HashAlg;
use crate::wire::{Decode, DecodeError, Reader, Writer};

/// Bytes between the ISAKMP header and the data.
const OVERHEAD: usize = 8;
const FLAG_LAST: u8 = 1;
/// Pieces of one message.
pub const FRAGMENTS_MAX: u8 = 32;

/// One piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    /// Equal in all pieces of one message.
    pub id: u16,
    /// From 1 on.
    pub number: u8,
    /// No piece has a higher number.
    pub last: bool,
    /// Bytes of the whole message, its header included.
    pub data: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Decodes what stands behind the header of a datagram whose first payload is of type 132.
    pub fn decode(bytes: &'a [u8]) -> Decode<Self> {
        let payloads = Payloads::decode_clear(PayloadKind::Fragment.number(), bytes)?;
        payloads.only(&[PayloadKind::Fragment])?;
        let mut r = Reader::new(payloads.one(PayloadKind::Fragment)?);
        let id = r.u16("fragment ID")?;
        let number = r.u8("fragment number")?;
        let flags = r.u8("fragment flags")?;
        let data = r.rest();
        if number == 0 || number > FRAGMENTS_MAX {
            return Err(DecodeError::Value { field: "fragment number", got: number.into() });
        }
        if data.is_empty() {
            return Err(DecodeError::Length { field: "fragment data", got: 0 });
        }
        Ok(Self { id, number, last: flags & FLAG_LAST != 0, data })
    }

    /// The pieces of a whole message, each a datagram of at most `max` bytes; `None` when it needs too many.
    pub fn split(message: &[u8], max: usize) -> Option<Vec<Vec<u8>>> {
        let header = message.get(..HEADER_LEN)?;
        let room = max.checked_sub(HEADER_LEN + OVERHEAD).filter(|n| *n > 0)?;
        let total = message.len().div_ceil(room);
        if total > usize::from(FRAGMENTS_MAX) {
            return None;
        }
        // A repetition of the message gets the same number, another message most likely another one.
        let digest = HashAlg::Sha256.digest(&[message]);
        let id = [*digest.first()?, *digest.get(1)?];
        let piece = |(n, data): (usize, &[u8])| {
            let number = n + 1;
            let mut body = Writer::new();
            body.bytes(&id).u8(number as u8).u8(if number == total { FLAG_LAST } else { 0 }).bytes(data);
            let mut chain = Chain::new();
            chain.push(PayloadKind::Fragment, body.as_slice());
            let mut w = Writer::new();
            // Cookies; next payload; version, exchange; no flags; message ID; length.
            w.bytes(&header[..16]).u8(PayloadKind::Fragment.number()).bytes(&header[17..19]).u8(0).bytes(&header[20..24]);
            w.u32((HEADER_LEN + chain.bytes().len()) as u32).bytes(chain.bytes());
            w.into_vec()
        };
        Some(message.chunks(room).enumerate().map(piece).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::v1::message::Header;

    fn message(len: usize) -> Vec<u8> {
        let mut m: Vec<u8> = (0..len).map(|n| n as u8).collect();
        m[16..20].copy_from_slice(&[8, 0x10, 2, 1]);
        m[24..28].copy_from_slice(&(len as u32).to_be_bytes());
        m
    }

    #[test]
    fn pieces_survive_the_wire() {
        for (len, max, count) in [(1000, 1036, 1), (1001, 1036, 2), (3000, 1036, 3), (32 * 64, 100, 32)] {
            let whole = message(len);
            let pieces = Fragment::split(&whole, max).unwrap();
            assert_eq!(pieces.len(), count);
            let mut joined = Vec::new();
            for (n, piece) in pieces.iter().enumerate() {
                assert!(piece.len() <= max);
                let header = Header::decode(piece).unwrap();
                assert_eq!((header.next, header.flags), (132, 0));
                assert_eq!(piece[..16], whole[..16]);
                let f = Fragment::decode(&piece[HEADER_LEN..]).unwrap();
                assert_eq!((usize::from(f.number), f.last), (n + 1, n + 1 == count));
                joined.extend_from_slice(f.data);
            }
            assert_eq!(joined, whole);
        }
        assert_eq!(Fragment::split(&message(32 * 64 + 1), 100), None);
        assert_eq!(Fragment::split(&message(100), 36), None);
    }

    #[test]
    fn broken_pieces_are_errors() {
        let cases: [(&str, &[u8]); 8] = [
            ("length 4 (CVE-2016-1287)", &[0, 0, 0, 4]),
            ("length 7 (CVE-2016-1287)", &[0, 0, 0, 7, 0, 1, 1]),
            ("length 0", &[0, 0, 0, 0, 0, 1, 1, 1, 9]),
            ("no data (CVE-2009-1574)", &[0, 0, 0, 8, 0, 1, 1, 1]),
            ("number 0", &[0, 0, 0, 9, 0, 1, 0, 1, 9]),
            ("number 255", &[0, 0, 0, 9, 0, 1, 255, 1, 9]),
            ("another payload behind it", &[13, 0, 0, 9, 0, 1, 1, 1, 9, 0, 0, 0, 4]),
            ("past the end", &[0, 0, 0, 10, 0, 1, 1, 1, 9]),
        ];
        for (name, bytes) in cases {
            assert!(Fragment::decode(bytes).is_err(), "{name}");
        }
        assert!(Fragment::decode(&[0, 0, 0, 9, 0, 1, 1, 1, 9]).is_ok());
    }
}
