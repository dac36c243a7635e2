//! Building messages.

use super::{HEADER_LEN, Header, NotifyType, PayloadKind, Protocol, SealKeys, seal};
use crate::crypto::CryptoError;
use crate::id::{Identity, Spi};
use crate::ike::v2::proposal::Proposal;
use crate::ike::v2::selectors::TrafficSelector;
use crate::wire::Writer;

/// A chain of payloads that grows at its end.
#[derive(Default, Debug)]
pub struct Outgoing {
    first: u8,
    w: Writer,
    /// Where the last payload begins: its first byte names what follows.
    last: Option<usize>,
}

impl Outgoing {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Type of the first payload; 0 of an empty chain.
    pub fn first(&self) -> u8 {
        self.first
    }

    /// The chain, as it goes into an Encrypted payload.
    pub fn bytes(&self) -> &[u8] {
        self.w.as_slice()
    }

    /// Appends a payload. A body above 65 531 bytes cannot be sent; our own are all far below, which a debug assertion checks.
    pub fn add(&mut self, kind: PayloadKind, body: &[u8]) -> &mut Self {
        debug_assert!(body.len() <= usize::from(u16::MAX) - 4);
        let at = self.w.len();
        self.w.u8(0).u8(0).u16((body.len() + 4) as u16).bytes(body);
        match self.last.replace(at) {
            Some(last) => self.w.patch_u8(last, kind.number()),
            None => self.first = kind.number(),
        }
        self
    }

    /// Security association.
    pub fn sa(&mut self, proposals: &[Proposal]) -> &mut Self {
        self.add(PayloadKind::Sa, &Proposal::encode_all(proposals))
    }

    /// Key exchange.
    pub fn ke(&mut self, group: u16, public: &[u8]) -> &mut Self {
        self.add(PayloadKind::Ke, &[&group.to_be_bytes(), &[0, 0], public].concat())
    }

    /// Identity of the initiator or responder. The body for AUTH is [`super::Id::body_of`].
    pub fn id(&mut self, initiator: bool, identity: &Identity) -> &mut Self {
        let kind = if initiator { PayloadKind::IdI } else { PayloadKind::IdR };
        self.add(kind, &super::Id::body_of(identity))
    }

    /// Certificate.
    pub fn cert(&mut self, encoding: u8, data: &[u8]) -> &mut Self {
        self.add(PayloadKind::Cert, &[&[encoding], data].concat())
    }

    /// Certificate request: key hashes of authorities, concatenated.
    pub fn cert_req(&mut self, encoding: u8, data: &[u8]) -> &mut Self {
        self.add(PayloadKind::CertReq, &[&[encoding], data].concat())
    }

    /// Authentication.
    pub fn auth(&mut self, method: u8, data: &[u8]) -> &mut Self {
        self.add(PayloadKind::Auth, &[&[method, 0, 0, 0], data].concat())
    }

    /// Nonce.
    pub fn nonce(&mut self, nonce: &[u8]) -> &mut Self {
        self.add(PayloadKind::Nonce, nonce)
    }

    /// Notify about an SA, or about none.
    pub fn notify(&mut self, protocol: Protocol, spi: &[u8], kind: NotifyType, data: &[u8]) -> &mut Self {
        let head = [protocol.number(), spi.len() as u8];
        self.add(PayloadKind::Notify, &[&head, &kind.0.to_be_bytes(), spi, data].concat())
    }

    /// Notify about no SA: a status, or an error of the whole exchange.
    pub fn status(&mut self, kind: NotifyType, data: &[u8]) -> &mut Self {
        self.notify(Protocol::None, &[], kind, data)
    }

    /// Delete of the IKE SA.
    pub fn delete_ike(&mut self) -> &mut Self {
        self.add(PayloadKind::Delete, &[Protocol::Ike.number(), 0, 0, 0])
    }

    /// Delete of ESP SAs by the SPIs on which we receive.
    pub fn delete_esp(&mut self, spis: &[Spi]) -> &mut Self {
        let mut w = Writer::new();
        w.u8(Protocol::Esp.number()).u8(4).u16(spis.len() as u16);
        for spi in spis {
            w.u32(spi.0);
        }
        self.add(PayloadKind::Delete, w.as_slice())
    }

    /// Vendor ID.
    pub fn vendor(&mut self, id: &[u8]) -> &mut Self {
        self.add(PayloadKind::VendorId, id)
    }

    /// Traffic selectors of both sides.
    pub fn ts(&mut self, initiator: &[TrafficSelector], responder: &[TrafficSelector]) -> &mut Self {
        self.add(PayloadKind::TsI, &TrafficSelector::encode_all(initiator));
        self.add(PayloadKind::TsR, &TrafficSelector::encode_all(responder))
    }

    /// The whole message unprotected: IKE_SA_INIT, or an error outside any SA.
    pub fn plain(&self, header: &Header) -> Vec<u8> {
        let mut w = Writer::new();
        Header { next: self.first, ..*header }.encode(HEADER_LEN + self.w.len(), &mut w);
        w.bytes(self.w.as_slice());
        w.into_vec()
    }

    /// The whole message in an Encrypted payload. See [`seal`].
    pub fn seal(&self, header: &Header, keys: &SealKeys, iv: &[u8]) -> Result<Vec<u8>, CryptoError> {
        seal(header, self.first, self.w.as_slice(), keys, iv)
    }
}
