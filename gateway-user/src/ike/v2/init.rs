//! IKE_SA_INIT (RFC 7296 1.2, 2.6, 2.7), the initiator's side, and what ends the first exchanges of both sides.

use super::engine::Engine;
use super::exchange::backoff;
use super::keymat::{IkeKeys, nat_detection, skeyseed};
use super::message::{Exchange, HEADER_LEN, Header, Message, NotifyType, Outgoing};
use super::peer::Failure;
use super::proposal::{accept_ike, ike_offer};
use super::sa::{Caps, Handle, Init, InitState, PairKey, Sa, Stage, Verdict, ended, refuse};
use super::task::JobTarget;
use super::timer::Timer;
use crate::crypto::{DhGroup, DhSecret};
use crate::id::IkeSaId;
use crate::ike::engine::NAT_T_PORT;
use crate::ike::job::{Job, Outcome, Work};
use crate::ike::policy::Ikev2Profile;
use crate::pki::SignatureAlg;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// UDP port of IKE.
pub(super) const IKE_PORT: u16 = 500;
/// Length of our nonces.
pub(super) const NONCE_LEN: usize = 32;
/// Cookies and groups that a responder may ask for before we give up.
const RESTARTS_MAX: u32 = 5;
/// Longest cookie (RFC 7296 2.6).
const COOKIE_MAX: usize = 64;

impl Init {
    /// Key of the peer's public value in [`Work`], and whether it is as long as it must be.
    pub(super) fn ke_fits(group: DhGroup, number: u16, len: usize, response: bool) -> bool {
        group.number() == number && len == if response { group.response_len() } else { group.public_len() }
    }
}

impl Engine {
    /// Begins an IKE SA with a peer. False when it cannot begin.
    pub(super) fn start_init(&mut self, pair: PairKey, profile: &Arc<Ikev2Profile>, now: Instant) -> bool {
        if self.sas.len() >= self.config.limits.established_max {
            self.notice(pair.1, "too many IKE SAs");
            return false;
        }
        let Some(group) = profile.proposals.first().and_then(|p| p.groups.first()).copied() else {
            self.notice(pair.1, format!("IKEv2 profile {} has no usable proposal", profile.name));
            return false;
        };
        let handle = self.new_handle();
        let id = IkeSaId { initiator: self.new_ike_spi(), responder: [0; 8] };
        let init = Init {
            state: InitState::MakeKe,
            config: self.config.clone(),
            profile: profile.clone(),
            group,
            secret: None,
            public: Vec::new(),
            cookie: Vec::new(),
            restarts: 0,
            ni: self.random_bytes(NONCE_LEN),
            nr: Vec::new(),
            suite: None,
            keys: None,
            message_i: Vec::new(),
            message_r: Vec::new(),
            caps: Caps::default(),
            message_id: 0,
            seen: None,
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
        let sa = Sa {
            id,
            pair,
            local: SocketAddr::new(pair.0, IKE_PORT),
            peer: SocketAddr::new(pair.1, IKE_PORT),
            first: SocketAddr::new(pair.1, IKE_PORT),
            initiator: true,
            born: now,
            partial: None,
            stage: Stage::Init(Box::new(init)),
        };
        self.sas.insert(handle, sa);
        self.by_spi.insert(id.initiator, handle);
        self.pairs.entry(pair).or_default().starting = Some(handle);
        self.make_ke(handle, group);
        true
    }

    /// Computes a public value of this group.
    fn make_ke(&mut self, handle: Handle, group: DhGroup) {
        let secret = group.generate(&mut *self.rng);
        if let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) {
            init.group = group;
            init.state = InitState::MakeKe;
            self.push_job(JobTarget::Init(handle), Job::dh(secret, true, None));
        }
    }

