//! The chain of payloads behind the header (RFC 2408 3.2).
//!
//! ```text
//! next payload (1) | reserved, zero (1) | payload length incl. these four bytes (2) | body
//! ```

use super::header::{HEADER_LEN, Header};
use crate::wire::{Decode, DecodeError, Reader, Writer};

/// More payloads than this in one message are refused.
pub const PAYLOADS_MAX: usize = 48;

/// Payload types of IKEv1. Those of version 2 are unknown on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PayloadKind {
    /// End of the chain.
    None,
    /// Security association.
    Sa,
    /// Key exchange.
    KeyExchange,
    /// Identification.
    Id,
    /// Certificate.
    Cert,
    /// Certificate request.
    CertRequest,
    /// Hash.
    Hash,
    /// Signature.
    Signature,
    /// Nonce.
    Nonce,
    /// Notification.
    Notify,
    /// Delete.
    Delete,
    /// Vendor ID.
    Vendor,
    /// NAT-D: hash of an address and port (RFC 3947 3.2).
    NatDiscovery,
    /// NAT-OA: original address (RFC 3947 5.2).
    NatOriginal,
    /// NAT-D of the drafts.
    NatDiscoveryDraft,
    /// NAT-OA of the drafts.
    NatOriginalDraft,
    /// Piece of a message (Cisco).
    Fragment,
}

impl PayloadKind {
    /// The type with this number; proposals and transforms live inside an SA only and are not here.
    pub const fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::None,
            1 => Self::Sa,
            4 => Self::KeyExchange,
            5 => Self::Id,
            6 => Self::Cert,
            7 => Self::CertRequest,
            8 => Self::Hash,
            9 => Self::Signature,
            10 => Self::Nonce,
            11 => Self::Notify,
            12 => Self::Delete,
            13 => Self::Vendor,
            20 => Self::NatDiscovery,
            21 => Self::NatOriginal,
            130 => Self::NatDiscoveryDraft,
            131 => Self::NatOriginalDraft,
            132 => Self::Fragment,
            _ => return None,
        })
    }

    /// Number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Sa => 1,
            Self::KeyExchange => 4,
            Self::Id => 5,
            Self::Cert => 6,
            Self::CertRequest => 7,
            Self::Hash => 8,
            Self::Signature => 9,
            Self::Nonce => 10,
            Self::Notify => 11,
            Self::Delete => 12,
            Self::Vendor => 13,
            Self::NatDiscovery => 20,
            Self::NatOriginal => 21,
            Self::NatDiscoveryDraft => 130,
            Self::NatOriginalDraft => 131,
            Self::Fragment => 132,
        }
    }
}

/// One payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload<'a> {
    /// Its type.
    pub kind: PayloadKind,
    /// Bytes behind the four-byte generic header.
    pub body: &'a [u8],
}

/// All payloads of one message, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payloads<'a> {
    items: Vec<Payload<'a>>,
    /// Bytes of the chain, without padding behind it.
    chain: &'a [u8],
    /// Padding behind the chain (none in a message that was not encrypted).
    padding: usize,
}

impl<'a> Payloads<'a> {
    /// Decodes a chain that starts with a payload of type `first`. Bytes may be left over as padding; see [`Self::padding`].
    pub fn decode(first: u8, bytes: &'a [u8]) -> Decode<Self> {
        let mut r = Reader::new(bytes);
        let mut items = Vec::new();
        let mut next = first;
        loop {
            let kind = PayloadKind::from_number(next).ok_or(DecodeError::Value { field: "payload type", got: u64::from(next) })?;
            if kind == PayloadKind::None {
                break;
            }
            if items.len() == PAYLOADS_MAX {
                return Err(DecodeError::Length { field: "payload count", got: PAYLOADS_MAX + 1 });
            }
            next = r.u8("next payload")?;
            let reserved = r.u8("payload reserved")?;
            if reserved != 0 {
                return Err(DecodeError::Value { field: "payload reserved", got: u64::from(reserved) });
            }
            let length = usize::from(r.u16("payload length")?);
            let n = length.checked_sub(4).ok_or(DecodeError::Length { field: "payload length", got: length })?;
            items.push(Payload { kind, body: r.take(n, "payload body")? });
        }
        if items.is_empty() {
            return Err(DecodeError::Value { field: "payload type", got: 0 });
        }
        let padding = r.remaining();
        Ok(Self { items, chain: &bytes[..bytes.len() - padding], padding })
    }

