//! Main mode's keys and proofs: what needs no engine.

use super::crypt;
use super::phase1::{Refuse, Verdict};
use super::sa::{Main, MainState};
use crate::crypto::{CipherAlg, HashAlg, Secret, ct_eq};
use crate::id::IkeSaId;
use crate::ike::v1::keymat::{self, AuthInput};
use crate::ike::v1::message::{Header, Id, Notify, PayloadKind, Payloads, SaPayload, Vendors, flag, id_type, notify_type};
use crate::ike::v1::proposal;
use std::net::IpAddr;
use std::time::Instant;

/// One text for everything that can be wrong with message 5 or 6: an observer of our logs or answers learns nothing more.
const AUTH_DETAIL: &str = "the peer's proof cannot be read or is wrong; are the pre-shared keys equal on both ends?";

pub(super) fn gone() -> Refuse {
    Refuse("not_established", "the exchange has ended".into())
}

pub(super) fn auth() -> Refuse {
    Refuse("auth_failed", AUTH_DETAIL.into())
}

/// The peer proved the key. Where that was found by the peer's address, an address as its ID must be that address, unless a NAT put
/// another in its place; names are only for the log. The port is zero or that of IKE (RFC 2407 4.6.2, RFC 3947 4).
pub(super) fn check_id(body: &[u8], peer: IpAddr, any_address: bool) -> Verdict<String> {
    let id = Id::decode(body).map_err(|e| Refuse("peer_id", e.to_string()))?;
    if !matches!((id.proto, id.port), (0, 0) | (17, 0 | 500 | 4500)) {
        return Err(Refuse("peer_id", format!("protocol {} port {}", id.proto, id.port)));
    }
    if id.kind == id_type::IPV4_ADDR && !any_address && id.selector().map(|s| s.addr) != Some(peer) {
        return Err(Refuse("peer_id", format!("ID {} of a peer at {peer}", id.text())));
    }
    Ok(id.text())
}

/// What message 5 or 6 says beside the proof.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Notes {
    pub(super) initial_contact: bool,
    /// RESPONDER-LIFETIME, seconds.
    pub(super) lifetime_s: Option<u64>,
}

impl Notes {
    pub(super) fn read(payloads: &Payloads<'_>) -> Self {
        let mut notes = Self::default();
        for body in payloads.all(PayloadKind::Notify) {
            let Ok(n) = Notify::decode(body) else { continue };
            match n.kind {
                notify_type::INITIAL_CONTACT => notes.initial_contact = true,
                notify_type::RESPONDER_LIFETIME => {
                    let life = proposal::read_lifetime_data(&n.data, true);
                    notes.lifetime_s = life.map(|l| l.seconds).filter(|s| *s != 0);
                }
                _ => {}
            }
        }
        notes
    }
}

/// What message 5 or 6 proved.
pub(super) struct Proof {
    pub(super) id: Vec<u8>,
    pub(super) iv: Vec<u8>,
    pub(super) notes: Notes,
}

impl Main {
    pub(super) fn new(state: MainState, now: Instant) -> Self {
        Self {
            state,
            offer: None,
            policies: Vec::new(),
            policy: None,
            lifetime_s: 0,
            shortened: false,
            peer_id: Vec::new(),
            peer_proof: Vec::new(),
            claimed: None,
            path: None,
            peer_name: String::new(),
            own_id: Vec::new(),
            credential: None,
            answer: None,
            sai: Vec::new(),
            ni: Vec::new(),
            nr: Vec::new(),
            gxi: Vec::new(),
            gxr: Vec::new(),
            secret: None,
            skeyid: Secret::default(),
            keys: None,
            key: Secret::default(),
            iv: Vec::new(),
            vendors: Vendors::default(),
            replaces: None,
            seen: None,
            out: None,
            sends: 0,
            sent_at: now,
        }
    }

    /// Takes the responder's choice from our offer.
    pub(super) fn accept(&mut self, answer: &SaPayload) -> Verdict {
        let offer = self.offer.as_ref().ok_or_else(gone)?;
        let (index, lifetime_s) = proposal::isakmp_accept(&self.policies, offer, answer).map_err(|why| Refuse("proposal_answer", why))?;
        self.policy = Some(self.policies.get(index).cloned().ok_or_else(gone)?);
        self.lifetime_s = lifetime_s;
        Ok(())
    }

    /// The peer's public value has the length of the group and is not ours.
    pub(super) fn check_public(&self, ke: &[u8]) -> Verdict {
        let group = self.policy.as_ref().ok_or_else(gone)?.group;
        if ke.len() != group.public_len() {
            return Err(Refuse("ke_length", format!("{} bytes for group {}", ke.len(), group.number())));
        }
        if ke == self.gxi {
            return Err(Refuse("reflected", "our own public value came back".into()));
        }
        Ok(())
    }

    pub(super) fn suite(&self) -> Verdict<(HashAlg, CipherAlg)> {
        self.policy.as_ref().map(|p| (p.hash, p.encryption)).ok_or_else(gone)
    }

    pub(super) fn auth_input(&self, id: IkeSaId) -> AuthInput<'_> {
        AuthInput { gxi: &self.gxi, gxr: &self.gxr, id, sai: &self.sai }
    }

    /// All keys, from the shared secret.
    pub(super) fn derive(&mut self, id: IkeSaId, psk: Option<Secret>, shared: &Secret) -> Verdict {
        let (hash, cipher) = self.suite()?;
        self.skeyid = if self.signs() {
            keymat::skeyid_signature(hash, &self.ni, &self.nr, shared)
        } else {
            let psk = psk.ok_or_else(|| Refuse("unknown_peer", "the pre-shared key is gone".into()))?;
            keymat::skeyid_psk(hash, &psk, &self.ni, &self.nr)
        };
        let keys = keymat::skeyids(hash, &self.skeyid, shared, id);
        self.key = keymat::cipher_key(hash, cipher, &keys.e);
        if cipher.is_weak_key(self.key.expose()) {
            return Err(Refuse("weak_key", "the exchange made a weak key".into()));
        }
        self.iv = keymat::phase1_iv(hash, cipher, &self.gxi, &self.gxr);
        self.keys = Some(keys);
        Ok(())
    }

    /// Decrypts message 5 or 6 and checks its HASH; every failure looks the same.
    pub(super) fn read_proof(&self, header: &Header, bytes: &[u8], expected: impl FnOnce(&Self, &[u8]) -> Vec<u8>) -> Verdict<Proof> {
        if header.flags & flag::ENCRYPTED == 0 {
            return Err(Refuse("not_encrypted", String::new()));
        }
        let (_, cipher) = self.suite()?;
        let (plain, iv) = crypt::open(cipher, &self.key, &self.iv, bytes).ok_or_else(auth)?;
        let payloads = Payloads::decode(header.next, &plain).map_err(|_| auth())?;
        let id = payloads.one(PayloadKind::Id).map_err(|_| auth())?;
        let hash = payloads.one(PayloadKind::Hash).map_err(|_| auth())?;
        if !ct_eq(&expected(self, id), hash) {
            return Err(auth());
        }
        payloads.only(&[PayloadKind::Id, PayloadKind::Hash, PayloadKind::Notify, PayloadKind::Vendor, PayloadKind::CertRequest])?;
        Ok(Proof { id: id.to_vec(), iv, notes: Notes::read(&payloads) })
    }
}
