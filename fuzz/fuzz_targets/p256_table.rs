//! ES256 by precomputed multiples, AWS-LC and p256: all three give the same result, and the known one if
//! the case was made to be valid or invalid.
#![no_main]

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::group::Group as _;
use p256::elliptic_curve::ops::Reduce as _;
use p256::elliptic_curve::point::{AffineCoordinates as _, DecompressPoint as _};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::elliptic_curve::subtle::Choice;
use p256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar};
use tower_dpop::fuzzing::PrecomputedKey;

/// All integers have 256 bits; those that must be below n are taken modulo n.
#[derive(Arbitrary, Debug)]
enum Case {
    /// Bytes as they are, by the key d G.
    Raw {
        d: [u8; 32],
        digest: [u8; 32],
        r: [u8; 32],
        s: [u8; 32],
    },
    /// Bytes as they are, by any coordinates, which may be no key.
    RawKey {
        x: [u8; 32],
        y: [u8; 32],
        digest: [u8; 32],
        r: [u8; 32],
        s: [u8; 32],
    },
    /// u1 G + u2 Q = R, by the key Q = d G.
    Multiples {
        d: [u8; 32],
        u1: [u8; 32],
        u2: [u8; 32],
        change: Change,
    },
    /// The same, by the key for which R has this x.
    Point {
        x: [u8; 32],
        odd: bool,
        u1: [u8; 32],
        u2: [u8; 32],
        change: Change,
    },
    /// A signature of this digest, with this nonce.
    Signed {
        d: [u8; 32],
        digest: [u8; 32],
        nonce: [u8; 32],
        change: Change,
    },
}

/// A change of a valid case.
#[derive(Arbitrary, Debug)]
enum Change {
    None,
    /// n - s, which is valid, too.
    MinusS,
    /// n - r.
    MinusR,
    Bit(u8, u8),
    Swapped,
    R([u8; 32]),
    S([u8; 32]),
}

struct Signed {
    point: ProjectivePoint,
    digest: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
    is_good: Option<bool>,
}

fuzz_target!(|case: Case| {
    let signed = match case {
        Case::Raw { d, digest, r, s } => Some(Signed {
            point: ProjectivePoint::GENERATOR * scalar(&d),
            digest,
            r,
            s,
            is_good: None,
        }),
        Case::RawKey { x, y, digest, r, s } => {
            let point = [[4].as_slice(), &x, &y].concat().try_into().unwrap();
            assert_one_result(&point, &digest, &[r, s].concat().try_into().unwrap(), None);
            None
        }
        Case::Multiples { d, u1, u2, change } => {
            let (d, u1, u2) = (scalar(&d), scalar(&u1), scalar(&u2));
            let point = ProjectivePoint::GENERATOR * (u1 + u2 * d);
            with_multiples(ProjectivePoint::GENERATOR * d, u1, u2, point)
                .map(|signed| changed(signed, &change))
        }
        Case::Point {
            x,
            odd,
            u1,
            u2,
            change,
        } => {
            let (u1, u2) = (scalar(&u1), scalar(&u2));
            let odd = Choice::from(u8::from(odd));
            let point = AffinePoint::decompress(&x.into(), odd).into_option();
            point.zip(inverse(u2)).and_then(|(point, inverse)| {
                let key =
                    (ProjectivePoint::from(point) - ProjectivePoint::GENERATOR * u1) * inverse;
                with_multiples(key, u1, u2, point.into()).map(|signed| changed(signed, &change))
            })
        }
        Case::Signed {
            d,
            digest,
            nonce,
            change,
        } => {
            let (d, nonce) = (scalar(&d), scalar(&nonce));
            inverse(nonce).map(|inverse| {
                let r = x_modulo_n(ProjectivePoint::GENERATOR * nonce);
                let s = (scalar(&digest) + r * d) * inverse;
                let signed = Signed {
                    point: ProjectivePoint::GENERATOR * d,
                    digest,
                    r: r.to_bytes().into(),
                    s: s.to_bytes().into(),
                    is_good: Some(r != Scalar::ZERO && s != Scalar::ZERO),
                };
                changed(signed, &change)
            })
        }
    };
    if let Some(signed) = signed
        && !bool::from(signed.point.is_identity())
    {
        let point = signed.point.to_affine().to_uncompressed_point();
        let signature = [signed.r, signed.s].concat().try_into().unwrap();
        let point = point.as_slice().try_into().unwrap();
        assert_one_result(&point, &signed.digest, &signature, signed.is_good);
    }
});

fn assert_one_result(
    point: &[u8; 65],
    digest: &[u8; 32],
    signature: &[u8; 64],
    is_good: Option<bool>,
) {
    let table = PrecomputedKey::new(point);
    let aws_lc = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok();
    let p256 = VerifyingKey::from_sec1_bytes(point).ok();
    assert_eq!(
        [table.is_some(), aws_lc.is_some(), p256.is_some()],
        [p256.is_some(); 3],
        "is {point:02x?} a point?"
    );
    let (Some(table), Some(aws_lc), Some(p256)) = (table, aws_lc, p256) else {
        return;
    };
    let imported = Digest::import_less_safe(digest, &SHA256).unwrap();
    let results = [
        table.verifies(digest, signature),
        aws_lc.verify_digest_sig(&imported, signature).is_ok(),
        Signature::from_slice(signature)
            .is_ok_and(|signature| p256.verify_prehash(digest, &signature).is_ok()),
    ];
    assert_eq!(
        results,
        [is_good.unwrap_or(results[1]); 3],
        "key {point:02x?}, digest {digest:02x?}, signature {signature:02x?}"
    );
}

/// The valid signature for which R is this point, or an invalid one if there is none.
fn with_multiples(
    key: ProjectivePoint,
    u1: Scalar,
    u2: Scalar,
    point: ProjectivePoint,
) -> Option<Signed> {
    let is_infinity = bool::from(point.is_identity());
    let r = if is_infinity {
        Scalar::ONE
    } else {
        x_modulo_n(point)
    };
    let s = r * inverse(u2)?;
    Some(Signed {
        point: key,
        digest: (u1 * s).to_bytes().into(),
        r: r.to_bytes().into(),
        s: s.to_bytes().into(),
        is_good: Some(r != Scalar::ZERO && !is_infinity),
    })
}

/// The result of a changed case is unknown, except that n - s is as valid as s.
fn changed(mut signed: Signed, change: &Change) -> Signed {
    let minus = |bytes: &[u8; 32]| (-scalar(bytes)).to_bytes().into();
    match change {
        Change::None => return signed,
        Change::MinusS => {
            signed.s = minus(&signed.s);
            return signed;
        }
        Change::MinusR => signed.r = minus(&signed.r),
        Change::Bit(at, bit) => {
            let at = usize::from(*at) % 96;
            let part = [&mut signed.r, &mut signed.s, &mut signed.digest];
            if let Some(byte) = part.into_iter().flatten().nth(at) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Change::Swapped => std::mem::swap(&mut signed.r, &mut signed.s),
        Change::R(r) => signed.r = *r,
        Change::S(s) => signed.s = *s,
    }
    signed.is_good = None;
    signed
}

fn scalar(bytes: &[u8; 32]) -> Scalar {
    Scalar::reduce(&FieldBytes::from(*bytes))
}

fn inverse(scalar: Scalar) -> Option<Scalar> {
    scalar.invert_vartime().into_option()
}

fn x_modulo_n(point: ProjectivePoint) -> Scalar {
    scalar(&point.to_affine().x().into())
}
