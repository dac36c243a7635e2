//! Quick mode (RFC 2409 5.5): what both ends share, and the initiator.
//!
//! ```text
//! initiator                                        responder
//! 1* HASH(1), SA, NONCE, [KE], IDci, IDcr   ->
//!                                           <-     2* HASH(2), SA, NONCE, [KE], IDci, IDcr, [N]
//! 3* HASH(3)                                ->
//! ```
//! Both ends repeat what is not answered: the initiator message 1, the responder message 2; a repeated message 2 draws the same
//! message 3 again.

use super::crypt;
use super::nat;
use super::phase1::{NONCE_LEN, RESEND_GAP, Refuse, Verdict, backoff};
use super::quick_body::{QuickBody, Suite, check_ke, ended, unreadable};
use super::sa::{FlowKey, Handle, Quick, QuickState, Sa, Want, digest};
use crate::crypto::Secret;
use crate::ike::job::{DhDone, Job};
use crate::ike::v1::engine::{Engine, JobTarget};
use crate::ike::v1::keymat;
use crate::ike::v1::message::{Chain, Exchange, Header, Id, PayloadKind};
use crate::ike::v1::proposal::{self, EspChoice};
use crate::ike::v1::timer::Timer;
use crate::ike::{IkeCommand, MapEntry};
use crate::sad::{Lifetime, Mode, Selector};
use std::net::SocketAddr;
use std::time::Instant;

impl Engine {
    pub(super) fn suite(&self, handle: Handle) -> Option<Suite> {
        let sa = self.sas.get(&handle)?;
        let up = sa.up()?;
        Some(Suite {
            id: sa.id,
            local: sa.local,
            peer: sa.peer,
            nat: sa.nat,
            hash: up.hash,
            cipher: up.encryption,
            keys: up.keys.clone(),
            key: up.key.clone(),
            last_block: up.iv.clone(),
        })
    }

    /// Soft limits: earlier at the initiator than at the responder.
    pub(super) fn soft_lifetime(&mut self, hard: Lifetime, initiator: bool) -> Lifetime {
        let part = if initiator { 10 } else { 20 };
        let random = u64::from(self.rng.u32() % 1000);
        let soft = |v: u64| v - v / part - v / part * random / 1000;
        Lifetime { seconds: soft(hard.seconds), kilobytes: soft(hard.kilobytes) }
    }

    /// Quick modes under way for a flow: key, whether we started it, state.
    pub(super) fn quicks_for(&self, flow: &FlowKey) -> Vec<((Handle, u32), bool, QuickState)> {
        let sas = self.pairs.get(&flow.pair).map(|p| &p.sas[..]).unwrap_or_default();
        sas.iter()
            .flat_map(|h| self.quicks.range((*h, 0)..=(*h, u32::MAX)))
            .filter(|(_, q)| q.flow == *flow)
            .map(|(key, q)| (*key, q.initiator(), q.state))
            .collect()
    }

    pub(super) fn new_message_id(&mut self, handle: Handle) -> u32 {
        loop {
            let id = self.rng.u32();
            let used = self.quicks.contains_key(&(handle, id))
                || self.sas.get(&handle).and_then(Sa::up).is_some_and(|u| u.recent.iter().any(|r| r.message_id == id));
            if id != 0 && !used {
                return id;
            }
        }
    }

    /// A quick mode datagram under an established SA.
    pub(in crate::ike) fn quick_datagram(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        let verdict = self.quick_message(handle, from, header, bytes, now);
        if let Err(why) = verdict {
            match self.sas.get(&handle).map(Sa::pair) {
                Some(pair) => self.refuse_peer(pair, from, why, now),
                None => self.refuse(from, why.0, why.1),
            }
        }
    }

