//! The digits of a comb, its addends, and the comparisons of limbs: every case, by an argument why there is no other.

use p256::ProjectivePoint;
use ruint::aliases::U256;

use super::{Integer, N, P, hex32, scalar, to_bytes, to_integer, uncompressed};
use crate::jose::p256_table::comb::{Comb, Layout, sum_of_multiples};
use crate::jose::p256_table::field::FieldElement;
use crate::jose::p256_table::limbs::{Limbs, from_bytes, is_below};
use crate::jose::p256_table::point::{AffinePoint, Point};
use crate::jose::p256_table::scalar::{ORDER, Scalar};
use crate::jose::p256_table::{ORDER_MODULO_P, P_MINUS_ORDER, generator};

/// A comb, and the numbers that its layout must have.
struct Case<'c> {
    name: &'static str,
    point: ProjectivePoint,
    comb: &'c Comb,
    teeth: usize,
    columns: usize,
}

const ROWS: usize = 8;

/// Calls this with the comb of G, and with that of a key.
fn for_each_comb(check: impl Fn(&Case<'_>)) {
    check(&Case {
        name: "G",
        point: ProjectivePoint::GENERATOR,
        comb: generator().unwrap(),
        teeth: 11,
        columns: 24,
    });
    let point = ProjectivePoint::GENERATOR * scalar(&[0x6b; 32]);
    check(&Case {
        name: "Q",
        point,
        comb: &Comb::new(affine(point), &Layout::KEY).unwrap(),
        teeth: 8,
        columns: 32,
    });
}

fn affine(point: ProjectivePoint) -> AffinePoint {
    AffinePoint::from_uncompressed(&uncompressed(point)).unwrap()
}

fn to_limbs(integer: Integer) -> Limbs {
    from_bytes(&to_bytes(integer))
}

fn from_limbs(limbs: &Limbs) -> Integer {
    Integer::from(U256::from_limbs(*limbs))
}

/// v(u) = u/2 + v(0) modulo n: one product and one sum, of functions that are proved. So v is known from v(0) and the
/// scalars of one bit, and the sum of its digits, 2v - (2^L - 1), is u for these only if it is u for all.
#[test]
fn the_digits_of_every_bit_alone_add_up_to_it() {
    let n = to_integer(&hex32(N));
    for_each_comb(|case| {
        let digits = case.teeth * case.columns;
        assert!((256..320).contains(&digits));
        let all = ((Integer::ONE << digits) - Integer::ONE) % n;
        let bits = (0..256).map(|i| Integer::ONE << i);
        for u in bits.chain([Integer::ZERO, Integer::ONE, n - Integer::ONE]) {
            let v = from_limbs(&case.comb.digits(Scalar::reduced(&to_limbs(u))));
            assert!(v < n, "{}: {u}", case.name);
            assert_eq!((v + v + n - all) % n, u % n, "{}: {u}", case.name);
        }
    });
}

/// An addend reads one bit per tooth. Every pattern of these, in every column, with all other bits clear and set.
#[test]
fn every_addend_is_the_sum_of_the_digits_of_its_column() {
    for_each_comb(|case| {
        let Case { teeth, columns, .. } = *case;
        let mut seen = vec![false; teeth * columns];
        for block in 0..columns / ROWS {
            let sums = sums_of_teeth(case, block);
            for row in 0..ROWS {
                let column = block * ROWS + row;
                for (pattern, expected) in sums.iter().enumerate() {
                    let mut mask = Integer::ZERO;
                    let mut bits = Integer::ZERO;
                    for tooth in 0..teeth {
                        let digit = tooth * columns + column;
                        seen[digit] = true;
                        mask |= Integer::ONE << digit;
                        bits |= Integer::from(pattern >> tooth & 1) << digit;
                    }
                    let top = (Integer::ONE << 256) - Integer::ONE;
                    if bits > top {
                        // A digit from 256 on is always -1.
                        continue;
                    }
                    for digits in [bits, bits | (top & !mask)] {
                        let addend = case.comb.addend(&to_limbs(digits), block, row);
                        let name = case.name;
                        assert!(addend == *expected, "{name}: {column}, {pattern:b}");
                    }
                }
            }
        }
        assert!(seen.iter().all(|seen| *seen), "{}: a digit", case.name);
    });
}

/// For every pattern of signs, the sum of the powers of the teeth in the first row of a block.
fn sums_of_teeth(case: &Case<'_>, block: usize) -> Vec<AffinePoint> {
    let powers: Vec<ProjectivePoint> = (0..case.teeth)
        .map(|tooth| {
            let power = Integer::ONE << (tooth * case.columns + block * ROWS);
            case.point * scalar(&to_bytes(power % to_integer(&hex32(N))))
        })
        .collect();
    (0..1_usize << case.teeth)
        .map(|pattern| {
            let signed = powers.iter().enumerate();
            affine(
                signed
                    .map(|(tooth, power)| match pattern >> tooth & 1 {
                        0 => -*power,
                        _ => *power,
                    })
                    .sum(),
            )
        })
        .collect()
}

/// An addend is the only one that reads its bits, and a sum of multiples of them without a carry. So the whole sum is
/// known from the sum of no bit, and the sums of one.
#[test]
fn every_digit_alone_counts_its_power_of_two() {
    let n = to_integer(&hex32(N));
    for_each_comb(|case| {
        let all = ((Integer::ONE << (case.teeth * case.columns)) - Integer::ONE) % n;
        let bits = (0..256).map(|i| Integer::ONE << i);
        for v in bits.chain([Integer::ZERO]) {
            let u = (v + v + n - all) % n;
            let multiple = Scalar::new(&to_limbs(u)).unwrap();
            assert_eq!(from_limbs(&case.comb.digits(multiple)), v % n);
            let none = (Scalar::ZERO, case.comb);
            for sum in [
                sum_of_multiples((multiple, case.comb), none),
                sum_of_multiples(none, (multiple, case.comb)),
            ] {
                let expected = case.point * scalar(&to_bytes(u));
                if expected == ProjectivePoint::IDENTITY {
                    assert!(Point::to_affine(&[sum]).is_none(), "{}: {v}", case.name);
                } else {
                    let sum = Point::to_affine(&[sum]).unwrap();
                    assert!(sum == [affine(expected)], "{}: {v}", case.name);
                }
            }
        }
    });
}

/// The integers whose limbs are each 0, 1, all ones, or beside the limb of this one.
fn by_classes(modulus: &Limbs) -> Vec<Limbs> {
    let classes = modulus.map(|limb| {
        let mut class = [
            0,
            1,
            limb.wrapping_sub(1),
            limb,
            limb.wrapping_add(1),
            u64::MAX,
        ]
        .to_vec();
        class.sort_unstable();
        class.dedup();
        class
    });
    let mut all = vec![[0; 4]];
    for (i, class) in classes.iter().enumerate() {
        all = all
            .iter()
            .flat_map(|limbs| {
                class.iter().map(move |limb| {
                    let mut limbs = *limbs;
                    limbs[i] = *limb;
                    limbs
                })
            })
            .collect();
    }
    all
}

/// A comparison of four limbs sees of each pair whether one is below, equal or above: 81 cases. The classes have all that
/// there are beside each modulus, and all 81 among themselves.
#[test]
fn limbs_of_every_class_are_compared_as_integers() {
    let mut pairs = 0;
    for modulus in [to_limbs(to_integer(&hex32(P))), ORDER, P_MINUS_ORDER] {
        let all = by_classes(&modulus);
        let mut orders = std::collections::BTreeSet::new();
        for a in &all {
            assert_eq!(from_limbs(a), to_integer(&to_bytes(from_limbs(a))));
            for b in &all {
                let is_less = U256::from_limbs(*a) < U256::from_limbs(*b);
                assert_eq!(is_below(a, b), is_less, "{a:x?} {b:x?}");
                orders.insert([0, 1, 2, 3].map(|i| a[i].cmp(&b[i])));
                pairs += 1;
            }
        }
        assert_eq!(orders.len(), 81);
    }
    println!("{pairs} pairs");
    assert!(pairs > 1_000_000);
}

/// Which integers are scalars, elements of the field, and have a second x with the same r.
#[test]
fn integers_of_every_class_are_accepted_below_their_modulus_only() {
    let (n, p) = (to_integer(&hex32(N)), to_integer(&hex32(P)));
    let mut below = [0; 3];
    for modulus in [to_limbs(p), ORDER, P_MINUS_ORDER] {
        for limbs in by_classes(&modulus) {
            let integer = from_limbs(&limbs);
            let residue = Scalar::reduced(&limbs);
            assert_eq!(from_limbs(&residue.integer()), integer % n, "{integer}");
            let expected = (integer < n).then_some(residue);
            assert!(Scalar::new(&limbs) == expected, "{integer}");
            let element = FieldElement::new(&limbs);
            assert_eq!(element.is_some(), integer < p, "{integer}");
            let has_second = integer + n < p;
            assert_eq!(is_below(&limbs, &P_MINUS_ORDER), has_second, "{integer}");
            if has_second {
                let second = element.unwrap().plus(ORDER_MODULO_P);
                let expected = FieldElement::new(&to_limbs(integer + n));
                assert!(Some(second) == expected, "{integer}");
            }
            for (count, is_below) in below.iter_mut().zip([integer < n, integer < p, has_second]) {
                *count += usize::from(is_below);
            }
        }
    }
    println!("{below:?} below n, p, p - n");
    assert!(below.iter().all(|count| *count > 10), "{below:?}");
}
