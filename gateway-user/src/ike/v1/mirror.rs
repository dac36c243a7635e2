//! Active and dormant, and the state that the other node mirrors.

use super::engine::Engine;
use super::{Handle, Pair, Sa};
use crate::id::Spi;
use crate::ike::api::IkeRecord;
use crate::sad::{ChildSa, ChildStage};
use std::time::{Duration, Instant};

/// Spread of probes and rekeys after this node became active.
const RESUME_JITTER: Duration = Duration::from_secs(4);

impl Engine {
    /// Lets the engine speak, or makes it mute: then it drops half-open exchanges, refuses datagrams, and keeps established state.
    pub fn set_active(&mut self, active: bool, now: Instant) {
        if self.active == active {
            return;
        }
        self.active = active;
        self.timers.clear_all();
        if !active {
            self.go_dormant();
            return;
        }
        let handles: Vec<Handle> = self.sas.keys().copied().collect();
        for handle in handles {
            let jitter = self.jitter(RESUME_JITTER);
            self.arm_lifetime(handle, now + jitter);
            self.resume_quicks(handle, now);
        }
        for pair in self.pair_keys() {
            if let Some(p) = self.pairs.get_mut(&pair) {
                p.heard = now;
                p.probe = None;
            }
            self.arm_keepalive(pair, now);
            let jitter = self.jitter(RESUME_JITTER);
            self.arm_dpd(pair, now + jitter);
        }
        self.resume_children(now);
        self.flush(now);
    }

    fn go_dormant(&mut self) {
        let half: Vec<Handle> = self.sas.iter().filter(|(_, s)| s.up().is_none()).map(|(h, _)| *h).collect();
        for handle in half {
            self.forget_sa(handle);
        }
        let quicks: Vec<_> = self.quicks.keys().copied().collect();
        for (handle, message_id) in quicks {
            if let Some(q) = self.quicks.remove(&(handle, message_id)) {
                self.release(&q);
            }
        }
        for pair in self.pairs.values_mut() {
            pair.starting = None;
            pair.wants.clear();
        }
        self.jobs.clear();
        self.job_targets.clear();
        self.transmits.clear();
        self.dirty.clear();
        self.fragments.clear();
        self.farewells.clear();
    }

    /// Mirrors one record of the active node (or of our own earlier life).
    pub fn import(&mut self, record: &IkeRecord, now: Instant) -> Result<(), String> {
        self.inherited = true;
        match record {
            IkeRecord::Delete { id } => {
                if let Some(&handle) = self.by_id.get(id) {
                    self.forget_sa(handle);
                }
                Ok(())
            }
            IkeRecord::Upsert { id, body } => {
                let decoded = super::decode(body, &self.config, now).map_err(|e| format!("ISAKMP SA {id}: {e}"))?;
                if decoded.sa.id != *id {
                    return Err(format!("ISAKMP SA {id}: the body is of {}", decoded.sa.id));
                }
                let known = self.by_id.get(id).copied();
                if known.is_none() && self.sas.len() >= self.config.limits.established_max {
                    return Err(format!("ISAKMP SA {id}: more than {} SAs", self.config.limits.established_max));
                }
                let handle = known.unwrap_or_else(|| self.new_handle());
                self.quicks.retain(|(h, _), _| *h != handle);
                let pair = decoded.sa.pair();
                if let Some(old) = self.sas.get(&handle).map(Sa::pair).filter(|old| *old != pair) {
                    if let Some(p) = self.pairs.get_mut(&old) {
                        p.sas.retain(|h| *h != handle);
                    }
                    self.tidy_pair(old);
                }
                self.by_id.insert(*id, handle);
                self.sas.insert(handle, decoded.sa);
                let p = self.pairs.entry(pair).or_insert_with(|| Pair::new(now));
                p.met = true;
                if !p.sas.contains(&handle) {
                    p.sas.push(handle);
                }
                for (message_id, quick) in decoded.quicks {
                    self.quicks.insert((handle, message_id), quick);
                }
                self.learn_keepalive(handle, now);
                if self.active {
                    self.arm_lifetime(handle, now);
                    self.resume_quicks(handle, now);
                    self.arm_dpd(pair, now);
                    self.flush(now);
                }
                Ok(())
            }
        }
    }

    /// Attaches a mirrored child pair to its peer, under whatever ISAKMP SA the peer has now or later. A pair in use; see
    /// [`Self::import_child_stage`] for others.
    pub fn import_child(&mut self, child: &ChildSa, age: Duration, now: Instant) -> Result<(), String> {
        self.import_child_stage(child, ChildStage::Live, age, now)
    }

    /// Like [`Self::import_child`], for a pair of any stage. An inbound half belongs to its quick mode, which comes with the record of
    /// the ISAKMP SA; a retired pair carries no flow.
    pub fn import_child_stage(&mut self, child: &ChildSa, stage: ChildStage, age: Duration, now: Instant) -> Result<(), String> {
        self.inherited = true;
        let at = now.checked_sub(age).unwrap_or(now);
        match stage {
            ChildStage::Inbound => {
                self.unlink_child(child.spi_in);
                Ok(())
            }
            // Negotiated to the end: when sending starts is the kernel side's business.
            ChildStage::Live | ChildStage::Pending => self.adopt_child(child, false, at, now),
            ChildStage::Retired => self.adopt_child(child, true, at, now),
        }
    }

    /// Forgets a child pair that the other node removed.
    pub fn forget_child(&mut self, spi_in: Spi) {
        self.unlink_child(spi_in);
    }

    /// All established ISAKMP SAs, as records to mirror.
    pub fn export(&self, now: Instant) -> Vec<IkeRecord> {
        self.sas.iter().filter_map(|(h, sa)| self.encode(*h, sa, now)).collect()
    }

    /// Forgets all mirrored state before a snapshot. An active engine owns its state and keeps it.
    pub fn clear_imported(&mut self) {
        if self.active {
            return;
        }
        self.sas.clear();
        self.by_id.clear();
        self.by_first.clear();
        self.quicks.clear();
        self.pairs.clear();
        self.children.clear();
        self.outbound.clear();
        self.flows.clear();
        self.homes.clear();
        self.half_open.clear();
        self.half_open_total = 0;
    }
}
