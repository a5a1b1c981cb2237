//! DPoP ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)) for resource servers: a tower layer that accepts a request only
//! if its DPoP proof is valid and bound to its access token. A stolen token is useless without its client's private key.
//!
#![cfg_attr(all(feature = "axum", feature = "jwks"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "axum", feature = "jwks")), doc = "```ignore")]
//! use axum::{Router, routing::get};
//! use tower_dpop::tokens::{EndpointUrl, HttpClient};
//! use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, PublicUrl, RemoteKeys, Verifier};
//!
//! async fn app() -> Result<Router, Box<dyn std::error::Error>> {
//!     // Whose tokens are accepted. Its keys are found by discovery, and follow their rotation.
//!     let issuer: EndpointUrl = "https://as.example.com".parse()?;
//!     let keys = RemoteKeys::discover(issuer.clone(), HttpClient::new()?).fetched().await?;
//!     let tokens = JwtVerifier::new(issuer.as_str(), "https://api.example.com", keys);
//!
//!     // How clients reach this service. Proofs must name it; it is never taken from a request.
//!     let url: PublicUrl = "https://api.example.com".parse()?;
//!     let dpop = DpopLayer::new(Verifier::new(url, tokens));
//!     Ok(Router::new().route("/orders", get(orders)).route_layer(dpop))
//! }
//!
//! // No other code can make a `BoundToken`, so this handler cannot be reached without one.
//! async fn orders(token: BoundToken) -> String {
//!     format!("the orders of {}\n", token.claims().subject().unwrap_or("a machine"))
//! }
//! ```
//!
//! It needs the features `axum` and `jwks`. Without `axum`, a handler takes `Extension<BoundToken>`; without a framework, see
//! [`Verifier`].
//!
//! # Ten tasks
//!
//! | to | read | start with |
//! |---|---|---|
//! | protect a service | [tutorial](guide::protect_a_service), [configuration](guide::configuration) | [`DpopLayer`], [`Verifier`], [`ProofRules`] |
//! | accept your issuer's tokens | [access tokens](guide::access_tokens), [products](guide::issuers) | [`JwtVerifier`], [`Issuers`], [`Profile`](tokens::Profile), [`Claims`] |
//! | require scopes, or a recent login | [scopes and step-up](guide::scopes_and_step_up) | [`RequireScopesLayer`], [`RequireAuthenticationLayer`](resource::RequireAuthenticationLayer) |
//! | move from bearer tokens | [moving from Bearer](guide::moving_from_bearer) | [`Verifier::allow_bearer`] |
//! | run behind a proxy, on several nodes | [proxies](guide::proxies), [several nodes](guide::several_nodes) | [`PublicUrl`], [`ReplayStore`], [`StatelessNonces`] |
//! | see what happens | [logs, metrics, alerts](guide::logs_metrics_alerts), [troubleshooting](guide::troubleshooting) | [`Rejection`], [`telemetry`] |
//! | serve browsers | [JSON errors and CORS](guide::errors_and_cors), [browser apps](guide::browser_apps) | [`ProblemDetailsLayer`](resource::ProblemDetailsLayer), [`cors_allow_headers`](resource::cors_allow_headers) |
//! | call a protected API | [the client](guide::client) | [`client`](client/index.html) |
//! | issue bound tokens | [the authorization server](guide::authorization_server) | [`TokenEndpointLayer`](token_endpoint::TokenEndpointLayer) |
//! | test your service | [testing](guide::testing) | [`assert_protected`](testing/fn.assert_protected.html) |
//!
//! # What is never optional
//!
//! The public URL comes from configuration, never from `Host` or `X-Forwarded-*`. Replays are detected. The algorithms
//! are an allow-list that cannot contain `none` or a MAC. If a request cannot be checked, because the replay store or
//! the issuer's keys are unavailable, it is rejected. Every option that weakens a check says so in its name
//! ([`WhileUnavailable::insecurely_by_node_memory`](crate::proof::WhileUnavailable::insecurely_by_node_memory) is one).
//! [`Verifier`] says what is not checked.
//!
//! # Modules and features
//!
//! | module | question | feature |
//! |---|---|---|
//! | [`jose`] | how are keys, algorithms and signed objects parsed strictly? | |
//! | [`proof`] | is the proof valid? | `redis`: a replay store that several nodes share |
//! | [`tokens`] | is the access token valid? | `jwks`: issuers' keys over the network; `introspection`: opaque tokens |
//! | [`resource`] | is the request accepted? | |
//! | [`settings`] | how is a verifier built from a document or from variables? | |
//! | [`token_endpoint`] | is a token request accepted, at the authorization server? | |
//! | [`client`](client/index.html) | how does a client sign its requests? | `client`; `reqwest`: a client that also gets tokens |
//! | [`extract`](extract/index.html) | how does an axum handler get its token? | `axum` |
//! | [`testing`](testing/index.html) | how do I test my own service? | `testing` |
//! | [`guide`] | how do I do a task? | |
//!
//! The *engine*, which verifies signatures, is AWS-LC (`aws-lc-rs`, the default), or RustCrypto without C code
//! (`rust-crypto` alone). `precomputed-keys` verifies ES256 signatures by recurring keys with this crate's own arithmetic.
//! `metrics` reports to the `metrics` crate; [`telemetry`] lists what is counted and logged.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(docsrs, doc(auto_cfg(hide(feature = "_http", feature = "_signing"))))]

pub(crate) mod time;
pub(crate) mod sync;
pub(crate) mod cache;
pub mod telemetry;
pub(crate) mod outage;
pub(crate) mod credentials;
pub(crate) mod uri;
pub(crate) mod discard;
pub(crate) mod deserialize;
pub mod jose;
#[cfg(feature = "_http")]
pub(crate) mod issuer;
pub mod proof;
pub mod tokens;
pub mod resource;
pub mod settings;
pub mod token_endpoint;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "axum")]
pub mod extract;
#[cfg(feature = "testing")]
pub mod testing;
pub mod guide;
#[cfg(all(
    fuzzing,
    feature = "client",
    feature = "introspection",
    feature = "jwks",
    feature = "precomputed-keys"
))]
#[doc(hidden)]
pub mod fuzzing;

#[doc(inline)]
pub use crate::jose::{algorithm::Algorithm, algorithm::Algorithms, thumbprint::Thumbprint};
#[doc(inline)]
pub use crate::proof::replay::{memory::MemoryReplayStore, store::ReplayStore};
#[doc(inline)]
pub use crate::proof::{freshness::Freshness, public_url::PublicUrl, rules::ProofRules};
#[doc(inline)]
pub use crate::proof::{
    nonce::StatelessNonces, nonce_secret::NonceSecret, nonce_secret::NonceSecrets,
};
#[doc(inline)]
pub use crate::resource::{
    authorization::RequireScopesLayer, layer::DpopLayer, verifier::Verifier,
};
#[doc(inline)]
pub use crate::resource::{bearer::AcceptedToken, bearer::BearerToken, bound_token::BoundToken};
#[cfg(feature = "jwks")]
#[doc(inline)]
pub use crate::tokens::jwks::remote_keys::RemoteKeys;
#[doc(inline)]
pub use crate::tokens::{claims::Claims, issuers::Issuers, jwt::JwtVerifier, key_set::KeySet};
#[doc(inline)]
pub use crate::{resource::rejection::Rejection, time::Timestamp};

/// Compiles the code in the README, which needs these features.
#[cfg(all(doctest, feature = "axum", feature = "jwks"))]
#[doc = include_str!("../README.md")]
struct Readme;
