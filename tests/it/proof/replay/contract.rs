//! The contract of replay stores: those of this crate fulfil it, and stores that break it are found.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof, replay_contract};
use tower_dpop::{MemoryReplayStore, ReplayStore, Timestamp};

use common::{NOW, TestClock, block_on};

#[test]
fn the_stores_of_this_crate_fulfil_the_contract() {
    fn fulfils<S: ReplayStore + Clone>(store: &S) {
        let handles = [store.clone(), store.clone(), store.clone()];
        block_on(async {
            replay_contract::check(store).await;
            replay_contract::check_together(&handles).await;
            // These stores have no clock of their own.
            replay_contract::check_lasting(store, async |_| {}).await;
        });
    }
    fulfils(&MemoryReplayStore::default());
    fulfils(&std::sync::Arc::new(MemoryReplayStore::default()));
    fulfils(&Remote::default());
}

/// A store over a network: every second claim waits.
#[derive(Clone, Default)]
struct Remote {
    store: MemoryReplayStore,
    waits: Arc<AtomicBool>,
}

impl ReplayStore for Remote {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if self.waits.fetch_not(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        self.store.claim(proof).await
    }

    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }
}

/// A store that forgets, with a clock of its own.
struct Forgetful {
    clock: TestClock,
    /// How long it keeps a record, by its own clock and by the `now` of claims, if not until the end of
    /// `expires`.
    kept: (Option<u64>, Option<u64>),
    epoch: fn() -> Epoch,
    records: Mutex<HashMap<ReplayKey, [Timestamp; 2]>>,
}

impl Forgetful {
    fn keeping(by_clock: Option<u64>, by_now: Option<u64>) -> Self {
        Self {
            clock: TestClock::at(NOW),
            kept: (by_clock, by_now),
            epoch: || Epoch::UNKNOWN,
            records: Mutex::default(),
        }
    }
}

impl ReplayStore for Forgetful {
    async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        let UsedProof { now, expires, .. } = proof;
        let time = self.clock.now();
        let life = expires.as_unix() - now.as_unix() + 1;
        let gone_at = [
            time.plus(self.kept.0.unwrap_or(life)),
            now.plus(self.kept.1.unwrap_or(life)),
        ];
        let mut records = self.records.lock().unwrap();
        records.retain(|_, [by_clock, by_now]| time < *by_clock && now < *by_now);
        Ok(match records.insert(proof.key, gone_at) {
            None => Claim::First,
            Some(earlier) => {
                records.insert(proof.key, earlier);
                Claim::Replayed
            }
        })
    }

    fn epoch(&self) -> Epoch {
        (self.epoch)()
    }
}

/// The text of the panic, if the check fails.
fn failure(check: impl Future<Output = ()>) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| block_on(check))).err()?;
    Some(match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    })
}

#[track_caller]
fn assert_fails(name: &str, check: impl Future<Output = ()>, rule: &str) {
    let found = failure(check).unwrap_or_else(|| panic!("{name}: fulfils the contract"));
    assert!(found.contains(rule), "{name}: {found}");
}

/// `wait` sets the store's clock forward.
async fn check_lasting(store: &Forgetful) {
    let wait = async |time: Duration| {
        // The first wait, for the start of a second, is shorter than a second.
        if time > Duration::from_secs(1) {
            store.clock.advance(time);
        }
    };
    replay_contract::check_lasting(store, wait).await;
}

///
#[test]
fn a_store_that_forgets_too_early_is_found() {
    assert_eq!(
        failure(check_lasting(&Forgetful::keeping(None, None))),
        None
    );
    for (name, by_clock, by_now, rule) in [
        (
            "one second, by its own clock",
            Some(1),
            None,
            "a record lasts through `expires`",
        ),
        (
            "one second, by the time of claims",
            None,
            Some(1),
            "a record lasts through `expires`",
        ),
        (
            "a fixed time, by the time of claims",
            None,
            Some(90),
            "by the `now` of claims",
        ),
        (
            "not through the last second",
            None,
            Some(120),
            "by the `now` of claims",
        ),
    ] {
        let store = Forgetful::keeping(by_clock, by_now);
        assert_fails(name, check_lasting(&store), rule);
    }
}

/// a proof for another epoch may have been used without a record here.
#[test]
fn a_store_that_accepts_proofs_for_another_epoch_is_found() {
    let mut store = Forgetful::keeping(None, None);
    assert_eq!(failure(replay_contract::check(&store)), None);
    store.epoch = || Epoch::of(b"a");
    assert_fails(
        "always the same epoch",
        replay_contract::check(&store),
        "a proof for another epoch is not accepted",
    );
}

#[test]
fn handles_of_different_stores_are_found() {
    let check = replay_contract::check_together;
    let stores = [MemoryReplayStore::default(), MemoryReplayStore::default()];
    assert_fails("two stores", check(&stores), "have one epoch");
    let stores = [
        Forgetful::keeping(None, None),
        Forgetful::keeping(None, None),
    ];
    let together = replay_contract::check_together(&stores);
    assert_fails("two stores of one epoch", together, "exactly one is first");
    assert_fails(
        "one handle",
        check(&stores_of_one()),
        "at least two handles",
    );
}

fn stores_of_one() -> [MemoryReplayStore; 1] {
    [MemoryReplayStore::default()]
}
