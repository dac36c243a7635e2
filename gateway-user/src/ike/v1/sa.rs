//! What the engine remembers about an ISAKMP SA, an exchange, a peer.

use crate::crypto::{CipherAlg, DhGroup, DhSecret, HashAlg, Secret};
use crate::id::{IkeSaId, Spi};
use crate::ike::engine::{IKE_PORT, NAT_T_PORT};
use crate::ike::policy::{IkeConfig, IsakmpPolicy, MapEntry};
use crate::ike::v1::keymat::Skeyids;
use crate::ike::v1::main_proof::Notes;
use crate::ike::v1::message::{Exchange, NatDialect, SaPayload, Vendors};
use crate::ike::v1::proposal::EspChoice;
use crate::pki::Credential;
use crate::sad::{ChildSa, Selector};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Engine's own number of an ISAKMP SA.
pub(in crate::ike) type Handle = u64;

/// One peer as seen from one of our addresses. Several peers may stand behind one NAT and share its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::ike) struct PairKey {
    /// Our address.
    pub(in crate::ike) local: IpAddr,
    /// The peer's address, or its NAT's.
    pub(in crate::ike) peer: IpAddr,
    /// The peer's port at its NAT; 0 stands for the well-known ones, at which we can begin an exchange of our own.
    pub(in crate::ike) port: u16,
}

impl PairKey {
    /// The peer at the well-known ports of an address.
    pub(in crate::ike) const fn host(local: IpAddr, peer: IpAddr) -> Self {
        Self { local, peer, port: 0 }
    }

    /// The peer at the far end of a path.
    pub(in crate::ike) fn of(local: SocketAddr, peer: SocketAddr) -> Self {
        let port = if matches!(peer.port(), IKE_PORT | NAT_T_PORT) { 0 } else { peer.port() };
        Self { local: local.ip(), peer: peer.ip(), port }
    }

    /// The peer of a child pair.
    pub(in crate::ike) fn of_child(child: &ChildSa) -> Self {
        let port = child.encap.map_or(NAT_T_PORT, |e| e.peer_port);
        Self::of(SocketAddr::new(child.local, NAT_T_PORT), SocketAddr::new(child.peer, port))
    }
}

/// Message IDs remembered under one ISAKMP SA.
pub(super) const RECENT_MAX: usize = 32;
/// How long an answer is kept for repeated requests.
pub(super) const ANSWER_AGE_MAX: Duration = Duration::from_secs(120);
/// Answers kept under one ISAKMP SA.
pub(super) const ANSWERS_MAX: usize = 4;

/// SHA-256 of a datagram: recognises a repetition.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(datagram: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (o, b) in out.iter_mut().zip(HashAlg::Sha256.digest(&[datagram])) {
        *o = b;
    }
    out
}

/// An ISAKMP SA, growing or grown.
pub(in crate::ike) struct Sa {
    /// Cookies; the responder's is zero until it answered.
    pub(in crate::ike) id: IkeSaId,
    /// Our address and port.
    pub(in crate::ike) local: SocketAddr,
    /// The peer's.
    pub(in crate::ike) peer: SocketAddr,
    /// We sent the first message.
    pub(in crate::ike) initiator: bool,
    /// What stands between us and the peer.
    pub(in crate::ike) nat: Nat,
    /// Both ends take messages in pieces.
    pub(super) fragments: bool,
    /// Responder: where the peer's first message came from. It repeats it from there.
    pub(super) first_from: Option<SocketAddr>,
    /// When main mode began (or the state was imported).
    pub(in crate::ike) born: Instant,
    /// Progress.
    pub(in crate::ike) stage: Stage,
}

impl Sa {
    pub(in crate::ike) fn pair(&self) -> PairKey {
        PairKey::of(self.local, self.peer)
    }

    pub(in crate::ike) fn up(&self) -> Option<&Up> {
        match &self.stage {
            Stage::Up(up) => Some(up),
            Stage::Main(_) => None,
        }
    }

    pub(in crate::ike) fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.stage {
            Stage::Up(up) => Some(up),
            Stage::Main(_) => None,
        }
    }

    pub(super) fn main_mut(&mut self) -> Option<&mut Main> {
        match &mut self.stage {
            Stage::Main(main) => Some(main),
            Stage::Up(_) => None,
        }
    }
}

