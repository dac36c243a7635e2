//! Groups over a safe prime with generator 2. The arithmetic is `crypto-bigint`'s. Time depends on the exponent's length only.

mod library;
mod power;
mod primes;

use crate::crypto::{CryptoError, DhGroup, Secret};
use crate::rng::Random;
use crypto_bigint::{Odd, U768, U1024, U1536, U2048, U3072, U4096, U6144, U8192};
use library::Library;
use power::{Comb, Field};
use std::sync::LazyLock;

/// Length of the private exponent in bits: at least twice the strength of the group by the larger estimate of RFC 3526 8 for the
/// big groups, and for 2048 bits between its two (220 and 320; SP 800-56A wants 224). More would cost time and add nothing,
/// since the strength of the group is then the limit. A multiple of 32, as [`power::Comb`] wants it.
const fn exponent_bits(group: DhGroup) -> usize {
    match group {
        DhGroup::Modp768 | DhGroup::Modp1024 | DhGroup::Modp1536 | DhGroup::Modp2048 => 256,
        DhGroup::Modp3072 => 448,
        DhGroup::Modp4096 => 512,
        DhGroup::Modp6144 => 576,
        DhGroup::Modp8192 => 640,
        // The others draw a scalar or a seed instead.
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
    Ok(prime(group)?.public(exponent.expose()))
}

pub(super) fn shared(group: DhGroup, exponent: &Secret, peer: &[u8]) -> Result<Secret, CryptoError> {
    prime(group)?.shared(exponent.expose(), peer)
}

/// One group, ready to compute.
trait Prime: Sync + Send {
    /// 2^exponent.
    fn public(&self, exponent: &[u8]) -> Vec<u8>;
    /// peer^exponent, for a peer's value from 2 to p - 2.
    fn shared(&self, exponent: &[u8], peer: &[u8]) -> Result<Secret, CryptoError>;
}

struct Modp<F: Field> {
    field: F,
    /// p - 1, big endian.
    minus_one: Vec<u8>,
    /// Powers of the generator, for the groups of today's peers: 32 KiB and 84 KiB.
    comb: Option<Comb<F>>,
}

fn prime(group: DhGroup) -> Result<&'static dyn Prime, CryptoError> {
    macro_rules! group {
        ($uint:ident, $hex:ident, $make:expr) => {{
            const P: Odd<$uint> = Odd::<$uint>::from_be_hex(primes::$hex);
            static PRIME: LazyLock<Box<dyn Prime>> = LazyLock::new(|| {
                let bytes: Vec<u8> = P.as_ref().as_words().iter().rev().flat_map(|word| word.to_be_bytes()).collect();
                $make(&bytes, Library::new(P))
            });
            Ok(&**PRIME)
        }};
    }
    match group {
        DhGroup::Modp768 => group!(U768, MODP_768, plain),
        DhGroup::Modp1024 => group!(U1024, MODP_1024, plain),
        DhGroup::Modp1536 => group!(U1536, MODP_1536, plain),
        DhGroup::Modp2048 => group!(U2048, MODP_2048, |p, l| with_powers(p, l, DhGroup::Modp2048)),
        DhGroup::Modp3072 => group!(U3072, MODP_3072, |p, l| with_powers(p, l, DhGroup::Modp3072)),
        DhGroup::Modp4096 => group!(U4096, MODP_4096, plain),
        DhGroup::Modp6144 => group!(U6144, MODP_6144, plain),
        DhGroup::Modp8192 => group!(U8192, MODP_8192, plain),
        DhGroup::Ecp256 | DhGroup::Ecp384 | DhGroup::Ecp521 | DhGroup::X25519 | DhGroup::MlKem768 => Err(CryptoError::Internal),
    }
}

/// With a table of the generator's powers.
fn with_powers<const L: usize>(prime: &[u8], library: Library<L>, group: DhGroup) -> Box<dyn Prime> {
    Box::new(Modp::new(prime, library, Some(exponent_bits(group) / 8)))
}

/// Without a table.
fn plain<const L: usize>(prime: &[u8], library: Library<L>) -> Box<dyn Prime> {
    Box::new(Modp::new(prime, library, None))
}

impl<F: Field> Modp<F> {
    fn new(prime: &[u8], field: F, comb_bytes: Option<usize>) -> Self {
        let mut minus_one = prime.to_vec();
        // The prime is odd.
        if let Some(last) = minus_one.last_mut() {
            *last &= 0xfe;
        }
        Self { field, minus_one, comb: comb_bytes.map(Comb::new) }
    }
}

impl<F: Field> Prime for Modp<F> {
    fn public(&self, exponent: &[u8]) -> Vec<u8> {
        let generator = [2];
        let quick = self.comb.as_ref().and_then(|comb| comb.power(&self.field, &generator, exponent));
        quick.unwrap_or_else(|| power::power(&self.field, &generator, exponent))
    }

