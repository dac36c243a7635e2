//! The harness: nodes with a fake kernel, a network with a seed.

use crate::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg, Secret};
use crate::id::{PolicyDigest, Spi};
use crate::ike::v1::message::{Chain, Exchange, PayloadKind, Payloads};
use crate::ike::v1::{Engine, crypt, keymat};
use crate::ike::*;
use crate::rng::{Random, Seeded};
use crate::sad::{ChildSa, ChildStage, Lifetime, Mode, Selector};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const A: usize = 0;
pub const B: usize = 1;

/// SPIs of one node, shared with its engine: shows leaks.
#[derive(Clone, Default)]
pub struct Spis(Arc<Mutex<BTreeSet<Spi>>>);

impl SpiSource for Spis {
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        loop {
            let spi = Spi(rng.u32() | 0x1000);
            if self.0.lock().unwrap().insert(spi) {
                return Some(spi);
            }
        }
    }
}

/// What the fake kernel knows of a pair.
pub struct Kernel {
    pub child: ChildSa,
    pub outbound: bool,
    pub retired: bool,
}

pub struct Node {
    pub engine: Engine,
    pub addr: SocketAddr,
    pub spis: Spis,
    pub kernel: BTreeMap<Spi, Kernel>,
    pub events: Vec<IkeEvent>,
    /// Mirror of the `Sync` events, as a standby would hold it.
    pub mirror: BTreeMap<crate::id::IkeSaId, IkeRecord>,
    /// IKE messages, without the marker of port 4500.
    pub sent: Vec<Vec<u8>>,
    /// Where each of them left from and went to.
    pub paths: Vec<(SocketAddr, SocketAddr)>,
    /// NAT keepalives sent.
    pub keepalives: usize,
    pub seed: u64,
}

impl Node {
    pub fn new(addr: Ipv4Addr, config: IkeConfig, seed: u64, now: Instant) -> Self {
        let spis = Spis::default();
        let engine = Engine::new(Arc::new(config), Box::new(Seeded::new(seed)), Box::new(spis.clone()), now);
        Self {
            engine,
            addr: SocketAddr::new(addr.into(), 500),
            spis,
            kernel: BTreeMap::new(),
            events: Vec::new(),
            mirror: BTreeMap::new(),
            sent: Vec::new(),
            paths: Vec::new(),
            keepalives: 0,
            seed,
        }
    }

    fn drain(&mut self) {
        while let Some(c) = self.engine.poll_command() {
            match c {
                IkeCommand::MoveChild { spi_in, peer, encap } => {
                    let k = self.kernel.get_mut(&spi_in).expect("moves what is there");
                    assert!(encap.is_some(), "only what is inside UDP moves");
                    (k.child.peer, k.child.encap) = (peer, encap);
                }
                IkeCommand::InstallInbound(child) => {
                    let old = self.kernel.insert(child.spi_in, Kernel { child: *child, outbound: false, retired: false });
                    assert!(old.is_none_or(|o| !o.outbound), "inbound half over a whole pair");
                }
                IkeCommand::InstallChild(child) => {
                    self.kernel.insert(child.spi_in, Kernel { child: *child, outbound: true, retired: false });
                }
                IkeCommand::RemoveChild(spi) => {
                    self.kernel.remove(&spi).expect("removes what is there");
                    assert!(self.spis.0.lock().unwrap().remove(&spi));
                }
                IkeCommand::RetireOutbound(spi) => {
                    let k = self.kernel.get_mut(&spi).expect("retires what is there");
                    (k.outbound, k.retired) = (false, true);
                }
                IkeCommand::ReleaseSpi(spi) => assert!(self.spis.0.lock().unwrap().remove(&spi)),
            }
        }
        while let Some(e) = self.engine.poll_event() {
            if let IkeEvent::Sync(record) = &e {
                match record {
                    IkeRecord::Upsert { id, .. } => {
                        self.mirror.insert(*id, record.clone());
                    }
                    IkeRecord::Delete { id } => {
                        self.mirror.remove(id);
                    }
                }
            }
            self.events.push(e);
        }
    }

