//! `MemoryReplayStore`: its limit, its shares, and clocks that are set.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::json;
use tower_dpop::proof::{Claim, ProofError, ReplayKey, ReplayStoreError, UsedProof};
use tower_dpop::resource::Unavailable;
use tower_dpop::{DpopLayer, Freshness, MemoryReplayStore, Rejection, ReplayStore, Timestamp};

use common::{Attempt, AttemptExt as _, NOW, TestClock, block_on, verifier_by};

fn key(number: u64) -> ReplayKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ReplayKey::from_parts(bytes, [0; 16])
}

/// A store so small that all its records are in one list, so that each new record drops the expired ones.
fn one_list() -> MemoryReplayStore {
    MemoryReplayStore::with_limit(30)
}

fn claim(
    store: &MemoryReplayStore,
    number: u64,
    now: u64,
    expires: u64,
) -> Result<Claim, ReplayStoreError> {
    let (now, expires) = (Timestamp::from_unix(now), Timestamp::from_unix(expires));
    let proof = UsedProof::new(key(number), now, expires, store.epoch());
    block_on(store.claim(proof))
}

/// T-17: in each round, all threads claim the same key.
#[test]
fn exactly_one_of_many_threads_gets_the_first_claim() {
    const THREADS: usize = 8;
    const ROUNDS: u64 = 2_000;
    let store = MemoryReplayStore::default();
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
#[test]
fn a_full_store_rejects_instead_of_forgetting() {
    let store = MemoryReplayStore::with_limit(1_000);
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
        assert_eq!(
            claim(&store, number, NOW + 90, NOW + 90),
            Ok(Claim::Replayed),
            "a replay while the store is full"
        );
    }
    let usage = store.usage();
    assert_eq!(
        (usage.live, usage.limit, usage.rejected),
        (1_000, 1_000, 500)
    );
    assert_eq!(
        claim(&store, 1_000, NOW + 91, NOW + 181),
        Ok(Claim::First),
        "the store has room again"
    );
    assert!(store.usage().live < 1_000, "records have been dropped");
}

