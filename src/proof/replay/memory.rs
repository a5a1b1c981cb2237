//! The replay store of one process.
//!
//! Records are in many short lists, each behind its own lock, chosen by a keyed hash. A claim locks its list
//! first, so that nothing comes between looking for a record and adding it. If the record is not there, the
//! claim locks the client's counts and then the ledger of all counts, in this order, and the record is added
//! if they have room for it. Nothing is ever moved to a larger table, and a list drops its expired
//! records when it is next used: so no claim takes long, however many records there are.
//!
//! `moka` was tried for the clients. Looking one up took half of a claim's time, and expiring many at once
//! held a single claim up for seconds (`benches` compares a cache of proofs in `moka` with this store).

use std::fmt;
use std::future::{self, Future};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use crate::proof::replay::clients::Clients;
use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::forgotten::Forgotten;
use crate::proof::replay::ledger::{Entered, Entry, Ledger, Limits};
use crate::proof::replay::store::{Claim, ReplayStore, ReplayStoreError, UsedProof};
use crate::sync::{Mutex, RandomState};
use crate::time::Timestamp;

/// Remembers proofs in this process's memory. Clones are handles to the same store.
///
/// # Limits
///
/// A record takes about 45 bytes, and a client with records about 100. With the default freshness a
/// record is needed for 91 s, and for up to 121 s if a client's clock is ahead, so a million records carry
/// 8,000 to 11,000 requests per second.
///
/// A full store rejects claims with 503 until records expire; it never drops a record that is needed. But no
/// client can fill it for the others. When 80% of it are in use, clients that have more than an equal
/// share (the limit divided by the number of clients with records) are rejected with 429, and the rest
/// is for clients that have less. A client that is alone can use all of it. A client is a key: this
/// works if the authorization server does not give one party tokens for any number of keys.
///
/// # Example
///
/// ```
/// use tower_dpop::MemoryReplayStore;
/// # use tower_dpop::ProofRules;
///
/// # fn example(rules: ProofRules) {
/// let replays = MemoryReplayStore::with_limit(10_000_000).with_client_limit(100_000);
/// let rules = rules.with_replay_store(replays);
/// # }
/// ```
///
/// # Security
///
/// Serves one process only, and starts empty. Without nonces, two processes behind a load balancer
/// accept a proof once each, and a proof used within the last [`retention`](crate::Freshness::retention)
/// before a restart is accepted once more after it: use a shared store, or require nonces (see [the
/// guide](crate::guide::several_nodes)).
/// Each store has an [`Epoch`] of its own, so a proof with a nonce passes with the
/// store that the nonce was issued for, and with no other.
///
/// If the clock is set back, a proof whose record may already have been dropped is rejected with 503.
#[derive(Clone)]
pub struct MemoryReplayStore(Arc<Store>);

struct Store {
    records: Sharded<Bucket>,
    clients: Sharded<Clients>,
    ledger: Mutex<Ledger>,
    limits: Limits,
    /// In seconds.
    retention_floor: u64,
    epoch: Epoch,
}

/// A fixed number of values, each behind its own lock.
struct Sharded<T> {
    shards: Box<[Mutex<T>]>,
    /// Its secret prevents a client from choosing keys that all fall into one shard.
    hasher: RandomState,
}

#[derive(Default)]
struct Bucket {
    records: Vec<Record>,
    /// The version of [`Forgotten`] by which records were last dropped here.
    dropped: u64,
}

struct Record {
    key: [u8; 16],
    kept_until: Timestamp,
}

/// Records per bucket when the store is full: few, because each claim searches a whole bucket.
const RECORDS_PER_BUCKET: usize = 32;
/// The maximum number of buckets (2.6 MB, for 2 million records). Beyond it, buckets get longer instead.
const MAX_BUCKETS: usize = 1 << 16;
/// Records by which a bucket grows. Doubling would leave a third of the memory unused.
const ROOM: usize = 8;
const MAX_CLIENT_SHARDS: usize = 1 << 14;

impl MemoryReplayStore {
    /// A store of at most this many live records.
    pub fn with_limit(records: usize) -> Self {
        let limits = Limits {
            records,
            records_per_client: usize::MAX,
        };
        Self(Arc::new(Store::new(limits, 0)))
    }

    /// An empty store that also limits each client to this many live records, however few others have. Further
    /// claims are rejected with 429.
    #[must_use]
    pub fn with_client_limit(self, records: usize) -> Self {
        let limits = Limits {
            records_per_client: records,
            ..self.0.limits
        };
        Self(Arc::new(Store::new(limits, self.0.retention_floor)))
    }