    /// Sends the first message.
    fn send_init(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (id, local, peer) = (sa.id, sa.local, sa.peer);
        let Some(init) = sa.init() else { return };
        let mut out = Outgoing::new();
        if !init.cookie.is_empty() {
            out.status(NotifyType::COOKIE, &init.cookie);
        }
        out.sa(&ike_offer(&init.profile.proposals, None));
        out.ke(init.group.number(), &init.public).nonce(&init.ni);
        self.put_init_notifies(&mut out, id, local, peer, &init.profile);
        super::ppk::announce(&mut out, &init.profile);
        let header = Header::new(id, Exchange::SaInit, true, false, 0);
        let message = out.plain(&header);
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.state = InitState::WaitInit;
        init.message_i.clone_from(&message);
        init.refused = None;
        self.send_first(handle, vec![message], now);
    }

    /// What both ends say in IKE_SA_INIT besides the keys.
    pub(super) fn put_init_notifies(&self, out: &mut Outgoing, id: IkeSaId, local: SocketAddr, peer: SocketAddr, profile: &Ikev2Profile) {
        if self.config.nat_traversal {
            out.status(NotifyType::NAT_DETECTION_SOURCE_IP, &nat_detection(&id, local));
            out.status(NotifyType::NAT_DETECTION_DESTINATION_IP, &nat_detection(&id, peer));
        }
        if profile.fragment_bytes > 0 {
            out.status(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        }
        if profile.proposals.iter().any(|p| !p.additional.is_empty()) {
            out.status(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]);
        }
        let hashes: Vec<u8> = SignatureAlg::HASH_IDS.iter().flat_map(|h| h.to_be_bytes()).collect();
        out.status(NotifyType::SIGNATURE_HASH_ALGORITHMS, &hashes);
    }

    /// Sends a request of the first exchanges and arms its repetition.
    pub(super) fn send_first(&mut self, handle: Handle, packets: Vec<Vec<u8>>, now: Instant) {
        let first = self.config.retransmit_first;
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.out.clone_from(&packets);
        init.sends = 1;
        init.sent_at = now;
        self.timers.set(Timer::Init(handle), now + first);
        self.transmit_all(handle, &packets);
    }

    /// No answer yet: again, or the end.
    pub(super) fn init_timeout(&mut self, handle: Handle, now: Instant) {
        let (first, tries) = (self.config.retransmit_first, self.config.retransmit_tries);
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        if let Some(kind) = init.refused {
            let failure = if kind == NotifyType::INVALID_MAJOR_VERSION { Failure::OldVersion } else { Failure::Refused };
            return self.start_failed(handle, failure, &format!("the peer says {kind}"), now);
        }
        if init.sends >= tries {
            let failure = if init.state == InitState::WaitInit { Failure::NoAnswer } else { Failure::Refused };
            return self.start_failed(handle, failure, "no answer", now);
        }
        init.sends += 1;
        init.sent_at = now;
        let packets = init.out.clone();
        let wait = backoff(first, init.sends);
        self.timers.set(Timer::Init(handle), now + wait);
        self.transmit_all(handle, &packets);
    }

