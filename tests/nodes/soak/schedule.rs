//! The disturbances, in three tracks that run at the same time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tokio::task::block_in_place;
use tokio::time::sleep;

use super::LEEWAY;
use super::declared::Disturbance;
use super::load::{World, http};
use super::node::Node;
use crate::proxy::{Cut, Fault, Loss, Proxy};
use crate::servers::Redis;

/// How long an outage lasts.
const OUTAGE: Duration = Duration::from_millis(1_500);

/// Beyond the leeway, and within the margin for the clocks of nodes.
const FAR: i64 = 18;

/// What a track has: the world, its own client for replays, and the time between two disturbances.
#[derive(Clone)]
pub(super) struct Track {
    world: Arc<World>,
    http: reqwest::Client,
    pause: Duration,
}

impl Track {
    pub(super) fn new(world: &Arc<World>, pause: Duration) -> Self {
        Self {
            world: Arc::clone(world),
            http: http(),
            pause,
        }
    }

    /// Disturbs, then sends proofs again that were accepted before, and waits.
    async fn disturb(&self, disturbance: Disturbance, future: impl Future<Output = ()>) {
        let before = Instant::now();
        self.world.timeline.during(disturbance, future).await;
        self.replay(disturbance, before).await;
        sleep(self.pause).await;
    }

    async fn replay(&self, disturbance: Disturbance, before: Instant) {
        let replays = self.world.replay_around(&self.http, disturbance, before);
        replays.await;
    }

    /// Sets the clock of one node. The other one stays right.
    async fn clock(&self, disturbance: Disturbance, node: usize, ahead: i64) {
        let before = Instant::now();
        let node = &self.world.nodes[node];
        self.disturb(disturbance, async {
            node.set_clock(ahead);
            sleep(OUTAGE).await;
            self.replay(disturbance, before).await;
            node.set_clock(0);
        })
        .await;
    }
}

/// Disturbs Redis and the clocks. `port` is that of the current server.
pub(super) async fn disturb_redis_and_clocks(
    track: Track,
    mut redis: Redis,
    proxy: Proxy,
    port: Arc<AtomicU16>,
) {
    let leeway = i64::try_from(LEEWAY.as_secs()).unwrap();
    for round in 0.. {
        let node = round % 2;
        let killed = async {
            redis.kill();
            sleep(OUTAGE).await;
            block_in_place(|| redis.restart());
        };
        track.disturb(Disturbance::RedisKilled, killed).await;
        track.clock(Disturbance::ClockAhead, node, leeway).await;
        let stopped = async {
            redis.stop();
            sleep(OUTAGE).await;
            redis.resume();
        };
        track.disturb(Disturbance::RedisStopped, stopped).await;
        track.clock(Disturbance::ClockFarBehind, node, -FAR).await;
        let cut = async { proxy.cut(Cut::Reset) };
        track.disturb(Disturbance::RedisCut, cut).await;
        let failed_over = async { redis = fail_over(&redis, &proxy, &port).await };
        track
            .disturb(Disturbance::RedisFailedOver, failed_over)
            .await;
        track.clock(Disturbance::ClockBehind, node, -leeway).await;
        let cut = async { proxy.cut(Cut::HalfOpen) };
        track.disturb(Disturbance::RedisHalfOpen, cut).await;
        let partitioned = async {
            proxy.set(Fault::HoldReplies);
            sleep(OUTAGE).await;
            proxy.set(Fault::None);
        };
        track
            .disturb(Disturbance::RedisPartitioned, partitioned)
            .await;
        track.clock(Disturbance::ClockFarAhead, node, FAR).await;
        let lost = async {
            proxy.lose_next(Loss::Reply, Fault::None);
            proxy.wait_until_lost(round + 1).await;
        };
        track.disturb(Disturbance::RedisLostReply, lost).await;
    }
}

/// Makes a replica without the last records the primary, at the address of the earlier one.
async fn fail_over(primary: &Redis, proxy: &Proxy, port: &AtomicU16) -> Redis {
    let link = Proxy::for_replication(primary.port());
    let next = block_in_place(|| Redis::replica_through(link.port()));
    link.set(Fault::HoldBoth);
    sleep(Duration::from_millis(500)).await;
    block_in_place(|| next.run(&["REPLICAOF", "NO", "ONE"]));
    proxy.redirect(next.port());
    port.store(next.port(), Ordering::Relaxed);
    proxy.cut(Cut::Reset);
    next
}

/// Makes the issuer unreachable, and changes its keys.
pub(super) async fn disturb_issuer(track: Track) {
    let issuer = &track.world.issuer;
    let close = || {
        issuer.network.set(Fault::RejectConnections);
        issuer.network.cut(Cut::Reset);
    };
    loop {
        let closed = async {
            close();
            sleep(2 * OUTAGE).await;
            issuer.network.set(Fault::None);
        };
        track.disturb(Disturbance::IssuerCloses, closed).await;
        let added = async {
            let sign = issuer.publish_next();
            // The lifetime of the keys at the nodes, plus a step of their clocks within the leeway.
            sleep(Duration::from_secs(4 + 1) + LEEWAY).await;
            sign();
        };
        track.disturb(Disturbance::KeyAdded, added).await;
        let hung = async {
            issuer.network.set(Fault::HoldReplies);
            sleep(2 * OUTAGE).await;
            issuer.network.set(Fault::None);
        };
        track.disturb(Disturbance::IssuerHangs, hung).await;
        let withdrawn = async { issuer.withdraw() };
        track.disturb(Disturbance::KeyWithdrawn, withdrawn).await;
        let failing = async {
            issuer.set_fails(true);
            sleep(2 * OUTAGE).await;
            issuer.set_fails(false);
        };
        track.disturb(Disturbance::IssuerFails, failing).await;
        let changed = async {
            close();
            issuer.publish_next()();
            sleep(2 * OUTAGE).await;
            issuer.network.set(Fault::None);
        };
        track
            .disturb(Disturbance::KeyChangedInOutage, changed)
            .await;
    }
}

/// Changes the secrets of the nonces, in the steps of the guide and in a single step.
pub(super) async fn replace_secrets(track: Track, file: &Path) {
    let nodes = &track.world.nodes;
    let read = || nodes.iter().for_each(Node::read_secrets);
    let write = |secrets: &[&str]| std::fs::write(file, secrets.join("\n")).unwrap();
    let mut present = std::fs::read_to_string(file).unwrap();
    loop {
        let next = secret();
        let rotated = async {
            write(&[&present, &next]);
            read();
            sleep(OUTAGE).await;
            write(&[&next, &present]);
            read();
            // Two periods of nonces, and the leeway.
            sleep(2 * super::NONCE_PERIOD + LEEWAY).await;
            write(&[&next]);
            read();
        };
        track.disturb(Disturbance::SecretRotated, rotated).await;
        present = secret();
        let replaced = async {
            write(&[&present]);
            read();
        };
        track.disturb(Disturbance::SecretReplaced, replaced).await;
    }
}

pub(super) fn secret() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).unwrap();
    let parts = bytes
        .chunks(16)
        .map(|part| u128::from_be_bytes(part.try_into().unwrap()));
    parts.fold(String::new(), |text, part| text + &format!("{part:032x}"))
}
