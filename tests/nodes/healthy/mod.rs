//! `RedisReplayStore` on healthy servers: what it requires of them, and what it records.

mod contract;
mod document;
mod records;
mod reports;
mod settings;
mod rights;
mod tls;

use std::time::{Duration, Instant, SystemTime};

use tower_dpop::proof::{
    Claim, Epoch, RedisReplayStore, RedisReplayStoreBuilder, RedisServer, ReplayKey,
    ReplayStoreError, UsedProof,
};
use tower_dpop::{ReplayStore as _, Timestamp};

use crate::resp::Reply;
use crate::servers::Redis;

fn at(redis: &Redis) -> RedisServer {
    RedisServer::url(&redis.url()).unwrap()
}

/// Other processes may have the processor for longer than a claim may take by default.
fn store(redis: &Redis) -> RedisReplayStoreBuilder {
    RedisReplayStore::at(at(redis)).with_deadline(Duration::from_secs(5))
}

async fn connected(redis: &Redis) -> RedisReplayStore {
    store(redis).connect().await.unwrap()
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Another one with each number.
fn key(number: u8) -> ReplayKey {
    ReplayKey::from_parts([number; 32], [1; 16])
}

/// The claim of a proof that is accepted for a minute and a half.
async fn claim(store: &RedisReplayStore, key: ReplayKey) -> Result<Claim, ReplayStoreError> {
    claim_in(store, key, store.epoch()).await
}

async fn claim_in(
    store: &RedisReplayStore,
    key: ReplayKey,
    epoch: Epoch,
) -> Result<Claim, ReplayStoreError> {
    let now = now();
    store
        .claim(UsedProof::new(key, now, now.plus(90), epoch))
        .await
}

/// Looks again and again until it is so.
#[track_caller]
fn eventually(what: &'static str, is_so: impl Fn() -> bool) -> impl Future<Output = ()> {
    let limit = Instant::now() + Duration::from_secs(10);
    let caller = std::panic::Location::caller();
    async move {
        while !is_so() {
            assert!(Instant::now() < limit, "not within 10 s: {what}, {caller}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The keys of a server.
fn keys(redis: &Redis) -> Vec<String> {
    match redis.run(&["KEYS", "*"]) {
        Reply::Array(keys) => keys.into_iter().map(Reply::text).collect(),
        other => panic!("{other:?}"),
    }
}
