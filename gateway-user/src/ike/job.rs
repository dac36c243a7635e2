//! Costly arithmetic that leaves the engine and comes back as an input.

use crate::crypto::{CryptoError, DhSecret, Secret, Stretched};
use crate::id::IkeVersion;
use crate::pki::{Credential, PeerCertificate, PkiError, SignatureAlg, Trust};
use crate::rng::Random;
use std::sync::Arc;

/// Work for any thread.
pub struct Job {
    /// Whose job: set where it leaves the engine.
    pub(in crate::ike) version: IkeVersion,
    pub(in crate::ike) token: u64,
    pub(in crate::ike) work: Work,
}

/// What is to be computed.
pub(in crate::ike) enum Work {
    /// Diffie-Hellman: our public value, the shared secret, or both.
    Dh {
        secret: DhSecret,
        /// Wanted: our public value.
        public: bool,
        /// Wanted: the secret shared with this public value of the peer.
        peer: Option<Vec<u8>>,
    },
    /// The responder's half of a key exchange or key encapsulation at once.
    Respond { secret: DhSecret, peer: Vec<u8> },
    /// Our signature.
    Sign {
        credential: Arc<Credential>,
        scheme: Scheme,
        message: Vec<u8>,
        /// For the randomness of the signature.
        seed: Secret,
    },
    /// The peer's certificate and its signature.
    Verify(Box<Claim>),
}

/// How a signature is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ike) enum Scheme {
    /// SIG payload of version 1 (RFC 2409 5.1): the message is HASH_I or HASH_R.
    Ikev1,
    /// AUTH payload with method 1, 9, 10 or 11.
    Method(u8),
    /// AUTH payload with method 14 (RFC 7427).
    Named(SignatureAlg),
}

/// What a peer claims, with what is needed to judge it.
pub(in crate::ike) struct Claim {
    pub(in crate::ike) trust: Arc<Trust>,
    /// Certificates as the peer sent them, its own first.
    pub(in crate::ike) chain: Vec<Vec<u8>>,
    /// Time to judge them at.
    pub(in crate::ike) unix_s: u64,
    pub(in crate::ike) scheme: Scheme,
    pub(in crate::ike) message: Vec<u8>,
    pub(in crate::ike) signature: Vec<u8>,
}

/// Result of a [`Job`].
pub struct JobDone {
    pub(in crate::ike) version: IkeVersion,
    pub(in crate::ike) token: u64,
    pub(in crate::ike) outcome: Outcome,
}

/// What was computed.
pub(in crate::ike) enum Outcome {
    /// Of [`Work::Dh`].
    Dh(DhDone),
    /// Of [`Work::Respond`]: our value for the wire and the shared secret.
    Responded(Result<(Vec<u8>, Secret), CryptoError>),
    /// Of [`Work::Sign`]: the signature value.
    Signed(Result<Vec<u8>, PkiError>),
    /// Of [`Work::Verify`]: the certificate, whose names are still to be compared with the peer's identity.
    Verified(Result<PeerCertificate, PkiError>),
}

/// Result of [`Work::Dh`].
pub(in crate::ike) struct DhDone {
    pub(in crate::ike) secret: DhSecret,
    pub(in crate::ike) public: Option<Vec<u8>>,
    pub(in crate::ike) shared: Option<Secret>,
    pub(in crate::ike) error: Option<CryptoError>,
}

impl Job {
    /// A job that has no token yet; the engine tags it on the way out.
    pub(in crate::ike) fn new(work: Work) -> Self {
        Self { version: IkeVersion::V1, token: 0, work }
    }

    /// Diffie-Hellman work: our public value (when `public`), the secret shared with the peer's value (when there is one).
    pub(in crate::ike) fn dh(secret: DhSecret, public: bool, peer: Option<Vec<u8>>) -> Self {
        Self::new(Work::Dh { secret, public, peer })
    }

    /// A signature over `message`, with randomness drawn from `rng` now.
    pub(in crate::ike) fn sign(credential: Arc<Credential>, scheme: Scheme, message: Vec<u8>, rng: &mut dyn Random) -> Self {
        let mut seed = vec![0; 32];
        rng.fill(&mut seed);
        Self::new(Work::Sign { credential, scheme, message, seed: Secret::new(seed) })
    }

