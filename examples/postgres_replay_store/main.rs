//! `minimal.rs` plus a replay store that several nodes share: a table of PostgreSQL. The store is in `store.rs`.
//!
//! ```sh
//! cargo run -p tower-dpop-nodes --example postgres_replay_store -- \
//!     --database postgres://user:password@127.0.0.1/database --listen 127.0.0.1:8080
//! curl -i http://127.0.0.1:8080/orders
//! ```
//!
//! `--unlogged` creates a table that is faster and empty after a crash. Nonces are required, so that no failover, and no crash
//! with such a table, allows a replay: `store.rs` says why. All nodes have the same `NONCE_SECRET` (`openssl rand -hex 32`);
//! without it, a node has a secret of its own.

use std::env;
use std::error::Error;

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::{
    BoundToken, DpopLayer, JwtVerifier, KeySet, NonceSecret, NonceSecrets, ProofRules,
    StatelessNonces, Verifier,
};

mod store;

use store::{PostgresReplayStore, Table};

/// Replace this with your issuer's JWK Set. This key is from RFC 8037 appendix A, which publishes its
/// private half, too.
const JWKS: &str = r#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut database, mut listen, mut table) = (None, "127.0.0.1:8080".to_owned(), Table::Logged);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--database" => database = arguments.next(),
            "--listen" => listen = arguments.next().ok_or("--listen needs an address")?,
            "--unlogged" => table = Table::Unlogged,
            _ => return Err("usage: --database URL [--listen ADDRESS] [--unlogged]".into()),
        }
    }
    let database = database.ok_or("--database is missing")?;
    let replays = PostgresReplayStore::connect(database.parse()?, table).await?;

    let listener = TcpListener::bind(listen).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);
    let secrets = match env::var_os("NONCE_SECRET") {
        Some(_) => NonceSecrets::from_env("NONCE_SECRET")?,
        None => NonceSecret::generate().into(),
    };
    let rules = ProofRules::new(url.parse()?)
        .with_nonces(StatelessNonces::new(secrets))
        .with_replay_store(replays);
    let keys: KeySet = JWKS.parse()?;
    let tokens = JwtVerifier::new("https://as.example.com", "https://api.example.com", keys);
    let app = Router::new()
        .route("/orders", get(orders))
        .route_layer(DpopLayer::new(Verifier::new(rules, tokens)));

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
