//! Targets of the IKE engines: two of them talk, an attacker on the way repeats, changes and invents datagrams.

use gateway_user::crypto::{CipherAlg, DhGroup, HashAlg, IntegAlg, PrfAlg, Secret};
use gateway_user::id::{PolicyDigest, Spi};
use gateway_user::ike::{
    AuthMethod, DpdConfig, Engine, EspTransform, Flow, IkeCommand, IkeConfig, IkeEvent, IkeRecord, IkeRequest, Ikev2Profile, Ikev2Proposal,
    IsakmpPolicy, IsakmpState, MapEntry, PeerMatch, PreSharedKey, SpiSource, Transmit,
};
use gateway_user::rng::{Random, Seeded};
use gateway_user::sad::{Lifetime, Mode, Selector};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Operations of one script: more add time, not depth.
const OPERATIONS_MAX: usize = 64;
/// Datagrams under way at once; more is amplification.
const QUEUE_MAX: usize = 512;
/// SAs one engine may hold when nothing but this peer and forged datagrams in its name reach it.
const SAS_MAX: usize = 64;

#[derive(Clone, Default)]
struct Spis(Arc<Mutex<BTreeSet<Spi>>>);

impl SpiSource for Spis {
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        let mut held = self.0.lock().ok()?;
        loop {
            let spi = Spi(rng.u32() | 0x1000);
            if held.insert(spi) {
                return Some(spi);
            }
        }
    }
}

struct Node {
    engine: Engine,
    spis: Spis,
    /// Pairs in the kernel; true when both halves are in use.
    kernel: std::collections::BTreeMap<Spi, bool>,
    records: Vec<IkeRecord>,
    /// The kernel holds what the engine thinks: not so after a record that somebody made up.
    strict: bool,
}

/// Which versions both ends speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

fn config(version: Version, local: IpAddr, peer: IpAddr, mirror: bool) -> IkeConfig {
    let nets = (Selector::net4(Ipv4Addr::new(172, 16, 31, 0), 24), Selector::net4(Ipv4Addr::new(192, 168, 4, 0), 24));
    let (net_local, net_remote) = if mirror { (nets.1, nets.0) } else { nets };
    let profile = Ikev2Profile {
        name: "P".into(),
        proposals: vec![Ikev2Proposal {
            name: "P".into(),
            encryption: vec![CipherAlg::Aes256],
            integrity: vec![IntegAlg::HmacSha256],
            prf: vec![PrfAlg::HmacSha256],
            groups: vec![DhGroup::Ecp256],
            additional: Vec::new(),
        }],
        local_id: None,
        remote_id: None,
        local_auth: AuthMethod::PreShared,
        remote_auth: AuthMethod::PreShared,
        credential: None,
        trust: None,
        ppk: None,
        lifetime_s: 86_400,
        fragment_bytes: 1280,
        childless: false,
    };
    IkeConfig {
        policies: vec![IsakmpPolicy {
            number: 1,
            encryption: CipherAlg::Aes256,
            hash: HashAlg::Sha256,
            group: DhGroup::Ecp256,
            lifetime_s: 86_400,
            authentication: AuthMethod::PreShared,
        }],
        keys: vec![PreSharedKey { peer: PeerMatch::Address(peer), key: Secret::new(b"a pre-shared key of some length".to_vec()) }],
        entries: vec![MapEntry {
            map: "CMAP_1".into(),
            seq: 1,
            local,
            peers: vec![peer],
            transforms: vec![EspTransform {
                name: "T".into(),
                encr: CipherAlg::Aes256,
                integ: Some(IntegAlg::HmacSha256),
                mode: Mode::Tunnel,
            }],
            pfs: None,
            lifetime: Lifetime { seconds: 3600, kilobytes: 4_608_000 },
            replay_window: 64,
            flows: vec![Flow { ace: 0, local: net_local, remote: net_remote }],
            esn: false,
            ikev1: version == Version::V1,
            ikev2: (version == Version::V2).then(|| Arc::new(profile)),
            digest: PolicyDigest([7; 32]),
        }],
        dpd: Some(DpdConfig { interval: Duration::from_secs(10), retry: Duration::from_secs(2), retries: 5 }),
        ..IkeConfig::default()
    }
}

struct Net {
    nodes: [Node; 2],
    now: Instant,
    /// Datagrams under way.
    queue: VecDeque<Transmit>,
    /// Everything that was sent, for the attacker.
    seen: Vec<Transmit>,
}

