//! A remote peer: the same IKE engine, a fake kernel, no high availability, one host behind it.

use super::clock::{Ns, Time};
use super::dice::Dice;
use super::frame;
use super::kernel::{FakeKernel, InDrop, Outbound};
use super::plan::{self, OUTSIDE, Setup, VIPS};
use super::station::Station;
use super::window::Replayed;
use super::xfrm_port::XfrmPort;
use gateway_user::daemon::core::reqid;
use gateway_user::id::Spi;
use gateway_user::ike::{Engine, IkeCommand, IkeConfig, IkeEvent, IkeRequest, Job, JobDone, SpiSource};
use gateway_user::ports::{Direction, FlowPolicy, SaInstall, SaUsed, Xfrm, XfrmEvent};
use gateway_user::rng::Random;
use gateway_user::sad::{ChildSa, Mode, SpiTable};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::info;

struct Spis(Arc<Mutex<SpiTable>>);

impl SpiSource for Spis {
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allocate(rng)
    }
}

/// A refused ESP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// SPI.
    pub spi: u32,
    /// Number.
    pub seq: u32,
    /// Why.
    pub why: Replayed,
    /// Highest number the peer had verified.
    pub top: u64,
}

/// The peer.
pub struct Peer {
    /// Counted from 0.
    pub index: usize,
    time: Time,
    /// IP layer.
    pub station: Station,
    kernel: Arc<Mutex<FakeKernel>>,
    port: XfrmPort<FakeKernel>,
    engine: Engine,
    config: Arc<IkeConfig>,
    spis: Arc<Mutex<SpiTable>>,
    children: BTreeMap<Spi, ChildSa>,
    jobs: Vec<Job>,
    /// Inner packets for the host, not looked at yet.
    pub delivered: Vec<Vec<u8>>,
    /// SPI and number of accepted packets, not looked at yet.
    pub verified: Vec<(u32, u32)>,
    /// Refused packets, not looked at yet.
    pub refused: Vec<Refused>,
    /// Packets of protected flows that came in clear.
    pub clear: u64,
    /// What the NAT in front of it adds to its UDP ports; 0 without a NAT. What comes to other ports it does not let in, and ESP not at all.
    pub nat: u16,
}

/// A UDP packet with other ports.
fn with_ports(ip: &frame::Ip<'_>, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    frame::ip_packet(ip.src, ip.dst, frame::UDP, ip.ttl, &frame::udp(from, to, payload))
}

impl Peer {
    /// A peer that was just switched on.
    pub fn new(index: usize, setup: &Setup, time: Time, mut dice: Dice) -> Self {
        let config = Arc::new(plan::peer(setup, index).ike);
        let kernel = Arc::new(Mutex::new(FakeKernel::new(time.clone(), Dice::new(setup.seed, 1000 + index as u64))));
        let mut port = XfrmPort(kernel.clone());
        let mut flows = Vec::new();
        for entry in &config.entries {
            for flow in &entry.flows {
                flows.push(FlowPolicy {
                    local: flow.local,
                    remote: flow.remote,
                    tunnel_local: entry.local,
                    tunnel_peer: IpAddr::V4(VIPS[OUTSIDE]),
                    reqid: reqid(&entry.map, entry.seq, flow.ace),
                    priority: 1000,
                    mode: Mode::Tunnel,
                });
            }
        }
        if let Err(e) = port.sync_policies(&flows) {
            panic!("a fresh fake kernel refuses policies: {e}");
        }
        let spis = Arc::new(Mutex::new(SpiTable::new(false, 4096)));
        let now = time.instant(time.now());
        let mut engine = Engine::new(config.clone(), dice.child(), Box::new(Spis(spis.clone())), now);
        engine.set_active(true, now);
        let station = Station::new(plan::peer_mac(index), plan::peer_address(index));
        Self {
            index,
            time,
            station,
            kernel,
            port,
            engine,
            config,
            spis,
            children: BTreeMap::new(),
            jobs: Vec::new(),
            delivered: Vec::new(),
            verified: Vec::new(),
            refused: Vec::new(),
            clear: 0,
            nat: 0,
        }
    }

