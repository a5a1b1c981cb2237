//! Which tokens meet a requirement: scopes, authentication, and requirements that an application implements.

use std::convert::Infallible;
use std::time::Duration;

use common::remove;
use common::{Attempt, NOW};
use http::{Request, Response};
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceBuilder};
use tower_dpop::resource::{
    AuthorizationError, RequireAuthenticationLayer, RequireLayer, Requirement, ScopeRequirement,
    Scopes,
};
use tower_dpop::{Claims, RequireScopesLayer, Timestamp};

use super::authorization::{
    CountingService, ExpectedRejection, acrs, as_bearer, lacks_scope, needs_authentication,
    outcome, passed, scopes, under_dpop,
};
use super::bearer::allowing_bearer;

/// Checks that the layer accepts the token, or rejects it with this error, under both schemes.
#[track_caller]
fn assert_decision<L>(
    name: &str,
    requirement: &L,
    change: impl Fn(&mut Attempt),
    error: Option<&ExpectedRejection>,
) where
    L: Layer<CountingService>,
    L::Service: Service<Request<String>, Response = Response<()>, Error = Infallible>
        + Clone
        + Send
        + 'static,
{
    let layers = ServiceBuilder::new()
        .layer(allowing_bearer())
        .layer(requirement);
    let (dpop, bearer) = match error {
        None => (passed(), passed()),
        Some(expected) => (expected.under_dpop(), expected.as_bearer()),
    };
    assert_eq!(outcome(&layers, under_dpop(&change)), dpop, "{name}");
    assert_eq!(outcome(&layers, as_bearer(&change)), bearer, "{name}");
}

