//! The target of a request that a proxy or a router has changed.

use http::{HeaderValue, Uri};
use serde_json::json;
use tower_dpop::DpopLayer;
use tower_dpop::proof::{ProofError, RequestTarget, TargetError};

use super::{API, PATH, SCHEME, assert_comparison};
use common::{Attempt, AttemptExt as _, ask, verifier_by};

/// H-18, H-19: forward authentication, where a proxy asks about a request that it describes.
#[test]
fn a_resolver_says_what_the_original_request_was() {
    let verifier = verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            let header = |name| request.headers.get(name)?.to_str().ok();
            Some(RequestTarget::new(
                header("x-original-method")?.parse().ok()?,
                header("x-original-uri")?.parse().ok()?,
            ))
        })
    });
    let layer = DpopLayer::new(verifier);
    let asked = |described: &[(&'static str, &'static str)], htm: &str, htu: &str| {
        Attempt::but(|a| {
            a.uri = "/auth".into();
            a.proof_claims["htm"] = json!(htm);
            a.proof_claims["htu"] = json!(htu);
            a.extra_headers = described
                .iter()
                .map(|(name, value)| (*name, HeaderValue::from_static(value)))
                .collect();
        })
        .outcome_by(&layer)
    };
    let post_orders = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/orders?page=2"),
    ];
    let orders = "https://api.example.com/orders";
    asked(&post_orders, "POST", orders).assert_passed("H-19: the original request");
    asked(&post_orders, "GET", orders)
        .assert_reason("H-19: the method of the question", ProofError::Method);
    assert_comparison(
        "H-19: the path of the question",
        &asked(&post_orders, "POST", "https://api.example.com/auth"),
        PATH,
    );
    let absolute = [
        ("x-original-method", "POST"),
        ("x-original-uri", "http://backend:8080/orders"),
    ];
    asked(&absolute, "POST", orders)
        .assert_passed("H-18: the resolver's authority does not matter");
    assert_comparison(
        "H-18: nor does it become ours",
        &asked(&absolute, "POST", "http://backend:8080/orders"),
        SCHEME,
    );
    let broken = [
        ("x-original-method", "POST"),
        ("x-original-uri", "/{orders}"),
    ];
    asked(&broken, "POST", orders).assert_reason("H-17: a broken path", TargetError::NotRfc3986);
    let tunnel = [
        ("x-original-method", "CONNECT"),
        ("x-original-uri", "api.example.com:443"),
    ];
    asked(&tunnel, "CONNECT", API).assert_reason("H-22: a tunnel", TargetError::Connect);
    for (name, described) in [
        ("H-19: no description", &post_orders[..0]),
        ("H-19: only the method", &post_orders[..1]),
        ("H-19: only the URI", &post_orders[1..]),
    ] {
        asked(described, "GET", "https://api.example.com/auth")
            .assert_reason(name, TargetError::Unresolved);
    }
}

/// H-19: what a router strips was part of the target.
#[test]
fn without_axum_a_resolver_finds_the_path_before_a_router_shortened_it() {
    #[derive(Clone)]
    struct Original(Uri);

    let verifier = verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            Some(RequestTarget::new(
                request.method.clone(),
                request.extensions.get::<Original>()?.0.clone(),
            ))
        })
    });
    let layer = DpopLayer::new(verifier);
    let asked = |htu: &str| {
        let mut request = Attempt::but(|a| a.proof_claims["htu"] = json!(htu)).request();
        let original = Original(Uri::from_static("/v1/orders"));
        request.extensions_mut().insert(original);
        ask(&layer, request)
    };
    asked("https://api.example.com/v1/orders").assert_passed("H-19: the original path");
    assert_comparison(
        "H-19: the shortened path",
        &asked("https://api.example.com/orders"),
        PATH,
    );
}

#[cfg(feature = "axum")]
#[test]
fn inside_axums_nest_the_original_path_counts() {
    use axum::body::Body;
    use axum::extract::OriginalUri;
    use axum::routing::get;
    use tower::ServiceExt;
    use tower_dpop::Rejection;
    use tower_dpop::proof::UrlMismatch;

    let layer = DpopLayer::new(common::verifier());
    let app = axum::Router::new().nest(
        "/v1",
        axum::Router::new()
            .route("/orders", get(async || "hello"))
            .layer(layer.clone()),
    );
    let asked = |htu: &str| {
        let attempt = Attempt::but(|a| {
            a.uri = "/v1/orders?page=2".into();
            a.proof_claims["htu"] = json!(htu);
        });
        let request = attempt.request().map(|()| Body::empty());
        let response = common::block_on(app.clone().oneshot(request)).unwrap();
        response.extensions().get::<Rejection>().cloned()
    };
    let elsewhere = Some(Rejection::Proof(ProofError::Url(UrlMismatch::Path)));
    assert_eq!(asked("https://api.example.com/v1/orders"), None);
    assert_eq!(asked("https://api.example.com/orders"), elsewhere);

    // The same where another router has set it by hand.
    let mut request =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/v1/orders"))
            .request();
    let original = OriginalUri(Uri::from_static("/v1/orders"));
    request.extensions_mut().insert(original);
    ask(&layer, request).assert_passed("H-19: OriginalUri");
}
