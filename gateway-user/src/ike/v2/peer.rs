//! Flows that wait for an IKE SA; which peer of an entry is tried; when version 1 is tried instead.

use super::engine::{Engine, Fallback};
use super::sa::{Handle, PairKey, Sa, Stage, entries_of};
use super::task::{ChildTask, Task, Want};
use crate::ike::api::Acquire;
use crate::ike::policy::Ikev2Profile;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Flows of one peer that may wait for an IKE SA.
const WANTS_MAX: usize = 4096;
/// Flows that may wait for version 1 to take them.
const FALLBACKS_MAX: usize = 4096;
/// A peer that did not speak version 2 is asked again after this time.
const OLD_FOR: Duration = Duration::from_secs(600);

/// How an IKE SA did not come about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// Nobody answers the first message.
    NoAnswer,
    /// The peer says that it does not speak version 2.
    OldVersion,
    /// Anything else.
    Refused,
}

impl Engine {
    /// Queues a flow for a child pair and starts what can be started.
    pub(super) fn want(&mut self, pair: PairKey, want: Want, now: Instant) {
        let config = self.config.clone();
        let Some(profile) = Self::profile_name(&config, pair, &want.map, want.seq) else {
            return self.notice(pair.1, format!("crypto map {} {} has no IKEv2 profile", want.map, want.seq));
        };
        let p = self.pairs.entry(pair).or_default();
        if p.old_until.is_some_and(|until| until > now) {
            return self.fall_back(pair, want, now);
        }
        if let Some(handle) = self.primary(pair, &profile) {
            return self.add_task(handle, Task::Child(want), now);
        }
        let p = self.pairs.entry(pair).or_default();
        if !p.wants.iter().any(|w| w.same(&want)) && p.wants.len() < WANTS_MAX {
            p.wants.push_back(want);
        }
        self.start_wants(pair, now);
    }

    /// Hands waiting flows to an IKE SA, or begins the one they need.
    pub(super) fn start_wants(&mut self, pair: PairKey, now: Instant) {
        let config = self.config.clone();
        while self.active {
            let Some(p) = self.pairs.get_mut(&pair) else { return };
            let Some(front) = p.wants.front() else { return };
            let found = entries_of(&config, pair).find(|(_, e, _)| e.map == front.map && e.seq == front.seq);
            let Some((_, _, profile)) = found else {
                p.wants.pop_front();
                continue;
            };
            match self.primary(pair, &profile.name) {
                Some(handle) => {
                    let Some(want) = self.pairs.get_mut(&pair).and_then(|p| p.wants.pop_front()) else { return };
                    self.add_task(handle, Task::Child(want), now);
                }
                None => {
                    let idle = self.pairs.get(&pair).is_some_and(|p| p.starting.is_none());
                    if idle && !self.start_init(pair, profile, now) {
                        let dropped = self.pairs.get_mut(&pair).and_then(|p| p.wants.pop_front());
                        self.retry_child(dropped.and_then(|w| w.replaces), now);
                        continue;
                    }
                    return;
                }
            }
        }
    }

    /// The child that a new IKE SA begins with.
    pub(super) fn first_child(&mut self, pair: PairKey, profile: &Arc<Ikev2Profile>, now: Instant) -> Option<Box<ChildTask>> {
        let config = self.config.clone();
        loop {
            let p = self.pairs.get_mut(&pair)?;
            let of_profile = |w: &Want| Self::profile_name(&config, pair, &w.map, w.seq).is_some_and(|n| n == profile.name);
            let at = p.wants.iter().position(of_profile)?;
            let want = p.wants.remove(at)?;
            if let Some(task) = self.prepare_child(pair, want, false, now) {
                return Some(Box::new(task));
            }
        }
    }

    /// The first exchanges ended without an SA.
    pub(super) fn start_failed(&mut self, handle: Handle, failure: Failure, cause: &str, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (pair, peer, initiator) = (sa.pair, sa.peer, sa.initiator);
        let Stage::Init(init) = &sa.stage else { return };
        let profile = init.profile.clone();
        let first = self.release_first_child(handle);
        self.forget_sa(handle);
        if !initiator {
            return self.refuse(peer, "first_exchanges_failed", cause);
        }
        self.notice(pair.1, format!("IKEv2 failed: {cause}"));
        if failure == Failure::OldVersion
            && let Some(p) = self.pairs.get_mut(&pair)
        {
            p.old_until = Some(now + OLD_FOR);
        }
        let config = self.config.clone();
        let Some(p) = self.pairs.get_mut(&pair) else { return };
        let of_profile = |w: &Want| Self::profile_name(&config, pair, &w.map, w.seq).is_none_or(|n| n == profile.name);
        let (failed, rest): (Vec<Want>, Vec<Want>) = std::mem::take(&mut p.wants).into_iter().partition(of_profile);
        p.wants = rest.into();
        for want in first.into_iter().chain(failed) {
            match failure {
                Failure::OldVersion => self.fall_back(pair, want, now),
                Failure::NoAnswer | Failure::Refused => self.try_next(pair, want, failure, now),
            }
        }
        self.start_wants(pair, now);
    }

    /// The next peer of the entry, or version 1 with the first one, or later again.
    fn try_next(&mut self, pair: PairKey, want: Want, failure: Failure, now: Instant) {
        let config = self.config.clone();
        let Some((_, entry, _)) = entries_of(&config, pair).find(|(_, e, _)| e.map == want.map && e.seq == want.seq) else { return };
        let next = entry.peers.iter().skip_while(|p| **p != pair.1).nth(1);
        match next {
            Some(peer) => self.want((pair.0, *peer), want, now),
            None if failure == Failure::NoAnswer && entry.ikev1 => self.fall_back(pair, want, now),
            None => self.retry_child(want.replaces, now),
        }
    }

    /// Lets version 1 try.
    fn fall_back(&mut self, pair: PairKey, want: Want, now: Instant) {
        let config = self.config.clone();
        let entry = config.entries.iter().find(|e| e.map == want.map && e.seq == want.seq && e.ikev1);
        let flow = entry.and_then(|e| e.flows.iter().find(|f| f.ace == want.ace));
        let Some(flow) = flow.filter(|_| self.fallbacks.len() < FALLBACKS_MAX) else {
            return self.retry_child(want.replaces, now);
        };
        let acquire =
            Acquire { peer: pair.1, ..want.acquire.unwrap_or(Acquire { peer: pair.1, reqid: 0, src: flow.local, dst: flow.remote }) };
        self.notice(pair.1, "IKEv1 is tried instead");
        self.fallbacks.push_back(Fallback { acquire, map: want.map, seq: want.seq, ace: want.ace });
    }

    /// True when a pair for this flow came up just now, or is being asked for.
    pub(super) fn has_fresh_child(&self, pair: PairKey, map: &str, seq: u32, ace: u32, now: Instant) -> bool {
        let Some(p) = self.pairs.get(&pair) else { return false };
        let children = p.sas.iter().filter_map(|h| self.sas.get(h).and_then(Sa::up)).flat_map(|u| &u.children);
        children.filter_map(|spi| self.children.get(spi)).any(|c| {
            let same = (c.flow.map.as_str(), c.flow.seq, c.flow.ace) == (map, seq, ace);
            same && !c.retired && c.is_fresh(now)
        })
    }
}
