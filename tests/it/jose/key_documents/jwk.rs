//! Private keys as JWKs.

use common::base64url;
use num_bigint::BigUint;
use serde_json::{Value, json};
use tower_dpop::Algorithm;
use tower_dpop::jose::{InvalidJwk, SigningKey, SigningKeyError};

use super::{assert_rejected, order};
use crate::jose::keys::{P256, RFC_7515, RFC_8037, RSA_2048, jwk, number};

fn but(jwk: &Value, member: &str, value: impl Into<Value>) -> String {
    let mut changed = jwk.clone();
    changed[member] = value.into();
    changed.to_string()
}

fn without(jwk: &Value, member: &str) -> String {
    let mut changed = jwk.clone();
    changed.as_object_mut().unwrap().remove(member).unwrap();
    changed.to_string()
}

/// With one bit of a number turned.
fn turned(jwk: &Value, member: &str) -> String {
    let mut bytes = number(jwk, member);
    bytes[20] ^= 1;
    but(jwk, member, base64url(bytes))
}

/// With a zero byte before a number.
fn longer(jwk: &Value, member: &str) -> String {
    but(
        jwk,
        member,
        base64url([vec![0], number(jwk, member)].concat()),
    )
}

#[test]
fn rejects_what_is_no_jwk_for_signing() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
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
            ("two of them", format!("{ec}{ec}"), SigningKeyError::Json),
            ("a duplicate d", duplicate("d"), SigningKeyError::Json),
            ("a duplicate x", duplicate("x"), SigningKeyError::Json),
            (
                "a duplicate unknown member",
                ec.to_string().replacen('{', r#"{"a":1,"a":1,"#, 1),
                SigningKeyError::Json,
            ),
            ("d is a number", but(&ec, "d", 1), SigningKeyError::Json),
            (
                "d is null",
                but(&ec, "d", Value::Null),
                SigningKeyError::Json,
            ),
            ("d with an escape", escaped, SigningKeyError::Json),
            ("megabytes", " ".repeat(4 << 20), SigningKeyError::TooLong),
            ("use is enc", but(&ec, "use", "enc"), SigningKeyError::Use),
            (
                "key_ops is verify",
                but(&ec, "key_ops", json!(["verify"])),
                SigningKeyError::Use,
            ),
            (
                "key_ops is empty",
                but(&ec, "key_ops", json!([])),
                SigningKeyError::Use,
            ),
            (
                "alg of another curve",
                but(&ec, "alg", "ES384"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg of another type",
                but(&rsa, "alg", "ES256"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg of an encryption",
                but(&ec, "alg", "ECDH-ES"),
                SigningKeyError::Algorithm,
            ),
            (
                "alg none",
                but(&ec, "alg", "none"),
                SigningKeyError::Algorithm,
            ),
        ],
    );
}

#[test]
fn accepts_what_does_not_contradict_a_jwk_for_signing() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    for (name, text, algorithm) in [
        ("kid", but(&ec, "kid", "1"), Algorithm::Es256),
        ("use is sig", but(&ec, "use", "sig"), Algorithm::Es256),
        (
            "key_ops has sign",
            but(&ec, "key_ops", json!(["verify", "sign"])),
            Algorithm::Es256,
        ),
        ("no alg, EC", without(&ec, "alg"), Algorithm::Es256),
        ("no alg, OKP", without(&okp, "alg"), Algorithm::Ed25519),
        ("no alg, RSA", without(&rsa, "alg"), Algorithm::Ps256),
        ("EdDSA", but(&okp, "alg", "EdDSA"), Algorithm::EdDsa),
        ("RS384", but(&rsa, "alg", "RS384"), Algorithm::Rs384),
    ] {
        let key = SigningKey::from_jwk(&text).unwrap();
        assert_eq!(key.algorithm(), algorithm, "{name}");
    }
}

