//! Bad input and attacks (the conformance list, sections 5.1 and 5.2): the engine stays up, the live tunnel beside it does not notice, nothing is
//! kept, at most one answer is sent and it is no larger than what drew it.

mod auth;
mod established;
mod first;
mod flood;
mod fuzz;
mod jobs;

use super::net::*;
use crate::crypto::{DhGroup, DhSecret};
use crate::id::IkeSaId;
use crate::id::{Identity, Spi};
use crate::ike::v2::keymat::{IkeKeys, psk_auth, signed_octets, skeyseed};
use crate::ike::v2::message::*;
use crate::ike::v2::proposal::{IkeSuite, Proposal, esp_offer, ike_offer};
use crate::ike::v2::selectors::TrafficSelector;
use crate::ike::{IkeConfig, PeerMatch};
use crate::rng::Seeded;
use crate::sad::Mode;
use std::net::{IpAddr, SocketAddr};

/// A tunnel that stands, to be attacked at node B.
fn up() -> Net {
    let mut c = usual();
    many_peers(&mut c[B], 1);
    let net = standing(1, c, A);
    net.assert_settled(1, 1);
    net
}

/// An address from which nobody is expected.
const STRANGER: [u8; 4] = [203, 0, 113, 9];

/// A gateway that speaks with this many other addresses besides its peer.
fn many_peers(c: &mut IkeConfig, count: u32) {
    c.keys[0].peer = PeerMatch::Any;
    c.entries[0].peers.extend((0..count).map(address));
}

/// Gives node B bytes from this address; everything that follows at once has happened when it returns.
fn deliver(net: &mut Net, from: SocketAddr, bytes: &[u8]) {
    let to = SocketAddr::new(net.nodes[B].addr, from.port());
    net.nodes[B].engine.handle_datagram(from, to, bytes, net.now);
    net.pump();
}

fn peer(net: &Net) -> SocketAddr {
    SocketAddr::new(net.nodes[A].addr, 500)
}

/// Runs `bytes` from the address of the live peer against node B. Nothing may change but the counters; gives why it was refused, and the answer.
fn refused(net: &mut Net, bytes: &[u8]) -> (Vec<&'static str>, Option<Vec<u8>>) {
    let from = peer(net);
    let n = &mut net.nodes[B];
    n.events.clear();
    let (sent, timers) = (n.sent.len(), n.engine.poll_timeout());
    deliver(net, from, bytes);
    let n = &net.nodes[B];
    assert!(n.sent.len() <= sent + 1, "at most one answer");
    let answer = n.sent.get(sent).cloned();
    if let Some(answer) = &answer {
        assert!(answer.len() <= bytes.len(), "no amplification: {} for {}", answer.len(), bytes.len());
    }
    assert_eq!(n.engine.poll_timeout(), timers, "no state");
    let reasons = n.refusals();
    net.assert_settled(1, 1);
    (reasons, answer)
}

/// The tunnel still works: it can be rekeyed, and so can its IKE SA.
fn still_works(net: &mut Net) {
    net.secs(40);
    net.assert_settled(1, 1);
    net.rekey_child(B);
    net.secs(3);
    net.rekey_ike(A);
    net.secs(3);
    net.assert_settled(1, 1);
}

/// What a first message may look like; [`First::build`] makes the bytes.
struct First {
    spi: [u8; 8],
    offer: Vec<Proposal>,
    group: u16,
    public: Vec<u8>,
    nonce: Vec<u8>,
}

/// A first message to which node B agrees.
fn first(n: u8) -> (First, DhSecret) {
    let secret = DhGroup::Ecp256.generate(&mut Seeded::new(u64::from(n) + 77));
    let public = secret.public().unwrap();
    (First { spi: [n; 8], offer: ike_offer(&[fast()], None), group: 19, public, nonce: vec![n; 32] }, secret)
}

impl First {
    fn header(&self) -> Header {
        Header::new(IkeSaId { initiator: self.spi, responder: [0; 8] }, Exchange::SaInit, true, false, 0)
    }

    fn build(&self) -> Vec<u8> {
        let mut out = Outgoing::new();
        out.sa(&self.offer).ke(self.group, &self.public).nonce(&self.nonce);
        out.plain(&self.header())
    }
}

