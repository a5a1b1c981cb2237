//! A request or a reply is lost with its connection: the claim is sent again, and is found to be the same.

use tower_dpop::proof::Claim;

use super::{claim, connected, fresh_key};
use crate::proxy::{Fault, Loss, Proxy};
use crate::servers::Redis;

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_request_or_reply_is_lost_is_first() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let store = connected(&proxy.url()).await;
    for (number, loss) in [Loss::Request, Loss::Reply]
        .repeat(5)
        .into_iter()
        .enumerate()
    {
        proxy.lose_next(loss, Fault::None);
        let key = fresh_key();
        let result = claim(&store, key).await;
        assert_eq!(result, Ok(Claim::First), "{number}: {loss:?}");
        proxy.wait_until_lost(number + 1).await;
        assert_eq!(claim(&store, key).await, Ok(Claim::Replayed), "{loss:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_reply_is_lost_is_replayed() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let (store, other) = (connected(&proxy.url()).await, connected(&redis.url()).await);
    for loss in [Loss::Request, Loss::Reply] {
        for (name, first) in [("its own", &store), ("another node's", &other)] {
            let key = fresh_key();
            assert_eq!(claim(first, key).await, Ok(Claim::First));
            proxy.lose_next(loss, Fault::None);
            let result = claim(&store, key).await;
            assert_eq!(result, Ok(Claim::Replayed), "{loss:?}, {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_that_claims_in_between_makes_no_second_first_use() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let (store, other) = (connected(&proxy.url()).await, connected(&redis.url()).await);
    for (number, (loss, ours, others)) in [
        (Loss::Reply, Claim::First, Claim::Replayed),
        (Loss::Request, Claim::Replayed, Claim::First),
    ]
    .repeat(5)
    .into_iter()
    .enumerate()
    {
        proxy.lose_next(loss, Fault::HoldConnections);
        let key = fresh_key();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { claim(&store, key).await }
        });
        proxy.wait_until_lost(number + 1).await;
        assert_eq!(claim(&other, key).await, Ok(others), "{loss:?}");
        proxy.set(Fault::None);
        assert_eq!(waiting.await.unwrap(), Ok(ours), "{loss:?}");
    }
}

/// The record of a lost reply is that of a claim which had an error: nothing else can use it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_failed_after_its_record_is_replayed_next_time() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let (store, other) = (connected(&proxy.url()).await, connected(&redis.url()).await);
    proxy.lose_next(Loss::Reply, Fault::RejectConnections);
    let key = fresh_key();
    assert!(claim(&store, key).await.is_err());
    assert_eq!(claim(&other, key).await, Ok(Claim::Replayed));
    proxy.set(Fault::None);
    super::until_it_accepts(&store).await;
    assert_eq!(claim(&store, key).await, Ok(Claim::Replayed));
}
