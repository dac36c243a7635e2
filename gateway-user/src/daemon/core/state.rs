//! What the core remembers.

use crate::id::Spi;
use crate::ports::FlowPolicy;
use crate::sad::{ChildSa, ChildStage, Counters, Lease};
use crate::ssp::Session;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Takeovers kept for `show takeover`.
pub const TAKEOVERS_MAX: usize = 32;

/// A child pair and what this node did with it.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The pair.
    pub child: ChildSa,
    /// Halves in use.
    pub stage: ChildStage,
    /// When it was made (on the node that made it).
    pub created: Instant,
    /// Verified counters.
    pub counters: Counters,
    /// Outbound numbers.
    pub lease: Lease,
    /// Outbound half is in the kernel.
    pub out_installed: bool,
    /// Mirrored from the partner: kernel and guard hold its standby floor.
    pub dormant: bool,
    /// Counters changed since the partner was told.
    pub dirty: bool,
    /// When the partner last acknowledged counters.
    pub mirrored_at: Option<Instant>,
    /// Counters the partner acknowledged last.
    pub mirrored: Counters,
    /// When the kernel last told of another address or port of the peer.
    pub moved_at: Option<Instant>,
}

impl Pair {
    /// Age of the pair.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.created)
    }
}

/// One SSP connection.
pub struct Conn {
    /// Protocol state.
    pub session: Session,
    /// Authenticated.
    pub established: bool,
    /// The partner's hello arrived.
    pub hello: bool,
}

/// A snapshot that is being received, or is complete and not applied yet.
#[derive(Debug)]
pub struct Staging {
    /// Its number.
    pub id: u64,
    /// Epoch of the state.
    pub epoch: crate::id::Epoch,
    /// Records in order of arrival.
    pub records: Vec<(crate::ssp::Client, Vec<u8>, Vec<u8>)>,
    /// Sequence number to acknowledge once applied.
    pub ack: u64,
}

/// Kernel work that waits for the partner's acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deferred {
    /// Start sending on a pair.
    InstallOutbound(Spi),
    /// Stop sending on a pair.
    RetireOutbound(Spi),
    /// Remove a pair.
    Remove(Spi),
}

/// A rekey of ours whose new pair the peer has not used yet. IKEv1 has no answer to the last message of a quick mode: a peer that installs the
/// pair only when that message arrives would lose what is sent on it before.
#[derive(Clone, Debug)]
pub struct Switch {
    /// The new pair.
    pub spi: Spi,
    /// Sending starts at the latest now.
    pub at: Instant,
    /// Pairs that stop sending then.
    pub retire: Vec<Spi>,
}

/// A flow of the configuration.
#[derive(Clone, Debug)]
pub struct FlowRef {
    /// Crypto map name.
    pub map: String,
    /// Entry's sequence number.
    pub seq: u32,
    /// Access-list entry.
    pub ace: u32,
    /// Kernel policy.
    pub policy: FlowPolicy,
}

/// Counters of the core.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// HSRP packets refused, by reason.
    pub hsrp_refused: BTreeMap<&'static str, u64>,
    /// IKE inputs refused, by reason.
    pub ike_refused: BTreeMap<&'static str, u64>,
    /// IKE datagrams received.
    pub ike_received: u64,
    /// IKE datagrams sent.
    pub ike_sent: u64,
    /// Failed port calls, by call.
    pub port_errors: BTreeMap<&'static str, u64>,
    /// Mirrored records refused, by reason.
    pub records_refused: BTreeMap<&'static str, u64>,
    /// Takeovers by cause.
    pub takeovers: BTreeMap<&'static str, u64>,
    /// Lease requests sent.
    pub lease_requests: u64,
    /// Times an SA reached the end of its lease before the grant came.
    pub lease_stalls: u64,
    /// ISAKMP records: added or updated, deleted, requested, replied.
    pub isakmp_adds: u64,
    /// ISAKMP records deleted.
    pub isakmp_deletes: u64,
    /// ISAKMP records requested by a resync.
    pub isakmp_requests: u64,
    /// ISAKMP records received for a resync.
    pub isakmp_replies: u64,
}
