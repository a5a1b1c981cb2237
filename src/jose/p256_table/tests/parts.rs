//! The parts of the table, each beside plain integers or p256.
//!
//! Longer than other files: a test for each part, of which most use the same edges and points.

use p256::elliptic_curve::group::Group as _;
use p256::{ProjectivePoint, Scalar as Multiple};

use super::{Integer, N, P, hex32, scalar, to_bytes, to_integer, uncompressed};
use crate::jose::p256_table::comb::{Comb, Layout, sum_of_multiples};
use crate::jose::p256_table::field::FieldElement;
use crate::jose::p256_table::limbs::{self, is_below};
use crate::jose::p256_table::point::{AffinePoint, Point, add_each};
use crate::jose::p256_table::scalar::{ORDER, Scalar};
use crate::jose::p256_table::{ORDER_MODULO_P, P_MINUS_ORDER, P256Table, generator};

fn integer(limbs: limbs::Limbs) -> Integer {
    limbs.iter().rev().fold(Integer::ZERO, |integer, limb| {
        (integer << 64) | Integer::from(*limb)
    })
}

fn limbs_of(integer: Integer) -> limbs::Limbs {
    limbs::from_bytes(&to_bytes(integer))
}

/// Integers of 256 bits at which something may change: around 0, n, p, the powers of two, and their
/// differences.
fn edges() -> Vec<Integer> {
    let (n, p) = (to_integer(&hex32(N)), to_integer(&hex32(P)));
    let two = Integer::from(2_u32);
    let top = Integer::ONE << 256;
    let mut middles = vec![
        Integer::ZERO,
        n,
        p,
        top,
        p - n,
        n >> 1,
        p >> 1,
        top - n,
        top - p,
    ];
    middles.extend((0..256).step_by(16).map(|i| Integer::ONE << i));
    let mut edges: Vec<Integer> = middles
        .iter()
        .flat_map(|&middle| {
            [0, 1, 2, 3, 4_u32].map(|i| (middle + top + Integer::from(i) - two) % top)
        })
        .chain([0x55, 0xaa, 0x0f].map(|byte| to_integer(&[byte; 32])))
        .collect();
    edges.sort();
    edges.dedup();
    edges
}

#[test]
fn constants_are_what_they_say() {
    let (n, p) = (to_integer(&hex32(N)), to_integer(&hex32(P)));
    assert_eq!(integer(ORDER), n);
    assert_eq!(integer(P_MINUS_ORDER) + n, p);
    assert!(FieldElement::new(&limbs_of(n)) == Some(ORDER_MODULO_P));
    assert!(Scalar::HALF.plus(Scalar::HALF) == Scalar::ONE);
    assert_eq!(integer(Scalar::ONE.integer()), Integer::ONE);
    assert_eq!(integer(Scalar::ZERO.integer()), Integer::ZERO);
    assert!(AffinePoint::GENERATOR == ours(ProjectivePoint::GENERATOR));
    assert_eq!(P256Table::BYTES, 32 * 1024);
    assert_eq!(Layout::GENERATOR.bytes(), 192 * 1024);
}

#[test]
fn integers_are_compared() {
    let edges = edges();
    for &a in &edges {
        assert_eq!(integer(limbs_of(a)), a);
        for &b in &edges {
            assert_eq!(is_below(&limbs_of(a), &limbs_of(b)), a < b, "{a} {b}");
        }
    }
}

#[test]
fn scalars_are_integers_modulo_n() {
    let n = to_integer(&hex32(N));
    let edges = edges();
    for &a in &edges {
        let scalar = Scalar::reduced(&limbs_of(a));
        let residue = a % n;
        assert_eq!(integer(scalar.integer()), residue, "{a}");
        assert!(
            Scalar::new(&limbs_of(a)) == (a < n).then_some(scalar),
            "{a}"
        );
        assert_eq!(
            scalar.inverted().map(|inverse| integer(inverse.integer())),
            residue.inv_mod(n),
            "{a}"
        );
        for &b in &edges {
            let other = Scalar::reduced(&limbs_of(b));
            let product = integer(scalar.times(other).integer());
            assert_eq!(product, a * b % n, "{a} {b}");
            let sum = integer(scalar.plus(other).integer());
            assert_eq!(sum, (a + b) % n, "{a} {b}");
            let difference = integer(scalar.minus(other).integer());
            assert_eq!(difference, (a + n + n - b) % n, "{a} {b}");
            assert_eq!(scalar == other, residue == b % n, "{a} {b}");
        }
    }
}