    /// The kernel of a standby: the same pairs, whole ones and inbound halves.
    pub fn adopt_kernel(&mut self, other: &Self) {
        for k in other.kernel.values() {
            self.spis.0.lock().unwrap().insert(k.child.spi_in);
            let copy = Kernel { child: k.child.clone(), outbound: k.outbound, retired: k.retired };
            self.kernel.insert(k.child.spi_in, copy);
        }
    }

    /// Pairs that send.
    pub fn live(&self) -> Vec<&ChildSa> {
        self.kernel.values().filter(|k| k.outbound).map(|k| &k.child).collect()
    }

    pub fn refusals(&self) -> Vec<&'static str> {
        let reason = |e: &IkeEvent| if let IkeEvent::Refused { reason, .. } = e { Some(*reason) } else { None };
        self.events.iter().filter_map(reason).collect()
    }

    pub fn notices(&self) -> Vec<&str> {
        let text = |e: &'_ IkeEvent| if let IkeEvent::Notice { text, .. } = e { Some(text.clone()) } else { None };
        self.events.iter().filter_map(|e| if text(e).is_some() { e.notice_text() } else { None }).collect()
    }

    /// ISAKMP SAs that are established.
    pub fn up(&self, now: Instant) -> usize {
        self.engine.view(now).iter().filter(|v| v.state == IsakmpState::QM_IDLE).count()
    }
}

impl IkeEvent {
    fn notice_text(&self) -> Option<&str> {
        if let Self::Notice { text, .. } = self { Some(text) } else { None }
    }
}

/// How bad the network is, in percent.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub loss: u32,
    pub repeat: u32,
    pub delay_ms: u32,
}

/// A NAT in front of some nodes: one public address, ports by demand.
#[derive(Default)]
pub struct NatBox {
    pub inside: Vec<IpAddr>,
    pub public: Option<IpAddr>,
    /// Keeps port numbers where they are free.
    pub keeps_ports: bool,
    /// Well-known ports of the public address that lead to an inside address.
    pub forward: Option<IpAddr>,
    pub table: BTreeMap<SocketAddr, u16>,
    pub next: u16,
}

impl NatBox {
    /// Forgets every mapping; new ones get other ports.
    pub fn reboot(&mut self) {
        self.table.clear();
        self.next += 100;
    }

    fn outward(&mut self, from: SocketAddr) -> SocketAddr {
        let Some(public) = self.public.filter(|_| self.inside.contains(&from.ip())) else { return from };
        if self.forward == Some(from.ip()) {
            return SocketAddr::new(public, from.port());
        }
        if !self.table.contains_key(&from) {
            let taken = self.table.values().any(|p| *p == from.port());
            let port = if self.keeps_ports && !taken { from.port() } else { 1024 + self.next };
            self.next += 1;
            self.table.insert(from, port);
        }
        SocketAddr::new(public, self.table[&from])
    }

    fn inward(&self, to: SocketAddr) -> Option<SocketAddr> {
        if Some(to.ip()) != self.public {
            return Some(to);
        }
        let known = self.table.iter().find(|(_, port)| **port == to.port()).map(|(inner, _)| *inner);
        known.or_else(|| Some(SocketAddr::new(self.forward?, to.port())))
    }
}

/// Changes an IKE message on its way; `None` leaves it alone.
pub type Edit = Box<dyn FnMut(&[u8]) -> Option<Vec<u8>>>;

pub struct Net {
    pub nat: NatBox,
    /// Another one at the other end.
    pub far_nat: NatBox,
    pub edit: Option<Edit>,
    pub nodes: Vec<Node>,
    pub now: Instant,
    pub weather: Weather,
    rng: Seeded,
    queue: BTreeMap<(Instant, u64), Transmit>,
    serial: u64,
    /// Datagrams for addresses nobody has.
    pub lost: usize,
}

