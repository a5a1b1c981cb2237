//! The exact challenges of rejected requests.

mod figures;
mod resource_metadata;
mod responses;

use std::time::Duration;

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, verifier, verifier_by};
use http::{Request, Response};
use serde_json::json;
use tower_dpop::resource::{
    BearerError, RequireAuthenticationLayer, RequireLayer, ResourceMetadata,
};
use tower_dpop::tokens::{KeySource, KeySourceError, TokenError};
use tower_dpop::{Algorithms, Claims, DpopLayer, KeySet, RequireScopesLayer, Timestamp, Verifier};

use super::authorization::{Outcome, acrs, as_bearer, outcome, scopes, under_dpop};
use super::bearer::{bearer_attempt, outcome_by, rejected, rejecting_tokens};

/// The `algs` of every DPoP challenge by default.
pub(super) const ALGS: &str = r#"algs="ES256 ES384 PS256 Ed25519 EdDSA""#;

pub(super) fn no_credentials() -> Attempt {
    Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![])))
}

/// A source of keys that is always unreachable.
struct UnreachableKeys;

impl KeySource for UnreachableKeys {
    async fn key_set(&self, _: Timestamp) -> Result<KeySet, KeySourceError> {
        Err(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _: &KeySet,
        _: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Err(KeySourceError)
    }
}

/// R-7.1.8, R-7.1.11, P-8, O0, O1: each parameter once, always in the same order.
#[test]
fn challenges_contain_the_configured_parameters() {
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
        no_credentials().outcome_by(&layer).challenges,
        [format!(
            r#"DPoP realm="orders api", scope="orders.read orders.write", {ALGS}, {metadata}"#
        )]
    );
    let outcome = Attempt::but(|a| a.proof_claims["htm"] = json!("POST")).outcome_by(&layer);
    assert_eq!(
        outcome.challenges,
        [format!(
            r#"DPoP realm="orders api", error="invalid_dpop_proof", error_description="the DPoP proof is for another method", scope="orders.read orders.write", {ALGS}, {metadata}"#
        )]
    );
}

