//! Requests through one report-only layer.

use common::{Attempt, AttemptExt as _, Key, KeyExt as _, NOW, block_on, verifier, verifier_by};
use http::{Request, StatusCode};
use serde_json::json;
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};
use tower_dpop::proof::{NonceError, ProofError, ReplayStoreError, TargetError};
use tower_dpop::resource::{BearerError, BindingError, CredentialsError, Unavailable};
use tower_dpop::tokens::TokenError;
use tower_dpop::{
    DpopLayer, MemoryReplayStore, NonceSecret, Rejection, RequireScopesLayer, StatelessNonces,
    Verifier,
};

use super::super::{FailingStore, RejectingTokens};
use super::{
    Outcome, assert_one_event, logged, passed, passed_but_reported, send_through, send_to,
    service_with_status,
};

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::generate())
}

type Change = fn(&mut Attempt);

/// One request per kind of rejection.
fn rejections() -> Vec<(&'static str, Change, Rejection)> {
    vec![
        (
            "no credentials",
            |a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![])),
            CredentialsError::Missing.into(),
        ),
        (
            "two Authorization fields",
            |a| a.authorization = Some(vec!["DPoP x".parse().unwrap(); 2]),
            CredentialsError::Ambiguous.into(),
        ),
        (
            "a malformed Authorization field",
            |a| a.authorization = Some(vec!["DPoP".parse().unwrap()]),
            CredentialsError::Malformed.into(),
        ),
        (
            "a bearer token",
            |a| a.authorization = Some(vec!["Bearer x".parse().unwrap()]),
            CredentialsError::Bearer.into(),
        ),
        (
            "a token that is too long",
            |a| a.token = Some("x".repeat(32 * 1024 + 1)),
            CredentialsError::TokenTooLong.into(),
        ),
        (
            "a CONNECT request",
            |a| (a.method, a.uri) = (http::Method::CONNECT, "api.example.com:443".into()),
            TargetError::Connect.into(),
        ),
        (
            "no proof",
            |a| a.dpop = Some(vec![]),
            ProofError::Missing.into(),
        ),
        (
            "a proof for another method",
            |a| a.proof_claims["htm"] = json!("POST"),
            ProofError::Method.into(),
        ),
        (
            "a wrong signature",
            |a| a.key = Key::es256(),
            ProofError::Signature.into(),
        ),
        (
            "a token that is bound to another key",
            |a| a.proof_header["jwk"] = Key::es256().public_jwk(),
            BindingError::OtherKey.into(),
        ),
        (
            "an expired token",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired.into(),
        ),
        (
            "a forged token",
            |a| a.token_key = Key::es256(),
            TokenError::Signature.into(),
        ),
        (
            "an unbound token",
            |a| drop(a.token_claims.as_object_mut().unwrap().remove("cnf")),
            BindingError::Unbound.into(),
        ),
    ]
}

#[test]
fn a_request_that_would_be_rejected_passes_and_is_reported() {
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| send_through(&layer, request));
        assert_eq!(outcome, passed_but_reported(rejection.clone()), "{name}");
        let message = "request would be rejected, and passes";
        assert_one_event(name, &lines, message, &rejection);
    }
}

#[test]
fn an_enforcing_layer_rejects_the_same_requests_and_reports_nothing() {
    let layer = DpopLayer::new(verifier());
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| send_through(&layer, request));
        let expected = Outcome {
            status: rejection.status(),
            challenges: 1,
            rejection: Some(rejection.clone()),
            reported: None,
            seen: None,
            ..passed(true)
        };
        assert_eq!(outcome, expected, "{name}");
        assert_one_event(name, &lines, "request rejected", &rejection);
        assert!(!lines[0].contains("would"), "{name}: {lines:?}");
    }
    assert_eq!(
        send_through(&layer, Attempt::good().request()),
        passed(true)
    );
    let with_scopes = ServiceBuilder::new()
        .layer(layer)
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .service(service_with_status(StatusCode::OK));
    let outcome = send_to(with_scopes, Attempt::good().request());
    assert_eq!((outcome.status.as_u16(), outcome.reported), (403, None));
    assert!(outcome.rejection.is_some());
}

#[test]
fn a_request_passes_if_the_server_cannot_decide() {
    let no_keys = Verifier::new(common::rules(), RejectingTokens(TokenError::Unavailable));
    let no_keys = DpopLayer::new(no_keys);
    let full = DpopLayer::new(verifier_by(|rules| {
        rules.with_replay_store(FailingStore(ReplayStoreError::Full))
    }));
    let message = "request would be rejected, and passes: cannot decide";

    let request = Attempt::good().request();
    let (outcome, lines) = logged(|| send_through(&no_keys.with_insecure_report_only(), request));
    assert_eq!(outcome, passed_but_reported(Unavailable::Token));
    assert_one_event("no keys", &lines, message, &Unavailable::Token.into());

    let request = Attempt::good().request();
    let (outcome, lines) = logged(|| send_through(&full.with_insecure_report_only(), request));
    let rejection = Rejection::from(ReplayStoreError::Full);
    assert_eq!(outcome, passed_but_reported(rejection.clone()));
    assert_one_event("a full replay store", &lines, message, &rejection);
}

