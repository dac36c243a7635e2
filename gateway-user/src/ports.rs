//! What the daemon asks of the outside: small traits, each with a real adapter and a fake.

use crate::id::{Epoch, Spi};
use crate::sad::{ChildSa, Counters, Encap, Lifetime, Mode, Selector};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use thiserror::Error;

/// A failed call to the outside.
#[derive(Debug, Error)]
#[error("{call} {object}: {source}")]
pub struct PortError {
    /// Which call (`XFRM_MSG_NEWSA`, `RTM_NEWADDR`, `bpf map update`).
    pub call: &'static str,
    /// On what.
    pub object: String,
    /// Kernel's answer, with its extended text where it gives one.
    pub source: std::io::Error,
}

/// Result of a port call.
pub type PortResult<T> = Result<T, PortError>;

/// One direction of a child pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Direction {
    /// Packets we receive.
    In,
    /// Packets we send.
    Out,
}

/// One SA to install.
#[derive(Clone, Debug)]
pub struct SaInstall<'a> {
    /// The pair it belongs to.
    pub child: &'a ChildSa,
    /// Which half.
    pub direction: Direction,
    /// reqid shared by policy template and SAs (never consecutive small numbers: kernel hash trap).
    pub reqid: u32,
    /// Sequence number to start from: `oseq` of an outbound, `seq` (with an all-ones bitmap when not 0) of an inbound SA.
    pub replay: u64,
    /// Age, bytes and packets it has already, so that lifetimes stay true on the standby.
    pub used: SaUsed,
    /// Kernel replay event after this many packets.
    pub event_packets: u32,
    /// Kernel replay event at the latest after this time while packets flow.
    pub event_time: Duration,
}

/// What an SA has used of its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SaUsed {
    /// Seconds since creation.
    pub age_s: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// Replay state to write into an installed SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplaySet {
    /// SA's SPI.
    pub spi: Spi,
    /// SA's destination address.
    pub dst: IpAddr,
    /// Which half.
    pub direction: Direction,
    /// Outbound: last number used. Inbound: highest verified; the bitmap is set to all ones.
    pub replay: u64,
    /// Replay window of the SA, packets (its bitmap length must match).
    pub window: u32,
    /// Extended sequence numbers, as the SA was made with.
    pub esn: bool,
    /// Bytes and packets, when known.
    pub used: Option<SaUsed>,
}

/// One SA as the kernel holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaDump {
    /// SPI.
    pub spi: Spi,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// reqid.
    pub reqid: u32,
    /// Inbound replay counter.
    pub seq: u64,
    /// Outbound replay counter.
    pub oseq: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Age in seconds.
    pub age_s: u64,
    /// Packets whose check value was wrong.
    pub integrity_failed: u32,
    /// Packets that were received before; outbound: packets for which no number was left.
    pub replay: u32,
    /// Packets older than the replay window.
    pub replay_window: u32,
}

impl SaDump {
    /// Packets it refused.
    pub fn errors(&self) -> u64 {
        [self.integrity_failed, self.replay, self.replay_window].into_iter().map(u64::from).sum()
    }
}

/// A protected flow: one policy in each direction (out; in; fwd) with a template, and block policies beneath.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowPolicy {
    /// Traffic behind us.
    pub local: Selector,
    /// Traffic behind the peer.
    pub remote: Selector,
    /// Our tunnel end.
    pub tunnel_local: IpAddr,
    /// Peer's tunnel end.
    pub tunnel_peer: IpAddr,
    /// reqid of the template.
    pub reqid: u32,
    /// Priority: lower wins; the block policy gets a higher number.
    pub priority: u32,
    /// Encapsulation mode of the template.
    pub mode: Mode,
}

