//! The harness: nodes with a fake kernel, a network with a seed.

use crate::crypto::{AesKey, CipherAlg, DhGroup, Icv, IntegAlg, PrfAlg, Secret};
use crate::id::{IkeSaId, PolicyDigest, Spi};
use crate::ike::v2::Engine;
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
pub struct Spis(pub Arc<Mutex<BTreeSet<Spi>>>);

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
#[derive(Clone)]
pub struct Kernel {
    pub child: ChildSa,
    pub outbound: bool,
    pub retired: bool,
}

/// What the standby is told, in order, and when datagrams left.
#[derive(Clone)]
pub enum Told {
    Pair(Spi, Option<Kernel>),
    Ike(IkeRecord),
    Sent,
}

pub struct Node {
    pub engine: Engine,
    pub addr: IpAddr,
    pub spis: Spis,
    pub kernel: BTreeMap<Spi, Kernel>,
    pub events: Vec<IkeEvent>,
    /// Mirror of the `Sync` events, as a standby would hold it.
    pub mirror: BTreeMap<IkeSaId, IkeRecord>,
    pub sent: Vec<Vec<u8>>,
    pub told: Vec<Told>,
    pub seed: u64,
    pub fallbacks: Vec<crate::ike::v2::Fallback>,
}

impl Node {
    pub fn new(addr: IpAddr, config: IkeConfig, seed: u64, now: Instant) -> Self {
        let spis = Spis::default();
        let engine = Engine::new(Arc::new(config), Box::new(Seeded::new(seed)), Box::new(spis.clone()), now);
        Self {
            engine,
            addr,
            spis,
            kernel: BTreeMap::new(),
            events: Vec::new(),
            mirror: BTreeMap::new(),
            sent: Vec::new(),
            told: Vec::new(),
            seed,
            fallbacks: Vec::new(),
        }
    }

