//! Quick mode's payloads, keys and checks: what needs no engine.

use super::nat;
use super::phase1::{Refuse, Verdict, check_nonce};
use super::sa::{Nat, PairKey, Quick};
use crate::crypto::{CipherAlg, HashAlg, Secret, ct_eq};
use crate::id::{IkeSaId, IkeVersion, Spi};
use crate::ike::v1::keymat::{self, ChildInput, Skeyids};
use crate::ike::v1::message::{Exchange, Header, Notify, PayloadKind, Payloads, SaPayload, notify_type, protocol};
use crate::ike::v1::proposal::{self, Ends};
use crate::sad::{ChildSa, Encap, EspKeys, Lifetime, Selector};
use std::net::{IpAddr, SocketAddr};

/// One text for everything that can be wrong before the HASH is verified.
const HASH_DETAIL: &str = "the message cannot be read or its HASH is wrong";

pub(super) fn unreadable() -> Refuse {
    Refuse("hash", HASH_DETAIL.into())
}

pub(super) fn ended() -> Refuse {
    Refuse("not_established", "the exchange has ended".into())
}

/// What protects phase 2 under one ISAKMP SA.
pub(super) struct Suite {
    pub(super) id: IkeSaId,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) nat: Nat,
    pub(super) hash: HashAlg,
    pub(super) cipher: CipherAlg,
    pub(super) keys: Skeyids,
    pub(super) key: Secret,
    pub(super) last_block: Vec<u8>,
}

impl Suite {
    pub(super) fn first_iv(&self, message_id: u32) -> Vec<u8> {
        keymat::phase2_iv(self.hash, self.cipher, &self.last_block, message_id)
    }

    pub(super) fn header(&self, exchange: Exchange, message_id: u32) -> Header {
        Header { id: self.id, next: 0, exchange, flags: 0, message_id }
    }

    pub(super) fn pair(&self) -> PairKey {
        PairKey::of(self.local, self.peer)
    }

    /// Which encapsulations this traffic allows: transport mode is for that of the ends themselves.
    pub(super) fn ends(&self, local: &Selector, remote: &Selector) -> Ends {
        let is = |s: &Selector, addr: IpAddr| s.addr == addr && s.prefix == if addr.is_ipv4() { 32 } else { 128 };
        let transport = is(local, self.local.ip()) && is(remote, self.peer.ip());
        Ends { nat: self.nat.found(), tunnel: true, transport }
    }

    /// Decrypts and checks that the message is well formed, begins with a HASH, and that the HASH is right.
    pub(super) fn verify<'p>(
        &self,
        header: &Header,
        plain: &'p [u8],
        expected: impl FnOnce(&Payloads<'p>) -> Vec<u8>,
    ) -> Verdict<Payloads<'p>> {
        let payloads = Payloads::decode(header.next, plain).map_err(|_| unreadable())?;
        payloads.first_is(PayloadKind::Hash).map_err(|_| unreadable())?;
        let hash = payloads.one(PayloadKind::Hash).map_err(|_| unreadable())?;
        if ct_eq(&expected(&payloads), hash) { Ok(payloads) } else { Err(unreadable()) }
    }
}

/// The payloads of messages 1 and 2 behind the HASH.
pub(super) struct QuickBody {
    pub(super) sa: SaPayload,
    pub(super) nonce: Vec<u8>,
    pub(super) ke: Option<Vec<u8>>,
    pub(super) ids: Option<(Vec<u8>, Vec<u8>)>,
    /// NAT-OA: the ends' addresses as the peer knows them, the initiator's first.
    pub(super) originals: Option<(IpAddr, IpAddr)>,
    pub(super) lifetime: Option<Lifetime>,
}

