//! Main mode with pre-shared keys (RFC 2409 5.4).
//!
//! ```text
//! initiator                      responder
//! 1  SA, VID             ->
//!                        <-      2  SA, VID
//! 3  KE, NONCE           ->
//!                        <-      4  KE, NONCE
//! 5* ID, HASH_I, [N]     ->
//!                        <-      6* ID, HASH_R
//! ```
//! The responder never sends of its own accord: a repeated request gets the same answer, at a bounded rate.

use super::crypt;
use super::main_proof::{check_id, gone};
use super::sa::{Handle, Main, MainState, PairKey, Sa, Stage, digest};
use crate::id::IkeSaId;
use crate::ike::job::{DhDone, Job};
use crate::ike::v1::engine::{Engine, JobTarget};
use crate::ike::v1::keymat;
use crate::ike::v1::message::{
    Chain, Exchange, HEADER_LEN, Header, Id, Notify, PayloadKind, Payloads, SaPayload, VENDOR_DPD, flag, is_dpd_vendor, notify_type,
};
use crate::ike::v1::proposal;
use crate::ike::v1::timer::Timer;
use crate::wire::DecodeError;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Length of our nonces, bytes.
pub(super) const NONCE_LEN: usize = 32;
/// Nonces the peer may send, bytes (RFC 2409 5).
const NONCE_RANGE: std::ops::RangeInclusive<usize> = 8..=256;
/// A repeated request is answered again at most once in this time.
pub(super) const RESEND_GAP: Duration = Duration::from_millis(400);
/// Unprotected notifications to one peer are at least this far apart.
const NOTIFY_GAP: Duration = Duration::from_secs(1);
/// Why a message was refused: counter label and detail.
#[derive(Debug)]
pub(super) struct Refuse(pub(super) &'static str, pub(super) String);

impl From<DecodeError> for Refuse {
    fn from(e: DecodeError) -> Self {
        Self("payloads", e.to_string())
    }
}

pub(super) type Verdict<T = ()> = Result<T, Refuse>;

/// Refuses a nonce of a forbidden length.
pub(super) fn check_nonce(nonce: &[u8]) -> Verdict {
    if NONCE_RANGE.contains(&nonce.len()) { Ok(()) } else { Err(Refuse("nonce_length", format!("{} bytes", nonce.len()))) }
}

fn clear<'a>(header: &Header, bytes: &'a [u8]) -> Verdict<Payloads<'a>> {
    if header.flags & flag::ENCRYPTED != 0 {
        return Err(Refuse("encrypted_too_early", String::new()));
    }
    Ok(Payloads::decode_clear(header.next, bytes.get(HEADER_LEN..).unwrap_or_default())?)
}

fn main_header(id: IkeSaId) -> Header {
    Header { id, next: 0, exchange: Exchange::Main, flags: 0, message_id: 0 }
}

impl Engine {
    fn main(&mut self, handle: Handle) -> Verdict<&mut Main> {
        self.sas.get_mut(&handle).and_then(Sa::main_mut).ok_or_else(gone)
    }

    /// Any main mode datagram.
    pub(in crate::ike) fn main_datagram(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        let verdict = if header.message_id != 0 {
            Err(Refuse("message_id", "not zero in phase 1".into()))
        } else if header.id.responder == [0; 8] {
            self.main_first(from, to, header, bytes, now)
        } else {
            self.main_later(from, to, header, bytes, now)
        };
        if let Err(why) = verdict {
            self.refuse_peer((to.ip(), from.ip()), from, why, now);
        }
    }

