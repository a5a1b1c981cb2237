//! The smallest server: one route, which only the holder of a token's key can reach.
//!
//! ```sh
//! cargo run --example minimal
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! curl cannot sign proofs, so its request is rejected with `401`, and
//! `WWW-Authenticate: DPoP algs="…"` says what is required. The example `flow` has a client that
//! signs proofs. The address to listen on can be given as an argument.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, KeySet, PublicUrl, Verifier};

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
        url.parse::<PublicUrl>()?,
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
