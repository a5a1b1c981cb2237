//! A router with a nested layer, over HTTP/1.1 and HTTP/2.

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use common::{Attempt, AttemptExt as _, block_on, verifier};
use http::{StatusCode, Version};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tower_dpop::{BoundToken, Claims, DpopLayer};

async fn subject(token: BoundToken<Claims>) -> String {
    token.claims().subject().unwrap().to_owned()
}

#[test]
fn finds_the_original_path_over_http1_and_http2() {
    block_on(async {
        let app = Router::new().nest(
            "/api",
            Router::new()
                .route("/orders", get(subject))
                .layer(DpopLayer::new(verifier())),
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
                let mut request = Attempt::but(|a| a.proof_claims["htu"] = json!(htu)).request();
                let target = format!("http://{address}/api/orders").parse().unwrap();
                *request.uri_mut() = target;
                *request.version_mut() = Version::HTTP_11;
                let request = request.map(|_| Empty::<Bytes>::new());
                let response = client.request(request).await.unwrap();
                assert_eq!(response.status(), status, "{name}");
                let challenges = response.headers().get_all("www-authenticate");
                let expected = usize::from(status == StatusCode::UNAUTHORIZED);
                assert_eq!(challenges.iter().count(), expected, "{name}");
            }
        }
    });
}
