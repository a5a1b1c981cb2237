//! The layer and the extractors in axum's routers.
#![cfg(feature = "axum")]

use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Path};
use axum::routing::{any, get};
use bytes::Bytes;
use common::{Attempt, AttemptExt as _, NOW, Outcome, at, block_on, jwt_verifier, verifier};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::extract::NotBehindDpopLayer;
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};
use tower_dpop::resource::CredentialsError;
use tower_dpop::tokens::TokenError;
use tower_dpop::{BoundToken, Claims, DpopLayer, ProofRules, Rejection, Verifier};

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

async fn subject(token: BoundToken<Claims>) -> String {
    token.claims().subject().to_owned()
}

async fn perhaps_subject(token: Option<BoundToken<Claims>>) -> String {
    token.map_or("nobody".to_owned(), |token| {
        token.claims().subject().to_owned()
    })
}

/// A good attempt for this path, with a proof for this URL.
fn attempt_at(path: &str, htu: &str) -> Attempt {
    Attempt::but(|a| {
        a.uri = path.into();
        a.proof_claims["htu"] = json!(htu);
    })
}

/// The good attempt for a path under the public URL.
fn good_at(path: &str) -> Attempt {
    attempt_at(path, &format!("https://api.example.com{path}"))
}

fn bare(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

struct Reply {
    outcome: Outcome,
    text: String,
}

impl Reply {
    #[track_caller]
    fn assert_served(&self, name: &str, text: &str) {
        let served = (
            self.outcome.status,
            self.outcome.rejection.clone(),
            self.text.as_str(),
        );
        assert_eq!(served, (StatusCode::OK, None, text), "{name}");
    }

    #[track_caller]
    fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        self.outcome.assert_reason(name, reason);
        assert_eq!(self.text, "", "{name}");
    }

    /// Answered by the router itself, without the layer.
    #[track_caller]
    fn assert_plain(&self, name: &str, status: StatusCode) {
        assert_eq!(self.outcome.status, status, "{name}");
        assert_eq!(self.outcome.rejection, None, "{name}");
        assert_eq!(self.outcome.challenges, [""; 0], "{name}");
    }
}

#[track_caller]
fn send(
    app: &(impl Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug> + Clone),
    request: Request<Body>,
) -> Reply {
    block_on(async {
        let response = app.clone().oneshot(request).await.unwrap();
        let outcome = Outcome::of(&response);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.into()).unwrap();
        Reply { outcome, text }
    })
}

#[track_caller]
fn attempt(app: &Router, attempt: &Attempt) -> Reply {
    send(app, attempt.request().map(|()| Body::empty()))
}

const WRONG_PATH: Rejection = Rejection::Proof(ProofError::Url(UrlMismatch::Path));
const NO_TOKEN: Rejection = Rejection::Credentials(CredentialsError::Missing);

#[test]
fn a_handler_takes_the_token_as_an_argument() {
    let app = Router::new()
        .route("/orders", get(subject).post(subject))
        .route("/orders/{id}", get(order))
        .layer(layer());
    attempt(&app, &Attempt::good()).assert_served("R-7.1: GET", "alice");
    attempt(&app, &good_at("/orders/7")).assert_served("with other extractors", "alice's 7");
    send(&app, bare("/orders")).assert_reason("R-7.1: no credentials", NO_TOKEN);

    let for_post = Attempt::but(|a| {
        a.method = Method::POST;
        a.proof_claims["htm"] = json!("POST");
    });
    attempt(&app, &for_post).assert_served("R-4.3.8: POST", "alice");
    let with_another = Attempt::but(|a| a.method = Method::POST);
    attempt(&app, &with_another).assert_reason("R-4.3.8: GET for POST", ProofError::Method);
}

async fn order(Path(id): Path<u64>, token: BoundToken<Claims>) -> String {
    format!("{}'s {id}", token.claims().subject())
}

