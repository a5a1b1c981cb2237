//! The replay store of one process, in about 10% of the memory of `MemoryReplayStore`.
//!
//! It is a hash table whose buckets are short lists, each behind its own lock, and a ledger that
//! counts how many records expire in each second. When a second has passed, the ledger subtracts
//! its records from the count at once; a bucket drops its own when it is next used. So no claim
//! walks more than one short list, nothing is ever moved to a larger table, and the ledger alone
//! decides whether there is room. A record is dropped when its proof can no longer be accepted and
//! never before; a full store returns an error.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::future::{self, Future};
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::memory::MemoryUsage;
use crate::proof::replay::store::{Claim, ReplayStore, ReplayStoreError, UsedProof};
use crate::sync::Mutex;
use crate::time::Timestamp;

/// Like [`MemoryReplayStore`](crate::MemoryReplayStore), in about 10% of its memory and a fraction
/// of its time. Clones are handles to the same store.
///
/// `MemoryReplayStore` is the default because it is backed by `moka`, a widely used concurrent
/// cache, while this store is code of this crate alone. Both pass the same tests, and
/// `benches/RESULTS.md` compares them.
///
/// # Example
///
/// ```
/// use tower_dpop::proof::CompactReplayStore;
/// # use tower_dpop::ProofRules;
///
/// # fn example(rules: ProofRules) {
/// let rules = rules.with_replay_store(CompactReplayStore::with_limit(10_000_000));
/// # }
/// ```
///
/// # Security
///
/// Serves one process only, and starts empty. Without nonces, two processes behind a load balancer
/// accept a proof once each, and a proof used within the last [`retention`](crate::Freshness::retention)
/// before a restart is accepted once more after it: use a shared store, or require nonces.
/// Each store has an [`Epoch`](crate::proof::Epoch) of its own, so a proof with a nonce passes with the
/// store that the nonce was issued for, and with no other.
#[derive(Clone)]
pub struct CompactReplayStore(Arc<Store>);

struct Store {
    ledger: Mutex<Ledger>,
    buckets: Box<[Mutex<Bucket>]>,
    /// Its secret prevents a client from choosing proofs that all fall into one bucket.
    hasher: RandomState,
    limit: usize,
    epoch: Epoch,
}

/// Counts the records whose proofs may still be accepted.
struct Ledger {
    live: usize,
    by_last_second: BTreeMap<Timestamp, usize>,
    /// The second after the last one that was subtracted from the count. If a proof expired before
    /// it, its record may have been dropped.
    passed_before: Timestamp,
    rejected: u64,
}

struct Bucket {
    records: Vec<Record>,
    /// The ledger's `passed_before` when records were last dropped here.
    dropped_before: Timestamp,
}

struct Record {
    key: Half,
    last_second: Timestamp,
}

/// See [`ReplayKey::half`](crate::proof::ReplayKey::half).
type Half = [u8; 16];

/// Live records per bucket when the store is full: few, because each claim searches a whole bucket.
const RECORDS_PER_BUCKET: usize = 32;
/// The maximum number of buckets (2.6 MB, for 2 million records). Beyond it, the lists get longer instead.
const MAX_BUCKETS: usize = 1 << 16;
/// Records by which a list grows. Doubling would leave a third of the memory unused.
const ROOM: usize = 8;

impl CompactReplayStore {
    /// A store of at most this many live records; further claims are rejected with 503 until an
    /// older record expires.
    ///
    /// A record takes about 45 bytes. With the default freshness a record is needed for 91 s, and
    /// for up to 121 s if a client's clock is ahead, so a million records carry 8,000 to 11,000
    /// requests per second. One client with a valid token can fill the store for all clients; if
    /// clients are not trusted that far, limit the rate of each client in a layer outside this one.
    pub fn with_limit(limit: usize) -> Self {
        let buckets = (limit / RECORDS_PER_BUCKET).clamp(1, MAX_BUCKETS);
        Self(Arc::new(Store {
            ledger: Mutex::new(Ledger {
                live: 0,
                by_last_second: BTreeMap::new(),
                passed_before: Timestamp::from_unix(0),
                rejected: 0,
            }),
            buckets: (0..buckets).map(|_| Mutex::new(Bucket::EMPTY)).collect(),
            hasher: RandomState::new(),
            limit,
            epoch: Epoch::random(),
        }))
    }

