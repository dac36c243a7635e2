//! IKE_AUTH (RFC 7296 1.2, 2.15), the initiator's side, and how both ends prove themselves with a pre-shared key.

use super::engine::Engine;
use super::keymat::{psk_auth, signed_octets};
use super::message::{Auth, Exchange, Header, Id, Message, NotifyType, Outgoing, PayloadKind};
use super::sa::{Caps, Handle, Init, InitState, Sa, Verdict, ended, refuse};
use super::task::What;
use crate::crypto::ct_eq;
use crate::id::Identity;
use crate::ike::policy::{AuthMethod, Ikev2Profile};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Shared key message integrity code (RFC 7296 3.8).
pub(super) const METHOD_SHARED_KEY: u8 = 2;

/// The identity that we show.
pub(super) fn local_identity(profile: &Ikev2Profile, local: IpAddr) -> Identity {
    profile.local_id.clone().unwrap_or(Identity::Address(local))
}

/// True when a peer at this address may call itself so.
pub(super) fn identity_fits(profile: &Ikev2Profile, peer: IpAddr, identity: Option<&Identity>) -> bool {
    match (&profile.remote_id, identity) {
        (Some(wanted), Some(shown)) => wanted == shown,
        (None, Some(shown)) => *shown == Identity::Address(peer),
        (_, None) => false,
    }
}

/// An identity for the log.
pub(super) fn identity_text(identity: Option<&Identity>) -> String {
    match identity {
        Some(Identity::Address(a)) => a.to_string(),
        Some(Identity::Fqdn(s) | Identity::UserFqdn(s)) => s.escape_default().to_string(),
        Some(Identity::DerAsn1Dn(d) | Identity::KeyId(d)) => d.iter().map(|b| format!("{b:02x}")).collect(),
        None => "of an unknown type".into(),
    }
}

impl Init {
    /// What one end signs: its first message, the other's nonce, its identity.
    pub(super) fn octets(&self, initiator: bool, id_body: &[u8]) -> Option<Vec<u8>> {
        let (message, nonce) = if initiator { (&self.message_i, &self.nr) } else { (&self.message_r, &self.ni) };
        let (suite, keys) = (self.suite.as_ref()?, self.keys.as_ref()?);
        Some(signed_octets(message, nonce, suite.prf, keys.p(initiator), id_body, &[]))
    }

    /// AUTH data with the key shared with this peer; `None` when there is no key.
    pub(super) fn shared_key_proof(&self, initiator: bool, id_body: &[u8], peer: IpAddr, remote: Option<&Identity>) -> Option<Vec<u8>> {
        let psk = self.config.psk(peer, remote)?;
        Some(psk_auth(self.suite.as_ref()?.prf, psk, &self.octets(initiator, id_body)?))
    }

