//! Active and dormant, and the state that the other node mirrors.
//!
//! A pair comes in its own record, and its IKE SA mentions it in another; either may come first. What is mentioned and not there, or there
//! and not mentioned, when this node becomes active belongs to an exchange that did not end: the former is deleted at the peer, the
//! latter here (the peer repeats its request, or never heard of the pair).

use super::child::Child;
use super::engine::Engine;
use super::sa::{Fate, Handle, Sa};
use super::state::{Listed, decode};
use super::task::{Phase, Task};
use super::timer::Timer;
use crate::id::Spi;
use crate::ike::api::{IkeCommand, IkeEvent, IkeRecord};
use crate::sad::{ChildSa, ChildStage};
use std::time::{Duration, Instant};

/// Spread of probes and rekeys after this node became active.
const RESUME_JITTER: Duration = Duration::from_secs(4);
/// Spread of repeated requests after this node became active.
const REQUEST_JITTER: Duration = Duration::from_millis(500);

/// No IKE SA.
const NOBODY: Handle = 0;

impl Engine {
    /// Lets the engine speak, or makes it mute: then it drops half-open exchanges, refuses datagrams, and keeps established state.
    pub fn set_active(&mut self, active: bool, now: Instant) {
        if self.active == active {
            return;
        }
        self.active = active;
        self.timers.clear_all();
        if !active {
            return self.go_dormant();
        }
        self.settle(now);
        let handles: Vec<Handle> = self.sas.keys().copied().collect();
        for handle in handles {
            let jitter = self.jitter(RESUME_JITTER);
            self.resume(handle, jitter, now);
        }
        self.resume_children(now);
        self.flush(now);
    }

