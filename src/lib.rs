//! DPoP ([RFC 9449](https://www.rfc-editor.org/rfc/rfc9449)) for resource servers: a tower layer
//! that lets a request through only when its proof and its access token hold together.
//!
//! A stolen bearer token works for anyone. A DPoP-bound one works only for the holder of the
//! client's private key: with each request the client signs a *proof* (a JWT that names the method,
//! the URL, the time, the token, and has an identifier of its own), and the server lets the request
//! pass only if the key that signed the proof is the key the token is bound to, and the proof was
//! never used before.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, service_fn};
//! use tower_dpop::{BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, PublicUrl, Verifier};
//!
//! # fn example(jwks: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let keys: KeySet = jwks.parse()?; // the issuer's JWK Set
//! let verifier = Verifier::new(
//!     "https://api.example.com".parse::<PublicUrl>()?, // how clients reach us
//!     JwtVerifier::new("https://as.example.com", "https://api.example.com", keys),
//! );
//!
//! let service = ServiceBuilder::new().layer(DpopLayer::new(verifier)).service(service_fn(
//!     async |request: Request<String>| {
//!         let token: &BoundToken = request.extensions().get().expect("set by the layer");
//!         Ok::<_, std::convert::Infallible>(Response::new(format!("hello {}", token.claims().subject())))
//!     },
//! ));
//! # let _ = service;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `jwks` the keys come from the issuer itself and follow its rotation; with
//! `introspection`, tokens may be opaque. With `axum`, handlers take a [`BoundToken`] as an argument.
//! The other two parties of the protocol are [`token_endpoint`] and the feature `client`; `testing` is a kit for the
//! tests of your own service.
//!
//! # Where to start reading
//!
//! [`Verifier::verify`] is the table of contents: one request's whole path on one screen. The rooms
//! stand in their order: each uses only those above it, and each answers one question.
//!
//! | room | question |
//! |---|---|
//! | `time`, `sync`, `cache`, [`telemetry`], `credentials`, `uri` | the ground floor: words that every room uses |
//! | [`jose`] | what are keys, algorithms and signed objects, read strictly? |
//! | [`proof`] | is the proof good? |
//! | [`tokens`] | is the access token good? |
//! | [`resource`] | may the request pass? |
//! | [`token_endpoint`] | the same at the authorization server |
#![cfg_attr(
    feature = "client",
    doc = "| [`client`] | the other end: keys, proofs, and layers that sign requests |"
)]
#![cfg_attr(feature = "axum", doc = "| [`extract`] | extractors for axum |")]
#![cfg_attr(
    feature = "testing",
    doc = "| [`testing`] | how do I test my own service? |"
)]
//!
//! # What is never optional
//!
//! The public URL comes from configuration, never from `Host` or `X-Forwarded-*`; replays are
//! detected; algorithms are an allow-list on which `none` and MACs cannot stand; a store or an
//! issuer out of reach refuses the request. What weakens a check says so in its name.
//!
//! # Features
//!
//! - `aws-lc-rs` (default): verifies signatures with AWS-LC.
//! - `rust-crypto`: verifies signatures without C code, for `default-features = false`. Both accept
//!   and refuse the same.
//! - `axum`: extractors, and the original path of requests inside `Router::nest`.
//! - `client`: keys, proofs, and tower layers for HTTP clients.
//! - `introspection`: opaque tokens, asked about at the authorization server.
//! - `jwks`: discovery of issuers, and their keys as they rotate.
//! - `precomputed-keys`: ES256 for keys that recur, by multiples of the key's point, which is arithmetic of this crate.
//!   Without it the engine verifies every signature.
//! - `metrics`: what is counted and measured goes to the facade of the crate `metrics`.
//! - `testing`: a kit for the tests of services behind the layer.

pub(crate) mod time;
pub(crate) mod sync;
pub(crate) mod cache;
pub mod telemetry;
pub(crate) mod credentials;
pub(crate) mod uri;
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
#[cfg(all(fuzzing, feature = "precomputed-keys"))]
#[doc(hidden)]
pub mod fuzzing;

#[doc(inline)]
pub use crate::jose::algorithm::{Algorithm, Algorithms};
#[doc(inline)]
pub use crate::jose::jwk::Thumbprint;
#[doc(inline)]
pub use crate::proof::freshness::Freshness;
#[doc(inline)]
pub use crate::proof::nonce::{NonceSecret, StatelessNonces};
#[doc(inline)]
pub use crate::proof::replay::memory::MemoryReplayStore;
#[doc(inline)]
pub use crate::proof::replay::store::ReplayStore;
#[doc(inline)]
pub use crate::proof::rules::ProofRules;
#[doc(inline)]
pub use crate::proof::target::PublicUrl;
#[doc(inline)]
pub use crate::resource::authorization::RequireScopes;
#[doc(inline)]
pub use crate::resource::bearer::{AcceptedToken, BearerToken};
#[doc(inline)]
pub use crate::resource::bound_token::BoundToken;
#[doc(inline)]
pub use crate::resource::layer::DpopLayer;
#[doc(inline)]
pub use crate::resource::rejection::Rejection;
#[doc(inline)]
pub use crate::resource::verifier::Verifier;
#[doc(inline)]
pub use crate::time::Timestamp;
#[doc(inline)]
pub use crate::tokens::claims::Claims;
#[doc(inline)]
pub use crate::tokens::issuers::Issuers;
#[cfg(feature = "jwks")]
#[doc(inline)]
pub use crate::tokens::jwks::remote_keys::RemoteKeys;
#[doc(inline)]
pub use crate::tokens::jwt::JwtVerifier;
#[doc(inline)]
pub use crate::tokens::key_set::KeySet;

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
