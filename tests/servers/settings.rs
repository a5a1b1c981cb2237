//! Verifiers that are built from settings, with issuers and an introspection endpoint on the loopback.

use std::convert::Infallible;
use std::time::SystemTime;

use http::{Method, Request, Response};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::settings::Settings;
use tower_dpop::testing::{
    TestClient, TestClock, TestIssuer, TestRequest, TestResponse, assert_protected,
};
use tower_dpop::tokens::TokenError;
use tower_dpop::{BoundToken, Claims, DpopLayer};

use crate::tokens::server::{KEYS, OAUTH, Reply, Server};
use common::AUDIENCE;

const ORDERS: &str = "https://api.example.com/orders";

/// A running issuer, which dates tokens by the time of this machine.
struct Issuer {
    server: Server,
    client: TestClient,
}

impl Issuer {
    async fn start() -> Self {
        let server = Server::start().await;
        let clock = TestClock::from(SystemTime::now());
        let issuer = TestIssuer::new(server.url(), AUDIENCE).with_clock(clock.clone());
        let metadata = Reply::metadata(&server.url(), &server.url_of(KEYS));
        server.set(OAUTH, metadata);
        server.set(KEYS, Reply::text(issuer.jwks()));
        let client = TestClient::new(&issuer).with_clock(clock);
        Self { server, client }
    }

    fn request(&self) -> TestRequest {
        self.client.request(Method::GET, ORDERS)
    }
}

fn settings(document: Value) -> Settings {
    serde_json::from_value(document).unwrap()
}

async fn layer(document: Value) -> DpopLayer {
    DpopLayer::new(settings(document).build().await.unwrap())
}

async fn send(layer: &DpopLayer, request: Request<String>) -> Response<String> {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        assert!(request.extensions().get::<BoundToken>().is_some());
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    service.oneshot(request).await.unwrap()
}

async fn response(layer: &DpopLayer, request: TestRequest) -> TestResponse {
    TestResponse::of(&send(layer, request.build()).await)
}

#[tokio::test]
async fn an_issuer_is_discovered_at_the_start() {
    let issuer = Issuer::start().await;
    let document = json!({ "public_url": AUDIENCE, "issuer": issuer.server.url() });
    let layer = layer(document).await;
    assert_eq!(issuer.server.requests(), [OAUTH, KEYS]);
    assert_protected(&issuer.request(), async |request| {
        send(&layer, request).await
    })
    .await;
}

#[tokio::test]
async fn keys_are_read_where_a_setting_says() {
    let issuer = Issuer::start().await;
    let url = issuer.server.url();
    let other = Server::start().await;
    other.set(
        "/metadata",
        Reply::metadata(&url, &issuer.server.url_of(KEYS)),
    );
    let rows = [
        ("jwks_url", issuer.server.url_of(KEYS), vec![KEYS]),
        ("metadata_url", other.url_of("/metadata"), vec![KEYS]),
    ];
    for (setting, place, requests) in rows {
        issuer.server.clear_requests();
        let mut document = json!({ "public_url": AUDIENCE, "issuer": { "url": url } });
        document["issuer"][setting] = json!(place);
        let layer = layer(document).await;
        assert_eq!(issuer.server.requests(), requests, "{setting}");
        response(&layer, issuer.request())
            .await
            .assert_passed(setting);
    }
    assert_eq!(other.requests(), ["/metadata"]);
}

/// Their keys are fetched at the same time, and each issuer's tokens are accepted.
#[tokio::test]
async fn several_issuers_are_accepted() {
    let (first, second, third) = (
        Issuer::start().await,
        Issuer::start().await,
        Issuer::start().await,
    );
    let document = json!({
        "public_url": AUDIENCE,
        "issuer": [first.server.url(), { "url": second.server.url(), "audience": ["x", AUDIENCE] }],
    });
    let parts = settings(document).build_parts::<Claims>().await.unwrap();
    let counts: Vec<_> = parts.keys.iter().map(|keys| keys.status().keys).collect();
    assert_eq!(counts, [1, 1]);
    let layer = DpopLayer::new(parts.verifier);
    for issuer in [&first, &second] {
        response(&layer, issuer.request())
            .await
            .assert_passed("an issuer of the list");
    }
    let other = response(&layer, third.request()).await;
    other.assert_reason("another issuer", TokenError::Issuer);
}

#[tokio::test]
async fn keys_are_fetched_by_the_first_request_if_the_start_does_not_wait() {
    let issuer = Issuer::start().await;
    let url = issuer.server.url();
    let layer = layer(json!({ "public_url": AUDIENCE, "issuer": url, "start_timeout_seconds": 0 }));
    let layer = layer.await;
    assert_eq!(issuer.server.requests(), [""; 0]);
    response(&layer, issuer.request())
        .await
        .assert_passed("the first");
    assert_eq!(issuer.server.requests(), [OAUTH, KEYS]);
}

