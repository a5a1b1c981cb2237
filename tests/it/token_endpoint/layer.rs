//! The layer around a service: what it passes on, and what it adds to a response.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};
use tower_dpop::token_endpoint::{TokenEndpointLayer, TokenRequestRejection};

use common::token_endpoint::{Attempt, Outcome, Server, endpoint};
use common::{NOW, TestClock, block_on, field, keys};

use super::{bad_proofs, endpoint_with_nonces, jkt};

/// A-6, A-8: for servers that also serve clients without DPoP.
#[test]
fn accepts_requests_without_a_proof_only_if_configured() {
    let strict = TokenEndpointLayer::new(endpoint());
    let optional = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
    let optional_with_nonces = TokenEndpointLayer::new(endpoint_with_nonces(&TestClock::at(NOW)))
        .with_requests_without_proof();
    let server = Server::default();

    Attempt::without_proof()
        .outcome_by(&strict, &server)
        .assert_rejected("A-8", ProofError::Missing, Some("invalid_dpop_proof"));
    assert_eq!(server.calls(), 0);
    for layer in [&optional, &optional_with_nonces] {
        let outcome = Attempt::without_proof().outcome_by(layer, &server);
        assert_eq!(outcome.body, r#"{"token_type":"Bearer"}"#, "A-6");
        assert_eq!(outcome.values("dpop-nonce"), [""; 0], "A-6");
    }
    Attempt::good()
        .outcome_by(&optional, &server)
        .assert_bound("with a proof", &keys::client());
    Attempt::good()
        .outcome_by(&optional_with_nonces, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));

    let endpoint = endpoint();
    let absent = block_on(endpoint.verify_if_present(&Attempt::without_proof().head()));
    assert!(absent.unwrap().is_none(), "A-6");
    let present = block_on(endpoint.verify_if_present(&Attempt::good().head()));
    assert_eq!(present.unwrap().unwrap().thumbprint(), jkt(&keys::client()));
}

/// A-6: a request with a `DPoP` field must pass every check.
#[test]
fn does_not_treat_an_invalid_proof_as_a_missing_one() {
    for (name, change, reason) in bad_proofs() {
        if reason == ProofError::Missing {
            continue;
        }
        let optional = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
        let server = Server::default();
        let outcome = Attempt::but(change).outcome_by(&optional, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.calls(), 0, "{name}");
    }
}

/// A-6, A-8: a server may clone the service for every connection.
#[test]
fn a_clone_of_the_service_accepts_the_same_requests() {
    let layer = TokenEndpointLayer::new(endpoint());
    let optional = layer.clone().with_requests_without_proof();
    for (layer, expected) in [
        (
            layer,
            Some(TokenRequestRejection::Proof(ProofError::Missing)),
        ),
        (optional, None),
    ] {
        let server = Server::default();
        let service = layer
            .clone()
            .layer(service_fn(move |request: Request<String>| {
                ready(Ok::<_, Infallible>(server.respond(&request)))
            }));
        let request = Attempt::without_proof().request();
        let outcome = Outcome::of(block_on(service.clone().oneshot(request)).unwrap());
        assert_eq!(outcome.rejection, expected);
    }
}