    /// The answer to the first message. Nothing in it is authentic.
    pub(super) fn init_response(&mut self, from: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let unknown = || refuse("unknown_spi", format!("{:?}", header.id));
        let handle = *self.by_spi.get(&header.id.initiator).ok_or_else(unknown)?;
        let sa = self.sas.get_mut(&handle).filter(|sa| sa.initiator && sa.id.initiator == header.id.initiator).ok_or_else(unknown)?;
        if from != sa.peer {
            return Err(refuse("wrong_address", format!("{:?} belongs to {}", header.id, sa.peer)));
        }
        let (local, peer) = (sa.local, sa.peer);
        let init = sa.init_mut().filter(|i| i.state == InitState::WaitInit).ok_or_else(|| refuse("repeated", "answered already"))?;
        let m = Message::decode(header.next, bytes.get(HEADER_LEN..).unwrap_or_default())?;
        if let Some(cookie) = m.notify(NotifyType::COOKIE).filter(|_| m.sa.is_none()) {
            if cookie.data.is_empty() || cookie.data.len() > COOKIE_MAX || init.restarts >= RESTARTS_MAX || init.cookie == cookie.data {
                return Err(refuse("cookie", format!("cookie of {} bytes after {} starts", cookie.data.len(), init.restarts)));
            }
            init.restarts += 1;
            init.cookie = cookie.data.to_vec();
            self.send_init(handle, now);
            return Ok(());
        }
        if let Some(n) = m.notify(NotifyType::INVALID_KE_PAYLOAD) {
            let offered = |g: &DhGroup| init.profile.proposals.iter().any(|p| p.groups.contains(g));
            let group = n.group().and_then(DhGroup::from_number).filter(|g| offered(g) && *g != init.group);
            let Some(group) = group.filter(|_| init.restarts < RESTARTS_MAX) else {
                init.refused = Some(n.kind);
                return Err(refuse("invalid_ke", format!("group {:?} was not offered", n.group())));
            };
            init.restarts += 1;
            self.timers.clear(Timer::Init(handle));
            self.make_ke(handle, group);
            return Ok(());
        }
        if let Some(n) = m.error() {
            // Anybody on the way can say so: an answer that goes on may still come.
            init.refused = Some(n.kind);
            return Err(refuse("refused_by_peer", n.kind.to_string()));
        }
        let form = |what: &str| refuse("init_payloads", what.to_owned());
        let offer = ike_offer(&init.profile.proposals, None);
        let answer = m.sa.as_ref().ok_or_else(|| form("no SA payload"))?;
        let choice = accept_ike(&init.profile.proposals, &offer, answer, false).map_err(|e| refuse("proposal_answer", e.to_string()))?;
        let ke = m.ke.ok_or_else(|| form("no KE payload"))?;
        let nonce = m.nonce.ok_or_else(|| form("no nonce"))?;
        if choice.suite.group != init.group || !Init::ke_fits(init.group, ke.group, ke.data.len(), true) {
            return Err(refuse("ke_group", format!("KE of group {} and {} bytes", ke.group, ke.data.len())));
        }
        if ke.data == init.public {
            return Err(refuse("reflected", "our own public value came back"));
        }
        if header.id.responder == [0; 8] {
            return Err(refuse("header_spi", "the responder has no SPI"));
        }
        if !choice.suite.additional.is_empty() && m.notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED).is_none() {
            return Err(refuse("intermediate", "additional key exchanges without IKE_INTERMEDIATE"));
        }
        let secret = init.secret.take().ok_or_else(ended)?;
        init.suite = Some(choice.suite);
        init.nr = nonce.to_vec();
        init.message_r = bytes.to_vec();
        init.caps = caps_of(&m, header.id, local, peer, &init.profile);
        init.peer_hashes = hashes_of(&m);
        init.ppk_announced = m.notify(NotifyType::USE_PPK).is_some();
        init.state = InitState::MakeKeys;
        // Whoever said no before was not the one who answers.
        init.refused = None;
        init.out.clear();
        let nat = init.caps.nat() && self.config.nat_traversal;
        sa.id = header.id;
        if nat {
            sa.local.set_port(NAT_T_PORT);
            sa.peer.set_port(NAT_T_PORT);
        }
        let ke = ke.data.to_vec();
        self.timers.clear(Timer::Init(handle));
        self.push_job(JobTarget::Init(handle), Job::dh(secret, false, Some(ke)));
        Ok(())
    }

    /// A job of the first exchanges has run.
    pub(super) fn init_job(&mut self, handle: Handle, outcome: Outcome, now: Instant) {
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        match (init.state, outcome) {
            (InitState::MakeKe, Outcome::Dh(done)) => match (done.public, done.error) {
                (Some(public), None) => {
                    init.public = public;
                    init.secret = Some(done.secret);
                    self.send_init(handle, now);
                }
                (_, error) => self.init_failed(handle, &format!("key exchange: {error:?}"), now),
            },
            (InitState::MakeKeys, Outcome::Dh(done)) => match done.shared {
                Some(shared) => {
                    let derived = self.derive(handle, &shared);
                    match derived {
                        Ok(()) => self.next_exchange(handle, now),
                        Err(why) => self.init_failed(handle, &why.1, now),
                    }
                }
                None => self.init_failed(handle, &format!("key exchange: {:?}", done.error), now),
            },
            (InitState::AnswerInit, Outcome::Responded(Ok((public, shared)))) => {
                init.public = public;
                match self.derive(handle, &shared) {
                    Ok(()) => self.answer_init(handle, now),
                    Err(why) => self.init_failed(handle, &why.1, now),
                }
            }
            (InitState::MakeExtra, Outcome::Dh(done)) => self.extra_made(handle, done, now),
            (InitState::MakeExtraKeys, Outcome::Dh(done)) => self.extra_computed(handle, done, now),
            (InitState::AnswerExtra, Outcome::Responded(done)) => self.extra_answered(handle, done, now),
            (InitState::MakeAuth, Outcome::Signed(signed)) => self.auth_signed(handle, signed, now),
            (InitState::CheckAuth, Outcome::Verified(verified)) => self.responder_verified(handle, verified, now),
            (InitState::AnswerAuth, Outcome::Verified(verified)) => self.initiator_verified(handle, verified, now),
            (InitState::AnswerAuth, Outcome::Signed(signed)) => self.responder_signed(handle, signed, now),
            (InitState::AnswerInit, Outcome::Responded(Err(e))) => self.init_failed(handle, &format!("key exchange: {e}"), now),
            _ => {}
        }
    }

    /// Keys from the shared secret.
    fn derive(&mut self, handle: Handle, shared: &crate::crypto::Secret) -> Verdict {
        let sa = self.sas.get_mut(&handle).ok_or_else(ended)?;
        let id = sa.id;
        let init = sa.init_mut().ok_or_else(ended)?;
        let suite = init.suite.as_ref().ok_or_else(ended)?;
        let seed = skeyseed(suite.prf, &init.ni, &init.nr, shared);
        init.keys = Some(IkeKeys::derive(suite, &seed, &init.ni, &init.nr, &id));
        Ok(())
    }

    /// The first exchanges ended without an SA.
    pub(super) fn init_failed(&mut self, handle: Handle, cause: &str, now: Instant) {
        self.start_failed(handle, Failure::Refused, cause, now);
    }

    pub(super) fn half_open_done(&mut self, source: std::net::IpAddr) {
        self.half_open_total = self.half_open_total.saturating_sub(1);
        if let Some(n) = self.half_open.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                self.half_open.remove(&source);
            }
        }
    }
}

