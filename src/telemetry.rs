//! What the crate counts and measures, through the facade of the crate `metrics` (feature
//! `metrics`).
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`REQUESTS`] | counter | `decision` (`accepted`, `refused`, `reported`), `scheme` (`dpop`, `bearer`, `none`), `reason` ([`Rejection::reason`](crate::resource::rejection::Rejection::reason), `none` for accepted requests) |
//! | [`CLOCK_SKEW`] | histogram, seconds: how far `iat` lies behind our clock, negative where it is ahead, a day at most in either direction | `decision` |
//! | [`REPLAY_RECORDS`], [`REPLAY_LIMIT`] | gauges of the replay memory of this process, as of the last proof; of several memories, that of the last proof | |
//! | [`TOKEN_CACHE`] | counter | `result` (`hit`, `miss`) |
//! | [`KEY_FETCHES`] | counter | `cause` (`start`, `scheduled`, `demanded`), `result` (`changed`, `unchanged`, `failed`) |
//! | [`INTROSPECTIONS`] | counter of requests to the introspection endpoint | `result` (`active`, `inactive`, `failed`) |
//!
//! No label comes from a request, so their number is bounded.
//!
//! Each decision counts: a request that the layer accepts, and a layer of
//! [`authorization`](crate::resource::authorization) behind it refuses, counts once as either. Token endpoints
//! and preflights that are passed through do not count.
//!
//! # `tracing`
//!
//! Without any feature, each decision is one event of the target `tower_dpop`: `info` for a refusal
//! (`error` where the fault is ours), with `reason` (the metric's), `description` (a sentence),
//! `detail` and `scheme`; `debug` for an accepted request, with `scheme` and, where there was a proof,
//! `algorithm` and `skew_seconds`. The layer's events stand in the span `dpop` (`debug`). The detail
//! says by how many seconds a time is off and which part of the URL differs, and nothing else of the
//! request.
#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "every function is empty then")
)]

/// Decisions about requests.
pub const REQUESTS: &str = "tower_dpop_requests_total";
/// How far the clocks of clients are off.
pub const CLOCK_SKEW: &str = "tower_dpop_clock_skew_seconds";
/// Records in the replay memory.
pub const REPLAY_RECORDS: &str = "tower_dpop_replay_records";
/// Records that the replay memory may hold.
pub const REPLAY_LIMIT: &str = "tower_dpop_replay_limit";
/// Access tokens that were, or were not, found in a cache of verified tokens.
pub const TOKEN_CACHE: &str = "tower_dpop_token_cache_total";
/// Fetches of issuers' keys.
pub const KEY_FETCHES: &str = "tower_dpop_key_fetches_total";
/// Questions to introspection endpoints.
pub const INTROSPECTIONS: &str = "tower_dpop_introspections_total";

/// Tells the recorder what the metrics mean and in which units they are. Call it once, after a
/// recorder was installed.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

    describe_counter!(REQUESTS, Unit::Count, "Requests, by decision and reason");
    describe_histogram!(
        CLOCK_SKEW,
        Unit::Seconds,
        "How far the iat of proofs lies behind this server's clock"
    );
    describe_gauge!(REPLAY_RECORDS, Unit::Count, "Records in the replay memory");
    describe_gauge!(
        REPLAY_LIMIT,
        Unit::Count,
        "Records that the replay memory may hold"
    );
    describe_counter!(
        TOKEN_CACHE,
        Unit::Count,
        "Access tokens looked up in a cache of verified tokens"
    );
    describe_counter!(KEY_FETCHES, Unit::Count, "Fetches of issuers' keys");
    describe_counter!(
        INTROSPECTIONS,
        Unit::Count,
        "Requests to introspection endpoints"
    );
}

/// Whether a verdict was in a cache.
#[derive(Clone, Copy)]
pub(crate) enum Cached {
    Hit,
    Miss,
}

pub(crate) fn token_cache(cached: Cached) {
    #[cfg(feature = "metrics")]
    {
        // Labels that stand in the macro are not allocated.
        match cached {
            Cached::Hit => metrics::counter!(TOKEN_CACHE, "result" => "hit"),
            Cached::Miss => metrics::counter!(TOKEN_CACHE, "result" => "miss"),
        }
        .increment(1);
    }
}

/// What was decided about a request.
pub(crate) fn decision(decision: &'static str, scheme: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    {
        let counter = if (decision, scheme, reason) == ("accepted", "dpop", "none") {
            // What most requests come to; labels that stand in the macro are not allocated.
            metrics::counter!(REQUESTS, "decision" => "accepted", "scheme" => "dpop", "reason" => "none")
        } else {
            metrics::counter!(REQUESTS, "decision" => decision, "scheme" => scheme, "reason" => reason)
        };
        counter.increment(1);
    }
}

/// How far behind our clock a proof was made.
pub(crate) fn clock_skew(decision: &'static str, seconds: f64) {
    #[cfg(feature = "metrics")]
    {
        let histogram = if decision == "accepted" {
            metrics::histogram!(CLOCK_SKEW, "decision" => "accepted")
        } else {
            metrics::histogram!(CLOCK_SKEW, "decision" => decision)
        };
        histogram.record(seconds.clamp(-LONGEST_SKEW, LONGEST_SKEW));
    }
}

/// Anybody can write any `iat`, without a token even: one of the year 10^300 must not drown the sum
/// of all others.
#[cfg(feature = "metrics")]
const LONGEST_SKEW: f64 = 86_400.0;

/// How full the replay memory is.
pub(crate) fn replay_memory(live: usize, limit: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 records")]
    {
        metrics::gauge!(REPLAY_RECORDS).set(live as f64);
        metrics::gauge!(REPLAY_LIMIT).set(limit as f64);
    }
}

/// A fetch of an issuer's keys.
#[cfg(feature = "jwks")]
pub(crate) fn key_fetch(cause: &'static str, result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(KEY_FETCHES, "cause" => cause, "result" => result).increment(1);
}

/// A question to an introspection endpoint.
#[cfg(feature = "introspection")]
pub(crate) fn introspection(result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(INTROSPECTIONS, "result" => result).increment(1);
}
