//! Main mode (RFC 2409 5.4, RFC 3947 3 and 4), drawn with pre-shared keys; `signature` has the messages 5 and 6 of certificates.
//!
//! ```text
//! initiator                      responder
//! 1  SA, VID             ->
//!                        <-      2  SA, VID
//! 3  KE, NONCE, [NAT-D]  ->
//!                        <-      4  KE, NONCE, [NAT-D]
//! 5* ID, HASH_I, [N]     ->                               from here on at port 4500 when there is a NAT
//!                        <-      6* ID, HASH_R, [N]
//! ```

use super::crypt;
use super::main_proof::{check_id, gone};
use super::nat;
use super::phase1::{NONCE_LEN, Refuse, Verdict, check_nonce, clear, main_policies, phase_1_header};
use super::sa::{Handle, LastMain, Main, MainState, digest};
use super::signature;
use crate::id::IkeSaId;
use crate::ike::engine::NAT_T_PORT;
use crate::ike::job::DhDone;
use crate::ike::v1::engine::Engine;
use crate::ike::v1::keymat;
use crate::ike::v1::message::{Chain, Exchange, Header, Id, Notify, PayloadKind, Payloads, SaPayload, Vendors, notify_type};
use crate::ike::v1::proposal;
use std::net::SocketAddr;
use std::time::Instant;

fn main_header(id: IkeSaId) -> Header {
    phase_1_header(id, Exchange::Main)
}

