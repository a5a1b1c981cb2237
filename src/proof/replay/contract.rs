//! The contract of [`ReplayStore`], as tests to run against your implementation.
//!
//! # Example
//!
//! ```
//! # use tower_dpop::MemoryReplayStore;
//! # use tower_dpop::proof::replay_contract;
//! # type YourStore = MemoryReplayStore;
//! # async fn test() {
//! # let your_store = YourStore::default();
//! # let another_handle = your_store.clone();
//! replay_contract::check(&your_store).await;
//! replay_contract::check_together(&[your_store.clone(), another_handle]).await;
//! replay_contract::check_lasting(&your_store, tokio::time::sleep).await;
//! # }
//! ```

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::store::{Claim, ReplayKey, ReplayStore, ReplayStoreError, UsedProof};
use crate::time::Timestamp;

/// Claims fresh random keys, one at a time and concurrently, and checks the results. It never
/// sleeps.
///
/// Not covered: races between threads and processes (the concurrent claims are polled by one task,
/// so a store that never waits handles them one after the other), several handles of a store
/// ([`check_together`]), and whether a record lasts until `expires` ([`check_lasting`]).
///
/// # Panics
///
/// Panics if the store breaks the contract or returns an error. The message states the rule.
pub async fn check<S: ReplayStore>(store: &S) {
    let now = Timestamp::from(SystemTime::now());
    let later = now.plus(120);
    let (one, other) = (fresh_key(), fresh_key());
    let claim = async |key, now, expires| {
        let epoch = store.epoch();
        store.claim(UsedProof::new(key, now, expires, epoch)).await
    };

    assert_eq!(
        claim(one, now, later).await,
        Ok(Claim::First),
        "a key that was never claimed is first"
    );
    assert_eq!(
        claim(one, now, later).await,
        Ok(Claim::Replayed),
        "the same key again is replayed"
    );
    assert_eq!(
        claim(one, now.plus(1), later.plus(60)).await,
        Ok(Claim::Replayed),
        "another expiry does not make it another key"
    );
    assert_eq!(
        claim(other, now, later).await,
        Ok(Claim::First),
        "another key is first"
    );

    let last_second = fresh_key();
    assert_eq!(
        claim(last_second, now, now).await,
        Ok(Claim::First),
        "a proof in its last second is accepted"
    );
    assert_eq!(
        claim(last_second, now, now).await,
        Ok(Claim::Replayed),
        "and remembered through it"
    );

    if store.epoch() != Epoch::UNKNOWN {
        assert_rejects_another_epoch(store, now, later).await;
    }
    for _ in 0..50 {
        assert_one_wins(&[store], now, later).await;
    }
}

/// The same for several handles of one store, for example one connection each: all have one epoch, and
/// of simultaneous claims of one key by all handles, exactly one is first. It never sleeps.
///
/// Not covered: races between threads and processes.
///
/// # Panics
///
/// Panics if there are fewer than two handles, or if the store breaks the contract or returns an error.
/// The message states the rule.
pub async fn check_together<S: ReplayStore>(handles: &[S]) {
    assert!(handles.len() > 1, "at least two handles of one store");
    let epoch = handles[0].epoch();
    assert!(
        handles.iter().all(|handle| handle.epoch() == epoch),
        "all handles of one store have one epoch"
    );
    let now = Timestamp::from(SystemTime::now());
    let handles: Vec<&S> = handles.iter().collect();
    for _ in 0..50 {
        assert_one_wins(&handles, now, now.plus(120)).await;
    }
}

/// Checks that a record lasts through the second `expires`: by the clock of the store, which it lets pass
/// with `wait`, and by the `now` of later claims.
///
/// `wait` returns after this time. It is `tokio::time::sleep` for a store with a clock of its own, and
/// the check then takes up to three seconds; for a test clock, it sets the clock forward.
///
/// Run it last: its later claims have a `now` that is up to two minutes ahead. Not covered: whether a
/// store with a clock of its own keeps records for more than two seconds.
///
/// # Panics
///
/// Panics if the store breaks the contract or returns an error. The message states the rule.
pub async fn check_lasting<S: ReplayStore, W: Future<Output = ()>>(
    store: &S,
    wait: impl Fn(Duration) -> W,
) {
    let claim = async |key, now, expires| {
        let epoch = store.epoch();
        store.claim(UsedProof::new(key, now, expires, epoch)).await
    };

    // From the start of a second almost to the end of the next: the longest life that `expires` can
    // mean, with some time left for the claim itself.
    let time = SystemTime::now();
    let now = Timestamp::from(time).plus(1);
    let start = UNIX_EPOCH + Duration::from_secs(now.as_unix());
    wait(start.duration_since(time).unwrap_or_default()).await;
    let (key, expires) = (fresh_key(), now.plus(1));
    let first = claim(key, now, expires).await;
    assert_eq!(
        first,
        Ok(Claim::First),
        "a key that was never claimed is first"
    );
    wait(Duration::from_millis(1_800)).await;
    let again = claim(key, expires, expires).await;
    assert_eq!(
        again,
        Ok(Claim::Replayed),
        "a record lasts through `expires`"
    );

    let expires = now.plus(120);
    let key = fresh_key();
    let first = claim(key, now, expires).await;
    assert_eq!(
        first,
        Ok(Claim::First),
        "a key that was never claimed is first"
    );
    for seconds in [2, 60, 119, 120] {
        let now = now.plus(seconds);
        // A store may drop records when it takes others.
        for _ in 0..50 {
            let other = claim(fresh_key(), now, now.plus(120)).await;
            assert_eq!(other, Ok(Claim::First), "another key is first");
        }
        let again = claim(key, now, expires).await;
        assert_eq!(
            again,
            Ok(Claim::Replayed),
            "a record lasts through `expires`, by the `now` of claims"
        );
    }
}

async fn assert_rejects_another_epoch<S: ReplayStore>(
    store: &S,
    now: Timestamp,
    expires: Timestamp,
) {
    let mut proof = UsedProof::new(fresh_key(), now, expires, Epoch::random());
    assert_eq!(
        store.claim(proof).await,
        Err(ReplayStoreError::OtherStore),
        "a proof for another epoch is not accepted"
    );
    proof.epoch = store.epoch();
    assert_eq!(
        store.claim(proof).await,
        Ok(Claim::First),
        "and not recorded"
    );
}

/// 16 claims by each handle.
async fn assert_one_wins<S: ReplayStore>(handles: &[&S], now: Timestamp, expires: Timestamp) {
    let contended = fresh_key();
    let claims = (0..16).flat_map(|_| handles).map(|handle| {
        let proof = UsedProof::new(contended, now, expires, handle.epoch());
        handle.claim(proof)
    });
    let claims = at_once(claims.collect()).await;
    let found = |expected| {
        claims
            .iter()
            .filter(|claim| **claim == Ok(expected))
            .count()
    };
    assert_eq!(
        (found(Claim::First), found(Claim::Replayed)),
        (1, claims.len() - 1),
        "of simultaneous claims of one key exactly one is first"
    );
}

/// A key that no store has seen.
fn fresh_key() -> ReplayKey {
    let (mut bytes, mut client) = ([0; 32], [0; 16]);
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    getrandom::fill(&mut client).expect("the operating system gives randomness");
    ReplayKey::from_parts(bytes, client)
}

/// Polls all futures in turn until each one is ready.
async fn at_once<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
