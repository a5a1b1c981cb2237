//! Where and in which form a request contains its token.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, block_on};
use http::{Request, Response};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::resource::{BearerError, CredentialsError};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{Claims, DpopLayer, PublicUrl, Rejection, Timestamp, Verifier};

use super::{
    Change, FoundToken, Outcome, allowing_bearer, bad_request, bearer_attempt, outcome_by,
    passed_with, rejected, rejected_as_bearer, rejected_as_dpop, remove_cnf,
};
use crate::credentials::set_authorization;
use crate::resource::challenge::{ALGS, no_credentials};

/// F-16: a token elsewhere has no effect on the decision.
#[test]
fn ignores_a_bearer_token_in_the_query_or_a_form() {
    let send = |attempt: Attempt, is_form: bool| {
        let token = attempt.token();
        let layer = allowing_bearer();
        let service = layer.layer(service_fn(async |request: Request<String>| {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        }));
        let body = format!("access_token={token}");
        let mut request = attempt.build_with(body.clone());
        if is_form {
            let form = "application/x-www-form-urlencoded".parse().unwrap();
            request.headers_mut().insert("content-type", form);
        }
        let response = block_on(service.oneshot(request)).unwrap();
        let rejection = response.extensions().get::<Rejection>().cloned();
        assert_eq!(rejection.is_none(), *response.body() == body);
        rejection
    };
    let in_query: Change = |a| a.uri = format!("/orders?access_token={}", a.token());
    let missing = || Some(CredentialsError::Missing.into());
    let rows: [(&str, Change, Option<Rejection>); 4] = [
        ("F-16: in the query and the header field", in_query, None),
        (
            "F-16: in the query only",
            |a| {
                a.uri = format!("/orders?access_token={}", a.token());
                a.authorization = Some(vec![]);
            },
            missing(),
        ),
        ("F-16: in the header field", |_| {}, None),
        (
            "F-16: in the body only",
            |a| a.authorization = Some(vec![]),
            missing(),
        ),
    ];
    for (name, change, expected) in rows {
        for is_form in [false, true] {
            let rejection = send(bearer_attempt(change), is_form);
            assert_eq!(rejection, expected, "R-7.2.1: {name}, form: {is_form}");
        }
    }
}

