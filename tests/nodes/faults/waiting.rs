//! Claims that wait: how many, and what is left of those that are dropped.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_dpop::proof::{Claim, ReplayStoreError};

use super::{
    DEADLINE, MARGIN, RECOVERY, at, claim, connected, fresh_key, timed_claim, until,
    until_it_accepts,
};
use crate::proxy::{Fault, Proxy};
use crate::servers::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_10_001st_waiting_claim_is_rejected_at_once() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    // Debug builds take some time for 10,000 claims.
    let deadline = Duration::from_secs(5);
    let store = at(&proxy.url())
        .with_deadline(deadline)
        .connect()
        .await
        .unwrap();
    proxy.set(Fault::HoldBoth);
    let mut tasks = JoinSet::new();
    for _ in 0..10_000 {
        let store = store.clone();
        tasks.spawn(async move { claim(&store, fresh_key()).await });
    }
    until("10,000 wait", async || store.health().waiting == 10_000).await;
    let (result, took) = timed_claim(&store, fresh_key()).await;
    println!("the 10,001st: {result:?} after {took:?}");
    assert_eq!(result, Err(ReplayStoreError::Unavailable));
    assert!(took < deadline / 2, "{took:?}");
    proxy.set(Fault::None);
    for result in tasks.join_all().await {
        assert_eq!(result, Ok(Claim::First));
    }
    assert_eq!(store.health().waiting, 0);
    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_waiting_claims_can_be_set() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let store = at(&proxy.url())
        .with_max_waiting(3)
        .connect()
        .await
        .unwrap();
    proxy.set(Fault::HoldBoth);
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let store = store.clone();
        tasks.spawn(async move { timed_claim(&store, fresh_key()).await });
    }
    let results = tasks.join_all().await;
    let slow = results
        .iter()
        .filter(|(result, _)| *result == Err(ReplayStoreError::Slow));
    assert_eq!(slow.count(), 3, "{results:?}");
    assert!(
        results.iter().all(|(_, took)| *took < DEADLINE + MARGIN),
        "{results:?}"
    );
}

/// Requests whose clients go away: their claims are dropped at any point.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_claims_leave_nothing_behind() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    let mut tasks = JoinSet::new();
    for task in 0..64_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut results = [0; 3];
            for number in 0..300_u32 {
                let key = fresh_key();
                // From 0 to 630 microseconds: before, while and after the claim is sent.
                let limit = Duration::from_micros(u64::from((number + task) % 64 * 10));
                match tokio::time::timeout(limit, claim(&store, key)).await {
                    Err(_) => results[0] += 1,
                    Ok(Ok(Claim::First)) => results[1] += 1,
                    Ok(_) => results[2] += 1,
                }
                // Polled once, then dropped. On a busy machine, the reply may be there already.
                let mut claim = Box::pin(claim(&store, fresh_key()));
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(result) = claim.as_mut().poll(&mut context) {
                    assert_eq!(result, Ok(Claim::First));
                }
            }
            results
        });
    }
    let results = tasks.join_all().await;
    let sum = |part: usize| results.iter().map(|results| results[part]).sum::<i32>();
    println!("{} dropped, {} first", sum(0), sum(1));
    assert!(sum(0) > 100 && sum(1) > 100, "some of each");
    assert_eq!(sum(2), 0, "no other result");
    assert_eq!(store.health().waiting, 0);
    let (result, took) = timed_claim(&store, fresh_key()).await;
    assert_eq!(result, Ok(Claim::First));
    assert!(took < DEADLINE, "{took:?}");
}

/// The same while the server is silent: dropped claims are not counted as waiting, and do not delay recovery.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_are_dropped_in_an_outage_leave_nothing_behind() {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    redis.stop();
    for _ in 0..5 {
        let mut tasks = JoinSet::new();
        for _ in 0..200 {
            let store = store.clone();
            tasks.spawn(async move {
                let limit = Duration::from_millis(20);
                tokio::time::timeout(limit, claim(&store, fresh_key()))
                    .await
                    .is_ok()
            });
        }
        tasks.join_all().await;
        assert_eq!(store.health().waiting, 0);
    }
    redis.resume();
    let recovery = until_it_accepts(&store).await;
    assert!(recovery < RECOVERY, "{recovery:?}");
}