fn address(i: usize) -> SocketAddr {
    let a = if i == 0 { Ipv4Addr::new(40, 0, 0, 1) } else { Ipv4Addr::new(192, 168, 3, 1) };
    SocketAddr::new(a.into(), 500)
}

impl Net {
    fn new(version: Version, seed: u64) -> Self {
        let now = Instant::now() + Duration::from_secs(1_000_000);
        let node = |i: usize| {
            let spis = Spis::default();
            let config = config(version, address(i).ip(), address(1 - i).ip(), i == 1);
            let mut engine = Engine::new(Arc::new(config), Box::new(Seeded::new(seed * 2 + i as u64)), Box::new(spis.clone()), now);
            engine.set_active(true, now);
            Node { engine, spis, kernel: Default::default(), records: Vec::new(), strict: true }
        };
        Self { nodes: [node(0), node(1)], now, queue: VecDeque::new(), seen: Vec::new() }
    }

    /// Runs both engines until they wait.
    fn pump(&mut self) {
        loop {
            let mut busy = false;
            for node in &mut self.nodes {
                while let Some(job) = node.engine.poll_job() {
                    node.engine.handle_job(job.run(), self.now);
                    busy = true;
                }
                while let Some(command) = node.engine.poll_command() {
                    apply(node, command);
                }
                while let Some(event) = node.engine.poll_event() {
                    if let IkeEvent::Sync(record) = event {
                        node.records.push(record);
                    }
                }
                while let Some(t) = node.engine.poll_transmit() {
                    busy = true;
                    if self.seen.len() < QUEUE_MAX {
                        self.seen.push(t.clone());
                    }
                    self.queue.push_back(t);
                    assert!(self.queue.len() < QUEUE_MAX, "two engines that never come to rest");
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn deliver(&mut self, t: &Transmit) {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if address(i).ip() == t.to.ip() {
                node.engine.handle_datagram(t.from, t.to, &t.payload, self.now);
            }
        }
        self.pump();
    }

    fn deliver_all(&mut self) {
        while let Some(t) = self.queue.pop_front() {
            self.deliver(&t);
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.nodes.iter().filter_map(|n| n.engine.poll_timeout()).map(|(at, _)| at).min();
            match next.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = at.max(self.now);
                    for node in &mut self.nodes {
                        node.engine.handle_timeout(self.now);
                    }
                    self.pump();
                    self.deliver_all();
                }
                None => break,
            }
        }
        self.now = end;
    }

    fn initiate(&mut self, i: usize) {
        let _ = self.nodes[i].engine.handle_request(IkeRequest::Initiate { map: "CMAP_1".into(), seq: 1 }, self.now);
        self.pump();
    }

    fn up(&self) -> bool {
        self.nodes.iter().all(|n| {
            n.kernel.values().any(|whole| *whole)
                && n.engine.view(self.now).iter().any(|v| matches!(v.state, IsakmpState::QM_IDLE | IsakmpState::READY))
        })
    }
}

fn apply(node: &mut Node, command: IkeCommand) {
    if !node.strict {
        return;
    }
    let free = |spi: Spi| assert!(node.spis.0.lock().is_ok_and(|mut s| s.remove(&spi)), "{spi} was freed twice");
    match command {
        IkeCommand::InstallInbound(child) => {
            let old = node.kernel.insert(child.spi_in, false);
            assert!(old != Some(true), "an inbound half over a whole pair");
        }
        IkeCommand::InstallChild(child) => {
            node.kernel.insert(child.spi_in, true);
        }
        IkeCommand::RetireOutbound(spi) => assert!(node.kernel.contains_key(&spi), "{spi} is not there"),
        IkeCommand::MoveChild { spi_in, .. } => assert!(node.kernel.contains_key(&spi_in), "{spi_in} is not there"),
        IkeCommand::RemoveChild(spi) => {
            assert!(node.kernel.remove(&spi).is_some(), "{spi} is not there");
            free(spi);
        }
        IkeCommand::ReleaseSpi(spi) => free(spi),
    }
}

/// A script: the first byte says how far the session is when the attacker comes; then four bytes for each operation.
fn engine(version: Version, bytes: &[u8]) {
    let Some((start, script)) = bytes.split_first() else { return };
    let mut net = Net::new(version, 1);
    net.initiate(usize::from(start & 1));
    let established = start & 2 != 0;
    if established {
        net.deliver_all();
        assert!(net.up(), "no tunnel between two that agree");
    }
    for op in script.chunks_exact(4).take(OPERATIONS_MAX) {
        let (kind, which, at, value) = (op[0], usize::from(op[1]), usize::from(op[2]), op[3]);
        match kind % 8 {
            // The network delivers.
            0 => {
                if let Some(t) = net.queue.pop_front() {
                    net.deliver(&t);
                }
            }
            1 => net.deliver_all(),
            // The attacker sends a changed copy of a datagram of this session.
            2..=6 if !net.seen.is_empty() => {
                let mut t = net.seen[which % net.seen.len()].clone();
                let len = t.payload.len().max(1);
                match kind % 8 {
                    2 => {}
                    3 => t.payload[at % len] = value,
                    4 => t.payload.truncate(at * 4 % len),
                    5 => t.payload.splice(at % len..at % len, [value; 4]).for_each(drop),
                    _ => {
                        // The length field agrees with what was appended.
                        t.payload.extend([value; 8]);
                        let n = t.payload.len() as u32;
                        if let Some(field) = t.payload.get_mut(24..28) {
                            field.copy_from_slice(&n.to_be_bytes());
                        }
                    }
                }
                net.deliver(&t);
            }
            // Time passes.
            _ => net.wait(Duration::from_millis(u64::from(value) * 20)),
        }
        for node in &net.nodes {
            let sas = node.engine.view(net.now).len();
            assert!(sas <= SAS_MAX, "{sas} SAs out of one session");
        }
    }
    net.deliver_all();
    if established {
        // Copies and forgeries beside a live tunnel: it does not notice. (Nothing was withheld after it was up but deliveries in order.)
        assert!(net.up(), "forged datagrams ended a tunnel");
    }
    net.wait(Duration::from_secs(120));
    assert!(net.queue.is_empty());
    for node in &net.nodes {
        let held = node.spis.0.lock().map_or(0, |s| s.len());
        assert!(held <= node.kernel.len() + 1, "{held} SPIs for {} pairs", node.kernel.len());
    }
}

/// Version 1.
pub fn engine_v1(bytes: &[u8]) {
    engine(Version::V1, bytes);
}

/// Version 2.
pub fn engine_v2(bytes: &[u8]) {
    engine(Version::V2, bytes);
}

/// Scripts of each kind of operation, before and after the tunnel is up.
pub fn scripts() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for start in 0..4u8 {
        for kind in 0..8u8 {
            let mut script = vec![start];
            for n in 0..12u8 {
                script.extend([kind, n, n.wrapping_mul(23).wrapping_add(16), n.wrapping_mul(85)]);
                script.extend([0, 0, 0, 0]);
            }
            script.extend([7, 0, 0, 200]);
            out.push(script);
        }
    }
    out
}