    pub fn drain(&mut self) {
        while let Some(c) = self.engine.poll_command() {
            let spi = match &c {
                IkeCommand::InstallInbound(child) | IkeCommand::InstallChild(child) => Some(child.spi_in),
                IkeCommand::RemoveChild(spi) | IkeCommand::RetireOutbound(spi) => Some(*spi),
                IkeCommand::MoveChild { spi_in, .. } => Some(*spi_in),
                IkeCommand::ReleaseSpi(_) => None,
            };
            match c {
                IkeCommand::MoveChild { spi_in, peer, encap } => {
                    let k = self.kernel.get_mut(&spi_in).expect("moves what is there");
                    (k.child.peer, k.child.encap) = (peer, encap);
                }
                IkeCommand::InstallInbound(child) => {
                    self.spis.0.lock().unwrap().insert(child.spi_in);
                    let old = self.kernel.insert(child.spi_in, Kernel { child: *child, outbound: false, retired: false });
                    assert!(old.is_none_or(|o| !o.outbound), "inbound half over a whole pair");
                }
                IkeCommand::InstallChild(child) => {
                    // The SPI may be one that the other node chose.
                    self.spis.0.lock().unwrap().insert(child.spi_in);
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
                IkeCommand::ReleaseSpi(spi) => {
                    assert!(!self.kernel.contains_key(&spi), "gives back the SPI of a pair");
                    self.spis.0.lock().unwrap().remove(&spi);
                }
            }
            if let Some(spi) = spi {
                self.told.push(Told::Pair(spi, self.kernel.get(&spi).cloned()));
            }
        }
        while let Some(e) = self.engine.poll_event() {
            if let IkeEvent::Sync(record) = &e {
                self.told.push(Told::Ike(record.clone()));
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
        while let Some(f) = self.engine.poll_fallback() {
            self.fallbacks.push(f);
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
        self.events.iter().filter_map(|e| if let IkeEvent::Notice { text, .. } = e { Some(text.as_str()) } else { None }).collect()
    }

    /// IKE SAs that are established.
    pub fn up(&self, now: Instant) -> usize {
        self.engine.view(now).iter().filter(|v| v.state == IsakmpState::READY).count()
    }

    /// The only IKE SA.
    pub fn sa(&self, now: Instant) -> IkeSaId {
        let view = self.engine.view(now);
        assert_eq!(view.len(), 1, "{view:#?}");
        view[0].id
    }
}

/// How bad the network is, in percent.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub loss: u32,
    pub repeat: u32,
    pub delay_ms: u32,
}

/// A NAT before node A: what A sends comes from this address and port, and comes back.
#[derive(Clone, Copy)]
pub struct Nat {
    pub outside: IpAddr,
    /// Added to A's port.
    pub shift: u16,
}

pub struct Net {
    pub nodes: Vec<Node>,
    pub now: Instant,
    pub weather: Weather,
    pub nat: Option<Nat>,
    rng: Seeded,
    queue: BTreeMap<(Instant, u64), Transmit>,
    serial: u64,
    /// Datagrams for addresses nobody has.
    pub lost: usize,
    /// Datagrams sent.
    pub count: usize,
}

impl Net {
    pub fn new(seed: u64, configs: [IkeConfig; 2]) -> Self {
        let now = Instant::now() + Duration::from_secs(1_000_000);
        let addrs: [IpAddr; 2] = [[40, 0, 0, 1].into(), [192, 168, 3, 1].into()];
        let mut nodes: Vec<Node> = configs
            .into_iter()
            .zip(addrs)
            .enumerate()
            .map(|(i, (config, addr))| Node::new(addr, config, seed * 10 + i as u64, now))
            .collect();
        for node in &mut nodes {
            node.engine.set_wall(crate::pki::testdata::NOW, now);
            node.engine.set_active(true, now);
        }
        Self {
            nodes,
            now,
            weather: Weather::default(),
            nat: None,
            rng: Seeded::new(seed),
            queue: BTreeMap::new(),
            serial: 0,
            lost: 0,
            count: 0,
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
                while let Some(mut t) = self.nodes[i].engine.poll_transmit() {
                    assert_eq!(t.from.ip(), self.nodes[i].addr);
                    self.nodes[i].sent.push(t.payload.clone());
                    self.nodes[i].told.push(Told::Sent);
                    self.count += 1;
                    if let Some(nat) = self.nat {
                        if i == A {
                            t.from = SocketAddr::new(nat.outside, t.from.port() + nat.shift);
                        } else if t.to.ip() == nat.outside {
                            t.to = SocketAddr::new(self.nodes[A].addr, t.to.port().wrapping_sub(nat.shift));
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

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32() % 100 < percent
    }

    fn send(&mut self, t: Transmit) {
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
                match self.nodes.iter_mut().find(|n| n.addr == t.to.ip()) {
                    Some(node) => node.engine.handle_datagram(t.from, t.to, &t.payload, self.now),
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

    pub fn ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Takes everything off the wire.
    pub fn cut(&mut self) {
        self.pump();
        self.queue.clear();
    }

    pub fn initiate(&mut self, node: usize) {
        let request = IkeRequest::Initiate { map: "CMAP_1".into(), seq: 1 };
        self.request(node, request);
    }

    /// The kernel asks for every flow that has no outbound SA.
    pub fn acquire(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let entry = n.engine.config.entries[0].clone();
        for f in &entry.flows {
            if !n.live().iter().any(|c| c.ace == f.ace) {
                let acquire = Acquire { peer: entry.peers[0], reqid: 1, src: f.local, dst: f.remote };
                n.engine.handle_acquire(acquire, "CMAP_1", 1, f.ace, self.now);
            }
        }
    }

    pub fn request(&mut self, node: usize, request: IkeRequest) {
        self.nodes[node].engine.handle_request(request, self.now).unwrap();
    }

    pub fn rekey_child(&mut self, node: usize) {
        let spi = self.nodes[node].live()[0].spi_in;
        self.request(node, IkeRequest::RekeyChild(spi));
    }

    pub fn rekey_ike(&mut self, node: usize) {
        let id = self.nodes[node].engine.view(self.now).last().unwrap().id;
        self.request(node, IkeRequest::RekeyIsakmp(id));
    }

    /// Node A dies without a word; another one goes on from what the standby was told. Of what was told since the last datagram left, the
    /// last `missed` records did not arrive.
    pub fn take_over(&mut self, missed: usize) {
        let old = &self.nodes[A];
        let floor = old.told.iter().rposition(|t| matches!(t, Told::Sent)).map_or(0, |p| p + 1);
        let told = &old.told[..old.told.len().saturating_sub(missed).max(floor)];
        let mut new = Node::new(old.addr, (*old.engine.config).clone(), old.seed + 1000, self.now);
        new.engine.set_wall(crate::pki::testdata::NOW, self.now);
        for t in told {
            match t {
                Told::Pair(spi, Some(k)) => {
                    let stage = match (k.outbound, k.retired) {
                        (true, _) => ChildStage::Live,
                        (false, true) => ChildStage::Retired,
                        (false, false) => ChildStage::Inbound,
                    };
                    new.engine.import_child_stage(&k.child, stage, Duration::ZERO, self.now).unwrap();
                    new.kernel.insert(*spi, k.clone());
                    new.spis.0.lock().unwrap().insert(*spi);
                }
                Told::Pair(spi, None) => {
                    new.engine.forget_child(*spi);
                    new.kernel.remove(spi);
                    new.spis.0.lock().unwrap().remove(spi);
                }
                Told::Ike(record) => {
                    new.engine.import(record, self.now).unwrap();
                    match record {
                        IkeRecord::Upsert { id, .. } => new.mirror.insert(*id, record.clone()),
                        IkeRecord::Delete { id } => new.mirror.remove(id),
                    };
                }
                Told::Sent => {}
            }
        }
        new.told = told.to_vec();
        assert!(new.engine.poll_timeout().is_none() && new.engine.poll_transmit().is_none(), "dormant is mute");
        assert!(new.engine.poll_command().is_none() && new.engine.poll_event().is_none(), "dormant does nothing");
        assert!(new.engine.view(self.now).iter().all(|v| v.dormant));
        new.engine.set_active(true, self.now);
        self.nodes[A] = new;
    }

    /// Gives a node bytes as if they came from the other one.
    pub fn inject(&mut self, node: usize, bytes: &[u8]) {
        let port = if bytes.starts_with(&[0; 4]) { 4500 } else { 500 };
        let (from, to) = (SocketAddr::new(self.nodes[1 - node].addr, port), SocketAddr::new(self.nodes[node].addr, port));
        self.nodes[node].engine.handle_datagram(from, to, bytes, self.now);
        self.pump();
    }

    /// Like [`Self::assert_settled`], however many IKE SAs carry the pairs (two, when both ends began at once).
    pub fn assert_flows(&self, flows: usize) {
        let ikes = self.nodes[A].up(self.now);
        assert!((1..=2).contains(&ikes), "{ikes} IKE SAs");
        self.assert_settled(ikes, flows);
    }

    /// Both ends agree on everything, nothing is half done, nothing leaked; `flows` pairs carry traffic under `ikes` IKE SAs.
    pub fn assert_settled(&self, ikes: usize, flows: usize) {
        for (me, other) in [(A, B), (B, A)] {
            let (n, o) = (&self.nodes[me], &self.nodes[other]);
            let live = n.live();
            assert_eq!(live.len(), flows, "node {me}: {live:#?}\n{:#?}", n.events);
            let kernel: BTreeSet<Spi> = n.kernel.keys().copied().collect();
            assert_eq!(kernel, *n.spis.0.lock().unwrap(), "node {me}: SPIs leaked");
            assert_eq!(n.kernel.len(), flows, "node {me}: pairs left over\n{:#?}", n.events);
            assert_eq!(n.engine.children.len(), n.kernel.len());
            assert_eq!(n.engine.outbound.len(), n.kernel.len());
            assert_eq!(n.engine.half_open_total, 0);
            assert_eq!(n.up(self.now), ikes, "node {me}: {:#?}\n{:#?}", n.engine.view(self.now), n.events);
            assert_eq!(n.engine.view(self.now).len(), ikes, "node {me}: half-open");
            assert_eq!(n.engine.by_spi.len(), ikes);
            for sa in n.engine.sas.values() {
                let up = sa.up().unwrap();
                assert!(up.current.is_none() && up.tasks.is_empty() && up.asked.is_none(), "node {me}: requests left");
                let theirs = o.engine.sas.values().find(|s| s.id == sa.id).expect("the other end has the IKE SA");
                assert_eq!(theirs.initiator, !sa.initiator);
                let theirs = theirs.up().unwrap();
                assert_eq!((theirs.send_id, theirs.recv_id), (up.recv_id, up.send_id));
                assert_eq!(theirs.children.len(), up.children.len());
            }
            for c in live {
                let mirror = &o.kernel.get(&c.spi_out).expect("the other end has the pair").child;
                assert_eq!(mirror.spi_out, c.spi_in);
                assert!(mirror.keys_in == c.keys_out && mirror.keys_out == c.keys_in, "keys differ");
                assert!(c.keys_in != c.keys_out);
                assert_eq!((mirror.ts_local, mirror.ts_remote), (c.ts_remote, c.ts_local));
                assert_eq!((mirror.encr, mirror.integ, mirror.pfs, mirror.mode, mirror.esn), (c.encr, c.integ, c.pfs, c.mode, c.esn));
                assert_eq!(c.keys_in.encr.len(), c.encr.keymat_len());
                assert_eq!(c.version, crate::id::IkeVersion::V2);
            }
        }
    }
}

pub fn proposal(encr: CipherAlg, integ: Option<IntegAlg>, prf: PrfAlg, groups: &[DhGroup]) -> Ikev2Proposal {
    Ikev2Proposal {
        name: "P".into(),
        encryption: vec![encr],
        integrity: integ.into_iter().collect(),
        prf: vec![prf],
        groups: groups.to_vec(),
        additional: Vec::new(),
    }
}

pub fn profile(proposals: Vec<Ikev2Proposal>) -> Ikev2Profile {
    Ikev2Profile {
        name: "PROF".into(),
        proposals,
        local_id: None,
        remote_id: None,
        local_auth: AuthMethod::PreShared,
        remote_auth: AuthMethod::PreShared,
        credential: None,
        trust: None,
        ppk: None,
        lifetime_s: 86_400,
        fragment_bytes: 0,
        childless: false,
    }
}

/// Two gateways that agree: node A protects 172.16.31.0/24, node B 192.168.4.0/24 (and more nets with more flows).
pub fn configs(flows: u8, profile: &Ikev2Profile, esp: (CipherAlg, Option<IntegAlg>), pfs: Option<DhGroup>) -> [IkeConfig; 2] {
    let a: IpAddr = [40, 0, 0, 1].into();
    let b: IpAddr = [192, 168, 3, 1].into();
    let nets = |n: u8| (Selector::net4(Ipv4Addr::new(172, 16, 31 + n, 0), 24), Selector::net4(Ipv4Addr::new(192, 168, 4 + n, 0), 24));
    let make = |local: IpAddr, peer: IpAddr, mirror: bool| IkeConfig {
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
            ikev1: false,
            ikev2: Some(Arc::new(profile.clone())),
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

pub const GCM: (CipherAlg, Option<IntegAlg>) = (CipherAlg::AesGcm(AesKey::Bits256, Icv::Bytes16), None);

/// A proposal with a fast group.
pub fn fast() -> Ikev2Proposal {
    proposal(CipherAlg::Aes256, Some(IntegAlg::HmacSha256), PrfAlg::HmacSha256, &[DhGroup::Ecp256])
}

/// The usual pair of configurations: fast group, AES, no PFS.
pub fn usual() -> [IkeConfig; 2] {
    configs(1, &profile(vec![fast()]), GCM, None)
}

/// Changes the profile of both ends' first entry.
pub fn with_profile(configs: &mut [IkeConfig], change: impl Fn(usize, &mut Ikev2Profile)) {
    for (i, c) in configs.iter_mut().enumerate() {
        for e in &mut c.entries {
            let mut p = (**e.ikev2.as_ref().unwrap()).clone();
            change(i, &mut p);
            e.ikev2 = Some(Arc::new(p));
        }
    }
}

/// A tunnel that stands.
pub fn standing(seed: u64, configs: [IkeConfig; 2], starter: usize) -> Net {
    let mut net = Net::new(seed, configs);
    net.initiate(starter);
    net.secs(5);
    net
}
