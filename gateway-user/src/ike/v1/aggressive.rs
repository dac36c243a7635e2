//! Aggressive mode with pre-shared keys (RFC 2409 5.4, RFC 3947 3.2). Off unless a peer policy turns it on: message 2 holds a hash of
//! the key for whoever asks.
//!
//! ```text
//! initiator                                responder
//! 1  SA, KE, NONCE, IDii, VID      ->
//!                                  <-      2  SA, KE, NONCE, IDir, HASH_R, [NAT-D], VID
//! 3* HASH_I, [NAT-D], [N]          ->      at port 4500 when there is a NAT
//! ```
//! When message 3 is lost, the initiator goes on with quick mode all the same; the responder answers that with message 2 once more,
//! which draws message 3 again.

use super::crypt;
use super::main_proof::{auth, check_id, gone};
use super::nat;
use super::phase1::{NONCE_LEN, RESEND_GAP, Refuse, Verdict, aggressive_policies, check_nonce, clear, peer_policy, phase_1_header};
use super::sa::{Handle, LastMain, Main, MainState, Nat, Sa, digest};
use crate::crypto::{Secret, ct_eq};
use crate::id::{Identity, IkeSaId};
use crate::ike::engine::NAT_T_PORT;
use crate::ike::job::DhDone;
use crate::ike::policy::{PeerMatch, PreSharedKey};
use crate::ike::v1::engine::Engine;
use crate::ike::v1::keymat;
use crate::ike::v1::message::{
    Chain, Exchange, HEADER_LEN, Header, Id, Notify, PayloadKind, Payloads, SaPayload, Vendors, flag, notify_type,
};
use crate::ike::v1::proposal;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

fn aggressive_header(id: IkeSaId) -> Header {
    phase_1_header(id, Exchange::Aggressive)
}

fn read_identity(body: &[u8]) -> Verdict<Option<Identity>> {
    Id::decode(body).map(|id| id.identity()).map_err(|e| Refuse("peer_id", e.to_string()))
}

impl Engine {
    fn aggressive_key(&self, peer: IpAddr, peer_id: &[u8]) -> Verdict<Secret> {
        let identity = read_identity(peer_id)?;
        let key = self.config.psk(peer, identity.as_ref()).cloned();
        key.ok_or_else(|| Refuse("unknown_peer", "no key for this address and identity".into()))
    }

    /// Message 1, at the responder. Nothing is answered, and nothing computed, unless the peer's policy allows the mode.
    pub(super) fn aggressive_1(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let config = self.config.clone();
        let off = || Refuse("aggressive_mode", "not turned on for this peer (crypto isakmp peer … aggressive)".into());
        if !config.peers.iter().any(|p| p.aggressive) {
            return Err(off());
        }
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        payloads.only(&[
            PayloadKind::Sa,
            PayloadKind::KeyExchange,
            PayloadKind::Nonce,
            PayloadKind::Id,
            PayloadKind::Vendor,
            PayloadKind::CertRequest,
        ])?;
        let idii = payloads.one(PayloadKind::Id)?;
        let identity = read_identity(idii)?;
        let peer_policy = peer_policy(&config, from.ip(), identity.as_ref());
        if !peer_policy.is_some_and(|p| p.aggressive) {
            return Err(off());
        }
        // Allowed for a name: then with the key of that name, never with one that main mode uses for the address.
        if peer_policy.is_some_and(|p| matches!(p.peer, PeerMatch::Identity(_))) && !self.keyed_by_identity(from.ip(), idii) {
            return Err(off());
        }
        self.aggressive_key(from.ip(), idii)?;
        let nonce = payloads.one(PayloadKind::Nonce)?;
        check_nonce(nonce)?;
        let ke = payloads.one(PayloadKind::KeyExchange)?;
        let sai = payloads.one(PayloadKind::Sa)?;
        let policies = aggressive_policies(&config, peer_policy);
        let choice = self.choose_policy(from, to, header.id, &policies, sai, now)?;
        let main = Main {
            policy: policies.into_iter().nth(choice.index),
            lifetime_s: choice.lifetime_s,
            shortened: choice.shortened,
            answer: Some(choice.answer),
            sai: sai.to_vec(),
            ni: nonce.to_vec(),
            gxi: ke.to_vec(),
            peer_id: idii.to_vec(),
            vendors: self.offered_vendors(&payloads),
            seen: Some(digest(bytes)),
            ..Main::new(MainState::AggressiveAnswerKeys, now)
        };
        let group = main.policy.as_ref().ok_or_else(gone)?.group;
        if ke.len() != group.public_len() {
            return Err(Refuse("ke_length", format!("{} bytes for group {}", ke.len(), group.number())));
        }
        let id = self.new_responder_cookie(header.id);
        let handle = self.begin_response(from, to, id, main, now);
        self.main_compute(handle, MainState::AggressiveAnswerKeys, true, Some(ke.to_vec()), now)
    }

