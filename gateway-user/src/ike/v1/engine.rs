//! The engine: tables, demultiplexing, the calls of the daemon. The exchanges are in `v1`.

use super::fragments::Fragments;
use super::message::{Exchange, Header, PayloadKind, flag};
use super::nat::KEEPALIVE;
use super::phase1::Refuse;
use super::timer::Timer;
use super::{Child, FlowKey, Handle, MainState, Pair, PairKey, Quick, Sa, Stage, Tell, Up, Want};
use crate::crypto::Secret;
use crate::id::{IkeSaId, IkeVersion, Spi};
use crate::ike::api::{Acquire, IkeCommand, IkeEvent, IkeRequest, IsakmpState, IsakmpView, SpiSource, Transmit};
use crate::ike::engine::{NAT_T_PORT, NON_ESP_MARKER};
use crate::ike::job::{Job, JobDone, Outcome};
use crate::ike::policy::{IkeConfig, MapEntry};
use crate::ike::timers::Timers;
use crate::rng::Random;
use crate::sad::Selector;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Flows of one peer that may wait for an ISAKMP SA.
const WANTS_MAX: usize = 4096;
/// Deadlines handled by one call; what is left stays due.
const TIMERS_PER_CALL: usize = 4096;
/// Whose result a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobTarget {
    Main(Handle),
    Quick(Handle, u32),
}

/// IKE version 1 for all peers of one gateway. Starts dormant: [`Engine::set_active`] lets it speak.
///
/// The caller drains commands, then events, then transmits after every input, in that order: an `Install…` command or a `Sync` event
/// belongs before the datagram that follows from it.
pub struct Engine {
    pub(super) config: Arc<IkeConfig>,
    pub(super) rng: Box<dyn Random>,
    pub(super) spis: Box<dyn SpiSource>,
    pub(super) active: bool,
    /// Unix seconds at a moment.
    pub(super) wall: Option<(u64, Instant)>,
    /// State of another node was imported: peers know us, so INITIAL-CONTACT would be a lie.
    pub(super) inherited: bool,
    next_handle: Handle,
    pub(super) next_order: u64,
    next_token: u64,
    pub(super) sas: BTreeMap<Handle, Sa>,
    pub(super) by_id: HashMap<IkeSaId, Handle>,
    /// Responder SAs by the peer's address and cookie, for repetitions of message 1.
    pub(super) by_first: HashMap<(SocketAddr, [u8; 8]), Handle>,
    pub(super) half_open: HashMap<IpAddr, usize>,
    pub(super) half_open_total: usize,
    pub(super) quicks: BTreeMap<(Handle, u32), Quick>,
    pub(super) pairs: BTreeMap<PairKey, Pair>,
    pub(super) children: HashMap<Spi, Child>,
    /// Peer's SPI to ours.
    pub(super) outbound: HashMap<(PairKey, Spi), Spi>,
    /// The pair that carries a flow.
    pub(super) flows: HashMap<FlowKey, Spi>,
    /// Who carried the traffic to an address last, of several peers behind it.
    pub(super) homes: HashMap<FlowKey, PairKey>,
    pub(super) fragments: Fragments,
    /// Deletes to send once more: our end, the peer's, the message.
    pub(super) farewells: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub(super) timers: Timers<Timer>,
    pub(super) jobs: VecDeque<Job>,
    pub(super) job_targets: HashMap<u64, JobTarget>,
    pub(super) dirty: BTreeSet<Handle>,
    pub(super) transmits: VecDeque<Transmit>,
    commands: VecDeque<IkeCommand>,
    events: VecDeque<IkeEvent>,
}

