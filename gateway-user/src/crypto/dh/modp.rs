//! Groups over a safe prime with generator 2. The hot loop stays inside `crypto-bigint`: constant time in the exponent's value.

use super::primes;
use crate::crypto::{CryptoError, DhGroup, Secret};
use crate::rng::Random;
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Resize};
use std::sync::OnceLock;
use zeroize::Zeroize;

/// Length of the private exponent in bits: about the larger estimate of RFC 3526 8 (240, 320, 420, 480), rounded up to whole
/// words. More would cost time and add nothing, since the strength of the group is then the limit.
const fn exponent_bits(group: DhGroup) -> usize {
    match group {
        DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536 => 256,
        DhGroup::Modp2048 => 320,
        DhGroup::Modp3072 => 448,
        DhGroup::Modp4096 | DhGroup::Modp6144 | DhGroup::Modp8192 => 512,
        // The others draw a scalar instead.
        DhGroup::Ecp256 | DhGroup::Ecp384 | DhGroup::Ecp521 | DhGroup::X25519 | DhGroup::MlKem768 => 0,
    }
}

/// A private exponent. The top bit is set, so that a weak draw can never leave a tiny exponent.
pub(super) fn exponent(group: DhGroup, rng: &mut dyn Random) -> Secret {
    let mut bytes = vec![0; exponent_bits(group) / 8];
    rng.fill(&mut bytes);
    if let Some(first) = bytes.first_mut() {
        *first |= 0x80;
    }
    Secret::new(bytes)
}

pub(super) fn public(group: DhGroup, exponent: &Secret) -> Result<Vec<u8>, CryptoError> {
    let params = params(group)?;
    let mut result = power(params, BoxedUint::from(2u8).resize(params.bits_precision()), exponent)?;
    let bytes = result.to_be_bytes().into_vec();
    result.zeroize();
    Ok(bytes)
}

pub(super) fn shared(group: DhGroup, exponent: &Secret, peer: &[u8]) -> Result<Secret, CryptoError> {
    let params = params(group)?;
    let peer = BoxedUint::from_be_slice(peer, params.bits_precision()).map_err(|_| CryptoError::PublicInvalid)?;
    let one = BoxedUint::one_with_precision(params.bits_precision());
    let modulus: &BoxedUint = params.modulus().as_ref();
    // 0, 1 and p - 1 make subgroups of one or two elements; p and more are no canonical values (RFC 6989 2.1).
    if peer <= one || peer >= modulus.wrapping_sub(&one) {
        return Err(CryptoError::PublicInvalid);
    }
    let mut result = power(params, peer, exponent)?;
    let mut bytes = result.to_be_bytes();
    result.zeroize();
    let secret = Secret::new(bytes.to_vec());
    bytes.zeroize();
    Ok(secret)
}

fn power(params: &BoxedMontyParams, base: BoxedUint, exponent: &Secret) -> Result<BoxedUint, CryptoError> {
    let bits = u32::try_from(exponent.len() * 8).map_err(|_| CryptoError::Internal)?;
    let mut exponent = BoxedUint::from_be_slice(exponent.expose(), bits).map_err(|_| CryptoError::Internal)?;
    let mut base = BoxedMontyForm::new(base, params);
    let mut result = base.pow_bounded_exp(&exponent, bits);
    let value = result.retrieve();
    exponent.zeroize();
    base.zeroize();
    result.zeroize();
    Ok(value)
}