    /// Computes our public value, for message 1.
    pub(super) fn aggressive_begin(&mut self, handle: Handle, now: Instant) -> Verdict {
        let main = self.main(handle)?;
        main.policy = main.policies.iter().find(|p| proposal::is_spoken(p)).cloned();
        self.main_compute(handle, MainState::AggressiveMakeKe, true, None, now)
    }

    /// Message 2, at the initiator. The proof in it can be checked when the secret is there.
    pub(super) fn aggressive_2(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (local, peer) = self.sas.get(&handle).map(|s| (s.local, s.peer)).ok_or_else(gone)?;
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        let vendors = self.offered_vendors(&payloads);
        let mut kinds = vec![
            PayloadKind::Sa,
            PayloadKind::KeyExchange,
            PayloadKind::Nonce,
            PayloadKind::Id,
            PayloadKind::Hash,
            PayloadKind::Vendor,
            PayloadKind::CertRequest,
        ];
        kinds.extend(vendors.nat.map(|d| d.discovery()));
        payloads.only(&kinds)?;
        let answer = SaPayload::decode(payloads.one(PayloadKind::Sa)?)?;
        let ke = payloads.one(PayloadKind::KeyExchange)?;
        let nonce = payloads.one(PayloadKind::Nonce)?;
        check_nonce(nonce)?;
        let (idir, proof) = (payloads.one(PayloadKind::Id)?, payloads.one(PayloadKind::Hash)?);
        self.aggressive_key(peer.ip(), idir)?;
        let main = self.main(handle)?;
        main.accept(&answer)?;
        main.check_public(ke)?;
        let (hash, _) = main.suite()?;
        main.vendors = vendors;
        main.gxr = ke.to_vec();
        main.nr = nonce.to_vec();
        main.peer_id = idir.to_vec();
        main.peer_proof = proof.to_vec();
        main.seen = Some(digest(bytes));
        let found = vendors.nat.map(|d| nat::read_path(&payloads, d, hash, header.id, local, peer)).transpose()?;
        if let Some(sa) = self.sas.get_mut(&handle) {
            sa.nat = found.unwrap_or_default();
            sa.fragments = vendors.fragmentation;
        }
        self.learn_cookie(handle, header.id);
        self.main_compute(handle, MainState::AggressiveMakeKeys, false, Some(ke.to_vec()), now)
    }