impl Engine {
    /// An engine without SAs, dormant.
    pub fn new(config: Arc<IkeConfig>, rng: Box<dyn Random>, spis: Box<dyn SpiSource>, _now: Instant) -> Self {
        Self {
            config,
            rng,
            spis,
            active: false,
            wall: None,
            inherited: false,
            next_handle: 1,
            next_order: 1,
            next_token: 1,
            sas: BTreeMap::new(),
            by_id: HashMap::new(),
            by_first: HashMap::new(),
            half_open: HashMap::new(),
            half_open_total: 0,
            quicks: BTreeMap::new(),
            pairs: BTreeMap::new(),
            children: HashMap::new(),
            outbound: HashMap::new(),
            flows: HashMap::new(),
            homes: HashMap::new(),
            fragments: Fragments::default(),
            farewells: VecDeque::new(),
            timers: Timers::default(),
            jobs: VecDeque::new(),
            job_targets: HashMap::new(),
            dirty: BTreeSet::new(),
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a new configuration. SAs are kept; exchanges under way end with the old one.
    pub fn reload(&mut self, config: Arc<IkeConfig>, now: Instant) {
        self.config = config;
        self.homes.retain(|_, pair| self.pairs.contains_key(pair));
        for pair in self.pair_keys() {
            self.arm_dpd(pair, now);
            self.arm_keepalive(pair, now);
        }
    }

    /// Tells the wall clock (Unix seconds), for the validity of certificates.
    pub fn set_wall(&mut self, unix_s: u64, now: Instant) {
        self.wall = Some((unix_s, now));
    }

    /// A UDP datagram from port 500 or 4500.
    pub fn handle_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        if !self.active {
            return self.refuse(from, "dormant", "");
        }
        if bytes.len() > self.config.limits.datagram_bytes_max {
            return self.refuse(from, "datagram_size", format!("{} bytes", bytes.len()));
        }
        let bytes = if to.port() == NAT_T_PORT {
            if bytes == KEEPALIVE {
                return;
            }
            let Some(message) = bytes.strip_prefix(&NON_ESP_MARKER) else {
                return self.refuse(from, "nat_t_not_ike", "");
            };
            if !self.config.nat_traversal {
                return self.refuse(from, "nat_t_disabled", "");
            }
            message
        } else {
            bytes
        };
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(fault) => return self.refuse(from, fault.reason(), format!("{fault:?}")),
        };
        if header.next == PayloadKind::Fragment.number() {
            match self.fragment(from, to, &header, bytes, now) {
                Ok(Some((header, whole))) => self.message(from, to, &header, &whole, now),
                Ok(None) => {}
                Err(Refuse(reason, detail)) => self.refuse(from, reason, detail),
            }
        } else {
            self.message(from, to, &header, bytes, now);
        }
        self.flush(now);
    }

    /// A whole message.
    fn message(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        match header.exchange {
            Exchange::Main | Exchange::Aggressive => self.phase_1_datagram(from, to, header, bytes, now),
            Exchange::Quick | Exchange::Informational => self.phase_2_datagram(from, to, header, bytes, now),
        }
    }

    fn phase_2_datagram(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        let Some(&handle) = self.by_id.get(&header.id) else {
            return self.refuse(from, "unknown_cookies", format!("{:?}", header.id));
        };
        let Some(sa) = self.sas.get(&handle) else {
            return self.refuse(from, "unknown_cookies", "");
        };
        // A NAT in front of the peer may show it elsewhere by now.
        if sa.local != to || (sa.peer != from && !(sa.nat.peer && sa.up().is_some())) {
            return self.refuse(from, "wrong_address", format!("{:?} belongs to {}", header.id, sa.peer));
        }
        if header.flags & flag::ENCRYPTED == 0 {
            // Unprotected notifications are for the log alone.
            return self.refuse(from, "not_encrypted", "");
        }
        if header.message_id == 0 {
            return self.refuse(from, "message_id", "zero in phase 2");
        }
        if sa.up().is_none() {
            if sa.awaits_message_3() {
                self.ask_for_message_3(handle, now);
            }
            return self.refuse(from, "not_established", "");
        }
        match header.exchange {
            Exchange::Quick => self.quick_datagram(handle, from, header, bytes, now),
            Exchange::Informational | Exchange::Main | Exchange::Aggressive => {
                self.informational_datagram(handle, from, header, bytes, now)
            }
        }
    }

    /// A job has run.
    pub fn handle_job(&mut self, done: JobDone, now: Instant) {
        match (self.job_targets.remove(&done.token), done.outcome) {
            // Version 1 gives no other work.
            (None, _)
            | (Some(JobTarget::Main(_) | JobTarget::Quick(..)), Outcome::Responded(_))
            | (Some(JobTarget::Quick(..)), Outcome::Signed(_) | Outcome::Verified(_)) => {}
            (Some(JobTarget::Main(handle)), Outcome::Signed(result)) => self.main_signed(handle, result, now),
            (Some(JobTarget::Main(handle)), Outcome::Verified(result)) => self.main_verified(handle, result, now),
            (Some(JobTarget::Main(handle)), Outcome::Dh(dh)) => self.main_job(handle, dh, now),
            (Some(JobTarget::Quick(handle, message_id)), Outcome::Dh(dh)) => self.quick_job(handle, message_id, dh, now),
        }
        self.flush(now);
    }

