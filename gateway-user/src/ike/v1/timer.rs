//! What deadlines are for.

use super::{Handle, PairKey};
use crate::id::Spi;

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Timer {
    /// A phase 1 that did not end in time.
    HalfOpen(Handle),
    /// Forget the pieces of a message that did not become whole.
    Fragments(Handle),
    /// Send the last phase 1 message again.
    Retransmit(Handle),
    /// Rekey an ISAKMP SA.
    Soft(Handle),
    /// End of an ISAKMP SA's life.
    Hard(Handle),
    /// End of the overlap of a replaced ISAKMP SA.
    Overlap(Handle),
    /// Send the last quick mode message again, or give up.
    Quick(Handle, u32),
    /// Look whether a peer is alive.
    Dpd(PairKey),
    /// Remind our NAT of the way to a peer.
    Keepalive(PairKey),
    /// Send Deletes a second time.
    Farewells,
    /// Remove a replaced child pair.
    ChildGrace(Spi),
    /// Try the rekey of a child pair again.
    ChildRetry(Spi),
}

impl Timer {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::HalfOpen(_) => "half-open age",
            Self::Fragments(_) => "fragment age",
            Self::Retransmit(_) => "phase 1 retransmission",
            Self::Soft(_) => "ISAKMP rekey",
            Self::Hard(_) => "ISAKMP lifetime",
            Self::Overlap(_) => "ISAKMP overlap",
            Self::Quick(..) => "quick mode retransmission",
            Self::Dpd(_) => "dead peer detection",
            Self::Keepalive(_) => "NAT keepalive",
            Self::Farewells => "second Delete",
            Self::ChildGrace(_) => "child grace",
            Self::ChildRetry(_) => "child rekey retry",
        }
    }
}
