//! Notify and Delete payloads (RFC 7296 3.10, 3.11).

use crate::id::Spi;
use crate::wire::{Decode, DecodeError, Reader};
use std::fmt;

/// SPIs in one Delete payload.
const SPIS_MAX: usize = 256;

/// Protocol of an SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// Notify only: it concerns no SA, or the IKE SA of the message.
    None,
    /// IKE.
    Ike,
    /// AH.
    Ah,
    /// ESP.
    Esp,
    /// Any other number: kept to be refused or skipped.
    Other(u8),
}

impl Protocol {
    /// Number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Ike => 1,
            Self::Ah => 2,
            Self::Esp => 3,
            Self::Other(n) => n,
        }
    }

    /// The protocol with this number.
    pub const fn from_number(n: u8) -> Self {
        match n {
            0 => Self::None,
            1 => Self::Ike,
            2 => Self::Ah,
            3 => Self::Esp,
            n => Self::Other(n),
        }
    }
}

/// Notify message type: errors below 16384, status above.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NotifyType(pub u16);

macro_rules! notify_types {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)+) => {
        impl NotifyType {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// Name in the registry, when it is one we know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)+
                    _ => None,
                }
            }
        }
    };
}

notify_types! {
    /// RFC 7296 2.5: data is the payload type.
    UNSUPPORTED_CRITICAL_PAYLOAD = 1,
    /// RFC 7296 2.21.4.
    INVALID_IKE_SPI = 4,
    /// RFC 7296 2.5.
    INVALID_MAJOR_VERSION = 5,
    /// RFC 7296 2.21: fatal.
    INVALID_SYNTAX = 7,
    /// RFC 7296 2.3.
    INVALID_MESSAGE_ID = 9,
    /// RFC 7296 1.5.
    INVALID_SPI = 11,
    /// RFC 7296 2.7.
    NO_PROPOSAL_CHOSEN = 14,
    /// RFC 7296 1.3: data is the group wanted, 2 bytes.
    INVALID_KE_PAYLOAD = 17,
    /// RFC 7296 2.21.2: fatal.
    AUTHENTICATION_FAILED = 24,
    /// RFC 7296 2.9.
    SINGLE_PAIR_REQUIRED = 34,
    /// RFC 7296 1.3.
    NO_ADDITIONAL_SAS = 35,
    /// RFC 7296 2.19.
    INTERNAL_ADDRESS_FAILURE = 36,
    /// RFC 7296 2.19.
    FAILED_CP_REQUIRED = 37,
    /// RFC 7296 2.9.
    TS_UNACCEPTABLE = 38,
    /// RFC 7296 2.9.
    INVALID_SELECTORS = 39,
    /// RFC 7296 2.25.
    TEMPORARY_FAILURE = 43,
    /// RFC 7296 2.25: protocol and SPI name the SA.
    CHILD_SA_NOT_FOUND = 44,
    /// RFC 9370 2.2.4.
    STATE_NOT_FOUND = 47,
    /// RFC 9611 5.1.
    TS_MAX_QUEUE = 48,
    /// RFC 7296 2.4.
    INITIAL_CONTACT = 16384,
    /// RFC 7296 2.3: data is the window, 4 bytes.
    SET_WINDOW_SIZE = 16385,
    /// RFC 7296 2.9.
    ADDITIONAL_TS_POSSIBLE = 16386,
    /// RFC 7296 2.22.
    IPCOMP_SUPPORTED = 16387,
    /// RFC 7296 2.23: data is a SHA-1 digest.
    NAT_DETECTION_SOURCE_IP = 16388,
    /// RFC 7296 2.23: data is a SHA-1 digest.
    NAT_DETECTION_DESTINATION_IP = 16389,
    /// RFC 7296 2.6: data is 1 to 64 bytes.
    COOKIE = 16390,
    /// RFC 7296 1.3.1.
    USE_TRANSPORT_MODE = 16391,
    /// RFC 7296 3.10.1.
    HTTP_CERT_LOOKUP_SUPPORTED = 16392,
    /// RFC 7296 1.3.3: protocol and SPI name the SA that is replaced.
    REKEY_SA = 16393,
    /// RFC 7296 1.3.1.
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
    /// RFC 7296 1.3.1.
    NON_FIRST_FRAGMENTS_ALSO = 16395,
    /// RFC 4555.
    MOBIKE_SUPPORTED = 16396,
    /// RFC 4478: data is seconds, 4 bytes.
    AUTH_LIFETIME = 16403,
    /// RFC 5685.
    REDIRECT_SUPPORTED = 16406,
    /// RFC 5998.
    EAP_ONLY_AUTHENTICATION = 16417,
    /// RFC 6023.
    CHILDLESS_IKEV2_SUPPORTED = 16418,
    /// RFC 6290.
    QUICK_CRASH_DETECTION = 16419,
    /// RFC 6311.
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
    /// RFC 6311.
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421,
    /// RFC 6311 5.1: nonce, next send ID, next receive ID; 4 bytes each.
    IKEV2_MESSAGE_ID_SYNC = 16422,
    /// RFC 6311 5.2: delta to add, 4 or 8 bytes.
    IPSEC_REPLAY_COUNTER_SYNC = 16423,
    /// RFC 7383.
    IKEV2_FRAGMENTATION_SUPPORTED = 16430,
    /// RFC 7427: data is hash numbers, 2 bytes each.
    SIGNATURE_HASH_ALGORITHMS = 16431,
    /// RFC 8784.
    USE_PPK = 16435,
    /// RFC 8784: type of the PPK_ID (1 byte) and the PPK_ID.
    PPK_IDENTITY = 16436,
    /// RFC 8784: AUTH data without the PPK.
    NO_PPK_AUTH = 16437,
    /// RFC 9242.
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
    /// RFC 9370: data links the exchanges.
    ADDITIONAL_KEY_EXCHANGE = 16441,
    /// RFC 9593.
    SUPPORTED_AUTH_METHODS = 16443,
    /// RFC 9611: data is an opaque name of the resource.
    SA_RESOURCE_INFO = 16444,
}

