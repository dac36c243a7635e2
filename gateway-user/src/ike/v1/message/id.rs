//! Identification payload (RFC 2407 4.6.2).
//!
//! ```text
//! ID type (1) | protocol (1) | port (2) | data
//! ```

use crate::id::Identity;
use crate::sad::Selector;
use crate::wire::{Decode, DecodeError, Reader, Writer};
use std::net::{IpAddr, Ipv4Addr};

/// ID types.
pub mod id_type {
    /// One IPv4 address.
    pub const IPV4_ADDR: u8 = 1;
    /// Domain name.
    pub const FQDN: u8 = 2;
    /// `user@domain`.
    pub const USER_FQDN: u8 = 3;
    /// IPv4 address and mask.
    pub const IPV4_SUBNET: u8 = 4;
    /// One IPv6 address.
    pub const IPV6_ADDR: u8 = 5;
    /// Distinguished name in DER.
    pub const DER_ASN1_DN: u8 = 9;
    /// Opaque bytes.
    pub const KEY_ID: u8 = 11;
}

/// Data longer than this is refused.
const ID_DATA_MAX: usize = 512;
/// Identities are cut to this for logs, characters.
const TEXT_MAX: usize = 128;

/// A decoded ID payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Id {
    /// Type.
    pub kind: u8,
    /// IP protocol, 0 = any.
    pub proto: u8,
    /// Port, 0 = any.
    pub port: u16,
    /// Data as the type wants it.
    pub data: Vec<u8>,
}

impl Id {
    /// Decodes the body of an ID payload.
    pub fn decode(body: &[u8]) -> Decode<Self> {
        let mut r = Reader::new(body);
        let kind = r.u8("ID type")?;
        let proto = r.u8("ID protocol")?;
        let port = r.u16("ID port")?;
        let data = r.rest();
        let wanted = match kind {
            id_type::IPV4_ADDR => Some(4),
            id_type::IPV6_ADDR => Some(16),
            id_type::IPV4_SUBNET => Some(8),
            _ => None,
        };
        if data.len() > ID_DATA_MAX || data.is_empty() || wanted.is_some_and(|n| n != data.len()) {
            return Err(DecodeError::Length { field: "ID data", got: data.len() });
        }
        Ok(Self { kind, proto, port, data: data.to_vec() })
    }