    /// A check of a peer's certificate and signature.
    pub(in crate::ike) fn verify(claim: Claim) -> Self {
        Self::new(Work::Verify(Box::new(claim)))
    }

    /// Does the work.
    pub fn run(self) -> JobDone {
        let outcome = match self.work {
            Work::Dh { secret, public, peer } => Outcome::Dh(dh(secret, public, peer.as_deref())),
            Work::Respond { secret, peer } => Outcome::Responded(secret.respond(&peer)),
            Work::Sign { credential, scheme, message, seed } => {
                Outcome::Signed(sign(&credential, scheme, &message, &mut Stretched::new(seed)))
            }
            Work::Verify(claim) => Outcome::Verified(claim.check()),
        };
        JobDone { version: self.version, token: self.token, outcome }
    }
}

fn sign(credential: &Credential, scheme: Scheme, message: &[u8], rng: &mut dyn Random) -> Result<Vec<u8>, PkiError> {
    match scheme {
        Scheme::Ikev1 => credential.sign_ikev1(message, rng),
        Scheme::Method(method) if credential.legacy_method() == Some(method) => credential.sign_legacy(message, rng),
        Scheme::Method(_) => Err(PkiError::Algorithm),
        Scheme::Named(alg) => credential.sign(alg, message, rng),
    }
}

impl Claim {
    fn check(&self) -> Result<PeerCertificate, PkiError> {
        let peer = self.trust.check(&self.chain, self.unix_s)?;
        match self.scheme {
            Scheme::Ikev1 => peer.verify_ikev1(&self.message, &self.signature),
            Scheme::Method(method) => peer.verify_legacy(method, &self.message, &self.signature),
            Scheme::Named(alg) => peer.verify(alg, &self.message, &self.signature),
        }?;
        Ok(peer)
    }
}

fn dh(secret: DhSecret, public: bool, peer: Option<&[u8]>) -> DhDone {
    let mut done = DhDone { secret, public: None, shared: None, error: None };
    if public {
        match done.secret.public() {
            Ok(public) => done.public = Some(public),
            Err(e) => done.error = Some(e),
        }
    }
    if let (Some(peer), None) = (peer, &done.error) {
        match done.secret.shared(peer) {
            Ok(shared) => done.shared = Some(shared),
            Err(e) => done.error = Some(e),
        }
    }
    done
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({})", self.token)
    }
}

impl std::fmt::Debug for JobDone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JobDone({})", self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testdata::{NOW, chain, credential, trust};
    use crate::rng::Seeded;

    #[test]
    fn what_one_job_signs_another_verifies() {
        for (kind, scheme) in [
            ("rsa", Scheme::Ikev1),
            ("rsa", Scheme::Method(1)),
            ("ecdsa", Scheme::Method(9)),
            ("rsa", Scheme::Named(SignatureAlg::RsaPssSha256)),
            ("ed25519", Scheme::Named(SignatureAlg::Ed25519)),
        ] {
            // A hash in version 1.
            let message = vec![0x17; 20];
            let job = Job::sign(Arc::new(credential(kind)), scheme, message.clone(), &mut Seeded::new(1));
            let Outcome::Signed(Ok(signature)) = job.run().outcome else { panic!("{kind} {scheme:?}") };
            let verify = |message: &[u8], unix_s| {
                let chain = chain(&[&format!("{kind}.crt")]);
                let claim =
                    Claim { trust: Arc::new(trust()), chain, unix_s, scheme, message: message.to_vec(), signature: signature.clone() };
                let Outcome::Verified(result) = Job::verify(claim).run().outcome else { panic!() };
                result
            };
            assert_eq!(verify(&message, NOW).unwrap().subject_text(), "CN=gw,O=Example,C=CH");
            assert_eq!(verify(&[0x18; 20], NOW).unwrap_err(), PkiError::Signature);
            assert!(matches!(verify(&message, 0), Err(PkiError::Path(_))));
        }
        let job = Job::sign(Arc::new(credential("rsa")), Scheme::Method(9), vec![], &mut Seeded::new(1));
        assert!(matches!(job.run().outcome, Outcome::Signed(Err(PkiError::Algorithm))));
    }
}
