//! The pair's secret: what is refused, and how the channel's key comes from it.

use crate::crypto::Secret;
use ring::hkdf;
use thiserror::Error;
use zeroize::Zeroizing;

/// Shortest secret, bytes.
pub const SECRET_BYTES_MIN: usize = 16;
/// Fewer different byte values than this are no secret.
const DISTINCT_MIN: usize = 5;
/// A secret that is a word of at most this many bytes, repeated, is refused.
const PERIOD_MAX: usize = 8;
/// What must be left of a secret once words that everybody tries are taken out, bytes.
const BEYOND_WORDS_MIN: usize = 12;
/// Words that everybody tries.
const WORDS: [&str; 12] =
    ["cisco", "secret", "password", "passwd", "gateway", "changeme", "default", "admin", "test", "example", "letmein", "failover"];
/// Binds the derived key to this use: the same secret elsewhere gives another key.
const LABEL: &[u8] = b"gateway ssp noise psk v1";

/// Why a secret is refused. Says nothing about its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum WeakSecret {
    /// Too short.
    #[error("the SSP secret has {0} bytes; at least 16 are needed (make one with `openssl rand -hex 32`)")]
    Short(usize),
    /// A pattern.
    #[error("the SSP secret is a pattern; make one with `openssl rand -hex 32`")]
    Pattern,
    /// A default.
    #[error("the SSP secret is made of a word that everybody tries; make one with `openssl rand -hex 32`")]
    Word,
}

/// Refuses secrets that are short, a pattern, or built from a default word. White space around the secret (a file's last line end) does not count.
pub fn check_secret(secret: &Secret) -> Result<(), WeakSecret> {
    let bytes = secret.expose().trim_ascii();
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(WeakSecret::Short(bytes.len()));
    }
    let mut seen = [false; 256];
    bytes.iter().for_each(|&b| seen[usize::from(b)] = true);
    let distinct = seen.iter().filter(|s| **s).count();
    let periodic = (1..=PERIOD_MAX).any(|p| bytes.iter().zip(bytes.iter().skip(p)).all(|(a, b)| a == b));
    let steps = bytes.windows(2).filter(|w| w[0].abs_diff(w[1]) <= 1).count();
    if distinct < DISTINCT_MIN || periodic || steps * 4 > bytes.len() * 3 {
        return Err(WeakSecret::Pattern);
    }
    let mut rest = Zeroizing::new(bytes.to_ascii_lowercase());
    let mut found = false;
    for word in WORDS {
        while let Some(at) = rest.windows(word.len()).position(|w| w == word.as_bytes()) {
            rest.drain(at..at + word.len());
            found = true;
        }
    }
    if found && rest.len() < BEYOND_WORDS_MIN { Err(WeakSecret::Word) } else { Ok(()) }
}

/// Length of the derived key for ring's HKDF.
struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

/// The channel's pre-shared key: HKDF-SHA256 (RFC 5869) over the secret with a fixed label. `None` cannot happen for 32 bytes, but is not asserted.
pub(super) fn channel_key(secret: &Secret) -> Option<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL).extract(secret.expose());
    prk.expand(&[LABEL], KeyLength).ok()?.fill(&mut *key).ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(s: &str) -> Result<(), WeakSecret> {
        check_secret(&Secret::new(s.as_bytes().to_vec()))
    }

    #[test]
    fn short_secrets_defaults_and_patterns_are_refused() {
        assert_eq!(check(""), Err(WeakSecret::Short(0)));
        assert_eq!(check("cisco"), Err(WeakSecret::Short(5)));
        assert_eq!(check("fifteen bytes..\n\n\n"), Err(WeakSecret::Short(15)));
        assert_eq!(check(&"\0".repeat(32)), Err(WeakSecret::Pattern));
        assert_eq!(check(&"aB3$".repeat(8)), Err(WeakSecret::Pattern));
        assert_eq!(check("secretsecretsecret"), Err(WeakSecret::Pattern));
        assert_eq!(check("0123456789abcdef"), Err(WeakSecret::Pattern));
        assert_eq!(check("abcdefghijklmnopqrstuvwxyz"), Err(WeakSecret::Pattern));
        assert_eq!(check("Password12345678"), Err(WeakSecret::Word));
        assert_eq!(check("cisco-secret-password"), Err(WeakSecret::Word));
    }

    #[test]
    fn random_secrets_pass() {
        assert_eq!(check("f3a90c1de27b4856"), Ok(()));
        assert_eq!(check("9b1d0c7aa3e54f6288d5e1c0437fb962\n"), Ok(()));
        assert_eq!(check("cisco-9b1d0c7aa3e54f6288d5"), Ok(()), "a word beside enough else");
        assert_eq!(check_secret(&Secret::new((0..32u8).map(|i| i.wrapping_mul(73) ^ 0x5a).collect())), Ok(()));
    }

    /// Computed with Python's `hmac` by RFC 5869 steps over the same label.
    #[test]
    fn the_key_is_hkdf_with_the_label() {
        let key = channel_key(&Secret::new(b"f3a90c1de27b4856".to_vec())).unwrap();
        assert_eq!(*key, hex_literal::hex!("52d499cc36efc5a8478f28fa9a44a229a8df41389adac38c7cd7801562eeac7b"));
    }
}
