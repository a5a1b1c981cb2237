//! `minimal.rs` plus metadata (RFC 9728): clients learn from the server what they need to know. One
//! of the routes requires a scope.
//!
//! ```sh
//! cargo run --example metadata
//! curl -i http://127.0.0.1:8080/orders
//! curl -s http://127.0.0.1:8080/.well-known/oauth-protected-resource
//! ```
//!
//! The first request is rejected, and its challenge names the URL of the second, which returns the
//! issuers, the scopes and the algorithms. The address to listen on can be given as an argument.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::resource::{MetadataLayer, ResourceMetadata};
use tower_dpop::{
    BoundToken, DpopLayer, JwtVerifier, KeySet, PublicUrl, RequireScopesLayer, Verifier,
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
    let mut verifier = Verifier::new(
        url.parse::<PublicUrl>()?,
        JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
    )
    .with_scope("orders.read orders.write".parse()?);
    // Made from the verifier, so it states what is checked. Challenges point to it from now on.
    let metadata = ResourceMetadata::of(&mut verifier).with_name("Orders");
    let writing = RequireScopesLayer::all_of("orders.write".parse()?);
    let app = Router::new()
        .route("/orders", get(orders))
        .route("/orders/new", get(new_order).layer(writing))
        .route_layer(DpopLayer::new(verifier))
        // The last layer is the outermost: clients can read the metadata without a token.
        .layer(MetadataLayer::new(&metadata));

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

async fn new_order(Extension(token): Extension<BoundToken>) -> String {
    format!(
        "an order by {}\n",
        token.claims().subject().unwrap_or("a machine")
    )
}
