//! The spellings in which issuers write their keys, and what is said about a key that cannot be used.

use serde_json::{Value, json};
use tower_dpop::jose::{InvalidJwk, Jwk};
use tower_dpop::tokens::InvalidKeySet;
use tower_dpop::{Algorithms, JwtVerifier, KeySet, Rejection};

use super::jwt::outcome_with;
use crate::proof::decode_base64url;
use common::log::logged;
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _, base64url};

type Change = fn(&mut Value);

/// Replaces the text of each of these members that the key has.
fn respell(jwk: &mut Value, members: &[&str], spell: impl Fn(&str) -> String) {
    for member in members {
        if let Some(text) = jwk[*member].as_str() {
            jwk[*member] = json!(spell(text));
        }
    }
}

fn with_leading_zeros(text: &str) -> String {
    base64url([&[0, 0], decode_base64url(text).as_slice()].concat())
}

fn without_leading_zeros(text: &str) -> String {
    let bytes = decode_base64url(text);
    base64url(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..])
}

fn padded(text: &str) -> String {
    text.to_owned() + &"=".repeat(text.len().next_multiple_of(4) - text.len())
}

fn in_standard_base64(text: &str) -> String {
    padded(&text.replace('-', "+").replace('_', "/"))
}

/// A P-256 key with a coordinate that starts with a zero, and with `-` and `_` in its text.
fn p256_with_a_short_coordinate() -> Key {
    let is_short = |key: &Key| {
        let jwk = key.public_jwk();
        let [x, y] = ["x", "y"].map(|member| jwk[member].as_str().unwrap().to_owned());
        (x.starts_with("AA") || y.starts_with("AA")) && (x + &y).contains('-')
    };
    std::iter::repeat_with(Key::es256).find(is_short).unwrap()
}

/// Sends a request whose token this key has signed, to a server with this key set.
fn outcome_of(key: &Key, keys: &Value) -> common::Outcome {
    let tokens = JwtVerifier::new(ISSUER, AUDIENCE, keys.to_string().parse().unwrap())
        .with_algorithms(Algorithms::only(key.algorithm()));
    let attempt = Attempt::but(|a| {
        a.token_key = key.clone();
        a.token_header["alg"] = json!(key.alg());
    });
    outcome_with(tokens, &attempt)
}

/// D8a: an issuer is trusted. A client is not: one key with two spellings would be two clients.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn reads_every_spelling_of_an_issuers_numbers_and_one_of_a_clients() {
    const NUMBERS: [&str; 4] = ["x", "y", "n", "e"];
    let short = p256_with_a_short_coordinate();
    let (rsa, p256) = (Key::rsa("PS256"), Key::es256());
    let (p521, ed25519) = (Key::es512(), Key::ed25519("Ed25519"));
    let integer = InvalidJwk::Integer;
    let coordinate = InvalidJwk::Coordinate;
    let rows: [(&str, &Key, Change, InvalidJwk); 13] = [
        (
            "n with leading zeros",
            &rsa,
            |jwk| respell(jwk, &["n"], with_leading_zeros),
            integer,
        ),
        (
            "e with leading zeros",
            &rsa,
            |jwk| jwk["e"] = json!("AAAAAQAB"),
            integer,
        ),
        (
            "e of 64 bits with leading zeros",
            &rsa,
            |jwk| jwk["e"] = json!("AAAAAAABAAE"),
            InvalidJwk::RsaSize,
        ),
        (
            "padded n",
            &rsa,
            |jwk| respell(jwk, &["n"], padded),
            integer,
        ),
        (
            "n in standard base64",
            &rsa,
            |jwk| respell(jwk, &["n"], in_standard_base64),
            integer,
        ),
        (
            "n and e with leading zeros in standard base64",
            &rsa,
            |jwk| {
                respell(jwk, &NUMBERS, |text| {
                    in_standard_base64(&with_leading_zeros(text))
                });
            },
            integer,
        ),
        (
            "padded P-256",
            &p256,
            |jwk| respell(jwk, &NUMBERS, padded),
            coordinate,
        ),
        (
            "padded P-521",
            &p521,
            |jwk| respell(jwk, &["x"], |text| padded(&with_leading_zeros(text))),
            coordinate,
        ),
        (
            "P-256 in standard base64",
            &short,
            |jwk| respell(jwk, &NUMBERS, in_standard_base64),
            coordinate,
        ),
        (
            "P-256 with leading zeros",
            &p256,
            |jwk| respell(jwk, &NUMBERS, with_leading_zeros),
            coordinate,
        ),
        (
            "P-256 without the leading zeros of a coordinate",
            &short,
            |jwk| respell(jwk, &NUMBERS, without_leading_zeros),
            coordinate,
        ),
        (
            "padded Ed25519",
            &ed25519,
            |jwk| respell(jwk, &NUMBERS, padded),
            coordinate,
        ),
        (
            "Ed25519 in standard base64",
            &ed25519,
            |jwk| respell(jwk, &NUMBERS, in_standard_base64),
            coordinate,
        ),
    ];
    for (name, key, change, of_a_client) in rows {
        let canonical = key.public_jwk();
        let mut respelled = canonical.clone();
        change(&mut respelled);
        assert_ne!(respelled, canonical, "{name}");
        outcome_of(key, &respelled).assert_passed(name);
        outcome_of(key, &json!({ "keys": [respelled] })).assert_passed(name);

        let parsed = respelled.to_string().parse::<Jwk>();
        assert_eq!(parsed.unwrap_err(), of_a_client, "{name}");
        let mut attempt = Attempt::with_key(key.clone());
        attempt.proof_header["jwk"] = respelled;
        let rejected = attempt.outcome().rejection.clone();
        assert!(
            matches!(rejected, Some(Rejection::Proof(_))),
            "{name}: {rejected:?}"
        );
    }
}

