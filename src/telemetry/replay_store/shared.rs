//! What a replay store over a network counts and measures. The names are there without the feature `redis`, so that code that
//! sets buckets or labels compiles with and without it.

/// Claims at a replay store over a network.
pub const REPLAY_CLAIMS: &str = "tower_dpop_replay_claims_total";
/// How long claims take at a replay store over a network.
pub const REPLAY_CLAIM_SECONDS: &str = "tower_dpop_replay_claim_seconds";
/// Claims that wait for the replay store.
pub const REPLAY_WAITING: &str = "tower_dpop_replay_waiting";
/// Whether the replay store is reachable: 1 or 0.
pub const REPLAY_UP: &str = "tower_dpop_replay_up";
/// Connections that were opened to the replay store.
pub const REPLAY_CONNECTIONS: &str = "tower_dpop_replay_connections_total";
/// Epochs of the replay store.
pub const REPLAY_EPOCHS: &str = "tower_dpop_replay_epochs_total";
/// Whether the replay store removes records when its memory is full: 1 or 0.
pub const REPLAY_EVICTING: &str = "tower_dpop_replay_evicting";

#[cfg(all(feature = "metrics", feature = "redis"))]
pub(crate) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_counter!(REPLAY_CLAIMS, Unit::Count, "Claims, by store and result");
    describe_histogram!(
        REPLAY_CLAIM_SECONDS,
        Unit::Seconds,
        "How long claims take, by store"
    );
    describe_gauge!(
        REPLAY_WAITING,
        Unit::Count,
        "Claims that wait for the replay store"
    );
    describe_gauge!(REPLAY_UP, "Whether the replay store is reachable");
    describe_counter!(
        REPLAY_CONNECTIONS,
        Unit::Count,
        "Connections opened to the replay store, by cause"
    );
    describe_counter!(REPLAY_EPOCHS, Unit::Count, "Epochs of the replay store");
    describe_gauge!(
        REPLAY_EVICTING,
        "Whether the replay store removes records when its memory is full"
    );
}

#[cfg(feature = "redis")]
pub(crate) fn claimed(result: &'static str, time: std::time::Duration) {
    #[cfg(feature = "metrics")]
    {
        // Literal labels in the macro are not allocated, so the most frequent case uses them.
        let counter = if result == "first" {
            metrics::counter!(REPLAY_CLAIMS, "store" => "redis", "result" => "first")
        } else {
            metrics::counter!(REPLAY_CLAIMS, "store" => "redis", "result" => result)
        };
        counter.increment(1);
        metrics::histogram!(REPLAY_CLAIM_SECONDS, "store" => "redis").record(time.as_secs_f64());
    }
}

#[cfg(feature = "redis")]
pub(crate) fn connected(cause: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(REPLAY_CONNECTIONS, "cause" => cause).increment(1);
}

#[cfg(feature = "redis")]
pub(crate) fn new_epoch() {
    #[cfg(feature = "metrics")]
    metrics::counter!(REPLAY_EPOCHS).increment(1);
}

#[cfg(feature = "redis")]
pub(crate) fn link_is_up(is_up: bool) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(REPLAY_UP).set(f64::from(u8::from(is_up)));
}

#[cfg(feature = "redis")]
pub(crate) fn evicting(is_evicting: bool) {
    #[cfg(feature = "metrics")]
    metrics::gauge!(REPLAY_EVICTING).set(f64::from(u8::from(is_evicting)));
}

#[cfg(feature = "redis")]
pub(crate) fn waiting(claims: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "no store has 2^52 claims")]
    metrics::gauge!(REPLAY_WAITING).set(claims as f64);
}
