//! SAs of both versions of IKE, and sessions: what one peer has with us.

use super::{FlowView, HaStatus};
use crate::config::{identity_text, ikev2_encr_word, ikev2_integ_word, ikev2_prf_word};
use crate::crypto::DhGroup;
use crate::id::{IkeSaId, IkeVersion};
use crate::ike::{AuthMethod, IkeSaDetail, IsakmpState};
use crate::sad::Selector;
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};

/// An ISAKMP SA, or an IKE SA of version 2.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct IsakmpSaView {
    /// Version.
    pub version: IkeVersion,
    /// Responder's address.
    pub dst: IpAddr,
    /// Initiator's address.
    pub src: IpAddr,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// We started it.
    pub initiator: bool,
    /// State.
    pub state: IsakmpState,
    /// Cookies, or SPIs.
    #[serde(serialize_with = "cookies_json")]
    pub id: IkeSaId,
    /// Small number for this list.
    pub conn_id: u32,
    /// In use or dormant.
    pub status: HaStatus,
    /// Seconds until its lifetime ends.
    pub remaining_s: u64,
    /// Of an established IKEv2 SA.
    pub ikev2: Option<Ikev2SaView>,
}

/// What version 2 knows more of an established SA; algorithms in the configuration's words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ikev2SaView {
    /// Profile.
    pub profile: String,
    /// Encryption.
    pub encryption: &'static str,
    /// Integrity.
    pub integrity: Option<&'static str>,
    /// Pseudorandom function.
    pub prf: &'static str,
    /// Number of the group.
    pub group: u16,
    /// Numbers of the additional key exchanges.
    pub additional: Vec<u16>,
    /// How we proved ourselves.
    pub sign: &'static str,
    /// How the peer did.
    pub verify: &'static str,
    /// Our identity, if the profile names one.
    pub local_id: Option<String>,
    /// The identity that the peer proved.
    pub remote_id: String,
    /// Lifetime in seconds.
    pub lifetime_s: u64,
    /// Age in seconds.
    pub active_s: u64,
    /// Message ID of our next request.
    pub next_request: u32,
    /// Message ID of the peer's next request.
    pub next_remote_request: u32,
    /// Messages may leave in fragments.
    pub fragmentation: bool,
    /// `none`, `local`, `remote`, `both`: where NATs are.
    pub nat: &'static str,
}

impl From<IkeSaDetail> for Ikev2SaView {
    fn from(d: IkeSaDetail) -> Self {
        let method = |m| match m {
            AuthMethod::PreShared => "PSK",
            AuthMethod::Signature => "SIG",
        };
        Self {
            profile: d.profile,
            encryption: ikev2_encr_word(d.encr),
            integrity: d.integ.map(ikev2_integ_word),
            prf: ikev2_prf_word(d.prf),
            group: d.group.number(),
            additional: d.additional.into_iter().map(DhGroup::number).collect(),
            sign: method(d.local_auth),
            verify: method(d.remote_auth),
            local_id: d.local_id.as_ref().map(identity_text),
            remote_id: d.peer_id,
            lifetime_s: d.lifetime_s,
            active_s: d.age_s,
            next_request: d.send_id,
            next_remote_request: d.recv_id,
            fragmentation: d.fragments,
            nat: match (d.nat_here, d.nat_there) {
                (false, false) => "none",
                (true, false) => "local",
                (false, true) => "remote",
                (true, true) => "both",
            },
        }
    }
}

impl IsakmpSaView {
    /// The peer is authenticated.
    pub const fn is_up(&self) -> bool {
        match self.state {
            IsakmpState::QM_IDLE | IsakmpState::READY => true,
            IsakmpState::MM_NO_STATE
            | IsakmpState::MM_SA_SETUP
            | IsakmpState::MM_KEY_EXCH
            | IsakmpState::MM_KEY_AUTH
            | IsakmpState::AG_NO_STATE
            | IsakmpState::AG_INIT_EXCH
            | IsakmpState::IN_NEG => false,
        }
    }
}

