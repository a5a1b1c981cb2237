//! `minimal.rs` plus a custom replay store.
//!
//! ```sh
//! cargo run --example custom_replay_store
//! curl -i http://127.0.0.1:8080/orders
//! cargo run --example custom_replay_store 127.0.0.1:8080 built-in   # the memory that is built in, chosen at run time
//! ```
//!
//! This store is a map, so it serves one process, like the built-in replay store. Several processes
//! that serve one URL need one shared store. One atomic operation of the database then replaces the
//! lock used here (`postgres_replay_store/store.rs` shows it in SQL), and the epoch is
//! `Epoch::of` whatever changes when the database loses records (a new primary, a restart without
//! persistence).

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::routing::get;
use axum::{Extension, Router};
use tokio::net::TcpListener;
use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof, replay_contract};
use tower_dpop::{
    BoundToken, DpopLayer, JwtVerifier, KeySet, ProofRules, ReplayStore, Timestamp, Verifier,
};

struct UsedProofs {
    /// Each with the last second at which it would be accepted.
    used: Mutex<HashMap<ReplayKey, Timestamp>>,
    /// Another one after each restart, because the map is empty then.
    epoch: Epoch,
}

impl UsedProofs {
    fn new() -> Self {
        Self {
            used: Mutex::default(),
            epoch: Epoch::random(),
        }
    }
}

/// Anyone who has a token can send proofs, so the store needs a limit.
const MAX_RECORDS: usize = 100_000;

impl ReplayStore for UsedProofs {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        // The nonce was issued for another store, which knows whether the proof was used.
        if proof.epoch != self.epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        // One lock for the whole operation: of two simultaneous claims, one must see the other.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.contains_key(&proof.key) {
            return Ok(Claim::Replayed);
        }
        if used.len() >= MAX_RECORDS {
            used.retain(|_, expires| proof.now <= *expires);
        }
        // Removing a record that has not expired would let its proof be used again.
        if used.len() >= MAX_RECORDS {
            return Err(ReplayStoreError::Full);
        }
        used.insert(proof.key, proof.expires);
        Ok(Claim::First)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Replace this with your issuer's JWK Set. This key is from RFC 8037 appendix A, which publishes its
/// private half, too.
const JWKS: &str = r#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // These checks belong in a test. Here they panic at start-up if the store breaks the contract.
    let store = Arc::new(UsedProofs::new());
    replay_contract::check(&store).await;
    replay_contract::check_together(&[store.clone(), store]).await;

    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let listener = TcpListener::bind(address).await?;
    // How clients reach us. On loopback it may be plain http; elsewhere it is https.
    let url = format!("http://{}", listener.local_addr()?);

    let rules = ProofRules::new(url.parse()?);
    let rules = match env::args().nth(2).as_deref() {
        Some("built-in") => rules,
        _ => rules.with_replay_store(UsedProofs::new()),
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

/// The same type with any replay store.
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
    format!(
        "the orders of {}\n",
        token.claims().subject().unwrap_or("a machine")
    )
}
