//! Phase 1: what main mode and aggressive mode share (RFC 2409 5.4).
//!
//! The responder never sends of its own accord: a repeated request gets the same answer, at a bounded rate.

use super::main_proof::gone;
use super::sa::{Handle, Main, MainState, Nat, PairKey, Sa, Stage, digest};
use super::signature;
use crate::id::IkeSaId;
use crate::ike::engine::{IKE_PORT, NAT_T_PORT};
use crate::ike::job::{DhDone, Job};
use crate::ike::policy::{AuthMethod, IkeConfig, IsakmpPolicy, PeerPolicy};
use crate::ike::v1::engine::{Engine, JobTarget};
use crate::ike::v1::message::{Chain, Exchange, HEADER_LEN, Header, Notify, PayloadKind, Payloads, SaPayload, flag, notify_type, protocol};
use crate::ike::v1::proposal::{self, IsakmpChoice};
use crate::ike::v1::timer::Timer;
use crate::wire::DecodeError;
use std::net::{IpAddr, SocketAddr};
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

/// The payloads of a message that must not be encrypted.
pub(super) fn clear<'a>(header: &Header, bytes: &'a [u8]) -> Verdict<Payloads<'a>> {
    if header.flags & flag::ENCRYPTED != 0 {
        return Err(Refuse("encrypted_too_early", String::new()));
    }
    Ok(Payloads::decode_clear(header.next, bytes.get(HEADER_LEN..).unwrap_or_default())?)
}

pub(super) fn phase_1_header(id: IkeSaId, exchange: Exchange) -> Header {
    Header { id, next: 0, exchange, flags: 0, message_id: 0 }
}

/// What is set for a peer alone; the closest match counts.
pub(super) fn peer_policy<'c>(config: &'c IkeConfig, address: IpAddr, identity: Option<&crate::id::Identity>) -> Option<&'c PeerPolicy> {
    let rated = config.peers.iter().filter_map(|p| Some((p.peer.specificity(address, identity)?, p)));
    rated.max_by_key(|(rank, _)| *rank).map(|(_, p)| p)
}

/// The policies that may be used with a peer.
fn policies_for(config: &IkeConfig, peer: Option<&PeerPolicy>) -> Vec<IsakmpPolicy> {
    let wanted = |p: &&IsakmpPolicy| peer.is_none_or(|peer| peer.policies.is_empty() || peer.policies.contains(&p.number));
    config.policies.iter().filter(wanted).cloned().collect()
}

/// Those of them for main mode that both ends can prove themselves for: the key there is found by the peer's address.
pub(super) fn main_policies(config: &IkeConfig, peer: IpAddr) -> Vec<IsakmpPolicy> {
    let mut policies = policies_for(config, peer_policy(config, peer, None));
    policies.retain(|p| match p.authentication {
        AuthMethod::PreShared => config.psk(peer, None).is_some(),
        AuthMethod::Signature => signature::possible(config),
    });
    policies
}

/// Those of them for aggressive mode: pre-shared keys.
pub(super) fn aggressive_policies(config: &IkeConfig, peer: Option<&PeerPolicy>) -> Vec<IsakmpPolicy> {
    let mut policies = policies_for(config, peer);
    policies.retain(|p| p.authentication == AuthMethod::PreShared);
    policies
}

/// What phase 1 does next with a message.
impl Engine {
    pub(super) fn main(&mut self, handle: Handle) -> Verdict<&mut Main> {
        self.sas.get_mut(&handle).and_then(Sa::main_mut).ok_or_else(gone)
    }

    /// Any phase 1 datagram.
    pub(in crate::ike) fn phase_1_datagram(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) {
        let verdict = if header.message_id != 0 {
            Err(Refuse("message_id", "not zero in phase 1".into()))
        } else if header.id.responder == [0; 8] {
            self.phase_1_first(from, to, header, bytes, now)
        } else {
            self.phase_1_later(from, to, header, bytes, now)
        };
        if let Err(why) = verdict {
            self.refuse_peer(PairKey::host(to.ip(), from.ip()), from, why, now);
        }
    }

    /// Message 1 of either mode.
    fn phase_1_first(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        if let Some(&handle) = self.by_first.get(&(from, header.id.initiator)) {
            return self.phase_1_repeated(handle, from, to, bytes, now);
        }
        if self.by_id.contains_key(&header.id) {
            return Err(Refuse("reflected", "our own first message came back".into()));
        }
        self.admit(from, to)?;
        match header.exchange {
            Exchange::Aggressive => self.aggressive_1(from, to, header, bytes, now),
            Exchange::Main | Exchange::Quick | Exchange::Informational => self.main_1(from, to, header, bytes, now),
        }
    }

