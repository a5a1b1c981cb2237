//! `RedisReplayStore` on healthy servers: what it requires of them, and what it records.

mod contract;

use tower_dpop::proof::{RedisReplayStore, RedisServer};

use crate::servers::Redis;

async fn connected(redis: &Redis) -> RedisReplayStore {
    let server = RedisServer::url(&redis.url()).unwrap();
    RedisReplayStore::at(server).connect().await.unwrap()
}
