//! Child pairs as IKE sees them: which pair carries a flow, which is on its way out.

use super::engine::Engine;
use super::ike::CROSSING;
use super::sa::{Handle, PairKey, Sa};
use super::task::{FlowKey, Task, Want};
use super::timer::Timer;
use crate::id::Spi;
use crate::ike::api::{IkeCommand, IkeEvent};
use crate::sad::ChildSa;
use std::time::{Duration, Instant};

/// The responder of a rekey sends on the old pair for this long at most: the initiator has its answer by then.
const SWITCH_WAIT: Duration = Duration::from_secs(1);
/// A replaced pair that the peer should have deleted is deleted by us after this time.
const GRACE: Duration = Duration::from_secs(30);
/// A failed rekey of a child pair is tried again after this time, and up to twice of it.
const CHILD_RETRY: Duration = Duration::from_secs(15);
/// An acquire for a pair younger than this was on its way when the pair came up.
const FRESH: Duration = Duration::from_secs(3);

/// A child pair, without keys.
pub(super) struct Child {
    pub(super) flow: FlowKey,
    /// The IKE SA that it belongs to.
    pub(super) handle: Handle,
    pub(super) spi_in: Spi,
    pub(super) spi_out: Spi,
    pub(super) initiator: bool,
    pub(super) up_at: Instant,
    /// Another pair carries the flow; this one only receives until it is deleted.
    pub(super) retired: bool,
    /// Our Delete for it is queued or on its way.
    pub(super) deleting: bool,
    /// Responder of a rekey: the pair receives only, until the peer uses it or ends the old one.
    pub(super) inbound_only: Option<Box<ChildSa>>,
    /// The pair that it replaces.
    pub(super) replaces: Option<Spi>,
}

impl Child {
    pub(super) fn new(child: &ChildSa, pair: PairKey, handle: Handle, up_at: Instant) -> Self {
        Self {
            flow: FlowKey {
                pair,
                map: child.map.clone(),
                seq: child.map_seq,
                ace: child.ace,
                local: child.ts_local,
                remote: child.ts_remote,
            },
            handle,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            initiator: child.initiator,
            up_at,
            retired: false,
            deleting: false,
            inbound_only: None,
            replaces: None,
        }
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.up_at) < FRESH
    }

    pub(super) fn want(&self, replaces: Option<Spi>) -> Want {
        Want { map: self.flow.map.clone(), seq: self.flow.seq, ace: self.flow.ace, replaces, acquire: None }
    }
}

impl Engine {
    /// A pair that both ends have is taken into use. With `replaces` it is our rekey of that pair, which we delete.
    pub(super) fn child_up(&mut self, handle: Handle, child: Box<ChildSa>, replaces: Option<Spi>, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        let mut entry = Child::new(&child, pair, handle, now);
        entry.replaces = replaces;
        let (flow, spi_in, initiator) = (entry.flow.clone(), child.spi_in, child.initiator);
        let old = replaces.or_else(|| self.flows.get(&flow).copied());
        let old = old.filter(|spi| *spi != spi_in && self.children.contains_key(spi));
        self.link(entry);
        self.command(IkeCommand::InstallChild(child));
        self.event(IkeEvent::ChildUp { spi_in, peer: pair.1, rekey: old });
        match (old, replaces) {
            (Some(old), Some(_)) => {
                self.flows.insert(flow, spi_in);
                self.retire(old, now);
                self.delete_child(old, now);
            }
            // Two pairs for one flow: of a crossing the one that the higher address began, else the newer one.
            (Some(old), None) if self.loses(old, initiator, pair, now) => self.retire(spi_in, now),
            (Some(old), None) => {
                self.flows.insert(flow, spi_in);
                self.retire(old, now);
            }
            (None, _) => {
                self.flows.insert(flow, spi_in);
            }
        }
    }

