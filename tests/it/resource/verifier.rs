//! Errors of the verifier of access tokens and of the replay store, and the responses to them. Clones of a verifier, and
//! one that accepts replays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Attempt, AttemptExt as _, jwt_verifier, required_nonce, verifier};
use http::StatusCode;
use serde_json::json;
use tower_dpop::proof::{NonceError, ProofError, ReplayStoreError};
use tower_dpop::resource::{CredentialsError, Unavailable};
use tower_dpop::tokens::{
    AccessToken, AccessTokenVerifier, PresentedToken, TokenCache, TokenError,
};
use tower_dpop::{
    Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, NonceSecret, Rejection,
    StatelessNonces, Timestamp, Verifier,
};

use super::layer::{FailingStore, RejectingTokens, verifier_with};

#[test]
fn a_failing_replay_store_or_token_verifier_is_a_503_without_a_challenge() {
    for (name, error) in [
        ("T-18: full", ReplayStoreError::Full),
        ("T-18: of another epoch", ReplayStoreError::OtherStore),
        ("T-18: slow", ReplayStoreError::Slow),
        ("T-18: unreachable", ReplayStoreError::Unavailable),
    ] {
        let layer = DpopLayer::new(verifier_with(jwt_verifier(), FailingStore(error)));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Unavailable::Replay(error));
        assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(outcome.challenges, [""; 0], "{name}");
        assert_eq!(outcome.retry_after.as_deref(), Some("1"), "{name}");
    }

    let name = "R-6.1: the token verifier is unavailable";
    let layer = DpopLayer::new(verifier_with(
        RejectingTokens(TokenError::Unavailable),
        MemoryReplayStore::default(),
    ));
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason(name, Unavailable::Token);
    assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(outcome.challenges, [""; 0]);
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
}

#[test]
fn a_full_replay_store_rejects_new_proofs() {
    let store = MemoryReplayStore::with_limit(1);
    let layer = DpopLayer::new(verifier_with(jwt_verifier(), store.clone()));
    let first = Attempt::good();
    first
        .outcome_by(&layer)
        .assert_passed("T-18: below the limit");
    let second = Attempt::good();
    let outcome = second.outcome_by(&layer);
    outcome.assert_reason(
        "T-18: at the limit",
        Unavailable::Replay(ReplayStoreError::Full),
    );
    assert_eq!(store.usage().rejected, 1);
}

#[test]
fn an_error_of_the_token_verifier_decides_status_and_error_code() {
    for (name, error, status, code) in [
        (
            "R-7.1.9: insufficient scope",
            TokenError::InsufficientScope,
            403,
            "insufficient_scope",
        ),
        (
            "R-6.2.4: revoked",
            TokenError::Invalid,
            401,
            "invalid_token",
        ),
        ("R-AT.5: expired", TokenError::Expired, 401, "invalid_token"),
        (
            "R-AT.6: another audience",
            TokenError::Audience,
            401,
            "invalid_token",
        ),
        (
            "R-AT.6: not a token",
            TokenError::Malformed,
            401,
            "invalid_token",
        ),
    ] {
        let store = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_with(RejectingTokens(error.clone()), store.clone()));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Rejection::Token(error));
        outcome.assert_rejected(name, status, Some(code));
        assert_eq!(outcome.retry_after, None, "{name}");
        assert_eq!(
            store.usage().live,
            0,
            "{name}: the proof is not recorded as used"
        );
    }
}

/// Routes with a clone each: a proof is accepted by one of them, once.
#[test]
fn clones_share_the_replay_store_the_nonces_and_the_verifier_of_tokens() {
    /// Counts the tokens that it verifies.
    struct Counting(JwtVerifier<KeySet>, Arc<AtomicUsize>);

    impl AccessTokenVerifier for Counting {
        type Claims = Claims;

        async fn verify(
            &self,
            token: PresentedToken<'_>,
            now: Timestamp,
        ) -> Result<AccessToken<Claims>, TokenError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.verify(token, now).await
        }

        fn issuers(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    let (store, verified) = (Arc::new(MemoryReplayStore::default()), Arc::default());
    let rules = common::rules()
        .with_nonces(StatelessNonces::new(NonceSecret::generate()))
        .with_replay_store(Arc::clone(&store));
    let tokens = Counting(jwt_verifier(), Arc::clone(&verified));
    let original = Verifier::new(rules, TokenCache::new(tokens, Duration::from_secs(60)));
    let clone = original.clone().allow_bearer();
    let (original, clone) = (DpopLayer::new(original), DpopLayer::new(clone));

    let nonce = required_nonce(&original).unwrap();
    let attempt = Attempt::but(|a| {
        a.proof_claims["nonce"] = json!(nonce);
        a.token = Some(a.token());
    });
    attempt
        .outcome_by(&clone)
        .assert_passed("a nonce of the original");
    attempt
        .outcome_by(&original)
        .assert_reason("again", ProofError::Replayed);
    assert_eq!(store.usage().live, 1);
    assert_eq!(verified.load(Ordering::Relaxed), 1);
}

#[test]
fn a_change_to_a_clone_does_not_change_the_original() {
    let original = verifier();
    let clone = original.clone().allow_bearer();
    let replaying = original.clone().allow_insecure_replays();
    let [original, clone, replaying] = [original, clone, replaying].map(DpopLayer::new);

    let bearer = || Attempt::good().as_bearer();
    let outcome = bearer().outcome_by(&clone);
    assert_eq!(outcome.status, StatusCode::OK);
    let outcome = bearer().outcome_by(&original);
    outcome.assert_reason("not the original", CredentialsError::Bearer);
    let outcome = bearer().outcome_by(&replaying);
    outcome.assert_reason("not the other clone", CredentialsError::Bearer);

    let attempt = Attempt::good();
    for time in ["the first time", "again", "a third time"] {
        attempt.outcome_by(&replaying).assert_passed(time);
    }
    attempt
        .outcome_by(&original)
        .assert_passed("the clone has recorded nothing");
    attempt
        .outcome_by(&original)
        .assert_reason("the original records", ProofError::Replayed);
    attempt
        .outcome_by(&replaying)
        .assert_passed("the clone looks nothing up");
}

#[test]
fn where_replays_are_accepted_all_other_checks_remain() {
    let layer = DpopLayer::new(verifier().allow_insecure_replays());
    let good = Attempt::good();
    for defect in good.defects() {
        let outcome = good.again().with_defect(defect).outcome_by(&layer);
        outcome.assert_reason(defect.name(), good.rejection_of(defect));
    }
}

#[test]
fn where_replays_are_accepted_the_store_is_not_asked_and_nonces_are() {
    let store = FailingStore(ReplayStoreError::Unavailable);
    let rules = common::rules()
        .with_nonces(StatelessNonces::new(NonceSecret::generate()))
        .with_replay_store(store);
    let layer = DpopLayer::new(Verifier::new(rules, jwt_verifier()).allow_insecure_replays());
    let nonce = required_nonce(&layer).unwrap();
    let mut attempt = Attempt::good();
    let outcome = attempt.outcome_by(&layer);
    outcome.assert_reason("without a nonce", NonceError::Missing);
    attempt.proof_claims["nonce"] = json!(nonce);
    attempt.outcome_by(&layer).assert_passed("with a nonce");
    attempt.outcome_by(&layer).assert_passed("again");
}
