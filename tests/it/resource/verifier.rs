//! Errors of the verifier of access tokens and of the replay store, and the responses to them.

use common::{Attempt, AttemptExt as _, jwt_verifier};
use http::StatusCode;
use tower_dpop::proof::ReplayStoreError;
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::TokenError;
use tower_dpop::{DpopLayer, MemoryReplayStore, Rejection};

use super::layer::{BrokenStore, Says, verifier_of};

#[test]
fn an_unreachable_part_is_our_fault_and_rejects() {
    for (name, error) in [
        ("T-18: full", ReplayStoreError::Full),
        ("T-18: out of reach", ReplayStoreError::Unavailable),
    ] {
        let layer = DpopLayer::new(verifier_of(jwt_verifier(), BrokenStore(error)));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Unavailable::Replay(error));
        assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
        assert_eq!(outcome.challenges, [""; 0], "{name}");
        assert_eq!(outcome.retry_after.as_deref(), Some("1"), "{name}");
    }

    let name = "R-6.1: whoever verifies tokens cannot say";
    let layer = DpopLayer::new(verifier_of(
        Says(TokenError::Unavailable),
        MemoryReplayStore::default(),
    ));
    let outcome = Attempt::good().outcome_by(&layer);
    outcome.assert_reason(name, Unavailable::Token);
    assert_eq!(outcome.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(outcome.challenges, [""; 0]);
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
}

#[test]
fn a_full_memory_rejects_before_the_service_is_reached() {
    let memory = MemoryReplayStore::with_limit(1);
    let layer = DpopLayer::new(verifier_of(jwt_verifier(), memory.clone()));
    let first = Attempt::good();
    first
        .outcome_by(&layer)
        .assert_passed("T-18: there is room");
    let second = Attempt::good();
    let outcome = second.outcome_by(&layer);
    outcome.assert_reason(
        "T-18: there is none",
        Unavailable::Replay(ReplayStoreError::Full),
    );
    assert_eq!(memory.usage().rejected, 1);
}

#[test]
fn a_token_verifiers_verdict_decides_the_answer() {
    for (name, error, status, code) in [
        (
            "R-7.1.9: too little scope",
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
        let memory = MemoryReplayStore::default();
        let layer = DpopLayer::new(verifier_of(Says(error.clone()), memory.clone()));
        let outcome = Attempt::good().outcome_by(&layer);
        outcome.assert_reason(name, Rejection::Token(error));
        outcome.assert_rejected(name, status, Some(code));
        assert_eq!(outcome.retry_after, None, "{name}");
        assert_eq!(memory.usage().live, 0, "{name}: the proof is not spent");
    }
}
