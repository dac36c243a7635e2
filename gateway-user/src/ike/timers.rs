//! One table of deadlines, for both versions.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// Deadlines in order; at most one for each timer `T`.
pub(super) struct Timers<T> {
    queue: BTreeSet<(Instant, T)>,
    armed: HashMap<T, Instant>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { queue: BTreeSet::new(), armed: HashMap::new() }
    }
}

impl<T: Copy + Ord + Hash> Timers<T> {
    /// Arms or moves a deadline.
    pub(super) fn set(&mut self, timer: T, at: Instant) {
        if let Some(old) = self.armed.insert(timer, at) {
            self.queue.remove(&(old, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Disarms.
    pub(super) fn clear(&mut self, timer: T) {
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
    pub(super) fn is_set(&self, timer: T) -> bool {
        self.armed.contains_key(&timer)
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<(Instant, T)> {
        self.queue.first().copied()
    }

    /// Takes the earliest deadline that has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
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
        let (soft, hard) = (("soft", 1), ("hard", 1));
        let mut t = Timers::default();
        t.set(soft, t0 + 3 * s);
        t.set(hard, t0 + 2 * s);
        t.set(soft, t0 + s);
        assert_eq!(t.pop(t0), None);
        assert_eq!(t.pop(t0 + 5 * s), Some(soft));
        assert!(t.is_set(hard) && !t.is_set(soft));
        t.clear(hard);
        assert_eq!(t.pop(t0 + 5 * s), None);
        assert!(t.next().is_none());
    }
}