#[test]
fn field_elements_are_integers_modulo_p() {
    let p = to_integer(&hex32(P));
    let element = |integer: Integer| FieldElement::new(&limbs_of(integer % p)).unwrap();
    let (below, others): (Vec<_>, Vec<_>) = edges().into_iter().partition(|edge| *edge < p);
    assert!(others.len() >= 5);
    for other in others {
        assert!(FieldElement::new(&limbs_of(other)).is_none(), "{other}");
    }
    for &a in &below {
        let of_a = element(a);
        assert!(of_a.squared() == element(a * a), "{a}");
        assert!(of_a.doubled() == element(a + a), "{a}");
        assert!(of_a.negated() == element(p - a), "{a}");
        assert!(of_a.inverted() == a.inv_mod(p).map(element), "{a}");
        for &b in &below {
            let of_b = element(b);
            assert!(of_a.times(of_b) == element(a * b), "{a} {b}");
            assert!(of_a.plus(of_b) == element(a + b), "{a} {b}");
            assert!(of_a.minus(of_b) == element(a + p - b), "{a} {b}");
            assert_eq!(of_a == of_b, a == b, "{a} {b}");
        }
    }
}

fn ours(point: ProjectivePoint) -> AffinePoint {
    AffinePoint::from_uncompressed(&uncompressed(point)).unwrap()
}

#[track_caller]
fn assert_is(point: Point, expected: ProjectivePoint, name: &str) {
    let affine = Point::to_affine(&[point]);
    if bool::from(expected.is_identity()) {
        assert!(affine.is_none(), "{name}: is infinity");
        for x in [FieldElement::ZERO, FieldElement::ONE] {
            assert!(!point.has_x(x), "{name}: infinity has no x");
        }
    } else {
        let expected = ours(expected);
        assert!(affine == Some(vec![expected]), "{name}");
        assert!(point.has_x(expected.x), "{name}: has x");
        assert!(
            !point.has_x(expected.x.plus(FieldElement::ONE)),
            "{name}: has x"
        );
        assert!(!point.has_x(expected.x.negated()), "{name}: has x");
    }
}

/// The same point with a Z of its own.
fn stretched(point: ProjectivePoint, by: ProjectivePoint) -> Point {
    Point::from(ours(point - by)).plus_affine(&ours(by))
}

/// Pairs of points with one y: the points of a y are the roots of a cubic in x, of which one is
/// known.
fn pairs_of_one_y() -> Vec<(ProjectivePoint, ProjectivePoint)> {
    use p256::AffinePoint;
    use p256::elliptic_curve::point::AffineCoordinates as _;

    let p = to_integer(&hex32(P));
    let pairs: Vec<_> = (1..20_u64)
        .filter_map(|i| {
            let point = ProjectivePoint::GENERATOR * Multiple::from(i);
            let affine = point.to_affine();
            let x = to_integer(&affine.x().into());
            // x'^2 + x x' + x^2 - 3 = 0
            let [three, twelve] = [3, 12].map(Integer::from);
            let discriminant = (p * p * three + twelve - x * x * three) % p;
            let root = discriminant.pow_mod((p + Integer::ONE) >> 2, p);
            let half = (p + Integer::ONE) >> 1;
            let other = (root + p - x) * half % p;
            let other = AffinePoint::from_coordinates(&to_bytes(other).into(), &affine.y());
            Some((point, ProjectivePoint::from(other.into_option()?)))
        })
        .collect();
    assert!(pairs.len() >= 5);
    pairs
}

