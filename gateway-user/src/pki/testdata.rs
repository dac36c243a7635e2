//! Certificates and keys for tests, here and in the engines: `testdata/make.sh` makes them.

use super::{Credential, Trust};

/// 2026-06-01 00:00:00 UTC: every certificate that is good is good then.
pub(crate) const NOW: u64 = 1_780_272_000;

const BUNDLE: &str = include_str!("testdata/bundle.pem");

/// One part of the bundle, as `rsa.crt`.
pub(crate) fn part(name: &str) -> &'static [u8] {
    let start = BUNDLE.find(&format!("\n@ {name}\n")).unwrap_or_else(|| panic!("no {name}"));
    let rest = &BUNDLE[start + 1..];
    &rest.as_bytes()[..rest[1..].find("\n@ ").map_or(rest.len(), |n| n + 1)]
}

/// Parts one after the other.
pub(crate) fn parts(names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| part(name).iter().copied().chain(*b"\n")).collect()
}

/// The certificates of these parts, DER.
pub(crate) fn chain(names: &[&str]) -> Vec<Vec<u8>> {
    super::pem::certificates(&parts(names)).unwrap()
}

/// Certificate and key of the gateway: `ecdsa`, `p384`, `p521`, `ed25519`, `rsa`; or `inter0leaf` with its issuer in the chain.
pub(crate) fn credential(name: &str) -> Credential {
    let own = format!("{name}.crt");
    let chain = if name == "inter0leaf" { parts(&[&own, "inter0.crt"]) } else { parts(&[&own]) };
    Credential::from_pem(&chain, part(&format!("{name}.key"))).unwrap()
}

impl Credential {
    /// The same key and certificate under a name that may not stand in it.
    pub(crate) fn pretending(mut self, name: crate::id::Identity) -> Self {
        self.rename(name);
        self
    }
}

/// Trust in the root of all of them, without revocation lists.
pub(crate) fn trust() -> Trust {
    Trust::from_pem(part("root.crt"), b"").unwrap()
}