    fn quick_message(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let message_id = header.message_id;
        let seen = digest(bytes);
        if let Some(quick) = self.quicks.get_mut(&(handle, message_id)) {
            if quick.seen == Some(seen) {
                // Only the responder's last message answers a repetition here; the initiator waits or has computed.
                let again = quick.state == QuickState::WaitProof && now.saturating_duration_since(quick.sent_at) >= RESEND_GAP;
                let out = quick.out.clone().filter(|_| again).ok_or(Refuse("repeated", "seen already".into()))?;
                quick.sent_at = now;
                if let Some(sa) = self.sas.get(&handle) {
                    self.transmit(sa.local, from, out);
                }
                return Ok(());
            }
            return match quick.state {
                QuickState::WaitAnswer => self.quick_2(handle, from, header, bytes, now),
                QuickState::WaitProof => self.quick_3(handle, from, header, bytes, now),
                QuickState::MakeKe | QuickState::MakeKeys | QuickState::AnswerKeys => {
                    Err(Refuse("out_of_order", "keys are being computed".into()))
                }
            };
        }
        if let Some(answer) = self.repeated(handle, message_id, &seen, now)? {
            if let Some(sa) = self.sas.get(&handle) {
                self.transmit(sa.local, from, answer);
            }
            return Ok(());
        }
        self.quick_1(handle, from, header, bytes, now)
    }

    /// Looks a message ID up among those used before: the answer to repeat, a refusal, or `None` when the ID is new.
    pub(super) fn repeated(&mut self, handle: Handle, message_id: u32, seen: &super::sa::Digest, now: Instant) -> Verdict<Option<Vec<u8>>> {
        let up = self.sas.get_mut(&handle).and_then(Sa::up_mut).ok_or_else(ended)?;
        let Some(recent) = up.recent.iter_mut().find(|r| r.message_id == message_id) else { return Ok(None) };
        match &recent.answer {
            Some(answer) if recent.digest == *seen && now.saturating_duration_since(recent.at) >= RESEND_GAP => {
                recent.at = now;
                Ok(Some(answer.clone()))
            }
            _ => Err(Refuse("repeated", format!("message ID {message_id:#010x} was used"))),
        }
    }

    /// Starts a quick mode for a waiting flow.
    pub(super) fn start_quick(&mut self, handle: Handle, want: Want, now: Instant) {
        let Some(suite) = self.suite(handle) else { return };
        let pair = suite.pair();
        let config = self.config.clone();
        let found = Self::entries_of(&config, pair).find(|(_, e)| e.map == want.map && e.seq == want.seq);
        let flow = found.and_then(|(_, e)| e.flows.iter().find(|f| f.ace == want.ace));
        let (Some((entry, e)), Some(flow)) = (found, flow) else {
            self.notice(pair.peer, format!("crypto map {} {} has no such flow any more", want.map, want.seq));
            return;
        };
        let key = FlowKey { pair, local: flow.local, remote: flow.remote };
        // One exchange for a flow at a time, whoever started it; when it ends the pair is there.
        if !self.quicks_for(&key).is_empty() {
            return self.retry_child(want.replaces, now);
        }
        let (Some(ci), Some(cr)) = (Id::from_selector(&flow.local), Id::from_selector(&flow.remote)) else {
            self.notice(pair.peer, "only IPv4 flows can be negotiated".to_string());
            return;
        };
        let Some(spi_in) = self.spis.allocate(&mut *self.rng) else {
            self.notice(pair.peer, "no inbound SPI is free (dataplane sa_max)".to_string());
            self.retry_child(want.replaces, now);
            return;
        };
        let ends = suite.ends(&flow.local, &flow.remote);
        let offer = proposal::esp_offer(e, spi_in, ends);
        if offer.proposals.iter().all(|p| p.transforms.is_empty()) {
            self.notice(pair.peer, format!("crypto map {} {} has no usable transform set", want.map, want.seq));
            return self.command(IkeCommand::ReleaseSpi(spi_in));
        }
        let message_id = self.new_message_id(handle);
        let quick = Quick {
            state: QuickState::MakeKe,
            order: self.new_order(),
            config: config.clone(),
            entry,
            ace: want.ace,
            flow: key,
            spi_in,
            installed: false,
            ni: self.random_bytes(NONCE_LEN),
            nr: Vec::new(),
            secret: None,
            public: Vec::new(),
            offer: Some(offer),
            choice: None,
            ids: Some((ci.encode(), cr.encode())),
            iv: suite.first_iv(message_id),
            peer: suite.peer,
            child: None,
            replaces: want.replaces,
            seen: None,
            out: None,
            sends: 0,
            sent_at: now,
        };
        self.quicks.insert((handle, message_id), quick);
        match e.pfs {
            Some(group) => {
                let secret = group.generate(&mut *self.rng);
                let job = Job::dh(secret, true, None);
                self.push_job(JobTarget::Quick(handle, message_id), job);
            }
            None => self.quick_offer(handle, message_id, now),
        }
    }

