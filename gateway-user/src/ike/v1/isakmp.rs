//! Life of an ISAKMP SA after phase 1: establishment, rekey, end; and the flows that wait for one.

use super::sa::{Handle, LastMain, PairKey, Sa, Stage, Tell, Up, Want};
use crate::id::IkeSaId;
use crate::ike::v1::engine::{Engine, JobTarget};
use crate::ike::v1::message::Delete;
use crate::ike::v1::proposal::LIFETIME_MAX_S;
use crate::ike::v1::timer::Timer;
use crate::ike::{IkeEvent, IkeRecord, MapEntry};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A replaced ISAKMP SA lives on for this time, so that exchanges under way can end.
const OVERLAP: Duration = Duration::from_secs(10);
/// The same at the end that did not start the rekey: the other one should delete it first.
const OVERLAP_RESPONDER: Duration = Duration::from_secs(15);
/// An SA of this age did not cross with another one.
const SETTLED: Duration = Duration::from_secs(60);
/// ISAKMP SAs with one peer; the oldest goes when one more comes.
const SAS_PER_PAIR_MAX: usize = 6;
/// A peer that did not answer comes last for this time, where an entry names several.
const FAILED_MEMORY: Duration = Duration::from_secs(300);
/// A failed rekey of an ISAKMP SA is tried again after this time, and up to twice of it.
const REKEY_RETRY: Duration = Duration::from_secs(30);