#[test]
fn the_group_law_is_that_of_p256() {
    let infinity = ProjectivePoint::IDENTITY;
    assert_is(Point::INFINITY, infinity, "0");
    assert_is(Point::INFINITY.doubled(), infinity, "2 * 0");
    let random = |i: u8| scalar(&[[0; 31].as_slice(), &[i]].concat().try_into().unwrap());
    let mut points: Vec<ProjectivePoint> = (1..20)
        .map(|i| ProjectivePoint::GENERATOR * random(i).pow_vartime(&p256::U256::from_u32(65_537)))
        .chain((1..20).map(|i| ProjectivePoint::GENERATOR * random(i)))
        .collect();
    points.extend(pairs_of_one_y().into_iter().map(|(_, point)| point));
    points.extend(points.clone().iter().map(|point| -point));
    let stretch = ProjectivePoint::GENERATOR * Multiple::from(0x5bd1_e995_u64);
    for (i, &a) in points.iter().enumerate() {
        for (form, of_a) in [("Z = 1", ours(a).into()), ("Z", stretched(a, stretch))] {
            let name = |what: &str| format!("{what} ({i}, {form})");
            assert_is(of_a, a, &name("P"));
            assert_is(of_a.doubled(), a.double(), &name("2 P"));
            assert_is(of_a.doubled().doubled(), a.double().double(), &name("4 P"));
            assert_is(of_a.plus_affine(&ours(a)), a.double(), &name("P + P"));
            let zero = of_a.plus_affine(&ours(-a));
            assert_is(zero, infinity, &name("P - P"));
            assert_is(zero.doubled(), infinity, &name("2 (P - P)"));
            assert_is(zero.plus_affine(&ours(a)), a, &name("P - P + P"));
            assert_is(
                zero.doubled().plus_affine(&ours(-a)),
                -a,
                &name("2 (P - P) - P"),
            );
            assert_is(of_a.doubled().plus_affine(&ours(-a)), a, &name("2 P - P"));
            assert_is(
                of_a.doubled().plus_affine(&ours(a.double())),
                a.double().double(),
                &name("2 P + 2 P"),
            );
            assert_is(
                of_a.doubled().plus_affine(&ours(-a.double())),
                infinity,
                &name("2 P - 2 P"),
            );
            for (j, &b) in points.iter().enumerate() {
                let name = format!("P + Q ({i}, {form}; {j})");
                assert_is(of_a.plus_affine(&ours(b)), a + b, &name);
            }
        }
        assert_is(
            Point::INFINITY.plus_affine(&ours(a)),
            a,
            &format!("0 + P ({i})"),
        );
    }
    for (a, b) in pairs_of_one_y() {
        for of_a in [ours(a).into(), stretched(a, stretch)] {
            assert_is(of_a.plus_affine(&ours(b)), a + b, "P + Q with one y");
            assert_is(of_a.plus_affine(&ours(-b)), a - b, "P - Q with one y");
        }
    }
}

#[test]
fn many_points_become_affine_at_once() {
    let multiples =
        |count: u64| (1..=count).map(|i| ProjectivePoint::GENERATOR * Multiple::from(i));
    let stretch = ProjectivePoint::GENERATOR * Multiple::from(1_000_u64);
    let points: Vec<Point> = multiples(50)
        .map(|point| stretched(point, stretch))
        .collect();
    assert!(Point::to_affine(&points) == Some(multiples(50).map(ours).collect()));
    assert!(Point::to_affine(&[]) == Some(Vec::new()));
    for at in [0, 25, 49] {
        let mut points = points.clone();
        points[at] = Point::INFINITY;
        assert!(Point::to_affine(&points).is_none(), "infinity at {at}");
    }
}

