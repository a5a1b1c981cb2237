//! Signatures at the edges of ECDSA and of the comb: good ones, and ones with a single defect.
//!
//! p256 and plain integers make all of them from the number of a batch: the same number gives the same cases.
//! If the client's private key d is known, u1 G + u2 Q = (u1 + u2 d) G, so there is a good signature
//! for any u1 and u2: r is the x of that point, s = r / u2, z = u1 s.
//!
//! Longer than other files: one family of cases, of which each part uses the others.

use p256::elliptic_curve::group::Group as _;
use p256::elliptic_curve::point::{AffineCoordinates as _, DecompressPoint as _};
use p256::elliptic_curve::subtle::Choice;
use p256::{AffinePoint, ProjectivePoint, Scalar};
use sha2::{Digest as _, Sha256};

use super::{Integer, N, P, bytes, hex32, scalar, to_bytes, to_integer, uncompressed};

/// What is known of a case by how it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stated {
    Good,
    Bad,
    /// Decided by those who are asked; they have to agree.
    Nothing,
}

#[derive(Clone)]
pub(super) struct Case {
    pub(super) family: &'static str,
    pub(super) stated: Stated,
    pub(super) digest: [u8; 32],
    pub(super) signature: [u8; 64],
}

/// One key and signatures to be asked about by it.
pub(super) struct Batch {
    /// `04 ‖ x ‖ y`.
    pub(super) point: [u8; 65],
    pub(super) cases: Vec<Case>,
}

impl Batch {
    /// Of five kinds in turn; those of one kind go through its places one after the other.
    pub(super) fn new(number: u64, cases_a_key: usize) -> Self {
        let mut random = Random { number, drawn: 0 };
        let index = usize::try_from(number / 5).unwrap();
        match number % 5 {
            0 => Self::of_known_key(random.scalar(), cases_a_key, &mut random),
            1 => {
                let multiple = Scalar::from(index as u64 % 64 + 1);
                let d = signed(multiple, random.below(2));
                Self::of_known_key(d, cases_a_key, &mut random)
            }
            2 => {
                // 2^i for every exponent of both combs' tables, and 2^-i.
                let power = power_of_two(index % 256);
                let power = [power, inverse(power)][index / 256 % 2];
                let d = signed(power, random.below(2));
                Self::of_known_key(d, cases_a_key, &mut random)
            }
            3 => Self::of_a_meeting(index, &mut random),
            _ => Self::of_a_chosen_point(&mut random),
        }
    }

    fn of_known_key(d: Scalar, count: usize, random: &mut Random) -> Self {
        let mut cases = Vec::new();
        while cases.len() < count {
            let good = match random.below(6) {
                0 => {
                    cases.push(edges(random));
                    continue;
                }
                1 => by_nonce(d, random),
                2 => {
                    // s at an edge, by the digest that goes with it.
                    let (k, s) = (random.scalar(), random.scalar_or_edge());
                    let r = x_modulo_n(ProjectivePoint::mul_by_generator(&k));
                    let case = Case::new("s chosen", Stated::Good, s * k - r * d, r, s);
                    if s == Scalar::ZERO {
                        cases.push(case.stated(Stated::Bad));
                        continue;
                    }
                    case
                }
                3 => {
                    // u1 G = u2 Q, or one is the opposite of the other.
                    let u1 = random.scalar_or_edge();
                    let u2 = signed(u1 * inverse(d), random.below(2));
                    let point = (u1 + u2 * d) * GENERATOR;
                    let Some(case) = with_multiples("u1 G = ±u2 Q", u1, u2, point) else {
                        cases.extend(with_infinity(u1, u2, random));
                        continue;
                    };
                    case
                }
                _ => {
                    let (u1, u2) = (random.scalar_or_edge(), random.scalar_or_edge());
                    let point = (u1 + u2 * d) * GENERATOR;
                    let Some(case) = with_multiples("u1, u2 chosen", u1, u2, point) else {
                        continue;
                    };
                    cases.extend(beside(&case, u1, u2, point, random));
                    case
                }
            };
            cases.extend(mutated(&good, random));
            cases.push(good);
        }
        cases.truncate(count);
        Self {
            point: uncompressed(GENERATOR * d),
            cases,
        }
    }

