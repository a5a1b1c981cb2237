//! The keys of an issuer: which are usable, and which are tried for a token.

use serde_json::{Value, json};
use tower_dpop::tokens::{InvalidKeySet, TokenError};
use tower_dpop::{JwtVerifier, KeySet, Rejection};

use super::jwt::outcome_with;
use common::remove;
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _};

/// Issuers publish their keys in all of these forms.
#[test]
fn selects_the_key_of_a_token_by_its_kid_use_and_algorithm() {
    let other = Key::es256();
    let named = |key: &Key, kid: Option<&str>| {
        let mut jwk = key.public_jwk();
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    };
    let with = |jwk: &Value, member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    let key = named(&ISSUER_KEY, Some("issuer"));
    let set = |keys: Vec<Value>| json!({ "keys": keys });
    let unusable = json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "issuer", "pub": "AA" });
    let rows: Vec<(&str, Value, Option<TokenError>)> = vec![
        ("a single key", named(&ISSUER_KEY, None), None),
        ("a single key with kid", key.clone(), None),
        (
            "the same kid twice, the other key first",
            set(vec![named(&other, Some("issuer")), key.clone()]),
            None,
        ),
        (
            "a key without kid and a key with another kid",
            set(vec![named(&other, Some("other")), named(&ISSUER_KEY, None)]),
            None,
        ),
        (
            "with keys of unknown types",
            set(vec![
                unusable,
                json!({ "kty": "EC", "crv": "secp256k1" }),
                json!(7),
                key.clone(),
            ]),
            None,
        ),
        ("use sig", set(vec![with(&key, "use", json!("sig"))]), None),
        ("alg", set(vec![with(&key, "alg", json!("ES256"))]), None),
        (
            "key_ops verify",
            set(vec![with(&key, "key_ops", json!(["verify"]))]),
            None,
        ),
        (
            "another key with the same kid",
            set(vec![named(&other, Some("issuer"))]),
            Some(TokenError::Signature),
        ),
        (
            "another kid",
            set(vec![named(&ISSUER_KEY, Some("other"))]),
            Some(TokenError::Key),
        ),
        (
            "use enc",
            set(vec![
                with(&key, "use", json!("enc")),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "another alg",
            set(vec![
                with(&key, "alg", json!("ECDH-ES")),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "key_ops sign",
            set(vec![
                with(&key, "key_ops", json!(["sign"])),
                named(&other, Some("o")),
            ]),
            Some(TokenError::Key),
        ),
        (
            "a private key",
            set(vec![with(&key, "d", json!("AA")), named(&other, Some("o"))]),
            Some(TokenError::Key),
        ),
    ];
    for (name, jwks, expected) in rows {
        let tokens = JwtVerifier::new(ISSUER, AUDIENCE, jwks.to_string().parse().unwrap());
        let outcome = outcome_with(tokens, &Attempt::good());
        assert_eq!(outcome.rejection, expected.map(Rejection::Token), "{name}");
    }
}

/// Otherwise a token without `kid` could cause a verification with every key of a large set.
#[test]
fn a_token_without_kid_is_tried_with_at_most_four_keys() {
    let mut keys: Vec<Value> = (0..3).map(|_| Key::es256().public_jwk()).collect();
    let mut without_kid = Attempt::good();
    remove(&mut without_kid.token_header, "kid");
    let outcome = |keys: &[Value]| {
        let jwks = json!({ "keys": keys }).to_string();
        outcome_with(
            JwtVerifier::new(ISSUER, AUDIENCE, jwks.parse().unwrap()),
            &without_kid,
        )
    };
    keys.push(ISSUER_KEY.public_jwk());
    outcome(&keys).assert_passed("the fourth key");
    keys.insert(0, Key::es256().public_jwk());
    outcome(&keys).assert_reason("the fifth key", Rejection::Token(TokenError::Signature));
}

/// A key with the token's `kid` is tried before any number of keys without one.
#[test]
fn keys_with_the_kid_of_the_token_are_tried_first() {
    let mut keys: Vec<Value> = (0..6).map(|_| Key::es256().public_jwk()).collect();
    let mut named = ISSUER_KEY.public_jwk();
    named["kid"] = json!("issuer");
    keys.push(named);
    let set: KeySet = json!({ "keys": keys }).to_string().parse().unwrap();
    assert!(set.has_kid("issuer") && !set.has_kid("other"));
    outcome_with(JwtVerifier::new(ISSUER, AUDIENCE, set), &Attempt::good())
        .assert_passed("the last key");
}

#[test]
fn a_document_without_usable_keys_is_an_error() {
    let no_usable_key = |reasons: &str| InvalidKeySet::NoUsableKey(reasons.to_owned());
    let rows = [
        ("not JSON", "keys", InvalidKeySet::Malformed),
        (
            "keys is not an array",
            r#"{"keys":{}}"#,
            InvalidKeySet::Malformed,
        ),
        (
            "an empty set",
            r#"{"keys":[]}"#,
            no_usable_key("it is empty"),
        ),
        (
            "an array",
            "[]",
            no_usable_key("key 0 without kid: not a JSON object"),
        ),
        (
            "a symmetric key",
            r#"{"kty":"oct","k":"AAAA"}"#,
            no_usable_key(r#"key 0 without kid: kty "oct" is not supported"#),
        ),
        (
            "a point off the curve",
            r#"{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            no_usable_key(
                "key 0 without kid: its numbers are not a key, for example a point off the curve",
            ),
        ),
    ];
    for (name, document, error) in rows {
        assert_eq!(document.parse::<KeySet>().unwrap_err(), error, "{name}");
    }
}
