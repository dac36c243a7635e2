//! The world: one queue of events in virtual time, two nodes, peers, a host, two LANs. The same seed makes the same world.

mod daemons;
mod look;
mod ssp;
mod stations;

use super::check::Checker;
use super::clock::{Ns, SEC, Time, US};
use super::dice::Dice;
use super::fault::Fault;
use super::lan::{Lan, Weather};
use super::machine::lock;
use super::node::{Input, Node};
use super::peer::Peer;
use super::plan::{HOST, HOST_MAC, OUTSIDE, Setup, Side};
use super::station::Station;
use super::stream::Streams;
use super::trace::Trace;
use super::traffic::{Traffic, Way};
use gateway_user::ike::JobDone;
use std::collections::BTreeMap;
use std::fmt;
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
}