impl Engine {
    /// Phase 1 ended well.
    pub(super) fn main_up(&mut self, handle: Handle, peer_id: String, last_main: Option<LastMain>, contact: bool, now: Instant) {
        self.join_mapping(handle, &peer_id, now);
        let dpd_next = self.rng.u32() & 0x7fff_ffff;
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (id, pair, initiator, born, peer) = (sa.id, sa.pair(), sa.initiator, sa.born, sa.peer);
        let Some(main) = sa.main_mut() else { return };
        let (Some(policy), Some(keys)) = (main.policy.clone(), main.keys.take()) else { return };
        let replaces = main.replaces;
        let lifetime_s = main.lifetime_s.clamp(1, LIFETIME_MAX_S);
        let up = Up {
            policy_number: policy.number,
            encryption: policy.encryption,
            hash: policy.hash,
            group: policy.group,
            keys,
            key: std::mem::take(&mut main.key),
            iv: std::mem::take(&mut main.iv),
            up_at: now,
            lifetime_s,
            soft: now,
            hard: now + Duration::from_secs(lifetime_s),
            peer_dpd: main.vendors.dpd,
            dpd_next,
            dpd_seen: None,
            recent: VecDeque::new(),
            last_main,
            peer_id: peer_id.clone(),
            replaced: false,
            rekeying: false,
            contacted: false,
        };
        sa.stage = Stage::Up(Box::new(up));
        if !initiator {
            self.half_open_done(peer.ip());
        }
        self.timers.clear(Timer::Retransmit(handle));
        self.timers.clear(Timer::HalfOpen(handle));
        let older = self.primary(pair);
        let soft = self.soft_after(Duration::from_secs(lifetime_s), initiator);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.soft = now + soft;
        }
        let p = self.pairs.entry(pair).or_insert_with(|| super::sa::Pair::new(now));
        p.sas.push(handle);
        p.met = true;
        p.failed = None;
        if p.starting == Some(handle) {
            p.starting = None;
        }
        let older_id = older.and_then(|h| self.sas.get(&h)).map(|s| s.id);
        self.event(IkeEvent::IsakmpUp { id, peer: pair.peer, initiator, rekey: older_id });
        if peer_id != pair.peer.to_string() && peer_id != format!("{}/32", pair.peer) {
            self.notice(pair.peer, format!("the peer calls itself {peer_id}"));
        }
        self.dirty.insert(handle);
        if let Some(old) = replaces
            && let Some(up) = self.sas.get_mut(&old).and_then(Sa::up_mut)
        {
            up.replaced = true;
            self.timers.clear(Timer::Soft(old));
            self.timers.set(Timer::Overlap(old), now + OVERLAP);
            self.dirty.insert(old);
        }
        // A peer that began anew while this SA had stood for a while means to replace it; some wait for us to delete it. Of SAs that
        // crossed or came in a row nobody knows which one the peer ties its child pairs to (it may drop them with it): they stay.
        let settled = |u: &&mut Up| !u.replaced && born.saturating_duration_since(u.up_at) > SETTLED;
        if let Some(old) = older.filter(|_| !initiator)
            && let Some(up) = self.sas.get_mut(&old).and_then(Sa::up_mut).filter(settled)
        {
            up.replaced = true;
            self.timers.clear(Timer::Soft(old));
            self.timers.set(Timer::Overlap(old), now + OVERLAP_RESPONDER);
            self.dirty.insert(old);
        }
        self.arm_lifetime(handle, now);
        self.heard(pair, now);
        self.arm_dpd(pair, now);
        self.learn_keepalive(handle, now);
        if contact {
            self.obey_initial_contact(handle, born, now);
        }
        self.trim_sas(pair, now);
        self.run_wants(pair, now);
    }

    /// A soft deadline: 90 % of the lifetime less up to 10 % for the initiator; later for the responder, so that seldom both start.
    fn soft_after(&mut self, lifetime: Duration, initiator: bool) -> Duration {
        let part = if initiator { 10 } else { 20 };
        let jitter = self.jitter(lifetime / part);
        lifetime - lifetime / part - jitter
    }

    /// Arms the timers of an established SA; what is due already happens at `now`.
    pub(in crate::ike) fn arm_lifetime(&mut self, handle: Handle, now: Instant) {
        let Some(up) = self.sas.get(&handle).and_then(Sa::up) else { return };
        let (soft, hard, replaced) = (up.soft.max(now), up.hard.max(now), up.replaced);
        self.timers.set(Timer::Hard(handle), hard);
        if replaced {
            self.timers.set(Timer::Overlap(handle), now + OVERLAP);
        } else {
            self.timers.set(Timer::Soft(handle), soft);
        }
    }

    fn trim_sas(&mut self, pair: PairKey, now: Instant) {
        while let Some(oldest) = self.pairs.get(&pair).filter(|p| p.sas.len() > SAS_PER_PAIR_MAX).map(|p| p.sas[0]) {
            self.remove_isakmp(oldest, "too many ISAKMP SAs with this peer", Tell::Once, now);
        }
    }

    /// The soft deadline: rekey, unless nothing needs the SA or another one lives longer.
    pub(in crate::ike) fn isakmp_soft(&mut self, handle: Handle, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(Sa::pair) else { return };
        let Some(p) = self.pairs.get(&pair) else { return };
        let younger = |h: &Handle| *h != handle && self.sas.get(h).and_then(Sa::up).is_some_and(|u| !u.replaced && u.soft > now);
        if p.sas.iter().any(younger) || (p.children.is_empty() && p.wants.is_empty()) {
            return;
        }
        self.rekey_isakmp(handle, now);
    }

    /// Starts a main mode that replaces this SA.
    pub(in crate::ike) fn rekey_isakmp(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let pair = sa.pair();
        let Some(up) = sa.up_mut() else { return };
        if up.rekeying || up.replaced {
            return;
        }
        if self.pairs.get(&pair).is_some_and(|p| p.starting.is_some()) {
            self.timers.set(Timer::Soft(handle), now + Duration::from_secs(5));
            return;
        }
        up.rekeying = true;
        if !self.start_main(pair, Some(handle), now) {
            self.rekey_failed(handle, now);
        }
    }

    fn rekey_failed(&mut self, handle: Handle, now: Instant) {
        let jitter = self.jitter(REKEY_RETRY);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.rekeying = false;
            self.timers.set(Timer::Soft(handle), now + REKEY_RETRY + jitter);
        }
    }

    /// A phase 1 ended without an SA.
    pub(in crate::ike) fn main_failed(&mut self, handle: Handle, cause: &str, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (pair, peer, initiator) = (sa.pair(), sa.peer, sa.initiator);
        let Some(main) = sa.main_mut() else { return };
        let replaces = main.replaces;
        self.forget_sa(handle);
        if !initiator {
            self.refuse(peer, "phase_1_failed", cause);
            return;
        }
        self.notice(pair.peer, format!("phase 1 failed: {cause}"));
        if let Some(old) = replaces {
            self.rekey_failed(old, now);
        }
        let Some(p) = self.pairs.get_mut(&pair) else { return };
        if p.sas.is_empty() {
            p.failed = Some(now);
            for want in std::mem::take(&mut p.wants) {
                self.try_next_peer(pair, want, now);
            }
        } else {
            self.run_wants(pair, now);
        }
    }

    /// The peer of a waiting flow did not answer: the next one of its entry, until each had its turn.
    fn try_next_peer(&mut self, pair: PairKey, mut want: Want, now: Instant) {
        // A pair that stands belongs to its peer: its rekey is tried there again.
        if want.replaces.is_some() {
            return self.retry_child(want.replaces, now);
        }
        want.tried.push(pair.peer);
        let entry = self.config.entries.iter().find(|e| e.map == want.map && e.seq == want.seq);
        let Some((peers, flow)) = entry.and_then(|e| Some((e.peers.clone(), e.flows.iter().find(|f| f.ace == want.ace)?.clone()))) else {
            return;
        };
        let at = peers.iter().position(|p| *p == pair.peer).map_or(0, |at| at + 1);
        let next = peers.iter().cycle().skip(at).take(peers.len()).find(|p| !want.tried.contains(p));
        if let Some(next) = next {
            self.notice(pair.peer, format!("crypto map {} {} goes on with peer {next}", want.map, want.seq));
            let next = self.pair_for(PairKey::host(pair.local, *next), flow.local, flow.remote);
            self.want(next, want, now);
        }
    }

    /// The peer of an entry to begin with: the wanted one, unless it did not answer lately and another one may.
    pub(in crate::ike) fn choose_peer(&self, entry: &MapEntry, wanted: IpAddr, now: Instant) -> Option<IpAddr> {
        let at = entry.peers.iter().position(|p| *p == wanted).unwrap_or(0);
        let order = || entry.peers.iter().cycle().skip(at).take(entry.peers.len()).copied();
        let failed = |peer: &IpAddr| {
            let p = self.pairs.get(&PairKey::host(entry.local, *peer));
            p.and_then(|p| p.failed).is_some_and(|at| now.saturating_duration_since(at) < FAILED_MEMORY)
        };
        order().find(|p| !failed(p)).or_else(|| order().next())
    }

    /// The end of an ISAKMP SA's life. A peer may drop its child pairs with it (strongSwan does), so it hears of it only where another SA
    /// has them, or there are none; else its own timer ends it.
    pub(in crate::ike) fn isakmp_hard(&mut self, handle: Handle, now: Instant) {
        let pair = self.sas.get(&handle).and_then(|s| self.pairs.get(&s.pair()));
        let harmless = pair.is_some_and(|p| p.sas.len() > 1 || p.children.is_empty());
        self.remove_isakmp(handle, "lifetime ended", if harmless { Tell::Once } else { Tell::No }, now);
    }

    /// Starts quick modes for waiting flows, or the main mode they need first.
    pub(in crate::ike) fn run_wants(&mut self, pair: PairKey, now: Instant) {
        if !self.active {
            return;
        }
        let limit = (self.config.limits.quick_modes_max / 2).max(1);
        loop {
            let Some(p) = self.pairs.get(&pair).filter(|p| !p.wants.is_empty()) else { return };
            let usable = |h: &Handle| self.sas.get(h).and_then(Sa::up).is_some_and(|u| u.hard > now);
            let Some(handle) = self.primary(pair).filter(usable) else {
                if p.starting.is_none() && !self.start_main(pair, None, now) {
                    let dropped = self.pairs.get_mut(&pair).map(|p| std::mem::take(&mut p.wants)).unwrap_or_default();
                    for want in dropped {
                        self.try_next_peer(pair, want, now);
                    }
                }
                return;
            };
            let running = self.quicks.range((handle, 0)..=(handle, u32::MAX)).filter(|(_, q)| q.initiator()).count();
            if running >= limit {
                return;
            }
            let Some(want) = self.pairs.get_mut(&pair).and_then(|p| p.wants.pop_front()) else { return };
            self.start_quick(handle, want, now);
        }
    }

    /// INITIAL-CONTACT under protection: what the peer had before this SA began is gone.
    pub(super) fn obey_initial_contact(&mut self, handle: Handle, before: Instant, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(Sa::pair) else { return };
        let Some(p) = self.pairs.get(&pair) else { return };
        let older = |h: &Handle| *h != handle && self.sas.get(h).and_then(Sa::up).is_some_and(|u| u.up_at < before);
        let sas: Vec<Handle> = p.sas.iter().copied().filter(older).collect();
        let children: Vec<_> = p.children.iter().copied().filter(|spi| self.children.get(spi).is_some_and(|c| c.up_at < before)).collect();
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.contacted = true;
        }
        for spi in children {
            self.remove_child(spi, "the peer started anew (INITIAL-CONTACT)", Tell::No, now);
        }
        for old in sas {
            self.remove_isakmp(old, "the peer started anew (INITIAL-CONTACT)", Tell::No, now);
        }
    }

    /// Ends an ISAKMP SA. Child pairs stay: they belong to the peer, not to the SA.
    pub(in crate::ike) fn remove_isakmp(&mut self, handle: Handle, cause: &str, tell: Tell, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (id, pair, up) = (sa.id, sa.pair(), sa.up().is_some());
        if !up {
            return self.main_failed(handle, cause, now);
        }
        self.send_delete(handle, &Delete::Isakmp(vec![id]), tell, now);
        let quicks: Vec<u32> = self.quicks.range((handle, 0)..=(handle, u32::MAX)).map(|((_, m), _)| *m).collect();
        for message_id in quicks {
            self.quick_failed(handle, message_id, "its ISAKMP SA ended", now);
        }
        self.forget_sa(handle);
        self.event(IkeEvent::Sync(IkeRecord::Delete { id }));
        self.event(IkeEvent::IsakmpDown { id, peer: pair.peer, cause: cause.into() });
        self.run_wants(pair, now);
    }

    /// Ends everything with a peer.
    pub(in crate::ike) fn drop_pair(&mut self, pair: PairKey, cause: &str, tell: Tell, now: Instant) {
        let Some(p) = self.pairs.get_mut(&pair) else { return };
        p.wants.clear();
        p.probe = None;
        let children: Vec<_> = p.children.iter().copied().collect();
        let sas = p.sas.clone();
        let starting = p.starting.take();
        for spi in children {
            self.remove_child(spi, cause, tell, now);
        }
        for handle in sas.into_iter().rev() {
            self.remove_isakmp(handle, cause, tell, now);
        }
        if let Some(handle) = starting {
            self.forget_sa(handle);
        }
        let half: Vec<Handle> = self.sas.iter().filter(|(_, s)| s.pair() == pair && s.up().is_none()).map(|(h, _)| *h).collect();
        for handle in half {
            self.forget_sa(handle);
        }
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.wants.clear();
        }
        self.timers.clear(Timer::Dpd(pair));
        self.timers.clear(Timer::Keepalive(pair));
        self.tidy_pair(pair);
    }

    fn half_open_done(&mut self, source: std::net::IpAddr) {
        self.half_open_total = self.half_open_total.saturating_sub(1);
        if let Some(n) = self.half_open.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                self.half_open.remove(&source);
            }
        }
    }

    /// Removes an SA from every table, silently.
    pub(in crate::ike) fn forget_sa(&mut self, handle: Handle) {
        let Some(sa) = self.sas.remove(&handle) else { return };
        let first = IkeSaId { responder: [0; 8], ..sa.id };
        for id in [sa.id, first] {
            if self.by_id.get(&id) == Some(&handle) {
                self.by_id.remove(&id);
            }
        }
        if !sa.initiator {
            if let Some(from) = sa.first_from {
                self.by_first.remove(&(from, sa.id.initiator));
            }
            if sa.up().is_none() {
                self.half_open_done(sa.peer.ip());
            }
        }
        if let Some(p) = self.pairs.get_mut(&sa.pair()) {
            p.sas.retain(|h| *h != handle);
            if p.starting == Some(handle) {
                p.starting = None;
            }
        }
        let quicks: Vec<u32> = self.quicks.range((handle, 0)..=(handle, u32::MAX)).map(|((_, m), _)| *m).collect();
        for message_id in quicks {
            self.quicks.remove(&(handle, message_id));
            self.timers.clear(Timer::Quick(handle, message_id));
        }
        for timer in [
            Timer::HalfOpen(handle),
            Timer::Retransmit(handle),
            Timer::Soft(handle),
            Timer::Hard(handle),
            Timer::Overlap(handle),
            Timer::Fragments(handle),
        ] {
            self.timers.clear(timer);
        }
        self.drop_jobs(JobTarget::Main(handle));
        self.dirty.remove(&handle);
        self.fragments.forget(handle);
        self.tidy_pair(sa.pair());
    }
}
