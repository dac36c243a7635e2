//! Both versions of IKE behind one set of calls: which version a datagram, a record, a request belongs to.

use super::api::{Acquire, IkeCommand, IkeEvent, IkeRecord, IkeRequest, IkeSaDetail, IsakmpView, SpiSource, Transmit};
use super::job::{Job, JobDone};
use super::policy::{IkeConfig, MapEntry};
use super::{v1, v2};
use crate::id::{IkeSaId, IkeVersion, Spi};
use crate::rng::Random;
use crate::sad::{ChildSa, ChildStage};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// UDP port of IKE.
pub(super) const IKE_PORT: u16 = 500;
/// UDP port of NAT traversal: IKE there begins with a marker (RFC 3948 2.2).
pub(super) const NAT_T_PORT: u16 = 4500;
/// Four zero bytes where ESP has its SPI.
pub(super) const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Offset of the version byte in the header of both versions (RFC 2408 3.1, RFC 7296 3.1).
const VERSION_AT: usize = 17;

/// One source of randomness for both versions.
struct SharedRandom(Arc<Mutex<Box<dyn Random>>>);

impl Random for SharedRandom {
    fn fill(&mut self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
    }
}

/// One source of SPIs for both versions.
struct SharedSpis(Arc<Mutex<Box<dyn SpiSource>>>);

impl SpiSource for SharedSpis {
    fn allocate(&mut self, rng: &mut dyn Random) -> Option<Spi> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).allocate(rng)
    }
}

/// IKE for all peers of one gateway. Starts dormant: [`Engine::set_active`] lets it speak.
///
/// The caller drains commands, then events, then transmits after every input, in that order: an `Install…` command or a `Sync` event
/// belongs before the datagram that follows from it.
pub struct Engine {
    config: Arc<IkeConfig>,
    v1: v1::Engine,
    v2: v2::Engine,
    active: bool,
}

impl Engine {
    /// An engine without SAs, dormant.
    pub fn new(config: Arc<IkeConfig>, rng: Box<dyn Random>, spis: Box<dyn SpiSource>, now: Instant) -> Self {
        let rng = Arc::new(Mutex::new(rng));
        let spis = Arc::new(Mutex::new(spis));
        let random = || Box::new(SharedRandom(rng.clone()));
        let source = || Box::new(SharedSpis(spis.clone()));
        Self {
            v1: v1::Engine::new(config.clone(), random(), source(), now),
            v2: v2::Engine::new(config.clone(), random(), source(), now),
            config,
            active: false,
        }
    }

    /// Takes a new configuration. SAs are kept; exchanges under way end with the old one.
    pub fn reload(&mut self, config: Arc<IkeConfig>, now: Instant) {
        self.config = config.clone();
        self.v1.reload(config.clone(), now);
        self.v2.reload(config, now);
    }

    /// Tells the wall clock (Unix seconds), for the validity of certificates.
    pub fn set_wall(&mut self, unix_s: u64, now: Instant) {
        self.v1.set_wall(unix_s, now);
        self.v2.set_wall(unix_s, now);
    }

    /// Lets the engine speak, or makes it mute: then it drops half-open exchanges, refuses datagrams, and keeps established state.
    pub fn set_active(&mut self, active: bool, now: Instant) {
        self.active = active;
        self.v1.set_active(active, now);
        self.v2.set_active(active, now);
    }

