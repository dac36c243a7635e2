//! IKE_INTERMEDIATE with additional key exchanges (RFC 9242, RFC 9370): after IKE_SA_INIT and before IKE_AUTH, one exchange for each. Its
//! secret is mixed into all keys, and AUTH covers its messages.

use super::engine::Engine;
use super::init::respond;
use super::keymat::{IkeKeys, int_auth, int_auth_end, skeyseed_next};
use super::message::{Exchange, Header, Message, Opened, Outgoing};
use super::sa::{Handle, Init, InitState, Sa, Verdict, digest, ended, refuse};
use super::task::JobTarget;
use super::timer::Timer;
use crate::crypto::{CryptoError, DhGroup, DhSecret, Secret};
use crate::id::IkeSaId;
use crate::ike::job::{DhDone, Job};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A repeated request is answered again after this time at the soonest.
const RESEND_GAP: Duration = Duration::from_millis(100);

impl Init {
    /// The key exchange that is next.
    fn next_method(&self) -> Option<DhGroup> {
        self.suite.as_ref()?.additional.get(self.extra_done).copied()
    }

    /// Takes a message into what AUTH covers. Under the keys that protect the message.
    fn cover(&mut self, header: &Header, first: u8, plain: &[u8]) {
        let (Some(suite), Some(keys)) = (&self.suite, &self.keys) else { return };
        let (sk_p, so_far) = if header.response { (&keys.pr, &mut self.int_r) } else { (&keys.pi, &mut self.int_i) };
        *so_far = int_auth(suite.prf, sk_p, so_far, header, first, plain);
    }

    /// Mixes the secret of an additional key exchange into the keys.
    fn mix(&mut self, shared: &Secret, id: &IkeSaId) -> Option<()> {
        let (suite, keys) = (self.suite.as_ref()?, self.keys.as_ref()?);
        let seed = skeyseed_next(suite.prf, &keys.d, shared, &self.ni, &self.nr, &[]);
        self.keys = Some(IkeKeys::derive(suite, &seed, &self.ni, &self.nr, id));
        self.extra_done += 1;
        if self.next_method().is_none() {
            self.int_auth = int_auth_end(&self.int_i, &self.int_r, self.message_id + 1);
        }
        Some(())
    }

    /// True when IKE_AUTH may come.
    pub(super) fn exchanged_all(&self) -> bool {
        self.next_method().is_none()
    }
}

impl Engine {
    /// Initiator: the next additional key exchange, or IKE_AUTH.
    pub(super) fn next_exchange(&mut self, handle: Handle, now: Instant) {
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        let Some(group) = init.next_method() else { return self.begin_auth(handle, now) };
        init.state = InitState::MakeExtra;
        let secret = group.generate(&mut *self.rng);
        self.push_job(JobTarget::Init(handle), Job::dh(secret, true, None));
    }

    /// Initiator: our public value is there.
    pub(super) fn extra_made(&mut self, handle: Handle, done: DhDone, now: Instant) {
        let Some(public) = done.public else { return self.init_failed(handle, "additional key exchange", now) };
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let id = sa.id;
        let Some(init) = sa.init_mut() else { return };
        init.secret = Some(done.secret);
        init.public.clone_from(&public);
        init.message_id += 1;
        init.state = InitState::WaitExtra;
        let message_id = init.message_id;
        let Some(group) = init.next_method() else { return };
        let mut out = Outgoing::new();
        out.ke(group.number(), &public);
        init.cover(&Header::new(id, Exchange::Intermediate, true, false, message_id), out.first(), out.bytes());
        let packets = self.seal(handle, Exchange::Intermediate, false, message_id, &out);
        self.send_first(handle, packets, now);
    }

