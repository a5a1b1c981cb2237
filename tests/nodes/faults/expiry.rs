//! How long records live.

use std::time::Duration;

use tower_dpop::proof::{Claim, UsedProof};
use tower_dpop::{ReplayStore as _, Timestamp};

use super::{RedisReplayStore, Result, at, connected, fresh_key, now};
use crate::servers::Redis;

async fn claim(
    store: &RedisReplayStore,
    key: tower_dpop::proof::ReplayKey,
    times: [Timestamp; 2],
) -> Result {
    let [now, expires] = times;
    store
        .claim(UsedProof::new(key, now, expires, store.epoch()))
        .await
}

/// The remaining time of the only record in milliseconds.
fn remaining(redis: &Redis) -> i64 {
    let keys = match redis.run(&["KEYS", "*"]) {
        crate::resp::Reply::Array(keys) => keys,
        other => panic!("{other:?}"),
    };
    let times = keys
        .into_iter()
        .map(|key| redis.run(&["PTTL", &key.text()]).integer());
    // The store's own key may have no expiry.
    let times: Vec<i64> = times.filter(|&time| time > 0 && time < 1_000_000).collect();
    assert_eq!(times.len(), 1, "{times:?}");
    times[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_lives_until_its_proof_expires_and_the_margin_has_passed() {
    for (margin, accepted_for) in [(None, 90), (None, 0), (Some(0), 5), (Some(300), 90)] {
        let redis = Redis::start();
        let mut store = at(&redis.url());
        if let Some(margin) = margin {
            store = store.with_clock_margin(Duration::from_secs(margin));
        }
        let store = store.connect().await.unwrap();
        let (time, margin) = (now(), margin.unwrap_or(30));
        let result = claim(&store, fresh_key(), [time, time.plus(accepted_for)]).await;
        assert_eq!(result, Ok(Claim::First));
        let least = i64::try_from(accepted_for + margin).unwrap() * 1000;
        let remaining = remaining(&redis);
        // A proof is accepted through its last second. The command itself takes some time.
        assert!(
            remaining > least + 500,
            "{margin} {accepted_for}: {remaining}"
        );
        assert!(
            remaining <= least + 1000,
            "{margin} {accepted_for}: {remaining}"
        );
    }
}

/// One node's clock is 29 s ahead. Its record of a proof in its last second is there when this second passes on the other
/// node.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_29_seconds_apart_reject_a_replay_to_the_last_second() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    let expires = now().plus(30);
    let ahead = now().plus(29);
    assert_eq!(
        claim(&store, fresh_key(), [ahead, expires]).await,
        Ok(Claim::First)
    );
    // The other node accepts the proof for 30 s, and for the second that then begins.
    let remaining = remaining(&redis);
    assert!(remaining > 31_000, "{remaining}");
}

/// The same with a margin that a test can wait for: all of it passes on the server's clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_node_ahead_outlives_the_last_second_of_another_node() {
    let redis = Redis::start();
    let margin = Duration::from_secs(3);
    let ahead = at(&redis.url())
        .with_clock_margin(margin)
        .connect()
        .await
        .unwrap();
    let exact = connected(&redis.url()).await;
    let (key, time) = (fresh_key(), now());
    let expires = time.plus(3);
    assert_eq!(
        claim(&ahead, key, [time.plus(2), expires]).await,
        Ok(Claim::First)
    );
    let mut asked = 0;
    loop {
        let time = now();
        if time > expires {
            break;
        }
        assert_eq!(
            claim(&exact, key, [time, expires]).await,
            Ok(Claim::Replayed)
        );
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked > 20, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_gone_after_their_time() {
    let redis = Redis::start();
    let store = at(&redis.url()).with_clock_margin(Duration::ZERO);
    let store = store.connect().await.unwrap();
    let before = redis.keys();
    let time = now();
    for _ in 0..100 {
        assert_eq!(
            claim(&store, fresh_key(), [time, time]).await,
            Ok(Claim::First)
        );
    }
    assert_eq!(redis.keys(), before + 100);
    super::until("all are gone", async || redis.keys() == before).await;
}
