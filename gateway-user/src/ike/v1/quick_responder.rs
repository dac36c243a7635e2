//! Quick mode, the responder's side.

use super::crypt;
use super::nat;
use super::phase1::{NONCE_LEN, Refuse, Verdict};
use super::quick_body::{QuickBody, Suite, check_ke, ended, unreadable};
use super::sa::{FlowKey, Handle, Quick, QuickState, Sa, digest};
use crate::crypto::Secret;
use crate::ike::job::Job;
use crate::ike::v1::engine::{Engine, JobTarget};
use crate::ike::v1::keymat;
use crate::ike::v1::message::{Chain, Header, Id, Notify, PayloadKind, notify_type, protocol};
use crate::ike::v1::proposal::{self, Ends, EspChoice};
use crate::ike::v1::timer::Timer;
use crate::ike::{IkeCommand, IkeConfig};
use crate::sad::{Mode, Selector};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What a request was matched with.
struct Match {
    entry: usize,
    ace: u32,
    flow: FlowKey,
    choice: EspChoice,
}

impl Engine {
    /// Message 1.
    pub(super) fn quick_1(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let message_id = header.message_id;
        let suite = self.suite(handle).ok_or_else(ended)?;
        let first_iv = suite.first_iv(message_id);
        let (plain, iv) = crypt::open(suite.cipher, &suite.key, &first_iv, bytes).ok_or_else(unreadable)?;
        let payloads = suite.verify(header, &plain, |p| keymat::hash_1(suite.hash, &suite.keys.a, message_id, p.after_first()))?;
        let running = self.quicks.range((handle, 0)..=(handle, u32::MAX)).count();
        if running >= self.config.limits.quick_modes_max {
            return Err(Refuse("quick_modes_limit", format!("{running} are running")));
        }
        let body = QuickBody::read(&payloads)?;
        let config = self.config.clone();
        let found = match_request(&config, &suite, &body);
        let found = match found {
            Ok(found) => found,
            Err((kind, Refuse(reason, why))) => {
                self.quick_refused(handle, message_id, kind, &body, bytes, now);
                return Err(Refuse(reason, why));
            }
        };
        if let Some(holder) = self.flow_holder(&found.flow) {
            // If that one is gone, this shows it.
            self.probe(holder, now);
            self.quick_refused(handle, message_id, notify_type::INVALID_ID_INFORMATION, &body, bytes, now);
            return Err(Refuse("flow_taken", format!("another peer behind {} carries this traffic", holder.peer)));
        }
        if self.siblings(suite.pair()).any(|(pair, _)| self.outbound.contains_key(&(*pair, found.choice.spi))) {
            self.quick_refused(handle, message_id, notify_type::NO_PROPOSAL_CHOSEN, &body, bytes, now);
            return Err(Refuse("spi_taken", format!("SPI {} is in use at this address", found.choice.spi)));
        }
        self.yield_to(handle, message_id, &found.flow, now)?;
        let Some(spi_in) = self.spis.allocate(&mut *self.rng) else {
            return Err(Refuse("no_spi", "no inbound SPI is free (dataplane sa_max)".into()));
        };
        let pfs = found.choice.pfs;
        let quick = Quick {
            state: QuickState::AnswerKeys,
            order: self.new_order(),
            config,
            entry: found.entry,
            ace: found.ace,
            flow: found.flow,
            spi_in,
            installed: false,
            ni: body.nonce,
            nr: self.random_bytes(NONCE_LEN),
            secret: None,
            public: Vec::new(),
            offer: None,
            choice: Some(found.choice),
            ids: body.ids,
            iv,
            peer: from,
            child: None,
            replaces: None,
            seen: Some(digest(bytes)),
            out: None,
            sends: 0,
            sent_at: now,
        };
        self.quicks.insert((handle, message_id), quick);
        match (pfs, body.ke) {
            (Some(group), Some(ke)) => {
                let secret = group.generate(&mut *self.rng);
                let job = Job::dh(secret, true, Some(ke));
                self.push_job(JobTarget::Quick(handle, message_id), job);
            }
            _ => self.quick_answer(handle, message_id, None, now),
        }
        Ok(())
    }