/// What the peer announced, and where NATs are (RFC 7296 2.23).
pub(super) fn caps_of(m: &Message<'_>, id: IkeSaId, local: SocketAddr, peer: SocketAddr, profile: &Ikev2Profile) -> Caps {
    let data = |kind| m.notifies.iter().filter(move |n| n.kind == kind).map(|n| n.data);
    // The SPIs that the hashes cover are those of the message: in a request the responder's is still zero.
    let (here, there) = (nat_detection(&id, local), nat_detection(&id, peer));
    let mut sources = data(NotifyType::NAT_DETECTION_SOURCE_IP).peekable();
    let mut destinations = data(NotifyType::NAT_DETECTION_DESTINATION_IP).peekable();
    let detects = sources.peek().is_some() && destinations.peek().is_some();
    Caps {
        fragments: profile.fragment_bytes > 0 && m.notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED).is_some(),
        nat_here: detects && destinations.all(|d| d != here),
        nat_there: detects && sources.all(|d| d != there),
        childless: m.notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED).is_some(),
        message_sync: false,
        replay_sync: false,
    }
}

/// Hashes that the peer takes in signatures (RFC 7427 4).
pub(super) fn hashes_of(m: &Message<'_>) -> Vec<u16> {
    let data = m.notify(NotifyType::SIGNATURE_HASH_ALGORITHMS).map_or(&[][..], |n| n.data);
    data.as_chunks::<2>().0.iter().map(|h| u16::from_be_bytes(*h)).collect()
}

/// The responder's half of a key exchange as a job.
pub(super) fn respond(secret: DhSecret, peer: &[u8]) -> Job {
    Job::new(Work::Respond { secret, peer: peer.to_vec() })
}