    /// A UDP datagram from port 500 or 4500.
    pub fn handle_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        let message = if to.port() == NAT_T_PORT { bytes.strip_prefix(&NON_ESP_MARKER).unwrap_or(bytes) } else { bytes };
        // Version 1 answers for everything that names no known version.
        match message.get(VERSION_AT).map(|v| v >> 4) {
            Some(2) => self.v2.handle_datagram(from, to, bytes, now),
            _ => self.v1.handle_datagram(from, to, bytes, now),
        }
    }

    /// A job has run.
    pub fn handle_job(&mut self, done: JobDone, now: Instant) {
        match done.version {
            IkeVersion::V1 => self.v1.handle_job(done, now),
            IkeVersion::V2 => self.v2.handle_job(done, now),
        }
    }

    fn entry(&self, map: &str, seq: u32) -> Option<&MapEntry> {
        self.config.entries.iter().find(|e| e.map == map && e.seq == seq)
    }

    /// The kernel wants SAs for a packet of this flow.
    pub fn handle_acquire(&mut self, acquire: Acquire, map: &str, seq: u32, ace: u32, now: Instant) {
        if self.entry(map, seq).is_some_and(|e| e.ikev2.is_some()) {
            self.v2.handle_acquire(acquire, map, seq, ace, now);
        } else {
            self.v1.handle_acquire(acquire, map, seq, ace, now);
        }
        self.fall_back(now);
    }

    /// Flows whose peer does not speak version 2 and may speak version 1.
    fn fall_back(&mut self, now: Instant) {
        while let Some(f) = self.v2.poll_fallback() {
            self.v1.handle_acquire(f.acquire, &f.map, f.seq, f.ace, now);
        }
    }

    /// A child pair of this inbound (or outbound) SPI reached a lifetime.
    pub fn handle_expire(&mut self, spi: Spi, hard: bool, now: Instant) {
        self.v1.handle_expire(spi, hard, now);
        self.v2.handle_expire(spi, hard, now);
    }

    /// Verified packets of this pair arrived.
    pub fn handle_traffic(&mut self, spi_in: Spi, now: Instant) {
        self.v1.handle_traffic(spi_in, now);
        self.v2.handle_traffic(spi_in, now);
    }

    /// The kernel authenticated a packet of this pair, no replay, that came from elsewhere (a NAT's mapping changed): its IKE SA decides whether it
    /// follows, and moves its pairs with it. False when no IKE SA is left that could.
    pub fn handle_mapping(&mut self, spi_in: Spi, from: SocketAddr, now: Instant) -> bool {
        self.v1.handle_mapping(spi_in, from, now) || self.v2.handle_mapping(spi_in, from, now)
    }

    /// An operator's request. The error names what does not exist.
    pub fn handle_request(&mut self, request: IkeRequest, now: Instant) -> Result<(), String> {
        let to_v2 = match &request {
            IkeRequest::Initiate { map, seq } => self.entry(map, *seq).is_some_and(|e| e.ikev2.is_some()),
            IkeRequest::RekeyChild(spi) => self.v2.knows_child(*spi),
            IkeRequest::RekeyIsakmp(id) => self.v2.knows_sa(id),
            IkeRequest::ProbePeer(peer) => self.v2.knows_peer(*peer),
            IkeRequest::Clear(_) => {
                self.v1.handle_request(request.clone(), now)?;
                true
            }
        };
        if to_v2 { self.v2.handle_request(request, now) } else { self.v1.handle_request(request, now) }
    }

    /// The deadline of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.v1.handle_timeout(now);
        self.v2.handle_timeout(now);
        self.fall_back(now);
    }

    /// Next datagram to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.v1.poll_transmit().or_else(|| self.v2.poll_transmit())
    }

    /// Next command for the kernel.
    #[must_use]
    pub fn poll_command(&mut self) -> Option<IkeCommand> {
        self.v1.poll_command().or_else(|| self.v2.poll_command())
    }

    /// Next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.v1.poll_event().or_else(|| self.v2.poll_event())
    }

    /// Next job. Its exchange may have ended meanwhile; such jobs are skipped here.
    #[must_use]
    pub fn poll_job(&mut self) -> Option<Job> {
        let tagged = |version| move |job| Job { version, ..job };
        self.v1.poll_job().map(tagged(IkeVersion::V1)).or_else(|| self.v2.poll_job().map(tagged(IkeVersion::V2)))
    }

    /// When [`Self::handle_timeout`] is due, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.v1.poll_timeout().into_iter().chain(self.v2.poll_timeout()).min_by_key(|(at, _)| *at)
    }

    /// One row for each ISAKMP SA and IKE SA.
    pub fn view(&self, now: Instant) -> Vec<IsakmpView> {
        let mut rows = self.v1.view(now);
        rows.extend(self.v2.view(now));
        rows
    }

    /// More about an established IKE SA of version 2.
    pub fn detail(&self, id: &IkeSaId, now: Instant) -> Option<IkeSaDetail> {
        self.v2.detail(id, now)
    }

    /// Mirrors one record of the active node (or of our own earlier life).
    pub fn import(&mut self, record: &IkeRecord, now: Instant) -> Result<(), String> {
        match record {
            IkeRecord::Delete { id } if self.v2.knows_sa(id) => self.v2.import(record, now),
            IkeRecord::Upsert { body, .. } if v2::is_record(body) => self.v2.import(record, now),
            IkeRecord::Delete { .. } | IkeRecord::Upsert { .. } => self.v1.import(record, now),
        }
    }

    /// Attaches a mirrored child pair in use to its peer.
    pub fn import_child(&mut self, child: &ChildSa, age: Duration, now: Instant) -> Result<(), String> {
        self.import_child_stage(child, ChildStage::Live, age, now)
    }

    /// Like [`Self::import_child`], for a pair of any stage. An inbound half belongs to its exchange, which comes with the record of
    /// the SA above it; a retired pair carries no flow.
    pub fn import_child_stage(&mut self, child: &ChildSa, stage: ChildStage, age: Duration, now: Instant) -> Result<(), String> {
        match child.version {
            IkeVersion::V1 => self.v1.import_child_stage(child, stage, age, now),
            IkeVersion::V2 => self.v2.import_child_stage(child, stage, age, now),
        }
    }

    /// Forgets a child pair that the other node removed.
    pub fn forget_child(&mut self, spi_in: Spi) {
        self.v1.forget_child(spi_in);
        self.v2.forget_child(spi_in);
    }

    /// All established SAs, as records to mirror.
    pub fn export(&self, now: Instant) -> Vec<IkeRecord> {
        let mut records = self.v1.export(now);
        records.extend(self.v2.export(now));
        records
    }

    /// Forgets all mirrored state before a snapshot. An active engine owns its state and keeps it.
    pub fn clear_imported(&mut self) {
        self.v1.clear_imported();
        self.v2.clear_imported();
    }
}
