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

impl ChildSa {
    /// Largest packet that fits into one of `mtu` bytes once it is protected, as the kernel reckons (`xfrm_state_mtu` over `esp4_init_state`).
    /// IPv4 outside.
    pub fn plaintext_mtu(&self, mtu: u32) -> u32 {
        const IP: usize = 20;
        const UDP: usize = 8;
        const SPI_AND_NUMBER: usize = 8;
        /// Pad length and next header.
        const TRAILER: usize = 2;
        let tunnel = self.mode == Mode::Tunnel;
        let header = SPI_AND_NUMBER + self.encr.iv_len() + if tunnel { IP } else { 0 } + if self.encap.is_some() { UDP } else { 0 };
        let check = self.integ.map_or(self.encr.icv_len(), |i| i.trunc_bits() as usize / 8);
        let block = self.encr.block_len().next_multiple_of(4);
        // What transport mode leaves outside of the padding.
        let outside = if tunnel { 0 } else { IP };
        let inside = (mtu as usize).saturating_sub(header + check + outside) / block * block;
        (inside + outside).saturating_sub(TRAILER) as u32
    }
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

#[cfg(test)]
mod tests {
    use crate::crypto::{AesKey, CipherAlg, Icv, IntegAlg};
    use crate::sad::{Encap, Mode};

    #[test]
    fn what_fits_into_a_protected_packet() {
        let gcm = CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16);
        let nat = Some(Encap { local_port: 4500, peer_port: 4500 });
        // By hand: outer IP 20 (tunnel), UDP 8, SPI and number 8, IV, check value; the rest in whole blocks, less pad length and next header.
        for (encr, integ, mode, encap, want) in [
            (CipherAlg::Aes256, Some(IntegAlg::HmacSha256), Mode::Tunnel, None, 1438),
            (CipherAlg::Aes256, Some(IntegAlg::HmacSha1), Mode::Tunnel, None, 1438),
            (gcm, None, Mode::Tunnel, None, 1446),
            (gcm, None, Mode::Tunnel, nat, 1438),
            (CipherAlg::ChaCha20Poly1305, None, Mode::Transport, None, 1466),
            (CipherAlg::Null, Some(IntegAlg::HmacSha256), Mode::Tunnel, None, 1454),
        ] {
            let mut child = crate::sad::record::tests::sample().child;
            (child.encr, child.integ, child.mode, child.encap) = (encr, integ, mode, encap);
            assert_eq!(child.plaintext_mtu(1500), want, "{encr:?} {integ:?} {mode:?} {encap:?}");
            assert_eq!(child.plaintext_mtu(0), if mode == Mode::Tunnel { 0 } else { 18 });
        }
    }
}
