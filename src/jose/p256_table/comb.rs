//! Tables of multiples of one point, and the sum of multiples of two points, computed with them.
//!
//! The method is the comb of Lim and Lee (CRYPTO '94) with digits +1 and -1.

use super::limbs::Limbs;
use super::point::{AffinePoint, Point, add_each};
use super::scalar::Scalar;

/// A sum takes one doubling for each row except the first, shared by both points.
const ROWS: usize = 8;

/// The choice of multiples in a table.
///
/// A scalar has `teeth * columns` digits, each +1 or -1. Digit `i` counts 2^i times. Tooth `t` has the
/// `columns` digits from `t * columns` on, so a column has one digit of every tooth. Column `c` is in
/// block `c / ROWS` and row `c % ROWS`.
pub(super) struct Layout {
    teeth: usize,
    blocks: usize,
    /// (2^digits - 1) / 2 modulo n.
    offset: Scalar,
}

impl Layout {
    /// For G, once per process: 192 KiB, 264 digits, 24 addends per multiple.
    pub(super) const GENERATOR: Self = Self::new(11, 3);

    /// For a key: 32 KiB, 256 digits, 32 addends per multiple.
    pub(super) const KEY: Self = Self::new(8, 4);

    const fn new(teeth: usize, blocks: usize) -> Self {
        let mut power = Scalar::ONE;
        let mut i = 0;
        while i < teeth * blocks * ROWS {
            power = power.plus(power);
            i += 1;
        }
        Self {
            teeth,
            blocks,
            offset: power.minus(Scalar::ONE).times(Scalar::HALF),
        }
    }

    const fn columns(&self) -> usize {
        self.blocks * ROWS
    }

    /// The number of multiples in one block: the digit of the highest tooth is always +1.
    const fn points_a_block(&self) -> usize {
        1 << (self.teeth - 1)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.blocks * self.points_a_block() * size_of::<AffinePoint>()
    }
}

/// The multiples of one point that a [`Layout`] describes.
pub(super) struct Comb {
    layout: &'static Layout,
    /// Those of the first choice of signs for every block, then those of the next one.
    pub(super) points: Box<[AffinePoint]>,
}

impl Comb {
    /// `None` only if two of the points to be added had the same x. That is impossible for a point of
    /// order n: see the proof at the head of `mod.rs`.
    pub(super) fn new(point: AffinePoint, layout: &'static Layout) -> Option<Self> {
        // For each tooth, its power in the first row of every block, and twice that power.
        let mut power = Point::from(point);
        let mut powers = Vec::new();
        for _ in 0..layout.teeth * layout.blocks {
            let twice = power.doubled();
            powers.extend([power, twice]);
            power = (1..ROWS).fold(twice, |power, _| power.doubled());
        }
        let powers = Point::to_affine(&powers)?;
        let teeth: Vec<_> = powers.chunks_exact(2 * layout.blocks).collect();

        let (highest, others) = teeth.split_last()?;
        let mut points: Vec<_> = highest.iter().step_by(2).copied().collect();
        points.reserve_exact(layout.blocks * (layout.points_a_block() - 1));
        for tooth in others {
            let opposites: Vec<_> = tooth
                .iter()
                .step_by(2)
                .map(|power| power.negated())
                .collect();
            add_each(&mut points, &opposites)?;
        }
        // Changing a sign from -1 to +1 adds twice the tooth's power.
        for tooth in others {
            let count = points.len();
            let twice: Vec<_> = tooth
                .iter()
                .skip(1)
                .step_by(2)
                .copied()
                .cycle()
                .take(count)
                .collect();
            points.extend_from_within(..);
            add_each(&mut points[count..], &twice)?;
        }
        let points = points.into_boxed_slice();
        Some(Self { layout, points })
    }

    /// The digits of a scalar u, one bit per digit, set for +1 and clear for -1: the v below n with
    /// 2v - (2^digits - 1) = u modulo n.
    pub(super) fn digits(&self, u: Scalar) -> Limbs {
        u.times(Scalar::HALF).plus(self.layout.offset).integer()
    }

    /// The point that the digits of one column add.
    #[inline]
    pub(super) fn addend(&self, digits: &Limbs, block: usize, row: usize) -> AffinePoint {
        let Layout { teeth, blocks, .. } = *self.layout;
        let mut set = 0;
        for tooth in (0..teeth).rev() {
            let i = tooth * self.layout.columns() + block * ROWS + row;
            // Digits from 256 on are -1.
            let bit = digits.get(i / 64).map_or(0, |limb| limb >> (i % 64) & 1);
            set = set << 1 | usize::from(bit == 1);
        }
        let half = self.layout.points_a_block();
        if set >= half {
            self.points[(set - half) * blocks + block]
        } else {
            // The opposite of the point for the opposite digits.
            self.points[(half - 1 - set) * blocks + block].negated()
        }
    }
}

/// `u * p + v * q`.
pub(super) fn sum_of_multiples((u, p): (Scalar, &Comb), (v, q): (Scalar, &Comb)) -> Point {
    // A list of one addend for each row, then the next list.
    let mut points = Vec::with_capacity((p.layout.blocks + q.layout.blocks) * ROWS);
    for (digits, comb) in [(p.digits(u), p), (q.digits(v), q)] {
        for block in 0..comb.layout.blocks {
            points.extend((0..ROWS).map(|row| comb.addend(&digits, block, row)));
        }
    }
    // Halves the number of lists, until there is one.
    let mut points = points.as_mut_slice();
    while points.len() > ROWS {
        let half = (points.len() / ROWS).div_ceil(2) * ROWS;
        let (sums, addends) = points.split_at_mut(half);
        if add_each(sums, addends).is_none() {
            // Two points have the same x. Below, any points can be added.
            break;
        }
        points = &mut points[..half];
    }
    let mut sum = Point::INFINITY;
    for row in (0..ROWS).rev() {
        if row < ROWS - 1 {
            sum = sum.doubled();
        }
        for point in points[row..].iter().step_by(ROWS) {
            sum = sum.plus_affine(point);
        }
    }
    sum
}
