//! The world: one queue of events in virtual time, two nodes, peers, a host, two LANs. The same seed makes the same world.

use super::check::{Checker, Moment};
use super::clock::{MS, Ns, SEC, Time, US};
use super::dice::Dice;
use super::fault::Fault;
use super::frame;
use super::lan::{Lan, Weather};
use super::machine::{Delivery, lock};
use super::node::{Input, Node};
use super::peer::Peer;
use super::plan::{self, GROUPS, HOST, HOST_MAC, INSIDE, OUTSIDE, Setup, Side, VIPS};
use super::station::Station;
use super::stream::{CONNECT_MAX, CONNECT_RETRY, QUEUE_MAX, RETRANSMIT, Streams, USER_TIMEOUT};
use super::trace::Trace;
use super::traffic::{Traffic, Way};
use super::path;
use gateway_common::verdict::RoleNow;
use gateway_user::daemon::core::Output;
use gateway_user::hsrp::virtual_mac;
use gateway_user::id::{Epoch, Spi};
use gateway_user::ike::{Job, JobDone};
use gateway_user::ports::Direction;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use tracing::subscriber::DefaultGuard;

/// Port of node `a` on both LANs; node `b` follows.
pub const PORT_A: usize = 0;
/// Port of the host on the inside LAN, of the first peer on the outside LAN.
pub const PORT_FIRST: usize = 2;
/// Outputs of the core after one input; more is a flood.
const OUTPUTS_MAX: usize = 5_000;
/// Times the core may ask for a deadline that has passed already.
const SPIN_MAX: u32 = 100;
/// Inputs a process that was stopped reads before its timers run.
const RESUME_INPUTS: usize = 64;
/// Frames the attacker keeps.
const CAPTURED_MAX: usize = 512;

/// Something that happens.
enum Event {
    Frame { lan: usize, port: usize, bytes: Vec<u8> },
    Run { side: Side },
    Timer { side: Side, number: u64 },
    KernelTimer { side: Side, number: u64 },
    PeerTimer { peer: usize, number: u64 },
    PeerKernelTimer { peer: usize, number: u64 },
    PeerEvents { peer: usize },
    ReadEvents { side: Side, boot: u32 },
    Job { side: Side, boot: u32, done: Box<JobDone> },
    PeerJob { peer: usize, done: Box<JobDone> },
    Packet { peer: usize, way: Way },
    Connect,
    Push { conn: u64, side: Side },
    Arrive { conn: u64, to: Side, bytes: Vec<u8> },
    Fin { conn: u64, to: Side, cause: &'static str },
    Start { side: Side, boot: u32 },
    Attack { bytes: Vec<u8> },
    Fault(Box<Fault>),
}

/// A broken promise.
#[derive(Debug)]
pub struct Violation {
    /// Reproduces it.
    pub seed: u64,
    /// When.
    pub at: Ns,
    /// What.
    pub what: String,
    /// What happened before.
    pub trace: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} at {}.{:06} s: {}", self.seed, self.at / SEC, self.at % SEC / US, self.what)?;
        writeln!(f, "last events:")?;
        f.write_str(&self.trace)
    }
}

struct PeerSlot {
    peer: Peer,
    timer: (Option<Ns>, u64),
    kernel_timer: (Option<Ns>, u64),
    events_due: bool,
}

/// The world.
pub struct World {
    /// What it was made with.
    pub setup: Setup,
    /// Its time.
    pub time: Time,
    /// Its diary.
    pub trace: Trace,
    /// The nodes.
    pub nodes: [Node; 2],
    /// The LANs: inside, outside.
    pub lans: [Lan; 2],
    /// Packets of the hosts.
    pub traffic: Traffic,
    /// The checks.
    pub check: Checker,
    /// Packets are sent.
    pub flowing: bool,
    peers: Vec<PeerSlot>,
    host: Station,
    streams: Streams,
    queue: BTreeMap<(Ns, u64), Event>,
    next: u64,
    dice: Dice,
    captured: Vec<Vec<u8>>,
    spins: (Ns, u32),
    next_request: u64,
    failed: Option<String>,
    /// Events handled.
    pub steps: u64,
    /// Errors the product may log: nothing fails on purpose when this is false.
    errors_expected: bool,
    _guard: DefaultGuard,
}