#[test]
fn a_valid_request_has_its_token_and_its_proof_is_recorded_as_used() {
    let store = MemoryReplayStore::default();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(store.clone())))
        .with_insecure_report_only();
    let request = Attempt::good().request();
    let (first, lines) = logged(|| send_through(&layer, request.clone()));
    assert_eq!(first, passed(true));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("request accepted"), "{lines:?}");
    assert_eq!(store.usage().live, 1);
    let again = send_through(&layer, request);
    assert_eq!(
        again,
        passed_but_reported(ProofError::Replayed),
        "R-11.1.3: the same proof again"
    );
    assert_eq!(store.usage().live, 1);
    // The proof of a request that would have been rejected is not recorded.
    let rejected = Attempt::but(|a| a.proof_claims["htm"] = json!("POST"));
    send_through(&layer, rejected.request());
    assert_eq!(store.usage().live, 1);
}

#[test]
fn an_unbound_bearer_token_is_accepted_and_a_bound_one_is_reported() {
    let layer = DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only();
    let unbound = Attempt::good().as_bearer();
    assert_eq!(send_through(&layer, unbound.request()), passed(false));
    let bound = Attempt::but(|a| {
        let field = format!("Bearer {}", a.token()).parse().unwrap();
        a.authorization = Some(vec![field]);
    });
    let outcome = send_through(&layer, bound.request());
    assert_eq!(
        outcome,
        passed_but_reported(BearerError::Bound),
        "R-7.2.1, F-10"
    );
}

/// So that clients already use nonces when the layer starts to reject requests. The status of the
/// response does not matter.
#[test]
fn a_client_that_needs_a_nonce_gets_one() {
    let nonces = nonces();
    let layer =
        DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces))).with_insecure_report_only();
    let rows: [(&str, Change, Rejection, usize); 5] = [
        ("no nonce", |_| {}, NonceError::Missing.into(), 1),
        (
            "a nonce of another server",
            |a| a.proof_claims["nonce"] = json!("x"),
            NonceError::Foreign.into(),
            1,
        ),
        (
            "no proof",
            |a| a.dpop = Some(vec![]),
            NonceError::Missing.into(),
            1,
        ),
        (
            "no token: no nonce needed yet",
            |a| a.authorization = Some(vec![]),
            CredentialsError::Missing.into(),
            0,
        ),
        (
            "an expired token: a new token is needed first",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired.into(),
            0,
        ),
    ];
    for status in [200, 204, 302, 404, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        for (name, change, rejection, count) in &rows {
            let request = Attempt::but(change).request();
            let outcome = send_to(layer.layer(service_with_status(status)), request);
            let expected = Outcome {
                status,
                nonces: *count,
                ..passed_but_reported(rejection.clone())
            };
            assert_eq!(outcome, expected, "{name}, {status}");
        }
    }
    let service = layer.layer(service_with_status(StatusCode::NOT_FOUND));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store", "R-8.2.3");
    let nonce = response.headers()["dpop-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let retry = Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce));
    assert_eq!(
        send_through(&layer, retry.request()),
        passed(true),
        "R-9.1: the retry"
    );
}

/// T-4: preflights are not verified in this mode either.
#[test]
fn a_preflight_that_passes_through_is_not_reported() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(String::new())
            .unwrap()
    };
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    let reported = send_through(&layer, preflight());
    assert_eq!(reported, passed_but_reported(CredentialsError::Missing));
    let passing = layer.with_preflight_pass_through();
    let (outcome, lines) = logged(|| send_through(&passing, preflight()));
    assert_eq!((outcome.reported, lines.len()), (None, 0));
    assert_eq!(outcome.seen.unwrap().reported, None);
}

#[test]
fn debug_shows_the_mode_and_clones_keep_it() {
    let layer = DpopLayer::new(verifier());
    assert!(format!("{layer:?}").contains("Enforced"));
    let layer = layer.with_insecure_report_only();
    assert!(format!("{:?}", layer.clone()).contains("ReportOnly"));
    let clone = send_through(&layer.clone(), Request::new(String::new()));
    assert_eq!(
        clone,
        passed_but_reported(CredentialsError::Missing),
        "a clone has the same mode"
    );
}
