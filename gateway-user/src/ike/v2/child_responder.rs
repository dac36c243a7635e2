//! A child pair that the peer asks for, in IKE_AUTH or CREATE_CHILD_SA.

use super::child::Child;
use super::engine::Engine;
use super::init::{NONCE_LEN, respond};
use super::message::{Message, NotifyType, Outgoing, Protocol};
use super::proposal::{ChildDh, choose_esp};
use super::sa::{Fail, Fate, Handle, Sa, entries_of};
use super::selectors::narrow;
use super::task::{Answering, ChildAgreed, ChildAnswer, JobTarget, Phase, What};
use crate::crypto::Secret;
use crate::id::Spi;
use crate::ike::api::IkeCommand;
use crate::ike::job::Outcome;
use crate::ike::policy::Flow;
use crate::sad::Mode;
use std::time::Instant;

/// Pairs that a peer may have for one access-list line: as many as it may have CPUs (RFC 9611).
const PAIRS_PER_FLOW_MAX: usize = 128;

impl Engine {
    /// A CREATE_CHILD_SA request: a child, a child in place of another, or a new IKE SA.
    pub(super) fn create_child_request(&mut self, handle: Handle, m: &Message<'_>, now: Instant) {
        if m.sa.as_ref().is_some_and(|sa| sa.iter().any(|p| p.protocol == Protocol::Ike)) {
            return self.rekey_request(handle, m, now);
        }
        match self.child_request(handle, m, now) {
            Ok(()) => {}
            Err(fail) => {
                if let Some(peer) = self.sas.get(&handle).map(|sa| sa.pair.1) {
                    self.notice(peer, format!("child SA refused with {}: {}", fail.kind, fail.why));
                }
                self.answer_fail(handle, &fail, now);
            }
        }
    }