    /// The body on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.kind).u8(self.proto).u16(self.port).bytes(&self.data);
        w.into_vec()
    }

    /// The phase 1 identity of an address; `None` for IPv6.
    pub fn host(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(a) => Some(Self { kind: id_type::IPV4_ADDR, proto: 0, port: 0, data: a.octets().to_vec() }),
            IpAddr::V6(_) => None,
        }
    }

    /// The phase 2 identity of a selector: an address for a single host, else a subnet; `None` for IPv6.
    pub fn from_selector(s: &Selector) -> Option<Self> {
        let IpAddr::V4(addr) = s.addr else { return None };
        let (kind, data) = if s.prefix == 32 {
            (id_type::IPV4_ADDR, addr.octets().to_vec())
        } else {
            (id_type::IPV4_SUBNET, [addr.octets(), mask(s.prefix).octets()].concat())
        };
        Some(Self { kind, proto: s.proto, port: s.port, data })
    }

    /// The selector of a phase 2 identity; `None` when the type cannot be one, a mask has holes, or host bits are set.
    pub fn selector(&self) -> Option<Selector> {
        let addr: [u8; 4] = self.data.get(..4)?.try_into().ok()?;
        let addr = Ipv4Addr::from(addr);
        let prefix = match (self.kind, self.data.len()) {
            (id_type::IPV4_ADDR, 4) => 32,
            (id_type::IPV4_SUBNET, 8) => {
                let m: [u8; 4] = self.data.get(4..)?.try_into().ok()?;
                let m = u32::from_be_bytes(m);
                let prefix = m.leading_ones();
                if m.count_ones() != prefix || u32::from(addr) & !m != 0 {
                    return None;
                }
                prefix as u8
            }
            _ => return None,
        };
        Some(Selector { addr: IpAddr::V4(addr), prefix, proto: self.proto, port: self.port })
    }

    /// Who a phase 1 identity is; `None` for types that name no single end.
    pub fn identity(&self) -> Option<Identity> {
        let text = || String::from_utf8(self.data.clone()).ok();
        Some(match self.kind {
            id_type::IPV4_ADDR => Identity::Address(IpAddr::from(<[u8; 4]>::try_from(&self.data[..]).ok()?)),
            id_type::IPV6_ADDR => Identity::Address(IpAddr::from(<[u8; 16]>::try_from(&self.data[..]).ok()?)),
            id_type::FQDN => Identity::Fqdn(text()?),
            id_type::USER_FQDN => Identity::UserFqdn(text()?),
            id_type::DER_ASN1_DN => Identity::DerAsn1Dn(self.data.clone()),
            id_type::KEY_ID => Identity::KeyId(self.data.clone()),
            _ => return None,
        })
    }

    /// Text for logs.
    pub fn text(&self) -> String {
        match (self.kind, self.selector()) {
            (_, Some(s)) => format!("{}/{}", s.addr, s.prefix),
            (id_type::FQDN | id_type::USER_FQDN, None) => {
                String::from_utf8_lossy(&self.data).chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect()
            }
            (id_type::DER_ASN1_DN, None) => match crate::pki::name_text(&self.data) {
                Some(name) => name.chars().take(TEXT_MAX).collect(),
                None => "a damaged name".into(),
            },
            (kind, None) => format!("ID type {kind}, {} bytes", self.data.len()),
        }
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_survive_the_wire() {
        for prefix in [0, 1, 8, 24, 31, 32] {
            let addr = Ipv4Addr::from(0xc0a8_0400 & u32::from(mask(prefix)));
            let s = Selector { addr: IpAddr::V4(addr), prefix, proto: 17, port: 53 };
            let id = Id::from_selector(&s).unwrap();
            assert_eq!(Id::decode(&id.encode()).unwrap().selector(), Some(s));
        }
        assert_eq!(Id::from_selector(&Selector::ANY4).unwrap().encode(), [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_host_as_subnet_is_the_same_selector() {
        let a = Id { kind: 1, proto: 0, port: 0, data: vec![10, 0, 0, 1] };
        let b = Id { kind: 4, proto: 0, port: 0, data: vec![10, 0, 0, 1, 255, 255, 255, 255] };
        assert_eq!(a.selector(), b.selector());
    }

    #[test]
    fn identities_by_type() {
        let read = |b: &[u8]| Id::decode(b).unwrap().identity();
        assert_eq!(read(&[1, 0, 0, 0, 10, 0, 0, 1]), Some(Identity::Address([10, 0, 0, 1].into())));
        assert_eq!(read(b"\x02\x11\x01\xf4gw.example"), Some(Identity::Fqdn("gw.example".into())));
        assert_eq!(read(b"\x03\0\0\0a@b"), Some(Identity::UserFqdn("a@b".into())));
        assert_eq!(read(b"\x09\0\0\0\x30\0"), Some(Identity::DerAsn1Dn(vec![0x30, 0])));
        assert_eq!(read(b"\x0b\0\0\0\xff"), Some(Identity::KeyId(vec![0xff])));
        assert_eq!(read(b"\x02\0\0\0\xff"), None, "not UTF-8");
        assert_eq!(read(&[4, 0, 0, 0, 10, 0, 0, 0, 255, 0, 0, 0]), None, "a net is nobody");
        assert!(Id::decode(&[5, 0, 0, 0, 1, 2, 3, 4]).is_err(), "short IPv6 address");
    }

    #[test]
    fn what_cannot_be_a_selector_is_none_or_an_error() {
        assert!(Id::decode(&[1, 0, 0, 0, 10, 0, 0]).is_err(), "short address");
        assert!(Id::decode(&[4, 0, 0, 0, 10, 0, 0, 0]).is_err(), "subnet without mask");
        assert!(Id::decode(&[2, 0, 0, 0]).is_err(), "empty name");
        assert!(Id::decode(&[1, 0, 0]).is_err());
        let holes = Id::decode(&[4, 0, 0, 0, 10, 0, 0, 0, 255, 0, 255, 0]).unwrap();
        assert_eq!(holes.selector(), None);
        let host_bits = Id::decode(&[4, 0, 0, 0, 10, 0, 0, 1, 255, 255, 255, 0]).unwrap();
        assert_eq!(host_bits.selector(), None);
        let name = Id::decode(b"\x02\0\0\0gw.example\n").unwrap();
        assert_eq!((name.selector(), name.text().as_str()), (None, "gw.example"));
    }
}