    /// A key for which the sum, before one of its steps, is the step's addend, its opposite, or
    /// infinity.
    fn of_a_meeting(index: usize, random: &mut Random) -> Self {
        loop {
            let (u1, u2) = match random.below(4) {
                0 => (random.scalar_or_edge(), random.scalar_or_edge()),
                _ => (random.scalar(), random.scalar()),
            };
            let steps = steps(u1, u2);
            let Step { before, addend } = steps[index % steps.len()];
            let (family, sign) = [
                ("meets the same point", Scalar::ONE),
                ("meets the opposite point", -Scalar::ONE),
                ("meets at infinity", Scalar::ZERO),
            ][index / steps.len() % 3];
            // before.0 + before.1 d = sign (addend.0 + addend.1 d)
            let divisor = before.1 - sign * addend.1;
            if divisor == Scalar::ZERO {
                // No key has a part in the sum yet: a multiple of G in the first pairs, or the start of the rows.
                if before.1 == Scalar::ZERO {
                    return Self::of_known_key(random.scalar(), 4, random);
                }
                continue;
            }
            let d = (sign * addend.0 - before.0) * inverse(divisor);
            let point = (u1 + u2 * d) * GENERATOR;
            if d == Scalar::ZERO {
                continue;
            }
            let mut cases = Vec::new();
            if let Some(good) = with_multiples(family, u1, u2, point) {
                cases.extend(beside(&good, u1, u2, point, random));
                cases.push(good);
            } else {
                // The last step meets the opposite point.
                cases.extend(with_infinity(u1, u2, random));
            }
            return Self {
                point: uncompressed(GENERATOR * d),
                cases,
            };
        }
    }

    /// A key for which R is a point with an x that is not easily met: n or more, or below p - n.
    fn of_a_chosen_point(random: &mut Random) -> Self {
        loop {
            let low = match random.below(4) {
                // An edge of what wraps.
                0 => Integer::from(random.below(16)),
                1 => p() - n() - Integer::ONE - Integer::from(random.below(16)),
                _ => Integer::from_be_slice(&random.bytes()) % (p() - n()),
            };
            let (family, x) = match random.below(3) {
                0 => ("x below p - n", low),
                _ => ("x from n on", low + n()),
            };
            let odd = Choice::from(u8::from(random.below(2) == 1));
            let Some(point) = AffinePoint::decompress(&to_bytes(x).into(), odd).into_option()
            else {
                continue;
            };
            let point = ProjectivePoint::from(point);
            let (u1, u2) = (random.scalar_or_edge(), random.scalar_or_edge());
            if u2 == Scalar::ZERO {
                continue;
            }
            let key = (point - GENERATOR * u1) * inverse(u2);
            if bool::from(key.is_identity()) {
                continue;
            }
            let mut cases = Vec::new();
            if let Some(good) = with_multiples(family, u1, u2, point) {
                cases.extend(beside(&good, u1, u2, point, random));
                cases.extend(mutated(&good, random));
                // The same r, not reduced: the x itself where it wraps.
                let r = Integer::from_be_slice(&good.signature[..32]) + n();
                cases.push(good.with_r("r + n", Stated::Bad, to_bytes(r)));
                cases.push(good);
            } else {
                // x is 0 or n. The r that would wrap to 0 is p - n.
                let r = scalar(&to_bytes(p() - n()));
                let s = r * inverse(u2);
                cases.push(Case::new("x is 0 or n", Stated::Bad, u1 * s, r, s));
                cases.push(Case::new("x is 0 or n", Stated::Bad, u1, Scalar::ZERO, u2));
            }
            return Self {
                point: uncompressed(key),
                cases,
            };
        }
    }
}

const GENERATOR: ProjectivePoint = ProjectivePoint::GENERATOR;