/// T-18: the client gets 503 with Retry-After, and its proof stays unused.
#[test]
fn a_full_store_is_a_server_error() {
    let clock = TestClock::at(NOW);
    let store = MemoryReplayStore::with_limit(1);
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
#[test]
fn records_are_dropped_after_retention() {
    let store = MemoryReplayStore::default();
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
#[test]
fn a_clock_set_back_allows_no_replay() {
    let store = one_list();
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
#[test]
fn a_corrected_clock_jump_locks_no_client_out() {
    let day = 24 * 60 * 60;
    let store = one_list();
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

/// The clock is a day ahead for longer than a record is kept, under traffic, and is then corrected. Proofs of the
/// true time pass at once, and no proof passes twice.
#[test]
fn a_clock_that_was_ahead_locks_no_client_out() {
    let day = 24 * 60 * 60;
    let store = MemoryReplayStore::with_limit(1_000);
    let at = |number: u64, now: u64| claim(&store, number, now, now + 90);
    for second in 0..300 {
        assert_eq!(at(second, NOW + day + second), Ok(Claim::First), "ahead");
    }
    for second in 0..300 {
        let number = 1_000 + second;
        assert_eq!(
            at(number, NOW + second),
            Ok(Claim::First),
            "{second} s after"
        );
        assert_eq!(
            at(number, NOW + second),
            Ok(Claim::Replayed),
            "{second} s after"
        );
        let of_the_leap = claim(&store, second, NOW + second, NOW + day + second + 90);
        assert_ne!(
            of_the_leap,
            Ok(Claim::First),
            "{second} s after the correction"
        );
    }
}

/// A verifier that accepts proofs for longer finds the record that another one made.
#[test]
fn a_retention_floor_outlives_both_verifiers() {
    let narrow = Freshness::default()
        .with_max_age(Duration::from_secs(30))
        .with_leeway(Duration::ZERO);
    let clock = TestClock::at(NOW);
    let outcome = |store: MemoryReplayStore| {
        clock.set(NOW);
        let layer = |freshness| {
            let verifier = verifier_by(|rules| {
                let rules = rules.with_replay_store(store.clone());
                rules.with_clock(clock.read()).with_freshness(freshness)
            });
            DpopLayer::new(verifier)
        };
        let (narrow, wide) = (layer(narrow), layer(Freshness::default()));
        let attempt = Attempt::good();
        attempt.outcome_by(&narrow).assert_passed("narrow");
        clock.set(NOW + 60);
        // Records are dropped when others are added.
        let other = Attempt::but(|a| a.proof_claims["iat"] = json!(NOW + 60));
        other.outcome_by(&wide).assert_passed("another proof");
        attempt.outcome_by(&wide)
    };
    outcome(one_list()).assert_passed("without a floor, a second time");
    let retention = Freshness::default().retention();
    let kept = one_list().with_retention_floor(retention);
    outcome(kept).assert_reason("with a floor", ProofError::Replayed);
}

/// With a floor, a proof is rejected that expires before its record was dropped.
#[test]
fn a_clock_set_back_allows_no_replay_with_a_retention_floor() {
    let floor = Duration::from_millis(119_001);
    let store = one_list().with_retention_floor(floor);
    assert_eq!(claim(&store, 1, NOW, NOW + 30), Ok(Claim::First));
    assert_eq!(claim(&store, 2, NOW + 120, NOW + 150), Ok(Claim::First));
    assert_eq!(store.usage().live, 2, "kept through the last second of 120");
    assert_eq!(claim(&store, 3, NOW + 121, NOW + 151), Ok(Claim::First));
    assert_eq!(store.usage().live, 2, "dropped");
    for expires in [NOW + 30, NOW + 90, NOW + 120] {
        assert_eq!(
            claim(&store, 1, NOW, expires),
            Err(ReplayStoreError::Unavailable),
            "{expires}"
        );
    }
    assert_eq!(claim(&store, 4, NOW + 60, NOW + 121), Ok(Claim::First));
}

/// The verifier that accepts the proof again has the shorter age, so the proof expires there long before the claim of the
/// first. It expires at the earliest when it is made, and a floor is at least as long as the first accepts it.
#[test]
fn a_clock_set_back_allows_no_replay_by_a_verifier_with_a_shorter_age() {
    let floor = 206;
    let store = one_list().with_retention_floor(Duration::from_secs(floor));
    let made = NOW - floor;
    assert_eq!(claim(&store, 1, NOW, NOW), Ok(Claim::First), "old");
    let dropped = NOW + floor + 1;
    assert_eq!(claim(&store, 2, dropped, dropped + 90), Ok(Claim::First));
    assert_eq!(store.usage().live, 1, "the first was dropped");
    for expires in [made, made + 1, NOW - 80, NOW - 1] {
        let again = claim(&store, 1, made, expires);
        assert_eq!(again, Err(ReplayStoreError::Unavailable), "{expires}");
    }
    assert_eq!(claim(&store, 3, made - 60, made - 1), Ok(Claim::First));
}

/// A clock that was ahead has left a range of dropped records in the future. Towards it, records whose floor would
/// end in the range are kept as long as their proofs are accepted.
#[test]
fn a_clock_that_was_ahead_allows_no_replay_with_a_retention_floor() {
    let store = MemoryReplayStore::with_limit(60).with_retention_floor(Duration::from_secs(120));
    assert_eq!(claim(&store, 1, NOW, NOW + 30), Ok(Claim::First), "ahead");
    assert_eq!(claim(&store, 2, NOW + 121, NOW + 151), Ok(Claim::First));
    assert_eq!(store.usage().live, 1, "the first was dropped");
    let before = NOW - 170;
    // Its floor ends soon, and then records are dropped.
    assert_eq!(
        claim(&store, 3, before - 121, before - 91),
        Ok(Claim::First),
        "corrected"
    );
    let expires = NOW - 130;
    assert_eq!(claim(&store, 4, before - 1, expires), Ok(Claim::First));
    for second in 0..40 {
        let now = before + second;
        let other = claim(&store, 10 + second, now, now);
        assert_eq!(other, Ok(Claim::First), "{second}");
        let again = claim(&store, 4, now, expires);
        assert_eq!(again, Ok(Claim::Replayed), "{second}");
    }
}

/// The longest floor does not become the shortest.
#[test]
fn a_retention_floor_can_be_the_longest_duration() {
    let store = one_list().with_retention_floor(Duration::MAX);
    assert_eq!(claim(&store, 1, NOW, NOW + 30), Ok(Claim::First));
    assert_eq!(claim(&store, 2, NOW + 1_000, NOW + 1_030), Ok(Claim::First));
    assert_eq!(
        claim(&store, 1, NOW + 1_000, NOW + 1_030),
        Ok(Claim::Replayed)
    );
}

/// The verifier that accepts a proof first has the longer leeway, and the other one the longer age.
#[test]
fn a_retention_floor_of_the_longest_age_and_leeway_outlives_all_verifiers() {
    let seconds = Duration::from_secs;
    let far_ahead = Freshness::mcp();
    let old = Freshness::default()
        .with_max_age(seconds(600))
        .with_leeway(Duration::ZERO);
    let longest = old.with_leeway(seconds(300));
    let clock = TestClock::at(NOW);
    let outcome = |floor| {
        clock.set(NOW);
        let store = one_list().with_retention_floor(floor);
        let layer = |freshness| {
            let verifier = verifier_by(|rules| {
                let rules = rules.with_replay_store(store.clone());
                rules.with_clock(clock.read()).with_freshness(freshness)
            });
            DpopLayer::new(verifier)
        };
        let (far_ahead, old) = (layer(far_ahead), layer(old));
        let attempt = Attempt::but(|a| {
            a.proof_claims["iat"] = json!(NOW + 300);
            a.token_claims["exp"] = json!(NOW + 10_000);
        });
        attempt.outcome_by(&far_ahead).assert_passed("far ahead");
        clock.set(NOW + 700);
        // Records are dropped when others are added.
        let other = Attempt::but(|a| {
            a.proof_claims["iat"] = json!(NOW + 700);
            a.token_claims["exp"] = json!(NOW + 10_000);
        });
        other.outcome_by(&old).assert_passed("another proof");
        attempt.outcome_by(&old)
    };
    outcome(old.retention()).assert_passed("with the longest retention, a second time");
    outcome(longest.retention()).assert_reason("with the floor", ProofError::Replayed);
}