/// What the kernel tells us unasked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum XfrmEvent {
    /// A packet wants an SA.
    Acquire(crate::ike::Acquire),
    /// Soft or hard lifetime reached.
    Expire {
        /// SPI.
        spi: Spi,
        /// Destination of the SA.
        dst: IpAddr,
        /// True for the hard limit (the SA is gone).
        hard: bool,
    },
    /// Verified replay counters moved (never the echo of our own writes).
    Replay {
        /// SPI.
        spi: Spi,
        /// Destination of the SA.
        dst: IpAddr,
        /// Inbound counter.
        seq: u64,
        /// Outbound counter.
        oseq: u64,
        /// Bytes.
        bytes: u64,
        /// Packets.
        packets: u64,
    },
    /// A packet of an encapsulated SA, authenticated and no replay, came from another address or port than the SA's: the NAT's mapping
    /// changed. At most one a second and SA.
    Mapping {
        /// Inbound SPI.
        spi: Spi,
        /// Destination of the SA: our own end.
        dst: IpAddr,
        /// Where it came from.
        peer: IpAddr,
        /// Its UDP port.
        port: u16,
    },
    /// Events were lost (ENOBUFS): dump.
    Overrun,
}

/// The kernel's XFRM.
pub trait Xfrm: Send {
    /// Makes the kernel load what these algorithms need, so that the first SA does not wait for it. The error tells what the kernel lacks.
    fn prepare(&mut self, encr: crate::crypto::CipherAlg, integ: Option<crate::crypto::IntegAlg>) -> PortResult<()> {
        let _ = (encr, integ);
        Ok(())
    }
    /// Installs SAs, pipelined; answers per SA in order. An existing equal SA is not an error.
    fn install(&mut self, sas: &[SaInstall<'_>]) -> Vec<PortResult<()>>;
    /// Removes one SA; absent is not an error.
    fn remove(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()>;
    /// Writes replay state (and lifetimes used), pipelined; answers per SA in order.
    fn set_replay(&mut self, sets: &[ReplaySet]) -> Vec<PortResult<()>>;
    /// Moves a pair to another address or port of the peer, numbers and keys unchanged (`child` still names the old ones). A half that is not
    /// installed is no error.
    fn move_peer(&mut self, child: &ChildSa, peer: IpAddr, encap: Option<Encap>) -> PortResult<()> {
        let _ = (peer, encap);
        Err(PortError { call: "move_peer", object: child.spi_in.to_string(), source: std::io::ErrorKind::Unsupported.into() })
    }
    /// Everything the kernel holds (ESP).
    fn dump(&mut self) -> PortResult<Vec<SaDump>>;
    /// Makes the policies of `flows` be exactly these: adds, updates, removes what we own and do not want. Never a moment without.
    fn sync_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()>;
    /// Brings the policies of `flows`, which [`Self::sync_policies`] made, to what is said here (selectors alike); all others stay. Takes no
    /// longer with many policies in the kernel than with few.
    fn update_policies(&mut self, flows: &[FlowPolicy]) -> PortResult<()>;
}

/// Addresses and links.
pub trait Links: Send {
    /// Makes the macvlan for a group's virtual MAC on `device` (up, without address), sets the sysctls it needs. Idempotent.
    fn prepare_vip(&mut self, device: &str, group: u8) -> PortResult<()>;
    /// Adds the VIP (as /32) to the group's macvlan. Idempotent.
    fn add_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()>;
    /// Removes it. Idempotent.
    fn remove_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()>;
    /// True when the VIP is on the macvlan.
    fn has_vip(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<bool>;
    /// Sends gratuitous ARP (request and reply) for the VIP from the virtual MAC.
    fn gratuitous_arp(&mut self, device: &str, group: u8, vip: Ipv4Addr) -> PortResult<()>;
    /// Index, MAC and carrier of a device.
    fn link(&mut self, device: &str) -> PortResult<LinkState>;
}

/// A device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Interface index.
    pub ifindex: u32,
    /// Hardware address.
    pub mac: [u8; 6],
    /// Up and with carrier.
    pub up: bool,
    /// Largest IP packet it takes, bytes.
    pub mtu: u32,
}

/// What the data path may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize)]
pub enum PathRole {
    /// Sends nothing protected, redirects strays to the partner.
    Standby,
    /// Forwards what reaches it, announces nothing yet (planned hand-over, incoming node).
    Armed,
    /// Forwards.
    Active,
    /// Redirects what arrives, lets out what is already inside (planned hand-over, outgoing node).
    Draining,
}

/// Role word of the data path: one map entry, one atomic update.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoleWord {
    /// Role.
    pub role: PathRole,
    /// Epoch it holds under.
    pub epoch: Epoch,
    /// CLOCK_MONOTONIC time in ns after which an `Active` is treated as `Standby`; `u64::MAX` = no limit.
    pub lease_until_ns: u64,
}

/// Drops and passes by reason, from the programs' counters.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReasonCount {
    /// Program (`classify`, `shunt`, `guard`).
    pub program: &'static str,
    /// Stable name of the reason.
    pub reason: &'static str,
    /// True when it is a drop.
    pub drop: bool,
    /// Packets.
    pub packets: u64,
}

/// Where strays of an interface go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partner {
    /// Partner's own MAC on this LAN.
    pub mac: [u8; 6],
}

