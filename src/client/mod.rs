//! The client's side of DPoP: a key pair, proofs, and two tower layers that sign requests. (Feature
//! `client`.)
//!
//! | module | question |
//! |---|---|
//! | `signer` | which key signs? |
//! | `token` | which access token is presented? |
//! | `new_proof` | what does a proof say? |
//! | `challenge` | what does a refusal say? |
//! | `body` | how is a body kept, and looked into? |
//! | `servers` | what is known of each server: its latest nonce, its clock? |
//! | `exchange` | how often is a request sent, and where to? |
//! | `resources` | tower, for requests with an access token |
//! | `token_requests` | tower, for requests to the authorization server |
//!
//! # Example
//!
//! Both layers go around any service that sends `http` requests: hyper-util's client here, with the
//! body type of your choice. reqwest needs an adapter of a few lines (`examples/reqwest.rs`).
//!
//! ```
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_dpop::client::{AccessTokenText, DpopClientLayer, TokenClientLayer, TokenResponse};
//! use tower_dpop::jose::SigningKey;
//! use tower_dpop::PublicUrl;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // In earnest with a connector for HTTPS, hyper-rustls for instance.
//! let http: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
//! let key = SigningKey::generate()?;
//!
//! // A token that is bound to the key. A demand for a nonce is answered by the layer.
//! let authorization_server: PublicUrl = "https://as.example.com".parse()?;
//! let mut token_endpoint = ServiceBuilder::new()
//!     .layer(TokenClientLayer::new(key.clone(), authorization_server))
//!     .service(http.clone());
//! let request = Request::post("https://as.example.com/token")
//!     .header("content-type", "application/x-www-form-urlencoded")
//!     .body(Full::from("grant_type=client_credentials"))?;
//! let response = token_endpoint.ready().await?.call(request).await?;
//! let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
//! let granted = TokenResponse::from_json(&body)?;
//!
//! // Requests with the token: to this server and to no other.
//! let api: PublicUrl = "https://api.example.com".parse()?;
//! let mut client = ServiceBuilder::new()
//!     .layer(DpopClientLayer::new(key, granted.access_token().clone(), api))
//!     .service(http);
//! let request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! let response = client.ready().await?.call(request).await?;
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! # Redirects
//!
//! The layers follow none. A layer that does (tower-http's `FollowRedirect`) goes outside of them,
//! so that each request it sends gets a proof of its own, and one that leads to another server gets
//! neither token nor proof. A client that follows redirects by itself, inside of the layer, must be
//! told not to (reqwest: `redirect::Policy::none()`): it would send the proof on.

pub(crate) mod signer;
pub(crate) mod token;
pub(crate) mod new_proof;
pub(crate) mod challenge;
pub(crate) mod body;
pub(crate) mod servers;
pub(crate) mod exchange;
pub(crate) mod resources;
pub(crate) mod token_requests;

pub use crate::client::body::{BodyCopy, CloneBody, ResponseBody};
pub use crate::client::challenge::Challenge;
pub use crate::client::exchange::ClientError;
pub use crate::client::new_proof::{InvalidRequestUrl, NewProof, SignedProof};
pub use crate::client::resources::{DpopClient, DpopClientLayer};
pub use crate::client::signer::ProofSigner;
pub use crate::client::token::{
    AccessTokenText, InvalidAccessToken, InvalidTokenResponse, TokenErrorResponse, TokenResponse,
    TokenSource, TokenSourceError,
};
pub use crate::client::token_requests::{TokenClient, TokenClientLayer};