impl Net {
    pub fn new(seed: u64, configs: [IkeConfig; 2]) -> Self {
        let now = Instant::now() + Duration::from_secs(1_000_000);
        let addrs = [Ipv4Addr::new(40, 0, 0, 1), Ipv4Addr::new(192, 168, 3, 1)];
        let mut nodes: Vec<Node> = configs
            .into_iter()
            .zip(addrs)
            .enumerate()
            .map(|(i, (config, addr))| Node::new(addr, config, seed * 10 + i as u64, now))
            .collect();
        for node in &mut nodes {
            node.engine.set_active(true, now);
        }
        Self {
            nat: NatBox::default(),
            far_nat: NatBox::default(),
            edit: None,
            nodes,
            now,
            weather: Weather::default(),
            rng: Seeded::new(seed),
            queue: BTreeMap::new(),
            serial: 0,
            lost: 0,
        }
    }

    pub fn pump(&mut self) {
        loop {
            let mut busy = false;
            for node in &mut self.nodes {
                node.drain();
                while let Some(job) = node.engine.poll_job() {
                    node.engine.handle_job(job.run(), self.now);
                    node.drain();
                    busy = true;
                }
            }
            for i in 0..self.nodes.len() {
                while let Some(t) = self.nodes[i].engine.poll_transmit() {
                    assert_eq!(t.from.ip(), self.nodes[i].addr.ip());
                    assert!(matches!(t.from.port(), 500 | 4500));
                    let message = if t.from.port() == 4500 { t.payload.strip_prefix(&[0; 4]) } else { Some(&t.payload[..]) };
                    match message {
                        Some(message) => {
                            let message = message.to_vec();
                            self.nodes[i].sent.push(message);
                            self.nodes[i].paths.push((t.from, t.to));
                        }
                        None => {
                            assert_eq!(t.payload, [0xff]);
                            self.nodes[i].keepalives += 1;
                        }
                    }
                    self.send(t);
                    busy = true;
                }
            }
            if !busy {
                break;
            }
        }
    }

    /// Where a packet for this address ends.
    fn inward(&self, to: SocketAddr) -> Option<SocketAddr> {
        self.far_nat.inward(to).and_then(|to| self.nat.inward(to))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32() % 100 < percent
    }

    fn send(&mut self, mut t: Transmit) {
        t.from = self.far_nat.outward(self.nat.outward(t.from));
        if let Some(changed) = self.edit.as_mut().and_then(|edit| edit(&t.payload)) {
            t.payload = changed;
        }
        let copies = if self.chance(self.weather.loss) { 0 } else { 1 + u32::from(self.chance(self.weather.repeat)) };
        for _ in 0..copies {
            let delay = 1 + self.rng.u32() % (self.weather.delay_ms + 1);
            self.serial += 1;
            let at = self.now + Duration::from_millis(delay.into());
            self.queue.insert((at, self.serial), t.clone());
        }
    }

