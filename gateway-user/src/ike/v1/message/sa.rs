//! Security association payload: proposals, transforms, attributes (RFC 2408 3.3 to 3.6, RFC 2407 4.6.1).
//!
//! ```text
//! SA:        DOI (4) | situation (4) | proposals
//! proposal:  next: 0 or 2 (1) | reserved (1) | length (2) | number (1) | protocol (1) | SPI size (1) | transforms (1) | SPI | transforms
//! transform: next: 0 or 3 (1) | reserved (1) | length (2) | number (1) | ID (1) | reserved (2) | attributes
//! attribute: 1 + type (15 bits) | value (2)      or      0 + type (15 bits) | length (2) | value
//! ```

use crate::wire::{Decode, DecodeError, Reader, Writer};

/// Protocol identifiers (RFC 2407 4.4.1).
pub mod protocol {
    /// ISAKMP itself.
    pub const ISAKMP: u8 = 1;
    /// Authentication header.
    pub const AH: u8 = 2;
    /// Encapsulating security payload.
    pub const ESP: u8 = 3;
    /// IP compression.
    pub const IPCOMP: u8 = 4;
}

const DOI_IPSEC: u32 = 1;
const SIT_IDENTITY_ONLY: u32 = 1;
/// Bounds of one SA payload.
const PROPOSALS_MAX: usize = 64;
const TRANSFORMS_MAX: usize = 256;
const ATTRIBUTES_MAX: usize = 24;
const SPI_SIZE_MAX: usize = 16;

/// Value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeValue {
    /// Two bytes, in the attribute itself.
    Basic(u16),
    /// Variable length.
    Variable(Vec<u8>),
}

/// One attribute of a transform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// Type without the format bit.
    pub kind: u16,
    /// Value.
    pub value: AttributeValue,
}

impl Attribute {
    /// A basic attribute.
    pub fn basic(kind: u16, value: u16) -> Self {
        Self { kind, value: AttributeValue::Basic(value) }
    }

    /// A number that may be large: basic where it fits, else four or eight bytes (lifetimes).
    pub fn number(kind: u16, value: u64) -> Self {
        match (u16::try_from(value), u32::try_from(value)) {
            (Ok(v), _) => Self::basic(kind, v),
            (_, Ok(v)) => Self { kind, value: AttributeValue::Variable(v.to_be_bytes().to_vec()) },
            _ => Self { kind, value: AttributeValue::Variable(value.to_be_bytes().to_vec()) },
        }
    }

    /// Decodes attributes until the bytes end.
    pub fn decode_list(bytes: &[u8]) -> Decode<Vec<Self>> {
        let mut r = Reader::new(bytes);
        let mut attributes = Vec::new();
        while !r.is_empty() {
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(DecodeError::Length { field: "attribute count", got: ATTRIBUTES_MAX + 1 });
            }
            let kind = r.u16("attribute type")?;
            let value = r.u16("attribute value")?;
            attributes.push(if kind & 0x8000 != 0 {
                Self::basic(kind & 0x7fff, value)
            } else {
                let bytes = r.take(usize::from(value), "attribute value")?;
                if bytes.is_empty() {
                    return Err(DecodeError::Length { field: "attribute value", got: 0 });
                }
                Self { kind, value: AttributeValue::Variable(bytes.to_vec()) }
            });
        }
        Ok(attributes)
    }

    /// The value of an attribute that must be basic.
    pub fn as_basic(&self) -> Option<u16> {
        match self.value {
            AttributeValue::Basic(v) => Some(v),
            AttributeValue::Variable(_) => None,
        }
    }

    /// The value as a number in either format; more than 64 bits saturate (a lifetime without end).
    pub fn as_number(&self) -> u64 {
        match &self.value {
            AttributeValue::Basic(v) => u64::from(*v),
            AttributeValue::Variable(bytes) => bytes.iter().fold(0u64, |n, &b| if n >> 56 != 0 { u64::MAX } else { n << 8 | u64::from(b) }),
        }
    }
}

/// One transform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    /// Number, echoed by the responder.
    pub number: u8,
    /// Transform identifier.
    pub id: u8,
    /// Attributes in order.
    pub attributes: Vec<Attribute>,
}

