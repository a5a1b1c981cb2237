//! The replay memory of one process.
//!
//! The map is moka's, used in the one form that is atomic (`entry().or_insert_with`; `or_insert`
//! lets two threads both win). moka's own ways of forgetting are not used: past its capacity it
//! would evict records that are still needed, without a word, and its clock is not ours. Instead
//! every record's key also stands in a list by its last second, and each claim takes a few keys off
//! the lists that have passed. So a record leaves when its proof can no longer be accepted and
//! never before, and when the memory is full it says so.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{self, Future};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::sync::Cache;

use crate::freshness::Timestamp;
use crate::replay::{Claim, ReplayKey, ReplayStore, ReplayStoreError};
use crate::telemetry;

/// Remembers proofs in this process's memory. Cloning gives another handle to the same memory.
///
/// # Security
///
/// Serves one process only: behind a load balancer, two processes with a memory each accept a proof
/// once each. And it starts empty: a proof from within the last
/// [`retention`](crate::freshness::Freshness::retention) before a restart passes once more after
/// it. Where either matters, use a shared store.
#[derive(Clone)]
pub struct MemoryReplayStore(Arc<Memory>);

struct Memory {
    records: Cache<ReplayKey, ()>,
    /// The keys of all records, by the last second of their proofs.
    by_last_second: Mutex<BTreeMap<Timestamp, Vec<ReplayKey>>>,
    /// The second after the last one of which records were dropped. A proof that ended before it may
    /// have been forgotten.
    dropped_before: AtomicU64,
    live: AtomicUsize,
    limit: usize,
    refused: AtomicU64,
}

impl MemoryReplayStore {
    /// A memory of at most this many live records; one more is refused with 503 until an older one
    /// has served its time.
    ///
    /// A record takes about 400 octets. With the default freshness a record is needed for 91 s, and
    /// for up to 121 s where a client's clock is ahead, so a million of them carry 8,000 to 11,000
    /// requests a second. One client with a good token can fill it for all; where clients are not
    /// trusted that far, limit the rate of each in a layer outside of this one.
    pub fn with_limit(limit: usize) -> Self {
        Self(Arc::new(Memory {
            records: Cache::builder().build(),
            by_last_second: Mutex::new(BTreeMap::new()),
            dropped_before: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            limit,
            refused: AtomicU64::new(0),
        }))
    }

    /// How full the memory is, and how often it had to refuse. For metrics and alarms.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            live: self.0.live.load(Ordering::Relaxed),
            limit: self.0.limit,
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }
}

impl Default for MemoryReplayStore {
    /// At most a million live records, some 400 MB: 8,000 requests a second at the least. Choose a
    /// smaller limit on a small machine.
    fn default() -> Self {
        Self::with_limit(1_000_000)
    }
}

impl ReplayStore for MemoryReplayStore {
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send {
        let claim = self.0.claim(key, now, expires);
        telemetry::replay_memory(self.0.live.load(Ordering::Relaxed), self.0.limit);
        future::ready(claim)
    }
}

/// Records dropped along with each claim: more than one, so that the memory empties faster than it
/// fills; few, so that no request waits for another's past.
const DROPPED_A_CLAIM: usize = 16;

impl Memory {
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        self.drop_passed(now, DROPPED_A_CLAIM);
        if !self.reserve() {
            self.drop_passed(now, usize::MAX);
            if !self.reserve() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(ReplayStoreError::Full);
            }
        }
        if !self.records.entry(key).or_insert_with(|| ()).is_fresh() {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Ok(Claim::Replayed);
        }
        self.lists().entry(expires).or_default().push(key);
        // After a step back of the clock, or between threads that read it on either side of a
        // second, the record of an earlier use may have been dropped already. Looked at after the
        // insertion: whoever dropped it had raised the mark before.
        if expires.as_unix() < self.dropped_before.load(Ordering::SeqCst) {
            return Err(ReplayStoreError::Unavailable);
        }
        Ok(Claim::First)
    }

    /// Takes one of the places, if one is free.
    fn reserve(&self) -> bool {
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| {
                (live < self.limit).then_some(live + 1)
            })
            .is_ok()
    }

    /// Drops up to `most` records of proofs that are no longer accepted.
    fn drop_passed(&self, now: Timestamp, most: usize) {
        let mut passed = Vec::new();
        {
            let mut lists = self.lists();
            while passed.len() < most {
                let Some(mut oldest) = lists.first_entry().filter(|oldest| *oldest.key() < now)
                else {
                    break;
                };
                // Only as far as records were dropped: a clock that is put right after a leap ahead
                // must not leave everyone refused until it gets there again.
                self.dropped_before
                    .fetch_max(oldest.key().plus(1).as_unix(), Ordering::SeqCst);
                let keys = oldest.get_mut();
                let kept = keys.len().saturating_sub(most - passed.len());
                passed.extend(keys.drain(kept..));
                if keys.is_empty() {
                    oldest.remove();
                }
            }
        }
        for key in &passed {
            self.records.invalidate(key);
        }
        self.live.fetch_sub(passed.len(), Ordering::Relaxed);
    }

    fn lists(&self) -> MutexGuard<'_, BTreeMap<Timestamp, Vec<ReplayKey>>> {
        // A panic while the lock was held can only have been a failed allocation: the lists are
        // whole.
        self.by_last_second
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryReplayStore")
            .field("usage", &self.usage())
            .finish()
    }
}

/// The state of a [`MemoryReplayStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// Records held now, those whose time has just passed included.
    pub live: usize,
    /// Records that may be held.
    pub limit: usize,
    /// Claims refused since the start because the memory was full.
    pub refused: u64,
}