    /// How full the store is, and how many claims it has rejected. For metrics and alarms.
    pub fn usage(&self) -> MemoryUsage {
        let ledger = self.0.ledger.lock();
        MemoryUsage {
            live: ledger.live,
            limit: self.0.limit,
            rejected: ledger.rejected,
        }
    }
}

impl Default for CompactReplayStore {
    /// At most a million live records, about 45 MB: at least 8,000 requests per second. Choose a
    /// smaller limit on a small machine.
    fn default() -> Self {
        Self::with_limit(1_000_000)
    }
}

impl ReplayStore for CompactReplayStore {
    fn claim(
        &self,
        proof: UsedProof,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send {
        let claim = self.0.claim(proof);
        #[cfg(feature = "metrics")]
        crate::telemetry::replay_store(self.usage().live, self.0.limit);
        future::ready(claim)
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch
    }
}

impl Store {
    fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if proof.epoch != self.epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        let (key, now, expires) = (proof.key.half(), proof.now, proof.expires);
        let passed_before = self.ledger.lock().enter(now, expires, self.limit)?;
        let claim = self.bucket(&key).lock().claim(key, expires, passed_before);
        if claim != Ok(Claim::First) {
            self.ledger.lock().leave(expires);
        }
        claim
    }

    fn bucket(&self, key: &Half) -> &Mutex<Bucket> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any part of a hash is a hash"
        )]
        let hash = self.hasher.hash_one(key) as usize;
        &self.buckets[hash % self.buckets.len()]
    }
}

impl Ledger {
    /// Counts a record, if there is room, and returns `passed_before`.
    fn enter(
        &mut self,
        now: Timestamp,
        expires: Timestamp,
        limit: usize,
    ) -> Result<Timestamp, ReplayStoreError> {
        while let Some(oldest) = self.by_last_second.first_entry()
            && *oldest.key() < now
        {
            let (last_second, records) = oldest.remove_entry();
            self.live -= records;
            // Only as far as there were records: when a clock that jumped ahead is corrected,
            // requests must not be rejected until it gets there again.
            self.passed_before = self.passed_before.max(last_second.plus(1));
        }
        if expires < self.passed_before {
            // The clock stepped back.
            return Err(ReplayStoreError::Unavailable);
        }
        if self.live >= limit {
            self.rejected += 1;
            return Err(ReplayStoreError::Full);
        }
        self.live += 1;
        *self.by_last_second.entry(expires).or_default() += 1;
        Ok(self.passed_before)
    }

    /// Undoes the count for a proof that is not recorded.
    fn leave(&mut self, expires: Timestamp) {
        // Otherwise the record was subtracted with its second in the meantime.
        if expires >= self.passed_before
            && let Some(records) = self.by_last_second.get_mut(&expires)
        {
            *records -= 1;
            self.live -= 1;
        }
    }
}

impl Bucket {
    const EMPTY: Self = Self {
        records: Vec::new(),
        dropped_before: Timestamp::from_unix(0),
    };

    fn claim(
        &mut self,
        key: Half,
        expires: Timestamp,
        passed_before: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        let records = &mut self.records;
        if self.dropped_before < passed_before {
            self.dropped_before = passed_before;
            records.retain(|record| record.last_second >= passed_before);
            records.shrink_to(2 * records.len());
        }
        // Another thread, in a later second, was faster: it may have dropped the record of an
        // earlier use.
        if expires < self.dropped_before {
            return Err(ReplayStoreError::Unavailable);
        }
        if records.iter().any(|record| record.key == key) {
            return Ok(Claim::Replayed);
        }
        if records.len() == records.capacity() {
            records.reserve_exact(ROOM);
        }
        records.push(Record {
            key,
            last_second: expires,
        });
        Ok(Claim::First)
    }
}

impl fmt::Debug for CompactReplayStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompactReplayStore")
            .field("usage", &self.usage())
            .finish()
    }
}
