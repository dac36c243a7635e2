//! Life of an IKE SA after IKE_AUTH: establishment, lifetimes, end.

use super::engine::Engine;
use super::keymat::IkeKeys;
use super::message::Outgoing;
use super::proposal::IkeSuite;
use super::sa::{Caps, Fate, Handle, PairKey, Sa, Stage, Up};
use super::task::{JobTarget, Task, What};
use super::timer::Timer;
use crate::ike::api::{IkeEvent, IkeRecord};
use crate::ike::policy::Ikev2Profile;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A replaced IKE SA that the peer should have deleted is deleted by us after this time.
const LINGER: Duration = Duration::from_secs(30);
/// A failed rekey of an IKE SA is tried again after this time, and up to twice of it.
const REKEY_RETRY: Duration = Duration::from_secs(30);
/// IKE SAs with one peer; the oldest goes when one more comes.
const SAS_PER_PAIR_MAX: usize = 8;
/// SAs of opposite directions that came up within this time crossed.
pub(super) const CROSSING: Duration = Duration::from_secs(10);

/// What a new IKE SA begins with.
pub(super) struct Begin {
    pub(super) profile: Arc<Ikev2Profile>,
    pub(super) suite: IkeSuite,
    pub(super) keys: IkeKeys,
    pub(super) caps: Caps,
    pub(super) peer_id: String,
    pub(super) send_id: u32,
    pub(super) recv_id: u32,
}

impl Engine {
    /// State of a fresh IKE SA.
    pub(super) fn fresh_up(&mut self, begin: Begin, initiator: bool, now: Instant) -> Up {
        let lifetime = Duration::from_secs(begin.profile.lifetime_s.max(1));
        // 90 % of the lifetime less up to 10 % at the initiator; earlier than that seldom at the responder, so that not both begin.
        let part = if initiator { 10 } else { 20 };
        let jitter = self.jitter(lifetime / part);
        Up {
            profile: begin.profile,
            suite: begin.suite,
            keys: begin.keys,
            caps: begin.caps,
            fate: Fate::Live,
            up_at: now,
            soft: now + lifetime - lifetime / part - jitter,
            hard: now + lifetime,
            send_id: begin.send_id,
            recv_id: begin.recv_id,
            current: None,
            tasks: VecDeque::new(),
            asked: None,
            answering: None,
            answer: None,
            children: BTreeSet::new(),
            heard: now,
            peer_id: begin.peer_id,
            contacted: false,
            rival: None,
        }
    }

    /// Both ends are proven: the first exchanges become an established SA.
    pub(super) fn ike_up(&mut self, handle: Handle, peer_id: String, send_id: u32, recv_id: u32, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (initiator, source) = (sa.initiator, sa.peer.ip());
        let Some(init) = sa.init_mut() else { return };
        let (Some(suite), Some(keys)) = (init.suite.take(), init.keys.take()) else { return };
        let begin = Begin { profile: init.profile.clone(), suite, keys, caps: init.caps, peer_id, send_id, recv_id };
        let up = self.fresh_up(begin, initiator, now);
        if let Some(sa) = self.sas.get_mut(&handle) {
            sa.stage = Stage::Up(Box::new(up));
        }
        if !initiator {
            self.half_open_done(source);
        }
        self.timers.clear(Timer::Init(handle));
        self.timers.clear(Timer::HalfOpen(handle));
        self.dirty.insert(handle);
    }

    /// The exchange that made the SA is over: tells, arms the timers, serves what waited.
    pub(super) fn ike_ready(&mut self, handle: Handle, contact: bool, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (id, pair, initiator, born) = (sa.id, sa.pair, sa.initiator, sa.born);
        let Some(up) = sa.up() else { return };
        let (peer_id, profile) = (up.peer_id.clone(), up.profile.name.clone());
        self.enter_pair(handle, pair);
        self.event(IkeEvent::IsakmpUp { id, peer: pair.1, initiator, rekey: None });
        if peer_id != pair.1.to_string() {
            self.notice(pair.1, format!("the peer calls itself {peer_id} (profile {profile})"));
        }
        self.arm_lifetime(handle, now);
        self.arm_dpd(handle, now);
        self.arm_keepalive(handle, now);
        if contact {
            self.obey_initial_contact(handle, born, now);
        }
        self.trim_sas(pair, now);
        self.start_wants(pair, now);
        self.close_idle(pair, now);
    }

