//! A negotiated pair of ESP SAs and the numbers that go with it.

use crate::crypto::{CipherAlg, IntegAlg, Secret};
use crate::id::{IkeSaId, IkeVersion, PolicyDigest, Spi};
use serde::Serialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Traffic selector: addresses, protocol, port (RFC 2407 4.6.2; 0 = any protocol or port).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Selector {
    /// Network address, host bits zero.
    pub addr: IpAddr,
    /// Prefix length.
    pub prefix: u8,
    /// IP protocol, 0 = any.
    pub proto: u8,
    /// Port in host order, 0 = any.
    pub port: u16,
}

impl Selector {
    /// Every IPv4 packet.
    pub const ANY4: Self = Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0, proto: 0, port: 0 };

    /// A whole IPv4 network.
    pub fn net4(addr: Ipv4Addr, prefix: u8) -> Self {
        Self { addr: IpAddr::V4(addr), prefix, proto: 0, port: 0 }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.addr, self.prefix, self.proto, self.port)
    }
}

/// Encapsulation mode (RFC 2407 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub enum Mode {
    /// Tunnel mode.
    Tunnel,
    /// Transport mode.
    Transport,
}

/// Lifetimes of an SA; 0 = no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Lifetime {
    /// Seconds.
    pub seconds: u64,
    /// Kilobytes (1 024 bytes).
    pub kilobytes: u64,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Encap {
    /// Our port: 4500.
    pub local_port: u16,
    /// The peer's port as its NAT shows it.
    pub peer_port: u16,
}

/// Keys of one direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspKeys {
    /// Encryption key and salt, `encr.keymat_len()` bytes.
    pub encr: Secret,
    /// Authentication key, `integ.key_len()` bytes; empty without integrity.
    pub integ: Secret,
}

/// A pair of ESP SAs made by one quick mode. Identified inside the pair of nodes by its inbound SPI.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildSa {
    /// Inbound SPI, allocated by us, unique in the pair of nodes.
    pub spi_in: Spi,
    /// Outbound SPI, the peer's.
    pub spi_out: Spi,
    /// The ISAKMP SA that made it.
    pub isakmp: IkeSaId,
    /// Crypto map name.
    pub map: String,
    /// Sequence number of the crypto map entry.
    pub map_seq: u32,
    /// Index of the access-list entry inside `match_address`, counted from 0.
    pub ace: u32,
    /// Digest of the policy that made it.
    pub digest: PolicyDigest,
    /// Our tunnel end (the VIP).
    pub local: IpAddr,
    /// The peer's tunnel end.
    pub peer: IpAddr,
    /// Traffic behind us.
    pub ts_local: Selector,
    /// Traffic behind the peer.
    pub ts_remote: Selector,
    /// Encapsulation mode.
    pub mode: Mode,
    /// ESP encryption.
    pub encr: CipherAlg,
    /// ESP integrity.
    pub integ: Option<IntegAlg>,
    /// Keys for packets we receive.
    pub keys_in: EspKeys,
    /// Keys for packets we send.
    pub keys_out: EspKeys,
    /// PFS group used, if any.
    pub pfs: Option<crate::crypto::DhGroup>,
    /// Negotiated (hard) lifetimes, counted from creation.
    pub lifetime: Lifetime,
    /// Soft lifetimes, at which a rekey starts; already jittered.
    pub soft: Lifetime,
    /// Replay window in packets (kernel bitmap; same on both directions).
    pub replay_window: u32,
    /// True when we started the exchange.
    pub initiator: bool,
    /// The version of IKE that made it.
    pub version: IkeVersion,
    /// Extended sequence numbers (RFC 4303 2.2.1): 64 bits.
    pub esn: bool,
    /// UDP encapsulation, when there is a NAT on the way.
    pub encap: Option<Encap>,
}

/// What one SA pair has counted. Numbers that passed the kernel's integrity check only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Highest verified inbound sequence number.
    pub seq_in: u64,
    /// Last outbound sequence number used.
    pub seq_out: u64,
    /// Bytes received and sent.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
}
