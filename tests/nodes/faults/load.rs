//! Many claims at a steady rate, and what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tower_dpop::ReplayStore as _;
use tower_dpop::proof::{Claim, Epoch, ReplayKey, UsedProof};

use super::{RedisReplayStore, Result, claim, fresh_key, now};

/// 64 tasks that claim fresh keys, about 10,000 per second together.
pub(super) struct Load {
    ending: Arc<AtomicBool>,
    tasks: JoinSet<Vec<Made>>,
}

/// One claim of a fresh key, and what became of it.
pub(super) struct Made {
    key: ReplayKey,
    epoch: Epoch,
    began: Instant,
    took: Duration,
    result: Result,
}

impl Load {
    pub(super) fn on(store: &RedisReplayStore) -> Self {
        let mut load = Self {
            ending: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..64 {
            let (store, ending) = (store.clone(), Arc::clone(&load.ending));
            load.tasks.spawn(async move {
                let mut tick = interval(Duration::from_millis(6));
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut made = Vec::new();
                while !ending.load(Ordering::Relaxed) {
                    tick.tick().await;
                    let (key, epoch, time) = (fresh_key(), store.epoch(), now());
                    let began = Instant::now();
                    let proof = UsedProof::new(key, time, time.plus(90), epoch);
                    let result = store.claim(proof).await;
                    made.push(Made {
                        key,
                        epoch,
                        began,
                        took: began.elapsed(),
                        result,
                    });
                }
                made
            });
        }
        load
    }

    pub(super) async fn end(self) -> AllMade {
        self.ending.store(true, Ordering::Relaxed);
        AllMade(self.tasks.join_all().await.into_iter().flatten().collect())
    }
}

pub(super) struct AllMade(Vec<Made>);

/// How many accepted claims were accepted a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    /// Where nonces are not required, each is a replay.
    pub(super) all: usize,
    /// Those whose nonce is still valid: their epoch is that of the store.
    pub(super) in_present_epoch: usize,
}

impl AllMade {
    pub(super) fn accepted(&self) -> usize {
        self.count(Ok(Claim::First))
    }

    pub(super) fn count(&self, result: Result) -> usize {
        self.0.iter().filter(|made| made.result == result).count()
    }

    /// No claim of a fresh key is a replay.
    #[track_caller]
    pub(super) fn assert_no_honest_claim_is_replayed(&self) {
        assert_eq!(self.count(Ok(Claim::Replayed)), 0, "honest claims");
    }

    pub(super) fn slowest(&self) -> Duration {
        self.0.iter().map(|made| made.took).max().unwrap()
    }

    pub(super) fn slowest_between(&self, from: Instant, to: Instant) -> Duration {
        let during = self
            .0
            .iter()
            .filter(|made| made.began >= from && made.began < to);
        during.map(|made| made.took).max().unwrap_or_default()
    }

    /// How long after this moment the first claim was accepted that began after it.
    pub(super) fn accepts_after(&self, moment: Instant) -> Option<Duration> {
        let accepted = self
            .0
            .iter()
            .filter(|made| made.began >= moment && made.result == Ok(Claim::First));
        accepted.map(|made| made.began + made.took - moment).min()
    }

    /// Claims each accepted key again.
    pub(super) async fn claim_again(&self, store: &RedisReplayStore) -> Again {
        let accepted = self.0.iter().filter(|made| made.result == Ok(Claim::First));
        let accepted: Vec<_> = accepted.map(|made| (made.key, made.epoch)).collect();
        let mut tasks = JoinSet::new();
        for part in accepted.chunks(accepted.len().div_ceil(64).max(1)) {
            let (store, part) = (store.clone(), part.to_vec());
            tasks.spawn(async move {
                let mut again = (0, 0);
                for (key, epoch) in part {
                    if claim(&store, key).await == Ok(Claim::First) {
                        again.0 += 1;
                        again.1 += usize::from(epoch == store.epoch());
                    }
                }
                again
            });
        }
        let parts = tasks.join_all().await;
        Again {
            all: parts.iter().map(|part| part.0).sum(),
            in_present_epoch: parts.iter().map(|part| part.1).sum(),
        }
    }
}