/// State of a session, in the words of IOS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum SessionState {
    /// IKE and IPsec SAs.
    UpActive,
    /// An IKE SA without IPsec SAs.
    UpIdle,
    /// IPsec SAs whose IKE SA is gone.
    UpNoIke,
    /// Being negotiated.
    DownNegotiating,
    /// Nothing.
    Down,
}

impl SessionState {
    /// `UP-ACTIVE`, `UP-IDLE`, `UP-NO-IKE`, `DOWN-NEGOTIATING`, `DOWN`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::UpActive => "UP-ACTIVE",
            Self::UpIdle => "UP-IDLE",
            Self::UpNoIke => "UP-NO-IKE",
            Self::DownNegotiating => "DOWN-NEGOTIATING",
            Self::Down => "DOWN",
        }
    }
}

/// One flow of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SessionFlowView {
    /// Traffic behind us.
    pub local: Selector,
    /// Traffic behind the peer.
    pub remote: Selector,
    /// IPsec SAs, both halves counted.
    pub sas: usize,
    /// Packets received and verified.
    pub packets_in: u64,
    /// Packets sent.
    pub packets_out: u64,
    /// Seconds left of the pair in use.
    pub remaining_s: Option<u64>,
}

/// `show crypto session`: one peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SessionView {
    /// Kernel device; empty for a peer of no flow.
    pub interface: String,
    /// The peer, with the port that IKE goes to.
    pub peer: SocketAddr,
    /// State.
    pub state: SessionState,
    /// IKE SAs.
    pub ike: Vec<IsakmpSaView>,
    /// Its flows.
    pub flows: Vec<SessionFlowView>,
}

/// UDP port of IKE without a NAT.
const IKE_PORT: u16 = 500;

impl SessionView {
    /// Sessions in order of the flows; peers of no flow follow.
    pub fn compose(sas: &[IsakmpSaView], flows: &[FlowView]) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        let mut session = |peer: IpAddr, interface: &str| -> usize {
            let found = out.iter().position(|s| s.peer.ip() == peer);
            found.unwrap_or_else(|| {
                let peer = SocketAddr::new(peer, IKE_PORT);
                out.push(Self { interface: interface.to_owned(), peer, state: SessionState::Down, ike: Vec::new(), flows: Vec::new() });
                out.len() - 1
            })
        };
        let places: Vec<usize> = flows.iter().map(|f| session(f.peer, &f.interface)).collect();
        let owners: Vec<usize> = sas.iter().map(|s| session(s.remote.ip(), "")).collect();
        for (at, f) in places.into_iter().zip(flows) {
            let live = f.outbound.iter().find(|s| Some(s.spi) == f.current_spi_out);
            out[at].flows.push(SessionFlowView {
                local: f.local,
                remote: f.remote,
                sas: f.inbound.len() + f.outbound.len(),
                packets_in: f.packets_in,
                packets_out: f.packets_out,
                remaining_s: live.and_then(|s| s.remaining_s),
            });
        }
        for (at, s) in owners.into_iter().zip(sas) {
            out[at].peer = s.remote;
            out[at].ike.push(s.clone());
        }
        for s in &mut out {
            let protected = s.flows.iter().any(|f| f.sas > 0);
            s.state = match (s.ike.iter().any(IsakmpSaView::is_up), protected) {
                (true, true) => SessionState::UpActive,
                (true, false) => SessionState::UpIdle,
                (false, true) => SessionState::UpNoIke,
                (false, false) if s.ike.is_empty() => SessionState::Down,
                (false, false) => SessionState::DownNegotiating,
            };
        }
        out
    }
}

/// A cookie as two 32-bit words, as the guide prints it.
pub fn cookie(c: [u8; 8]) -> String {
    let n = u64::from_be_bytes(c);
    format!("{:08X} {:08X}", n >> 32, n & 0xffff_ffff)
}

fn cookies_json<S: Serializer>(id: &IkeSaId, s: S) -> Result<S::Ok, S::Error> {
    [cookie(id.initiator), cookie(id.responder)].serialize(s)
}