/// D8a: what a member of no consequence says is of no consequence.
#[test]
fn ignores_null_and_unknown_members_of_an_issuers_key() {
    let rows = [
        ("alg", Value::Null),
        ("use", Value::Null),
        ("key_ops", Value::Null),
        ("kid", Value::Null),
        ("x5c", Value::Null),
        ("x5t", Value::Null),
        ("x5t#S256", Value::Null),
        ("x5u", Value::Null),
        ("n", Value::Null),
        ("d", Value::Null),
        ("x5c", json!("not an array")),
        ("x5t", json!(7)),
        ("issuer", json!("https://login.example.com/{tenantid}/v2.0")),
        ("exp", json!(1)),
        ("k", json!({})),
    ];
    for (member, value) in rows {
        let mut jwk = ISSUER_KEY.public_jwk();
        jwk[member] = value.clone();
        let name = format!("{member} is {value}");
        outcome_of(&ISSUER_KEY, &json!({ "keys": [jwk] })).assert_passed(&name);
    }
}

/// Keys that cannot be used, by `kid`, with the reason.
#[expect(clippy::too_many_lines, reason = "a table")]
fn unusable() -> Vec<(&'static str, Value, &'static str)> {
    let named = |key: &Key, kid: &str, change: Change| {
        let mut jwk = key.public_jwk();
        jwk["kid"] = json!(kid);
        change(&mut jwk);
        jwk
    };
    let rows: Vec<(&str, Key, Change, &str)> = vec![
        (
            "1024 bits",
            Key::rsa("PS256"),
            |jwk| jwk["n"] = json!(base64url([0xff; 128])),
            "n has 1024 bits (2048 to 8192 are accepted)",
        ),
        (
            "16384 bits",
            Key::rsa("PS256"),
            |jwk| jwk["n"] = json!(base64url([0xff; 2048])),
            "n has 16384 bits (2048 to 8192 are accepted)",
        ),
        (
            "an even e",
            Key::rsa("PS256"),
            |jwk| jwk["e"] = json!("Ag"),
            "an integer of the key is malformed",
        ),
        (
            "not base64",
            Key::rsa("PS256"),
            |jwk| jwk["n"] = json!("%%"),
            "n is neither base64url nor base64",
        ),
        (
            "a null n",
            Key::rsa("PS256"),
            |jwk| jwk["n"] = Value::Null,
            "n is missing",
        ),
        (
            "a numeric e",
            Key::rsa("PS256"),
            |jwk| jwk["e"] = json!(65537),
            "e has the wrong JSON type",
        ),
        (
            "of the future",
            Key::es256(),
            |jwk| jwk["kty"] = json!("AKP"),
            r#"kty "AKP" with crv "P-256" is not supported"#,
        ),
        (
            "of Bitcoin",
            Key::es256(),
            |jwk| jwk["crv"] = json!("secp256k1"),
            r#"kty "EC" with crv "secp256k1" is not supported"#,
        ),
        (
            "without kty",
            Key::es256(),
            |jwk| jwk["kty"] = Value::Null,
            "kty is missing",
        ),
        (
            "too long",
            Key::es256(),
            |jwk| jwk["x"] = json!(base64url([1; 33])),
            "x is longer than the curve allows",
        ),
        (
            "off the curve",
            Key::es256(),
            |jwk| jwk["x"] = json!(base64url([1; 32])),
            "its numbers are not a key, for example a point off the curve",
        ),
        (
            "for agreement",
            Key::es256(),
            |jwk| jwk["alg"] = json!("ECDH-ES"),
            r#"alg "ECDH-ES" is not a supported signature algorithm"#,
        ),
        (
            "for RSA",
            Key::es256(),
            |jwk| jwk["alg"] = json!("RS256"),
            "alg belongs to another kty or crv",
        ),
        (
            "private",
            Key::es256(),
            |jwk| jwk["d"] = json!("AA"),
            "it is published with its private member d, so anyone can sign with it: replace it",
        ),
        (
            "a use of numbers",
            Key::es256(),
            |jwk| jwk["use"] = json!(1),
            "use has the wrong JSON type",
        ),
    ];
    rows.into_iter()
        .map(|(kid, key, change, reason)| (kid, named(&key, kid, change), reason))
        .collect()
}

