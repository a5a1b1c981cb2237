//! What faults and the wire cost, as tables. These are measurements, so they are run alone:
//!
//! ```sh
//! cargo test --release -p tower-dpop-nodes faults::table -- --ignored --nocapture --test-threads 1
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tower_dpop::proof::Claim;

use super::scenarios::{self, Outcome, Replicas};
use super::settings::EVICTING;
use super::{claim, connected, fresh_key};
use crate::proxy::Fault;
use crate::servers::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it prints a table"]
async fn faults() {
    let second = Duration::from_secs(1);
    println!(
        "| fault, under 10,000 claims per second | accepted | accepted again, all | accepted again in the present epoch | slowest claim | recovery |"
    );
    println!("|---|---|---|---|---|---|");
    row(
        "kill -9, back empty after 2 s",
        &scenarios::killed(2 * second).await,
    );
    row(
        "restart without persistence",
        &scenarios::killed(Duration::ZERO).await,
    );
    row("SIGSTOP for 3 s", &scenarios::stopped(3 * second).await);
    let held = scenarios::held(Fault::HoldBoth, 3 * second).await;
    row("black hole for 3 s", &held);
    row(
        "a lost reply, three times",
        &scenarios::lost_replies().await,
    );
    let healthy = scenarios::failed_over(Replicas::Healthy).await;
    row("sentinel failover, replicas up to date", &healthy);
    let stalled = scenarios::failed_over(Replicas::Stalled).await;
    row("sentinel failover, replication stalled for 1 s", &stalled);
    row(
        "memory full, noeviction",
        &scenarios::full("noeviction", 4 * second).await,
    );
    for policy in EVICTING {
        let outcome = scenarios::full(policy, 4 * second).await;
        row(
            &format!("memory full, {policy} (`with_insecure_eviction`)"),
            &outcome,
        );
    }
}

fn row(name: &str, outcome: &Outcome) {
    println!(
        "| {name} | {} | {} | {} | {:.1?} | {:.1?} |",
        outcome.made.accepted(),
        outcome.again.all,
        outcome.again.in_present_epoch,
        outcome.made.slowest(),
        outcome.recovery.unwrap_or_default(),
    );
    outcome.made.assert_no_honest_claim_is_replayed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it prints a table"]
async fn claims_per_second() {
    println!("| in flight | claims per second | p50 | p99 |");
    println!("|---|---|---|---|");
    for in_flight in [1, 32, 256] {
        let redis = Redis::start();
        let store = connected(&redis.url()).await;
        let (ending, first) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let mut tasks = JoinSet::new();
        let began = Instant::now();
        for _ in 0..in_flight {
            let (store, ending, first) = (store.clone(), Arc::clone(&ending), Arc::clone(&first));
            tasks.spawn(async move {
                let mut times = Vec::new();
                while !ending.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    assert_eq!(claim(&store, fresh_key()).await, Ok(Claim::First));
                    times.push(began.elapsed());
                    first.fetch_add(1, Ordering::Relaxed);
                }
                times
            });
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let rate = first.load(Ordering::Relaxed) * 1_000
            / usize::try_from(began.elapsed().as_millis()).unwrap();
        ending.store(true, Ordering::Relaxed);
        let mut times: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        times.sort_unstable();
        let percentile = |percent: usize| times[times.len() * percent / 100];
        println!(
            "| {in_flight} | {rate} | {:.0?} | {:.0?} |",
            percentile(50),
            percentile(99)
        );
    }
}