/// R-AT.11, J-6, J-7: the default is the list of FAPI 2.0.
#[test]
fn challenges_list_the_accepted_algorithms() {
    assert_eq!(
        no_credentials().outcome().challenges,
        [format!("DPoP {ALGS}")]
    );
    let all: Algorithms = "ES512 RS256 ES256 PS512".parse().unwrap();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_algorithms(all)));
    assert_eq!(
        no_credentials().outcome_by(&layer).challenges,
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

/// R-AT.9: another scheme would not help.
#[test]
fn reports_an_insufficient_scope_only_under_the_scheme_used() {
    let description = "the access token does not allow this request";
    let parameters = format!(r#"error="insufficient_scope", error_description="{description}""#);
    let layer = || rejecting_tokens(TokenError::InsufficientScope);
    let outcome = outcome_by(&layer(), bearer_attempt(|_| {}).request());
    let error = BearerError::Token(TokenError::InsufficientScope);
    assert_eq!(
        outcome,
        rejected(403, &[format!("Bearer {parameters}")], error)
    );
    let outcome = outcome_by(&layer(), Attempt::good().request());
    let error = TokenError::InsufficientScope;
    assert_eq!(
        outcome,
        rejected(403, &[format!("DPoP {parameters}, {ALGS}")], error)
    );
}

/// The verifier, whose metadata is served.
fn with_metadata<C>(mut verifier: Verifier<C>) -> Verifier<C> {
    let _ = ResourceMetadata::of(&mut verifier);
    verifier
}

/// P-8, P-9
#[test]
fn both_challenges_contain_the_configured_parameters() {
    let configured = |verifier: Verifier| {
        let verifier = verifier
            .with_realm("orders api".parse().unwrap())
            .with_scope("orders.read".parse().unwrap());
        with_metadata(verifier)
    };
    let layer = DpopLayer::new(configured(verifier()).allow_bearer());
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    let (realm, scope) = (r#"realm="orders api""#, r#"scope="orders.read""#);
    let invalid =
        |description: &str| format!(r#"error="invalid_token", error_description="{description}""#);
    let without_error = [
        format!("Bearer {realm}, {scope}, {metadata}"),
        format!("DPoP {realm}, {scope}, {ALGS}, {metadata}"),
    ];
    let missing = Attempt::but(|a| a.authorization = Some(vec![]));
    let outcome = outcome_by(&layer, missing.request());
    assert_eq!(
        outcome.challenges, without_error,
        "P-8, P-9: no credentials"
    );

    let outcome = outcome_by(
        &layer,
        bearer_attempt(|a| a.token_key = Key::es256()).request(),
    );
    let error = invalid("the signature of the access token does not verify");
    let bearer_challenge = format!("Bearer {realm}, {error}, {scope}, {metadata}");
    assert_eq!(
        outcome.challenges,
        [bearer_challenge, without_error[1].clone()],
        "P-8, P-9: under Bearer"
    );

    let outcome = outcome_by(
        &layer,
        Attempt::but(|a| a.token_key = Key::es256()).request(),
    );
    let dpop_challenge = format!("DPoP {realm}, {error}, {scope}, {ALGS}, {metadata}");
    assert_eq!(
        outcome.challenges,
        [without_error[0].clone(), dpop_challenge],
        "P-8, P-9: under DPoP"
    );

    let dpop_only = DpopLayer::new(configured(verifier()));
    let outcome = outcome_by(&dpop_only, missing.request());
    assert_eq!(
        outcome.challenges,
        without_error[1..],
        "P-8: without Bearer allowed"
    );
}

/// A 401 must have a challenge (RFC 9110 section 15.5.2), even if another verifier made the rejection.
#[test]
fn a_bearer_rejection_has_a_challenge_even_if_bearer_is_not_allowed() {
    for error in [
        BearerError::Bound,
        BearerError::Token(TokenError::InsufficientScope),
    ] {
        let response: Response<()> = verifier().reject(error.clone().into());
        let lines = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .count();
        assert_eq!(lines, 1, "{error}");
    }
}

/// Only the scope of the verifier is replaced, by that of the requirement.
#[test]
fn challenges_of_inner_layers_contain_the_configured_parameters() {
    let outer = || {
        let verifier = verifier()
            .allow_bearer()
            .with_realm("orders api".parse().unwrap())
            .with_scope(scopes("orders.read"));
        DpopLayer::new(with_metadata(verifier))
    };
    let metadata =
        r#"resource_metadata="https://api.example.com/.well-known/oauth-protected-resource""#;
    let described = |error: &str, description: &str| {
        format!(r#"realm="orders api", error="{error}", error_description="{description}""#)
    };
    let scope = described("insufficient_scope", "the access token lacks a scope");
    let scope = format!(r#"{scope}, scope="admin""#);
    let not_met = described(
        "insufficient_scope",
        "the access token does not allow this request",
    );
    let not_met = format!(r#"{not_met}, scope="orders.read""#);
    let authentication = described(
        "insufficient_user_authentication",
        "a different authentication of the user is required",
    );
    let authentication =
        format!(r#"{authentication}, acr_values="gold", max_age="5", scope="orders.read""#);
    let challenges = |layer: &dyn Fn(Request<String>) -> Outcome| {
        [under_dpop(|_| {}), as_bearer(|_| {})].map(|request| layer(request).challenges)
    };
    let expected = |parameters: &str| {
        [
            vec![format!("DPoP {parameters}, {ALGS}, {metadata}")],
            vec![format!("Bearer {parameters}, {metadata}")],
        ]
    };
    let by_scope = (outer(), RequireScopesLayer::all_of(scopes("admin")));
    assert_eq!(challenges(&|r| outcome(&by_scope, r)), expected(&scope));
    let by_closure = (outer(), RequireLayer::<_, Claims>::new(|_: &Claims| false));
    assert_eq!(challenges(&|r| outcome(&by_closure, r)), expected(&not_met));
    let step_up =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(5));
    let by_acr = (outer(), step_up);
    assert_eq!(
        challenges(&|r| outcome(&by_acr, r)),
        expected(&authentication)
    );
}
