//! Nonces, and the epochs of the store: what a [`Verifier`](tower_dpop::Verifier) makes of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use serde_json::json;
use tokio::task::block_in_place;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::proof::{NonceError, ProofError, ReplayStoreError, UsedProof};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, NonceSecret, ProofRules, ReplayStore as _,
    StatelessNonces, Timestamp, Verifier,
};

use common::{Attempt, AttemptExt as _, Outcome, jwt_verifier, rules};

use super::{RedisReplayStore, at, claim, connected, fresh_key, now, until, until_it_accepts};
use crate::proxy::{Fault, Loss, Proxy};
use crate::servers::{Redis, wait_for};

/// A node with this store, and the nonce secret of all nodes.
pub(super) struct Node(DpopLayer);

impl Node {
    pub(super) fn of(store: &RedisReplayStore) -> Self {
        Self(DpopLayer::new(Verifier::new(with(store), jwt_verifier())))
    }

    pub(super) async fn ask(&self, attempt: &Attempt) -> Outcome {
        let service = self.0.layer(service_fn(async |request: Request<String>| {
            let mut response = Response::new(());
            if let Some(token) = request.extensions().get::<BoundToken<Claims>>() {
                response.extensions_mut().insert(token.clone());
            }
            Ok::<_, std::convert::Infallible>(response)
        }));
        let response = service.oneshot(attempt.request()).await.unwrap();
        Outcome::of(&response)
    }

    /// The node demands another nonce, and accepts the same request with it, once.
    pub(super) async fn assert_passes_with_a_fresh_nonce(&self, name: &str, attempt: &Attempt) {
        let outcome = self.ask(attempt).await;
        outcome.assert_reason(name, NonceError::Foreign);
        self.assert_passes_with_its_nonce(name, attempt, outcome)
            .await;
    }

    async fn assert_passes_with_its_nonce(&self, name: &str, attempt: &Attempt, outcome: Outcome) {
        let error = outcome.parameter("error");
        assert_eq!(error.as_deref(), Some("use_dpop_nonce"), "{name}");
        let mut attempt = attempt.again();
        attempt.proof_claims["nonce"] = json!(outcome.nonces[0]);
        self.ask(&attempt).await.assert_passed(name);
        self.ask(&attempt)
            .await
            .assert_reason(name, ProofError::Replayed);
    }
}

fn with(store: &RedisReplayStore) -> ProofRules {
    let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
    let nonces = StatelessNonces::new(secret);
    rules().with_nonces(nonces).with_replay_store(store.clone())
}

/// A good request with a nonce from this node.
pub(super) async fn with_nonce_of(node: &Node) -> Attempt {
    let without = Attempt::but(|attempt| attempt.dpop = Some(Vec::new()));
    let nonce = node.ask(&without).await.nonces[0].clone();
    Attempt::but(|attempt| attempt.proof_claims["nonce"] = json!(nonce))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_accept_each_others_nonces_and_no_replay() {
    let redis = Redis::start();
    let (one, other) = (connected(&redis.url()).await, connected(&redis.url()).await);
    let (one, other) = (Node::of(&one), Node::of(&other));
    let attempt = with_nonce_of(&one).await;
    other
        .ask(&attempt)
        .await
        .assert_passed("a nonce of the other node");
    for node in [&one, &other] {
        node.ask(&attempt)
            .await
            .assert_reason("a replay", ProofError::Replayed);
    }
}

/// A server without replicas has another replication id once it gets one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_agree_soon_after_the_first_replica_attaches() {
    let redis = Redis::start();
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(connected(&redis.url()).await);
    }
    let replication = redis.info("master_replid");
    let _replica = block_in_place(|| Redis::replica_of(&redis));
    println!(
        "another replication id: {}",
        redis.info("master_replid") != replication
    );
    // The time of two probes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let epoch = stores[0].epoch();
    let key = fresh_key();
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(store.epoch(), epoch, "{number}");
        let expected = match number {
            0 => tower_dpop::proof::Claim::First,
            _ => tower_dpop::proof::Claim::Replayed,
        };
        assert_eq!(claim(store, key).await, Ok(expected), "{number}");
    }
    let node = Node::of(&stores[0]);
    let attempt = with_nonce_of(&node).await;
    Node::of(&stores[2])
        .ask(&attempt)
        .await
        .assert_passed("they agree");
}

/// A verifier of tokens that does something first. The epoch of the request has been read then.
struct After<F>(JwtVerifier<KeySet>, F);

impl<F: Fn() + Send + Sync + 'static> AccessTokenVerifier for After<F> {
    type Claims = Claims;

    async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<Claims>, TokenError> {
        block_in_place(&self.1);
        self.0.verify(token, now).await
    }

    fn issuers(&self) -> Vec<&str> {
        self.0.issuers()
    }
}

/// The server is replaced between the check of the nonce and the claim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_between_nonce_and_claim_demands_another_nonce() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    let redis = Arc::new(Mutex::new(redis));
    let node = Node::of(&store);
    let attempt = with_nonce_of(&node).await;

    let restart = {
        let (redis, store) = (Arc::clone(&redis), store.clone());
        move || {
            let before = store.epoch();
            redis.lock().unwrap().restart();
            wait_for("another epoch", || (store.epoch() != before).then_some(()));
        }
    };
    let tokens = After(jwt_verifier(), restart);
    let restarting = Node(DpopLayer::new(Verifier::new(with(&store), tokens)));
    let outcome = restarting.ask(&attempt).await;
    let keys = redis.lock().unwrap().keys();
    assert!(keys <= 1, "nothing but the store's own key: {keys}");
    outcome.assert_reason("restarted", NonceError::Foreign);
    node.assert_passes_with_its_nonce("restarted", &attempt, outcome)
        .await;
    let keys_after = redis.lock().unwrap().keys();
    assert_eq!(keys_after, keys + 1, "one record");
}

/// The claim is on its way when its server dies. It is never sent to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_sent_again_never_reaches_another_store() {
    for loss in [Loss::Request, Loss::Reply] {
        let mut redis = Redis::start();
        let proxy = Proxy::to(redis.port());
        let deadline = Duration::from_secs(5);
        let store = at(&proxy.url())
            .with_deadline(deadline)
            .connect()
            .await
            .unwrap();
        let before = store.epoch();
        proxy.lose_next(loss, Fault::HoldConnections);
        let (key, time) = (fresh_key(), now());
        let waiting = tokio::spawn({
            let store = store.clone();
            let proof = UsedProof::new(key, time, time.plus(90), before);
            async move { store.claim(proof).await }
        });
        proxy.wait_until_lost(1).await;
        block_in_place(|| redis.restart());
        proxy.set(Fault::None);
        let result = waiting.await.unwrap();
        println!("{loss:?}: {result:?}");
        assert!(result.is_err(), "{loss:?}: {result:?}");
        until("another epoch", async || store.epoch() != before).await;
        assert!(
            redis.keys() <= 1,
            "{loss:?}: nothing but the store's own key"
        );
        // It comes with a nonce of before, from a request that has waited.
        let proof = UsedProof::new(key, time, time.plus(90), before);
        assert_eq!(store.claim(proof).await, Err(ReplayStoreError::OtherStore));
        until_it_accepts(&store).await;
    }
}
