//! DPoP ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)) for resource servers: a tower layer that accepts a request only
//! if its DPoP proof is valid and bound to its access token.
//!
//! A stolen bearer token works for anyone. A DPoP-bound one works only with its client's private key: the client signs a
//! *proof* for each request (a JWT that names the method, the URL, the time and the token), and the server accepts the request
//! only if the key that signed the proof is the key that the token is bound to, and the proof was not used before.
//!
//! ```
//! use axum::{Extension, Router, routing::get};
//! use tower_dpop::{BoundToken, DpopLayer, JwtVerifier, KeySet, PublicUrl, Verifier};
//!
//! # fn example(jwks: &str) -> Result<Router, Box<dyn std::error::Error>> {
//! let keys: KeySet = jwks.parse()?; // the issuer's JWK Set
//! let verifier = Verifier::new(
//!     "https://api.example.com".parse::<PublicUrl>()?, // how clients reach us
//!     JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
//! );
//! let app = Router::new().route("/orders", get(orders)).route_layer(DpopLayer::new(verifier));
//! # Ok(app)
//! # }
//!
//! // With the feature `axum`, write `token: BoundToken` instead.
//! async fn orders(Extension(token): Extension<BoundToken>) -> String {
//!     format!("hello {}", token.claims().subject().unwrap_or("a machine"))
//! }
//! ```
//!
//! # Where to go next
//!
//! [`Verifier`] says what is not checked, [`ProofRules`] sets what proofs must meet (nonces, freshness, the replay
//! store), [`JwtVerifier`] what access tokens must meet, and [`Rejection`] lists the responses to rejected requests.
//!
//! | module | question | feature |
//! |---|---|---|
//! | [`jose`] | how are keys, algorithms and signed objects parsed strictly? | |
//! | [`proof`] | is the proof valid? | `redis`: a replay store that several nodes share |
//! | [`tokens`] | is the access token valid? | `jwks`: issuers' keys over the network; `introspection`: opaque tokens |
//! | [`resource`] | is the request accepted? | |
//! | [`token_endpoint`] | is a token request accepted, at the authorization server? | |
//! | [`client`](client/index.html) | how does a client sign its requests? | `client` |
//! | [`extract`](extract/index.html) | how does an axum handler get its token? | `axum` |
//! | [`testing`](testing/index.html) | how do I test my own service? | `testing` |
//! | [`guide`] | how do I run a service on [several nodes](guide::several_nodes)? | |
//!
//! The other features: the *engine*, which verifies signatures, is AWS-LC with `aws-lc-rs` (default), and free of C
//! code with `rust-crypto` alone. `precomputed-keys` verifies ES256 signatures by recurring keys with this crate's own
//! arithmetic. `metrics` reports to the `metrics` crate. [`telemetry`] lists what is counted and logged.
//!
//! # What is never optional
//!
//! The public URL comes from configuration, never from `Host` or `X-Forwarded-*`. Replays are detected. The algorithms
//! are an allow-list that cannot contain `none` or a MAC. If a request cannot be checked, because the replay store or
//! the issuer's keys are unavailable, it is rejected. Every option that weakens a check says so in its name
//! ([`WhileUnavailable::insecurely_by_node_memory`](crate::proof::WhileUnavailable::insecurely_by_node_memory) is one).
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
pub mod jose;
pub mod proof;
pub mod tokens;
pub mod resource;
pub mod token_endpoint;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "axum")]
pub mod extract;
#[cfg(feature = "testing")]
pub mod testing;
pub mod guide;
#[cfg(all(fuzzing, feature = "precomputed-keys"))]
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