/// A-11, A-12: it replaces a nonce that the service sets itself.
#[test]
fn a_successful_response_has_the_next_nonce_when_it_is_due() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    // Rows in order of time: the replay store does not accept an earlier time again.
    let layer = TokenEndpointLayer::new(endpoint_with_nonces(&clock));
    let nonce = Attempt::without_proof()
        .outcome_by(&layer, &Server::default())
        .nonce();
    let mut fields = HeaderMap::new();
    fields.insert("dpop-nonce", field(b"its-own"));
    fields.insert("cache-control", field(b"max-age=600"));
    let with_own_nonce = Server {
        headers: fields,
        ..Server::default()
    };
    let failing = Server {
        status: StatusCode::BAD_REQUEST,
        ..Server::default()
    };
    let rows = [
        ("a new nonce", 119, Server::default(), None),
        (
            "a new nonce, and the service sets its own",
            119,
            with_own_nonce.clone(),
            Some("its-own"),
        ),
        (
            "near the end of its lifetime",
            120,
            Server::default(),
            Some("next"),
        ),
        (
            "A-11: near the end of its lifetime, and the service sets its own",
            120,
            with_own_nonce,
            Some("next"),
        ),
        (
            "near the end of its lifetime, and the service fails",
            120,
            failing,
            None,
        ),
        (
            "in the last second of its lifetime",
            239,
            Server::default(),
            Some("next"),
        ),
    ];
    for (name, age, server, expected) in rows {
        clock.set(start + age);
        let outcome = Attempt::with_nonce(&nonce, start + age).outcome_by(&layer, &server);
        assert_eq!(outcome.rejection, None, "{name}");
        match expected {
            None => assert_eq!(outcome.values("dpop-nonce"), [""; 0], "{name}"),
            Some("its-own") => assert_eq!(outcome.nonce(), "its-own", "{name}"),
            Some(_) => {
                assert_ne!(outcome.nonce(), nonce, "{name}");
                assert_eq!(
                    outcome.values("cache-control"),
                    ["no-store"],
                    "{name}: A-12"
                );
                Attempt::with_nonce(&outcome.nonce(), start + age)
                    .outcome_by(&layer, &Server::default())
                    .assert_bound(name, &keys::client());
            }
        }
    }
}

/// A-17: a script can send a proof and read the nonce, and a preflight request needs none.
#[test]
fn a_cors_layer_outside_lets_scripts_send_proofs_and_read_the_nonce() {
    let cors = tower_http::cors::CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_methods([Method::POST])
        .allow_headers(cors_allow_headers())
        .expose_headers(cors_expose_headers());
    let layer = TokenEndpointLayer::new(endpoint_with_nonces(&TestClock::at(NOW)));
    let send = |request: Request<String>| {
        let service = service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let service = cors.clone().layer(layer.layer(service));
        Outcome::of(block_on(service.oneshot(request)).unwrap())
    };
    let mut request = Attempt::good().request();
    request
        .headers_mut()
        .insert("origin", field(b"https://app.example"));
    let outcome = send(request);
    outcome.assert_rejected("A-17", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.values("access-control-expose-headers"),
        ["date,dpop-nonce,retry-after,www-authenticate"],
        "A-17"
    );
    let preflight = Request::options("/token")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,dpop")
        .body(String::new())
        .unwrap();
    let outcome = send(preflight);
    assert_eq!(
        (outcome.status, outcome.rejection.clone()),
        (StatusCode::OK, None)
    );
    assert_eq!(
        outcome.values("access-control-allow-headers"),
        ["authorization,content-type,dpop"],
        "A-17"
    );
}

/// Tower requires this: a clone has not been polled ready.
#[test]
fn calls_the_service_that_was_polled_ready() {
    #[derive(Default)]
    struct PanicsIfNotReady {
        ready: bool,
    }

    impl Clone for PanicsIfNotReady {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<Request<String>> for PanicsIfNotReady {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<String>) -> Self::Future {
            assert!(self.ready, "called without having been polled ready");
            self.ready = false;
            ready(Ok(Response::new(String::new())))
        }
    }

    let mut service = TokenEndpointLayer::new(endpoint()).layer(PanicsIfNotReady::default());
    block_on(async {
        for _ in 0..3 {
            let service = service.ready().await.unwrap();
            let response = service.call(Attempt::good().request()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        let mut clone = service.clone();
        let response = clone.ready().await.unwrap();
        assert!(response.call(Attempt::good().request()).await.is_ok());
    });
}

#[test]
fn returns_the_error_of_the_service() {
    #[derive(Debug, PartialEq)]
    struct Broken;

    let service =
        TokenEndpointLayer::new(endpoint()).layer(service_fn(async |_: Request<String>| {
            Err::<Response<String>, _>(Broken)
        }));
    let result = block_on(service.oneshot(Attempt::good().request()));
    assert_eq!(result.unwrap_err(), Broken);
}
