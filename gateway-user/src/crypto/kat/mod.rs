//! Known answers at start-up: an algorithm that fails here must not be offered to any peer.

mod cipher;
mod group;
mod mac;

use super::{CipherAlg, DhGroup, HashAlg, IntegAlg, PrfAlg};
use std::sync::OnceLock;

/// What passed its known answer. Nothing else may be offered to a peer or accepted from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    hashes: Vec<HashAlg>,
    hmacs: Vec<HashAlg>,
    ciphers: Vec<CipherAlg>,
    prfs: Vec<PrfAlg>,
    integs: Vec<IntegAlg>,
    groups: Vec<DhGroup>,
}

/// The known answers of this process: run at the first call, which takes some tens of milliseconds, and remembered.
#[must_use]
pub fn passed() -> &'static Passed {
    static PASSED: OnceLock<Passed> = OnceLock::new();
    PASSED.get_or_init(Passed::run)
}

/// Every algorithm's name ([`HashAlg::name`], `hmac-` and that name, [`CipherAlg::name`], [`PrfAlg::name`], [`IntegAlg::name`],
/// [`DhGroup::name`]) and whether it passed.
#[must_use]
pub fn self_test() -> Vec<(&'static str, bool)> {
    passed().report()
}

impl Passed {
    fn run() -> Self {
        Self {
            hashes: HashAlg::ALL.into_iter().filter(|alg| mac::hash_passes(*alg)).collect(),
            hmacs: HashAlg::ALL.into_iter().filter(|alg| mac::hmac_passes(*alg)).collect(),
            ciphers: CipherAlg::every().filter(|alg| cipher::passes(*alg)).collect(),
            prfs: PrfAlg::ALL.into_iter().filter(|alg| mac::prf_passes(*alg)).collect(),
            integs: IntegAlg::ALL.into_iter().filter(|alg| mac::integ_passes(*alg)).collect(),
            groups: DhGroup::ALL.into_iter().filter(|group| group::passes(*group)).collect(),
        }
    }

    /// True when the hash and its HMAC may be used.
    #[must_use]
    pub fn hash(&self, alg: HashAlg) -> bool {
        self.hashes.contains(&alg) && self.hmacs.contains(&alg)
    }

    /// True when the cipher may be used. [`CipherAlg::Null`] has nothing to test.
    #[must_use]
    pub fn cipher(&self, alg: CipherAlg) -> bool {
        alg == CipherAlg::Null || self.ciphers.contains(&alg)
    }

    /// True when the pseudorandom function may be used.
    #[must_use]
    pub fn prf(&self, alg: PrfAlg) -> bool {
        self.prfs.contains(&alg)
    }

    /// True when the integrity algorithm may be used.
    #[must_use]
    pub fn integ(&self, alg: IntegAlg) -> bool {
        self.integs.contains(&alg)
    }

    /// True when the group or key encapsulation may be used.
    #[must_use]
    pub fn group(&self, group: DhGroup) -> bool {
        self.groups.contains(&group)
    }

    fn report(&self) -> Vec<(&'static str, bool)> {
        let mut results = Vec::new();
        for alg in HashAlg::ALL {
            results.push((alg.name(), self.hashes.contains(&alg)));
            results.push((mac::hmac_name(alg), self.hmacs.contains(&alg)));
        }
        results.extend(CipherAlg::every().map(|alg| (alg.name(), self.cipher(alg))));
        results.extend(PrfAlg::ALL.map(|alg| (alg.name(), self.prf(alg))));
        results.extend(IntegAlg::ALL.map(|alg| (alg.name(), self.integ(alg))));
        results.extend(DhGroup::ALL.map(|group| (group.name(), self.group(group))));
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_passes_its_own_start_test() {
        let results = self_test();
        assert_eq!(results.len(), 5 + 5 + 27 + 7 + 7 + 13);
        let failed: Vec<_> = results.iter().filter(|(_, passed)| !passed).collect();
        assert!(failed.is_empty(), "{failed:?}");
        let mut names: Vec<_> = results.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), results.len(), "a name stands for one algorithm");
        assert!(HashAlg::ALL.into_iter().all(|alg| passed().hash(alg)));
        assert!(passed().cipher(CipherAlg::Null));
    }

    #[test]
    fn what_failed_is_reported_and_not_allowed() {
        let mut some = passed().clone();
        some.hmacs.retain(|alg| *alg != HashAlg::Md5);
        some.ciphers.retain(|alg| *alg != CipherAlg::ChaCha20Poly1305);
        some.prfs.retain(|alg| *alg != PrfAlg::AesXcbc);
        some.integs.retain(|alg| *alg != IntegAlg::AesCmac);
        some.groups.retain(|group| *group != DhGroup::MlKem768);
        assert!(!some.hash(HashAlg::Md5) && some.hash(HashAlg::Sha1));
        assert!(!some.cipher(CipherAlg::ChaCha20Poly1305) && some.cipher(CipherAlg::Aes128));
        assert!(!some.prf(PrfAlg::AesXcbc) && some.prf(PrfAlg::AesCmac));
        assert!(!some.integ(IntegAlg::AesCmac) && some.integ(IntegAlg::AesXcbc));
        assert!(!some.group(DhGroup::MlKem768) && some.group(DhGroup::X25519));
        let mut failed: Vec<_> = some.report().into_iter().filter(|(_, passed)| !passed).map(|(name, _)| name).collect();
        failed.sort_unstable();
        assert_eq!(failed, ["aes-cmac-96", "chacha20poly1305", "hmac-md5", "mlkem768", "prf-aes128-xcbc"]);
    }
}