impl World {
    /// A world in which both nodes have power and no daemon runs yet.
    pub fn new(setup: Setup) -> Self {
        let time = Time::new();
        let trace = Trace::new(time.clone());
        let guard = tracing::subscriber::set_default(trace.clone());
        let weather = Weather::of(&setup);
        let lan = |purpose, ports| Lan::new(ports, weather, Dice::new(setup.seed, purpose));
        let lans = [lan(31, PORT_FIRST + 1), lan(32, PORT_FIRST + setup.peers + 1)];
        let nodes = Side::BOTH.map(|side| Node::new(side, &setup, time.clone()));
        let peers: Vec<PeerSlot> = (0..setup.peers)
            .map(|i| PeerSlot {
                peer: Peer::new(i, &setup, time.clone(), Dice::new(setup.seed, 40 + i as u64)),
                timer: (None, 0),
                kernel_timer: (None, 0),
                events_due: false,
            })
            .collect();
        let check = Checker::new(weather, setup.inbound_time, setup.takeover(), setup.replay_attack > 0);
        let errors_expected = setup.port_failures > 0;
        let mut world = Self {
            host: Station::new(HOST_MAC, HOST),
            dice: Dice::new(setup.seed, 33),
            setup,
            time,
            trace,
            nodes,
            lans,
            traffic: Traffic::default(),
            check,
            flowing: false,
            peers,
            streams: Streams::default(),
            queue: BTreeMap::new(),
            next: 0,
            captured: Vec::new(),
            spins: (0, 0),
            next_request: 1,
            failed: None,
            steps: 0,
            errors_expected,
            _guard: guard,
        };
        world.apply_injection(true);
        world.at(0, Event::Connect);
        for peer in 0..world.peers.len() {
            world.peer_moved(peer);
        }
        world
    }

    /// Now.
    pub fn now(&self) -> Ns {
        self.time.now()
    }

    fn at(&mut self, at: Ns, event: Event) {
        self.next += 1;
        self.queue.insert((at.max(self.now()), self.next), event);
    }

    /// Plans a fault.
    pub fn plan(&mut self, at: Ns, fault: Fault) {
        self.at(at, Event::Fault(Box::new(fault)));
    }

    /// Turns the setup's failing calls and lost events on or off.
    pub fn apply_injection(&mut self, on: bool) {
        let rate = |r: u32| if on { r } else { 0 };
        for node in &self.nodes {
            let mut m = lock(&node.machine);
            m.fail_per_10k = rate(self.setup.port_failures);
            m.kernel.fail_per_10k = rate(self.setup.port_failures);
            m.kernel.lose_per_10k = rate(self.setup.event_loss);
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Ns) -> Result<(), Box<Violation>> {
        self.run_until(self.now() + time)
    }

    /// Lets time pass until then.
    pub fn run_until(&mut self, end: Ns) -> Result<(), Box<Violation>> {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.time.set(at);
            self.steps += 1;
            self.trace.who("world");
            self.step(event);
            self.observe();
            if let Some(what) = self.failed.take() {
                return Err(self.violation(what));
            }
        }
        self.time.set(end.max(self.now()));
        Ok(())
    }

    /// A violation here and now.
    pub fn violation(&self, what: String) -> Box<Violation> {
        Box::new(Violation { seed: self.setup.seed, at: self.now(), what, trace: self.trace.text() })
    }

