//! Two nodes on one Redis, for an hour, with disturbances of every kind and replays in between.
//!
//! ```sh
//! cargo test --release -p tower-dpop-nodes -- --ignored --nocapture soak
//! python3 tests/nodes/soak/plot.py target/tmp/soak docs/soak.svg
//! ```
//!
//! `SOAK_SECONDS` is the duration (3600 by default), `SOAK_RATE` the number of requests per second (400),
//! `SOAK_RESULTS` the folder of the results. `SOAK_FLAW` puts a fault into the nodes (`node.rs`), to show that the test
//! detects it. A run of 60 s has all kinds of disturbances, but does not compare the memory.

mod declared;
mod counts;
mod issuer;
mod node;
mod load;
mod schedule;
mod samples;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::TestClock;

use self::declared::Cause;
use self::issuer::Issuer;
use self::load::{CLIENTS_PER_TASK, TASKS, Task, World};
use self::node::Node;
use self::samples::Samples;
use self::schedule::Track;
use crate::proxy::Proxy;
use crate::servers::{Folder, Redis};

const AUDIENCE: &str = "https://api.example.com";
const PATH: &str = "/protected";

// Short, so that much expires within an hour, and something within a minute: proofs are accepted for 15 s, and records
// kept for 35 to 41 s.
const MAX_AGE: Duration = Duration::from_secs(10);
const LEEWAY: Duration = Duration::from_secs(5);
const NONCE_PERIOD: Duration = Duration::from_secs(10);
/// How far the clocks of the nodes may be apart.
const MARGIN: Duration = Duration::from_secs(20);

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "an hour: cargo test --release -p tower-dpop-nodes -- --ignored --nocapture soak"]
async fn for_an_hour_no_replay_is_accepted_and_no_good_request_is_lost() {
    let seconds = number("SOAK_SECONDS", 3_600);
    let rate = number("SOAK_RATE", 400);
    let results = env::var_os("SOAK_RESULTS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak"),
        PathBuf::from,
    );
    fs::create_dir_all(&results).unwrap();

    let redis = block_in_place(Redis::start);
    let port = Arc::new(AtomicU16::new(redis.port()));
    let proxy = Proxy::to(redis.port());
    let clock = TestClock::default();
    let issuer = Issuer::start(clock.clone()).await;
    let folder = Folder::new();
    let secrets = folder.path().join("secrets");
    fs::write(&secrets, schedule::secret()).unwrap();
    let node = || Node::start(&proxy.url(), issuer.url(), &secrets);
    let nodes = block_in_place(|| [node(), node()]);
    let keys: Vec<_> = (0..TASKS * CLIENTS_PER_TASK)
        .map(|_| SigningKey::generate().unwrap())
        .collect();
    let world = Arc::new(World::new(nodes, issuer, clock));

    let mut tasks = JoinSet::new();
    for (number, keys) in keys.chunks(CLIENTS_PER_TASK).enumerate() {
        tasks.spawn(Task::new(number, Arc::clone(&world), keys).run(rate));
    }
    // Time for all clients to get nonces.
    sleep(Duration::from_secs(3)).await;
    let pause = if seconds < 600 { 250 } else { 6_000 };
    let track = Track::new(&world, Duration::from_millis(pause));
    let mut tracks = JoinSet::new();
    tracks.spawn(schedule::disturb_redis_and_clocks(
        track.clone(),
        redis,
        proxy,
        Arc::clone(&port),
    ));
    tracks.spawn(schedule::disturb_issuer(track.clone()));
    tracks.spawn(async move { schedule::replace_secrets(track, &secrets).await });

    let every = Duration::from_secs((seconds / 600).max(1));
    let end = async {
        sleep(Duration::from_secs(seconds)).await;
        until_all_happened(&world).await;
        world.ending.store(true, Ordering::Relaxed);
    };
    let samples = tokio::select! {
        (samples, ()) = async { tokio::join!(Samples::take(&world, &port, &results, every), end) } => samples,
        // Tasks and tracks end earlier only by a failed assertion.
        Some(Err(failure)) = tasks.join_next() => fail(failure),
        Some(Err(failure)) = tracks.join_next() => fail(failure),
    };
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|failure| fail(failure));
    }
    tracks.shutdown().await;
    report(&world, &samples, &results, seconds, rate);
}

/// A short run on a busy machine may need more time for all kinds of disturbances.
async fn until_all_happened(world: &World) {
    for _ in 0..300 {
        let counts = world.timeline.counts();
        let mut kinds = counts.iter().map(|&(kind, _)| kind);
        if kinds.all(|kind| world.counts.has_replays_around(kind)) {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("not all happened: {:?}", world.timeline.counts());
}

fn fail(failure: tokio::task::JoinError) -> ! {
    std::panic::resume_unwind(failure.into_panic())
}

fn report(world: &World, samples: &Samples, results: &Path, seconds: u64, rate: u64) {
    let mut rows = "kind,began,ended\n".to_owned();
    for (disturbance, began, ended) in world.timeline.all() {
        let _ = writeln!(rows, "{disturbance:?},{began:.1},{ended:.1}");
    }
    fs::write(results.join("disturbances.csv"), rows).unwrap();
    let counts = world.timeline.counts();
    let mut text = format!(
        "{seconds} s, {rate} requests per second planned, 128 connections\n{}",
        world.counts.text()
    );
    text.push_str("\nrejections that disturbances permitted, in percent of the time:\n");
    let mut unobserved = Vec::new();
    for cause in Cause::ALL {
        let part = world.timeline.permitted_part(cause);
        let _ = writeln!(text, "  {cause:?}: {:.0}", part * 100.0);
        if part > 0.8 {
            unobserved.push(cause);
        }
    }
    text.push_str("\ndisturbances:\n");
    for (disturbance, count) in &counts {
        let _ = writeln!(text, "  {disturbance:?}: {count}");
    }
    text.push('\n');
    let parts = ["node 0", "node 1", "Redis"];
    for (part, name) in parts.into_iter().enumerate() {
        text.push_str(&samples.text(part, name));
    }
    println!("{text}");
    fs::write(results.join("summary.txt"), text).unwrap();
    world.counts.assert_complete();
    // A short run has one disturbance after the other.
    assert!(
        seconds < 600 || unobserved.is_empty(),
        "these were permitted most of the time, so that faults could not be seen: {unobserved:?}"
    );
    for (part, name) in parts.into_iter().enumerate() {
        samples.assert_flat(part, name);
    }
}
