//! IKE_SA_INIT, the responder's side. Costs are taken in this order: a table look-up, a hash (cookie), a proposal, a key exchange.

use super::engine::Engine;
use super::init::{NONCE_LEN, caps_of, hashes_of, respond};
use super::message::{Exchange, Fault, HEADER_LEN, Header, Message, NotifyType, Outgoing};
use super::proof::put_cert_request;
use super::proposal::{IkeChoice, Proposal, choose_ike};
use super::sa::{Caps, Handle, Init, InitState, PairKey, Sa, Stage, Verdict, digest, profiles_of, refuse};
use super::task::JobTarget;
use super::timer::Timer;
use crate::id::IkeSaId;
use crate::ike::policy::Ikev2Profile;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A repeated first message is answered again after this time at the soonest.
const RESEND_GAP: Duration = Duration::from_millis(100);

impl Engine {
    /// The first message of a peer, or its repetition.
    pub(super) fn init_request(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let first = (from, header.id.initiator);
        if let Some(&handle) = self.by_first.get(&first) {
            return self.init_repeated(handle, to, bytes, now);
        }
        let pair: PairKey = (to.ip(), from.ip());
        let profiles = profiles_of(&self.config, pair);
        if profiles.is_empty() {
            // A peer that is configured for version 1 shall know at once; strangers hear nothing.
            if self.config.entries.iter().any(|e| e.local == pair.0 && e.peers.contains(&pair.1)) {
                self.refuse_init(from, to, header, NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            }
            return Err(refuse("no_profile", "no IKEv2 profile is configured for this peer"));
        }
        let m = match Message::decode(header.next, bytes.get(HEADER_LEN..).unwrap_or_default()) {
            Ok(m) => m,
            Err(fault) => {
                if let Fault::Critical(kind) = fault {
                    self.refuse_init(from, to, header, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]);
                }
                return Err(fault.into());
            }
        };
        let form = |what: &str| refuse("init_payloads", what.to_owned());
        let nonce = m.nonce.ok_or_else(|| form("no nonce"))?;
        let limits = self.config.limits;
        // Also when one source alone has many: somebody else may be using its address.
        let of_source = self.half_open.get(&from.ip()).copied().unwrap_or(0);
        if self.half_open_total >= self.config.cookie_threshold || of_source >= limits.half_open_per_source_max.div_ceil(2) {
            let cookie = m.notify(NotifyType::COOKIE).map_or(&[][..], |n| n.data);
            if !self.cookies.check(cookie, nonce, from.ip(), &header.id.initiator, now) {
                let cookie = self.cookies.make(nonce, from.ip(), &header.id.initiator, &mut *self.rng, now);
                self.refuse_init(from, to, header, NotifyType::COOKIE, &cookie);
                return Err(refuse("cookie_wanted", format!("{} half-open SAs", self.half_open_total)));
            }
        }
        if self.half_open_total >= limits.half_open_max {
            return Err(refuse("half_open_limit", format!("{} half-open SAs", self.half_open_total)));
        }
        if of_source >= limits.half_open_per_source_max {
            return Err(refuse("half_open_source_limit", "too many from this address"));
        }
        if self.sas.len() >= limits.established_max.saturating_add(limits.half_open_max) {
            return Err(refuse("established_limit", format!("{} IKE SAs", self.sas.len())));
        }
        let offer = m.sa.as_ref().ok_or_else(|| form("no SA payload"))?;
        let ke = m.ke.ok_or_else(|| form("no KE payload"))?;
        let chosen = choose_profile(&profiles, offer, ke.group);
        let Some((profile, choice)) = chosen else {
            self.refuse_init(from, to, header, NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return Err(refuse("no_proposal_chosen", "nothing of the offer meets what is configured"));
        };
        if !choice.suite.additional.is_empty() && m.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_none() {
            self.refuse_init(from, to, header, NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return Err(refuse("intermediate", "additional key exchanges without IKE_INTERMEDIATE"));
        }
        let group = choice.suite.group;
        if ke.group != group.number() {
            self.refuse_init(from, to, header, NotifyType::INVALID_KE_PAYLOAD, &group.number().to_be_bytes());
            return Err(refuse("ke_group", format!("KE of group {}, {} is wanted", ke.group, group.number())));
        }
        if !Init::ke_fits(group, ke.group, ke.data.len(), false) {
            return Err(refuse("ke_length", format!("KE of {} bytes", ke.data.len())));
        }
        let caps = caps_of(&m, header.id, to, from, &profile);
        let ni = nonce.to_vec();
        let handle = self.add_responder(pair, from, to, header, bytes, profile, choice, caps, ni, now);
        if let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) {
            init.peer_hashes = hashes_of(&m);
            init.ppk_announced = m.notify(NotifyType::USE_PPK).is_some();
        }
        let secret = group.generate(&mut *self.rng);
        self.push_job(JobTarget::Init(handle), respond(secret, ke.data));
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a first message says")]
    fn add_responder(
        &mut self,
        pair: PairKey,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        profile: Arc<Ikev2Profile>,
        choice: IkeChoice,
        caps: Caps,
        ni: Vec<u8>,
        now: Instant,
    ) -> Handle {
        let handle = self.new_handle();
        let id = IkeSaId { initiator: header.id.initiator, responder: self.new_ike_spi() };
        let init = Init {
            state: InitState::AnswerInit,
            config: self.config.clone(),
            profile,
            group: choice.suite.group,
            secret: None,
            public: Vec::new(),
            cookie: Vec::new(),
            restarts: 0,
            ni,
            nr: self.random_bytes(NONCE_LEN),
            suite: Some(choice.suite),
            keys: None,
            message_i: bytes.to_vec(),
            // The answer's SA payload waits here until the message is made.
            message_r: Proposal::encode_all(&[choice.answer]),
            caps,
            message_id: 0,
            seen: Some(digest(bytes)),
            extra_done: 0,
            int_i: Vec::new(),
            int_r: Vec::new(),
            int_auth: Vec::new(),
            reply_to: None,
            ppk_announced: false,
            ppk_used: false,
            plain_keys: None,
            peer_hashes: Vec::new(),
            pending: None,
            out: Vec::new(),
            sends: 0,
            sent_at: now,
            child: None,
            refused: None,
        };
        let stage = Stage::Init(Box::new(init));
        let sa = Sa { id, pair, local: to, peer: from, first: from, initiator: false, born: now, partial: None, stage };
        self.sas.insert(handle, sa);
        self.by_spi.insert(id.responder, handle);
        self.by_first.insert((from, id.initiator), handle);
        self.half_open_total += 1;
        *self.half_open.entry(from.ip()).or_default() += 1;
        self.timers.set(Timer::HalfOpen(handle), now + self.config.limits.half_open_age_max);
        handle
    }

    /// Our public value is there: answers the first message.
    pub(super) fn answer_init(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (id, local, peer) = (sa.id, sa.local, sa.peer);
        let Some(init) = sa.init() else { return };
        let mut out = Outgoing::new();
        out.add(super::message::PayloadKind::Sa, &init.message_r);
        out.ke(init.group.number(), &init.public).nonce(&init.nr);
        self.put_init_notifies(&mut out, id, local, peer, &init.profile);
        if init.ppk_announced {
            super::ppk::announce(&mut out, &init.profile);
        }
        out.status(NotifyType::CHILDLESS_IKEV2_SUPPORTED, &[]);
        put_cert_request(&mut out, &init.profile);
        let message = out.plain(&Header::new(id, Exchange::SaInit, false, true, 0));
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.state = InitState::AnsweredInit;
        init.message_r.clone_from(&message);
        init.out = vec![message.clone()];
        init.sent_at = now;
        self.transmit(local, peer, message);
    }

    /// The same first message again draws the same answer, never more often than it comes.
    fn init_repeated(&mut self, handle: Handle, to: SocketAddr, bytes: &[u8], now: Instant) -> Verdict {
        let again = || refuse("repeated", "the first message was answered");
        let sa = self.sas.get_mut(&handle).filter(|sa| sa.local == to).ok_or_else(again)?;
        let (local, peer) = (sa.local, sa.peer);
        let init = sa.init_mut().filter(|i| i.state == InitState::AnsweredInit && i.seen == Some(digest(bytes))).ok_or_else(again)?;
        if now.saturating_duration_since(init.sent_at) < RESEND_GAP {
            return Err(again());
        }
        init.sent_at = now;
        let message = init.message_r.clone();
        self.transmit(local, peer, message);
        Ok(())
    }

    /// Refuses a first message, without keeping anything. Shorter than the request, and one for one.
    fn refuse_init(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, kind: NotifyType, data: &[u8]) {
        let mut out = Outgoing::new();
        out.status(kind, data);
        let answer = out.plain(&header.answer());
        self.transmit(to, from, answer);
    }
}

/// The first profile that can agree to the offer; one that takes the peer's group comes before others.
fn choose_profile(profiles: &[Arc<Ikev2Profile>], offer: &[Proposal], group: u16) -> Option<(Arc<Ikev2Profile>, IkeChoice)> {
    let can = |p: &Arc<Ikev2Profile>| choose_ike(&p.proposals, offer, Some(group), false).ok().map(|c| (p.clone(), c));
    let mut all = profiles.iter().filter_map(can);
    let first = all.next()?;
    if first.1.suite.group.number() == group {
        return Some(first);
    }
    Some(all.find(|(_, c)| c.suite.group.number() == group).unwrap_or(first))
}