    /// Sends message 1.
    fn quick_offer(&mut self, handle: Handle, message_id: u32, now: Instant) {
        let Some(suite) = self.suite(handle) else { return };
        let Some(quick) = self.quicks.get_mut(&(handle, message_id)) else { return };
        let mut chain = Chain::new();
        if let Some(offer) = &quick.offer {
            chain.push(PayloadKind::Sa, &offer.encode());
        }
        chain.push(PayloadKind::Nonce, &quick.ni);
        if !quick.public.is_empty() {
            chain.push(PayloadKind::KeyExchange, &quick.public);
        }
        if let Some((ci, cr)) = &quick.ids {
            chain.push(PayloadKind::Id, ci).push(PayloadKind::Id, cr);
        }
        let transport = quick.entry().is_some_and(|e| e.transforms.iter().any(|t| t.mode == Mode::Transport));
        if let Some(dialect) = suite.nat.found().filter(|_| transport && suite.ends(&quick.flow.local, &quick.flow.remote).transport) {
            nat::push_originals(&mut chain, dialect, suite.local.ip(), suite.peer.ip());
        }
        let hash = keymat::hash_1(suite.hash, &suite.keys.a, message_id, chain.bytes());
        quick.state = QuickState::WaitAnswer;
        self.quick_send(handle, message_id, &suite, chain.prepend(PayloadKind::Hash, &hash), now);
    }

    /// Encrypts a message of a quick mode, sends it, and arms its repetition.
    pub(super) fn quick_send(&mut self, handle: Handle, message_id: u32, suite: &Suite, chain: Chain, now: Instant) {
        let first = self.config.retransmit_first;
        let Some(quick) = self.quicks.get_mut(&(handle, message_id)) else { return };
        let header = suite.header(Exchange::Quick, message_id);
        let Some(out) = crypt::seal(suite.cipher, &suite.key, &mut quick.iv, header, &chain) else {
            return self.quick_failed(handle, message_id, "the cipher refused the key", now);
        };
        quick.out = Some(out.clone());
        quick.sends = 1;
        quick.sent_at = now;
        let peer = quick.peer;
        self.timers.set(Timer::Quick(handle, message_id), now + first);
        self.transmit(suite.local, peer, out);
    }

