//! What `show` shows, as values: the daemon fills them, `render` prints them, `--json` serialises them.

mod ike;

pub use ike::{Ikev2SaView, IsakmpSaView, SessionFlowView, SessionState, SessionView, cookie};

use crate::config::Config;
use crate::hsrp;
use crate::id::{Epoch, Spi};
use crate::ports::{PathRole, ReasonCount};
use crate::sad::{Encap, Mode, Selector};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Where the views come from; the daemon implements it on its state.
pub trait StateSource {
    /// The configuration in force.
    fn config(&self) -> &Config;
    /// `show ssp`.
    fn ssp(&self) -> SspView;
    /// `show crypto isakmp ha`: one row per VIP that a crypto map uses.
    fn isakmp_ha(&self) -> Vec<IsakmpHaView>;
    /// `show crypto isakmp sa` and `… ha active|standby`.
    fn isakmp_sas(&self) -> Vec<IsakmpSaView>;
    /// `show crypto isakmp ssp`: one row per VIP.
    fn isakmp_ssp(&self) -> Vec<IsakmpSspView>;
    /// `show crypto ipsec ha`: one row per interface with a crypto map.
    fn ipsec_ha(&self) -> Vec<IpsecHaView>;
    /// `show crypto ipsec sa`: one item per flow that has, or may have, SAs.
    fn ipsec_flows(&self) -> Vec<FlowView>;
    /// `show standby brief`: one row per group.
    fn standby(&self) -> Vec<StandbyView>;
    /// `show takeover`: newest last.
    fn takeovers(&self) -> Vec<TakeoverView>;
    /// `show datapath`.
    fn datapath(&self) -> DatapathView;
    /// `show version`.
    fn version(&self) -> VersionView;
    /// Digests as the partner announced them; `None` before its hello.
    fn partner_digests(&self) -> Option<Vec<(String, [u8; 32])>>;
    /// Debug switches that are on, in the guide's words (`ssp fsm`).
    fn debugging(&self) -> Vec<String>;
}

/// State of an SA or of the node, in the guide's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HaStatus {
    /// In use.
    Active,
    /// Dormant.
    Standby,
    /// Neither yet.
    Init,
}

impl HaStatus {
    /// `Active`, `Standby`, `Init`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Standby => "Standby",
            Self::Init => "Init",
        }
    }

    /// `ACTIVE`, `STANDBY`, `INIT`.
    pub const fn capitals(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Standby => "STANDBY",
            Self::Init => "INIT",
        }
    }
}

/// `show ssp`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SspView {
    /// Clients, in order of their DOI.
    pub clients: Vec<SspClientView>,
    /// Socket and traffic.
    pub packet: SspPacketView,
    /// The partner.
    pub peers: Vec<SspPeerView>,
    /// State of this node.
    pub redundancy: SspRedundancyView,
}

/// One row of `show ssp client`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SspClientView {
    /// 1 = IPSec HA Manager, 2 = IKE HA Manager.
    pub doi: u32,
    /// Client's name.
    pub name: String,
    /// Version this build has.
    pub version: String,
    /// Version agreed with the partner.
    pub running: String,
}

impl SspClientView {
    /// The two clients, at the version `running` (major, minor) agreed with the partner.
    pub fn both(version: (u16, u16), running: (u16, u16)) -> Vec<Self> {
        [(1, "IPSec HA Manager"), (2, "IKE HA Manager")]
            .into_iter()
            .map(|(doi, name)| Self {
                doi,
                name: name.to_owned(),
                version: format!("{}.{}", version.0, version.1),
                running: format!("{}.{}", running.0, running.1),
            })
            .collect()
    }
}

/// `show ssp packet`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Default)]
pub struct SspPacketView {
    /// Seconds since the socket was made; `None` without one.
    pub socket_age_s: Option<u64>,
    /// Port of our end.
    pub local_port: u16,
    /// Port that is listened on.
    pub server_port: u16,
    /// Frames sent.
    pub packets_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Frames received.
    pub packets_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
}

/// One row of `show ssp peers`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SspPeerView {
    /// Partner's address.
    pub address: IpAddr,
    /// `Connected`, `Connecting`, `Not connected`.
    pub state: String,
    /// Kernel device towards it.
    pub interface: String,
}

