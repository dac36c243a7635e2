//! Costly arithmetic that leaves the engine and comes back as an input.

use crate::crypto::{CryptoError, DhSecret, Secret};
use crate::id::IkeVersion;

/// Diffie-Hellman work: our public value, the shared secret, or both. Run it on any thread.
pub struct Job {
    /// Whose job: set where it leaves the engine.
    pub(in crate::ike) version: IkeVersion,
    pub(in crate::ike) token: u64,
    pub(in crate::ike) secret: DhSecret,
    /// Wanted: our public value.
    pub(in crate::ike) public: bool,
    /// Wanted: the secret shared with this public value of the peer.
    pub(in crate::ike) peer: Option<Vec<u8>>,
}

/// Result of a [`Job`].
pub struct JobDone {
    pub(in crate::ike) version: IkeVersion,
    pub(in crate::ike) token: u64,
    pub(in crate::ike) secret: DhSecret,
    pub(in crate::ike) public: Option<Vec<u8>>,
    pub(in crate::ike) shared: Option<Secret>,
    pub(in crate::ike) error: Option<CryptoError>,
}

impl Job {
    /// Does the work.
    pub fn run(self) -> JobDone {
        let mut done = JobDone { version: self.version, token: self.token, secret: self.secret, public: None, shared: None, error: None };
        if self.public {
            match done.secret.public() {
                Ok(public) => done.public = Some(public),
                Err(e) => done.error = Some(e),
            }
        }
        if let (Some(peer), None) = (self.peer, &done.error) {
            match done.secret.shared(&peer) {
                Ok(shared) => done.shared = Some(shared),
                Err(e) => done.error = Some(e),
            }
        }
        done
    }
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