impl QuickBody {
    pub(super) fn read(payloads: &Payloads<'_>) -> Verdict<Self> {
        payloads.only(&[
            PayloadKind::Hash,
            PayloadKind::Sa,
            PayloadKind::Nonce,
            PayloadKind::KeyExchange,
            PayloadKind::Id,
            PayloadKind::Notify,
            PayloadKind::Vendor,
            PayloadKind::NatOriginal,
            PayloadKind::NatOriginalDraft,
        ])?;
        if payloads.items().get(1).map(|p| p.kind) != Some(PayloadKind::Sa) {
            return Err(Refuse("payloads", "the SA is not second".into()));
        }
        let nonce = payloads.one(PayloadKind::Nonce)?;
        check_nonce(nonce)?;
        let ids: Vec<&[u8]> = payloads.all(PayloadKind::Id).collect();
        let ids = match ids[..] {
            [] => None,
            [ci, cr] => Some((ci.to_vec(), cr.to_vec())),
            _ => return Err(Refuse("payloads", format!("{} ID payloads", ids.len()))),
        };
        let originals = payloads.all(PayloadKind::NatOriginal).chain(payloads.all(PayloadKind::NatOriginalDraft));
        let originals: Vec<IpAddr> = originals.map(nat::read_original).collect::<Verdict<_>>()?;
        let originals = match originals[..] {
            [] => None,
            [i, r] => Some((i, r)),
            _ => return Err(Refuse("payloads", format!("{} NAT-OA payloads", originals.len()))),
        };
        let lifetime = payloads
            .all(PayloadKind::Notify)
            .filter_map(|b| Notify::decode(b).ok())
            .filter(|n| n.kind == notify_type::RESPONDER_LIFETIME)
            .find_map(|n| proposal::read_lifetime_data(&n.data, false));
        Ok(Self {
            sa: SaPayload::decode(payloads.one(PayloadKind::Sa)?)?,
            nonce: nonce.to_vec(),
            ke: payloads.maybe(PayloadKind::KeyExchange)?.map(<[u8]>::to_vec),
            ids,
            originals,
            lifetime,
        })
    }
}

impl Quick {
    /// The pair that follows from the exchange.
    pub(super) fn derive(&self, suite: &Suite, gxy: Option<&Secret>, soft: Lifetime) -> Verdict<Box<ChildSa>> {
        let choice = self.choice.as_ref().ok_or_else(ended)?;
        let entry = self.entry().ok_or_else(ended)?;
        let transform = entry.transforms.get(choice.transform).ok_or_else(ended)?;
        let (encr, integ) = (transform.encr, transform.integ);
        let integ_len = integ.map_or(0, crate::crypto::IntegAlg::key_len);
        let total = encr.keymat_len() + integ_len;
        if total == 0 {
            return Err(Refuse("keymat_empty", "nothing would protect the data".into()));
        }
        let keys = |spi: Spi| -> Verdict<EspKeys> {
            let x = ChildInput { gxy, protocol: protocol::ESP, spi: spi.0, ni: &self.ni, nr: &self.nr };
            let all = keymat::child_keymat(suite.hash, &suite.keys.d, &x, total);
            let (e, i) = all.expose().split_at(encr.keymat_len());
            if encr.is_weak_key(e) {
                return Err(Refuse("weak_key", "the exchange made a weak key".into()));
            }
            Ok(EspKeys { encr: Secret::new(e.to_vec()), integ: Secret::new(i.to_vec()) })
        };
        Ok(Box::new(ChildSa {
            spi_in: self.spi_in,
            spi_out: choice.spi,
            isakmp: suite.id,
            map: entry.map.clone(),
            map_seq: entry.seq,
            ace: self.ace,
            digest: entry.digest,
            local: suite.local.ip(),
            peer: suite.peer.ip(),
            ts_local: self.flow.local,
            ts_remote: self.flow.remote,
            mode: transform.mode,
            encr,
            integ,
            keys_in: keys(self.spi_in)?,
            keys_out: keys(choice.spi)?,
            pfs: choice.pfs,
            lifetime: choice.lifetime,
            soft,
            replay_window: entry.replay_window,
            initiator: self.initiator(),
            version: IkeVersion::V1,
            esn: false,
            encap: suite.nat.found().map(|_| Encap { local_port: suite.local.port(), peer_port: suite.peer.port() }),
        }))
    }
}

/// KE is there exactly when a PFS group was agreed on, and has its length.
pub(super) fn check_ke(pfs: Option<crate::crypto::DhGroup>, ke: Option<&[u8]>) -> Verdict {
    match (pfs, ke) {
        (None, None) => Ok(()),
        (Some(group), Some(ke)) if ke.len() == group.public_len() => Ok(()),
        (Some(group), Some(ke)) => Err(Refuse("ke_length", format!("{} bytes for group {}", ke.len(), group.number()))),
        (Some(_), None) => Err(Refuse("payloads", "a PFS group but no KE payload".into())),
        (None, Some(_)) => Err(Refuse("payloads", "a KE payload but no PFS group".into())),
    }
}
