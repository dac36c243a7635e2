//! Virtual time: nanoseconds since the world began, shared by everybody in it.

use gateway_user::daemon::clock::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the world began.
pub type Ns = u64;
/// One microsecond.
pub const US: Ns = 1_000;
/// One millisecond.
pub const MS: Ns = 1_000_000;
/// One second.
pub const SEC: Ns = 1_000_000_000;

/// The world's time. Clones share it.
#[derive(Clone, Debug)]
pub struct Time {
    base: Instant,
    now: Arc<AtomicU64>,
}

impl Default for Time {
    fn default() -> Self {
        Self::new()
    }
}

impl Time {
    /// Starts at zero.
    pub fn new() -> Self {
        // A day ahead: SAs may be older than the machine that runs the test has been up.
        Self { base: Instant::now() + Duration::from_secs(86_400), now: Arc::new(AtomicU64::new(0)) }
    }

    /// Now.
    pub fn now(&self) -> Ns {
        self.now.load(Ordering::Relaxed)
    }

    /// Goes forward.
    pub fn set(&self, now: Ns) {
        debug_assert!(now >= self.now());
        self.now.store(now, Ordering::Relaxed);
    }

    /// As the product's code wants it.
    pub fn instant(&self, at: Ns) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    /// Back from the product's; times before the world count as zero.
    pub fn ns(&self, at: Instant) -> Ns {
        at.saturating_duration_since(self.base).as_nanos() as Ns
    }
}

/// The clock of one node: its CLOCK_MONOTONIC began at its own moment.
pub struct NodeClock {
    time: Time,
    offset: Ns,
}

impl NodeClock {
    /// A node whose CLOCK_MONOTONIC showed `offset` when the world began.
    pub fn new(time: Time, offset: Ns) -> Self {
        Self { time, offset }
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        self.time.instant(self.time.now())
    }

    fn monotonic_ns(&self, at: Instant) -> u64 {
        self.time.ns(at) + self.offset
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_nanos(self.time.now())
    }
}