    /// Runs for this long.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..1_000_000 {
            self.pump();
            let packet = self.queue.keys().next().map(|k| k.0);
            let timer = self.nodes.iter().filter_map(|n| n.engine.poll_timeout().map(|t| t.0)).min();
            let Some(next) = packet.into_iter().chain(timer).min().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let t = entry.remove();
                let to = self.inward(t.to);
                match self.nodes.iter_mut().find(|n| to.is_some_and(|to| n.addr.ip() == to.ip())) {
                    Some(node) => node.engine.handle_datagram(t.from, to.unwrap_or(t.to), &t.payload, self.now),
                    None => self.lost += 1,
                }
                self.pump();
            }
            for node in &mut self.nodes {
                if node.engine.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                    node.engine.handle_timeout(self.now);
                }
            }
        }
        panic!("the network does not come to rest: {:?}", self.nodes[0].engine.poll_timeout());
    }

    pub fn secs(&mut self, s: u64) {
        self.run(Duration::from_secs(s));
    }

    pub fn initiate(&mut self, node: usize) {
        let request = IkeRequest::Initiate { map: "CMAP_1".into(), seq: 1 };
        self.nodes[node].engine.handle_request(request, self.now).unwrap();
    }

    /// The kernel asks for every flow that has no outbound SA.
    pub fn acquire(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let entry = n.engine.config.entries[0].clone();
        for f in &entry.flows {
            if !n.live().iter().any(|c| c.ts_remote == f.remote) {
                let acquire = Acquire { peer: entry.peers[0], reqid: 1, src: f.local, dst: f.remote };
                n.engine.handle_acquire(acquire, "CMAP_1", 1, f.ace, self.now);
            }
        }
    }

    pub fn request(&mut self, node: usize, request: IkeRequest) {
        self.nodes[node].engine.handle_request(request, self.now).unwrap();
    }

    /// Gives a node bytes as if they came from the other one.
    pub fn inject(&mut self, node: usize, bytes: &[u8]) {
        let (from, to) = (self.nodes[1 - node].addr, self.nodes[node].addr);
        self.nodes[node].engine.handle_datagram(from, to, bytes, self.now);
        self.pump();
    }

    /// Gives a node an IKE message as if it came from there; the marker of port 4500 is put before it.
    pub fn inject_at(&mut self, node: usize, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let marker: &[u8] = if to.port() == 4500 { &[0; 4] } else { &[] };
        self.nodes[node].engine.handle_datagram(from, to, &[marker, bytes].concat(), self.now);
        self.pump();
    }

    /// A message of phase 2 with a right HASH(1), as an authenticated but evil node might make it for the other one.
    pub fn protected(&self, node: usize, exchange: Exchange, message_id: u32, chain: &Chain) -> Vec<u8> {
        let engine = &self.nodes[node].engine;
        let handle = *engine.sas.iter().find(|(_, s)| s.up().is_some()).unwrap().0;
        let suite = engine.suite(handle).unwrap();
        let hash = keymat::hash_1(suite.hash, &suite.keys.a, message_id, chain.bytes());
        let mut whole = Chain::new();
        whole.push(PayloadKind::Hash, &hash);
        let payloads = Payloads::decode(chain.first(), chain.bytes()).unwrap();
        for p in payloads.items() {
            whole.push(p.kind, p.body);
        }
        let mut iv = suite.first_iv(message_id);
        crypt::seal(suite.cipher, &suite.key, &mut iv, suite.header(exchange, message_id), &whole).unwrap()
    }

    /// A new engine in the place of a node, with what a standby holds; the old one is gone without a word.
    pub fn take_over(&mut self, node: usize) {
        let now = self.now;
        let old = &self.nodes[node];
        let IpAddr::V4(ip) = old.addr.ip() else { unreachable!() };
        let mut new = Node::new(ip, (*old.engine.config).clone(), old.seed + 1000, now);
        for record in old.mirror.values() {
            new.engine.import(record, now).unwrap();
        }
        for k in old.kernel.values() {
            let stage = match (k.outbound, k.retired) {
                (true, _) => ChildStage::Live,
                (false, true) => ChildStage::Retired,
                (false, false) => ChildStage::Inbound,
            };
            new.engine.import_child_stage(&k.child, stage, Duration::from_secs(1), now).unwrap();
        }
        new.adopt_kernel(old);
        new.mirror.clone_from(&old.mirror);
        assert!(new.engine.poll_timeout().is_none() && new.engine.poll_transmit().is_none(), "dormant is mute");
        assert!(new.engine.view(now).iter().all(|v| v.dormant));
        new.engine.set_active(true, now);
        self.nodes[node] = new;
    }

    /// Both ends agree on every pair, nothing is half done, nothing leaked; `flows` pairs carry traffic.
    pub fn assert_settled(&self, flows: usize) {
        for (me, other) in [(A, B), (B, A)] {
            let (n, o) = (&self.nodes[me], &self.nodes[other]);
            let live = n.live();
            assert_eq!(live.len(), flows, "node {me}: {live:#?}\n{:#?}", n.events);
            let kernel: BTreeSet<Spi> = n.kernel.keys().copied().collect();
            assert_eq!(kernel, *n.spis.0.lock().unwrap(), "node {me}: SPIs leaked");
            assert_eq!(n.engine.quicks.len(), 0, "node {me}: quick modes left");
            assert_eq!(n.engine.children.len(), n.kernel.len());
            assert_eq!(n.engine.half_open_total, 0);
            for c in live {
                let mirror = &o.kernel.get(&c.spi_out).expect("the other end has the pair").child;
                assert_eq!(mirror.spi_out, c.spi_in);
                assert!(mirror.keys_in == c.keys_out && mirror.keys_out == c.keys_in, "keys differ");
                assert!(c.keys_in != c.keys_out);
                assert_eq!(c.encap.is_some(), mirror.encap.is_some(), "node {me}: {:?} and {:?}", c.encap, mirror.encap);
                let far = SocketAddr::new(c.peer, c.encap.map_or(500, |e| e.peer_port));
                assert_eq!(self.inward(far).map(|a| a.ip()), Some(o.addr.ip()), "node {me}: ESP reaches the other end");
                assert_eq!((mirror.ts_local, mirror.ts_remote), (c.ts_remote, c.ts_local));
                assert_eq!((mirror.encr, mirror.integ, mirror.pfs), (c.encr, c.integ, c.pfs));
                assert_eq!(c.keys_in.encr.len(), c.encr.keymat_len());
            }
        }
    }
}

