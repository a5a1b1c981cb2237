//! The token, its hash and its binding.

use super::*;

/// Knows one token, of any form.
struct OneToken {
    token: &'static str,
    jkt: String,
}

impl AccessTokenVerifier for OneToken {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        if token.as_str() != self.token {
            return Err(TokenError::Invalid);
        }
        let claims = serde_json::from_value(json!({ "sub": "alice" })).unwrap();
        let confirmation = Confirmation::Thumbprint(self.jkt.parse().unwrap());
        Ok(AccessToken::new(confirmation, claims))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// R-7.1.1: all of token68, and the token is exactly what stands behind the spaces.
#[test]
fn a_token_may_be_any_token68() {
    for (name, token) in [
        (
            "R-7.1.1: the token of the RFC",
            "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
        ),
        ("R-7.1.1: one character", "a"),
        ("R-7.1.1: every special one", "-._~+/"),
        ("R-7.1.1: padding", "YQ=="),
        ("R-7.1.1: much padding", "a========"),
    ] {
        for spaces in [" ", "   "] {
            let attempt = Attempt::but(|a| {
                a.token = Some(token.into());
                a.authorization = Some(vec![field(format!("DPoP{spaces}{token}").as_bytes())]);
            });
            let jkt = attempt.key.jkt();
            let verifier = Verifier::new(
                ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| common::at(NOW)),
                OneToken { token, jkt },
            );
            attempt
                .outcome_by(&DpopLayer::new(verifier))
                .assert_passed(name);
        }
    }
}

type Ath = fn(&str) -> String;

/// Base64url of 32 bytes leaves two bits of its last character unused; this sets one of them, so a
/// lax decoder finds the same bytes.
fn alias(text: &str) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = text.split_at(42);
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 4, 0, "canonical so far");
    format!("{start}{}", &alphabet[place + 1..place + 2])
}

#[test]
fn ath_is_the_hash_of_the_token_and_nothing_like_it() {
    let other: &[(&str, Ath)] = &[
        ("F-17 R-4.3.12a: of another token", |_| ath("another")),
        ("F-17: of a space and the token", |token| {
            ath(&format!(" {token}"))
        }),
        ("F-17: of the token and a space", |token| {
            ath(&format!("{token} "))
        }),
        ("F-17: of the whole field", |token| {
            ath(&format!("DPoP {token}"))
        }),
        ("F-17: in upper case", |token| {
            ath(token).to_ascii_uppercase()
        }),
        ("F-17: with padding", |token| ath(token) + "="),
        ("F-17: with a space", |token| ath(token) + " "),
        ("F-17: without its last character", |token| {
            ath(token)[..42].into()
        }),
        ("F-17: in another spelling of the same bytes", |token| {
            alias(&ath(token))
        }),
        ("F-17: in hexadecimal", |token| {
            let hash = PresentedToken::new(token);
            let digits = hash.sha256().iter().flat_map(|byte| [byte >> 4, byte & 15]);
            digits
                .filter_map(|digit| char::from_digit(digit.into(), 16))
                .collect()
        }),
        ("F-17: empty", |_| String::new()),
        ("F-17: the token itself", str::to_owned),
    ];
    for (name, ath) in other {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            a.token = Some(token);
        })
        .outcome()
        .assert_reason(name, ProofError::TokenHash);
    }
    for (name, ath) in [
        ("F-17: null", json!(null)),
        ("F-17: a number", json!(1)),
        ("F-17: an array", json!(["auto"])),
    ] {
        Attempt::but(|a| a.proof_claims["ath"] = ath)
            .outcome()
            .assert_reason(name, ProofError::PayloadNotJson);
    }
    Attempt::but(|a| {
        a.proof_claims.as_object_mut().unwrap().remove("ath");
    })
    .outcome()
    .assert_reason("R-4.2.8 R-7.2: none", ProofError::ClaimMissing);
}

