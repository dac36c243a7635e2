//! A child pair that we ask for, in IKE_AUTH or CREATE_CHILD_SA (RFC 7296 1.2, 1.3.1, 1.3.3, 2.9, 2.25.1).

use super::engine::Engine;
use super::init::NONCE_LEN;
use super::keymat::child_keys;
use super::message::{Message, Notify, NotifyType, Outgoing, Protocol};
use super::proposal::{Proposal, accept_esp, esp_offer};
use super::sa::{Handle, PairKey, Sa, Verdict, ended, entries_of, refuse};
use super::selectors;
use super::task::{ChildAgreed, ChildTask, Current, JobTarget, Phase, Sent, Task, Want, What};
use super::timer::Timer;
use crate::crypto::{DhSecret, Secret};
use crate::id::{IkeVersion, Spi};
use crate::ike::api::IkeCommand;
use crate::ike::job::{Job, Outcome};
use crate::ike::policy::MapEntry;
use crate::sad::{ChildSa, Lifetime, Mode};
use std::time::{Duration, Instant};

/// A request that the peer could not serve for the moment comes again after this time, and up to twice of it.
const AGAIN: Duration = Duration::from_secs(2);

impl ChildTask {
    fn offer(&self, group: bool) -> Vec<Proposal> {
        let Some(e) = self.entry() else { return Vec::new() };
        esp_offer(&e.transforms, self.mode, self.group.filter(|_| group), e.esn, self.spi_in)
    }

    /// What asks for the pair in IKE_AUTH: no nonce, no key exchange.
    pub(super) fn put(&self, out: &mut Outgoing) {
        if self.mode == Mode::Transport {
            out.status(NotifyType::USE_TRANSPORT_MODE, &[]);
        }
        out.sa(&self.offer(false));
        out.ts(&selectors::offer(self.flow.local, None), &selectors::offer(self.flow.remote, None));
    }

    /// The CREATE_CHILD_SA request.
    fn request(&self) -> Outgoing {
        let mut out = Outgoing::new();
        if let Some(old) = self.want.replaces {
            out.notify(Protocol::Esp, &old.0.to_be_bytes(), NotifyType::REKEY_SA, &[]);
        }
        if self.mode == Mode::Transport {
            out.status(NotifyType::USE_TRANSPORT_MODE, &[]);
        }
        out.sa(&self.offer(true)).nonce(&self.ni);
        if let Some(group) = self.group {
            out.ke(group.number(), &self.public);
        }
        out.ts(&selectors::offer(self.flow.local, None), &selectors::offer(self.flow.remote, None));
        out
    }

    /// Checks the answer against what was asked. `nr`: the peer's nonce.
    fn check(&self, m: &Message<'_>, nr: &[u8], in_auth: bool) -> Verdict<ChildAgreed> {
        let bad = |why: String| refuse("child_answer", why);
        let e = self.entry().ok_or_else(ended)?;
        let answer = m.sa.as_ref().ok_or_else(|| bad("no SA payload".into()))?;
        let choice = accept_esp(&e.transforms, self.mode, &self.offer(!in_auth), answer).map_err(|e| bad(e.to_string()))?;
        let (ts_i, ts_r) = (m.ts_i.as_deref().unwrap_or_default(), m.ts_r.as_deref().unwrap_or_default());
        let (local, remote) = selectors::accept(&self.flow, ts_i, ts_r).ok_or_else(|| bad("selectors were not asked for".into()))?;
        // A peer that does not say so made a tunnel: that is not what we want.
        if self.mode == Mode::Transport && m.notify(NotifyType::USE_TRANSPORT_MODE).is_none() {
            return Err(bad("the peer does not take transport mode".into()));
        }
        if let Some(group) = choice.suite.group {
            let ke = m.ke.ok_or_else(|| bad("no KE payload".into()))?;
            if ke.group != group.number() || ke.data.len() != group.response_len() {
                return Err(bad(format!("KE of group {} and {} bytes", ke.group, ke.data.len())));
            }
        }
        Ok(ChildAgreed { choice, mode: self.mode, local, remote, nr: nr.to_vec() })
    }
}

impl Engine {
    /// What is needed to ask for a flow's pair; `None` when it cannot be asked for (the reason is told).
    pub(super) fn prepare_child(&mut self, pair: PairKey, want: Want, with_group: bool, now: Instant) -> Option<ChildTask> {
        let config = self.config.clone();
        let found = entries_of(&config, pair).find(|(_, e, _)| e.map == want.map && e.seq == want.seq);
        let flow = found.and_then(|(_, e, _)| e.flows.iter().find(|f| f.ace == want.ace).cloned());
        let (Some((entry, e, _)), Some(flow)) = (found, flow) else {
            self.notice(pair.1, format!("crypto map {} {} has no such flow any more", want.map, want.seq));
            return None;
        };
        let Some(mode) = e.transforms.first().map(|t| t.mode) else {
            self.notice(pair.1, format!("crypto map {} {} has no transform set", want.map, want.seq));
            return None;
        };
        let Some(spi_in) = self.spis.allocate(&mut *self.rng) else {
            self.notice(pair.1, "no inbound SPI is free (dataplane sa_max)".to_string());
            self.retry_child(want.replaces, now);
            return None;
        };
        let group = e.pfs.filter(|_| with_group);
        let ni = self.random_bytes(NONCE_LEN);
        Some(ChildTask {
            want,
            config: config.clone(),
            entry,
            flow,
            mode,
            spi_in,
            ni,
            group,
            secret: Secret::default(),
            public: Vec::new(),
            agreed: None,
            rival: None,
            orphaned: false,
            doomed: Vec::new(),
        })
    }

