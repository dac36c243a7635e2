//! The checked model: names are resolved, values are in range, secrets are loaded.

use crate::crypto::Secret;
use crate::hsrp::GroupConfig;
use crate::ike::{IkeConfig, Ikev2Profile, Ikev2Proposal};
use crate::pki::{Credential, Trust};
use crate::sad::Mode;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One interface of the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Name in the manifest (`inside`, `outside`).
    pub name: String,
    /// Kernel device.
    pub device: String,
    /// Free text.
    pub description: String,
    /// Our own address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// HSRP groups.
    pub groups: Vec<GroupConfig>,
    /// Names of the interfaces its groups track.
    pub track: Vec<String>,
    /// Crypto map on this interface.
    pub crypto_map: Option<String>,
}

/// `ssp group ID`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SspGroup {
    /// Group id.
    pub id: u32,
    /// The other node's address.
    pub remote: IpAddr,
    /// Our own address towards it (on the interface that shares its subnet).
    pub local: IpAddr,
    /// TCP port.
    pub port: u16,
    /// HSRP group names it follows.
    pub redundancy: Vec<String>,
    /// The pair's secret.
    pub secret: Secret,
}

/// How outbound sequence numbers are leased.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutboundInterval {
    /// Sized by the SA's measured rate.
    Auto,
    /// Fixed number of packets (the guide counts in millions: 1 means 1 000 000).
    Packets(u64),
}

/// `ha replay-interval` of a crypto map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplayInterval {
    /// Inbound packets between two updates; default 1000.
    pub inbound_packets: u32,
    /// Longest time between two updates while packets arrive.
    pub inbound_time: Duration,
    /// Outbound lease.
    pub outbound: OutboundInterval,
}

/// Data path settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataplaneConfig {
    /// Entries of the SA table (power of two).
    pub sa_max: u32,
    /// XDP mode asked for.
    pub xdp: XdpMode,
    /// Where maps, programs and links are pinned (a bpffs is mounted there if there is none).
    pub pin_dir: PathBuf,
    /// aya-log messages of the programs.
    pub log: bool,
}

/// XDP attach mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// Native if the driver has it, else generic with one clear line.
    Auto,
    /// Native or fail.
    Native,
    /// Generic.
    Generic,
}

/// The whole manifest, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Host name.
    pub hostname: String,
    /// Interfaces in order of the manifest.
    pub interfaces: Vec<Interface>,
    /// SSP group that `crypto isakmp ssp` and the crypto map's `ssp` name; `None` = no stateful failover.
    pub ssp: Option<SspGroup>,
    /// The engine's configuration (policies, keys, crypto maps with resolved VIPs and flows).
    pub ike: IkeConfig,
    /// HA settings by crypto map name.
    pub replay: BTreeMap<String, ReplayInterval>,
    /// Prometheus listener.
    pub metrics: Option<SocketAddr>,
    /// Control socket.
    pub control_socket: PathBuf,
    /// Data path.
    pub dataplane: DataplaneConfig,
    /// Digest of each item that must be equal on both nodes, by name (`crypto map CMAP_1 1`, `crypto isakmp policy 1`, `standby 2`, …).
    pub digests: Vec<(String, [u8; 32])>,
    /// Warnings for the operator (weak algorithms and the like), with positions.
    pub warnings: Vec<String>,
    /// Transform sets in order of the manifest, used or not.
    pub transform_sets: Vec<TransformSet>,
    /// IKEv2 proposals in order of the manifest, used or not.
    pub ikev2_proposals: Vec<Ikev2Proposal>,
    /// IKEv2 profiles in order of the manifest, used or not.
    pub ikev2_profiles: Vec<Profile>,
    /// Trustpoints in order of the manifest, used or not.
    pub trustpoints: Vec<Trustpoint>,
    /// What `show crypto map` wants beside `ike.entries`, in the same order.
    pub maps: Vec<MapInfo>,
}

/// `crypto ipsec transform-set NAME`, as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransformSet {
    /// Name.
    pub name: String,
    /// Transforms in the guide's words.
    pub words: Vec<String>,
    /// Mode.
    pub mode: Mode,
}

/// `crypto ikev2 profile NAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// What the engine has of it.
    pub profile: Arc<Ikev2Profile>,
    /// Names of its proposals.
    pub proposals: Vec<String>,
    /// Name of its trustpoint.
    pub trustpoint: Option<String>,
}

/// `crypto pki trustpoint NAME`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trustpoint {
    /// Name.
    pub name: String,
    /// Our certificate and private key.
    pub credential: Option<Arc<Credential>>,
    /// Authorities and revocation lists.
    pub trust: Option<Arc<Trust>>,
    /// A certificate whose authority has no revocation list here is refused.
    pub crl_required: bool,
}

/// What a crypto map entry says beyond what the engine needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MapInfo {
    /// Crypto map name.
    pub map: String,
    /// Sequence number.
    pub seq: u32,
    /// Free text.
    pub description: String,
    /// Access list it names.
    pub match_address: String,
    /// Interface the map is on.
    pub interface: String,
}
