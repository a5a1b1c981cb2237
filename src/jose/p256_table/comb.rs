//! Tables of multiples of one point, and the sum of multiples of two points, computed with them.
//!
//! The method is the comb of Lim and Lee (CRYPTO '94) with digits +1 and -1.

use super::limbs::Limbs;
use super::point::{AffinePoint, Point};
use super::scalar::Scalar;

/// A sum takes one doubling for each row except the first, shared by both points.
const ROWS: usize = 13;

/// The choice of multiples in a table.
///
/// A scalar has `teeth * columns` digits, each +1 or -1. Digit `i` counts 2^i times. Tooth `t` has the
/// `columns` digits from `t * columns` on, so a column has one digit of every tooth. Column `c` is in
/// block `c / ROWS` and row `c % ROWS`.
pub(super) struct Layout {
    teeth: usize,
    columns: usize,
    /// (2^digits - 1) / 2 modulo n.
    offset: Scalar,
}

impl Layout {
    /// For G, once per process: 64 KiB, 26 additions per multiple.
    pub(super) const GENERATOR: Self = Self::new(10);

    /// For a key: 12 KiB, 37 additions per multiple.
    pub(super) const KEY: Self = Self::new(7);

    const fn new(teeth: usize) -> Self {
        let columns = 256_usize.div_ceil(teeth);
        let mut power = Scalar::ONE;
        let mut i = 0;
        while i < teeth * columns {
            power = power.plus(power);
            i += 1;
        }
        Self {
            teeth,
            columns,
            offset: power.minus(Scalar::ONE).times(Scalar::HALF),
        }
    }

    const fn blocks(&self) -> usize {
        self.columns.div_ceil(ROWS)
    }

    /// The number of multiples in one block: the digit of the highest tooth is always +1.
    const fn points_a_block(&self) -> usize {
        1 << (self.teeth - 1)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.blocks() * self.points_a_block() * size_of::<AffinePoint>()
    }

    /// The exponent of a tooth's power in the first row of a block.
    const fn exponent(&self, block: usize, tooth: usize) -> usize {
        tooth * self.columns + block * ROWS
    }
}

/// The multiples of one point that a [`Layout`] describes.
pub(super) struct Comb {
    layout: &'static Layout,
    pub(super) points: Box<[AffinePoint]>,
}

impl Comb {
    /// `None` only if a multiple were infinity. That is impossible for a point of order n: see the
    /// proof at the head of `mod.rs`.
    pub(super) fn new(point: AffinePoint, layout: &'static Layout) -> Option<Self> {
        let doublings = layout.exponent(layout.blocks() - 1, layout.teeth - 1) + 1;
        let mut powers = Vec::with_capacity(doublings + 1);
        powers.push(Point::from(point));
        for i in 0..doublings {
            powers.push(powers[i].doubled());
        }
        let powers = Point::to_affine(&powers)?;

        let mut points = Vec::with_capacity(layout.blocks() * layout.points_a_block());
        for block in 0..layout.blocks() {
            let first = points.len();
            let mut lowest = Point::from(powers[layout.exponent(block, layout.teeth - 1)]);
            for tooth in 0..layout.teeth - 1 {
                lowest = lowest.plus_affine(&powers[layout.exponent(block, tooth)].negated());
            }
            points.push(lowest);
            // Changing a sign from -1 to +1 adds twice the tooth's power.
            for tooth in 0..layout.teeth - 1 {
                let twice = powers[layout.exponent(block, tooth) + 1];
                for i in first..points.len() {
                    points.push(points[i].plus_affine(&twice));
                }
            }
        }
        let points = Point::to_affine(&points)?.into_boxed_slice();
        Some(Self { layout, points })
    }

    /// The digits of a scalar u, one bit per digit, set for +1 and clear for -1: the v below n with
    /// 2v - (2^digits - 1) = u modulo n.
    pub(super) fn digits(&self, u: Scalar) -> Limbs {
        u.times(Scalar::HALF).plus(self.layout.offset).integer()
    }

    /// The point that the digits of one column add. `None` if the last block has no such row.
    #[inline]
    pub(super) fn addend(&self, digits: &Limbs, block: usize, row: usize) -> Option<AffinePoint> {
        let Layout { teeth, columns, .. } = *self.layout;
        let column = block * ROWS + row;
        if column >= columns {
            return None;
        }
        let mut set = 0;
        for tooth in (0..teeth).rev() {
            let i = tooth * columns + column;
            // Digits from 256 on are -1.
            let bit = digits.get(i / 64).map_or(0, |limb| limb >> (i % 64) & 1);
            set = set << 1 | usize::from(bit == 1);
        }
        let half = self.layout.points_a_block();
        let index = block * half;
        Some(if set >= half {
            self.points[index + (set - half)]
        } else {
            // The opposite of the point for the opposite digits.
            self.points[index + (half - 1 - set)].negated()
        })
    }
}

/// `u * p + v * q`.
pub(super) fn sum_of_multiples((u, p): (Scalar, &Comb), (v, q): (Scalar, &Comb)) -> Point {
    let combs = [(p.digits(u), p), (q.digits(v), q)];
    let mut sum = Point::INFINITY;
    for row in (0..ROWS).rev() {
        if row < ROWS - 1 {
            sum = sum.doubled();
        }
        for (digits, comb) in &combs {
            for block in 0..comb.layout.blocks() {
                if let Some(addend) = comb.addend(digits, block, row) {
                    sum = sum.plus_affine(&addend);
                }
            }
        }
    }
    sum
}