    /// Message 2, at the initiator.
    fn quick_2(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let message_id = header.message_id;
        let suite = self.suite(handle).ok_or_else(ended)?;
        let quick = self.quicks.get_mut(&(handle, message_id)).ok_or_else(ended)?;
        let (plain, iv) = crypt::open(suite.cipher, &suite.key, &quick.iv, bytes).ok_or_else(unreadable)?;
        let payloads =
            suite.verify(header, &plain, |p| keymat::hash_2(suite.hash, &suite.keys.a, message_id, &quick.ni, p.after_first()))?;
        let checked = QuickBody::read(&payloads).and_then(|body| quick.check_answer(&suite, &body).map(|choice| (body, choice)));
        self.heard(suite.pair(), now);
        let (body, choice) = match checked {
            Ok(ok) => ok,
            Err(Refuse(reason, why)) => {
                // The proof was right, so this is what the peer means: there is no point in waiting.
                self.quick_failed(handle, message_id, &format!("unacceptable answer: {why}"), now);
                return Err(Refuse(reason, why));
            }
        };
        let quick = self.quicks.get_mut(&(handle, message_id)).ok_or_else(ended)?;
        quick.seen = Some(digest(bytes));
        quick.peer = from;
        quick.iv = iv;
        quick.nr = body.nonce;
        quick.choice = Some(choice);
        match (body.ke, quick.secret.take()) {
            (Some(ke), Some(secret)) => {
                quick.state = QuickState::MakeKeys;
                self.timers.clear(Timer::Quick(handle, message_id));
                let job = Job::dh(secret, false, Some(ke));
                self.push_job(JobTarget::Quick(handle, message_id), job);
                Ok(())
            }
            _ => self.quick_finish(handle, message_id, None, now),
        }
    }

    /// The initiator has everything: install, send message 3.
    fn quick_finish(&mut self, handle: Handle, message_id: u32, gxy: Option<&Secret>, now: Instant) -> Verdict {
        let suite = self.suite(handle).ok_or_else(ended)?;
        let hard = self.quicks.get(&(handle, message_id)).and_then(|q| Some(q.choice.as_ref()?.lifetime));
        let soft = self.soft_lifetime(hard.ok_or_else(ended)?, true);
        let quick = self.quicks.get_mut(&(handle, message_id)).ok_or_else(ended)?;
        let child = match quick.derive(&suite, gxy, soft) {
            Ok(child) => child,
            Err(Refuse(reason, why)) => {
                self.quick_failed(handle, message_id, &why, now);
                return Err(Refuse(reason, why));
            }
        };
        let hash = keymat::hash_3(suite.hash, &suite.keys.a, message_id, &quick.ni, &quick.nr);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Hash, &hash);
        let header = suite.header(Exchange::Quick, message_id);
        let out = crypt::seal(suite.cipher, &suite.key, &mut quick.iv, header, &chain).ok_or_else(ended)?;
        let (order, seen, peer) = (quick.order, quick.seen, quick.peer);
        self.quicks.remove(&(handle, message_id));
        self.timers.clear(Timer::Quick(handle, message_id));
        if let (Some(up), Some(seen)) = (self.sas.get_mut(&handle).and_then(Sa::up_mut), seen) {
            // `at` in the past: the first repetition of message 2 may follow at once.
            up.remember(message_id, seen, Some(out.clone()), now);
        }
        self.dirty.insert(handle);
        self.child_up(child, order, now);
        self.follow(handle, peer, now);
        self.transmit(suite.local, peer, out);
        let pair = self.sas.get(&handle).map_or(suite.pair(), Sa::pair);
        self.run_wants(pair, now);
        Ok(())
    }

    /// A job of quick mode has run.
    pub(in crate::ike) fn quick_job(&mut self, handle: Handle, message_id: u32, done: DhDone, now: Instant) {
        if let Some(error) = &done.error {
            return self.quick_failed(handle, message_id, &format!("Diffie-Hellman: {error}"), now);
        }
        let Some(quick) = self.quicks.get_mut(&(handle, message_id)) else { return };
        match quick.state {
            QuickState::MakeKe => {
                quick.public = done.public.unwrap_or_default();
                quick.secret = Some(done.secret);
                self.quick_offer(handle, message_id, now);
            }
            QuickState::MakeKeys => {
                let _ = self.quick_finish(handle, message_id, done.shared.as_ref(), now);
            }
            QuickState::AnswerKeys => {
                quick.public = done.public.unwrap_or_default();
                self.quick_answer(handle, message_id, done.shared.as_ref(), now);
            }
            QuickState::WaitAnswer | QuickState::WaitProof => {}
        }
    }

    /// Repeats the last message, or gives up.
    pub(in crate::ike) fn quick_timeout(&mut self, handle: Handle, message_id: u32, now: Instant) {
        let (first, tries) = (self.config.retransmit_first, self.config.retransmit_tries);
        let Some(sa) = self.sas.get(&handle) else { return };
        let local = sa.local;
        let Some(quick) = self.quicks.get_mut(&(handle, message_id)) else { return };
        let peer = quick.peer;
        let (Some(out), true) = (quick.out.clone(), quick.sends < tries) else {
            return self.quick_failed(handle, message_id, "no answer", now);
        };
        quick.sends += 1;
        quick.sent_at = now;
        self.timers.set(Timer::Quick(handle, message_id), now + backoff(first, quick.sends));
        self.transmit(local, peer, out);
    }

    /// Gives back what an unfinished quick mode holds.
    pub(in crate::ike) fn release(&mut self, quick: &Quick) {
        self.command(if quick.installed { IkeCommand::RemoveChild(quick.spi_in) } else { IkeCommand::ReleaseSpi(quick.spi_in) });
    }

    /// Ends a quick mode without a pair.
    pub(in crate::ike) fn quick_failed(&mut self, handle: Handle, message_id: u32, cause: &str, now: Instant) {
        let Some(quick) = self.quicks.remove(&(handle, message_id)) else { return };
        self.timers.clear(Timer::Quick(handle, message_id));
        self.drop_jobs(JobTarget::Quick(handle, message_id));
        self.release(&quick);
        if quick.installed {
            self.dirty.insert(handle);
        }
        let f = quick.flow;
        let role = if quick.initiator() { "initiator" } else { "responder" };
        self.notice(f.pair.peer, format!("quick mode ({role}) for {:?} - {:?} failed: {cause}", f.local, f.remote));
        self.retry_child(quick.replaces, now);
        self.run_wants(f.pair, now);
    }
}

