//! The layer and the extractors in axum's routers.

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, OriginalUri, Path};
use axum::routing::{any, get, post};
use common::{
    Attempt, AttemptExt as _, KeyExt as _, NOW, Outcome, at, block_on, jwt_verifier, keys,
    token_endpoint, verifier,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::extract::NotBehindTokenEndpointLayer;
use tower_dpop::proof::{ProofError, TargetError, UrlMismatch};
use tower_dpop::resource::CredentialsError;
use tower_dpop::token_endpoint::{ProvenKey, TokenEndpointLayer};
use tower_dpop::tokens::TokenError;
use tower_dpop::{AcceptedToken, BoundToken, Claims, DpopLayer, ProofRules, Rejection, Verifier};

fn layer() -> DpopLayer {
    DpopLayer::new(verifier())
}

async fn subject(token: BoundToken<Claims>) -> String {
    token.claims().subject().unwrap().to_owned()
}

async fn optional_subject(token: Option<BoundToken<Claims>>) -> String {
    token.map_or("anonymous".to_owned(), |token| {
        token.claims().subject().unwrap().to_owned()
    })
}

/// A request for this path, with a proof for this URL.
fn attempt_at(path: &str, htu: &str) -> Attempt {
    Attempt::but(|a| {
        a.uri = path.into();
        a.proof_claims["htu"] = json!(htu);
    })
}

/// A valid request for a path under the public URL.
fn good_at(path: &str) -> Attempt {
    attempt_at(path, &format!("https://api.example.com{path}"))
}

fn without_credentials(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

struct AppResponse {
    outcome: Outcome,
    body: String,
}

impl AppResponse {
    #[track_caller]
    fn assert_served(&self, name: &str, body: &str) {
        let served = (
            self.outcome.status,
            self.outcome.rejection.clone(),
            self.body.as_str(),
        );
        assert_eq!(served, (StatusCode::OK, None, body), "{name}");
    }

    #[track_caller]
    fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        self.outcome.assert_reason(name, reason);
        assert_eq!(self.body, "", "{name}");
    }

    /// Asserts that the response does not come from the layer.
    #[track_caller]
    fn assert_not_from_layer(&self, name: &str, status: StatusCode) {
        assert_eq!(self.outcome.status, status, "{name}");
        assert_eq!(self.outcome.rejection, None, "{name}");
        assert_eq!(self.outcome.challenges, [""; 0], "{name}");
    }
}

#[track_caller]
fn send(
    app: &(impl Service<Request<Body>, Response = Response<Body>, Error: std::fmt::Debug> + Clone),
    request: Request<Body>,
) -> AppResponse {
    block_on(async {
        let response = app.clone().oneshot(request).await.unwrap();
        let outcome = Outcome::of(&response);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8(bytes.into()).unwrap();
        AppResponse { outcome, body }
    })
}

#[track_caller]
fn send_attempt(app: &Router, attempt: &Attempt) -> AppResponse {
    send(app, attempt.request().map(|_| Body::empty()))
}

/// The proof is for a path that differs in its prefix.
const WRONG_PREFIX: Rejection = Rejection::Proof(ProofError::Url(UrlMismatch::PathPrefix));
const WRONG_PATH: Rejection = Rejection::Proof(ProofError::Url(UrlMismatch::Path));
const NO_TOKEN: Rejection = Rejection::Credentials(CredentialsError::Missing);

#[test]
fn a_handler_takes_the_token_as_an_argument() {
    let app = Router::new()
        .route("/orders", get(subject).post(subject))
        .route("/orders/{id}", get(order))
        .layer(layer());
    send_attempt(&app, &Attempt::good()).assert_served("R-7.1: GET", "alice");
    send_attempt(&app, &good_at("/orders/7")).assert_served("with other extractors", "alice's 7");
    send(&app, without_credentials("/orders")).assert_reason("R-7.1: no credentials", NO_TOKEN);

    let for_post = Attempt::but(|a| {
        a.method = Method::POST;
        a.proof_claims["htm"] = json!("POST");
    });
    send_attempt(&app, &for_post).assert_served("R-4.3.8: POST", "alice");
    let with_another = Attempt::but(|a| a.method = Method::POST);
    send_attempt(&app, &with_another).assert_reason("R-4.3.8: GET for POST", ProofError::Method);
}

async fn order(Path(id): Path<u64>, token: BoundToken<Claims>) -> String {
    format!("{}'s {id}", token.claims().subject().unwrap())
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
    send_attempt(&app, &head("HEAD")).assert_served("T-2: HEAD", "");
    send_attempt(&app, &head("GET")).assert_reason("T-2: GET for HEAD", ProofError::Method);
}

#[test]
fn without_the_layer_the_extractor_responds_with_500() {
    let app = Router::new()
        .route("/orders", get(subject))
        .route("/optional", get(optional_subject));
    // A valid proof makes no difference: no layer has verified it.
    for request in [
        without_credentials("/orders"),
        Attempt::good().request().map(|_| Body::empty()),
    ] {
        let response = send(&app, request);
        response.assert_not_from_layer("no layer", StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.body, "");
    }
    send_attempt(&app, &good_at("/optional"))
        .assert_served("no layer, an optional token", "anonymous");

    let app = app.layer(layer());
    send_attempt(&app, &good_at("/optional")).assert_served("an optional token", "alice");
    send(&app, without_credentials("/optional"))
        .assert_reason("an optional token still needs credentials", NO_TOKEN);
}

#[test]
fn an_optional_token_is_none_for_a_preflight() {
    let app = Router::new()
        .route("/orders", any(optional_subject))
        .layer(layer().with_preflight_pass_through());
    let preflight = Request::options("/orders")
        .header("access-control-request-method", "GET")
        .body(Body::empty())
        .unwrap();
    send(&app, preflight).assert_served("T-4: a preflight", "anonymous");
    send_attempt(&app, &Attempt::good()).assert_served("T-4: the request after it", "alice");
}

#[test]
fn the_error_of_the_extractor_names_the_missing_layer() {
    let (mut head, ()) = Request::new(()).into_parts();
    let error = block_on(AcceptedToken::<TenantClaims>::from_request_parts(
        &mut head,
        &(),
    ))
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the handler takes AcceptedToken<TenantClaims>, but found none: add DpopLayer outside it, with the same claims type"
    );
    let response = axum::response::IntoResponse::into_response(error);
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[derive(serde::Deserialize)]
struct TenantClaims {
    tenant: u64,
}

#[test]
fn a_handler_takes_the_claims_type_of_its_layer() {
    async fn tenant(token: BoundToken<TenantClaims>) -> String {
        format!("tenant {}", token.claims().tenant)
    }
    async fn optional_tenant(token: Option<BoundToken<TenantClaims>>) -> String {
        token.map_or("none".to_owned(), |token| {
            format!("tenant {}", token.claims().tenant)
        })
    }
    let routes = || {
        Router::new()
            .route("/tenant", get(tenant))
            .route("/optional", get(optional_tenant))
            .route("/orders", get(subject))
    };
    let tokens = jwt_verifier().with_claims::<TenantClaims>();
    let tenant_verifier = Verifier::new(common::rules(), tokens);
    let app = routes().layer(DpopLayer::new(tenant_verifier));
    let good_at = |path: &str| {
        let mut attempt = good_at(path);
        attempt.token_claims["tenant"] = json!(7);
        attempt
    };
    send_attempt(&app, &good_at("/tenant"))
        .assert_served("the claims type of the layer", "tenant 7");
    send_attempt(&app, &good_at("/optional")).assert_served("an optional token", "tenant 7");
    send_attempt(&app, &good_at("/orders")).assert_not_from_layer(
        "a handler of another claims type",
        StatusCode::INTERNAL_SERVER_ERROR,
    );
    let without = self::good_at("/tenant");
    send_attempt(&app, &without).assert_reason("R-AT.9: a claim is missing", TokenError::Claims);

    let app = routes().layer(layer());
    send_attempt(&app, &good_at("/tenant")).assert_not_from_layer(
        "a layer of another claims type",
        StatusCode::INTERNAL_SERVER_ERROR,
    );
    send_attempt(&app, &good_at("/optional"))
        .assert_served("an optional token of another claims type", "none");
    send_attempt(&app, &good_at("/orders")).assert_served("the claims type of the layer", "alice");
}

#[test]
fn layer_protects_every_path_and_route_layer_only_the_routes() {
    let routes = Router::new().route("/orders", get(subject));
    let around_all = routes.clone().layer(layer());
    let around_routes = routes.route_layer(layer());
    let post = || Request::post("/orders").body(Body::empty()).unwrap();

    send(&around_all, without_credentials("/orders")).assert_reason("layer: a route", NO_TOKEN);
    send(&around_all, without_credentials("/unknown")).assert_reason("layer: no route", NO_TOKEN);
    send(&around_all, post()).assert_reason("layer: no method", NO_TOKEN);
    send_attempt(&around_all, &Attempt::good()).assert_served("layer", "alice");
    send_attempt(&around_all, &good_at("/unknown"))
        .assert_not_from_layer("layer: no route", StatusCode::NOT_FOUND);

    send(&around_routes, without_credentials("/orders"))
        .assert_reason("route_layer: a route", NO_TOKEN);
    send(&around_routes, without_credentials("/unknown"))
        .assert_not_from_layer("route_layer: no route", StatusCode::NOT_FOUND);
    send(&around_routes, post()).assert_reason("route_layer: no method", NO_TOKEN);
    send_attempt(&around_routes, &Attempt::good()).assert_served("route_layer", "alice");
}

#[test]
fn a_layer_around_one_method_leaves_the_others_open() {
    let app = Router::new().route(
        "/orders",
        get(subject).layer(layer()).post(optional_subject),
    );
    send_attempt(&app, &Attempt::good()).assert_served("GET", "alice");
    send(&app, without_credentials("/orders")).assert_reason("GET", NO_TOKEN);
    let post = Request::post("/orders").body(Body::empty()).unwrap();
    send(&app, post).assert_served("POST, which is not behind the layer", "anonymous");
}

#[test]
fn merged_routers_keep_their_own_protection() {
    let protected = Router::new()
        .route("/orders", get(subject))
        .route_layer(layer());
    let public = Router::new().route("/health", get(async || "fine"));
    let app = protected.merge(public);
    send_attempt(&app, &Attempt::good()).assert_served("protected", "alice");
    send(&app, without_credentials("/orders")).assert_reason("protected", NO_TOKEN);
    send(&app, without_credentials("/health")).assert_served("public", "fine");
}

#[test]
fn fallbacks_are_behind_the_layer() {
    let app = Router::new()
        .route("/orders", get(subject))
        .fallback(subject)
        .layer(layer());
    send_attempt(&app, &good_at("/any/where")).assert_served("H-19: a proof for the path", "alice");
    send(&app, without_credentials("/any/where")).assert_reason("a fallback", NO_TOKEN);
    let other_path = attempt_at("/any/where", "https://api.example.com/any");
    send_attempt(&app, &other_path).assert_reason("H-19: a proof for another path", WRONG_PATH);

    let nested = Router::new()
        .nest("/v1", Router::new().fallback(subject).layer(layer()))
        .fallback(async || "open");
    send_attempt(&nested, &good_at("/v1/any")).assert_served("H-19: a nested fallback", "alice");
    let stripped = attempt_at("/v1/any", "https://api.example.com/any");
    send_attempt(&nested, &stripped)
        .assert_reason("H-19: a proof for the stripped path", WRONG_PREFIX);
    send(&nested, without_credentials("/other")).assert_served("the outer fallback", "open");
}

/// Every way in which axum strips a prefix of the path before the layer sees it. Each router serves
/// `/api/v1/orders`.
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
fn a_proof_must_name_the_path_that_the_client_requested() {
    for (name, app) in nestings(&layer()) {
        send_attempt(&app, &good_at("/api/v1/orders")).assert_served(name, "alice");
        let with_query = attempt_at(
            "/api/v1/orders?page=2",
            "https://api.example.com/api/v1/orders",
        );
        send_attempt(&app, &with_query).assert_served(name, "alice");
        for (stripped, wrong) in [
            ("/orders", WRONG_PREFIX),
            ("/v1/orders", WRONG_PREFIX),
            ("/", WRONG_PATH),
            ("/api/v1", WRONG_PATH),
            ("/api/v1/orders/", WRONG_PATH),
        ] {
            let htu = format!("https://api.example.com{stripped}");
            let response = send_attempt(&app, &attempt_at("/api/v1/orders", &htu));
            response.assert_reason(&format!("{name}, a proof for {stripped}"), wrong);
        }
    }
}

#[test]
fn a_proof_must_name_the_prefix_that_a_proxy_strips() {
    let behind_a_proxy = Verifier::new(
        ProofRules::new("https://api.example.com/shop".parse().unwrap()).with_clock(|| at(NOW)),
        jwt_verifier(),
    );
    for (name, app) in nestings(&DpopLayer::new(behind_a_proxy)) {
        // The proxy has stripped `/shop`, and axum strips the rest.
        let seen = "/api/v1/orders";
        let whole = attempt_at(seen, "https://api.example.com/shop/api/v1/orders");
        send_attempt(&app, &whole).assert_served(name, "alice");
        for (other, wrong) in [
            ("/shop/orders", WRONG_PATH),
            ("/api/v1/orders", WRONG_PREFIX),
            ("/orders", WRONG_PREFIX),
            ("/shop", WRONG_PATH),
        ] {
            let htu = format!("https://api.example.com{other}");
            let response = send_attempt(&app, &attempt_at(seen, &htu));
            response.assert_reason(&format!("{name}, a proof for {other}"), wrong);
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
    let at_this_server = attempt_at(htu, htu);
    send_attempt(&app, &at_this_server).assert_served("H-20: this server", "alice");
    let at_another_server = attempt_at("https://evil.example/api/orders", htu);
    send_attempt(&app, &at_another_server)
        .assert_reason("H-20: another server", TargetError::Misdirected);
}

#[test]
fn a_header_field_does_not_replace_the_original_uri() {
    let app = Router::new().nest(
        "/api",
        Router::new().route("/orders", get(subject)).layer(layer()),
    );
    for name in ["x-original-uri", "original-uri", "x-forwarded-uri"] {
        let mut forged = attempt_at("/api/orders", "https://api.example.com/orders");
        forged.extra_headers = vec![(name, HeaderValue::from_static("/orders"))];
        send_attempt(&app, &forged).assert_reason(&format!("H-18: {name}"), WRONG_PREFIX);
    }
}

#[test]
fn a_service_that_rewrites_the_path_must_keep_the_original_uri() {
    let inner = Router::new().route("/orders", get(subject)).layer(layer());
    let rewriting = |keeps_the_original: bool| {
        let inner = inner.clone();
        service_fn(move |mut request: Request<Body>| {
            let original = request.uri().clone();
            *request.uri_mut() = Uri::from_static("/orders");
            if keeps_the_original {
                request.extensions_mut().insert(OriginalUri(original));
            }
            inner.clone().oneshot(request)
        })
    };
    let request = |htu: &str| {
        let attempt = attempt_at("/legacy/orders", htu);
        attempt.request().map(|_| Body::empty())
    };
    let original = "https://api.example.com/legacy/orders";
    let rewritten = "https://api.example.com/orders";

    let app = rewriting(true);
    send(&app, request(original)).assert_served("H-19: as the client sent it", "alice");
    send(&app, request(rewritten)).assert_reason("H-19: as rewritten", WRONG_PREFIX);
    let app = rewriting(false);
    send(&app, request(original)).assert_reason("H-19: the original is lost", WRONG_PREFIX);
}

#[test]
fn two_layers_check_the_same_request() {
    // Each layer has its own replay store, so each accepts the proof once.
    let nested = || Router::new().route("/orders", get(subject)).layer(layer());
    let app = Router::new().nest("/api", nested()).layer(layer());
    let good = good_at("/api/orders");
    send_attempt(&app, &good).assert_served("two layers", "alice");
    send_attempt(&app, &good_at("/api/orders")).assert_served("two layers, again", "alice");
    let stripped = attempt_at("/api/orders", "https://api.example.com/orders");
    send_attempt(&app, &stripped).assert_reason("H-19: two layers", WRONG_PREFIX);

    // clones of one layer share their replay store, so the inner one sees a replay.
    let shared = layer();
    let inner = Router::new()
        .route("/orders", get(subject))
        .layer(shared.clone());
    let app = Router::new().nest("/api", inner).layer(shared);
    send_attempt(&app, &good_at("/api/orders"))
        .assert_reason("the same layer twice", ProofError::Replayed);
}

#[test]
fn routers_that_share_a_layer_share_its_replay_store() {
    let shared = layer();
    let orders = Router::new()
        .route("/orders", get(subject))
        .route_layer(shared.clone());
    let invoices = Router::new()
        .route("/invoices", get(subject))
        .route_layer(shared);
    let app = orders.merge(invoices);
    let first = good_at("/orders");
    send_attempt(&app, &first).assert_served("the first use", "alice");
    let mut second = good_at("/invoices");
    second.proof_claims["jti"] = first.proof_claims["jti"].clone();
    send_attempt(&app, &second)
        .assert_reason("T-14: the same jti on another route", ProofError::Replayed);
}

/// `htu` has the whole path, even if a router has stripped a part of it.
#[test]
fn a_handler_takes_the_proven_key_as_an_argument() {
    async fn token(key: ProvenKey) -> String {
        key.thumbprint().to_string()
    }
    async fn optional(key: Option<ProvenKey>) -> String {
        key.map_or("none".into(), |key| key.thumbprint().to_string())
    }

    let send = |app: &Router, attempt: &token_endpoint::Attempt| {
        let request = attempt.request().map(Body::from);
        block_on(async {
            let response = app.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(bytes.into()).unwrap();
            token_endpoint::Outcome::of(Response::from_parts(head, body))
        })
    };
    let routes = || {
        Router::new()
            .route("/token", post(token))
            .route("/optional", post(optional))
    };
    let to = |path: &str, dpop: Option<Vec<HeaderValue>>| {
        token_endpoint::Attempt::but(|a| {
            a.uri = path.into();
            a.claims["htu"] = json!(format!("https://as.example.com{path}"));
            a.dpop = dpop;
        })
    };
    let key = keys::client().jkt();

    let strict = routes().layer(TokenEndpointLayer::new(token_endpoint::endpoint()));
    assert_eq!(send(&strict, &to("/token", None)).body, key);
    assert_eq!(send(&strict, &to("/optional", None)).body, key);
    let nested = Router::new().nest("/oauth", strict);
    assert_eq!(send(&nested, &to("/oauth/token", None)).body, key);
    let rejected = send(&nested, &to("/oauth/token", Some(vec![])));
    assert!(rejected.body.contains("invalid_dpop_proof"), "A-8");

    let layer = TokenEndpointLayer::new(token_endpoint::endpoint()).with_requests_without_proof();
    let open = routes().layer(layer);
    assert_eq!(send(&open, &to("/optional", Some(vec![]))).body, "none");
    let misconfigured = send(&open, &to("/token", Some(vec![])));
    assert_eq!(misconfigured.status.as_u16(), 500);
    assert_eq!(misconfigured.body, "");
    for path in ["/token", "/optional"] {
        let without_layer = send(&routes(), &to(path, Some(vec![])));
        assert_eq!(without_layer.status.as_u16(), 500, "{path} without a layer");
    }
    assert_eq!(
        NotBehindTokenEndpointLayer.to_string(),
        "the handler takes a ProvenKey, but found none: add TokenEndpointLayer outside it"
    );
}