    /// What must hold before the first message of an exchange is read at all.
    fn admit(&self, from: SocketAddr, to: SocketAddr) -> Verdict {
        let config = &self.config;
        let host = PairKey::host(to.ip(), from.ip());
        if Self::entries_of(config, host).next().is_none() {
            let named = config.entries.iter().any(|e| e.local == host.local && e.peers.contains(&host.peer));
            return Err(if named {
                Refuse("ikev1_disabled", "the crypto map entries of this address do not allow version 1".into())
            } else {
                Refuse("unknown_peer", "no crypto map entry for this address".into())
            });
        }
        let limits = config.limits;
        if self.half_open.get(&from.ip()).is_some_and(|n| *n >= limits.half_open_per_source_max) {
            return Err(Refuse("half_open_per_source", String::new()));
        }
        // A flood of strangers must not keep a peer with a tunnel from its rekey.
        let known = self.siblings(host).any(|(_, p)| !p.sas.is_empty());
        if self.half_open_total >= limits.half_open_max && !known {
            return Err(Refuse("half_open_limit", String::new()));
        }
        if self.sas.len() >= limits.established_max.saturating_add(limits.half_open_max) {
            return Err(Refuse("established_limit", String::new()));
        }
        Ok(())
    }

    /// Chooses from the offer of a first message, or tells the peer that nothing can be chosen.
    pub(super) fn choose_policy(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        id: IkeSaId,
        policies: &[IsakmpPolicy],
        sai: &[u8],
        now: Instant,
    ) -> Verdict<IsakmpChoice> {
        let offer = SaPayload::decode(sai)?;
        proposal::isakmp_choose(policies, &offer).map_err(|why| {
            self.notify_unprotected(from, to, id, notify_type::NO_PROPOSAL_CHOSEN, now);
            Refuse("no_proposal_chosen", why)
        })
    }

    /// Cookies for an answer to a first message.
    pub(super) fn new_responder_cookie(&mut self, mut id: IkeSaId) -> IkeSaId {
        while id.responder == [0; 8] || self.by_id.contains_key(&id) {
            self.rng.fill(&mut id.responder);
        }
        id
    }

    /// Enters a half-open SA as responder.
    pub(super) fn begin_response(&mut self, from: SocketAddr, to: SocketAddr, id: IkeSaId, main: Main, now: Instant) -> Handle {
        let handle = self.new_handle();
        let nat = Nat { dialect: main.vendors.nat, ..Nat::default() };
        let fragments = main.vendors.fragmentation;
        let stage = Stage::Main(Box::new(main));
        let sa = Sa { id, local: to, peer: from, initiator: false, nat, fragments, first_from: Some(from), born: now, stage };
        self.sas.insert(handle, sa);
        self.by_id.insert(id, handle);
        self.by_first.insert((from, id.initiator), handle);
        self.half_open_total += 1;
        *self.half_open.entry(from.ip()).or_default() += 1;
        self.timers.set(Timer::HalfOpen(handle), now + self.config.limits.half_open_age_max);
        handle
    }

