//! IKE_AUTH (RFC 7296 1.2), the initiator's side.

use super::engine::Engine;
use super::message::{Exchange, Header, Id, Message, NotifyType, Outgoing};
use super::proof::{METHOD_SHARED_KEY, identity_fits, identity_text, local_identity, put_cert_request, put_certs};
use super::sa::{Asked, Caps, Handle, InitState, Pending, Sa, Verdict, ended, refuse};
use super::task::{Want, What};
use crate::id::Identity;
use crate::ike::policy::AuthMethod;
use std::net::SocketAddr;
use std::time::Instant;

impl Engine {
    /// Keys are there: proves who we are and asks for the first child.
    pub(super) fn begin_auth(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let (pair, local) = (sa.pair, sa.local.ip());
        let Some(init) = sa.init() else { return };
        let profile = init.profile.clone();
        let childless = init.caps.childless && profile.childless;
        let child = match self.first_child(pair, &profile, now) {
            Some(child) => Some(child),
            None if childless => None,
            None => return self.init_failed(handle, "no flow needs it any more", now),
        };
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.child = child;
        let id = local_identity(&profile, local);
        let body = Id::body_of(&id);
        let plain = init.shared_key_proof(true, &body, pair.1, profile.remote_id.as_ref());
        if let Err(why) = init.begin_ppk() {
            return self.init_failed(handle, &why.1, now);
        }
        match profile.local_auth {
            AuthMethod::PreShared => match init.shared_key_proof(true, &body, pair.1, profile.remote_id.as_ref()) {
                Some(proof) => self.send_auth(handle, &id, METHOD_SHARED_KEY, &proof, plain.as_deref(), now),
                None => self.init_failed(handle, "there is no pre-shared key for this peer", now),
            },
            AuthMethod::Signature => {
                if !self.sign(handle, true, &body, InitState::MakeAuth) {
                    self.init_failed(handle, "there is no certificate of ours to sign with", now);
                }
            }
        }
    }

    /// Sends the IKE_AUTH request.
    pub(super) fn send_auth(&mut self, handle: Handle, id: &Identity, method: u8, proof: &[u8], plain: Option<&[u8]>, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let first_contact = !self.inherited && self.pairs.get(&sa.pair).is_none_or(|p| !p.met);
        let Some(init) = sa.init() else { return };
        let mut out = Outgoing::new();
        out.id(true, id);
        put_certs(&mut out, &init.profile);
        if first_contact {
            out.status(NotifyType::INITIAL_CONTACT, &[]);
        }
        put_cert_request(&mut out, &init.profile);
        if let Some(remote) = &init.profile.remote_id {
            out.id(false, remote);
        }
        out.auth(method, proof);
        init.put_ppk(&mut out, plain);
        if let Some(child) = &init.child {
            child.put(&mut out);
        }
        let message_id = init.message_id + 1;
        let packets = self.seal(handle, Exchange::Auth, false, message_id, &out);
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.message_id = message_id;
        init.state = InitState::WaitAuth;
        self.send_first(handle, packets, now);
    }

    /// The answer to IKE_AUTH.
    pub(super) fn auth_response(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        let init = self.sas.get(&handle).and_then(Sa::init).ok_or_else(ended)?;
        let expected = init.state == InitState::WaitAuth && header.exchange == Exchange::Auth && header.message_id == init.message_id;
        if !expected {
            return Err(refuse("unexpected_response", format!("message {}", header.message_id)));
        }
        let Some((opened, digest)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        self.timers.clear(super::timer::Timer::Init(handle));
        let m = match Message::decode(opened.first, &opened.plain) {
            Ok(m) => m,
            Err(fault) => {
                self.init_failed(handle, &format!("the answer is malformed: {fault}"), now);
                return Err(fault.into());
            }
        };
        let asked = Asked { message_id: header.message_id, exchange: header.exchange, digest, from, to };
        let identity = m.id_r.and_then(|id| id.identity());
        if let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) {
            init.pending = Some(Box::new(Pending { opened: opened.clone(), asked, identity, proven: false }));
        }
        match self.check_responder(handle, &m, now) {
            Ok(true) => self.responder_proven(handle, now),
            Ok(false) => {}
            Err(why) => {
                // The peer has the SA: it should not keep it.
                if m.auth.is_some() {
                    self.reject_responder(handle);
                }
                self.init_failed(handle, &why.1, now);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Checks identity and proof of the responder. False while a signature is being verified.
    fn check_responder(&mut self, handle: Handle, m: &Message<'_>, now: Instant) -> Verdict<bool> {
        let sa = self.sas.get_mut(&handle).ok_or_else(ended)?;
        let peer = sa.pair.1;
        let init = sa.init_mut().ok_or_else(ended)?;
        let bad = |why: String| refuse("authentication_failed", why);
        let (Some(auth), Some(id)) = (&m.auth, &m.id_r) else {
            let error = m.error().map_or_else(|| "it does not prove itself".to_owned(), |n| n.kind.to_string());
            return Err(bad(format!("the peer refuses: {error}")));
        };
        init.end_ppk(m)?;
        let identity = id.identity();
        if !identity_fits(&init.profile, peer, identity.as_ref()) {
            return Err(bad(format!("the peer calls itself {}", identity_text(identity.as_ref()))));
        }
        match init.profile.remote_auth {
            AuthMethod::PreShared => init.check_shared_key(auth, false, id, peer).map(|()| true),
            AuthMethod::Signature => self.verify(handle, m, false, id, InitState::CheckAuth, now).map(|()| false),
        }
    }

    /// Tells a responder that did not prove itself that there is no SA. Sent once: nothing is kept.
    pub(super) fn reject_responder(&mut self, handle: Handle) {
        let Some(message_id) = self.sas.get(&handle).and_then(Sa::init).map(|i| i.message_id + 1) else { return };
        let mut out = Outgoing::new();
        out.status(NotifyType::AUTHENTICATION_FAILED, &[]).delete_ike();
        let packets = self.seal(handle, Exchange::Informational, false, message_id, &out);
        self.transmit_all(handle, &packets);
    }

    /// The responder proved itself: the SA stands, with its first child or without.
    pub(super) fn responder_proven(&mut self, handle: Handle, now: Instant) {
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        let Some(pending) = init.pending.take() else { return };
        let Ok(m) = Message::decode(pending.opened.first, &pending.opened.plain) else { return };
        let (message_id, child) = (init.message_id, init.child.take());
        init.caps = auth_caps(init.caps, &m);
        let (ni, nr) = (std::mem::take(&mut init.ni), std::mem::take(&mut init.nr));
        self.ike_up(handle, identity_text(pending.identity.as_ref()), message_id + 1, 0, now);
        self.follow(handle, pending.asked.from, pending.asked.to, now);
        if let Some(mut child) = child {
            child.ni = ni;
            self.child_response(handle, child, &m, Some(&nr), None, now);
        }
        self.ike_ready(handle, m.notify(NotifyType::INITIAL_CONTACT).is_some(), now);
    }

    /// What is left of the first exchanges when they fail: the SPI of the child.
    pub(super) fn release_first_child(&mut self, handle: Handle) -> Option<Want> {
        let child = self.sas.get_mut(&handle).and_then(Sa::init_mut).and_then(|i| i.child.take())?;
        self.release(&What::Child(child))
    }
}

/// What the peer announced in IKE_AUTH, added to what it announced before.
pub(super) fn auth_caps(caps: Caps, m: &Message<'_>) -> Caps {
    Caps {
        message_sync: m.notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED).is_some(),
        replay_sync: m.notify(NotifyType::IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED).is_some(),
        ..caps
    }
}
