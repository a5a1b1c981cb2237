//! The assertions about one response, and what their messages show.

use std::fmt::{Debug, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{Method, Response};
use tower_dpop::Rejection;
use tower_dpop::proof::{NonceError, ProofError, ReplayStoreError, TargetError};
use tower_dpop::resource::{AuthorizationError, BearerError, CredentialsError};
use tower_dpop::testing::{Defect, TestClient, TestClock, TestResponse};
use tower_dpop::token_endpoint::{DpopJktError, GrantBindingError, TokenRequestRejection};
use tower_dpop::tokens::TokenError;

use super::{ORDERS, assert_shows_nothing, issuer, nonces, token_endpoint, token_endpoint_by};

/// A rejection from over the wire. The secret is in the fields that no message may show.
fn rejection(status: u16, challenge: &str, secret: &str) -> TestResponse {
    let mut response = Response::builder()
        .status(status)
        .header("dpop-nonce", secret)
        .header("cache-control", "no-store")
        .header("content-type", "application/json");
    if !challenge.is_empty() {
        response = response.header(
            "www-authenticate",
            format!(r#"{challenge}, realm="{secret}""#),
        );
    }
    TestResponse::of(&response.body(()).unwrap())
}

const NO_ERROR: &str = r#"DPoP algs="ES256""#;
const BOUND_TOKEN: &str = r#"Bearer error="invalid_token", error_description="the access token is bound to a key and needs a DPoP proof""#;
const SEVERAL_FIELDS: &str =
    r#"error="invalid_request", error_description="several Authorization fields""#;
const INSUFFICIENT_SCOPE: &str = r#"Bearer error="insufficient_scope", error_description="the access token does not allow this request""#;
const REPLAYED: &str = r#"DPoP error="invalid_dpop_proof", error_description="the DPoP proof was used before", algs="ES256""#;
const NONCE_REQUIRED: &str = r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof", algs="ES256""#;

#[test]
fn assertions_pass_for_matching_responses() {
    let passed = TestResponse::of(&Response::builder().status(201).body(()).unwrap());
    passed.assert_passed("a 201");
    let replay = rejection(401, REPLAYED, "n");
    replay.assert_rejected("a replay", 401, Some("invalid_dpop_proof"));
    replay.assert_reason("a replay", ProofError::Replayed);
    rejection(401, NONCE_REQUIRED, "n").assert_reason("a required nonce", NonceError::Stale);
    let beside_another = rejection(401, &format!("Bearer, {REPLAYED}"), "n");
    beside_another.assert_reason("a replay", ProofError::Replayed);
    assert_eq!(beside_another.parameter("algs"), Some("ES256"));
    rejection(401, r#"DPoP algs="ES256""#, "n")
        .assert_reason("no credentials", CredentialsError::Missing);
    let bound = rejection(401, &format!("{BOUND_TOKEN}, {NO_ERROR}"), "n");
    bound.assert_rejected("a downgrade", 401, Some("invalid_token"));
    bound.assert_reason("a downgrade", BearerError::Bound);
    assert_eq!(
        (bound.parameter("error"), bound.parameter("algs")),
        (None, Some("ES256"))
    );
    assert!(
        format!("{bound:?}").contains("401 invalid_token"),
        "{bound:?}"
    );
    let both = rejection(
        400,
        &format!("Bearer {SEVERAL_FIELDS}, DPoP {SEVERAL_FIELDS}, algs=x"),
        "n",
    );
    both.assert_rejected("two tokens", 400, Some("invalid_request"));
    both.assert_reason("two tokens", CredentialsError::Ambiguous);
    let not_enough = rejection(403, INSUFFICIENT_SCOPE, "n");
    not_enough.assert_rejected("no scope", 403, Some("insufficient_scope"));
    let denied = AuthorizationError::NotMet;
    not_enough.assert_reason("no scope", BearerError::Authorization(denied));
    rejection(503, "", "n").assert_rejected("a full replay store", 503, None);
    rejection(503, "", "n").assert_reason("no keys", TokenError::Unavailable);
    let replayed_body =
        r#"{"error":"invalid_dpop_proof","error_description":"the DPoP proof was used before"}"#;
    let at_a_token_endpoint = rejection(400, "", "n");
    at_a_token_endpoint.assert_token_request_reason(
        "a replay",
        replayed_body,
        ProofError::Replayed,
    );
    for reason in [
        TokenRequestRejection::from(GrantBindingError::CodeOfOtherKey),
        GrantBindingError::RefreshTokenOfOtherKey.into(),
        GrantBindingError::NoProof.into(),
        DpopJktError::Contradictory.into(),
        TargetError::Misdirected.into(),
        NonceError::Stale.into(),
        ReplayStoreError::Full.into(),
    ] {
        let response: Response<String> =
            token_endpoint_by(|rules| rules.with_nonces(nonces())).reject(reason.clone());
        let on_the_wire = Response::from_parts(response.into_parts().0, ());
        let body: Response<String> = token_endpoint().reject(reason.clone());
        let mut response = TestResponse::of(&on_the_wire);
        response.assert_token_request_reason("in process", body.body(), reason.clone());
        response.token_request_rejection = None;
        response.assert_token_request_reason("on the wire", body.body(), reason);
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn assertions_fail_for_other_responses_and_show_no_secret() {
    type Check<'c> = Box<dyn Fn() + 'c>;
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS);
    let secret = request.proof(&request.token());
    let body = |error: &str, description: &str| {
        format!(
            r#"{{"error":"{error}","error_description":"{description}","access_token":"{secret}"}}"#
        )
    };
    let replayed_body = body("invalid_dpop_proof", "the DPoP proof was used before");
    let s = secret.as_str();
    let ok = || rejection(200, "", s);
    let replay = || rejection(401, REPLAYED, s);
    let in_process = |reason: ProofError| {
        let mut response = Response::builder()
            .status(401)
            .header("www-authenticate", REPLAYED)
            .body(())
            .unwrap();
        response.extensions_mut().insert(Rejection::from(reason));
        TestResponse::of(&response)
    };
    let without_nonce = Response::builder()
        .status(401)
        .header("www-authenticate", NONCE_REQUIRED)
        .body(())
        .unwrap();
    let rows: Vec<(&str, Check<'_>)> = vec![
        (
            "a rejection is not a success",
            Box::new(|| replay().assert_passed("row")),
        ),
        (
            "a 500 is not a success",
            Box::new(|| rejection(500, "", s).assert_passed("row")),
        ),
        (
            "a rejection with status 200 is not a success",
            Box::new(|| {
                let mut response = in_process(ProofError::Type);
                response.status = http::StatusCode::OK;
                response.assert_passed("row");
            }),
        ),
        (
            "a 200 is not a rejection",
            Box::new(|| ok().assert_rejected("row", 401, None)),
        ),
        (
            "another status",
            Box::new(|| replay().assert_rejected("row", 403, Some("invalid_dpop_proof"))),
        ),
        (
            "another error",
            Box::new(|| replay().assert_rejected("row", 401, Some("invalid_token"))),
        ),
        (
            "an unexpected error",
            Box::new(|| replay().assert_rejected("row", 401, None)),
        ),
        (
            "no challenge",
            Box::new(|| rejection(401, "", s).assert_rejected("row", 401, None)),
        ),
        (
            "a challenge of another scheme",
            Box::new(|| rejection(401, "Bearer", s).assert_rejected("row", 401, None)),
        ),
        (
            "two challenges",
            Box::new(|| {
                let twice = format!("{REPLAYED}, {REPLAYED}");
                rejection(401, &twice, s).assert_rejected("row", 401, Some("invalid_dpop_proof"));
            }),
        ),
        (
            "a challenge without algorithms",
            Box::new(|| rejection(401, "DPoP x=y", s).assert_rejected("row", 401, None)),
        ),
        (
            "a challenge for a server error",
            Box::new(|| rejection(503, REPLAYED, s).assert_rejected("row", 503, None)),
        ),
        (
            "a Bearer challenge for a server error",
            Box::new(|| rejection(503, "Bearer", s).assert_rejected("row", 503, None)),
        ),
        (
            "an error in the Bearer challenge, and no DPoP challenge",
            Box::new(|| {
                rejection(401, BOUND_TOKEN, s).assert_rejected("row", 401, Some("invalid_token"));
            }),
        ),
        (
            "an error in the Bearer challenge, and a DPoP challenge without algorithms",
            Box::new(|| {
                let challenges = format!("{BOUND_TOKEN}, DPoP x=y");
                rejection(401, &challenges, s).assert_rejected("row", 401, Some("invalid_token"));
            }),
        ),
        (
            "an unexpected error in the Bearer challenge",
            Box::new(|| {
                let challenges = format!("{BOUND_TOKEN}, {NO_ERROR}");
                rejection(401, &challenges, s).assert_reason("row", CredentialsError::Missing);
            }),
        ),
        (
            "a DPoP error in the Bearer challenge",
            Box::new(|| {
                let challenges = REPLAYED.replacen("DPoP ", "Bearer ", 1);
                let challenges = format!("{challenges}, {NO_ERROR}");
                rejection(401, &challenges, s).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "errors in both challenges",
            Box::new(|| {
                let challenges = format!("{BOUND_TOKEN}, {REPLAYED}");
                rejection(401, &challenges, s).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "a Bearer error in the DPoP challenge",
            Box::new(|| {
                let challenges = BOUND_TOKEN.replacen("Bearer ", "DPoP ", 1);
                let challenges = format!(r#"Bearer, {challenges}, algs="ES256""#);
                rejection(401, &challenges, s).assert_reason("row", BearerError::Bound);
            }),
        ),
        (
            "a DPoP challenge for a bearer token with insufficient scope",
            Box::new(|| {
                let challenges = format!("{INSUFFICIENT_SCOPE}, {NO_ERROR}");
                rejection(403, &challenges, s).assert_rejected(
                    "row",
                    403,
                    Some("insufficient_scope"),
                );
            }),
        ),
        (
            "another description",
            Box::new(|| replay().assert_reason("row", ProofError::Signature)),
        ),
        (
            "another reason of the same status and error",
            Box::new(|| {
                in_process(ProofError::Signature).assert_reason("row", ProofError::Replayed);
            }),
        ),
        (
            "a required nonce that is missing",
            Box::new(|| TestResponse::of(&without_nonce).assert_reason("row", NonceError::Missing)),
        ),
        (
            "a token endpoint's 401",
            Box::new(|| {
                replay().assert_token_request_reason("row", &replayed_body, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 without JSON",
            Box::new(|| {
                let response = rejection(400, "", s);
                response.assert_token_request_reason("row", s, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 with another error",
            Box::new(|| {
                let response = rejection(400, "", s);
                let other = body("invalid_request", "the DPoP proof was used before");
                response.assert_token_request_reason("row", other, ProofError::Replayed);
            }),
        ),
        (
            "a token endpoint's 400 with another description",
            Box::new(|| {
                let response = rejection(400, "", s);
                response.assert_token_request_reason("row", &replayed_body, ProofError::Type);
            }),
        ),
        (
            "a token endpoint's 400 that may be cached",
            Box::new(|| {
                let mut response = rejection(400, "", s);
                response.cache_control = None;
                response.assert_token_request_reason("row", &replayed_body, ProofError::Replayed);
            }),
        ),
    ];
    let mut failed = Vec::new();
    for (name, check) in &rows {
        let result = catch_unwind(AssertUnwindSafe(check));
        let message = *result.expect_err(name).downcast::<String>().unwrap();
        assert!(message.starts_with("row: "), "{name}: {message}");
        assert_shows_nothing(name, &message, &secret);
        failed.push(message);
    }
    assert_eq!(failed.len(), rows.len());
    assert!(failed[0].contains("401 invalid_dpop_proof (the DPoP proof was used before)"));
}

#[test]
fn debug_shows_no_secret() {
    let issuer = issuer();
    let client = TestClient::new(&issuer).with_nonce("a-nonce-of-the-server");
    let request = client.request(Method::GET, ORDERS);
    let token = issuer.token_for(client.key().thumbprint());
    let response = rejection(401, REPLAYED, "a-nonce-of-the-server");
    let (sent_token, built) = (request.token(), request.build::<()>());
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&issuer);
    show(&client);
    show(&request);
    show(&token);
    show(&response);
    show(&TestClock::default());
    show(&Defect::NoJti);
    show(&built);
    assert!(!shown.contains("a-nonce"), "{shown}");
    assert_shows_nothing("a token", &shown, &sent_token);
    assert_shows_nothing("a proof", &shown, &request.proof(&sent_token));
    assert_shows_nothing("another token", &shown, &token.to_text());
}