    /// Decodes a chain that must fill `bytes`.
    pub fn decode_clear(first: u8, bytes: &'a [u8]) -> Decode<Self> {
        let all = Self::decode(first, bytes)?;
        if all.padding > 0 { Err(DecodeError::Trailing { field: "message", got: all.padding }) } else { Ok(all) }
    }

    /// The payloads in order.
    pub fn items(&self) -> &[Payload<'a>] {
        &self.items
    }

    /// Length of the padding behind the chain, bytes.
    pub fn padding(&self) -> usize {
        self.padding
    }

    /// The bytes of every payload behind the first one, as HASH(1) and HASH(2) cover them.
    pub fn after_first(&self) -> &'a [u8] {
        let first = 4 + self.items.first().map_or(0, |p| p.body.len());
        self.chain.get(first..).unwrap_or_default()
    }

    /// Every payload of this type.
    pub fn all(&self, kind: PayloadKind) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.items.iter().filter(move |p| p.kind == kind).map(|p| p.body)
    }

    /// The payload of this type, which must be there exactly once.
    pub fn one(&self, kind: PayloadKind) -> Decode<&'a [u8]> {
        let mut found = self.all(kind);
        match (found.next(), found.next()) {
            (Some(body), None) => Ok(body),
            (None, _) => Err(DecodeError::Truncated { field: kind.name() }),
            (Some(_), Some(_)) => Err(DecodeError::Trailing { field: kind.name(), got: 1 }),
        }
    }

    /// The payload of this type, which may be there once.
    pub fn maybe(&self, kind: PayloadKind) -> Decode<Option<&'a [u8]>> {
        match self.all(kind).count() {
            0 => Ok(None),
            _ => self.one(kind).map(Some),
        }
    }

    /// Fails if a type is present that is not listed.
    pub fn only(&self, kinds: &[PayloadKind]) -> Decode<()> {
        match self.items.iter().find(|p| !kinds.contains(&p.kind)) {
            None => Ok(()),
            Some(p) => Err(DecodeError::Value { field: "unexpected payload", got: u64::from(p.kind.number()) }),
        }
    }

    /// Fails unless the first payload has this type (SA first in phase 1, HASH first in phase 2).
    pub fn first_is(&self, kind: PayloadKind) -> Decode<()> {
        match self.items.first() {
            Some(p) if p.kind == kind => Ok(()),
            Some(p) => Err(DecodeError::Value { field: "first payload", got: u64::from(p.kind.number()) }),
            None => Err(DecodeError::Truncated { field: "first payload" }),
        }
    }
}

impl PayloadKind {
    /// Name for errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "end",
            Self::Sa => "SA payload",
            Self::KeyExchange => "KE payload",
            Self::Id => "ID payload",
            Self::Cert => "CERT payload",
            Self::CertRequest => "CERT_REQ payload",
            Self::Hash => "HASH payload",
            Self::Signature => "SIG payload",
            Self::Nonce => "NONCE payload",
            Self::Notify => "NOTIFY payload",
            Self::Delete => "DELETE payload",
            Self::Vendor => "VID payload",
            Self::NatDiscovery | Self::NatDiscoveryDraft => "NAT-D payload",
            Self::NatOriginal | Self::NatOriginalDraft => "NAT-OA payload",
            Self::Fragment => "fragment payload",
        }
    }
}

/// Builds a chain of payloads.
#[derive(Default, Debug)]
pub struct Chain {
    first: u8,
    w: Vec<u8>,
    last: Option<usize>,
}