    /// Checks what the other end proves itself with.
    pub(super) fn check_shared_key(&self, auth: &Auth<'_>, initiator: bool, id: &Id<'_>, peer: IpAddr) -> Verdict {
        let bad = |why: &str| refuse("authentication_failed", why.to_owned());
        if auth.method != METHOD_SHARED_KEY {
            return Err(bad("the peer does not use a pre-shared key"));
        }
        let wanted = self.shared_key_proof(initiator, id.body, peer, id.identity().as_ref());
        let wanted = wanted.ok_or_else(|| bad("there is no pre-shared key for this peer"))?;
        if ct_eq(&wanted, auth.data) { Ok(()) } else { Err(bad("pre-shared keys differ")) }
    }
}

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
        let proof = match profile.local_auth {
            AuthMethod::PreShared => init.shared_key_proof(true, &Id::body_of(&id), pair.1, profile.remote_id.as_ref()),
            AuthMethod::Signature => None,
        };
        let Some(proof) = proof else {
            return self.init_failed(handle, "there is no key for this peer", now);
        };
        self.send_auth(handle, &id, METHOD_SHARED_KEY, &proof, now);
    }

    /// Sends the IKE_AUTH request.
    fn send_auth(&mut self, handle: Handle, id: &Identity, method: u8, proof: &[u8], now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let first_contact = !self.inherited && self.pairs.get(&sa.pair).is_none_or(|p| !p.met);
        let Some(init) = sa.init() else { return };
        let mut out = Outgoing::new();
        out.id(true, id);
        if first_contact {
            out.status(NotifyType::INITIAL_CONTACT, &[]);
        }
        if let Some(remote) = &init.profile.remote_id {
            out.id(false, remote);
        }
        out.auth(method, proof);
        if let Some(child) = &init.child {
            child.put(&mut out);
        }
        self.put_auth_notifies(&mut out);
        let message_id = init.message_id + 1;
        let packets = self.seal(handle, Exchange::Auth, false, message_id, &out);
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        init.message_id = message_id;
        init.state = InitState::WaitAuth;
        self.send_first(handle, packets, now);
    }

    /// What both ends say in IKE_AUTH besides.
    pub(super) fn put_auth_notifies(&self, out: &mut Outgoing) {
        let _ = (self, out);
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
        let Some((opened, _)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        let m = match Message::decode(opened.first, &opened.plain) {
            Ok(m) => m,
            Err(fault) => {
                self.init_failed(handle, &format!("the answer is malformed: {fault}"), now);
                return Err(fault.into());
            }
        };
        let checked = self.check_responder(handle, &m);
        let peer_id = match checked {
            Ok(peer_id) => peer_id,
            Err(why) => {
                // The peer has the SA: it should not keep it.
                if m.auth.is_some() {
                    self.reject_responder(handle);
                }
                self.init_failed(handle, &why.1, now);
                return Err(why);
            }
        };
        self.initiator_up(handle, &m, peer_id, now);
        self.follow(handle, from, to, now);
        Ok(())
    }

    /// Checks identity and proof of the responder.
    fn check_responder(&self, handle: Handle, m: &Message<'_>) -> Verdict<String> {
        let sa = self.sas.get(&handle).ok_or_else(ended)?;
        let init = sa.init().ok_or_else(ended)?;
        let bad = |why: String| refuse("authentication_failed", why);
        let (Some(auth), Some(id)) = (&m.auth, &m.id_r) else {
            let error = m.error().map_or_else(|| "it does not prove itself".to_owned(), |n| n.kind.to_string());
            return Err(bad(format!("the peer refuses: {error}")));
        };
        let identity = id.identity();
        if !identity_fits(&init.profile, sa.pair.1, identity.as_ref()) {
            return Err(bad(format!("the peer calls itself {}", identity_text(identity.as_ref()))));
        }
        match init.profile.remote_auth {
            AuthMethod::PreShared => init.check_shared_key(auth, false, id, sa.pair.1)?,
            AuthMethod::Signature => return Err(bad("signatures are not verified".into())),
        }
        Ok(identity_text(identity.as_ref()))
    }

    /// Tells a responder that did not prove itself that there is no SA. Sent once: nothing is kept.
    fn reject_responder(&mut self, handle: Handle) {
        let Some(message_id) = self.sas.get(&handle).and_then(Sa::init).map(|i| i.message_id + 1) else { return };
        let mut out = Outgoing::new();
        out.status(NotifyType::AUTHENTICATION_FAILED, &[]).delete_ike();
        let packets = self.seal(handle, Exchange::Informational, false, message_id, &out);
        self.transmit_all(handle, &packets);
    }

    /// The responder proved itself: the SA stands, with its first child or without.
    fn initiator_up(&mut self, handle: Handle, m: &Message<'_>, peer_id: String, now: Instant) {
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        let (message_id, child) = (init.message_id, init.child.take());
        init.caps = auth_caps(init.caps, m);
        let (ni, nr) = (std::mem::take(&mut init.ni), std::mem::take(&mut init.nr));
        self.ike_up(handle, peer_id, message_id + 1, 0, now);
        if let Some(mut child) = child {
            child.ni = ni;
            self.child_response(handle, child, m, Some(&nr), None, now);
        }
        self.ike_ready(handle, m.notify(NotifyType::INITIAL_CONTACT).is_some(), now);
    }

    /// What is left of the first exchanges when they fail: the SPI of the child.
    pub(super) fn release_first_child(&mut self, handle: Handle) -> Option<super::task::Want> {
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

/// True for a chain that asks for a child.
pub(super) fn asks_for_child(m: &Message<'_>) -> bool {
    m.sa.is_some() || m.ts_i.is_some() || m.ts_r.is_some()
}

/// Body of an identity payload of the responder with this identity.
pub(super) fn responder_id(out: &mut Outgoing, id: &Identity) -> Vec<u8> {
    let body = Id::body_of(id);
    out.add(PayloadKind::IdR, &body);
    body
}