    fn fail(&mut self, result: Result<(), String>) {
        if let Err(what) = result {
            self.failed.get_or_insert(what);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Frame { lan, port, bytes } => self.frame(lan, port, &bytes),
            Event::Run { side } => self.run_node(side),
            Event::Timer { side, number } => self.node_timer(side, number),
            Event::KernelTimer { side, number } => {
                if self.node(side).kernel_timer.1 == number {
                    self.node_mut(side).kernel_timer.0 = None;
                    lock(&self.node(side).machine).kernel.on_timer();
                    self.machine_moved(side);
                }
            }
            Event::PeerTimer { peer, number } => {
                if self.peers[peer].timer.1 == number {
                    self.peers[peer].timer.0 = None;
                    self.trace.who("peer");
                    self.peers[peer].peer.timeout();
                    self.peer_moved(peer);
                }
            }
            Event::PeerKernelTimer { peer, number } => {
                if self.peers[peer].kernel_timer.1 == number {
                    self.peers[peer].kernel_timer.0 = None;
                    self.peers[peer].peer.kernel().on_timer();
                    self.peer_moved(peer);
                }
            }
            Event::PeerEvents { peer } => {
                self.peers[peer].events_due = false;
                self.trace.who("peer");
                self.peers[peer].peer.read_events();
                self.peer_moved(peer);
            }
            Event::ReadEvents { side, boot } => {
                if self.node(side).boot == boot {
                    self.node_mut(side).events_due = false;
                    self.input(side, Input::Events);
                }
            }
            Event::Job { side, boot, done } => {
                if self.node(side).boot == boot {
                    self.input(side, Input::Job(done));
                }
            }
            Event::PeerJob { peer, done } => {
                self.trace.who("peer");
                self.peers[peer].peer.job_done(*done);
                self.peer_moved(peer);
            }
            Event::Packet { peer, way } => self.packet(peer, way),
            Event::Connect => self.connect(),
            Event::Push { conn, side } => {
                if let Some(end) = self.streams.end(conn, side) {
                    end.retry_due = false;
                    self.push(conn, side);
                }
            }
            Event::Arrive { conn, to, bytes } => {
                if self.streams.has(conn, to) {
                    self.input(to, Input::Bytes { conn, bytes });
                }
            }
            Event::Fin { conn, to, cause } => {
                if self.streams.shut(conn, to) {
                    self.input(to, Input::Closed { conn, cause });
                }
            }
            Event::Start { side, boot } => {
                if self.node(side).boot == boot {
                    self.start(side);
                }
            }
            Event::Attack { bytes } => {
                let port = self.lans[OUTSIDE].ports.len() - 1;
                self.carry(OUTSIDE, port, &bytes);
            }
            Event::Fault(fault) => self.fault(*fault),
        }
    }

    fn node(&self, side: Side) -> &Node {
        &self.nodes[side.index()]
    }

    fn node_mut(&mut self, side: Side) -> &mut Node {
        &mut self.nodes[side.index()]
    }

    /// A peer.
    pub fn peer(&self, peer: usize) -> &Peer {
        &self.peers[peer].peer
    }

    // Frames.

    /// A station sends a frame.
    fn carry(&mut self, lan: usize, from: usize, bytes: &[u8]) {
        let now = self.now();
        for (port, delay) in self.lans[lan].carry(from, bytes) {
            self.at(now + delay, Event::Frame { lan, port, bytes: bytes.to_vec() });
        }
    }

    fn frame(&mut self, lan: usize, port: usize, bytes: &[u8]) {
        match port {
            0 | 1 => {
                let side = Side::BOTH[port];
                if self.node(side).powered {
                    lock(&self.node(side).machine).receive(lan, bytes);
                    self.machine_moved(side);
                }
            }
            _ if lan == INSIDE => {
                let now = self.now();
                if let Some(packet) = self.host.receive(bytes, now) {
                    self.traffic.arrived(&packet);
                }
                self.host_moved();
            }
            _ => {
                let peer = port - PORT_FIRST;
                if peer < self.peers.len() {
                    self.trace.who("peer");
                    self.peers[peer].peer.receive(bytes);
                    self.peer_moved(peer);
                }
            }
        }
    }

    fn host_moved(&mut self) {
        for f in self.host.take_tx() {
            self.carry(INSIDE, PORT_FIRST, &f);
        }
    }

    /// Starts the packets of every flow.
    pub fn start_traffic(&mut self, ways: &[Way]) {
        self.flowing = true;
        for peer in 0..self.peers.len() {
            for &way in ways {
                let first = self.dice.range(0..=self.setup.gap);
                let now = self.now();
                self.at(now + first, Event::Packet { peer, way });
            }
        }
    }

    /// Another pause between two packets of a stream.
    pub fn slow_down(&mut self, gap: Ns) {
        self.setup.gap = gap;
    }

    fn packet(&mut self, peer: usize, way: Way) {
        if !self.flowing {
            return;
        }
        let now = self.now();
        let packet = self.traffic.next(peer, way, now);
        match way {
            Way::Out => {
                self.host.send(&packet, VIPS[INSIDE], now);
                self.host_moved();
            }
            Way::In => {
                self.peers[peer].peer.send_inner(&packet);
                self.peer_moved(peer);
            }
        }
        let pause = self.dice.range(self.setup.gap / 2..=self.setup.gap * 3 / 2);
        self.at(now + pause, Event::Packet { peer, way });
    }