    /// The kernel wants SAs for a packet of this flow.
    pub fn handle_acquire(&mut self, acquire: Acquire, map: &str, seq: u32, ace: u32, now: Instant) {
        let config = self.config.clone();
        let entry = config.entries.iter().find(|e| e.map == map && e.seq == seq);
        let Some(entry) = entry.filter(|_| self.active) else { return };
        let Some(peer) = self.choose_peer(entry, acquire.peer, now) else { return };
        let Some(flow) = entry.flows.iter().find(|f| f.ace == ace) else { return };
        let pair = self.pair_for(PairKey::host(entry.local, peer), flow.local, flow.remote);
        let key = FlowKey { pair, local: flow.local, remote: flow.remote };
        // The packet that asked may be older than the pair that just came up.
        let fresh = self.flows.get(&key).and_then(|spi| self.children.get(spi)).is_some_and(|c| c.is_fresh(now));
        if !fresh {
            self.want(pair, Want { map: map.into(), seq, ace, replaces: None, tried: Vec::new() }, now);
        }
        self.flush(now);
    }

    /// A child pair of this inbound (or outbound) SPI reached a lifetime.
    pub fn handle_expire(&mut self, spi: Spi, hard: bool, now: Instant) {
        if !self.active {
            return;
        }
        let found: Vec<Spi> = if self.children.contains_key(&spi) {
            vec![spi]
        } else {
            self.children.values().filter(|c| c.spi_out == spi).map(|c| c.spi_in).collect()
        };
        for spi_in in found {
            if hard {
                self.remove_child(spi_in, "lifetime ended", Tell::Twice, now);
            } else {
                self.rekey_child(spi_in, now);
            }
        }
        self.flush(now);
    }

    /// Verified packets of this pair arrived.
    pub fn handle_traffic(&mut self, spi_in: Spi, now: Instant) {
        if let Some(pair) = self.children.get(&spi_in).map(|c| c.flow.pair) {
            self.heard(pair, now);
        }
    }

    /// An operator's request. The error names what does not exist.
    pub fn handle_request(&mut self, request: IkeRequest, now: Instant) -> Result<(), String> {
        if !self.active {
            return Err("this node is not active: ask the other one".into());
        }
        match request {
            IkeRequest::Initiate { map, seq } => {
                let config = self.config.clone();
                let entry = config.entries.iter().find(|e| e.map == map && e.seq == seq);
                let entry = entry.ok_or_else(|| format!("there is no crypto map {map} {seq}"))?;
                let first = *entry.peers.first().ok_or_else(|| format!("crypto map {map} {seq} has no peer"))?;
                let peer = self.choose_peer(entry, first, now).unwrap_or(first);
                for flow in &entry.flows {
                    let want = Want { map: map.clone(), seq, ace: flow.ace, replaces: None, tried: Vec::new() };
                    let pair = self.pair_for(PairKey::host(entry.local, peer), flow.local, flow.remote);
                    self.want(pair, want, now);
                }
            }
            IkeRequest::RekeyChild(spi) => {
                let child = self.children.get(&spi).ok_or_else(|| format!("there is no child pair {spi}"))?;
                if child.retired {
                    return Err(format!("{spi} is being replaced already"));
                }
                self.rekey_child(spi, now);
            }
            IkeRequest::RekeyIsakmp(id) => {
                let handle = self.by_id.get(&id).copied().filter(|h| self.sas.get(h).is_some_and(|s| s.up().is_some()));
                let handle = handle.ok_or_else(|| format!("there is no established ISAKMP SA {id}"))?;
                self.rekey_isakmp(handle, now);
            }
            IkeRequest::ProbePeer(peer) => {
                let pairs: Vec<_> = self.pair_keys().into_iter().filter(|p| p.peer == peer).collect();
                if !pairs.into_iter().any(|pair| self.probe(pair, now)) {
                    return Err(format!("no ISAKMP SA with {peer} on which it can be probed"));
                }
            }
            IkeRequest::Clear(peer) => self.clear_peer(peer, now),
        }
        self.flush(now);
        Ok(())
    }