/// Montgomery constants of the group, computed once.
fn params(group: DhGroup) -> Result<&'static BoxedMontyParams, CryptoError> {
    static TABLE: [OnceLock<Option<BoxedMontyParams>>; 6] = [const { OnceLock::new() }; 6];
    let (slot, hex) = match group {
        DhGroup::Modp768 => (0, primes::MODP_768),
        DhGroup::Modp1024 => (1, primes::MODP_1024),
        DhGroup::Modp1536 => (2, primes::MODP_1536),
        DhGroup::Modp2048 => (3, primes::MODP_2048),
        DhGroup::Modp3072 => (4, primes::MODP_3072),
        DhGroup::Modp4096 => (5, primes::MODP_4096),
        DhGroup::Modp6144
        | DhGroup::Modp8192
        | DhGroup::Ecp256
        | DhGroup::Ecp384
        | DhGroup::Ecp521
        | DhGroup::X25519
        | DhGroup::MlKem768 => return Err(CryptoError::Internal),
    };
    let computed = TABLE[slot].get_or_init(|| {
        let bits = u32::try_from(hex.len() * 4).ok()?;
        let prime = BoxedUint::from_be_hex(hex, bits).into_option()?;
        // The prime is public: variable time is fine.
        Some(BoxedMontyParams::new_vartime(prime.into_odd().into_option()?))
    });
    computed.as_ref().ok_or(CryptoError::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::DhSecret;
    use crate::rng::Seeded;
    use crypto_bigint::{Limb, NonZero};

    /// (group, bits, constant c of RFC 2409 6 and RFC 3526): p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c).
    const MODP: [(DhGroup, u32, u32); 6] = [
        (DhGroup::Modp768, 768, 149_686),
        (DhGroup::Modp1024, 1024, 129_093),
        (DhGroup::Modp1536, 1536, 741_804),
        (DhGroup::Modp2048, 2048, 124_476),
        (DhGroup::Modp3072, 3072, 1_690_314),
        (DhGroup::Modp4096, 4096, 240_904),
    ];

    /// Fractional bits of the fixed-point numbers below: the 4096-bit prime needs 3966, the rest absorbs rounding.
    const FRACTION: u32 = 4096;
    const WIDTH: u32 = FRACTION + 64;

    fn small(v: u32) -> NonZero<Limb> {
        NonZero::new(Limb::from(v)).unwrap()
    }

    /// arctan(1/x) in fixed point, by its series.
    fn arctan_of_inverse(x: u32) -> BoxedUint {
        let one = BoxedUint::one_with_precision(WIDTH).shl_vartime(FRACTION).unwrap();
        let mut term = one.div_rem_limb(small(x)).0;
        let mut sum = term.clone();
        for k in 1.. {
            term = term.div_rem_limb(small(x * x)).0;
            if bool::from(term.is_zero()) {
                break;
            }
            let part = term.div_rem_limb(small(2 * k + 1)).0;
            sum = if k % 2 == 1 { sum.wrapping_sub(&part) } else { sum.wrapping_add(&part) };
        }
        sum
    }

    /// pi in fixed point, by Machin's formula: 16 arctan(1/5) - 4 arctan(1/239).
    fn pi() -> BoxedUint {
        let a = arctan_of_inverse(5).shl_vartime(4).unwrap();
        a.wrapping_sub(arctan_of_inverse(239).shl_vartime(2).unwrap())
    }

    fn prime(group: DhGroup) -> BoxedUint {
        params(group).unwrap().modulus().as_ref().clone()
    }

    #[test]
    fn the_primes_follow_from_pi_as_the_rfcs_say() {
        let pi = pi();
        for (group, n, c) in MODP {
            let one = BoxedUint::one_with_precision(WIDTH);
            let middle = pi.shr_vartime(FRACTION - (n - 130)).unwrap().wrapping_add(BoxedUint::from(c));
            let p = one
                .shl_vartime(n)
                .unwrap()
                .wrapping_sub(one.shl_vartime(n - 64).unwrap())
                .wrapping_sub(&one)
                .wrapping_add(middle.shl_vartime(64).unwrap());
            assert_eq!(p, prime(group).resize(WIDTH), "{}", group.name());
        }
    }

    #[test]
    fn two_generates_the_subgroup_of_prime_order() {
        // 2^((p-1)/2) = 1: also a Fermat test of p to base 2.
        for (group, n, _) in MODP {
            let params = params(group).unwrap();
            let order = prime(group).shr_vartime(1).unwrap();
            let two = BoxedMontyForm::new(BoxedUint::from(2u8).resize(n), params);
            assert!(bool::from(two.pow(&order).retrieve().is_one()), "{}", group.name());
        }
    }

    #[test]
    fn p_and_its_half_pass_miller_rabin() {
        // Both are 3 mod 4, so that one power decides: b^((n-1)/2) is 1 or n - 1.
        for (group, n, _) in MODP {
            let p = prime(group);
            for candidate in [p.clone(), p.shr_vartime(1).unwrap()] {
                assert_eq!(candidate.as_words()[0] & 3, 3);
                let params = BoxedMontyParams::new_vartime(candidate.clone().into_odd().unwrap());
                let half = candidate.shr_vartime(1).unwrap();
                let minus_one = candidate.wrapping_sub(BoxedUint::one_with_precision(n));
                for base in [3u8, 5] {
                    let x = BoxedMontyForm::new(BoxedUint::from(base).resize(n), &params).pow(&half).retrieve();
                    assert!(bool::from(x.is_one()) || x == minus_one, "{} base {base}", group.name());
                }
            }
        }
    }

    #[test]
    fn values_that_reveal_or_fix_the_secret_are_refused() {
        for (group, _, _) in MODP {
            let secret = group.generate(&mut Seeded::new(5));
            let len = group.public_len();
            let p = prime(group);
            let bytes = |v: &BoxedUint| v.to_be_bytes().into_vec();
            let one = BoxedUint::one_with_precision(p.bits_precision());
            let refused =
                [vec![0; len], bytes(&one), bytes(&p.wrapping_sub(&one)), bytes(&p), bytes(&p.wrapping_add(&one)), vec![0xff; len]];
            for (n, peer) in refused.iter().enumerate() {
                assert_eq!(secret.shared(peer).unwrap_err(), CryptoError::PublicInvalid, "{} value {n}", group.name());
            }
            let two = one.wrapping_add(&one);
            assert!(secret.shared(&bytes(&two)).is_ok());
            assert!(secret.shared(&bytes(&p.wrapping_sub(&two))).is_ok());
        }
    }

    #[test]
    fn results_keep_their_leading_zeros() {
        let secret = DhSecret::from_bytes(DhGroup::Modp1024, &[3]);
        let public = secret.public().unwrap();
        assert_eq!(public.len(), 128);
        assert_eq!((&public[..127], public[127]), (&[0; 127][..], 8));
        let mut two = vec![0; 128];
        two[127] = 2;
        assert_eq!(secret.shared(&two).unwrap().expose(), public);
    }

    #[test]
    fn the_exponent_is_short_and_full_width() {
        for (group, _, _) in MODP {
            let e = exponent(group, &mut Seeded::new(11));
            assert_eq!(e.len() * 8, exponent_bits(group));
            assert!(e.expose()[0] & 0x80 != 0);
        }
    }
}
