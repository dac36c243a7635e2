//! A new IKE SA in place of another (RFC 7296 1.3.2, 2.18, 2.25.2).
//!
//! The end that asked for it deletes the old one. When both ask at the same time two new SAs come about; the one whose exchange had the
//! lowest of the four nonces is deleted by the end that asked for it, and the children go to the other.

use super::engine::Engine;
use super::ike::Begin;
use super::init::{NONCE_LEN, respond};
use super::keymat::{IkeKeys, skeyseed_next};
use super::message::{Message, NotifyType, Outgoing};
use super::proposal::{IkeChoice, accept_ike, choose_ike, ike_offer};
use super::sa::{Fail, Fate, Handle, Sa, Stage, Verdict, ended, refuse};
use super::task::{Answering, JobTarget, Phase, RekeyAnswer, RekeyTask, Sent, Task, What};
use super::timer::Timer;
use crate::crypto::{DhGroup, DhSecret, Secret};
use crate::id::IkeSaId;
use crate::ike::api::IkeEvent;
use crate::ike::job::{Job, Outcome};
use crate::ike::policy::{Ikev2Profile, Ikev2Proposal};
use std::time::Instant;

/// What is offered and taken for a new IKE SA: without additional key exchanges. Their secrets live on in SK_d, from which the new keys come.
fn plain(profile: &Ikev2Profile) -> Vec<Ikev2Proposal> {
    profile.proposals.iter().map(|p| Ikev2Proposal { additional: Vec::new(), ..p.clone() }).collect()
}

impl Engine {
    /// Starts to ask for a new IKE SA.
    pub(super) fn start_rekey(&mut self, handle: Handle, now: Instant) {
        let spi = self.new_ike_spi();
        let ni = self.random_bytes(NONCE_LEN);
        let Some(up) = self.sas.get(&handle).and_then(Sa::up) else { return };
        let offered = up.profile.proposals.iter().flat_map(|p| &p.groups).copied();
        let group = offered.clone().find(|g| *g == up.suite.group).or_else(|| offered.clone().next());
        let Some(group) = group else { return self.retry_rekey(handle, now) };
        let task = RekeyTask { spi, ni, group, secret: Secret::default(), public: Vec::new(), regrouped: false, agreed: None };
        self.prepare_rekey(handle, Box::new(task));
    }

    fn prepare_rekey(&mut self, handle: Handle, task: Box<RekeyTask>) {
        let secret = task.group.generate(&mut *self.rng);
        self.set_current(handle, What::RekeyIke(task), Phase::Prepare);
        self.push_job(JobTarget::Task(handle), Job::dh(secret, true, None));
    }

    /// Our public value is there.
    pub(super) fn rekey_prepared(&mut self, handle: Handle, mut task: Box<RekeyTask>, outcome: Outcome, now: Instant) {
        let Outcome::Dh(done) = outcome else { return self.rekey_failed(handle, "key exchange", now) };
        let Some(public) = done.public else { return self.rekey_failed(handle, "key exchange", now) };
        let Some(up) = self.sas.get(&handle).and_then(Sa::up) else { return };
        let mut out = Outgoing::new();
        out.sa(&ike_offer(&plain(&up.profile), Some(task.spi))).nonce(&task.ni).ke(task.group.number(), &public);
        task.public = public;
        task.secret = done.secret.bytes().clone();
        self.send_request(handle, What::RekeyIke(task), &out, now);
    }

    /// The peer answered.
    pub(super) fn rekey_response(&mut self, handle: Handle, mut task: Box<RekeyTask>, m: &Message<'_>, sent: Sent, now: Instant) {
        if let Some(n) = m.error().filter(|_| m.sa.is_none()) {
            let group = n.group().filter(|_| n.kind == NotifyType::INVALID_KE_PAYLOAD).and_then(DhGroup::from_number);
            let up = self.sas.get(&handle).and_then(Sa::up);
            let offered = |g: &DhGroup| up.is_some_and(|u| u.profile.proposals.iter().any(|p| p.groups.contains(g)));
            return match group.filter(|g| offered(g) && *g != task.group && !task.regrouped) {
                Some(group) => {
                    task.group = group;
                    task.regrouped = true;
                    self.prepare_rekey(handle, task);
                }
                None => self.rekey_failed(handle, &format!("the peer says {}", n.kind), now),
            };
        }
        match self.check_rekey(handle, &task, m) {
            Ok(choice) => {
                let (Some(ke), Some(nr)) = (m.ke, m.nonce) else {
                    return self.rekey_failed(handle, "the answer lacks a payload", now);
                };
                let secret = DhSecret::from_bytes(task.group, task.secret.expose());
                task.agreed = Some((choice, nr.to_vec()));
                self.set_current(handle, What::RekeyIke(task), Phase::Finish(sent));
                self.push_job(JobTarget::Task(handle), Job::dh(secret, false, Some(ke.data.to_vec())));
            }
            // The peer has a new SA that we cannot use: both end.
            Err(why) => self.rekey_broken(handle, &why.1, now),
        }
    }