    /// Both ends started an exchange for one flow. The higher message ID carries on, the other is given up; both ends see the same two
    /// (addresses may differ behind a NAT), so the last pair made is the same one at both.
    fn yield_to(&mut self, handle: Handle, theirs: u32, flow: &FlowKey, now: Instant) -> Verdict {
        let running = self.quicks_for(flow);
        let ours: Vec<_> = running.iter().copied().filter(|(_, initiator, _)| *initiator).map(|(k, _, s)| (k, s)).collect();
        for ((h, message_id), state) in ours {
            let answered = state == QuickState::MakeKeys;
            if answered || message_id > theirs {
                return Err(Refuse("collision", "our own exchange for this flow goes first".into()));
            }
            let Some(quick) = self.quicks.remove(&(h, message_id)) else { continue };
            self.timers.clear(Timer::Quick(h, message_id));
            self.drop_jobs(JobTarget::Quick(h, message_id));
            self.release(&quick);
            self.retry_child(quick.replaces, now);
            // An answer that still comes must not be taken for a request.
            if let Some(up) = self.sas.get_mut(&h).and_then(Sa::up_mut) {
                up.remember(message_id, [0; 32], None, now);
            }
            self.dirty.insert(h);
        }
        // A peer that begins again and again without proving anything (it restarted, or its own timer ended) holds one exchange.
        for ((h, message_id), initiator, _) in running {
            if !initiator && h == handle {
                self.quick_failed(h, message_id, "the peer began again", now);
            }
        }
        Ok(())
    }

    /// Tells the peer under protection why its request was refused.
    fn quick_refused(&mut self, handle: Handle, message_id: u32, kind: u16, body: &QuickBody, bytes: &[u8], now: Instant) {
        let spi = body.sa.proposals.first().map(|p| p.spi.clone()).unwrap_or_default();
        let n = Notify { protocol: protocol::ESP, kind, spi, data: Vec::new() };
        let sent = self.send_informational(handle, PayloadKind::Notify, &n.encode());
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.remember(message_id, digest(bytes), sent, now);
            self.dirty.insert(handle);
        }
    }

    /// Installs the inbound half and sends message 2.
    pub(super) fn quick_answer(&mut self, handle: Handle, message_id: u32, gxy: Option<&Secret>, now: Instant) {
        let Some(suite) = self.suite(handle) else { return };
        let hard = self.quicks.get(&(handle, message_id)).and_then(|q| Some(q.choice.as_ref()?.lifetime));
        let Some(hard) = hard else { return };
        let soft = self.soft_lifetime(hard, false);
        let Some(quick) = self.quicks.get_mut(&(handle, message_id)) else { return };
        let child = match quick.derive(&suite, gxy, soft) {
            Ok(child) => child,
            Err(Refuse(_, why)) => return self.quick_failed(handle, message_id, &why, now),
        };
        let chain = quick.answer_chain(&suite);
        let hash = keymat::hash_2(suite.hash, &suite.keys.a, message_id, &quick.ni, chain.bytes());
        quick.child = Some(child.clone());
        quick.installed = true;
        quick.state = QuickState::WaitProof;
        self.command(IkeCommand::InstallInbound(child));
        self.dirty.insert(handle);
        self.quick_send(handle, message_id, &suite, chain.prepend(PayloadKind::Hash, &hash), now);
    }

    /// Message 3: the peer has the keys.
    pub(super) fn quick_3(&mut self, handle: Handle, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let message_id = header.message_id;
        let suite = self.suite(handle).ok_or_else(ended)?;
        let quick = self.quicks.get_mut(&(handle, message_id)).ok_or_else(ended)?;
        let (plain, _) = crypt::open(suite.cipher, &suite.key, &quick.iv, bytes).ok_or_else(unreadable)?;
        let payloads = suite.verify(header, &plain, |_| keymat::hash_3(suite.hash, &suite.keys.a, message_id, &quick.ni, &quick.nr))?;
        payloads.only(&[PayloadKind::Hash, PayloadKind::Notify, PayloadKind::Vendor])?;
        let quick = self.quicks.remove(&(handle, message_id)).ok_or_else(ended)?;
        self.timers.clear(Timer::Quick(handle, message_id));
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.remember(message_id, digest(bytes), None, now);
        }
        self.dirty.insert(handle);
        self.heard(suite.pair(), now);
        if let Some(child) = quick.child {
            self.child_up(child, quick.order, now);
        }
        self.follow(handle, from, now);
        let pair = self.sas.get(&handle).map_or(suite.pair(), Sa::pair);
        self.run_wants(pair, now);
        Ok(())
    }

    /// Mirrored exchanges whose message 3 is awaited go on: the inbound half is installed, message 2 is repeated by timer.
    pub(in crate::ike) fn resume_quicks(&mut self, handle: Handle, now: Instant) {
        let first = self.config.retransmit_first;
        let mut install = Vec::new();
        for (key, quick) in self.quicks.range_mut((handle, 0)..=(handle, u32::MAX)) {
            if let (QuickState::WaitProof, Some(child)) = (quick.state, &quick.child) {
                install.push((*key, child.clone()));
                quick.sent_at = now;
            }
        }
        for ((h, message_id), child) in install {
            self.command(IkeCommand::InstallInbound(child));
            self.timers.set(Timer::Quick(h, message_id), now + first);
        }
    }
}

