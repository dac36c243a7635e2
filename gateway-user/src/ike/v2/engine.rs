//! The engine: tables, demultiplexing, the calls of the daemon.

use crate::id::{IkeSaId, Spi};
use crate::ike::api::{Acquire, IkeCommand, IkeEvent, IkeRecord, IkeRequest, IsakmpView, SpiSource, Transmit};
use crate::ike::job::{Job, JobDone};
use crate::ike::policy::IkeConfig;
use crate::rng::Random;
use crate::sad::{ChildSa, ChildStage};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    config: Arc<IkeConfig>,
    active: bool,
    events: VecDeque<IkeEvent>,
}

impl Engine {
    /// An engine without SAs, dormant.
    pub fn new(config: Arc<IkeConfig>, _rng: Box<dyn Random>, _spis: Box<dyn SpiSource>, _now: Instant) -> Self {
        Self { config, active: false, events: VecDeque::new() }
    }

    /// Takes a new configuration. SAs are kept; exchanges under way end with the old one.
    pub fn reload(&mut self, config: Arc<IkeConfig>, _now: Instant) {
        self.config = config;
    }

    /// Tells the wall clock (Unix seconds), for the validity of certificates.
    pub fn set_wall(&mut self, _unix_s: u64, _now: Instant) {}

    /// Lets the engine speak, or makes it mute.
    pub fn set_active(&mut self, active: bool, _now: Instant) {
        self.active = active;
    }

    /// A UDP datagram from port 500 or 4500 (there with the marker).
    pub fn handle_datagram(&mut self, from: SocketAddr, _to: SocketAddr, _bytes: &[u8], _now: Instant) {
        let reason = if self.active { "version" } else { "dormant" };
        self.events.push_back(IkeEvent::Refused { from, reason, detail: String::new() });
    }

    /// A job has run.
    pub fn handle_job(&mut self, _done: JobDone, _now: Instant) {}

    /// The kernel wants SAs for a packet of this flow.
    pub fn handle_acquire(&mut self, _acquire: Acquire, _map: &str, _seq: u32, _ace: u32, _now: Instant) {}

    /// Next flow that version 1 should try.
    pub fn poll_fallback(&mut self) -> Option<Fallback> {
        None
    }

    /// A child pair of this inbound (or outbound) SPI reached a lifetime.
    pub fn handle_expire(&mut self, _spi: Spi, _hard: bool, _now: Instant) {}

    /// Verified packets of this pair arrived.
    pub fn handle_traffic(&mut self, _spi_in: Spi, _now: Instant) {}

    /// An operator's request. The error names what does not exist.
    pub fn handle_request(&mut self, _request: IkeRequest, _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// True for a child pair of this version.
    pub fn knows_child(&self, _spi_in: Spi) -> bool {
        false
    }

    /// True for an IKE SA of this version.
    pub fn knows_sa(&self, _id: &IkeSaId) -> bool {
        false
    }

    /// True when there is an IKE SA of this version with the peer.
    pub fn knows_peer(&self, _peer: IpAddr) -> bool {
        false
    }

    /// The deadline of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// Next command for the kernel.
    pub fn poll_command(&mut self) -> Option<IkeCommand> {
        None
    }

    /// Next event.
    pub fn poll_event(&mut self) -> Option<IkeEvent> {
        self.events.pop_front()
    }

    /// Next job.
    pub fn poll_job(&mut self) -> Option<Job> {
        None
    }

    /// When [`Self::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }

    /// One row for each IKE SA.
    pub fn view(&self, _now: Instant) -> Vec<IsakmpView> {
        Vec::new()
    }

    /// Mirrors one record of the active node.
    pub fn import(&mut self, _record: &IkeRecord, _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// Attaches a mirrored child pair.
    pub fn import_child_stage(&mut self, _child: &ChildSa, _stage: ChildStage, _age: Duration, _now: Instant) -> Result<(), String> {
        Ok(())
    }

    /// Forgets a child pair that the other node removed.
    pub fn forget_child(&mut self, _spi_in: Spi) {}

    /// All established SAs, as records to mirror.
    pub fn export(&self, _now: Instant) -> Vec<IkeRecord> {
        Vec::new()
    }

    /// Forgets all mirrored state before a snapshot.
    pub fn clear_imported(&mut self) {}
}
