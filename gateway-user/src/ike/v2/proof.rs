//! How the ends prove themselves (RFC 7296 2.15): pre-shared keys, and signatures with certificates (RFC 7427, methods 1, 9, 10, 11).

use super::auth_responder::Answered;
use super::engine::Engine;
use super::keymat::{decode_signature, encode_signature, psk_auth, signed_octets};
use super::message::{Auth, Id, Message, Outgoing};
use super::sa::{Handle, Init, InitState, Sa, Verdict, ended, refuse};
use super::task::JobTarget;
use crate::crypto::ct_eq;
use crate::id::Identity;
use crate::ike::job::{Claim, Job, Scheme};
use crate::ike::policy::{AuthMethod, Ikev2Profile};
use crate::pki::{PeerCertificate, PkiError, SignatureAlg};
use std::net::IpAddr;
use std::time::Instant;

/// Shared key message integrity code (RFC 7296 3.8).
pub(super) const METHOD_SHARED_KEY: u8 = 2;
/// Digital signature (RFC 7427).
const METHOD_SIGNATURE: u8 = 14;
/// X.509 certificate, signature (RFC 7296 3.6).
const CERT_X509: u8 = 4;

/// The identity that we show.
pub(super) fn local_identity(profile: &Ikev2Profile, local: IpAddr) -> Identity {
    let subject = || profile.credential.as_ref().filter(|_| profile.local_auth == AuthMethod::Signature).map(|c| c.subject());
    profile.local_id.clone().or_else(subject).unwrap_or(Identity::Address(local))
}

/// True when a peer at this address may call itself so. A certificate must hold the name as well, which is seen later.
pub(super) fn identity_fits(profile: &Ikev2Profile, peer: IpAddr, identity: Option<&Identity>) -> bool {
    match (&profile.remote_id, identity) {
        (Some(wanted), Some(shown)) => wanted == shown,
        (None, Some(shown)) => match profile.remote_auth {
            AuthMethod::PreShared => *shown == Identity::Address(peer),
            AuthMethod::Signature => true,
        },
        (_, None) => false,
    }
}

/// An identity for the log.
pub(super) fn identity_text(identity: Option<&Identity>) -> String {
    match identity {
        Some(Identity::Address(a)) => a.to_string(),
        Some(Identity::Fqdn(s) | Identity::UserFqdn(s)) => s.escape_default().to_string(),
        Some(Identity::DerAsn1Dn(d)) => crate::pki::name_text(d).unwrap_or_else(|| "a distinguished name".into()),
        Some(Identity::KeyId(d)) => d.iter().map(|b| format!("{b:02x}")).collect(),
        None => "of an unknown type".into(),
    }
}

/// Asks for a certificate of the authorities that we believe.
pub(super) fn put_cert_request(out: &mut Outgoing, profile: &Ikev2Profile) {
    if let Some(trust) = profile.trust.as_ref().filter(|_| profile.remote_auth == AuthMethod::Signature) {
        out.cert_req(CERT_X509, &trust.authority_hashes().concat());
    }
}

/// Our certificates, our own first.
pub(super) fn put_certs(out: &mut Outgoing, profile: &Ikev2Profile) {
    if let Some(credential) = profile.credential.as_ref().filter(|_| profile.local_auth == AuthMethod::Signature) {
        for cert in credential.chain() {
            out.cert(CERT_X509, cert);
        }
    }
}

fn bad(why: impl Into<String>) -> super::sa::Refuse {
    refuse("authentication_failed", why)
}

impl Init {
    /// What one end signs: its first message, the other's nonce, its identity.
    fn octets(&self, initiator: bool, id_body: &[u8]) -> Option<Vec<u8>> {
        let (message, nonce) = if initiator { (&self.message_i, &self.nr) } else { (&self.message_r, &self.ni) };
        let (suite, keys) = (self.suite.as_ref()?, self.keys.as_ref()?);
        Some(signed_octets(message, nonce, suite.prf, keys.p(initiator), id_body, &self.int_auth))
    }

