//! Browsers: a CORS layer outside or inside the DPoP layer, and what a script can send and read.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use serde_json::json;
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::proof::{NonceError, ProofError};
use tower_dpop::resource::{CredentialsError, cors_allow_headers, cors_expose_headers};
use tower_dpop::tokens::TokenError;
use tower_dpop::{DpopLayer, NonceSecret, Rejection, StatelessNonces};
use tower_http::cors::CorsLayer;

use common::{Attempt, AttemptExt as _, NOW, TestClock, required_nonce, verifier, verifier_by};

const ORIGIN: &str = "https://app.example";

/// The configuration that the documentation of `cors_allow_headers` recommends.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static(ORIGIN))
        .allow_methods([Method::GET])
        .allow_headers(cors_allow_headers())
        .expose_headers(cors_expose_headers())
}

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

fn with_nonces(clock: &TestClock) -> DpopLayer {
    let nonces = StatelessNonces::new(NonceSecret::from_bytes(&[7; 32]).unwrap());
    DpopLayer::new(verifier_by(|rules| {
        rules.with_clock(clock.read()).with_nonces(nonces)
    }))
}

/// Counts its calls. Caches may store its responses.
#[derive(Clone, Default)]
struct Orders(Arc<AtomicUsize>);

impl Orders {
    fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn respond(&self) -> Response<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(());
        let public = HeaderValue::from_static("public, max-age=600");
        response.headers_mut().insert(CACHE_CONTROL, public);
        response
    }
}

/// Sends a request through the CORS layer and then the DPoP layer.
fn send_through_cors(layer: &DpopLayer, orders: &Orders, request: Request<String>) -> Response<()> {
    let orders = orders.clone();
    let service =
        service_fn(move |_: Request<String>| ready(Ok::<_, Infallible>(orders.respond())));
    common::block_on(cors().layer(layer.layer(service)).oneshot(request)).unwrap()
}

fn from_a_script(attempt: &Attempt) -> Request<String> {
    let mut request = attempt.request();
    let origin = HeaderValue::from_static(ORIGIN);
    request.headers_mut().insert("origin", origin);
    request
}

fn preflight() -> Request<String> {
    Request::options("/orders")
        .header("origin", ORIGIN)
        .header("access-control-request-method", "GET")
        .header(
            "access-control-request-headers",
            "authorization,content-type,dpop",
        )
        .body(String::new())
        .unwrap()
}

/// The names in a comma-separated header field, sorted.
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

/// T-4, X-2: a preflight has no credentials, so it must not be rejected for that.
#[test]
fn an_outer_cors_layer_responds_to_preflights() {
    let orders = Orders::default();
    let clock = TestClock::at(NOW);
    for (name, layer) in [
        ("T-4: by default", layer()),
        ("T-4: with nonces", with_nonces(&clock)),
        (
            "T-4: with the pass-through",
            layer().with_preflight_pass_through(),
        ),
    ] {
        let response = send_through_cors(&layer, &orders, preflight());
        let headers = response.headers();
        assert_eq!(response.status(), 200, "{name}");
        assert_eq!(rejection(&response), None, "{name}");
        assert!(!headers.contains_key("www-authenticate"), "{name}");
        assert!(!headers.contains_key("dpop-nonce"), "{name}");
        assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{name}");
        assert_eq!(
            listed(headers, "access-control-allow-headers"),
            ["authorization", "content-type", "dpop"],
            "X-2: {name}"
        );
    }
    assert_eq!(orders.calls(), 0, "a preflight must not reach the service");
}

/// in rejections and in successful responses.
#[test]
fn a_script_can_read_the_challenge_and_the_nonce() {
    let clock = TestClock::at(NOW);
    let (plain, nonces) = (layer(), with_nonces(&clock));
    let without_credentials =
        || Attempt::but(|a| (a.authorization, a.dpop) = (Some(Vec::new()), Some(Vec::new())));
    let rows: Vec<(&str, &DpopLayer, Attempt, Option<Rejection>)> = vec![
        ("X-1: a success", &plain, Attempt::good(), None),
        (
            "X-1: no credentials",
            &plain,
            without_credentials(),
            Some(CredentialsError::Missing.into()),
        ),
        (
            "X-1: malformed credentials",
            &plain,
            Attempt::but(|a| a.authorization = Some(vec![common::field(b"DPoP")])),
            Some(CredentialsError::Malformed.into()),
        ),
        (
            "X-1: a proof for another method",
            &plain,
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            Some(ProofError::Method.into()),
        ),
        (
            "X-1: an expired token",
            &plain,
            Attempt::but(|a| a.token_claims["exp"] = json!(0)),
            Some(TokenError::Expired.into()),
        ),
        (
            "X-1: a nonce is required",
            &nonces,
            Attempt::good(),
            Some(NonceError::Missing.into()),
        ),
    ];
    for (name, layer, attempt, expected) in rows {
        let response = send_through_cors(layer, &Orders::default(), from_a_script(&attempt));
        let headers = response.headers();
        assert_eq!(rejection(&response), expected, "{name}");
        assert_eq!(headers["access-control-allow-origin"], ORIGIN, "{name}");
        assert_eq!(
            listed(headers, "access-control-expose-headers"),
            ["date", "dpop-nonce", "retry-after", "www-authenticate"],
            "{name}"
        );
        assert_eq!(
            headers.contains_key("www-authenticate"),
            expected.is_some(),
            "{name}"
        );
    }
}

