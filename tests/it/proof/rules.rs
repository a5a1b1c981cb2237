//! Rules that are shared by several servers, and the single use of a proof.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;
use tower_dpop::proof::{
    Claim, Epoch, ProofError, ReplayKey, ReplayStoreError, TargetError, UrlMismatch, UsedProof,
};
use tower_dpop::testing::TestClient;
use tower_dpop::token_endpoint::{TokenEndpoint, TokenRequestRejection};
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret, ProofRules,
    ReplayStore, StatelessNonces, Timestamp, Verifier,
};

use super::{Change, with_nonce};
use common::{
    AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, TestClock, jwt_verifier,
    required_nonce, verifier,
};

/// Two servers in one process with the same rules: each accepts the other's nonces, and one replay store
/// records the proofs of both.
#[test]
fn servers_with_the_same_rules_share_nonces_and_replay_store() {
    let store = Arc::new(MemoryReplayStore::default());
    let nonces = Arc::new(StatelessNonces::new(NonceSecret::generate()));
    let rules = common::rules()
        .with_nonces(nonces)
        .with_replay_store(Arc::clone(&store));
    let other_rules = rules.clone().with_public_url(ISSUER.parse().unwrap());
    let endpoint = TokenEndpoint::new(other_rules);
    let layer = DpopLayer::new(Verifier::new(rules, common::jwt_verifier()));

    let nonce_of_endpoint = endpoint.issue_nonce().unwrap();
    let attempt = with_nonce(nonce_of_endpoint.as_str(), NOW);
    attempt
        .outcome_by(&layer)
        .assert_passed("a nonce of the endpoint");
    assert_eq!(store.usage().live, 1);

    let nonce_of_layer = required_nonce(&layer).unwrap();
    let client = TestClient::without_issuer(TestClock::at(NOW)).with_nonce(nonce_of_layer);
    let verified = |url: &str| {
        let (head, ()) = client.token_request(url).build::<()>().into_parts();
        common::block_on(endpoint.verify(&head)).map(drop)
    };
    assert_eq!(verified("https://as.example.com/token"), Ok(()));
    assert_eq!(store.usage().live, 2);
    let other_host = TokenRequestRejection::Proof(ProofError::Url(UrlMismatch::Host));
    assert_eq!(verified("https://api.example.com/token"), Err(other_host));
}

/// A resolver reads fields that one host's proxy sets, so rules for another URL must not keep it.
#[test]
fn rules_under_another_url_have_no_target_resolver() {
    let rules = common::rules().with_target_resolver(|_: &http::request::Parts| None);
    let client = TestClient::without_issuer(TestClock::at(NOW));
    let verified = |rules: ProofRules, url: &str| {
        let (head, ()) = client.token_request(url).build::<()>().into_parts();
        common::block_on(TokenEndpoint::new(rules).verify(&head)).map(drop)
    };
    assert_eq!(
        verified(rules.clone(), "https://api.example.com/token"),
        Err(TargetError::Unresolved.into())
    );
    let other_rules = rules.with_public_url(ISSUER.parse().unwrap());
    assert_eq!(
        verified(other_rules, "https://as.example.com/token"),
        Ok(())
    );
}

/// T-17: a request that is rejected for another reason leaves the proof unused.
#[test]
fn only_an_accepted_request_uses_its_jti() {
    let rows: Vec<(&str, Change)> = vec![
        ("another method", |a| a.method = http::Method::DELETE),
        ("another path", |a| a.uri = "/accounts".into()),
        ("an expired token", |a| {
            a.token_claims["exp"] = json!(NOW - 60);
        }),
        ("a forged token", |a| a.token_key = Key::es256()),
        ("a token bound to another key", |a| {
            a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt());
        }),
        ("the Bearer scheme", |a| {
            a.authorization = Some(vec![format!("Bearer {}", a.token()).parse().unwrap()]);
        }),
        ("a forged signature", |a| a.key = Key::es256()),
        ("a stale proof", |a| {
            a.proof_claims["iat"] = json!(NOW - 3600);
        }),
    ];
    for (name, change) in rows {
        let layer = DpopLayer::new(verifier());
        let good = Attempt::good();
        let mut bad = Attempt::good();
        bad.proof_claims["jti"] = good.proof_claims["jti"].clone();
        change(&mut bad);
        assert_ne!(bad.outcome_by(&layer).status, 200, "T-17: {name}");
        good.outcome_by(&layer)
            .assert_passed(&format!("T-17: after {name}"));
    }
}

///
#[test]
fn the_same_request_from_many_threads_is_accepted_once() {
    let layer = DpopLayer::new(verifier());
    for _ in 0..20 {
        let attempt = Attempt::good();
        let passed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| usize::from(attempt.outcome_by(&layer).status == 200)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 1);
    }
}

/// the token of a replayed request takes so long to verify that the store has already dropped
/// the record of the first use when it receives the claim.
#[test]
fn a_slow_token_verification_allows_no_replay() {
    /// Drops each record as soon as the contract of `ReplayStore` allows, by a clock of its own.
    struct ExactRetentionStore(TestClock, Mutex<HashMap<ReplayKey, Timestamp>>);

    impl ReplayStore for ExactRetentionStore {
        async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
            let now = Timestamp::from(self.0.read()());
            let mut records = self.1.lock().unwrap();
            records.retain(|_, expires| now <= *expires);
            Ok(match records.insert(proof.key, proof.expires) {
                None => Claim::First,
                Some(_) => Claim::Replayed,
            })
        }

        fn epoch(&self) -> Epoch {
            Epoch::UNKNOWN
        }
    }

    /// Sets the clock forward by a delay while it verifies a token.
    struct SlowVerifier(JwtVerifier<KeySet>, TestClock, Arc<AtomicU64>);

    impl AccessTokenVerifier for SlowVerifier {
        type Claims = Claims;

        async fn verify(
            &self,
            token: PresentedToken<'_>,
            now: Timestamp,
        ) -> Result<AccessToken<Claims>, TokenError> {
            self.1.set(now.as_unix() + self.2.load(Ordering::SeqCst));
            self.0.verify(token, now).await
        }

        fn issuers(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    let clock = TestClock::at(NOW);
    let delay = Arc::new(AtomicU64::new(0));
    let tokens = SlowVerifier(jwt_verifier(), clock.clone(), Arc::clone(&delay));
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap())
            .with_clock(clock.read())
            .with_replay_store(ExactRetentionStore(clock.clone(), Mutex::default())),
        tokens,
    );
    let layer = DpopLayer::new(verifier);

    let stolen = Attempt::good();
    stolen.outcome_by(&layer).assert_passed("the first use");
    clock.set(NOW + 90);
    stolen
        .outcome_by(&layer)
        .assert_reason("a replay in the last second", ProofError::Replayed);
    clock.set(NOW + 90);
    delay.store(2, Ordering::SeqCst);
    stolen.outcome_by(&layer).assert_reason(
        "a replay that is claimed after the last second",
        ProofError::Expired,
    );
    delay.store(2, Ordering::SeqCst);
    clock.set(NOW + 10);
    Attempt::good()
        .outcome_by(&layer)
        .assert_passed("a first use that is slow, but in time");
}