#[test]
fn a_token_passes_only_when_cnf_names_the_proofs_key() {
    let jkt = common::keys::client().jkt();
    let jkt = jkt.as_str();
    let another = Key::es256().jkt();
    let unconfirmable = || Rejection::from(BindingError::Unconfirmable);
    let malformed = || Rejection::Token(TokenError::Malformed);
    // The last character stays: in the other case it would not be canonical.
    let other_case = |character: char| {
        if character.is_ascii_lowercase() {
            character.to_ascii_uppercase()
        } else {
            character.to_ascii_lowercase()
        }
    };
    let in_other_case: String = jkt[..42].chars().map(other_case).collect();
    let rows: Vec<(&str, Value, Option<Rejection>)> = vec![
        ("R-6.1.1: the key", json!({ "jkt": jkt }), None),
        (
            "F-14: and a certificate",
            json!({ "jkt": jkt, "x5t#S256": jkt }),
            None,
        ),
        (
            "F-14: and members of any type",
            json!({ "jkt": jkt, "kid": 1, "jwk": null }),
            None,
        ),
        (
            "R-6.2 R-4.3.12b: another key",
            json!({ "jkt": another }),
            Some(BindingError::OtherKey.into()),
        ),
        (
            "F-13: a certificate only",
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
        ("F-13: nothing at all", json!({}), Some(unconfirmable())),
        (
            "F-13: jkt in upper case",
            json!({ "JKT": jkt }),
            Some(unconfirmable()),
        ),
        ("F-15: cnf is null", json!(null), Some(malformed())),
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
            "F-15: jkt is null",
            json!({ "jkt": null }),
            Some(malformed()),
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
            "F-15: 42 characters",
            json!({ "jkt": &jkt[..42] }),
            Some(malformed()),
        ),
        (
            "F-15: 44 characters",
            json!({ "jkt": format!("{jkt}A") }),
            Some(malformed()),
        ),
        (
            "F-15: 64 bytes",
            json!({ "jkt": base64url([0; 64]) }),
            Some(malformed()),
        ),
        (
            "F-15: hexadecimal",
            json!({ "jkt": "0f".repeat(32) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: padding",
            json!({ "jkt": format!("{jkt}=") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: a space",
            json!({ "jkt": format!("{jkt} ") }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: another spelling",
            json!({ "jkt": alias(jkt) }),
            Some(malformed()),
        ),
        (
            "F-15 J-14: the other alphabet",
            json!({ "jkt": format!("+/{}", &jkt[2..]) }),
            Some(malformed()),
        ),
        (
            "F-15: nothing the decoder knows",
            json!({ "jkt": "é".repeat(43) }),
            Some(malformed()),
        ),
        (
            "J-27: another case is another key",
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
            present(a, &["Bearer TOKEN"]);
        })
        .outcome()
        .assert_reason(
            &format!("F-10 F-13 (DPoP only): {name}, as Bearer"),
            CredentialsError::Bearer,
        );
    }
}

#[test]
fn a_token_without_cnf_is_rejected_under_either_scheme() {
    let unbound = |scheme: &str, with_proof: bool| {
        Attempt::but(|a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
            present(a, &[&format!("{scheme} TOKEN")]);
            if !with_proof {
                a.dpop = Some(Vec::new());
            }
        })
        .outcome()
    };
    unbound("DPoP", true).assert_reason("F-12: with a proof", BindingError::Unbound);
    unbound("DPoP", false).assert_reason("F-12 R-7.1.2: without", ProofError::Missing);
    for with_proof in [true, false] {
        unbound("Bearer", with_proof).assert_reason(
            "F-11 (DPoP only): an unbound bearer token",
            CredentialsError::Bearer,
        );
    }
}

/// F-15 J-12: two parsers could find two keys.
#[test]
fn a_token_that_names_two_keys_is_rejected() {
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
        ("one of them escaped", r#"{"jkt":"JKT","j\u006bt":"JKT"}"#),
        ("two others", r#"{"jkt":"JKT","kid":1,"kid":1}"#),
        ("two cnf", r#"{"jkt":"JKT"},"cnf":{"jkt":"JKT"}"#),
    ] {
        Attempt::but(|a| a.token = Some(token_with(cnf, a)))
            .outcome()
            .assert_reason(&format!("F-15 J-12: {name}"), TokenError::Malformed);
    }
    Attempt::but(|a| a.token = Some(token_with(r#"{"j\u006bt":"JKT"}"#, a)))
        .outcome()
        .assert_passed("one, escaped");
}

/// F-14: what is not checked here is the application's to check.
#[test]
fn the_other_members_of_cnf_reach_the_application() {
    let certificate = base64url([7; 32]);
    let outcome =
        Attempt::but(|a| a.token_claims["cnf"]["x5t#S256"] = json!(certificate)).outcome();
    let cnf: Value = outcome.token.unwrap().claims().claim("cnf").unwrap();
    assert_eq!(cnf["x5t#S256"], json!(certificate));
}
