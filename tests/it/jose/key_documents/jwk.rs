//! Private keys as JWKs.

use common::base64url;
use num_bigint::BigUint;
use serde_json::{Value, json};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, SigningKey, SigningKeyError};

use super::{assert_rejected, p256_order};
use crate::jose::keys::{P256, RFC_7515, RFC_8037, RSA_2048, decode_member, private_jwk};

fn with_member(jwk: &Value, member: &str, value: impl Into<Value>) -> String {
    let mut changed = jwk.clone();
    changed[member] = value.into();
    changed.to_string()
}

fn without_member(jwk: &Value, member: &str) -> String {
    let mut changed = jwk.clone();
    changed.as_object_mut().unwrap().remove(member).unwrap();
    changed.to_string()
}

/// Changes one bit of the value.
fn with_flipped_bit(jwk: &Value, member: &str) -> String {
    let mut bytes = decode_member(jwk, member);
    bytes[20] ^= 1;
    with_member(jwk, member, base64url(bytes))
}

/// Adds a zero byte before the value.
fn with_leading_zero(jwk: &Value, member: &str) -> String {
    with_member(
        jwk,
        member,
        base64url([vec![0], decode_member(jwk, member)].concat()),
    )
}

#[test]
fn rejects_json_that_is_not_a_jwk_for_signing() {
    let ec = private_jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let rsa = private_jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let duplicate = |member: &str| {
        let text = ec.to_string();
        format!("{},\"{member}\":{}}}", &text[..text.len() - 1], ec[member])
    };
    let escaped = {
        let d = ec["d"].as_str().unwrap();
        let escaped = format!("\\u00{:02x}{}", d.as_bytes()[0], &d[1..]);
        ec.to_string().replace(d, &escaped)
    };
    assert_rejected(
        SigningKey::from_jwk,
        [
            ("nothing", String::new(), SigningKeyError::Json),
            ("garbage", "garbage".into(), SigningKeyError::Json),
            ("an array", format!("[{ec}]"), SigningKeyError::Json),
            ("two objects", format!("{ec}{ec}"), SigningKeyError::Json),
            ("a duplicate d", duplicate("d"), SigningKeyError::Json),
            ("a duplicate x", duplicate("x"), SigningKeyError::Json),
            (
                "a duplicate unknown member",
                ec.to_string().replacen('{', r#"{"a":1,"a":1,"#, 1),
                SigningKeyError::Json,
            ),
            (
                "d is a number",
                with_member(&ec, "d", 1),
                SigningKeyError::Json,
            ),
            (
                "d is null",
                with_member(&ec, "d", Value::Null),
                SigningKeyError::Missing,
            ),
            ("d has an escape", escaped, SigningKeyError::Json),
            (
                "too long",
                " ".repeat(16 * 1024 + 1),
                SigningKeyError::TooLong,
            ),
            (
                "use is enc",
                with_member(&ec, "use", "enc"),
                SigningKeyError::Use,
            ),
            (
                "key_ops is verify",
                with_member(&ec, "key_ops", json!(["verify"])),
                SigningKeyError::Use,
            ),
            (
                "key_ops is empty",
                with_member(&ec, "key_ops", json!([])),
                SigningKeyError::Use,
            ),
            (
                "alg is for another curve",
                with_member(&ec, "alg", "ES384"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg is for another key type",
                with_member(&rsa, "alg", "ES256"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg is for encryption",
                with_member(&ec, "alg", "ECDH-ES"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg is none",
                with_member(&ec, "alg", "none"),
                SigningKeyError::Algorithm,
            ),
        ],
    );
}

#[test]
fn accepts_a_jwk_whose_members_allow_signing() {
    let ec = private_jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = private_jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let rsa = private_jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    for (name, text, algorithm) in [
        ("kid", with_member(&ec, "kid", "1"), Algorithm::Es256),
        (
            "use is sig",
            with_member(&ec, "use", "sig"),
            Algorithm::Es256,
        ),
        (
            "key_ops has sign",
            with_member(&ec, "key_ops", json!(["verify", "sign"])),
            Algorithm::Es256,
        ),
        ("no alg, EC", without_member(&ec, "alg"), Algorithm::Es256),
        (
            "no alg, OKP",
            without_member(&okp, "alg"),
            Algorithm::Ed25519,
        ),
        ("no alg, RSA", without_member(&rsa, "alg"), Algorithm::Ps256),
        ("EdDSA", with_member(&okp, "alg", "EdDSA"), Algorithm::EdDsa),
        ("RS384", with_member(&rsa, "alg", "RS384"), Algorithm::Rs384),
    ] {
        let key = SigningKey::from_jwk(&text).unwrap();
        assert_eq!(key.algorithm(), algorithm, "{name}");
    }
}

#[test]
fn rejects_invalid_ec_and_okp_jwks() {
    let ec = private_jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = private_jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let another = private_jwk(&SigningKey::from_pkcs8_pem(P256).unwrap());
    let padded = format!("{}=", ec["d"].as_str().unwrap());
    let key_type = SigningKeyError::Public(InvalidJwk::KeyType);
    let coordinate = SigningKeyError::Public(InvalidJwk::Coordinate);
    assert_rejected(
        SigningKey::from_jwk,
        [
            (
                "no kty",
                without_member(&ec, "kty"),
                SigningKeyError::Public(InvalidJwk::Missing),
            ),
            ("a symmetric key", with_member(&ec, "kty", "oct"), key_type),
            ("no curve", without_member(&ec, "crv"), key_type),
            (
                "another curve",
                with_member(&ec, "crv", "secp256k1"),
                key_type,
            ),
            ("X25519", with_member(&okp, "crv", "X25519"), key_type),
            ("no x", without_member(&ec, "x"), coordinate),
            ("no y", without_member(&ec, "y"), coordinate),
            (
                "x has a leading zero",
                with_leading_zero(&ec, "x"),
                coordinate,
            ),
            ("no d", without_member(&ec, "d"), SigningKeyError::Missing),
            (
                "OKP: no d",
                without_member(&okp, "d"),
                SigningKeyError::Missing,
            ),
            (
                "d has padding",
                with_member(&ec, "d", padded),
                SigningKeyError::Member,
            ),
            (
                "d is empty",
                with_member(&ec, "d", ""),
                SigningKeyError::Length,
            ),
            (
                "d has a leading zero",
                with_leading_zero(&ec, "d"),
                SigningKeyError::Length,
            ),
            (
                "OKP: d has a leading zero",
                with_leading_zero(&okp, "d"),
                SigningKeyError::Length,
            ),
            (
                "d has 31 bytes",
                with_member(&ec, "d", base64url([1; 31])),
                SigningKeyError::Length,
            ),
            (
                "d is 0",
                with_member(&ec, "d", base64url([0; 32])),
                SigningKeyError::Scalar,
            ),
            (
                "d is n",
                with_member(&ec, "d", base64url(p256_order())),
                SigningKeyError::Scalar,
            ),
            (
                "d has a flipped bit",
                with_flipped_bit(&ec, "d"),
                SigningKeyError::Mismatch,
            ),
            (
                "OKP: d has a flipped bit",
                with_flipped_bit(&okp, "d"),
                SigningKeyError::Mismatch,
            ),
            (
                "d of another key",
                with_member(&ec, "d", another["d"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "x of another key",
                with_member(&ec, "x", another["x"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "y of another key",
                with_member(&ec, "y", another["y"].clone()),
                SigningKeyError::Mismatch,
            ),
        ],
    );
}

#[test]
fn rejects_invalid_rsa_jwks() {
    let rsa = private_jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let swapped = {
        let mut changed = rsa.clone();
        changed["p"] = rsa["q"].clone();
        changed["q"] = rsa["p"].clone();
        changed.to_string()
    };
    // Congruent to d, so only its size is wrong.
    let long_exponent = {
        let number = |name: &str| BigUint::from_bytes_be(&decode_member(&rsa, name));
        let d = number("d") + (number("p") - 1_u8) * (number("q") - 1_u8);
        assert!(d > number("n"));
        with_member(&rsa, "d", base64url(d.to_bytes_be()))
    };
    let integer = SigningKeyError::Public(InvalidJwk::Integer);
    let missing = SigningKeyError::Public(InvalidJwk::Missing);
    assert_rejected(
        SigningKey::from_jwk,
        [
            ("no n", without_member(&rsa, "n"), missing),
            ("no e", without_member(&rsa, "e"), missing),
            (
                "n has a leading zero",
                with_leading_zero(&rsa, "n"),
                integer,
            ),
            ("e is 1", with_member(&rsa, "e", "AQ"), integer),
            (
                "e is 3",
                with_member(&rsa, "e", "Aw"),
                SigningKeyError::Mismatch,
            ),
            (
                "p has a leading zero",
                with_leading_zero(&rsa, "p"),
                SigningKeyError::Length,
            ),
            (
                "qi is empty",
                with_member(&rsa, "qi", ""),
                SigningKeyError::Length,
            ),
            (
                "p is 3",
                with_member(&rsa, "p", "Aw"),
                SigningKeyError::Primes,
            ),
            (
                "oth is present",
                with_member(&rsa, "oth", json!([])),
                SigningKeyError::Primes,
            ),
            ("d is above n", long_exponent, SigningKeyError::Mismatch),
            ("p and q swapped", swapped, SigningKeyError::Mismatch),
        ],
    );
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(
                member,
                without_member(&rsa, member),
                SigningKeyError::Missing,
            )],
        );
    }
    for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(
                member,
                with_flipped_bit(&rsa, member),
                SigningKeyError::Mismatch,
            )],
        );
    }
}