fn not_met() -> ExpectedRejection {
    let description = "the access token does not allow this request";
    ExpectedRejection {
        status: 403,
        parameters: format!(r#"error="insufficient_scope", error_description="{description}""#),
        error: AuthorizationError::NotMet,
    }
}

/// R-AT.9: "authorization sufficient, errors per RFC 6750 section 3.1".
#[test]
fn requires_all_or_any_of_the_scopes() {
    let rows = [
        // held, required, all of them, any of them
        ("a", "a", true, true),
        ("a b", "a", true, true),
        ("b a", "a b", true, true),
        ("a", "a b", false, true),
        ("b", "a b", false, true),
        ("c", "a b", false, false),
        ("", "a", false, false),
        ("  ", "a", false, false),
        ("A", "a", false, false),
        ("ab", "a", false, false),
        ("a,b", "a", false, false),
        ("a\tb", "a", false, false),
        ("aa a", "a", true, true),
        ("orders", "orders:read", false, false),
        ("orders:*", "orders:read", false, false),
    ];
    for (held, required, all, any) in rows {
        let change = |a: &mut Attempt| a.token_claims["scope"] = json!(held);
        for (all_or_any, layer, is_sufficient) in [
            ("all of", RequireScopesLayer::all_of(scopes(required)), all),
            ("any of", RequireScopesLayer::any_of(scopes(required)), any),
        ] {
            let expected = lacks_scope(required);
            let error = (!is_sufficient).then_some(&expected);
            let name = format!("R-AT.9: {held:?} for {all_or_any} {required:?}");
            assert_decision(&name, &layer, change, error);
        }
    }
    let without = |a: &mut Attempt| remove(&mut a.token_claims, "scope");
    let layer = RequireScopesLayer::any_of(scopes("a"));
    assert_decision("no scope claim", &layer, without, Some(&lacks_scope("a")));
}

/// RFC 6749 section 3.3. These are configuration errors.
#[test]
fn rejects_scopes_that_are_empty_or_cannot_be_quoted() {
    for bad in [
        "", " ", "a ", " a", "a  b", "a\tb", "a\"b", "a\\b", "ä", "a\nb", "a\r\nb",
    ] {
        assert!(bad.parse::<Scopes>().is_err(), "{bad:?}");
    }
    for good in ["a", "a b", "https://api.example.com/orders:read!#$%&'()*+,"] {
        assert_eq!(scopes(good).to_string(), good);
    }
}

/// RFC 9470 section 5: `max_age` is in whole seconds. An authentication exactly that long ago is accepted. `auth_time` is a
/// NumericDate and may have a fraction.
#[test]
fn requires_a_recent_authentication() {
    let rows: [(&str, Option<Value>, u64, bool); 23] = [
        ("now", Some(json!(NOW)), 300, true),
        ("300 seconds ago", Some(json!(NOW - 300)), 300, true),
        ("301 seconds ago", Some(json!(NOW - 301)), 300, false),
        (
            "299.5 seconds ago, as a fraction",
            Some(json!(1_699_999_700.5)),
            300,
            true,
        ),
        (
            "300.5 seconds ago, as a fraction",
            Some(json!(1_699_999_699.5)),
            300,
            false,
        ),
        (
            "now, as a floating-point number",
            Some(json!(1_700_000_000.0)),
            300,
            true,
        ),
        ("in the future", Some(json!(NOW + 10)), 300, true),
        (
            "in the future by the leeway",
            Some(json!(NOW + 30)),
            300,
            true,
        ),
        ("in the future by more", Some(json!(NOW + 31)), 300, false),
        (
            "in the future by more, any age allowed",
            Some(json!(NOW + 31)),
            u64::MAX,
            false,
        ),
        ("in milliseconds", Some(json!(NOW * 1000)), 300, false),
        (
            "an early time in milliseconds, any age allowed",
            Some(json!(1000)),
            u64::MAX,
            true,
        ),
        ("now, no age allowed", Some(json!(NOW)), 0, true),
        (
            "a second ago, no age allowed",
            Some(json!(NOW - 1)),
            0,
            false,
        ),
        ("the epoch", Some(json!(0)), 300, false),
        ("before the epoch", Some(json!(-1)), 300, false),
        ("u64::MAX", Some(json!(u64::MAX)), 300, false),
        (
            "after the epoch, any age allowed",
            Some(json!(1)),
            u64::MAX,
            true,
        ),
        ("no auth_time", None, 300, false),
        ("null", Some(json!(null)), 300, false),
        ("a string", Some(json!(NOW.to_string())), 300, false),
        ("an array", Some(json!([NOW])), 300, false),
        ("true", Some(json!(true)), 300, false),
    ];
    for (name, auth_time, max_age, is_sufficient) in rows {
        let layer = RequireAuthenticationLayer::within(Duration::from_secs(max_age));
        let change = |a: &mut Attempt| {
            if let Some(auth_time) = &auth_time {
                a.token_claims["auth_time"] = auth_time.clone();
            }
        };
        let expected = needs_authentication(None, Some(max_age));
        assert_decision(name, &layer, change, (!is_sufficient).then_some(&expected));
    }
    let layer = RequireAuthenticationLayer::within(Duration::from_millis(300_999));
    let at = |time: u64| move |a: &mut Attempt| a.token_claims["auth_time"] = json!(time);
    assert_decision("a max_age of 300.999 seconds", &layer, at(NOW - 300), None);
    let expected = needs_authentication(None, Some(300));
    assert_decision(
        "a max_age of 300.999 seconds",
        &layer,
        at(NOW - 301),
        Some(&expected),
    );
}

#[test]
fn requires_an_authentication_class() {
    const REQUIRED: &str = "urn:a:2 urn:a:1";
    let rows: [(&str, Option<Value>, bool); 9] = [
        ("the first value", Some(json!("urn:a:2")), true),
        ("the last value", Some(json!("urn:a:1")), true),
        ("another value", Some(json!("urn:a:0")), false),
        ("in upper case", Some(json!("URN:A:2")), false),
        ("both values in one string", Some(json!(REQUIRED)), false),
        ("a prefix of a value", Some(json!("urn:a:")), false),
        ("no acr", None, false),
        ("an array", Some(json!(["urn:a:2"])), false),
        ("an empty string", Some(json!("")), false),
    ];
    let layer = RequireAuthenticationLayer::by_acr(acrs(REQUIRED));
    for (name, acr, is_sufficient) in rows {
        let change = |a: &mut Attempt| {
            if let Some(acr) = &acr {
                a.token_claims["acr"] = acr.clone();
            }
        };
        let expected = needs_authentication(Some(REQUIRED), None);
        assert_decision(name, &layer, change, (!is_sufficient).then_some(&expected));
    }
}

/// The challenge contains both parameters even if only one is not met, because the client requests both at once.
#[test]
fn requires_an_authentication_class_and_a_recent_authentication() {
    let layer =
        RequireAuthenticationLayer::by_acr(acrs("gold")).with_max_age(Duration::from_secs(60));
    let rows = [
        ("both met", "gold", NOW - 60, true),
        ("another class", "silver", NOW - 60, false),
        ("too long ago", "gold", NOW - 61, false),
        ("neither met", "silver", NOW - 61, false),
    ];
    for (name, acr, auth_time, is_sufficient) in rows {
        let change = |a: &mut Attempt| {
            a.token_claims["acr"] = json!(acr);
            a.token_claims["auth_time"] = json!(auth_time);
        };
        let expected = needs_authentication(Some("gold"), Some(60));
        assert_decision(name, &layer, change, (!is_sufficient).then_some(&expected));
    }
}

/// Requires the claim `night`, and otherwise returns the configured error.
#[derive(Debug)]
pub(super) struct CustomRequirement(pub(super) AuthorizationError);

impl Requirement<Claims> for CustomRequirement {
    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), AuthorizationError> {
        assert_eq!(now, Timestamp::from_unix(NOW));
        if claims.claim("night") == Some(true) {
            Ok(())
        } else {
            Err(self.0.clone())
        }
    }
}

#[test]
fn supports_requirements_of_the_application() {
    let tenant = |a: &mut Attempt| a.token_claims["tenant"] = json!(7);
    let is_tenant_7 = |claims: &Claims| claims.claim("tenant") == Some(7);
    let closure = RequireLayer::<_, Claims>::new(is_tenant_7);
    assert_decision("a closure accepts", &closure, tenant, None);
    assert_decision("a closure rejects", &closure, |_| {}, Some(&not_met()));

    for expected in [
        not_met(),
        lacks_scope("night"),
        needs_authentication(Some("gold"), Some(1)),
        needs_authentication(None, None),
    ] {
        let layer = RequireLayer::<_, Claims>::new(CustomRequirement(expected.error.clone()));
        let night = |a: &mut Attempt| a.token_claims["night"] = json!(true);
        assert_decision("a type accepts", &layer, night, None);
        assert_decision("a type rejects", &layer, |_| {}, Some(&expected));
    }
    let layer = RequireLayer::<_, Claims>::new(ScopeRequirement::all_of(scopes("orders.read")));
    assert_decision("ScopeRequirement in a RequireLayer", &layer, |_| {}, None);
}