    /// AUTH data with the key shared with this peer; `None` when there is no key.
    pub(super) fn shared_key_proof(&self, initiator: bool, id_body: &[u8], peer: IpAddr, remote: Option<&Identity>) -> Option<Vec<u8>> {
        let psk = self.config.psk(peer, remote)?;
        Some(psk_auth(self.suite.as_ref()?.prf, psk, &self.octets(initiator, id_body)?))
    }

    /// Checks what the other end proves itself with.
    pub(super) fn check_shared_key(&self, auth: &Auth<'_>, initiator: bool, id: &Id<'_>, peer: IpAddr) -> Verdict {
        if auth.method != METHOD_SHARED_KEY {
            return Err(bad("the peer does not use a pre-shared key"));
        }
        let wanted = self.shared_key_proof(initiator, id.body, peer, id.identity().as_ref());
        let wanted = wanted.ok_or_else(|| bad("there is no pre-shared key for this peer"))?;
        if ct_eq(&wanted, auth.data) { Ok(()) } else { Err(bad("pre-shared keys differ")) }
    }

    /// Scheme of our signature: the best that the peer takes.
    fn scheme(&self) -> Option<Scheme> {
        let credential = self.profile.credential.as_ref()?;
        let named = credential.algorithms(&self.peer_hashes).first().copied().map(Scheme::Named);
        named.or_else(|| credential.legacy_method().map(Scheme::Method))
    }

    /// The job that signs for us.
    fn sign_job(&self, initiator: bool, id_body: &[u8], rng: &mut dyn crate::rng::Random) -> Option<Job> {
        let credential = self.profile.credential.clone()?;
        Some(Job::sign(credential, self.scheme()?, self.octets(initiator, id_body)?, rng))
    }

    /// Method and data of the AUTH payload around a signature.
    fn signature_data(&self, signature: &[u8]) -> Option<(u8, Vec<u8>)> {
        match self.scheme()? {
            Scheme::Named(alg) => Some((METHOD_SIGNATURE, encode_signature(alg.algorithm_identifier(), signature)?)),
            Scheme::Method(method) => Some((method, signature.to_vec())),
            Scheme::Ikev1 => None,
        }
    }

    /// What the other end claims with its certificate and signature.
    fn claim(&self, m: &Message<'_>, initiator: bool, id: &Id<'_>, unix_s: u64) -> Verdict<Claim> {
        let auth = m.auth.as_ref().ok_or_else(|| bad("no proof"))?;
        let (scheme, signature) = match auth.method {
            METHOD_SIGNATURE => {
                let (algorithm, signature) = decode_signature(auth.data).ok_or_else(|| bad("malformed signature"))?;
                let alg =
                    SignatureAlg::from_algorithm_identifier(algorithm).ok_or_else(|| bad("a signature algorithm that is not taken"))?;
                (Scheme::Named(alg), signature)
            }
            method if SignatureAlg::from_legacy_method(method).is_some() => (Scheme::Method(method), auth.data),
            method => return Err(bad(format!("the peer does not sign (method {method})"))),
        };
        let trust = self.profile.trust.clone().ok_or_else(|| bad("no authority is trusted"))?;
        let chain: Vec<Vec<u8>> = m.certs.iter().filter(|c| c.encoding == CERT_X509).map(|c| c.data.to_vec()).collect();
        if chain.is_empty() {
            return Err(bad("the peer sends no certificate"));
        }
        let message = self.octets(initiator, id.body).ok_or_else(ended)?;
        Ok(Claim { trust, chain, unix_s, scheme, message, signature: signature.to_vec() })
    }