impl Engine {
    /// Message 1.
    pub(super) fn main_1(&mut self, from: SocketAddr, to: SocketAddr, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let config = self.config.clone();
        if self.psk(from.ip()).is_none() && !signature::possible(&config) {
            return Err(Refuse("unknown_peer", "no key for this address".into()));
        }
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        payloads.only(&[PayloadKind::Sa, PayloadKind::Vendor])?;
        let sai = payloads.one(PayloadKind::Sa)?;
        let policies = main_policies(&config, from.ip());
        let choice = self.choose_policy(from, to, header.id, &policies, sai, now)?;
        let vendors = self.offered_vendors(&payloads);
        let id = self.new_responder_cookie(header.id);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &choice.answer.encode());
        vendors.answer(&mut chain);
        let out = chain.message(main_header(id));
        let main = Main {
            policy: policies.into_iter().nth(choice.index),
            lifetime_s: choice.lifetime_s,
            shortened: choice.shortened,
            sai: sai.to_vec(),
            vendors,
            seen: Some(digest(bytes)),
            ..Main::new(MainState::AnsweredSa, now)
        };
        let handle = self.begin_response(from, to, id, main, now);
        self.main_send(handle, out, now)
    }

    /// What a peer announced, less what is turned off here.
    pub(super) fn offered_vendors(&self, payloads: &Payloads<'_>) -> Vendors {
        let vendors = Vendors::read(payloads);
        Vendors { nat: vendors.nat.filter(|_| self.config.nat_traversal), ..vendors }
    }

    /// Sends message 1.
    pub(super) fn main_begin(&mut self, handle: Handle, now: Instant) -> Verdict {
        let nat = self.config.nat_traversal;
        let id = self.sas.get(&handle).ok_or_else(gone)?.id;
        let mut chain = Chain::new();
        chain.push(PayloadKind::Sa, &self.main(handle)?.sai);
        Vendors::announce(&mut chain, nat);
        self.main_send(handle, chain.message(main_header(id)), now)
    }

    /// Message 2, at the initiator.
    pub(super) fn main_2(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let payloads = clear(header, bytes)?;
        payloads.first_is(PayloadKind::Sa)?;
        payloads.only(&[PayloadKind::Sa, PayloadKind::Vendor])?;
        let answer = SaPayload::decode(payloads.one(PayloadKind::Sa)?)?;
        let vendors = self.offered_vendors(&payloads);
        let main = self.main(handle)?;
        main.accept(&answer)?;
        main.vendors = vendors;
        main.seen = Some(digest(bytes));
        if let Some(sa) = self.sas.get_mut(&handle) {
            sa.nat.dialect = vendors.nat;
            sa.fragments = vendors.fragmentation;
        }
        self.learn_cookie(handle, header.id);
        self.main_compute(handle, MainState::MakeKe, true, None, now)
    }

    /// KE, NONCE and NAT-D of messages 3 and 4.
    fn read_ke(&mut self, handle: Handle, header: &Header, bytes: &[u8]) -> Verdict<(Vec<u8>, Vec<u8>)> {
        let (id, local, peer, dialect) = self.sas.get(&handle).map(|s| (s.id, s.local, s.peer, s.nat.dialect)).ok_or_else(gone)?;
        let payloads = clear(header, bytes)?;
        // Peers may ask for a certificate here: ours goes out in message 5 or 6 in any case.
        let mut kinds = vec![PayloadKind::KeyExchange, PayloadKind::Nonce, PayloadKind::Vendor, PayloadKind::CertRequest];
        kinds.extend(dialect.map(|d| d.discovery()));
        payloads.only(&kinds)?;
        let ke = payloads.one(PayloadKind::KeyExchange)?;
        let nonce = payloads.one(PayloadKind::Nonce)?;
        check_nonce(nonce)?;
        let vendors = Vendors::read(&payloads);
        let main = self.main(handle)?;
        let (hash, _) = main.suite()?;
        main.check_public(ke)?;
        main.vendors.dpd |= vendors.dpd;
        let found = dialect.map(|d| nat::read_path(&payloads, d, hash, id, local, peer)).transpose()?;
        if let (Some(sa), Some(found)) = (self.sas.get_mut(&handle), found) {
            sa.nat = found;
        }
        Ok((ke.to_vec(), nonce.to_vec()))
    }

    /// Message 3, at the responder.
    pub(super) fn main_3(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (ke, nonce) = self.read_ke(handle, header, bytes)?;
        let main = self.main(handle)?;
        main.seen = Some(digest(bytes));
        main.gxi.clone_from(&ke);
        main.ni = nonce;
        self.main_compute(handle, MainState::AnswerKeys, true, Some(ke), now)
    }

    /// Message 4, at the initiator.
    pub(super) fn main_4(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (ke, nonce) = self.read_ke(handle, header, bytes)?;
        let main = self.main(handle)?;
        main.seen = Some(digest(bytes));
        main.gxr.clone_from(&ke);
        main.nr = nonce;
        self.main_compute(handle, MainState::MakeKeys, false, Some(ke), now)
    }

    /// A job of main mode has run.
    pub(super) fn main_continue(&mut self, handle: Handle, done: DhDone, now: Instant) -> Verdict {
        let nonce = self.random_bytes(NONCE_LEN);
        let (id, psk) = {
            let sa = self.sas.get(&handle).ok_or_else(gone)?;
            (sa.id, self.psk(sa.peer.ip()))
        };
        let main = self.main(handle)?;
        match main.state {
            MainState::MakeKe => {
                main.gxi = done.public.ok_or_else(gone)?;
                main.ni = nonce;
                main.secret = Some(done.secret);
                main.state = MainState::WaitKe;
                let mut chain = Chain::new();
                chain.push(PayloadKind::KeyExchange, &main.gxi).push(PayloadKind::Nonce, &main.ni);
                self.main_ke(handle, chain, now)
            }
            MainState::AnswerKeys => {
                main.gxr = done.public.ok_or_else(gone)?;
                main.nr = nonce;
                main.derive(id, psk, &done.shared.ok_or_else(gone)?)?;
                main.state = MainState::AnsweredKe;
                let mut chain = Chain::new();
                chain.push(PayloadKind::KeyExchange, &main.gxr).push(PayloadKind::Nonce, &main.nr);
                self.main_ke(handle, chain, now)
            }
            MainState::MakeKeys => {
                main.derive(id, psk, &done.shared.ok_or_else(gone)?)?;
                main.state = MainState::WaitAuth;
                let signs = main.signs();
                self.float(handle);
                if signs {
                    return self.signature_5(handle, now);
                }
                self.main_prove(handle, now)
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
            | MainState::AggressiveMakeKe
            | MainState::AggressiveWait
            | MainState::AggressiveMakeKeys
            | MainState::AggressiveAnswerKeys
            | MainState::AggressiveAnswered => Err(gone()),
        }
    }

    /// Sends message 3 or 4.
    fn main_ke(&mut self, handle: Handle, mut chain: Chain, now: Instant) -> Verdict {
        let sa = self.sas.get(&handle).ok_or_else(gone)?;
        let (id, local, peer, dialect) = (sa.id, sa.local, sa.peer, sa.nat.dialect);
        if self.main(handle)?.signs() {
            signature::push_requests(&mut chain, &self.config);
        }
        if let Some(dialect) = dialect {
            let (hash, _) = self.main(handle)?.suite()?;
            nat::push_path(&mut chain, dialect, hash, id, local, peer);
        }
        self.main_send(handle, chain.message(main_header(id)), now)
    }

    /// Sends message 5.
    fn main_prove(&mut self, handle: Handle, now: Instant) -> Verdict {
        let sa = self.sas.get(&handle).ok_or_else(gone)?;
        let (id, local) = (sa.id, sa.local);
        let first_contact = self.first_contact(handle);
        let idii = Id::host(local.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        let proof = keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), &idii);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &idii).push(PayloadKind::Hash, &proof);
        if first_contact {
            let n = Notify::isakmp(notify_type::INITIAL_CONTACT, id, Vec::new());
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let out = crypt::seal(cipher, &main.key, &mut main.iv, main_header(id), &chain).ok_or_else(gone)?;
        self.main_send(handle, out, now)
    }

    /// True when whatever the peer still has of us is of an earlier life.
    pub(super) fn first_contact(&self, handle: Handle) -> bool {
        let pair = self.sas.get(&handle).and_then(|s| self.pairs.get(&s.pair()));
        !self.inherited && pair.is_none_or(|p| !p.met && p.children.is_empty())
    }

    /// Message 5, at the responder.
    pub(super) fn main_5(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        if self.main(handle)?.signs() {
            return self.signature_received(handle, from, to, header, bytes, now);
        }
        let (id, nat) = self.sas.get(&handle).map(|s| (s.id, s.nat)).ok_or_else(gone)?;
        if nat.found().is_some() && to.port() != NAT_T_PORT {
            return Err(Refuse("nat_t_port", "a NAT was found, the peer stays at port 500".into()));
        }
        let idir = Id::host(to.ip()).ok_or_else(gone)?.encode();
        let main = self.main(handle)?;
        let (hash, cipher) = main.suite()?;
        let proof = main.read_proof(header, bytes, |main, idii| keymat::hash_i(hash, &main.skeyid, &main.auth_input(id), idii))?;
        let name = check_id(&proof.id, from.ip(), nat.peer)?;
        let mut iv = proof.iv;
        let answer_proof = keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), &idir);
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &idir).push(PayloadKind::Hash, &answer_proof);
        if main.shortened {
            let n = Notify::isakmp(notify_type::RESPONDER_LIFETIME, id, proposal::isakmp_lifetime_data(main.lifetime_s));
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let out = crypt::seal(cipher, &main.key, &mut iv, main_header(id), &chain).ok_or_else(gone)?;
        main.iv = iv;
        self.settle_path(handle, nat, from, to);
        self.transmit(to, from, out.clone());
        let last = LastMain { digest: digest(bytes), answer: out, at: now };
        self.main_up(handle, name, Some(last), proof.notes.initial_contact, now);
        Ok(())
    }

    /// Message 6, at the initiator.
    pub(super) fn main_6(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let (id, local, peer, nat) = self.sas.get(&handle).map(|s| (s.id, s.local, s.peer, s.nat)).ok_or_else(gone)?;
        let main = self.main(handle)?;
        if main.signs() {
            return self.signature_received(handle, peer, local, header, bytes, now);
        }
        let (hash, _) = main.suite()?;
        let proof = main.read_proof(header, bytes, |main, idir| keymat::hash_r(hash, &main.skeyid, &main.auth_input(id), idir))?;
        let name = check_id(&proof.id, peer.ip(), nat.peer)?;
        main.iv = proof.iv;
        if let Some(seconds) = proof.notes.lifetime_s {
            main.lifetime_s = proposal::isakmp_lifetime(main.lifetime_s, Some(seconds));
        }
        self.main_up(handle, name, None, proof.notes.initial_contact, now);
        Ok(())
    }
}
