//! What the crate counts and measures, through the facade of the `metrics` crate (feature
//! `metrics`).
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | [`REQUESTS`] | counter | `decision` (`accepted`, `rejected`, `reported`), `scheme` (`dpop`, `bearer`, `none`), `reason` ([`Rejection::reason`](crate::Rejection::reason), `none` for accepted requests) |
//! | [`TOKEN_REQUESTS`] | counter of requests to the authorization server | `decision` (`accepted`, `rejected`), `reason` ([`TokenRequestRejection::reason`](crate::token_endpoint::TokenRequestRejection::reason)) |
//! | [`CLOCK_SKEW`] | histogram, seconds: how far `iat` is behind the server's clock, negative if it is ahead, limited to one day in either direction | `decision` |
//! | [`REPLAY_RECORDS`], [`REPLAY_LIMIT`] | gauges of this process's replay store, as of the last proof; with several stores, of the one that checked the last proof | |
//! | [`REPLAY_CLAIMS_BY_NODE_MEMORY`] | counter of the uses of proofs about which the memory of this node decided alone ([`WhileUnavailable`](crate::proof::WhileUnavailable)) | |
//! | [`REPLAY_CLAIMS`] | counter of claims at a replay store over a network (feature `redis`) | `store` (`redis`), `result` (`first`, `own_repeated` (first, and repeated because the connection was cut), `replayed`, `full`, `other_store`, `slow`, `unavailable`) |
//! | [`REPLAY_CLAIM_SECONDS`] | histogram: how long these claims take | `store` |
//! | [`REPLAY_WAITING`] | gauge: claims that wait for the store, read once per second | |
//! | [`REPLAY_UP`], [`REPLAY_EVICTING`] | gauges, 1 or 0: whether claims reach the store; whether it removes records when its memory is full | |
//! | [`REPLAY_CONNECTIONS`] | counter of connections to the store | `cause` (`start`, `cut`, `silent`, `readonly`, `probe`): why a new one was needed |
//! | [`REPLAY_EPOCHS`] | counter: how often the store was found to have other records ([`Epoch`](crate::proof::Epoch)) | |
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
//! The target of every event is `tower_dpop`, or begins with `tower_dpop::`. No feature is required. Each decision is one
//! event with the target `tower_dpop`. An accepted request has the level `debug` and the fields `scheme` (at a resource
//! server) and, if there was a proof, `algorithm` and `skew_seconds`. A rejection has the level `info` (`error` if the
//! server could not decide) and these fields, each only where it is known:
//!
//! | field | value |
//! |---|---|
//! | `reason` | as in the metric |
//! | `description` | a sentence |
//! | `expected` | the configuration that the request does not meet: the public URLs, the issuer, the audience, algorithms, scopes, … |
//! | `detail` | which part of the URL differs, by how many seconds a timestamp is off |
//! | `hint` | what to look at |
//! | `scheme` | at a resource server: `dpop`, `bearer`, `none` |
//! | `method` | `GET`, `POST`, …; `_OTHER` for methods that are not in [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-9.3) or [RFC 5789](https://www.rfc-editor.org/rfc/rfc5789) |
//! | `route` | with the feature `axum`: the route that matched, as it was given to the router |
//! | `jkt` | the thumbprint of the client's key, once a signature by it was verified |
//!
//! Apart from a standard method, the `jkt` and the values of `detail`, no event has request data. Method, route and `jkt` are known if a
//! [`DpopLayer`](crate::DpopLayer) decided. Its events are in the span `dpop` (level `debug`).
//!
//! A [`DpopLayer`](crate::DpopLayer) also logs once per verifier, when it first wraps a service, what requests must meet
//! (`info`), and each check that is off (`warn`). A clone that was changed logs its own. So does a [`TokenEndpoint`](crate::token_endpoint::TokenEndpoint), when a layer
//! with it first wraps a service, or at its first request.
//!
//! An issuer's key that cannot be used is one event with the target `tower_dpop` and the level `warn`, when its key set
//! is read ([`KeySet`](crate::KeySet)). It has the fields `kid`, `index` (its place in the set, from 0), `reason` and, if
//! the set was fetched, `issuer`.
#![cfg_attr(
    not(feature = "metrics"),
    allow(unused_variables, reason = "every function is empty then")
)]

pub(crate) mod replay_store;

use std::error::Error;
use std::fmt;

use http::Method;

pub use crate::telemetry::replay_store::shared::{
    REPLAY_CLAIM_SECONDS, REPLAY_CLAIMS, REPLAY_CONNECTIONS, REPLAY_EPOCHS, REPLAY_EVICTING,
    REPLAY_UP, REPLAY_WAITING,
};
pub use crate::telemetry::replay_store::{
    REPLAY_CLAIMS_BY_NODE_MEMORY, REPLAY_LIMIT, REPLAY_RECORDS,
};

/// Decisions about requests.
pub const REQUESTS: &str = "tower_dpop_requests_total";
/// Decisions about token requests and pushed authorization requests.
pub const TOKEN_REQUESTS: &str = "tower_dpop_token_requests_total";
/// How far clients' clocks are off.
pub const CLOCK_SKEW: &str = "tower_dpop_clock_skew_seconds";
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
    use metrics::{Unit, describe_counter, describe_histogram};

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
    replay_store::describe();
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
        /// Called only if the event is logged.
        explain: &'d dyn Fn() -> Explanation,
    },
}

/// What the log says about a rejection besides its reason.
#[derive(Default)]
pub(crate) struct Explanation {
    /// The configuration that the request does not meet.
    pub(crate) expected: Option<String>,
    /// No request data, except how many seconds a timestamp is off and which part of the URL differs.
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<&'static str>,
}