    /// Starts a CREATE_CHILD_SA for a flow.
    pub(super) fn start_child(&mut self, handle: Handle, want: Want, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        // The pair to replace may be gone by now, or replaced by the peer.
        if want.replaces.is_some_and(|old| self.children.get(&old).is_none_or(|c| c.retired || c.deleting || self.is_replaced(old))) {
            return;
        }
        let Some(task) = self.prepare_child(pair, want, true, now) else { return };
        match task.group {
            Some(group) => {
                let secret = group.generate(&mut *self.rng);
                self.set_current(handle, What::Child(Box::new(task)), Phase::Prepare);
                self.push_job(JobTarget::Task(handle), Job::dh(secret, true, None));
            }
            None => {
                let out = task.request();
                self.send_request(handle, What::Child(Box::new(task)), &out, now);
            }
        }
    }

    /// The peer made a pair in place of this one, which is not in full use yet.
    fn is_replaced(&self, old: Spi) -> bool {
        let siblings = self.children.get(&old).and_then(|c| self.sas.get(&c.handle)).and_then(Sa::up).map(|u| &u.children);
        siblings.into_iter().flatten().filter_map(|s| self.children.get(s)).any(|c| c.replaces == Some(old))
    }

    pub(super) fn set_current(&mut self, handle: Handle, what: What, phase: Phase) {
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.current = Some(Current { what, phase });
        }
    }

    /// Our public value is there.
    pub(super) fn child_prepared(&mut self, handle: Handle, mut task: Box<ChildTask>, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Dh(done) if done.error.is_none() => {
                task.public = done.public.unwrap_or_default();
                task.secret = done.secret.bytes().clone();
                let out = task.request();
                self.send_request(handle, What::Child(task), &out, now);
            }
            _ => self.child_failed(handle, *task, "key exchange", now),
        }
    }

    /// The peer answered. `auth_nr`: in IKE_AUTH the responder's nonce of IKE_SA_INIT.
    pub(super) fn child_response(
        &mut self,
        handle: Handle,
        mut task: Box<ChildTask>,
        m: &Message<'_>,
        auth_nr: Option<&[u8]>,
        sent: Option<Sent>,
        now: Instant,
    ) {
        if m.sa.is_none()
            && let Some(n) = m.error()
        {
            return self.child_refused(handle, *task, n, now);
        }
        let Some(nr) = auth_nr.or(m.nonce) else { return self.child_failed(handle, *task, "the answer has no nonce", now) };
        let agreed = match task.check(m, nr, auth_nr.is_some()) {
            Ok(agreed) => agreed,
            Err(why) => {
                // The peer has made the pair: it should not keep it.
                let spi = task.spi_in;
                self.child_failed(handle, *task, &why.1, now);
                return self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
            }
        };
        if task.doomed.contains(&agreed.choice.spi) {
            return self.child_failed(handle, *task, "the peer deleted it at once", now);
        }
        let group = agreed.choice.suite.group;
        task.agreed = Some(agreed);
        match (group, m.ke, sent) {
            (Some(group), Some(ke), Some(sent)) => {
                let secret = DhSecret::from_bytes(group, task.secret.expose());
                let ke = ke.data.to_vec();
                self.set_current(handle, What::Child(task), Phase::Finish(sent));
                self.push_job(JobTarget::Task(handle), Job::dh(secret, false, Some(ke)));
            }
            (Some(_), ..) => {
                let spi = task.spi_in;
                self.child_failed(handle, *task, "the key exchange cannot be finished", now);
                self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
            }
            (None, ..) => self.child_made(handle, *task, None, now),
        }
    }

    /// The shared secret is there.
    pub(super) fn child_computed(&mut self, handle: Handle, task: Box<ChildTask>, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Dh(done) if done.shared.is_some() => self.child_made(handle, *task, done.shared.as_ref(), now),
            _ => {
                let spi = task.spi_in;
                self.child_failed(handle, *task, "the peer's public value is not valid", now);
                self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
            }
        }
    }

    /// Everything is agreed and known: installs the pair.
    fn child_made(&mut self, handle: Handle, task: ChildTask, shared: Option<&Secret>, now: Instant) {
        let (Some(agreed), Some(e)) = (&task.agreed, task.entry()) else { return };
        let Some(child) = self.make_child(handle, e, task.flow.ace, agreed, task.spi_in, (&task.ni, &agreed.nr), shared, true) else {
            return;
        };
        let replaces = task.want.replaces.filter(|old| self.children.contains_key(old) && !task.orphaned);
        let rival = task.rival.as_ref().filter(|(spi, _)| self.children.contains_key(spi));
        let lower = task.ni.as_slice().min(agreed.nr.as_slice());
        match rival {
            // Both ends replaced the pair: the pair of the exchange with the lowest nonce is closed by its maker (RFC 7296 2.8.1).
            Some((_, nonce)) if lower < nonce.as_slice() => {
                let spi = child.spi_in;
                self.command(IkeCommand::ReleaseSpi(spi));
                self.add_task(handle, Task::DeleteChildren(vec![spi]), now);
            }
            Some((other, _)) => {
                let other = *other;
                self.child_up(handle, child, replaces, now);
                // The peer deletes its own.
                self.retire(other, now);
            }
            None => self.child_up(handle, child, replaces, now),
        }
    }

    /// A pair from what was agreed. `nonces`: of the exchange's initiator and responder.
    #[expect(clippy::too_many_arguments, reason = "everything that a pair is made of")]
    pub(super) fn make_child(
        &mut self,
        handle: Handle,
        e: &MapEntry,
        ace: u32,
        agreed: &ChildAgreed,
        spi_in: Spi,
        nonces: (&[u8], &[u8]),
        shared: Option<&Secret>,
        initiator: bool,
    ) -> Option<Box<ChildSa>> {
        let soft = self.soft_lifetime(e.lifetime, initiator);
        let sa = self.sas.get(&handle)?;
        let up = sa.up()?;
        let suite = &agreed.choice.suite;
        let (from_us, to_us) = child_keys(up.suite.prf, &up.keys.d, shared, nonces.0, nonces.1, &[], suite.encr, suite.integ);
        let (keys_out, keys_in) = if initiator { (from_us, to_us) } else { (to_us, from_us) };
        Some(Box::new(ChildSa {
            spi_in,
            spi_out: agreed.choice.spi,
            isakmp: sa.id,
            map: e.map.clone(),
            map_seq: e.seq,
            ace,
            digest: e.digest,
            local: sa.local.ip(),
            peer: sa.peer.ip(),
            ts_local: agreed.local,
            ts_remote: agreed.remote,
            mode: agreed.mode,
            encr: suite.encr,
            integ: suite.integ,
            keys_in,
            keys_out,
            pfs: suite.group,
            lifetime: e.lifetime,
            soft,
            replay_window: e.replay_window,
            initiator,
            version: IkeVersion::V2,
            esn: suite.esn,
            encap: self.encap(handle),
        }))
    }

    /// Soft limits: earlier at the initiator than at the responder.
    fn soft_lifetime(&mut self, hard: Lifetime, initiator: bool) -> Lifetime {
        let part = if initiator { 10 } else { 20 };
        let random = u64::from(self.rng.u32() % 1000);
        let soft = |v: u64| v - v / part - v / part * random / 1000;
        Lifetime { seconds: soft(hard.seconds), kilobytes: soft(hard.kilobytes) }
    }

    /// The peer refuses.
    fn child_refused(&mut self, handle: Handle, task: ChildTask, n: &Notify<'_>, now: Instant) {
        let replaces = task.want.replaces.filter(|old| self.children.contains_key(old));
        match (n.kind, replaces) {
            // It will be able to soon: a rekey has time, a new pair is waited for.
            (NotifyType::TEMPORARY_FAILURE, None) => {
                let want = self.release(&What::Child(Box::new(task)));
                let jitter = self.jitter(AGAIN);
                self.timers.set(Timer::Again(handle), now + AGAIN + jitter);
                if let Some(want) = want {
                    self.add_task(handle, Task::Child(want), now);
                }
            }
            // The peer has not got the pair that we replace (any more): a new one in its place, unless it made one itself.
            (NotifyType::CHILD_SA_NOT_FOUND, Some(old)) => {
                let replaced = self.is_replaced(old);
                let want = self.release(&What::Child(Box::new(task)));
                self.remove_child(old, "the peer does not know it", false, now);
                if let Some(want) = want.filter(|_| !replaced) {
                    self.add_task(handle, Task::Child(Want { replaces: None, ..want }), now);
                }
            }
            (kind, _) => self.child_failed(handle, task, &format!("the peer says {kind}"), now),
        }
    }

    /// Ends the making of a pair; a pair that was to be replaced tries again later.
    pub(super) fn child_failed(&mut self, handle: Handle, task: ChildTask, cause: &str, now: Instant) {
        let Some(pair) = self.sas.get(&handle).map(|sa| sa.pair) else { return };
        let (local, remote) = (task.flow.local, task.flow.remote);
        let replaces = task.want.replaces;
        let _ = self.release(&What::Child(Box::new(task)));
        self.notice(pair.1, format!("child SA for {local:?} - {remote:?} failed: {cause}"));
        self.retry_child(replaces, now);
    }
}
