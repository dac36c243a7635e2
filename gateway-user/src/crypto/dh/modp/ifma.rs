//! Montgomery multiplication with AVX-512's 52-bit multiply-add: five times as fast as 64-bit words. It takes the same time for
//! all numbers: no branch and no address depends on them.
//!
//! A number is `K` vectors of eight 52-bit limbs, least first, and R = 2^(416 K). Factors below 2 p give a product below 2 p when
//! R is above 4 p, so that nothing is subtracted on the way (Gueron, "Efficient software implementations of modular
//! exponentiation", 2012).

use super::library::Library;
use super::power::{Field, power};
use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_alignr_epi64, _mm512_broadcastq_epi64, _mm512_castsi512_si128, _mm512_loadu_epi64,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_maskz_srli_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_epi64,
};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroize;

const LIMB_BITS: u32 = 52;
const LIMB: u64 = (1 << LIMB_BITS) - 1;

type Number<const K: usize> = [[u64; 8]; K];

/// Numbers of `K` vectors, modulo a prime that is -1 modulo 2^52, as all primes of RFC 2409 and RFC 3526 are: the multiple of the
/// prime that clears a limb is then the limb itself. Exists only on a processor that has the instructions.
pub(super) struct Ifma<const K: usize> {
    prime: Number<K>,
    /// R and R^2 modulo the prime.
    one: Number<K>,
    square_of_r: Number<K>,
    /// Length of the prime in bytes.
    bytes: usize,
}

impl<const K: usize> Ifma<K> {
    /// For the big-endian prime of `library`; none where processor or prime do not fit.
    pub(super) fn new<const L: usize>(prime: &[u8], library: &Library<L>) -> Option<Self> {
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        let bits = 8 * LIMB_BITS as usize * K;
        if !able || bits < prime.len() * 8 + 2 {
            return None;
        }
        let limbs = to_limbs(prime);
        if limbs.first()?.first() != Some(&LIMB) {
            return None;
        }
        let power_of_two = |n: usize| Some(to_limbs(&power(library, &[2], &u16::try_from(n).ok()?.to_be_bytes())));
        Some(Self { prime: limbs, one: power_of_two(bits)?, square_of_r: power_of_two(2 * bits)?, bytes: prime.len() })
    }
}

impl<const K: usize> Field for Ifma<K> {
    type Element = Number<K>;

    fn one(&self) -> Number<K> {
        self.one
    }

    fn enter(&self, bytes: &[u8]) -> Number<K> {
        self.multiply(&to_limbs(bytes), &self.square_of_r)
    }

    fn leave(&self, value: &Number<K>) -> Vec<u8> {
        let mut one = [[0; 8]; K];
        one.as_flattened_mut()[0] = 1;
        // At most the prime, and the prime itself only for zero, which no power of a number prime to it is.
        let mut plain = self.multiply(value, &one);
        let bytes = to_bytes(&plain, self.bytes);
        plain.zeroize();
        bytes
    }

    fn multiply(&self, a: &Number<K>, b: &Number<K>) -> Number<K> {
        // SAFETY: `Ifma::new` makes a value only where the processor has the instructions.
        unsafe { multiply(a, b, &self.prime) }
    }

    fn pick(table: &[Number<K>; 16], digit: u8) -> Number<K> {
        let mut picked = [[0; 8]; K];
        for (entry, index) in table.iter().zip(0u8..) {
            let chosen = index.ct_eq(&digit);
            for (o, limb) in picked.as_flattened_mut().iter_mut().zip(entry.as_flattened()) {
                o.conditional_assign(limb, chosen);
            }
        }
        picked
    }
}