/// The eBPF data path. Maps and links are pinned; dropping the adapter leaves them.
pub trait Dataplane: Send {
    /// Writes the role word.
    fn set_role(&mut self, word: RoleWord) -> PortResult<()>;
    /// Reads the role word (as a predecessor left it).
    fn role(&mut self) -> PortResult<Option<RoleWord>>;
    /// Virtual addresses of an interface (with the group numbers of their virtual MACs).
    fn set_vips(&mut self, device: &str, vips: &[(Ipv4Addr, u8)]) -> PortResult<()>;
    /// Selectors that must never leave `device` in clear.
    fn set_protected(&mut self, device: &str, flows: &[(Selector, Selector)]) -> PortResult<()>;
    /// The partner on the LAN of `device`; `None` = strays are dropped.
    fn set_partner(&mut self, device: &str, partner: Option<Partner>) -> PortResult<()>;
    /// Adds or replaces an inbound SA; `floor`: numbers up to and including it are dropped. The floor of an SA that is there never falls.
    /// `esn`: extended sequence numbers; the floor then reaches 2^24 numbers down and is to be raised at least every 2^31.
    fn set_inbound(&mut self, spi: Spi, dst: IpAddr, floor: u64, esn: bool) -> PortResult<()>;
    /// Removes an inbound SA.
    fn remove_inbound(&mut self, spi: Spi) -> PortResult<()>;
    /// Adds or replaces the range of outbound numbers this node may send: `lo < seq <= hi`. With extended sequence numbers (`esn`) a range
    /// of 2^32 or more admits everything.
    fn set_outbound(&mut self, spi: Spi, dst: IpAddr, lo: u64, hi: u64, esn: bool) -> PortResult<()>;
    /// Removes an outbound SA.
    fn remove_outbound(&mut self, spi: Spi, dst: IpAddr) -> PortResult<()>;
    /// Packets by reason.
    fn reasons(&mut self) -> PortResult<Vec<ReasonCount>>;
    /// What the programs counted for one pair (hints, not verified).
    fn hints(&mut self, spi_in: Spi, spi_out: Spi, peer: IpAddr) -> PortResult<Counters>;
    /// `native` or `generic` by device.
    fn attached(&self) -> Vec<(String, &'static str)>;
}

/// Soft limit at which a rekey starts, from the hard one: 90 % less up to 10 % of jitter.
pub fn soft_lifetime(hard: Lifetime, random: u32) -> Lifetime {
    let soft = |v: u64| v - v / 10 - (v / 10).saturating_mul(u64::from(random % 1000)) / 1000;
    Lifetime { seconds: soft(hard.seconds), kilobytes: soft(hard.kilobytes) }
}
