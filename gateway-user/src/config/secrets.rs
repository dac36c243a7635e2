//! Secrets of the manifest: from files or, with a warning, inline; short and default ones refused.

use super::decode::Word;
use super::report::{KeyPath, Report};
use crate::crypto::Secret;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// A secret file as it was read.
pub(super) struct SecretFile {
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// Permission bits, if everybody may read or write it.
    pub(super) open_mode: Option<u32>,
}

/// Reads a secret file.
///
/// The number is the largest size in bytes that is taken.
pub(super) type Reader<'a> = dyn FnMut(&Path, u64) -> io::Result<SecretFile> + 'a;

/// Where secrets come from.
pub(super) struct Secrets<'a> {
    /// Folder that relative names start from: the manifest's.
    pub(super) base: PathBuf,
    /// Reads a file.
    pub(super) read: &'a mut Reader<'a>,
}

/// Largest secret file, bytes: more than the longest secret, so that the check can say so.
const SECRET_FILE_MAX: u64 = 4096;
/// Longest secret, bytes.
const SECRET_MAX: usize = 1024;
/// Shortest SSP secret, bytes.
const SSP_MIN: usize = 16;
/// Below this a pre-shared key is refused unless `allow_weak` is set, bytes.
const PSK_MIN: usize = 8;
/// Below this a pre-shared key is warned of, bytes.
const PSK_GOOD: usize = 16;
/// Below this a post-quantum pre-shared key is warned of, bytes.
const PPK_GOOD: usize = 32;
/// Words that every guesser tries first.
const DEFAULTS: [&str; 15] = [
    "cisco",
    "cisco123",
    "secret",
    "password",
    "passw0rd",
    "changeme",
    "default",
    "admin",
    "test",
    "testing",
    "example",
    "letmein",
    "presharedkey",
    "12345678",
    "1234567890",
];

const MAKE: &str = "make one with `openssl rand -base64 32 > FILE`";

