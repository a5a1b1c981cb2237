//! What replay stores count and measure.

pub(crate) mod shared;

/// Records in the replay store.
pub const REPLAY_RECORDS: &str = "tower_dpop_replay_records";
/// The maximum number of records in the replay store.
pub const REPLAY_LIMIT: &str = "tower_dpop_replay_limit";
/// Uses of proofs about which the memory of this node decided alone.
pub const REPLAY_CLAIMS_BY_NODE_MEMORY: &str = "tower_dpop_replay_claims_by_node_memory_total";

#[cfg(feature = "metrics")]
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};

    describe_gauge!(REPLAY_RECORDS, Unit::Count, "Records in the replay store");
    describe_gauge!(
        REPLAY_LIMIT,
        Unit::Count,
        "Maximum number of records in the replay store"
    );
    describe_counter!(
        REPLAY_CLAIMS_BY_NODE_MEMORY,
        Unit::Count,
        "Uses of proofs about which the memory of this node decided alone"
    );
    #[cfg(feature = "redis")]
    shared::describe();
}

/// Records how full the store of this process is.
#[cfg(feature = "metrics")]
#[expect(clippy::cast_precision_loss, reason = "no store has 2^52 records")]
pub(crate) fn in_memory(live: usize, limit: usize) {
    metrics::gauge!(REPLAY_RECORDS).set(live as f64);
    metrics::gauge!(REPLAY_LIMIT).set(limit as f64);
}

/// The memory of this node decides about a proof alone.
pub(crate) fn claim_by_node_memory() {
    #[cfg(feature = "metrics")]
    metrics::counter!(REPLAY_CLAIMS_BY_NODE_MEMORY).increment(1);
}
