//! The fixed header (RFC 7296 3.1).
//!
//! ```text
//!  0               8 bytes  initiator's SPI
//!  8               8 bytes  responder's SPI
//! 16  next payload | version (major, minor) | exchange type | flags
//! 20               4 bytes  message ID
//! 24               4 bytes  length of the whole message
//! ```

use super::{NotifyType, Outgoing, Protocol};
use crate::id::IkeSaId;
use crate::wire::{Decode, Reader, Writer};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 28;

const VERSION_2_0: u8 = 0x20;
const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// Exchange types that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Exchange {
    /// IKE_SA_INIT.
    SaInit,
    /// IKE_AUTH.
    Auth,
    /// CREATE_CHILD_SA.
    CreateChildSa,
    /// INFORMATIONAL.
    Informational,
    /// IKE_INTERMEDIATE (RFC 9242).
    Intermediate,
    /// IKE_FOLLOWUP_KE (RFC 9370).
    FollowupKe,
}

impl Exchange {
    /// Every exchange.
    pub const ALL: [Self; 6] = [Self::SaInit, Self::Auth, Self::CreateChildSa, Self::Informational, Self::Intermediate, Self::FollowupKe];

    /// Number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::SaInit => 34,
            Self::Auth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::Intermediate => 43,
            Self::FollowupKe => 44,
        }
    }

    /// The exchange with this number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.number() == n)
    }
}

/// Why a header was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// Shorter than a header.
    Short,
    /// Length field differs from the datagram's length.
    Length(u32),
    /// Major version other than 2. The answer to a higher one is [`invalid_major_version`].
    Version(u8),
    /// An exchange type that is not spoken.
    Exchange(u8),
    /// SPI of the initiator is zero, or that of the responder is zero (not zero) where it must not (must) be.
    Spi,
    /// Message ID or flags that IKE_SA_INIT cannot have.
    SaInit,
}

impl HeaderFault {
    /// Stable counter label.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Short => "header_short",
            Self::Length(_) => "header_length",
            Self::Version(_) => "header_version",
            Self::Exchange(_) => "unknown_exchange",
            Self::Spi => "header_spi",
            Self::SaInit => "header_sa_init",
        }
    }
}

/// A decoded header. The length is not kept: it equals the datagram's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// SPIs.
    pub id: IkeSaId,
    /// Type of the first payload, as on the wire; set by the builder when sending.
    pub next: u8,
    /// Exchange.
    pub exchange: Exchange,
    /// Sent by the original initiator of the IKE SA.
    pub initiator: bool,
    /// An answer.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
}

/// The fields as they stand on the wire.
struct Raw {
    id: IkeSaId,
    next: u8,
    version: u8,
    exchange: u8,
    flags: u8,
    message_id: u32,
    length: u32,
}

impl Raw {
    fn read(datagram: &[u8]) -> Decode<Self> {
        let mut r = Reader::new(datagram);
        Ok(Self {
            id: IkeSaId { initiator: r.array("initiator SPI")?, responder: r.array("responder SPI")? },
            next: r.u8("next payload")?,
            version: r.u8("version")?,
            exchange: r.u8("exchange type")?,
            flags: r.u8("flags")?,
            message_id: r.u32("message ID")?,
            length: r.u32("length")?,
        })
    }
}

impl Header {
    /// Header of a request or response that is to be sent.
    pub fn new(id: IkeSaId, exchange: Exchange, initiator: bool, response: bool, message_id: u32) -> Self {
        Self { id, next: 0, exchange, initiator, response, message_id }
    }

    /// Reads and checks the header of a whole datagram (without the non-ESP marker), cheapest checks first. The minor version and the
    /// reserved flags are ignored.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn decode(datagram: &[u8]) -> Result<Self, HeaderFault> {
        let raw = Raw::read(datagram).map_err(|_| HeaderFault::Short)?;
        if raw.length as usize != datagram.len() {
            return Err(HeaderFault::Length(raw.length));
        }
        if raw.version >> 4 != 2 {
            return Err(HeaderFault::Version(raw.version));
        }
        let exchange = Exchange::from_number(raw.exchange).ok_or(HeaderFault::Exchange(raw.exchange))?;
        if raw.id.initiator == [0; 8] {
            return Err(HeaderFault::Spi);
        }
        let (initiator, response) = (raw.flags & FLAG_INITIATOR != 0, raw.flags & FLAG_RESPONSE != 0);
        if exchange == Exchange::SaInit {
            if raw.message_id != 0 || initiator == response {
                return Err(HeaderFault::SaInit);
            }
            // The responder has no SPI yet in a request; a response that refuses may have none either.
            if !response && raw.id.responder != [0; 8] {
                return Err(HeaderFault::Spi);
            }
        } else if raw.id.responder == [0; 8] {
            return Err(HeaderFault::Spi);
        }
        Ok(Self { id: raw.id, next: raw.next, exchange, initiator, response, message_id: raw.message_id })
    }

    /// Writes the header of a message of `length` bytes in all.
    pub fn encode(&self, length: usize, w: &mut Writer) {
        w.bytes(&self.id.initiator).bytes(&self.id.responder);
        let flags = if self.initiator { FLAG_INITIATOR } else { 0 } | if self.response { FLAG_RESPONSE } else { 0 };
        w.u8(self.next).u8(VERSION_2_0).u8(self.exchange.number()).u8(flags);
        w.u32(self.message_id).u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    /// Header of the answer to this request.
    pub fn answer(&self) -> Self {
        Self { next: 0, initiator: !self.initiator, response: true, ..*self }
    }
}

/// The answer to a request of a higher major version (RFC 7296 2.5): unprotected, shorter than or equal to any request. `None` when the
/// datagram is a response, or no header of a higher version.
pub fn invalid_major_version(datagram: &[u8]) -> Option<Vec<u8>> {
    let raw = Raw::read(datagram).ok()?;
    let whole = raw.length as usize == datagram.len() && raw.id.initiator != [0; 8];
    if !whole || raw.version >> 4 < 3 || raw.flags & FLAG_RESPONSE != 0 {
        return None;
    }
    let header = Header::new(raw.id, Exchange::SaInit, raw.flags & FLAG_INITIATOR == 0, true, raw.message_id);
    let mut out = Outgoing::new();
    out.notify(Protocol::None, &[], NotifyType::INVALID_MAJOR_VERSION, &[]);
    let mut bytes = out.plain(&header);
    // The exchange type is the request's, whatever that is.
    bytes[18] = raw.exchange;
    Some(bytes)
}
