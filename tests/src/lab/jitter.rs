//! The lab's own jitter: a bare timer that does nothing but note how late it was woken.

use super::sys;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Period of the timer.
const PERIOD_NS: u64 = 1_000_000;

/// A running bare timer.
pub struct Jitter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

/// One wake-up.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When (wall clock, ns).
    pub at_ns: u64,
    /// How late, ns.
    pub late_ns: u64,
}

/// What the timer saw.
#[derive(Clone, Debug, Default)]
pub struct Lateness(Vec<Sample>);

impl Jitter {
    /// Starts the timer.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::with_capacity(1 << 18);
            let mut next = sys::mono_ns();
            while !flag.load(Ordering::Relaxed) {
                next += PERIOD_NS;
                sys::sleep_until_mono(next);
                let late_ns = sys::mono_ns().saturating_sub(next);
                samples.push(Sample { at_ns: sys::now_ns(), late_ns });
                if late_ns > PERIOD_NS {
                    next = sys::mono_ns();
                }
            }
            samples
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops it.
    pub fn finish(mut self) -> Lateness {
        self.stop.store(true, Ordering::Relaxed);
        Lateness(self.thread.take().and_then(|t| t.join().ok()).unwrap_or_default())
    }
}

impl Lateness {
    /// Lateness in ms that a share of `permille` thousandths of the wake-ups did not exceed.
    pub fn quantile_ms(&self, permille: usize) -> f64 {
        let mut late: Vec<u64> = self.0.iter().map(|s| s.late_ns).collect();
        late.sort_unstable();
        let index = (late.len() * permille / 1000).min(late.len().saturating_sub(1));
        late.get(index).map_or(0.0, |ns| *ns as f64 / 1e6)
    }

    /// Time in ms between two wall clock times during which the timer was due and did not run.
    pub fn stalled_ms(&self, from_ns: u64, to_ns: u64) -> f64 {
        let waited = |s: &Sample| {
            let (begin, end) = ((s.at_ns - s.late_ns.min(s.at_ns)).max(from_ns), s.at_ns.min(to_ns));
            end.saturating_sub(begin)
        };
        self.0.iter().filter(|s| s.late_ns > PERIOD_NS).map(waited).sum::<u64>() as f64 / 1e6
    }

    /// Worst lateness in ms between two wall clock times.
    pub fn worst_ms(&self, from_ns: u64, to_ns: u64) -> f64 {
        self.0.iter().filter(|s| s.at_ns >= from_ns && s.at_ns.saturating_sub(s.late_ns) <= to_ns).map(|s| s.late_ns).max().unwrap_or(0)
            as f64
            / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_lateness_is_taken_from_the_window_alone() {
        let lateness = Lateness(vec![
            Sample { at_ns: 1_000, late_ns: 9_000_000 },
            Sample { at_ns: 50_000_000, late_ns: 2_000_000 },
            Sample { at_ns: 90_000_000, late_ns: 1_000_000 },
        ]);
        assert_eq!(lateness.worst_ms(20_000_000, 95_000_000), 2.0);
        assert_eq!(lateness.worst_ms(60_000_000, 95_000_000), 1.0);
        assert_eq!(lateness.quantile_ms(1000), 9.0);
    }

    #[test]
    fn stalls_count_as_far_as_they_reach_into_the_window() {
        let lateness = Lateness(vec![
            Sample { at_ns: 30_000_000, late_ns: 20_000_000 },
            Sample { at_ns: 31_000_000, late_ns: 100_000 },
            Sample { at_ns: 60_000_000, late_ns: 5_000_000 },
        ]);
        assert_eq!(lateness.stalled_ms(0, 100_000_000), 25.0);
        assert_eq!(lateness.stalled_ms(25_000_000, 57_000_000), 7.0);
        assert_eq!(lateness.stalled_ms(70_000_000, 80_000_000), 0.0);
    }
}
