//! What the configuration tells the engine.

use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg, PrfAlg, Secret};
pub use crate::id::Identity;
use crate::id::PolicyDigest;
use crate::pki::{Credential, Trust};
use crate::sad::{Lifetime, Mode, Selector};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which peers something is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMatch {
    /// One address.
    Address(IpAddr),
    /// A network: its address and prefix length.
    Network(IpAddr, u8),
    /// From the first to the second address, both included.
    Range(IpAddr, IpAddr),
    /// Whoever proves this identity (aggressive mode and IKEv2: main mode with a pre-shared key knows the address only).
    Identity(Identity),
    /// Everybody (the guide's `address 0.0.0.0`).
    Any,
}

impl PeerMatch {
    /// How closely this names the peer; higher is closer, `None` is no match.
    pub fn specificity(&self, address: IpAddr, identity: Option<&Identity>) -> Option<u32> {
        let bits = |a: IpAddr| match a {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        match self {
            Self::Identity(id) => (identity == Some(id)).then_some(2000),
            Self::Address(a) => (*a == address).then_some(1000),
            Self::Range(from, to) => {
                let same = from.is_ipv4() == address.is_ipv4();
                (same && (bits(*from)..=bits(*to)).contains(&bits(address))).then_some(500)
            }
            Self::Network(net, prefix) => {
                let mask = u128::MAX.checked_shl(128 - u32::from((*prefix).min(128))).unwrap_or(0);
                let same = net.is_ipv4() == address.is_ipv4();
                (same && (bits(*net) ^ bits(address)) & mask == 0).then_some(100 + u32::from(*prefix))
            }
            Self::Any => Some(1),
        }
    }
}

/// How an end proves itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum AuthMethod {
    /// Pre-shared key.
    PreShared,
    /// Signature with a certificate: version 1 RSA signatures (RFC 2409 5.1), version 2 methods 1, 9, 10, 11, 14 (RFC 7427).
    Signature,
}

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
    /// `authentication`.
    pub authentication: AuthMethod,
}

/// `crypto isakmp peer`: what is different for one peer of version 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerPolicy {
    /// The peer.
    pub peer: PeerMatch,
    /// Aggressive mode, as initiator and responder. It shows a hash of the key to whoever asks.
    pub aggressive: bool,
    /// Numbers of the policies that may be used; empty = all.
    pub policies: Vec<u32>,
    /// Identity that the peer's certificate must hold (RSA signatures); `None` = any that it holds.
    pub remote_id: Option<Identity>,
}

/// One set of IKEv2 transforms: every combination is offered (`crypto ikev2 proposal NAME`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ikev2Proposal {
    /// Name.
    pub name: String,
    /// Encryption: all combined-mode, or none.
    pub encryption: Vec<CipherAlg>,
    /// Integrity; empty with combined-mode ciphers.
    pub integrity: Vec<IntegAlg>,
    /// Pseudorandom functions.
    pub prf: Vec<PrfAlg>,
    /// Diffie-Hellman groups, preferred first.
    pub groups: Vec<DhGroup>,
    /// Additional key exchanges 1 to 7 (RFC 9370): for each the methods, preferred first; an empty list inside = that one may be left out.
    pub additional: Vec<Vec<DhGroup>>,
}

/// Post-quantum pre-shared key (RFC 8784).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ppk {
    /// PPK_ID, type 2 (fixed).
    pub id: Vec<u8>,
    /// The key.
    pub key: Secret,
    /// Refuse a peer that does not use it.
    pub required: bool,
}

/// `crypto ikev2 profile NAME` with its proposals and keyring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ikev2Profile {
    /// Name.
    pub name: String,
    /// Proposals in order of preference.
    pub proposals: Vec<Ikev2Proposal>,
    /// Identity we send; `None` = our address (pre-shared key) or the subject of our certificate.
    pub local_id: Option<Identity>,
    /// Identity the peer must have; `None` = its address (pre-shared key), or any that its certificate holds.
    pub remote_id: Option<Identity>,
    /// How we prove ourselves.
    pub local_auth: AuthMethod,
    /// How the peer must prove itself.
    pub remote_auth: AuthMethod,
    /// Certificate and private key, for `local_auth` by signature.
    pub credential: Option<Arc<Credential>>,
    /// Authorities and revocation lists, for `remote_auth` by signature.
    pub trust: Option<Arc<Trust>>,
    /// Post-quantum pre-shared key.
    pub ppk: Option<Ppk>,
    /// Lifetime of the IKE SA in seconds.
    pub lifetime_s: u64,
    /// IKE messages larger than this leave in fragments (RFC 7383), bytes of IP packet; 0 = no fragmentation.
    pub fragment_bytes: u16,
    /// Make the IKE SA without a first child when nothing asks for one (RFC 6023).
    pub childless: bool,
}

/// `crypto isakmp key … address …`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreSharedKey {
    /// Peers the key is for; the closest match counts. Both versions use it.
    pub peer: PeerMatch,
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
    /// Offer extended sequence numbers (64 bits), IKEv2 only.
    pub esn: bool,
    /// IKEv1 may be spoken with these peers.
    pub ikev1: bool,
    /// IKEv2 is spoken with these peers under this profile. With `ikev1` as well: we start with version 2 and fall back; the peer may use either.
    pub ikev2: Option<Arc<Ikev2Profile>>,
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
    /// Per-peer settings of version 1.
    pub peers: Vec<PeerPolicy>,
    /// Certificate and private key for RSA signatures of version 1.
    pub credential: Option<Arc<Credential>>,
    /// Authorities and revocation lists for RSA signatures of version 1.
    pub trust: Option<Arc<Trust>>,
    /// NAT traversal (RFC 3947, RFC 7296 2.23) is offered and answered.
    pub nat_traversal: bool,
    /// Time between NAT keepalives (RFC 3948 4).
    pub nat_keepalive: Duration,
    /// IKEv2 half-open SAs above which a cookie is asked for (RFC 7296 2.6).
    pub cookie_threshold: usize,
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

/// Nothing configured, the defaults of the manifest.
impl Default for IkeConfig {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            keys: Vec::new(),
            peers: Vec::new(),
            credential: None,
            trust: None,
            nat_traversal: true,
            nat_keepalive: Duration::from_secs(20),
            cookie_threshold: 100,
            entries: Vec::new(),
            dpd: None,
            retransmit_first: Duration::from_secs(1),
            retransmit_tries: 6,
            limits: IkeLimits::default(),
        }
    }
}

impl IkeConfig {
    /// The pre-shared key for a peer: the closest match.
    pub fn psk(&self, address: IpAddr, identity: Option<&Identity>) -> Option<&Secret> {
        let rated = self.keys.iter().filter_map(|k| Some((k.peer.specificity(address, identity)?, k)));
        rated.max_by_key(|(rank, _)| *rank).map(|(_, k)| &k.key)
    }
}
