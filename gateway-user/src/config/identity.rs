//! Identities and peers as they are written.

use super::decode::Word;
use super::report::Report;
use super::values;
use crate::id::Identity;
use crate::ike::PeerMatch;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Longest name in an identity, bytes (RFC 1035 2.3.4 for host names; a key id may have any length).
const NAME_MAX: usize = 255;
const FORMS: &str = "write an address, `fqdn:gw.example.org`, `email:vpn@example.org`, `dn:C=DE, O=Example, CN=gw` or `key-id:TEXT`";

/// An identity: an address, `fqdn:`, `user-fqdn:` or `email:`, `dn:`, `key-id:`.
pub(super) fn identity(word: &Word, report: &mut Report) -> Option<Identity> {
    match parse(word.text.trim()) {
        Ok(id) => Some(id),
        Err((cause, cure)) => {
            report.error(&word.path, cause, cure);
            None
        }
    }
}

/// An identity as [`identity`] reads it.
pub fn identity_text(id: &Identity) -> String {
    match id {
        Identity::Address(a) => a.to_string(),
        Identity::Fqdn(name) => format!("fqdn:{name}"),
        Identity::UserFqdn(name) => format!("email:{name}"),
        Identity::DerAsn1Dn(der) => format!("dn:{}", name_text(der).unwrap_or_else(|| hex(der))),
        Identity::KeyId(id) => match std::str::from_utf8(id) {
            Ok(text) if !text.chars().any(char::is_control) => format!("key-id:{text}"),
            Ok(_) | Err(_) => format!("key-id:0x{}", hex(id)),
        },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        // Writing to a String cannot fail.
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Text of a Name in the certificate's order; `None` for one that has more than this file's attributes and strings.
fn name_text(der: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let (mut sets, rest) = element(der, 0x30)?;
    if !rest.is_empty() {
        return None;
    }
    while !sets.is_empty() {
        let (set, after) = element(sets, 0x31)?;
        let (attribute, others) = element(set, 0x30)?;
        let (oid, value) = element(attribute, 0x06)?;
        let (key, ..) = ATTRIBUTES.iter().find(|(_, o, _)| *o == oid)?;
        let kinds = [Text::Utf8, Text::Printable, Text::Ia5];
        let (text, end) = kinds.into_iter().find_map(|kind| element(value, kind as u8))?;
        if !others.is_empty() || !end.is_empty() {
            return None;
        }
        let text = std::str::from_utf8(text).ok().filter(|t| !t.chars().any(char::is_control))?;
        parts.push(format!("{key}={}", text.replace('\\', "\\\\").replace(',', "\\,")));
        sets = after;
    }
    Some(parts.join(", "))
}

/// Value of the element with this tag that `der` begins with, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[first, len], rest) = der.split_first_chunk()?;
    let (len, rest) = match len {
        0..=0x7f => (usize::from(len), rest),
        0x81 => rest.split_first().map(|(n, rest)| (usize::from(*n), rest))?,
        0x82 => rest.split_first_chunk().map(|(n, rest)| (usize::from(u16::from_be_bytes(*n)), rest))?,
        _ => return None,
    };
    (first == tag).then(|| rest.split_at_checked(len)).flatten()
}

fn parse(text: &str) -> Result<Identity, (String, String)> {
    if let Ok(a) = text.parse::<IpAddr>() {
        return Ok(Identity::Address(a));
    }
    let unknown = || (format!("`{text}` is not an identity"), FORMS.to_owned());
    let (kind, value) = text.split_once(':').ok_or_else(unknown)?;
    let value = value.trim();
    if value.is_empty() {
        return Err((format!("nothing stands after `{kind}:`"), FORMS.to_owned()));
    }
    match kind {
        "address" => value.parse().map(Identity::Address).map_err(|_| (format!("`{value}` is not an address"), FORMS.to_owned())),
        "fqdn" if host_name(value) => Ok(Identity::Fqdn(value.to_owned())),
        "fqdn" => Err((format!("`{value}` is not a host name"), "use letters, digits, `-` and `.`, at most 255".to_owned())),
        "user-fqdn" | "email" if mail_name(value) => Ok(Identity::UserFqdn(value.to_owned())),
        "user-fqdn" | "email" => Err((format!("`{value}` is not NAME@HOST"), "write it like `vpn@example.org`".to_owned())),
        "dn" => distinguished_name(value)
            .map(Identity::DerAsn1Dn)
            .map_err(|cause| (cause, "write it as `openssl x509 -noout -subject` shows it: `dn:C=DE, O=Example, CN=gw`".to_owned())),
        "key-id" if value.len() <= NAME_MAX => Ok(Identity::KeyId(value.as_bytes().to_vec())),
        "key-id" => Err((format!("the key id has {} bytes", value.len()), format!("use at most {NAME_MAX}"))),
        _ => Err(unknown()),
    }
}

fn host_name(text: &str) -> bool {
    text.len() <= NAME_MAX
        && text
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
}

fn mail_name(text: &str) -> bool {
    let valid = |user: &str| !user.is_empty() && user.bytes().all(|b| b.is_ascii_graphic() && b != b'@');
    text.len() <= NAME_MAX && text.split_once('@').is_some_and(|(user, host)| valid(user) && host_name(host))
}

/// How the value of an attribute is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Text {
    Utf8 = 0x0c,
    Printable = 0x13,
    Ia5 = 0x16,
}

