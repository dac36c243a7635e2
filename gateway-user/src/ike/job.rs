//! Costly arithmetic that leaves the engine and comes back as an input.

use crate::crypto::{CryptoError, DhSecret, Secret};
use crate::id::IkeVersion;

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

    /// Does the work.
    pub fn run(self) -> JobDone {
        let outcome = match self.work {
            Work::Dh { secret, public, peer } => Outcome::Dh(dh(secret, public, peer.as_deref())),
            Work::Respond { secret, peer } => Outcome::Responded(secret.respond(&peer)),
        };
        JobDone { version: self.version, token: self.token, outcome }
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
