//! The arithmetic of `crypto-bigint`, of fixed size: for every prime and every processor.

use super::power::Field;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{CtAssign, CtEq, Odd, Uint};
use zeroize::Zeroizing;

/// Numbers of `L` words, in Montgomery form.
pub(super) struct Library<const L: usize>(FixedMontyParams<L>);

impl<const L: usize> Library<L> {
    pub(super) fn new(prime: Odd<Uint<L>>) -> Self {
        // The prime is public: variable time is fine.
        Self(FixedMontyParams::new_vartime(prime))
    }
}

impl<const L: usize> Field for Library<L> {
    type Element = Uint<L>;

    fn one(&self) -> Uint<L> {
        *FixedMontyForm::one(&self.0).as_montgomery()
    }

    fn enter(&self, bytes: &[u8]) -> Uint<L> {
        // Left of the number stand zeros; more bytes than the prime has cannot come.
        let mut padded = vec![0; Uint::<L>::BYTES];
        for (o, b) in padded.iter_mut().rev().zip(bytes.iter().rev()) {
            *o = *b;
        }
        *FixedMontyForm::new(&Uint::from_be_slice(&padded), &self.0).as_montgomery()
    }

    fn leave(&self, value: &Uint<L>) -> Vec<u8> {
        let words = Zeroizing::new(FixedMontyForm::from_montgomery(*value, &self.0).retrieve().to_words());
        let mut bytes = Vec::with_capacity(Uint::<L>::BYTES);
        words.iter().rev().for_each(|word| bytes.extend_from_slice(&word.to_be_bytes()));
        bytes
    }

    fn multiply(&self, a: &Uint<L>, b: &Uint<L>) -> Uint<L> {
        *FixedMontyForm::from_montgomery(*a, &self.0).mul(&FixedMontyForm::from_montgomery(*b, &self.0)).as_montgomery()
    }

    fn square(&self, a: &Uint<L>) -> Uint<L> {
        *FixedMontyForm::from_montgomery(*a, &self.0).square().as_montgomery()
    }

    fn pick(table: &[Uint<L>; 16], digit: u8) -> Uint<L> {
        let mut picked = Uint::ZERO;
        for (entry, index) in table.iter().zip(0u8..) {
            picked.ct_assign(entry, index.ct_eq(&digit));
        }
        picked
    }
}
