//! The payload chain and the payloads that need little (RFC 7296 3.2 to 3.9, 3.12).

use super::{Delete, Fault, Notify};
use crate::id::Identity;
use crate::ike::v2::proposal::Proposal;
use crate::ike::v2::selectors::TrafficSelector;
use crate::wire::{Decode, DecodeError, Reader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Payloads in one message.
pub const PAYLOADS_MAX: usize = 64;

/// Nonces (RFC 7296 3.9).
const NONCE_LEN: std::ops::RangeInclusive<usize> = 16..=256;
const CRITICAL: u8 = 0x80;

/// Payload types of RFC 7296 3.2 and RFC 7383.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum PayloadKind {
    /// Security association.
    Sa = 33,
    /// Key exchange.
    Ke = 34,
    /// Identity of the initiator.
    IdI = 35,
    /// Identity of the responder.
    IdR = 36,
    /// Certificate.
    Cert = 37,
    /// Certificate request.
    CertReq = 38,
    /// Authentication.
    Auth = 39,
    /// Nonce.
    Nonce = 40,
    /// Notify.
    Notify = 41,
    /// Delete.
    Delete = 42,
    /// Vendor ID.
    VendorId = 43,
    /// Traffic selectors of the initiator.
    TsI = 44,
    /// Traffic selectors of the responder.
    TsR = 45,
    /// Encrypted and authenticated.
    Sk = 46,
    /// Configuration.
    Cp = 47,
    /// EAP.
    Eap = 48,
    /// Encrypted and authenticated fragment.
    Skf = 53,
}

impl PayloadKind {
    /// Every type.
    pub const ALL: [Self; 17] = [
        Self::Sa,
        Self::Ke,
        Self::IdI,
        Self::IdR,
        Self::Cert,
        Self::CertReq,
        Self::Auth,
        Self::Nonce,
        Self::Notify,
        Self::Delete,
        Self::VendorId,
        Self::TsI,
        Self::TsR,
        Self::Sk,
        Self::Cp,
        Self::Eap,
        Self::Skf,
    ];

    /// Number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The type with this number.
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.number() == n)
    }
}

/// Key Exchange payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ke<'a> {
    /// Group number, known or not.
    pub group: u16,
    /// Public value.
    pub data: &'a [u8],
}

/// Identification payload. The body (type, reserved bytes, data) goes into AUTH as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Id<'a> {
    /// Everything after the generic header.
    pub body: &'a [u8],
}

impl Id<'_> {
    fn decode<'a>(r: &mut Reader<'a>) -> Decode<Id<'a>> {
        let body = r.rest();
        if body.len() < 4 {
            return Err(DecodeError::Length { field: "identity", got: body.len() });
        }
        Ok(Id { body })
    }

    /// The identity; `None` for a type or form that we do not know. Then it matches nobody.
    pub fn identity(&self) -> Option<Identity> {
        let mut r = Reader::new(self.body);
        let kind = r.u8("identity type").ok()?;
        r.take(3, "reserved").ok()?;
        let data = r.rest();
        if data.is_empty() {
            return None;
        }
        let text = || std::str::from_utf8(data).ok().filter(|s| !s.contains('\0')).map(str::to_owned);
        match kind {
            1 => <[u8; 4]>::try_from(data).ok().map(|a| Identity::Address(Ipv4Addr::from(a).into())),
            2 => text().map(Identity::Fqdn),
            3 => text().map(Identity::UserFqdn),
            5 => <[u8; 16]>::try_from(data).ok().map(|a| Identity::Address(Ipv6Addr::from(a).into())),
            9 => Some(Identity::DerAsn1Dn(data.to_vec())),
            11 => Some(Identity::KeyId(data.to_vec())),
            _ => None,
        }
    }

    /// Body of an Identification payload for this identity.
    pub fn body_of(identity: &Identity) -> Vec<u8> {
        let (kind, data) = match identity {
            Identity::Address(IpAddr::V4(a)) => (1, a.octets().to_vec()),
            Identity::Fqdn(s) => (2, s.as_bytes().to_vec()),
            Identity::UserFqdn(s) => (3, s.as_bytes().to_vec()),
            Identity::Address(IpAddr::V6(a)) => (5, a.octets().to_vec()),
            Identity::DerAsn1Dn(d) => (9, d.clone()),
            Identity::KeyId(d) => (11, d.clone()),
        };
        [&[kind, 0, 0, 0], data.as_slice()].concat()
    }
}

