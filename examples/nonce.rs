//! `minimal.rs` plus nonces: every proof must contain a nonce that the server issued recently, so
//! proofs cannot be made in advance.
//!
//! ```sh
//! NONCE_SECRET=$(openssl rand -hex 32) cargo run --example nonce
//! curl -i -H 'Authorization: DPoP some-token' http://127.0.0.1:8080/orders
//! ```
//!
//! curl gets `error="use_dpop_nonce"`, and in `DPoP-Nonce` the nonce to put into its proof. Servers
//! that share a secret and a replay store accept each other's nonces. A single server does not need
//! `NONCE_SECRET`. During a rotation it has two secrets, separated by a comma.
//!
//! Servers without a shared replay store have a secret each, behind a proxy that sends all requests with
//! one token to the same server: `docs/guide/several-nodes.md` has the configuration of nginx.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::proof::InvalidNonceSecrets;
use tower_dpop::{
    BoundToken, DpopLayer, JwtVerifier, KeySet, NonceSecret, NonceSecrets, ProofRules,
    StatelessNonces, Verifier,
};

/// Replace this with your issuer's JWK Set. This key is from RFC 8037 appendix A, which publishes its
/// private half, too.
const JWKS: &str = r#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let keys: KeySet = JWKS.parse()?;
    let verifier = Verifier::new(
        ProofRules::new(url.parse()?).with_nonces(StatelessNonces::new(nonce_secrets()?)),
        JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
    );
    let app = Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(verifier));

    println!("listening on {url}");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn orders(Extension(token): Extension<BoundToken>) -> String {
    format!(
        "the orders of {}\n",
        token.claims().subject().unwrap_or("a machine")
    )
}

fn nonce_secrets() -> Result<NonceSecrets, InvalidNonceSecrets> {
    match env::var_os("NONCE_SECRET") {
        Some(_) => NonceSecrets::from_env("NONCE_SECRET"),
        None => Ok(NonceSecret::generate().into()),
    }
}
