//! Faults under a load of 10,000 claims per second, and what they cost. Tests assert about them, `table` prints them.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tower_dpop::proof::ReplayStoreError;

use super::load::{Again, AllMade, Load};
use super::{RedisReplayStore, at, connected, connected_by, until_it_accepts};
use crate::proxy::{Fault, Loss, Proxy};
use crate::servers::{Redis, Sentinels, wait_for};

pub(super) struct Outcome {
    pub(super) made: AllMade,
    pub(super) again: Again,
    /// From the end of the fault to the first accepted claim; for a failover, from the primary's death.
    pub(super) recovery: Option<Duration>,
    /// From the beginning of the fault to its end.
    pub(super) fault: (Instant, Instant),
}

/// Time with the load and without a fault, before and after it.
const QUIET: Duration = Duration::from_millis(700);

impl Outcome {
    /// Puts the load on the store while `fault` happens.
    async fn of(store: &RedisReplayStore, fault: impl AsyncFnOnce()) -> Self {
        let load = Load::on(store);
        sleep(QUIET).await;
        let began = Instant::now();
        fault().await;
        let ended = Instant::now();
        until_it_accepts(store).await;
        sleep(QUIET).await;
        Self::after(store, load, (began, ended)).await
    }

    async fn after(store: &RedisReplayStore, load: Load, fault: (Instant, Instant)) -> Self {
        let made = load.end().await;
        Self {
            again: made.claim_again(store).await,
            recovery: made.accepts_after(fault.1),
            made,
            fault,
        }
    }

    /// What holds after each fault.
    #[track_caller]
    pub(super) fn assert_safe(&self) {
        self.made.assert_no_honest_claim_is_replayed();
        assert_eq!(self.again.in_present_epoch, 0, "{:?}", self.again);
        assert!(self.made.accepted() > 1_000, "there was a load");
    }
}

/// `kill -9`, and back without data after some time.
pub(super) async fn killed(down: Duration) -> Outcome {
    let mut redis = Redis::start();
    let store = connected(&redis.url()).await;
    Outcome::of(&store, async || {
        redis.kill();
        sleep(down).await;
        redis.restart();
    })
    .await
}

/// SIGSTOP, and SIGCONT after some time.
pub(super) async fn stopped(silent: Duration) -> Outcome {
    let redis = Redis::start();
    let store = connected(&redis.url()).await;
    Outcome::of(&store, async || {
        redis.stop();
        sleep(silent).await;
        redis.resume();
    })
    .await
}

/// A network that holds one or both directions for some time.
pub(super) async fn held(fault: Fault, silent: Duration) -> Outcome {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let store = connected(&proxy.url()).await;
    Outcome::of(&store, async || {
        proxy.set(fault);
        sleep(silent).await;
        proxy.set(Fault::None);
    })
    .await
}

/// Three replies are lost, with the connections that they come on.
pub(super) async fn lost_replies() -> Outcome {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let store = connected(&proxy.url()).await;
    Outcome::of(&store, async || {
        for lost in 1..=3 {
            proxy.lose_next(Loss::Reply, Fault::None);
            proxy.wait_until_lost(lost).await;
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await
}

/// How up to date the replicas are when their primary dies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replicas {
    Healthy,
    /// They get nothing in the last second.
    Stalled,
}

/// A primary with two replicas and three sentinels dies.
pub(super) async fn failed_over(health: Replicas) -> Outcome {
    let mut primary = Redis::start();
    let link = Proxy::for_replication(primary.port());
    let replicas = [
        Redis::replica_through(link.port()),
        Redis::replica_through(link.port()),
    ];
    // Longer than the test, so that the sentinels leave the replicas behind the proxy.
    let sentinels = Sentinels::watching(&primary, replicas.len(), 20_000);
    let store = connected_by(&sentinels).await;
    let load = Load::on(&store);
    sleep(QUIET).await;
    if health == Replicas::Stalled {
        link.set(Fault::HoldBoth);
        sleep(Duration::from_secs(1)).await;
    }
    let killed = Instant::now();
    primary.kill();
    // What was held never arrives.
    drop(link);
    let next = tokio::task::block_in_place(|| sentinels.wait_for_failover_from(&primary));
    let next = replicas
        .iter()
        .find(|replica| replica.port() == next)
        .unwrap();
    tokio::task::block_in_place(|| {
        wait_for("a new primary", || {
            (next.info("role") == "master").then_some(())
        });
    });
    until_it_accepts(&store).await;
    sleep(QUIET).await;
    Outcome::after(&store, load, (killed, killed)).await
}

/// A server that reaches its limit of memory.
pub(super) async fn full(policy: &str, load_for: Duration) -> Outcome {
    let redis = Redis::with(&["--maxmemory", "3mb", "--maxmemory-policy", policy]);
    let store = at(&redis.url())
        .with_insecure_eviction()
        .connect()
        .await
        .unwrap();
    let began = Instant::now();
    let load = Load::on(&store);
    sleep(load_for).await;
    let outcome = Outcome::after(&store, load, (began, Instant::now())).await;
    if policy == "noeviction" {
        let full = outcome.made.count(Err(ReplayStoreError::Full));
        assert!(full > 0, "the server is full");
    } else {
        assert_ne!(redis.info("evicted_keys"), "0", "the server is full");
    }
    outcome
}
