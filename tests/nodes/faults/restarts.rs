//! The server is killed and comes back empty, or is stopped.

use std::time::Duration;

use tower_dpop::proof::{Claim, ProofError, ReplayStoreError};

use super::epochs::{Node, with_nonce_of};
use super::{
    DEADLINE, MARGIN, RECOVERY, claim, connected, fresh_key, scenarios, timed_claim,
    until_it_accepts,
};
use crate::servers::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_empty_is_another_store() {
    let down = Duration::from_secs(1);
    let outcome = scenarios::killed(down).await;
    outcome.assert_safe();
    assert!(
        outcome.again.all > 1_000,
        "records were lost: {:?}",
        outcome.again
    );
    // Most claims while the server is down are rejected at once.
    let known = outcome.fault.0 + DEADLINE + MARGIN;
    let slowest = outcome.made.slowest_between(known, outcome.fault.0 + down);
    let recovery = outcome.recovery.unwrap();
    println!(
        "slowest {:?}, in the outage {slowest:?}; recovery {recovery:?}",
        outcome.made.slowest()
    );
    let slowest = outcome.made.slowest();
    assert!(slowest < DEADLINE + MARGIN, "{slowest:?}");
    assert!(slowest < DEADLINE, "{slowest:?}");
    assert!(recovery < RECOVERY, "{recovery:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_at_once_is_another_store() {
    let outcome = scenarios::killed(Duration::ZERO).await;
    outcome.assert_safe();
    assert!(
        outcome.again.all > 1_000,
        "records were lost: {:?}",
        outcome.again
    );
}

/// `cargo test -p tower-dpop-nodes twenty_kills -- --ignored --nocapture`: about a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes a minute"]
async fn twenty_kills_are_safe() {
    for number in 0..20 {
        let outcome = scenarios::killed(Duration::from_millis(100 * number)).await;
        outcome.assert_safe();
        println!(
            "kill {number}: {} accepted, again {:?}, slowest {:?}, recovery {:?}",
            outcome.made.accepted(),
            outcome.again,
            outcome.made.slowest(),
            outcome.recovery.unwrap()
        );
        let slowest = outcome.made.slowest();
        assert!(slowest < DEADLINE + MARGIN, "{slowest:?}");
        assert!(outcome.recovery.unwrap() < RECOVERY);
    }
}

/// With nonces: what was used before a restart is never accepted again, and the client is told to repeat the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_no_nonce_of_before_is_accepted() {
    let mut redis = Redis::start();
    let store = connected(&redis.url()).await;
    let node = Node::of(&store);
    let (used, unused) = (with_nonce_of(&node).await, with_nonce_of(&node).await);
    node.ask(&used).await.assert_passed("before");
    node.ask(&used)
        .await
        .assert_reason("again", ProofError::Replayed);
    redis.restart();
    until_it_accepts(&store).await;
    for (name, attempt) in [("used", &used), ("unused", &unused)] {
        node.assert_passes_with_a_fresh_nonce(name, attempt).await;
    }
    assert_eq!(
        redis.keys(),
        markers_and(3),
        "two requests, and a claim of this test"
    );
}

/// The number of keys with these records: the store has a key of its own.
fn markers_and(records: usize) -> usize {
    1 + records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_down_requests_are_rejected_with_503() {
    let mut redis = Redis::start();
    let store = connected(&redis.url()).await;
    let node = Node::of(&store);
    let attempt = with_nonce_of(&node).await;
    redis.kill();
    let outcome = node.ask(&attempt).await;
    outcome.assert_reason("killed", ReplayStoreError::Unavailable);
    assert_eq!(outcome.kit.status, 503);
    redis.restart();
    until_it_accepts(&store).await;
    node.assert_passes_with_a_fresh_nonce("back", &attempt)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_costs_a_claim_no_more_than_the_deadline() {
    let silent = Duration::from_secs(2);
    let outcome = scenarios::stopped(silent).await;
    outcome.assert_safe();
    assert_eq!(outcome.again.all, 0, "nothing is lost");
    let recovery = outcome.recovery.unwrap();
    let slowest = outcome.made.slowest();
    println!("slowest {slowest:?}, recovery {recovery:?}");
    assert!(slowest < DEADLINE + MARGIN, "{slowest:?}");
    assert!(recovery < RECOVERY, "{recovery:?}");
}

/// After eight claims without a response, claims do not wait any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_on_a_silent_server_are_rejected_at_once_after_eight() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    redis.stop();
    let mut waited = 0;
    let rejected = loop {
        let (result, took) = timed_claim(&store, fresh_key()).await;
        let error = result.unwrap_err();
        assert!(took < DEADLINE + MARGIN, "{took:?}");
        match error {
            ReplayStoreError::Slow => waited += 1,
            error => break (error, took),
        }
        assert!(waited < 20, "claims still wait");
    };
    println!("{waited} waited, then {rejected:?}");
    assert_eq!(rejected.0, ReplayStoreError::Unavailable);
    assert!(rejected.1 < DEADLINE, "{rejected:?}");
    redis.resume();
    let recovery = until_it_accepts(&store).await;
    assert!(recovery < RECOVERY, "{recovery:?}");
}

/// The server gets the requests that it was sent while it was stopped, and records them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_claim_may_be_recorded() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    redis.stop();
    let key = fresh_key();
    assert_eq!(claim(&store, key).await, Err(ReplayStoreError::Slow));
    redis.resume();
    until_it_accepts(&store).await;
    assert_eq!(claim(&store, key).await, Ok(Claim::Replayed));
}
