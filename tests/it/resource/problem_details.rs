//! The JSON bodies of responses to rejected requests (RFC 9457).

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, block_on, rules, verifier,
    verifier_by,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::ProofError;
use tower_dpop::resource::{
    ProblemDetailsLayer, ReportedRejection, RequireAuthenticationLayer, Unavailable,
};
use tower_dpop::tokens::{KeySource, KeySourceError};
use tower_dpop::{
    DpopLayer, JwtVerifier, KeySet, NonceSecret, Rejection, RequireScopesLayer, StatelessNonces,
    Timestamp, Verifier,
};

const TYPES: &str =
    "https://docs.rs/tower-dpop/latest/tower_dpop/resource/struct.ProblemDetailsLayer.html#";

/// One route for each kind of requirement.
fn app(layer: DpopLayer, problems: Option<ProblemDetailsLayer>) -> Router {
    let admins = RequireScopesLayer::all_of("admin".parse().unwrap());
    let two_factors = RequireAuthenticationLayer::by_acr("two-factor".parse().unwrap());
    let router = Router::new()
        .route("/orders", get(async || "orders"))
        .route("/admin", get(async || "admin").layer(admins))
        .route("/transfers", get(async || "done").layer(two_factors))
        .layer(layer);
    match problems {
        Some(problems) => router.layer(problems),
        None => router,
    }
}

fn send(app: Router, request: Request<String>) -> Response<String> {
    block_on(async {
        let response = app.oneshot(request.map(|_| Body::empty())).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(bytes.into()).unwrap())
    })
}

fn at(path: &str) -> Attempt {
    Attempt::but(|a| {
        a.uri = path.into();
        a.proof_claims["htu"] = json!(format!("{AUDIENCE}{path}"));
    })
}

/// The header fields without those that only the layer adds, and the nonce, which differs each time.
fn other_fields(response: &Response<String>) -> HeaderMap {
    let mut fields = response.headers().clone();
    for name in ["content-type", "content-length"] {
        fields.remove(name);
    }
    if let Some(nonce) = fields.get_mut("dpop-nonce") {
        *nonce = "some-nonce".parse().unwrap();
    }
    fields
}

/// Keys that cannot be fetched.
struct NoKeys;

impl KeySource for NoKeys {
    async fn key_set(&self, _now: Timestamp) -> Result<KeySet, KeySourceError> {
        Err(KeySourceError)
    }

    async fn newer_key_set(
        &self,
        _known: &KeySet,
        _now: Timestamp,
    ) -> Result<Option<KeySet>, KeySourceError> {
        Err(KeySourceError)
    }
}

fn with_nonces() -> Verifier {
    verifier_by(|rules| rules.with_nonces(StatelessNonces::new(NonceSecret::generate())))
}

fn without_keys() -> Verifier {
    Verifier::new(rules(), JwtVerifier::new(ISSUER, AUDIENCE, NoKeys))
}

type Row = (&'static str, fn() -> Verifier, Attempt, Value);

fn problem(code: &str, title: &str, status: u16, detail: &str, reason: &str) -> Value {
    let problem_type = match code {
        "about:blank" => code.to_owned(),
        code => format!("{TYPES}{code}"),
    };
    json!({
        "type": problem_type, "title": title, "status": status, "detail": detail, "reason": reason,
    })
}

fn blank(title: &str, status: u16, detail: &str, reason: &str) -> Value {
    problem("about:blank", title, status, detail, reason)
}

/// A request for each variant of `Rejection`, and the whole JSON of its response.
fn rows() -> Vec<Row> {
    let mut rows = credentials_and_proofs();
    rows.extend(tokens_and_nonces());
    rows.extend(others());
    rows
}

fn credentials_and_proofs() -> Vec<Row> {
    vec![
        (
            "no credentials",
            verifier,
            Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![]))),
            blank(
                "Unauthorized",
                401,
                "no access token was presented",
                "credentials_missing",
            ),
        ),
        (
            "malformed credentials",
            verifier,
            Attempt::but(|a| a.authorization = Some(vec![common::field(b"DPoP")])),
            problem(
                "invalid_request",
                "Invalid request",
                400,
                "the Authorization field is malformed",
                "credentials_malformed",
            ),
        ),
        (
            "a target of another server",
            verifier,
            Attempt::but(|a| a.uri = "https://another.example/orders".into()),
            problem(
                "invalid_dpop_proof",
                "Invalid DPoP proof",
                401,
                "the request is for another server",
                "target_misdirected",
            ),
        ),
        (
            "an invalid proof",
            verifier,
            Attempt::but(|a| a.proof_claims["htm"] = json!("POST")),
            problem(
                "invalid_dpop_proof",
                "Invalid DPoP proof",
                401,
                "the DPoP proof is for another method",
                "proof_htm",
            ),
        ),
    ]
}

