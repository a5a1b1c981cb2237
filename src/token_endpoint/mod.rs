//! The authorization server: checks the proofs of token and pushed authorization requests, so that
//! tokens can be bound to the keys that signed them ([RFC 9449 sections 5, 8 and
//! 10](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
//!
//! | the request | is answered with |
//! |---|---|
//! | with a good proof | the application's answer, behind a [`ProvenKey`]; `DPoP-Nonce` where the nonce is near its end |
//! | with a bad proof, with several, or (where nonces are not required) without one | 400 `invalid_dpop_proof` |
//! | with a missing, stale or foreign nonce, or (where nonces are required) without a proof | 400 `use_dpop_nonce`, with `DPoP-Nonce` |
//! | with a code or refresh token that is bound to another key | 400 `invalid_grant` |
//! | with one that is bound, and (where requests without a proof are let through) without a proof | 400 `invalid_dpop_proof` |
//! | with a `dpop_jkt` that is malformed, or that names another key than the proof does | 400 `invalid_request` |
//! | that no proof could be for: another server's, or a CONNECT | 400 `invalid_request` |
//! | while the replay memory is full or out of reach | 503, `Retry-After`, no body |
//!
//! A 400 has the JSON of [RFC 6749 section
//! 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2); no answer to a refused request may be
//! cached, or repeats anything of the request.
//!
//! # Before anything is consumed
//!
//! The proof comes first, the authorization code or refresh token after it. A client that is told
//! to sign again, for a nonce or because its clock is wrong, then still has a code to send:
//!
//! ```
//! use http::{Request, Response};
//! use serde_json::json;
//! use tower_dpop::token_endpoint::{TOKEN_TYPE, TokenEndpoint};
//! use tower_dpop::{NonceSecret, ProofRules, StatelessNonces};
//!
//! # fn redeem(_form: &str) -> Option<&'static str> { None }
//! # fn sign(_claims: &serde_json::Value) -> String { String::new() }
//! # async fn example(request: Request<String>) -> Result<(), Box<dyn std::error::Error>> {
//! // Once, for the token endpoint and the endpoint of pushed authorization requests:
//! let rules = ProofRules::new("https://as.example.com".parse()?)
//!     .with_nonces(StatelessNonces::new(NonceSecret::generate()));
//! let endpoint = TokenEndpoint::new(rules);
//!
//! // POST /token
//! let (head, form) = request.into_parts();
//! let response: Response<String> = match endpoint.verify(&head).await {
//!     Ok(key) => {
//!         let subject = redeem(&form);
//!         let token = sign(&json!({ "sub": subject, "cnf": key.cnf() }));
//!         let body = json!({ "access_token": token, "token_type": TOKEN_TYPE });
//!         let mut response = Response::new(body.to_string());
//!         if let Some(nonce) = key.next_nonce() {
//!             nonce.write_to(response.headers_mut());
//!         }
//!         response
//!     }
//!     Err(rejection) => endpoint.refuse(rejection),
//! };
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! [`TokenEndpointLayer`] does the same around a service:
//!
//! ```
//! use axum::{Extension, Router, routing::post};
//! use tower_dpop::token_endpoint::{ProvenKey, TokenEndpoint, TokenEndpointLayer};
//!
//! // With the feature `axum`, handlers take a `ProvenKey` itself as an argument.
//! async fn token(Extension(key): Extension<ProvenKey>, form: String) -> String {
//!     # let _ = (key, form);
//!     // …
//!     # String::new()
//! }
//!
//! # fn example(endpoint: TokenEndpoint) {
//! let app: Router = Router::new()
//!     .route("/token", post(token))
//!     .route_layer(TokenEndpointLayer::new(endpoint));
//! # }
//! ```
//!
//! # What stays with the application
//!
//! - **Clients** that registered `dpop_bound_access_tokens` must send a proof ([section
//!   5.2](https://www.rfc-editor.org/rfc/rfc9449#section-5.2)); where others are served as well
//!   ([`TokenEndpoint::verify_if_present`]), refuse them with [`ProofError::Missing`](crate::proof::ProofError::Missing).
//! - **Codes**: keep what [`authorization_request_key`] says with the code, and hold it against the
//!   token request ([`check_code_binding`]).
//! - **Refresh tokens** of public clients are bound to [`ProvenKey::thumbprint`]; hold it against
//!   every use ([`check_refresh_binding`]). Those of confidential clients are bound to the client,
//!   not to the key: it may change.
//! - **Access tokens**: `cnf` in the token ([`ProvenKey::cnf`]), [`TOKEN_TYPE`] beside it. A token
//!   that is not bound says `Bearer`.
//! - **Introspection** answers with `cnf` at the top level and `token_type`, if at all, as
//!   [`TOKEN_TYPE`] ([section 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)). The proof
//!   is the resource server's to check; an introspection request has none.
//! - **Browsers** must be allowed to read the nonce: [`CORS_EXPOSE_HEADERS`] in a CORS layer outside
//!   of this one, which answers preflights, too.
//!
//! [`CORS_EXPOSE_HEADERS`]: crate::resource::layer::CORS_EXPOSE_HEADERS

pub(crate) mod proven_key;
pub(crate) mod rejection;
pub(crate) mod endpoint;
pub(crate) mod layer;

pub use crate::token_endpoint::endpoint::{
    AuthorizationServerMetadata, TokenEndpoint, UnspentProof,
};
pub use crate::token_endpoint::layer::{TokenEndpointLayer, TokenEndpointService};
pub use crate::token_endpoint::proven_key::{
    Cnf, DpopJktError, GrantBindingError, ProvenKey, TOKEN_TYPE, authorization_request_key,
    check_code_binding, check_refresh_binding,
};
pub use crate::token_endpoint::rejection::TokenRequestRejection;
