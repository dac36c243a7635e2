//! Identifiers that several protocols share.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Security Parameters Index of an ESP or AH SA (RFC 4303 2.1). 0 to 255 are reserved and never allocated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spi(pub u32);

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}
impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Initiator and responder cookies of an ISAKMP SA (RFC 2408 3.1), or the two SPIs of an IKE SA (RFC 7296 3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct IkeSaId {
    /// Initiator cookie.
    pub initiator: [u8; 8],
    /// Responder cookie; zero until the responder answered.
    pub responder: [u8; 8],
}

impl fmt::Debug for IkeSaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", u64::from_be_bytes(self.initiator), u64::from_be_bytes(self.responder))
    }
}
impl fmt::Display for IkeSaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Version of IKE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum IkeVersion {
    /// RFC 2409.
    V1,
    /// RFC 7296.
    V2,
}

/// Identity of an IKE end (RFC 2407 4.6.2, RFC 7296 3.5).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_USER_FQDN, ID_RFC822_ADDR.
    UserFqdn(String),
    /// ID_DER_ASN1_DN: the DER encoding of a Name.
    DerAsn1Dn(Vec<u8>),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
}

/// Ownership epoch of the pair: rises with every takeover; the node that holds the highest one owns the VIPs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// SHA-256 over the canonical form of a policy item; two nodes use an SA only if its policy's digest is equal on both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PolicyDigest(pub [u8; 32]);

impl fmt::Debug for PolicyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in &self.0[..6] {
            write!(f, "{b:02x}")?;
        }
        Ok(())
    }
}