/// NAT traversal of one ISAKMP SA (RFC 3947).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(in crate::ike) struct Nat {
    /// What both ends speak; `None` when one of them speaks none.
    pub(super) dialect: Option<NatDialect>,
    /// We are behind a NAT.
    pub(super) us: bool,
    /// The peer is.
    pub(super) peer: bool,
}

impl Nat {
    /// The dialect, when there is a NAT: then ESP goes inside UDP.
    pub(super) fn found(self) -> Option<NatDialect> {
        self.dialect.filter(|_| self.us || self.peer)
    }
}

/// Progress of an ISAKMP SA.
pub(in crate::ike) enum Stage {
    /// Main mode.
    Main(Box<Main>),
    /// Established.
    Up(Box<Up>),
}

/// Where a phase 1 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ike) enum MainState {
    /// Initiator: message 1 sent.
    WaitSa,
    /// Our public value is being computed.
    MakeKe,
    /// Message 3 sent.
    WaitKe,
    /// The shared secret is being computed.
    MakeKeys,
    /// Signatures: message 5 is being signed.
    Sign,
    /// Message 5 sent.
    WaitAuth,
    /// Signatures: message 6 is being checked.
    CheckAuth,
    /// Responder: message 2 sent.
    AnsweredSa,
    /// Responder: public value and shared secret are being computed.
    AnswerKeys,
    /// Responder: message 4 sent.
    AnsweredKe,
    /// Responder, signatures: message 5 is being checked.
    AnswerCheck,
    /// Responder, signatures: message 6 is being signed.
    AnswerSign,
    /// Aggressive initiator: our public value is being computed.
    AggressiveMakeKe,
    /// Aggressive initiator: message 1 sent.
    AggressiveWait,
    /// Aggressive initiator: the shared secret is being computed.
    AggressiveMakeKeys,
    /// Aggressive responder: public value and shared secret are being computed.
    AggressiveAnswerKeys,
    /// Aggressive responder: message 2 sent.
    AggressiveAnswered,
}

impl MainState {
    /// The exchange this is a state of.
    pub(super) const fn exchange(self) -> Exchange {
        match self {
            Self::WaitSa
            | Self::MakeKe
            | Self::WaitKe
            | Self::MakeKeys
            | Self::Sign
            | Self::WaitAuth
            | Self::CheckAuth
            | Self::AnsweredSa
            | Self::AnswerKeys
            | Self::AnsweredKe
            | Self::AnswerCheck
            | Self::AnswerSign => Exchange::Main,
            Self::AggressiveMakeKe
            | Self::AggressiveWait
            | Self::AggressiveMakeKeys
            | Self::AggressiveAnswerKeys
            | Self::AggressiveAnswered => Exchange::Aggressive,
        }
    }
}

/// What a peer with a certificate claims, until it is checked.
pub(super) struct Claimed {
    /// Body of its ID payload.
    pub(super) id: Vec<u8>,
    /// IV of the next message.
    pub(super) iv: Vec<u8>,
    pub(super) notes: Notes,
    /// Of the whole message.
    pub(super) digest: Digest,
}

/// State of a phase 1.
pub(in crate::ike) struct Main {
    pub(in crate::ike) state: MainState,
    /// Policies that may be used with the peer.
    pub(super) policies: Vec<IsakmpPolicy>,
    /// What we offered (initiator).
    pub(super) offer: Option<SaPayload>,
    /// The policy agreed on.
    pub(in crate::ike) policy: Option<IsakmpPolicy>,
    /// Agreed lifetime, seconds.
    pub(super) lifetime_s: u64,
    /// Responder: it is shorter than the peer knows.
    pub(super) shortened: bool,
    /// Aggressive responder: what was chosen.
    pub(super) answer: Option<SaPayload>,
    /// Aggressive mode: the peer's identity, known before its proof.
    pub(super) peer_id: Vec<u8>,
    /// Aggressive initiator: the peer's proof, until it can be checked.
    pub(super) peer_proof: Vec<u8>,
    /// Signatures: the peer's claim, and where it came from and to.
    pub(super) claimed: Option<Box<Claimed>>,
    pub(super) path: Option<(SocketAddr, SocketAddr)>,
    /// Signatures: the name of the peer, proved.
    pub(super) peer_name: String,
    /// Signatures: body of our ID payload, and the certificate it stands in.
    pub(super) own_id: Vec<u8>,
    pub(super) credential: Option<Arc<Credential>>,
    /// Body of the initiator's SA payload.
    pub(super) sai: Vec<u8>,
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    pub(super) gxi: Vec<u8>,
    pub(super) gxr: Vec<u8>,
    pub(super) secret: Option<DhSecret>,
    pub(super) skeyid: Secret,
    pub(super) keys: Option<Skeyids>,
    pub(super) key: Secret,
    pub(super) iv: Vec<u8>,
    /// What the peer announced so far.
    pub(super) vendors: Vendors,
    /// The SA whose rekey this is, if we started it for that.
    pub(super) replaces: Option<Handle>,
    /// Last message accepted.
    pub(super) seen: Option<Digest>,
    /// Last message sent.
    pub(super) out: Option<Vec<u8>>,
    pub(super) sends: u32,
    pub(super) sent_at: Instant,
}

