//! Browsers: a real CORS layer around ours, and what a script can then send and read.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::resource::{CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS, CredentialsError};
use tower_dpop::tokens::TokenError;
use tower_dpop::{DpopLayer, NonceSecret, Rejection, StatelessNonces};
use tower_http::cors::CorsLayer;

use common::{Attempt, AttemptExt as _, NOW, TestClock, required_nonce, verifier, verifier_by};

const ORIGIN: &str = "https://app.example";

type TestLayer = DpopLayer;

/// As the documentation of the layer says to set it up.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static(ORIGIN))
        .allow_methods([Method::GET])
        .allow_headers(CORS_ALLOW_HEADERS)
        .expose_headers(CORS_EXPOSE_HEADERS)
}

fn layer() -> TestLayer {
    DpopLayer::new(verifier())
}

fn with_nonces(clock: &TestClock) -> TestLayer {
    let nonces = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).unwrap());
    DpopLayer::new(verifier_by(|rules| {
        rules.with_clock(clock.read()).with_nonces(nonces)
    }))
}

/// Counts the requests that reach it, and lets caches keep what it says.
#[derive(Clone, Default)]
struct Orders(Arc<AtomicUsize>);

impl Orders {
    fn reached(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn outcome(&self) -> Response<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(());
        let public = HeaderValue::from_static("public, max-age=600");
        response.headers_mut().insert(CACHE_CONTROL, public);
        response
    }
}

/// What a browser gets from the service behind the CORS layer and ours, in this order.
fn browse(layer: &TestLayer, orders: &Orders, request: Request<()>) -> Response<()> {
    let orders = orders.clone();
    let service = service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(orders.outcome())));
    common::block_on(cors().layer(layer.layer(service)).oneshot(request)).unwrap()
}

fn from_a_script(attempt: &Attempt) -> Request<()> {
    let mut request = attempt.request();
    let origin = HeaderValue::from_static(ORIGIN);
    request.headers_mut().insert("origin", origin);
    request
}

fn preflight() -> Request<()> {
    Request::options("/orders")
        .header("origin", ORIGIN)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization,dpop")
        .body(())
        .unwrap()
}

