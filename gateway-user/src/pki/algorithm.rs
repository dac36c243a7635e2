//! Signature algorithms and their names on the wire.

use crate::crypto::HashAlg;
use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Tag, Tagged};
use hex_literal::hex;
use rsa::pkcs1::RsaPssParamsOwned;
use x509_cert::der;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// How an ECDSA signature is written. The other algorithms have one form only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EcdsaEncoding {
    /// ECDSA-Sig-Value in DER: method 14 (RFC 7427 3), and certificates.
    Der,
    /// r and s, each as long as the order, one after the other: methods 9, 10, 11 (RFC 4754 7).
    Fixed,
}

/// Signature algorithm of an AUTH payload (RFC 7296 2.15, RFC 7427, RFC 8420) or of an IKEv1 SIG payload.
///
/// With ECDSA the curve is the key's: the name on the wire gives the hash only. [`Self::legacy_method`] fixes both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum SignatureAlg {
    /// RSASSA-PKCS1-v1_5 with SHA-1: method 1 of IKEv2 only. Method 14 must not use it (RFC 8247 3.2).
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256 in both places and 32 bytes of salt.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384 in both places and 48 bytes of salt.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512 in both places and 64 bytes of salt.
    RsaPssSha512,
    /// ECDSA with SHA-256; with P-256 it is method 9.
    EcdsaSha256,
    /// ECDSA with SHA-384; with P-384 it is method 10.
    EcdsaSha384,
    /// ECDSA with SHA-512; with P-521 it is method 11.
    EcdsaSha512,
    /// Ed25519 over the message itself (RFC 8420).
    Ed25519,
}

/// Hash of a signature algorithm that has one, with the length of the PSS salt.
const SHA2: [(ObjectIdentifier, HashAlg); 3] = [
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), HashAlg::Sha256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), HashAlg::Sha384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), HashAlg::Sha512),
];
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_PKCS1: [(ObjectIdentifier, SignatureAlg); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), SignatureAlg::RsaPkcs1Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), SignatureAlg::RsaPkcs1Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), SignatureAlg::RsaPkcs1Sha512),
];
const WITHOUT_PARAMETERS: [(ObjectIdentifier, SignatureAlg); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), SignatureAlg::EcdsaSha256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), SignatureAlg::EcdsaSha384),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), SignatureAlg::EcdsaSha512),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), SignatureAlg::Ed25519),
];

impl SignatureAlg {
    /// Every algorithm.
    pub const ALL: [Self; 11] = [
        Self::RsaPkcs1Sha1,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Ed25519,
    ];

    /// Identifiers for SIGNATURE_HASH_ALGORITHMS (RFC 7427 4): every hash we take in method 14, SHA-1 left out (RFC 8247 3.2).
    pub const HASH_IDS: [u16; 4] = [2, 3, 4, 5];

    /// Reads the AlgorithmIdentifier of an AUTH payload with method 14, DER. `None` for what we do not take: SHA-1, unknown
    /// algorithms, parameters other than those of RFC 7427 appendix A (absent NULLs are taken as well), trailing bytes.
    pub fn from_algorithm_identifier(der: &[u8]) -> Option<Self> {
        let id = AlgorithmIdentifierOwned::from_der(der).ok()?;
        let find = |list: &[(ObjectIdentifier, Self)]| list.iter().find(|(oid, _)| *oid == id.oid).map(|(_, alg)| *alg);
        if let Some(alg) = find(&WITHOUT_PARAMETERS) {
            return id.parameters.is_none().then_some(alg);
        }
        if let Some(alg) = find(&RSA_PKCS1) {
            return null_or_absent(id.parameters.as_ref()).then_some(alg);
        }
        if id.oid != RSA_PSS {
            return None;
        }
        let params: RsaPssParamsOwned = id.parameters?.decode_as().ok()?;
        let (_, hash) = SHA2.into_iter().find(|(oid, _)| *oid == params.hash.oid)?;
        let inner = params.mask_gen.parameters?;
        let same = params.mask_gen.oid == MGF1 && inner.oid == params.hash.oid && usize::from(params.salt_len) == hash.len();
        if !same || !null_or_absent(params.hash.parameters.as_ref()) || !null_or_absent(inner.parameters.as_ref()) {
            return None;
        }
        match hash {
            HashAlg::Sha256 => Some(Self::RsaPssSha256),
            HashAlg::Sha384 => Some(Self::RsaPssSha384),
            HashAlg::Sha512 => Some(Self::RsaPssSha512),
            HashAlg::Md5 | HashAlg::Sha1 => None,
        }
    }