#[test]
fn head_is_served_by_the_handler_of_get_with_a_proof_for_head() {
    let app = Router::new().route("/orders", get(subject)).layer(layer());
    let head = |htm: &str| {
        Attempt::but(|a| {
            a.method = Method::HEAD;
            a.proof_claims["htm"] = json!(htm);
        })
    };
    attempt(&app, &head("HEAD")).assert_served("T-2: HEAD", "");
    attempt(&app, &head("GET")).assert_reason("T-2: GET for HEAD", ProofError::Method);
}

#[test]
fn without_the_layer_the_extractor_is_a_fault_of_the_server() {
    let app = Router::new()
        .route("/orders", get(subject))
        .route("/perhaps", get(perhaps_subject));
    // Even a good proof is none that anyone has verified.
    for request in [
        bare("/orders"),
        Attempt::good().request().map(|()| Body::empty()),
    ] {
        let reply = send(&app, request);
        reply.assert_plain("no layer", StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(reply.text, "");
    }
    attempt(&app, &good_at("/perhaps")).assert_served("no layer, an option", "nobody");

    let app = app.layer(layer());
    attempt(&app, &good_at("/perhaps")).assert_served("an option", "alice");
    send(&app, bare("/perhaps")).assert_reason("an option is no permission", NO_TOKEN);
}

#[test]
fn an_option_is_none_for_a_preflight() {
    let app = Router::new()
        .route("/orders", any(perhaps_subject))
        .layer(layer().with_preflight_pass_through());
    let preflight = Request::options("/orders")
        .header("access-control-request-method", "GET")
        .body(Body::empty())
        .unwrap();
    send(&app, preflight).assert_served("T-4: a preflight", "nobody");
    attempt(&app, &Attempt::good()).assert_served("T-4: the request after it", "alice");
}

#[test]
fn the_rejection_of_the_extractor_says_what_the_deployer_forgot() {
    let response = axum::response::IntoResponse::into_response(NotBehindDpopLayer);
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        NotBehindDpopLayer.to_string(),
        "the handler takes an access token, but found no verified one: add DpopLayer outside it, with the same claims type"
    );
}

#[derive(serde::Deserialize)]
struct Tenant {
    tenant: u64,
}

#[test]
fn a_claims_type_of_the_application() {
    async fn tenant(token: BoundToken<Tenant>) -> String {
        format!("tenant {}", token.claims().tenant)
    }
    async fn perhaps_tenant(token: Option<BoundToken<Tenant>>) -> String {
        token.map_or("none".to_owned(), |token| {
            format!("tenant {}", token.claims().tenant)
        })
    }
    let routes = || {
        Router::new()
            .route("/tenant", get(tenant))
            .route("/perhaps", get(perhaps_tenant))
            .route("/orders", get(subject))
    };
    let tokens = jwt_verifier().with_claims::<Tenant>();
    let with_tenants = Verifier::new(common::rules(), tokens);
    let app = routes().layer(DpopLayer::new(with_tenants));
    let good_at = |path: &str| {
        let mut attempt = good_at(path);
        attempt.token_claims["tenant"] = json!(7);
        attempt
    };
    attempt(&app, &good_at("/tenant")).assert_served("its own claims", "tenant 7");
    attempt(&app, &good_at("/perhaps")).assert_served("an option of them", "tenant 7");
    attempt(&app, &good_at("/orders")).assert_plain(
        "a handler of other claims",
        StatusCode::INTERNAL_SERVER_ERROR,
    );
    let without = self::good_at("/tenant");
    attempt(&app, &without).assert_reason("R-AT.9: a claim is missing", TokenError::Claims);

    let app = routes().layer(layer());
    attempt(&app, &good_at("/tenant"))
        .assert_plain("a layer of other claims", StatusCode::INTERNAL_SERVER_ERROR);
    attempt(&app, &good_at("/perhaps")).assert_served("an option of other claims", "none");
    attempt(&app, &good_at("/orders")).assert_served("its own claims", "alice");
}

