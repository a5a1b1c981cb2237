//! The client side of DPoP: a key pair, proofs, and two tower layers that sign requests. (Feature
//! `client`.) With the feature `reqwest`, there is also a ready client, `DpopClient`, which gets and renews its tokens itself.
//!
//! | source file | question |
//! |---|---|
//! | `signer` | which key signs? |
//! | `token` | which access token is presented? |
//! | `new_proof` | what does a proof say? |
//! | `challenge` | what does a rejection say? |
//! | `body` | how is a body copied, and inspected? |
//! | `servers` | what is known about each server: its latest nonce, its clock? |
//! | `exchange` | how often is a request sent, and where to? |
//! | `resources` | tower layer for requests with an access token |
//! | `token_requests` | tower layer for requests to the authorization server |
//! | `reqwest` | a ready client on top of the layers (feature `reqwest`) |
//!
//! # Example
//!
//! Both layers wrap any service that sends `http` requests. This example uses hyper-util's client,
//! with the body type of your choice. The [guide](crate::guide::client) shows the ready client, logins, and other libraries.
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
//! // In production, use a connector for HTTPS, for example hyper-rustls.
//! let http: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
//! let key = SigningKey::generate()?;
//!
//! // A token bound to the key. The layer handles a demand for a nonce.
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
//! // Requests with the token, to this server only.
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
//! The layers do not follow redirects. Put a layer that does (tower-http's `FollowRedirect`)
//! outside of them, so that each request it sends gets its own proof, and a request that leads to
//! another server gets neither token nor proof. If a client follows redirects by itself, inside of
//! the layer, disable this (reqwest: `redirect::Policy::none()`): the client would send the proof
//! on.

pub(crate) mod signer;
pub(crate) mod token;
pub(crate) mod new_proof;
pub(crate) mod challenge;
pub(crate) mod body;
pub(crate) mod servers;
pub(crate) mod exchange;
pub(crate) mod resources;
pub(crate) mod token_requests;
#[cfg(feature = "reqwest")]
pub(crate) mod reqwest;

pub use crate::client::body::{BodyCopy, CloneBody, ResponseBody};
pub use crate::client::challenge::Challenge;
pub use crate::client::exchange::ClientError;
pub use crate::client::new_proof::{InvalidRequestUrl, NewProof, SignedProof};
#[cfg(feature = "reqwest")]
pub use crate::client::reqwest::{
    builder::DpopClientBuilder, dpop_client::DpopClient, error::DpopClientError,
    error::InvalidCallback, login::PendingLogin, refresh_token::RefreshToken,
    request_builder::DpopRequestBuilder,
};
pub use crate::client::resources::{DpopClientLayer, DpopClientService};
pub use crate::client::signer::ProofSigner;
pub use crate::client::token::{
    AccessTokenText, InvalidAccessToken, InvalidTokenResponse, TokenErrorResponse, TokenResponse,
    TokenSource, TokenSourceError,
};
pub use crate::client::token_requests::{TokenClient, TokenClientLayer};
