//! The contract of [`ReplayStore`], as a test to run against your implementation.
//!
//! # Example
//!
//! ```
//! # use tower_dpop::MemoryReplayStore;
//! # type YourStore = MemoryReplayStore;
//! # async fn test() {
//! # let your_store = YourStore::default();
//! tower_dpop::proof::replay_contract::check(&your_store).await;
//! # }
//! ```

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::SystemTime;

use crate::proof::replay::store::{Claim, ReplayKey, ReplayStore};
use crate::time::Timestamp;

/// Claims fresh random keys, one at a time and concurrently, and checks the results. It never
/// sleeps.
///
/// Not covered: races between threads and processes (the concurrent claims are polled by one task,
/// so a store that never waits handles them one after the other), and whether a record lasts until
/// `expires` by the store's own clock.
///
/// # Panics
///
/// Panics if the store breaks the contract or returns an error. The message states the rule.
pub async fn check<S: ReplayStore>(store: &S) {
    let now = Timestamp::from(SystemTime::now());
    let later = now.plus(120);
    let (one, other) = (fresh_key(), fresh_key());

    assert_eq!(
        store.claim(one, now, later).await,
        Ok(Claim::First),
        "a key that was never claimed is first"
    );
    assert_eq!(
        store.claim(one, now, later).await,
        Ok(Claim::Replayed),
        "the same key again is replayed"
    );
    assert_eq!(
        store.claim(one, now.plus(1), later.plus(60)).await,
        Ok(Claim::Replayed),
        "another expiry does not make it another key"
    );
    assert_eq!(
        store.claim(other, now, later).await,
        Ok(Claim::First),
        "another key is first"
    );

    let last_second = fresh_key();
    assert_eq!(
        store.claim(last_second, now, now).await,
        Ok(Claim::First),
        "a proof in its last second is accepted"
    );
    assert_eq!(
        store.claim(last_second, now, now).await,
        Ok(Claim::Replayed),
        "and remembered through it"
    );

    for _ in 0..50 {
        assert_one_wins(store, now, later).await;
    }
}

async fn assert_one_wins<S: ReplayStore>(store: &S, now: Timestamp, expires: Timestamp) {
    let contended = fresh_key();
    let claims = (0..16).map(|_| store.claim(contended, now, expires));
    let claims = at_once(claims.collect()).await;
    let found = |expected| {
        claims
            .iter()
            .filter(|claim| **claim == Ok(expected))
            .count()
    };
    assert_eq!(
        (found(Claim::First), found(Claim::Replayed)),
        (1, 15),
        "of simultaneous claims of one key exactly one is first"
    );
}

/// A key that no store has seen.
fn fresh_key() -> ReplayKey {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    ReplayKey::from_bytes(bytes)
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