impl NotifyType {
    /// True for an error, known or not (RFC 7296 3.10.1: an unknown error in a response means that the request failed).
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Debug for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "notify {}", self.0),
        }
    }
}

impl fmt::Display for NotifyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A Notify payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify<'a> {
    /// Protocol of the SA it concerns.
    pub protocol: Protocol,
    /// SPI of the SA it concerns, as the sender of the payload expects it inbound: 4 bytes, or none.
    pub spi: &'a [u8],
    /// Type.
    pub kind: NotifyType,
    /// Data.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    pub(super) fn decode(mut r: Reader<'a>) -> Decode<Self> {
        let protocol = Protocol::from_number(r.u8("notify protocol")?);
        let spi_len = r.u8("notify SPI size")?;
        let kind = NotifyType(r.u16("notify type")?);
        let spi = r.take(spi_len.into(), "notify SPI")?;
        Ok(Self { protocol, spi, kind, data: r.rest() })
    }

    /// The SPI of an ESP SA, where it names one.
    pub fn esp_spi(&self) -> Option<Spi> {
        let spi = self.spi.try_into().ok().map(u32::from_be_bytes)?;
        (self.protocol == Protocol::Esp).then_some(Spi(spi))
    }

    /// The group of INVALID_KE_PAYLOAD.
    pub fn group(&self) -> Option<u16> {
        self.data.try_into().ok().map(u16::from_be_bytes)
    }
}

/// A Delete payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// The IKE SA of the message.
    Ike,
    /// ESP SAs, as the sender of the payload expects them inbound.
    Esp(Vec<Spi>),
    /// SAs of a protocol that we never made.
    Other(Protocol),
}

impl Delete {
    pub(super) fn decode(mut r: Reader<'_>) -> Decode<Self> {
        let protocol = Protocol::from_number(r.u8("delete protocol")?);
        let size = r.u8("delete SPI size")?;
        let count = r.u16("delete SPI count")?;
        let fits = match protocol {
            Protocol::Ike => size == 0,
            Protocol::Esp | Protocol::Ah => size == 4,
            Protocol::None | Protocol::Other(_) => true,
        };
        if !fits {
            return Err(DecodeError::Length { field: "delete SPI size", got: size.into() });
        }
        let field = "delete SPI count";
        if usize::from(count) > SPIS_MAX || usize::from(count) * usize::from(size) != r.remaining() || (size == 0 && count != 0) {
            return Err(DecodeError::Length { field, got: count.into() });
        }
        match protocol {
            Protocol::Ike => Ok(Self::Ike),
            Protocol::Esp => Ok(Self::Esp((0..count).map(|_| r.u32(field).map(Spi)).collect::<Decode<_>>()?)),
            Protocol::None | Protocol::Ah | Protocol::Other(_) => Ok(Self::Other(protocol)),
        }
    }
}