impl Explanation {
    pub(crate) fn expected(expected: Option<String>) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }
}

/// What is reported about an accepted proof.
#[derive(Clone, Copy)]
pub(crate) struct ProofFacts {
    pub(crate) algorithm: &'static str,
    /// How far `iat` is behind the clock.
    pub(crate) skew_seconds: f64,
}

/// The server that decided.
#[derive(Clone, Copy)]
pub(crate) enum Server<'r> {
    /// A resource server, about this request.
    Resource(ResourceRequest<'r>),
    /// A token endpoint, or an endpoint for pushed authorization requests.
    Token,
}

/// What is reported about a request to a resource server. Nothing that its client chose freely.
#[derive(Clone, Copy)]
pub(crate) struct ResourceRequest<'r> {
    pub(crate) scheme: &'static str,
    pub(crate) method: Option<&'static str>,
    pub(crate) route: Option<&'r str>,
    pub(crate) jkt: Option<&'r dyn fmt::Display>,
}

impl Server<'_> {
    /// A resource server, about an accepted request.
    pub(crate) const fn accepting(scheme: &'static str) -> Self {
        Self::Resource(ResourceRequest {
            scheme,
            method: None,
            route: None,
            jkt: None,
        })
    }
}

/// The name of a method in events. Clients can invent methods, so only the standard ones have a name.
pub(crate) fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::CONNECT => "CONNECT",
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::TRACE => "TRACE",
        // The name that OpenTelemetry's conventions give to all others.
        _ => "_OTHER",
    }
}

/// The name of a type, without the paths of its modules.
pub(crate) fn short_type_name(name: &str) -> String {
    name.split("::").fold(String::new(), |before, part| {
        let path = before.rfind(|c: char| !c.is_alphanumeric() && c != '_');
        let kept = path.map_or(0, |at| at + 1);
        format!("{}{part}", &before[..kept])
    })
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
    pub(crate) fn report(&self, server: Server<'_>) {
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
                explain,
            } => {
                count(server, consequence.name(), reason);
                if let Some(skew_seconds) = skew_seconds {
                    clock_skew(consequence.name(), skew_seconds);
                }
                let event = RejectionEvent {
                    server,
                    consequence,
                    reason,
                    error,
                };
                match fault {
                    Fault::Server => event.emit_as_error(),
                    Fault::Client if tracing::enabled!(target: TARGET, tracing::Level::INFO) => {
                        event.emit(explain());
                    }
                    Fault::Client => {}
                }
            }
        }
    }
}

/// The event about a rejection.
struct RejectionEvent<'e> {
    server: Server<'e>,
    consequence: Consequence,
    reason: &'static str,
    error: &'e (dyn Error + 'e),
}

impl RejectionEvent<'_> {
    fn emit(&self, explanation: Explanation) {
        let Self { reason, error, .. } = *self;
        let (scheme, method, route, jkt) = self.request();
        let Explanation {
            expected,
            detail,
            hint,
        } = explanation;
        let message = self.message();
        tracing::info!(target: TARGET, reason, description = %error, expected, detail, hint, scheme, method, route, jkt, "{message}");
    }

    fn emit_as_error(&self) {
        let Self { reason, error, .. } = *self;
        let (scheme, method, route, jkt) = self.request();
        let message = self.message();
        tracing::error!(target: TARGET, reason, description = %error, scheme, method, route, jkt, "{message}: cannot decide");
    }

    fn message(&self) -> String {
        let subject = match self.server {
            Server::Resource(_) => "request",
            Server::Token => "token request",
        };
        let what = match self.consequence {
            Consequence::Rejected => "rejected",
            Consequence::Reported => "would be rejected, and passes",
        };
        format!("{subject} {what}")
    }

    /// Scheme, method, route and `jkt`. Token requests have no scheme: they present only a proof.
    fn request(&self) -> RequestFields<'_> {
        match self.server {
            Server::Resource(request) => (
                Some(request.scheme),
                request.method,
                request.route,
                request.jkt.map(tracing::field::display),
            ),
            Server::Token => (None, None, None, None),
        }
    }
}

type RequestFields<'e> = (
    Option<&'static str>,
    Option<&'static str>,
    Option<&'e str>,
    Option<tracing::field::DisplayValue<&'e dyn fmt::Display>>,
);

/// The target of every event about a decision, and about an issuer's key that cannot be used.
pub(crate) const TARGET: &str = "tower_dpop";

fn accepted(server: Server<'_>, proof: Option<ProofFacts>) {
    let algorithm = proof.map(|proof| tracing::field::display(proof.algorithm));
    let skew_seconds = proof.map(|proof| proof.skew_seconds);
    match server {
        Server::Resource(ResourceRequest { scheme, .. }) => {
            tracing::debug!(target: TARGET, scheme, algorithm, skew_seconds, "request accepted");
        }
        Server::Token => {
            tracing::debug!(target: TARGET, algorithm, skew_seconds, "token request accepted");
        }
    }
}

fn count(server: Server<'_>, decision: &'static str, reason: &'static str) {
    #[cfg(feature = "metrics")]
    {
        // Literal labels in the macro are not allocated, so the most frequent case uses them.
        let counter = match (server, decision) {
            (Server::Resource(ResourceRequest { scheme: "dpop", .. }), "accepted") => {
                metrics::counter!(REQUESTS, "decision" => "accepted", "scheme" => "dpop", "reason" => "none")
            }
            (Server::Resource(ResourceRequest { scheme, .. }), _) => {
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
