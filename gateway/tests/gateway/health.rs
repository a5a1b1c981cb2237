//! Health and readiness.

use std::process::Command;

use axum::Router;
use axum::routing::get;
use http::Method;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::servers::Redis;
use crate::support::{Gateway, PUBLIC_URL, Parties, Started, until};

const LISTENERS: &str = r#"
    [[listener]]
    address = "127.0.0.1:0"
    [operations]
    address = "127.0.0.1:0"
    [upstream.gone]
    servers = ["http://127.0.0.1:1"]
    [[route]]
    path = "/gone"
    upstream = "gone"
"#;

/// Status and body of `/readyz`.
async fn readiness(gateway: &Started) -> (u16, Value) {
    let response = reqwest::get(format!("{}/readyz", gateway.url("operations")))
        .await
        .unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    (
        status,
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
    )
}

async fn becomes(gateway: &Started, expected: u16) -> Value {
    until(&format!("/readyz {expected}"), async || {
        let (status, body) = readiness(gateway).await;
        (status == expected).then_some(body)
    })
    .await
}

/// A port at which nothing listens. Nothing else asks for ports by number here.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_gateway_with_all_it_needs_is_ready() {
    let gateway = Gateway::new(&Parties::new(), LISTENERS).start();
    assert_eq!(
        readiness(&gateway).await,
        (200, serde_json::json!({ "ready": true, "missing": [] }))
    );
    let healthy = reqwest::get(format!("{}/healthz", gateway.url("operations")))
        .await
        .unwrap();
    assert_eq!(healthy.status(), 200);
}

/// Health and metrics are for operators.
#[tokio::test]
async fn clients_do_not_see_it() {
    let gateway = Gateway::new(&Parties::new(), LISTENERS).start();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = reqwest::get(format!("{}{path}", gateway.url("proxy")))
            .await
            .unwrap();
        assert_eq!(response.status(), 404, "{path}");
    }
}

/// One service of many must not take down the others.
#[tokio::test]
async fn a_service_that_is_down_does_not_count() {
    let port = free_port().await;
    let config = format!(
        "{LISTENERS}\n[upstream.down]\nservers = [\"http://127.0.0.1:{port}\"]\n[[route]]\npath = \"/\"\nupstream = \"down\""
    );
    let parties = Parties::new();
    let gateway = Gateway::new(&parties, &config).start();
    assert_eq!(
        gateway
            .send(&parties.request(Method::GET, "/"))
            .await
            .status(),
        502
    );
    assert_eq!(readiness(&gateway).await.0, 200);
}

/// The issuer is down at the start. No client sends anything: asking for readiness is enough.
#[tokio::test]
async fn the_gateway_becomes_ready_when_its_issuer_is_up() {
    let parties = Parties::new();
    let port = free_port().await;
    let issuer = format!("http://127.0.0.1:{port}");
    let config =
        format!("[[dpop.issuer]]\nurl = \"{issuer}\"\njwks_url = \"{issuer}/keys\"\n{LISTENERS}");
    let gateway = Gateway::with_dpop(&parties, "start_timeout_seconds = 0", &config).start();
    let (status, body) = readiness(&gateway).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["missing"][0]["what"], "keys");
    assert_eq!(body["missing"][0]["issuer"], issuer.as_str());
    until("the first attempt has failed", async || {
        let (_, body) = readiness(&gateway).await;
        body["missing"][0]["problem"]
            .as_str()?
            .contains("unreachable")
            .then_some(())
    })
    .await;

    let keys = parties.issuer.jwks();
    let app = Router::new().route("/keys", get(async move || keys.clone()));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    becomes(&gateway, 200).await;
}

#[tokio::test]
async fn a_missing_issuer_is_named_in_each_form_of_the_setting() {
    let issuer = format!("http://127.0.0.1:{}", free_port().await);
    for setting in [
        format!("issuer = \"{issuer}\""),
        format!("issuer = [\"{issuer}\"]"),
        format!("issuer = {{ url = \"{issuer}\" }}"),
    ] {
        let config = format!("[dpop]\npublic_url = \"{PUBLIC_URL}\"\n{setting}\n{LISTENERS}");
        let gateway = Gateway::of_document(&config).start();
        let (_, body) = readiness(&gateway).await;
        assert_eq!(body["missing"][0]["issuer"], issuer.as_str(), "{setting}");
    }
}

#[tokio::test]
async fn redis_is_needed() {
    let mut redis = Redis::start();
    redis.kill();
    let dpop = format!("start_timeout_seconds = 0\nredis.url = \"{}\"", redis.url());
    let gateway = Gateway::with_dpop(&Parties::new(), &dpop, LISTENERS).start();
    let body = becomes(&gateway, 503).await;
    assert_eq!(body["missing"][0]["what"], "redis", "{body}");
    redis.restart();
    becomes(&gateway, 200).await;
    redis.kill();
    becomes(&gateway, 503).await;
    redis.restart();
    becomes(&gateway, 200).await;
}

/// Where each node decides by its memory while Redis is unreachable, it is ready without Redis.
#[tokio::test]
async fn redis_is_not_needed_if_nodes_decide_alone() {
    let port = free_port().await;
    let dpop = format!(
        "start_timeout_seconds = 0\nredis.url = \"redis://127.0.0.1:{port}\"\nredis.insecure_node_memory = true"
    );
    let gateway = Gateway::with_dpop(&Parties::new(), &dpop, LISTENERS).start();
    assert_eq!(readiness(&gateway).await.0, 200);
}

/// Load balancers that ask send no more requests, while those that are there may end.
#[tokio::test]
async fn a_process_that_ends_is_not_ready() {
    let parties = Parties::new();
    // Accepts a connection, and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!(
        "{LISTENERS}\n[upstream.silent]\nservers = [\"http://{}\"]\n[[route]]\npath = \"/\"\nupstream = \"silent\"",
        silent.local_addr().unwrap()
    );
    let mut gateway = Gateway::new(&parties, &config).start();
    let request = parties.request(Method::GET, "/");
    let body = tokio::select! {
        response = gateway.send(&request) => panic!("{}", response.status()),
        body = async {
            let (connection, _) = silent.accept().await.unwrap();
            let pid = gateway.process.id().to_string();
            let killed = Command::new("kill").args(["-TERM", &pid]).status();
            assert!(killed.unwrap().success());
            let body = becomes(&gateway, 503).await;
            drop(connection);
            body
        } => body,
    };
    assert_eq!(body["missing"][0]["what"], "time");
    until("the end of the process", async || {
        gateway.process.try_wait().unwrap()
    })
    .await;
}
