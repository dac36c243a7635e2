//! Certificates and signatures: X.509 path validation, revocation lists, private keys.

mod credential;
mod trust;

pub use credential::Credential;
pub use trust::Trust;