    /// The certificate is good: does it hold the name that the peer uses?
    fn check_name(&self, verified: Result<PeerCertificate, PkiError>) -> Verdict {
        let certificate = verified.map_err(|e| bad(e.to_string()))?;
        let identity = self.pending.as_ref().and_then(|p| p.identity.as_ref()).ok_or_else(ended)?;
        if certificate.matches(identity) {
            return Ok(());
        }
        Err(bad(format!("the certificate of {} is not for {}", certificate.subject_text(), identity_text(Some(identity)))))
    }
}

impl Engine {
    /// Unix seconds at `now`.
    fn unix_s(&self, now: Instant) -> Verdict<u64> {
        let (unix_s, at) = self.wall.ok_or_else(|| bad("the time is not known"))?;
        Ok(unix_s + now.saturating_duration_since(at).as_secs())
    }

    /// Starts to sign for us.
    pub(super) fn sign(&mut self, handle: Handle, initiator: bool, id_body: &[u8], state: InitState) -> bool {
        let Some(init) = self.sas.get_mut(&handle).and_then(Sa::init_mut) else { return false };
        let Some(job) = init.sign_job(initiator, id_body, &mut *self.rng) else { return false };
        init.state = state;
        self.push_job(JobTarget::Init(handle), job);
        true
    }

    /// Starts to check what the other end claims.
    pub(super) fn verify(
        &mut self,
        handle: Handle,
        m: &Message<'_>,
        initiator: bool,
        id: &Id<'_>,
        state: InitState,
        now: Instant,
    ) -> Verdict {
        let unix_s = self.unix_s(now)?;
        let init = self.sas.get_mut(&handle).and_then(Sa::init_mut).ok_or_else(ended)?;
        let claim = init.claim(m, initiator, id, unix_s)?;
        init.state = state;
        self.push_job(JobTarget::Init(handle), Job::verify(claim));
        Ok(())
    }

    /// Initiator: our signature is there.
    pub(super) fn auth_signed(&mut self, handle: Handle, signed: Result<Vec<u8>, PkiError>, now: Instant) {
        let Some(sa) = self.sas.get(&handle) else { return };
        let local = sa.local.ip();
        let Some(init) = sa.init() else { return };
        let id = local_identity(&init.profile, local);
        match signed.map(|s| init.signature_data(&s)) {
            Ok(Some((method, data))) => self.send_auth(handle, &id, method, &data, None, now),
            Ok(None) => self.init_failed(handle, "no signature can be made", now),
            Err(e) => self.init_failed(handle, &format!("signature: {e}"), now),
        }
    }

    /// Initiator: the responder's signature was checked.
    pub(super) fn responder_verified(&mut self, handle: Handle, verified: Result<PeerCertificate, PkiError>, now: Instant) {
        let Some(init) = self.sas.get(&handle).and_then(Sa::init) else { return };
        match init.check_name(verified) {
            Ok(()) => self.responder_proven(handle, now),
            Err(why) => {
                self.reject_responder(handle);
                self.init_failed(handle, &why.1, now);
            }
        }
    }

    /// Responder: the initiator's signature was checked.
    pub(super) fn initiator_verified(&mut self, handle: Handle, verified: Result<PeerCertificate, PkiError>, now: Instant) {
        let Some(init) = self.sas.get(&handle).and_then(Sa::init) else { return };
        match init.check_name(verified) {
            Ok(()) => self.initiator_proven(handle, now),
            Err(why) => self.auth_failed(handle, &why, now),
        }
    }

    /// Responder: our signature is there.
    pub(super) fn responder_signed(&mut self, handle: Handle, signed: Result<Vec<u8>, PkiError>, now: Instant) {
        let Some(init) = self.sas.get(&handle).and_then(Sa::init) else { return };
        match signed.map(|s| init.signature_data(&s)) {
            Ok(Some((method, data))) => self.responder_up(handle, &Answered { method, data }, now),
            Ok(None) => self.auth_failed(handle, &bad("no signature can be made"), now),
            Err(e) => self.auth_failed(handle, &bad(format!("signature: {e}")), now),
        }
    }
}