impl Chain {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a payload. The caller bounds the body (below 65 532 bytes).
    pub fn push(&mut self, kind: PayloadKind, body: &[u8]) -> &mut Self {
        match self.last {
            None => self.first = kind.number(),
            Some(at) => self.w[at] = kind.number(),
        }
        self.last = Some(self.w.len());
        debug_assert!(body.len() + 4 <= usize::from(u16::MAX));
        let length = (body.len() + 4) as u16;
        self.w.extend_from_slice(&[0, 0]);
        self.w.extend_from_slice(&length.to_be_bytes());
        self.w.extend_from_slice(body);
        self
    }

    /// Puts a payload in front of all others (the HASH that covers them).
    pub fn prepend(self, kind: PayloadKind, body: &[u8]) -> Self {
        let mut out = Self::new();
        out.push(kind, body);
        out.w[0] = self.first;
        let offset = out.w.len();
        out.last = self.last.map_or(Some(0), |at| Some(at + offset));
        out.w.extend_from_slice(&self.w);
        out
    }

    /// Type of the first payload.
    pub fn first(&self) -> u8 {
        self.first
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.w
    }

    /// The whole message in clear, with `header.next` set to the first payload.
    pub fn message(&self, mut header: Header) -> Vec<u8> {
        header.next = self.first;
        let mut w = Writer::new();
        header.encode(HEADER_LEN + self.w.len(), &mut w);
        w.bytes(&self.w);
        w.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PayloadKind::{Hash, Nonce, Sa, Vendor};

    #[test]
    fn a_chain_survives_the_wire() {
        let mut c = Chain::new();
        c.push(Nonce, b"12345678").push(Vendor, b"");
        let c = c.prepend(Hash, b"abcd");
        let p = Payloads::decode_clear(c.first(), c.bytes()).unwrap();
        let kinds: Vec<_> = p.items().iter().map(|p| p.kind).collect();
        assert_eq!(kinds, [Hash, Nonce, Vendor]);
        assert_eq!(p.one(Nonce), Ok(&b"12345678"[..]));
        assert_eq!(p.maybe(Sa), Ok(None));
        assert_eq!(p.after_first(), &c.bytes()[8..]);
        assert!(p.first_is(Hash).is_ok() && p.first_is(Nonce).is_err());
        assert!(p.only(&[Hash, Nonce]).is_err());
    }

    #[test]
    fn prepending_to_nothing_gives_one_payload() {
        let c = Chain::new().prepend(Hash, b"x");
        let p = Payloads::decode_clear(c.first(), c.bytes()).unwrap();
        assert_eq!(p.items().len(), 1);
        assert_eq!(p.after_first(), b"");
    }

    #[test]
    fn bad_shapes_are_refused() {
        let cases: &[(&str, u8, &[u8])] = &[
            ("no payload at all", 0, &[]),
            ("length zero, the endless loop", 10, &[0, 0, 0, 0]),
            ("length three", 10, &[0, 0, 0, 3]),
            ("past the end", 10, &[0, 0, 0, 5]),
            ("reserved not zero", 10, &[0, 1, 0, 4]),
            ("next is a type of IKEv2", 10, &[33, 0, 0, 4, 0, 0, 0, 4]),
            ("next is a proposal", 10, &[2, 0, 0, 4, 0, 0, 0, 4]),
            ("cut inside the generic header", 10, &[0, 0, 0]),
            ("announced but absent", 10, &[13, 0, 0, 4]),
        ];
        for (name, first, bytes) in cases {
            assert!(Payloads::decode(*first, bytes).is_err(), "{name}");
        }
        assert!(Payloads::decode_clear(10, &[0, 0, 0, 4, 9]).is_err());
        assert_eq!(Payloads::decode(10, &[0, 0, 0, 4, 9]).unwrap().padding(), 1);
    }

    #[test]
    fn too_many_payloads_are_refused() {
        let mut c = Chain::new();
        for _ in 0..=PAYLOADS_MAX {
            c.push(Vendor, b"");
        }
        assert!(Payloads::decode(c.first(), c.bytes()).is_err());
    }

    #[test]
    fn a_doubled_payload_is_not_one() {
        let mut c = Chain::new();
        c.push(Nonce, b"a").push(Nonce, b"b");
        let p = Payloads::decode(c.first(), c.bytes()).unwrap();
        assert!(p.one(Nonce).is_err() && p.maybe(Nonce).is_err());
    }
}