#[test]
fn rejects_broken_ec_and_okp_jwks() {
    let ec = jwk(&SigningKey::from_jwk(RFC_7515).unwrap());
    let okp = jwk(&SigningKey::from_jwk(RFC_8037).unwrap());
    let another = jwk(&SigningKey::from_pkcs8_pem(P256).unwrap());
    let padded = format!("{}=", ec["d"].as_str().unwrap());
    let no_type = SigningKeyError::Public(InvalidJwk::KeyType);
    let no_coordinate = SigningKeyError::Public(InvalidJwk::Coordinate);
    assert_rejected(
        SigningKey::from_jwk,
        [
            (
                "no kty",
                without(&ec, "kty"),
                SigningKeyError::Public(InvalidJwk::Missing),
            ),
            ("a symmetric key", but(&ec, "kty", "oct"), no_type),
            ("no curve", without(&ec, "crv"), no_type),
            ("another curve", but(&ec, "crv", "secp256k1"), no_type),
            ("X25519", but(&okp, "crv", "X25519"), no_type),
            ("no x", without(&ec, "x"), no_coordinate),
            ("no y", without(&ec, "y"), no_coordinate),
            ("a longer x", longer(&ec, "x"), no_coordinate),
            ("no d", without(&ec, "d"), SigningKeyError::Missing),
            ("OKP: no d", without(&okp, "d"), SigningKeyError::Missing),
            (
                "d with padding",
                but(&ec, "d", padded),
                SigningKeyError::Member,
            ),
            ("an empty d", but(&ec, "d", ""), SigningKeyError::Length),
            ("a longer d", longer(&ec, "d"), SigningKeyError::Length),
            (
                "OKP: a longer d",
                longer(&okp, "d"),
                SigningKeyError::Length,
            ),
            (
                "a shorter d",
                but(&ec, "d", base64url([1; 31])),
                SigningKeyError::Length,
            ),
            (
                "a d of zero",
                but(&ec, "d", base64url([0; 32])),
                SigningKeyError::Scalar,
            ),
            (
                "a d of n",
                but(&ec, "d", base64url(order())),
                SigningKeyError::Scalar,
            ),
            ("another d", turned(&ec, "d"), SigningKeyError::Mismatch),
            (
                "OKP: another d",
                turned(&okp, "d"),
                SigningKeyError::Mismatch,
            ),
            (
                "another's d",
                but(&ec, "d", another["d"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "another's x",
                but(&ec, "x", another["x"].clone()),
                SigningKeyError::Mismatch,
            ),
            (
                "another's y",
                but(&ec, "y", another["y"].clone()),
                SigningKeyError::Mismatch,
            ),
        ],
    );
}

#[test]
fn rejects_broken_rsa_jwks() {
    let rsa = jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let swapped = {
        let mut changed = rsa.clone();
        changed["p"] = rsa["q"].clone();
        changed["q"] = rsa["p"].clone();
        changed.to_string()
    };
    // Congruent to d, so that nothing else is wrong with it.
    let long_exponent = {
        let number = |name: &str| BigUint::from_bytes_be(&number(&rsa, name));
        let d = number("d") + (number("p") - 1_u8) * (number("q") - 1_u8);
        assert!(d > number("n"));
        but(&rsa, "d", base64url(d.to_bytes_be()))
    };
    let integer = SigningKeyError::Public(InvalidJwk::Integer);
    let missing = SigningKeyError::Public(InvalidJwk::Missing);
    assert_rejected(
        SigningKey::from_jwk,
        [
            ("no n", without(&rsa, "n"), missing),
            ("no e", without(&rsa, "e"), missing),
            ("a longer n", longer(&rsa, "n"), integer),
            ("an e of one", but(&rsa, "e", "AQ"), integer),
            ("another e", but(&rsa, "e", "Aw"), SigningKeyError::Mismatch),
            ("a longer p", longer(&rsa, "p"), SigningKeyError::Length),
            ("an empty qi", but(&rsa, "qi", ""), SigningKeyError::Length),
            (
                "a p of three",
                but(&rsa, "p", "Aw"),
                SigningKeyError::Primes,
            ),
            (
                "other primes",
                but(&rsa, "oth", json!([])),
                SigningKeyError::Primes,
            ),
            ("a d above n", long_exponent, SigningKeyError::Mismatch),
            ("p and q swapped", swapped, SigningKeyError::Mismatch),
        ],
    );
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(member, without(&rsa, member), SigningKeyError::Missing)],
        );
    }
    for member in ["n", "d", "p", "q", "dp", "dq", "qi"] {
        assert_rejected(
            SigningKey::from_jwk,
            [(member, turned(&rsa, member), SigningKeyError::Mismatch)],
        );
    }
}
