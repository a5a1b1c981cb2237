//! The assertions over every defect, against protected and unprotected services.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Method, Request, Response};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::resource::BearerError;
use tower_dpop::testing::{
    Defect, TestClient, TestClock, assert_protected, assert_token_endpoint_protected,
};
use tower_dpop::token_endpoint::{TokenEndpoint, TokenEndpointLayer};
use tower_dpop::{Freshness, ProofRules, PublicUrl, Verifier};

use common::{ISSUER, block_on};

use super::{
    ORDERS, app, assert_shows_nothing, issuer, nonce_rules, public_url, token_endpoint, verifier,
};

#[test]
fn a_router_rejects_each_defect() {
    let issuer = issuer();
    let rules = nonce_rules(&issuer);
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            Verifier::new(rules.clone(), issuer.jwt_verifier()),
            TestClient::new(&issuer).with_nonces_of(&rules),
        ),
    ] {
        let app = app(verifier);
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        block_on(async {
            for method in [Method::GET, Method::POST] {
                assert_protected(&client.request(method, ORDERS), send).await;
            }
        });
    }
}

/// Its responses have two challenges, and it rejects a bound token under the Bearer scheme for
/// another reason.
#[test]
fn a_service_that_accepts_bearer_tokens_rejects_each_defect() {
    let issuer = issuer();
    let rules = nonce_rules(&issuer);
    for (verifier, client) in [
        (verifier(&issuer), TestClient::new(&issuer)),
        (
            Verifier::new(rules.clone(), issuer.jwt_verifier()),
            TestClient::new(&issuer).with_nonces_of(&rules),
        ),
    ] {
        let app = app(verifier.allow_bearer());
        let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
        let on_the_wire = async |request: Request<Body>| {
            let mut response = send(request).await;
            response.extensions_mut().clear();
            response
        };
        let expects_bearer = client.clone().with_bearer_allowed();
        let request = expects_bearer.request(Method::GET, ORDERS);
        let rejection = request.rejection_of(Defect::BearerScheme);
        assert_eq!(rejection, BearerError::Bound.into());
        block_on(async {
            assert_protected(&request, send).await;
            assert_protected(&request, on_the_wire).await;
        });

        // It fails if the client does not expect the service to accept bearer tokens.
        let request = client.request(Method::GET, ORDERS);
        for by in ["reason", "description"] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                block_on(async {
                    match by {
                        "reason" => assert_protected(&request, send).await,
                        _ => assert_protected(&request, on_the_wire).await,
                    }
                });
            }));
            let message = *result.expect_err(by).downcast::<String>().unwrap();
            assert!(message.starts_with("the Bearer scheme: "), "{message}");
        }
    }
    // It also fails if the client expects this, and the service does not.
    let client = TestClient::new(&issuer).with_bearer_allowed();
    let app = app(verifier(&issuer));
    let send = async |request: Request<Body>| app.clone().oneshot(request).await.unwrap();
    let request = client.request(Method::GET, ORDERS);
    let result = catch_unwind(AssertUnwindSafe(|| {
        block_on(assert_protected(&request, send));
    }));
    let message = *result.expect_err("rejected").downcast::<String>().unwrap();
    assert!(message.starts_with("the Bearer scheme: "), "{message}");
}

#[test]
fn each_defect_is_rejected_with_every_freshness() {
    let issuer = issuer();
    let a_day = Duration::from_secs(24 * 60 * 60);
    let longest = Freshness::default()
        .with_max_age(a_day)
        .with_leeway(a_day)
        .with_nonce_period(a_day);
    for freshness in [longest, Freshness::mcp(), Freshness::default()] {
        let rules = nonce_rules(&issuer).with_freshness(freshness);
        let client = TestClient::new(&issuer).with_nonces_of(&rules);
        let app = app(Verifier::new(rules, issuer.jwt_verifier()));
        block_on(assert_protected(
            &client.request(Method::GET, ORDERS),
            async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
        ));
    }
}

fn panic_message(check: impl Future<Output = ()>) -> String {
    let result = catch_unwind(AssertUnwindSafe(|| block_on(check)));
    *result.expect_err("a panic").downcast::<String>().unwrap()
}