    /// The AlgorithmIdentifier in DER (RFC 7427 appendix A, RFC 8420 A).
    pub const fn algorithm_identifier(self) -> &'static [u8] {
        match self {
            Self::RsaPkcs1Sha1 => &hex!("300d06092a864886f70d0101050500"),
            Self::RsaPkcs1Sha256 => &hex!("300d06092a864886f70d01010b0500"),
            Self::RsaPkcs1Sha384 => &hex!("300d06092a864886f70d01010c0500"),
            Self::RsaPkcs1Sha512 => &hex!("300d06092a864886f70d01010d0500"),
            Self::RsaPssSha256 => &hex!(
                "304106092a864886f70d01010a3034a00f300d06096086480165030402010500
                 a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
            ),
            Self::RsaPssSha384 => &hex!(
                "304106092a864886f70d01010a3034a00f300d06096086480165030402020500
                 a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
            ),
            Self::RsaPssSha512 => &hex!(
                "304106092a864886f70d01010a3034a00f300d06096086480165030402030500
                 a11c301a06092a864886f70d010108300d06096086480165030402030500a203020140"
            ),
            Self::EcdsaSha256 => &hex!("300a06082a8648ce3d040302"),
            Self::EcdsaSha384 => &hex!("300a06082a8648ce3d040303"),
            Self::EcdsaSha512 => &hex!("300a06082a8648ce3d040304"),
            Self::Ed25519 => &hex!("300506032b6570"),
        }
    }

    /// Hash, or `None` where the message is signed as it is.
    pub const fn hash(self) -> Option<HashAlg> {
        match self {
            Self::RsaPkcs1Sha1 => Some(HashAlg::Sha1),
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaSha256 => Some(HashAlg::Sha256),
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 | Self::EcdsaSha384 => Some(HashAlg::Sha384),
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 | Self::EcdsaSha512 => Some(HashAlg::Sha512),
            Self::Ed25519 => None,
        }
    }

    /// Number of the hash in SIGNATURE_HASH_ALGORITHMS (RFC 7427 7, RFC 8420 4).
    pub const fn hash_id(self) -> u16 {
        match self.hash() {
            Some(HashAlg::Sha1) => 1,
            Some(HashAlg::Sha256) => 2,
            Some(HashAlg::Sha384) => 3,
            Some(HashAlg::Sha512) => 4,
            // MD5 has no number and no algorithm above uses it.
            Some(HashAlg::Md5) | None => 5,
        }
    }

    /// Method of the AUTH payload without an AlgorithmIdentifier (RFC 7296 3.8, RFC 4754 7), for peers that do not speak RFC 7427.
    pub const fn legacy_method(self) -> Option<u8> {
        match self {
            Self::RsaPkcs1Sha1 => Some(1),
            Self::EcdsaSha256 => Some(9),
            Self::EcdsaSha384 => Some(10),
            Self::EcdsaSha512 => Some(11),
            Self::RsaPkcs1Sha256
            | Self::RsaPkcs1Sha384
            | Self::RsaPkcs1Sha512
            | Self::RsaPssSha256
            | Self::RsaPssSha384
            | Self::RsaPssSha512
            | Self::Ed25519 => None,
        }
    }

    /// The algorithm of such a method.
    pub fn from_legacy_method(method: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.legacy_method() == Some(method))
    }
}

