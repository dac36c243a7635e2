//! The fixed header (RFC 2408 3.1).
//!
//! ```text
//!  0               8 bytes  initiator cookie
//!  8               8 bytes  responder cookie
//! 16  next payload | version (major, minor) | exchange type | flags
//! 20               4 bytes  message ID
//! 24               4 bytes  length of the whole message
//! ```

use crate::id::IkeSaId;
use crate::wire::{Reader, Writer};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 28;

/// Bits of the flags octet.
pub mod flag {
    /// Payloads after the header are encrypted.
    pub const ENCRYPTED: u8 = 1;
    /// Key exchange synchronisation; ignored.
    pub const COMMIT: u8 = 2;
    /// Authenticated but not encrypted notify; never used by us.
    pub const AUTH_ONLY: u8 = 4;
    /// Every bit that has a meaning.
    pub const KNOWN: u8 = ENCRYPTED | COMMIT | AUTH_ONLY;
}

const VERSION_1_0: u8 = 0x10;

/// Exchange types that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// Identity protection: main mode.
    Main,
    /// Aggressive mode.
    Aggressive,
    /// Informational.
    Informational,
    /// Quick mode.
    Quick,
}

impl Exchange {
    /// Number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Main => 2,
            Self::Aggressive => 4,
            Self::Informational => 5,
            Self::Quick => 32,
        }
    }
}

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// Shorter than a header.
    Short,
    /// Length field differs from the datagram's length.
    Length(u32),
    /// Not version 1.0.
    Version(u8),
    /// Transaction exchange (XAUTH, mode config): refused by policy.
    Transaction,
    /// Any other exchange type.
    Exchange(u8),
    /// A flag bit without meaning.
    Flags(u8),
    /// Initiator cookie of zero.
    Cookie,
    /// First payload of an unknown type.
    NextPayload(u8),
}

impl HeaderFault {
    /// Stable counter label.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Short => "header_short",
            Self::Length(_) => "header_length",
            Self::Version(_) => "header_version",
            Self::Transaction => "transaction_exchange",
            Self::Exchange(_) => "unknown_exchange",
            Self::Flags(_) => "header_flags",
            Self::Cookie => "cookie_zero",
            Self::NextPayload(_) => "unknown_payload",
        }
    }
}

/// A decoded header. The length is not kept: it equals the datagram's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Cookies.
    pub id: IkeSaId,
    /// Type of the first payload, as on the wire.
    pub next: u8,
    /// Exchange.
    pub exchange: Exchange,
    /// Flags.
    pub flags: u8,
    /// Message ID; zero in phase 1.
    pub message_id: u32,
}

impl Header {
    /// Reads and checks the header of a whole datagram, cheapest checks first.
    pub fn decode(datagram: &[u8]) -> Result<Self, HeaderFault> {
        let mut r = Reader::new(datagram);
        let short = |_| HeaderFault::Short;
        let initiator = r.array::<8>("initiator cookie").map_err(short)?;
        let responder = r.array::<8>("responder cookie").map_err(short)?;
        let next = r.u8("next payload").map_err(short)?;
        let version = r.u8("version").map_err(short)?;
        let exchange = r.u8("exchange type").map_err(short)?;
        let flags = r.u8("flags").map_err(short)?;
        let message_id = r.u32("message ID").map_err(short)?;
        let length = r.u32("length").map_err(short)?;
        if length as usize != datagram.len() {
            return Err(HeaderFault::Length(length));
        }
        if version != VERSION_1_0 {
            return Err(HeaderFault::Version(version));
        }
        let exchange = match exchange {
            2 => Exchange::Main,
            4 => Exchange::Aggressive,
            5 => Exchange::Informational,
            32 => Exchange::Quick,
            6 => return Err(HeaderFault::Transaction),
            other => return Err(HeaderFault::Exchange(other)),
        };
        if flags & !flag::KNOWN != 0 {
            return Err(HeaderFault::Flags(flags));
        }
        if initiator == [0; 8] {
            return Err(HeaderFault::Cookie);
        }
        if super::PayloadKind::from_number(next).is_none() {
            return Err(HeaderFault::NextPayload(next));
        }
        Ok(Self { id: IkeSaId { initiator, responder }, next, exchange, flags, message_id })
    }

    /// Writes the header of a message of `length` bytes in all.
    pub fn encode(&self, length: usize, w: &mut Writer) {
        w.bytes(&self.id.initiator).bytes(&self.id.responder);
        w.u8(self.next).u8(VERSION_1_0).u8(self.exchange.number()).u8(self.flags);
        w.u32(self.message_id).u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: IkeSaId { initiator: [1; 8], responder: [2; 8] },
            next: 8,
            exchange: Exchange::Quick,
            flags: flag::ENCRYPTED,
            message_id: 0x0102_0304,
        }
    }

    fn bytes() -> Vec<u8> {
        let mut w = Writer::new();
        header().encode(HEADER_LEN, &mut w);
        w.into_vec()
    }

    #[test]
    fn a_header_survives_the_wire() {
        assert_eq!(Header::decode(&bytes()), Ok(header()));
        assert_eq!(bytes(), hex_literal::hex!("0101010101010101 0202020202020202 08 10 20 01 01020304 0000001c"),);
    }

    #[test]
    fn each_broken_field_has_its_own_refusal() {
        let cases: &[(usize, u8, HeaderFault)] = &[
            (27, 0x1d, HeaderFault::Length(29)),
            (27, 0, HeaderFault::Length(0)),
            (24, 0xff, HeaderFault::Length(0xff00_001c)),
            (17, 0x20, HeaderFault::Version(0x20)),
            (17, 0x11, HeaderFault::Version(0x11)),
            (18, 6, HeaderFault::Transaction),
            (18, 34, HeaderFault::Exchange(34)),
            (18, 0, HeaderFault::Exchange(0)),
            (19, 0x81, HeaderFault::Flags(0x81)),
            (16, 15, HeaderFault::NextPayload(15)),
            (16, 33, HeaderFault::NextPayload(33)),
        ];
        for &(at, value, fault) in cases {
            let mut b = bytes();
            b[at] = value;
            assert_eq!(Header::decode(&b), Err(fault), "byte {at} = {value:#x}");
        }
        let mut b = bytes();
        b[..8].fill(0);
        assert_eq!(Header::decode(&b), Err(HeaderFault::Cookie));
        for n in 0..HEADER_LEN {
            assert_eq!(Header::decode(&bytes()[..n]), Err(HeaderFault::Short));
        }
    }
}