/// A script on another origin: it is rejected and gets a nonce, is accepted, and later gets the next nonce.
#[test]
fn a_script_is_accepted_with_the_nonce_from_a_rejection() {
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
        send_through_cors(&layer, &orders, from_a_script(&attempt))
    };
    let rejected = send_through_cors(&layer, &orders, from_a_script(&Attempt::good()));
    assert_eq!(rejected.status(), 401);
    assert_eq!(
        rejected.headers()["cache-control"],
        "no-store",
        "X-3: a rejection"
    );
    let nonce = nonce_in(&rejected).unwrap();

    let accepted = with_nonce(&nonce, NOW);
    assert_eq!(
        (accepted.status().as_u16(), nonce_in(&accepted)),
        (200, None)
    );
    assert_eq!(
        accepted.headers()["cache-control"],
        "public, max-age=600",
        "X-3: without a nonce, the service's value is kept"
    );

    let in_the_next_period = NOW - NOW % 120 + 120;
    let accepted = with_nonce(&nonce, in_the_next_period);
    assert_eq!(accepted.status(), 200);
    let next = nonce_in(&accepted).unwrap();
    assert_ne!(next, nonce);
    assert_eq!(required_nonce(&layer), Some(next.clone()));
    let cache_control: Vec<_> = accepted.headers().get_all("cache-control").iter().collect();
    assert_eq!(cache_control, ["no-store"], "X-3: a success with a nonce");
    assert_eq!(
        listed(accepted.headers(), "access-control-expose-headers"),
        ["date", "dpop-nonce", "retry-after", "www-authenticate"],
        "X-1: a success with a nonce"
    );

    assert_eq!(with_nonce(&next, in_the_next_period).status(), 200);
    assert_eq!(orders.calls(), 3);
}

/// T-4: the documentation recommends the other order.
#[test]
fn an_inner_cors_layer_needs_the_preflight_pass_through() {
    let orders = Orders::default();
    let send = |layer: &DpopLayer, request| {
        let orders = orders.clone();
        let service =
            service_fn(move |_: Request<String>| ready(Ok::<_, Infallible>(orders.respond())));
        common::block_on(layer.layer(cors().layer(service)).oneshot(request)).unwrap()
    };
    let rejected = send(&layer(), preflight());
    assert_eq!(rejected.status(), 401, "T-4: the DPoP layer is first");
    assert_eq!(rejection(&rejected), Some(CredentialsError::Missing.into()));
    assert!(
        !rejected
            .headers()
            .contains_key("access-control-allow-origin")
    );

    let passing_through = layer().with_preflight_pass_through();
    let response = send(&passing_through, preflight());
    assert_eq!(response.status(), 200, "T-4: with the pass-through");
    assert_eq!(
        listed(response.headers(), "access-control-allow-headers"),
        ["authorization", "content-type", "dpop"]
    );
    assert_eq!(orders.calls(), 0);

    let accepted = send(&passing_through, from_a_script(&Attempt::good()));
    assert_eq!((accepted.status().as_u16(), orders.calls()), (200, 1));
    let without_proof = Attempt::but(|a| a.dpop = Some(Vec::new()));
    let rejected = send(&passing_through, from_a_script(&without_proof));
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
        rejection(&send(&passing_through, with_credentials)),
        Some(ProofError::Missing.into()),
        "T-4: with credentials, it is not a preflight"
    );
    assert_eq!(orders.calls(), 1);
}

/// applications cannot use `*` instead: it covers neither requests with credentials nor `Authorization`.
#[test]
fn the_lists_can_be_extended() {
    let mut allow = cors_allow_headers();
    assert_eq!(allow, ["authorization", "content-type", "dpop"]);
    let mut expose = cors_expose_headers();
    assert_eq!(
        expose,
        ["date", "dpop-nonce", "retry-after", "www-authenticate"]
    );

    allow.push(HeaderName::from_static("idempotency-key"));
    expose.push(HeaderName::from_static("etag"));
    let cors = cors().allow_headers(allow).expose_headers(expose);
    let layer = layer();
    let send = |request| {
        let service = service_fn(async |_: Request<String>| Ok::<_, Infallible>(Response::new(())));
        common::block_on(cors.clone().layer(layer.layer(service)).oneshot(request)).unwrap()
    };
    assert_eq!(
        listed(send(preflight()).headers(), "access-control-allow-headers"),
        ["authorization", "content-type", "dpop", "idempotency-key"]
    );
    let accepted = send(from_a_script(&Attempt::good()));
    assert_eq!(
        listed(accepted.headers(), "access-control-expose-headers"),
        [
            "date",
            "dpop-nonce",
            "etag",
            "retry-after",
            "www-authenticate"
        ]
    );
}