/// Whoever has come through IKE_SA_INIT from an address of his own, and may or may not know the pre-shared key.
struct Mallory {
    from: SocketAddr,
    suite: IkeSuite,
    keys: IkeKeys,
    id: IkeSaId,
    request: Vec<u8>,
    response: Vec<u8>,
    ni: Vec<u8>,
    nr: Vec<u8>,
}

impl Mallory {
    fn new(net: &mut Net, n: u8) -> Self {
        let (first, secret) = first(n);
        let from = SocketAddr::new(address(0), 500);
        let request = first.build();
        let sent = net.nodes[B].sent.len();
        deliver(net, from, &request);
        let response = net.nodes[B].sent.get(sent).expect("the first message is answered").clone();
        let header = Header::decode(&response).unwrap();
        let m = Message::decode(header.next, &response[HEADER_LEN..]).unwrap();
        let shared = secret.shared(m.ke.unwrap().data).unwrap();
        let nr = m.nonce.unwrap().to_vec();
        let p = fast();
        let suite = IkeSuite {
            encr: p.encryption[0],
            integ: p.integrity.first().copied(),
            prf: p.prf[0],
            group: DhGroup::Ecp256,
            additional: Vec::new(),
        };
        let seed = skeyseed(suite.prf, &first.nonce, &nr, &shared);
        let keys = IkeKeys::derive(&suite, &seed, &first.nonce, &nr, &header.id);
        Self { from, suite, keys, id: header.id, request, response, ni: first.nonce, nr }
    }

    fn seal(&self, exchange: Exchange, message_id: u32, out: &Outgoing) -> Vec<u8> {
        let header = Header::new(self.id, exchange, true, false, message_id);
        let keys = self.keys.seal_keys(&self.suite, true);
        out.seal(&header, &keys, &vec![message_id as u8; keys.iv_len()]).unwrap()
    }

    fn open(&self, answer: &[u8]) -> Opened {
        let header = Header::decode(answer).unwrap();
        assert_eq!(header.id, self.id);
        open(answer, &header, &self.keys.seal_keys(&self.suite, false)).unwrap()
    }

    /// Sends one protected request; gives the errors and status types of the answer, when there is one.
    fn ask(&self, net: &mut Net, exchange: Exchange, message_id: u32, out: &Outgoing) -> Option<Vec<NotifyType>> {
        let sent = net.nodes[B].sent.len();
        let bytes = self.seal(exchange, message_id, out);
        deliver(net, self.from, &bytes);
        assert!(net.nodes[B].sent.len() <= sent + 1);
        let answer = net.nodes[B].sent.get(sent)?.clone();
        let opened = self.open(&answer);
        let m = Message::decode(opened.first, &opened.plain).unwrap();
        Some(m.notifies.iter().map(|n| n.kind).collect())
    }

    fn identity(&self) -> Identity {
        Identity::Address(self.from.ip())
    }

    /// AUTH data of whoever knows this key.
    fn proof(&self, net: &Net, psk: Option<&[u8]>) -> Vec<u8> {
        let configured = net.nodes[B].engine.config.keys[0].key.clone();
        let psk = psk.map_or(configured, |k| crate::crypto::Secret::new(k.to_vec()));
        let body = Id::body_of(&self.identity());
        psk_auth(self.suite.prf, &psk, &signed_octets(&self.request, &self.nr, self.suite.prf, self.keys.p(true), &body, &[]))
    }

    /// Payloads of a good IKE_AUTH request for the flow of node B.
    fn good(&self, net: &Net) -> Outgoing {
        let mut out = Outgoing::new();
        out.id(true, &self.identity()).auth(2, &self.proof(net, None));
        out.sa(&child_offer(net, 0x4d41_4c00));
        let (i, r) = flow_ts(net);
        out.ts(&i, &r);
        out
    }
}

/// An offer for a child that node B takes.
fn child_offer(net: &Net, spi: u32) -> Vec<Proposal> {
    esp_offer(&net.nodes[B].engine.config.entries[0].transforms, Mode::Tunnel, None, false, Spi(spi))
}

/// The selectors of node B's flow: its peer's side, its own.
fn flow_ts(net: &Net) -> ([TrafficSelector; 1], [TrafficSelector; 1]) {
    let flow = &net.nodes[B].engine.config.entries[0].flows[0];
    ([TrafficSelector::of(flow.remote)], [TrafficSelector::of(flow.local)])
}

fn address(n: u32) -> IpAddr {
    std::net::Ipv4Addr::from(0xcb00_7100 + n).into()
}
