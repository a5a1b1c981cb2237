//! `RedisReplayStore` when servers and networks fail.

mod load;
mod scenarios;
mod race;
mod lost_messages;
mod restarts;
mod networks;
mod failover;
mod settings;
mod cluster;
mod epochs;
mod expiry;
mod waiting;
mod table;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tower_dpop::proof::{Claim, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::proof::{RedisLinkState, RedisReplayStore, RedisReplayStoreBuilder, RedisServer};
use tower_dpop::{ReplayStore as _, Timestamp};

use crate::servers::Sentinels;

/// The time within which a claim has a result, by default.
const DEADLINE: Duration = Duration::from_millis(250);

/// Other processes may have the processor for this long. What is tested is that a claim has an end; `faults::table` measures.
const MARGIN: Duration = Duration::from_secs(1);

/// The time within which a store that can be reached again accepts proofs, on a busy machine.
const RECOVERY: Duration = Duration::from_secs(5);

fn at(url: &str) -> RedisReplayStoreBuilder {
    RedisReplayStore::at(RedisServer::url(url).unwrap())
}

async fn connected(url: &str) -> RedisReplayStore {
    at(url).connect().await.unwrap()
}

async fn connected_by(sentinels: &Sentinels) -> RedisReplayStore {
    let urls = sentinels.urls();
    let server = RedisServer::sentinels(urls.iter().map(String::as_str), Sentinels::NAME);
    RedisReplayStore::at(server.unwrap())
        .connect()
        .await
        .unwrap()
}

/// A key that no process has claimed.
fn fresh_key() -> ReplayKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<u64> = LazyLock::new(|| {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(time.as_nanos() & u128::from(u64::MAX)).unwrap()
            ^ u64::from(std::process::id())
    });
    key(*PROCESS, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn key(series: u64, number: u64) -> ReplayKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&series.to_be_bytes());
    bytes[8..16].copy_from_slice(&number.to_be_bytes());
    ReplayKey::from_parts(bytes, [1; 16])
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

type Result = std::result::Result<Claim, ReplayStoreError>;

/// The claim of a proof that is accepted for 90 seconds, by a request that comes in now.
async fn claim(store: &RedisReplayStore, key: ReplayKey) -> Result {
    let now = now();
    let proof = UsedProof::new(key, now, now.plus(90), store.epoch());
    store.claim(proof).await
}

async fn timed_claim(store: &RedisReplayStore, key: ReplayKey) -> (Result, Duration) {
    let began = Instant::now();
    (claim(store, key).await, began.elapsed())
}

/// Tries until it is true. `what` is awaited.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition().await {
        let waited = began.elapsed();
        assert!(
            waited < Duration::from_secs(20),
            "not within {waited:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// Waits until a fresh key is accepted. Returns how long that took.
async fn until_it_accepts(store: &RedisReplayStore) -> Duration {
    until("a claim is accepted", async || {
        let result = claim(store, fresh_key()).await;
        assert_ne!(result, Ok(Claim::Replayed), "an honest claim");
        result == Ok(Claim::First)
    })
    .await
}

async fn until_it_is(store: &RedisReplayStore, state: RedisLinkState) -> Duration {
    until("the state of the store", async || {
        store.health().state == state
    })
    .await
}