    fn shared(&self, exponent: &[u8], peer: &[u8]) -> Result<Secret, CryptoError> {
        // 0, 1 and p - 1 make subgroups of one or two elements; p and more are no canonical values (RFC 6989 2.1). Of equal
        // length, the numbers compare as their bytes do.
        let tiny = peer.split_last().is_none_or(|(last, rest)| *last <= 1 && rest.iter().all(|b| *b == 0));
        if peer.len() != self.minus_one.len() || tiny || peer >= &self.minus_one[..] {
            return Err(CryptoError::PublicInvalid);
        }
        Ok(Secret::new(power::power(&self.field, peer, exponent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::DhSecret;
    use crate::rng::Seeded;
    use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
    use crypto_bigint::{BoxedUint, Limb, NonZero, Resize};

    /// (group, bits, constant c of RFC 2409 6 and RFC 3526): p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + c).
    const MODP: [(DhGroup, u32, u32); 8] = [
        (DhGroup::Modp768, 768, 149_686),
        (DhGroup::Modp1024, 1024, 129_093),
        (DhGroup::Modp1536, 1536, 741_804),
        (DhGroup::Modp2048, 2048, 124_476),
        (DhGroup::Modp3072, 3072, 1_690_314),
        (DhGroup::Modp4096, 4096, 240_904),
        (DhGroup::Modp6144, 6144, 929_484),
        (DhGroup::Modp8192, 8192, 4_743_158),
    ];

    /// Fractional bits of the fixed-point numbers below: the 8192-bit prime needs 8062, the rest absorbs rounding.
    const FRACTION: u32 = 8192;
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

    fn modulus(group: DhGroup) -> BoxedUint {
        let hex = match group {
            DhGroup::Modp768 => primes::MODP_768,
            DhGroup::Modp1024 => primes::MODP_1024,
            DhGroup::Modp1536 => primes::MODP_1536,
            DhGroup::Modp2048 => primes::MODP_2048,
            DhGroup::Modp3072 => primes::MODP_3072,
            DhGroup::Modp4096 => primes::MODP_4096,
            DhGroup::Modp6144 => primes::MODP_6144,
            DhGroup::Modp8192 => primes::MODP_8192,
            other => panic!("{other:?}"),
        };
        BoxedUint::from_be_hex(hex, u32::try_from(hex.len() * 4).unwrap()).unwrap()
    }

    fn params(p: &BoxedUint) -> BoxedMontyParams {
        BoxedMontyParams::new_vartime(p.clone().into_odd().unwrap())
    }

    /// The library's own power, which our order of multiplications must agree with.
    fn power(group: DhGroup, base: &[u8], exponent: &[u8]) -> Vec<u8> {
        let p = modulus(group);
        let base = BoxedUint::from_be_slice(base, p.bits_precision()).unwrap();
        let exponent = BoxedUint::from_be_slice(exponent, u32::try_from(exponent.len() * 8).unwrap()).unwrap();
        BoxedMontyForm::new(base, &params(&p)).pow(&exponent).retrieve().to_be_bytes().into_vec()
    }

    #[test]
    fn powers_are_those_of_the_library() {
        let mut rng = Seeded::new(23);
        for (group, n, _) in MODP {
            let len = group.public_len();
            let mut two = vec![0; len];
            two[len - 1] = 2;
            // Every digit at its extremes, and lengths that no table was made for.
            let bytes = exponent_bits(group) / 8;
            let mut exponents = vec![vec![0xc3; 5], vec![]];
            // Without optimisation the big groups take long; their loop is the same.
            if n <= 3072 {
                exponents.push(exponent(group, &mut rng).expose().to_vec());
                exponents.extend([vec![0xff; bytes], vec![0; bytes], vec![0x80; bytes], vec![1; bytes]]);
            }
            for x in exponents {
                let secret = DhSecret::from_bytes(group, &x);
                let public = secret.public().unwrap();
                assert_eq!(public, power(group, &two, &x), "{n} {x:x?}");
                let mut peer = vec![0; len];
                rng.fill(&mut peer[1..]);
                assert_eq!(secret.shared(&peer).unwrap().expose(), power(group, &peer, &x), "{n} {x:x?}");
            }
        }
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
            assert_eq!(p, modulus(group).resize(WIDTH), "{}", group.name());
        }
    }

    #[test]
    fn two_generates_the_subgroup_of_prime_order() {
        // 2^((p-1)/2) = 1: also a Fermat test of p to base 2.
        for (group, n, _) in MODP {
            let p = modulus(group);
            let order = p.shr_vartime(1).unwrap();
            let two = BoxedMontyForm::new(BoxedUint::from(2u8).resize(n), &params(&p));
            assert!(bool::from(two.pow(&order).retrieve().is_one()), "{}", group.name());
        }
    }

    #[test]
    fn p_and_its_half_pass_miller_rabin() {
        // Both are 3 mod 4, so that one power decides: b^((n-1)/2) is 1 or n - 1.
        for (group, n, _) in MODP {
            let p = modulus(group);
            for candidate in [p.clone(), p.shr_vartime(1).unwrap()] {
                assert_eq!(candidate.as_words()[0] & 3, 3);
                let params = params(&candidate);
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
            let p = modulus(group);
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
