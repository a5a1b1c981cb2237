//! Access tokens of RFC 9068.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tower_dpop::tokens::TokenError;
use tower_dpop::{Algorithm, Algorithms, DpopLayer, JwtVerifier, KeySet, Rejection, Verifier};

use common::remove;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, ISSUER_KEY, Key, KeyExt as _, NOW, Outcome,
    jwt_verifier, rules, verifier_by,
};

pub(super) fn outcome_with(tokens: JwtVerifier<KeySet>, attempt: &Attempt) -> Outcome {
    attempt.outcome_by(&DpopLayer::new(Verifier::new(rules(), tokens)))
}

/// RFC 9068 section 4. R-AT.6: the error code is always `invalid_token`.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn rejects_a_token_that_breaks_a_rule() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change, TokenError)> = vec![
        (
            "R-AT.1: typ JWT",
            |a| a.token_header["typ"] = json!("JWT"),
            TokenError::Type,
        ),
        (
            "R-AT.1: no typ",
            |a| remove(&mut a.token_header, "typ"),
            TokenError::Type,
        ),
        (
            "R-AT.1: typ of a proof",
            |a| a.token_header["typ"] = json!("dpop+jwt"),
            TokenError::Type,
        ),
        (
            "R-AT.1: typ is a number",
            |a| a.token_header["typ"] = json!(1),
            TokenError::Malformed,
        ),
        (
            "R-AT.2: another issuer",
            |a| a.token_claims["iss"] = json!("https://evil.example.com"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: a trailing slash",
            |a| a.token_claims["iss"] = json!("https://as.example.com/"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: capitals in the host",
            |a| a.token_claims["iss"] = json!("https://AS.example.com"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: no issuer",
            |a| remove(&mut a.token_claims, "iss"),
            TokenError::Issuer,
        ),
        (
            "R-AT.2: an array of issuers",
            |a| a.token_claims["iss"] = json!([ISSUER]),
            TokenError::Malformed,
        ),
        (
            "R-AT.3: another audience",
            |a| a.token_claims["aud"] = json!("https://other.example.com"),
            TokenError::Audience,
        ),
        (
            "R-AT.3: other audiences",
            |a| a.token_claims["aud"] = json!(["a", "b"]),
            TokenError::Audience,
        ),
        (
            "R-AT.3: no audience",
            |a| remove(&mut a.token_claims, "aud"),
            TokenError::Audience,
        ),
        (
            "R-AT.3: an empty array of audiences",
            |a| a.token_claims["aud"] = json!([]),
            TokenError::Audience,
        ),
        (
            "R-AT.3: aud is an object",
            |a| a.token_claims["aud"] = json!({ "a": AUDIENCE }),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: signed by another key",
            |a| a.token_key = Key::es256(),
            TokenError::Signature,
        ),
        (
            "R-AT.4: alg none",
            |a| a.token_header["alg"] = json!("none"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: alg HS256",
            |a| a.token_header["alg"] = json!("HS256"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: no alg",
            |a| remove(&mut a.token_header, "alg"),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: an algorithm that does not fit the key",
            |a| a.token_header["alg"] = json!("RS256"),
            TokenError::Key,
        ),
        (
            "R-AT.4: an unknown kid",
            |a| a.token_header["kid"] = json!("other"),
            TokenError::Key,
        ),
        (
            "R-AT.4: kid is a number",
            |a| a.token_header["kid"] = json!(1),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: crit",
            |a| a.token_header["crit"] = json!(["exp"]),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: b64",
            |a| a.token_header["b64"] = json!(false),
            TokenError::Malformed,
        ),
        (
            "R-AT.5: expired beyond the leeway",
            |a| a.token_claims["exp"] = json!(NOW - 30),
            TokenError::Expired,
        ),
        (
            "R-AT.5: no exp",
            |a| remove(&mut a.token_claims, "exp"),
            TokenError::Expired,
        ),
        (
            "R-AT.1: typ is null",
            |a| a.token_header["typ"] = json!(null),
            TokenError::Type,
        ),
        (
            "R-AT.2: iss is null",
            |a| a.token_claims["iss"] = json!(null),
            TokenError::Issuer,
        ),
        (
            "R-AT.3: aud is null",
            |a| a.token_claims["aud"] = json!(null),
            TokenError::Audience,
        ),
        (
            "R-AT.3: an audience is null",
            |a| a.token_claims["aud"] = json!([null, AUDIENCE]),
            TokenError::Malformed,
        ),
        (
            "R-AT.4: alg is null",
            |a| a.token_header["alg"] = json!(null),
            TokenError::Algorithm,
        ),
        (
            "R-AT.4: crit is null",
            |a| a.token_header["crit"] = json!(null),
            TokenError::Malformed,
        ),
        (
            "R-AT.5: exp is null",
            |a| a.token_claims["exp"] = json!(null),
            TokenError::Expired,
        ),
        (
            "R-AT.5: exp is a string",
            |a| a.token_claims["exp"] = json!("never"),
            TokenError::Malformed,
        ),
        (
            "R-AT.5: not valid yet",
            |a| a.token_claims["nbf"] = json!(NOW + 31),
            TokenError::NotYetValid,
        ),
        (
            "no subject and no client",
            |a| {
                remove(&mut a.token_claims, "sub");
                remove(&mut a.token_claims, "client_id");
            },
            TokenError::Claims,
        ),
        (
            "not a JWT",
            |a| a.token = Some("opaque".into()),
            TokenError::Malformed,
        ),
        (
            "two segments",
            |a| a.token = Some("e30.e30".into()),
            TokenError::Malformed,
        ),
        (
            "five segments",
            |a| a.token = Some("e30.e30.e30.e30.e30".into()),
            TokenError::Malformed,
        ),
        (
            "base64 with padding",
            |a| a.token = Some(a.token() + "="),
            TokenError::Malformed,
        ),
    ];
    for (name, change, reason) in rows {
        let outcome = Attempt::but(change).outcome();
        outcome.assert_reason(name, Rejection::Token(reason));
        assert_eq!(
            outcome.parameter("error").as_deref(),
            Some("invalid_token"),
            "R-AT.6: {name}"
        );
    }
}

#[test]
fn accepts_a_token_that_follows_the_rules() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change)> = vec![
        ("R-AT.1: the long form of typ", |a| {
            a.token_header["typ"] = json!("application/at+jwt");
        }),
        ("R-AT.3: one of several audiences", |a| {
            a.token_claims["aud"] = json!(["other", AUDIENCE]);
        }),
        ("R-AT.5: expired within the leeway", |a| {
            a.token_claims["exp"] = json!(NOW - 29);
        }),
        ("R-AT.5: not valid yet within the leeway", |a| {
            a.token_claims["nbf"] = json!(NOW + 30);
        }),
        ("R-AT.5: exp with a fraction", |a| {
            a.token_claims["exp"] = json!(1_700_000_000.5);
        }),
        ("no kid", |a| remove(&mut a.token_header, "kid")),
        ("D9: optional members are null", |a| {
            a.token_header["kid"] = json!(null);
            for claim in ["nbf", "scope", "client_id", "x"] {
                a.token_claims[claim] = json!(null);
            }
        }),
        ("unknown members", |a| {
            a.token_header["x"] = json!({ "y": 1 });
            a.token_claims["x"] = json!([null]);
        }),
    ];
    for (name, change) in rows {
        Attempt::but(change).outcome().assert_passed(name);
    }
}

/// The token itself cannot say which key verifies it.
#[test]
fn ignores_keys_in_the_header_of_a_token() {
    let attacker = Key::es256();
    for (name, member, value) in [
        ("jwk", "jwk", attacker.public_jwk()),
        ("jku", "jku", json!("http://127.0.0.1:1/jwks")),
        ("x5u", "x5u", json!("http://127.0.0.1:1/cert")),
        ("x5c", "x5c", json!(["MIIB"])),
    ] {
        let forged = Attempt::but(|a| {
            a.token_key = attacker.clone();
            a.token_header[member] = value.clone();
        });
        forged
            .outcome()
            .assert_reason(name, Rejection::Token(TokenError::Signature));
        let valid = Attempt::but(|a| a.token_header[member] = value);
        valid.outcome().assert_passed(&format!("{name}, ignored"));
    }
}

/// J-12 for access tokens: two parsers must not read different values.
#[test]
fn rejects_duplicate_members_in_a_token() {
    let attempt = Attempt::good();
    let header = attempt.token_header.to_string();
    let claims = attempt.token_claims.to_string();
    for (name, header, claims) in [
        (
            "a claim twice",
            header.clone(),
            claims.replacen('{', r#"{"sub":"mallory","#, 1),
        ),
        (
            "a claim that is null, twice",
            header.clone(),
            claims.replacen('{', r#"{"nbf":null,"nbf":null,"#, 1),
        ),
        (
            "a claim and null",
            header.clone(),
            claims.replacen('{', r#"{"exp":null,"#, 1),
        ),
        (
            "cnf twice",
            header.clone(),
            claims.replacen('{', r#"{"cnf":{},"#, 1),
        ),
        (
            "jkt twice",
            header.clone(),
            claims.replacen(r#""cnf":{"#, r#""cnf":{"jkt":"x","#, 1),
        ),
        (
            "a header parameter twice",
            header.replacen('{', r#"{"alg":"none","#, 1),
            claims.clone(),
        ),
    ] {
        let outcome =
            Attempt::but(|a| a.token = Some(ISSUER_KEY.sign_text(header, claims))).outcome();
        outcome.assert_reason(name, Rejection::Token(TokenError::Malformed));
    }
}

#[test]
fn verifies_tokens_of_each_default_algorithm() {
    for key in [
        Key::es256(),
        Key::es384(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("RS256"),
        Key::rsa("PS256"),
    ] {
        let jwks = json!({ "keys": [key.public_jwk()] }).to_string();
        let tokens = || JwtVerifier::new(ISSUER, AUDIENCE, jwks.parse().unwrap());
        let attempt = Attempt::but(|a| {
            a.token_header["alg"] = json!(key.alg());
            a.token_key = key.clone();
        });
        outcome_with(tokens(), &attempt).assert_passed(key.alg());
        let other = Algorithms::only(Algorithm::Es512);
        outcome_with(tokens().with_algorithms(other), &attempt)
            .assert_reason(key.alg(), Rejection::Token(TokenError::Algorithm));
    }
}

/// D22: some issuers omit `typ` or write `JWT`.
#[test]
fn lenient_typ_also_accepts_jwt_and_no_typ() {
    for (name, typ, passes) in [
        ("at+jwt", json!("at+jwt"), true),
        ("JWT", json!("JWT"), true),
        ("jwt", json!("jwt"), true),
        ("no typ", Value::Null, true),
        ("typ of a proof", json!("dpop+jwt"), false),
        ("typ of a logout token", json!("logout+jwt"), false),
    ] {
        let attempt = Attempt::but(|a| {
            if typ.is_null() {
                remove(&mut a.token_header, "typ");
            } else {
                a.token_header["typ"] = typ;
            }
        });
        let outcome = outcome_with(jwt_verifier().with_lenient_typ(), &attempt);
        let expected = (!passes).then_some(Rejection::Token(TokenError::Type));
        assert_eq!(outcome.rejection, expected, "{name}");
    }
}

#[test]
fn audiences_can_be_added_and_the_leeway_changed() {
    let other = Attempt::but(|a| a.token_claims["aud"] = json!("urn:other"));
    outcome_with(jwt_verifier().add_audience("urn:other"), &other)
        .assert_passed("an added audience");
    outcome_with(jwt_verifier().add_audience("urn:other"), &Attempt::good())
        .assert_passed("the first audience");

    let expired = Attempt::but(|a| a.token_claims["exp"] = json!(NOW));
    outcome_with(jwt_verifier().with_leeway(Duration::ZERO), &expired)
        .assert_reason("no leeway", Rejection::Token(TokenError::Expired));
    let long_expired = Attempt::but(|a| a.token_claims["exp"] = json!(NOW - 300));
    let outcome = outcome_with(
        jwt_verifier().with_leeway(Duration::from_secs(86_400)),
        &long_expired,
    );
    outcome.assert_reason(
        "the leeway is at most five minutes",
        Rejection::Token(TokenError::Expired),
    );
}

#[test]
fn the_claims_can_have_a_type_of_the_application() {
    #[derive(Deserialize)]
    struct TenantClaims {
        tenant: u32,
    }

    let layer = DpopLayer::new(Verifier::new(
        rules(),
        jwt_verifier().with_claims::<TenantClaims>(),
    ));
    let respond_to = |attempt: &Attempt| {
        use tower::{Layer as _, ServiceExt as _};
        let service = layer.layer(tower::service_fn(async |request: http::Request<String>| {
            let tenant = request
                .extensions()
                .get::<tower_dpop::BoundToken<TenantClaims>>()
                .unwrap()
                .claims()
                .tenant;
            Ok::<_, std::convert::Infallible>(http::Response::new(tenant.to_string()))
        }));
        let response = common::block_on(service.oneshot(attempt.request())).unwrap();
        (
            response.extensions().get::<Rejection>().cloned(),
            response.into_body(),
        )
    };
    assert_eq!(
        respond_to(&Attempt::but(|a| a.token_claims["tenant"] = json!(7))),
        (None, "7".into())
    );
    let missing = (Some(Rejection::Token(TokenError::Claims)), String::new());
    assert_eq!(respond_to(&Attempt::good()), missing);
    assert_eq!(
        respond_to(&Attempt::but(|a| a.token_claims["tenant"] = json!("seven"))),
        missing
    );
}

#[test]
fn proofs_and_tokens_have_separate_algorithm_lists() {
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules.with_algorithms(Algorithms::only(Algorithm::Ed25519))
    }));
    let attempt = Attempt::with_key(Key::ed25519("Ed25519"));
    attempt
        .outcome_by(&layer)
        .assert_passed("an ES256 token with an Ed25519 proof");
    Attempt::good().outcome_by(&layer).assert_rejected(
        "an ES256 proof",
        401,
        Some("invalid_dpop_proof"),
    );
}
