//! The engine: tables, demultiplexing, the calls of the daemon. The exchanges are in the files beside this one.

use super::child::Child;
use super::cookie::Cookies;
use super::message::{Exchange, Header, HeaderFault, invalid_major_version};
use super::sa::{Handle, Pair, PairKey, Sa, Stage, entries_of};
use super::state::Listed;
use super::task::{FlowKey, JobTarget, Want};
use super::timer::Timer;
use crate::id::{IkeSaId, IkeVersion, Spi};
use crate::ike::api::{Acquire, IkeCommand, IkeEvent, IkeRequest, IsakmpState, IsakmpView, SpiSource, Transmit};
use crate::ike::engine::{NAT_T_PORT, NON_ESP_MARKER};
use crate::ike::job::{Job, JobDone};
use crate::ike::policy::{IkeConfig, MapEntry};
use crate::ike::timers::Timers;
use crate::rng::Random;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Deadlines handled by one call; what is left stays due.
const TIMERS_PER_CALL: usize = 4096;
/// Answers to messages of a higher version, per second.
const VERSION_ANSWERS: u32 = 10;

/// A flow whose peer does not speak version 2 and may speak version 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fallback {
    /// What the kernel asked for.
    pub acquire: Acquire,
    /// Crypto map.
    pub map: String,
    /// Sequence number.
    pub seq: u32,
    /// Access-list entry.
    pub ace: u32,
}

