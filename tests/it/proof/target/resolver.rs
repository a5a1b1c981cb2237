//! The target of a request whose URI a proxy or a router has changed.

use http::{HeaderValue, Uri};
use serde_json::json;
use tower_dpop::DpopLayer;
use tower_dpop::proof::{ProofError, RequestTarget, TargetError};

use super::{API, PATH, PREFIX, SCHEME, assert_comparison};
use common::{Attempt, AttemptExt as _, ask, verifier_by};

/// H-18, H-19: in forward authentication, a proxy describes the original request in header fields.
#[test]
fn a_resolver_provides_the_original_method_and_uri() {
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
    let outcome_for = |described: &[(&'static str, &'static str)], htm: &str, htu: &str| {
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
    outcome_for(&post_orders, "POST", orders).assert_passed("H-19: the original request");
    outcome_for(&post_orders, "GET", orders).assert_reason(
        "H-19: the method of the proxy's own request",
        ProofError::Method,
    );
    assert_comparison(
        "H-19: the path of the proxy's own request",
        &outcome_for(&post_orders, "POST", "https://api.example.com/auth"),
        PATH,
    );
    let absolute = [
        ("x-original-method", "POST"),
        ("x-original-uri", "http://backend:8080/orders"),
    ];
    outcome_for(&absolute, "POST", orders)
        .assert_passed("H-18: the resolver's scheme and authority are ignored");
    assert_comparison(
        "H-18: a proof for the resolver's scheme and authority",
        &outcome_for(&absolute, "POST", "http://backend:8080/orders"),
        SCHEME,
    );
    let invalid = [("x-original-method", "POST"), ("x-original-uri", "*")];
    outcome_for(&invalid, "POST", orders)
        .assert_reason("H-20: an invalid path", TargetError::NotRfc3986);
    let server = [("x-original-method", "OPTIONS"), ("x-original-uri", "*")];
    outcome_for(&server, "OPTIONS", API).assert_passed("H-21: the server as a whole");
    assert_comparison(
        "H-21: a proof for the root",
        &outcome_for(&server, "OPTIONS", &format!("{API}/")),
        PATH,
    );
    let tunnel = [
        ("x-original-method", "CONNECT"),
        ("x-original-uri", "api.example.com:443"),
    ];
    outcome_for(&tunnel, "CONNECT", API)
        .assert_reason("H-22: a plain CONNECT", TargetError::Connect);
    for (name, described) in [
        ("H-19: neither field", &post_orders[..0]),
        ("H-19: only the method", &post_orders[..1]),
        ("H-19: only the URI", &post_orders[1..]),
    ] {
        outcome_for(described, "GET", "https://api.example.com/auth")
            .assert_reason(name, TargetError::Unresolved);
    }
}

/// H-19: a router without `OriginalUri` has stripped the prefix `/v1`.
#[test]
fn a_resolver_can_read_the_original_uri_from_an_extension() {
    #[derive(Clone)]
    struct UriBeforeRouting(Uri);

    let verifier = verifier_by(|rules| {
        rules.with_target_resolver(|request: &http::request::Parts| {
            Some(RequestTarget::new(
                request.method.clone(),
                request.extensions.get::<UriBeforeRouting>()?.0.clone(),
            ))
        })
    });
    let layer = DpopLayer::new(verifier);
    let outcome_for = |htu: &str| {
        let mut request = Attempt::but(|a| a.proof_claims["htu"] = json!(htu)).request();
        let original = UriBeforeRouting(Uri::from_static("/v1/orders"));
        request.extensions_mut().insert(original);
        ask(&layer, request)
    };
    outcome_for("https://api.example.com/v1/orders").assert_passed("H-19: the path before routing");
    assert_comparison(
        "H-19: the path after routing",
        &outcome_for("https://api.example.com/orders"),
        PREFIX,
    );
}

#[cfg(feature = "axum")]
#[test]
fn inside_axums_nest_the_proof_must_name_the_original_path() {
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
    let outcome_for = |htu: &str| {
        let attempt = Attempt::but(|a| {
            a.uri = "/v1/orders?page=2".into();
            a.proof_claims["htu"] = json!(htu);
        });
        let request = attempt.request().map(|_| Body::empty());
        let response = common::block_on(app.clone().oneshot(request)).unwrap();
        response.extensions().get::<Rejection>().cloned()
    };
    let other_path = Some(Rejection::Proof(ProofError::Url(UrlMismatch::PathPrefix)));
    assert_eq!(outcome_for("https://api.example.com/v1/orders"), None);
    assert_eq!(outcome_for("https://api.example.com/orders"), other_path);

    // The same if code other than axum's router has set `OriginalUri`.
    let mut request =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/v1/orders"))
            .request();
    let original = OriginalUri(Uri::from_static("/v1/orders"));
    request.extensions_mut().insert(original);
    ask(&layer, request).assert_passed("H-19: OriginalUri");
}
