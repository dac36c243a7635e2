//! Costly arithmetic that leaves the engine and comes back as an input.

use crate::crypto::{CryptoError, DhSecret, Secret};

/// Diffie-Hellman work: our public value, the shared secret, or both. Run it on any thread.
pub struct Job {
    pub(super) token: u64,
    pub(super) secret: DhSecret,
    /// Wanted: our public value.
    pub(super) public: bool,
    /// Wanted: the secret shared with this public value of the peer.
    pub(super) peer: Option<Vec<u8>>,
}

/// Result of a [`Job`].
pub struct JobDone {
    pub(super) token: u64,
    pub(super) secret: DhSecret,
    pub(super) public: Option<Vec<u8>>,
    pub(super) shared: Option<Secret>,
    pub(super) error: Option<CryptoError>,
}

impl Job {
    /// Does the work.
    pub fn run(self) -> JobDone {
        let mut done = JobDone { token: self.token, secret: self.secret, public: None, shared: None, error: None };
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
