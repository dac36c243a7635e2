//! Main mode with RSA signatures (RFC 2409 5.1, RFC 4945): what takes the place of HASH_I and HASH_R in messages 5 and 6.
//!
//! ```text
//! initiator                      responder
//! 3  KE, NONCE, [CERTREQ]  ->
//!                        <-      4  KE, NONCE, [CERTREQ]
//! 5* ID, CERT, SIG, [N]  ->
//!                        <-      6* ID, CERT, SIG, [N]
//! ```
//! Signing and checking are jobs. Encryption with public keys (methods 4 and 5) is not spoken: it would decrypt what a stranger sends.

use super::crypt;
use super::main_proof::{Notes, auth, check_id, gone};
use super::phase1::{Refuse, Verdict, peer_policy, phase_1_header};
use super::sa::{Claimed, Handle, LastMain, Main, MainState, Sa, digest};
use crate::id::Identity;
use crate::ike::engine::NAT_T_PORT;
use crate::ike::job::{Claim, Job, Scheme};
use crate::ike::policy::{AuthMethod, IkeConfig};
use crate::ike::v1::engine::Engine;
use crate::ike::v1::keymat;
use crate::ike::v1::message::{Chain, Exchange, Header, Id, Notify, PayloadKind, Payloads, flag, id_type, notify_type};
use crate::ike::v1::proposal;
use crate::pki::{CHAIN_MAX, Credential, PeerCertificate, PkiError, Trust};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// Encoding of a CERT or CERTREQ payload: X.509 certificate for signatures (RFC 2408 3.9).
const X509_SIGNATURE: u8 = 4;
/// Names of authorities in one message; with more of them the payload is empty, which asks for any.
const REQUESTS_MAX: usize = 8;
/// Our certificates of one message, bytes: the standby must be able to hold the whole message.
const CERTIFICATES_BYTES_MAX: usize = 6000;
/// Longest signature, bytes: of the largest key.
const SIGNATURE_MAX: usize = 1024;

/// Our certificate and whom we trust, if version 1 can use both.
fn means(config: &IkeConfig) -> Option<(&Arc<Credential>, &Arc<Trust>)> {
    config.credential.as_ref().filter(|c| c.signs_ikev1()).zip(config.trust.as_ref())
}

/// True when signatures can be made and checked.
pub(super) fn possible(config: &IkeConfig) -> bool {
    means(config).is_some()
}

/// Our identity: it must stand in the certificate (RFC 4945 3.1). The subject, or the first alternative name if that is empty.
fn own_identity(credential: &Credential) -> Option<Id> {
    const EMPTY: [u8; 2] = [0x30, 0];
    let id = |kind, data: Vec<u8>| Some(Id { kind, proto: 0, port: 0, data });
    match credential.subject() {
        Identity::DerAsn1Dn(der) if der != EMPTY => id(id_type::DER_ASN1_DN, der),
        _ => match credential.alt_names().first()? {
            Identity::Address(address) => Id::host(*address),
            Identity::Fqdn(name) => id(id_type::FQDN, name.clone().into_bytes()),
            Identity::UserFqdn(name) => id(id_type::USER_FQDN, name.clone().into_bytes()),
            Identity::DerAsn1Dn(_) | Identity::KeyId(_) => None,
        },
    }
}

/// Asks for a certificate of an authority that we trust.
pub(super) fn push_requests(chain: &mut Chain, config: &IkeConfig) {
    let names = config.trust.as_ref().map(|t| t.authority_names()).unwrap_or_default();
    let names = if names.len() > REQUESTS_MAX { vec![Vec::new()] } else { names };
    for name in names {
        chain.push(PayloadKind::CertRequest, &[&[X509_SIGNATURE], &name[..]].concat());
    }
}

/// Our certificates, as many as there is room for.
fn push_certificates(chain: &mut Chain, credential: &Credential) -> Verdict {
    let mut room = CERTIFICATES_BYTES_MAX;
    for (n, der) in credential.chain().iter().enumerate() {
        match room.checked_sub(der.len()) {
            Some(left) => room = left,
            None if n == 0 => return Err(Refuse("certificate_size", "our certificate is too large for version 1".into())),
            None => break,
        }
        chain.push(PayloadKind::Cert, &[&[X509_SIGNATURE], &der[..]].concat());
    }
    Ok(())
}

fn rejected(why: &PkiError) -> Refuse {
    Refuse("auth_failed", why.to_string())
}

impl Main {
    /// True when both ends prove themselves with signatures.
    pub(super) fn signs(&self) -> bool {
        self.policy.as_ref().is_some_and(|p| p.authentication == AuthMethod::Signature)
    }