    /// The kernel.
    pub fn kernel(&self) -> MutexGuard<'_, FakeKernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> Ipv4Addr {
        plan::peer_address(self.index)
    }

    /// A frame arrived.
    pub fn receive(&mut self, bytes: &[u8]) {
        let now = self.time.now();
        let Some(packet) = self.station.receive(bytes, now).and_then(|p| self.through_nat(p)) else { return };
        let Some(ip) = frame::ip(&packet) else { return };
        if ip.dst != self.address() {
            if self.kernel().refuses_clear(&ip) {
                self.clear += 1;
            }
            return;
        }
        if let Some((esp, _)) = frame::esp_or_natt(&ip) {
            let result = self.kernel().input(&ip);
            match result {
                Ok(inner) => {
                    self.verified.push((esp.spi, esp.seq));
                    self.delivered.push(inner);
                }
                Err(InDrop::Replay(why)) => {
                    let top = self.kernel().sa(Spi(esp.spi), IpAddr::V4(ip.dst)).map_or(0, |sa| sa.seq());
                    self.refused.push(Refused { spi: esp.spi, seq: esp.seq, why, top });
                }
                Err(InDrop::NoState | InDrop::Integrity | InDrop::Expired | InDrop::Encapsulation | InDrop::Template) => {}
            }
        } else if let Some((sport, port @ (500 | 4500), payload)) = frame::udp_of(&ip) {
            let from = SocketAddr::new(IpAddr::V4(ip.src), sport);
            let to = SocketAddr::new(IpAddr::V4(ip.dst), port);
            let at = self.time.instant(now);
            self.engine.handle_datagram(from, to, payload, at);
            self.pump();
        }
    }

    fn through_nat(&self, packet: Vec<u8>) -> Option<Vec<u8>> {
        if self.nat == 0 {
            return Some(packet);
        }
        let ip = frame::ip(&packet)?;
        let (from, to, payload) = frame::udp_of(&ip)?;
        let inside = [500, 4500].into_iter().find(|port| port + self.nat == to)?;
        Some(with_ports(&ip, from, inside, payload))
    }

    fn out(&mut self, packet: &[u8], hop: Ipv4Addr) {
        let now = self.time.now();
        if self.nat == 0 {
            return self.station.send(packet, hop, now);
        }
        let Some(ip) = frame::ip(packet) else { return };
        if let Some((from, to, payload)) = frame::udp_of(&ip) {
            self.station.send(&with_ports(&ip, from + self.nat, to, payload), hop, now);
        }
    }

    /// The host behind sends.
    pub fn send_inner(&mut self, packet: &[u8]) {
        let Some(ip) = frame::ip(packet) else { return };
        let me = self.address();
        let result = self.kernel().output(&ip, |a| a == me);
        match result {
            Outbound::Protected(outer) => self.out(&outer, VIPS[OUTSIDE]),
            Outbound::Clear | Outbound::Drop(_) => {}
        }
    }

    /// Reads kernel events.
    pub fn read_events(&mut self) {
        let events = self.kernel().take_events();
        let now = self.time.instant(self.time.now());
        for event in events {
            match event {
                XfrmEvent::Acquire(a) => {
                    let found = self.config.entries.iter().flat_map(|e| e.flows.iter().map(move |f| (e, f.ace)));
                    let found = found.into_iter().find(|(e, ace)| reqid(&e.map, e.seq, *ace) == a.reqid);
                    if let Some((e, ace)) = found.map(|(e, ace)| (e.clone(), ace)) {
                        self.engine.handle_acquire(a, &e.map, e.seq, ace, now);
                    }
                }
                XfrmEvent::Expire { spi, hard, .. } => self.engine.handle_expire(spi, hard, now),
                XfrmEvent::Replay { spi, dst, .. } => {
                    if dst == IpAddr::V4(self.address()) {
                        self.engine.handle_traffic(spi, now);
                    }
                }
                XfrmEvent::Mapping { .. } | XfrmEvent::Overrun => {}
            }
        }
        self.pump();
    }

    /// A job has run.
    pub fn job_done(&mut self, done: JobDone) {
        let now = self.time.instant(self.time.now());
        self.engine.handle_job(done, now);
        self.pump();
    }

    /// Deadlines of the engine.
    pub fn timeout(&mut self) {
        let now = self.time.instant(self.time.now());
        self.engine.handle_timeout(now);
        self.pump();
    }

    /// When [`Self::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Ns> {
        self.engine.poll_timeout().map(|(at, _)| self.time.ns(at))
    }

    /// Rekeys every child that is not retired. Gives how many were started.
    pub fn rekey(&mut self) -> usize {
        let now = self.time.instant(self.time.now());
        let all: Vec<Spi> = self.children.keys().copied().collect();
        let n = all.into_iter().filter(|spi| self.engine.handle_request(IkeRequest::RekeyChild(*spi), now).is_ok()).count();
        self.pump();
        n
    }

    /// Jobs to run.
    pub fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Child pairs by inbound SPI.
    pub fn children(&self) -> impl Iterator<Item = &ChildSa> {
        self.children.values()
    }

    /// Slots in use.
    pub fn spis_in_use(&self) -> usize {
        self.spis.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn install(&mut self, child: &ChildSa, direction: Direction) {
        let sa = SaInstall {
            child,
            direction,
            reqid: reqid(&child.map, child.map_seq, child.ace),
            replay: 0,
            used: SaUsed::default(),
            event_packets: 1000,
            event_time: Duration::from_millis(500),
        };
        for result in self.port.install(&[sa]) {
            if let Err(e) = result {
                panic!("peer {}: {e}", self.index + 1);
            }
        }
    }

    fn remove(&mut self, spi: Spi, dst: IpAddr) {
        if let Err(e) = self.port.remove(spi, dst) {
            panic!("peer {}: {e}", self.index + 1);
        }
    }

    fn command(&mut self, command: IkeCommand) {
        match command {
            IkeCommand::MoveChild { spi_in, peer, encap } => {
                if let Some(c) = self.children.get_mut(&spi_in) {
                    if let Err(e) = self.port.move_peer(c, peer, encap) {
                        panic!("peer {}: {e}", self.index + 1);
                    }
                    (c.peer, c.encap) = (peer, encap);
                }
            }
            IkeCommand::InstallInbound(child) => {
                self.install(&child, Direction::In);
                self.children.insert(child.spi_in, *child);
            }
            IkeCommand::InstallChild(child) => {
                self.install(&child, Direction::In);
                self.install(&child, Direction::Out);
                self.children.insert(child.spi_in, *child);
            }
            IkeCommand::RetireOutbound(spi) => {
                if let Some(c) = self.children.get(&spi).cloned() {
                    self.remove(c.spi_out, c.peer);
                }
            }
            IkeCommand::RemoveChild(spi) => {
                if let Some(c) = self.children.remove(&spi) {
                    self.remove(c.spi_out, c.peer);
                    self.remove(c.spi_in, c.local);
                }
                self.spis.lock().unwrap_or_else(PoisonError::into_inner).release(spi);
            }
            IkeCommand::ReleaseSpi(spi) => {
                if !self.children.contains_key(&spi) {
                    self.spis.lock().unwrap_or_else(PoisonError::into_inner).release(spi);
                }
            }
        }
    }

    fn pump(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            self.command(command);
        }
        while let Some(event) = self.engine.poll_event() {
            match event {
                IkeEvent::Sync(_) => {}
                other => info!(event = ?other, "peer"),
            }
        }
        while let Some(t) = self.engine.poll_transmit() {
            let (IpAddr::V4(src), IpAddr::V4(dst)) = (t.from.ip(), t.to.ip()) else { continue };
            let packet = frame::ip_packet(src, dst, frame::UDP, 64, &frame::udp(t.from.port(), t.to.port(), &t.payload));
            self.out(&packet, dst);
        }
        while let Some(job) = self.engine.poll_job() {
            self.jobs.push(job);
        }
    }
}
