//! What the engine remembers about an IKE SA and a peer.

use super::keymat::IkeKeys;
use super::message::{Exchange, NotifyType, Outgoing, Protocol};
use super::proposal::IkeSuite;
use super::task::{Answering, ChildTask, Current, Task, Want};
use crate::crypto::{DhGroup, DhSecret, HashAlg};
use crate::id::{IkeSaId, Spi};
use crate::ike::policy::{IkeConfig, Ikev2Profile, MapEntry};
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Engine's own number of an IKE SA. Rises, so a higher one is younger.
pub(super) type Handle = u64;

/// Our address and the peer's, as they are configured.
pub(super) type PairKey = (IpAddr, IpAddr);

/// SHA-256 of a datagram: recognises a repetition.
pub(super) type Digest = [u8; 32];

/// Tasks that wait for one IKE SA.
pub(super) const TASKS_MAX: usize = 8192;

pub(super) fn digest(datagram: &[u8]) -> Digest {
    let mut out = [0; 32];
    for (o, b) in out.iter_mut().zip(HashAlg::Sha256.digest(&[datagram])) {
        *o = b;
    }
    out
}

/// Why a message was refused: counter label, detail for the log.
#[derive(Debug)]
pub(super) struct Refuse(pub(super) &'static str, pub(super) String);

/// Result of handling a message.
pub(super) type Verdict<T = ()> = Result<T, Refuse>;

impl From<super::message::Fault> for Refuse {
    fn from(f: super::message::Fault) -> Self {
        Self(f.reason(), f.to_string())
    }
}

pub(super) fn refuse(reason: &'static str, why: impl Into<String>) -> Refuse {
    Refuse(reason, why.into())
}

/// The SA that a message belongs to ended meanwhile.
pub(super) fn ended() -> Refuse {
    Refuse("ended", "the SA ended meanwhile".into())
}

/// An error that a request is answered with.
#[derive(Debug)]
pub(super) struct Fail {
    pub(super) kind: NotifyType,
    pub(super) data: Vec<u8>,
    /// An ESP SA that it concerns.
    pub(super) spi: Option<Spi>,
    pub(super) why: String,
}

impl Fail {
    pub(super) fn new(kind: NotifyType, why: impl Into<String>) -> Self {
        Self { kind, data: Vec::new(), spi: None, why: why.into() }
    }

    /// INVALID_KE_PAYLOAD with the group that is wanted.
    pub(super) fn group(group: DhGroup) -> Self {
        let data = group.number().to_be_bytes().to_vec();
        Self { data, ..Self::new(NotifyType::INVALID_KE_PAYLOAD, format!("group {} is wanted", group.name())) }
    }

    /// Appends the notify to an answer.
    pub(super) fn put(&self, out: &mut Outgoing) {
        match self.spi {
            Some(spi) => out.notify(Protocol::Esp, &spi.0.to_be_bytes(), self.kind, &self.data),
            None => out.status(self.kind, &self.data),
        };
    }
}

/// An IKE SA, growing or grown.
pub(super) struct Sa {
    /// SPIs; the responder's is zero until it answered.
    pub(super) id: IkeSaId,
    /// The peer it was made for.
    pub(super) pair: PairKey,
    /// Our address and port, as the path is now.
    pub(super) local: SocketAddr,
    /// The peer's.
    pub(super) peer: SocketAddr,
    /// Where the first message came from, or went to.
    pub(super) first: SocketAddr,
    /// We are the original initiator.
    pub(super) initiator: bool,
    /// When its first exchange began (or the state was imported).
    pub(super) born: Instant,
    /// Fragments of the message that is awaited.
    pub(super) partial: Option<Box<Partial>>,
    /// Progress.
    pub(super) stage: Stage,
}

/// Fragments of one message (RFC 7383).
pub(super) struct Partial {
    pub(super) message_id: u32,
    pub(super) response: bool,
    pub(super) reassembly: super::fragment::Reassembly,
    /// Digest of the first fragment: it stands for the message when it is repeated.
    pub(super) first: Digest,
}

/// Progress of an IKE SA.
pub(super) enum Stage {
    /// IKE_SA_INIT to IKE_AUTH.
    Init(Box<Init>),
    /// Established.
    Up(Box<Up>),
}

impl Sa {
    pub(super) fn our_spi(&self) -> [u8; 8] {
        if self.initiator { self.id.initiator } else { self.id.responder }
    }

    pub(super) fn up(&self) -> Option<&Up> {
        match &self.stage {
            Stage::Up(up) => Some(up),
            Stage::Init(_) => None,
        }
    }

    pub(super) fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.stage {
            Stage::Up(up) => Some(up),
            Stage::Init(_) => None,
        }
    }

    /// Algorithms and keys, once they are there.
    pub(super) fn keys(&self) -> Option<(&IkeSuite, &IkeKeys, Caps)> {
        match &self.stage {
            Stage::Up(up) => Some((&up.suite, &up.keys, up.caps)),
            Stage::Init(init) => Some((init.suite.as_ref()?, init.keys.as_ref()?, init.caps)),
        }
    }

    pub(super) fn init(&self) -> Option<&Init> {
        match &self.stage {
            Stage::Init(init) => Some(init),
            Stage::Up(_) => None,
        }
    }

    pub(super) fn init_mut(&mut self) -> Option<&mut Init> {
        match &mut self.stage {
            Stage::Init(init) => Some(init),
            Stage::Up(_) => None,
        }
    }
}

