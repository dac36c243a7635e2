//! Certificates and signatures: X.509 path validation, revocation lists, private keys.
//!
//! Pure: files are read by `config`, the wall clock comes in as Unix seconds, randomness as [`Random`](crate::rng::Random).
//!
//! Which library does what, and why:
//! - **`rustls-webpki`** builds and checks paths and revocation lists (RFC 5280): maintained, fuzzed, with budgets against
//!   crafted chains. It is made for TLS, so `path` adds what IKE needs and it leaves out: key usage of every certificate, the
//!   purposes of RFC 4945 5.1.3.12, the validity of the authority itself and a start date of revocation lists. It refuses a chain
//!   whose name constraints it cannot judge (directory names, mail addresses), which is the safe side.
//! - **`x509-cert`** reads the fields `rustls-webpki` does not show (subject alternative names, key usage).
//! - **`ring`** verifies RSA, ECDSA on P-256 and P-384, and Ed25519; `p256`, `p384`, `p521` verify the combinations it has not.
//! - **Private keys** are in RustCrypto types, which zeroise themselves when dropped (ring's do not) and take randomness as an
//!   argument (ring asks the operating system). `rsa` 0.10 is the release without the timing channel of RUSTSEC-2023-0071: constant
//!   time, blinded, and it checks its result against the public key before it hands it out, so that a fault in one half of the
//!   computation cannot give the key away. It only ever signs here: nothing decrypts with RSA.

mod algorithm;
mod credential;
mod key;
mod name;
mod path;
mod peer;
mod pem;
mod private;
#[cfg(test)]
pub(crate) mod testdata;
#[cfg(test)]
mod tests;
mod trust;

use algorithm::EcdsaEncoding;
pub use algorithm::SignatureAlg;
pub use credential::Credential;
pub use peer::PeerCertificate;
pub use trust::Trust;

/// A distinguished name in DER as text (RFC 4514), safe for a log line; `None` for bytes that are no name.
pub fn name_text(der: &[u8]) -> Option<String> {
    name::text(der)
}

use thiserror::Error;

/// Smallest RSA modulus, bits: for our own key and for a peer's.
pub const RSA_BITS_MIN: u32 = 2048;
/// Largest RSA modulus, bits: a bound on the work that a peer's certificate can ask of us.
pub const RSA_BITS_MAX: u32 = 8192;
/// Most certificates taken from one peer, and most in a file of our own.
pub const CHAIN_MAX: usize = 8;
/// Largest certificate taken from a peer, bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8192;

/// Why a certificate, key or signature was refused. No variant carries key material.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PkiError {
    /// A file holds no section of the kind that is needed.
    #[error("no PEM section `{what}` in it; a DER file becomes PEM with `openssl {command} -inform der`")]
    Missing {
        /// Label of the section.
        what: &'static str,
        /// Command of openssl that converts it.
        command: &'static str,
    },
    /// Text that is no PEM.
    #[error("damaged PEM: {0}")]
    Pem(String),
    /// The private key is protected by a passphrase.
    #[error(
        "the private key is encrypted; the gateway starts unattended, so store it decrypted (`openssl pkey -in KEY -out NEW`) and readable by root only"
    )]
    KeyEncrypted,
    /// More than one private key.
    #[error("{0} private keys in one file; keep the one that belongs to the certificate")]
    KeyCount(usize),
    /// The key cannot be read, or is of another kind than the certificate's.
    #[error("the private key is no {0} key, which is what the certificate holds")]
    KeyKind(&'static str),
    /// The key is a valid one but another one.
    #[error(
        "the private key does not belong to the first certificate; the gateway's own certificate comes first, the authorities above it follow"
    )]
    KeyMismatch,
    /// Bytes that are no certificate we can use.
    #[error("{place} is not a certificate we can use: {why}")]
    Certificate {
        /// Which one.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates of a file are not in order.
    #[error("certificate {0} is not the issuer of the one before it; order them upwards and leave out others")]
    Order(usize),
    /// Too many certificates.
    #[error("{got} certificates where at most {CHAIN_MAX} are taken")]
    ChainLength {
        /// How many there are.
        got: usize,
    },
    /// The kind of public key is not supported.
    #[error("the public key is none of RSA, ECDSA on P-256, P-384 or P-521, and Ed25519")]
    KeyUnsupported,
    /// An RSA key outside the bounds.
    #[error("RSA key of {0} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are taken")]
    RsaSize(u32),
    /// An RSA public exponent that no sound key has.
    #[error("RSA key with a public exponent that is even, below 3 or above 33 bits")]
    RsaExponent,
    /// Bytes that are no revocation list we can use.
    #[error("revocation list {number} cannot be used: {why}")]
    Crl {
        /// Number in the file, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The peer's chain leads to no authority we trust, or breaks a rule on the way.
    #[error("the peer's certificate is refused: {0}")]
    Path(String),
    /// The key cannot make or check this signature.
    #[error("signature algorithm does not fit the key")]
    Algorithm,
    /// The signature is wrong.
    #[error("signature is not valid")]
    Signature,
    /// The private key operation failed its own check.
    #[error("the private key gives no valid signature; check the key file")]
    Sign,
}
