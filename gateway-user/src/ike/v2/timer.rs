//! What deadlines are for.

use super::sa::Handle;
use crate::id::Spi;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Timer {
    /// An IKE SA that was not authenticated in time.
    HalfOpen(Handle),
    /// Send the last request of IKE_SA_INIT or IKE_AUTH again.
    Init(Handle),
    /// Send the request that waits for its answer again.
    Request(Handle),
    /// Rekey an IKE SA.
    Soft(Handle),
    /// End of an IKE SA's life.
    Hard(Handle),
    /// A replaced IKE SA that the peer should have deleted.
    Linger(Handle),
    /// Look whether the peer is alive.
    Dpd(Handle),
    /// Keep the mapping of a NAT alive.
    Keepalive(Handle),
    /// Fragments that did not come together.
    Fragments(Handle),
    /// Try a request that the peer could not serve again.
    Again(Handle),
    /// Start to send on a pair that the peer should have taken into use.
    ChildSwitch(Spi),
    /// Delete a replaced child pair.
    ChildGrace(Spi),
    /// Try the rekey of a child pair again.
    ChildRetry(Spi),
}

impl Timer {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::HalfOpen(_) => "half-open age",
            Self::Init(_) => "first exchanges' retransmission",
            Self::Request(_) => "request retransmission",
            Self::Soft(_) => "IKE SA rekey",
            Self::Hard(_) => "IKE SA lifetime",
            Self::Linger(_) => "replaced IKE SA",
            Self::Dpd(_) => "dead peer detection",
            Self::Keepalive(_) => "NAT keepalive",
            Self::Fragments(_) => "reassembly",
            Self::Again(_) => "request retry",
            Self::ChildSwitch(_) => "child switch",
            Self::ChildGrace(_) => "child grace",
            Self::ChildRetry(_) => "child rekey retry",
        }
    }
}