    // Peers.

    fn peer_moved(&mut self, i: usize) {
        let now = self.now();
        for f in self.peers[i].peer.station.take_tx() {
            self.capture(&f);
            self.carry(OUTSIDE, PORT_FIRST + i, &f);
        }
        for job in self.peers[i].peer.take_jobs() {
            let (done, took) = self.work(job);
            self.at(now + took, Event::PeerJob { peer: i, done });
        }
        let slot = &mut self.peers[i];
        let (verified, refused) = (std::mem::take(&mut slot.peer.verified), std::mem::take(&mut slot.peer.refused));
        let delivered = std::mem::take(&mut slot.peer.delivered);
        let violations = std::mem::take(&mut slot.peer.kernel().violations);
        let (has_events, kernel_at, at) = {
            let k = slot.peer.kernel();
            (k.has_events(), k.next_timer(), slot.peer.next_timeout())
        };
        for packet in delivered {
            self.traffic.arrived(&packet);
        }
        for what in violations {
            self.fail(Err(format!("peer {}: {what}", i + 1)));
        }
        for (spi, seq) in verified {
            let result = self.check.on_peer_verified(i, spi, seq);
            self.fail(result);
        }
        for r in refused {
            let result = self.check.on_peer_refused(i, plan::peer_address(i).into(), &r, now);
            self.fail(result);
        }
        if has_events && !self.peers[i].events_due {
            self.peers[i].events_due = true;
            self.at(now + 100 * US, Event::PeerEvents { peer: i });
        }
        if self.peers[i].timer.0 != at {
            self.peers[i].timer = (at, self.peers[i].timer.1 + 1);
            let number = self.peers[i].timer.1;
            if let Some(at) = at {
                self.at(at, Event::PeerTimer { peer: i, number });
            }
        }
        if self.peers[i].kernel_timer.0 != kernel_at {
            self.peers[i].kernel_timer = (kernel_at, self.peers[i].kernel_timer.1 + 1);
            let number = self.peers[i].kernel_timer.1;
            if let Some(at) = kernel_at {
                self.at(at, Event::PeerKernelTimer { peer: i, number });
            }
        }
    }