/// A multiple of G to each of others: rows with one multiple that may be the same or the opposite.
#[test]
fn many_points_are_added_at_once() {
    /// A name, the points, those that are added to them, and the sums.
    type Row = (
        &'static str,
        &'static [i64],
        &'static [i64],
        Option<&'static [i64]>,
    );

    let multiple = |i: i64| {
        let multiple = ProjectivePoint::GENERATOR * Multiple::from(i.unsigned_abs());
        if i < 0 { -multiple } else { multiple }
    };
    let points =
        |multiples: &[i64]| -> Vec<_> { multiples.iter().map(|&i| ours(multiple(i))).collect() };
    let rows: [Row; 10] = [
        ("one", &[3], &[5], Some(&[8])),
        (
            "a sum that is another's",
            &[3, 8, 2],
            &[5, -3, 1],
            Some(&[8, 5, 3]),
        ),
        ("some of them", &[1, 2, 3, 4], &[7, 8], Some(&[8, 10, 3, 4])),
        ("none", &[1, 2], &[], Some(&[1, 2])),
        ("nothing", &[], &[], Some(&[])),
        ("negative", &[-1, -2], &[-5, 7], Some(&[-6, 5])),
        ("the same first", &[2, 3, 4], &[2, 1, 1], None),
        ("the same last", &[2, 3, 4], &[1, 1, 4], None),
        ("the opposite", &[2, 3, 4], &[1, -3, 1], None),
        ("two of them", &[2, 3, 4], &[1, 3, -4], None),
    ];
    for (name, before, addends, after) in rows {
        let mut sums = points(before);
        let added = add_each(&mut sums, &points(addends));
        assert_eq!(added.is_some(), after.is_some(), "{name}");
        assert!(sums == points(after.unwrap_or(before)), "{name}");
    }
    for (a, b) in pairs_of_one_y() {
        let mut sums = [a, -a].map(ours);
        assert!(add_each(&mut sums, &[b, b].map(ours)).is_some());
        assert!(sums == [a + b, b - a].map(ours));
    }
}

/// Digit by digit: the entries of block b are the sums of ±2^(columns t + 8 b) P over the teeth t,
/// the last of which is positive.
#[test]
fn every_entry_is_the_multiple_that_it_stands_for() {
    let key = ProjectivePoint::GENERATOR * Multiple::from(0x9e37_79b9_7f4a_7c15_u64);
    let of_key = Comb::new(ours(key), &Layout::KEY).unwrap();
    let rows = [
        (
            "G",
            ProjectivePoint::GENERATOR,
            generator().unwrap(),
            11,
            24,
            3,
        ),
        ("Q", key, &of_key, 8, 32, 4),
    ];
    for (name, point, comb, teeth, columns, blocks) in rows {
        let half = 1 << (teeth - 1);
        assert_eq!(comb.points.len(), blocks * half);
        for block in 0..blocks {
            let powers: Vec<ProjectivePoint> = (0..teeth)
                .map(|tooth| {
                    let power = Integer::ONE << (columns * tooth + 8 * block);
                    point * scalar(&to_bytes(power % to_integer(&hex32(N))))
                })
                .collect();
            for entry in 0..half {
                let signs = entry | half;
                let sum = (0..teeth)
                    .map(|tooth| match signs >> tooth & 1 {
                        0 => -powers[tooth],
                        _ => powers[tooth],
                    })
                    .sum();
                assert!(
                    comb.points[entry * blocks + block] == ours(sum),
                    "{name}, block {block}, entry {entry}"
                );
            }
        }
    }
}

