//! IKE_AUTH, the responder's side.

use super::auth::auth_caps;
use super::engine::Engine;
use super::message::{Exchange, Header, Id, Message, NotifyType, Outgoing, PayloadKind};
use super::proof::{METHOD_SHARED_KEY, identity_fits, identity_text, local_identity, put_certs};
use super::proposal::IkeSuite;
use super::sa::{Asked, Fail, Handle, InitState, Pending, Refuse, Sa, Verdict, ended, profiles_of, refuse};
use crate::ike::policy::{AuthMethod, Ikev2Profile};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// AUTH payload of our answer.
pub(super) struct Answered {
    pub(super) method: u8,
    pub(super) data: Vec<u8>,
}

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
        let init = self.sas.get(&handle).and_then(Sa::init).ok_or_else(ended)?;
        if init.state != InitState::AnsweredInit || !init.exchanged_all() || header.message_id != init.message_id + 1 {
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
        let identity = m.id_i.and_then(|id| id.identity());
        if let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) {
            init.pending = Some(Box::new(Pending { opened: opened.clone(), asked, identity, proven: false }));
        }
        match self.check_initiator(handle, &m, now) {
            Ok(true) => self.initiator_proven(handle, now),
            Ok(false) => {}
            Err(why) => {
                self.auth_failed(handle, &why, now);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Ends the first exchanges because a proof cannot be given or believed.
    pub(super) fn auth_failed(&mut self, handle: Handle, why: &Refuse, now: Instant) {
        if let Some(asked) = self.sas.get(&handle).and_then(Sa::init).and_then(|i| i.pending.as_ref()).map(|p| p.asked) {
            self.refuse_auth(handle, &asked, NotifyType::AUTHENTICATION_FAILED);
        }
        self.init_failed(handle, &why.1, now);
    }

    /// Says under protection why there is no SA. The state goes with it: a repetition is not answered.
    fn refuse_auth(&mut self, handle: Handle, asked: &Asked, kind: NotifyType) {
        let mut out = Outgoing::new();
        Fail::new(kind, "").put(&mut out);
        for packet in self.seal(handle, asked.exchange, true, asked.message_id, &out) {
            self.transmit(asked.to, asked.from, packet);
        }
    }

    /// Finds the profile by the names that the initiator uses, and checks its proof. False while a signature is being verified.
    fn check_initiator(&mut self, handle: Handle, m: &Message<'_>, now: Instant) -> Verdict<bool> {
        let sa = self.sas.get_mut(&handle).ok_or_else(ended)?;
        let (pair, local) = (sa.pair, sa.local.ip());
        let init = sa.init_mut().ok_or_else(ended)?;
        let suite = init.suite.as_ref().ok_or_else(ended)?;
        let bad = |why: String| refuse("authentication_failed", why);
        let id = m.id_i.as_ref().ok_or_else(|| bad("no identity".into()))?;
        let auth = m.auth.as_ref().ok_or_else(|| bad("no proof (EAP is not spoken)".into()))?;
        let identity = id.identity();
        let wanted = m.id_r.map(|id| id.identity());
        let fits = |p: &&Arc<Ikev2Profile>| {
            let me = local_identity(p, local);
            // A peer that names us means one of our identities; a name of an unknown type means nobody.
            let named = wanted.as_ref().is_none_or(|w| w.as_ref() == Some(&me));
            let method = (auth.method == METHOD_SHARED_KEY) == (p.remote_auth == AuthMethod::PreShared);
            named && method && identity_fits(p, pair.1, identity.as_ref()) && allows(p, suite)
        };
        let profiles = profiles_of(&init.config, pair);
        let profile = profiles.iter().find(fits);
        let profile = profile.ok_or_else(|| bad(format!("no profile for {}", identity_text(identity.as_ref()))))?;
        let profile = profile.clone();
        init.profile = profile.clone();
        let m = &self.settle_ppk(handle, m)?;
        let (Some(auth), Some(id)) = (&m.auth, &m.id_i) else { return Err(ended()) };
        match profile.remote_auth {
            AuthMethod::PreShared => {
                let init = self.sas.get(&handle).and_then(Sa::init).ok_or_else(ended)?;
                init.check_shared_key(auth, true, id, pair.1).map(|()| true)
            }
            AuthMethod::Signature => self.verify(handle, m, true, id, InitState::AnswerAuth, now).map(|()| false),
        }
    }

    /// The initiator proved itself: proves us.
    pub(super) fn initiator_proven(&mut self, handle: Handle, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let (local, peer) = (sa.local.ip(), sa.pair.1);
        let Some(init) = sa.init_mut() else { return };
        let body = Id::body_of(&local_identity(&init.profile, local));
        let Some(pending) = &mut init.pending else { return };
        pending.proven = true;
        match init.profile.local_auth {
            AuthMethod::PreShared => {
                let remote = init.pending.as_ref().and_then(|p| p.identity.clone());
                match init.shared_key_proof(false, &body, peer, remote.as_ref()) {
                    Some(data) => self.responder_up(handle, &Answered { method: METHOD_SHARED_KEY, data }, now),
                    None => self.auth_failed(handle, &refuse("no_key", "there is no key of ours for this peer"), now),
                }
            }
            AuthMethod::Signature => {
                if !self.sign(handle, false, &body, InitState::AnswerAuth) {
                    self.auth_failed(handle, &refuse("no_key", "there is no certificate of ours to sign with"), now);
                }
            }
        }
    }

    /// Both proofs are there: the SA stands. Answers, with the first child or without.
    pub(super) fn responder_up(&mut self, handle: Handle, proof: &Answered, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let local = sa.local.ip();
        let Some(init) = sa.init_mut() else { return };
        let Some(pending) = init.pending.take().filter(|p| p.proven) else { return };
        let Ok(m) = Message::decode(pending.opened.first, &pending.opened.plain) else { return };
        init.caps = auth_caps(init.caps, &m);
        let mut out = Outgoing::new();
        out.add(PayloadKind::IdR, &Id::body_of(&local_identity(&init.profile, local)));
        put_certs(&mut out, &init.profile);
        out.auth(proof.method, &proof.data);
        if init.ppk_used {
            out.status(NotifyType::PPK_IDENTITY, &[]);
        }
        let nonces = (std::mem::take(&mut init.ni), std::mem::take(&mut init.nr));
        let asked = pending.asked;
        self.ike_up(handle, identity_text(pending.identity.as_ref()), 0, asked.message_id, now);
        if let Some(up) = self.sas.get_mut(&handle).and_then(Sa::up_mut) {
            up.asked = Some(asked);
        }
        self.follow(handle, asked.from, asked.to, now);
        if m.sa.is_some() || m.ts_i.is_some() || m.ts_r.is_some() {
            self.first_child_request(handle, &m, nonces, &mut out, now);
        }
        self.answer(handle, &out, now);
        self.ike_ready(handle, m.notify(NotifyType::INITIAL_CONTACT).is_some(), now);
    }
}

/// True when the profile could have agreed to this suite.
fn allows(profile: &Ikev2Profile, suite: &IkeSuite) -> bool {
    profile.proposals.iter().any(|p| {
        let integ = suite.integ.is_none_or(|i| p.integrity.contains(&i));
        // The rounds that may be left out are proposals of their own.
        let wanted: Vec<_> = p.additional.iter().filter(|round| !round.is_empty()).collect();
        let rounds = wanted.len() == suite.additional.len() && wanted.iter().zip(&suite.additional).all(|(round, g)| round.contains(g));
        rounds && p.encryption.contains(&suite.encr) && integ && p.prf.contains(&suite.prf) && p.groups.contains(&suite.group)
    })
}
