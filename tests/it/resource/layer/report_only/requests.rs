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

use super::super::{BrokenStore, Says};
use super::{
    Outcome, answering, assert_one_event, logged, outcome, outcome_of, passed, passed_although,
};

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::generate())
}

type Change = fn(&mut Attempt);

/// A rejection of every kind, and its reason.
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
            "a broken field",
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
            "a target without a path",
            |a| (a.method, a.uri) = (http::Method::CONNECT, "api.example.com:443".into()),
            TargetError::Connect.into(),
        ),
        (
            "no proof",
            |a| a.dpop = Some(vec![]),
            ProofError::Missing.into(),
        ),
        (
            "another method",
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

/// Nothing is rejected, and everything is said.
#[test]
fn every_rejection_passes_and_is_reported() {
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| outcome(&layer, request));
        assert_eq!(outcome, passed_although(rejection.clone()), "{name}");
        let message = "request would be rejected, and passes";
        assert_one_event(name, &lines, message, &rejection);
    }
}

/// The same requests at a layer that means it: no trace of the mode.
#[test]
fn nothing_of_it_where_rejections_are_meant() {
    let layer = DpopLayer::new(verifier());
    for (name, change, rejection) in rejections() {
        let request = Attempt::but(change).request();
        let (outcome, lines) = logged(|| outcome(&layer, request));
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
    assert_eq!(outcome(&layer, Attempt::good().request()), passed(true));
    let inside = ServiceBuilder::new()
        .layer(layer)
        .layer(RequireScopesLayer::all_of("admin".parse().unwrap()))
        .service(answering(StatusCode::OK));
    let outcome = outcome_of(inside, Attempt::good().request());
    assert_eq!((outcome.status.as_u16(), outcome.reported), (403, None));
    assert!(outcome.rejection.is_some());
}

#[test]
fn a_fault_of_ours_passes_too() {
    let no_keys = Verifier::new(common::rules(), Says(TokenError::Unavailable));
    let no_keys = DpopLayer::new(no_keys);
    let full = DpopLayer::new(verifier_by(|rules| {
        rules.with_replay_store(BrokenStore(ReplayStoreError::Full))
    }));
    let message = "request would be rejected, and passes: cannot decide";

    let request = Attempt::good().request();
    let (found, lines) = logged(|| outcome(&no_keys.with_insecure_report_only(), request));
    assert_eq!(found, passed_although(Unavailable::Token));
    assert_one_event("no keys", &lines, message, &Unavailable::Token.into());

    let request = Attempt::good().request();
    let (found, lines) = logged(|| outcome(&full.with_insecure_report_only(), request));
    let rejection = Rejection::from(ReplayStoreError::Full);
    assert_eq!(found, passed_although(rejection.clone()));
    assert_one_event("a full memory", &lines, message, &rejection);
}

/// Good requests are verified as ever: they bring their token, and spend their proof.
#[test]
fn a_good_request_brings_its_token_and_spends_its_proof() {
    let memory = MemoryReplayStore::default();
    let layer = DpopLayer::new(verifier_by(|rules| rules.with_replay_store(memory.clone())))
        .with_insecure_report_only();
    let request = Attempt::good().request();
    let (first, lines) = logged(|| outcome(&layer, request.clone()));
    assert_eq!(first, passed(true));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("request accepted"), "{lines:?}");
    assert_eq!(memory.usage().live, 1);
    let again = outcome(&layer, request);
    assert_eq!(
        again,
        passed_although(ProofError::Replayed),
        "R-11.1.3: again"
    );
    assert_eq!(memory.usage().live, 1);
    // What would have been rejected spends nothing.
    let rejected = Attempt::but(|a| a.proof_claims["htm"] = json!("POST"));
    outcome(&layer, rejected.request());
    assert_eq!(memory.usage().live, 1);
}

#[test]
fn bearer_tokens_where_they_are_allowed() {
    let layer = DpopLayer::new(verifier().allow_bearer()).with_insecure_report_only();
    let unbound = Attempt::good().as_bearer();
    assert_eq!(outcome(&layer, unbound.request()), passed(false));
    let bound = Attempt::but(|a| {
        let field = format!("Bearer {}", a.token()).parse().unwrap();
        a.authorization = Some(vec![field]);
    });
    let found = outcome(&layer, bound.request());
    assert_eq!(found, passed_although(BearerError::Bound), "R-7.2.1, F-10");
}

/// A client that needs a nonce is given one, whatever the service answers, and has what it needs for
/// the day on which rejections are meant.
#[test]
fn a_client_that_needs_a_nonce_is_given_one() {
    let nonces = nonces();
    let layer =
        DpopLayer::new(verifier_by(|rules| rules.with_nonces(nonces))).with_insecure_report_only();
    let rows: [(&str, Change, Rejection, usize); 5] = [
        ("no nonce", |_| {}, NonceError::Missing.into(), 1),
        (
            "a foreign one",
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
            "no token: nothing to do with nonces",
            |a| a.authorization = Some(vec![]),
            CredentialsError::Missing.into(),
            0,
        ),
        (
            "an expired token: another is needed first",
            |a| a.token_claims["exp"] = json!(NOW - 60),
            TokenError::Expired.into(),
            0,
        ),
    ];
    for status in [200, 204, 302, 404, 500] {
        let status = StatusCode::from_u16(status).unwrap();
        for (name, change, rejection, count) in &rows {
            let request = Attempt::but(change).request();
            let found = outcome_of(layer.layer(answering(status)), request);
            let expected = Outcome {
                status,
                nonces: *count,
                ..passed_although(rejection.clone())
            };
            assert_eq!(found, expected, "{name}, {status}");
        }
    }
    let service = layer.layer(answering(StatusCode::NOT_FOUND));
    let response = block_on(service.oneshot(Attempt::good().request())).unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store", "R-8.2.3");
    let nonce = response.headers()["dpop-nonce"]
        .to_str()
        .unwrap()
        .to_owned();
    let retry = Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce));
    assert_eq!(
        outcome(&layer, retry.request()),
        passed(true),
        "R-9.1: the retry"
    );
}

/// T-4: preflights are not looked at, in this mode as in the other.
#[test]
fn a_preflight_that_is_let_through_is_not_reported() {
    let preflight = || {
        Request::options("/orders")
            .header("access-control-request-method", "GET")
            .body(())
            .unwrap()
    };
    let layer = DpopLayer::new(verifier()).with_insecure_report_only();
    let reported = outcome(&layer, preflight());
    assert_eq!(reported, passed_although(CredentialsError::Missing));
    let passing = layer.with_preflight_pass_through();
    let (found, lines) = logged(|| outcome(&passing, preflight()));
    assert_eq!((found.reported, lines.len()), (None, 0));
    assert_eq!(found.seen.unwrap().reported, None);
}

#[test]
fn the_layer_says_that_it_does_not_reject() {
    let layer = DpopLayer::new(verifier());
    assert!(format!("{layer:?}").contains("Enforced"));
    let layer = layer.with_insecure_report_only();
    assert!(format!("{:?}", layer.clone()).contains("ReportOnly"));
    let clone = outcome(&layer.clone(), Request::new(()));
    assert_eq!(
        clone,
        passed_although(CredentialsError::Missing),
        "a clone is of the same mode"
    );
}
