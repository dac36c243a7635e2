//! The core of the daemon: one thread decides. Inputs come in by `handle_*`, work for sockets leaves by `poll_output`, kernel and data path are
//! called through `ports`. No tokio here, so that a simulated pair can run two cores in virtual time.

mod control;
mod kernel;
mod moves;
mod operate;
mod partner;
mod show;
mod state;
#[cfg(test)]
mod tests;

pub use show::CoreView;
pub use state::*;

use crate::daemon::views::TakeoverView;

use crate::config::{Config, OutboundInterval};
use crate::daemon::clock::Clock;
use crate::ha::{Node, NodeConfig, NodeState};
use crate::hsrp;
use crate::id::{Epoch, Spi};
use crate::ike::{self, Engine, Job, JobDone, Transmit};
use crate::net::control::{ControlRequest, ControlResponse};
use crate::ports::{Dataplane, FlowPolicy, Links, PathRole, PortError, PortResult, ReasonCount, Xfrm, XfrmEvent};
use crate::rng::Random;
use crate::sad::{LeasePolicy, Mode, SpiTable};
use bytes::Bytes;
use ring::digest;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Rounds of draining per input; more means a loop between two machines, which is a bug worth a line in the log.
const PUMP_ROUNDS_MAX: usize = 1000;
/// How often the engine is told the wall clock, by which it judges certificates.
const WALL_INTERVAL: Duration = Duration::from_secs(3600);
/// First priority number of our XFRM policies.
const POLICY_PRIORITY_FIRST: u32 = 1000;

/// The outside, as traits.
pub struct Ports {
    /// Kernel SAs and policies.
    pub xfrm: Box<dyn Xfrm>,
    /// Addresses and links.
    pub links: Box<dyn Links>,
    /// The eBPF data path.
    pub path: Box<dyn Dataplane>,
}

/// Work for sockets and threads.
pub enum Output {
    /// Send an HSRP payload on a device.
    Hsrp {
        /// Index of the interface in the manifest.
        interface: usize,
        /// UDP payload.
        payload: Vec<u8>,
        /// Source MAC.
        source_mac: [u8; 6],
    },
    /// Send an IKE datagram.
    Ike(Transmit),
    /// Send bytes on an SSP connection.
    Ssp {
        /// Connection.
        conn: u64,
        /// Bytes.
        bytes: Bytes,
    },
    /// The partner proved itself on this connection.
    SspAuthenticated {
        /// Connection.
        conn: u64,
    },
    /// Close an SSP connection.
    SspClose {
        /// Connection.
        conn: u64,
        /// Why.
        cause: String,
    },
    /// Run a job on another thread.
    Job(Job),
    /// Answer an operator.
    Control {
        /// Number of the request.
        id: u64,
        /// The answer.
        response: ControlResponse,
    },
}

/// One HSRP group and where it runs.
pub(super) struct GroupSlot {
    pub(super) interface: usize,
    pub(super) group: hsrp::Group,
    pub(super) last_hello: Option<Instant>,
}

/// Allocates inbound SPIs for the engine out of the table the core shares.
struct SharedSpis(Arc<Mutex<SpiTable>>);

impl ike::SpiSource for SharedSpis {
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        self.0.lock().ok()?.allocate(rng)
    }
}

