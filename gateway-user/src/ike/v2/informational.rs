//! INFORMATIONAL (RFC 7296 1.4): deletes, probes, notifications; liveness (2.4).

use super::engine::Engine;
use super::message::{Delete, Message, Outgoing};
use super::sa::{Fate, Handle, Sa};
use super::task::{Current, Task, What};
use super::timer::Timer;
use crate::id::Spi;
use std::time::Instant;

/// Unknown pairs deleted by the peer that are remembered while a pair is being made.
const DOOMED_MAX: usize = 16;

impl Engine {
    /// A request of the peer.
    pub(super) fn informational_request(&mut self, handle: Handle, m: &Message<'_>, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let peer = sa.pair.1;
        for n in m.notifies.iter().filter(|n| n.kind.is_error()) {
            self.notice(peer, format!("the peer reports {}", n.kind));
        }
        if m.deletes.iter().any(|d| matches!(d, Delete::Ike)) {
            self.answer_empty(handle, now);
            return self.remove_ike(handle, "deleted by the peer", now);
        }
        let mut ours: Vec<Spi> = Vec::new();
        for delete in &m.deletes {
            match delete {
                Delete::Esp(spis) => ours.extend(spis.iter().filter_map(|spi| self.delete_asked(handle, *spi, now))),
                Delete::Ike | Delete::Other(_) => {}
            }
        }
        let mut out = Outgoing::new();
        if !ours.is_empty() {
            out.delete_esp(&ours);
        }
        self.answer(handle, &out, now);
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        self.close_idle(pair, now);
    }

    /// The peer deletes a pair, which it names by its own inbound SPI. The SPI to name in the answer: none when our own Delete for it is on
    /// its way (RFC 7296 1.4.1).
    fn delete_asked(&mut self, handle: Handle, spi_out: Spi, now: Instant) -> Option<Spi> {
        let known = self.outbound.get(&(handle, spi_out)).copied();
        let up = self.sas.get_mut(&handle).and_then(Sa::up_mut)?;
        let Some(spi_in) = known else {
            // The answer that tells us of the pair may still be on its way.
            if let Some(Current { what: What::Child(task), .. }) = &mut up.current
                && task.doomed.len() < DOOMED_MAX
            {
                task.doomed.push(spi_out);
            }
            return None;
        };
        let crossed = up.current.as_ref().is_some_and(|c| matches!(&c.what, What::DeleteChildren(spis) if spis.contains(&spi_in)));
        // A Delete of ours that still waits is not needed any more; a rekey of ours finds its pair gone.
        for task in &mut up.tasks {
            if let Task::DeleteChildren(spis) = task {
                spis.retain(|s| *s != spi_in);
            }
        }
        up.tasks.retain(|t| !matches!(t, Task::DeleteChildren(spis) if spis.is_empty()));
        if let Some(current) = &mut up.current
            && let What::Child(task) = &mut current.what
            && task.want.replaces == Some(spi_in)
        {
            task.orphaned = true;
        }
        self.remove_child(spi_in, "deleted by the peer", false, now);
        (!crossed).then_some(spi_in)
    }

    /// Arms the timer of the liveness probe, when it is wanted.
    pub(super) fn arm_dpd(&mut self, handle: Handle, from: Instant) {
        let live = self.sas.get(&handle).and_then(Sa::up).is_some_and(|u| u.fate == Fate::Live);
        match self.config.dpd {
            Some(dpd) if self.active && live => {
                if !self.timers.is_set(Timer::Dpd(handle)) {
                    self.timers.set(Timer::Dpd(handle), from + dpd.interval);
                }
            }
            _ => self.timers.clear(Timer::Dpd(handle)),
        }
    }

    /// Asks now whether the peer lives.
    pub(super) fn probe(&mut self, handle: Handle, now: Instant) {
        self.add_task(handle, Task::Liveness, now);
    }

    /// Nothing was heard for long enough to ask, or something was.
    pub(super) fn dpd_timeout(&mut self, handle: Handle, now: Instant) {
        let Some(dpd) = self.config.dpd else { return };
        let Some(up) = self.sas.get(&handle).and_then(Sa::up).filter(|u| u.fate == Fate::Live) else { return };
        let due = up.heard + dpd.interval;
        if due > now {
            return self.timers.set(Timer::Dpd(handle), due);
        }
        self.timers.set(Timer::Dpd(handle), now + dpd.interval);
        self.probe(handle, now);
    }
}
