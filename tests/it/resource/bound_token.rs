//! The binding of an access token to the key of the proof.

#![expect(clippy::too_many_lines, reason = "tables are long")]

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, base64url};
use serde_json::{Value, json};
use tower_dpop::Rejection;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{BindingError, CredentialsError};
use tower_dpop::tokens::TokenError;

use crate::credentials::{noncanonical, set_authorization};

#[test]
fn cnf_must_contain_the_thumbprint_of_the_proofs_key() {
    let jkt = common::keys::client().jkt();
    let jkt = jkt.as_str();
    let another = Key::es256().jkt();
    let unconfirmable = || Rejection::from(BindingError::Unconfirmable);
    let malformed = || Rejection::Token(TokenError::Malformed);
    // The last character is kept, because in the other case it would not be canonical.
    let other_case = |character: char| {
        if character.is_ascii_lowercase() {
            character.to_ascii_uppercase()
        } else {
            character.to_ascii_lowercase()
        }
    };
    let in_other_case: String = jkt[..42].chars().map(other_case).collect();
    let rows: Vec<(&str, Value, Option<Rejection>)> = vec![
        ("R-6.1.1: the key of the proof", json!({ "jkt": jkt }), None),
        (
            "F-14: the key and a certificate",
            json!({ "jkt": jkt, "x5t#S256": jkt }),
            None,
        ),
        (
            "F-14: the key and members of any type",
            json!({ "jkt": jkt, "kid": 1, "jwk": null }),
            None,
        ),
        (
            "R-6.2 R-4.3.12b: another key",
            json!({ "jkt": another }),
            Some(BindingError::OtherKey.into()),
        ),
        (
            "F-13: only a certificate",
            json!({ "x5t#S256": jkt }),
            Some(unconfirmable()),
        ),
        (
            "F-13: a whole key",
            json!({ "jwk": common::keys::client().public_jwk() }),
            Some(unconfirmable()),
        ),
        ("F-13: a kid", json!({ "kid": "1" }), Some(unconfirmable())),
        (
            "F-13: a jku",
            json!({ "jku": "https://as.example.com/jwks" }),
            Some(unconfirmable()),
        ),
        (
            "F-13: an unknown method",
            json!({ "osc": {} }),
            Some(unconfirmable()),
        ),
        ("F-13: an empty object", json!({}), Some(unconfirmable())),
        (
            "F-13: jkt in upper case",
            json!({ "JKT": jkt }),
            Some(unconfirmable()),
        ),
        (
            "F-12: cnf is null",
            json!(null),
            Some(BindingError::Unbound.into()),
        ),
        ("F-15: cnf is true", json!(true), Some(malformed())),
        ("F-15: cnf is a number", json!(0), Some(malformed())),
        ("F-15: cnf is a string", json!(jkt), Some(malformed())),
        ("F-15: cnf is an empty string", json!(""), Some(malformed())),
        (
            "F-15: cnf is an array",
            json!([{ "jkt": jkt }]),
            Some(malformed()),
        ),
        ("F-15: cnf is an empty array", json!([]), Some(malformed())),
        (
            "F-13: jkt is null",
            json!({ "jkt": null }),
            Some(unconfirmable()),
        ),
        (
            "F-15: jkt is false",
            json!({ "jkt": false }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is a number",
            json!({ "jkt": 43 }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is an array",
            json!({ "jkt": [jkt] }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is an object",
            json!({ "jkt": { "S256": jkt } }),
            Some(malformed()),
        ),
        (
            "F-15: jkt is empty",
            json!({ "jkt": "" }),
            Some(malformed()),
        ),
        (
            "F-15: jkt has 42 characters",
            json!({ "jkt": &jkt[..42] }),
            Some(malformed()),
        ),
        (
            "F-15: jkt has 44 characters",
            json!({ "jkt": format!("{jkt}A") }),
            Some(malformed()),
        ),
        (
            "F-15: jkt has 64 bytes",
            json!({ "jkt": base64url([0; 64]) }),
            Some(malformed()),
        ),
        (
            "F-15: jkt in hexadecimal",
            json!({ "jkt": "0f".repeat(32) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: jkt with padding",
            json!({ "jkt": format!("{jkt}=") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: jkt with a space",
            json!({ "jkt": format!("{jkt} ") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: jkt is not canonical",
            json!({ "jkt": noncanonical(jkt) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: jkt in the alphabet of base64",
            json!({ "jkt": format!("+/{}", &jkt[2..]) }),
            Some(malformed()),
        ),
        (
            "F-15: jkt with characters outside of base64url",
            json!({ "jkt": "é".repeat(43) }),
            Some(malformed()),
        ),
        (
            "J-27: jkt in another case, which is another key",
            json!({ "jkt": in_other_case + &jkt[42..] }),
            Some(BindingError::OtherKey.into()),
        ),
    ];
    for (name, cnf, expected) in rows {
        let attempt = Attempt::but(|a| a.token_claims["cnf"] = cnf.clone());
        match expected {
            None => attempt.outcome().assert_passed(name),
            Some(rejection) => attempt.outcome().assert_reason(name, rejection),
        }
        Attempt::but(|a| {
            a.token_claims["cnf"] = cnf;
            set_authorization(a, &["Bearer TOKEN"]);
        })
        .outcome()
        .assert_reason(
            &format!("F-10 F-13 (DPoP only): {name}, under Bearer"),
            CredentialsError::Bearer,
        );
    }
}

/// So an attacker without a token for a key cannot make the server verify signatures by it.
#[test]
fn the_binding_is_checked_before_the_signature() {
    let with_wrong_signature = |change: fn(&mut Attempt)| {
        Attempt::but(|a| {
            change(a);
            a.edit_proof = |proof| {
                let (signed, _) = proof.rsplit_once('.').unwrap();
                format!("{signed}.{}", base64url([1; 64]))
            };
        })
        .outcome()
    };
    with_wrong_signature(|_| {}).assert_reason("bound", ProofError::Signature);
    with_wrong_signature(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt()))
        .assert_reason("bound to another key", BindingError::OtherKey);
    with_wrong_signature(|a| common::remove(&mut a.token_claims, "cnf"))
        .assert_reason("not bound", BindingError::Unbound);
}

#[test]
fn a_token_without_cnf_is_rejected_under_either_scheme() {
    let unbound = |scheme: &str, with_proof: bool| {
        Attempt::but(|a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
            set_authorization(a, &[&format!("{scheme} TOKEN")]);
            if !with_proof {
                a.dpop = Some(Vec::new());
            }
        })
        .outcome()
    };
    unbound("DPoP", true).assert_reason("F-12: with a proof", BindingError::Unbound);
    unbound("DPoP", false).assert_reason("F-12 R-7.1.2: without a proof", ProofError::Missing);
    for with_proof in [true, false] {
        unbound("Bearer", with_proof).assert_reason(
            "F-11 (DPoP only): an unbound bearer token",
            CredentialsError::Bearer,
        );
    }
}

/// F-15 J-12: two parsers could read different keys.
#[test]
fn a_token_with_duplicate_members_in_cnf_is_rejected() {
    let token_with = |cnf: &str, attempt: &Attempt| {
        let mut claims = attempt.token_claims.clone();
        claims["cnf"] = json!("HERE");
        let claims = claims
            .to_string()
            .replace(r#""HERE""#, &cnf.replace("JKT", &attempt.key.jkt()));
        attempt
            .token_key
            .sign_text(attempt.token_header.to_string(), claims)
    };
    for (name, cnf) in [
        ("two jkt", r#"{"jkt":"JKT","jkt":"JKT"}"#),
        ("two jkt, one escaped", r#"{"jkt":"JKT","j\u006bt":"JKT"}"#),
        ("two kid", r#"{"jkt":"JKT","kid":1,"kid":1}"#),
        ("two cnf", r#"{"jkt":"JKT"},"cnf":{"jkt":"JKT"}"#),
    ] {
        Attempt::but(|a| a.token = Some(token_with(cnf, a)))
            .outcome()
            .assert_reason(&format!("F-15 J-12: {name}"), TokenError::Malformed);
    }
    Attempt::but(|a| a.token = Some(token_with(r#"{"j\u006bt":"JKT"}"#, a)))
        .outcome()
        .assert_passed("one jkt, escaped");
}

/// F-14: the application can check the members that this crate does not check.
#[test]
fn the_other_members_of_cnf_reach_the_application() {
    let certificate = base64url([7; 32]);
    let outcome =
        Attempt::but(|a| a.token_claims["cnf"]["x5t#S256"] = json!(certificate)).outcome();
    let cnf: Value = outcome.token.unwrap().claims().claim("cnf").unwrap();
    assert_eq!(cnf["x5t#S256"], json!(certificate));
}
