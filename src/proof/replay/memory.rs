//! The replay store of one process.
//!
//! The map is moka's. Looking up a record and inserting it are one step under a lock of this crate:
//! of moka's entry operations, `or_insert` lets two threads both win, and the others keep locks in
//! a second map, which takes a third of a claim's time with a million records. moka's own eviction
//! is not used: beyond its capacity it would silently evict records that are still needed, and it
//! does not use this crate's clock. Instead every record's key is also in a list by the last second
//! of its proof, and each new record removes a few keys from the lists whose second has passed. So
//! a record is dropped when its proof can no longer be accepted and never before; a full store
//! returns an error.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{self, Future};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moka::sync::Cache;

use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::store::{Claim, ReplayStore, ReplayStoreError, UsedProof};
use crate::sync::Mutex;
use crate::telemetry;
use crate::time::Timestamp;

/// Remembers proofs in this process's memory. Clones are handles to the same store.
///
/// Backed by `moka`, a widely used concurrent cache. For a service with many records,
/// [`CompactReplayStore`](crate::proof::CompactReplayStore) needs about 10% of the memory, and none
/// of its claims takes long: with a million records, this store sometimes pauses for milliseconds
/// to clean up (measured once; no benchmark here shows it).
///
/// # Security
///
/// Serves one process only, and starts empty. Without nonces, two processes behind a load balancer
/// accept a proof once each, and a proof used within the last [`retention`](crate::Freshness::retention)
/// before a restart is accepted once more after it: use a shared store, or require nonces.
/// Each store has an [`Epoch`](crate::proof::Epoch) of its own, so a proof with a nonce passes with the
/// store that the nonce was issued for, and with no other.
#[derive(Clone)]
pub struct MemoryReplayStore(Arc<Store>);

struct Store {
    records: Cache<Half, ()>,
    /// A thread that inserts a record holds the lock of its key.
    insertions: [Mutex<()>; INSERTIONS],
    lists: Mutex<Lists>,
    live: AtomicUsize,
    limit: usize,
    rejected: AtomicU64,
    epoch: Epoch,
}

/// The maximum number of concurrent insertions.
const INSERTIONS: usize = 64;

struct Lists {
    /// The keys of all records, by the last second of their proofs.
    by_last_second: BTreeMap<Timestamp, Vec<Half>>,
    /// The second after the last one from which records were dropped. If a proof expired before it,
    /// its record may have been dropped.
    dropped_before: Timestamp,
}

/// See [`ReplayKey::half`](crate::proof::ReplayKey::half).
type Half = [u8; 16];

impl MemoryReplayStore {
    /// A store of at most this many live records; further claims are rejected with 503 until an
    /// older record expires.
    ///
    /// A record takes about 360 bytes. With the default freshness a record is needed for 91 s, and
    /// for up to 121 s if a client's clock is ahead, so a million records carry 8,000 to 11,000
    /// requests per second. One client with a valid token can fill the store for all clients; if
    /// clients are not trusted that far, limit the rate of each client in a layer outside this one.
    pub fn with_limit(limit: usize) -> Self {
        Self(Arc::new(Store {
            records: Cache::builder().build(),
            insertions: [const { Mutex::new(()) }; INSERTIONS],
            lists: Mutex::new(Lists {
                by_last_second: BTreeMap::new(),
                dropped_before: Timestamp::from_unix(0),
            }),
            live: AtomicUsize::new(0),
            limit,
            rejected: AtomicU64::new(0),
            epoch: Epoch::random(),
        }))
    }

    /// How full the store is, and how many claims it has rejected. For metrics and alarms.
    pub fn usage(&self) -> MemoryUsage {
        MemoryUsage {
            live: self.0.live.load(Ordering::Relaxed),
            limit: self.0.limit,
            rejected: self.0.rejected.load(Ordering::Relaxed),
        }
    }
}

impl Default for MemoryReplayStore {
    /// At most a million live records, about 360 MB: at least 8,000 requests per second. Choose a
    /// smaller limit on a small machine.
    fn default() -> Self {
        Self::with_limit(1_000_000)
    }
}

impl ReplayStore for MemoryReplayStore {
    fn claim(
        &self,
        proof: UsedProof,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send {
        let claim = self.0.claim(proof);
        telemetry::replay_store(self.0.live.load(Ordering::Relaxed), self.0.limit);
        future::ready(claim)
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch
    }
}

/// Records dropped with each new one: more than one, so that the store empties faster than it
/// fills; few, so that no request takes long to remove the records of others.
const DROPPED_PER_CLAIM: usize = 16;

impl Store {
    fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if proof.epoch != self.epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        let (key, now, expires) = (proof.key.half(), proof.now, proof.expires);
        while !self.reserve() {
            let passed = self.lists.lock().take_passed(now);
            if passed.is_empty() {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                return Err(ReplayStoreError::Full);
            }
            self.drop_records(&passed);
        }
        if !self.record(key) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Ok(Claim::Replayed);
        }
        let (passed, dropped_before) = {
            let mut lists = self.lists.lock();
            lists.by_last_second.entry(expires).or_default().push(key);
            (lists.take_passed(now), lists.dropped_before)
        };
        self.drop_records(&passed);
        // After the clock stepped back, or between threads that read it on both sides of a second
        // boundary, the record of an earlier use may have been dropped already. Checked after the
        // insertion: the thread that dropped it had raised `dropped_before` first.
        if expires < dropped_before {
            return Err(ReplayStoreError::Unavailable);
        }
        Ok(Claim::First)
    }

    /// Reserves room for one record, if there is any.
    fn reserve(&self) -> bool {
        self.live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| {
                (live < self.limit).then_some(live + 1)
            })
            .is_ok()
    }

    /// Inserts the record, and returns whether it is new.
    fn record(&self, key: Half) -> bool {
        let [first, ..] = key;
        let insertion = &self.insertions[usize::from(first) % INSERTIONS];
        let _insertion = insertion.lock();
        let is_first = !self.records.contains_key(&key);
        if is_first {
            self.records.insert(key, ());
        }
        is_first
    }

    fn drop_records(&self, keys: &[Half]) {
        for key in keys {
            self.records.invalidate(key);
        }
        self.live.fetch_sub(keys.len(), Ordering::Relaxed);
    }
}

impl Lists {
    /// Removes some keys of proofs that are no longer accepted from the lists, and returns them.
    fn take_passed(&mut self, now: Timestamp) -> Vec<Half> {
        let mut passed = Vec::new();
        while passed.len() < DROPPED_PER_CLAIM
            && let Some(mut oldest) = self.by_last_second.first_entry()
            && *oldest.key() < now
        {
            // Only as far as records were dropped: when a clock that jumped ahead is corrected,
            // requests must not be rejected until it gets there again.
            self.dropped_before = self.dropped_before.max(oldest.key().plus(1));
            let keys = oldest.get_mut();
            let kept = keys.len().saturating_sub(DROPPED_PER_CLAIM - passed.len());
            passed.extend(keys.drain(kept..));
            if keys.is_empty() {
                oldest.remove();
            }
        }
        passed
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
    /// Records held now, including those that have just expired.
    pub live: usize,
    /// The maximum number of records.
    pub limit: usize,
    /// Claims rejected since the start because the store was full.
    pub rejected: u64,
}