#[test]
fn sums_of_multiples_are_those_of_p256() {
    let generator = generator().unwrap();
    let keys = [
        ("G", Multiple::ONE),
        ("-G", -Multiple::ONE),
        ("2 G", Multiple::from(2_u64)),
        ("some multiple", scalar(&[0x5a; 32])),
    ];
    let edges = edges();
    for (name, d) in keys {
        let key = ProjectivePoint::GENERATOR * d;
        let comb = Comb::new(ours(key), &Layout::KEY).unwrap();
        // All of each with few of the other.
        let few = [0, 1, edges.len() / 2, edges.len() - 1].map(|i| edges[i]);
        let pairs = edges.iter().flat_map(|&edge| {
            few.into_iter()
                .flat_map(move |few| [(edge, few), (few, edge)])
        });
        for (u, v) in pairs {
            let sum = sum_of_multiples(
                (Scalar::reduced(&limbs_of(u)), generator),
                (Scalar::reduced(&limbs_of(v)), &comb),
            );
            let multiple = scalar(&to_bytes(u)) + scalar(&to_bytes(v)) * d;
            let name = format!("{u} G + {v} Q, where Q is {name}");
            assert_is(sum, ProjectivePoint::GENERATOR * multiple, &name);
        }
    }
}

/// The point with x = 0, whose x may be written as p, and others that are written as they must not
/// be, or are none.
#[test]
fn only_points_of_the_curve_have_a_table() {
    let good = uncompressed(ProjectivePoint::GENERATOR);
    let changed = |at: usize, bytes: &[u8]| {
        let mut point = good;
        point[at..at + bytes.len()].copy_from_slice(bytes);
        point
    };
    let p = to_integer(&hex32(P));
    let b = hex32("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
    let root_of_b = to_integer(&b).pow_mod((p + Integer::ONE) >> 2, p);
    let with_y_of_zero = |x: &[u8; 32]| -> [u8; 65] {
        [&[4], x.as_slice(), &to_bytes(root_of_b)]
            .concat()
            .try_into()
            .unwrap()
    };
    let y = to_integer(good[33..].first_chunk().unwrap());
    let rows = [
        ("G", good, true),
        ("-G", changed(33, &to_bytes(p - y)), true),
        ("x = 0", with_y_of_zero(&[0; 32]), true),
        ("x = p for 0", with_y_of_zero(&to_bytes(p)), false),
        (
            "y is another",
            changed(33, &to_bytes(y + Integer::ONE)),
            false,
        ),
        ("y = 0", changed(33, &[0; 32]), false),
        ("y = p", changed(33, &to_bytes(p)), false),
        ("x is another", changed(32, &[good[32] ^ 1]), false),
        (
            "x and y swapped",
            { changed(1, &[&good[33..], &good[1..33]].concat()) },
            false,
        ),
        ("all ones", changed(1, &[0xff; 64]), false),
        ("all zero", changed(1, &[0; 64]), false),
        ("form 0", changed(0, &[0]), false),
        ("form 2", changed(0, &[2]), false),
        ("form 3", changed(0, &[3]), false),
        ("form 5", changed(0, &[5]), false),
        ("form 6", changed(0, &[6]), false),
        ("form 7", changed(0, &[7]), false),
    ];
    for (name, point, is_point) in rows {
        assert_eq!(P256Table::new(&point).is_some(), is_point, "{name}");
    }
}

/// RFC 6979 appendix A.2.5, with SHA-256 and the message "sample".
#[test]
fn a_signature_is_of_its_message_and_of_64_bytes() {
    let point = [
        [4].as_slice(),
        &hex32("60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"),
        &hex32("7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"),
    ];
    let table = P256Table::new(&point.concat().try_into().unwrap()).unwrap();
    let good = [
        hex32("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"),
        hex32("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"),
    ]
    .concat();
    let rows = [
        ("good", b"sample".as_slice(), good.clone(), true),
        ("another message", b"test", good.clone(), false),
        ("no signature", b"sample", Vec::new(), false),
        ("a byte less", b"sample", good[..63].to_vec(), false),
        (
            "a byte more",
            b"sample",
            [&good, [0].as_slice()].concat(),
            false,
        ),
        (
            "a byte before",
            b"sample",
            [[0].as_slice(), &good].concat(),
            false,
        ),
        ("twice", b"sample", good.repeat(2), false),
    ];
    for (name, message, signature, is_good) in rows {
        assert_eq!(table.verify(message, &signature).is_ok(), is_good, "{name}");
    }
}
