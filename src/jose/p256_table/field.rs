//! The field of P-256: integers modulo p. Gives names to functions of fiat-crypto, and adds an inverse
//! that one of them checks.

use fiat_crypto::p256_64::{
    fiat_p256_add, fiat_p256_from_montgomery,
    fiat_p256_montgomery_domain_field_element as Montgomery, fiat_p256_mul,
    fiat_p256_non_montgomery_domain_field_element as Plain, fiat_p256_opp, fiat_p256_set_one,
    fiat_p256_square, fiat_p256_sub, fiat_p256_to_montgomery,
};

use super::limbs::{Limbs, is_below, unchecked_inverse};

/// p = 2^256 - 2^224 + 2^192 + 2^96 - 1 (SP 800-186 section 3.2.1.3).
const P: Limbs = [
    0xffff_ffff_ffff_ffff,
    0x0000_0000_ffff_ffff,
    0,
    0xffff_ffff_0000_0001,
];

/// An element in Montgomery form. fiat-crypto keeps it below p, so equal elements have equal limbs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FieldElement(Limbs);

impl FieldElement {
    pub(super) const ZERO: Self = Self([0; 4]);

    pub(super) const ONE: Self = {
        let mut one = Montgomery([0; 4]);
        fiat_p256_set_one(&mut one);
        Self(one.0)
    };

    /// From an integer below p.
    pub(super) const fn new(integer: &Limbs) -> Option<Self> {
        if !is_below(integer, &P) {
            return None;
        }
        let mut element = Montgomery([0; 4]);
        fiat_p256_to_montgomery(&mut element, &Plain(*integer));
        Some(Self(element.0))
    }

    #[inline]
    pub(super) const fn times(self, other: Self) -> Self {
        let mut product = Montgomery([0; 4]);
        fiat_p256_mul(&mut product, &Montgomery(self.0), &Montgomery(other.0));
        Self(product.0)
    }

    #[inline]
    pub(super) const fn squared(self) -> Self {
        let mut square = Montgomery([0; 4]);
        fiat_p256_square(&mut square, &Montgomery(self.0));
        Self(square.0)
    }

    #[inline]
    pub(super) const fn plus(self, other: Self) -> Self {
        let mut sum = Montgomery([0; 4]);
        fiat_p256_add(&mut sum, &Montgomery(self.0), &Montgomery(other.0));
        Self(sum.0)
    }

    #[inline]
    pub(super) const fn minus(self, other: Self) -> Self {
        let mut difference = Montgomery([0; 4]);
        fiat_p256_sub(&mut difference, &Montgomery(self.0), &Montgomery(other.0));
        Self(difference.0)
    }

    #[inline]
    pub(super) const fn negated(self) -> Self {
        let mut opposite = Montgomery([0; 4]);
        fiat_p256_opp(&mut opposite, &Montgomery(self.0));
        Self(opposite.0)
    }

    #[inline]
    pub(super) const fn doubled(self) -> Self {
        self.plus(self)
    }

    /// The inverse of an element other than zero, checked as that of a [`Scalar`](super::scalar::Scalar) is.
    pub(super) fn inverted(self) -> Option<Self> {
        let mut integer = Plain([0; 4]);
        fiat_p256_from_montgomery(&mut integer, &Montgomery(self.0));
        let inverse = Self::new(&unchecked_inverse(&integer.0, &P)?)?;
        (inverse.times(self) == Self::ONE).then_some(inverse)
    }
}
