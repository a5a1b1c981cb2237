//! `minimal.rs` plus a memory of one's own for the proofs that were used.
//!
//! ```sh
//! cargo run --example custom_replay_store
//! curl -i http://127.0.0.1:8080/orders
//! cargo run --example custom_replay_store 127.0.0.1:8080 built-in   # the memory that is built in, chosen at run time
//! ```
//!
//! This one is a map, and so serves one process, like the memory that is built in. Where several
//! processes serve one URL, they need one store: what is a lock here is then one atomic operation
//! of the database, such as `INSERT … ON CONFLICT DO NOTHING` in SQL.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::proof::{Claim, ReplayKey, ReplayStoreError, replay_contract};
use tower_dpop::{
    BoundToken, DpopLayer, JwtVerifier, KeySet, ProofRules, PublicUrl, ReplayStore, Timestamp,
    Verifier,
};

/// The proofs that were used, each with the last second at which it would be accepted.
#[derive(Default)]
struct UsedProofs(Mutex<HashMap<ReplayKey, Timestamp>>);

/// Proofs come from anyone who has a token, so the memory needs a bound.
const MAX_RECORDS: usize = 100_000;

impl ReplayStore for UsedProofs {
    async fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        // One lock around all of it: of two claims at the same time, one must see the other.
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(&key) {
            return Ok(Claim::Replayed);
        }
        if used.len() >= MAX_RECORDS {
            used.retain(|_, expires| now <= *expires);
        }
        // To make room by forgetting a live record would let its proof pass again.
        if used.len() >= MAX_RECORDS {
            return Err(ReplayStoreError::Full);
        }
        used.insert(key, expires);
        Ok(Claim::First)
    }
}

/// Your issuer's JWK Set goes here. This key is the one of RFC 8037 appendix A: its private half is
/// known to all.
const JWKS: &str = r#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Belongs in a test; here it panics at start-up if the store does not keep its promises.
    replay_contract::check(&UsedProofs::default()).await;

    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere, parse an https URL.
    let url = format!("http://{}", listener.local_addr()?);

    let rules = ProofRules::new(PublicUrl::http_on_loopback(&url)?);
    let rules = match env::args().nth(2).as_deref() {
        Some("built-in") => rules,
        _ => rules.with_replay_store(UsedProofs::default()),
    };
    let keys: KeySet = JWKS.parse()?;
    let tokens = JwtVerifier::new("https://as.example.com", "https://api.example.com", keys);
    let service = Service {
        dpop: DpopLayer::new(Verifier::new(rules, tokens)),
    };

    println!("listening on {url}");
    axum::serve(listener, service.router()).await?;
    Ok(())
}

/// One type, whatever remembers proofs.
struct Service {
    dpop: DpopLayer,
}

impl Service {
    fn router(&self) -> Router {
        Router::new()
            .route("/orders", get(orders))
            .layer(self.dpop.clone())
    }
}

async fn orders(Extension(token): Extension<BoundToken>) -> String {
    format!("the orders of {}\n", token.claims().subject())
}