    /// Decrypts message 5 or 6 and takes what the peer claims out of it.
    fn read_claim(&self, header: &Header, bytes: &[u8]) -> Verdict<(Claimed, Vec<Vec<u8>>, Vec<u8>)> {
        if header.flags & flag::ENCRYPTED == 0 {
            return Err(Refuse("not_encrypted", String::new()));
        }
        let (_, cipher) = self.suite()?;
        let (plain, iv) = crypt::open(cipher, &self.key, &self.iv, bytes).ok_or_else(auth)?;
        let payloads = Payloads::decode(header.next, &plain).map_err(|_| auth())?;
        payloads.only(&[
            PayloadKind::Id,
            PayloadKind::Cert,
            PayloadKind::Signature,
            PayloadKind::Notify,
            PayloadKind::Vendor,
            PayloadKind::CertRequest,
        ])?;
        let id = payloads.one(PayloadKind::Id)?.to_vec();
        let signature = payloads.one(PayloadKind::Signature)?;
        if signature.len() > SIGNATURE_MAX {
            return Err(Refuse("auth_failed", format!("a signature of {} bytes", signature.len())));
        }
        // Other encodings (revocation lists, PKCS #7) are not for us.
        let certificates =
            payloads.all(PayloadKind::Cert).filter_map(|body| body.split_first()).filter(|(kind, _)| **kind == X509_SIGNATURE);
        let chain: Vec<Vec<u8>> = certificates.map(|(_, der)| der.to_vec()).take(CHAIN_MAX + 1).collect();
        if chain.is_empty() {
            return Err(Refuse("auth_failed", "the peer sent no X.509 certificate".into()));
        }
        let claimed = Claimed { id, iv, notes: Notes::read(&payloads), digest: digest(bytes) };
        Ok((claimed, chain, signature.to_vec()))
    }
}

impl Engine {
    /// Unix seconds now.
    fn unix_s(&self, now: Instant) -> Verdict<u64> {
        let (then_s, then) = self.wall.ok_or_else(|| Refuse("no_clock", "the time of day is not known yet".into()))?;
        Ok(then_s.saturating_add(now.saturating_duration_since(then).as_secs()))
    }

    /// Has our message 5 or 6 signed.
    fn main_sign(&mut self, handle: Handle, state: MainState, now: Instant) -> Verdict {
        let config = self.config.clone();
        let (credential, _) = means(&config).ok_or_else(|| Refuse("no_certificate", "our certificate is gone".into()))?;
        let own = own_identity(credential).ok_or_else(|| Refuse("no_certificate", "our certificate names nobody".into()))?.encode();
        let sa = self.sas.get_mut(&handle).ok_or_else(gone)?;
        let (id, initiator) = (sa.id, sa.initiator);
        let main = sa.main_mut().ok_or_else(gone)?;
        let (hash, _) = main.suite()?;
        let proof = if initiator { keymat::hash_i } else { keymat::hash_r };
        let message = proof(hash, &main.skeyid, &main.auth_input(id), &own);
        main.own_id = own;
        main.credential = Some(credential.clone());
        let job = Job::sign(credential.clone(), Scheme::Ikev1, message, &mut *self.rng);
        self.main_wait(handle, state, job, now)
    }

    /// The initiator has all keys: message 5 is to be signed.
    pub(super) fn signature_5(&mut self, handle: Handle, now: Instant) -> Verdict {
        self.main_sign(handle, MainState::Sign, now)
    }

    /// Message 5 at the responder, message 6 at the initiator: has the peer's claim checked.
    pub(super) fn signature_received(
        &mut self,
        handle: Handle,
        from: SocketAddr,
        to: SocketAddr,
        header: &Header,
        bytes: &[u8],
        now: Instant,
    ) -> Verdict {
        let unix_s = self.unix_s(now)?;
        let config = self.config.clone();
        let (_, trust) = means(&config).ok_or_else(|| Refuse("no_certificate", "our certificate or the authority is gone".into()))?;
        let sa = self.sas.get_mut(&handle).ok_or_else(gone)?;
        let (id, initiator) = (sa.id, sa.initiator);
        if !initiator && sa.nat.found().is_some() && to.port() != NAT_T_PORT {
            return Err(Refuse("nat_t_port", "a NAT was found, the peer stays at port 500".into()));
        }
        let main = sa.main_mut().ok_or_else(gone)?;
        let (hash, _) = main.suite()?;
        let (claimed, chain, signature) = main.read_claim(header, bytes)?;
        let proof = if initiator { keymat::hash_r } else { keymat::hash_i };
        let message = proof(hash, &main.skeyid, &main.auth_input(id), &claimed.id);
        main.seen = Some(claimed.digest);
        main.claimed = Some(Box::new(claimed));
        main.path = Some((from, to));
        let claim = Claim { trust: trust.clone(), chain, unix_s, scheme: Scheme::Ikev1, message, signature };
        let state = if initiator { MainState::CheckAuth } else { MainState::AnswerCheck };
        self.main_wait(handle, state, Job::verify(claim), now)
    }

    /// A signature of ours is there.
    pub(super) fn main_signed(&mut self, handle: Handle, result: Result<Vec<u8>, PkiError>, now: Instant) {
        let verdict = result.map_err(|why| rejected(&why)).and_then(|signature| {
            let state = self.main(handle)?.state;
            if state == MainState::Sign {
                self.signature_send_5(handle, &signature, now)
            } else if state == MainState::AnswerSign {
                self.signature_send_6(handle, &signature, now)
            } else {
                Err(gone())
            }
        });
        self.main_outcome(handle, verdict, now);
    }