#[test]
fn around_the_router_every_path_is_protected_and_around_its_routes_only_those() {
    let routes = Router::new().route("/orders", get(subject));
    let around_all = routes.clone().layer(layer());
    let around_routes = routes.route_layer(layer());
    let post = || Request::post("/orders").body(Body::empty()).unwrap();

    send(&around_all, bare("/orders")).assert_reason("layer: a route", NO_TOKEN);
    send(&around_all, bare("/nowhere")).assert_reason("layer: no route", NO_TOKEN);
    send(&around_all, post()).assert_reason("layer: no method", NO_TOKEN);
    attempt(&around_all, &Attempt::good()).assert_served("layer", "alice");
    attempt(&around_all, &good_at("/nowhere"))
        .assert_plain("layer: no route", StatusCode::NOT_FOUND);

    send(&around_routes, bare("/orders")).assert_reason("route_layer: a route", NO_TOKEN);
    send(&around_routes, bare("/nowhere"))
        .assert_plain("route_layer: no route", StatusCode::NOT_FOUND);
    send(&around_routes, post()).assert_reason("route_layer: no method", NO_TOKEN);
    attempt(&around_routes, &Attempt::good()).assert_served("route_layer", "alice");
}

#[test]
fn around_one_method_the_others_are_open() {
    let app = Router::new().route("/orders", get(subject).layer(layer()).post(perhaps_subject));
    attempt(&app, &Attempt::good()).assert_served("GET", "alice");
    send(&app, bare("/orders")).assert_reason("GET", NO_TOKEN);
    let post = Request::post("/orders").body(Body::empty()).unwrap();
    send(&app, post).assert_served("POST, which is not behind the layer", "nobody");
}

#[test]
fn merged_routers_keep_their_own_protection() {
    let protected = Router::new()
        .route("/orders", get(subject))
        .route_layer(layer());
    let public = Router::new().route("/health", get(async || "fine"));
    let app = protected.merge(public);
    attempt(&app, &Attempt::good()).assert_served("protected", "alice");
    send(&app, bare("/orders")).assert_reason("protected", NO_TOKEN);
    send(&app, bare("/health")).assert_served("public", "fine");
}

#[test]
fn fallbacks_are_behind_the_layer() {
    let app = Router::new()
        .route("/orders", get(subject))
        .fallback(subject)
        .layer(layer());
    attempt(&app, &good_at("/any/where")).assert_served("H-19: its path", "alice");
    send(&app, bare("/any/where")).assert_reason("a fallback", NO_TOKEN);
    let elsewhere = attempt_at("/any/where", "https://api.example.com/any");
    attempt(&app, &elsewhere).assert_reason("H-19: another path", WRONG_PATH);

    let nested = Router::new()
        .nest("/v1", Router::new().fallback(subject).layer(layer()))
        .fallback(async || "open");
    attempt(&nested, &good_at("/v1/any")).assert_served("H-19: a nested fallback", "alice");
    let stripped = attempt_at("/v1/any", "https://api.example.com/any");
    attempt(&nested, &stripped).assert_reason("H-19: stripped", WRONG_PATH);
    send(&nested, bare("/elsewhere")).assert_served("the outer fallback", "open");
}