/// The core.
pub struct Core {
    pub(super) config: Arc<Config>,
    pub(super) ports: Ports,
    pub(super) clock: Box<dyn Clock>,
    pub(super) rng: Box<dyn Random>,
    pub(super) node: Node,
    pub(super) groups: Vec<GroupSlot>,
    pub(super) engine: Engine,
    pub(super) spis: Arc<Mutex<SpiTable>>,
    pub(super) pairs: BTreeMap<Spi, Pair>,
    /// Outbound SPI and peer to the pair's inbound SPI.
    pub(super) outbound: HashMap<(Spi, IpAddr), Spi>,
    pub(super) flows: Vec<FlowRef>,
    /// Flows whose policy names another tunnel end than the configured peer.
    pub(super) redirected: usize,
    /// SAs that a predecessor left and no pair accounts for, by reqid.
    pub(super) orphans: HashMap<u32, Vec<(Spi, IpAddr)>>,
    /// Last outbound numbers of pairs that were dropped (SPI and destination).
    pub(super) dropped: HashMap<(Spi, IpAddr), u64>,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) live: Option<u64>,
    pub(super) staging: Option<Staging>,
    pub(super) complete: Option<Staging>,
    pub(super) snapshot_sent: bool,
    pub(super) snapshot_id: u64,
    /// A snapshot was asked for.
    pub(super) resync_wanted: bool,
    pub(super) deferred: VecDeque<(u64, Deferred)>,
    pub(super) switches: Vec<Switch>,
    pub(super) grants: VecDeque<(u64, Vec<(Spi, u64)>)>,
    pub(super) outbox: VecDeque<(u64, Transmit)>,
    /// Last record sent to the partner.
    pub(super) last_record: u64,
    pub(super) outputs: VecDeque<Output>,
    pub(super) role: (PathRole, Epoch),
    pub(super) role_since: (Instant, std::time::SystemTime),
    pub(super) partner_heard: Option<Instant>,
    pub(super) active_heard: Option<Instant>,
    pub(super) links_up: Vec<bool>,
    pub(super) stats: Stats,
    pub(super) takeovers: VecDeque<TakeoverView>,
    pub(super) stages: Option<(Instant, TakeoverView)>,
    pub(super) lease_until: Option<Instant>,
    /// Adding (true) or removing (false) a VIP failed.
    pub(super) vips_retry: Option<bool>,
    pub(super) partner_digests: Option<Vec<(String, [u8; 32])>>,
    pub(super) manifest: String,
    pub(super) switchover_waiter: Option<u64>,
    pub(super) started: Instant,
    /// When the engine is told the wall clock next.
    pub(super) wall_due: Instant,
}

/// reqid of a flow: equal on both nodes, scattered (consecutive ones degenerate the kernel's hash).
pub fn reqid(map: &str, seq: u32, ace: u32) -> u32 {
    let mut c = digest::Context::new(&digest::SHA256);
    c.update(b"gateway reqid\0");
    c.update(map.as_bytes());
    c.update(&seq.to_be_bytes());
    c.update(&ace.to_be_bytes());
    let d = c.finish();
    let b = d.as_ref();
    u32::from_be_bytes([b[0], b[1], b[2], b[3]]) | 0x0100_0000
}

