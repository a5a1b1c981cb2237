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
//!         let token: &BoundToken<Claims> = request.extensions().get().expect("set by the layer");
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
//! The other two parties of the protocol are the features `client` and `authorization-server`; `testing` is a kit for the
//! tests of your own service.
//!
//! # Where to start reading
//!
//! [`Verifier::verify`] is the table of contents: one request's whole path on one screen. The
//! modules stand in the order in which a request meets them, and each uses only those above it:
//!
//! | module | question |
//! |---|---|
//! | `cache` | what may be forgotten at any time? |
//! | [`jose`] | what are keys, algorithms and signed objects, read strictly? |
//! | [`freshness`] | how old may a proof be, and how long must it be remembered? |
//! | [`telemetry`] | what is counted and measured? |
//! | [`credentials`] | which token and which proof does the request carry? |
//! | [`target`] | what must the proof say of method and URL? |
//! | [`nonce`] | which nonces are ours? |
//! | [`proof`] | does the proof hold? |
//! | [`token`], [`token_cache`] | what is an access token, and how long does a verdict about it hold? |
//! | [`issuer_keys`], [`jwt`] | is a signed token good? |
#![cfg_attr(
    feature = "_http",
    doc = "| [`http_client`] | how are issuers asked? |"
)]
#![cfg_attr(
    feature = "jwks",
    doc = "| [`jwks`] | which keys does the issuer sign with today? |"
)]
#![cfg_attr(
    feature = "introspection",
    doc = "| [`introspection`] | what does the authorization server say of an opaque token? |"
)]
//! | [`issuers`] | of several issuers, whose token is it? |
//! | [`binding`] | is the token bound to the proof's key? |
//! | [`quoted_text`], [`requirement`] | what does a route ask of a token? |
//! | [`bearer`] | may a token pass that is bound to nothing? |
//! | [`replay`] | was the proof used before? |
//! | `proof_policy` | what are the steps that both servers share? |
//! | [`rejection`], `challenge` | what is a refused client told? |
//! | [`verifier`] | all of the above, in order |
//! | [`layer`] | tower |
//! | [`authorization`] | tower, for what a route asks of a token |
//! | [`metadata`] | what can a client know before it asks for a token? |
#![cfg_attr(
    feature = "authorization-server",
    doc = "| [`token_endpoint`] | the same steps at the authorization server |"
)]
#![cfg_attr(feature = "axum", doc = "| [`axum`] | extractors |")]
#![cfg_attr(
    feature = "client",
    doc = "| [`client`] | the other end: keys, proofs, and layers that sign requests |"
)]
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
//! - `authorization-server`: the proof check of token and pushed authorization requests.
//! - `axum`: extractors, and the original path of requests inside `Router::nest`.
//! - `client`: keys, proofs, and tower layers for HTTP clients.
//! - `introspection`: opaque tokens, asked about at the authorization server.
//! - `jwks`: discovery of issuers, and their keys as they rotate.
//! - `metrics`: what is counted and measured goes to the facade of the crate `metrics`.
//! - `testing`: a kit for the tests of services behind the layer.

pub(crate) mod cache;
pub mod jose;
pub mod freshness;
pub mod telemetry;
pub mod credentials;
pub(crate) mod uri;
pub mod target;
pub mod nonce;
pub mod proof;
pub mod token;
pub mod token_cache;
pub mod issuer_keys;
pub mod jwt;
#[cfg(feature = "_http")]
pub mod http_client;
#[cfg(feature = "jwks")]
pub mod jwks;
#[cfg(feature = "introspection")]
pub mod introspection;
pub mod issuers;
pub mod binding;
pub mod quoted_text;
pub mod requirement;
pub mod bearer;
pub mod replay;
pub(crate) mod proof_policy;
pub mod rejection;
pub(crate) mod challenge;
pub mod verifier;
pub mod layer;
pub mod authorization;
pub mod metadata;
#[cfg(feature = "authorization-server")]
pub mod token_endpoint;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

pub use crate::binding::BoundToken;
pub use crate::freshness::Freshness;
pub use crate::issuer_keys::KeySet;
pub use crate::jose::algorithm::{Algorithm, Algorithms};
pub use crate::jwt::{Claims, JwtVerifier};
pub use crate::layer::DpopLayer;
pub use crate::nonce::{NonceSecret, StatelessNonces};
pub use crate::rejection::Rejection;
pub use crate::replay::memory::MemoryReplayStore;
pub use crate::target::PublicUrl;
pub use crate::verifier::Verifier;

/// The README's code, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