    /// True when a new pair begun by this side loses against `old`: they crossed.
    fn loses(&self, old: Spi, initiator: bool, pair: PairKey, now: Instant) -> bool {
        let Some(old) = self.children.get(&old) else { return false };
        let crossed = old.initiator != initiator && now.saturating_duration_since(old.up_at) < CROSSING;
        let we_are_higher = pair.0 > pair.1;
        crossed && old.initiator == we_are_higher
    }

    /// Responder: a pair in place of `old`, which goes on sending until the peer shows that it has the new one.
    pub(super) fn child_inbound(&mut self, handle: Handle, child: Box<ChildSa>, old: Spi, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        let mut entry = Child::new(&child, pair, handle, now);
        let spi_in = child.spi_in;
        entry.inbound_only = Some(child.clone());
        entry.replaces = Some(old);
        self.link(entry);
        self.command(IkeCommand::InstallInbound(child));
        self.event(IkeEvent::ChildUp { spi_in, peer: pair.1, rekey: Some(old) });
        self.timers.set(Timer::ChildSwitch(spi_in), now + SWITCH_WAIT);
    }

    /// Starts to send on a pair that only received, and stops on the one it replaces.
    pub(super) fn switch_child(&mut self, spi_in: Spi, now: Instant) {
        self.timers.clear(Timer::ChildSwitch(spi_in));
        let Some(c) = self.children.get_mut(&spi_in) else { return };
        let Some(child) = c.inbound_only.take() else { return };
        let (flow, old, handle) = (c.flow.clone(), c.replaces, c.handle);
        self.command(IkeCommand::InstallChild(child));
        self.flows.insert(flow, spi_in);
        if let Some(old) = old {
            self.retire(old, now);
        }
        self.dirty.insert(handle);
    }

    /// Stops sending on a pair; the end that replaced it deletes it.
    pub(super) fn retire(&mut self, spi_in: Spi, now: Instant) {
        let Some(c) = self.children.get_mut(&spi_in).filter(|c| !c.retired) else { return };
        c.retired = true;
        let handle = c.handle;
        // A pair that never sent has nothing to stop.
        if c.inbound_only.take().is_none() {
            self.command(IkeCommand::RetireOutbound(spi_in));
        }
        self.timers.clear(Timer::ChildSwitch(spi_in));
        self.timers.clear(Timer::ChildRetry(spi_in));
        self.timers.set(Timer::ChildGrace(spi_in), now + GRACE);
        self.dirty.insert(handle);
    }

    /// Asks the peer to delete a pair; it stays until the peer agreed.
    pub(super) fn delete_child(&mut self, spi_in: Spi, now: Instant) {
        let Some(c) = self.children.get_mut(&spi_in).filter(|c| !c.deleting) else { return };
        c.deleting = true;
        let handle = c.handle;
        self.add_task(handle, Task::DeleteChildren(vec![spi_in]), now);
    }