/// Every way in which axum shortens a path before the layer sees it. Each serves
/// `/api/v1/orders` to `alice`.
fn nestings(layer: &DpopLayer) -> Vec<(&'static str, Router)> {
    let routes = || Router::new().route("/orders", get(subject));
    let protected = || routes().layer(layer.clone());
    vec![
        (
            "H-19: inside nest",
            Router::new().nest("/api/v1", protected()),
        ),
        (
            "H-19: inside nest, around the routes",
            Router::new().nest("/api/v1", routes().route_layer(layer.clone())),
        ),
        (
            "H-19: inside nest, around a method",
            Router::new().nest(
                "/api/v1",
                Router::new().route("/orders", get(subject).layer(layer.clone())),
            ),
        ),
        (
            "H-19: inside nest with a parameter",
            Router::new().nest("/api/{version}", protected()),
        ),
        (
            "H-19: inside two nests",
            Router::new().nest("/api", Router::new().nest("/v1", protected())),
        ),
        (
            "H-19: between two nests",
            Router::new().nest(
                "/api",
                Router::new().nest("/v1", routes()).layer(layer.clone()),
            ),
        ),
        (
            "H-19: inside nest_service",
            Router::new().nest_service("/api/v1", protected()),
        ),
        (
            "H-19: the service of nest_service",
            Router::new().nest_service("/api/v1", layer.layer(routes())),
        ),
        (
            "H-19: inside nest and nest_service",
            Router::new().nest("/api", Router::new().nest_service("/v1", protected())),
        ),
        (
            "H-19: around nest",
            Router::new().nest("/api/v1", routes()).layer(layer.clone()),
        ),
        (
            "H-19: a whole router as a fallback",
            Router::new().fallback_service(Router::new().nest("/api/v1", protected())),
        ),
    ]
}

#[test]
fn the_proof_names_the_path_that_the_client_asked_for() {
    for (name, app) in nestings(&layer()) {
        attempt(&app, &good_at("/api/v1/orders")).assert_served(name, "alice");
        let with_query = attempt_at(
            "/api/v1/orders?page=2",
            "https://api.example.com/api/v1/orders",
        );
        attempt(&app, &with_query).assert_served(name, "alice");
        for stripped in ["/orders", "/v1/orders", "/", "/api/v1", "/api/v1/orders/"] {
            let htu = format!("https://api.example.com{stripped}");
            let reply = attempt(&app, &attempt_at("/api/v1/orders", &htu));
            reply.assert_reason(&format!("{name}, a proof for {stripped}"), WRONG_PATH);
        }
    }
}

#[test]
fn behind_a_proxy_that_strips_a_prefix_the_proof_names_that_too() {
    let behind_a_proxy = Verifier::new(
        ProofRules::new("https://api.example.com/shop".parse().unwrap()).with_clock(|| at(NOW)),
        jwt_verifier(),
    );
    for (name, app) in nestings(&DpopLayer::new(behind_a_proxy)) {
        // The proxy has stripped `/shop`, and axum strips the rest.
        let seen = "/api/v1/orders";
        let whole = attempt_at(seen, "https://api.example.com/shop/api/v1/orders");
        attempt(&app, &whole).assert_served(name, "alice");
        for other in ["/shop/orders", "/api/v1/orders", "/orders", "/shop"] {
            let htu = format!("https://api.example.com{other}");
            let reply = attempt(&app, &attempt_at(seen, &htu));
            reply.assert_reason(&format!("{name}, a proof for {other}"), WRONG_PATH);
        }
    }
}

#[test]
fn the_absolute_form_keeps_its_authority_inside_a_nest() {
    let app = Router::new().nest(
        "/api",
        Router::new().route("/orders", get(subject)).layer(layer()),
    );
    let htu = "https://api.example.com/api/orders";
    let at_us = attempt_at(htu, htu);
    attempt(&app, &at_us).assert_served("H-20: ours", "alice");
    let elsewhere = attempt_at("https://evil.example/api/orders", htu);
    attempt(&app, &elsewhere).assert_reason("H-20: another server", TargetError::Misdirected);
}

#[test]
fn a_header_field_cannot_pose_as_the_original_uri() {
    let app = Router::new().nest(
        "/api",
        Router::new().route("/orders", get(subject)).layer(layer()),
    );
    for name in ["x-original-uri", "original-uri", "x-forwarded-uri"] {
        let mut forged = attempt_at("/api/orders", "https://api.example.com/orders");
        forged.extra_headers = vec![(name, HeaderValue::from_static("/orders"))];
        attempt(&app, &forged).assert_reason(&format!("H-18: {name}"), WRONG_PATH);
    }
}

