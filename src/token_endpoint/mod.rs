//! The authorization server: checks the proofs of token and pushed authorization requests, so that
//! tokens can be bound to the keys that signed them ([RFC 9449 sections 5, 8 and
//! 10](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
//!
//! | the request | the response |
//! |---|---|
//! | with a valid proof | the application gets a [`ProvenKey`] and responds; `DPoP-Nonce` if the nonce nears its end |
//! | with an invalid proof, several, or (nonces not required) none | 400 `invalid_dpop_proof` |
//! | with a missing, stale or foreign nonce, or (nonces required) no proof | 400 `use_dpop_nonce`, with `DPoP-Nonce` |
//! | with a code or refresh token that is bound to another key | 400 `invalid_grant` |
//! | with one that is bound, and (if requests without a proof are accepted) no proof | 400 `invalid_dpop_proof` |
//! | with a `dpop_jkt` that is malformed, or that names another key than the proof | 400 `invalid_request` |
//! | with a target that no proof can name: another server's, or a CONNECT | 400 `invalid_request` |
//! | while the client's share of the replay store is used up | 429, `Retry-After`, no body |
//! | while the replay store is full or unreachable | 503, `Retry-After`, no body |
//!
//! A 400 has the JSON of [RFC 6749 section
//! 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2). No response to a rejected request may
//! be cached, and none repeats request data.
//!
//! # Before anything is consumed
//!
//! The proof is checked first, and the authorization code or refresh token is used after it. A
//! client that must sign again, because of a nonce or a wrong clock, then still has a code to send.
//! [`TokenEndpointLayer`] does this around the application's endpoint:
//!
//! ```
//! use axum::{Extension, Router, routing::post};
//! use tower_dpop::PublicUrl;
//! use tower_dpop::token_endpoint::{ProvenKey, TokenEndpoint, TokenEndpointLayer};
//!
//! // With the feature `axum`, handlers take a `ProvenKey` itself as an argument.
//! async fn token(Extension(key): Extension<ProvenKey>, form: String) -> String {
//!     # let _ = (key, form);
//!     // …
//!     # String::new()
//! }
//!
//! fn app() -> Result<Router, tower_dpop::proof::InvalidPublicUrl> {
//!     let endpoint = TokenEndpoint::new("https://as.example.com".parse::<PublicUrl>()?);
//!     Ok(Router::new().route("/token", post(token)).route_layer(TokenEndpointLayer::new(endpoint)))
//! }
//! # let _ = app;
//! ```
//!
//! Without a layer, and with nonces:
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
//!     Err(rejection) => endpoint.reject(rejection),
//! };
//! # let _ = response;
//! # Ok(())
//! # }
//! ```
//!
//! # What stays with the application
//!
//! - **Clients** that registered `dpop_bound_access_tokens` must send a proof ([section
//!   5.2](https://www.rfc-editor.org/rfc/rfc9449#section-5.2)); if other clients are served as well
//!   ([`TokenEndpoint::verify_if_present`]), reject a registered client without a proof with
//!   [`ProofError::Missing`](crate::proof::ProofError::Missing).
//! - **Codes**: store the result of [`authorization_request_key`] with the code, and check it
//!   against the token request ([`check_code_binding`]).
//! - **Refresh tokens** of public clients are bound to [`ProvenKey::thumbprint`]; check it at every
//!   use ([`check_refresh_binding`]). Those of confidential clients are bound to the client, not to
//!   the key, which may change.
//! - **Access tokens**: put `cnf` in the token ([`ProvenKey::cnf`]) and [`TOKEN_TYPE`] beside it.
//!   The type of an unbound token is `Bearer`.
//! - **Introspection** responses have `cnf` at the top level and, if they have a `token_type`,
//!   [`TOKEN_TYPE`] ([section 6.2](https://www.rfc-editor.org/rfc/rfc9449#section-6.2)). The
//!   resource server checks the proof; an introspection request has none.
//! - **Browsers** must be allowed to send `DPoP` and to read the nonce: add a CORS layer with
//!   [`cors_allow_headers`] and [`cors_expose_headers`] outside this one, which also handles preflight
//!   requests. The authorization endpoint, to which browsers navigate, must have none ([RFC 9700 section
//!   2.6](https://www.rfc-editor.org/rfc/rfc9700#section-2.6)).
//!
//! [`cors_allow_headers`]: crate::resource::cors::cors_allow_headers
//! [`cors_expose_headers`]: crate::resource::cors::cors_expose_headers

pub(crate) mod proven_key;
pub(crate) mod rejection;
pub(crate) mod endpoint;
pub(crate) mod layer;

pub use crate::token_endpoint::endpoint::{
    AuthorizationServerMetadata, TokenEndpoint, UnrecordedProof,
};
pub use crate::token_endpoint::layer::{TokenEndpointLayer, TokenEndpointService};
pub use crate::token_endpoint::proven_key::{
    Cnf, DpopJktError, GrantBindingError, ProvenKey, TOKEN_TYPE, authorization_request_key,
    check_code_binding, check_refresh_binding,
};
pub use crate::token_endpoint::rejection::TokenRequestRejection;