    pub(super) fn link(&mut self, child: Child) {
        let (handle, spi_in) = (child.handle, child.spi_in);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.children.insert(spi_in);
        }
        self.outbound.insert((handle, child.spi_out), spi_in);
        self.children.insert(spi_in, child);
        self.dirty.insert(handle);
    }

    pub(super) fn unlink_child(&mut self, spi_in: Spi) -> Option<Child> {
        let child = self.children.remove(&spi_in)?;
        if let Some(up) = self.sas.get_mut(&child.handle).and_then(Sa::up_mut) {
            up.children.remove(&spi_in);
            self.dirty.insert(child.handle);
        }
        if self.outbound.get(&(child.handle, child.spi_out)) == Some(&spi_in) {
            self.outbound.remove(&(child.handle, child.spi_out));
        }
        if self.flows.get(&child.flow) == Some(&spi_in) {
            self.flows.remove(&child.flow);
            let siblings = self.sas.get(&child.handle).and_then(Sa::up).map(|u| &u.children);
            let same = |c: &&Child| c.flow == child.flow && !c.retired;
            let heir = siblings.into_iter().flatten().filter_map(|s| self.children.get(s)).filter(same).max_by_key(|c| c.up_at);
            if let Some(heir) = heir.map(|c| c.spi_in) {
                self.flows.insert(child.flow.clone(), heir);
            }
        }
        for timer in [Timer::ChildSwitch(spi_in), Timer::ChildGrace(spi_in), Timer::ChildRetry(spi_in)] {
            self.timers.clear(timer);
        }
        Some(child)
    }

    /// Removes a pair and, if wanted, tells the peer. A pair that waits to take over from it does so now.
    pub(super) fn remove_child(&mut self, spi_in: Spi, cause: &str, tell_peer: bool, now: Instant) {
        let Some(child) = self.unlink_child(spi_in) else { return };
        let handle = child.handle;
        let heirs = |c: &&Child| c.replaces == Some(spi_in) && c.inbound_only.is_some();
        let siblings = self.sas.get(&handle).and_then(Sa::up).map(|u| &u.children);
        let heir = siblings.into_iter().flatten().filter_map(|s| self.children.get(s)).find(heirs).map(|c| c.spi_in);
        if let Some(heir) = heir {
            self.switch_child(heir, now);
        }
        self.command(IkeCommand::RemoveChild(spi_in));
        self.event(IkeEvent::ChildDown { spi_in, cause: cause.into() });
        if tell_peer && !child.deleting {
            self.add_task(handle, Task::DeleteChildren(vec![spi_in]), now);
        }
        let pair = child.flow.pair;
        self.close_idle(pair, now);
    }

    /// The peer agreed to delete these.
    pub(super) fn deleted(&mut self, handle: Handle, spis: &[Spi], now: Instant) {
        for spi in spis {
            if self.children.get(spi).is_some_and(|c| c.handle == handle) {
                self.remove_child(*spi, "deleted", false, now);
            }
        }
        if let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) {
            self.close_idle(pair, now);
        }
    }

    /// Asks for a new pair in place of this one.
    pub(super) fn rekey_child(&mut self, spi_in: Spi, now: Instant) {
        let Some(c) = self.children.get(&spi_in).filter(|c| !c.retired && !c.deleting) else { return };
        let (handle, want) = (c.handle, c.want(Some(spi_in)));
        self.add_task(handle, Task::Child(want), now);
    }

    /// A rekey did not work: later again, as long as the pair lives.
    pub(super) fn retry_child(&mut self, spi_in: Option<Spi>, now: Instant) {
        let Some(spi_in) = spi_in.filter(|s| self.children.get(s).is_some_and(|c| !c.retired)) else { return };
        let jitter = self.jitter(CHILD_RETRY);
        self.timers.set(Timer::ChildRetry(spi_in), now + CHILD_RETRY + jitter);
    }

    /// A new IKE SA takes the children and what was to be asked of the peer.
    pub(super) fn inherit(&mut self, old: Handle, heir: Handle, now: Instant) {
        let Some(up) = self.sas.get_mut(&old).and_then(Sa::up_mut) else { return };
        let children = std::mem::take(&mut up.children);
        let tasks = std::mem::take(&mut up.tasks);
        for spi in children {
            let Some(c) = self.children.get_mut(&spi) else { continue };
            c.handle = heir;
            self.outbound.remove(&(old, c.spi_out));
            self.outbound.insert((heir, c.spi_out), spi);
            if let Some(up) = self.sas.get_mut(&heir).and_then(Sa::up_mut) {
                up.children.insert(spi);
            }
        }
        self.dirty.insert(old);
        self.dirty.insert(heir);
        for task in tasks {
            match task {
                Task::Child(_) | Task::DeleteChildren(_) => self.add_task(heir, task, now),
                Task::RekeyIke | Task::DeleteIke | Task::Liveness => {}
            }
        }
    }
}