    /// Message 1.
    fn main_first(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        if let Some(&handle) = self.by_first.get(&(from, header.id.initiator)) {
            return self.main_repeated(handle, bytes, now);
        }
        if self.by_id.contains_key(&header.id) {
            return Err(Refuse("reflected", "our own first message came back".into()));
        }
        let pair: PairKey = (to.ip(), from.ip());
        let config = self.config.clone();
        if Self::entries_of(&config, pair).next().is_none() || self.psk(from.ip()).is_none() {
            return Err(Refuse("unknown_peer", "no crypto map entry or no key for this address".into()));
        }
        let limits = config.limits;
        let known = self.pairs.get(&pair).is_some_and(|p| !p.sas.is_empty());
        if self.half_open.get(&from.ip()).is_some_and(|n| *n >= limits.half_open_per_source_max) {
            return Err(Refuse("half_open_per_source", String::new()));
        }
        // A flood of strangers must not keep a peer with a tunnel from its rekey.
        if self.half_open_total >= limits.half_open_max && !known {
            return Err(Refuse("half_open_limit", String::new()));
        }
        if self.sas.len() >= limits.established_max.saturating_add(limits.half_open_max) {
            return Err(Refuse("established_limit", String::new()));
        }
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        payloads.only(&[PayloadKind::Sa, PayloadKind::Vendor])?;
        let sai = payloads.one(PayloadKind::Sa)?;
        let offer = SaPayload::decode(sai)?;
        let (index, answer, lifetime_s) = match proposal::isakmp_choose(&config.policies, &offer) {
            Ok(choice) => choice,
            Err(why) => {
                self.notify_unprotected(from, to, header.id, notify_type::NO_PROPOSAL_CHOSEN, now);
                return Err(Refuse("no_proposal_chosen", why));
            }
        };
        let mut id = header.id;
        while id.responder == [0; 8] || self.by_id.contains_key(&id) {
            self.rng.fill(&mut id.responder);
        }
        let handle = self.new_handle();
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &answer.encode()).push(PayloadKind::Vendor, &VENDOR_DPD);
        let out = chain.message(main_header(id));
        let main = Main {
            policy: config.policies.get(index).cloned(),
            lifetime_s,
            sai: sai.to_vec(),
            peer_dpd: payloads.all(PayloadKind::Vendor).any(is_dpd_vendor),
            seen: Some(digest(bytes)),
            ..Main::new(MainState::AnsweredSa, config, now)
        };
        let stage = Stage::Main(Box::new(main));
        self.sas.insert(handle, Sa { id, local: to, peer: from, initiator: false, born: now, stage });
        self.by_id.insert(id, handle);
        self.by_first.insert((from, id.initiator), handle);
        self.half_open_total += 1;
        *self.half_open.entry(from.ip()).or_default() += 1;
        self.timers.set(Timer::HalfOpen(handle), now + limits.half_open_age_max);
        self.main_send(handle, out, now)
    }

    /// A request that was answered before: the same answer again, seldom.
    fn main_repeated(&mut self, handle: Handle, bytes: &[u8], now: Instant) -> Verdict {
        let tries = self.config.retransmit_tries;
        let Some(sa) = self.sas.get_mut(&handle) else { return Err(gone()) };
        let (local, peer) = (sa.local, sa.peer);
        let answer = match &mut sa.stage {
            Stage::Up(up) => match &up.last_main {
                Some((seen, answer)) if *seen == digest(bytes) => Some(answer.clone()),
                _ => None,
            },
            Stage::Main(main) if main.seen != Some(digest(bytes)) => None,
            Stage::Main(main) => {
                if now.saturating_duration_since(main.sent_at) < RESEND_GAP || main.sends >= tries {
                    return Err(Refuse("repeated", "answered already".into()));
                }
                main.sends += 1;
                main.sent_at = now;
                main.out.clone()
            }
        };
        let answer = answer.ok_or(Refuse("repeated", "not the last request".into()))?;
        self.transmit(local, peer, answer);
        Ok(())
    }

    /// Messages 2 to 6.
    fn main_later(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let first = IkeSaId { responder: [0; 8], ..header.id };
        let found = self.by_id.get(&header.id).or_else(|| self.by_id.get(&first)).copied();
        let handle = found.ok_or_else(|| Refuse("unknown_cookies", format!("{:?}", header.id)))?;
        let sa = self.sas.get_mut(&handle).ok_or_else(gone)?;
        if sa.peer != from || sa.local != to {
            return Err(Refuse("wrong_address", format!("{:?} belongs to {}", header.id, sa.peer)));
        }
        let initiator = sa.initiator;
        let Some(main) = sa.main_mut() else { return self.main_repeated(handle, bytes, now) };
        let seen = digest(bytes);
        if main.seen == Some(seen) {
            return if initiator {
                // The answer to our last message but one: our own timer cares for the rest.
                Err(Refuse("repeated", "answer seen already".into()))
            } else {
                self.main_repeated(handle, bytes, now)
            };
        }
        match main.state {
            MainState::WaitSa => self.main_2(handle, header, bytes, now),
            MainState::AnsweredSa => self.main_3(handle, header, bytes, now),
            MainState::WaitKe => self.main_4(handle, header, bytes, now),
            MainState::AnsweredKe => self.main_5(handle, header, bytes, now),
            MainState::WaitAuth => self.main_6(handle, header, bytes, now),
            MainState::MakeKe | MainState::MakeKeys | MainState::AnswerKeys => {
                Err(Refuse("out_of_order", "keys are being computed".into()))
            }
        }
    }

    /// Starts a main mode with a peer.
    pub(in crate::ike) fn start_main(&mut self, pair: PairKey, replaces: Option<Handle>, now: Instant) -> bool {
        let config = self.config.clone();
        let offer = proposal::isakmp_offer(&config.policies);
        let transforms = offer.proposals.first().map_or(0, |p| p.transforms.len());
        let problem = if Self::entries_of(&config, pair).next().is_none() {
            Some("no crypto map entry names this peer")
        } else if self.psk(pair.1).is_none() {
            Some("no pre-shared key for this address (crypto isakmp key)")
        } else if transforms == 0 {
            Some("no isakmp policy is configured")
        } else if self.sas.len() >= config.limits.established_max.saturating_add(config.limits.half_open_max) {
            Some("too many ISAKMP SAs")
        } else {
            None
        };
        if let Some(problem) = problem {
            self.notice(pair.1, format!("main mode cannot start: {problem}"));
            return false;
        }
        let mut id = IkeSaId::default();
        while id.initiator == [0; 8] || self.by_id.contains_key(&id) {
            self.rng.fill(&mut id.initiator);
        }
        let handle = self.new_handle();
        let sai = offer.encode();
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &sai).push(PayloadKind::Vendor, &VENDOR_DPD);
        let out = chain.message(main_header(id));
        let main = Main { offer: Some(offer), sai, replaces, ..Main::new(MainState::WaitSa, config, now) };
        let (local, peer) = (SocketAddr::new(pair.0, 500), SocketAddr::new(pair.1, 500));
        self.sas.insert(handle, Sa { id, local, peer, initiator: true, born: now, stage: Stage::Main(Box::new(main)) });
        self.by_id.insert(id, handle);
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.starting = Some(handle);
        }
        self.main_send(handle, out, now).is_ok()
    }

    /// Message 2, at the initiator.
    fn main_2(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        payloads.only(&[PayloadKind::Sa, PayloadKind::Vendor])?;
        let answer = SaPayload::decode(payloads.one(PayloadKind::Sa)?)?;
        let peer_dpd = payloads.all(PayloadKind::Vendor).any(is_dpd_vendor);
        let main = self.main(handle)?;
        let offer = main.offer.as_ref().ok_or_else(gone)?;
        let (index, lifetime_s) =
            proposal::isakmp_accept(&main.config.policies, offer, &answer).map_err(|why| Refuse("proposal_answer", why))?;
        let policy = main.config.policies.get(index).cloned().ok_or_else(gone)?;
        let group = policy.group;
        main.policy = Some(policy);
        main.lifetime_s = lifetime_s;
        main.peer_dpd = peer_dpd;
        main.seen = Some(digest(bytes));
        let secret = group.generate(&mut *self.rng);
        if let Some(sa) = self.sas.get_mut(&handle) {
            let old = sa.id;
            sa.id = header.id;
            self.by_id.remove(&old);
            self.by_id.insert(header.id, handle);
        }
        self.main_compute(handle, MainState::MakeKe, Job::dh(secret, true, None), now)
    }

    /// Hands a job out and waits for it.
    fn main_compute(&mut self, handle: Handle, state: MainState, job: Job, now: Instant) -> Verdict {
        let age = self.config.limits.half_open_age_max;
        let main = self.main(handle)?;
        main.state = state;
        main.out = None;
        self.timers.clear(Timer::Retransmit(handle));
        // From here on the whole exchange has a limit: a responder forgets a half-open SA about as early.
        if !self.timers.is_set(Timer::HalfOpen(handle)) {
            self.timers.set(Timer::HalfOpen(handle), now + age);
        }
        self.push_job(JobTarget::Main(handle), job);
        Ok(())
    }

    /// KE and NONCE of messages 3 and 4.
    fn read_ke(&mut self, handle: Handle, header: &Header, bytes: &[u8]) -> Verdict<(Vec<u8>, Vec<u8>)> {
        let payloads = clear(header, bytes)?;
        // Peers that could also use certificates may ask for one here; there is nothing to answer.
        payloads.only(&[PayloadKind::KeyExchange, PayloadKind::Nonce, PayloadKind::Vendor, PayloadKind::CertRequest])?;
        let ke = payloads.one(PayloadKind::KeyExchange)?;
        let nonce = payloads.one(PayloadKind::Nonce)?;
        check_nonce(nonce)?;
        let peer_dpd = payloads.all(PayloadKind::Vendor).any(is_dpd_vendor);
        let main = self.main(handle)?;
        let group = main.policy.as_ref().ok_or_else(gone)?.group;
        if ke.len() != group.public_len() {
            return Err(Refuse("ke_length", format!("{} bytes for group {}", ke.len(), group.number())));
        }
        if ke == main.gxi {
            return Err(Refuse("reflected", "our own public value came back".into()));
        }
        main.peer_dpd |= peer_dpd;
        Ok((ke.to_vec(), nonce.to_vec()))
    }

    /// Message 3, at the responder.
    fn main_3(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (ke, nonce) = self.read_ke(handle, header, bytes)?;
        let main = self.main(handle)?;
        let group = main.policy.as_ref().ok_or_else(gone)?.group;
        main.seen = Some(digest(bytes));
        main.gxi.clone_from(&ke);
        main.ni = nonce;
        let secret = group.generate(&mut *self.rng);
        self.main_compute(handle, MainState::AnswerKeys, Job::dh(secret, true, Some(ke)), now)
    }

    /// Message 4, at the initiator.
    fn main_4(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (ke, nonce) = self.read_ke(handle, header, bytes)?;
        let main = self.main(handle)?;
        let secret = main.secret.take().ok_or_else(gone)?;
        main.seen = Some(digest(bytes));
        main.gxr.clone_from(&ke);
        main.nr = nonce;
        self.main_compute(handle, MainState::MakeKeys, Job::dh(secret, false, Some(ke)), now)
    }

    /// A job of main mode has run.
    pub(in crate::ike) fn main_job(&mut self, handle: Handle, done: DhDone, now: Instant) {
        if let Some(error) = &done.error {
            return self.main_failed(handle, &format!("Diffie-Hellman: {error}"), now);
        }
        if let Err(Refuse(_, why)) = self.main_continue(handle, done, now) {
            self.main_failed(handle, &why, now);
        }
    }

    fn main_continue(&mut self, handle: Handle, done: DhDone, now: Instant) -> Verdict {
        let nonce = self.random_bytes(NONCE_LEN);
        let (id, psk) = {
            let sa = self.sas.get(&handle).ok_or_else(gone)?;
            (sa.id, self.psk(sa.peer.ip()))
        };
        let main = self.main(handle)?;
        match main.state {
            MainState::MakeKe => {
                main.gxi = done.public.ok_or_else(gone)?;
                main.ni = nonce;
                main.secret = Some(done.secret);
                main.state = MainState::WaitKe;
                let out = ke_message(id, &main.gxi, &main.ni);
                self.main_send(handle, out, now)
            }
            MainState::AnswerKeys => {
                main.gxr = done.public.ok_or_else(gone)?;
                main.nr = nonce;
                main.derive(id, psk, &done.shared.ok_or_else(gone)?)?;
                main.state = MainState::AnsweredKe;
                let out = ke_message(id, &main.gxr, &main.nr);
                self.main_send(handle, out, now)
            }
            MainState::MakeKeys => {
                main.derive(id, psk, &done.shared.ok_or_else(gone)?)?;
                main.state = MainState::WaitAuth;
                self.main_prove(handle, now)
            }
            MainState::WaitSa | MainState::WaitKe | MainState::WaitAuth | MainState::AnsweredSa | MainState::AnsweredKe => Err(gone()),
        }
    }

    /// Sends message 5.
    fn main_prove(&mut self, handle: Handle, now: Instant) -> Verdict {
        let sa = self.sas.get(&handle).ok_or_else(gone)?;
        let (id, pair) = (sa.id, sa.pair());
        let p = self.pairs.get(&pair);
        let first_contact = !self.inherited && p.is_none_or(|p| !p.met && p.children.is_empty());
        let idii = Id::host(pair.0).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        let proof = keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), &idii);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &idii).push(PayloadKind::Hash, &proof);
        if first_contact {
            let n = Notify::isakmp(notify_type::INITIAL_CONTACT, id, Vec::new());
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let out = crypt::seal(cipher, &main.key, &mut main.iv, main_header(id), &chain).ok_or_else(gone)?;
        self.main_send(handle, out, now)
    }

    /// Message 5, at the responder.
    fn main_5(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (id, local, peer) = self.sas.get(&handle).map(|s| (s.id, s.local, s.peer)).ok_or_else(gone)?;
        let idir = Id::host(local.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        let proof = main.read_proof(header, bytes, |main, idii| keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), idii))?;
        let name = check_id(&proof.id, peer.ip())?;
        let mut iv = proof.iv;
        let answer_proof = keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), &idir);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &idir).push(PayloadKind::Hash, &answer_proof);
        let out = crypt::seal(cipher, &main.key, &mut iv, main_header(id), &chain).ok_or_else(gone)?;
        main.iv = iv;
        self.transmit(local, peer, out.clone());
        self.main_up(handle, name, Some((digest(bytes), out)), proof.initial_contact, now);
        Ok(())
    }

    /// Message 6, at the initiator.
    fn main_6(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (id, peer) = self.sas.get(&handle).map(|s| (s.id, s.peer)).ok_or_else(gone)?;
        let main = self.main(handle)?;
        let (hash, _) = main.suite()?;
        let proof = main.read_proof(header, bytes, |main, idir| keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), idir))?;
        let name = check_id(&proof.id, peer.ip())?;
        main.iv = proof.iv;
        if let Some(seconds) = proof.lifetime_s {
            main.lifetime_s = proposal::isakmp_lifetime(main.lifetime_s, Some(seconds));
        }
        self.main_up(handle, name, None, proof.initial_contact, now);
        Ok(())
    }

    /// Sends a main mode message; the initiator repeats it by timer.
    fn main_send(&mut self, handle: Handle, out: Vec<u8>, now: Instant) -> Verdict {
        let first = self.config.retransmit_first;
        let sa = self.sas.get_mut(&handle).ok_or_else(gone)?;
        let (local, peer, initiator) = (sa.local, sa.peer, sa.initiator);
        let main = sa.main_mut().ok_or_else(gone)?;
        main.out = Some(out.clone());
        main.sends = 1;
        main.sent_at = now;
        if initiator {
            self.timers.set(Timer::Retransmit(handle), now + first);
        }
        self.transmit(local, peer, out);
        Ok(())
    }

    /// The exchange did not end in time.
    pub(in crate::ike) fn main_too_old(&mut self, handle: Handle, now: Instant) {
        let Ok(main) = self.main(handle) else { return };
        let state = main.state;
        self.main_failed(handle, &no_answer(state), now);
    }

    /// The initiator's retransmission.
    pub(in crate::ike) fn main_retransmit(&mut self, handle: Handle, now: Instant) {
        let (first, tries) = (self.config.retransmit_first, self.config.retransmit_tries);
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (local, peer) = (sa.local, sa.peer);
        let Some(main) = sa.main_mut() else { return };
        let (Some(out), true) = (main.out.clone(), main.sends < tries) else {
            let at = main.state;
            return self.main_failed(handle, &no_answer(at), now);
        };
        main.sends += 1;
        main.sent_at = now;
        self.timers.set(Timer::Retransmit(handle), now + backoff(first, main.sends));
        self.transmit(local, peer, out);
    }

    /// Tells a known peer once a second at most, without protection, why there will be no answer.
    fn notify_unprotected(&mut self, from: SocketAddr, to: SocketAddr, mut id: IkeSaId, kind: u16, now: Instant) {
        let pair = (to.ip(), from.ip());
        let p = self.pairs.entry(pair).or_insert_with(|| super::sa::Pair::new(now));
        if p.notified.is_some_and(|at| now.saturating_duration_since(at) < NOTIFY_GAP) {
            return;
        }
        p.notified = Some(now);
        self.rng.fill(&mut id.responder);
        let mut chain = Chain::new();
        let n = Notify { protocol: crate::ike::v1::message::protocol::ISAKMP, kind, spi: Vec::new(), data: Vec::new() };
        chain.push(PayloadKind::Notify, &n.encode());
        let message_id = self.rng.u32().max(1);
        let header = Header { id, next: 0, exchange: Exchange::Informational, flags: 0, message_id };
        self.transmit(to, from, chain.message(header));
    }
}

fn no_answer(state: MainState) -> String {
    let hint = match state {
        MainState::WaitAuth => ": are the pre-shared keys equal on both ends?",
        MainState::WaitSa => ": does the peer answer at UDP port 500, and does it know an equal isakmp policy?",
        MainState::MakeKe
        | MainState::WaitKe
        | MainState::MakeKeys
        | MainState::AnsweredSa
        | MainState::AnswerKeys
        | MainState::AnsweredKe => "",
    };
    format!("no answer ({state:?}){hint}")
}

/// Time before the next transmission after `sends` of them.
pub(super) fn backoff(first: Duration, sends: u32) -> Duration {
    first.saturating_mul(1 << sends.saturating_sub(1).min(8))
}

fn ke_message(id: IkeSaId, public: &[u8], nonce: &[u8]) -> Vec<u8> {
    let mut chain = Chain::new();
    chain.push(PayloadKind::KeyExchange, public).push(PayloadKind::Nonce, nonce);
    chain.message(main_header(id))
}
