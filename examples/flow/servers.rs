//! The two servers, on free ports of the loopback.

use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::tokens::HttpClient;
use tower_dpop::{
    Algorithms, BoundToken, DpopLayer, JwtVerifier, KeySet, NonceSecret, ProofRules, RemoteKeys,
    StatelessNonces, Verifier,
};

use crate::authorization_server;
use crate::recorder::Result;

pub(crate) struct Servers {
    /// The URL of the authorization server.
    pub(crate) issuer: String,
    /// The URL of the resource server, which is also the audience of its tokens.
    pub(crate) api: String,
}

impl Servers {
    pub(crate) async fn start() -> Result<Self> {
        let (issuer_listener, issuer) = listen().await?;
        let (api_listener, api) = listen().await?;
        let settings = authorization_server::Settings {
            issuer: issuer.clone(),
            audience: api.clone(),
            algorithms: Algorithms::default(),
            nonces: true,
            token_lifetime: Duration::from_secs(300),
            browser_origin: None,
        };
        serve(issuer_listener, authorization_server::router(settings)?);

        // The resource server gets the issuer's keys by discovery (RFC 8414).
        let keys = RemoteKeys::discover(issuer.parse()?, HttpClient::new()?);
        let keys = keys.fetched_within(Duration::from_secs(10)).await?;
        let tokens = JwtVerifier::new(issuer.as_str(), api.as_str(), keys);
        let verifier = Verifier::new(proof_rules(&api)?, tokens);
        serve(api_listener, resource_server(verifier));
        Ok(Self { issuer, api })
    }
}

/// Every proof must name this URL and have a nonce of this server.
fn proof_rules(api: &str) -> Result<ProofRules> {
    let nonces = StatelessNonces::new(NonceSecret::generate());
    Ok(ProofRules::new(api.parse()?).with_nonces(nonces))
}

/// axum and the layer. The only resource is `/orders`.
fn resource_server(verifier: Verifier) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(verifier))
}

/// Has characters that a page must escape.
async fn orders(Extension(token): Extension<BoundToken>) -> String {
    let subject = token.claims().subject().unwrap_or("a machine");
    format!("the orders of {subject}: 40 \"nuts & bolts\" <M8>")
}

/// Another resource server with the same rules. It accepts the tokens that the test kit signs.
pub(crate) async fn start_for_test_kit(
    tokens: impl FnOnce(&str) -> JwtVerifier<KeySet>,
) -> Result<(String, ProofRules)> {
    let (listener, api) = listen().await?;
    let rules = proof_rules(&api)?;
    let verifier = Verifier::new(rules.clone(), tokens(&api));
    serve(listener, resource_server(verifier));
    Ok((api, rules))
}

async fn listen() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move { axum::serve(listener, router).await });
}
