//! What the crate counts and measures, through the facade of the crate `metrics` (feature
//! `metrics`).
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`REQUESTS`] | counter | `decision` (`accepted`, `refused`, `reported`), `scheme` (`dpop`, `bearer`, `none`), `reason` ([`Rejection::reason`](crate::Rejection::reason), `none` for accepted requests) |
//! | [`TOKEN_REQUESTS`] | counter of requests to the authorization server | `decision` (`accepted`, `refused`), `reason` ([`TokenRequestRejection::reason`](crate::token_endpoint::TokenRequestRejection::reason)) |
//! | [`CLOCK_SKEW`] | histogram, seconds: how far `iat` lies behind our clock, negative where it is ahead, a day at most in either direction | `decision` |
//! | [`REPLAY_RECORDS`], [`REPLAY_LIMIT`] | gauges of the replay memory of this process, as of the last proof; of several memories, that of the last proof | |
//! | [`TOKEN_CACHE`] | counter | `result` (`hit`, `miss`) |
//! | [`KEY_FETCHES`] | counter | `cause` (`start`, `scheduled`, `demanded`), `result` (`changed`, `unchanged`, `failed`) |
//! | [`INTROSPECTIONS`] | counter of requests to the introspection endpoint | `result` (`active`, `inactive`, `failed`) |
//!
//! No label comes from a request, so their number is bounded.
//!
//! Each decision counts: a request that the layer accepts, and a layer behind it refuses
//! ([`RequireScopesLayer`](crate::RequireScopesLayer)), counts once as either; and so does a token request that the endpoint accepts and
//! the application refuses. Preflights that are passed through do not count.
//!
//! # `tracing`
//!
//! Without any feature, each decision is one event of the target `tower_dpop`: `info` for a refusal
//! (`error` where the fault is ours), with `reason` (the metric's), `description` (a sentence),
//! `detail` and, at a resource server, `scheme`; `debug` for an accepted request, with `scheme` and, where there was a
//! proof, `algorithm` and `skew_seconds`. The layer's events stand in the span `dpop` (`debug`). The detail
//! says by how many seconds a time is off and which part of the URL differs, and nothing else of the
//! request.
#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "every function is empty then")
)]

use std::error::Error;

/// Decisions about requests.
pub const REQUESTS: &str = "tower_dpop_requests_total";
/// Decisions about token requests and pushed authorization requests.
pub const TOKEN_REQUESTS: &str = "tower_dpop_token_requests_total";
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
    describe_counter!(
        TOKEN_REQUESTS,
        Unit::Count,
        "Token requests, by decision and reason"
    );
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

/// What a server decided about a request: one event, and what is counted.
pub(crate) enum Decision<'d> {
    /// The request passes. The algorithm and the skew are those of its proof.
    Accepted(Option<ProofFacts>),
    /// The request is refused, or would be.
    Refused {
        consequence: Consequence,
        /// A name of a fixed set.
        reason: &'static str,
        /// It holds nothing of the request but by how much a time is off and which part of the URL
        /// differs.
        error: &'d (dyn Error + 'd),
        fault: Fault,
        /// How far `iat` lies behind the clock, where that is the reason.
        skew_seconds: Option<f64>,
    },
}

/// What is said of an accepted proof.
#[derive(Clone, Copy)]
pub(crate) struct ProofFacts {
    pub(crate) algorithm: &'static str,
    /// How far `iat` lies behind the clock.
    pub(crate) skew_seconds: f64,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A resource server, about a request under this scheme.
    Resource { scheme: &'static str },
    /// A token endpoint, or one for pushed authorization requests.
    Token,
}

/// What comes of a decision against a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    Refused,
    /// Report-only mode.
    Reported,
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Client,
    Server,
}

impl Consequence {
    const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reported => "reported",
        }
    }
}

impl Decision<'_> {
    /// Counts the decision, and says it in one event.
    pub(crate) fn report(&self, server: Server) {
        match *self {
            Self::Accepted(proof) => {
                count(server, "accepted", "none");
                if let Some(proof) = proof {
                    clock_skew("accepted", proof.skew_seconds);
                }
                accepted(server, proof);
            }
            Self::Refused {
                consequence,
                reason,
                error,
                fault,
                skew_seconds,
            } => {
                count(server, consequence.name(), reason);
                if let Some(skew_seconds) = skew_seconds {
                    clock_skew(consequence.name(), skew_seconds);
                }
                let subject = match server {
                    Server::Resource { .. } => "request",
                    Server::Token => "token request",
                };
                let what = match consequence {
                    Consequence::Refused => "refused",
                    Consequence::Reported => "would be refused, and passes",
                };
                let scheme = scheme(server);
                match fault {
                    Fault::Server => {
                        tracing::error!(target: TARGET, reason, description = %error, scheme, detail = ?error, "{subject} {what}: cannot decide");
                    }
                    Fault::Client => {
                        tracing::info!(target: TARGET, reason, description = %error, scheme, detail = ?error, "{subject} {what}");
                    }
                }
            }
        }
    }
}

/// The target of every event about a decision.
const TARGET: &str = "tower_dpop";

fn accepted(server: Server, proof: Option<ProofFacts>) {
    let scheme = scheme(server);
    let algorithm = proof.map(|proof| tracing::field::display(proof.algorithm));
    let skew_seconds = proof.map(|proof| proof.skew_seconds);
    match server {
        Server::Resource { .. } => {
            tracing::debug!(target: TARGET, scheme, algorithm, skew_seconds, "request accepted");
        }
        Server::Token => {
            tracing::debug!(target: TARGET, algorithm, skew_seconds, "token request accepted");
        }
    }
}

/// Token requests have none: the proof is all that is presented.
const fn scheme(server: Server) -> Option<&'static str> {
    match server {
        Server::Resource { scheme } => Some(scheme),
        Server::Token => None,
    }
}

fn count(server: Server, decision: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    {
        // Labels that stand in the macro are not allocated: what most requests come to has them.
        let counter = match (server, decision) {
            (Server::Resource { scheme: "dpop" }, "accepted") => {
                metrics::counter!(REQUESTS, "decision" => "accepted", "scheme" => "dpop", "reason" => "none")
            }
            (Server::Resource { scheme }, _) => {
                metrics::counter!(REQUESTS, "decision" => decision, "scheme" => scheme, "reason" => reason)
            }
            (Server::Token, _) => {
                metrics::counter!(TOKEN_REQUESTS, "decision" => decision, "reason" => reason)
            }
        };
        counter.increment(1);
    }
}

/// How far behind our clock a proof was made.
fn clock_skew(decision: &'static str, seconds: f64) {
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
