//! Whom we believe.

/// Authorities and revocation lists.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust {
    /// Self-signed certificates in DER.
    anchors: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trust({} authorities)", self.anchors.len())
    }
}
