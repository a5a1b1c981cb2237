//! The kit with which users test their services, tested as they use it.

mod client;
mod clock;
mod defect;
mod issuer;
mod protection;
mod request;
mod response;
mod spoil;

use axum::Router;
use axum::routing::get;
use tower_dpop::testing::{TestClock, TestIssuer, TestRequest};
use tower_dpop::token_endpoint::TokenEndpoint;
use tower_dpop::{
    DpopLayer, NonceSecret, ProofRules, PublicUrl, Rejection, StatelessNonces, Verifier,
};

use common::{AUDIENCE, ISSUER, block_on};

const ORDERS: &str = "https://api.example.com/orders?page=2";

fn issuer() -> TestIssuer {
    TestIssuer::new(ISSUER, AUDIENCE)
}

fn public_url() -> PublicUrl {
    AUDIENCE.parse().unwrap()
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

/// Rules that require nonces, with the issuer's clock. Clones accept each other's nonces.
fn nonce_rules(issuer: &TestIssuer) -> ProofRules {
    ProofRules::new(public_url())
        .with_clock(issuer.clock().read())
        .with_nonces(nonces())
}

fn app<C: Send + Sync + 'static>(verifier: Verifier<C>) -> Router {
    Router::new()
        .route("/orders", get(async || "orders").post(async || "ordered"))
        .layer(DpopLayer::new(verifier))
}

fn verify<C: Send + Sync + 'static>(
    verifier: &Verifier<C>,
    request: &TestRequest,
) -> Result<(), Rejection> {
    let (head, ()) = request.build().into_parts();
    block_on(verifier.verify(&head)).map(|_| ())
}

fn token_endpoint() -> TokenEndpoint {
    token_endpoint_by(|rules| rules)
}

fn token_endpoint_by(change: impl FnOnce(ProofRules) -> ProofRules) -> TokenEndpoint {
    let rules = ProofRules::new(ISSUER.parse().unwrap()).with_clock(TestClock::default().read());
    TokenEndpoint::new(change(rules))
}

/// Asserts that no part of a JWS is shown. The start of its header is not secret.
#[track_caller]
fn assert_shows_nothing(name: &str, shown: &str, jws: &str) {
    let segments: Vec<&str> = jws.split('.').collect();
    let secrets = [&segments[0][40..], segments[1], segments[2]];
    common::proofs::assert_shows_nothing(name, shown, &secrets);
}