#[test]
fn checks_the_grammar_of_the_authorization_field() {
    let missing = || {
        let challenges = ["Bearer".to_owned(), format!("DPoP {ALGS}")];
        rejected(401, &challenges, CredentialsError::Missing)
    };
    let malformed = || bad_request(CredentialsError::Malformed);
    let ambiguous = || bad_request(CredentialsError::Ambiguous);
    let rows: [(&str, &[&str], Outcome); 18] = [
        ("F-7: only the scheme", &["Bearer"], malformed()),
        (
            "F-7: only the scheme and a space",
            &["Bearer "],
            malformed(),
        ),
        (
            "F-7: a tab as the separator",
            &["Bearer\tTOKEN"],
            malformed(),
        ),
        ("F-7: two tokens", &["Bearer TOKEN TOKEN"], malformed()),
        (
            "F-7: two tokens with a comma",
            &["Bearer TOKEN,TOKEN"],
            malformed(),
        ),
        ("F-7: a parameter", &["Bearer token=\"TOKEN\""], malformed()),
        ("F-7: a trailing space", &["Bearer TOKEN "], malformed()),
        ("F-7: only padding", &["Bearer =="], malformed()),
        ("F-7: quotes", &["Bearer \"TOKEN\""], malformed()),
        ("F-7: no scheme", &[" TOKEN"], malformed()),
        ("F-7: an empty value", &[""], malformed()),
        (
            "F-4: two Bearer fields",
            &["Bearer TOKEN", "Bearer TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: Bearer first",
            &["Bearer TOKEN", "DPoP TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: DPoP first",
            &["DPoP TOKEN", "Bearer TOKEN"],
            ambiguous(),
        ),
        (
            "F-4: another scheme first",
            &["Basic YTpi", "Bearer TOKEN"],
            ambiguous(),
        ),
        ("R-7.1.1: another scheme", &["Basic YTpi"], missing()),
        (
            "R-7.1.1: a scheme that starts with Bearer",
            &["BearerX TOKEN"],
            missing(),
        ),
        ("R-7.1.1: no field", &[], missing()),
    ];
    for (name, fields, expected) in rows {
        let outcome = outcome_by(
            &allowing_bearer(),
            bearer_attempt(|a| set_authorization(a, fields)).request(),
        );
        assert_eq!(outcome, expected, "{name}");
    }
    let for_a_proxy = bearer_attempt(|a| {
        a.authorization = Some(vec![]);
        let field = format!("Bearer {}", a.token()).parse().unwrap();
        a.extra_headers.push(("proxy-authorization", field));
    });
    let outcome = outcome_by(&allowing_bearer(), for_a_proxy.request());
    assert_eq!(outcome, missing(), "F-19: Proxy-Authorization");
}

/// Accepts every token, and counts its calls.
struct AcceptingTokens(Arc<AtomicUsize>);

impl AccessTokenVerifier for AcceptingTokens {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        _: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        assert!(token.as_str().len() <= 32 * 1024);
        let claims = serde_json::from_value(json!({ "sub": "alice" })).unwrap();
        Ok(AccessToken::new(Confirmation::Unbound, claims))
    }

    fn issuers(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// F-18: the limit is the same under both schemes.
#[test]
fn rejects_a_token_longer_than_32_kib_without_verifying_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let tokens = AcceptingTokens(Arc::clone(&calls));
    let layer = DpopLayer::new(
        Verifier::new(common::AUDIENCE.parse::<PublicUrl>().unwrap(), tokens).allow_bearer(),
    );
    let rows = [
        (32 * 1024, passed_with(FoundToken::Bearer)),
        (32 * 1024 + 1, rejected_as_bearer(BearerError::TooLong)),
        (1 << 20, rejected_as_bearer(BearerError::TooLong)),
    ];
    for (length, expected) in rows {
        let attempt = bearer_attempt(|a| a.token = Some("x".repeat(length)));
        assert_eq!(outcome_by(&layer, attempt.request()), expected, "{length}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let under_dpop = Attempt::but(|a| a.token = Some("x".repeat(32 * 1024 + 1)));
    let expected = rejected_as_dpop("invalid_token", CredentialsError::TokenTooLong);
    assert_eq!(outcome_by(&layer, under_dpop.request()), expected);
}

/// F-10, F-11, F-13
#[test]
fn rejects_bearer_tokens_without_verifying_them_unless_bearer_is_allowed() {
    let calls = Arc::new(AtomicUsize::new(0));
    let tokens = AcceptingTokens(Arc::clone(&calls));
    let layer = DpopLayer::new(Verifier::new(
        common::AUDIENCE.parse::<PublicUrl>().unwrap(),
        tokens,
    ));
    let error = CredentialsError::Bearer;
    let challenge = format!(r#"DPoP error="invalid_token", error_description="{error}", {ALGS}"#);
    let expected = rejected(401, &[challenge], error);
    let rows: [(&str, Change); 4] = [
        ("unbound", |_| {}),
        ("unbound, with a proof", |a| a.dpop = None),
        ("bound to a certificate", |a| {
            a.token_claims["cnf"] = json!({ "x5t#S256": "x" });
        }),
        ("too long", |a| a.token = Some("x".repeat(1 << 20))),
    ];
    for (name, change) in rows {
        assert_eq!(
            outcome_by(&layer, bearer_attempt(change).request()),
            expected,
            "{name}"
        );
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// R-7.2.1, R-7.2.3, R-7.2.4, R-AT.7: otherwise an attacker could use the response to test tokens.
#[test]
fn the_response_to_a_bearer_token_does_not_depend_on_it_unless_bearer_is_allowed() {
    let rows: Vec<(&str, Change)> = vec![
        ("R-7.2.1: a bound token", |_| {}),
        ("R-7.2.1: a bound token without a proof", |a| {
            a.dpop = Some(vec![]);
        }),
        ("an unbound token", remove_cnf),
        ("a forged token", |a| a.token_key = Key::es256()),
        ("an opaque token", |a| {
            a.token = Some("opaque".into());
        }),
    ];
    for (name, change) in rows {
        let mut attempt = Attempt::but(change);
        set_authorization(&mut attempt, &["Bearer TOKEN"]);
        let outcome = attempt.outcome();
        outcome.assert_reason(name, CredentialsError::Bearer);
        let description = "the access token was presented as a bearer token";
        let expected =
            format!(r#"DPoP error="invalid_token", error_description="{description}", {ALGS}"#);
        assert_eq!(outcome.challenges, [expected], "R-7.2.3: {name}");
    }
    let outcome = no_credentials().outcome();
    assert_eq!(
        (outcome.status.as_u16(), outcome.parameter("error")),
        (401, None),
        "R-7.2.4"
    );
}

/// R-AT.8, R-AT.12
#[test]
fn ignores_a_bound_token_in_the_query() {
    let in_the_query = Attempt::but(|a| {
        a.uri = format!("/orders?access_token={}", a.token());
        a.authorization = Some(vec![]);
    });
    in_the_query
        .outcome()
        .assert_reason("in the query only", CredentialsError::Missing);
    let in_both = Attempt::but(|a| a.uri = format!("/orders?access_token={}", a.token()));
    in_both
        .outcome()
        .assert_passed("in the query and the header field");
}
