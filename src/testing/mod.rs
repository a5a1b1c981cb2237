//! A test kit for your service: an issuer, a client, requests with exactly one defect, a clock.
//! (Feature `testing`.)
//!
//! For tests only: enable it in the `[dev-dependencies]`, so that the code you ship is without it:
//!
//! ```toml
//! [dev-dependencies]
//! tower-dpop = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Testing your service
//!
//! Only your own tests can show that the layer is on each of your routes, with the public URL that
//! clients use. A route that accepts a valid request does not show this; a route that rejects each
//! [`Defect`] for its own reason is protected:
//!
//! ```
//! use axum::{Router, body::Body, extract::Request, routing::get};
//! use http::Method;
//! use tower::ServiceExt as _;
//! use tower_dpop::testing::{TestClient, TestIssuer, assert_protected};
//! use tower_dpop::{DpopLayer, ProofRules, Verifier};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let issuer = TestIssuer::new("https://as.example.com", "https://api.example.com");
//! let rules = ProofRules::new("https://api.example.com".parse()?).with_clock(issuer.clock().read());
//! let verifier = Verifier::new(rules, issuer.jwt_verifier());
//! let app = Router::new().route("/orders", get(async || "orders")).route_layer(DpopLayer::new(verifier));
//!
//! let request = TestClient::new(&issuer).request(Method::GET, "https://api.example.com/orders");
//! assert_protected(&request, async |request: Request<Body>| {
//!     app.clone().oneshot(request).await.unwrap()
//! })
//! .await;
//! # Ok::<(), tower_dpop::proof::InvalidPublicUrl>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In your tests, `app` is the router that you ship, with the issuer's
//! [`jwt_verifier`](TestIssuer::jwt_verifier) and clock. (By any other clock, each proof is too old.)
//!
//! | type | what it is for |
//! |---|---|
//! | [`TestClock`] | the time, for the service, the issuer and the client alike |
//! | [`TestIssuer`] | access tokens, valid or not, and the keys that verify them |
//! | [`TestClient`] | valid requests |
//! | [`TestRequest`] | one valid request, in which one thing can be changed |
//! | [`Defect`] | the things to change, by name, and how a service rejects each |
//! | [`TestResponse`] | the response, and assertions about it |
//! | [`assert_protected`], [`assert_token_endpoint_protected`] | all of the defects against one route |
//! | [`sign_jws`], [`sign_text`] | tokens and proofs with any other content |
//!
//! # One thing at a time
//!
//! To change something that is not a [`Defect`], set a field of the [`TestRequest`]. Token and proof
//! are signed when the request is built, so the change is the only thing wrong:
//!
//! ```
//! # use http::{Method, Request, Response};
//! # use tower_dpop::testing::{TestResponse, TestClient};
//! # use tower_dpop::tokens::TokenError;
//! # fn example(client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
//! let mut request = client.request(Method::GET, "https://api.example.com/orders");
//! request.token_claims["tenant"] = "another".into(); // where the claims type has `tenant: u64`
//! let response = TestResponse::of(&send(request.build()));
//! response.assert_reason("a tenant without a number", TokenError::Claims);
//! # }
//! ```
//!
//! # Over real HTTP
//!
//! A request is signed for the public URL and [sent to](TestRequest::sent_to) the address where the
//! server listens. If the server reads the real clock, make the issuer with
//! `.with_clock(SystemTime::now().into())`. The reason for a rejection is not on the wire, so
//! [`TestResponse::assert_reason`] compares the status, the `error` and its description.
//!
//! ```
//! # use http::{Method, Request, Response};
//! # use tower_dpop::testing::{TestClient, assert_protected};
//! # async fn example(client: TestClient, http: impl AsyncFn(Request<String>) -> Response<String>) {
//! let request = client
//!     .request(Method::GET, "https://api.example.com/orders")
//!     .sent_to("http://127.0.0.1:8080");
//! assert_protected(&request, async |request: Request<String>| http(request).await).await;
//! # }
//! ```
//!
//! # With nonces
//!
//! With the server's rules, the client always knows a nonce, and its requests can also have the
//! defects of nonces:
//!
//! ```
//! # use http::Method;
//! # use tower_dpop::testing::{Defect, TestClient, TestIssuer};
//! # use tower_dpop::{NonceSecret, ProofRules, StatelessNonces, Verifier};
//! # fn example(issuer: TestIssuer, rules: ProofRules) {
//! let rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
//! let client = TestClient::new(&issuer).with_nonces_of(&rules);
//! let verifier = Verifier::new(rules, issuer.jwt_verifier());
//!
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! assert!(request.defects().any(|defect| defect == Defect::StaleNonce));
//! # let _ = verifier;
//! # }
//! ```
//!
//! If you do not have the server's rules, take the nonce from a first rejection
//! ([`TestResponse::nonces`], [`TestClient::with_nonce`]).
//!
//! # With bearer tokens
//!
//! If the service uses [`allow_bearer`](crate::Verifier::allow_bearer), configure the client, too: the
//! service rejects a bound token under the Bearer scheme for another reason then. It accepts the
//! request that [`as_bearer`](TestRequest::as_bearer) makes:
//!
//! ```
//! # use http::{Method, Request, Response};
//! # use tower_dpop::testing::{TestResponse, TestClient, TestIssuer, assert_protected};
//! # async fn example(issuer: TestIssuer, send: impl AsyncFn(Request<String>) -> Response<String>) {
//! let client = TestClient::new(&issuer).with_bearer_allowed();
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! assert_protected(&request, &send).await;
//! let response = send(request.as_bearer().build()).await;
//! TestResponse::of(&response).assert_passed("a bearer token");
//! # }
//! ```
//!
//! # With a clock
//!
//! Service, issuer and client share a clock that stands still until the test moves it:
//!
//! ```
//! # use std::time::Duration;
//! # use http::{Method, Request, Response};
//! # use tower_dpop::proof::{IatError, ProofError};
//! # use tower_dpop::testing::{TestResponse, TestClient, TestIssuer};
//! # fn example(issuer: TestIssuer, client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! issuer.clock().advance(Duration::from_secs(91));
//! let response = TestResponse::of(&send(request.build()));
//! response.assert_reason("a second too late", ProofError::Iat(IatError::TooOld { by: 1 }));
//! # }
//! ```
//!
//! # The authorization server
//!
//! [`TestClient::token_request`] makes requests with a proof and without an access token, and
//! [`assert_token_endpoint_protected`] tests a token endpoint with the defects that these can have.
//! For what the application itself must reject, assert the reason:
//!
//! ```
//! # use http::{Request, Response};
//! # use tower_dpop::testing::{TestClient, TestResponse};
//! # use tower_dpop::token_endpoint::GrantBindingError;
//! # async fn example(thief: TestClient, send: impl AsyncFn(Request<String>) -> Response<String>) {
//! let form = "grant_type=refresh_token&client_id=app&refresh_token=of-the-client".to_owned();
//! let request = thief.token_request("https://as.example.com/token").build_with(form);
//! let response = send(request).await;
//! TestResponse::of(&response).assert_token_request_reason(
//!     "a stolen refresh token",
//!     response.body(),
//!     GrantBindingError::RefreshTokenOfOtherKey,
//! );
//! # }
//! ```

pub(crate) mod clock;
pub(crate) mod jws;
pub(crate) mod issuer;
pub(crate) mod defect;
pub(crate) mod request;
pub(crate) mod spoil;
pub(crate) mod client;
pub(crate) mod response;
pub(crate) mod protection;

pub use crate::testing::client::TestClient;
pub use crate::testing::clock::TestClock;
pub use crate::testing::defect::Defect;
pub use crate::testing::issuer::{TestIssuer, TestToken};
pub use crate::testing::jws::{sign_jws, sign_text};
pub use crate::testing::protection::{assert_protected, assert_token_endpoint_protected};
pub use crate::testing::request::TestRequest;
pub use crate::testing::response::TestResponse;