    /// An empty store that keeps each record for at least this long, in whole seconds, rounded up.
    ///
    /// A record is kept as long as the verifier that accepted the proof would accept it again. If verifiers of
    /// different [`Freshness`](crate::Freshness) share the store, set the
    /// [`retention`](crate::Freshness::retention) of a `Freshness` with the longest maximum age, the longest
    /// leeway and the longest nonce period among them, so that none accepts the proof again. Either all of
    /// them use the nonce instead of `iat`, or none does: no record lasts as long as an `iat` that was not
    /// checked can be ahead.
    #[must_use]
    pub fn with_retention_floor(self, floor: Duration) -> Self {
        let seconds = floor
            .as_secs()
            .saturating_add(u64::from(floor.subsec_nanos() > 0));
        Self(Arc::new(Store::new(self.0.limits, seconds)))
    }

    /// How full the store is, and how many claims it has rejected. For metrics and alarms.
    pub fn usage(&self) -> MemoryUsage {
        let ledger = self.0.ledger.lock();
        MemoryUsage {
            live: ledger.live,
            limit: self.0.limits.records,
            clients: ledger.clients,
            rejected: ledger.rejected,
        }
    }
}

impl Default for MemoryReplayStore {
    /// At most a million live records, 45 to 150 MB: at least 8,000 requests per second. Choose a
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
        #[cfg(feature = "metrics")]
        crate::telemetry::replay_store::in_memory(self.usage().live, self.0.limits.records);
        future::ready(claim)
    }

    fn epoch(&self) -> Epoch {
        self.0.epoch
    }
}

impl Store {
    fn new(limits: Limits, retention_floor: u64) -> Self {
        let buckets = (limits.records / RECORDS_PER_BUCKET).clamp(1, MAX_BUCKETS);
        Self {
            records: Sharded::new(buckets),
            clients: Sharded::new(buckets.min(MAX_CLIENT_SHARDS)),
            ledger: Mutex::new(Ledger::new()),
            limits,
            retention_floor,
            epoch: Epoch::random(),
        }
    }

    fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if proof.epoch != self.epoch {
            return Err(ReplayStoreError::OtherStore);
        }
        let key = proof.key.half();
        let entry = Entry {
            now: proof.now,
            expires: proof.expires,
            kept_until: proof.expires.max(proof.now.plus(self.retention_floor)),
            retention_floor: self.retention_floor,
        };
        let mut bucket = self.records.shard(&key).lock();
        if bucket.contains(&key) {
            return Ok(Claim::Replayed);
        }
        let entered = self.enter(proof.key.client(), entry)?;
        bucket.drop_forgotten(&entered.forgotten);
        bucket.add(Record {
            key,
            kept_until: entered.kept_until,
        });
        Ok(Claim::First)
    }

    /// Counts a record of this client, if there is room.
    fn enter(&self, client: [u8; 16], entry: Entry) -> Result<Entered, ReplayStoreError> {
        let mut clients = self.clients.shard(&client).lock();
        let client = clients.client(client, entry.now);
        self.ledger.lock().enter(client, entry, self.limits)
    }
}

impl<T: Default> Sharded<T> {
    fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::new(T::default())).collect(),
            hasher: RandomState::default(),
        }
    }

    fn shard(&self, key: &[u8; 16]) -> &Mutex<T> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any part of a hash is a hash"
        )]
        let hash = self.hasher.hash_one(key) as usize;
        &self.shards[hash % self.shards.len()]
    }
}

impl Bucket {
    fn contains(&self, key: &[u8; 16]) -> bool {
        self.records.iter().any(|record| record.key == *key)
    }

    fn drop_forgotten(&mut self, forgotten: &Forgotten) {
        if self.dropped != forgotten.version() {
            self.dropped = forgotten.version();
            self.records
                .retain(|record| !forgotten.contains(record.kept_until));
            self.records.shrink_to(2 * self.records.len());
        }
    }

    fn add(&mut self, record: Record) {
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(ROOM);
        }
        self.records.push(record);
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
    /// Live records, as of the last claim.
    pub live: usize,
    /// The maximum number of records.
    pub limit: usize,
    /// Clients with live records, as of the last claim.
    pub clients: usize,
    /// Claims rejected since the start because the store was full, or the client had too many records.
    pub rejected: u64,
}
