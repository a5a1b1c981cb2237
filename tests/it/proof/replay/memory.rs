//! `MemoryReplayStore`, and `CompactReplayStore` (`compact.rs`), which promises the same.

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use tower_dpop::proof::{
    Claim, CompactReplayStore, MemoryUsage, ReplayKey, ReplayStoreError, replay_contract,
};
use tower_dpop::resource::Unavailable;
use tower_dpop::{DpopLayer, MemoryReplayStore, Rejection, ReplayStore, Timestamp};

use common::{Attempt, AttemptExt as _, NOW, TestClock, block_on, verifier_by};

fn key(number: u64) -> ReplayKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ReplayKey::from_bytes(bytes)
}

/// The two memories of this crate, which promise the same.
trait Memory: ReplayStore + Clone + Default {
    fn with_limit(limit: usize) -> Self;
    fn usage(&self) -> MemoryUsage;
}

impl Memory for MemoryReplayStore {
    fn with_limit(limit: usize) -> Self {
        Self::with_limit(limit)
    }

    fn usage(&self) -> MemoryUsage {
        self.usage()
    }
}

impl Memory for CompactReplayStore {
    fn with_limit(limit: usize) -> Self {
        Self::with_limit(limit)
    }

    fn usage(&self) -> MemoryUsage {
        self.usage()
    }
}

macro_rules! test_of_both {
    ($($test:ident)*) => {
        mod the_default {
            $(#[test] fn $test() { super::$test::<tower_dpop::MemoryReplayStore>(); })*
        }

        mod the_compact_one {
            $(#[test] fn $test() { super::$test::<tower_dpop::proof::CompactReplayStore>(); })*
        }
    };
}

test_of_both! {
    the_memory_keeps_the_contract_of_stores
    exactly_one_of_many_threads_wins
    a_full_memory_rejects_instead_of_forgetting
    a_full_memory_is_a_fault_of_ours
    memory_comes_back_after_retention
    a_clock_that_steps_back_brings_no_replay
    a_clock_that_leapt_ahead_and_was_put_right_locks_nobody_out
}

fn claim<M: Memory>(
    store: &M,
    number: u64,
    now: u64,
    expires: u64,
) -> Result<Claim, ReplayStoreError> {
    block_on(store.claim(
        key(number),
        Timestamp::from_unix(now),
        Timestamp::from_unix(expires),
    ))
}

fn the_memory_keeps_the_contract_of_stores<M: Memory>() {
    block_on(replay_contract::check(&M::default()));
}

/// T-17: many threads, one key, many rounds.
fn exactly_one_of_many_threads_wins<M: Memory>() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 2_000;
    let store = M::default();
    let barrier = Barrier::new(THREADS);
    let wins: Vec<Vec<bool>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    let mut wins = Vec::new();
                    for round in 0..ROUNDS {
                        barrier.wait();
                        // The seconds go by, so that records are dropped while others are claimed.
                        let now = Timestamp::from_unix(NOW + round / 100);
                        let claim = runtime.block_on(store.claim(key(round), now, now));
                        wins.push(claim == Ok(Claim::First));
                    }
                    wins
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
            wins.iter().filter(|wins| wins[round]).count(),
            1,
            "round {round}"
        );
    }
}

/// T-18: a full memory rejects; it forgets nothing, and says how it is.
fn a_full_memory_rejects_instead_of_forgetting<M: Memory>() {
    let store = M::with_limit(1_000);
    for number in 0..1_000 {
        assert_eq!(claim(&store, number, NOW, NOW + 90), Ok(Claim::First));
    }
    for number in 1_000..1_500 {
        assert_eq!(
            claim(&store, number, NOW + 90, NOW + 180),
            Err(ReplayStoreError::Full),
            "one more"
        );
    }
    for number in 0..1_000 {
        assert_ne!(
            claim(&store, number, NOW + 90, NOW + 90),
            Ok(Claim::First),
            "a replay under pressure"
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
        "there is room again"
    );
    assert!(store.usage().live < 1_000, "records have been dropped");
}

/// T-18: what the client of a full memory is told, and that its proof is not spent.
fn a_full_memory_is_a_fault_of_ours<M: Memory>() {
    let clock = TestClock::at(NOW);
    let store = M::with_limit(1);
    let layer = DpopLayer::new(verifier_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(store.clone())
    }));
    Attempt::good()
        .outcome_by(&layer)
        .assert_passed("the first");
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
        .assert_passed("later, with the same proof");
}

/// Records leave when their time has passed: some with every claim, so no request pays for all.
fn memory_comes_back_after_retention<M: Memory>() {
    let store = M::default();
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
        "in its last second a record is still there"
    );
    for number in 20_000..21_000 {
        assert_eq!(
            claim(&store, number, NOW + 100, NOW + 190),
            Ok(Claim::First)
        );
    }
    assert_eq!(
        store.usage().live,
        1_100,
        "only those of proofs that are still accepted"
    );
}

/// What has been dropped cannot be vouched for when the clock goes back.
fn a_clock_that_steps_back_brings_no_replay<M: Memory>() {
    let store = M::default();
    assert_eq!(claim(&store, 1, NOW, NOW + 90), Ok(Claim::First));
    assert_eq!(claim(&store, 2, NOW + 91, NOW + 181), Ok(Claim::First));
    assert_eq!(store.usage().live, 1, "the first was dropped");
    assert_eq!(
        claim(&store, 1, NOW, NOW + 90),
        Err(ReplayStoreError::Unavailable),
        "and does not pass again"
    );
    assert_eq!(
        claim(&store, 3, NOW + 60, NOW + 150),
        Ok(Claim::First),
        "others do"
    );
}

/// A leap ahead that is put right again rejects what may have been forgotten, and nothing else.
fn a_clock_that_leapt_ahead_and_was_put_right_locks_nobody_out<M: Memory>() {
    let day = 24 * 60 * 60;
    let store = M::default();
    assert_eq!(claim(&store, 1, NOW, NOW + 90), Ok(Claim::First));
    assert_eq!(
        claim(&store, 2, NOW + day, NOW + day + 90),
        Ok(Claim::First),
        "the leap"
    );
    assert_eq!(
        claim(&store, 1, NOW + 1, NOW + 90),
        Err(ReplayStoreError::Unavailable),
        "the record of this one was dropped"
    );
    assert_eq!(
        claim(&store, 3, NOW + 1, NOW + 91),
        Ok(Claim::First),
        "clients are served as before"
    );
}