/// Attributes of a name (RFC 4519, RFC 5280 A.1) with their object identifiers in DER.
const ATTRIBUTES: [(&str, &[u8], Text); 18] = [
    ("C", &[0x55, 4, 6], Text::Printable),
    ("ST", &[0x55, 4, 8], Text::Utf8),
    ("S", &[0x55, 4, 8], Text::Utf8),
    ("L", &[0x55, 4, 7], Text::Utf8),
    ("STREET", &[0x55, 4, 9], Text::Utf8),
    ("O", &[0x55, 4, 10], Text::Utf8),
    ("OU", &[0x55, 4, 11], Text::Utf8),
    ("T", &[0x55, 4, 12], Text::Utf8),
    ("CN", &[0x55, 4, 3], Text::Utf8),
    ("SN", &[0x55, 4, 4], Text::Utf8),
    ("GN", &[0x55, 4, 42], Text::Utf8),
    ("serialNumber", &[0x55, 4, 5], Text::Printable),
    ("dnQualifier", &[0x55, 4, 46], Text::Printable),
    ("DC", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], Text::Ia5),
    ("UID", &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], Text::Utf8),
    ("E", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], Text::Ia5),
    ("emailAddress", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], Text::Ia5),
    ("unstructuredName", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 2], Text::Ia5),
];

/// The DER encoding of a Name whose parts stand in the certificate's order, each in a set of its own.
fn distinguished_name(text: &str) -> Result<Vec<u8>, String> {
    let mut names = Vec::new();
    for part in parts(text)? {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not ATTRIBUTE=VALUE"))?;
        let (key, value) = (key.trim(), value.trim());
        let Some((_, oid, text)) = ATTRIBUTES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(key)) else {
            return Err(format!("`{key}` is not an attribute of a name"));
        };
        if value.is_empty() || value.len() > NAME_MAX {
            return Err(format!("`{key}` has no value, or one of more than {NAME_MAX} bytes"));
        }
        if *text != Text::Utf8 && !value.is_ascii() {
            return Err(format!("`{key}` has a character that it cannot hold"));
        }
        let attribute = [tlv(0x06, oid), tlv(*text as u8, value.as_bytes())].concat();
        names.extend(tlv(0x31, &tlv(0x30, &attribute)));
    }
    Ok(tlv(0x30, &names))
}

/// Splits at commas; a backslash takes the next character as it is.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let mut out = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' => out.push(String::new()),
            '\\' => match (chars.next(), out.last_mut()) {
                (Some(c), Some(part)) => part.push(c),
                (_, _) => return Err("a backslash stands at the end".to_owned()),
            },
            c => out.iter_mut().last().into_iter().for_each(|part| part.push(c)),
        }
    }
    Ok(out)
}

/// One element of DER.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match value.len() {
        n if n < 0x80 => out.push(n as u8),
        n if n < 0x100 => out.extend([0x81, n as u8]),
        n => out.extend([0x82, (n >> 8) as u8, n as u8]),
    }
    out.extend_from_slice(value);
    out
}

