//! What is logged and counted.

use common::log::Log;
use common::metrics::{assert_lines, recorded};
use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{Claim, RedisLinkState, RedisReplayStore, ReplayStoreError};
use tower_dpop::telemetry;

use super::rights::{LEAST, with_user};
use super::{claim, claim_in, connected, eventually, key};
use crate::servers::Redis;

fn run<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

#[test]
fn counts_claims_connections_and_epochs() {
    let redis = Redis::start();
    let ((), lines) = recorded(|| {
        run(async {
            let store = connected(&redis).await;
            let before = store.epoch();
            assert_eq!(claim(&store, key(1)).await, Ok(Claim::First));
            assert_eq!(claim(&store, key(2)).await, Ok(Claim::First));
            assert_eq!(claim(&store, key(2)).await, Ok(Claim::Replayed));
            redis.run(&["FLUSHALL"]);
            eventually("another epoch", || store.epoch() != before).await;
            let of_before = claim_in(&store, key(3), before).await;
            assert_eq!(of_before, Err(ReplayStoreError::OtherStore));
            redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
            assert_eq!(claim(&store, key(4)).await, Err(ReplayStoreError::Full));
        });
    });
    let seconds = format!("{}{{store=redis}} [", telemetry::REPLAY_CLAIM_SECONDS);
    let (seconds, lines): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .partition(|line| line.starts_with(&seconds));
    assert_eq!(seconds.len(), 1);
    assert_eq!(
        seconds[0].matches(',').count(),
        4,
        "five claims: {seconds:?}"
    );
    let claims = |result, count| {
        let name = telemetry::REPLAY_CLAIMS;
        format!("{name}{{result={result},store=redis}} {count}")
    };
    let expected = [
        claims("first", 2),
        claims("full", 1),
        claims("other_store", 1),
        claims("replayed", 1),
        format!("{}{{cause=start}} 1", telemetry::REPLAY_CONNECTIONS),
        format!("{}{{}} 2", telemetry::REPLAY_EPOCHS),
        format!("{}{{}} 0", telemetry::REPLAY_EVICTING),
        format!("{}{{}} 1", telemetry::REPLAY_UP),
        format!("{}{{}} 0", telemetry::REPLAY_WAITING),
    ];
    assert_lines("healthy", &lines, expected);
}

#[test]
fn logs_an_outage_and_its_end_once() {
    let mut redis = Redis::start();
    let (log, _guard) = Log::start("trace");
    let claims = run(async {
        let server = with_user(&redis, LEAST);
        let store = RedisReplayStore::at(server).connect().await.unwrap();
        let epoch = store.epoch();
        redis.kill();
        eventually("it is down", || {
            store.health().state == RedisLinkState::Down
        })
        .await;
        for number in 0..20 {
            let rejected = claim(&store, key(number)).await;
            assert_eq!(rejected, Err(ReplayStoreError::Unavailable));
        }
        // Without the user: the credentials are then wrong.
        redis.restart();
        eventually("another failure", || {
            store
                .health()
                .failure
                .is_some_and(|failure| failure.to_string().contains("rejects"))
        })
        .await;
        with_user(&redis, LEAST);
        eventually("it is up", || store.health().state == RedisLinkState::Up).await;
        assert_ne!(store.epoch(), epoch);
        [claim(&store, key(1)).await, claim(&store, key(1)).await]
    });
    assert_eq!(claims, [Ok(Claim::First), Ok(Claim::Replayed)]);
    let text = log.text();
    let of_level = |level: &str| {
        let lines = text.lines().filter(|line| line.contains("tower_dpop"));
        lines.filter(|line| line.contains(level)).count()
    };
    assert_eq!(of_level(" WARN "), 2, "two causes: {text}");
    assert_eq!(
        text.matches("the replay store is reachable again").count(),
        1,
        "{text}"
    );
    assert_eq!(of_level(" INFO "), 2, "with the other epoch: {text}");
    assert!(!text.contains("s3cret"), "{text}");
    // The record of `key(1)`.
    assert!(!text.contains("AQEB"), "{text}");
}