/// A message ID that was used, and the answer for a repeated request.
#[derive(Clone)]
pub(super) struct Recent {
    pub(super) message_id: u32,
    pub(super) digest: Digest,
    pub(super) at: Instant,
    pub(super) answer: Option<Vec<u8>>,
}

/// The end of a phase 1 that may have to be repeated.
#[derive(Clone)]
pub(super) struct LastMain {
    pub(super) digest: Digest,
    pub(super) answer: Vec<u8>,
    /// When the answer was sent last.
    pub(super) at: Instant,
}

/// State of an established ISAKMP SA.
pub(in crate::ike) struct Up {
    pub(super) policy_number: u32,
    pub(super) encryption: CipherAlg,
    pub(super) hash: HashAlg,
    pub(super) group: DhGroup,
    pub(super) keys: Skeyids,
    pub(super) key: Secret,
    /// Last cipher block of phase 1.
    pub(super) iv: Vec<u8>,
    pub(in crate::ike) up_at: Instant,
    pub(super) lifetime_s: u64,
    pub(in crate::ike) soft: Instant,
    pub(in crate::ike) hard: Instant,
    pub(in crate::ike) peer_dpd: bool,
    /// Number of our next R-U-THERE.
    pub(super) dpd_next: u32,
    /// Number of the peer's last R-U-THERE.
    pub(super) dpd_seen: Option<u32>,
    pub(super) recent: VecDeque<Recent>,
    /// The peer's last message of phase 1 and our answer, for a repetition.
    pub(super) last_main: Option<LastMain>,
    pub(super) peer_id: String,
    /// Another SA took over; this one only waits for its end.
    pub(in crate::ike) replaced: bool,
    /// A main mode that replaces this SA is under way or done.
    pub(super) rekeying: bool,
    /// INITIAL-CONTACT was obeyed already.
    pub(super) contacted: bool,
}

impl Up {
    /// DPD numbers: ours next, the peer's last.
    #[cfg(test)]
    pub(in crate::ike) fn dpd_numbers(&self) -> (u32, Option<u32>) {
        (self.dpd_next, self.dpd_seen)
    }

    /// Remembers a message ID and its answer; the oldest are forgotten.
    pub(super) fn remember(&mut self, message_id: u32, digest: Digest, answer: Option<Vec<u8>>, now: Instant) {
        self.recent.push_back(Recent { message_id, digest, at: now, answer });
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        let mut answers = 0;
        for r in self.recent.iter_mut().rev() {
            if r.answer.is_some() {
                answers += 1;
                if answers > ANSWERS_MAX || now.saturating_duration_since(r.at) > ANSWER_AGE_MAX {
                    r.answer = None;
                }
            }
        }
    }
}

/// A traffic flow between a pair of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::ike) struct FlowKey {
    pub(in crate::ike) pair: PairKey,
    pub(in crate::ike) local: Selector,
    pub(in crate::ike) remote: Selector,
}

/// Where a quick mode is. The first three are the initiator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ike) enum QuickState {
    /// Our public value is being computed.
    MakeKe,
    /// Message 1 sent.
    WaitAnswer,
    /// The shared secret is being computed.
    MakeKeys,
    /// Responder: public value and shared secret are being computed.
    AnswerKeys,
    /// Responder: message 2 sent.
    WaitProof,
}

