//! What a replay store is, and what it is asked.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::jose::thumbprint::Thumbprint;
use crate::time::Timestamp;

/// Remembers which proofs were used.
///
/// [`MemoryReplayStore`](crate::MemoryReplayStore) serves one process. Implement this over a
/// shared store where several processes serve the same public URL, and run [`replay_contract::check`](crate::proof::replay_contract::check)
/// against it.
///
/// # Security
///
/// - One atomic operation: of any number of simultaneous claims of one key, exactly one is
///   [`Claim::First`], in all processes.
/// - A record lives until `expires`, at least, and longer by as much as the clocks of the store and
///   of the processes may differ: forgetting it earlier lets the proof pass again. A store that is
///   full, or out of reach, answers with an error; the request is then refused with 503.
pub trait ReplayStore: Send + Sync + 'static {
    /// Records the key unless it is recorded already.
    ///
    /// The proof is accepted up to and including the second `expires`; `now` is never later than
    /// that.
    fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> impl Future<Output = Result<Claim, ReplayStoreError>> + Send;
}

/// A store of whatever type. Clones are handles to the same store.
#[derive(Clone)]
pub(crate) struct AnyReplayStore(Arc<dyn ErasedReplayStore>);

impl AnyReplayStore {
    pub(crate) fn new(store: impl ReplayStore) -> Self {
        Self(Arc::new(store))
    }

    pub(crate) async fn claim(
        &self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Result<Claim, ReplayStoreError> {
        self.0.claim(key, now, expires).await
    }
}

trait ErasedReplayStore: Send + Sync {
    fn claim<'s>(
        &'s self,
        key: ReplayKey,
        now: Timestamp,
        expires: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<Claim, ReplayStoreError>> + Send + 's>>;
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
}

/// What a claim found. There is no third answer, so a `match` may be exhaustive.
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
    /// A key from its 32 octets, as [`ReplayKey::as_bytes`] gave them.
    pub const fn from_bytes(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The 32 octets to store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Half of it, for stores of this process that are to be small.
    ///
    /// Of two proofs that share a half, the later one is refused. To do that to somebody else's takes
    /// 2^128 attempts; 2^64 let a client do it to itself.
    pub(crate) fn half(&self) -> [u8; 16] {
        std::array::from_fn(|i| self.0[i])
    }

    /// The key of a proof with this identifier by the key with this thumbprint.
    pub fn new(thumbprint: Thumbprint, jti: &str) -> Self {
        // The thumbprint has a fixed length, so no two pairs run together.
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

/// The store cannot say whether a proof was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayStoreError {
    /// The store holds as many live records as it may.
    #[error("the replay memory is full")]
    Full,
    /// The store is out of reach.
    #[error("the replay memory is out of reach")]
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