fn tokens_and_nonces() -> Vec<Row> {
    vec![
        (
            "an invalid token",
            verifier,
            Attempt::but(|a| a.token_claims["exp"] = json!(0)),
            problem(
                "invalid_token",
                "Invalid access token",
                401,
                "the access token has expired",
                "token_expired",
            ),
        ),
        (
            "another key",
            verifier,
            Attempt::but(|a| a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt())),
            problem(
                "invalid_token",
                "Invalid access token",
                401,
                "Invalid DPoP key binding",
                "binding_other_key",
            ),
        ),
        (
            "no nonce",
            with_nonces,
            Attempt::good(),
            problem(
                "use_dpop_nonce",
                "DPoP nonce required",
                401,
                "Resource server requires nonce in DPoP proof",
                "nonce_missing",
            ),
        ),
        (
            "a bound token under Bearer",
            || verifier().allow_bearer(),
            Attempt::but(|a| {
                a.authorization = Some(vec![format!("Bearer {}", a.token()).parse().unwrap()]);
                a.dpop = Some(vec![]);
            }),
            problem(
                "invalid_token",
                "Invalid access token",
                401,
                "the access token is bound to a key and needs a DPoP proof",
                "bearer_bound",
            ),
        ),
    ]
}

fn others() -> Vec<Row> {
    vec![
        (
            "an insufficient scope",
            verifier,
            at("/admin"),
            problem(
                "insufficient_scope",
                "Insufficient scope",
                403,
                "the access token lacks a scope",
                "authorization_scope",
            ),
        ),
        (
            "an insufficient authentication",
            verifier,
            at("/transfers"),
            problem(
                "insufficient_user_authentication",
                "Insufficient user authentication",
                401,
                "a different authentication of the user is required",
                "authorization_authentication",
            ),
        ),
        (
            "unreachable keys",
            without_keys,
            Attempt::good(),
            blank(
                "Service Unavailable",
                503,
                "access tokens cannot be verified now",
                "unavailable_token",
            ),
        ),
    ]
}

/// Status, challenges, nonce, caching and `Retry-After` are those of a response without the layer.
#[test]
fn the_response_to_a_rejected_request_describes_the_problem() {
    for (name, verifier, attempt, expected) in rows() {
        let (plain, problems) = (
            app(DpopLayer::new(verifier()), None),
            app(DpopLayer::new(verifier()), Some(ProblemDetailsLayer::new())),
        );
        let without = send(plain, attempt.request());
        assert_eq!(without.body(), "", "{name}");
        let response = send(problems, attempt.request());
        assert_eq!(
            serde_json::from_str::<Value>(response.body()).unwrap(),
            expected,
            "{name}"
        );
        assert_eq!(
            json!(response.status().as_u16()),
            expected["status"],
            "{name}"
        );
        let headers = response.headers();
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{name}"
        );
        let length = response.body().len().to_string();
        assert_eq!(headers["content-length"], length.as_str(), "{name}");
        assert_eq!(response.status(), without.status(), "{name}");
        assert_eq!(other_fields(&response), other_fields(&without), "{name}");
        if let Some(challenge) = headers.get("www-authenticate") {
            let description = format!(
                "error_description=\"{}\"",
                expected["detail"].as_str().unwrap()
            );
            let has_error = expected["type"] != "about:blank";
            let challenges = headers.get_all("www-authenticate").iter();
            let described = challenges
                .filter(|line| line.to_str().unwrap().contains(&description))
                .count();
            assert_eq!(described > 0, has_error, "{name}: {challenge:?}");
        }
    }
}