/// Certificate or Certificate Request payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cert<'a> {
    /// Encoding: 4 is X.509 signature, 7 is a revocation list.
    pub encoding: u8,
    /// Certificate, or concatenated 20-byte key hashes of authorities.
    pub data: &'a [u8],
}

/// Authentication payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Method: 1 RSA, 2 shared key, 9 to 11 ECDSA, 14 digital signature (RFC 7427).
    pub method: u8,
    /// Authentication data.
    pub data: &'a [u8],
}

/// One payload of a plain or decrypted chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// Security association: the proposals.
    Sa(Vec<Proposal>),
    /// Key exchange.
    Ke(Ke<'a>),
    /// Identity of the initiator.
    IdI(Id<'a>),
    /// Identity of the responder.
    IdR(Id<'a>),
    /// Certificate.
    Cert(Cert<'a>),
    /// Certificate request.
    CertReq(Cert<'a>),
    /// Authentication.
    Auth(Auth<'a>),
    /// Nonce, 16 to 256 bytes.
    Nonce(&'a [u8]),
    /// Notify.
    Notify(Notify<'a>),
    /// Delete.
    Delete(Delete),
    /// Vendor ID.
    VendorId(&'a [u8]),
    /// Traffic selectors of the initiator.
    TsI(Vec<TrafficSelector>),
    /// Traffic selectors of the responder.
    TsR(Vec<TrafficSelector>),
    /// Configuration: seen, never acted upon.
    Cp,
    /// EAP: seen, never acted upon.
    Eap,
    /// Unknown and not critical: skipped.
    Unknown(u8),
}

/// Reads the payloads of a plain message after its header, or of the content of an Encrypted payload. Reserved bits and the critical bit
/// of known payloads are ignored (RFC 7296 2.5, 3.2).
///
/// # Errors
/// The first fault. An unknown critical payload anywhere in a chain of good form comes before a fault inside a payload.
pub fn decode_payloads<'a>(first: u8, bytes: &'a [u8]) -> Result<Vec<Payload<'a>>, Fault> {
    let mut parts: Vec<(u8, Reader<'a>)> = Vec::new();
    let mut critical = None;
    let mut r = Reader::new(bytes);
    let mut next = first;
    while next != 0 {
        if parts.len() == PAYLOADS_MAX {
            return Err(Fault::TooMany);
        }
        if next <= 32 {
            return Err(Fault::Version1(next));
        }
        let kind = next;
        next = r.u8("next payload")?;
        let flags = r.u8("payload flags")?;
        let length = usize::from(r.u16("payload length")?);
        let body = length.checked_sub(4).ok_or(DecodeError::Length { field: "payload length", got: length })?;
        let body = r.sub(body, "payload body")?;
        if PayloadKind::from_number(kind).is_none() && flags & CRITICAL != 0 {
            critical = critical.or(Some(kind));
        }
        parts.push((kind, body));
    }
    r.finish("message")?;
    if let Some(kind) = critical {
        return Err(Fault::Critical(kind));
    }
    parts.into_iter().map(|(kind, body)| decode_payload(kind, body)).collect()
}

fn decode_payload(number: u8, mut r: Reader<'_>) -> Result<Payload<'_>, Fault> {
    let Some(kind) = PayloadKind::from_number(number) else {
        return Ok(Payload::Unknown(number));
    };
    Ok(match kind {
        PayloadKind::Sa => Payload::Sa(Proposal::decode_all(r)?),
        PayloadKind::Ke => {
            let group = r.u16("key exchange group")?;
            r.u16("reserved")?;
            if r.is_empty() {
                return Err(DecodeError::Length { field: "key exchange data", got: 0 }.into());
            }
            Payload::Ke(Ke { group, data: r.rest() })
        }
        PayloadKind::IdI => Payload::IdI(Id::decode(&mut r)?),
        PayloadKind::IdR => Payload::IdR(Id::decode(&mut r)?),
        PayloadKind::Cert => Payload::Cert(Cert { encoding: r.u8("certificate encoding")?, data: r.rest() }),
        PayloadKind::CertReq => Payload::CertReq(Cert { encoding: r.u8("certificate encoding")?, data: r.rest() }),
        PayloadKind::Auth => {
            let method = r.u8("authentication method")?;
            r.take(3, "reserved")?;
            Payload::Auth(Auth { method, data: r.rest() })
        }
        PayloadKind::Nonce => {
            if !NONCE_LEN.contains(&r.remaining()) {
                return Err(DecodeError::Length { field: "nonce", got: r.remaining() }.into());
            }
            Payload::Nonce(r.rest())
        }
        PayloadKind::Notify => Payload::Notify(Notify::decode(r)?),
        PayloadKind::Delete => Payload::Delete(Delete::decode(r)?),
        PayloadKind::VendorId => Payload::VendorId(r.rest()),
        PayloadKind::TsI => Payload::TsI(TrafficSelector::decode_all(r)?),
        PayloadKind::TsR => Payload::TsR(TrafficSelector::decode_all(r)?),
        PayloadKind::Sk | PayloadKind::Skf => return Err(Fault::Misplaced(number)),
        PayloadKind::Cp => Payload::Cp,
        PayloadKind::Eap => Payload::Eap,
    })
}

/// The payloads of one message by kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message<'a> {
    /// Proposals.
    pub sa: Option<Vec<Proposal>>,
    /// Key exchange.
    pub ke: Option<Ke<'a>>,
    /// Identity of the initiator.
    pub id_i: Option<Id<'a>>,
    /// Identity of the responder.
    pub id_r: Option<Id<'a>>,
    /// Certificates in order: the end's own first.
    pub certs: Vec<Cert<'a>>,
    /// Certificate requests.
    pub cert_reqs: Vec<Cert<'a>>,
    /// Authentication.
    pub auth: Option<Auth<'a>>,
    /// Nonce.
    pub nonce: Option<&'a [u8]>,
    /// Notifies in order.
    pub notifies: Vec<Notify<'a>>,
    /// Deletes in order.
    pub deletes: Vec<Delete>,
    /// Vendor IDs.
    pub vendors: Vec<&'a [u8]>,
    /// Traffic selectors of the initiator.
    pub ts_i: Option<Vec<TrafficSelector>>,
    /// Traffic selectors of the responder.
    pub ts_r: Option<Vec<TrafficSelector>>,
    /// The peer asks for configuration (RFC 7296 2.19).
    pub cp: bool,
    /// There is an EAP payload.
    pub eap: bool,
}

impl<'a> Message<'a> {
    /// Reads a chain as [`decode_payloads`] does.
    ///
    /// # Errors
    /// Besides those: a payload that may be there once is there twice.
    pub fn decode(first: u8, bytes: &'a [u8]) -> Result<Self, Fault> {
        fn once<T>(slot: &mut Option<T>, value: T, kind: PayloadKind) -> Result<(), Fault> {
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(Fault::Repeated(kind.number())),
            }
        }
        let mut m = Self::default();
        for payload in decode_payloads(first, bytes)? {
            match payload {
                Payload::Sa(v) => once(&mut m.sa, v, PayloadKind::Sa)?,
                Payload::Ke(v) => once(&mut m.ke, v, PayloadKind::Ke)?,
                Payload::IdI(v) => once(&mut m.id_i, v, PayloadKind::IdI)?,
                Payload::IdR(v) => once(&mut m.id_r, v, PayloadKind::IdR)?,
                Payload::Cert(v) => m.certs.push(v),
                Payload::CertReq(v) => m.cert_reqs.push(v),
                Payload::Auth(v) => once(&mut m.auth, v, PayloadKind::Auth)?,
                Payload::Nonce(v) => once(&mut m.nonce, v, PayloadKind::Nonce)?,
                Payload::Notify(v) => m.notifies.push(v),
                Payload::Delete(v) => m.deletes.push(v),
                Payload::VendorId(v) => m.vendors.push(v),
                Payload::TsI(v) => once(&mut m.ts_i, v, PayloadKind::TsI)?,
                Payload::TsR(v) => once(&mut m.ts_r, v, PayloadKind::TsR)?,
                Payload::Cp => m.cp = true,
                Payload::Eap => m.eap = true,
                Payload::Unknown(_) => {}
            }
        }
        Ok(m)
    }

    /// The first notify of this type.
    pub fn notify(&self, kind: super::NotifyType) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|n| n.kind == kind)
    }

    /// The first notify that is an error, known or not.
    pub fn error(&self) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|n| n.kind.is_error())
    }
}