    /// A job of aggressive mode has run.
    pub(super) fn aggressive_continue(&mut self, handle: Handle, done: DhDone, now: Instant) -> Verdict {
        let nonce = self.random_bytes(NONCE_LEN);
        let (id, peer) = self.sas.get(&handle).map(|s| (s.id, s.peer)).ok_or_else(gone)?;
        let main = self.main(handle)?;
        match main.state {
            MainState::AggressiveMakeKe => {
                main.gxi = done.public.ok_or_else(gone)?;
                main.ni = nonce;
                main.secret = Some(done.secret);
                main.state = MainState::AggressiveWait;
                self.aggressive_offer(handle, now)
            }
            MainState::AggressiveAnswerKeys => {
                let peer_id = main.peer_id.clone();
                let key = self.aggressive_key(peer.ip(), &peer_id)?;
                let main = self.main(handle)?;
                main.gxr = done.public.ok_or_else(gone)?;
                main.nr = nonce;
                main.derive(id, Some(key), &done.shared.ok_or_else(gone)?)?;
                main.state = MainState::AggressiveAnswered;
                self.aggressive_answer(handle, now)
            }
            MainState::AggressiveMakeKeys => {
                let peer_id = main.peer_id.clone();
                let key = self.aggressive_key(peer.ip(), &peer_id)?;
                let main = self.main(handle)?;
                main.derive(id, Some(key), &done.shared.ok_or_else(gone)?)?;
                self.aggressive_prove(handle, now)
            }
            MainState::WaitSa
            | MainState::MakeKe
            | MainState::WaitKe
            | MainState::MakeKeys
            | MainState::Sign
            | MainState::WaitAuth
            | MainState::CheckAuth
            | MainState::AnsweredSa
            | MainState::AnswerKeys
            | MainState::AnsweredKe
            | MainState::AnswerCheck
            | MainState::AnswerSign
            | MainState::AggressiveWait
            | MainState::AggressiveAnswered => Err(gone()),
        }
    }

    /// Sends message 1.
    fn aggressive_offer(&mut self, handle: Handle, now: Instant) -> Verdict {
        let nat = self.config.nat_traversal;
        let (id, local) = self.sas.get(&handle).map(|s| (s.id, s.local)).ok_or_else(gone)?;
        let idii = Id::host(local.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &main.sai).push(PayloadKind::KeyExchange, &main.gxi);
        chain.push(PayloadKind::Nonce, &main.ni).push(PayloadKind::Id, &idii);
        Vendors::announce(&mut chain, nat);
        self.main_send(handle, chain.message(aggressive_header(id)), now)
    }