    /// Lists an SA under its peer.
    pub(super) fn enter_pair(&mut self, handle: Handle, pair: PairKey) {
        let p = self.pairs.entry(pair).or_default();
        if !p.sas.contains(&handle) {
            p.sas.push(handle);
        }
        p.met = true;
        p.old_until = None;
        if p.starting == Some(handle) {
            p.starting = None;
        }
    }

    /// Arms the timers of an established SA; what is due already happens at `now`.
    pub(super) fn arm_lifetime(&mut self, handle: Handle, now: Instant) {
        let Some(up) = self.sas.get(&handle).and_then(Sa::up) else { return };
        self.timers.set(Timer::Hard(handle), up.hard.max(now));
        match up.fate {
            Fate::Live => self.timers.set(Timer::Soft(handle), up.soft.max(now)),
            Fate::Replaced => self.timers.set(Timer::Linger(handle), now + LINGER),
            Fate::Closing => {}
        }
    }

    /// Another SA took over: this one waits for the peer's Delete.
    pub(super) fn linger(&mut self, handle: Handle, now: Instant) {
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.fate = Fate::Replaced;
            self.timers.clear(Timer::Soft(handle));
            self.timers.clear(Timer::Dpd(handle));
            self.timers.set(Timer::Linger(handle), now + LINGER);
            self.dirty.insert(handle);
        }
    }

    fn trim_sas(&mut self, pair: PairKey, now: Instant) {
        let live = |h: &&Handle| self.sas.get(h).and_then(Sa::up).is_some_and(|u| u.fate != Fate::Closing);
        let sas: Vec<Handle> = self.pairs.get(&pair).map(|p| p.sas.iter().filter(live).copied().collect()).unwrap_or_default();
        if let Some(surplus) = sas.len().checked_sub(SAS_PER_PAIR_MAX) {
            for handle in &sas[..surplus] {
                self.close_ike(*handle, "too many IKE SAs with this peer", now);
            }
        }
    }

    /// The soft deadline: rekey, unless nothing needs the SA.
    pub(super) fn ike_soft(&mut self, handle: Handle, now: Instant) {
        let Some(up) = self.sas.get(&handle).and_then(Sa::up) else { return };
        if !up.children.is_empty() || !up.tasks.is_empty() || up.current.is_some() || up.profile.childless {
            self.rekey_ike(handle, now);
        } else {
            // A child that is made later must not end with this SA.
            self.retry_rekey(handle, now);
        }
    }

    /// Asks for a new IKE SA in place of this one.
    pub(super) fn rekey_ike(&mut self, handle: Handle, now: Instant) {
        self.timers.clear(Timer::Soft(handle));
        self.add_task(handle, Task::RekeyIke, now);
    }

    /// A rekey of the IKE SA did not work: later again.
    pub(super) fn retry_rekey(&mut self, handle: Handle, now: Instant) {
        let jitter = self.jitter(REKEY_RETRY);
        if self.sas.get(&handle).and_then(Sa::up).is_some_and(|u| u.fate == Fate::Live) {
            self.timers.set(Timer::Soft(handle), now + REKEY_RETRY + jitter);
        }
    }

    /// INITIAL_CONTACT under protection: what the peer had before this SA began is gone.
    fn obey_initial_contact(&mut self, handle: Handle, before: Instant, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let pair = sa.pair;
        let Some(up) = sa.up_mut().filter(|u| !u.contacted) else { return };
        up.contacted = true;
        // Of the same identities only (RFC 7296 2.4): others may stand at the same address, behind one NAT.
        let (who, profile) = (up.peer_id.clone(), up.profile.name.clone());
        let Some(p) = self.pairs.get(&pair) else { return };
        let same = |u: &Up| u.up_at < before && u.peer_id == who && u.profile.name == profile;
        let older = |h: &&Handle| **h != handle && self.sas.get(h).and_then(Sa::up).is_some_and(same);
        let sas: Vec<Handle> = p.sas.iter().filter(older).copied().collect();
        for old in sas {
            self.remove_ike(old, "the peer started anew (INITIAL_CONTACT)", now);
        }
    }

    /// Of IKE SAs with one peer those without children end, when another one stands: both ends made one at the same time.
    pub(super) fn close_idle(&mut self, pair: PairKey, now: Instant) {
        let Some(p) = self.pairs.get(&pair) else { return };
        let up = |h: &Handle| self.sas.get(h).and_then(Sa::up).filter(|u| u.fate == Fate::Live);
        let idle = |u: &Up| u.children.is_empty() && u.tasks.is_empty() && u.current.is_none() && u.asked.is_none();
        let used: Vec<&str> = p.sas.iter().filter_map(up).filter(|u| !u.children.is_empty()).map(|u| u.profile.name.as_str()).collect();
        let surplus = |h: &&Handle| up(h).is_some_and(|u| idle(u) && used.contains(&u.profile.name.as_str()));
        let surplus: Vec<Handle> = p.sas.iter().filter(surplus).copied().collect();
        for handle in surplus {
            self.add_task(handle, Task::DeleteIke, now);
        }
    }

    /// Deletes an IKE SA with its children: what waits for the peer's consent is only the SA itself.
    pub(super) fn close_ike(&mut self, handle: Handle, cause: &str, now: Instant) {
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        if up.fate == Fate::Closing {
            // Nobody answers, or its life is over.
            return self.remove_ike(handle, cause, now);
        }
        let children: Vec<_> = up.children.iter().copied().collect();
        for spi in children {
            self.remove_child(spi, cause, false, now);
        }
        if let Some(what) = self.drop_prepared(handle) {
            self.release(&what);
        }
        for timer in [Timer::Soft(handle), Timer::Linger(handle), Timer::Dpd(handle), Timer::Again(handle)] {
            self.timers.clear(timer);
        }
        self.add_task(handle, Task::DeleteIke, now);
    }

    /// Ends an IKE SA and its children at once, without a word to the peer.
    pub(super) fn remove_ike(&mut self, handle: Handle, cause: &str, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (id, pair) = (sa.id, sa.pair);
        let Some(up) = sa.up_mut() else { return self.init_failed(handle, cause, now) };
        let current = up.current.take();
        let rival = up.rival.take();
        let children: Vec<_> = up.children.iter().copied().collect();
        if let Some(current) = current {
            self.release(&current.what);
        }
        // The peer made the new SA while our own rekey was on its way, and ended the old one.
        match rival.and_then(|(id, _)| self.by_id(&id)) {
            Some(heir) => self.inherit(handle, heir, now),
            None => {
                for spi in children {
                    self.remove_child(spi, cause, false, now);
                }
            }
        }
        self.forget_sa(handle);
        self.event(IkeEvent::Sync(IkeRecord::Delete { id }));
        self.event(IkeEvent::IsakmpDown { id, peer: pair.1, cause: cause.into() });
        self.start_wants(pair, now);
    }

    /// Gives back what an unfinished request holds. What it was for, if that was a flow.
    pub(super) fn release(&mut self, what: &What) -> Option<super::task::Want> {
        match what {
            What::Child(task) => {
                self.command(crate::ike::api::IkeCommand::ReleaseSpi(task.spi_in));
                Some(task.want.clone())
            }
            What::Abandoned(spi) => {
                self.command(crate::ike::api::IkeCommand::ReleaseSpi(*spi));
                None
            }
            What::RekeyIke(_) | What::DeleteChildren(_) | What::DeleteIke | What::Liveness => None,
        }
    }

    /// Removes an SA from every table, silently.
    pub(super) fn forget_sa(&mut self, handle: Handle) {
        let _ = self.release_first_child(handle);
        let Some(sa) = self.sas.remove(&handle) else { return };
        if self.by_spi.get(&sa.our_spi()) == Some(&handle) {
            self.by_spi.remove(&sa.our_spi());
        }
        if !sa.initiator {
            let first = (sa.first, sa.id.initiator);
            if self.by_first.get(&first) == Some(&handle) {
                self.by_first.remove(&first);
            }
            if sa.up().is_none() {
                self.half_open_done(sa.peer.ip());
            }
        }
        if let Some(p) = self.pairs.get_mut(&sa.pair) {
            p.sas.retain(|h| *h != handle);
            if p.starting == Some(handle) {
                p.starting = None;
            }
        }
        for timer in [
            Timer::HalfOpen(handle),
            Timer::Init(handle),
            Timer::Request(handle),
            Timer::Soft(handle),
            Timer::Hard(handle),
            Timer::Linger(handle),
            Timer::Dpd(handle),
            Timer::Keepalive(handle),
            Timer::Fragments(handle),
            Timer::Again(handle),
        ] {
            self.timers.clear(timer);
        }
        for target in [JobTarget::Init(handle), JobTarget::Task(handle), JobTarget::Answer(handle)] {
            self.drop_jobs(target);
        }
        self.dirty.remove(&handle);
    }

    /// An empty INFORMATIONAL answer.
    pub(super) fn answer_empty(&mut self, handle: Handle, now: Instant) {
        self.answer(handle, &Outgoing::new(), now);
    }
}