    /// A peer's claim was checked.
    pub(super) fn main_verified(&mut self, handle: Handle, result: Result<PeerCertificate, PkiError>, now: Instant) {
        let verdict = result.map_err(|why| rejected(&why)).and_then(|peer| self.signature_verified(handle, &peer, now));
        self.main_outcome(handle, verdict, now);
    }

    fn signature_verified(&mut self, handle: Handle, peer: &PeerCertificate, now: Instant) -> Verdict {
        let (address, nat) = self.sas.get(&handle).map(|s| (s.peer.ip(), s.nat)).ok_or_else(gone)?;
        let wanted = peer_policy(&self.config, address, None).and_then(|p| p.remote_id.clone());
        let main = self.main(handle)?;
        let claimed = main.claimed.as_ref().ok_or_else(gone)?;
        let name = check_id(&claimed.id, address, nat.peer)?;
        let identity = Id::decode(&claimed.id)?.identity();
        if !identity.is_some_and(|id| peer.matches(&id)) {
            return Err(Refuse("auth_failed", format!("the certificate of {} is not of {name}", peer.subject_text())));
        }
        // The peer may call itself by another name of its certificate, but it must be the certificate of this peer.
        if let Some(wanted) = wanted.filter(|wanted| !peer.matches(wanted)) {
            let have = peer.subject_text();
            return Err(Refuse("auth_failed", format!("the certificate of {have} is not that of the peer at {address}: {wanted:?}")));
        }
        main.peer_name = name;
        if main.state == MainState::AnswerCheck {
            self.main_sign(handle, MainState::AnswerSign, now)
        } else if main.state == MainState::CheckAuth {
            self.signature_up(handle, now)
        } else {
            Err(gone())
        }
    }

    /// ID, CERT, SIG.
    fn signature_chain(&mut self, handle: Handle, signature: &[u8]) -> Verdict<Chain> {
        let main = self.main(handle)?;
        let mut chain = Chain::new();
        chain.push(PayloadKind::Id, &main.own_id);
        // The certificate that goes with the signature, even if the configuration has another one by now.
        push_certificates(&mut chain, main.credential.as_ref().ok_or_else(gone)?)?;
        chain.push(PayloadKind::Signature, signature);
        Ok(chain)
    }

    /// Sends message 5.
    fn signature_send_5(&mut self, handle: Handle, signature: &[u8], now: Instant) -> Verdict {
        let id = self.sas.get(&handle).ok_or_else(gone)?.id;
        let first_contact = self.first_contact(handle);
        let mut chain = self.signature_chain(handle, signature)?;
        if first_contact {
            let n = Notify::isakmp(notify_type::INITIAL_CONTACT, id, Vec::new());
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let main = self.main(handle)?;
        let (_, cipher) = main.suite()?;
        let out = crypt::seal(cipher, &main.key, &mut main.iv, phase_1_header(id, Exchange::Main), &chain).ok_or_else(gone)?;
        main.state = MainState::WaitAuth;
        self.main_send(handle, out, now)
    }

    /// Sends message 6: the responder is done.
    fn signature_send_6(&mut self, handle: Handle, signature: &[u8], now: Instant) -> Verdict {
        let (id, nat) = self.sas.get(&handle).map(|s| (s.id, s.nat)).ok_or_else(gone)?;
        let mut chain = self.signature_chain(handle, signature)?;
        let main = self.main(handle)?;
        let (_, cipher) = main.suite()?;
        let claimed = main.claimed.take().ok_or_else(gone)?;
        let (from, to) = main.path.ok_or_else(gone)?;
        if main.shortened {
            let n = Notify::isakmp(notify_type::RESPONDER_LIFETIME, id, proposal::isakmp_lifetime_data(main.lifetime_s));
            chain.push(PayloadKind::Notify, &n.encode());
        }
        let mut iv = claimed.iv;
        let out = crypt::seal(cipher, &main.key, &mut iv, phase_1_header(id, Exchange::Main), &chain).ok_or_else(gone)?;
        main.iv = iv;
        let name = std::mem::take(&mut main.peer_name);
        self.settle_path(handle, nat, from, to);
        self.transmit(to, from, out.clone());
        let last = LastMain { digest: claimed.digest, answer: out, at: now };
        self.main_up(handle, name, Some(last), claimed.notes.initial_contact, now);
        Ok(())
    }

    /// Message 6 was right: the initiator is done.
    fn signature_up(&mut self, handle: Handle, now: Instant) -> Verdict {
        let main = self.sas.get_mut(&handle).and_then(Sa::main_mut).ok_or_else(gone)?;
        let claimed = main.claimed.take().ok_or_else(gone)?;
        main.iv = claimed.iv;
        if let Some(seconds) = claimed.notes.lifetime_s {
            main.lifetime_s = proposal::isakmp_lifetime(main.lifetime_s, Some(seconds));
        }
        let name = std::mem::take(&mut main.peer_name);
        self.main_up(handle, name, None, claimed.notes.initial_contact, now);
        Ok(())
    }
}
