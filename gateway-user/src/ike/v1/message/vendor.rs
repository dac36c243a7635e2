//! Vendor IDs: what a peer can do beyond the base protocol.

use super::payload::{Chain, PayloadKind, Payloads};

/// Dead peer detection (RFC 3706 5.1), version 1.0.
pub const VENDOR_DPD: [u8; 16] = [0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00];

/// True for the DPD vendor ID of any minor version (the last byte).
pub fn is_dpd_vendor(body: &[u8]) -> bool {
    body.len() == VENDOR_DPD.len() && body[..15] == VENDOR_DPD[..15]
}

/// Cisco's fragmentation: MD5 of FRAGMENTATION and the capability bits (here: of identity protection and quick mode).
pub const VENDOR_FRAGMENTATION: [u8; 20] =
    [0x40, 0x48, 0xb7, 0xd5, 0x6e, 0xbc, 0xe8, 0x85, 0x25, 0xe7, 0xde, 0x7f, 0x00, 0xd6, 0xc2, 0xd3, 0x80, 0, 0, 0];

/// True for the fragmentation vendor ID, with capability bits that include ours or without any.
pub fn is_fragmentation_vendor(body: &[u8]) -> bool {
    match body.strip_prefix(&VENDOR_FRAGMENTATION[..16]) {
        Some([]) => true,
        Some([bits, _, _, _]) => bits & 0x80 != 0,
        _ => false,
    }
}

/// Which text of NAT traversal is spoken; later ones are preferred.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NatDialect {
    /// draft-ietf-ipsec-nat-t-ike-02.
    Draft02,
    /// The same with the line feed that one early implementation hashed along.
    Draft02Line,
    /// draft-ietf-ipsec-nat-t-ike-03.
    Draft03,
    /// RFC 3947.
    Rfc,
}

impl NatDialect {
    /// Every dialect, preferred first.
    pub const ALL: [Self; 4] = [Self::Rfc, Self::Draft03, Self::Draft02Line, Self::Draft02];

    /// Its vendor ID: MD5 of its name.
    pub const fn vendor(self) -> [u8; 16] {
        match self {
            Self::Rfc => [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f],
            Self::Draft03 => [0x7d, 0x94, 0x19, 0xa6, 0x53, 0x10, 0xca, 0x6f, 0x2c, 0x17, 0x9d, 0x92, 0x15, 0x52, 0x9d, 0x56],
            Self::Draft02Line => [0x90, 0xcb, 0x80, 0x91, 0x3e, 0xbb, 0x69, 0x6e, 0x08, 0x63, 0x81, 0xb5, 0xec, 0x42, 0x7b, 0x1f],
            Self::Draft02 => [0xcd, 0x60, 0x46, 0x43, 0x35, 0xdf, 0x21, 0xf8, 0x7c, 0xfd, 0xb2, 0xfc, 0x68, 0xb6, 0xa4, 0x48],
        }
    }

    /// Payload of an address hash.
    pub const fn discovery(self) -> PayloadKind {
        match self {
            Self::Rfc => PayloadKind::NatDiscovery,
            Self::Draft03 | Self::Draft02Line | Self::Draft02 => PayloadKind::NatDiscoveryDraft,
        }
    }

    /// Payload of an original address.
    pub const fn original(self) -> PayloadKind {
        match self {
            Self::Rfc => PayloadKind::NatOriginal,
            Self::Draft03 | Self::Draft02Line | Self::Draft02 => PayloadKind::NatOriginalDraft,
        }
    }
}

/// What the vendor IDs of a peer announce.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Vendors {
    /// Dead peer detection (RFC 3706).
    pub dpd: bool,
    /// Messages in pieces.
    pub fragmentation: bool,
    /// NAT traversal: the preferred dialect of those named.
    pub nat: Option<NatDialect>,
}