fn null_or_absent(parameters: Option<&Any>) -> bool {
    parameters.is_none_or(|p| p.tag() == Tag::Null && p.value().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identifier_leads_back_to_its_algorithm() {
        for alg in SignatureAlg::ALL {
            let want = (alg != SignatureAlg::RsaPkcs1Sha1).then_some(alg);
            assert_eq!(SignatureAlg::from_algorithm_identifier(alg.algorithm_identifier()), want, "{alg:?}");
        }
    }

    #[test]
    fn sha_1_is_never_taken_by_name() {
        // RFC 7427 A.1.1, A.3.1 (ECDSA with SHA-1), A.4.1 (PSS with the default parameters: SHA-1).
        for der in [&hex!("300d06092a864886f70d0101050500")[..], &hex!("300906072a8648ce3d0401"), &hex!("300d06092a864886f70d01010a3000")] {
            assert_eq!(SignatureAlg::from_algorithm_identifier(der), None);
        }
        assert!(!SignatureAlg::HASH_IDS.contains(&SignatureAlg::RsaPkcs1Sha1.hash_id()));
    }

    #[test]
    fn absent_nulls_are_taken() {
        let pkcs1 = hex!("300b06092a864886f70d01010b");
        assert_eq!(SignatureAlg::from_algorithm_identifier(&pkcs1), Some(SignatureAlg::RsaPkcs1Sha256));
        let pss = hex!(
            "303d06092a864886f70d01010a3030a00d300b0609608648016503040201
             a11a301806092a864886f70d010108300b0609608648016503040201a203020120"
        );
        assert_eq!(SignatureAlg::from_algorithm_identifier(&pss), Some(SignatureAlg::RsaPssSha256));
    }

    #[test]
    fn other_pss_parameters_are_refused() {
        let good = SignatureAlg::RsaPssSha256.algorithm_identifier();
        // Salt of 20 bytes; another hash in the mask; another hash in front; another mask generator.
        for (at, byte) in [(66, 20), (60, 2), (29, 3), (46, 9)] {
            let mut der = good.to_vec();
            assert_ne!(der[at], byte);
            der[at] = byte;
            assert_eq!(SignatureAlg::from_algorithm_identifier(&der), None, "byte {at}");
        }
    }

    #[test]
    fn no_damaged_identifier_is_taken_for_another_algorithm() {
        for alg in SignatureAlg::ALL {
            let der = alg.algorithm_identifier();
            for cut in 0..der.len() {
                assert_eq!(SignatureAlg::from_algorithm_identifier(&der[..cut]), None);
            }
            assert_eq!(SignatureAlg::from_algorithm_identifier(&[der, &[0]].concat()), None, "trailing byte, {alg:?}");
            for at in 0..der.len() {
                for bit in 0..8 {
                    let mut bad = der.to_vec();
                    bad[at] ^= 1 << bit;
                    if let Some(other) = SignatureAlg::from_algorithm_identifier(&bad) {
                        assert_eq!(other.algorithm_identifier(), bad, "bit {bit} of byte {at}, {alg:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn methods_and_hash_numbers_are_those_of_the_registry() {
        let methods: Vec<_> = SignatureAlg::ALL.iter().filter_map(|a| Some((a.legacy_method()?, *a))).collect();
        let want = [
            (1, SignatureAlg::RsaPkcs1Sha1),
            (9, SignatureAlg::EcdsaSha256),
            (10, SignatureAlg::EcdsaSha384),
            (11, SignatureAlg::EcdsaSha512),
        ];
        assert_eq!(methods, want);
        for (method, alg) in want {
            assert_eq!(SignatureAlg::from_legacy_method(method), Some(alg));
        }
        assert_eq!(SignatureAlg::from_legacy_method(2), None);
        assert_eq!(SignatureAlg::from_legacy_method(14), None);
        assert_eq!(SignatureAlg::Ed25519.hash_id(), 5);
    }
}
