//! Upgrades, and one proof sent over several connections.

use common::{Attempt, AttemptExt as _, block_on};
use http::{HeaderValue, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_dpop::proof::{ProofError, UrlMismatch};

use super::{assert_response, http1_client, http2_client, serve, url_error, with_body};

#[test]
fn a_connection_can_be_upgraded_through_the_layer() {
    block_on(async {
        let address = serve().await;
        let upgrading = |attempt: &Attempt| {
            let mut request = with_body(attempt.request());
            let headers = request.headers_mut();
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("echo"));
            request
        };
        let mut client = http1_client(address).await;
        // H-16: the proof of a WebSocket handshake names an https URL and the method GET.
        let response = client
            .send_request(upgrading(&Attempt::good()))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"echo").await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"echo");

        let mut client = http1_client(address).await;
        let mut attempt = Attempt::good();
        attempt.proof_claims["htu"] = json!("https://api.example.com/chat");
        let response = client.send_request(upgrading(&attempt)).await.unwrap();
        assert_response(
            "R-4.3.9: a rejected upgrade",
            &response,
            url_error(UrlMismatch::Path),
        );
    });
}

#[test]
fn a_proof_is_accepted_once_over_all_connections() {
    block_on(async {
        let address = serve().await;
        let request = with_body(Attempt::good().request());
        let mut over_http2 = request.clone();
        *over_http2.uri_mut() = Uri::from_static("http://orders.internal/orders");

        // T-17: concurrently over one connection.
        let client = http2_client(address).await;
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut client = client.clone();
            let request = over_http2.clone();
            requests.spawn(async move { client.send_request(request).await.unwrap() });
        }
        let responses = requests.join_all().await;
        let (passed, rejected): (Vec<_>, Vec<_>) = responses
            .into_iter()
            .partition(|response| response.status() == StatusCode::OK);
        assert_eq!((passed.len(), rejected.len()), (1, 7));
        for response in &rejected {
            let expected = Err(ProofError::Replayed.into());
            assert_response("R-11.1.3: over one connection", response, expected);
        }

        let mut client = http1_client(address).await;
        let response = client.send_request(request).await.unwrap();
        let expected = Err(ProofError::Replayed.into());
        assert_response("R-11.1.3: over another connection", &response, expected);
    });
}