/// State of a quick mode.
pub(in crate::ike) struct Quick {
    pub(in crate::ike) state: QuickState,
    /// Counts exchanges: a later one wins when both made a pair for one flow.
    pub(super) order: u64,
    /// Configuration and index of the entry as they were when the exchange began.
    pub(super) config: Arc<IkeConfig>,
    pub(super) entry: usize,
    pub(super) ace: u32,
    pub(in crate::ike) flow: FlowKey,
    pub(super) spi_in: Spi,
    /// The inbound half was installed.
    pub(super) installed: bool,
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    pub(super) secret: Option<DhSecret>,
    pub(super) public: Vec<u8>,
    pub(super) offer: Option<SaPayload>,
    pub(super) choice: Option<EspChoice>,
    /// Bodies of IDci and IDcr; none when the peer sent none.
    pub(super) ids: Option<(Vec<u8>, Vec<u8>)>,
    pub(super) iv: Vec<u8>,
    /// Where the peer's last message came from: answers go there.
    pub(super) peer: SocketAddr,
    pub(super) child: Option<Box<ChildSa>>,
    pub(super) replaces: Option<Spi>,
    pub(super) seen: Option<Digest>,
    pub(super) out: Option<Vec<u8>>,
    pub(super) sends: u32,
    pub(super) sent_at: Instant,
}

impl Quick {
    /// The crypto map entry it is for.
    pub(super) fn entry(&self) -> Option<&MapEntry> {
        self.config.entries.get(self.entry)
    }

    /// True when this is the SPI of either direction.
    pub(super) fn is_named(&self, spi: Spi) -> bool {
        spi == self.spi_in || self.child.as_ref().is_some_and(|c| c.spi_out == spi)
    }

    /// True when we started it.
    pub(in crate::ike) fn initiator(&self) -> bool {
        match self.state {
            QuickState::MakeKe | QuickState::WaitAnswer | QuickState::MakeKeys => true,
            QuickState::AnswerKeys | QuickState::WaitProof => false,
        }
    }
}

/// Whether the peer hears of an end, and how often. Nobody acknowledges a Delete (RFC 2408 3.15), so where its loss would leave the
/// peer sending into nothing, it is sent twice; where both ends have a timer of their own, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ike) enum Tell {
    /// It knows, or cannot hear.
    No,
    /// One Delete.
    Once,
    /// The same Delete again a little later.
    Twice,
}

/// A flow that waits for a quick mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::ike) struct Want {
    pub(in crate::ike) map: String,
    pub(in crate::ike) seq: u32,
    pub(in crate::ike) ace: u32,
    /// The pair it replaces.
    pub(in crate::ike) replaces: Option<Spi>,
    /// Peers of the entry that did not answer.
    pub(in crate::ike) tried: Vec<IpAddr>,
}

/// Unanswered probes of one round.
#[derive(Clone, Copy, Debug)]
pub(in crate::ike) struct Probe {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) sent: u32,
}

/// Everything about one peer as seen from one of our addresses.
pub(in crate::ike) struct Pair {
    /// Established ISAKMP SAs, oldest first.
    pub(in crate::ike) sas: Vec<Handle>,
    /// The main mode we are running.
    pub(in crate::ike) starting: Option<Handle>,
    /// Flows that wait for an ISAKMP SA or for their turn.
    pub(in crate::ike) wants: VecDeque<Want>,
    /// Child pairs.
    pub(in crate::ike) children: BTreeSet<Spi>,
    /// Last proof of life.
    pub(in crate::ike) heard: Instant,
    pub(in crate::ike) probe: Option<Probe>,
    /// Our end and the peer's, when our NAT must be reminded of them.
    pub(super) keepalive: Option<(SocketAddr, SocketAddr)>,
    /// When it did not answer last.
    pub(super) failed: Option<Instant>,
    /// Last unprotected notification sent to it.
    pub(super) notified: Option<Instant>,
    /// When the operator last heard of each kind of refusal.
    pub(super) told: BTreeMap<&'static str, Instant>,
    /// We hold or held an ISAKMP SA with it: no INITIAL-CONTACT any more.
    pub(in crate::ike) met: bool,
}

impl Pair {
    pub(in crate::ike) fn new(now: Instant) -> Self {
        Self {
            sas: Vec::new(),
            starting: None,
            wants: VecDeque::new(),
            children: BTreeSet::new(),
            heard: now,
            probe: None,
            keepalive: None,
            failed: None,
            notified: None,
            told: BTreeMap::new(),
            met: false,
        }
    }
}
