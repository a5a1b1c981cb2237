//! Integers modulo n, the order of P-256. Gives names to functions of fiat-crypto, and adds an inverse
//! that one of them checks.

use fiat_crypto::p256_scalar_64::{
    fiat_p256_scalar_add, fiat_p256_scalar_from_montgomery,
    fiat_p256_scalar_montgomery_domain_field_element as Montgomery, fiat_p256_scalar_mul,
    fiat_p256_scalar_non_montgomery_domain_field_element as Plain, fiat_p256_scalar_set_one,
    fiat_p256_scalar_sub, fiat_p256_scalar_to_montgomery,
};

use super::limbs::{Limbs, is_below, unchecked_inverse};

/// n (SP 800-186 section 3.2.1.3).
pub(super) const ORDER: Limbs = [
    0xf3b9_cac2_fc63_2551,
    0xbce6_faad_a717_9e84,
    0xffff_ffff_ffff_ffff,
    0xffff_ffff_0000_0000,
];

/// In Montgomery form. fiat-crypto keeps it below n, so equal scalars have equal limbs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scalar(Limbs);

impl Scalar {
    pub(super) const ZERO: Self = Self([0; 4]);

    pub(super) const ONE: Self = {
        let mut one = Montgomery([0; 4]);
        fiat_p256_scalar_set_one(&mut one);
        Self(one.0)
    };

    /// One half: (n + 1) / 2.
    pub(super) const HALF: Self = Self::of(&[
        0x79dc_e561_7e31_92a9,
        0xde73_7d56_d38b_cf42,
        0x7fff_ffff_ffff_ffff,
        0x7fff_ffff_8000_0000,
    ]);

    /// From an integer below n.
    pub(super) const fn new(integer: &Limbs) -> Option<Self> {
        if is_below(integer, &ORDER) {
            Some(Self::of(integer))
        } else {
            None
        }
    }

    /// From any 256-bit integer, modulo n: the high half times 2^128 plus the low half, each below n.
    pub(super) const fn reduced(integer: &Limbs) -> Self {
        let [a, b, c, d] = *integer;
        let high = Self::of(&[c, d, 0, 0]);
        let low = Self::of(&[a, b, 0, 0]);
        high.times(Self::of(&[0, 0, 1, 0])).plus(low)
    }

    /// The caller must ensure that the integer is below n.
    const fn of(integer: &Limbs) -> Self {
        let mut scalar = Montgomery([0; 4]);
        fiat_p256_scalar_to_montgomery(&mut scalar, &Plain(*integer));
        Self(scalar.0)
    }

    /// The integer below n.
    pub(super) const fn integer(self) -> Limbs {
        let mut integer = Plain([0; 4]);
        fiat_p256_scalar_from_montgomery(&mut integer, &Montgomery(self.0));
        integer.0
    }

    pub(super) const fn times(self, other: Self) -> Self {
        let mut product = Montgomery([0; 4]);
        fiat_p256_scalar_mul(&mut product, &Montgomery(self.0), &Montgomery(other.0));
        Self(product.0)
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        let mut sum = Montgomery([0; 4]);
        fiat_p256_scalar_add(&mut sum, &Montgomery(self.0), &Montgomery(other.0));
        Self(sum.0)
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        let mut difference = Montgomery([0; 4]);
        fiat_p256_scalar_sub(&mut difference, &Montgomery(self.0), &Montgomery(other.0));
        Self(difference.0)
    }

    /// The inverse of a scalar other than zero.
    ///
    /// The code that computes it need not be trusted: fiat-crypto multiplies the result by the scalar,
    /// and the result is returned only if the product is one.
    pub(super) fn inverted(self) -> Option<Self> {
        let inverse = Self::new(&unchecked_inverse(&self.integer(), &ORDER)?)?;
        (inverse.times(self) == Self::ONE).then_some(inverse)
    }
}
