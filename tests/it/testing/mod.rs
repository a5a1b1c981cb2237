//! The kit with which users test their services, tested as they use it.

mod defect;
mod protection;
mod request;
mod response;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::{Debug, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::jose::SigningKey;
use tower_dpop::proof::{
    IatError, NonceError, NonceSource as _, ProofError, ReplayStoreError, TargetError,
};
use tower_dpop::resource::{AuthorizationError, BearerError, BindingError, CredentialsError};
use tower_dpop::testing::{
    Defect, TestClient, TestClock, TestIssuer, TestRequest, TestResponse, TestToken,
    assert_protected, assert_token_endpoint_protected, sign_jws,
};
use tower_dpop::token_endpoint::{
    DpopJktError, GrantBindingError, TokenEndpoint, TokenEndpointLayer, TokenRequestRejection,
};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, Confirmation, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, Algorithms, DpopLayer, Freshness, NonceSecret, ProofRules, PublicUrl, Rejection,
    StatelessNonces, Thumbprint, Timestamp, Verifier,
};

const ISSUER: &str = "https://as.example.com";

const API: &str = "https://api.example.com";

const ORDERS: &str = "https://api.example.com/orders?page=2";

fn issuer() -> TestIssuer {
    TestIssuer::new(ISSUER, API)
}

fn public_url() -> PublicUrl {
    API.parse().unwrap()
}

fn verifier(issuer: &TestIssuer) -> Verifier {
    verifier_by(issuer, |rules| rules)
}

fn verifier_by(issuer: &TestIssuer, change: impl FnOnce(ProofRules) -> ProofRules) -> Verifier {
    let rules = ProofRules::new(public_url()).with_clock(issuer.clock().read());
    Verifier::new(change(rules), issuer.jwt_verifier())
}

fn nonces() -> StatelessNonces {
    StatelessNonces::new(NonceSecret::generate())
}

fn app<C: Send + Sync + 'static>(verifier: Verifier<C>) -> Router {
    Router::new()
        .route("/orders", get(async || "orders").post(async || "ordered"))
        .layer(DpopLayer::new(verifier))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn verify<C: Send + Sync + 'static>(
    verifier: &Verifier<C>,
    request: &TestRequest,
) -> Result<(), Rejection> {
    let (head, ()) = request.build().into_parts();
    block_on(verifier.verify(&head)).map(|_| ())
}

/// The rows of the table in the docs, as the code has them.
fn table() -> Vec<String> {
    let row = |defect: &Defect| {
        let rejection = defect.rejection();
        let error = rejection
            .error_code()
            .map_or_else(|| "none".to_owned(), |error| format!("`{error}`"));
        let status = rejection.status().as_u16();
        format!("/// | [`{defect:?}`](Self::{defect:?}) | {status} | {error} | `{rejection:?}` |")
    };
    Defect::ALL.iter().map(row).collect()
}

fn token_endpoint() -> TokenEndpoint {
    token_endpoint_by(|rules| rules)
}

fn token_endpoint_by(change: impl FnOnce(ProofRules) -> ProofRules) -> TokenEndpoint {
    let rules = ProofRules::new(ISSUER.parse().unwrap()).with_clock(TestClock::default().read());
    TokenEndpoint::new(change(rules))
}

/// A rejection as it comes over the wire, with something in each place that no message may show.
fn rejection(status: u16, challenge: &str, secret: &str) -> TestResponse {
    let mut response = Response::builder()
        .status(status)
        .header("dpop-nonce", secret)
        .header("cache-control", "no-store")
        .header("content-type", "application/json");
    if !challenge.is_empty() {
        response = response.header(
            "www-authenticate",
            format!(r#"{challenge}, realm="{secret}""#),
        );
    }
    TestResponse::of(&response.body(()).unwrap())
}

const QUIET: &str = r#"DPoP algs="ES256""#;

const BOUND: &str = r#"Bearer error="invalid_token", error_description="the access token is bound to a key and needs a DPoP proof""#;

/// No run of eight characters of a secret. The header of a JWT is like any other's, but for the key
/// at its end.
#[track_caller]
fn assert_shows_nothing(name: &str, shown: &str, jws: &str) {
    let segments: Vec<&str> = jws.split('.').collect();
    let secrets = [&segments[0][40..], segments[1], segments[2]];
    for secret in secrets {
        for at in 0..secret.len() - 7 {
            assert!(!shown.contains(&secret[at..at + 8]), "{name}: {shown}");
        }
    }
}
