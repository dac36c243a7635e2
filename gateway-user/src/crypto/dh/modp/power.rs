//! Powers modulo a prime: the order of multiplications depends on the exponent's length only, and every table entry is read for
//! every digit.

use std::sync::OnceLock;
use zeroize::Zeroize;

/// Multiplication modulo one prime, in whatever form its elements are.
pub(super) trait Field: Sync + Send {
    /// A number modulo the prime.
    type Element: Copy + Zeroize + Send + Sync;

    /// The number one.
    fn one(&self) -> Self::Element;
    /// Takes a big-endian number below the prime.
    fn enter(&self, bytes: &[u8]) -> Self::Element;
    /// The number as big-endian bytes, as long as the prime.
    fn leave(&self, value: &Self::Element) -> Vec<u8>;
    /// The product.
    fn multiply(&self, a: &Self::Element, b: &Self::Element) -> Self::Element;
    /// The square.
    fn square(&self, a: &Self::Element) -> Self::Element {
        self.multiply(a, a)
    }
    /// The entry `digit`, without telling which it was.
    fn pick(table: &[Self::Element; 16], digit: u8) -> Self::Element;
}

/// `value` times the entry `digit` of the table.
fn multiply_by<F: Field>(field: &F, value: &F::Element, table: &[F::Element; 16], digit: u8) -> F::Element {
    let mut factor = F::pick(table, digit);
    let product = field.multiply(value, &factor);
    factor.zeroize();
    product
}

/// The result as bytes; the element is wiped.
fn finish<F: Field>(field: &F, mut result: F::Element) -> Vec<u8> {
    let bytes = field.leave(&result);
    result.zeroize();
    bytes
}

/// base^exponent, four bits of the big-endian exponent at a time.
pub(super) fn power<F: Field>(field: &F, base: &[u8], exponent: &[u8]) -> Vec<u8> {
    let base = field.enter(base);
    let mut powers = [field.one(); 16];
    let mut power = field.one();
    for slot in &mut powers {
        *slot = power;
        power = field.multiply(&power, &base);
    }
    let mut result = field.one();
    for digit in exponent.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        for _ in 0..4 {
            result = field.square(&result);
        }
        result = multiply_by(field, &result, &powers, digit);
    }
    finish(field, result)
}

/// Powers of one base, so that base^x takes a fourth of the multiplications or less (Lim and Lee, CRYPTO '94): with x as `4 * n`
/// bytes in little-endian order, table v holds for every subset of {0, 1, 2, 3} the product of base^(2^(8 (n k + v))) over its
/// members k. Built at first use.
pub(super) struct Comb<F: Field> {
    bytes: usize,
    tables: OnceLock<Vec<[F::Element; 16]>>,
}

impl<F: Field> Comb<F> {
    /// For exponents of `bytes` bytes, a multiple of 4.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, tables: OnceLock::new() }
    }

    fn build(&self, field: &F, base: &[u8]) -> Vec<[F::Element; 16]> {
        let n = self.bytes / 4;
        let mut bases = Vec::with_capacity(self.bytes);
        let mut base = field.enter(base);
        for _ in 0..self.bytes {
            bases.push(base);
            for _ in 0..8 {
                base = field.square(&base);
            }
        }
        let table = |v: usize| {
            let mut table = [field.one(); 16];
            for (k, base) in bases.iter().skip(v).step_by(n).enumerate() {
                for subset in 0..1 << k {
                    table[subset | 1 << k] = field.multiply(&table[subset], base);
                }
            }
            table
        };
        (0..n).map(table).collect()
    }

    /// base^exponent; none when the exponent has another length than the tables. The base must be the same at every call.
    pub(super) fn power(&self, field: &F, base: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
        if exponent.len() != self.bytes {
            return None;
        }
        let tables = self.tables.get_or_init(|| self.build(field, base));
        let mut result = field.one();
        for bit in (0..8).rev() {
            result = field.square(&result);
            for (v, table) in tables.iter().enumerate() {
                let members = exponent.iter().rev().skip(v).step_by(tables.len()).enumerate();
                let subset = members.fold(0, |subset, (k, byte)| subset | ((byte >> bit) & 1) << k);
                result = multiply_by(field, &result, table, subset);
            }
        }
        Some(finish(field, result))
    }
}
