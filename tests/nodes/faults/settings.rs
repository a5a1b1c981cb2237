//! Settings of the server with which records are lost, and commands that remove them.

use std::time::Duration;

use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{Claim, ProofError, RedisStartError, ReplayStoreError};

use super::epochs::{Node, with_nonce_of};
use super::{RECOVERY, at, claim, connected, fresh_key, scenarios, until, until_it_accepts};
use crate::servers::Redis;

pub(super) const EVICTING: [&str; 7] = [
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

/// D12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_without_eviction_is_a_full_store() {
    let outcome = scenarios::full("noeviction", Duration::from_secs(3)).await;
    outcome.assert_safe();
    assert_eq!(outcome.again.all, 0, "nothing is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_accepts_again_when_there_is_room() {
    let redis = Redis::with(&["--maxmemory", "1mb"]);
    let store = connected(&redis.url()).await;
    until("it is full", async || {
        claim(&store, fresh_key()).await == Err(ReplayStoreError::Full)
    })
    .await;
    redis.run(&["CONFIG", "SET", "maxmemory", "50mb"]);
    until_it_accepts(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_records_is_rejected_at_the_start() {
    for evicting in EVICTING {
        let redis = Redis::with(&["--maxmemory", "10mb", "--maxmemory-policy", evicting]);
        let error = at(&redis.url()).connect().await.unwrap_err();
        match error {
            RedisStartError::EvictsRecords { policy, .. } => assert_eq!(policy, evicting),
            other => panic!("{evicting}: {other:?}"),
        }
        let store = at(&redis.url())
            .with_insecure_eviction()
            .connect()
            .await
            .unwrap();
        assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
        assert_eq!(store.health().eviction, Some(true));
    }
    // Without a limit of memory nothing is evicted.
    let redis = Redis::with(&["--maxmemory-policy", "allkeys-lru"]);
    let store = connected(&redis.url()).await;
    assert_eq!(store.health().eviction, Some(false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_evicts_records_is_noticed_at_run_time() {
    let redis = Redis::with(&["--maxmemory", "10mb"]);
    let store = connected(&redis.url()).await;
    for policy in EVICTING {
        redis.run(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let after = until("claims are rejected", async || {
            claim(&store, fresh_key()).await == Err(ReplayStoreError::Unavailable)
        })
        .await;
        println!("{policy}: noticed after {after:?}");
        assert!(after < RECOVERY, "{policy}: {after:?}");
        assert_eq!(store.health().eviction, Some(true), "{policy}");
        redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        let after = until_it_accepts(&store).await;
        println!("{policy}: accepted again after {after:?}");
        assert_eq!(store.health().eviction, Some(false), "{policy}");
    }
}

/// Records were lost meanwhile, so nonces of before are not accepted, as after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_eviction_no_nonce_of_before_is_accepted() {
    let redis = Redis::with(&["--maxmemory", "3mb"]);
    let store = connected(&redis.url()).await;
    let node = Node::of(&store);
    let attempt = with_nonce_of(&node).await;
    node.ask(&attempt).await.assert_passed("a first use");
    node.ask(&attempt)
        .await
        .assert_reason("a second", ProofError::Replayed);
    // These policies leave the store's own key, which has no expiry.
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    until("the record is evicted", async || redis.keys() == 1).await;
    redis.run(&["CONFIG", "SET", "maxmemory", "3mb"]);
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    // The time of two probes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    until_it_accepts(&store).await;
    node.assert_passes_with_a_fresh_nonce("evicted", &attempt)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_flushall_there_is_another_epoch() {
    let redis = Redis::start();
    let (store, other) = (connected(&redis.url()).await, connected(&redis.url()).await);
    let node = Node::of(&store);
    let attempt = with_nonce_of(&node).await;
    node.ask(&attempt).await.assert_passed("a first use");
    for command in ["FLUSHALL", "FLUSHDB"] {
        let before = store.epoch();
        assert_eq!(other.epoch(), before);
        redis.run(&[command]);
        let noticed = async || store.epoch() != before && store.epoch() == other.epoch();
        let after = until("both have another epoch", noticed).await;
        println!("{command}: another epoch after {after:?}");
        assert!(after < RECOVERY, "{after:?}");
    }
    node.assert_passes_with_a_fresh_nonce("flushed", &attempt)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_is_rejected_at_the_start() {
    let redis = Redis::with(&["--cluster-enabled", "yes"]);
    redis.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster is ready", async || {
        redis
            .run(&["CLUSTER", "INFO"])
            .text()
            .contains("cluster_state:ok")
    })
    .await;
    let error = at(&redis.url()).connect().await.unwrap_err();
    assert!(
        matches!(error, RedisStartError::ClusterMode { .. }),
        "{error:?}"
    );
}
