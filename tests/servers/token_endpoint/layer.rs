//! A pushed authorization request and its token request over HTTP: A-10, A-12, A-13, A-14 and A-19.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::net::TcpListener;
use tower_dpop::token_endpoint::{
    ProvenKey, TokenEndpoint, TokenEndpointLayer, authorization_request_key, check_code_binding,
};
use tower_dpop::{ProofRules, StatelessNonces};

use common::token_endpoint::{Attempt, Outcome, Server, nonce_secret};
use common::{Key, KeyExt as _, NOW, at, keys};

#[derive(Clone)]
struct App {
    server: Server,
    endpoint: Arc<TokenEndpoint>,
}

/// Returns a code that is bound to the key of the proof. The form is a `dpop_jkt`, or empty.
async fn par(
    State(app): State<App>,
    Extension(key): Extension<Option<ProvenKey>>,
    form: String,
) -> Response<String> {
    let dpop_jkt = Some(form.as_str()).filter(|form| !form.is_empty());
    match authorization_request_key(key.as_ref(), dpop_jkt) {
        Ok(key) => {
            let mut codes = app.server.codes.lock().unwrap();
            codes.insert("the-code".into(), key);
            Response::new("the-code".into())
        }
        Err(rejection) => app.endpoint.reject(rejection),
    }
}

async fn token(
    State(app): State<App>,
    Extension(key): Extension<ProvenKey>,
    code: String,
) -> Response<String> {
    let bound_to = app.server.codes.lock().unwrap().get(&code).copied();
    match check_code_binding(Some(&key), bound_to.flatten()) {
        Ok(()) => app.server.redeem(Some(&key), &code),
        Err(rejection) => app.endpoint.reject(rejection),
    }
}

struct HttpClient {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl HttpClient {
    async fn send(&self, path: &str, nonce: Option<&str>, key: &Key, form: &str) -> Outcome {
        let url = format!("{}{path}", self.base);
        let mut attempt = Attempt::with_key(key.clone());
        attempt.claims["htu"] = json!(url);
        if let Some(nonce) = nonce {
            attempt.claims["nonce"] = json!(nonce);
        }
        let request = Request::post(&url)
            .header("dpop", attempt.proof())
            .body(Full::from(form.to_owned()))
            .unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(bytes.into()).unwrap();
        Outcome::of(Response::from_parts(head, body))
    }
}

#[tokio::test]
async fn redeems_a_code_that_a_pushed_request_bound_to_a_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let endpoint = TokenEndpoint::new(
        ProofRules::new(base.parse().unwrap())
            .with_clock(|| at(NOW))
            .with_nonces(StatelessNonces::new(nonce_secret(1))),
    );
    let app = App {
        server: Server::default(),
        endpoint: Arc::new(endpoint),
    };
    let router = Router::new()
        .route("/par", post(par))
        .route("/token", post(token))
        .route_layer(TokenEndpointLayer::new(Arc::clone(&app.endpoint)))
        .with_state(app.clone());
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let client = HttpClient {
        base,
        client: Client::builder(TokioExecutor::new()).build_http(),
    };
    let (key, other) = (keys::client(), Key::es256());

    let without_nonce = client.send("/par", None, &key, "").await;
    assert_eq!(without_nonce.status.as_u16(), 400, "A-10");
    assert_eq!(
        without_nonce.body,
        r#"{"error":"use_dpop_nonce","error_description":"Authorization server requires nonce in DPoP proof"}"#
    );
    assert_eq!(without_nonce.values("cache-control"), ["no-store"], "A-12");
    assert_eq!(without_nonce.values("content-type"), ["application/json"]);
    let nonce = without_nonce.nonce();
    let nonce = Some(nonce.as_str());

    let rejected = client.send("/par", nonce, &key, &other.jkt()).await;
    assert_eq!(
        rejected.body,
        r#"{"error":"invalid_request","error_description":"dpop_jkt and the DPoP proof name different keys"}"#,
        "A-14"
    );
    let pushed = client.send("/par", nonce, &key, &key.jkt()).await;
    assert_eq!(pushed.body, "the-code", "A-14");

    let without_nonce = client.send("/token", None, &key, "the-code").await;
    assert!(without_nonce.body.contains("use_dpop_nonce"), "A-19");
    let rejected = client.send("/token", nonce, &other, "the-code").await;
    assert_eq!(
        rejected.body,
        r#"{"error":"invalid_grant","error_description":"the authorization code is bound to another key"}"#,
        "A-13"
    );
    assert_eq!(rejected.status.as_u16(), 400, "A-13");
    let token = client.send("/token", nonce, &key, "the-code").await;
    token.assert_bound("A-19: the code was not consumed", &key);
    assert_eq!(app.server.calls(), 1);
    serving.abort();
}