/// `show ssp redundancy`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SspRedundancyView {
    /// State of this node.
    pub state: HaStatus,
    /// Seconds it has had it.
    pub for_s: u64,
    /// Epoch it holds under.
    pub epoch: Epoch,
    /// Why it could not take over now; `None` when it could.
    pub not_ready: Option<String>,
    /// Groups it follows.
    pub groups: Vec<SspGroupRow>,
}

/// One row of `show ssp redundancy`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SspGroupRow {
    /// Virtual address.
    pub vip: Ipv4Addr,
    /// Group name.
    pub name: String,
    /// Kernel device.
    pub interface: String,
}

/// One row of `show crypto isakmp ha`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IsakmpHaView {
    /// Virtual address.
    pub vip: IpAddr,
    /// ISAKMP SAs held under it.
    pub sas: u64,
    /// Stamp: rises or changes whenever the set of SAs does.
    pub stamp: u32,
    /// State.
    pub state: HaStatus,
    /// Unix time it began.
    pub since: i64,
}

/// One row of `show crypto isakmp ssp`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IsakmpSspView {
    /// Virtual address.
    pub vip: IpAddr,
    /// Records added since the last resync.
    pub adds: u64,
    /// Records deleted since the last resync.
    pub deletes: u64,
    /// Records asked for in resyncs.
    pub requests: u64,
    /// Records given or got in resyncs.
    pub replies: u64,
}

/// One row of `show crypto ipsec ha`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IpsecHaView {
    /// Kernel device.
    pub interface: String,
    /// Virtual address.
    pub vip: IpAddr,
    /// IPsec SAs (both halves counted).
    pub sas: u64,
    /// State.
    pub state: HaStatus,
    /// Unix time it began.
    pub since: i64,
}

/// A protected flow with its SAs: one block of `show crypto ipsec sa`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FlowView {
    /// Kernel device.
    pub interface: String,
    /// Manifest's name of the interface.
    pub interface_name: String,
    /// Crypto map.
    pub map: String,
    /// Our end.
    pub local_addr: IpAddr,
    /// Traffic behind us.
    pub local: Selector,
    /// Traffic behind the peer.
    pub remote: Selector,
    /// Peer.
    pub peer: IpAddr,
    /// Packets sent (encapsulated, encrypted, digested: the kernel counts them as one).
    pub packets_out: u64,
    /// Packets received and verified.
    pub packets_in: u64,
    /// Packets that could not be sent.
    pub send_errors: u64,
    /// Packets that failed verification, replay check or policy.
    pub recv_errors: u64,
    /// MTU of the path to the peer, as far as the device knows it.
    pub path_mtu: u32,
    /// MTU of the device.
    pub media_mtu: u32,
    /// Largest packet of the flow that fits once it is protected; `None` without an SA.
    pub plaintext_mtu: Option<u32>,
    /// Outbound SPI in use; `None` without an SA.
    pub current_spi_out: Option<Spi>,
    /// Inbound ESP SAs.
    pub inbound: Vec<SaView>,
    /// Outbound ESP SAs.
    pub outbound: Vec<SaView>,
}

/// One ESP SA.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SaView {
    /// SPI.
    pub spi: Spi,
    /// Transforms in the guide's words (`esp-aes-256 esp-sha256-hmac`).
    pub transform: String,
    /// Small number for this list.
    pub conn_id: u32,
    /// Number of the flow.
    pub flow_id: u32,
    /// Crypto map.
    pub map: String,
    /// Kilobytes left; `None` = no limit.
    pub remaining_kb: Option<u64>,
    /// Seconds left; `None` = no limit.
    pub remaining_s: Option<u64>,
    /// Mode.
    pub mode: Mode,
    /// ESP goes in UDP.
    pub encap: Option<Encap>,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Length of the IV, bytes.
    pub iv_bytes: usize,
    /// Replay window, packets; 0 = none.
    pub replay_window: u32,
    /// In use or dormant.
    pub status: HaStatus,
    /// Last sequence number: highest verified (inbound), last used (outbound).
    pub seq: u64,
    /// Outbound: numbers up to this one are leased.
    pub lease_hi: Option<u64>,
}

