//! Child pairs as IKE sees them: which pair carries a flow, which is on its way out.

use super::sa::{FlowKey, Pair, PairKey, Tell, Want};
use crate::id::Spi;
use crate::ike::v1::engine::Engine;
use crate::ike::v1::message::Delete;
use crate::ike::v1::timer::Timer;
use crate::ike::{IkeCommand, IkeEvent};
use crate::sad::ChildSa;
use std::time::{Duration, Instant};

/// The end that started a rekey removes the old pair after this time.
const GRACE_INITIATOR: Duration = Duration::from_secs(10);
/// The other end waits longer for the peer to do it.
const GRACE_RESPONDER: Duration = Duration::from_secs(30);
/// A failed rekey of a child pair is tried again after this time, and up to twice of it.
const CHILD_RETRY: Duration = Duration::from_secs(15);
/// An acquire for a pair younger than this was on its way when the pair came up.
const FRESH: Duration = Duration::from_secs(3);

/// A child pair, without keys.
pub(in crate::ike) struct Child {
    pub(in crate::ike) flow: FlowKey,
    pub(in crate::ike) spi_in: Spi,
    pub(in crate::ike) spi_out: Spi,
    pub(super) map: String,
    pub(super) seq: u32,
    pub(super) ace: u32,
    /// Order of its quick mode; zero for a mirrored pair.
    pub(super) order: u64,
    /// Another pair carries the flow; this one only receives until its grace ends.
    pub(in crate::ike) retired: bool,
    pub(super) up_at: Instant,
    pub(super) initiator: bool,
    /// Inside UDP.
    pub(super) encap: bool,
}

impl Child {
    fn new(child: &ChildSa, order: u64, up_at: Instant) -> Self {
        Self {
            flow: FlowKey { pair: PairKey::of_child(child), local: child.ts_local, remote: child.ts_remote },
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            map: child.map.clone(),
            seq: child.map_seq,
            ace: child.ace,
            order,
            retired: false,
            up_at,
            initiator: child.initiator,
            encap: child.encap.is_some(),
        }
    }

    pub(in crate::ike) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.up_at) < FRESH
    }
}

impl Engine {
    /// A quick mode made this pair: install it and let the newest pair carry the flow.
    pub(super) fn child_up(&mut self, child: Box<ChildSa>, order: u64, now: Instant) {
        let entry = Child::new(&child, order, now);
        let (flow, spi_in, initiator) = (entry.flow, child.spi_in, child.initiator);
        let old = self.flows.get(&flow).copied().filter(|spi| *spi != spi_in && self.children.contains_key(spi));
        let loses = old.and_then(|spi| self.children.get(&spi)).is_some_and(|c| c.order > order);
        self.link(entry, now);
        self.command(IkeCommand::InstallChild(child));
        self.event(IkeEvent::ChildUp { spi_in, peer: flow.pair.peer, rekey: old });
        match old {
            Some(_) if loses => self.retire(spi_in, initiator, now),
            Some(old) => {
                self.flows.insert(flow, spi_in);
                self.retire(old, initiator, now);
            }
            None => {
                self.flows.insert(flow, spi_in);
            }
        }
    }

    fn retire(&mut self, spi_in: Spi, initiator: bool, now: Instant) {
        if let Some(c) = self.children.get_mut(&spi_in) {
            c.retired = true;
            self.command(IkeCommand::RetireOutbound(spi_in));
            self.timers.clear(Timer::ChildRetry(spi_in));
            self.timers.set(Timer::ChildGrace(spi_in), now + grace(initiator));
        }
    }

    fn link(&mut self, child: Child, now: Instant) {
        let pair = child.flow.pair;
        let host = FlowKey { pair: PairKey::host(pair.local, pair.peer), ..child.flow };
        if pair == host.pair {
            // The one at the well-known ports is found without a note.
            self.homes.remove(&host);
        } else {
            self.homes.insert(host, pair);
        }
        self.pairs.entry(pair).or_insert_with(|| Pair::new(now)).children.insert(child.spi_in);
        self.outbound.insert((pair, child.spi_out), child.spi_in);
        self.children.insert(child.spi_in, child);
    }

    /// Takes a mirrored pair over. Of several for one flow the youngest carries it.
    pub(in crate::ike) fn adopt_child(&mut self, child: &ChildSa, gone: bool, at: Instant, now: Instant) -> Result<(), String> {
        let max = self.config.limits.established_max.saturating_mul(4);
        if self.children.len() >= max && !self.children.contains_key(&child.spi_in) {
            return Err(format!("child pair {}: more than {max} pairs", child.spi_in));
        }
        self.unlink_child(child.spi_in);
        let mut entry = Child::new(child, 0, at);
        let (flow, spi_in) = (entry.flow, entry.spi_in);
        entry.retired = gone;
        let current = self.flows.get(&flow).and_then(|spi| self.children.get_mut(spi));
        let mut retired = None;
        match current {
            _ if gone => {}
            Some(c) if !c.retired && (c.up_at > at || c.order > 0) => entry.retired = true,
            Some(c) => {
                c.retired = true;
                retired = Some(c.spi_in);
                self.flows.insert(flow, spi_in);
            }
            None => {
                self.flows.insert(flow, spi_in);
            }
        }
        if entry.retired {
            retired = Some(spi_in);
        }
        self.link(entry, now);
        if let Some(spi) = retired.filter(|_| self.active) {
            self.timers.set(Timer::ChildGrace(spi), now + GRACE_RESPONDER);
        }
        Ok(())
    }

