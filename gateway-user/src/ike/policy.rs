//! What the configuration tells the engine.

use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg, Secret};
use crate::id::PolicyDigest;
use crate::sad::{Lifetime, Mode, Selector};
use std::net::IpAddr;
use std::time::Duration;

/// `crypto isakmp policy N` (tried in ascending N).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsakmpPolicy {
    /// Priority number; lower is preferred.
    pub number: u32,
    /// Encryption.
    pub encryption: CipherAlg,
    /// Hash and PRF.
    pub hash: HashAlg,
    /// Diffie-Hellman group.
    pub group: DhGroup,
    /// Lifetime in seconds.
    pub lifetime_s: u64,
}

/// `crypto isakmp key … address …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreSharedKey {
    /// Peer address the key is for.
    pub address: IpAddr,
    /// The key.
    pub key: Secret,
}

/// One set of transforms as offered in quick mode: ESP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspTransform {
    /// Name of the transform set.
    pub name: String,
    /// Encryption.
    pub encr: CipherAlg,
    /// Integrity.
    pub integ: Option<IntegAlg>,
    /// Mode.
    pub mode: Mode,
}

/// One `permit` line of the crypto access list, from our side's view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Index inside the access list, counted from 0.
    pub ace: u32,
    /// Traffic behind us.
    pub local: Selector,
    /// Traffic behind the peer.
    pub remote: Selector,
}

/// One crypto map entry as the engine needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// Crypto map name.
    pub map: String,
    /// Sequence number.
    pub seq: u32,
    /// Our address (VIP of the interface the map is on).
    pub local: IpAddr,
    /// Peers, first is preferred.
    pub peers: Vec<IpAddr>,
    /// Transform sets in order of preference.
    pub transforms: Vec<EspTransform>,
    /// PFS group.
    pub pfs: Option<DhGroup>,
    /// Child lifetimes.
    pub lifetime: Lifetime,
    /// Replay window, packets.
    pub replay_window: u32,
    /// Flows it protects.
    pub flows: Vec<Flow>,
    /// Digest of all that is above.
    pub digest: PolicyDigest,
}

/// Dead peer detection (RFC 3706).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DpdConfig {
    /// Idle time after which a probe is sent; no probe while ESP arrives.
    pub interval: Duration,
    /// Time between repeats.
    pub retry: Duration,
    /// Unanswered probes after which the peer is dead.
    pub retries: u32,
}

/// Limits against floods; every queue of the engine is bounded by one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeLimits {
    /// Half-open ISAKMP SAs in all.
    pub half_open_max: usize,
    /// Half-open ISAKMP SAs from one source address.
    pub half_open_per_source_max: usize,
    /// Age at which a half-open SA is dropped.
    pub half_open_age_max: Duration,
    /// Established ISAKMP SAs in all.
    pub established_max: usize,
    /// Quick modes in flight under one ISAKMP SA.
    pub quick_modes_max: usize,
    /// Datagrams larger than this are refused, bytes.
    pub datagram_bytes_max: usize,
}

impl Default for IkeLimits {
    fn default() -> Self {
        Self {
            half_open_max: 1000,
            half_open_per_source_max: 8,
            half_open_age_max: Duration::from_secs(30),
            established_max: 100_000,
            quick_modes_max: 16,
            datagram_bytes_max: 8192,
        }
    }
}

/// The whole configuration of the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeConfig {
    /// ISAKMP policies by ascending number.
    pub policies: Vec<IsakmpPolicy>,
    /// Pre-shared keys.
    pub keys: Vec<PreSharedKey>,
    /// Crypto map entries by map and sequence number.
    pub entries: Vec<MapEntry>,
    /// Dead peer detection; `None` answers probes but sends none.
    pub dpd: Option<DpdConfig>,
    /// First retransmission after this time; doubles each time.
    pub retransmit_first: Duration,
    /// Number of transmissions in all before an exchange is given up.
    pub retransmit_tries: u32,
    /// Bounds.
    pub limits: IkeLimits,
}