    /// Sends message 2.
    fn aggressive_answer(&mut self, handle: Handle, now: Instant) -> Verdict {
        let sa = self.sas.get(&handle).ok_or_else(gone)?;
        let (id, local, peer) = (sa.id, sa.local, sa.peer);
        let idir = Id::host(local.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let (hash, _) = main.suite()?;
        let proof = keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), &idir);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &main.answer.as_ref().ok_or_else(gone)?.encode()).push(PayloadKind::KeyExchange, &main.gxr);
        chain.push(PayloadKind::Nonce, &main.nr).push(PayloadKind::Id, &idir).push(PayloadKind::Hash, &proof);
        if let Some(dialect) = main.vendors.nat {
            nat::push_path(&mut chain, dialect, hash, id, local, peer);
        }
        main.vendors.answer(&mut chain);
        self.main_send(handle, chain.message(aggressive_header(id)), now)
    }

    /// Checks the peer's proof, sends message 3 and is done.
    fn aggressive_prove(&mut self, handle: Handle, now: Instant) -> Verdict {
        let (id, peer, nat) = self.sas.get(&handle).map(|s| (s.id, s.peer, s.nat)).ok_or_else(gone)?;
        let first_contact = self.first_contact(handle);
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        let expected = keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), &main.peer_id);
        if !ct_eq(&expected, &main.peer_proof) {
            return Err(auth());
        }
        let peer_id = main.peer_id.clone();
        let name = check_id(&peer_id, peer.ip(), nat.peer || self.keyed_by_identity(peer.ip(), &peer_id))?;
        self.float(handle);
        let sa = self.sas.get(&handle).ok_or_else(gone)?;
        let (local, peer) = (sa.local, sa.peer);
        let idii = Id::host(local.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let proof = keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), &idii);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Hash, &proof);
        if let Some(dialect) = nat.dialect {
            nat::push_path(&mut chain, dialect, hash, id, local, peer);
        }
        if first_contact {
            let n = Notify::isakmp(notify_type::INITIAL_CONTACT, id, Vec::new());
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let out = crypt::seal(cipher, &main.key, &mut main.iv, aggressive_header(id), &chain).ok_or_else(gone)?;
        let seen = main.seen.ok_or_else(gone)?;
        self.transmit(local, peer, out.clone());
        self.main_up(handle, name, Some(LastMain { digest: seen, answer: out, at: now }), false, now);
        Ok(())
    }

    /// True when the key of a peer hangs on its identity, not on its address.
    fn keyed_by_identity(&self, peer: IpAddr, body: &[u8]) -> bool {
        let Some(identity) = Id::decode(body).ok().and_then(|id| id.identity()) else { return false };
        let named = |k: &PreSharedKey| matches!(k.peer, PeerMatch::Identity(_)) && k.peer.specificity(peer, Some(&identity)).is_some();
        self.config.keys.iter().any(named)
    }

    /// Message 3, at the responder.
    pub(super) fn aggressive_3(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        let (id, dialect) = self.sas.get(&handle).map(|s| (s.id, s.nat.dialect)).ok_or_else(gone)?;
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        // Encryption is the usual thing, but optional (RFC 2409 5).
        let encrypted = header.flags & flag::ENCRYPTED != 0;
        let (plain, iv) = if encrypted {
            crypt::open(cipher, &main.key, &main.iv, bytes).ok_or_else(auth)?
        } else {
            (bytes.get(HEADER_LEN..).unwrap_or_default().to_vec(), main.iv.clone())
        };
        let payloads = Payloads::decode(header.next, &plain).map_err(|_| auth())?;
        let proof = payloads.one(PayloadKind::Hash).map_err(|_| auth())?;
        if !ct_eq(&keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), &main.peer_id), proof) {
            return Err(auth());
        }
        let mut kinds = vec![PayloadKind::Hash, PayloadKind::Notify, PayloadKind::Vendor];
        kinds.extend(dialect.map(|d| d.discovery()));
        payloads.only(&kinds)?;
        let found = dialect.map(|d| nat::read_path(&payloads, d, hash, id, to, from)).transpose()?;
        let nat: Nat = found.unwrap_or_default();
        if nat.found().is_some() && to.port() != NAT_T_PORT {
            return Err(Refuse("nat_t_port", "a NAT was found, the peer stays at port 500".into()));
        }
        // What is not encrypted says nothing beyond the proof.
        let notified = |kind| payloads.all(PayloadKind::Notify).filter_map(|b| Notify::decode(b).ok()).any(|n| n.kind == kind);
        let contact = encrypted && notified(notify_type::INITIAL_CONTACT);
        let peer_id = main.peer_id.clone();
        let shorter = main.shortened.then_some(main.lifetime_s);
        let name = check_id(&peer_id, from.ip(), nat.peer || self.keyed_by_identity(from.ip(), &peer_id))?;
        self.main(handle)?.iv = iv;
        self.settle_path(handle, nat, from, to);
        self.main_up(handle, name, None, contact, now);
        if let Some(seconds) = shorter {
            let n = Notify::isakmp(notify_type::RESPONDER_LIFETIME, id, proposal::isakmp_lifetime_data(seconds));
            self.send_informational(handle, PayloadKind::Notify, &n.encode());
        }
        Ok(())
    }

    /// A phase 2 message under an SA whose message 3 has not come: it was lost. Message 2 once more makes the peer repeat it.
    pub(super) fn ask_for_message_3(&mut self, handle: Handle, now: Instant) {
        let tries = self.config.retransmit_tries;
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (local, peer) = (sa.local, sa.peer);
        let Some(main) = sa.main_mut().filter(|m| m.state == MainState::AggressiveAnswered) else { return };
        if main.sends < tries && now.saturating_duration_since(main.sent_at) >= RESEND_GAP {
            main.sends += 1;
            main.sent_at = now;
            if let Some(out) = main.out.clone() {
                self.transmit(local, peer, out);
            }
        }
    }
}

impl Sa {
    /// True while the last message of aggressive mode is awaited.
    pub(super) fn awaits_message_3(&self) -> bool {
        matches!(&self.stage, super::sa::Stage::Main(m) if m.state == MainState::AggressiveAnswered)
    }
}