/// Every datagram of a session.
pub fn datagrams_v1() -> Vec<Vec<u8>> {
    let mut net = Net::new(Version::V1, 1);
    net.initiate(0);
    net.deliver_all();
    net.seen.into_iter().map(|t| t.payload).collect()
}

/// Records that a standby gets, of both versions.
pub fn records() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for version in [Version::V1, Version::V2] {
        let mut net = Net::new(version, 1);
        net.initiate(0);
        net.deliver_all();
        for node in net.nodes {
            for record in node.records {
                if let IkeRecord::Upsert { body, .. } = record {
                    out.push(body);
                }
            }
        }
    }
    out
}

/// A record as a partner sends it: taken or refused, and the engine that took it can be active and come to rest.
pub fn record(bytes: &[u8]) {
    let mut net = Net::new(Version::V1, 2);
    let now = net.now;
    let mut ids: Vec<_> = [bytes.get(2..18), bytes.get(1..17)].into_iter().flatten().collect();
    ids.push(&[7; 16]);
    net.nodes[0].strict = false;
    let engine = &mut net.nodes[0].engine;
    engine.set_active(false, now);
    for id in ids {
        let (Ok(initiator), Ok(responder)) = (id[..8].try_into(), id[8..].try_into()) else { continue };
        let id = gateway_user::id::IkeSaId { initiator, responder };
        let _ = engine.import(&IkeRecord::Upsert { id, body: bytes.to_vec() }, now);
    }
    engine.set_active(true, now);
    net.pump();
    net.queue.clear();
    net.wait(Duration::from_secs(60));
    assert!(net.nodes[0].engine.view(net.now).len() <= SAS_MAX);
}
