//! Sentinels, replicas, and primaries that are replaced.

use std::time::Duration;

use tokio::task::block_in_place;
use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{Claim, ProofError, RedisStartError};

use super::epochs::{Node, with_nonce_of};
use super::load::Load;
use super::scenarios::{self, Replicas};
use super::{
    DEADLINE, MARGIN, RECOVERY, RedisReplayStore, RedisServer, claim, connected, connected_by,
    fresh_key, timed_claim, until, until_it_accepts,
};
use crate::servers::{Redis, Sentinels, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_with_all_records_allows_no_replay() {
    let outcome = scenarios::failed_over(Replicas::Healthy).await;
    outcome.assert_safe();
    let (slowest, recovery) = (outcome.made.slowest(), outcome.recovery.unwrap());
    println!(
        "again {:?}, slowest {slowest:?}, recovery {recovery:?}",
        outcome.again
    );
    assert!(slowest < DEADLINE + MARGIN, "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_without_some_records_allows_no_replay_with_nonces() {
    let outcome = scenarios::failed_over(Replicas::Stalled).await;
    outcome.assert_safe();
    println!(
        "again {:?}, recovery {:?}",
        outcome.again,
        outcome.recovery.unwrap()
    );
    assert!(
        outcome.again.all > 1_000,
        "records were lost: {:?}",
        outcome.again
    );
}

/// The primary changes from A to B and back to A, which misses what B had recorded last; all within the lifetime of a
/// nonce.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_and_back_no_nonce_of_before_is_accepted() {
    let a = Redis::start();
    let b = Redis::replica_of(&a);
    let sentinels = Sentinels::watching(&a, 1, 2_000);
    let store = connected_by(&sentinels).await;
    let node = Node::of(&store);
    let mut attempts = Vec::new();
    let mut epochs = vec![store.epoch()];
    for primary in [&a, &b] {
        let attempt = with_nonce_of(&node).await;
        node.ask(&attempt).await.assert_passed("a first use");
        node.ask(&attempt)
            .await
            .assert_reason("a second", ProofError::Replayed);
        attempts.push(attempt);
        block_in_place(|| sentinels.fail_over_from(primary));
        block_in_place(|| wait_until_demoted(primary));
        let before = *epochs.last().unwrap();
        until("another epoch", async || store.epoch() != before).await;
        until_it_accepts(&store).await;
        assert!(
            !epochs.contains(&store.epoch()),
            "an epoch never comes back"
        );
        epochs.push(store.epoch());
    }
    assert_eq!(a.info("role"), "master");
    for attempt in &attempts {
        node.assert_passes_with_a_fresh_nonce("after failing back", attempt)
            .await;
    }
}

/// A primary that was never demoted still has its records, so its epoch is right to come back.
fn wait_until_demoted(primary: &Redis) {
    wait_for("it is demoted", || {
        (primary.info("role") == "slave" && primary.info("master_link_status") == "up")
            .then_some(())
    });
}

/// `cargo test -p tower-dpop-nodes repeated_failovers -- --ignored --nocapture`: about two minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes two minutes"]
async fn repeated_failovers_under_load_allow_no_replay_with_nonces() {
    let a = Redis::start();
    let b = Redis::replica_of(&a);
    let sentinels = Sentinels::watching(&a, 1, 2_000);
    let store = connected_by(&sentinels).await;
    let mut epochs = vec![store.epoch()];
    for number in 0..10 {
        let from = if number % 2 == 0 { &a } else { &b };
        let load = Load::on(&store);
        tokio::time::sleep(Duration::from_millis(500)).await;
        block_in_place(|| sentinels.fail_over_from(from));
        let before = *epochs.last().unwrap();
        until("another epoch", async || store.epoch() != before).await;
        until_it_accepts(&store).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let made = load.end().await;
        let again = made.claim_again(&store).await;
        println!(
            "{number}: {} accepted, again {again:?}, slowest {:?}",
            made.accepted(),
            made.slowest()
        );
        made.assert_no_honest_claim_is_replayed();
        assert_eq!(again.in_present_epoch, 0);
        block_in_place(|| wait_until_demoted(from));
        let slowest = made.slowest();
        assert!(slowest < DEADLINE + MARGIN, "{slowest:?}");
        assert!(
            !epochs.contains(&store.epoch()),
            "an epoch never comes back"
        );
        epochs.push(store.epoch());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_sentinels_a_connected_store_goes_on_and_a_new_one_does_not_start() {
    let primary = Redis::start();
    let _replica = Redis::replica_of(&primary);
    let mut sentinels = Sentinels::watching(&primary, 1, 2_000);
    let store = connected_by(&sentinels).await;
    sentinels.kill();
    let key = fresh_key();
    assert_eq!(claim(&store, key).await, Ok(Claim::First));
    // Several probes later.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(claim(&store, key).await, Ok(Claim::Replayed));
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));

    let urls = sentinels.urls();
    let server = RedisServer::sentinels(urls.iter().map(String::as_str), Sentinels::NAME).unwrap();
    let error = RedisReplayStore::at(server).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::Unreachable { .. }),
        "{error:?}"
    );
}

/// The nodes are not told, and the connection lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_primary_takes_no_claims() {
    let primary = Redis::start();
    let other = Redis::start();
    let store = connected(&primary.url()).await;
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
    primary.run(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    for _ in 0..20 {
        let (result, took) = timed_claim(&store, fresh_key()).await;
        assert!(result.is_err(), "{result:?}");
        assert!(took < DEADLINE + MARGIN, "{took:?}");
    }
    let before = store.epoch();
    primary.run(&["REPLICAOF", "NO", "ONE"]);
    until_it_accepts(&store).await;
    assert_ne!(
        store.epoch(),
        before,
        "its records are those of the other server"
    );
}

/// The earlier primary takes writes for some more seconds, but its records are lost then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_leaves_a_primary_that_sentinels_do_not_name_any_more() {
    let primary = Redis::start();
    let _replica = Redis::replica_of(&primary);
    let sentinels = Sentinels::watching(&primary, 1, 5_000);
    let store = connected_by(&sentinels).await;
    let before = store.epoch();
    let next = block_in_place(|| sentinels.fail_over_from(&primary));
    let after = until("another epoch", async || store.epoch() != before).await;
    println!(
        "after {after:?}, when the earlier primary was a {}",
        primary.info("role")
    );
    assert!(after < RECOVERY, "{after:?}");
    until_it_accepts(&store).await;
    let known = RedisServer::url(&format!("redis://127.0.0.1:{next}")).unwrap();
    let known = RedisReplayStore::at(known).connect().await.unwrap();
    assert_eq!(known.epoch(), store.epoch());
}

/// With sentinels, the store finds the next primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_leaves_a_demoted_primary() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let sentinels = Sentinels::watching(&primary, 1, 5_000);
    let store = connected_by(&sentinels).await;
    let (key, load) = (fresh_key(), Load::on(&store));
    assert_eq!(claim(&store, key).await, Ok(Claim::First));
    block_in_place(|| {
        sentinels.fail_over_from(&primary);
        wait_for("it is demoted", || {
            (primary.info("role") == "slave").then_some(())
        });
    });
    until_it_accepts(&store).await;
    let made = load.end().await;
    made.assert_no_honest_claim_is_replayed();
    assert_eq!(made.claim_again(&store).await.in_present_epoch, 0);
    let before = replica.keys();
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
    assert_eq!(replica.keys(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_rejected_at_the_start() {
    let primary = Redis::start();
    let replica = Redis::replica_of(&primary);
    let error = super::at(&replica.url()).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::NotAPrimary { .. }),
        "{error:?}"
    );
}
