//! What the crate counts and measures, through the facade of the `metrics` crate (feature
//! `metrics`).
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`REQUESTS`] | counter | `decision` (`accepted`, `rejected`, `reported`), `scheme` (`dpop`, `bearer`, `none`), `reason` ([`Rejection::reason`](crate::Rejection::reason), `none` for accepted requests) |
//! | [`TOKEN_REQUESTS`] | counter of requests to the authorization server | `decision` (`accepted`, `rejected`), `reason` ([`TokenRequestRejection::reason`](crate::token_endpoint::TokenRequestRejection::reason)) |
//! | [`CLOCK_SKEW`] | histogram, seconds: how far `iat` is behind the server's clock, negative if it is ahead, limited to one day in either direction | `decision` |
//! | [`REPLAY_RECORDS`], [`REPLAY_LIMIT`] | gauges of this process's replay store, as of the last proof; with several stores, of the one that checked the last proof | |
//! | [`TOKEN_CACHE`] | counter | `result` (`hit`, `miss`) |
//! | [`KEY_FETCHES`] | counter | `cause` (`start`, `scheduled`, `demanded`), `result` (`changed`, `unchanged`, `failed`) |
//! | [`INTROSPECTIONS`] | counter of requests to the introspection endpoint | `result` (`active`, `inactive`, `failed`) |
//!
//! No label value comes from a request, so the number of label values is bounded.
//!
//! Each decision is counted. A request that the layer accepts and an inner layer
//! ([`RequireScopesLayer`](crate::RequireScopesLayer)) rejects is counted twice, once per decision. So is a token
//! request that the endpoint accepts and the application rejects. Preflights that are passed through are not counted.
//!
//! # `tracing`
//!
//! Each decision is one event with the target `tower_dpop`. No feature is required. A rejection has the level `info`
//! (`error` if the server could not decide) and the fields `reason` (as in the metric), `description` (a sentence),
//! `detail` and, at a resource server, `scheme`. An accepted request has the level `debug` and the fields `scheme` (at
//! a resource server) and, if there was a proof, `algorithm` and `skew_seconds`. The layer's events are in the span
//! `dpop` (level `debug`). The detail contains no request data, except how many seconds a timestamp is off and which
//! part of the URL differs.
//!
//! An issuer's key that cannot be used is one event with the same target and the level `warn`, when its key set is
//! read ([`KeySet`](crate::KeySet)). It has the fields `kid`, `index` (its place in the set, from 0), `reason` and, if
//! the set was fetched, `issuer`.
#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "every function is empty then")
)]

use std::error::Error;

/// Decisions about requests.
pub const REQUESTS: &str = "tower_dpop_requests_total";
/// Decisions about token requests and pushed authorization requests.
pub const TOKEN_REQUESTS: &str = "tower_dpop_token_requests_total";
/// How far clients' clocks are off.
pub const CLOCK_SKEW: &str = "tower_dpop_clock_skew_seconds";
/// Records in the replay store.
pub const REPLAY_RECORDS: &str = "tower_dpop_replay_records";
/// The maximum number of records in the replay store.
pub const REPLAY_LIMIT: &str = "tower_dpop_replay_limit";
/// Access tokens that were found, or not found, in a cache of verified tokens.
pub const TOKEN_CACHE: &str = "tower_dpop_token_cache_total";
/// Fetches of issuers' keys.
pub const KEY_FETCHES: &str = "tower_dpop_key_fetches_total";
/// Requests to introspection endpoints.
pub const INTROSPECTIONS: &str = "tower_dpop_introspections_total";

/// Registers the descriptions and units of the metrics with the recorder. Call it once, after
/// installing a recorder.
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
    describe_gauge!(REPLAY_RECORDS, Unit::Count, "Records in the replay store");
    describe_gauge!(
        REPLAY_LIMIT,
        Unit::Count,
        "Maximum number of records in the replay store"
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

/// Whether a token was found in a cache.
#[derive(Clone, Copy)]
pub(crate) enum Cached {
    Hit,
    Miss,
}

pub(crate) fn token_cache(cached: Cached) {
    #[cfg(feature = "metrics")]
    {
        // Literal labels in the macro are not allocated.
        match cached {
            Cached::Hit => metrics::counter!(TOKEN_CACHE, "result" => "hit"),
            Cached::Miss => metrics::counter!(TOKEN_CACHE, "result" => "miss"),
        }
        .increment(1);
    }
}

/// A server's decision about a request, as the event and the metrics report it.
pub(crate) enum Decision<'d> {
    /// The request is accepted. The algorithm and the skew are those of its proof.
    Accepted(Option<ProofFacts>),
    /// The request is rejected, or would be if the layer enforced its decisions.
    Rejected {
        consequence: Consequence,
        /// A name from a fixed set.
        reason: &'static str,
        /// It contains no request data, except how many seconds a timestamp is off and which part of
        /// the URL differs.
        error: &'d (dyn Error + 'd),
        fault: Fault,
        /// How far `iat` is behind the clock, if that is the reason.
        skew_seconds: Option<f64>,
    },
}

/// What is reported about an accepted proof.
#[derive(Clone, Copy)]
pub(crate) struct ProofFacts {
    pub(crate) algorithm: &'static str,
    /// How far `iat` is behind the clock.
    pub(crate) skew_seconds: f64,
}

/// The server that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A resource server, about a request under this scheme.
    Resource { scheme: &'static str },
    /// A token endpoint, or an endpoint for pushed authorization requests.
    Token,
}

/// The consequence of a decision against a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    Rejected,
    /// Report-only mode.
    Reported,
}

/// Whose fault a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Client,
    Server,
}

impl Consequence {
    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Reported => "reported",
        }
    }
}

impl Decision<'_> {
    /// Counts the decision, and emits one event.
    pub(crate) fn report(&self, server: Server) {
        match *self {
            Self::Accepted(proof) => {
                count(server, "accepted", "none");
                if let Some(proof) = proof {
                    clock_skew("accepted", proof.skew_seconds);
                }
                accepted(server, proof);
            }
            Self::Rejected {
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
                    Consequence::Rejected => "rejected",
                    Consequence::Reported => "would be rejected, and passes",
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

/// The target of every event about a decision, and about an issuer's key that cannot be used.
pub(crate) const TARGET: &str = "tower_dpop";

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

/// Token requests have no scheme: they present only a proof.
const fn scheme(server: Server) -> Option<&'static str> {
    match server {
        Server::Resource { scheme } => Some(scheme),
        Server::Token => None,
    }
}

fn count(server: Server, decision: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    {
        // Literal labels in the macro are not allocated, so the most frequent case uses them.
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

/// Records how far the `iat` of a proof is behind the server's clock.
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

/// Anyone can send any `iat`, even without a token. An `iat` in the year 10^300 must not dominate
/// the sum of all others.
#[cfg(feature = "metrics")]
const LONGEST_SKEW: f64 = 86_400.0;

/// Records how full the replay store is.
pub(crate) fn replay_store(live: usize, limit: usize) {
    #[cfg(feature = "metrics")]
    #[expect(clippy::cast_precision_loss, reason = "no store has 2^52 records")]
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

/// A request to an introspection endpoint.
#[cfg(feature = "introspection")]
pub(crate) fn introspection(result: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(INTROSPECTIONS, "result" => result).increment(1);
}