/// One protocol of one proposal; those with equal numbers belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Number, echoed by the responder.
    pub number: u8,
    /// Protocol identifier.
    pub protocol: u8,
    /// SPI of the sender (its inbound one).
    pub spi: Vec<u8>,
    /// Transforms in order of preference.
    pub transforms: Vec<Transform>,
}

/// Body of an SA payload in the IPsec DOI, situation "identity only".
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaPayload {
    /// Proposals in order.
    pub proposals: Vec<Proposal>,
}

impl SaPayload {
    /// Decodes the body of an SA payload.
    pub fn decode(body: &[u8]) -> Decode<Self> {
        let mut r = Reader::new(body);
        let doi = r.u32("DOI")?;
        if doi != DOI_IPSEC {
            return Err(DecodeError::Value { field: "DOI", got: u64::from(doi) });
        }
        let situation = r.u32("situation")?;
        if situation != SIT_IDENTITY_ONLY {
            return Err(DecodeError::Value { field: "situation", got: u64::from(situation) });
        }
        let mut proposals = Vec::new();
        let mut transforms_left = TRANSFORMS_MAX;
        loop {
            if proposals.len() == PROPOSALS_MAX {
                return Err(DecodeError::Length { field: "proposal count", got: PROPOSALS_MAX + 1 });
            }
            let (more, body) = substructure(&mut r, 2, "proposal")?;
            proposals.push(Proposal::decode(body, &mut transforms_left)?);
            if !more {
                break;
            }
        }
        r.finish("SA payload")?;
        Ok(Self { proposals })
    }

    /// The body on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(DOI_IPSEC).u32(SIT_IDENTITY_ONLY);
        for (i, p) in self.proposals.iter().enumerate() {
            p.encode(i + 1 < self.proposals.len(), &mut w);
        }
        w.into_vec()
    }
}

/// Reads one length-prefixed substructure whose successor type is `kind` or 0.
fn substructure<'a>(r: &mut Reader<'a>, kind: u8, field: &'static str) -> Decode<(bool, Reader<'a>)> {
    let next = r.u8(field)?;
    if next != 0 && next != kind {
        return Err(DecodeError::Value { field, got: u64::from(next) });
    }
    let reserved = r.u8(field)?;
    if reserved != 0 {
        return Err(DecodeError::Value { field, got: u64::from(reserved) });
    }
    let length = usize::from(r.u16(field)?);
    let n = length.checked_sub(4).ok_or(DecodeError::Length { field, got: length })?;
    Ok((next == kind, r.sub(n, field)?))
}

impl Proposal {
    fn decode(mut r: Reader<'_>, transforms_left: &mut usize) -> Decode<Self> {
        let number = r.u8("proposal number")?;
        let protocol = r.u8("protocol")?;
        let spi_size = usize::from(r.u8("SPI size")?);
        let count = usize::from(r.u8("transform count")?);
        if spi_size > SPI_SIZE_MAX {
            return Err(DecodeError::Length { field: "SPI size", got: spi_size });
        }
        *transforms_left = transforms_left.checked_sub(count).ok_or(DecodeError::Length { field: "transform count", got: count })?;
        let spi = r.take(spi_size, "SPI")?.to_vec();
        let mut transforms = Vec::with_capacity(count);
        for i in 0..count {
            let (more, body) = substructure(&mut r, 3, "transform")?;
            if more != (i + 1 < count) {
                return Err(DecodeError::Length { field: "transform count", got: count });
            }
            transforms.push(Transform::decode(body)?);
        }
        if transforms.is_empty() {
            return Err(DecodeError::Length { field: "transform count", got: 0 });
        }
        r.finish("proposal")?;
        Ok(Self { number, protocol, spi, transforms })
    }

    fn encode(&self, more: bool, w: &mut Writer) {
        let start = w.len();
        w.u8(if more { 2 } else { 0 }).u8(0).u16(0);
        w.u8(self.number).u8(self.protocol).u8(self.spi.len() as u8).u8(self.transforms.len() as u8).bytes(&self.spi);
        for (i, t) in self.transforms.iter().enumerate() {
            t.encode(i + 1 < self.transforms.len(), w);
        }
        w.patch_u16(start + 2, (w.len() - start) as u16);
    }
}

