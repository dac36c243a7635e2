//! Kernel settings under `/proc/sys/net`, of the calling thread's network namespace.

use std::fs;
use std::io;

/// What a value has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// Exactly this.
    Exactly(u32),
    /// At least this.
    AtLeast(u32),
    /// Reverse-path filter: strict (1) becomes loose (2), the others stay.
    NotStrict,
}

impl Want {
    /// The value to write, or `None` when `held` will do.
    fn change(self, held: u32) -> Option<u32> {
        match self {
            Self::Exactly(v) => (held != v).then_some(v),
            Self::AtLeast(v) => (held < v).then_some(v),
            Self::NotStrict => (held == 1).then_some(2),
        }
    }
}

/// Brings `/proc/sys/net/{key}` to what is wanted; writes only when it has to (a write to `ip_forward`, even of the same
/// value, has side effects). `key` uses slashes: device names may have dots.
pub(super) fn ensure(key: &str, want: Want) -> io::Result<()> {
    let path = format!("/proc/sys/net/{key}");
    let text = fs::read_to_string(&path)?;
    let held = text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not a number")))?;
    match want.change(held) {
        Some(value) => fs::write(&path, value.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_only_when_they_must() {
        assert_eq!(Want::Exactly(1).change(1), None);
        assert_eq!(Want::Exactly(1).change(2), Some(1));
        assert_eq!(Want::AtLeast(1).change(2), None);
        assert_eq!(Want::AtLeast(1).change(0), Some(1));
        assert_eq!([0, 1, 2].map(|v| Want::NotStrict.change(v)), [None, Some(2), None]);
    }
}