impl Case {
    fn new(family: &'static str, stated: Stated, z: Scalar, r: Scalar, s: Scalar) -> Self {
        let signature = [bytes(r), bytes(s)].concat().try_into().unwrap();
        Self {
            family,
            stated,
            digest: bytes(z),
            signature,
        }
    }

    fn stated(self, stated: Stated) -> Self {
        Self { stated, ..self }
    }

    fn r(&self) -> [u8; 32] {
        *self.signature.first_chunk().unwrap()
    }

    fn s(&self) -> [u8; 32] {
        *self.signature.last_chunk().unwrap()
    }

    fn with_r(&self, family: &'static str, stated: Stated, r: [u8; 32]) -> Self {
        let mut case = self.clone();
        case.signature[..32].copy_from_slice(&r);
        Self {
            family,
            stated,
            ..case
        }
    }

    fn with_s(&self, family: &'static str, stated: Stated, s: [u8; 32]) -> Self {
        let mut case = self.clone();
        case.signature[32..].copy_from_slice(&s);
        Self {
            family,
            stated,
            ..case
        }
    }
}

/// Good, unless the point is infinity or r is zero.
fn with_multiples(
    family: &'static str,
    u1: Scalar,
    u2: Scalar,
    point: ProjectivePoint,
) -> Option<Case> {
    if u2 == Scalar::ZERO || bool::from(point.is_identity()) {
        return None;
    }
    let r = x_modulo_n(point);
    let s = r * inverse(u2);
    (r != Scalar::ZERO).then(|| Case::new(family, Stated::Good, u1 * s, r, s))
}

/// u1 G + u2 Q is infinity.
fn with_infinity(u1: Scalar, u2: Scalar, random: &mut Random) -> Option<Case> {
    let r = random.scalar_or_edge();
    if u2 == Scalar::ZERO || r == Scalar::ZERO {
        return None;
    }
    let s = r * inverse(u2);
    Some(Case::new("R is infinity", Stated::Bad, u1 * s, r, s))
}

/// A signature as one is made, of any digest.
fn by_nonce(d: Scalar, random: &mut Random) -> Case {
    let digest = match random.below(2) {
        0 => random.bytes(),
        _ => random.edge(),
    };
    loop {
        let k = match random.below(4) {
            0 => random.scalar_or_edge(),
            _ => random.scalar(),
        };
        if k == Scalar::ZERO {
            continue;
        }
        let r = x_modulo_n(ProjectivePoint::mul_by_generator(&k));
        let s = (scalar(&digest) + r * d) * inverse(k);
        if s != Scalar::ZERO {
            let case = Case::new("signed", Stated::Good, Scalar::ZERO, r, s);
            return Case { digest, ..case };
        }
    }
}

/// The same R, with an r that is not its x.
fn beside(
    good: &Case,
    u1: Scalar,
    u2: Scalar,
    point: ProjectivePoint,
    random: &mut Random,
) -> impl Iterator<Item = Case> {
    let x = Integer::from_be_slice(&point.to_affine().x());
    let right = scalar(&good.r());
    let (family, r) = match random.below(6) {
        0 => ("r is x + p - n", (x + p()) - n()),
        1 => ("r is x - 1", x + n() - Integer::ONE),
        2 => ("r is x + 1", x + Integer::ONE),
        3 => ("r is -x", p() - x),
        4 => ("r is y", Integer::from_be_slice(&point.to_affine().y())),
        _ => (
            "r is x with a bit turned",
            x ^ (Integer::ONE << random.below(256)),
        ),
    };
    let r = scalar(&to_bytes(r % n()));
    let s = r * inverse(u2);
    (r != Scalar::ZERO && r != right)
        .then(|| Case::new(family, Stated::Bad, u1 * s, r, s))
        .into_iter()
}