impl Transform {
    fn decode(mut r: Reader<'_>) -> Decode<Self> {
        let number = r.u8("transform number")?;
        let id = r.u8("transform ID")?;
        let reserved = r.u16("transform reserved")?;
        if reserved != 0 {
            return Err(DecodeError::Value { field: "transform reserved", got: u64::from(reserved) });
        }
        Ok(Self { number, id, attributes: Attribute::decode_list(r.rest())? })
    }

    fn encode(&self, more: bool, w: &mut Writer) {
        let start = w.len();
        w.u8(if more { 3 } else { 0 }).u8(0).u16(0).u8(self.number).u8(self.id).u16(0);
        for a in &self.attributes {
            match &a.value {
                AttributeValue::Basic(v) => w.u16(a.kind | 0x8000).u16(*v),
                AttributeValue::Variable(v) => w.u16(a.kind).bytes16(v),
            };
        }
        w.patch_u16(start + 2, (w.len() - start) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn sample() -> SaPayload {
        let transform = |number| Transform {
            number,
            id: 1,
            attributes: vec![Attribute::basic(1, 5), Attribute::number(12, 86400), Attribute::number(12, 1 << 40)],
        };
        SaPayload {
            proposals: vec![
                Proposal { number: 1, protocol: 3, spi: vec![1, 2, 3, 4], transforms: vec![transform(1), transform(2)] },
                Proposal { number: 2, protocol: 2, spi: vec![], transforms: vec![transform(1)] },
            ],
        }
    }

    #[test]
    fn an_offer_survives_the_wire() {
        assert_eq!(SaPayload::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn a_real_offer_reads_as_meant() {
        // 3DES, SHA-1, group 2, pre-shared key, 86 400 s, as IOS sends it.
        let body = hex!(
            "00000001 00000001 0000002c 01010001 00000024 01010000 80010005 80020002 80040002 80030001 800b0001"
            "000c0004 00015180"
        );
        let sa = SaPayload::decode(&body).unwrap();
        let t = &sa.proposals[0].transforms[0];
        assert_eq!((t.number, t.id, t.attributes.len()), (1, 1, 6));
        assert_eq!(t.attributes[5].as_number(), 86400);
        assert_eq!(sa.encode(), body);
    }

    #[test]
    fn numbers_in_either_format_are_equal() {
        let long = Attribute { kind: 12, value: AttributeValue::Variable(vec![0, 0, 0, 0, 0, 0, 0, 0, 14, 16]) };
        assert_eq!(long.as_number(), Attribute::number(12, 3600).as_number());
        let huge = Attribute { kind: 12, value: AttributeValue::Variable(vec![1; 9]) };
        assert_eq!(huge.as_number(), u64::MAX);
    }

    /// Every single-byte cut and many single-byte changes: an error or a value, never a panic; and a value writes back to itself.
    #[test]
    fn cuts_and_changes_never_panic() {
        let whole = sample().encode();
        for n in 0..whole.len() {
            assert!(SaPayload::decode(&whole[..n]).is_err(), "cut at {n}");
        }
        for at in 0..whole.len() {
            for v in [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff] {
                let mut b = whole.clone();
                b[at] = v;
                if let Ok(sa) = SaPayload::decode(&b) {
                    assert_eq!(sa.encode(), b);
                }
            }
        }
    }

    #[test]
    fn forbidden_shapes_are_refused() {
        let change = |at: usize, v: u8| {
            let mut b = sample().encode();
            b[at] = v;
            SaPayload::decode(&b)
        };
        assert!(change(3, 2).is_err(), "another DOI");
        assert!(change(7, 7).is_err(), "situation bits (CVE-2015-3204)");
        assert!(change(8, 3).is_err(), "next proposal type");
        assert!(change(9, 1).is_err(), "reserved");
        assert!(change(14, 200).is_err(), "SPI size");
        assert!(change(15, 1).is_err(), "fewer transforms counted than chained");
        assert!(change(15, 0).is_err(), "no transform");
        let mut more = sample();
        more.proposals[0].transforms = vec![more.proposals[0].transforms[0].clone(); 255];
        more.proposals.push(more.proposals[0].clone());
        assert!(SaPayload::decode(&more.encode()).is_err(), "too many transforms");
    }
}
