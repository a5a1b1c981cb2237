//! A client of the service under test.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Uri};
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::new_proof::Htu;
use crate::jose::signing_key::SigningKey;
use crate::proof::rules::ProofRules;
use crate::testing::clock::TestClock;
use crate::testing::issuer::{TestIssuer, remove, to_json};
use crate::testing::request::{Bearer, Nonces, Purpose, TestRequest};

/// A client with a key and with access tokens that are bound to it.
///
/// # Example
///
/// ```
/// use http::{Method, Request};
/// use tower_dpop::testing::{TestClient, TestIssuer};
///
/// let issuer = TestIssuer::new("https://as.example.com", "https://api.example.com");
/// let client = TestClient::new(&issuer).with_claim("scope", "orders.read");
/// let request: Request<String> = client.request(Method::GET, "https://api.example.com/orders").build();
/// assert!(request.headers().contains_key("dpop"));
/// ```
#[derive(Clone)]
pub struct TestClient {
    issuer: TestIssuer,
    key: SigningKey,
    claims: Vec<(String, Value)>,
    token: Option<String>,
    nonces: Nonces,
    bearer: Bearer,
    clock: TestClock,
}

impl TestClient {
    /// A client with a new ES256 key, tokens of this issuer, and the issuer's clock. It knows no
    /// nonce.
    ///
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness.
    pub fn new(issuer: &TestIssuer) -> Self {
        Self {
            key: SigningKey::generate().expect("the operating system gives randomness"),
            claims: Vec::new(),
            token: None,
            nonces: Nonces::None,
            bearer: Bearer::Rejected,
            clock: issuer.clock().clone(),
            issuer: issuer.clone(),
        }
    }

    /// A client without a test issuer: for token endpoints, and for services whose tokens are
    /// [given to the client](Self::with_token). Tokens that it makes itself have an empty `iss`.
    ///
    /// # Panics
    ///
    /// Panics if the operating system provides no randomness.
    pub fn without_issuer(clock: TestClock) -> Self {
        Self::new(&TestIssuer::new("", "").with_clock(clock))
    }

    /// A request with a token and a proof that are valid now. The URL is the one that clients use. Its
    /// path and query are the request target, unless the request is [sent
    /// elsewhere](TestRequest::sent_to).
    ///
    /// # Panics
    ///
    /// Panics if the URL is not an absolute `http` or `https` URL.
    #[track_caller]
    pub fn request(&self, method: Method, url: &str) -> TestRequest {
        let url: Uri = url.parse().expect("an absolute URL");
        let htu = Htu::of(&url).expect("an absolute http or https URL");
        let mut token = self.issuer.token_for(self.key.thumbprint());
        for (name, value) in &self.claims {
            token = token.with_claim(name, value);
        }
        let mut request = TestRequest::new(
            method,
            url.path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
            &format!("{}{}", htu.origin, htu.path),
            self.key.clone(),
            token,
            self.clock.now(),
        );
        request.token.clone_from(&self.token);
        request.nonces = self.nonces.clone();
        request.bearer = self.bearer;
        match &self.nonces {
            Nonces::None => {}
            Nonces::Given(nonce) => request.proof_claims["nonce"] = json!(nonce),
            Nonces::OfServer(_) => request.issue_nonce(self.clock.now()),
        }
        request
    }

    /// A `POST` with a proof and no access token, for token endpoints and endpoints for pushed
    /// authorization requests. Add the form with [`TestRequest::build_with`].
    ///
    /// # Panics
    ///
    /// Panics if the URL is not an absolute `http` or `https` URL.
    #[track_caller]
    pub fn token_request(&self, url: &str) -> TestRequest {
        let mut request = self.request(Method::POST, url);
        request.purpose = Purpose::Token;
        remove(&mut request.proof_claims, "ath");
        request.extra_headers.push((
            "content-type",
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        ));
        request
    }

    /// Signs proofs with this key. The issuer's tokens are bound to this key, too.
    #[must_use]
    pub fn with_key(self, key: SigningKey) -> Self {
        Self { key, ..self }
    }

    /// Sets a claim in every token that the issuer makes for the client.
    ///
    /// # Panics
    ///
    /// Panics if the value cannot be written as JSON.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.push((name.into(), to_json(value)));
        self
    }

    /// Presents this token, for example of a real authorization server, instead of the issuer's. Its
    /// requests cannot have the defects for which the issuer signs the token.
    #[must_use]
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self
        }
    }

    /// Writes this nonce into every proof: one that the server issued
    /// ([`TestResponse::nonces`](crate::testing::TestResponse::nonces)).
    #[must_use]
    pub fn with_nonce(self, nonce: impl Into<String>) -> Self {
        Self {
            nonces: Nonces::Given(nonce.into()),
            ..self
        }
    }

    /// Writes a valid nonce of the server with these rules into every proof, if they require one.
    /// Requests can then also have stale nonces and nonces from the future.
    ///
    /// A nonce is valid with one replay store only, so these must be the server's rules, or a clone,
    /// after their store was set.
    #[must_use]
    pub fn with_nonces_of(self, rules: &ProofRules) -> Self {
        let nonces = if rules.requires_nonces() {
            Nonces::OfServer(Arc::new(rules.clone()))
        } else {
            Nonces::None
        };
        Self { nonces, ..self }
    }

    /// Expects the service to accept bearer tokens, too
    /// ([`Verifier::allow_bearer`](crate::Verifier::allow_bearer)). Such a service rejects a bound
    /// token under the Bearer scheme for another reason.
    #[must_use]
    pub fn with_bearer_allowed(self) -> Self {
        Self {
            bearer: Bearer::Allowed,
            ..self
        }
    }

    /// Dates proofs by this clock, for a client whose clock is wrong. Tokens are dated by the
    /// issuer's clock.
    #[must_use]
    pub fn with_clock(self, clock: TestClock) -> Self {
        Self { clock, ..self }
    }

    /// The key that signs the proofs.
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("issuer", &self.issuer)
            .field("algorithm", &self.key.algorithm())
            .finish_non_exhaustive()
    }
}
