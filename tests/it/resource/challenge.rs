//! What a rejected client is told, to the letter, and what a token in the wrong place gets.

use serde_json::json;
use tower_dpop::resource::{CredentialsError, QuotedText};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{Algorithms, DpopLayer, ProofRules, PublicUrl, Rejection, Timestamp, Verifier};

use common::{AUDIENCE, Attempt, AttemptExt as _, Key, KeyExt as _, at, verifier, verifier_by};

const DEFAULT_ALGS: &str = "ES256 ES384 PS256 Ed25519 EdDSA";

fn nothing() -> Attempt {
    Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![])))
}

/// R-7.1.8, R-7.1.11: realm, scope and metadata where they are configured, in every challenge.
#[test]
fn challenges_say_what_was_configured() {
    let layer = DpopLayer::new(
        verifier()
            .with_realm("orders api".parse().unwrap())
            .with_scope("orders.read orders.write".parse().unwrap())
            .with_resource_metadata(
                "https://api.example.com/.well-known/oauth-protected-resource"
                    .parse()
                    .unwrap(),
            ),
    );
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    assert_eq!(
        nothing().outcome_by(&layer).challenges,
        [format!(
            r#"DPoP realm="orders api", scope="orders.read orders.write", algs="{DEFAULT_ALGS}", {metadata}"#
        )]
    );
    let outcome = Attempt::but(|a| a.proof_claims["htm"] = json!("POST")).outcome_by(&layer);
    assert_eq!(
        outcome.challenges,
        [format!(
            r#"DPoP realm="orders api", error="invalid_dpop_proof", error_description="the DPoP proof is for another method", scope="orders.read orders.write", algs="{DEFAULT_ALGS}", {metadata}"#
        )]
    );
}

/// R-7.1.9: what cannot stand between quotes is rejected at start-up, not escaped at run time.
#[test]
fn text_that_would_break_a_challenge_is_rejected_at_start_up() {
    for bad in ["a\"b", "a\\b", "a\r\nb", "ä", "\u{0}"] {
        assert!(bad.parse::<QuotedText>().is_err(), "{bad:?}");
    }
    assert_eq!("a b".parse::<QuotedText>().unwrap().to_string(), "a b");
}

/// R-AT.11, J-6, J-7: the default is what FAPI 2.0 allows, and challenges list what is accepted.
#[test]
fn challenges_list_the_accepted_algorithms() {
    assert_eq!(
        nothing().outcome().challenges,
        [format!(r#"DPoP algs="{DEFAULT_ALGS}""#)]
    );
    let all: Algorithms = "ES512 RS256 ES256 PS512".parse().unwrap();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_algorithms(all)));
    assert_eq!(
        nothing().outcome_by(&layer).challenges,
        [r#"DPoP algs="ES256 ES512 PS512 RS256""#]
    );
    for key in [Key::es512(), Key::rsa("RS256"), Key::rsa("PS512")] {
        Attempt::with_key(key.clone())
            .outcome_by(&layer)
            .assert_passed(key.alg());
        let outcome = Attempt::with_key(key.clone()).outcome();
        outcome.assert_rejected(key.alg(), 401, Some("invalid_dpop_proof"));
    }
}

/// R-7.2.1, R-7.2.3, R-7.2.4, R-AT.7: a token under the Bearer scheme, bound or not, with or
/// without a proof.
#[test]
fn a_bearer_token_is_rejected_without_a_look_at_it() {
    type Change = fn(&mut Attempt);
    let as_bearer = |token: String| Some(vec![format!("Bearer {token}").parse().unwrap()]);
    let rows: Vec<(&str, Change)> = vec![
        ("R-7.2.1: a bound token", |_| {}),
        ("R-7.2.1: and no proof", |a| a.dpop = Some(vec![])),
        ("an unbound token", |a| {
            a.token_claims.as_object_mut().unwrap().remove("cnf");
        }),
        ("a forged token: no oracle", |a| a.token_key = Key::es256()),
        ("no token of ours at all", |a| {
            a.token = Some("opaque".into());
        }),
    ];
    for (name, change) in rows {
        let mut attempt = Attempt::but(change);
        attempt.authorization = as_bearer(attempt.token());
        let outcome = attempt.outcome();
        outcome.assert_reason(name, CredentialsError::Bearer);
        let description = "the access token was presented as a bearer token";
        let expected = format!(
            r#"DPoP error="invalid_token", error_description="{description}", algs="{DEFAULT_ALGS}""#
        );
        assert_eq!(outcome.challenges, [expected], "R-7.2.3: {name}");
    }
    let outcome = nothing().outcome();
    assert_eq!(
        (outcome.status.as_u16(), outcome.parameter("error")),
        (401, None),
        "R-7.2.4"
    );
}

/// R-7.2.5: which mechanism was meant cannot be told, so it is the request that is wrong.
#[test]
fn several_authorization_fields_are_a_bad_request() {
    let attempt = Attempt::but(|a| {
        let token = a.token();
        a.authorization = Some(vec![
            format!("Bearer {token}").parse().unwrap(),
            format!("DPoP {token}").parse().unwrap(),
        ]);
    });
    let outcome = attempt.outcome();
    outcome.assert_reason("R-7.2.5", CredentialsError::Ambiguous);
    assert_eq!(
        (
            outcome.status.as_u16(),
            outcome.parameter("error").as_deref()
        ),
        (400, Some("invalid_request"))
    );
}

/// R-AT.8, R-AT.12: a token in the query is not looked at.
#[test]
fn a_token_in_the_query_is_not_looked_for() {
    let in_the_query = Attempt::but(|a| {
        a.uri = format!("/orders?access_token={}", a.token());
        a.authorization = Some(vec![]);
    });
    in_the_query
        .outcome()
        .assert_reason("only in the query", CredentialsError::Missing);
    let in_both = Attempt::but(|a| a.uri = format!("/orders?access_token={}", a.token()));
    in_both.outcome().assert_passed("in both places");
}

/// R-AT.9, R-AT.10: the scope is the application's to judge, and a verifier of its own can say so.
#[test]
fn a_token_without_the_scope_is_forbidden() {
    struct Scoped;

    impl AccessTokenVerifier for Scoped {
        type Claims = ();

        async fn verify(
            &self,
            _token: PresentedToken<'_>,
            _now: Timestamp,
        ) -> Result<AccessToken<()>, TokenError> {
            Err(TokenError::InsufficientScope)
        }

        fn issuers(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    let public_url: PublicUrl = AUDIENCE.parse().unwrap();
    let verifier = Verifier::new(
        ProofRules::new(public_url).with_clock(|| at(common::NOW)),
        Scoped,
    )
    .with_scope("orders.write".parse().unwrap());
    let outcome = Attempt::good().outcome_by(&DpopLayer::new(verifier));
    outcome.assert_reason("O5", Rejection::Token(TokenError::InsufficientScope));
    assert_eq!(outcome.status.as_u16(), 403);
    let description = "the access token does not allow this request";
    assert_eq!(
        outcome.challenges,
        [format!(
            r#"DPoP error="insufficient_scope", error_description="{description}", scope="orders.write", algs="{DEFAULT_ALGS}""#
        )]
    );
}