#[test]
fn a_skipped_key_is_logged_by_its_kid_and_the_reason() {
    for (kid, jwk, reason) in unusable() {
        let set = json!({ "keys": [jwk, ISSUER_KEY.public_jwk()] }).to_string();
        let (keys, log) = logged(|| set.parse::<KeySet>().unwrap());
        assert_eq!(keys.len(), 1, "{kid}");
        let [line] = &log.lines().collect::<Vec<_>>()[..] else {
            panic!("{kid}: not one line: {log}");
        };
        let kid = format!("kid={kid:?}");
        for part in ["WARN tower_dpop: ", "is skipped", "index=0", &kid, reason] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let (error, log) = logged(|| json!({ "keys": [jwk] }).to_string().parse::<KeySet>());
        let reasons = format!("{}: {reason}", kid.replace('=', " "));
        assert_eq!(error.unwrap_err(), InvalidKeySet::NoUsableKey(reasons));
        assert_eq!(log, "", "the error has the reasons");
    }
}

/// Many issuers publish a key for encryption: that is no fault.
#[test]
fn a_key_for_something_else_is_skipped_without_a_warning() {
    for (member, value) in [("use", json!("enc")), ("key_ops", json!(["encrypt"]))] {
        let mut jwk = Key::es256().public_jwk();
        jwk[member] = value;
        let set = json!({ "keys": [ISSUER_KEY.public_jwk(), jwk] }).to_string();
        let (keys, log) = logged(|| set.parse::<KeySet>().unwrap());
        assert_eq!(keys.len(), 1, "{member}");
        assert!(
            log.contains("DEBUG tower_dpop: ") && log.contains("index=1"),
            "{log}"
        );
    }
}

/// A `kid` may be any text: of any length, and with line feeds.
#[test]
fn a_kid_cannot_forge_or_flood_the_log() {
    let mut jwk = ISSUER_KEY.public_jwk();
    jwk["kid"] = json!("a\nWARN forged \u{1b}[31m".to_owned() + &"b".repeat(100_000));
    jwk["alg"] = json!("c\n".repeat(100_000));
    let set = json!({ "keys": [ISSUER_KEY.public_jwk(), jwk] }).to_string();
    let (_, log) = logged(|| set.parse::<KeySet>().unwrap());
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains(r#"kid="a\nWARN forged "#) && log.len() < 1000,
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn the_error_of_a_set_without_usable_keys_lists_at_most_eight_reasons() {
    let error = |keys: Vec<Value>| {
        let set = json!({ "keys": keys }).to_string().parse::<KeySet>();
        set.unwrap_err().to_string()
    };
    let start = "the key set holds no key that can verify access tokens: ";
    assert_eq!(error(Vec::new()), format!("{start}it is empty"));
    let symmetric = json!({ "kty": "oct", "k": "AAAA", "kid": "mac" });
    assert_eq!(
        error(vec![symmetric, json!(7)]),
        format!(
            r#"{start}kid "mac": kty "oct" is not supported; key 1 without kid: not a JSON object"#
        )
    );
    let many = error(vec![json!(7); 100]);
    assert_eq!(many.matches("not a JSON object").count(), 8, "{many}");
    assert!(many.ends_with("; and 92 more"), "{many}");
}
