//! The replay store trait and its types.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::jose::thumbprint::Thumbprint;
use crate::outage::{Outage, QUIET};
use crate::time::Timestamp;

/// Remembers which proofs were used.
///
/// [`MemoryReplayStore`](crate::MemoryReplayStore), the default, serves one process. If several serve
/// the same public URL, implement this trait over a shared store (`examples/custom_replay_store.rs`),
/// test it with [`replay_contract::check`](crate::proof::replay_contract::check), and pass it to
/// [`ProofRules::with_replay_store`](crate::ProofRules::with_replay_store).
///
/// # Security
///
/// - [`claim`](Self::claim) is one atomic operation: of all simultaneous claims of one key, in all
///   processes, exactly one is [`Claim::First`].
/// - A record lives at least until `expires`, plus the possible difference between the clocks of
///   the store and of the processes: if it is dropped earlier, the proof can be used again.
/// - A store that is full or unreachable returns an error, and the request is rejected with 503. The
///   only timeout is the store's own.
pub trait ReplayStore: Send + Sync + 'static {
    /// Records the key unless it is already recorded.
    ///
    /// The proof is accepted up to and including the second `expires`, which is never before `now` and
    /// at most [`Freshness::retention`](crate::Freshness::retention) after it.
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send;
}

/// A store of any type. Clones are handles to the same store.
#[derive(Clone)]
pub(crate) struct AnyReplayStore {
    store: Arc<dyn ErasedReplayStore>,
    outage: Arc<Outage>,
}

impl AnyReplayStore {
    pub(crate) fn new(store: impl ReplayStore) -> Self {
        Self {
            store: Arc::new(store),
            outage: Arc::new(Outage::new()),
        }
    }

    pub(crate) async fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        let result = self.store.claim(key, now, expires).await;
        match &result {
            Ok(_) => {
                if let Some(seconds) = self.outage.succeeded(QUIET, now) {
                    tracing::info!(seconds, "the replay store records proofs again");
                }
            }
            Err(error) if self.outage.failed(error.to_string(), now) => {
                tracing::warn!(
                    reason = error.reason(),
                    "{error}: requests are rejected with 503 until it records proofs again"
                );
            }
            Err(_) => {}
        }
        result
    }

    /// The name of the store's type, for the log.
    pub(crate) fn type_name(&self) -> &'static str {
        self.store.type_name()
    }
}

trait ErasedReplayStore: Send + Sync {
    fn claim<'s>(
        &'s self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Claim, ReplayStoreError>> + Send + 's>>;

    fn type_name(&self) -> &'static str;
}

impl<S: ReplayStore> ErasedReplayStore for S {
    fn claim<'s>(
        &'s self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Claim, ReplayStoreError>> + Send + 's>> {
        Box::pin(ReplayStore::claim(self, key, now, expires))
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<S>()
    }
}

/// A store that is also used elsewhere, for example for health checks.
impl<S: ReplayStore> ReplayStore for Arc<S> {
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send {
        S::claim(self, key, now, expires)
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

/// The identity of a proof: the SHA-256 of the client's key thumbprint and the proof's `jti`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayKey([u8; 32]);

impl ReplayKey {
    /// A key from its 32 bytes, as returned by [`ReplayKey::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Half of the key, for in-process stores that must be small.
    ///
    /// If two proofs share a half, the later one is rejected. Doing this to another client's proof
    /// takes 2^128 attempts; with 2^64 a client can do it to its own.
    pub(crate) fn half(&self) -> [u8; 16] {
        std::array::from_fn(|i| self.0[i])
    }

    /// The replay key of a proof with this `jti`, signed by the key with this thumbprint.
    pub fn new(thumbprint: Thumbprint, jti: &str) -> Self {
        // The thumbprint has a fixed length, so different pairs never give the same hash input.
        let hash = Sha256::new()
            .chain_update(thumbprint.as_bytes())
            .chain_update(jti);
        Self(hash.finalize().into())
    }
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
    /// The store holds the maximum number of live records.
    #[error("the replay store is full")]
    Full,
    /// The store is unreachable.
    #[error("the replay store is unreachable")]
    Unavailable,
}

impl ReplayStoreError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Full => "unavailable_replay_full",
            Self::Unavailable => "unavailable_replay",
        }
    }
}
