//! Ed25519 keys and signatures.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use common::base64url;
use num_bigint::BigUint;
use serde_json::json;
use sha2::{Digest as _, Sha512};
use tower_dpop::Algorithm;
use tower_dpop::jose::InvalidJwk;

use super::Verification::{InvalidKey, InvalidSignature, Verified};
use super::{OFF_THE_CURVE, Signed, integer, power_of_2};
use crate::jose::keys::{MESSAGE, hex};

const SEED: [u8; 32] = [7; 32];

/// p, the prime of the field (RFC 8032 section 5.1).
fn field_25519() -> BigUint {
    power_of_2(255) - 19_u8
}

/// L, the order of the base point (RFC 8032 section 5.1).
fn order() -> BigUint {
    power_of_2(252) + 27_742_317_777_372_353_535_851_937_790_883_648_493_u128
}

fn signed_by_ed25519() -> Signed {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    let message = MESSAGE.to_vec();
    Signed {
        algorithm: Algorithm::Ed25519,
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) }),
        signature: pair.sign(&message).as_ref().to_vec(),
        message,
    }
}

fn little_endian(integer: &BigUint) -> [u8; 32] {
    let mut bytes = integer.to_bytes_le();
    bytes.resize(32, 0);
    bytes.try_into().unwrap()
}

#[test]
fn an_ed25519_signature_must_be_canonical() {
    let signed = signed_by_ed25519();
    let (r, s) = signed.signature.split_at(32);
    let s = BigUint::from_bytes_le(s);
    let with_s = |s: &BigUint| [r, &little_endian(s)].concat();
    for (name, signature, expected) in [
        ("J-24: R and S", with_s(&s), Verified),
        ("J-24: S + L", with_s(&(&s + order())), InvalidSignature),
        (
            "J-24: S + 8 L",
            with_s(&(&s + 8_u8 * order())),
            InvalidSignature,
        ),
        ("J-24: S is L", with_s(&order()), InvalidSignature),
        (
            "J-24: S is 0",
            with_s(&BigUint::default()),
            InvalidSignature,
        ),
        (
            "J-24: R and S swapped",
            [&little_endian(&s), r].concat(),
            InvalidSignature,
        ),
        ("J-24: only R", r.to_vec(), InvalidSignature),
        ("J-24: empty", Vec::new(), InvalidSignature),
        (
            "J-24: one byte too short",
            signed.signature[..63].to_vec(),
            InvalidSignature,
        ),
        (
            "J-24: one byte too long",
            [&signed.signature, &[0][..]].concat(),
            InvalidSignature,
        ),
        ("J-24: all zero", vec![0; 64], InvalidSignature),
        ("J-24: all ones", vec![0xff; 64], InvalidSignature),
        (
            "J-24: R off the curve",
            [OFF_THE_CURVE, little_endian(&s)].concat(),
            InvalidSignature,
        ),
    ] {
        signed.assert_signature(name, signature, expected);
    }
}

/// R = 0 and S = k a satisfy the equation S B = R + k A. Only the owner of the key can compute them, but
/// verifiers disagree: AWS-LC by itself accepts the first row.
#[test]
fn an_ed25519_signature_with_a_small_order_r_is_rejected() {
    let signed = signed_by_ed25519();
    let mut scalar: [u8; 32] = *Sha512::digest(SEED).first_chunk().unwrap();
    scalar[0] &= 0b1111_1000;
    scalar[31] = scalar[31] & 0b0111_1111 | 0b0100_0000;
    let scalar = BigUint::from_bytes_le(&scalar);
    let one = BigUint::from(1_u8);
    for (name, neutral) in [
        ("0", little_endian(&one)),
        (
            "0 with the sign bit",
            little_endian(&(&one + power_of_2(255))),
        ),
        ("0 as p + 1", little_endian(&(&one + field_25519()))),
    ] {
        let hash = Sha512::new()
            .chain_update(neutral)
            .chain_update(signed.member("x"))
            .chain_update(&signed.message)
            .finalize();
        let s = BigUint::from_bytes_le(&hash) * &scalar % order();
        let signature = [neutral, little_endian(&s)].concat();
        signed.assert_signature(&format!("J-24: R is {name}"), signature, InvalidSignature);
    }
}

/// The y coordinates of the eight points whose order divides 8, with both signs of x, in every encoding
/// that fits into 32 bytes.
#[test]
fn an_ed25519_key_of_small_order_is_rejected() {
    let signed = signed_by_ed25519();
    let p = field_25519();
    let one = BigUint::from(1_u8);
    let of_order_8 = integer("7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7");
    for (name, y) in [
        ("y = 0", BigUint::default()),
        ("y = 1", one.clone()),
        ("order 8", of_order_8.clone()),
        ("order 8, negated", &p - of_order_8),
        ("y = -1", &p - &one),
        ("y = p", p.clone()),
        ("y = p + 1", &p + &one),
    ] {
        for sign in [0, 0x80] {
            let mut x = little_endian(&y);
            x[31] |= sign;
            let name = format!("J-24: {name}, sign {sign:#x}");
            signed.assert_member(&name, "x", Some(x), InvalidKey(InvalidJwk::Coordinate));
        }
    }
}

#[test]
fn an_ed25519_key_must_be_canonical() {
    let signed = signed_by_ed25519();
    let malformed = InvalidKey(InvalidJwk::Coordinate);
    let p = field_25519();
    for above in 0_u8..19 {
        for sign in [0, 0x80] {
            let mut x = little_endian(&(&p + above));
            x[31] |= sign;
            let name = format!("J-24: y is p + {above}, sign {sign:#x}");
            signed.assert_member(&name, "x", Some(x), malformed);
        }
    }
    let x = signed.member("x");
    let spki = [&hex("302a300506032b6570032100")[..], &x].concat();
    for (name, value, expected) in [
        ("J-24: the key", Some(x.clone()), Verified),
        (
            "J-24: one byte too short",
            Some(x[..31].to_vec()),
            malformed,
        ),
        (
            "J-24: one byte too long",
            Some([&x[..], &[0]].concat()),
            malformed,
        ),
        ("J-24: one byte", Some(vec![9]), malformed),
        ("J-24: empty", Some(Vec::new()), malformed),
        ("J-24: absent", None, malformed),
        ("J-24: an SPKI document", Some(spki), malformed),
        (
            "J-24: y is p - 2",
            Some(little_endian(&(p - 2_u8)).to_vec()),
            InvalidSignature,
        ),
        (
            "J-24: off the curve",
            Some(OFF_THE_CURVE.to_vec()),
            InvalidSignature,
        ),
    ] {
        signed.assert_member(name, "x", value, expected);
    }
}
