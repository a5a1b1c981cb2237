//! CORS preflights, with and without `with_preflight_pass_through`.

use std::sync::Arc;
use tower::Service as _;

use common::{Attempt, AttemptExt as _, ask, block_on};
use http::{HeaderValue, Method, Request, StatusCode};
use tower::Layer as _;
use tower_dpop::Rejection;
use tower_dpop::proof::ProofError;
use tower_dpop::resource::CredentialsError;

use super::{Event, StrictService, layer, poll_ready};

#[test]
fn a_preflight_that_passes_through_calls_the_service_that_was_polled_ready() {
    let events = Arc::default();
    let mut service = layer().with_preflight_pass_through().layer(StrictService {
        events: Arc::clone(&events),
        ..StrictService::default()
    });
    for _ in 0..2 {
        assert!(poll_ready(&mut service).is_ready());
        let request = preflight(|_| {});
        assert_eq!(block_on(service.call(request)).unwrap().body(), "served");
    }
    assert_eq!(
        *events.lock().unwrap(),
        [
            Event::PolledReady(0),
            Event::Called(0),
            Event::PolledReady(1),
            Event::Called(1),
        ]
    );
}

fn preflight(change: impl FnOnce(&mut Request<String>)) -> Request<String> {
    let mut request = Request::options("/orders")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization,dpop")
        .body(String::new())
        .unwrap();
    change(&mut request);
    request
}

#[test]
fn lets_only_preflights_through_and_only_if_configured() {
    let by_default = layer();
    let passing = layer().with_preflight_pass_through();
    let token: HeaderValue = format!("DPoP {}", Attempt::good().token()).parse().unwrap();

    let outcome = ask(&by_default, preflight(|_| {}));
    outcome.assert_reason("T-4: by default", CredentialsError::Missing);
    let outcome = ask(&passing, preflight(|_| {}));
    assert_eq!(
        (outcome.status, outcome.rejection.clone()),
        (StatusCode::OK, None)
    );
    assert!(outcome.token.is_none(), "T-4: a preflight has no token");

    let cases: [(&str, Request<String>, Rejection); 4] = [
        (
            "T-4: with Authorization",
            preflight(|request| {
                request.headers_mut().insert("authorization", token);
            }),
            ProofError::Missing.into(),
        ),
        (
            "T-4: with an empty Authorization",
            preflight(|request| {
                let empty = HeaderValue::from_static("");
                request.headers_mut().insert("authorization", empty);
            }),
            CredentialsError::Malformed.into(),
        ),
        (
            "T-4: another method",
            preflight(|request| *request.method_mut() = Method::GET),
            CredentialsError::Missing.into(),
        ),
        (
            "T-4: OPTIONS without Access-Control-Request-Method",
            preflight(|request| {
                request
                    .headers_mut()
                    .remove("access-control-request-method");
            }),
            CredentialsError::Missing.into(),
        ),
    ];
    for (name, request, reason) in cases {
        ask(&passing, request).assert_reason(name, reason);
    }
}
