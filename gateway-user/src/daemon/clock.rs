//! Time for the core: monotonic for decisions, the kernel's nanoseconds for the data path, wall time for the operator's eyes.

use std::time::{Instant, SystemTime};

/// Where the core gets the time from; virtual in simulation.
pub trait Clock: Send {
    /// Now.
    fn now(&self) -> Instant;
    /// CLOCK_MONOTONIC in ns at `at`, as `bpf_ktime_get_ns` counts.
    fn monotonic_ns(&self, at: Instant) -> u64;
    /// Wall time now.
    fn wall(&self) -> SystemTime;
}

/// The machine's clocks.
pub struct SystemClock {
    base: Instant,
    base_ns: u64,
}

impl SystemClock {
    /// Reads both monotonic clocks at the same moment.
    pub fn new() -> std::io::Result<Self> {
        let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let base = Instant::now();
        Ok(Self { base, base_ns: t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64 })
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn monotonic_ns(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.base) {
            Some(d) => self.base_ns + d.as_nanos() as u64,
            None => self.base_ns.saturating_sub(self.base.duration_since(at).as_nanos() as u64),
        }
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