/// a b / R modulo the prime.
///
/// A lane holds a limb and what is not carried yet: it moves down one place a round and takes less than 2^54 in each of at most
/// 8 K rounds, so that it stays below 2^62.
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply<const K: usize>(a: &Number<K>, b: &Number<K>, prime: &Number<K>) -> Number<K> {
    let zero = _mm512_setzero_si512();
    let (mut a_lanes, mut p_lanes) = ([zero; K], [zero; K]);
    for j in 0..K {
        a_lanes[j] = load(&a[j]);
        p_lanes[j] = load(&prime[j]);
    }
    let mut sum = [zero; K];
    // High halves of the round's products: they belong one limb higher, so they are added after the shift.
    let mut high = [zero; K];
    for &limb in b.as_flattened() {
        let limb = _mm512_set1_epi64(limb.cast_signed());
        for j in 0..K {
            sum[j] = _mm512_madd52lo_epu64(_mm512_add_epi64(sum[j], high[j]), a_lanes[j], limb);
            high[j] = _mm512_madd52hi_epu64(zero, a_lanes[j], limb);
        }
        // The multiply-add takes the low 52 bits only.
        let q = _mm512_broadcastq_epi64(_mm512_castsi512_si128(sum[0]));
        for j in 0..K {
            sum[j] = _mm512_madd52lo_epu64(sum[j], p_lanes[j], q);
            high[j] = _mm512_madd52hi_epu64(high[j], p_lanes[j], q);
        }
        // The lowest limb is now zero; its carry goes to the next, and all move down one place.
        high[0] = _mm512_add_epi64(high[0], _mm512_maskz_srli_epi64::<LIMB_BITS>(1, sum[0]));
        for j in 0..K {
            let above = if j + 1 < K { sum[j + 1] } else { zero };
            sum[j] = _mm512_alignr_epi64::<1>(above, sum[j]);
        }
    }
    let mut product = [[0; 8]; K];
    for j in 0..K {
        store(&mut product[j], _mm512_add_epi64(sum[j], high[j]));
    }
    let mut carry = 0;
    for limb in product.as_flattened_mut() {
        carry += *limb;
        *limb = carry & LIMB;
        carry >>= LIMB_BITS;
    }
    product
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[u64; 8]) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that are read; the instruction wants no alignment.
    unsafe { _mm512_loadu_epi64(lanes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(lanes: &mut [u64; 8], value: __m512i) {
    // SAFETY: the reference covers the 64 bytes that are written; the instruction wants no alignment.
    unsafe { _mm512_storeu_epi64(lanes.as_mut_ptr().cast(), value) }
}

fn to_limbs<const K: usize>(bytes: &[u8]) -> Number<K> {
    let mut number = [[0; 8]; K];
    let mut limbs = number.as_flattened_mut().iter_mut();
    let (mut waiting, mut bits) = (0u64, 0);
    for byte in bytes.iter().rev() {
        waiting |= u64::from(*byte) << bits;
        bits += 8;
        if bits >= LIMB_BITS {
            if let Some(limb) = limbs.next() {
                *limb = waiting & LIMB;
            }
            waiting >>= LIMB_BITS;
            bits -= LIMB_BITS;
        }
    }
    if let Some(limb) = limbs.next() {
        *limb = waiting;
    }
    number
}

fn to_bytes<const K: usize>(number: &Number<K>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut places = bytes.iter_mut().rev();
    let (mut waiting, mut bits) = (0u64, 0);
    for limb in number.as_flattened() {
        waiting |= limb << bits;
        bits += LIMB_BITS;
        while bits >= 8 {
            if let Some(byte) = places.next() {
                *byte = (waiting & 0xff) as u8;
            }
            waiting >>= 8;
            bits -= 8;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::primes;
    use super::*;
    use crate::crypto::vectors;
    use crate::rng::{Random, Seeded};
    use crypto_bigint::{Odd, U2048, U3072, U4096};

    fn agrees<const K: usize, const L: usize>(hex: &str, library: &Library<L>) {
        let prime = vectors::hex(hex);
        let Some(field) = Ifma::<K>::new(&prime, library) else {
            println!("this processor has no AVX-512 IFMA: nothing to compare");
            return;
        };
        let mut below = prime.clone();
        *below.last_mut().unwrap() -= 1;
        let mut numbers = vec![vec![1], vec![2], vec![0xff; prime.len() - 8], below];
        let mut rng = Seeded::new(31);
        for _ in 0..4 {
            let mut number = vec![0; prime.len() - 1];
            rng.fill(&mut number);
            numbers.push(number);
        }
        for a in &numbers {
            let (fast, slow) = (field.enter(a), library.enter(a));
            assert_eq!(field.leave(&fast), library.leave(&slow), "{a:x?}");
            for b in &numbers {
                let product = field.multiply(&fast, &field.enter(b));
                assert_eq!(field.leave(&product), library.leave(&library.multiply(&slow, &library.enter(b))), "{a:x?} {b:x?}");
            }
            // A long chain: what is carried too late would show.
            let (mut fast, mut slow) = (fast, slow);
            for _ in 0..50 {
                fast = field.square(&fast);
                slow = library.square(&slow);
            }
            assert_eq!(field.leave(&fast), library.leave(&slow), "{a:x?}");
        }
        let table = std::array::from_fn(|i| field.enter(&[i as u8 + 1]));
        for digit in 0..16 {
            assert_eq!(Ifma::pick(&table, digit), table[usize::from(digit)]);
        }
    }

    #[test]
    fn products_are_those_of_the_library() {
        agrees::<5, { U2048::LIMBS }>(primes::MODP_2048, &Library::new(Odd::<U2048>::from_be_hex(primes::MODP_2048)));
        agrees::<8, { U3072::LIMBS }>(primes::MODP_3072, &Library::new(Odd::<U3072>::from_be_hex(primes::MODP_3072)));
        agrees::<10, { U4096::LIMBS }>(primes::MODP_4096, &Library::new(Odd::<U4096>::from_be_hex(primes::MODP_4096)));
    }

    #[test]
    fn the_largest_limbs_do_not_overflow() {
        // Factors of 2 p - 1, the most that may come: every carry at its extreme.
        let library = Library::new(Odd::<U4096>::from_be_hex(primes::MODP_4096));
        let prime = vectors::hex(primes::MODP_4096);
        let Some(field) = Ifma::<10>::new(&prime, &library) else { return };
        let mut most = field.prime;
        let mut carry = 0;
        for limb in most.as_flattened_mut() {
            carry += *limb * 2;
            *limb = carry & LIMB;
            carry >>= LIMB_BITS;
        }
        most.as_flattened_mut()[0] -= 1;
        // 2 p - 1 is -1, so that its product with 2 R is -2, which is -2 / R outside Montgomery form.
        let mut minus_two = prime.clone();
        *minus_two.last_mut().unwrap() -= 2;
        let product = field.multiply(&most, &field.enter(&[2]));
        let want = library.multiply(&library.enter(&minus_two), &library.enter(&inverse_of_r(&field)));
        assert_eq!(field.leave(&product), library.leave(&want));
        // Its square is 1 / R, and that times R^2 is 1.
        let square = field.multiply(&most, &most);
        assert_eq!(field.leave(&field.multiply(&square, &field.square_of_r)), inverse_of_r(&field));
    }

    /// R^-1 modulo the prime, by leaving Montgomery form with the plain one.
    fn inverse_of_r<const K: usize>(field: &Ifma<K>) -> Vec<u8> {
        let mut one = [[0; 8]; K];
        one.as_flattened_mut()[0] = 1;
        field.leave(&one)
    }
}