/// RFC 9110 section 9.3.2: the fields are those of the response to `GET`.
#[test]
fn the_response_to_a_head_request_has_no_body() {
    let reject = |method: Method| {
        let service = service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let layers = ProblemDetailsLayer::new().layer(DpopLayer::new(verifier()).layer(service));
        let request = Request::builder().method(method).uri("/orders");
        block_on(layers.oneshot(request.body(String::new()).unwrap())).unwrap()
    };
    let (get, head) = (reject(Method::GET), reject(Method::HEAD));
    assert_eq!((head.status(), head.body().as_str()), (get.status(), ""));
    assert_eq!(head.headers(), get.headers());
    assert_eq!(
        head.headers()["content-length"],
        get.body().len().to_string().as_str()
    );
}

#[test]
fn a_prefix_of_your_own_makes_the_types() {
    let problems = ProblemDetailsLayer::new().with_type_prefix("https://example.com/problems/");
    let rows = [
        (
            Attempt::but(|a| a.token_claims["exp"] = json!(0)),
            "https://example.com/problems/invalid_token",
        ),
        (
            Attempt::but(|a| (a.authorization, a.dpop) = (Some(vec![]), Some(vec![]))),
            "about:blank",
        ),
    ];
    for (attempt, expected) in rows {
        let app = app(DpopLayer::new(verifier()), Some(problems.clone()));
        let response = send(app, attempt.request());
        let body: Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(body["type"], expected);
    }
}

/// A response of the service, of another layer, or one that already has a body.
#[test]
fn other_responses_are_untouched() {
    let problems = || Some(ProblemDetailsLayer::new());
    let accepted = send(
        app(DpopLayer::new(verifier()), problems()),
        Attempt::good().request(),
    );
    assert_eq!(
        (accepted.status(), accepted.body().as_str()),
        (StatusCode::OK, "orders")
    );
    assert_eq!(
        accepted.headers()["content-type"],
        "text/plain; charset=utf-8"
    );

    let report_only = DpopLayer::new(verifier()).with_insecure_report_only();
    let without_proof = Attempt::but(|a| a.dpop = Some(vec![])).request();
    let reported = send(app(report_only, problems()), without_proof);
    assert!(reported.extensions().get::<ReportedRejection>().is_some());
    assert_eq!(
        (reported.status(), reported.body().as_str()),
        (StatusCode::OK, "orders")
    );

    // A 401 of something else, and a rejection that an inner layer has described.
    let rows: [(&str, Option<Rejection>, Option<&str>); 2] = [
        ("no rejection", None, None),
        (
            "a body",
            Some(ProofError::Missing.into()),
            Some("application/json"),
        ),
    ];
    for (name, rejection, content_type) in rows {
        let service = service_fn(async |_: Request<String>| {
            let mut response = Response::new("another body".to_owned());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            if let Some(rejection) = rejection.clone() {
                response.extensions_mut().insert(rejection);
            }
            if let Some(content_type) = content_type {
                let content_type = content_type.parse().unwrap();
                response.headers_mut().insert("content-type", content_type);
            }
            Ok::<_, Infallible>(response)
        });
        let service = ProblemDetailsLayer::new().layer(service);
        let response = block_on(service.oneshot(Request::new(String::new()))).unwrap();
        assert_eq!(response.body(), "another body", "{name}");
        let found = response.headers().get("content-type");
        assert_eq!(
            found.map(|found| found.to_str().unwrap()),
            content_type,
            "{name}"
        );
        assert!(!response.headers().contains_key("content-length"), "{name}");
    }
}

/// A layer in between may choose the status.
#[test]
fn the_status_is_that_of_the_response() {
    let service = service_fn(async |_: Request<String>| {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let rejection = Rejection::from(Unavailable::Token);
        response.extensions_mut().insert(rejection);
        Ok::<_, Infallible>(response)
    });
    let service = ProblemDetailsLayer::new().layer(service);
    let response = block_on(service.oneshot(Request::new(String::new()))).unwrap();
    let body: Value = serde_json::from_str(response.body()).unwrap();
    assert_eq!(
        (&body["status"], &body["title"], &body["type"]),
        (
            &json!(429),
            &json!("Too Many Requests"),
            &json!("about:blank")
        )
    );
}

/// The default types are the addresses of headings in the documentation.
#[test]
fn every_type_is_described_in_the_documentation() {
    let documentation = include_str!("../../../src/resource/problem_details.rs");
    for (name, _, _, expected) in rows() {
        let Some(code) = expected["type"].as_str().unwrap().strip_prefix(TYPES) else {
            continue;
        };
        assert!(
            documentation.contains(&format!("/// ## `{code}`\n")),
            "{name}"
        );
    }
}