/// IKE version 2 for all peers of one gateway. Starts dormant.
pub struct Engine {
    pub(super) config: Arc<IkeConfig>,
    pub(super) rng: Box<dyn Random>,
    pub(super) spis: Box<dyn SpiSource>,
    pub(super) active: bool,
    /// Unix seconds at a moment.
    pub(super) wall: Option<(u64, Instant)>,
    /// State of another node was imported: peers know us, so INITIAL_CONTACT would be a lie.
    pub(super) inherited: bool,
    next_handle: Handle,
    next_token: u64,
    pub(super) sas: BTreeMap<Handle, Sa>,
    /// By the SPI that we chose.
    pub(super) by_spi: HashMap<[u8; 8], Handle>,
    /// Half-open SAs of the responder by the peer's address and SPI, for repetitions of the first message.
    pub(super) by_first: HashMap<(SocketAddr, [u8; 8]), Handle>,
    pub(super) half_open: HashMap<IpAddr, usize>,
    pub(super) half_open_total: usize,
    pub(super) cookies: Cookies,
    pub(super) pairs: HashMap<PairKey, Pair>,
    pub(super) children: HashMap<Spi, Child>,
    /// The peer's SPI under an IKE SA to ours.
    pub(super) outbound: HashMap<(Handle, Spi), Spi>,
    /// The pair that carries a flow.
    pub(super) flows: HashMap<FlowKey, Spi>,
    /// On a standby: pairs that an IKE SA mentions.
    pub(super) listed: HashMap<Spi, (Handle, Listed)>,
    pub(super) timers: Timers<Timer>,
    jobs: VecDeque<Job>,
    job_targets: HashMap<u64, JobTarget>,
    pub(super) dirty: BTreeSet<Handle>,
    pub(super) transmits: VecDeque<Transmit>,
    commands: VecDeque<IkeCommand>,
    events: VecDeque<IkeEvent>,
    pub(super) fallbacks: VecDeque<Fallback>,
    version_answers: (u32, Option<Instant>),
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
            next_token: 1,
            sas: BTreeMap::new(),
            by_spi: HashMap::new(),
            by_first: HashMap::new(),
            half_open: HashMap::new(),
            half_open_total: 0,
            cookies: Cookies::default(),
            pairs: HashMap::new(),
            children: HashMap::new(),
            outbound: HashMap::new(),
            flows: HashMap::new(),
            listed: HashMap::new(),
            timers: Timers::default(),
            jobs: VecDeque::new(),
            job_targets: HashMap::new(),
            dirty: BTreeSet::new(),
            transmits: VecDeque::new(),
            commands: VecDeque::new(),
            events: VecDeque::new(),
            fallbacks: VecDeque::new(),
            version_answers: (0, None),
        }
    }

    /// Takes a new configuration. SAs are kept; exchanges under way end with the old one.
    pub fn reload(&mut self, config: Arc<IkeConfig>, now: Instant) {
        self.config = config;
        for pair in self.pairs.values_mut() {
            pair.old_until = None;
        }
        let handles: Vec<Handle> = self.sas.keys().copied().collect();
        for handle in handles {
            self.arm_dpd(handle, now);
        }
    }

    /// Tells the wall clock (Unix seconds), for the validity of certificates.
    pub fn set_wall(&mut self, unix_s: u64, now: Instant) {
        self.wall = Some((unix_s, now));
    }

    /// A UDP datagram from port 500 or 4500 (there with the marker).
    pub fn handle_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        if !self.active {
            return self.refuse(from, "dormant", "");
        }
        if bytes.len() > self.config.limits.datagram_bytes_max {
            return self.refuse(from, "datagram_size", format!("{} bytes", bytes.len()));
        }
        let bytes = match (to.port() == NAT_T_PORT, bytes.strip_prefix(&NON_ESP_MARKER)) {
            (false, _) => bytes,
            (true, Some(message)) => message,
            // A keepalive proves nothing and is no mistake (RFC 3948 2.3).
            (true, None) if bytes == [0xff] => return,
            (true, None) => return self.refuse(from, "nat_t_not_ike", ""),
        };
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            Err(fault) => {
                if matches!(fault, HeaderFault::Version(_)) {
                    self.answer_version(from, to, bytes, now);
                }
                return self.refuse(from, fault.reason(), format!("{fault:?}"));
            }
        };
        let verdict = match (header.exchange, header.response) {
            (Exchange::SaInit, false) => self.init_request(from, to, &header, bytes, now),
            (Exchange::SaInit, true) => self.init_response(from, &header, bytes, now),
            (Exchange::Auth | Exchange::CreateChildSa | Exchange::Informational | Exchange::Intermediate | Exchange::FollowupKe, _) => {
                self.protected(from, to, &header, bytes, now)
            }
        };
        if let Err(why) = verdict {
            self.refuse(from, why.0, why.1);
        }
        self.flush(now);
    }

    fn answer_version(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        let (count, since) = self.version_answers;
        let fresh = since.is_none_or(|s| now.saturating_duration_since(s) >= Duration::from_secs(1));
        self.version_answers = if fresh { (1, Some(now)) } else { (count.saturating_add(1), since) };
        if self.version_answers.0 <= VERSION_ANSWERS
            && let Some(answer) = invalid_major_version(bytes)
        {
            self.transmit(to, from, answer);
        }
    }

    /// The SA that a message belongs to, by the SPI that we chose.
    pub(super) fn find(&self, header: &Header) -> Option<Handle> {
        let spi = if header.initiator { header.id.responder } else { header.id.initiator };
        let handle = *self.by_spi.get(&spi)?;
        let sa = self.sas.get(&handle)?;
        (sa.id == header.id && sa.initiator != header.initiator).then_some(handle)
    }

    /// A job has run.
    pub fn handle_job(&mut self, done: JobDone, now: Instant) {
        match self.job_targets.remove(&done.token) {
            None => {}
            Some(JobTarget::Init(handle)) => self.init_job(handle, done.outcome, now),
            Some(JobTarget::Task(handle)) => self.task_job(handle, done.outcome, now),
            Some(JobTarget::Answer(handle)) => self.answer_job(handle, done.outcome, now),
        }
        self.flush(now);
    }

    /// The kernel wants SAs for a packet of this flow.
    pub fn handle_acquire(&mut self, acquire: Acquire, map: &str, seq: u32, ace: u32, now: Instant) {
        let config = self.config.clone();
        let entry = config.entries.iter().find(|e| e.map == map && e.seq == seq);
        let Some(entry) = entry.filter(|_| self.active) else { return };
        let peer = if entry.peers.contains(&acquire.peer) { Some(acquire.peer) } else { entry.peers.first().copied() };
        let Some(peer) = peer else { return };
        if !entry.flows.iter().any(|f| f.ace == ace) {
            return;
        }
        let pair = self.peer_in_use(entry, peer);
        // The packet that asked may be older than the pair that just came up.
        if !self.has_fresh_child(pair, map, seq, ace, now) {
            self.want(pair, Want { map: map.into(), seq, ace, replaces: None, acquire: Some(acquire) }, now);
        }
        self.flush(now);
    }

    /// Of an entry with several peers the one that we speak with already.
    fn peer_in_use(&self, entry: &MapEntry, peer: IpAddr) -> PairKey {
        let busy = |p: &&IpAddr| self.pairs.get(&(entry.local, **p)).is_some_and(|p| !p.sas.is_empty() || p.starting.is_some());
        (entry.local, entry.peers.iter().find(busy).copied().unwrap_or(peer))
    }

    /// Next flow that version 1 should try.
    pub fn poll_fallback(&mut self) -> Option<Fallback> {
        self.fallbacks.pop_front()
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
                self.remove_child(spi_in, "lifetime ended", true, now);
            } else {
                self.rekey_child(spi_in, now);
            }
        }
        self.flush(now);
    }

    /// Verified packets of this pair arrived.
    pub fn handle_traffic(&mut self, spi_in: Spi, now: Instant) {
        let Some(child) = self.children.get(&spi_in) else { return };
        let handle = child.handle;
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.heard = now;
        }
        if self.active && child.inbound_only.is_some() {
            self.switch_child(spi_in, now);
            self.flush(now);
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
                let entry = config.entries.iter().find(|e| e.map == map && e.seq == seq && e.ikev2.is_some());
                let entry = entry.ok_or_else(|| format!("there is no crypto map {map} {seq} for IKEv2"))?;
                let peer = *entry.peers.first().ok_or_else(|| format!("crypto map {map} {seq} has no peer"))?;
                let pair = self.peer_in_use(entry, peer);
                for flow in &entry.flows {
                    let want = Want { map: map.clone(), seq, ace: flow.ace, replaces: None, acquire: None };
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
                let handle = self.by_id(&id).filter(|h| self.sas.get(h).is_some_and(|s| s.up().is_some()));
                let handle = handle.ok_or_else(|| format!("there is no established IKE SA {id}"))?;
                self.rekey_ike(handle, now);
            }
            IkeRequest::ProbePeer(peer) => {
                let handles: Vec<Handle> = self.sas.iter().filter(|(_, s)| s.peer.ip() == peer && s.up().is_some()).map(|s| *s.0).collect();
                let handle = *handles.last().ok_or_else(|| format!("no IKE SA with {peer} on which it can be probed"))?;
                self.probe(handle, now);
            }
            IkeRequest::Clear(peer) => self.clear_peer(peer, now),
        }
        self.flush(now);
        Ok(())
    }

    fn clear_peer(&mut self, peer: Option<IpAddr>, now: Instant) {
        let wanted = |sa: &Sa| peer.is_none_or(|peer| sa.pair.1 == peer || sa.peer.ip() == peer);
        for pair in self.pairs.iter_mut().filter(|(k, _)| peer.is_none_or(|peer| k.1 == peer)).map(|(_, p)| p) {
            pair.wants.clear();
        }
        let handles: Vec<Handle> = self.sas.iter().filter(|(_, sa)| wanted(sa)).map(|(h, _)| *h).collect();
        for handle in handles {
            match self.sas.get(&handle).map(|sa| sa.up().is_some()) {
                Some(true) => self.close_ike(handle, "cleared by the operator", now),
                Some(false) => self.forget_sa(handle),
                None => {}
            }
        }
    }

    /// An IKE SA by its SPIs.
    pub(super) fn by_id(&self, id: &IkeSaId) -> Option<Handle> {
        let found = [id.initiator, id.responder].into_iter().filter_map(|spi| self.by_spi.get(&spi).copied());
        found.into_iter().find(|h| self.sas.get(h).is_some_and(|sa| sa.id == *id))
    }

    /// True for a child pair of this version.
    pub fn knows_child(&self, spi_in: Spi) -> bool {
        self.children.contains_key(&spi_in)
    }

    /// True for an IKE SA of this version.
    pub fn knows_sa(&self, id: &IkeSaId) -> bool {
        self.by_id(id).is_some()
    }

    /// True when there is an IKE SA of this version with the peer.
    pub fn knows_peer(&self, peer: IpAddr) -> bool {
        self.sas.values().any(|sa| sa.peer.ip() == peer && sa.up().is_some())
    }

    /// The deadline of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(timer) = self.timers.pop(now) else { break };
            match timer {
                Timer::HalfOpen(h) => self.init_failed(h, "half-open for too long", now),
                Timer::Init(h) => self.init_timeout(h, now),
                Timer::Request(h) => self.request_timeout(h, now),
                Timer::Soft(h) => self.ike_soft(h, now),
                Timer::Hard(h) => self.close_ike(h, "lifetime ended", now),
                Timer::Linger(h) => self.close_ike(h, "replaced", now),
                Timer::Dpd(h) => self.dpd_timeout(h, now),
                Timer::Keepalive(h) => self.keepalive(h, now),
                Timer::Fragments(h) => self.drop_fragments(h),
                Timer::Again(h) => self.run_tasks(h, now),
                Timer::ChildSwitch(spi) => self.switch_child(spi, now),
                Timer::ChildGrace(spi) => self.remove_child(spi, "replaced", true, now),
                Timer::ChildRetry(spi) => self.rekey_child(spi, now),
            }
        }
        self.flush(now);
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next command for the kernel.
    pub fn poll_command(&mut self) -> Option<IkeCommand> {
        self.commands.pop_front()
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.events.pop_front()
    }

    /// Next job. Its exchange may have ended meanwhile; such jobs are skipped here.
    pub fn poll_job(&mut self) -> Option<Job> {
        while let Some(job) = self.jobs.pop_front() {
            if self.job_targets.contains_key(&job.token) {
                return Some(job);
            }
        }
        None
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.reason()))
    }

    /// One row for each IKE SA.
    pub fn view(&self, now: Instant) -> Vec<IsakmpView> {
        let row = |sa: &Sa| {
            let (state, remaining_s, children) = match &sa.stage {
                Stage::Up(up) => {
                    let children = up.children.iter().copied().collect();
                    (IsakmpState::READY, up.hard.saturating_duration_since(now).as_secs(), children)
                }
                Stage::Init(_) => (IsakmpState::IN_NEG, 0, Vec::new()),
            };
            IsakmpView {
                id: sa.id,
                version: IkeVersion::V2,
                local: sa.local.ip(),
                peer: sa.peer.ip(),
                state,
                initiator: sa.initiator,
                dormant: !self.active,
                remaining_s,
                children,
            }
        };
        self.sas.values().map(row).collect()
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

    /// Sends one IKE message; on port 4500 behind the marker.
    pub(super) fn transmit(&mut self, from: SocketAddr, to: SocketAddr, message: Vec<u8>) {
        if self.active {
            let payload = if from.port() == NAT_T_PORT { [&NON_ESP_MARKER[..], &message].concat() } else { message };
            self.transmits.push_back(Transmit { from, to, payload });
        }
    }

    /// Sends the packets of one message along the path of an SA.
    pub(super) fn transmit_all(&mut self, handle: Handle, packets: &[Vec<u8>]) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (local, peer) = (sa.local, sa.peer);
        for packet in packets {
            self.transmit(local, peer, packet.clone());
        }
    }

    pub(super) fn push_job(&mut self, target: JobTarget, mut job: Job) {
        job.token = self.next_token;
        self.next_token += 1;
        self.job_targets.insert(job.token, target);
        match target {
            // These belong to authenticated peers: they go before strangers.
            JobTarget::Task(_) | JobTarget::Answer(_) => self.jobs.push_front(job),
            JobTarget::Init(_) => self.jobs.push_back(job),
        }
    }

    pub(super) fn drop_jobs(&mut self, target: JobTarget) {
        self.job_targets.retain(|_, t| *t != target);
        let targets = &self.job_targets;
        self.jobs.retain(|j| targets.contains_key(&j.token));
    }

    pub(super) fn drop_all_jobs(&mut self) {
        self.jobs.clear();
        self.job_targets.clear();
    }

    pub(super) fn new_handle(&mut self) -> Handle {
        self.next_handle += 1;
        self.next_handle
    }

    pub(super) fn random_bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = vec![0; n];
        self.rng.fill(&mut out);
        out
    }

    /// An SPI of an IKE SA that nobody uses.
    pub(super) fn new_ike_spi(&mut self) -> [u8; 8] {
        loop {
            let mut spi = [0; 8];
            self.rng.fill(&mut spi);
            if spi != [0; 8] && !self.by_spi.contains_key(&spi) {
                return spi;
            }
        }
    }

    /// A duration between zero and `max`.
    pub(super) fn jitter(&mut self, max: Duration) -> Duration {
        max / 1000 * (self.rng.u32() % 1000)
    }

    /// The IKE SA to use with a peer for an entry: the newest that is in use and of its profile; of two that crossed the one that the
    /// higher address began, so that both ends use the same.
    pub(super) fn primary(&self, pair: PairKey, profile: &str) -> Option<Handle> {
        let usable = |h: &&Handle| {
            let up = self.sas.get(h).and_then(Sa::up);
            up.is_some_and(|u| u.fate == super::sa::Fate::Live && u.profile.name == profile)
        };
        let mut newest_first = self.pairs.get(&pair)?.sas.iter().rev().filter(usable).copied();
        let (first, second) = (newest_first.next()?, newest_first.next());
        let begun = |h: Handle| self.sas.get(&h).and_then(|sa| Some((sa.initiator, sa.up()?.up_at)));
        let (Some((mine, at)), Some((other, before))) = (begun(first), second.and_then(begun)) else { return Some(first) };
        let crossed = mine != other && at.saturating_duration_since(before) < super::ike::CROSSING;
        let we_are_higher = pair.0 > pair.1;
        if crossed && mine != we_are_higher { second } else { Some(first) }
    }

    /// Name of the profile of an entry.
    pub(super) fn profile_name(config: &IkeConfig, pair: PairKey, map: &str, seq: u32) -> Option<String> {
        entries_of(config, pair).find(|(_, e, _)| e.map == map && e.seq == seq).map(|(_, _, p)| p.name.clone())
    }

    /// Emits the mirrored state of every IKE SA that changed, the youngest first: a pair that moved to it is never without one.
    pub(super) fn flush(&mut self, now: Instant) {
        for handle in std::mem::take(&mut self.dirty).into_iter().rev() {
            if let Some(record) = self.sas.get(&handle).and_then(|sa| self.encode(handle, sa, now)) {
                self.events.push_back(IkeEvent::Sync(record));
            }
        }
    }
}
