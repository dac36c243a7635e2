//! PEM files (RFC 7468).

use super::PkiError;
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

/// Kind and content of a section.
type Section = (SectionKind, Zeroizing<Vec<u8>>);

/// Every section of these kinds, in order. Text between sections is skipped, and so are other sections.
pub(super) fn sections(pem: &[u8], kinds: &[SectionKind]) -> Result<Vec<Section>, PkiError> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        // The library's text may quote a line of the file, which may be part of a key.
        let (kind, der) = section.map_err(|e| match e {
            rustls_pki_types::pem::Error::MissingSectionEnd { .. } => PkiError::Pem("a section has no end".into()),
            rustls_pki_types::pem::Error::IllegalSectionStart { .. } => PkiError::Pem("a BEGIN line is malformed".into()),
            rustls_pki_types::pem::Error::Base64Decode(_) => PkiError::Pem("a section is not base64".into()),
            _ => PkiError::Pem("it cannot be read".into()),
        })?;
        let der = Zeroizing::new(der);
        if kinds.contains(&kind) {
            found.push((kind, der));
        }
    }
    Ok(found)
}

/// The certificates of a file, in order, DER; at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, PkiError> {
    let found: Vec<_> = sections(pem, &[SectionKind::Certificate])?.into_iter().map(|(_, der)| der.to_vec()).collect();
    if found.is_empty() {
        return Err(PkiError::Missing { what: "CERTIFICATE", command: "x509" });
    }
    Ok(found)
}

/// The one private key of a file.
pub(super) fn private_key(pem: &[u8]) -> Result<Section, PkiError> {
    let has = |text: &[u8]| pem.windows(text.len()).any(|w| w == text);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(PkiError::KeyEncrypted);
    }
    let mut keys = sections(pem, &[SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey])?;
    match (keys.pop(), keys.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(PkiError::Missing { what: "PRIVATE KEY", command: "pkey" }),
        (Some(_), more) => Err(PkiError::KeyCount(more + 1)),
    }
}
