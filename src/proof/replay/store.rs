//! The replay store trait and its types.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::jose::thumbprint::Thumbprint;
use crate::outage::{Outage, QUIET};
use crate::proof::replay::epoch::Epoch;
use crate::time::Timestamp;

/// Remembers which proofs were used.
///
/// [`MemoryReplayStore`](crate::MemoryReplayStore), the default, serves one process. If several serve
/// the same public URL, use `proof::RedisReplayStore` (feature `redis`), or implement this trait over another
/// shared store (`examples/custom_replay_store.rs`), test it with [`replay_contract`](crate::proof::replay_contract), and pass it to
/// [`ProofRules::with_replay_store`](crate::ProofRules::with_replay_store). The guide says [which set-up to
/// choose](crate::guide::several_nodes#which-set-up-to-choose).
///
/// # Security
///
/// - [`claim`](Self::claim) is one atomic operation: of all simultaneous claims of one key, in all
///   processes, exactly one is [`Claim::First`].
/// - A record lives at least until `expires`, plus the possible difference between the clocks of
///   the store and of the processes: if it is dropped earlier, the proof can be used again.
/// - A store that may have lost records has another [`epoch`](Self::epoch) from then on, and records no
///   proof for the earlier one. If nonces are required, no lost record then allows a replay.
/// - A store that is full or unreachable returns an error, and the request is rejected with 503 (429 for
///   [`ReplayStoreError::ClientLimit`]). The only timeout is the store's own.
///   [`WhileUnavailable`](crate::proof::WhileUnavailable) weakens this.
///
/// # Example
///
/// A store over a database that has one atomic operation for "insert unless it is there":
///
/// ```
/// # use tower_dpop::Timestamp;
/// # struct Database;
/// # impl Database {
/// #     async fn insert_if_absent(&self, _: ReplayKey, _: Timestamp) -> Result<bool, ()> { Ok(true) }
/// # }
/// use tower_dpop::ReplayStore;
/// use tower_dpop::proof::{Claim, Epoch, ReplayKey, ReplayStoreError, UsedProof};
///
/// struct Shared {
///     database: Database,
///     epoch: Epoch, // another one as soon as records may be missing
/// }
///
/// impl ReplayStore for Shared {
///     async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
///         if proof.epoch != self.epoch {
///             return Err(ReplayStoreError::OtherStore);
///         }
///         match self.database.insert_if_absent(proof.key, proof.expires).await {
///             Ok(true) => Ok(Claim::First),
///             Ok(false) => Ok(Claim::Replayed),
///             Err(_) => Err(ReplayStoreError::Unavailable), // 503: the request is rejected
///         }
///     }
///
///     fn epoch(&self) -> Epoch {
///         self.epoch
///     }
/// }
/// ```
pub trait ReplayStore: Send + Sync + 'static {
    /// Records the proof unless it is already recorded.
    ///
    /// # Errors
    ///
    /// The store cannot decide; in particular, [`ReplayStoreError::OtherStore`] if the epoch of the
    /// proof is not that of the store.
    fn claim(
        &self,
        proof: UsedProof,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send;

    /// The epoch of the records that claims are compared with now. It is read for every request, so it
    /// must not wait: a store over a network keeps the last one that it has seen.
    fn epoch(&self) -> Epoch;

    /// If this store can accept a proof twice although it lost no record: when, as a sentence for the log. It
    /// is a warning at the start. The default is `None`.
    fn weakness(&self) -> Option<String> {
        None
    }
}

/// A proof whose use is to be recorded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UsedProof {
    /// The identity of the proof.
    pub key: ReplayKey,
    /// The current time.
    pub now: Timestamp,
    /// The last second in which the proof is accepted: never before `now`, and at most
    /// [`Freshness::retention`](crate::Freshness::retention) after it.
    pub expires: Timestamp,
    /// The epoch of the store when the request came in, for which its nonce was accepted.
    pub epoch: Epoch,
}

impl UsedProof {
    /// A proof that is used at this time, in this epoch.
    pub const fn new(key: ReplayKey, now: Timestamp, expires: Timestamp, epoch: Epoch) -> Self {
        Self {
            key,
            now,
            expires,
            epoch,
        }
    }
}

/// A store of any type. Clones are handles to the same store.
#[derive(Clone)]
pub(crate) struct AnyReplayStore {
    store: Arc<dyn ErasedReplayStore>,
    outage: Arc<Outage>,
    replays: Replays,
}

/// What a handle to a store does with a proof that was used before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Replays {
    /// It asks the store, which records the proof.
    Rejected,
    /// It does not ask.
    Accepted,
}

impl AnyReplayStore {
    pub(crate) fn new(store: impl ReplayStore) -> Self {
        Self {
            store: Arc::new(store),
            outage: Arc::new(Outage::new()),
            replays: Replays::Rejected,
        }
    }

    /// From now on, each proof counts as not used before, and none is recorded. Other handles to the store still ask it.
    pub(crate) const fn accept_replays(&mut self) {
        self.replays = Replays::Accepted;
    }

