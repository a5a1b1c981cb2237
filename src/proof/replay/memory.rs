//! The replay memory of one process.
//!
//! The map is moka's. Looking for a record and making it are one step by a lock of ours: of moka's
//! entry operations, `or_insert` lets two threads both win, and the others keep locks in a second map,
//! which among a million records takes a third of a claim's time. moka's own ways of forgetting are not used: past its
//! capacity it would evict records that are still needed, without a word, and its clock is not ours.
//! Instead every record's key also stands in a list by its last second, and each new record takes a
//! few keys off the lists that have passed. So a record leaves when its proof can no longer be
//! accepted and never before, and when the memory is full it says so.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{self, Future};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};

use moka::sync::Cache;

use crate::proof::replay::store::{Claim, ReplayKey, ReplayStore, ReplayStoreError};
use crate::sync::Mutex;
use crate::telemetry;
use crate::time::Timestamp;

/// Remembers proofs in this process's memory. Cloning gives another handle to the same memory.
///
/// Many watch over the map in it, which is moka's. Where a service has many records,
/// [`CompactReplayStore`](crate::proof::CompactReplayStore) keeps them in a tenth of the
/// memory, and no claim in it takes long: this one, with a million records, now and then stops for
/// milliseconds to tidy up (measured once; no benchmark here shows it).
///
/// # Security
///
/// Serves one process only: behind a load balancer, two processes with a memory each accept a proof
/// once each. And it starts empty: a proof from within the last
/// [`retention`](crate::Freshness::retention) before a restart passes once more after
/// it. Where either matters, use a shared store.
#[derive(Clone)]
pub struct MemoryReplayStore(Arc<Memory>);

struct Memory {
    records: Cache<Half, ()>,
    /// Whoever makes a record holds the one of its key.
    insertions: [Mutex<()>; INSERTIONS],
    lists: Mutex<Lists>,
    live: AtomicUsize,
    limit: usize,
    refused: AtomicU64,
}

/// How many records can be made at once, at the most.
const INSERTIONS: usize = 64;

struct Lists {
    /// The keys of all records, by the last second of their proofs.
    by_last_second: BTreeMap<Timestamp, Vec<Half>>,
    /// The second after the last one of which records were dropped. A proof that ended before it may
    /// have been forgotten.
    dropped_before: Timestamp,
}

/// See [`ReplayKey::half`].
type Half = [u8; 16];

impl MemoryReplayStore {
    /// A memory of at most this many live records; one more is refused with 503 until an older one
    /// has served its time.
    ///
    /// A record takes about 360 octets. With the default freshness a record is needed for 91 s, and
    /// for up to 121 s where a client's clock is ahead, so a million of them carry 8,000 to 11,000
    /// requests a second. One client with a good token can fill it for all; where clients are not
    /// trusted that far, limit the rate of each in a layer outside of this one.
    pub fn with_limit(limit: usize) -> Self {
        Self(Arc::new(Memory {
            records: Cache::builder().build(),
            insertions: [const { Mutex::new(()) }; INSERTIONS],
            lists: Mutex::new(Lists {
                by_last_second: BTreeMap::new(),
                dropped_before: Timestamp::from_unix(0),
            }),
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
    /// At most a million live records, some 360 MB: 8,000 requests a second at the least. Choose a
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

/// Records dropped along with each new one: more than one, so that the memory empties faster than it
/// fills; few, so that no request waits for another's past.
const DROPPED_PER_CLAIM: usize = 16;

impl Memory {
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        let key = key.half();
        while !self.reserve() {
            let passed = self.lists().take_passed(now);
            if passed.is_empty() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(ReplayStoreError::Full);
            }
            self.drop_records(&passed);
        }
        if !self.record(key) {
            self.live.fetch_sub(1, Ordering::Relaxed);
            return Ok(Claim::Replayed);
        }
        let (passed, dropped_before) = {
            let mut lists = self.lists();
            lists.by_last_second.entry(expires).or_default().push(key);
            (lists.take_passed(now), lists.dropped_before)
        };
        self.drop_records(&passed);
        // After a step back of the clock, or between threads that read it on either side of a
        // second, the record of an earlier use may have been dropped already. Looked at after the
        // insertion: whoever dropped it had raised the mark before.
        if expires < dropped_before {
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

    /// Whether there was no such record before.
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

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock()
    }
}

impl Lists {
    /// Takes some keys of proofs that are no longer accepted off the lists.
    fn take_passed(&mut self, now: Timestamp) -> Vec<Half> {
        let mut passed = Vec::new();
        while passed.len() < DROPPED_PER_CLAIM
            && let Some(mut oldest) = self.by_last_second.first_entry()
            && *oldest.key() < now
        {
            // Only as far as records were dropped: a clock that is put right after a leap ahead must
            // not leave everyone refused until it gets there again.
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
    /// Records held now, those whose time has just passed included.
    pub live: usize,
    /// Records that may be held.
    pub limit: usize,
    /// Claims refused since the start because the memory was full.
    pub refused: u64,
}