    fn clear_peer(&mut self, peer: Option<IpAddr>, now: Instant) {
        let wanted = |p: &PairKey| peer.is_none_or(|peer| p.peer == peer);
        for pair in self.pair_keys().into_iter().filter(wanted) {
            self.drop_pair(pair, "cleared by the operator", Tell::Twice, now);
        }
    }

    /// The deadline of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(timer) = self.timers.pop(now) else { break };
            match timer {
                Timer::HalfOpen(h) => self.main_too_old(h, now),
                Timer::Fragments(h) => self.fragments_too_old(h, now),
                Timer::Retransmit(h) => self.main_retransmit(h, now),
                Timer::Soft(h) => self.isakmp_soft(h, now),
                Timer::Hard(h) => self.isakmp_hard(h, now),
                Timer::Overlap(h) => self.remove_isakmp(h, "replaced", Tell::Once, now),
                Timer::Quick(h, mid) => self.quick_timeout(h, mid, now),
                Timer::Dpd(pair) => self.dpd_timeout(pair, now),
                Timer::Farewells => self.say_farewells(),
                Timer::Keepalive(pair) => self.keepalive(pair, now),
                Timer::ChildGrace(spi) => self.remove_child(spi, "replaced", Tell::Once, now),
                Timer::ChildRetry(spi) => self.rekey_child(spi, now),
            }
        }
        self.flush(now);
    }

    /// Next datagram to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next command for the kernel.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<IkeCommand> {
        self.commands.pop_front()
    }

    /// Next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.events.pop_front()
    }

    /// Next job. Its exchange may have ended meanwhile; such jobs are skipped here.
    #[must_use]
    pub fn poll_job(&mut self) -> Option<Job> {
        while let Some(job) = self.jobs.pop_front() {
            if self.job_targets.contains_key(&job.token) {
                return Some(job);
            }
        }
        None
    }

    /// When [`Self::handle_timeout`] is due, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.reason()))
    }

    /// One row for each ISAKMP SA.
    pub fn view(&self, now: Instant) -> Vec<IsakmpView> {
        self.sas
            .iter()
            .map(|(handle, sa)| {
                let (state, remaining_s) = match &sa.stage {
                    Stage::Up(up) => (IsakmpState::QM_IDLE, up.hard.saturating_duration_since(now).as_secs()),
                    Stage::Main(main) => (view_state(main.state), 0),
                };
                let pair = self.pairs.get(&sa.pair());
                let primary = self.primary(sa.pair()) == Some(*handle);
                IsakmpView {
                    id: sa.id,
                    version: IkeVersion::V1,
                    local: sa.local.ip(),
                    peer: sa.peer.ip(),
                    state,
                    initiator: sa.initiator,
                    dormant: !self.active,
                    remaining_s,
                    children: pair.filter(|_| primary).map(|p| p.children.iter().copied().collect()).unwrap_or_default(),
                }
            })
            .collect()
    }

    // What the exchanges use.

    pub(super) fn refuse(&mut self, from: SocketAddr, reason: &'static str, detail: impl Into<String>) {
        self.events.push_back(IkeEvent::Refused { from, reason, detail: detail.into() });
    }

    pub(super) fn notice(&mut self, peer: IpAddr, text: impl Into<String>) {
        self.events.push_back(IkeEvent::Notice { peer, text: text.into() });
    }

    pub(super) fn event(&mut self, event: IkeEvent) {
        self.events.push_back(event);
    }

    pub(super) fn command(&mut self, command: IkeCommand) {
        self.commands.push_back(command);
    }

    pub(super) fn transmit(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        let marked = |payload: Vec<u8>| if from.port() == NAT_T_PORT { [&NON_ESP_MARKER[..], &payload].concat() } else { payload };
        for piece in self.in_pieces(&payload).unwrap_or_else(|| vec![payload]) {
            self.transmit_raw(from, to, marked(piece));
        }
    }

    /// Sends bytes that are no IKE message.
    pub(super) fn transmit_raw(&mut self, from: SocketAddr, to: SocketAddr, payload: Vec<u8>) {
        if self.active {
            self.transmits.push_back(Transmit { from, to, payload });
        }
    }

    pub(super) fn push_job(&mut self, target: JobTarget, mut job: Job) {
        job.token = self.next_token;
        self.next_token += 1;
        self.job_targets.insert(job.token, target);
        // Quick modes belong to authenticated peers: they go before strangers.
        match target {
            JobTarget::Quick(..) => self.jobs.push_front(job),
            JobTarget::Main(_) => self.jobs.push_back(job),
        }
    }

    pub(super) fn drop_jobs(&mut self, target: JobTarget) {
        self.job_targets.retain(|_, t| *t != target);
        let targets = &self.job_targets;
        self.jobs.retain(|j| targets.contains_key(&j.token));
    }

    pub(super) fn new_handle(&mut self) -> Handle {
        self.next_handle += 1;
        self.next_handle
    }

    pub(super) fn new_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    pub(super) fn random_bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.rng.fill(&mut out);
        out
    }

    /// A duration between zero and `max`.
    pub(super) fn jitter(&mut self, max: Duration) -> Duration {
        max / 1000 * (self.rng.u32() % 1000)
    }

    pub(super) fn pair_keys(&self) -> Vec<PairKey> {
        self.pairs.keys().copied().collect()
    }

    pub(super) fn psk(&self, peer: IpAddr) -> Option<Secret> {
        self.config.psk(peer, None).cloned()
    }

    pub(super) fn entries_of(config: &IkeConfig, pair: PairKey) -> impl Iterator<Item = (usize, &MapEntry)> {
        config.entries.iter().enumerate().filter(move |(_, e)| e.ikev1 && e.local == pair.local && e.peers.contains(&pair.peer))
    }

    /// The peer at an address that a flow belongs to: who carries it, else who is there, else whoever answers at the well-known ports.
    pub(super) fn pair_for(&self, host: PairKey, local: Selector, remote: Selector) -> PairKey {
        let carries = |pair: &PairKey| self.flows.contains_key(&FlowKey { pair: *pair, local, remote });
        let keys: Vec<PairKey> =
            self.siblings(host).filter(|(_, p)| !p.sas.is_empty() || !p.children.is_empty()).map(|(k, _)| *k).collect();
        let home = self.homes.get(&FlowKey { pair: host, local, remote });
        let home = || keys.iter().find(|k| Some(*k) == home);
        keys.iter().find(|k| carries(k)).or_else(home).or(keys.first()).copied().unwrap_or(host)
    }

    /// The ISAKMP SA to use with a peer: the newest that is not on its way out.
    pub(super) fn primary(&self, pair: PairKey) -> Option<Handle> {
        let sas = &self.pairs.get(&pair)?.sas;
        let up = |h: &&Handle| self.sas.get(h).and_then(Sa::up);
        let usable = |u: &Up| !u.replaced;
        sas.iter().rev().find(|h| up(h).is_some_and(usable)).or_else(|| sas.last()).copied()
    }

    /// Queues a flow for a quick mode and starts what can be started.
    pub(super) fn want(&mut self, pair: PairKey, want: Want, now: Instant) {
        let p = self.pairs.entry(pair).or_insert_with(|| Pair::new(now));
        let same = |w: &Want| (&w.map, w.seq, w.ace) == (&want.map, want.seq, want.ace);
        if !p.wants.iter().any(same) && p.wants.len() < WANTS_MAX {
            p.wants.push_back(want);
        }
        self.run_wants(pair, now);
    }

    /// Emits the mirrored state of every ISAKMP SA that changed.
    pub(super) fn flush(&mut self, now: Instant) {
        for handle in std::mem::take(&mut self.dirty) {
            if let Some(record) = self.sas.get(&handle).and_then(|sa| self.encode(handle, sa, now)) {
                self.events.push_back(IkeEvent::Sync(record));
            }
        }
    }
}

fn view_state(state: MainState) -> IsakmpState {
    match state {
        MainState::WaitSa => IsakmpState::MM_NO_STATE,
        MainState::MakeKe | MainState::AnsweredSa => IsakmpState::MM_SA_SETUP,
        MainState::WaitKe | MainState::MakeKeys | MainState::Sign | MainState::AnswerKeys | MainState::AnsweredKe => {
            IsakmpState::MM_KEY_EXCH
        }
        MainState::WaitAuth | MainState::CheckAuth | MainState::AnswerCheck | MainState::AnswerSign => IsakmpState::MM_KEY_AUTH,
        MainState::AggressiveMakeKe | MainState::AggressiveWait | MainState::AggressiveAnswerKeys => IsakmpState::AG_NO_STATE,
        MainState::AggressiveMakeKeys | MainState::AggressiveAnswered => IsakmpState::AG_INIT_EXCH,
    }
}
