//! The contract of replay stores.

use tower_dpop::proof::{RedisLinkState, replay_contract};

use super::connected;
use crate::servers::Redis;

#[tokio::test]
async fn keeps_the_contract() {
    let redis = Redis::start();
    let store = connected(&redis).await;
    let other = connected(&redis).await;
    assert_eq!(store.health().state, RedisLinkState::Up);
    assert_eq!(store.health().eviction, Some(false));
    replay_contract::check(&store).await;
    replay_contract::check_together(&[store.clone(), other]).await;
    replay_contract::check_lasting(&store, tokio::time::sleep).await;
    assert_eq!(store.health().waiting, 0);
}