impl Core {
    /// Builds the core, writes policies and data path tables, and starts as standby or, over an active data path, adopting.
    pub fn new(
        config: Arc<Config>,
        mut ports: Ports,
        clock: Box<dyn Clock>,
        rng: Box<dyn Random>,
        engine_rng: Box<dyn Random>,
    ) -> PortResult<Self> {
        let now = clock.now();
        let wins_ties = config.ssp.as_ref().is_none_or(|s| s.local > s.remote);
        let spis = Arc::new(Mutex::new(SpiTable::new(wins_ties, config.dataplane.sa_max)));
        let engine = Engine::new(Arc::new(config.ike.clone()), engine_rng, Box::new(SharedSpis(spis.clone())), now);
        let mut groups = Vec::new();
        for (i, interface) in config.interfaces.iter().enumerate() {
            for g in &interface.groups {
                ports.links.prepare_vip(&interface.device, g.group)?;
                groups.push(GroupSlot { interface: i, group: hsrp::Group::new(g.clone(), now), last_hello: None });
            }
            let vips: Vec<(Ipv4Addr, u8)> = interface.groups.iter().map(|g| (g.vip, g.group)).collect();
            ports.path.set_vips(&interface.device, &vips)?;
        }
        let mut flows = Vec::new();
        for (order, entry) in config.ike.entries.iter().enumerate() {
            let Some(&peer) = entry.peers.first() else { continue };
            for flow in &entry.flows {
                let reqid = reqid(&entry.map, entry.seq, flow.ace);
                let policy = FlowPolicy {
                    local: flow.local,
                    remote: flow.remote,
                    tunnel_local: entry.local,
                    tunnel_peer: peer,
                    reqid,
                    priority: POLICY_PRIORITY_FIRST + order as u32,
                    mode: entry.transforms.first().map_or(Mode::Tunnel, |t| t.mode),
                };
                flows.push(FlowRef { map: entry.map.clone(), seq: entry.seq, ace: flow.ace, policy });
            }
        }
        for interface in config.interfaces.iter().filter(|i| i.crypto_map.is_some()) {
            let protected: Vec<_> = flows
                .iter()
                .filter(|f| interface.crypto_map.as_deref() == Some(f.map.as_str()))
                .map(|f| (f.policy.local, f.policy.remote))
                .collect();
            ports.path.set_protected(&interface.device, &protected)?;
        }
        let mut prepared = Vec::new();
        for t in config.ike.entries.iter().flat_map(|e| &e.transforms) {
            if prepared.contains(&(t.encr, t.integ)) {
                continue;
            }
            prepared.push((t.encr, t.integ));
            if let Err(e) = ports.xfrm.prepare(t.encr, t.integ) {
                warn!(transform_set = %t.name, error = %e, "WARNING: encryption hardware does not support transform: this kernel cannot do it");
            }
        }
        let policies: Vec<FlowPolicy> = flows.iter().map(|f| f.policy.clone()).collect();
        ports.xfrm.sync_policies(&policies)?;
        let hold = config.interfaces.iter().flat_map(|i| &i.groups).map(|g| g.hold).max().unwrap_or(Duration::from_secs(3));
        let node = Node::new(NodeConfig { wins_ties, hold, paired: config.ssp.is_some() });
        let mut links_up = Vec::new();
        for interface in &config.interfaces {
            links_up.push(ports.links.link(&interface.device)?.up);
        }
        let pinned = ports.path.role()?;
        let wall = clock.wall();
        let mut core = Self {
            config,
            ports,
            clock,
            rng,
            node,
            groups,
            engine,
            spis,
            pairs: BTreeMap::new(),
            outbound: HashMap::new(),
            flows,
            redirected: 0,
            orphans: HashMap::new(),
            dropped: HashMap::new(),
            conns: BTreeMap::new(),
            live: None,
            staging: None,
            complete: None,
            snapshot_sent: false,
            snapshot_id: 0,
            resync_wanted: false,
            deferred: VecDeque::new(),
            switches: Vec::new(),
            grants: VecDeque::new(),
            outbox: VecDeque::new(),
            last_record: 0,
            outputs: VecDeque::new(),
            role: (PathRole::Standby, Epoch(0)),
            role_since: (now, wall),
            partner_heard: None,
            active_heard: None,
            links_up,
            stats: Stats::default(),
            takeovers: VecDeque::new(),
            stages: None,
            lease_until: None,
            vips_retry: None,
            partner_digests: None,
            manifest: String::new(),
            switchover_waiter: None,
            started: now,
            wall_due: now,
        };
        info!(hostname = %core.config.hostname, pinned = ?pinned, "core starts");
        core.tell_wall(now);
        core.engine.set_active(false, now);
        core.node.start(pinned.map(|w| (w.role, w.epoch)), now);
        if pinned.is_some_and(|w| w.role == PathRole::Active) {
            core.find_orphans();
        }
        if let Some(w) = pinned.filter(|w| w.role == PathRole::Active && w.lease_until_ns != u64::MAX) {
            let left_ns = w.lease_until_ns.saturating_sub(core.clock.monotonic_ns(now));
            core.lease_until = Some(now + Duration::from_nanos(left_ns));
        }
        let all_up = core.links_up.iter().all(|u| *u);
        core.node.handle_links(all_up, now);
        for slot in &mut core.groups {
            let delay = slot.group.config().delay_reload;
            let up = core.links_up[slot.interface];
            slot.group.handle_interface(up, delay, now);
        }
        core.pump(now);
        Ok(core)
    }

    /// Names the file the configuration came from, for `show version`.
    pub fn set_manifest(&mut self, path: &str) {
        path.clone_into(&mut self.manifest);
    }