pub fn policy(encryption: CipherAlg, hash: HashAlg, group: DhGroup) -> IsakmpPolicy {
    IsakmpPolicy { number: 1, encryption, hash, group, lifetime_s: 86_400, authentication: AuthMethod::PreShared }
}

/// Two gateways that agree: node A protects 172.16.31.0/24, node B 192.168.4.0/24 (and more nets with more flows).
pub fn configs(flows: u8, policies: &[IsakmpPolicy], esp: (CipherAlg, Option<IntegAlg>), pfs: Option<DhGroup>) -> [IkeConfig; 2] {
    let a: IpAddr = [40, 0, 0, 1].into();
    let b: IpAddr = [192, 168, 3, 1].into();
    let nets = |n: u8| (Selector::net4(Ipv4Addr::new(172, 16, 31 + n, 0), 24), Selector::net4(Ipv4Addr::new(192, 168, 4 + n, 0), 24));
    let make = |local: IpAddr, peer: IpAddr, mirror: bool| IkeConfig {
        policies: policies.to_vec(),
        keys: vec![PreSharedKey { peer: PeerMatch::Address(peer), key: Secret::new(b"a pre-shared key of some length".to_vec()) }],
        entries: vec![MapEntry {
            map: "CMAP_1".into(),
            seq: 1,
            local,
            peers: vec![peer],
            transforms: vec![EspTransform { name: "T".into(), encr: esp.0, integ: esp.1, mode: Mode::Tunnel }],
            pfs,
            lifetime: Lifetime { seconds: 3600, kilobytes: 4_608_000 },
            replay_window: 64,
            flows: (0..flows)
                .map(|n| {
                    let (x, y) = nets(n);
                    let (local, remote) = if mirror { (y, x) } else { (x, y) };
                    Flow { ace: n.into(), local, remote }
                })
                .collect(),
            esn: false,
            ikev1: true,
            ikev2: None,
            digest: PolicyDigest([7; 32]),
        }],
        dpd: None,
        retransmit_first: Duration::from_secs(2),
        retransmit_tries: 6,
        limits: IkeLimits::default(),
        ..IkeConfig::default()
    };
    [make(a, b, false), make(b, a, true)]
}

/// The usual pair of configurations: fast group, AES, no PFS.
pub fn usual() -> [IkeConfig; 2] {
    configs(1, &[policy(CipherAlg::Aes256, HashAlg::Sha256, DhGroup::Ecp256)], (CipherAlg::Aes256, Some(IntegAlg::HmacSha256)), None)
}
