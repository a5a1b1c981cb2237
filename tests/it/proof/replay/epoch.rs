//! Several nodes, restarts and failovers: a nonce is valid only with the store that will record the proof.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tower_dpop::proof::{Claim, Epoch, NonceError, ProofError, ReplayStoreError, UsedProof};
use tower_dpop::resource::Unavailable;
use tower_dpop::token_endpoint::{TokenEndpoint, TokenRequestRejection};
use tower_dpop::{
    DpopLayer, MemoryReplayStore, NonceSecret, ProofRules, ReplayStore, StatelessNonces,
};

use common::token_endpoint::Attempt as TokenAttempt;
use common::{Attempt, AttemptExt as _, NOW, TestClock, required_nonce, verifier_by};

/// A node with this store and the nonce secret of all nodes.
fn node(store: impl ReplayStore) -> DpopLayer {
    node_by(store, |rules| rules)
}

fn node_by(store: impl ReplayStore, change: fn(ProofRules) -> ProofRules) -> DpopLayer {
    DpopLayer::new(verifier_by(|rules| {
        change(with_shared_secret(rules).with_replay_store(store))
    }))
}

fn with_shared_secret(rules: ProofRules) -> ProofRules {
    let secret = NonceSecret::from_bytes(&[7; 32]).unwrap();
    rules.with_nonces(StatelessNonces::new(secret))
}

/// A good request with a nonce from this node.
fn with_nonce_of(node: &DpopLayer) -> Attempt {
    let nonce = required_nonce(node).unwrap();
    Attempt::but(|a| a.proof_claims["nonce"] = json!(nonce))
}

/// The node demands another nonce, and accepts the same request with it.
#[track_caller]
fn assert_passes_with_a_fresh_nonce(name: &str, mut attempt: Attempt, node: &DpopLayer) {
    let mut outcome = attempt.outcome_by(node);
    outcome.assert_reason(name, NonceError::Foreign);
    let error = outcome.parameter("error");
    assert_eq!(error.as_deref(), Some("use_dpop_nonce"), "{name}");
    let nonce = outcome.nonces.pop().unwrap();
    attempt.proof_claims["nonce"] = json!(nonce);
    attempt.outcome_by(node).assert_passed(name);
}

/// T-22, R-9.2, R-11.1.6
#[test]
fn nodes_with_a_store_each_accept_only_their_own_nonces() {
    let (one, other) = (
        node(MemoryReplayStore::default()),
        node(MemoryReplayStore::default()),
    );
    let attempt = with_nonce_of(&one);
    attempt.outcome_by(&one).assert_passed("one node");
    let replayed = attempt.outcome_by(&one);
    replayed.assert_reason("the same node", ProofError::Replayed);
    let replayed = attempt.outcome_by(&other);
    replayed.assert_reason("the other node", NonceError::Foreign);
    assert_passes_with_a_fresh_nonce("the other node", with_nonce_of(&one), &other);
}

/// T-22, R-11.1.3
#[test]
fn nodes_with_a_shared_store_accept_each_others_nonces_and_no_replay() {
    let store = Arc::new(MemoryReplayStore::default());
    let (one, other) = (node(Arc::clone(&store)), node(store));
    let attempt = with_nonce_of(&one);
    attempt
        .outcome_by(&other)
        .assert_passed("a nonce of the other node");
    for node in [&one, &other] {
        let replayed = attempt.outcome_by(node);
        replayed.assert_reason("a replay", ProofError::Replayed);
    }
    with_nonce_of(&other)
        .outcome_by(&one)
        .assert_passed("the other way round");
}

/// What the option's documentation says that it allows.
#[test]
fn with_one_use_per_node_a_proof_passes_once_on_each_node() {
    let insecure = |store| node_by(store, ProofRules::with_insecure_one_use_per_node);
    let (one, other) = (
        insecure(MemoryReplayStore::default()),
        insecure(MemoryReplayStore::default()),
    );
    let attempt = with_nonce_of(&one);
    for node in [&one, &other] {
        attempt.outcome_by(node).assert_passed("the first use");
        let replayed = attempt.outcome_by(node);
        replayed.assert_reason("the second use", ProofError::Replayed);
    }
    let before = DpopLayer::new(verifier_by(|rules| {
        with_shared_secret(rules.with_insecure_one_use_per_node())
    }));
    attempt
        .outcome_by(&before)
        .assert_passed("the option before the nonces");
    with_nonce_of(&one)
        .outcome_by(&node(MemoryReplayStore::default()))
        .assert_reason("a node without the option", NonceError::Foreign);
}

/// T-24: a restart is another store with the same secret.
#[test]
fn after_a_restart_no_earlier_proof_is_accepted() {
    let before = node(MemoryReplayStore::default());
    let (used, unused) = (with_nonce_of(&before), with_nonce_of(&before));
    used.outcome_by(&before).assert_passed("before the restart");
    let after = node(MemoryReplayStore::default());
    let replayed = used.outcome_by(&after);
    replayed.assert_reason("used before", NonceError::Foreign);
    assert_passes_with_a_fresh_nonce("not used before", unused, &after);
}

/// A store over a network: one primary, and another after a failover.
#[derive(Clone)]
struct Primaries(Arc<Mutex<(MemoryReplayStore, Epoch)>>, Arc<AtomicBool>);

