//! Notification and delete payloads (RFC 2408 3.14 and 3.15, RFC 2407 4.6.3, RFC 3706 5.2).
//!
//! ```text
//! notify: DOI (4) | protocol (1) | SPI size (1) | type (2) | SPI | data
//! delete: DOI (4) | protocol (1) | SPI size (1) | number of SPIs (2) | SPIs
//! ```

use super::sa::protocol;
use crate::id::{IkeSaId, Spi};
use crate::wire::{Decode, DecodeError, Reader, Writer};

/// Notify message types.
pub mod notify_type {
    /// No acceptable proposal.
    pub const NO_PROPOSAL_CHOSEN: u16 = 14;
    /// IDs of quick mode match nothing.
    pub const INVALID_ID_INFORMATION: u16 = 18;
    /// Types from here on are status, below are errors.
    pub const STATUS_MIN: u16 = 16384;
    /// Shorter lifetime of the responder (RFC 2407 4.6.3.1).
    pub const RESPONDER_LIFETIME: u16 = 24576;
    /// First contact (RFC 2407 4.6.3.3).
    pub const INITIAL_CONTACT: u16 = 24578;
    /// Are you there (RFC 3706).
    pub const R_U_THERE: u16 = 36136;
    /// I am (RFC 3706).
    pub const R_U_THERE_ACK: u16 = 36137;
}

const DOI_IPSEC: u32 = 1;
/// ISAKMP's own DOI; some peers use it in notifications about phase 1.
const DOI_ISAKMP: u32 = 0;
const NOTIFY_DATA_MAX: usize = 1024;
/// SPIs in one delete payload.
const DELETE_SPIS_MAX: usize = 64;

/// A decoded notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notify {
    /// Protocol identifier.
    pub protocol: u8,
    /// Type.
    pub kind: u16,
    /// SPI: none, four bytes, or both cookies.
    pub spi: Vec<u8>,
    /// Data.
    pub data: Vec<u8>,
}

impl Notify {
    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Decode<Self> {
        let mut r = Reader::new(body);
        check_doi(r.u32("notify DOI")?)?;
        let protocol = r.u8("notify protocol")?;
        let spi_size = usize::from(r.u8("notify SPI size")?);
        let kind = r.u16("notify type")?;
        if spi_size > 16 {
            return Err(DecodeError::Length { field: "notify SPI size", got: spi_size });
        }
        let spi = r.take(spi_size, "notify SPI")?.to_vec();
        let data = r.rest();
        if data.len() > NOTIFY_DATA_MAX {
            return Err(DecodeError::Length { field: "notify data", got: data.len() });
        }
        Ok(Self { protocol, kind, spi, data: data.to_vec() })
    }

    /// The body on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(DOI_IPSEC).u8(self.protocol).u8(self.spi.len() as u8).u16(self.kind).bytes(&self.spi).bytes(&self.data);
        w.into_vec()
    }

    /// A notification about an ISAKMP SA (its SPI is both cookies).
    pub fn isakmp(kind: u16, id: IkeSaId, data: Vec<u8>) -> Self {
        Self { protocol: protocol::ISAKMP, kind, spi: cookies(id).to_vec(), data }
    }

    /// True when it names exactly this ISAKMP SA.
    pub fn names(&self, id: IkeSaId) -> bool {
        self.protocol == protocol::ISAKMP && self.spi == cookies(id)
    }
}

/// A decoded delete payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delete {
    /// ISAKMP SAs by cookies.
    Isakmp(Vec<IkeSaId>),
    /// ESP SAs by the sender's inbound SPI.
    Esp(Vec<Spi>),
    /// SAs of a protocol that is not spoken here (AH, IPComp).
    Other(u8),
}

impl Delete {
    /// Decodes the body.
    pub fn decode(body: &[u8]) -> Decode<Self> {
        let mut r = Reader::new(body);
        check_doi(r.u32("delete DOI")?)?;
        let protocol = r.u8("delete protocol")?;
        let spi_size = usize::from(r.u8("delete SPI size")?);
        let count = usize::from(r.u16("delete SPI count")?);
        let length = DecodeError::Length { field: "delete SPI count", got: count };
        if count == 0 || count > DELETE_SPIS_MAX || spi_size.checked_mul(count) != Some(r.remaining()) {
            return Err(length);
        }
        Ok(match (protocol, spi_size) {
            (protocol::ISAKMP, 16) => {
                let mut ids = Vec::with_capacity(count);
                for _ in 0..count {
                    ids.push(IkeSaId { initiator: r.array("cookie")?, responder: r.array("cookie")? });
                }
                Self::Isakmp(ids)
            }
            (protocol::ESP, 4) => {
                let mut spis = Vec::with_capacity(count);
                for _ in 0..count {
                    spis.push(Spi(r.u32("SPI")?));
                }
                Self::Esp(spis)
            }
            (protocol::AH, 4) | (protocol::IPCOMP, 2 | 4) => Self::Other(protocol),
            _ => return Err(DecodeError::Length { field: "delete SPI size", got: spi_size }),
        })
    }

    /// The body on the wire; at most [`DELETE_SPIS_MAX`] entries.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(DOI_IPSEC);
        match self {
            Self::Isakmp(ids) => {
                w.u8(protocol::ISAKMP).u8(16).u16(ids.len() as u16);
                for id in ids {
                    w.bytes(&cookies(*id));
                }
            }
            Self::Esp(spis) => {
                w.u8(protocol::ESP).u8(4).u16(spis.len() as u16);
                for spi in spis {
                    w.u32(spi.0);
                }
            }
            Self::Other(protocol) => {
                w.u8(*protocol).u8(4).u16(0);
            }
        }
        w.into_vec()
    }
}

fn check_doi(doi: u32) -> Decode<()> {
    match doi {
        DOI_IPSEC | DOI_ISAKMP => Ok(()),
        other => Err(DecodeError::Value { field: "DOI", got: u64::from(other) }),
    }
}

fn cookies(id: IkeSaId) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&id.initiator);
    out[8..].copy_from_slice(&id.responder);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: IkeSaId = IkeSaId { initiator: [1; 8], responder: [2; 8] };

    #[test]
    fn notifications_survive_the_wire() {
        let n = Notify::isakmp(notify_type::R_U_THERE, ID, vec![0, 0, 0, 7]);
        assert_eq!(Notify::decode(&n.encode()).unwrap(), n);
        assert!(n.names(ID) && !n.names(IkeSaId::default()));
    }

    #[test]
    fn deletes_survive_the_wire() {
        for d in [Delete::Isakmp(vec![ID]), Delete::Esp(vec![Spi(0x1000), Spi(7)])] {
            assert_eq!(Delete::decode(&d.encode()).unwrap(), d);
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        let base = Delete::Esp(vec![Spi(1), Spi(2)]).encode();
        for (at, v) in [(7, 1), (7, 3), (7, 0), (6, 0xff), (5, 0), (5, 8), (5, 16), (3, 9), (4, 1)] {
            let mut b = base.clone();
            b[at] = v;
            assert!(Delete::decode(&b).is_err(), "byte {at} = {v}");
        }
        for n in 0..base.len() {
            assert!(Delete::decode(&base[..n]).is_err());
        }
        assert!(Notify::decode(&[0, 0, 0, 1, 1, 17, 0, 1]).is_err(), "SPI size");
        assert!(Notify::decode(&[0, 0, 0, 1, 1, 4, 0, 1, 9]).is_err(), "SPI cut");
        assert!(Notify::decode(&[0, 0, 0, 5, 1, 0, 0, 1]).is_err(), "DOI");
    }
}