    /// Timers and requests of one SA go on.
    fn resume(&mut self, handle: Handle, jitter: Duration, now: Instant) {
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.heard = now;
            if up.fate == Fate::Closing && up.current.is_none() && up.tasks.is_empty() {
                up.tasks.push_back(Task::DeleteIke);
            }
        }
        self.arm_lifetime(handle, now + jitter);
        self.arm_dpd(handle, now + jitter);
        self.arm_keepalive(handle, now);
        let up = self.sas.get(&handle).and_then(Sa::up);
        if up.and_then(|u| u.current.as_ref()).is_some_and(|c| matches!(c.phase, Phase::Sent(_))) {
            let jitter = self.jitter(REQUEST_JITTER);
            self.timers.set(Timer::Request(handle), now + jitter);
        }
        self.run_tasks(handle, now);
    }

    /// Pairs on their way in or out go on.
    fn resume_children(&mut self, now: Instant) {
        let waiting: Vec<_> = self.children.values().map(|c| (c.spi_in, c.retired, c.inbound_only.is_some())).collect();
        for (spi, retired, inbound_only) in waiting {
            if retired {
                self.timers.set(Timer::ChildGrace(spi), now + Duration::from_secs(30));
            }
            if inbound_only {
                self.timers.set(Timer::ChildSwitch(spi), now + Duration::from_secs(1));
            }
        }
    }

    /// Brings pairs and IKE SAs together: see the head of this file.
    fn settle(&mut self, now: Instant) {
        let mut loose: Vec<Spi> = self.children.values().filter(|c| c.handle == NOBODY).map(|c| c.spi_in).collect();
        loose.sort_unstable();
        for spi in loose {
            self.drop_loose(spi);
        }
        let mut missing: Vec<(Spi, Handle)> =
            self.listed.iter().filter(|(spi, _)| !self.children.contains_key(spi)).map(|(spi, (h, _))| (*spi, *h)).collect();
        missing.sort_unstable();
        for (spi, handle) in missing {
            self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
        }
        self.listed.clear();
    }

    fn drop_loose(&mut self, spi: Spi) {
        if self.unlink_child(spi).is_some() {
            self.command(IkeCommand::RemoveChild(spi));
            self.event(IkeEvent::ChildDown { spi_in: spi, cause: "its exchange did not end".into() });
        }
    }

    fn go_dormant(&mut self) {
        let half: Vec<Handle> = self.sas.iter().filter(|(_, s)| s.up().is_none()).map(|(h, _)| *h).collect();
        for handle in half {
            self.forget_sa(handle);
        }
        let mut gone = Vec::new();
        for sa in self.sas.values_mut() {
            sa.partial = None;
            if let Some(up) = sa.up_mut() {
                (up.asked, up.answering) = (None, None);
                gone.extend(up.current.take().map(|c| c.what));
            }
        }
        for what in gone {
            self.release(&what);
        }
        for pair in self.pairs.values_mut() {
            pair.starting = None;
            pair.wants.clear();
        }
        self.drop_all_jobs();
        self.transmits.clear();
        self.fallbacks.clear();
        self.dirty.clear();
    }

    /// Mirrors one record of the active node (or of our own earlier life).
    pub fn import(&mut self, record: &IkeRecord, now: Instant) -> Result<(), String> {
        self.inherited = true;
        match record {
            IkeRecord::Delete { id } => {
                if let Some(handle) = self.by_id(id) {
                    self.unlist(handle);
                    self.forget_sa(handle);
                }
                Ok(())
            }
            IkeRecord::Upsert { id, body } => {
                let decoded = decode(body, &self.config, now).map_err(|e| format!("IKE SA {id}: {e}"))?;
                if decoded.sa.id != *id {
                    return Err(format!("IKE SA {id}: the body is of {}", decoded.sa.id));
                }
                let known = self.by_id(id);
                let taken = self.by_spi.contains_key(&decoded.sa.our_spi());
                if known.is_none() && (taken || self.sas.len() >= self.config.limits.established_max) {
                    return Err(format!("IKE SA {id}: its SPI is taken, or there are more than {}", self.config.limits.established_max));
                }
                let handle = known.unwrap_or_else(|| self.new_handle());
                self.unlist(handle);
                let pair = decoded.sa.pair;
                self.by_spi.insert(decoded.sa.our_spi(), handle);
                self.sas.insert(handle, decoded.sa);
                self.enter_pair(handle, pair);
                for listed in decoded.children {
                    self.listed.insert(listed.spi_in, (handle, listed));
                    self.attach(listed.spi_in);
                }
                if self.active {
                    self.resume(handle, Duration::ZERO, now);
                    self.flush(now);
                }
                Ok(())
            }
        }
    }

    /// Forgets which pairs an SA mentioned.
    fn unlist(&mut self, handle: Handle) {
        self.listed.retain(|_, (h, _)| *h != handle);
        let children: Vec<Spi> = self.sas.get(&handle).and_then(Sa::up).map(|u| u.children.iter().copied().collect()).unwrap_or_default();
        for spi in children {
            if let Some(mut child) = self.unlink_child(spi) {
                child.handle = NOBODY;
                self.children.insert(spi, child);
            }
        }
        self.dirty.remove(&handle);
    }

    /// Ties a pair to the SA that mentions it, when both are there.
    fn attach(&mut self, spi: Spi) {
        let Some((handle, listed)) = self.listed.get(&spi).copied() else { return };
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        let Some(mut child) = self.unlink_child(spi) else { return };
        let Listed { replaces, retired, deleting, inbound_only, .. } = listed;
        child.handle = handle;
        child.flow.pair = pair;
        (child.replaces, child.deleting) = (replaces, deleting);
        child.retired |= retired;
        // The pair's own record may be older or newer than the mention: it is whole in one of them.
        if !inbound_only || child.retired {
            child.inbound_only = None;
        }
        let carries = !child.retired && child.inbound_only.is_none();
        let flow = child.flow.clone();
        let younger = self.flows.get(&flow).and_then(|s| self.children.get(s)).is_some_and(|c| c.up_at > child.up_at);
        self.link(child);
        if carries && !younger {
            self.flows.insert(flow, spi);
        }
        if !self.active {
            self.dirty.remove(&handle);
        }
    }

    /// Attaches a mirrored child pair of any stage. A pair that only receives starts to send after the takeover; a retired one carries no flow.
    pub fn import_child_stage(&mut self, child: &ChildSa, stage: ChildStage, age: Duration, now: Instant) -> Result<(), String> {
        self.inherited = true;
        let max = self.config.limits.established_max.saturating_mul(4);
        if self.children.len() >= max && !self.children.contains_key(&child.spi_in) {
            return Err(format!("child pair {}: more than {max} pairs", child.spi_in));
        }
        let at = now.checked_sub(age).unwrap_or(now);
        let known = self.unlink_child(child.spi_in);
        let mut entry = Child::new(child, (child.local, child.peer), NOBODY, at);
        entry.retired = stage == ChildStage::Retired;
        entry.inbound_only = (stage == ChildStage::Inbound).then(|| Box::new(child.clone()));
        // A pair that is told again may have changed; its IKE SA mentioned it before.
        if let Some(old) = known.filter(|c| c.handle != NOBODY) {
            let listed = Listed {
                spi_in: old.spi_in,
                replaces: old.replaces,
                retired: old.retired,
                deleting: old.deleting,
                inbound_only: entry.inbound_only.is_some(),
            };
            self.listed.insert(old.spi_in, (old.handle, listed));
        }
        self.children.insert(child.spi_in, entry);
        self.attach(child.spi_in);
        if self.active && self.children.get(&child.spi_in).is_some_and(|c| c.handle == NOBODY) {
            self.drop_loose(child.spi_in);
        }
        Ok(())
    }

    /// Forgets a child pair that the other node removed.
    pub fn forget_child(&mut self, spi_in: Spi) {
        self.unlink_child(spi_in);
        self.dirty.clear();
    }

    /// All established SAs, as records to mirror; the youngest first.
    pub fn export(&self, now: Instant) -> Vec<IkeRecord> {
        self.sas.iter().rev().filter_map(|(h, sa)| self.encode(*h, sa, now)).collect()
    }

    /// Forgets all mirrored state before a snapshot. An active engine owns its state and keeps it.
    pub fn clear_imported(&mut self) {
        if self.active {
            return;
        }
        self.sas.clear();
        self.by_spi.clear();
        self.by_first.clear();
        self.pairs.clear();
        self.children.clear();
        self.listed.clear();
        self.outbound.clear();
        self.flows.clear();
        self.half_open.clear();
        self.half_open_total = 0;
        self.dirty.clear();
    }
}