    fn child_request(&mut self, handle: Handle, m: &Message<'_>, now: Instant) -> Result<(), Fail> {
        let ended = || Fail::new(NotifyType::TEMPORARY_FAILURE, "the IKE SA ends");
        let up = self.sas.get(&handle).and_then(Sa::up).ok_or_else(ended)?;
        let rekeying = up.current.as_ref().is_some_and(|c| matches!(c.what, What::RekeyIke(_)) && !matches!(c.phase, Phase::Prepare));
        if up.fate != Fate::Live || rekeying {
            return Err(Fail::new(NotifyType::TEMPORARY_FAILURE, "the IKE SA is being replaced or deleted"));
        }
        let old = match m.notify(NotifyType::REKEY_SA) {
            Some(n) => Some(self.rekeyed_pair(handle, n.esp_spi())?),
            None => None,
        };
        let ni = m.nonce.ok_or_else(|| Fail::new(NotifyType::INVALID_SYNTAX, "no nonce"))?.to_vec();
        let answer = self.choose_child(handle, m, false, old, ni)?;
        match answer.agreed.choice.suite.group {
            Some(group) => {
                let ke = m.ke.as_ref().filter(|ke| ke.group == group.number()).ok_or_else(|| Fail::group(group))?;
                if ke.data.len() != group.public_len() {
                    return Err(Fail::new(NotifyType::INVALID_SYNTAX, format!("KE of {} bytes", ke.data.len())));
                }
                let secret = group.generate(&mut *self.rng);
                if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
                    up.answering = Some(Answering::Child(Box::new(answer)));
                }
                self.push_job(JobTarget::Answer(handle), respond(secret, ke.data));
                Ok(())
            }
            None => {
                let mut out = Outgoing::new();
                self.child_answer(handle, answer, None, &mut out, true, now)?;
                self.answer(handle, &out, now);
                Ok(())
            }
        }
    }

    /// The pair that a peer wants to replace (RFC 7296 2.25.1).
    fn rekeyed_pair(&mut self, handle: Handle, spi_out: Option<Spi>) -> Result<Spi, Fail> {
        // The answer that tells us of the pair may still be on its way.
        let current = self.sas.get(&handle).and_then(Sa::up).and_then(|u| u.current.as_ref());
        let making = current.is_some_and(|c| matches!(c.what, What::Child(_)) && !matches!(c.phase, Phase::Prepare));
        let kind = if making { NotifyType::TEMPORARY_FAILURE } else { NotifyType::CHILD_SA_NOT_FOUND };
        let unknown = || Fail { spi: spi_out.filter(|_| !making), ..Fail::new(kind, format!("no pair {spi_out:?}")) };
        let spi = spi_out.and_then(|spi| self.outbound.get(&(handle, spi))).copied().ok_or_else(unknown)?;
        let child = self.children.get(&spi).ok_or_else(unknown)?;
        if child.deleting || child.retired {
            return Err(Fail::new(NotifyType::TEMPORARY_FAILURE, "the pair is being deleted"));
        }
        let siblings = self.sas.get(&handle).and_then(Sa::up).into_iter().flat_map(|u| &u.children);
        let heir = |c: &Child| c.replaces == Some(spi) && !c.retired && !c.deleting;
        if siblings.filter_map(|s| self.children.get(s)).any(heir) {
            return Err(Fail::new(NotifyType::TEMPORARY_FAILURE, "the pair is replaced already"));
        }
        // Our own rekey that was not sent yet is not needed any more.
        let current = self.sas.get(&handle).and_then(Sa::up).and_then(|u| u.current.as_ref());
        let ours = current.is_some_and(|c| matches!(&c.what, What::Child(t) if t.want.replaces == Some(spi)));
        if ours && let Some(what) = self.drop_prepared(handle) {
            self.release(&what);
        }
        Ok(spi)
    }

    /// Finds the flow that is asked for and a proposal for it.
    fn choose_child(&self, handle: Handle, m: &Message<'_>, in_auth: bool, old: Option<Spi>, ni: Vec<u8>) -> Result<ChildAnswer, Fail> {
        let syntax = |why: &str| Fail::new(NotifyType::INVALID_SYNTAX, why);
        let sa = self.sas.get(&handle).ok_or_else(|| syntax("no SA"))?;
        let up = sa.up().ok_or_else(|| syntax("no SA"))?;
        let offer = m.sa.as_deref().ok_or_else(|| syntax("no SA payload"))?;
        let remote = m.ts_i.as_deref().ok_or_else(|| syntax("no TSi"))?;
        let local = m.ts_r.as_deref().ok_or_else(|| syntax("no TSr"))?;
        let asked = m.notify(NotifyType::USE_TRANSPORT_MODE).is_some();
        let modes = if asked { &[Mode::Transport, Mode::Tunnel][..] } else { &[Mode::Tunnel] };
        let old = old.and_then(|spi| self.children.get(&spi));
        let config = self.config.clone();
        let mut refusal = Fail::new(NotifyType::TS_UNACCEPTABLE, format!("no access list line meets {local:?} - {remote:?}"));
        let entries = entries_of(&config, sa.pair).filter(|(_, _, p)| p.name == up.profile.name);
        // A rekey is for the entry and line of the pair that it replaces.
        let same = |e: &crate::ike::policy::MapEntry| old.is_none_or(|c| (e.map.as_str(), e.seq) == (c.flow.map.as_str(), c.flow.seq));
        for (entry, e, _) in entries.filter(|(_, e, _)| same(e)) {
            let flows: Vec<&Flow> = e.flows.iter().filter(|f| old.is_none_or(|c| c.flow.ace == f.ace)).collect();
            let Some(found) = narrow(flows.iter().copied(), local, remote) else { continue };
            let of_flow = |c: &&Child| (c.flow.map.as_str(), c.flow.seq, c.flow.ace) == (e.map.as_str(), e.seq, found.ace);
            let pairs = up.children.iter().filter_map(|spi| self.children.get(spi)).filter(of_flow).count();
            let most = if old.is_none() { PAIRS_PER_FLOW_MAX } else { 2 * PAIRS_PER_FLOW_MAX };
            if pairs >= most {
                return Err(Fail::new(NotifyType::NO_ADDITIONAL_SAS, format!("{pairs} pairs for one line of the access list")));
            }
            let dh = if in_auth { ChildDh::Absent } else { e.pfs.map_or(ChildDh::Any, ChildDh::Only) };
            let group = m.ke.map(|ke| ke.group);
            let chosen = modes.iter().find_map(|mode| Some((*mode, choose_esp(&e.transforms, *mode, dh, e.esn, offer, group).ok()?)));
            let Some((mode, choice)) = chosen else {
                refusal = Fail::new(NotifyType::NO_PROPOSAL_CHOSEN, "nothing of the offer meets what is configured");
                continue;
            };
            let nr = Vec::new();
            let agreed = ChildAgreed { choice, mode, local: found.local, remote: found.remote, nr };
            let replaces = old.map(|c| c.spi_in);
            return Ok(ChildAnswer { config: config.clone(), entry, ace: found.ace, agreed, ni, replaces, narrowed: found.narrowed });
        }
        Err(refusal)
    }

    /// The first child, asked for in IKE_AUTH. What hinders it is said beside the proof: the IKE SA stands all the same.
    pub(super) fn first_child_request(
        &mut self,
        handle: Handle,
        m: &Message<'_>,
        nonces: (Vec<u8>, Vec<u8>),
        out: &mut Outgoing,
        now: Instant,
    ) {
        let made = self.choose_child(handle, m, true, None, nonces.0).and_then(|mut answer| {
            answer.agreed.nr = nonces.1;
            self.child_answer(handle, answer, None, out, false, now)
        });
        if let Err(fail) = made {
            if let Some(peer) = self.sas.get(&handle).map(|sa| sa.pair.1) {
                self.notice(peer, format!("first child SA refused with {}: {}", fail.kind, fail.why));
            }
            fail.put(out);
        }
    }

    /// Makes the pair, installs it, and writes the payloads of the answer.
    fn child_answer(
        &mut self,
        handle: Handle,
        mut answer: ChildAnswer,
        exchanged: Option<(&[u8], &Secret)>,
        out: &mut Outgoing,
        with_nonce: bool,
        now: Instant,
    ) -> Result<(), Fail> {
        let failed = |why: &str| Fail::new(NotifyType::NO_ADDITIONAL_SAS, why);
        let config = answer.config.clone();
        let e = config.entries.get(answer.entry).ok_or_else(|| failed("no such entry"))?;
        let spi_in = self.spis.allocate(&mut *self.rng).ok_or_else(|| failed("no inbound SPI is free (dataplane sa_max)"))?;
        if with_nonce {
            answer.agreed.nr = self.random_bytes(NONCE_LEN);
        }
        let agreed = &answer.agreed;
        let shared = exchanged.map(|(_, shared)| shared);
        let child = self.make_child(handle, e, answer.ace, agreed, spi_in, (&answer.ni, &agreed.nr), shared, false);
        let Some(child) = child else {
            self.command(IkeCommand::ReleaseSpi(spi_in));
            return Err(failed("the IKE SA ended"));
        };
        let mut proposal = agreed.choice.answer.clone();
        proposal.spi = spi_in.0.to_be_bytes().to_vec();
        if agreed.mode == Mode::Transport {
            out.status(NotifyType::USE_TRANSPORT_MODE, &[]);
        }
        if answer.narrowed {
            out.status(NotifyType::ADDITIONAL_TS_POSSIBLE, &[]);
        }
        out.sa(&[proposal]);
        if with_nonce {
            out.nonce(&agreed.nr);
        }
        if let (Some((public, _)), Some(group)) = (exchanged, agreed.choice.suite.group) {
            out.ke(group.number(), public);
        }
        let of = |s| [super::selectors::TrafficSelector::of(s)];
        out.ts(&of(agreed.remote), &of(agreed.local));
        match answer.replaces.filter(|old| self.children.contains_key(old)) {
            Some(old) => {
                let lower = answer.ni.clone().min(agreed.nr.clone());
                self.note_rival(handle, old, spi_in, lower);
                self.child_inbound(handle, child, old, now);
            }
            None => self.child_up(handle, child, None, now),
        }
        Ok(())
    }

    /// Our own rekey of the same pair is on its way: which of the two stays is known when it is answered.
    fn note_rival(&mut self, handle: Handle, old: Spi, spi: Spi, lower: Vec<u8>) {
        let current = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|u| u.current.as_mut());
        if let Some(current) = current
            && let What::Child(task) = &mut current.what
            && task.want.replaces == Some(old)
        {
            task.rival = Some((spi, lower));
        }
    }

    /// A job for the answer to a request has run.
    pub(super) fn answer_job(&mut self, handle: Handle, outcome: Outcome, now: Instant) {
        let Some(answering) = self.sas.get_mut(&handle).and_then(Sa::up_mut).and_then(|up| up.answering.take()) else { return };
        let (public, shared) = match outcome {
            Outcome::Responded(Ok(done)) => done,
            // The public value is not one of the group.
            _ => return self.answer_fail(handle, &Fail::new(NotifyType::INVALID_SYNTAX, "public value"), now),
        };
        match answering {
            Answering::Child(answer) => {
                let mut out = Outgoing::new();
                match self.child_answer(handle, *answer, Some((&public, &shared)), &mut out, true, now) {
                    Ok(()) => self.answer(handle, &out, now),
                    Err(fail) => self.answer_fail(handle, &fail, now),
                }
            }
            Answering::RekeyIke(answer) => self.rekey_answer(handle, *answer, &public, &shared, now),
        }
    }
}