/// Peers as `192.0.2.1`, `192.0.2.0/24`, `192.0.2.1 - 192.0.2.9`, or `0.0.0.0` for everybody.
pub(super) fn peers(word: &Word, report: &mut Report) -> Option<PeerMatch> {
    let text = word.text.trim();
    if matches!(text, "0.0.0.0" | "0.0.0.0/0" | "any") {
        return Some(PeerMatch::Any);
    }
    if let Some((from, to)) = text.split_once('-') {
        return match (from.trim().parse::<Ipv4Addr>(), to.trim().parse::<Ipv4Addr>()) {
            (Ok(from), Ok(to)) if from < to => Some(PeerMatch::Range(from.into(), to.into())),
            (Ok(from), Ok(to)) => {
                report.error(&word.path, format!("{to} does not follow {from}"), "write the lower address first");
                None
            }
            (_, _) => {
                report.error(&word.path, format!("`{text}` is not a range of addresses"), "write `192.0.2.1 - 192.0.2.9`");
                None
            }
        };
    }
    let Some((net, prefix)) = text.split_once('/') else {
        return values::address(word, report).map(|a| PeerMatch::Address(a.into()));
    };
    match (net.parse::<Ipv4Addr>(), prefix.parse::<u8>()) {
        (Ok(net), Ok(32)) => Some(PeerMatch::Address(net.into())),
        (Ok(net), Ok(prefix @ 1..=31)) if values::network(net, prefix) == net => Some(PeerMatch::Network(net.into(), prefix)),
        (Ok(net), Ok(prefix @ 1..=31)) => {
            let cure = format!("write {}/{prefix}", values::network(net, prefix));
            report.error(&word.path, format!("{net} has bits beyond its prefix length {prefix}"), cure);
            None
        }
        (_, _) => {
            report.error(&word.path, format!("`{text}` is not ADDRESS/LENGTH"), "write `192.0.2.0/24`");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        assert_eq!(parse("192.0.2.1"), Ok(Identity::Address(IpAddr::from([192, 0, 2, 1]))));
        assert_eq!(parse("2001:db8::1"), Ok(Identity::Address("2001:db8::1".parse().unwrap())));
        assert_eq!(parse("fqdn:gw.example.org"), Ok(Identity::Fqdn("gw.example.org".into())));
        assert_eq!(parse("email: vpn@example.org"), Ok(Identity::UserFqdn("vpn@example.org".into())));
        assert_eq!(parse("user-fqdn:a@b"), Ok(Identity::UserFqdn("a@b".into())));
        assert_eq!(parse("key-id:branch 7"), Ok(Identity::KeyId(b"branch 7".to_vec())));
        for bad in [
            "",
            "gw",
            "fqdn:",
            "fqdn:a..b",
            "fqdn:a b",
            "email:a",
            "email:@b",
            "dn:CN",
            "dn:XX=a",
            "dn:CN=",
            "dn:C=\u{e4}",
            "dn:CN=a\\",
            "x:y",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_the_der_that_openssl_makes() {
        // openssl req -subj "/C=DE/O=Example, Inc/CN=gw" -utf8; the subject of the certificate in hex.
        let want = "3031310b300906035504061302444531153013060355040a0c0c4578616d706c652c20496e63310b300906035504030c026777";
        assert_eq!(hex(&distinguished_name("C=DE, O=Example\\, Inc, CN=gw").unwrap()), want);
        assert_eq!(distinguished_name(&format!("CN={}", "a".repeat(200))).unwrap()[..3], [0x30, 0x81, 0xd6]);
    }

    #[test]
    fn text_of_an_identity_reads_back() {
        for text in [
            "192.0.2.1",
            "fqdn:gw.example.org",
            "email:a@b",
            "key-id:branch 7",
            "dn:C=DE, ST=Bayern, O=Example\\, Inc, CN=g\u{fc}nter\\\\",
            "dn:DC=example, UID=7, E=a@b",
        ] {
            assert_eq!(parse(text).map(|id| identity_text(&id)), Ok(text.to_owned()));
        }
        assert_eq!(identity_text(&Identity::KeyId(vec![0, 255])), "key-id:0x00ff");
        // Names with something else in them, and damaged ones, are given as they are.
        let der = distinguished_name("C=DE, CN=gw").unwrap();
        for n in 0..der.len() {
            assert_eq!(name_text(&der[..n]), None, "{n}");
        }
        assert_eq!(identity_text(&Identity::DerAsn1Dn(vec![0x31, 0])), "dn:3100");
    }
}