#[tokio::test]
async fn an_issuer_without_usable_keys_is_named() {
    let issuer = Issuer::start().await;
    let (url, server) = (issuer.server.url(), &issuer.server);
    let other = Server::start().await;
    let metadata = Reply::metadata("https://as.example.com", &server.url_of(KEYS));
    other.set(OAUTH, metadata);
    let (other, missing) = (other.url(), server.url_of("/missing"));
    let rows = [
        (
            "issuer.url",
            json!(other),
            format!("issuer.url: {other:?}: "),
            "https://as.example.com",
        ),
        (
            "issuer.jwks_url",
            json!({ "url": url, "jwks_url": missing }),
            format!("issuer.jwks_url: {missing:?}: "),
            "404",
        ),
        (
            "issuer[1].metadata_url",
            json!([url, { "url": other, "metadata_url": missing }]),
            format!("issuer[1].metadata_url: {missing:?}: "),
            "404",
        ),
    ];
    for (setting, issuers, start, reason) in rows {
        let document =
            json!({ "public_url": AUDIENCE, "issuer": issuers, "start_timeout_seconds": 1 });
        let error = settings(document).build().await.unwrap_err();
        assert_eq!(error.setting(), setting);
        let text = error.to_string();
        assert!(text.starts_with(&start) && text.contains(reason), "{text}");
    }
    let vars = [
        ("DPOP_PUBLIC_URL", AUDIENCE),
        ("DPOP_ISSUER", &other),
        ("DPOP_START_TIMEOUT_SECONDS", "1"),
    ];
    let error = Settings::from_vars(vars)
        .unwrap()
        .build()
        .await
        .unwrap_err();
    assert_eq!(error.setting(), "DPOP_ISSUER");
}

#[tokio::test]
async fn opaque_tokens_are_introspected() {
    let issuer = Issuer::start().await;
    let jkt = issuer.request().key.thumbprint();
    let active = json!({
        "active": true, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "iss": issuer.server.url(),
        "cnf": { "jkt": jkt },
    });
    let endpoint = "/introspect";
    issuer.server.set(endpoint, Reply::text(active.to_string()));
    let url = issuer.server.url_of(endpoint);
    let opaque = || issuer.client.clone().with_token("2YotnFZFEjr1zCsicMWpAA");
    let vars = |more: &[(&'static str, String)]| {
        let vars = [
            ("DPOP_PUBLIC_URL", AUDIENCE.to_owned()),
            ("DPOP_INTROSPECTION_URL", url.clone()),
            ("DPOP_INTROSPECTION_CLIENT_ID", "orders".to_owned()),
            ("DPOP_INTROSPECTION_CLIENT_SECRET", "hunter2".to_owned()),
            ("DPOP_INTROSPECTION_CACHE_SECONDS", "0".to_owned()),
        ];
        Settings::from_vars(vars.into_iter().chain(more.iter().cloned())).unwrap()
    };

    // Alone, it verifies all tokens.
    let layer = DpopLayer::new(vars(&[]).build().await.unwrap());
    for request in [opaque().request(Method::GET, ORDERS), issuer.request()] {
        let response = response(&layer, request).await;
        response.assert_passed("introspected");
    }
    assert_eq!(issuer.server.requests(), [endpoint, endpoint]);
    let (_, authorization) = issuer.server.authorizations().remove(0);
    // base64 of `orders:hunter2`.
    assert_eq!(authorization.unwrap(), "Basic b3JkZXJzOmh1bnRlcjI=");

    // With an issuer, it verifies those that are not JWTs.
    let settings = vars(&[("DPOP_ISSUER", issuer.server.url())]);
    let layer = DpopLayer::new(settings.build().await.unwrap());
    issuer.server.clear_requests();
    response(&layer, issuer.request())
        .await
        .assert_passed("a JWT");
    assert_eq!(issuer.server.requests_to(endpoint), 0);
    response(&layer, opaque().request(Method::GET, ORDERS))
        .await
        .assert_passed("an opaque token");
    assert_eq!(issuer.server.requests_to(endpoint), 1);

    // The secret in the form, and the issuer of the response.
    let settings = vars(&[
        ("DPOP_INTROSPECTION_CLIENT_SECRET_POST", "true".to_owned()),
        ("DPOP_INTROSPECTION_ISSUER", "https://b.example".to_owned()),
    ]);
    let layer = DpopLayer::new(settings.build().await.unwrap());
    issuer.server.clear_requests();
    let other = response(&layer, opaque().request(Method::GET, ORDERS)).await;
    other.assert_reason("another issuer", TokenError::Issuer);
    assert_eq!(
        issuer.server.authorizations(),
        [(endpoint.to_owned(), None)]
    );
}
