//! IKE_AUTH, the responder's side.

use super::auth::{METHOD_SHARED_KEY, asks_for_child, auth_caps, identity_fits, identity_text, local_identity, responder_id};
use super::engine::Engine;
use super::message::{Exchange, Header, Message, NotifyType, Outgoing};
use super::proposal::IkeSuite;
use super::sa::{Asked, Fail, Handle, InitState, Sa, Verdict, digest, ended, profiles_of, refuse};
use crate::ike::policy::{AuthMethod, Ikev2Profile};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A repeated request is answered again after this time at the soonest.
const RESEND_GAP: Duration = Duration::from_millis(100);

impl Engine {
    /// A protected request before the SA stands.
    pub(super) fn auth_request(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        if header.message_id != 0 && header.message_id == init.message_id && init.seen == Some(digest(bytes)) && !init.out.is_empty() {
            if now.saturating_duration_since(init.sent_at) < RESEND_GAP {
                return Err(refuse("repeated", "answered just now"));
            }
            init.sent_at = now;
            let packets = init.out.clone();
            self.transmit_all(handle, &packets);
            return Ok(());
        }
        if init.state != InitState::AnsweredInit || header.message_id != init.message_id + 1 {
            return Err(refuse("out_of_order", format!("message {} in {:?}", header.message_id, init.state)));
        }
        if header.exchange != Exchange::Auth {
            return Err(refuse("exchange", format!("{:?} before the peer proved itself", header.exchange)));
        }
        let Some((opened, seen)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        let asked = Asked { message_id: header.message_id, exchange: Exchange::Auth, digest: seen, from, to };
        let m = match Message::decode(opened.first, &opened.plain) {
            Ok(m) => m,
            Err(fault) => {
                self.refuse_auth(handle, &asked, NotifyType::INVALID_SYNTAX);
                self.init_failed(handle, &fault.to_string(), now);
                return Err(fault.into());
            }
        };
        match self.check_initiator(handle, &m) {
            Ok((profile, peer_id)) => {
                self.responder_up(handle, &m, &profile, peer_id, asked, now);
                Ok(())
            }
            Err(why) => {
                self.refuse_auth(handle, &asked, NotifyType::AUTHENTICATION_FAILED);
                self.init_failed(handle, &why.1, now);
                Err(why)
            }
        }
    }

    /// Says under protection why there is no SA. The state goes with it: a repetition is not answered.
    fn refuse_auth(&mut self, handle: Handle, asked: &Asked, kind: NotifyType) {
        let mut out = Outgoing::new();
        Fail::new(kind, "").put(&mut out);
        for packet in self.seal(handle, asked.exchange, true, asked.message_id, &out) {
            self.transmit(asked.to, asked.from, packet);
        }
    }

    /// Finds the profile by the names that the initiator uses, and checks its proof.
    fn check_initiator(&self, handle: Handle, m: &Message<'_>) -> Verdict<(Arc<Ikev2Profile>, String)> {
        let sa = self.sas.get(&handle).ok_or_else(ended)?;
        let init = sa.init().ok_or_else(ended)?;
        let suite = init.suite.as_ref().ok_or_else(ended)?;
        let bad = |why: String| refuse("authentication_failed", why);
        let id = m.id_i.as_ref().ok_or_else(|| bad("no identity".into()))?;
        let auth = m.auth.as_ref().ok_or_else(|| bad("no proof (EAP is not spoken)".into()))?;
        let identity = id.identity();
        let wanted = m.id_r.map(|id| id.identity());
        let fits = |p: &&Arc<Ikev2Profile>| {
            let me = local_identity(p, sa.local.ip());
            // A peer that names us means one of our identities; a name of an unknown type means nobody.
            let named = wanted.as_ref().is_none_or(|w| w.as_ref() == Some(&me));
            named && identity_fits(p, sa.pair.1, identity.as_ref()) && allows(p, suite)
        };
        let profiles = profiles_of(&init.config, sa.pair);
        let profile = profiles.iter().find(fits);
        let profile = profile.ok_or_else(|| bad(format!("no profile for {}", identity_text(identity.as_ref()))))?;
        match profile.remote_auth {
            AuthMethod::PreShared => init.check_shared_key(auth, true, id, sa.pair.1)?,
            AuthMethod::Signature => return Err(bad("signatures are not verified".into())),
        }
        Ok((profile.clone(), identity_text(identity.as_ref())))
    }

    /// The initiator proved itself: the SA stands. Answers, with the first child or without.
    fn responder_up(&mut self, handle: Handle, m: &Message<'_>, profile: &Arc<Ikev2Profile>, peer_id: String, asked: Asked, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (local, peer) = (sa.local.ip(), sa.pair.1);
        let Some(init) = sa.init_mut() else { return };
        init.profile = profile.clone();
        init.caps = auth_caps(init.caps, m);
        let mut out = Outgoing::new();
        let id = local_identity(profile, local);
        let body = responder_id(&mut out, &id);
        let remote = m.id_i.and_then(|id| id.identity());
        let proof = match profile.local_auth {
            AuthMethod::PreShared => init.shared_key_proof(false, &body, peer, remote.as_ref()),
            AuthMethod::Signature => None,
        };
        let Some(proof) = proof else {
            self.refuse_auth(handle, &asked, NotifyType::AUTHENTICATION_FAILED);
            return self.init_failed(handle, "there is no key of ours for this peer", now);
        };
        out.auth(METHOD_SHARED_KEY, &proof);
        let nonces = (std::mem::take(&mut init.ni), std::mem::take(&mut init.nr));
        self.ike_up(handle, peer_id, 0, asked.message_id, now);
        let (from, to) = (asked.from, asked.to);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.asked = Some(asked);
        }
        self.follow(handle, from, to, now);
        if asks_for_child(m) {
            self.first_child_request(handle, m, nonces, &mut out, now);
        }
        self.put_auth_notifies(&mut out);
        self.answer(handle, &out, now);
        self.ike_ready(handle, m.notify(NotifyType::INITIAL_CONTACT).is_some(), now);
    }
}

/// True when the profile could have agreed to this suite.
fn allows(profile: &Ikev2Profile, suite: &IkeSuite) -> bool {
    profile.proposals.iter().any(|p| {
        let integ = suite.integ.is_none_or(|i| p.integrity.contains(&i));
        p.encryption.contains(&suite.encr) && integ && p.prf.contains(&suite.prf) && p.groups.contains(&suite.group)
    })
}
