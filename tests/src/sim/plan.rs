//! Addresses and manifests of the simulated world.
//!
//! ```text
//!  host 10.1.0.10 ── inside LAN ──┬── a 10.1.0.2 │ a 192.0.2.2 ──┬── outside LAN ──┬── peer 1 192.0.2.101 ── 10.2.1.0/24
//!                    VIP 10.1.0.1 └── b 10.1.0.3 │ b 192.0.2.3 ──┘ VIP 192.0.2.1   └── peer 2 192.0.2.102 ── 10.2.2.0/24
//! ```

use super::clock::{MS, Ns, SEC};
use super::frame::Mac;
use super::kernel::KernelKnobs;
use super::path::PathKnobs;
use gateway_user::config::{self, Config, OutboundInterval};
use gateway_user::ike::PeerMatch;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// Index of the inside device and LAN.
pub const INSIDE: usize = 0;
/// Index of the outside device and LAN.
pub const OUTSIDE: usize = 1;
/// Device names.
pub const DEVICES: [&str; 2] = ["in0", "out0"];
/// Virtual addresses by device.
pub const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(192, 0, 2, 1)];
/// HSRP groups by device.
pub const GROUPS: [u8; 2] = [1, 2];
/// The inside host.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// Its MAC.
pub const HOST_MAC: Mac = [2, 0, 0, 0, 1, 10];
/// Crypto map.
pub const MAP: &str = "VPN";

/// The two nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// Lower addresses.
    A,
    /// Higher addresses: wins ties, opens the SSP connection.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// `a` or `b`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// The partner.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Address of a node on a LAN.
pub fn address(side: Side, device: usize) -> Ipv4Addr {
    let last = 2 + side.index() as u8;
    if device == INSIDE { Ipv4Addr::new(10, 1, 0, last) } else { Ipv4Addr::new(192, 0, 2, last) }
}

/// MAC of a node on a LAN.
pub fn mac(side: Side, device: usize) -> Mac {
    [2, 0, 0, 0, 2 + device as u8, 2 + side.index() as u8]
}

/// Address of a peer, counted from 0.
pub fn peer_address(peer: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 101 + peer as u8)
}

/// MAC of a peer.
pub fn peer_mac(peer: usize) -> Mac {
    [2, 0, 0, 0, 9, 101 + peer as u8]
}

/// Host behind a peer.
pub fn peer_host(peer: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 1 + peer as u8, 10)
}

/// Device and next hop of a destination, as a gateway routes it.
pub fn route(dst: Ipv4Addr) -> Option<(usize, Ipv4Addr)> {
    match dst.octets() {
        [10, 1, 0, _] => Some((INSIDE, dst)),
        [192, 0, 2, _] => Some((OUTSIDE, dst)),
        [10, 2, n @ 1..=250, _] => Some((OUTSIDE, peer_address(usize::from(n) - 1))),
        _ => None,
    }
}

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// All chance follows from it.
    pub seed: u64,
    /// Remote peers.
    pub peers: usize,
    /// HSRP hello time.
    pub hello: Ns,
    /// HSRP hold time.
    pub hold: Ns,
    /// True: the node with the higher priority preempts.
    pub preempt: bool,
    /// HSRP priorities of the nodes: equal, as the guide wants it.
    pub priority: [u8; 2],
    /// Pause between two packets of one direction of one flow.
    pub gap: Ns,
    /// Outbound lease, packets; `None` sizes by rate.
    pub lease: Option<u64>,
    /// Inbound packets between two updates.
    pub inbound_packets: u32,
    /// Longest time between two updates.
    pub inbound_time: Ns,
    /// Lifetime of child SAs, seconds.
    pub child_lifetime_s: u64,
    /// Replay window.
    pub window: u32,
    /// Perfect forward secrecy.
    pub pfs: bool,
    /// Dead peer detection of everybody: interval.
    pub dpd_s: u64,
    /// LAN delay.
    pub delay: Ns,
    /// Random addition to it.
    pub jitter: Ns,
    /// Frames lost, of ten thousand.
    pub loss: u32,
    /// Frames doubled, of ten thousand.
    pub duplicate: u32,
    /// Frames held back by several times the delay, of ten thousand.
    pub reorder: u32,
    /// Port calls that fail, of ten thousand.
    pub port_failures: u32,
    /// Kernel events lost, of ten thousand.
    pub event_loss: u32,
    /// Captured ESP sent again, of ten thousand.
    pub replay_attack: u32,
    /// Broken programs, for mutation tests.
    pub path_knobs: PathKnobs,
    /// Broken kernel calls, for mutation tests.
    pub kernel_knobs: KernelKnobs,
}

impl Setup {
    /// A calm world.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            peers: 1,
            hello: 200 * MS,
            hold: 700 * MS,
            preempt: false,
            priority: [100, 100],
            gap: 20 * MS,
            lease: Some(256),
            inbound_packets: 16,
            inbound_time: 50 * MS,
            child_lifetime_s: 3600,
            window: 64,
            pfs: false,
            dpd_s: 2,
            delay: MS / 5,
            jitter: 0,
            loss: 0,
            duplicate: 0,
            reorder: 0,
            port_failures: 0,
            event_loss: 0,
            replay_attack: 0,
            path_knobs: PathKnobs::default(),
            kernel_knobs: KernelKnobs::default(),
        }
    }

    /// Time after which an active that was heard last is held for dead, and one hello more.
    pub fn takeover(&self) -> Ns {
        self.hold + self.hello + SEC / 10
    }
}