impl Quick {
    /// Checks message 2 against what was offered.
    fn check_answer(&self, suite: &Suite, body: &QuickBody) -> Verdict<EspChoice> {
        let entry: &MapEntry = self.entry().ok_or_else(ended)?;
        let offer = self.offer.as_ref().ok_or_else(ended)?;
        let ends = suite.ends(&self.flow.local, &self.flow.remote);
        let mut choice = proposal::esp_accept(entry, offer, &body.sa, ends).map_err(|why| Refuse("proposal_answer", why))?;
        if let Some(lifetime) = body.lifetime {
            choice.lifetime = proposal::shorter_lifetime(choice.lifetime, lifetime);
        }
        // In transport mode a NAT makes the ends disagree on addresses: protocol and port must still be equal.
        let translated = suite.nat.found().is_some() && entry.transforms.get(choice.transform).is_some_and(|t| t.mode == Mode::Transport);
        let same = |ours: &[u8], theirs: &[u8]| {
            let read = |b: &[u8]| Id::decode(b).ok().and_then(|id| id.selector());
            let alike = |a: Selector, b: Selector| a == b || (translated && Selector { addr: a.addr, ..b } == a);
            ours == theirs || read(ours).zip(read(theirs)).is_some_and(|(a, b)| alike(a, b))
        };
        let ids_equal = match (&self.ids, &body.ids) {
            (Some((ci, cr)), Some((theirs_ci, theirs_cr))) => same(ci, theirs_ci) && same(cr, theirs_cr),
            (Some(_), None) | (None, _) => false,
        };
        if !ids_equal {
            return Err(Refuse("invalid_id", "the answer has other IDs".into()));
        }
        check_ke(choice.pfs, body.ke.as_deref())?;
        if body.ke.as_ref().is_some_and(|ke| *ke == self.public) {
            return Err(Refuse("reflected", "our own public value came back".into()));
        }
        Ok(choice)
    }
}
