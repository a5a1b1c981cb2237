//! The assertions over every defect, against a server that is reached over HTTP.

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower_dpop::testing::{TestClient, TestIssuer, assert_protected};
use tower_dpop::{DpopLayer, NonceSecret, Rejection, StatelessNonces, Verifier};

use common::{AUDIENCE, ISSUER, block_on, rules};

/// The reason itself is not on the wire: its status, error code and description are compared.
#[test]
fn a_server_rejects_each_defect() {
    let issuer = TestIssuer::new(ISSUER, AUDIENCE);
    let without_nonces = rules().with_clock(issuer.clock().read());
    let nonces = StatelessNonces::new(NonceSecret::generate());
    let with_nonces = without_nonces.clone().with_nonces(nonces);
    for rules in [without_nonces, with_nonces] {
        let client = TestClient::new(&issuer).with_nonces_of(&rules);
        let app = Router::new()
            .route("/orders", get(async || "orders"))
            .layer(DpopLayer::new(Verifier::new(rules, issuer.jwt_verifier())));
        block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let origin = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(axum::serve(listener, app).into_future());
            let http: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
            let request = client
                .request(Method::GET, "https://api.example.com/orders?page=2")
                .sent_to(&origin);
            assert_protected(&request, async |request| {
                let response = http.request(request).await.unwrap();
                assert!(response.extensions().get::<Rejection>().is_none());
                response
            })
            .await;
        });
    }
}