    /// Next piece of work for sockets and threads.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Earliest deadline of all machines.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let groups = self.groups.iter().filter_map(|s| s.group.poll_timeout());
        let conns = self.conns.values().filter_map(|c| c.session.poll_timeout());
        let switches = self.switches.iter().map(|s| (s.at, "rekeyed pair"));
        let wall = [(self.wall_due, "wall clock")];
        let machines = self.node.poll_timeout().into_iter().chain(self.engine.poll_timeout());
        groups.chain(conns).chain(switches).chain(machines).chain(wall).min_by_key(|(at, _)| *at)
    }

    /// Deadlines up to `now` have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_lease(now);
        if self.wall_due <= now {
            self.tell_wall(now);
        }
        self.retry_vips();
        for slot in &mut self.groups {
            slot.group.handle_timeout(now);
        }
        self.pump(now);
        self.node.handle_timeout(now);
        self.engine.handle_timeout(now);
        self.conn_timeouts(now);
        self.finish_switches(|s| s.at <= now, now);
        self.pump(now);
    }

    fn tell_wall(&mut self, now: Instant) {
        self.wall_due = now + WALL_INTERVAL;
        match self.clock.wall().duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => self.engine.set_wall(since.as_secs(), now),
            Err(_) => warn!("the wall clock stands before 1970: certificates are judged by what it was before"),
        }
    }

    /// An HSRP packet arrived on `device`.
    pub fn handle_hsrp(&mut self, device: &str, source: Ipv4Addr, ttl: u8, dst: Ipv4Addr, payload: &[u8], now: Instant) {
        self.check_lease(now);
        let Some(interface) = self.config.interfaces.iter().position(|i| i.device == device) else { return };
        let mut refused = None;
        for slot in self.groups.iter_mut().filter(|s| s.interface == interface) {
            match slot.group.handle_packet(source, ttl, dst, payload, now) {
                Ok(()) => {
                    refused = None;
                    self.partner_heard = Some(now);
                    // Opcode Hello, state Active (RFC 2281 5.1).
                    if payload.get(1) == Some(&0) && payload.get(2) == Some(&16) {
                        self.active_heard = Some(now);
                        if slot.group.state() != hsrp::State::Active {
                            self.node.handle_other_active(now);
                        }
                    }
                    break;
                }
                Err(e) => refused = Some(e.reason()),
            }
        }
        if let Some(reason) = refused {
            *self.stats.hsrp_refused.entry(reason).or_default() += 1;
        }
        self.pump(now);
    }

    /// An IKE datagram arrived.
    pub fn handle_ike(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        self.check_lease(now);
        self.stats.ike_received += 1;
        self.engine.handle_datagram(from, to, bytes, now);
        self.pump(now);
    }

    /// A job is done.
    pub fn handle_job(&mut self, done: JobDone, now: Instant) {
        self.check_lease(now);
        self.engine.handle_job(done, now);
        self.pump(now);
    }

    /// Kernel events arrived.
    pub fn handle_xfrm(&mut self, events: Vec<XfrmEvent>, now: Instant) {
        self.check_lease(now);
        self.on_xfrm(events, now);
        self.pump(now);
    }

    /// A link changed.
    pub fn handle_link(&mut self, device: &str, up: bool, now: Instant) {
        self.check_lease(now);
        let Some(i) = self.config.interfaces.iter().position(|f| f.device == device) else { return };
        if self.links_up[i] == up {
            return;
        }
        self.links_up[i] = up;
        warn!(device, up, "link changed");
        let all_up = self.links_up.iter().all(|u| *u);
        self.node.handle_links(all_up, now);
        self.pump(now);
        for slot in self.groups.iter_mut().filter(|s| s.interface == i) {
            let delay = slot.group.config().delay_minimum;
            slot.group.handle_interface(up, delay, now);
        }
        self.pump(now);
    }

    /// Link events were lost: asks for every link.
    pub fn read_links(&mut self, now: Instant) {
        for device in self.config.interfaces.iter().map(|i| i.device.clone()).collect::<Vec<_>>() {
            match self.ports.links.link(&device) {
                Ok(l) => self.handle_link(&device, l.up, now),
                Err(e) => self.port_error(&e),
            }
        }
    }

    /// An operator asks; the answer leaves as `Output::Control`.
    pub fn handle_control(&mut self, id: u64, request: &ControlRequest, now: Instant) {
        self.check_lease(now);
        self.on_control(id, request, now);
        self.pump(now);
    }

    /// A process that was stopped, or dead, for longer than its lease must not go on as if nothing had happened: the data path was mute and the
    /// partner may own the addresses.
    fn check_lease(&mut self, now: Instant) {
        if self.lease_until.is_some_and(|until| until <= now) && matches!(self.node.state(), NodeState::Active | NodeState::Adopting) {
            self.lease_until = None;
            self.node.handle_lease_over(now);
            self.pump(now);
        }
    }

    /// True when this node forwards.
    pub fn is_active(&self) -> bool {
        self.node.state() == NodeState::Active
    }

    /// True when this node has handed over, or never forwarded: nothing of a hand-over is under way any more.
    pub fn is_standby(&self) -> bool {
        matches!(self.node.state(), NodeState::Standby | NodeState::Init)
    }

    /// Packets by reason, read from the programs.
    pub fn reasons(&mut self) -> Vec<ReasonCount> {
        self.ports.path.reasons().unwrap_or_else(|e| {
            warn!(error = %e, "data path counters cannot be read");
            Vec::new()
        })
    }

    /// Drains every machine until none has anything to say.
    fn pump(&mut self, now: Instant) {
        for _ in 0..PUMP_ROUNDS_MAX {
            let mut busy = self.pump_node(now);
            busy |= self.pump_groups(now);
            busy |= self.pump_engine(now);
            busy |= self.pump_sessions(now);
            if !busy {
                return;
            }
        }
        error!("the core did not come to rest after {PUMP_ROUNDS_MAX} rounds");
    }

    fn pump_node(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(command) = self.node.poll_command() {
            busy = true;
            self.execute(command, now);
        }
        if self.complete.is_some() {
            match self.node.state() {
                NodeState::Standby => {
                    busy = true;
                    self.apply_snapshot(now);
                }
                NodeState::Active if self.resync_wanted => {
                    busy = true;
                    self.apply_snapshot(now);
                }
                // An active takes nobody's word for its own SAs unless it asked.
                NodeState::Active => self.complete = None,
                NodeState::Init | NodeState::Adopting | NodeState::Armed | NodeState::Draining => {}
            }
        }
        busy
    }

    fn pump_groups(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for i in 0..self.groups.len() {
            while let Some(event) = self.groups[i].group.poll_event() {
                busy = true;
                let slot = &self.groups[i];
                let (group, device) = (slot.group.config().group, &self.config.interfaces[slot.interface].device);
                match event {
                    hsrp::Event::StateChanged { from, to, cause } => {
                        info!(group, device = %device, ?from, ?to, cause, "HSRP state");
                    }
                    hsrp::Event::Proposal { cause } => self.node.handle_proposal(cause, now),
                    hsrp::Event::ActiveHeard { router, .. } => {
                        warn!(group, device = %device, %router, "another active router wins");
                        self.node.handle_winner(now);
                    }
                    hsrp::Event::LoserHeard { router } => {
                        warn!(group, device = %device, %router, "another active router loses against us");
                        self.node.handle_loser(now);
                    }
                }
            }
            while let Some(t) = self.groups[i].group.poll_transmit() {
                busy = true;
                let slot = &mut self.groups[i];
                let interface = &self.config.interfaces[slot.interface];
                let source_mac = if t.virtual_source {
                    Some(hsrp::virtual_mac(slot.group.config().group))
                } else {
                    self.ports.links.link(&interface.device).ok().map(|l| l.mac)
                };
                let Some(source_mac) = source_mac else { continue };
                if t.virtual_source {
                    slot.last_hello = Some(now);
                }
                self.outputs.push_back(Output::Hsrp { interface: slot.interface, payload: t.payload, source_mac });
                if t.virtual_source {
                    self.renew_lease(now);
                }
            }
        }
        busy
    }

    pub(super) fn lease_policy(&self, map: &str, esn: bool) -> LeasePolicy {
        let fixed = match self.config.replay.get(map).map(|r| r.outbound) {
            Some(OutboundInterval::Packets(n)) => Some(n),
            Some(OutboundInterval::Auto) | None => None,
        };
        LeasePolicy { fixed, esn }
    }

    pub(super) fn port_error(&mut self, e: &PortError) {
        *self.stats.port_errors.entry(e.call).or_default() += 1;
        error!(call = e.call, object = %e.object, error = %e.source, "call failed");
    }

    pub(super) fn check(&mut self, r: PortResult<()>) -> bool {
        match r {
            Ok(()) => true,
            Err(e) => {
                self.port_error(&e);
                false
            }
        }
    }
}
