//! The replay memory: one winner, bounded by rejecting, empty again afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use serde_json::json;
use tower_dpop::proof::{
    Claim, CompactReplayStore, MemoryUsage, ProofError, ReplayKey, ReplayStoreError, UrlMismatch,
    replay_contract,
};
use tower_dpop::resource::Unavailable;
use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
use tower_dpop::{
    Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, ProofRules, Rejection, ReplayStore,
    Timestamp, Verifier,
};

use common::{
    AUDIENCE, Attempt, AttemptExt as _, Key, KeyExt as _, NOW, TestClock, block_on, jwt_verifier,
    verifier, verifier_by,
};

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

/// a replay whose access token takes long to verify, so long that a store has dropped the
/// record of the first use by the time it is asked.
#[test]
fn a_replay_does_not_outwait_its_record() {
    /// Keeps a record to the letter of the contract, by a clock of its own.
    struct ToTheLetter(TestClock, Mutex<HashMap<ReplayKey, Timestamp>>);

    impl ReplayStore for ToTheLetter {
        async fn claim(
            &self,
            key: ReplayKey,
            _now: Timestamp,
            expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            let now = Timestamp::from(self.0.read()());
            let mut records = self.1.lock().unwrap();
            records.retain(|_, expires| now <= *expires);
            Ok(match records.insert(key, expires) {
                None => Claim::First,
                Some(_) => Claim::Replayed,
            })
        }
    }

    /// Verifying takes as long as the test says.
    struct Slow(JwtVerifier<KeySet>, TestClock, Arc<AtomicU64>);

    impl AccessTokenVerifier for Slow {
        type Claims = Claims;

        async fn verify(
            &self,
            token: PresentedToken<'_>,
            now: Timestamp,
        ) -> Result<AccessToken<Claims>, TokenError> {
            self.1.set(now.as_unix() + self.2.load(Ordering::SeqCst));
            self.0.verify(token, now).await
        }

        fn issuers(&self) -> Vec<&str> {
            Vec::new()
        }
    }

    let clock = TestClock::at(NOW);
    let delay = Arc::new(AtomicU64::new(0));
    let tokens = Slow(jwt_verifier(), clock.clone(), Arc::clone(&delay));
    let verifier = Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap())
            .with_clock(clock.read())
            .with_replay_store(ToTheLetter(clock.clone(), Mutex::default())),
        tokens,
    );
    let layer = DpopLayer::new(verifier);

    let stolen = Attempt::good();
    stolen.outcome_by(&layer).assert_passed("the first use");
    clock.set(NOW + 90);
    stolen
        .outcome_by(&layer)
        .assert_reason("in its last second", ProofError::Replayed);
    clock.set(NOW + 90);
    delay.store(2, Ordering::SeqCst);
    stolen
        .outcome_by(&layer)
        .assert_reason("and outwaiting it", ProofError::Expired);
    delay.store(2, Ordering::SeqCst);
    clock.set(NOW + 10);
    Attempt::good()
        .outcome_by(&layer)
        .assert_passed("slow, but in time");
}

/// T-14, R-11.1.3: nobody can burn the identifiers of another client's key.
#[test]
fn the_same_jti_under_another_key_is_another_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    let mut other = Attempt::with_key(Key::es256());
    other.proof_claims["jti"] = one.proof_claims["jti"].clone();
    one.outcome_by(&layer).assert_passed("one");
    other.outcome_by(&layer).assert_passed("T-14: the other");
    one.outcome_by(&layer)
        .assert_reason("one again", ProofError::Replayed);
}

/// T-14: stricter than the standard's "in the context of the target URI".
#[test]
fn the_same_jti_at_another_url_is_a_replay() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("one");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.uri = "/accounts".into();
        a.proof_claims["htu"] = json!("https://api.example.com/accounts");
    });
    other
        .outcome_by(&layer)
        .assert_reason("T-14", ProofError::Replayed);
}

/// T-17: a request that is rejected for another reason leaves the proof unspent.
#[test]
fn only_a_request_that_would_pass_spends_its_jti() {
    type Change = fn(&mut Attempt);
    let rows: Vec<(&str, Change)> = vec![
        ("another method", |a| a.method = http::Method::DELETE),
        ("another path", |a| a.uri = "/accounts".into()),
        ("an expired token", |a| {
            a.token_claims["exp"] = json!(NOW - 60);
        }),
        ("a forged token", |a| a.token_key = Key::es256()),
        ("a token bound to another key", |a| {
            a.token_claims["cnf"]["jkt"] = json!(Key::es256().jkt());
        }),
        ("the Bearer scheme", |a| {
            a.authorization = Some(vec![format!("Bearer {}", a.token()).parse().unwrap()]);
        }),
        ("a forged signature", |a| a.key = Key::es256()),
        ("stale", |a| a.proof_claims["iat"] = json!(NOW - 3600)),
    ];
    for (name, change) in rows {
        let layer = DpopLayer::new(verifier());
        let good = Attempt::good();
        let mut bad = Attempt::good();
        bad.proof_claims["jti"] = good.proof_claims["jti"].clone();
        change(&mut bad);
        assert_ne!(bad.outcome_by(&layer).status, 200, "T-17: {name}");
        good.outcome_by(&layer)
            .assert_passed(&format!("T-17: after {name}"));
    }
}

/// T-13, R-11.1.4
#[test]
fn a_jti_has_1_to_512_bytes() {
    for (name, jti, passes) in [
        ("T-13: empty", String::new(), false),
        ("T-13: one byte", "x".into(), true),
        ("T-13: 512 bytes", "x".repeat(512), true),
        ("T-13: 513 bytes", "x".repeat(513), false),
        ("T-13: 512 bytes in 256 characters", "ä".repeat(256), true),
        ("T-13: 514 bytes in 257 characters", "ä".repeat(257), false),
    ] {
        let outcome = Attempt::but(|a| a.proof_claims["jti"] = json!(jti)).outcome();
        let rejected = (!passes).then_some(Rejection::Proof(ProofError::JtiLength));
        assert_eq!(outcome.rejection, rejected, "{name}");
    }
    for jti in [json!(null), json!(1), json!(["x"]), json!({}), json!(true)] {
        let outcome = Attempt::but(|a| a.proof_claims["jti"] = jti.clone()).outcome();
        outcome.assert_reason(&jti.to_string(), ProofError::PayloadNotJson);
    }
}

/// under contention, through the layer: the same request from many threads passes once.
#[test]
fn the_same_request_from_many_threads_passes_once() {
    let layer = DpopLayer::new(verifier());
    for _ in 0..20 {
        let attempt = Attempt::good();
        let passed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| usize::from(attempt.outcome_by(&layer).status == 200)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 1);
    }
}

/// The path is compared before anything is spent, whichever way it is spelled.
#[test]
fn another_spelling_of_the_url_is_the_same_proof() {
    let layer = DpopLayer::new(verifier());
    let one = Attempt::good();
    one.outcome_by(&layer).assert_passed("as it is");
    let other = Attempt::but(|a| {
        a.proof_claims["jti"] = one.proof_claims["jti"].clone();
        a.proof_claims["htu"] = json!("HTTPS://API.example.com:443/%6Frders?x#y");
    });
    other
        .outcome_by(&layer)
        .assert_reason("in another spelling", ProofError::Replayed);
    let elsewhere =
        Attempt::but(|a| a.proof_claims["htu"] = json!("https://api.example.com/orders/"));
    elsewhere
        .outcome_by(&layer)
        .assert_reason("elsewhere", ProofError::Url(UrlMismatch::Path));
}
