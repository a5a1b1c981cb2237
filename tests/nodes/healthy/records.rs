//! What is in the server, and when it counts as another store.

use std::num::NonZeroUsize;
use std::time::Duration;

use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{Claim, Epoch, RedisLinkState, ReplayStoreError, UsedProof};

use super::{claim, claim_in, connected, eventually, key, keys, now, store};
use crate::servers::Redis;

#[tokio::test]
async fn a_record_is_an_integer_that_lasts_through_expires_and_the_margin() {
    let redis = Redis::start();
    let cases = [(0, 30), (90, 30), (121, 0), (90, 600)];
    for (number, (accepted, margin)) in (0..).zip(cases) {
        let builder = store(&redis).with_clock_margin(Duration::from_secs(margin));
        let store = builder.connect().await.unwrap();
        let now = now();
        let proof = UsedProof::new(key(number), now, now.plus(accepted), store.epoch());
        assert_eq!(store.claim(proof).await, Ok(Claim::First));
        let name = keys(&redis).into_iter().find(|name| name != "dpop:~epoch");
        let name = name.expect("a record");
        // "dpop:" and 16 bytes in base64url.
        assert_eq!(name.len(), 5 + 22, "{name}");
        assert_eq!(redis.run(&["OBJECT", "ENCODING", &name]).text(), "int");
        let left = u64::try_from(redis.run(&["PTTL", &name]).integer()).unwrap();
        let longest = (accepted + 1 + margin) * 1000;
        assert!(
            (longest - 1000..=longest).contains(&left),
            "{accepted} + {margin}: {left}"
        );
        redis.run(&["DEL", &name]);
    }
}

#[tokio::test]
async fn a_replay_does_not_lengthen_the_record() {
    let redis = Redis::start();
    let store = connected(&redis).await;
    let now = now();
    let proof = UsedProof::new(key(1), now, now.plus(10), store.epoch());
    assert_eq!(store.claim(proof).await, Ok(Claim::First));
    let again = UsedProof::new(key(1), now, now.plus(1000), store.epoch());
    assert_eq!(store.claim(again).await, Ok(Claim::Replayed));
    let name = keys(&redis).into_iter().find(|name| name != "dpop:~epoch");
    assert!(redis.run(&["PTTL", &name.unwrap()]).integer() <= 41_000);
}

#[tokio::test]
async fn all_handles_and_nodes_have_one_epoch() {
    let redis = Redis::start();
    let (one, other) = tokio::join!(connected(&redis), connected(&redis));
    let several = store(&redis).with_connections(NonZeroUsize::new(3).unwrap());
    let several = several.connect().await.unwrap();
    let stores = [one.clone(), one, other, several];
    for store in &stores {
        assert_eq!(store.epoch(), stores[0].epoch());
        assert_eq!(store.health().epoch, store.epoch());
        assert_ne!(store.epoch(), Epoch::UNKNOWN);
    }
    for number in 0..9 {
        assert_eq!(claim(&stores[3], key(number)).await, Ok(Claim::First));
        assert_eq!(claim(&stores[0], key(number)).await, Ok(Claim::Replayed));
    }
}

#[tokio::test]
async fn a_flushed_server_is_another_store() {
    let redis = Redis::start();
    let nodes = [connected(&redis).await, connected(&redis).await];
    let mut before = nodes[0].epoch();
    // More than once: the marker must not come back with the value that it had.
    for _ in 0..2 {
        assert_eq!(claim(&nodes[0], key(1)).await, Ok(Claim::First));
        assert!(redis.run(&["FLUSHALL"]).is_ok());
        eventually("another epoch", || {
            nodes.iter().all(|node| node.epoch() != before)
        })
        .await;
        eventually("the same on both", || nodes[0].epoch() == nodes[1].epoch()).await;
        for node in &nodes {
            let of_before = claim_in(node, key(1), before).await;
            assert_eq!(of_before, Err(ReplayStoreError::OtherStore));
            assert_eq!(node.health().state, RedisLinkState::Up);
        }
        assert_eq!(redis.keys(), 1, "nothing but the marker");
        before = nodes[0].epoch();
    }
}

#[tokio::test]
async fn nodes_agree_after_a_replica_attaches() {
    let primary = Redis::start();
    let nodes = [connected(&primary).await, connected(&primary).await];
    let before = primary.info("master_replid");
    let _replica = Redis::replica_of(&primary);
    assert_ne!(primary.info("master_replid"), before);
    eventually("one epoch on both, as for a new node", || {
        nodes[0].epoch() == nodes[1].epoch()
    })
    .await;
    let new = connected(&primary).await;
    eventually("the epoch of a new node", || {
        nodes.iter().all(|node| node.epoch() == new.epoch())
    })
    .await;
    assert_eq!(claim(&nodes[0], key(1)).await, Ok(Claim::First));
    assert_eq!(claim(&new, key(1)).await, Ok(Claim::Replayed));
}

#[tokio::test]
async fn waits_for_replicas() {
    let primary = Redis::start();
    let within = Duration::from_millis(50);
    let one = store(&primary).with_replicas(1, within);
    let one = one.connect().await.unwrap();
    let alone = claim(&one, key(1)).await;
    assert_eq!(alone, Err(ReplayStoreError::Slow), "there is no replica");
    assert_eq!(
        claim(&one, key(1)).await,
        Ok(Claim::Replayed),
        "it is recorded"
    );

    let replica = Redis::replica_of(&primary);
    let one = store(&primary).with_replicas(1, Duration::from_secs(4));
    let one = one.connect().await.unwrap();
    eventually("the replica acknowledges", || {
        primary.run(&["WAIT", "1", "10"]).integer() == 1
    })
    .await;
    assert_eq!(claim(&one, key(2)).await, Ok(Claim::First));
    assert_eq!(replica.keys(), primary.keys());
    let two = store(&primary)
        .with_replicas(2, within)
        .connect()
        .await
        .unwrap();
    assert_eq!(claim(&two, key(3)).await, Err(ReplayStoreError::Slow));
}