    /// After this node became active: pairs that were on their way out end here.
    pub(in crate::ike) fn resume_children(&mut self, now: Instant) {
        let retired: Vec<_> = self.children.values().filter(|c| c.retired).map(|c| (c.spi_in, c.initiator)).collect();
        for (spi, initiator) in retired {
            self.timers.set(Timer::ChildGrace(spi), now + grace(initiator));
        }
    }

    /// Another peer key in every table: its NAT shows the peer elsewhere.
    pub(super) fn rekey_tables(&mut self, spi_in: Spi, new: PairKey, now: Instant) {
        let Some(mut child) = self.children.remove(&spi_in) else { return };
        let old = child.flow;
        if let Some(p) = self.pairs.get_mut(&old.pair) {
            p.children.remove(&spi_in);
        }
        if self.outbound.get(&(old.pair, child.spi_out)) == Some(&spi_in) {
            self.outbound.remove(&(old.pair, child.spi_out));
        }
        let carried = self.flows.get(&old) == Some(&spi_in);
        if carried {
            self.flows.remove(&old);
        }
        child.flow.pair = new;
        // What is there already is younger.
        let loses = self.flows.contains_key(&child.flow);
        if carried && !loses {
            self.flows.insert(child.flow, spi_in);
        }
        let (retired, initiator) = (child.retired, child.initiator);
        self.link(child, now);
        if loses && !retired {
            self.retire(spi_in, initiator, now);
        }
    }

    /// Another peer behind the same NAT that carries the same traffic. The kernel could not tell the two apart: the first one keeps it.
    pub(super) fn flow_holder(&self, flow: &FlowKey) -> Option<PairKey> {
        let carries = |pair: &PairKey| *pair != flow.pair && self.flows.contains_key(&FlowKey { pair: *pair, ..*flow });
        self.siblings(flow.pair).map(|(key, _)| *key).find(carries)
    }

    /// Removes a pair from the tables, silently.
    pub(in crate::ike) fn unlink_child(&mut self, spi_in: Spi) -> Option<Child> {
        let child = self.children.remove(&spi_in)?;
        let pair = child.flow.pair;
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.children.remove(&spi_in);
        }
        if self.outbound.get(&(pair, child.spi_out)) == Some(&spi_in) {
            self.outbound.remove(&(pair, child.spi_out));
        }
        if self.flows.get(&child.flow) == Some(&spi_in) {
            self.flows.remove(&child.flow);
            // A pair that was on its way out is better than none, if the peer still has it.
            let heir = self.pairs.get(&pair).and_then(|p| {
                let same = |spi: &&Spi| self.children.get(spi).is_some_and(|c| c.flow == child.flow);
                p.children.iter().filter(same).max_by_key(|spi| self.children.get(spi).map(|c| (c.order, c.up_at)))
            });
            if let Some(heir) = heir.copied() {
                self.flows.insert(child.flow, heir);
            }
        }
        self.timers.clear(Timer::ChildGrace(spi_in));
        self.timers.clear(Timer::ChildRetry(spi_in));
        self.tidy_pair(pair);
        Some(child)
    }

    /// Removes a pair and, if wanted, tells the peer.
    pub(in crate::ike) fn remove_child(&mut self, spi_in: Spi, cause: &str, tell: Tell, now: Instant) {
        let Some(child) = self.unlink_child(spi_in) else { return };
        self.command(IkeCommand::RemoveChild(spi_in));
        self.event(IkeEvent::ChildDown { spi_in, cause: cause.into() });
        let pair = child.flow.pair;
        if let Some(handle) = self.primary(pair) {
            self.send_delete(handle, &Delete::Esp(vec![spi_in]), tell, now);
        }
    }

    /// Asks for a new pair in place of this one.
    pub(in crate::ike) fn rekey_child(&mut self, spi_in: Spi, now: Instant) {
        let Some(c) = self.children.get(&spi_in).filter(|c| !c.retired) else { return };
        let want = Want { map: c.map.clone(), seq: c.seq, ace: c.ace, replaces: Some(spi_in), tried: Vec::new() };
        self.want(c.flow.pair, want, now);
    }

    /// A rekey did not work: later again, as long as the pair lives.
    pub(super) fn retry_child(&mut self, spi_in: Option<Spi>, now: Instant) {
        let Some(spi_in) = spi_in.filter(|s| self.children.get(s).is_some_and(|c| !c.retired)) else { return };
        let jitter = self.jitter(CHILD_RETRY);
        self.timers.set(Timer::ChildRetry(spi_in), now + CHILD_RETRY + jitter);
    }

    /// Our inbound SPI of the pair whose outbound SPI the peer names.
    pub(super) fn by_outbound(&self, pair: PairKey, spi_out: Spi) -> Option<Spi> {
        self.outbound.get(&(pair, spi_out)).copied()
    }
}

fn grace(initiator: bool) -> Duration {
    if initiator { GRACE_INITIATOR } else { GRACE_RESPONDER }
}
