//! Tables of multiples of one point, and the sum of a multiple of each of two points by them.
//!
//! The method is the comb of Lim and Lee (CRYPTO '94) with digits +1 and -1.

use super::limbs::Limbs;
use super::point::{AffinePoint, Point};
use super::scalar::Scalar;

/// A sum takes a doubling for each row but the first, for both points together.
const ROWS: usize = 13;

/// Which multiples a table holds.
///
/// A scalar is `teeth * columns` digits, each +1 or -1; digit `i` counts 2^i. Tooth `t` has the digits
/// `t * columns ..`, so a column holds one digit of every tooth. Column `c` stands in block
/// `c / ROWS` and row `c % ROWS`.
pub(super) struct Layout {
    teeth: usize,
    columns: usize,
    /// (2^digits - 1) / 2 modulo n.
    offset: Scalar,
}

impl Layout {
    /// For G, once in a process: 64 KiB, 26 additions a multiple.
    pub(super) const GENERATOR: Self = Self::new(10);

    /// For a key: 12 KiB, 37 additions a multiple.
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

    /// The multiples of one block: the tooth of the highest digit always counts +1.
    const fn points_a_block(&self) -> usize {
        1 << (self.teeth - 1)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.blocks() * self.points_a_block() * size_of::<AffinePoint>()
    }

    /// The exponent that a tooth counts for in the first row of a block.
    const fn exponent(&self, block: usize, tooth: usize) -> usize {
        tooth * self.columns + block * ROWS
    }
}

/// The multiples of one point that a [`Layout`] names.
pub(super) struct Comb {
    layout: &'static Layout,
    pub(super) points: Box<[AffinePoint]>,
}

impl Comb {
    /// `None` only if a multiple were infinity, which cannot be for a point of order n: see the page
    /// at the head of the folder.
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
            // From -1 to +1 is twice the tooth's power.
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

    /// The digits of a scalar u, a bit each, set for +1 and clear for -1: v with
    /// 2v - (2^digits - 1) = u modulo n, and v below n.
    fn digits(&self, u: Scalar) -> Limbs {
        u.times(Scalar::HALF).plus(self.layout.offset).integer()
    }

    /// What one column adds, by the digits in it; nothing where the last block has no such row.
    #[inline]
    fn addend(&self, digits: &Limbs, block: usize, row: usize) -> Option<AffinePoint> {
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
            // The opposite of the point of all opposite digits.
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