/// The service checks the nonce instead of `iat`.
#[test]
fn defects_that_a_service_accepts_can_be_left_out() {
    let issuer = issuer();
    let rules = nonce_rules(&issuer).with_freshness(Freshness::fapi2());
    let client = TestClient::new(&issuer).with_nonces_of(&rules);
    let by_nonce = app(Verifier::new(rules, issuer.jwt_verifier()));
    let request = client.request(Method::GET, ORDERS);
    let all = request.defects().count();
    let request = request.without_defects([Defect::TooOld, Defect::FromTheFuture]);
    assert_eq!(request.defects().count(), all - 2);
    block_on(assert_protected(
        &request,
        async |request: Request<Body>| by_nonce.clone().oneshot(request).await.unwrap(),
    ));
    let with_all_defects = client.request(Method::GET, ORDERS);
    let message = panic_message(assert_protected(
        &with_all_defects,
        async |request: Request<Body>| by_nonce.clone().oneshot(request).await.unwrap(),
    ));
    assert!(
        message.starts_with("a proof that is too old: "),
        "{message}"
    );
}

#[test]
fn a_token_endpoint_rejects_each_defect_of_a_proof() {
    let client = TestClient::without_issuer(TestClock::default());
    let rules = nonce_rules(&issuer()).with_public_url(ISSUER.parse().unwrap());
    for (endpoint, client) in [
        (token_endpoint(), client.clone()),
        (
            TokenEndpoint::new(rules.clone()),
            client.with_nonces_of(&rules),
        ),
    ] {
        let layer = TokenEndpointLayer::new(endpoint);
        let request = client.token_request("https://as.example.com/token");
        assert!(
            !request
                .build::<()>()
                .headers()
                .contains_key("authorization")
        );
        let defects: BTreeSet<Defect> = request.defects().collect();
        assert!(!defects.contains(&Defect::NoAth) && defects.contains(&Defect::NoJti));
        let send = async |request: Request<String>| {
            let service = layer.layer(service_fn(async |request: Request<String>| {
                Ok::<_, Infallible>(Response::new(request.into_body()))
            }));
            service.oneshot(request).await.unwrap()
        };
        block_on(async {
            assert_token_endpoint_protected(&request, send).await;
            // Without extensions, as over the wire.
            assert_token_endpoint_protected(&request.again(), async |request| {
                let mut response = send(request).await;
                response.extensions_mut().clear();
                response
            })
            .await;
        });
    }
}

/// The purpose of the kit: to find services without the layer, or with a wrong configuration.
#[test]
fn fails_for_a_service_that_is_not_protected() {
    let issuer = issuer();
    let client = TestClient::new(&issuer);
    let request = client.request(Method::GET, ORDERS);
    let open = Router::new().route("/orders", get(async || "orders"));
    let other_url: PublicUrl = "https://internal.example".parse().unwrap();
    let misconfigured = Verifier::new(
        ProofRules::new(other_url).with_clock(issuer.clock().read()),
        issuer.jwt_verifier(),
    );
    let any_claims = issuer.jwt_verifier().with_claims::<serde_json::Value>();
    let any_claims = Verifier::new(
        ProofRules::new(public_url()).with_clock(issuer.clock().read()),
        any_claims,
    );
    let rows = [
        ("no layer", open, "the same request again: "),
        ("another public URL", app(misconfigured), "a good request: "),
        (
            "claims without sub",
            app(any_claims),
            "a token without a subject and a client: ",
        ),
    ];
    for (name, app, expected) in rows {
        let message = panic_message(assert_protected(
            &request.again(),
            async |request: Request<Body>| app.clone().oneshot(request).await.unwrap(),
        ));
        assert!(message.starts_with(expected), "{name}: {message}");
        assert_shows_nothing(name, &message, &request.proof(&request.token()));
    }

    let request = client.token_request("https://as.example.com/token");
    let message = panic_message(assert_token_endpoint_protected(
        &request,
        async |request: Request<String>| Response::new(request.into_body()),
    ));
    assert!(message.starts_with("the same request again: "), "{message}");
}