/// Where the first exchanges are. The first nine are the initiator's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InitState {
    /// Our public value is being computed.
    MakeKe,
    /// IKE_SA_INIT sent.
    WaitInit,
    /// The shared secret is being computed.
    MakeKeys,
    /// Our value of an additional key exchange is being computed.
    MakeExtra,
    /// IKE_INTERMEDIATE sent.
    WaitExtra,
    /// The secret of an additional key exchange is being computed.
    MakeExtraKeys,
    /// Our signature is being made.
    MakeAuth,
    /// IKE_AUTH sent.
    WaitAuth,
    /// The peer's signature is being verified.
    CheckAuth,
    /// Responder: public value and shared secret are being computed.
    AnswerInit,
    /// Responder: IKE_SA_INIT or IKE_INTERMEDIATE answered.
    AnsweredInit,
    /// Responder: an additional key exchange is being computed.
    AnswerExtra,
    /// Responder: the peer's signature is being verified, or ours made.
    AnswerAuth,
}

/// State of the first exchanges.
pub(super) struct Init {
    pub(super) state: InitState,
    /// Configuration as it was when the exchange began.
    pub(super) config: Arc<IkeConfig>,
    /// The profile; at the responder one that can agree to the proposal, until the peer names itself.
    pub(super) profile: Arc<Ikev2Profile>,
    pub(super) group: DhGroup,
    pub(super) secret: Option<DhSecret>,
    pub(super) public: Vec<u8>,
    /// The responder's cookie.
    pub(super) cookie: Vec<u8>,
    /// New starts of IKE_SA_INIT that the responder asked for.
    pub(super) restarts: u32,
    pub(super) ni: Vec<u8>,
    pub(super) nr: Vec<u8>,
    pub(super) suite: Option<IkeSuite>,
    pub(super) keys: Option<IkeKeys>,
    /// IKE_SA_INIT request and response as they were sent: both are signed.
    pub(super) message_i: Vec<u8>,
    pub(super) message_r: Vec<u8>,
    /// What the peer announced.
    pub(super) caps: Caps,
    /// Message ID of the last request.
    pub(super) message_id: u32,
    /// Last message accepted.
    pub(super) seen: Option<Digest>,
    /// Additional key exchanges that are done.
    pub(super) extra_done: usize,
    /// IntAuth of the messages of the initiator and of the responder so far (RFC 9242), and of all of them at the end.
    pub(super) int_i: Vec<u8>,
    pub(super) int_r: Vec<u8>,
    pub(super) int_auth: Vec<u8>,
    /// Where the request that is being answered came from, and went to.
    pub(super) reply_to: Option<(SocketAddr, SocketAddr)>,
    /// Both ends have a post-quantum key; the responder found the one that is named; keys before it was mixed in (RFC 8784).
    pub(super) ppk_announced: bool,
    pub(super) ppk_used: bool,
    pub(super) plain_keys: Option<IkeKeys>,
    /// Hashes that the peer takes in signatures (RFC 7427).
    pub(super) peer_hashes: Vec<u16>,
    /// The peer's IKE_AUTH while signatures are made or checked.
    pub(super) pending: Option<Box<Pending>>,
    /// Last message sent, in its fragments.
    pub(super) out: Vec<Vec<u8>>,
    pub(super) sends: u32,
    pub(super) sent_at: Instant,
    /// The first child (initiator).
    pub(super) child: Option<Box<ChildTask>>,
    /// An unauthenticated refusal: not believed before the next retransmission is due.
    pub(super) refused: Option<NotifyType>,
}