/// Changes of a good signature: one that leaves it good, and some that do not.
fn mutated(good: &Case, random: &mut Random) -> Vec<Case> {
    let (r, s) = (good.r(), good.s());
    let minus_s = bytes(-scalar(&s));
    // A change may by chance (s = ±r, s = (n ± 1) / 2) be one that keeps the signature good.
    let bad = |case: Case| {
        let is_good = case.r() == r && [s, minus_s].contains(&case.s());
        case.stated(if is_good { Stated::Good } else { Stated::Bad })
    };
    let turned = |bytes: [u8; 32], random: &mut Random| {
        let mut turned = bytes;
        turned[random.below(32)] ^= 1 << random.below(8);
        turned
    };
    let mut cases = vec![match random.below(10) {
        0 => bad(good.with_r("a bit of r", Stated::Bad, turned(r, random))),
        1 => bad(good.with_s("a bit of s", Stated::Bad, turned(s, random))),
        2 => Case {
            family: "a bit of the digest",
            stated: Stated::Bad,
            digest: turned(good.digest, random),
            ..*good
        },
        3 => bad(good.with_r("r and s swapped", Stated::Bad, s).with_s(
            "r and s swapped",
            Stated::Bad,
            r,
        )),
        4 => bad(good.with_r("r is n - r", Stated::Bad, bytes(-scalar(&r)))),
        5 => good.with_r("r at an edge", Stated::Nothing, random.edge()),
        6 => good.with_s("s at an edge", Stated::Nothing, random.edge()),
        7 => Case {
            family: "another digest",
            stated: Stated::Nothing,
            digest: random.edge(),
            ..*good
        },
        _ => good.with_s("s is n - s", Stated::Good, minus_s),
    }];
    // What is not reduced: only small numbers have room for n more.
    let room = to_integer(&[0xff; 32]) - n();
    for (i, (family, part)) in [("r + n", r), ("s + n", s)].into_iter().enumerate() {
        if to_integer(&part) <= room {
            let more = to_bytes(to_integer(&part) + n());
            cases.push(match i {
                0 => good.with_r(family, Stated::Bad, more),
                _ => good.with_s(family, Stated::Bad, more),
            });
        }
    }
    if to_integer(&good.digest) <= room {
        cases.push(Case {
            family: "digest + n",
            digest: to_bytes(to_integer(&good.digest) + n()),
            ..*good
        });
    }
    cases
}

/// r, s and the digest at an edge each.
fn edges(random: &mut Random) -> Case {
    let (r, s) = (random.edge(), random.edge());
    let in_range = |part| to_integer(part) > Integer::ZERO && to_integer(part) < n();
    Case {
        family: "r, s and digest at edges",
        stated: if in_range(&r) && in_range(&s) {
            Stated::Nothing
        } else {
            Stated::Bad
        },
        digest: random.edge(),
        signature: [r, s].concat().try_into().unwrap(),
    }
}

/// One addition of the comb: multiples of G and of Q.
#[derive(Clone, Copy)]
struct Step {
    before: (Scalar, Scalar),
    addend: (Scalar, Scalar),
}