    fn check_rekey(&self, handle: Handle, task: &RekeyTask, m: &Message<'_>) -> Verdict<IkeChoice> {
        let bad = |why: String| refuse("rekey_answer", why);
        let up = self.sas.get(&handle).and_then(Sa::up).ok_or_else(ended)?;
        let answer = m.sa.as_ref().ok_or_else(|| bad("no SA payload".into()))?;
        let offer = ike_offer(&plain(&up.profile), Some(task.spi));
        let choice = accept_ike(&plain(&up.profile), &offer, answer, true).map_err(|e| bad(e.to_string()))?;
        let ke = m.ke.ok_or_else(|| bad("no KE payload".into()))?;
        let fits = choice.suite.group == task.group && ke.group == task.group.number() && ke.data.len() == task.group.response_len();
        if fits && m.nonce.is_some() && ke.data != task.public { Ok(choice) } else { Err(bad("KE payload or nonce".into())) }
    }

    /// The shared secret is there: the new SA stands.
    pub(super) fn rekey_computed(&mut self, handle: Handle, task: Box<RekeyTask>, outcome: Outcome, now: Instant) {
        let shared = if let Outcome::Dh(done) = outcome { done.shared } else { None };
        let (Some(shared), Some((choice, nr))) = (shared, &task.agreed) else {
            return self.rekey_broken(handle, "the peer's public value is not valid", now);
        };
        let Some(spi) = choice.spi else { return self.rekey_broken(handle, "no SPI", now) };
        let id = IkeSaId { initiator: task.spi, responder: spi };
        let lower = task.ni.clone().min(nr.clone());
        let Some(new) = self.successor(handle, id, true, choice, (&task.ni, nr), &shared, now) else { return };
        let rival = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|u| u.rival.take());
        let rival = rival.and_then(|(id, nonce)| Some((self.by_id(&id)?, nonce)));
        match rival {
            // Ours had the lowest nonce: it goes, by us. The old one is deleted by the peer.
            Some((heir, nonce)) if lower < nonce => {
                self.inherit(handle, heir, now);
                self.linger(handle, now);
                self.add_task(new, Task::DeleteIke, now);
            }
            rival => {
                self.inherit(handle, new, now);
                if let Some((loser, _)) = rival {
                    self.linger(loser, now);
                }
                if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
                    up.fate = Fate::Replaced;
                }
                self.add_task(handle, Task::DeleteIke, now);
            }
        }
    }

    /// The rekey did not come about; the old SA stays.
    pub(super) fn rekey_failed(&mut self, handle: Handle, cause: &str, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let peer = sa.pair.1;
        let rival = sa.up_mut().and_then(|up| up.rival.take());
        match rival.and_then(|(id, _)| self.by_id(&id)) {
            // The peer made one meanwhile.
            Some(heir) => {
                self.inherit(handle, heir, now);
                self.linger(handle, now);
            }
            None => {
                self.notice(peer, format!("IKE SA rekey failed: {cause}"));
                self.retry_rekey(handle, now);
            }
        }
    }

    /// The peer holds a new SA that we cannot speak under: everything with it begins anew.
    fn rekey_broken(&mut self, handle: Handle, cause: &str, now: Instant) {
        let peer = self.sas.get(&handle).map(|sa| sa.pair.1);
        if let Some(peer) = peer {
            self.notice(peer, format!("IKE SA rekey failed: {cause}"));
        }
        self.close_ike(handle, "its rekey failed", now);
    }

    /// The peer asks for a new IKE SA.
    pub(super) fn rekey_request(&mut self, handle: Handle, m: &Message<'_>, now: Instant) {
        if let Err(fail) = self.rekey_asked(handle, m) {
            if let Some(peer) = self.sas.get(&handle).map(|sa| sa.pair.1) {
                self.notice(peer, format!("IKE SA rekey refused with {}: {}", fail.kind, fail.why));
            }
            self.answer_fail(handle, &fail, now);
        }
    }

    fn rekey_asked(&mut self, handle: Handle, m: &Message<'_>) -> Result<(), Fail> {
        let busy = |why: &str| Fail::new(NotifyType::TEMPORARY_FAILURE, why);
        let syntax = |why: &str| Fail::new(NotifyType::INVALID_SYNTAX, why);
        let up = self.sas.get(&handle).and_then(Sa::up).ok_or_else(|| busy("no SA"))?;
        if up.fate != Fate::Live {
            return Err(busy("the IKE SA is being replaced or deleted"));
        }
        if up.rival.is_some() {
            return Err(busy("a rekey of the peer crossed ours already"));
        }
        let child =
            |c: &super::task::Current| matches!(c.what, What::Child(_) | What::DeleteChildren(_)) && !matches!(c.phase, Phase::Prepare);
        if up.current.as_ref().is_some_and(child) {
            return Err(busy("a child SA is being made or deleted"));
        }
        let offer = m.sa.as_deref().ok_or_else(|| syntax("no SA payload"))?;
        let ke = m.ke.ok_or_else(|| syntax("no KE payload"))?;
        let ni = m.nonce.ok_or_else(|| syntax("no nonce"))?.to_vec();
        let choice = choose_ike(&plain(&up.profile), offer, Some(ke.group), true)
            .map_err(|e| Fail::new(NotifyType::NO_PROPOSAL_CHOSEN, e.to_string()))?;
        let group = choice.suite.group;
        if ke.group != group.number() {
            return Err(Fail::group(group));
        }
        if ke.data.len() != group.public_len() {
            return Err(syntax("KE length"));
        }
        // Our own request that was not sent yet waits; a rekey is not needed any more.
        if let Some(what) = self.drop_prepared(handle)
            && let Some(want) = self.release(&what)
            && let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut)
        {
            up.tasks.push_front(Task::Child(want));
        }
        let secret = group.generate(&mut *self.rng);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.answering = Some(Answering::RekeyIke(Box::new(RekeyAnswer { choice, ni })));
        }
        self.push_job(JobTarget::Answer(handle), respond(secret, ke.data));
        Ok(())
    }

    /// The key exchange is done: the new SA stands, and the answer says so.
    pub(super) fn rekey_answer(&mut self, handle: Handle, answer: RekeyAnswer, public: &[u8], shared: &Secret, now: Instant) {
        let nr = self.random_bytes(NONCE_LEN);
        let spi = self.new_ike_spi();
        let Some(theirs) = answer.choice.spi else { return };
        let id = IkeSaId { initiator: theirs, responder: spi };
        let mut proposal = answer.choice.answer.clone();
        proposal.spi = spi.to_vec();
        let mut out = Outgoing::new();
        out.sa(&[proposal]).nonce(&nr).ke(answer.choice.suite.group.number(), public);
        let lower = answer.ni.clone().min(nr.clone());
        let Some(new) = self.successor(handle, id, false, &answer.choice, (&answer.ni, &nr), shared, now) else { return };
        let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) else { return };
        let ours = up.current.as_ref().is_some_and(|c| matches!(c.what, What::RekeyIke(_)));
        if ours {
            up.rival = Some((id, lower));
        } else {
            self.inherit(handle, new, now);
            self.linger(handle, now);
        }
        self.answer(handle, &out, now);
    }

    /// Makes the SA that takes the place of another.
    #[expect(clippy::too_many_arguments, reason = "everything that an IKE SA is made of")]
    fn successor(
        &mut self,
        old: Handle,
        id: IkeSaId,
        initiator: bool,
        choice: &IkeChoice,
        nonces: (&[u8], &[u8]),
        shared: &Secret,
        now: Instant,
    ) -> Option<Handle> {
        let sa = self.sas.get(&old)?;
        let up = sa.up()?;
        let seed = skeyseed_next(up.suite.prf, &up.keys.d, shared, nonces.0, nonces.1, &[]);
        let keys = IkeKeys::derive(&choice.suite, &seed, nonces.0, nonces.1, &id);
        let begin = Begin {
            profile: up.profile.clone(),
            suite: choice.suite.clone(),
            keys,
            caps: up.caps,
            peer_id: up.peer_id.clone(),
            send_id: 0,
            recv_id: 0,
        };
        let (pair, local, peer, first, old_id) = (sa.pair, sa.local, sa.peer, sa.first, sa.id);
        let up = self.fresh_up(begin, initiator, now);
        let new = self.new_handle();
        let sa = Sa { id, pair, local, peer, first, initiator, born: now, partial: None, stage: Stage::Up(Box::new(up)) };
        self.by_spi.insert(sa.our_spi(), new);
        self.sas.insert(new, sa);
        self.enter_pair(new, pair);
        self.dirty.insert(new);
        self.timers.clear(Timer::Soft(old));
        self.arm_lifetime(new, now);
        self.arm_dpd(new, now);
        self.arm_keepalive(new, now);
        self.event(IkeEvent::IsakmpUp { id, peer: pair.1, initiator, rekey: Some(old_id) });
        Some(new)
    }
}