impl Primaries {
    fn new() -> Self {
        let first = (MemoryReplayStore::default(), Epoch::of(b"first"));
        Self(Arc::new(Mutex::new(first)), Arc::default())
    }

    fn fail_over(&self) {
        *self.0.lock().unwrap() = (MemoryReplayStore::default(), Epoch::of(b"second"));
    }

    /// The next claim finds that the primary has changed.
    fn fail_over_at_the_next_claim(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl ReplayStore for Primaries {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if self.1.swap(false, Ordering::Relaxed) {
            self.fail_over();
        }
        let (store, epoch) = self.0.lock().unwrap().clone();
        if proof.epoch != epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        let mut proof = proof;
        proof.epoch = store.epoch();
        store.claim(proof).await
    }

    fn epoch(&self) -> Epoch {
        self.0.lock().unwrap().1
    }
}

/// T-24
#[test]
fn after_a_failover_no_earlier_proof_is_accepted() {
    let store = Primaries::new();
    let (one, other) = (node(store.clone()), node(store.clone()));
    let used = with_nonce_of(&one);
    used.outcome_by(&other).assert_passed("before the failover");
    let unused = with_nonce_of(&one);
    store.fail_over();
    let replayed = used.outcome_by(&one);
    replayed.assert_reason("used before", NonceError::Foreign);
    assert_passes_with_a_fresh_nonce("not used before", unused, &other);
}

/// T-24: the nonce was accepted for the first primary, and the second one gets the claim: it does not know what the
/// first one recorded.
#[test]
fn a_failover_between_nonce_and_claim_is_a_foreign_nonce() {
    let store = Primaries::new();
    let node = node(store.clone());
    let attempt = with_nonce_of(&node);
    attempt.outcome_by(&node).assert_passed("the first use");
    store.fail_over_at_the_next_claim();
    let replayed = attempt.outcome_by(&node);
    replayed.assert_reason("a replay", NonceError::Foreign);

    let store = Primaries::new();
    let node = self::node(store.clone());
    let attempt = with_nonce_of(&node);
    store.fail_over_at_the_next_claim();
    assert_passes_with_a_fresh_nonce("a first use", attempt, &node);
}

/// D13: without nonces, the client can only be told to try again later.
#[test]
fn a_failover_during_a_request_without_a_nonce_is_a_server_error() {
    let store = Primaries::new();
    let rules = common::rules().with_replay_store(store.clone());
    let node = DpopLayer::new(verifier_by(|_| rules));
    let attempt = Attempt::good();
    store.fail_over_at_the_next_claim();
    let outcome = attempt.outcome_by(&node);
    outcome.assert_reason("T-18", Unavailable::Replay(ReplayStoreError::OtherStore));
    assert_eq!(outcome.status.as_u16(), 503);
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
    attempt.outcome_by(&node).assert_passed("the same proof");
}

/// T-24: the token endpoint does the same, also if the client is authenticated between the two halves.
#[test]
fn a_token_endpoint_binds_nonces_to_its_store() {
    let clock = TestClock::at(NOW);
    let endpoint = |store: &Primaries| {
        let rules = common::token_endpoint::rules().with_clock(clock.read());
        TokenEndpoint::new(with_shared_secret(rules).with_replay_store(store.clone()))
    };
    let attempt_by = |endpoint: &TokenEndpoint| {
        TokenAttempt::with_nonce(endpoint.issue_nonce().unwrap().as_str(), NOW)
    };
    let foreign = TokenRequestRejection::Nonce(NonceError::Foreign);

    let store = Primaries::new();
    let (one, other) = (endpoint(&store), endpoint(&store));
    let attempt = attempt_by(&one);
    assert!(attempt.verify(&other).is_ok(), "a shared store");
    store.fail_over();
    assert_eq!(attempt.verify(&other).unwrap_err(), foreign);
    assert!(attempt_by(&one).verify(&other).is_ok(), "a fresh nonce");

    let store = Primaries::new();
    let endpoint = endpoint(&store);
    let attempt = attempt_by(&endpoint);
    let checked = endpoint.check(&attempt.head()).unwrap();
    store.fail_over();
    let rejected = common::block_on(checked.record_use()).unwrap_err();
    assert_eq!(rejected, foreign);
    let response: http::Response<String> = endpoint.reject(rejected);
    let nonce = response.headers()["dpop-nonce"].to_str().unwrap();
    assert!(
        TokenAttempt::with_nonce(nonce, NOW)
            .verify(&endpoint)
            .is_ok()
    );
}

#[test]
fn equal_identities_give_equal_epochs() {
    assert_eq!(Epoch::of(b"a primary"), Epoch::of(b"a primary"));
    let epochs = [
        Epoch::UNKNOWN,
        Epoch::random(),
        Epoch::random(),
        Epoch::of(b""),
        Epoch::of(b"a primary"),
        Epoch::of(b"another"),
    ];
    for (here, one) in epochs.iter().enumerate() {
        for (there, other) in epochs.iter().enumerate() {
            assert_eq!(one == other, here == there, "{here} {there}");
            let bytes = (one.as_bytes(), other.as_bytes());
            assert_eq!(bytes.0 == bytes.1, here == there, "{here} {there}");
        }
        assert_eq!(format!("{one:?}"), "Epoch(..)");
    }
}
