//! SA payloads on the wire.
//!
//! ```text
//! last (0 or 2) | reserved | proposal length | number | protocol | SPI size | transform count | SPI | transforms
//! last (0 or 3) | reserved | transform length | type | reserved | ID | attributes
//! ```

use crate::id::Spi;
use crate::ike::v2::message::Protocol;
use crate::wire::{Decode, DecodeError, Reader, Writer};

/// Proposals in one SA payload.
const PROPOSALS_MAX: usize = 64;

/// Attribute type of the key length; the high bit says that the value stands where a length would.
const KEY_LENGTH: u16 = 0x8000 | 14;
const SHORT: u16 = 0x8000;

/// Transform types (RFC 7296 3.3.2, RFC 9370 2.2.1).
pub mod transform_type {
    /// Encryption.
    pub const ENCR: u8 = 1;
    /// Pseudorandom function.
    pub const PRF: u8 = 2;
    /// Integrity.
    pub const INTEG: u8 = 3;
    /// Key exchange.
    pub const KE: u8 = 4;
    /// Extended sequence numbers.
    pub const ESN: u8 = 5;
    /// First of seven additional key exchanges.
    pub const ADDITIONAL_KE_1: u8 = 6;
    /// Last of seven additional key exchanges.
    pub const ADDITIONAL_KE_7: u8 = 12;
}

/// One transform.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transform {
    /// Type: one of [`transform_type`], or another.
    pub kind: u8,
    /// Number inside the type.
    pub id: u16,
    /// Key length in bits.
    pub key_bits: Option<u16>,
    /// False when it has an attribute that we do not know: such a transform cannot be chosen (RFC 7296 3.3.6).
    pub understood: bool,
}

/// One proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Number: the first of an offer is 1; an answer repeats the one that was chosen.
    pub number: u8,
    /// Protocol.
    pub protocol: Protocol,
    /// SPI of the sender: 4 bytes of ESP, 8 of a rekeyed IKE SA, none of a first IKE SA.
    pub spi: Vec<u8>,
    /// Transforms.
    pub transforms: Vec<Transform>,
}

impl Proposal {
    /// The SPI of an ESP proposal; `None` when it has another length or is reserved (RFC 4303 2.1).
    pub fn esp_spi(&self) -> Option<Spi> {
        let spi = self.spi.as_slice().try_into().ok().map(u32::from_be_bytes)?;
        (spi > 255).then_some(Spi(spi))
    }

    /// The SPI of the proposal for a rekeyed IKE SA; `None` when it has another length or is zero.
    pub fn ike_spi(&self) -> Option<[u8; 8]> {
        self.spi.as_slice().try_into().ok().filter(|spi| *spi != [0; 8])
    }

    /// Reads the body of an SA payload.
    pub(in crate::ike::v2) fn decode_all(mut r: Reader<'_>) -> Decode<Vec<Self>> {
        let mut out = Vec::new();
        loop {
            if out.len() == PROPOSALS_MAX {
                return Err(DecodeError::Length { field: "proposals", got: PROPOSALS_MAX + 1 });
            }
            let last = r.u8("proposal")?;
            r.u8("reserved")?;
            let length = usize::from(r.u16("proposal length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length { field: "proposal length", got: length })?;
            out.push(Self::decode(r.sub(body, "proposal")?)?);
            match (last, r.is_empty()) {
                (0, true) => return Ok(out),
                (2, false) => {}
                _ => return Err(DecodeError::Value { field: "last proposal", got: last.into() }),
            }
        }
    }

    fn decode(mut r: Reader<'_>) -> Decode<Self> {
        let number = r.u8("proposal number")?;
        let protocol = Protocol::from_number(r.u8("proposal protocol")?);
        let spi_len = r.u8("SPI size")?;
        let count = r.u8("transform count")?;
        let spi = r.take(spi_len.into(), "SPI")?.to_vec();
        let mut transforms = Vec::with_capacity(usize::from(count).min(r.remaining() / 8));
        for left in (0..count).rev() {
            let last = r.u8("transform")?;
            if last != if left == 0 { 0 } else { 3 } {
                return Err(DecodeError::Value { field: "last transform", got: last.into() });
            }
            r.u8("reserved")?;
            let length = usize::from(r.u16("transform length")?);
            let body = length.checked_sub(4).ok_or(DecodeError::Length { field: "transform length", got: length })?;
            transforms.push(Transform::decode(r.sub(body, "transform")?)?);
        }
        r.finish("proposal")?;
        Ok(Self { number, protocol, spi, transforms })
    }

    /// Body of an SA payload.
    pub(in crate::ike::v2) fn encode_all(proposals: &[Self]) -> Vec<u8> {
        let mut w = Writer::new();
        for (i, p) in proposals.iter().enumerate() {
            let at = w.len();
            w.u8(if i + 1 == proposals.len() { 0 } else { 2 }).u8(0).u16(0);
            w.u8(p.number).u8(p.protocol.number()).u8(p.spi.len() as u8).u8(p.transforms.len() as u8).bytes(&p.spi);
            for (j, t) in p.transforms.iter().enumerate() {
                w.u8(if j + 1 == p.transforms.len() { 0 } else { 3 }).u8(0);
                w.u16(if t.key_bits.is_some() { 12 } else { 8 }).u8(t.kind).u8(0).u16(t.id);
                if let Some(bits) = t.key_bits {
                    w.u16(KEY_LENGTH).u16(bits);
                }
            }
            let length = (w.len() - at) as u16;
            w.patch_u16(at + 2, length);
        }
        w.into_vec()
    }
}

impl Transform {
    fn decode(mut r: Reader<'_>) -> Decode<Self> {
        let kind = r.u8("transform type")?;
        r.u8("reserved")?;
        let mut t = Self { kind, id: r.u16("transform ID")?, key_bits: None, understood: true };
        while !r.is_empty() {
            let attribute = r.u16("attribute type")?;
            let value = r.u16("attribute length")?;
            if attribute == KEY_LENGTH && t.key_bits.is_none() {
                t.key_bits = Some(value);
                continue;
            }
            // Unknown, a key length in the long form, or two of them.
            t.understood = false;
            if attribute & SHORT == 0 {
                r.take(value.into(), "attribute value")?;
            }
        }
        Ok(t)
    }
}
