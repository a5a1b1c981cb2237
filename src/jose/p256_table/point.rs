//! The group of P-256: doubling, and adding an affine point, in Jacobian coordinates.
//!
//! Both are, operation for operation, functions that the Fiat-Crypto project has written and proved
//! in Coq (`src/Curves/Weierstrass/Jacobian.v`):
//!
//! - [`Point::doubled`] is `double_minus_3`, equal to `double` for a = -3 (lemma
//!   `double_minus_3_eq_double`), which is the group law's doubling (`to_affine_double`). The formulas
//!   are dbl-2001-b of the Explicit-Formulas Database.
//! - [`Point::plus_affine`] is `add_mixed`, equal to `add` (`add_mixed_eq_add`), which is the group
//!   law's addition **for all points**, infinity, equal and opposite ones included
//!   (`to_affine_add`). The formulas are a variant of madd-2007-bl in the same database.
//!
//! BoringSSL and AWS-LC use the same formulas. Here they may branch on the values, because all values
//! are public.

use super::field::FieldElement;
use super::limbs;

/// The b of y^2 = x^3 - 3x + b (SP 800-186 section 3.2.1.3).
const B: FieldElement = constant(&[
    0x3bce_3c3e_27d2_604b,
    0x651d_06b0_cc53_b0f6,
    0xb3eb_bd55_7698_86bc,
    0x5ac6_35d8_aa3a_93e7,
]);

/// A point other than infinity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct AffinePoint {
    pub(super) x: FieldElement,
    pub(super) y: FieldElement,
}

impl AffinePoint {
    /// G, of order n (SP 800-186 section 3.2.1.3).
    pub(super) const GENERATOR: Self = Self {
        x: constant(&[
            0xf4a1_3945_d898_c296,
            0x7703_7d81_2deb_33a0,
            0xf8bc_e6e5_63a4_40f2,
            0x6b17_d1f2_e12c_4247,
        ]),
        y: constant(&[
            0xcbb6_4068_37bf_51f5,
            0x2bce_3357_6b31_5ece,
            0x8ee7_eb4a_7c0f_9e16,
            0x4fe3_42e2_fe1a_7f9b,
        ]),
    };

    /// From `04 ‖ x ‖ y` (SEC 1 section 2.3.4). `None` if it is not a point on the curve. Every point
    /// except infinity has order n, and infinity has no encoding of this form.
    pub(super) fn from_uncompressed(bytes: &[u8; 65]) -> Option<Self> {
        let (form, coordinates) = bytes.split_first()?;
        let x = FieldElement::new(&limbs::from_bytes(coordinates.first_chunk()?))?;
        let y = FieldElement::new(&limbs::from_bytes(coordinates.last_chunk()?))?;
        let three_x = x.doubled().plus(x);
        let is_on_curve = y.squared() == x.squared().times(x).minus(three_x).plus(B);
        (*form == 4 && is_on_curve).then_some(Self { x, y })
    }

    #[inline]
    pub(super) const fn negated(self) -> Self {
        Self {
            x: self.x,
            y: self.y.negated(),
        }
    }
}

/// X, Y, Z with x = X / Z^2 and y = Y / Z^3, or infinity if Z is zero.
#[derive(Clone, Copy)]
pub(super) struct Point {
    x: FieldElement,
    y: FieldElement,
    z: FieldElement,
}

impl Point {
    pub(super) const INFINITY: Self = Self {
        x: FieldElement::ZERO,
        y: FieldElement::ZERO,
        z: FieldElement::ZERO,
    };

    /// Whether this is a point other than infinity with this x.
    pub(super) fn has_x(&self, x: FieldElement) -> bool {
        self.z != FieldElement::ZERO && self.x == x.times(self.z.squared())
    }

    pub(super) fn doubled(&self) -> Self {
        let delta = self.z.squared();
        let gamma = self.y.squared();
        let beta = self.x.times(gamma);
        let sum = self.x.plus(delta);
        let alpha = self.x.minus(delta).times(sum.plus(sum.doubled()));
        let four_beta = beta.doubled().doubled();
        let x = alpha.squared().minus(four_beta.doubled());
        let z = self.y.plus(self.z).squared().minus(gamma.plus(delta));
        let eight_gamma_squared = gamma.doubled().squared().doubled();
        let y = alpha.times(four_beta.minus(x)).minus(eight_gamma_squared);
        Self { x, y, z }
    }

    #[expect(clippy::many_single_char_names, reason = "the formulas' names")]
    #[inline]
    pub(super) fn plus_affine(&self, other: &AffinePoint) -> Self {
        if self.z == FieldElement::ZERO {
            return (*other).into();
        }
        let zz = self.z.squared();
        let u2 = other.x.times(zz);
        let h = u2.minus(self.x);
        let z = h.times(self.z.doubled());
        let zzz = self.z.times(zz);
        let s2 = other.y.times(zzz);
        let r = s2.minus(self.y).doubled();
        if h == FieldElement::ZERO && r == FieldElement::ZERO {
            return self.doubled();
        }
        let i = h.doubled().squared();
        let j = h.times(i);
        let v = self.x.times(i);
        let x = r.squared().minus(j).minus(v).minus(v);
        let s1j = self.y.times(j);
        let y = v.minus(x).times(r).minus(s1j).minus(s1j);
        Self { x, y, z }
    }

    /// Converts all points to affine form, with one inversion (Montgomery's trick). `None` if one of
    /// them is infinity.
    pub(super) fn to_affine(points: &[Self]) -> Option<Vec<AffinePoint>> {
        let mut product = FieldElement::ONE;
        let products_before: Vec<FieldElement> = points
            .iter()
            .map(|point| {
                let before = product;
                product = product.times(point.z);
                before
            })
            .collect();
        let mut inverse = product.inverted()?;
        let mut affine: Vec<AffinePoint> = points
            .iter()
            .zip(products_before)
            .rev()
            .map(|(point, before)| {
                let z_inverse = inverse.times(before);
                inverse = inverse.times(point.z);
                let zz_inverse = z_inverse.squared();
                AffinePoint {
                    x: point.x.times(zz_inverse),
                    y: point.y.times(zz_inverse.times(z_inverse)),
                }
            })
            .collect();
        affine.reverse();
        Some(affine)
    }
}

/// Adds points to as many others, in place, with one inversion (Montgomery's trick). `None` if a point has
/// the same x as the one it would be added to; then nothing is added.
///
/// For points with different x, the line through them gives the sum: the group law's definition.
pub(super) fn add_each(sums: &mut [AffinePoint], addends: &[AffinePoint]) -> Option<()> {
    let mut product = FieldElement::ONE;
    let products_before: Vec<FieldElement> = sums
        .iter()
        .zip(addends)
        .map(|(p, q)| {
            let before = product;
            product = product.times(q.x.minus(p.x));
            before
        })
        .collect();
    let mut inverse = product.inverted()?;
    for ((p, q), before) in sums.iter_mut().zip(addends).zip(products_before).rev() {
        let run = q.x.minus(p.x);
        let slope = q.y.minus(p.y).times(inverse.times(before));
        inverse = inverse.times(run);
        let x = slope.squared().minus(p.x).minus(q.x);
        let y = slope.times(p.x.minus(x)).minus(p.y);
        *p = AffinePoint { x, y };
    }
    Some(())
}

impl From<AffinePoint> for Point {
    fn from(point: AffinePoint) -> Self {
        Self {
            x: point.x,
            y: point.y,
            z: FieldElement::ONE,
        }
    }
}

const fn constant(integer: &limbs::Limbs) -> FieldElement {
    FieldElement::new(integer).expect("the standard's constants are below p")
}
