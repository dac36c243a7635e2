//! What we ask of a peer under an IKE SA, and what we compute for its requests.

use super::message::Exchange;
use super::proposal::{EspChoice, IkeChoice};
use super::sa::{Handle, PairKey};
use crate::crypto::{DhGroup, Secret};
use crate::id::Spi;
use crate::ike::api::Acquire;
use crate::ike::policy::{Flow, IkeConfig, MapEntry};
use crate::sad::Mode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A flow that waits for a child pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Want {
    pub(super) map: String,
    pub(super) seq: u32,
    pub(super) ace: u32,
    /// The pair it replaces.
    pub(super) replaces: Option<Spi>,
    /// What the kernel asked for, for a peer that turns out to speak version 1.
    pub(super) acquire: Option<Acquire>,
}

impl Want {
    /// True for the same flow.
    pub(super) fn same(&self, other: &Self) -> bool {
        (&self.map, self.seq, self.ace) == (&other.map, other.seq, other.ace)
    }
}

/// What is to be requested.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Task {
    /// A child pair, or a new one in place of another.
    Child(Want),
    /// A new IKE SA in place of this one.
    RekeyIke,
    /// Delete these pairs, which are out of our tables already.
    DeleteChildren(Vec<Spi>),
    /// Delete the IKE SA.
    DeleteIke,
    /// Ask whether the peer lives.
    Liveness,
}

/// A child pair that we are asking for.
pub(super) struct ChildTask {
    pub(super) want: Want,
    /// Configuration and index of the entry as they were when the exchange began.
    pub(super) config: Arc<IkeConfig>,
    pub(super) entry: usize,
    pub(super) flow: Flow,
    pub(super) mode: Mode,
    pub(super) spi_in: Spi,
    pub(super) ni: Vec<u8>,
    pub(super) group: Option<DhGroup>,
    /// Private value of the key exchange.
    pub(super) secret: Secret,
    pub(super) public: Vec<u8>,
    /// Known after the answer, while the secret is computed.
    pub(super) agreed: Option<ChildAgreed>,
    /// The pair that the peer made in place of the same one, and the lower nonce of its exchange.
    pub(super) rival: Option<(Spi, Vec<u8>)>,
    /// The pair it replaces was deleted meanwhile.
    pub(super) orphaned: bool,
    /// Pairs that the peer deleted meanwhile and that we do not know: the one that this makes may be among them.
    pub(super) doomed: Vec<Spi>,
}

impl ChildTask {
    pub(super) fn entry(&self) -> Option<&MapEntry> {
        self.config.entries.get(self.entry)
    }
}

/// What both ends agreed on for a child pair.
#[derive(Clone, Debug)]
pub(super) struct ChildAgreed {
    pub(super) choice: EspChoice,
    pub(super) mode: Mode,
    pub(super) local: crate::sad::Selector,
    pub(super) remote: crate::sad::Selector,
    pub(super) nr: Vec<u8>,
}

/// An IKE SA that we are asking for in place of another.
pub(super) struct RekeyTask {
    pub(super) spi: [u8; 8],
    pub(super) ni: Vec<u8>,
    pub(super) group: DhGroup,
    /// Private value of the key exchange.
    pub(super) secret: Secret,
    pub(super) public: Vec<u8>,
    /// The responder named another group once.
    pub(super) regrouped: bool,
    /// Known after the answer: what was agreed, the peer's nonce.
    pub(super) agreed: Option<(IkeChoice, Vec<u8>)>,
}

/// What our request is about.
pub(super) enum What {
    Child(Box<ChildTask>),
    RekeyIke(Box<RekeyTask>),
    DeleteChildren(Vec<Spi>),
    DeleteIke,
    Liveness,
    /// A pair that another node asked for and that is not configured here: whatever comes of it is deleted.
    Abandoned(Spi),
}

impl What {
    pub(super) const fn exchange(&self) -> Exchange {
        match self {
            Self::Child(_) | Self::RekeyIke(_) | Self::Abandoned(_) => Exchange::CreateChildSa,
            Self::DeleteChildren(_) | Self::DeleteIke | Self::Liveness => Exchange::Informational,
        }
    }
}

/// Our request under way.
pub(super) struct Current {
    pub(super) what: What,
    pub(super) phase: Phase,
}

impl Current {
    /// The request as it was sent.
    pub(super) fn sent(&self) -> Option<&Sent> {
        match &self.phase {
            Phase::Prepare => None,
            Phase::Sent(sent) | Phase::Finish(sent) => Some(sent),
        }
    }
}

/// Where our request is.
pub(super) enum Phase {
    /// A public value is being computed; nothing was sent.
    Prepare,
    /// Sent, not answered.
    Sent(Sent),
    /// Answered; the shared secret is being computed. For the standby it is as if the answer had not come.
    Finish(Sent),
}

/// A request as it was sent.
pub(super) struct Sent {
    pub(super) message_id: u32,
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) sends: u32,
    /// Time to the first repetition.
    pub(super) first: Duration,
    /// Whether each repetition waits twice as long as the one before.
    pub(super) doubles: bool,
    pub(super) tries: u32,
    pub(super) sent_at: Instant,
}

/// A request of the peer whose answer waits for a key exchange.
pub(super) enum Answering {
    Child(Box<ChildAnswer>),
    RekeyIke(Box<RekeyAnswer>),
}

/// A child pair that the peer asks for.
pub(super) struct ChildAnswer {
    pub(super) config: Arc<IkeConfig>,
    pub(super) entry: usize,
    pub(super) ace: u32,
    pub(super) agreed: ChildAgreed,
    pub(super) ni: Vec<u8>,
    pub(super) replaces: Option<Spi>,
    pub(super) narrowed: bool,
}

/// An IKE SA that the peer asks for in place of another.
pub(super) struct RekeyAnswer {
    pub(super) choice: IkeChoice,
    pub(super) ni: Vec<u8>,
}

/// Whose result a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobTarget {
    /// The first exchanges of an SA.
    Init(Handle),
    /// Our own request under an SA.
    Task(Handle),
    /// The answer to the peer's request under an SA.
    Answer(Handle),
}

/// A traffic flow with a peer: what two pairs have in common when one replaces the other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct FlowKey {
    pub(super) pair: PairKey,
    pub(super) map: String,
    pub(super) seq: u32,
    pub(super) ace: u32,
    pub(super) local: crate::sad::Selector,
    pub(super) remote: crate::sad::Selector,
}