    /// An attacker on the outside LAN keeps ESP and sends it again later.
    fn capture(&mut self, bytes: &[u8]) {
        if self.setup.replay_attack == 0 || frame::ip_of(bytes).is_none_or(|ip| ip.proto != frame::ESP) {
            return;
        }
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(bytes.to_vec());
        } else {
            let at = self.dice.range(0..=CAPTURED_MAX as u64 - 1) as usize;
            self.captured[at] = bytes.to_vec();
        }
        if self.dice.chance(self.setup.replay_attack) {
            let at = self.dice.range(0..=self.captured.len() as u64 - 1) as usize;
            let mut copy = self.captured[at].clone();
            let to = frame::dst_mac(&copy);
            frame::readdress(&mut copy, [2, 0, 0, 0, 0xee, 0xee], to);
            let when = self.now() + self.dice.range(0..=200 * MS);
            self.at(when, Event::Attack { bytes: copy });
        }
    }

    fn work(&mut self, job: Job) -> (Box<JobDone>, Ns) {
        (Box::new(job.run()), self.dice.range(MS..=8 * MS))
    }

    // Nodes.

    /// Something touched the machine: frames, deliveries, events, timers.
    fn machine_moved(&mut self, side: Side) {
        let now = self.now();
        let (tx, deliveries, verified, violations) = {
            let mut m = lock(&self.node(side).machine);
            let mut violations = std::mem::take(&mut m.violations);
            violations.append(&mut m.kernel.violations);
            violations.append(&mut m.path.violations);
            (m.take_tx(), m.take_deliveries(), std::mem::take(&mut m.verified), violations)
        };
        for what in violations {
            self.fail(Err(format!("{}: {what}", side.name())));
        }
        if self.node(side).powered {
            for sent in tx {
                let result = self.check.on_tx(side, &sent, now);
                self.fail(result);
                if sent.device == OUTSIDE {
                    self.capture(&sent.frame);
                }
                self.carry(sent.device, PORT_A + side.index(), &sent.frame);
            }
        }
        for (spi, seq) in verified {
            let result = self.check.on_verified(side, spi, seq, now);
            self.fail(result);
        }
        for d in deliveries {
            let input = match d {
                Delivery::Hsrp { device, source, ttl, dst, payload } => Input::Hsrp { device, source, ttl, dst, payload },
                Delivery::Ike { from, to, bytes } => Input::Ike { from, to, bytes },
            };
            self.input(side, input);
        }
        let (has_events, kernel_at) = {
            let m = lock(&self.node(side).machine);
            (m.kernel.has_events(), m.kernel.next_timer())
        };
        if has_events && !self.node(side).events_due {
            self.node_mut(side).events_due = true;
            let boot = self.node(side).boot;
            let wait = self.dice.range(20 * US..=500 * US);
            self.at(now + wait, Event::ReadEvents { side, boot });
        }
        if self.node(side).kernel_timer.0 != kernel_at {
            let number = self.node(side).kernel_timer.1 + 1;
            self.node_mut(side).kernel_timer = (kernel_at, number);
            if let Some(at) = kernel_at {
                self.at(at, Event::KernelTimer { side, number });
            }
        }
    }

    fn input(&mut self, side: Side, input: Input) {
        self.node_mut(side).queue(input);
        self.wake(side);
    }

    fn wake(&mut self, side: Side) {
        if self.node(side).runs() && !self.node(side).inbox.is_empty() && !self.node(side).run_due {
            self.node_mut(side).run_due = true;
            let now = self.now();
            self.at(now, Event::Run { side });
        }
    }

    fn run_node(&mut self, side: Side) {
        self.node_mut(side).run_due = false;
        // What comes while it runs waits for the next run.
        let waiting = self.node(side).inbox.len();
        self.run_inbox(side, waiting);
        self.wake(side);
    }

    fn run_inbox(&mut self, side: Side, most: usize) {
        for _ in 0..most {
            if !self.node(side).runs() {
                return;
            }
            let Some(input) = self.node_mut(side).inbox.pop_front() else { return };
            self.trace.who(side.name());
            let now = self.time.instant(self.now());
            self.node_mut(side).handle(input, now);
            self.core_moved(side);
        }
    }

    fn node_timer(&mut self, side: Side, number: u64) {
        if self.node(side).timer.1 != number || !self.node(side).runs() {
            return;
        }
        self.node_mut(side).timer.0 = None;
        self.trace.who(side.name());
        let now = self.time.instant(self.now());
        if let Some(core) = &mut self.node_mut(side).core {
            core.handle_timeout(now);
        }
        self.core_moved(side);
    }

    /// The core did something: outputs, then the machine, then its next deadline.
    fn core_moved(&mut self, side: Side) {
        let mut outputs = 0;
        while let Some(output) = self.node_mut(side).core.as_mut().and_then(|c| c.poll_output()) {
            outputs += 1;
            if outputs > OUTPUTS_MAX {
                return self.fail(Err(format!("{} does not stop to give outputs", side.name())));
            }
            self.output(side, output);
        }
        self.machine_moved(side);
        for e in self.trace.take_errors() {
            if !self.errors_expected || e.contains("come to rest") {
                self.fail(Err(format!("{} logs an error: {e}", side.name())));
            }
        }
        let now = self.now();
        let deadline = self.node(side).core.as_ref().and_then(|c| c.poll_timeout());
        let at = deadline.map(|(at, _)| self.time.ns(at).max(now));
        if let (Some(at), Some((_, reason))) = (at, deadline)
            && at == now
        {
            self.spins = if self.spins.0 == now { (now, self.spins.1 + 1) } else { (now, 1) };
            if self.spins.1 > SPIN_MAX {
                return self.fail(Err(format!("{} asks for the deadline `{reason}` again and again", side.name())));
            }
        }
        if self.node(side).timer.0 != at {
            let number = self.node(side).timer.1 + 1;
            self.node_mut(side).timer = (at, number);
            if let Some(at) = at {
                self.at(at, Event::Timer { side, number });
            }
        }
    }

    fn output(&mut self, side: Side, output: Output) {
        match output {
            Output::Hsrp { interface, payload, source_mac } => lock(&self.node(side).machine).send_hsrp(interface, &payload, source_mac),
            Output::Ike(t) => lock(&self.node(side).machine).send_ike(&t),
            Output::Ssp { conn, bytes } => {
                if let Some(end) = self.streams.end(conn, side).filter(|e| e.open) {
                    end.queue.push_back(bytes.to_vec());
                    if end.queue.len() > QUEUE_MAX {
                        self.close(conn, side, "send queue is full");
                    }
                    self.push(conn, side);
                }
            }
            Output::SspClose { conn, cause } => {
                self.trace.line(format_args!("closes connection {conn}: {cause}"));
                self.close(conn, side, "closed by us");
            }
            Output::Job(job) => {
                let (done, took) = self.work(job);
                let (now, boot) = (self.now(), self.node(side).boot);
                self.at(now + took, Event::Job { side, boot, done });
            }
            Output::Control { id, response } => {
                self.trace.line(format_args!("answers {id}: ok={} {}{}", response.ok, response.text.trim(), response.error));
                if response.error.contains("unknown word") {
                    self.fail(Err(format!("the world asks with the wrong words: {}", response.error)));
                }
                self.node_mut(side).answers.insert(id, response);
            }
            Output::SspAuthenticated { .. } => {}
        }
    }

    // SSP.

    fn way(&self, from: Side, to: Side) -> bool {
        let up = |s: Side| self.node(s).powered && self.node(s).cables[INSIDE];
        up(from) && up(to) && self.lans[INSIDE].open(from.index(), to.index())
    }

    fn both_ways(&self) -> bool {
        self.way(Side::A, Side::B) && self.way(Side::B, Side::A)
    }

    fn latency(&mut self) -> Ns {
        let w = self.lans[INSIDE].weather;
        let jitter = if w.jitter > 0 { self.dice.range(0..=w.jitter) } else { 0 };
        // A lost segment comes again after a while.
        let again = if self.dice.chance(w.loss) { RETRANSMIT } else { 0 };
        w.delay + jitter + again
    }

    fn connect(&mut self) {
        let now = self.now();
        self.at(now + CONNECT_RETRY, Event::Connect);
        let opener = Side::B;
        if now < self.streams.connect_after || !self.node(opener).runs() || !self.streams.of(opener).is_empty() {
            return;
        }
        if !self.both_ways() {
            self.streams.connect_after = now + CONNECT_MAX;
            return;
        }
        // A stopped process still listens; a dead one refuses.
        if self.node(Side::A).core.is_none() {
            return;
        }
        let conn = self.streams.open(now);
        self.input(Side::B, Input::Connected { conn, initiator: true });
        self.input(Side::A, Input::Connected { conn, initiator: false });
    }

    fn push(&mut self, conn: u64, side: Side) {
        let now = self.now();
        let other = side.other();
        let open = self.both_ways();
        let there = self.streams.has(conn, other);
        let delay = self.latency();
        let Some(end) = self.streams.end(conn, side).filter(|e| e.open && !e.queue.is_empty()) else { return };
        if !open {
            let stuck = *end.stuck.get_or_insert(now);
            let retry = !std::mem::replace(&mut end.retry_due, true);
            if now >= stuck + USER_TIMEOUT {
                self.close(conn, side, "timed out");
            } else if retry {
                self.at(now + RETRANSMIT, Event::Push { conn, side });
            }
            return;
        }
        end.stuck = None;
        if !there {
            self.at(now + 2 * delay, Event::Fin { conn, to: side, cause: "reset by the partner" });
            return;
        }
        let records: Vec<Vec<u8>> = end.queue.drain(..).collect();
        let arrival = (now + delay).max(end.last_arrival);
        end.last_arrival = arrival;
        for bytes in records {
            self.at(arrival, Event::Arrive { conn, to: other, bytes });
        }
    }

    fn close(&mut self, conn: u64, side: Side, cause: &'static str) {
        let (now, delay, open) = (self.now(), self.latency(), self.both_ways());
        let last = self.streams.end(conn, side).map_or(0, |e| e.last_arrival);
        if !self.streams.shut(conn, side) {
            return;
        }
        self.input(side, Input::Closed { conn, cause });
        if open && self.streams.has(conn, side.other()) {
            self.at((now + delay).max(last), Event::Fin { conn, to: side.other(), cause: "closed by the partner" });
        }
    }

    // What the faults need.

    /// Starts a daemon; when it cannot start it tries again, as a service manager would.
    pub fn start(&mut self, side: Side) {
        if !self.node(side).powered {
            return;
        }
        self.trace.who(side.name());
        let result = self.node_mut(side).start();
        let now = self.now();
        if let Err(e) = result {
            self.trace.line(format_args!("the daemon does not start: {e}"));
            let boot = self.node(side).boot;
            self.at(now + SEC, Event::Start { side, boot });
        }
        let flows = lock(&self.node(side).machine).kernel.policies().to_vec();
        self.check.protect(&flows);
        self.node_mut(side).run_due = false;
        self.node_mut(side).events_due = false;
        self.core_moved(side);
    }

    /// Ends a daemon. `crash`: the process is gone and its connections with it; otherwise the whole machine is.
    pub(super) fn stop(&mut self, side: Side, crash: bool) {
        for conn in self.streams.of(side) {
            if crash {
                self.close(conn, side, "process ended");
            } else {
                self.streams.shut(conn, side);
            }
        }
        self.node_mut(side).stop();
        self.node_mut(side).run_due = false;
        self.node_mut(side).events_due = false;
    }

    /// A stopped process goes on.
    pub(super) fn resume(&mut self, side: Side) {
        self.node_mut(side).paused = false;
        if self.node(side).core.is_none() {
            return;
        }
        // What is in the sockets first, within bounds, or the timers first: both orders happen.
        if self.dice.chance(7500) {
            self.run_inbox(side, RESUME_INPUTS);
        }
        self.trace.who(side.name());
        let now = self.time.instant(self.now());
        if let Some(core) = &mut self.node_mut(side).core
            && core.poll_timeout().is_some_and(|(at, _)| at <= now)
        {
            core.handle_timeout(now);
        }
        self.core_moved(side);
        self.wake(side);
    }

    pub(super) fn cable(&mut self, side: Side, device: usize, on: bool) {
        self.node_mut(side).cables[device] = on;
        if !on {
            self.lans[device].forget(side.index());
        }
        let changed = lock(&self.node(side).machine).set_carrier(device, on);
        if changed {
            self.input(side, Input::Link { device, up: on });
        }
    }

    /// The operator asks a node; the answer will be in its `answers` under the number.
    pub fn ask(&mut self, side: Side, words: &[&str]) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let request = gateway_user::net::control::ControlRequest { argv: words.iter().map(|w| (*w).to_owned()).collect(), json: false };
        self.input(side, Input::Control(id, request));
        id
    }

    pub(super) fn rekey_peer(&mut self, peer: usize) -> usize {
        self.trace.who("peer");
        let n = self.peers[peer].peer.rekey();
        self.peer_moved(peer);
        n
    }

    // Looking.

    fn moment(&self) -> Moment {
        let view = |side: Side| {
            let node = self.node(side);
            if !node.powered {
                return (None, None);
            }
            let m = lock(&node.machine);
            (Some(m.path.true_role()), m.path.role_word())
        };
        let (a, b) = (view(Side::A), view(Side::B));
        let talk = self.node(Side::A).runs() && self.node(Side::B).runs() && self.both_ways();
        let contact = if talk { self.streams.whole_since() } else { None };
        Moment { now: self.now(), roles: [a.0, b.0], words: [a.1, b.1], contact }
    }

    fn observe(&mut self) {
        let moment = self.moment();
        let result = self.check.on_moment(&moment);
        self.fail(result);
    }

    /// The node that owns the addresses, when there is exactly one.
    pub fn active(&self) -> Option<Side> {
        let m = self.moment();
        let is = |s: Side| Checker::owns(m.words[s.index()]) && m.roles[s.index()] == Some(RoleNow::Active);
        match (is(Side::A), is(Side::B)) {
            (true, false) => Some(Side::A),
            (false, true) => Some(Side::B),
            _ => None,
        }
    }

    /// Runs until a node is active and both agree to be synchronised, at most `limit`.
    pub fn run_until_ready(&mut self, limit: Ns) -> Result<Side, Box<Violation>> {
        let end = self.now() + limit;
        while self.now() < end {
            self.run(20 * MS)?;
            if let Some(side) = self.active()
                && self.same_sas()
                && lock(&self.node(side).machine).kernel.sas().count() >= 2 * self.peers.len()
                && self.moment().contact.is_some()
            {
                return Ok(side);
            }
        }
        Err(self.violation(format!("the pair is not ready after {} ms", limit / MS)))
    }

    /// Epoch in a node's role word.
    pub fn epoch(&self, side: Side) -> Epoch {
        path::epoch_of(self.moment().words[side.index()])
    }

    /// Inbound SAs in a node's kernel.
    pub fn pairs(&self, side: Side) -> usize {
        lock(&self.node(side).machine).kernel.sas().filter(|(_, sa)| sa.direction == Direction::In).count()
    }

    /// SPI and destination of every SA in a node's kernel.
    pub fn sas(&self, side: Side) -> Vec<(Spi, IpAddr)> {
        lock(&self.node(side).machine).kernel.sas().map(|(k, _)| k).collect()
    }

    /// True when both kernels hold the same SAs.
    pub fn same_sas(&self) -> bool {
        self.sas(Side::A) == self.sas(Side::B)
    }

    /// What must hold once nothing is broken any more and `quiet` has passed: traffic of the last `quiet` flows, one owner, equal SAs
    /// everywhere, no leftovers.
    pub fn check_settled(&self, quiet: Ns) -> Result<(), Box<Violation>> {
        let mut wrong = Vec::new();
        let now = self.now();
        let Some(active) = self.active() else {
            return Err(self.violation(format!("not exactly one active node: {:?}", self.moment())));
        };
        for side in Side::BOTH {
            let node = self.node(side);
            let m = lock(&node.machine);
            let want = if side == active { 2 } else { 0 };
            if m.vips() != want {
                wrong.push(format!("{} has {} VIPs, not {want}", side.name(), m.vips()));
            }
            if node.core.as_ref().is_none_or(|c| c.is_active() != (side == active)) {
                wrong.push(format!("{}: core and role word disagree", side.name()));
            }
            let (mut spis_in, mut keys_out) = (Vec::new(), Vec::new());
            for ((spi, dst), sa) in m.kernel.sas() {
                match sa.direction {
                    Direction::In => spis_in.push(spi),
                    Direction::Out => keys_out.push((spi, dst)),
                }
            }
            if m.path.inbound_spis() != spis_in {
                wrong.push(format!("{}: inbound table {:?}, kernel {spis_in:?}", side.name(), m.path.inbound_spis()));
            }
            if m.path.outbound_keys() != keys_out {
                wrong.push(format!("{}: outbound table {:?}, kernel {keys_out:?}", side.name(), m.path.outbound_keys()));
            }
            // One pair in use and one on its way out, for each flow.
            if spis_in.len() > 2 * self.peers.len() {
                wrong.push(format!("{}: {} inbound SAs for {} flows", side.name(), spis_in.len(), self.peers.len()));
            }
        }
        if !self.same_sas() {
            wrong.push(format!("kernels differ: a {:?}, b {:?}", self.sas(Side::A), self.sas(Side::B)));
        }
        for (lan, group) in GROUPS.into_iter().enumerate() {
            let port = self.lans[lan].port_of(virtual_mac(group));
            if port != Some(active.index()) {
                wrong.push(format!("the switch of LAN {lan} sends the virtual MAC to port {port:?}"));
            }
        }
        for slot in &self.peers {
            let theirs: Vec<_> = slot.peer.kernel().sas().map(|(k, _)| k).collect();
            let to = IpAddr::V4(plan::peer_address(slot.peer.index));
            // The other half of a replaced pair stays longer here or there.
            let missing: Vec<_> = self.sas(active).into_iter().filter(|k| k.1 == to && !theirs.contains(k)).collect();
            if !missing.is_empty() {
                wrong.push(format!("peer {} does not have {missing:?}", slot.peer.index + 1));
            }
            if slot.peer.spis_in_use() != slot.peer.children().count() {
                wrong.push(format!("peer {} leaks SPIs", slot.peer.index + 1));
            }
            if slot.peer.clear > 0 {
                wrong.push(format!("peer {} got {} packets in clear", slot.peer.index + 1, slot.peer.clear));
            }
        }
        if self.flowing {
            wrong.extend(self.traffic.report(now.saturating_sub(quiet)..now.saturating_sub(SEC / 4)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(self.violation(wrong.join("; "))) }
    }
}
