//! `minimal.rs` plus Redis: servers that serve one URL share a replay store, so a proof that one of them accepted is rejected by all.
//!
//! ```sh
//! redis-server --maxmemory-policy noeviction &
//! cargo run --example redis --features redis
//! cargo run --example redis --features redis -- 127.0.0.1:8081 rediss://dpop:s3cret@redis.internal:6379
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! The first argument is the address to listen on, the second one the URL of Redis. In production, the URL has a password: read it from
//! a file or the environment. `RedisReplayStore` documents which settings and rights the server needs.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::proof::{RedisReplayStore, RedisServer};
use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, KeySet, ProofRules, Verifier};

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

    let redis = env::args()
        .nth(2)
        .unwrap_or("redis://127.0.0.1:6379".into());
    let replays = RedisReplayStore::at(RedisServer::url(&redis)?)
        .connect()
        .await?;

    let keys: KeySet = JWKS.parse()?;
    let verifier = Verifier::new(
        ProofRules::new(url.parse()?).with_replay_store(replays),
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
