//! Why a message was refused.

use crate::wire::DecodeError;

/// Why the payloads of a message were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A field is cut, too long, or has a value that is never allowed.
    Form(DecodeError),
    /// A payload of a type we do not know has its critical bit set: the answer is UNSUPPORTED_CRITICAL_PAYLOAD with this number.
    Critical(u8),
    /// A payload type of version 1 (1 to 32).
    Version1(u8),
    /// More payloads than [`super::PAYLOADS_MAX`].
    TooMany,
    /// A payload that may appear once appears again.
    Repeated(u8),
    /// An Encrypted payload where none may be: inside another, after others, or not last.
    Misplaced(u8),
    /// The message is not in an Encrypted payload.
    Unsealed,
    /// Integrity check, decryption or padding failed. One value for all, so that nobody can tell them apart.
    Integrity,
}

impl Fault {
    /// Stable counter label.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Form(DecodeError::Truncated { .. }) => "payload_truncated",
            Self::Form(DecodeError::Length { .. }) => "payload_length",
            Self::Form(DecodeError::Value { .. }) => "payload_value",
            Self::Form(DecodeError::Trailing { .. }) => "payload_trailing",
            Self::Critical(_) => "payload_critical",
            Self::Version1(_) => "payload_of_version_1",
            Self::TooMany => "payload_count",
            Self::Repeated(_) => "payload_repeated",
            Self::Misplaced(_) => "payload_misplaced",
            Self::Unsealed => "not_encrypted",
            Self::Integrity => "integrity",
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(e: DecodeError) -> Self {
        Self::Form(e)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Form(e) => write!(f, "{e}"),
            Self::Critical(n) => write!(f, "unknown payload {n} is critical"),
            Self::Version1(n) => write!(f, "payload {n} belongs to version 1"),
            Self::TooMany => f.write_str("too many payloads"),
            Self::Repeated(n) => write!(f, "payload {n} appears twice"),
            Self::Misplaced(n) => write!(f, "payload {n} in a wrong place"),
            Self::Unsealed => f.write_str("message is not encrypted"),
            Self::Integrity => f.write_str("message is not authentic"),
        }
    }
}
