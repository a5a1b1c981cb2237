//! A replay store in the memory of each node, for the time in which the shared store is unreachable.
//!
//! The memory is asked last, and only if the request passes otherwise. Its response is the decision, and
//! nothing waits after it. So on one node a proof passes once, whatever the shared store does, and a proof
//! that the shared store rejects is not recorded here. If the future is dropped between the two claims, the
//! proof is recorded in the shared store alone, as with that store itself.

use std::fmt;

use crate::outage::{Outage, QUIET};
use crate::proof::replay::epoch::Epoch;
use crate::proof::replay::memory::MemoryReplayStore;
use crate::proof::replay::store::{Claim, ReplayStore, ReplayStoreError, UsedProof};
use crate::telemetry;
use crate::time::Timestamp;

/// A shared replay store, and what decides while it is unreachable.
///
/// Without this wrapper, requests are rejected with 503 then, which is the secure choice. The guide compares
/// [all modes](crate::guide::several_nodes#while-the-store-is-unreachable).
///
/// # Example
///
/// ```
/// use tower_dpop::proof::WhileUnavailable;
/// use tower_dpop::{MemoryReplayStore, ProofRules, ReplayStore};
///
/// # fn example(rules: ProofRules, shared: impl ReplayStore) -> ProofRules {
/// let memory = MemoryReplayStore::with_limit(200_000);
/// rules.with_replay_store(WhileUnavailable::insecurely_by_node_memory(shared, memory))
/// # }
/// ```
pub struct WhileUnavailable<R> {
    store: R,
    memory: MemoryReplayStore,
    outage: Outage,
}

impl<R: ReplayStore> WhileUnavailable<R> {
    /// Records each proof in the memory of this node, too. While the shared store is unreachable or does
    /// not respond in time ([`ReplayStoreError::Unavailable`] and [`ReplayStoreError::Slow`]), the memory
    /// decides alone.
    ///
    /// The other errors are returned as they are: a full store responds, and a store of another epoch knows
    /// that records are missing. A full memory is [`ReplayStoreError::Full`], even while the shared store
    /// works, so choose a limit for all proofs that this node accepts. Each claim still waits for the shared
    /// store: choose one that returns the error at once when it knows that it is unreachable.
    ///
    /// Nonces stay bound to the epoch of the shared store, which is the last one that it has seen. If it
    /// comes back with another epoch, clients are asked for a new nonce, and no proof of before is accepted.
    ///
    /// # Security
    ///
    /// During an outage, a proof can be used once on each node, and again after each restart of a node. After
    /// the outage, a proof that one node accepted during it can be used once on another node, as long as it
    /// is fresh. An attacker who can make the store unreachable can bring this about.
    ///
    /// A [`DpopLayer`](crate::DpopLayer) logs a warning at the start. The beginning and the end of an outage
    /// are one event each, with the levels `warn` and `info`, and
    /// [`REPLAY_CLAIMS_BY_NODE_MEMORY`](crate::telemetry::REPLAY_CLAIMS_BY_NODE_MEMORY) counts the decisions
    /// of the memory alone.
    pub fn insecurely_by_node_memory(store: R, memory: MemoryReplayStore) -> Self {
        Self {
            store,
            memory,
            outage: Outage::new(),
        }
    }

    fn note_success(&self, now: Timestamp) {
        if let Some(seconds) = self.outage.succeeded(QUIET, now) {
            tracing::info!(seconds, "the shared replay store decides again");
        }
    }

    fn note_failure(&self, error: ReplayStoreError, now: Timestamp) {
        // One event per outage: a store that is unreachable is first too slow.
        if self.outage.failed(String::new(), now) {
            tracing::warn!(
                reason = error.reason(),
                "{error}: until it responds, the memory of this node decides, so a proof can be used once on each node"
            );
        }
    }
}

impl<R: ReplayStore> ReplayStore for WhileUnavailable<R> {
    async fn claim(&self, mut proof: UsedProof) -> Result<Claim, ReplayStoreError> {
        match self.store.claim(proof).await {
            Ok(claim) => {
                self.note_success(proof.now);
                if claim == Claim::Replayed {
                    return Ok(claim);
                }
            }
            Err(error @ (ReplayStoreError::Slow | ReplayStoreError::Unavailable)) => {
                self.note_failure(error, proof.now);
                // The shared store has found another epoch since the nonce was checked.
                if proof.epoch != self.store.epoch() {
                    return Err(ReplayStoreError::OtherStore);
                }
                telemetry::replay_store::claim_by_node_memory();
            }
            Err(error) => return Err(error),
        }
        proof.epoch = self.memory.epoch();
        self.memory.claim(proof).await
    }

    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn weakness(&self) -> Option<String> {
        let own = "while the shared replay store is unreachable, a proof can be used once on each node (WhileUnavailable::insecurely_by_node_memory)";
        Some(match self.store.weakness() {
            None => own.to_owned(),
            Some(inner) => format!("{own}; {inner}"),
        })
    }
}

impl<R> fmt::Debug for WhileUnavailable<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhileUnavailable")
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
