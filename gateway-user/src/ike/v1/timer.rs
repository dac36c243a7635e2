//! One table of deadlines, each with its reason.

use super::{Handle, PairKey};
use crate::id::Spi;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

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

/// Deadlines in order; at most one for each [`Timer`].
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    armed: HashMap<Timer, Instant>,
}

impl Timers {
    /// Arms or moves a deadline.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(old) = self.armed.insert(timer, at) {
            self.queue.remove(&(old, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Disarms.
    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(old) = self.armed.remove(&timer) {
            self.queue.remove(&(old, timer));
        }
    }

    /// Disarms everything.
    pub(super) fn clear_all(&mut self) {
        self.queue.clear();
        self.armed.clear();
    }

    /// True when armed.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.armed.contains_key(&timer)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.queue.first().copied()
    }

    /// Takes the earliest deadline that has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = self.next()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moves_and_pops_in_order() {
        let t0 = Instant::now();
        let s = Duration::from_secs(1);
        let mut t = Timers::default();
        t.set(Timer::Soft(1), t0 + 3 * s);
        t.set(Timer::Hard(1), t0 + 2 * s);
        t.set(Timer::Soft(1), t0 + s);
        assert_eq!(t.pop(t0), None);
        assert_eq!(t.pop(t0 + 5 * s), Some(Timer::Soft(1)));
        assert!(t.is_set(Timer::Hard(1)) && !t.is_set(Timer::Soft(1)));
        t.clear(Timer::Hard(1));
        assert_eq!(t.pop(t0 + 5 * s), None);
        assert!(t.next().is_none());
    }
}