/// The names in a header field that lists some.
fn listed(headers: &HeaderMap, field: &str) -> Vec<String> {
    let fields = headers.get_all(field).iter();
    let mut names: Vec<_> = fields
        .flat_map(|value| value.to_str().unwrap().split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    names.sort();
    names
}

fn rejection(response: &Response<()>) -> Option<Rejection> {
    response.extensions().get().cloned()
}

/// T-4, X-2: a preflight has no credentials, so nobody may ask it for some.
#[test]
fn the_cors_layer_outside_answers_preflights() {
    let orders = Orders::default();
    let clock = TestClock::at(NOW);
    for (name, layer) in [
        ("T-4: by default", layer()),
        ("T-4: with nonces on", with_nonces(&clock)),
        (
            "T-4: with the pass-through",
            layer().with_preflight_pass_through(),
        ),
    ] {
        let response = browse(&layer, &orders, preflight());
        let headers = response.headers();
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(rejection(&response), None, "{name}");
        assert!(!headers.contains_key("www-authenticate"), "{name}");
        assert!(!headers.contains_key("dpop-nonce"), "{name}");
        assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{name}");
        assert_eq!(
            listed(headers, "access-control-allow-headers"),
            ["authorization", "dpop"],
            "X-2: {name}"
        );
    }
    assert_eq!(orders.reached(), 0, "a preflight is not for the service");
}

/// on rejections and on successes alike.
#[test]
fn a_script_can_read_the_challenge_and_the_nonce() {
    let clock = TestClock::at(NOW);
    let (plain, nonces) = (layer(), with_nonces(&clock));
    let without_credentials =
        || Attempt::but(|a| (a.authorization, a.dpop) = (Some(Vec::new()), Some(Vec::new())));
    let rows: Vec<(&str, &TestLayer, Attempt, Option<Rejection>)> = vec![
        ("X-1: a success", &plain, Attempt::good(), None),
        (
            "X-1: no credentials",
            &plain,
            without_credentials(),
            Some(CredentialsError::Missing.into()),
        ),
        (
            "X-1: broken credentials",
            &plain,
            Attempt::but(|a| a.authorization = Some(vec![common::field(b"DPoP")])),
            Some(CredentialsError::Malformed.into()),
        ),
        (
            "X-1: a bad proof",
            &plain,
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            Some(ProofError::Method.into()),
        ),
        (
            "X-1: a bad token",
            &plain,
            Attempt::but(|a| a.token_claims["exp"] = json!(0)),
            Some(TokenError::Expired.into()),
        ),
        (
            "X-1: a nonce is demanded",
            &nonces,
            Attempt::good(),
            Some(NonceError::Missing.into()),
        ),
    ];
    for (name, layer, attempt, expected) in rows {
        let response = browse(layer, &Orders::default(), from_a_script(&attempt));
        let headers = response.headers();
        assert_eq!(rejection(&response), expected, "{name}");
        assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{name}");
        assert_eq!(
            listed(headers, "access-control-expose-headers"),
            ["dpop-nonce", "www-authenticate"],
            "{name}"
        );
        assert_eq!(
            headers.contains_key("www-authenticate"),
            expected.is_some(),
            "{name}"
        );
    }
}

/// The whole dance of a script on another origin: rejected, told a nonce, served, told the next.
#[test]
fn a_script_gets_through_with_the_nonce_it_was_told() {
    let clock = TestClock::at(NOW);
    let layer = with_nonces(&clock);
    let orders = Orders::default();
    let nonce_in = |response: &Response<()>| {
        let nonce = response.headers().get("dpop-nonce")?;
        Some(nonce.to_str().unwrap().to_owned())
    };
    let with_nonce = |nonce: &str, now: u64| {
        clock.set(now);
        let attempt = Attempt::but(|a| {
            a.proof_claims["nonce"] = json!(nonce);
            a.proof_claims["iat"] = json!(now);
        });
        browse(&layer, &orders, from_a_script(&attempt))
    };
    let rejected = browse(&layer, &orders, from_a_script(&Attempt::good()));
    assert_eq!(rejected.status(), 401);
    assert_eq!(
        rejected.headers()["cache-control"],
        "no-store",
        "X-3: a rejection"
    );
    let nonce = nonce_in(&rejected).unwrap();

    let served = with_nonce(&nonce, NOW);
    assert_eq!((served.status().as_u16(), nonce_in(&served)), (200, None));
    assert_eq!(
        served.headers()["cache-control"],
        "public, max-age=600",
        "X-3: without a nonce the service's own word stands"
    );

    let in_the_next_period = NOW - NOW % 120 + 120;
    let served = with_nonce(&nonce, in_the_next_period);
    assert_eq!(served.status(), 200);
    let next = nonce_in(&served).unwrap();
    assert_ne!(next, nonce);
    assert_eq!(required_nonce(&layer), Some(next.clone()));
    let caching: Vec<_> = served.headers().get_all("cache-control").iter().collect();
    assert_eq!(caching, ["no-store"], "X-3: a success with a nonce");
    assert_eq!(
        listed(served.headers(), "access-control-expose-headers"),
        ["dpop-nonce", "www-authenticate"],
        "X-1: a success with a nonce"
    );

    assert_eq!(with_nonce(&next, in_the_next_period).status(), 200);
    assert_eq!(orders.reached(), 3);
}

/// T-4: the order that the documentation warns of, and what makes it work.
#[test]
fn a_cors_layer_inside_needs_the_pass_through() {
    let orders = Orders::default();
    let ask = |layer: &TestLayer, request| {
        let orders = orders.clone();
        let service =
            service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(orders.outcome())));
        common::block_on(layer.layer(cors().layer(service)).oneshot(request)).unwrap()
    };
    let rejected = ask(&layer(), preflight());
    assert_eq!(rejected.status(), 401, "T-4: our challenge comes first");
    assert_eq!(rejection(&rejected), Some(CredentialsError::Missing.into()));
    assert!(
        !rejected
            .headers()
            .contains_key("access-control-allow-origin")
    );

    let lenient = layer().with_preflight_pass_through();
    let answered = ask(&lenient, preflight());
    assert_eq!(answered.status(), 200, "T-4: with the pass-through");
    assert_eq!(
        listed(answered.headers(), "access-control-allow-headers"),
        ["authorization", "dpop"]
    );
    assert_eq!(orders.reached(), 0);

    let served = ask(&lenient, from_a_script(&Attempt::good()));
    assert_eq!((served.status().as_u16(), orders.reached()), (200, 1));
    let without_proof = Attempt::but(|a| a.dpop = Some(Vec::new()));
    let rejected = ask(&lenient, from_a_script(&without_proof));
    assert_eq!(
        rejection(&rejected),
        Some(ProofError::Missing.into()),
        "T-4: only preflights pass through"
    );
    let mut with_credentials = preflight();
    let authorization = HeaderValue::from_static("DPoP token");
    with_credentials
        .headers_mut()
        .insert("authorization", authorization);
    assert_eq!(
        rejection(&ask(&lenient, with_credentials)),
        Some(ProofError::Missing.into()),
        "T-4: a preflight never has credentials"
    );
    assert_eq!(orders.reached(), 1);
}

/// `*` covers neither credentials nor `Authorization`, so the names are spelled out.
#[test]
fn the_crate_names_the_fields() {
    let names = |fields: [HeaderName; 2]| fields.map(|name| name.to_string());
    assert_eq!(
        names(CORS_EXPOSE_HEADERS),
        ["www-authenticate", "dpop-nonce"]
    );
    assert_eq!(names(CORS_ALLOW_HEADERS), ["authorization", "dpop"]);
}