impl Quick {
    /// Payloads of message 2 behind the HASH.
    fn answer_chain(&self, suite: &Suite) -> Chain {
        let mut chain = Chain::new();
        if let Some(choice) = &self.choice {
            let mut answer = choice.answer.clone();
            for p in &mut answer.proposals {
                p.spi = self.spi_in.0.to_be_bytes().to_vec();
            }
            chain.push(PayloadKind::Sa, &answer.encode());
        }
        chain.push(PayloadKind::Nonce, &self.nr);
        if !self.public.is_empty() {
            chain.push(PayloadKind::KeyExchange, &self.public);
        }
        if let Some((ci, cr)) = &self.ids {
            chain.push(PayloadKind::Id, ci).push(PayloadKind::Id, cr);
        }
        let chosen = self.choice.as_ref().and_then(|c| self.entry()?.transforms.get(c.transform));
        if let Some(dialect) = suite.nat.found().filter(|_| chosen.is_some_and(|t| t.mode == Mode::Transport)) {
            nat::push_originals(&mut chain, dialect, suite.peer.ip(), suite.local.ip());
        }
        if let Some(choice) = self.choice.as_ref().filter(|c| c.shortened) {
            let n = Notify {
                protocol: protocol::ESP,
                kind: notify_type::RESPONDER_LIFETIME,
                spi: self.spi_in.0.to_be_bytes().to_vec(),
                data: proposal::lifetime_data(choice.lifetime),
            };
            chain.push(PayloadKind::Notify, &n.encode());
        }
        chain
    }
}

/// Finds the flow whose selectors are the mirror image of the request, in an entry that can agree to its proposal.
fn match_request(config: &Arc<IkeConfig>, suite: &Suite, body: &QuickBody) -> Result<Match, (u16, Refuse)> {
    let pair = suite.pair();
    let bad_id = |why: &str| (notify_type::INVALID_ID_INFORMATION, Refuse("invalid_id", why.into()));
    let host = |addr| Selector { addr, prefix: 32, proto: 0, port: 0 };
    let (remote, local, shown) = match &body.ids {
        None => (host(pair.peer), host(pair.local), "none".to_string()),
        Some((ci, cr)) => {
            let read = |b: &[u8]| Id::decode(b).map_err(|e| bad_id(&e.to_string()));
            let (ci, cr) = (read(ci)?, read(cr)?);
            let shown = format!("{} - {}", ci.text(), cr.text());
            let selector = |id: &Id| id.selector().ok_or_else(|| bad_id(&format!("{} is no selector", id.text())));
            (selector(&ci)?, selector(&cr)?, shown)
        }
    };
    let plain = (local, remote, suite.ends(&local, &remote));
    let candidates = std::iter::once(plain).chain(behind_nat(suite, body, local, remote));
    let mut refusal = None;
    for (local, remote, ends) in candidates {
        for (entry, e) in Engine::entries_of(config, pair) {
            let Some(flow) = e.flows.iter().find(|f| f.local == local && f.remote == remote) else { continue };
            let chosen = proposal::esp_choose(e, &body.sa, ends)
                .map_err(|why| Refuse("no_proposal_chosen", why))
                .and_then(|choice| check_ke(choice.pfs, body.ke.as_deref()).map(|()| choice));
            match chosen {
                Ok(choice) => {
                    let flow_key = FlowKey { pair, local, remote };
                    return Ok(Match { entry, ace: flow.ace, flow: flow_key, choice });
                }
                Err(why) => refusal = Some((notify_type::NO_PROPOSAL_CHOSEN, why)),
            }
        }
    }
    Err(refusal.unwrap_or_else(|| bad_id(&format!("no access list entry is the mirror image of {shown}"))))
}

/// The traffic of two hosts as it looks on our side of the NAT (RFC 3947 5.2): an end behind it names its own address, or the other end
/// names the NAT's. In transport mode alone, where the ends themselves are meant.
fn behind_nat(suite: &Suite, body: &QuickBody, local: Selector, remote: Selector) -> Option<(Selector, Selector, Ends)> {
    suite.nat.found()?;
    if local.prefix != 32 || remote.prefix != 32 {
        return None;
    }
    let original = body.originals.map(|(initiator, _)| initiator);
    if suite.nat.peer && original.is_some_and(|o| o != remote.addr) {
        return None;
    }
    let seen = |s: Selector, changed: bool, addr| if changed { Selector { addr, ..s } } else { s };
    let local = seen(local, suite.nat.us, suite.local.ip());
    let remote = seen(remote, suite.nat.peer, suite.peer.ip());
    Some((local, remote, Ends { tunnel: false, ..suite.ends(&local, &remote) }))
}