/// The additions for u1 G + u2 Q, in their order, written down from the page at the head of the
/// folder and not from the code.
fn steps(u1: Scalar, u2: Scalar) -> Vec<Step> {
    const ROWS: usize = 8;
    let half = inverse(Scalar::from(2_u64));
    // For each block, the addends of its rows.
    let addends = |u: Scalar, teeth: usize, blocks: usize| -> Vec<Vec<Scalar>> {
        let columns = blocks * ROWS;
        let all_ones = power_of_two(teeth * columns) - Scalar::ONE;
        let v = to_integer(&bytes((u + all_ones) * half));
        let addend = |block: usize, row: usize| {
            let teeth = (0..teeth).map(|tooth| {
                let exponent = tooth * columns + block * ROWS;
                signed(power_of_two(exponent), usize::from(!v.bit(exponent + row)))
            });
            teeth.sum()
        };
        (0..blocks)
            .map(|block| (0..ROWS).map(|row| addend(block, row)).collect())
            .collect()
    };
    let of_g = addends(u1, 11, 3).into_iter();
    let of_q = addends(u2, 8, 4).into_iter();
    let mut lists: Vec<Vec<_>> = of_g
        .map(|list| list.into_iter().map(|g| (g, Scalar::ZERO)).collect())
        .chain(of_q.map(|list| list.into_iter().map(|q| (Scalar::ZERO, q)).collect()))
        .collect();
    let mut steps = Vec::new();
    let mut add = |sum: &mut (Scalar, Scalar), addend: (Scalar, Scalar)| {
        let before = *sum;
        steps.push(Step { before, addend });
        *sum = (before.0 + addend.0, before.1 + addend.1);
    };
    while lists.len() > 1 {
        let right = lists.split_off(lists.len().div_ceil(2));
        for (sum, addend) in lists.iter_mut().flatten().zip(right.into_iter().flatten()) {
            add(sum, addend);
        }
    }
    let mut sum = (Scalar::ZERO, Scalar::ZERO);
    for addend in lists[0].iter().rev() {
        sum = (sum.0.double(), sum.1.double());
        add(&mut sum, *addend);
    }
    assert!(sum == (u1, u2), "the digits are those of the scalars");
    steps
}

/// The bytes of SHA-256 over a counter.
struct Random {
    number: u64,
    drawn: u64,
}

impl Random {
    fn bytes(&mut self) -> [u8; 32] {
        self.drawn += 1;
        Sha256::digest([self.number, self.drawn].map(u64::to_be_bytes).concat()).into()
    }

    fn below(&mut self, bound: usize) -> usize {
        let drawn = u64::from_be_bytes(*self.bytes().first_chunk().unwrap());
        usize::try_from(drawn % bound as u64).unwrap()
    }

    fn scalar(&mut self) -> Scalar {
        scalar(&self.bytes())
    }

    /// An integer at or beside a number that means something to the algorithm.
    fn edge(&mut self) -> [u8; 32] {
        let top = Integer::ONE << 256;
        let middle = match self.below(8) {
            0 => Integer::ZERO,
            1 => n(),
            2 => p(),
            3 => top,
            4 => p() - n(),
            5 => n() >> 1,
            6 => top - n(),
            _ => Integer::ONE << self.below(256),
        };
        to_bytes((middle + top + Integer::from(self.below(5)) - Integer::from(2_u32)) % top)
    }

    /// A scalar by which digits, additions or results are special as often as one that is not.
    fn scalar_or_edge(&mut self) -> Scalar {
        let power = power_of_two(self.below(256));
        match self.below(10) {
            0 => scalar(&self.edge()),
            1 => signed(Scalar::from(self.below(16) as u64), self.below(2)),
            2 => signed(power, self.below(2)),
            3 => power - Scalar::ONE,
            4 => inverse(power),
            5 => scalar(&[[0x55; 32], [0xaa; 32], [0x0f; 32], [0x7f; 32]][self.below(4)]),
            6 => {
                // By the digits: v at an edge.
                let all_ones = power_of_two([264, 256][self.below(2)]) - Scalar::ONE;
                scalar(&self.edge()).double() - all_ones
            }
            7 => {
                // Short, as u1 and u2 would never be.
                let bits = self.below(256);
                let bytes = to_bytes(to_integer(&self.bytes()) >> bits);
                scalar(&bytes)
            }
            _ => self.scalar(),
        }
    }
}

fn signed(scalar: Scalar, odd: usize) -> Scalar {
    if odd % 2 == 1 { -scalar } else { scalar }
}

fn power_of_two(exponent: usize) -> Scalar {
    scalar(&to_bytes((Integer::ONE << exponent) % n()))
}

fn inverse(scalar: Scalar) -> Scalar {
    scalar.invert_vartime().unwrap()
}

fn x_modulo_n(point: ProjectivePoint) -> Scalar {
    scalar(&point.to_affine().x().into())
}

fn p() -> Integer {
    to_integer(&hex32(P))
}

fn n() -> Integer {
    to_integer(&hex32(N))
}
