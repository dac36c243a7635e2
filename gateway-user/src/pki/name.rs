//! Distinguished names.

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{BmpString, Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::{Any, Decode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// Two names in DER are the same: byte for byte, or after folding case and white space of their strings (RFC 5280 7.1 by way of
/// RFC 4518, without its tables for exotic characters: those must be equal).
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Ok(a), Ok(b)) = (RdnSequence::from_der(a), RdnSequence::from_der(b)) else { return false };
    a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same_set(a, b))
}

/// The parts of one level have no order. Every part of one side must find its own on the other.
fn same_set(a: &RelativeDistinguishedName, b: &RelativeDistinguishedName) -> bool {
    let mut free: Vec<&AttributeTypeAndValue> = b.iter().collect();
    let found = a.iter().all(|part| {
        let at = free.iter().position(|other| part.oid == other.oid && same_value(&part.value, &other.value));
        at.is_some_and(|at| {
            free.swap_remove(at);
            true
        })
    });
    found && free.is_empty()
}

fn same_value(a: &Any, b: &Any) -> bool {
    a == b || matches!((folded(a), folded(b)), (Some(a), Some(b)) if a == b)
}

/// The text of a string type in lower case, outer white space removed, inner runs of it made one space.
fn folded(value: &Any) -> Option<String> {
    let text: String = match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str().to_owned(),
        Tag::BmpString => value.decode_as::<BmpString>().ok()?.to_string(),
        _ => return None,
    };
    Some(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
}

/// True for a name without any part.
pub(super) fn is_empty(der: &[u8]) -> bool {
    RdnSequence::from_der(der).is_ok_and(|name| name.is_empty())
}

/// The name as text (RFC 4514), safe for a log line; `None` for bytes that are no name.
pub(super) fn text(der: &[u8]) -> Option<String> {
    let name = RdnSequence::from_der(der).ok()?.to_string();
    Some(name.chars().flat_map(|c| if c.is_control() { c.escape_unicode().collect() } else { vec![c] }).collect())
}
