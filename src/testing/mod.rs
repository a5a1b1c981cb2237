//! A kit for testing your service: an issuer, a client, requests with exactly one defect, a clock.
//! (Feature `testing`.)
//!
//! For tests only. It belongs among the `[dev-dependencies]`, where it switches nothing on in what
//! you ship:
//!
//! ```toml
//! [dev-dependencies]
//! tower-dpop = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Testing your service
//!
//! The layer is tested here; what only you can test is that it stands in front of your routes: on
//! each of them, with the public URL that clients write, outside of what it must guard. A route
//! that answers a good request says little of that. One that refuses each of the [`Defect`]s, each
//! for its own reason, is guarded:
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
//! let app = Router::new().route("/orders", get(async || "orders")).layer(DpopLayer::new(verifier));
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
//! In your tests `app` is the router that you ship, made with the issuer's
//! [`jwt_verifier`](TestIssuer::jwt_verifier) and clock in place of the real ones.
//!
//! | type | what it is for |
//! |---|---|
//! | [`TestClock`] | the time, for the service, the issuer and the client alike |
//! | [`TestIssuer`] | access tokens, good ones and others, and the keys that verify them |
//! | [`TestClient`] | requests that pass |
//! | [`TestRequest`] | one such request, to be changed in one thing |
//! | [`Defect`] | the things to change, by name, and how a service answers each |
//! | [`Answer`] | what came back, and assertions about it |
//! | [`assert_protected`], [`assert_token_endpoint_protected`] | all of the defects against one route |
//! | [`sign_jws`], [`sign_text`] | tokens and proofs of any other content |
//!
//! # One thing at a time
//!
//! Whatever is not among the defects is a field of the request. Token and proof are signed when the
//! request is built, so that a changed claim is the only thing wrong:
//!
//! ```
//! # use http::{Method, Request, Response};
//! # use tower_dpop::testing::{Answer, TestClient};
//! # use tower_dpop::tokens::TokenError;
//! # fn example(client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
//! let mut request = client.request(Method::GET, "https://api.example.com/orders");
//! request.token_claims["tenant"] = "another".into();
//! let answer = Answer::of(&send(request.build()));
//! answer.assert_reason("another tenant's token", TokenError::Claims);
//! # }
//! ```
//!
//! Headers and claims are of serde_json's type [`Value`](serde_json::Value).
//!
//! # Over real HTTP
//!
//! A request says what is sent and what is signed separately: it is made for the public URL, and
//! [sent to](TestRequest::sent_to) where the server listens. The reason of a refusal is not on the
//! wire, so [`Answer::assert_reason`] goes by the status, the `error` and its description.
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
//! Give the client what makes the server's nonces, and it always knows one. The defects of nonces
//! are then among those of its requests:
//!
//! ```
//! # use http::Method;
//! # use tower_dpop::testing::{Defect, TestClient, TestIssuer};
//! # use tower_dpop::{NonceSecret, ProofRules, StatelessNonces, Verifier};
//! # fn example(issuer: TestIssuer, rules: ProofRules) {
//! let nonces = StatelessNonces::new(NonceSecret::generate());
//! let verifier = Verifier::new(rules.with_nonces(nonces.clone()), issuer.jwt_verifier());
//!
//! let client = TestClient::new(&issuer).with_nonces(nonces);
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! assert!(request.defects().any(|defect| defect == Defect::StaleNonce));
//! # let _ = verifier;
//! # }
//! ```
//!
//! Of a server whose secret you do not have, take the nonce of a first refusal
//! ([`Answer::nonces`], [`TestClient::with_nonce`]).
//!
//! # With bearer tokens
//!
//! Where [`allow_bearer`](crate::Verifier::allow_bearer) was said, tell the client: a bound
//! token under the Bearer scheme is refused there for another reason. What passes is the
//! [`as_bearer`](TestRequest::as_bearer) of a request:
//!
//! ```
//! # use http::{Method, Request, Response};
//! # use tower_dpop::testing::{Answer, TestClient, TestIssuer, assert_protected};
//! # async fn example(issuer: TestIssuer, send: impl AsyncFn(Request<String>) -> Response<String>) {
//! let client = TestClient::new(&issuer).with_bearer_allowed();
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! assert_protected(&request, &send).await;
//! let response = send(request.as_bearer().build()).await;
//! Answer::of(&response).assert_passed("a bearer token");
//! # }
//! ```
//!
//! # With a clock
//!
//! Service, issuer and client share a clock that stands still until the test moves it, so there is
//! nothing to wait for and no second to miss:
//!
//! ```
//! # use std::time::Duration;
//! # use http::{Method, Request, Response};
//! # use tower_dpop::proof::{IatError, ProofError};
//! # use tower_dpop::testing::{Answer, TestClient, TestIssuer};
//! # fn example(issuer: TestIssuer, client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
//! let request = client.request(Method::GET, "https://api.example.com/orders");
//! issuer.clock().advance(Duration::from_secs(91));
//! let answer = Answer::of(&send(request.build()));
//! answer.assert_reason("a second too late", ProofError::Iat(IatError::TooOld { by: 1 }));
//! # }
//! ```
//!
//! # The authorization server
//!
//! [`TestClient::token_request`] makes requests with a proof alone, and
//! [`assert_token_endpoint_protected`] holds a token endpoint to those defects that a proof can have
//! without an access token. What only the application can refuse is asserted by its reason:
//!
//! ```
//! # use http::{Request, Response};
//! # use tower_dpop::testing::{Answer, TestClient, assert_token_endpoint_protected};
//! # use tower_dpop::token_endpoint::GrantBindingError;
//! # async fn example(client: TestClient, thief: TestClient, send: impl AsyncFn(Request<String>) -> Response<String>) {
//! let form = "grant_type=refresh_token&client_id=app&refresh_token=of-the-client".to_owned();
//! let request = thief.token_request("https://as.example.com/token").build_with(form);
//! let response = send(request).await;
//! Answer::of(&response).assert_token_request_reason(
//!     "a stolen refresh token",
//!     response.body(),
//!     GrantBindingError::RefreshTokenOfOtherKey,
//! );
//! # let _ = client;
//! # }
//! ```

pub(crate) mod clock;
pub(crate) mod jws;
pub(crate) mod issuer;
pub(crate) mod defect;
pub(crate) mod request;
pub(crate) mod spoil;
pub(crate) mod client;
pub(crate) mod answer;
pub(crate) mod protection;

pub use crate::testing::answer::Answer;
pub use crate::testing::client::TestClient;
pub use crate::testing::clock::TestClock;
pub use crate::testing::defect::Defect;
pub use crate::testing::issuer::{TestIssuer, TestToken};
pub use crate::testing::jws::{sign_jws, sign_text};
pub use crate::testing::protection::{assert_protected, assert_token_endpoint_protected};
pub use crate::testing::request::TestRequest;
