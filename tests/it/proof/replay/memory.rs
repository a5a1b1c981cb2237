//! Each test runs on both stores of this crate: `MemoryReplayStore` and `CompactReplayStore` (`compact.rs`).

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use tower_dpop::proof::{
    Claim, CompactReplayStore, MemoryUsage, ReplayKey, ReplayStoreError, UsedProof,
};
use tower_dpop::resource::Unavailable;
use tower_dpop::{DpopLayer, MemoryReplayStore, Rejection, ReplayStore, Timestamp};

use common::{Attempt, AttemptExt as _, NOW, TestClock, block_on, verifier_by};

fn key(number: u64) -> ReplayKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ReplayKey::from_parts(bytes, [0; 16])
}

/// What both stores have in common beside `ReplayStore`.
trait LimitedStore: ReplayStore + Clone + Default {
    fn with_limit(limit: usize) -> Self;
    fn usage(&self) -> MemoryUsage;
}

impl LimitedStore for MemoryReplayStore {
    fn with_limit(limit: usize) -> Self {
        Self::with_limit(limit)
    }

    fn usage(&self) -> MemoryUsage {
        self.usage()
    }
}

impl LimitedStore for CompactReplayStore {
    fn with_limit(limit: usize) -> Self {
        Self::with_limit(limit)
    }

    fn usage(&self) -> MemoryUsage {
        self.usage()
    }
}

macro_rules! test_both_stores {
    ($($test:ident)*) => {
        mod memory {
            $(#[test] fn $test() { super::$test::<tower_dpop::MemoryReplayStore>(); })*
        }

        mod compact {
            $(#[test] fn $test() { super::$test::<tower_dpop::proof::CompactReplayStore>(); })*
        }
    };
}

test_both_stores! {
    exactly_one_of_many_threads_gets_the_first_claim
    a_full_store_rejects_instead_of_forgetting
    a_full_store_is_a_server_error
    records_are_dropped_after_retention
    a_clock_set_back_allows_no_replay
    a_corrected_clock_jump_locks_no_client_out
}

fn claim<S: LimitedStore>(
    store: &S,
    number: u64,
    now: u64,
    expires: u64,
) -> Result<Claim, ReplayStoreError> {
    let (now, expires) = (Timestamp::from_unix(now), Timestamp::from_unix(expires));
    let proof = UsedProof::new(key(number), now, expires, store.epoch());
    block_on(store.claim(proof))
}

/// T-17: in each round, all threads claim the same key.
fn exactly_one_of_many_threads_gets_the_first_claim<S: LimitedStore>() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 2_000;
    let store = S::default();
    let barrier = Barrier::new(THREADS);
    let firsts: Vec<Vec<bool>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    let mut firsts = Vec::new();
                    for round in 0..ROUNDS {
                        barrier.wait();
                        // The time advances, so that records are dropped while others are claimed.
                        let now = Timestamp::from_unix(NOW + round / 100);
                        let proof = UsedProof::new(key(round), now, now, store.epoch());
                        let claim = runtime.block_on(store.claim(proof));
                        firsts.push(claim == Ok(Claim::First));
                    }
                    firsts
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for round in 0..usize::try_from(ROUNDS).unwrap() {
        assert_eq!(
            firsts.iter().filter(|firsts| firsts[round]).count(),
            1,
            "round {round}"
        );
    }
}

/// T-18: a full store rejects new claims, keeps its records, and counts the rejections.
fn a_full_store_rejects_instead_of_forgetting<S: LimitedStore>() {
    let store = S::with_limit(1_000);
    for number in 0..1_000 {
        assert_eq!(claim(&store, number, NOW, NOW + 90), Ok(Claim::First));
    }
    for number in 1_000..1_500 {
        assert_eq!(
            claim(&store, number, NOW + 90, NOW + 180),
            Err(ReplayStoreError::Full),
            "a new key"
        );
    }
    for number in 0..1_000 {
        assert_ne!(
            claim(&store, number, NOW + 90, NOW + 90),
            Ok(Claim::First),
            "a replay while the store is full"
        );
    }
    let usage = store.usage();
    assert_eq!(
        (usage.live, usage.limit, usage.rejected),
        (1_000, 1_000, 1_500)
    );
    assert_eq!(
        claim(&store, 1_000, NOW + 91, NOW + 181),
        Ok(Claim::First),
        "the store has room again"
    );
    assert!(store.usage().live < 1_000, "records have been dropped");
}

/// T-18: the client gets 503 with Retry-After, and its proof stays unused.
fn a_full_store_is_a_server_error<S: LimitedStore>() {
    let clock = TestClock::at(NOW);
    let store = S::with_limit(1);
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(store.clone())
    }));
    Attempt::good()
        .outcome_by(&layer)
        .assert_passed("the first proof");
    let second = Attempt::but(|a| a.proof_claims["iat"] = json!(NOW + 30));
    let outcome = second.outcome_by(&layer);
    outcome.assert_reason(
        "T-18",
        Rejection::Unavailable(Unavailable::Replay(ReplayStoreError::Full)),
    );
    assert_eq!(outcome.retry_after.as_deref(), Some("1"));
    clock.set(NOW + 91);
    second
        .outcome_by(&layer)
        .assert_passed("later, the same proof");
}

/// Each claim drops a few expired records, so no request has to drop all of them.
fn records_are_dropped_after_retention<S: LimitedStore>() {
    let store = S::default();
    for number in 0..10_000 {
        assert_eq!(
            claim(&store, number, NOW, NOW + 90 + number % 5),
            Ok(Claim::First)
        );
    }
    assert_eq!(store.usage().live, 10_000);
    for number in 10_000..10_100 {
        assert_eq!(claim(&store, number, NOW + 90, NOW + 180), Ok(Claim::First));
    }
    assert_eq!(
        store.usage().live,
        10_100,
        "records are kept through their last second"
    );
    for number in 20_000..21_000 {
        assert_eq!(
            claim(&store, number, NOW + 100, NOW + 190),
            Ok(Claim::First)
        );
    }
    assert_eq!(store.usage().live, 1_100, "only unexpired records are left");
}

/// After the clock is set back, a proof whose record may have been dropped is rejected.
fn a_clock_set_back_allows_no_replay<S: LimitedStore>() {
    let store = S::default();
    assert_eq!(claim(&store, 1, NOW, NOW + 90), Ok(Claim::First));
    assert_eq!(claim(&store, 2, NOW + 91, NOW + 181), Ok(Claim::First));
    assert_eq!(store.usage().live, 1, "the first was dropped");
    assert_eq!(
        claim(&store, 1, NOW, NOW + 90),
        Err(ReplayStoreError::Unavailable),
        "the first is not accepted again"
    );
    assert_eq!(
        claim(&store, 3, NOW + 60, NOW + 150),
        Ok(Claim::First),
        "other proofs are accepted"
    );
}

/// The clock jumps ahead and is corrected: only proofs whose record may have been dropped are rejected.
fn a_corrected_clock_jump_locks_no_client_out<S: LimitedStore>() {
    let day = 24 * 60 * 60;
    let store = S::default();
    assert_eq!(claim(&store, 1, NOW, NOW + 90), Ok(Claim::First));
    assert_eq!(
        claim(&store, 2, NOW + day, NOW + day + 90),
        Ok(Claim::First),
        "during the jump"
    );
    assert_eq!(
        claim(&store, 1, NOW + 1, NOW + 90),
        Err(ReplayStoreError::Unavailable),
        "its record was dropped"
    );
    assert_eq!(
        claim(&store, 3, NOW + 1, NOW + 91),
        Ok(Claim::First),
        "new proofs are accepted"
    );
}