/// One row of `show standby brief`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StandbyView {
    /// Kernel device.
    pub interface: String,
    /// Group number.
    pub group: u8,
    /// Priority.
    pub priority: u8,
    /// May preempt.
    pub preempt: bool,
    /// State.
    pub state: hsrp::State,
    /// Active router's address; `None` = unknown.
    pub active: Option<Router>,
    /// Standby router's address; `None` = unknown.
    pub standby: Option<Router>,
    /// Virtual address.
    pub vip: Ipv4Addr,
}

/// A router of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Router {
    /// This node.
    Local,
    /// The one with this address.
    Address(Ipv4Addr),
}

impl Serialize for Router {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Local => s.serialize_str("local"),
            Self::Address(a) => s.collect_str(a),
        }
    }
}

/// One takeover, with the time each stage had been done at, from the moment it was detected.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TakeoverView {
    /// Epoch it began.
    pub epoch: Epoch,
    /// Why (`hold timer`, `switchover`, `link down`, …).
    pub cause: String,
    /// Unix time it was detected.
    pub at: i64,
    /// SA pairs taken over.
    pub pairs: u64,
    /// From the last sign of the old active to detection, ms; `None` when unknown or planned.
    pub detected_ms: Option<f64>,
    /// Role word set, ms after detection.
    pub role_ms: Option<f64>,
    /// Virtual addresses on, ms after detection.
    pub vips_ms: Option<f64>,
    /// Gratuitous ARP sent, ms after detection.
    pub garp_ms: Option<f64>,
    /// IKE engine unmuted, ms after detection.
    pub ike_ms: Option<f64>,
    /// All done, ms after detection.
    pub total_ms: Option<f64>,
}

/// `show datapath`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DatapathView {
    /// Role word.
    pub role: PathRole,
    /// Its epoch.
    pub epoch: Epoch,
    /// Milliseconds until the role ends by itself; `None` = no limit.
    pub lease_left_ms: Option<u64>,
    /// Device and XDP mode (`native`, `generic`).
    pub attached: Vec<(String, &'static str)>,
    /// Packets by reason.
    pub reasons: Vec<ReasonCount>,
}

/// `show version`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VersionView {
    /// Version of the program.
    pub version: String,
    /// Host name.
    pub hostname: String,
    /// Kernel release.
    pub kernel: String,
    /// ABI of the data path's maps.
    pub abi: u32,
    /// SSP version offered.
    pub ssp: u16,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Manifest it runs.
    pub manifest: String,
}

/// `show config digest`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DigestView {
    /// True when the partner's digests are known.
    pub partner_known: bool,
    /// Items of either node, in order of names.
    pub items: Vec<DigestRow>,
}

/// One row of `show config digest`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DigestRow {
    /// Item.
    pub item: String,
    /// First bytes of our digest, hexadecimal; `None` = we have no such item.
    pub local: Option<String>,
    /// The partner's.
    pub partner: Option<String>,
    /// True when both have it and it is the same.
    pub equal: bool,
}

impl DigestView {
    /// Compares our digests with the partner's.
    pub fn compare(local: &[(String, [u8; 32])], partner: Option<&[(String, [u8; 32])]>) -> Self {
        type Both<'a> = (Option<&'a [u8; 32]>, Option<&'a [u8; 32]>);
        let mut by: BTreeMap<&str, Both<'_>> = BTreeMap::new();
        for (item, digest) in local {
            by.entry(item).or_default().0 = Some(digest);
        }
        for (item, digest) in partner.unwrap_or_default() {
            by.entry(item).or_default().1 = Some(digest);
        }
        let items = by
            .into_iter()
            .map(|(item, (ours, theirs))| DigestRow {
                item: item.to_owned(),
                local: ours.map(short),
                partner: theirs.map(short),
                equal: ours.is_some() && ours == theirs,
            })
            .collect();
        Self { partner_known: partner.is_some(), items }
    }
}

/// First eight bytes, hexadecimal: enough for eyes.
fn short(digest: &[u8; 32]) -> String {
    digest[..8].iter().map(|b| format!("{b:02x}")).collect()
}