    /// What was answered before: the same answer again, seldom. A responder's goes to where the request came from.
    fn phase_1_repeated(&mut self, handle: Handle, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) -> Verdict {
        let tries = self.config.retransmit_tries;
        let Some(sa) = self.sas.get_mut(&handle) else { return Err(gone()) };
        let (local, peer) = if sa.initiator { (sa.local, sa.peer) } else { (to, from) };
        let answer = match &mut sa.stage {
            Stage::Up(up) => match &mut up.last_main {
                Some(last) if last.digest == digest(bytes) => {
                    if now.saturating_duration_since(last.at) < RESEND_GAP {
                        return Err(Refuse("repeated", "answered already".into()));
                    }
                    last.at = now;
                    Some(last.answer.clone())
                }
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

    /// Every message behind the first.
    fn phase_1_later(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let first = IkeSaId { responder: [0; 8], ..header.id };
        let found = self.by_id.get(&header.id).or_else(|| self.by_id.get(&first)).copied();
        let handle = found.ok_or_else(|| Refuse("unknown_cookies", format!("{:?}", header.id)))?;
        let sa = self.sas.get_mut(&handle).ok_or_else(gone)?;
        let same_path = sa.peer == from && sa.local == to;
        // Once NAT traversal is agreed on, an initiator goes on from another port (RFC 3947 4).
        let same_hosts = sa.peer.ip() == from.ip() && sa.local.ip() == to.ip();
        let floats = !sa.initiator && sa.nat.dialect.is_some() && same_hosts && to.port() == NAT_T_PORT;
        // A responder whose message 2 of aggressive mode was answered from the new port repeats it from the old one.
        let lags = sa.initiator && sa.up().is_some() && same_hosts;
        if !same_path && !floats && !lags {
            return Err(Refuse("wrong_address", format!("{:?} belongs to {}", header.id, sa.peer)));
        }
        let initiator = sa.initiator;
        let Some(main) = sa.main_mut() else { return self.phase_1_repeated(handle, from, to, bytes, now) };
        if main.state.exchange() != header.exchange {
            return Err(Refuse("exchange_switch", format!("{:?} amid another exchange", header.exchange)));
        }
        let seen = digest(bytes);
        if main.seen == Some(seen) {
            return if initiator {
                // The answer to our last message but one: our own timer cares for the rest.
                Err(Refuse("repeated", "answer seen already".into()))
            } else {
                self.phase_1_repeated(handle, from, to, bytes, now)
            };
        }
        match main.state {
            MainState::WaitSa => self.main_2(handle, header, bytes, now),
            MainState::AnsweredSa => self.main_3(handle, header, bytes, now),
            MainState::WaitKe => self.main_4(handle, header, bytes, now),
            MainState::AnsweredKe => self.main_5(handle, from, to, header, bytes, now),
            MainState::WaitAuth => self.main_6(handle, header, bytes, now),
            MainState::AggressiveWait => self.aggressive_2(handle, header, bytes, now),
            MainState::AggressiveAnswered => self.aggressive_3(handle, from, to, header, bytes, now),
            MainState::MakeKe
            | MainState::MakeKeys
            | MainState::Sign
            | MainState::CheckAuth
            | MainState::AnswerKeys
            | MainState::AnswerCheck
            | MainState::AnswerSign
            | MainState::AggressiveMakeKe
            | MainState::AggressiveMakeKeys
            | MainState::AggressiveAnswerKeys => Err(Refuse("out_of_order", "keys or signatures are being computed".into())),
        }
    }

    /// Starts phase 1 with a peer.
    pub(in crate::ike) fn start_main(&mut self, pair: PairKey, replaces: Option<Handle>, now: Instant) -> bool {
        let config = self.config.clone();
        let peer_policy = peer_policy(&config, pair.peer, None);
        let aggressive = peer_policy.is_some_and(|p| p.aggressive);
        let mut policies = if aggressive { aggressive_policies(&config, peer_policy) } else { main_policies(&config, pair.peer) };
        if aggressive {
            // The first message holds a public value already: one group (RFC 2409 5).
            let group = policies.iter().find(|p| proposal::is_spoken(p)).map(|p| p.group);
            policies.retain(|p| Some(p.group) == group);
        }
        let offer = proposal::isakmp_offer(&policies);
        let transforms = offer.proposals.first().map_or(0, |p| p.transforms.len());
        let problem = if Self::entries_of(&config, pair).next().is_none() {
            Some("no crypto map entry names this peer for version 1")
        } else if config.psk(pair.peer, None).is_none() && (aggressive || !signature::possible(&config)) {
            Some("no pre-shared key for this address (crypto isakmp key)")
        } else if transforms == 0 {
            Some("no isakmp policy is configured")
        } else if self.sas.len() >= config.limits.established_max.saturating_add(config.limits.half_open_max) {
            Some("too many ISAKMP SAs")
        } else {
            None
        };
        if let Some(problem) = problem {
            self.notice(pair.peer, format!("phase 1 cannot start: {problem}"));
            return false;
        }
        let mut id = IkeSaId::default();
        while id.initiator == [0; 8] || self.by_id.contains_key(&id) {
            self.rng.fill(&mut id.initiator);
        }
        // A rekey goes the way its SA went; where a NAT shows the peer at a port of its own, only that one reaches it (RFC 3947 4).
        let old = replaces.and_then(|h| self.sas.get(&h)).filter(|s| s.nat.found().is_some()).map(|s| (s.local, s.peer));
        let (local, peer) = old.unwrap_or_else(|| match pair.port {
            0 => (SocketAddr::new(pair.local, IKE_PORT), SocketAddr::new(pair.peer, IKE_PORT)),
            port => (SocketAddr::new(pair.local, NAT_T_PORT), SocketAddr::new(pair.peer, port)),
        });
        let handle = self.new_handle();
        let sai = offer.encode();
        let state = if aggressive { MainState::AggressiveMakeKe } else { MainState::WaitSa };
        let main = Main { offer: Some(offer), policies, sai, replaces, ..Main::new(state, now) };
        let stage = Stage::Main(Box::new(main));
        self.sas.insert(
            handle,
            Sa { id, local, peer, initiator: true, nat: Nat::default(), fragments: false, first_from: None, born: now, stage },
        );
        self.by_id.insert(id, handle);
        if let Some(p) = self.pairs.get_mut(&pair) {
            p.starting = Some(handle);
        }
        if aggressive { self.aggressive_begin(handle, now).is_ok() } else { self.main_begin(handle, now).is_ok() }
    }

    /// The peer's answer to our first message brought its cookie.
    pub(super) fn learn_cookie(&mut self, handle: Handle, id: IkeSaId) {
        if let Some(sa) = self.sas.get_mut(&handle) {
            let old = sa.id;
            sa.id = id;
            self.by_id.remove(&old);
            self.by_id.insert(id, handle);
        }
    }

    /// Hands a job out and waits for it.
    pub(super) fn main_compute(&mut self, handle: Handle, state: MainState, public: bool, peer: Option<Vec<u8>>, now: Instant) -> Verdict {
        let main = self.sas.get_mut(&handle).and_then(Sa::main_mut).ok_or_else(gone)?;
        let secret = match main.secret.take() {
            Some(secret) => secret,
            None => main.policy.as_ref().ok_or_else(gone)?.group.generate(&mut *self.rng),
        };
        self.main_wait(handle, state, Job::dh(secret, public, peer), now)
    }

    /// Waits for a job.
    pub(super) fn main_wait(&mut self, handle: Handle, state: MainState, job: Job, now: Instant) -> Verdict {
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

    /// A job of phase 1 has run.
    pub(in crate::ike) fn main_job(&mut self, handle: Handle, done: DhDone, now: Instant) {
        if let Some(error) = &done.error {
            return self.main_failed(handle, &format!("Diffie-Hellman: {error}"), now);
        }
        let Ok(main) = self.main(handle) else { return };
        let verdict = match main.state {
            MainState::MakeKe | MainState::MakeKeys | MainState::AnswerKeys => self.main_continue(handle, done, now),
            MainState::AggressiveMakeKe | MainState::AggressiveMakeKeys | MainState::AggressiveAnswerKeys => {
                self.aggressive_continue(handle, done, now)
            }
            MainState::WaitSa
            | MainState::WaitKe
            | MainState::Sign
            | MainState::WaitAuth
            | MainState::CheckAuth
            | MainState::AnsweredSa
            | MainState::AnsweredKe
            | MainState::AnswerCheck
            | MainState::AnswerSign
            | MainState::AggressiveWait
            | MainState::AggressiveAnswered => Err(gone()),
        };
        self.main_outcome(handle, verdict, now);
    }

    /// What came of a job; a refusal ends the exchange.
    pub(super) fn main_outcome(&mut self, handle: Handle, verdict: Verdict, now: Instant) {
        if let Err(Refuse(reason, why)) = verdict {
            if let Some((pair, peer)) = self.sas.get(&handle).map(|s| (s.pair(), s.peer)) {
                self.refuse_peer(pair, peer, Refuse(reason, why.clone()), now);
            }
            self.main_failed(handle, &why, now);
        }
    }

    /// Sends a phase 1 message; the initiator repeats it by timer.
    pub(super) fn main_send(&mut self, handle: Handle, out: Vec<u8>, now: Instant) -> Verdict {
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
        let pair = PairKey::host(to.ip(), from.ip());
        let p = self.pairs.entry(pair).or_insert_with(|| super::sa::Pair::new(now));
        if p.notified.is_some_and(|at| now.saturating_duration_since(at) < NOTIFY_GAP) {
            return;
        }
        p.notified = Some(now);
        self.rng.fill(&mut id.responder);
        let mut chain = Chain::new();
        let n = Notify { protocol: protocol::ISAKMP, kind, spi: Vec::new(), data: Vec::new() };
        chain.push(PayloadKind::Notify, &n.encode());
        let message_id = self.rng.u32().max(1);
        let header = Header { id, next: 0, exchange: Exchange::Informational, flags: 0, message_id };
        self.transmit(to, from, chain.message(header));
    }
}

fn no_answer(state: MainState) -> String {
    let hint = match state {
        MainState::WaitAuth => ": are the pre-shared keys equal on both ends, or does it refuse our certificate?",
        MainState::WaitSa => ": does the peer answer at UDP port 500, and does it know an equal isakmp policy?",
        MainState::AggressiveWait => {
            ": does the peer answer at UDP port 500, does it allow aggressive mode, and does it know an equal isakmp policy?"
        }
        MainState::MakeKe
        | MainState::WaitKe
        | MainState::MakeKeys
        | MainState::Sign
        | MainState::CheckAuth
        | MainState::AnsweredSa
        | MainState::AnswerKeys
        | MainState::AnsweredKe
        | MainState::AnswerCheck
        | MainState::AnswerSign
        | MainState::AggressiveMakeKe
        | MainState::AggressiveMakeKeys
        | MainState::AggressiveAnswerKeys
        | MainState::AggressiveAnswered => "",
    };
    format!("no answer ({state:?}){hint}")
}

/// Time before the next transmission after `sends` of them.
pub(super) fn backoff(first: Duration, sends: u32) -> Duration {
    first.saturating_mul(1 << sends.saturating_sub(1).min(8))
}