    pub(crate) async fn claim(&self, proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        if self.replays == Replays::Accepted {
            return Ok(Claim::First);
        }
        let now = proof.now;
        let result = self.store.claim(proof).await;
        match &result {
            Ok(_) => {
                if let Some(seconds) = self.outage.succeeded(QUIET, now) {
                    tracing::info!(seconds, "the replay store records proofs again");
                }
            }
            // The fault of one client, not of the store.
            Err(ReplayStoreError::ClientLimit) => {}
            Err(error) if self.outage.failed(error.to_string(), now) => {
                let consequence = match error {
                    ReplayStoreError::OtherStore => "requests that came in before are rejected",
                    _ => "requests are rejected with 503 until it records proofs again",
                };
                tracing::warn!(reason = error.reason(), "{error}: {consequence}");
            }
            Err(_) => {}
        }
        result
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    /// The name of the store's type, for the log.
    pub(crate) fn type_name(&self) -> &'static str {
        self.store.type_name()
    }

    pub(crate) fn weakness(&self) -> Option<String> {
        match self.replays {
            Replays::Accepted => Some(
                "a proof can be used again as long as its time is valid (Verifier::allow_insecure_replays)".to_owned(),
            ),
            Replays::Rejected => self.store.weakness(),
        }
    }
}

trait ErasedReplayStore: Send + Sync {
    fn claim<'s>(
        &'s self,
        proof: UsedProof,
    ) -> Pin<Box<dyn Future<Output = Result<Claim, ReplayStoreError>> + Send + 's>>;

    fn epoch(&self) -> Epoch;

    fn type_name(&self) -> &'static str;

    fn weakness(&self) -> Option<String>;
}

impl<S: ReplayStore> ErasedReplayStore for S {
    fn claim<'s>(
        &'s self,
        proof: UsedProof,
    ) -> Pin<Box<dyn Future<Output = Result<Claim, ReplayStoreError>> + Send + 's>> {
        Box::pin(ReplayStore::claim(self, proof))
    }

    fn epoch(&self) -> Epoch {
        ReplayStore::epoch(self)
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<S>()
    }

    fn weakness(&self) -> Option<String> {
        ReplayStore::weakness(self)
    }
}

/// A store that is also used elsewhere, for example for health checks.
impl<S: ReplayStore> ReplayStore for Arc<S> {
    fn claim(
        &self,
        proof: UsedProof,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send {
        S::claim(self, proof)
    }

    fn epoch(&self) -> Epoch {
        S::epoch(self)
    }

    fn weakness(&self) -> Option<String> {
        S::weakness(self)
    }
}

/// The result of a claim. There is no third result, so a `match` can be exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The proof was not used before, and is recorded now.
    First,
    /// The proof was used before.
    Replayed,
}

/// The identity of a proof: the SHA-256 of the client's key thumbprint and the proof's `jti`. It also
/// names the client's key, for stores that count the records of each client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey {
    hash: [u8; 32],
    client: [u8; 16],
}

impl ReplayKey {
    /// The replay key of a proof with this `jti`, signed by the key with this thumbprint.
    pub fn new(thumbprint: Thumbprint, jti: &str) -> Self {
        // The thumbprint has a fixed length, so different pairs never give the same hash input.
        let hash = Sha256::new()
            .chain_update(thumbprint.as_bytes())
            .chain_update(jti);
        Self {
            hash: hash.finalize().into(),
            client: first_half(thumbprint.as_bytes()),
        }
    }

    /// A key from its parts, as [`as_bytes`](Self::as_bytes) and [`client`](Self::client) return them.
    pub const fn from_parts(bytes: [u8; 32], client: [u8; 16]) -> Self {
        Self {
            hash: bytes,
            client,
        }
    }

    /// The 32 bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Half of the 32 bytes, for stores that must be small.
    ///
    /// If two proofs share a half, the later one is rejected. Doing this to another client's proof
    /// takes 2^128 attempts; with 2^64 a client can do it to its own.
    pub fn half(&self) -> [u8; 16] {
        first_half(&self.hash)
    }

    /// The client's key, to count records by: half of its thumbprint. Proofs by one key have the same,
    /// and finding another key with the same takes 2^128 attempts.
    pub const fn client(&self) -> [u8; 16] {
        self.client
    }
}

fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| hash[i])
}

impl fmt::Debug for ReplayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayKey(..)")
    }
}

/// The store could not decide whether a proof was used before. It should log why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayStoreError {
    /// The client has used up its share of the store, so that there is room for other clients. The client
    /// gets 429.
    #[error("the client's share of the replay store is used up")]
    ClientLimit,
    /// The store holds the maximum number of live records.
    #[error("the replay store is full")]
    Full,
    /// The [`epoch`](ReplayStore::epoch) is not the one for which the proof was checked, so a record of
    /// an earlier use may be missing. If nonces are required, the client gets 401 `use_dpop_nonce` with a
    /// nonce of the current epoch instead of 503.
    #[error("the replay store may have lost records since the request came in")]
    OtherStore,
    /// The store did not respond within its own timeout. The proof may be recorded.
    #[error("the replay store did not respond in time")]
    Slow,
    /// The store is unreachable.
    #[error("the replay store is unreachable")]
    Unavailable,
}

impl ReplayStoreError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::ClientLimit => "too_many_requests",
            Self::Full => "unavailable_replay_full",
            Self::OtherStore => "unavailable_replay_other_store",
            Self::Slow => "unavailable_replay_slow",
            Self::Unavailable => "unavailable_replay",
        }
    }
}