#[test]
fn what_rewrites_the_path_before_any_router_must_leave_the_original() {
    let inner = Router::new().route("/orders", get(subject)).layer(layer());
    let rewriting = |leaves_the_original: bool| {
        let inner = inner.clone();
        service_fn(move |mut request: Request<Body>| {
            let original = request.uri().clone();
            *request.uri_mut() = Uri::from_static("/orders");
            if leaves_the_original {
                request.extensions_mut().insert(OriginalUri(original));
            }
            inner.clone().oneshot(request)
        })
    };
    let request = |htu: &str| {
        let attempt = attempt_at("/legacy/orders", htu);
        attempt.request().map(|()| Body::empty())
    };
    let original = "https://api.example.com/legacy/orders";
    let rewritten = "https://api.example.com/orders";

    let app = rewriting(true);
    send(&app, request(original)).assert_served("H-19: as the client sent it", "alice");
    send(&app, request(rewritten)).assert_reason("H-19: as rewritten", WRONG_PATH);
    let app = rewriting(false);
    send(&app, request(original)).assert_reason("H-19: nobody knows the original", WRONG_PATH);
}

#[test]
fn a_layer_inside_and_one_around() {
    // Each with a memory of its own: the proof is checked twice and spent once in each.
    let nested = || Router::new().route("/orders", get(subject)).layer(layer());
    let app = Router::new().nest("/api", nested()).layer(layer());
    let good = good_at("/api/orders");
    attempt(&app, &good).assert_served("two layers", "alice");
    attempt(&app, &good_at("/api/orders")).assert_served("two layers, again", "alice");
    let stripped = attempt_at("/api/orders", "https://api.example.com/orders");
    attempt(&app, &stripped).assert_reason("H-19: two layers", WRONG_PATH);

    // clones of one layer share their memory, so the inner one sees a replay.
    let shared = layer();
    let inner = Router::new()
        .route("/orders", get(subject))
        .layer(shared.clone());
    let app = Router::new().nest("/api", inner).layer(shared);
    attempt(&app, &good_at("/api/orders"))
        .assert_reason("the same layer twice", ProofError::Replayed);
}

#[test]
fn one_layer_around_several_routers_has_one_memory() {
    let shared = layer();
    let orders = Router::new()
        .route("/orders", get(subject))
        .route_layer(shared.clone());
    let invoices = Router::new()
        .route("/invoices", get(subject))
        .route_layer(shared);
    let app = orders.merge(invoices);
    let first = good_at("/orders");
    attempt(&app, &first).assert_served("the first use", "alice");
    let mut second = good_at("/invoices");
    second.proof_claims["jti"] = first.proof_claims["jti"].clone();
    attempt(&app, &second).assert_reason("T-14: the same jti elsewhere", ProofError::Replayed);
}

#[test]
fn served_over_a_socket() {
    block_on(async {
        let app = Router::new().nest(
            "/api",
            Router::new().route("/orders", get(subject)).layer(layer()),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, app).await });

        let http1 = Client::builder(TokioExecutor::new()).build_http();
        let http2 = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        for (version, client) in [("HTTP/1.1", http1), ("HTTP/2", http2)] {
            for (htu, status) in [
                ("https://api.example.com/api/orders", StatusCode::OK),
                ("https://api.example.com/orders", StatusCode::UNAUTHORIZED),
            ] {
                let name = format!("H-19: {version}, a proof for {htu}");
                let mut request = attempt_at("/", htu).request();
                let target = format!("http://{address}/api/orders").parse().unwrap();
                *request.uri_mut() = target;
                *request.version_mut() = Version::HTTP_11;
                let request = request.map(|()| Empty::<Bytes>::new());
                let response = client.request(request).await.unwrap();
                assert_eq!(response.status(), status, "{name}");
                let challenges = response.headers().get_all("www-authenticate");
                let expected = usize::from(status == StatusCode::UNAUTHORIZED);
                assert_eq!(challenges.iter().count(), expected, "{name}");
            }
        }
    });
}
