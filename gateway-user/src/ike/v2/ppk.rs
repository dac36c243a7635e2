//! Post-quantum pre-shared keys (RFC 8784): mixed into SK_d, SK_pi and SK_pr before IKE_AUTH.

use super::engine::Engine;
use super::message::{Auth, Message, NotifyType, Outgoing};
use super::sa::{Handle, Init, Sa, Verdict, ended, refuse};
use crate::ike::policy::{Ikev2Profile, Ppk};

/// PPK_ID_FIXED (RFC 8784 5.1).
const FIXED: u8 = 2;

fn bad(why: &str) -> super::sa::Refuse {
    refuse("authentication_failed", why)
}

/// Announces it, in IKE_SA_INIT.
pub(super) fn announce(out: &mut Outgoing, profile: &Ikev2Profile) {
    if profile.ppk.is_some() {
        out.status(NotifyType::USE_PPK, &[]);
    }
}

impl Init {
    /// The key to use, when both ends announced that they have one.
    fn ppk(&self) -> Option<&Ppk> {
        self.profile.ppk.as_ref().filter(|_| self.ppk_announced)
    }

    fn mix_ppk(&mut self) {
        let Some(ppk) = self.ppk().cloned() else { return };
        let (Some(suite), Some(keys)) = (&self.suite, &mut self.keys) else { return };
        self.plain_keys = Some(keys.clone());
        keys.mix_ppk(suite.prf, &ppk.key);
    }

    /// Initiator: the keys of the proof, and what names the key in IKE_AUTH.
    ///
    /// # Errors
    /// The key is required and the responder has none.
    pub(super) fn begin_ppk(&mut self) -> Verdict {
        if self.ppk().is_some() {
            self.mix_ppk();
        } else if self.profile.ppk.as_ref().is_some_and(|p| p.required) {
            return Err(bad("the peer does not use a post-quantum key"));
        }
        Ok(())
    }

    /// Initiator: names the key. `plain`: the proof without it, for a responder that does not know it.
    pub(super) fn put_ppk(&self, out: &mut Outgoing, plain: Option<&[u8]>) {
        let Some(ppk) = self.ppk() else { return };
        out.status(NotifyType::PPK_IDENTITY, &[&[FIXED], ppk.id.as_slice()].concat());
        if let Some(plain) = plain.filter(|_| !ppk.required) {
            out.status(NotifyType::NO_PPK_AUTH, plain);
        }
    }

    /// Initiator: whether the responder used the key decides which keys count.
    pub(super) fn end_ppk(&mut self, m: &Message<'_>) -> Verdict {
        let Some(ppk) = self.ppk() else { return Ok(()) };
        if m.notify(NotifyType::PPK_IDENTITY).is_some() {
            return Ok(());
        }
        if ppk.required {
            return Err(bad("the peer does not know the post-quantum key"));
        }
        self.keys = self.plain_keys.take().or_else(|| self.keys.take());
        Ok(())
    }

    /// Responder: which proof counts. The key is mixed in when the initiator names it.
    fn choose_ppk<'a>(&mut self, m: &Message<'a>, auth: Auth<'a>) -> Verdict<Auth<'a>> {
        let required = self.profile.ppk.as_ref().is_some_and(|p| p.required);
        let named = m.notify(NotifyType::PPK_IDENTITY).and_then(|n| n.data.split_first());
        match (self.ppk(), named) {
            (Some(ppk), Some((&FIXED, id))) if id == ppk.id => {
                self.mix_ppk();
                self.ppk_used = true;
                Ok(auth)
            }
            _ if required => Err(bad("a post-quantum key is required")),
            (_, Some(_)) => {
                let plain = m.notify(NotifyType::NO_PPK_AUTH).ok_or_else(|| bad("the post-quantum key is not known"))?;
                Ok(Auth { method: auth.method, data: plain.data })
            }
            (_, None) => Ok(auth),
        }
    }
}

impl Engine {
    /// Responder: the message with the proof that counts in its place.
    pub(super) fn settle_ppk<'a>(&mut self, handle: Handle, m: &Message<'a>) -> Verdict<Message<'a>> {
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        let auth = m.auth.ok_or_else(|| bad("no proof"))?;
        let auth = init.choose_ppk(m, auth)?;
        Ok(Message { auth: Some(auth), ..m.clone() })
    }
}
