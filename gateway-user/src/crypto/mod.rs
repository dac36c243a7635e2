//! Cryptographic primitives behind one table: names, key sizes, and calls. `ring` where it has the primitive, RustCrypto elsewhere.
//!
//! What an algorithm *is* stands in `alg` and `group`; what it *does* stands in `hash`, `mac`, `cipher`, `aead` and [`dh`]. [`kat`] runs a known answer per
//! algorithm at start-up: one that fails must not be offered to a peer.

mod aead;
mod alg;
pub(crate) mod cipher;
pub mod dh;
mod group;
mod hash;
pub mod kat;
mod mac;
mod stretch;

pub use alg::{AesKey, CipherAlg, HashAlg, Icv, IntegAlg, PrfAlg};
pub use dh::DhSecret;
pub use group::DhGroup;
pub use stretch::Stretched;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Why a primitive refused its input. No variant carries key material or peer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CryptoError {
    /// The key has not the length of the algorithm.
    #[error("key of {got} bytes where the algorithm takes {want}")]
    KeyLength {
        /// Length in bytes as given.
        got: usize,
        /// Length in bytes that the algorithm takes.
        want: usize,
    },
    /// The IV is not one block long.
    #[error("IV of {got} bytes where the block has {want}")]
    IvLength {
        /// Length in bytes as given.
        got: usize,
        /// Block length in bytes.
        want: usize,
    },
    /// The data is not a whole number of blocks.
    #[error("{got} bytes are no whole number of blocks of {block}")]
    DataLength {
        /// Length in bytes as given.
        got: usize,
        /// Block length in bytes.
        block: usize,
    },
    /// A cipher that is not one of CBC was asked for CBC. NULL exists in ESP only, and there the kernel does it (RFC 2410).
    #[error("no cipher in CBC mode")]
    NotCbc,
    /// A cipher without a check value of its own was asked for one.
    #[error("no combined-mode cipher")]
    NotAead,
    /// A cipher that is not AES-CTR was asked for counter mode.
    #[error("no cipher in counter mode")]
    NotCtr,
    /// The check value of a combined-mode cipher does not fit: the data or the associated data was changed, or the key is another.
    #[error("the check value does not fit")]
    Forged,
    /// The peer's public value has not the fixed length of the group (RFC 2409 5, RFC 5903 7).
    #[error("public value of {got} bytes where the group has {want}")]
    PublicLength {
        /// Length in bytes as sent.
        got: usize,
        /// Length in bytes of the group ([`DhGroup::public_len`]).
        want: usize,
    },
    /// The peer's public value lies outside 2 to p - 2, or is no point of the curve.
    #[error("public value is not valid in the group")]
    PublicInvalid,
    /// The result would be the neutral element, or our own tables are damaged: start-up's self test failed as well.
    #[error("the group gives no result")]
    Internal,
}

/// Equal, in time that depends on the lengths only.
#[must_use]
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Secret bytes: zeroised when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop, Default)]
pub struct Secret(Vec<u8>);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        ct_eq(&self.0, &other.0)
    }
}

impl Eq for Secret {}

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the primitive that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Reads the tables of known answers in `vectors/`.
#[cfg(test)]
pub(crate) mod vectors {
    /// The fields of every line that is not empty and no comment.
    pub(crate) fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| line.split(' ').collect())
    }

    /// Bytes from hex; `-` is none.
    pub(crate) fn hex(field: &str) -> Vec<u8> {
        let digits = if field == "-" { "" } else { field };
        assert!(digits.len().is_multiple_of(2), "{field}");
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_shows_its_bytes() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "Secret(7 bytes)");
    }

    #[test]
    fn comparison_sees_length_and_content() {
        assert!(ct_eq(b"abc", b"abc"));
        assert!(!ct_eq(b"abc", b"abd"));
        assert!(!ct_eq(b"abc", b"ab"));
        assert!(ct_eq(b"", b""));
        assert_eq!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 3]));
    }
}