fn ms(ns: Ns) -> String {
    format!("{}ms", ns / MS)
}

fn parse(text: &str) -> Config {
    let mut secret = |path: &Path| Ok(format!("simulated-{}-secret-0123456789abcdef-Zq", path.display()).into_bytes());
    match config::parse(text, "sim.yaml", &mut secret) {
        Ok(config) => config,
        Err(errors) => panic!("the simulated manifest is refused: {errors:?}\n{text}"),
    }
}

/// The manifest of a node.
pub fn gateway(setup: &Setup, side: Side) -> Config {
    let s = setup;
    let keys: String = (0..s.peers).map(|p| format!("      - {{ address: {}, secret_file: psk }}\n", peer_address(p))).collect();
    let maps: String = (0..s.peers)
        .map(|p| {
            let pfs = if s.pfs { ", pfs: group19" } else { "" };
            format!(
                "      {}:\n        ipsec-isakmp: {{ peer: [{}], transform_set: [T], match_address: {}, replay_window: {}{pfs} }}\n",
                p + 1,
                peer_address(p),
                100 + p,
                s.window
            )
        })
        .collect();
    let lists: String =
        (0..s.peers).map(|p| format!("  {}:\n    - permit ip 10.1.0.0 0.0.0.255 10.2.{}.0 0.0.0.255\n", 100 + p, p + 1)).collect();
    let text = format!(
        "hostname: gw-{name}
interfaces:
  inside:
    device: in0
    address: {inside}/24
    standby:
      delay: {{ minimum: 0s, reload: 0s }}
      groups:
        1: {{ name: LAN, ip: {vip_in}, timers: {{ hello: {hello}, hold: {hold} }}, priority: {priority}, preempt: {preempt}, track: [outside] }}
  outside:
    device: out0
    address: {outside}/24
    standby:
      delay: {{ minimum: 0s, reload: 0s }}
      groups:
        2: {{ name: ISP, ip: {vip_out}, timers: {{ hello: {hello}, hold: {hold} }}, priority: {priority}, preempt: {preempt}, track: [inside] }}
    crypto_map: {{ name: {MAP}, ssp: 1 }}
ssp:
  1: {{ remote: {remote}, redundancy: [LAN, ISP], secret_file: ssp }}
crypto:
  isakmp:
    ssp: 1
    policy:
      1: {{ encryption: aes-128, hash: sha256, group: 19, lifetime: 24h }}
    key:
{keys}    dpd: {{ interval: {dpd}s, retry: 1s, retries: 3 }}
    retransmit: {{ first: 500ms, tries: 4 }}
  ipsec:
    transform_set:
      T: {{ transforms: [esp-aes, esp-sha256-hmac] }}
    security_association:
      lifetime: {{ seconds: {life}s }}
  map:
    {MAP}:
      ha: {{ replay_interval: {{ inbound: {inbound}, outbound: 1 }} }}
{maps}access_list:
{lists}dataplane: {{ sa_max: 1024 }}
",
        name = side.name(),
        inside = address(side, INSIDE),
        outside = address(side, OUTSIDE),
        vip_in = VIPS[INSIDE],
        vip_out = VIPS[OUTSIDE],
        hello = ms(s.hello),
        hold = ms(s.hold),
        priority = s.priority[side.index()],
        preempt = s.preempt,
        remote = address(side.other(), INSIDE),
        dpd = s.dpd_s,
        life = s.child_lifetime_s,
        inbound = s.inbound_packets,
    );
    let mut config = parse(&text);
    for interval in config.replay.values_mut() {
        // Smaller than a manifest can say: leases are to run out in seconds of a slow simulation.
        interval.outbound = s.lease.map_or(OutboundInterval::Auto, OutboundInterval::Packets);
        interval.inbound_time = Duration::from_nanos(s.inbound_time);
    }
    config
}

/// The manifest of a peer, which needs an engine's part only: the gateway's, mirrored.
pub fn peer(setup: &Setup, peer: usize) -> Config {
    let mut config = gateway(setup, Side::A);
    let me = std::net::IpAddr::V4(peer_address(peer));
    let vip = std::net::IpAddr::V4(VIPS[OUTSIDE]);
    let ike = &mut config.ike;
    ike.keys.retain(|k| k.peer == PeerMatch::Address(me));
    for key in &mut ike.keys {
        key.peer = PeerMatch::Address(vip);
    }
    ike.entries.retain(|e| e.peers.contains(&me));
    for entry in &mut ike.entries {
        entry.local = me;
        entry.peers = vec![vip];
        for flow in &mut entry.flows {
            std::mem::swap(&mut flow.local, &mut flow.remote);
        }
        entry.digest = config::map_entry_digest(entry);
    }
    config
}