impl Vendors {
    /// Reads every vendor ID of a message; unknown ones say nothing.
    pub fn read(payloads: &Payloads<'_>) -> Self {
        let mut found = Self::default();
        for body in payloads.all(PayloadKind::Vendor) {
            found.dpd |= is_dpd_vendor(body);
            found.fragmentation |= is_fragmentation_vendor(body);
            found.nat = found.nat.max(NatDialect::ALL.into_iter().find(|d| d.vendor() == body));
        }
        found
    }

    /// Everything we can do, as the first message of an exchange announces it.
    pub fn announce(chain: &mut Chain, nat: bool) {
        chain.push(PayloadKind::Vendor, &VENDOR_DPD).push(PayloadKind::Vendor, &VENDOR_FRAGMENTATION);
        for dialect in NatDialect::ALL.into_iter().filter(|_| nat) {
            chain.push(PayloadKind::Vendor, &dialect.vendor());
        }
    }

    /// Our part of what the peer announced, as the answer to its first message has it: never longer than what was asked.
    pub fn answer(self, chain: &mut Chain) {
        chain.push(PayloadKind::Vendor, &VENDOR_DPD);
        if self.fragmentation {
            chain.push(PayloadKind::Vendor, &VENDOR_FRAGMENTATION);
        }
        if let Some(dialect) = self.nat {
            chain.push(PayloadKind::Vendor, &dialect.vendor());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::HashAlg;

    #[test]
    fn vendor_ids_are_the_digests_of_their_names() {
        let names: [&[u8]; 4] =
            [b"RFC 3947", b"draft-ietf-ipsec-nat-t-ike-03", b"draft-ietf-ipsec-nat-t-ike-02\n", b"draft-ietf-ipsec-nat-t-ike-02"];
        for (dialect, name) in NatDialect::ALL.into_iter().zip(names) {
            assert_eq!(dialect.vendor()[..], HashAlg::Md5.digest(&[name]));
        }
    }

    #[test]
    fn the_best_dialect_counts_and_strangers_say_nothing() {
        let mut c = Chain::new();
        c.push(PayloadKind::Vendor, &NatDialect::Draft02.vendor()).push(PayloadKind::Vendor, b"someone's extension");
        c.push(PayloadKind::Vendor, &NatDialect::Rfc.vendor()).push(PayloadKind::Vendor, &NatDialect::Draft03.vendor());
        let p = Payloads::decode(c.first(), c.bytes()).unwrap();
        assert_eq!(Vendors::read(&p), Vendors { dpd: false, fragmentation: false, nat: Some(NatDialect::Rfc) });
        let mut all = Chain::new();
        Vendors::announce(&mut all, true);
        let p = Payloads::decode(all.first(), all.bytes()).unwrap();
        assert_eq!(Vendors::read(&p), Vendors { dpd: true, fragmentation: true, nat: Some(NatDialect::Rfc) });
    }

    #[test]
    fn fragmentation_with_and_without_capability_bits() {
        assert_eq!(VENDOR_FRAGMENTATION[..16], HashAlg::Md5.digest(&[b"FRAGMENTATION"]));
        let with = |bits: &[u8]| [&VENDOR_FRAGMENTATION[..16], bits].concat();
        assert!(is_fragmentation_vendor(&VENDOR_FRAGMENTATION) && is_fragmentation_vendor(&with(&[])));
        assert!(is_fragmentation_vendor(&with(&[0xc0, 0, 0, 0])));
        assert!(!is_fragmentation_vendor(&with(&[0x40, 0, 0, 0])) && !is_fragmentation_vendor(&with(&[0x80])));
    }

    #[test]
    fn dpd_of_another_minor_version_is_dpd() {
        let mut other = VENDOR_DPD;
        other[15] = 9;
        assert!(is_dpd_vendor(&VENDOR_DPD) && is_dpd_vendor(&other) && !is_dpd_vendor(&VENDOR_DPD[..15]));
    }
}