/// A message of IKE_AUTH whose proof is being checked, or answered.
pub(super) struct Pending {
    pub(super) opened: super::message::Opened,
    pub(super) asked: Asked,
    pub(super) identity: Option<crate::id::Identity>,
    /// The peer proved itself.
    pub(super) proven: bool,
}

/// What a peer can do, and what the path is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Caps {
    /// RFC 7383.
    pub(super) fragments: bool,
    /// There is a NAT before us.
    pub(super) nat_here: bool,
    /// There is a NAT before the peer.
    pub(super) nat_there: bool,
    /// RFC 6023.
    pub(super) childless: bool,
    /// RFC 6311.
    pub(super) message_sync: bool,
    /// RFC 6311.
    pub(super) replay_sync: bool,
}

impl Caps {
    pub(super) fn nat(self) -> bool {
        self.nat_here || self.nat_there
    }
}

/// The last request that was answered.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) message_id: u32,
    pub(super) digest: Digest,
    pub(super) packets: Vec<Vec<u8>>,
    pub(super) at: Instant,
}

/// A request that is being served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) message_id: u32,
    pub(super) exchange: Exchange,
    pub(super) digest: Digest,
    /// Where it came from and to: the answer goes back there.
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
}

/// What becomes of an established IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// In use.
    Live,
    /// Another one took over; it waits for its end.
    Replaced,
    /// Our Delete is on its way.
    Closing,
}

/// State of an established IKE SA.
pub(super) struct Up {
    pub(super) profile: Arc<Ikev2Profile>,
    pub(super) suite: IkeSuite,
    pub(super) keys: IkeKeys,
    pub(super) caps: Caps,
    pub(super) fate: Fate,
    pub(super) up_at: Instant,
    pub(super) soft: Instant,
    pub(super) hard: Instant,
    /// Message ID of our next request.
    pub(super) send_id: u32,
    /// Message ID of the peer's next request.
    pub(super) recv_id: u32,
    /// Our request under way.
    pub(super) current: Option<Current>,
    /// What is to be requested next.
    pub(super) tasks: VecDeque<Task>,
    /// The peer's request that is being served.
    pub(super) asked: Option<Asked>,
    /// What its answer needs from a job.
    pub(super) answering: Option<Answering>,
    /// The last answer.
    pub(super) answer: Option<Answer>,
    pub(super) children: BTreeSet<Spi>,
    /// Last proof of life.
    pub(super) heard: Instant,
    pub(super) peer_id: String,
    /// INITIAL_CONTACT was obeyed already.
    pub(super) contacted: bool,
    /// An IKE SA that the peer made of this one while our own rekey was on its way, and the lower nonce of its exchange.
    pub(super) rival: Option<(IkeSaId, Vec<u8>)>,
}

/// Everything about one peer as seen from one of our addresses.
#[derive(Default)]
pub(super) struct Pair {
    /// Established IKE SAs, oldest first.
    pub(super) sas: Vec<Handle>,
    /// The SA we are making.
    pub(super) starting: Option<Handle>,
    /// Flows that wait for an IKE SA.
    pub(super) wants: VecDeque<Want>,
    /// We hold or held an IKE SA with it: no INITIAL_CONTACT any more.
    pub(super) met: bool,
    /// It does not speak version 2: until then version 1 is used.
    pub(super) old_until: Option<Instant>,
}

/// Entries of the crypto maps under which version 2 is spoken with a peer.
pub(super) fn entries_of(config: &IkeConfig, pair: PairKey) -> impl Iterator<Item = (usize, &MapEntry, &Arc<Ikev2Profile>)> {
    let ours = move |e: &&MapEntry| e.local == pair.0 && e.peers.contains(&pair.1);
    config.entries.iter().enumerate().filter_map(move |(i, e)| Some((i, Some(e).filter(ours)?, e.ikev2.as_ref()?)))
}

/// Profiles for a peer, each once, in order of the entries.
pub(super) fn profiles_of(config: &IkeConfig, pair: PairKey) -> Vec<Arc<Ikev2Profile>> {
    let mut out: Vec<Arc<Ikev2Profile>> = Vec::new();
    for (_, _, profile) in entries_of(config, pair) {
        if !out.iter().any(|p| p.name == profile.name) {
            out.push(profile.clone());
        }
    }
    out
}
