//! The MCP server of the guide, on a real socket.

mod recipe;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_dpop::JwtVerifier;
use tower_dpop::testing::{TestClient, TestClock, TestIssuer};

const PAGE: &str = include_str!("../../../docs/guide/mcp-servers.md");
const ISSUER: &str = "https://as.example.com";

#[test]
fn the_page_has_the_server_as_it_is_run() {
    let recipe = format!("```rust,ignore\n{}```\n", include_str!("recipe.rs"));
    assert!(PAGE.contains(&recipe), "the page has another server");
}

fn clock() -> TestClock {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    TestClock::at(since.unwrap().as_secs())
}

/// Calls the tool, by a version of the protocol.
fn call(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "whoami",
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": version,
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    })
}

#[tokio::test]
async fn a_tool_knows_who_uses_it_and_others_are_rejected() {
    let issuer = TestIssuer::new(ISSUER, recipe::SERVER).with_clock(clock());
    let app = recipe::app(JwtVerifier::new(ISSUER, recipe::SERVER, issuer.key_set())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let http = reqwest::Client::new();
    let version = "2026-07-28";
    let post = |path: &str| {
        http.post(format!("http://{address}{path}"))
            .header("host", "mcp.example.com")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", version)
            .header("mcp-method", "tools/call")
            .header("mcp-name", "whoami")
            .body(call(version).to_string())
    };
    let client = TestClient::new(&issuer).with_claim("sub", "alice");
    let headers = |client: &TestClient| {
        let request = client.request(Method::POST, &format!("{}/mcp", recipe::SERVER));
        request.build::<()>().headers().clone()
    };

    let used = headers(&client);
    let response = post("/mcp").headers(used.clone()).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("hello alice"), "{text}");

    // SEP-1932: `iat` within five minutes in either direction.
    let now = clock().now().as_unix();
    for (seconds, expected) in [(-290, 200), (290, 200), (-310, 401), (310, 401)] {
        let wrong = client
            .clone()
            .with_clock(TestClock::at(now.saturating_add_signed(seconds)));
        let response = post("/mcp").headers(headers(&wrong)).send().await.unwrap();
        assert_eq!(response.status(), expected, "{seconds} s");
    }

    let response = post("/mcp").headers(used).send().await.unwrap();
    assert_eq!(response.status(), 401, "a replay");
    let response = post("/mcp").send().await.unwrap();
    assert_eq!(response.status(), 401, "no token");
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    let url = format!("{}/.well-known/oauth-protected-resource", recipe::SERVER);
    assert!(challenge.starts_with("DPoP algs=\""), "{challenge}");
    assert!(
        challenge.contains(&format!("resource_metadata=\"{url}\"")),
        "{challenge}"
    );

    let metadata = http.get(format!(
        "http://{address}/.well-known/oauth-protected-resource"
    ));
    let metadata = metadata.send().await.unwrap().text().await.unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["resource"], recipe::SERVER);
    assert_eq!(metadata["authorization_servers"], json!([ISSUER]));
    assert_eq!(metadata["dpop_bound_access_tokens_required"], true);
}