    /// Initiator: the answer.
    pub(super) fn intermediate_response(&mut self, handle: Handle, header: &Header, bytes: &[u8], now: Instant) -> Verdict {
        let init = self.sas.get(&handle).and_then(Sa::init).ok_or_else(ended)?;
        if init.state != InitState::WaitExtra || header.message_id != init.message_id {
            return Err(refuse("unexpected_response", format!("message {}", header.message_id)));
        }
        let Some((opened, _)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        self.timers.clear(Timer::Init(handle));
        match self.take_answer(handle, header, &opened) {
            Ok((secret, ke)) => {
                self.push_job(JobTarget::Init(handle), Job::dh(secret, false, Some(ke)));
                Ok(())
            }
            Err(why) => {
                self.init_failed(handle, &why.1, now);
                Err(why)
            }
        }
    }

    fn take_answer(&mut self, handle: Handle, header: &Header, opened: &Opened) -> Verdict<(DhSecret, Vec<u8>)> {
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        let m = Message::decode(opened.first, &opened.plain)?;
        let bad = |why: String| refuse("intermediate", why);
        if let Some(n) = m.error() {
            return Err(bad(format!("the peer says {}", n.kind)));
        }
        let group = init.next_method().ok_or_else(ended)?;
        let ke = m.ke.ok_or_else(|| bad("no KE payload".into()))?;
        if !Init::ke_fits(group, ke.group, ke.data.len(), true) || ke.data == init.public {
            return Err(bad(format!("KE of group {} and {} bytes", ke.group, ke.data.len())));
        }
        let ke = ke.data.to_vec();
        init.cover(header, opened.first, &opened.plain);
        init.state = InitState::MakeExtraKeys;
        Ok((init.secret.take().ok_or_else(ended)?, ke))
    }

    /// Initiator: the shared secret is there.
    pub(super) fn extra_computed(&mut self, handle: Handle, done: DhDone, now: Instant) {
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let id = sa.id;
        let Some(init) = sa.init_mut() else { return };
        match done.shared.and_then(|shared| init.mix(&shared, &id)) {
            Some(()) => self.next_exchange(handle, now),
            None => self.init_failed(handle, "additional key exchange: the peer's value is not valid", now),
        }
    }

    /// Responder: a request, or its repetition.
    pub(super) fn intermediate_request(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        if header.message_id != 0 && header.message_id == init.message_id && init.seen == Some(digest(bytes)) {
            let again = init.state == InitState::AnsweredInit && now.saturating_duration_since(init.sent_at) >= RESEND_GAP;
            if !again {
                return Err(refuse("repeated", "it is being answered, or was just now"));
            }
            init.sent_at = now;
            for packet in init.out.clone() {
                self.transmit(to, from, packet);
            }
            return Ok(());
        }
        let group = init.next_method().filter(|_| init.state == InitState::AnsweredInit && header.message_id == init.message_id + 1);
        let group = group.ok_or_else(|| refuse("out_of_order", format!("message {} in {:?}", header.message_id, init.state)))?;
        let Some((opened, seen)) = self.open(handle, header, bytes, now)? else { return Ok(()) };
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        let m = Message::decode(opened.first, &opened.plain)?;
        let ke = m.ke.ok_or_else(|| refuse("intermediate", "no KE payload"))?;
        if !Init::ke_fits(group, ke.group, ke.data.len(), false) {
            let why = format!("KE of group {} and {} bytes", ke.group, ke.data.len());
            self.init_failed(handle, &why, now);
            return Err(refuse("intermediate", why));
        }
        init.cover(header, opened.first, &opened.plain);
        init.message_id = header.message_id;
        init.seen = Some(seen);
        init.state = InitState::AnswerExtra;
        init.reply_to = Some((from, to));
        let secret = group.generate(&mut *self.rng);
        self.push_job(JobTarget::Init(handle), respond(secret, ke.data));
        Ok(())
    }

    /// Responder: our half is done. The answer leaves under the keys so far; then they change.
    pub(super) fn extra_answered(&mut self, handle: Handle, done: Result<(Vec<u8>, Secret), CryptoError>, now: Instant) {
        let (public, shared) = match done {
            Ok(done) => done,
            Err(e) => return self.init_failed(handle, &format!("additional key exchange: {e}"), now),
        };
        let Some(sa) = self.sas.get_mut(&handle) else { return };
        let id = sa.id;
        let Some(init) = sa.init_mut() else { return };
        let (Some(group), message_id) = (init.next_method(), init.message_id) else { return };
        let mut out = Outgoing::new();
        out.ke(group.number(), &public);
        init.cover(&Header::new(id, Exchange::Intermediate, false, true, message_id), out.first(), out.bytes());
        let packets = self.seal(handle, Exchange::Intermediate, true, message_id, &out);
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return };
        if init.mix(&shared, &id).is_none() {
            return self.init_failed(handle, "additional key exchange", now);
        }
        init.state = InitState::AnsweredInit;
        init.out.clone_from(&packets);
        init.sent_at = now;
        let Some((from, to)) = init.reply_to else { return };
        for packet in packets {
            self.transmit(to, from, packet);
        }
    }
}