impl Secrets<'_> {
    /// The bytes of the file that `word` names; `secret`: with a warning if everybody may read it.
    fn read(&mut self, word: &Word, max: u64, secret: bool, cure: &str, report: &mut Report) -> Option<Vec<u8>> {
        let path = self.base.join(&word.text);
        match (self.read)(&path, max) {
            Ok(file) => {
                if let Some(mode) = file.open_mode.filter(|_| secret) {
                    let cause = format!("{} is open to everybody (mode {mode:03o})", path.display());
                    report.warn(&word.path, cause, "run `chmod 600` on it");
                }
                Some(file.bytes)
            }
            Err(e) => {
                report.error(&word.path, format!("cannot read {}: {}", path.display(), reason(&e)), cure);
                None
            }
        }
    }

    /// A file that is no secret.
    pub(super) fn file(&mut self, word: &Word, max: u64, report: &mut Report) -> Option<Vec<u8>> {
        self.read(word, max, false, "name an existing file; a relative name starts at the manifest's folder", report)
    }

    /// A private key.
    pub(super) fn key_file(&mut self, word: &Word, max: u64, report: &mut Report) -> Option<Secret> {
        self.read(word, max, true, "name an existing file; a relative name starts at the manifest's folder", report).map(Secret::new)
    }

    /// The secret of the item at `owner`, with the place to complain about.
    fn load(&mut self, owner: &KeyPath, file: Option<&Word>, inline: Option<&Word>, report: &mut Report) -> Option<(Secret, KeyPath)> {
        match (file, inline) {
            (Some(_), Some(w)) => {
                report.error_key(&w.path, "both `secret` and `secret_file` are given", "keep `secret_file`");
                None
            }
            (None, None) => {
                report.error_key(owner, "`secret_file` is missing", format!("name a file that holds the secret; {MAKE}"));
                None
            }
            (None, Some(w)) => {
                report.warn(&w.path, "the secret stands in the manifest", "move it to a file of mode 600 and write `secret_file: FILE`");
                Some((Secret::new(w.text.clone().into_bytes()), w.path.clone()))
            }
            (Some(w), None) => {
                let file = self.read(w, SECRET_FILE_MAX, true, MAKE, report)?;
                Some((trimmed(file), w.path.clone()))
            }
        }
        .and_then(|(secret, at)| {
            if secret.len() > SECRET_MAX {
                report.error(&at, format!("the secret has {} bytes", secret.len()), format!("use at most {SECRET_MAX}"));
                return None;
            }
            Some((secret, at))
        })
    }

    /// The secret of an SSP group.
    pub(super) fn ssp(&mut self, owner: &KeyPath, file: Option<&Word>, inline: Option<&Word>, report: &mut Report) -> Option<Secret> {
        let (secret, at) = self.load(owner, file, inline, report)?;
        if secret.len() < SSP_MIN {
            report.error(&at, format!("the secret has {} bytes, {SSP_MIN} are needed", secret.len()), MAKE);
            return None;
        }
        if is_default(secret.expose()) {
            report.error(&at, "the secret is one character repeated, or a default word", MAKE);
            return None;
        }
        // What a session would refuse is refused here, before anything runs.
        if let Err(weak) = crate::ssp::check_secret(&secret) {
            let text = weak.to_string();
            report.error(&at, text.split(';').next().unwrap_or_default().to_owned(), MAKE);
            return None;
        }
        Some(secret)
    }

    /// A post-quantum pre-shared key (RFC 8784).
    pub(super) fn ppk(&mut self, owner: &KeyPath, file: Option<&Word>, inline: Option<&Word>, report: &mut Report) -> Option<Secret> {
        let (secret, at) = self.load(owner, file, inline, report)?;
        if secret.len() < SSP_MIN || is_default(secret.expose()) {
            report.error(&at, format!("a post-quantum key of {} bytes protects nothing", secret.len()), MAKE);
            return None;
        }
        if secret.len() < PPK_GOOD {
            report.warn(
                &at,
                format!("the post-quantum key has {} bytes", secret.len()),
                format!("use {PPK_GOOD} or more (RFC 8784 6); {MAKE}"),
            );
        }
        Some(secret)
    }

    /// The pre-shared key of a peer.
    pub(super) fn psk(
        &mut self,
        owner: &KeyPath,
        file: Option<&Word>,
        inline: Option<&Word>,
        allow_weak: bool,
        report: &mut Report,
    ) -> Option<Secret> {
        let (secret, at) = self.load(owner, file, inline, report)?;
        if secret.is_empty() {
            report.error(&at, "the key is empty", MAKE);
            return None;
        }
        let weak = if is_default(secret.expose()) {
            Some("the key is a default word".to_owned())
        } else if secret.len() < PSK_MIN {
            Some(format!("the key has {} bytes", secret.len()))
        } else {
            None
        };
        match weak {
            Some(why) if !allow_weak => {
                report.error(
                    &at,
                    format!("{why}: whoever poses as the peer once can guess it"),
                    format!("{MAKE}, or add `allow_weak: true`"),
                );
                None
            }
            Some(why) => {
                report.warn(&at, format!("{why}: whoever poses as the peer once can guess it"), MAKE);
                Some(secret)
            }
            None => {
                if secret.len() < PSK_GOOD {
                    report.warn(
                        &at,
                        format!("the key has {} bytes: whoever poses as the peer once may guess it", secret.len()),
                        format!("use {PSK_GOOD} or more; {MAKE}"),
                    );
                }
                Some(secret)
            }
        }
    }
}

/// Without the line end that editors add.
fn trimmed(mut bytes: Vec<u8>) -> Secret {
    let keep = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |n| n + 1);
    bytes[keep..].zeroize();
    bytes.truncate(keep);
    Secret::new(bytes)
}

fn is_default(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| Some(b) == bytes.first()) || DEFAULTS.iter().any(|d| bytes.eq_ignore_ascii_case(d.as_bytes()))
}

/// The system's reason without its number, so that it reads the same everywhere.
fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_not_part_of_a_secret() {
        assert_eq!(trimmed(b"abc\r\n\n".to_vec()).expose(), b"abc");
        assert_eq!(trimmed(b" a\nb ".to_vec()).expose(), b" a\nb ");
        assert!(trimmed(b"\n".to_vec()).is_empty());
    }

    #[test]
    fn default_words() {
        assert!(is_default(b"Cisco"));
        assert!(is_default(b"aaaaaaaaaaaaaaaaaaaa"));
        assert!(!is_default(b"cisco-but-longer"));
    }
}
