//! A client of the service under test.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method, Uri};
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::new_proof::Htu;
use crate::jose::signing_key::SigningKey;
use crate::proof::nonce::NonceSource;
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
    /// The operating system has no randomness to give.
    pub fn new(issuer: &TestIssuer) -> Self {
        Self {
            key: SigningKey::generate().expect("the operating system gives randomness"),
            claims: Vec::new(),
            token: None,
            nonces: Nonces::None,
            bearer: Bearer::Refused,
            clock: issuer.clock().clone(),
            issuer: issuer.clone(),
        }
    }

    /// A client without an issuer of the kit: for token endpoints, and for services whose tokens are
    /// [given to it](Self::with_token). The tokens that it makes up are nobody's.
    ///
    /// # Panics
    ///
    /// The operating system has no randomness to give.
    pub fn without_issuer(clock: TestClock) -> Self {
        Self::new(&TestIssuer::new("", "").with_clock(clock))
    }

    /// Signs proofs with this key, to which the issuer's tokens are then bound.
    #[must_use]
    pub fn with_key(self, key: SigningKey) -> Self {
        Self { key, ..self }
    }

    /// Sets a claim of every token that the issuer makes for the client.
    ///
    /// # Panics
    ///
    /// The value cannot be written as JSON.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        self.claims.push((name.into(), to_json(value)));
        self
    }

    /// Presents this token instead of the issuer's: one of a real authorization server, or of
    /// another kind. The defects of access tokens cannot be made of it.
    #[must_use]
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self
        }
    }

    /// Writes this nonce into every proof: one that the server gave out, an
    /// [`Answer`](crate::testing::Answer)'s say.
    #[must_use]
    pub fn with_nonce(self, nonce: impl Into<String>) -> Self {
        Self {
            nonces: Nonces::Given(nonce.into()),
            ..self
        }
    }

    /// Writes a good nonce into every proof, made as the server makes them: give it the server's
    /// own source. Stale nonces and nonces from the future can then be made, too.
    #[must_use]
    pub fn with_nonces(self, nonces: impl NonceSource + 'static) -> Self {
        Self {
            nonces: Nonces::Source(Arc::new(nonces)),
            ..self
        }
    }

    /// Expects the service to take bearer tokens, too
    /// ([`Verifier::allow_bearer`](crate::Verifier::allow_bearer)): a bound token under the
    /// Bearer scheme is refused there for another reason.
    #[must_use]
    pub fn with_bearer_allowed(self) -> Self {
        Self {
            bearer: Bearer::Allowed,
            ..self
        }
    }

    /// Dates proofs by this clock: that of a client whose clock is wrong. Tokens are dated by the
    /// issuer's.
    #[must_use]
    pub fn with_clock(self, clock: TestClock) -> Self {
        Self { clock, ..self }
    }

    /// What signs the proofs.
    pub const fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A request with a token and a proof, each good now. The URL is the public one, as clients
    /// write it; what is sent is its path and query, unless it is [sent
    /// elsewhere](TestRequest::sent_to).
    ///
    /// # Panics
    ///
    /// The URL is not an absolute `http` or `https` URL.
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
            Nonces::Source(source) => {
                request.proof_claims["nonce"] = json!(source.issue(self.clock.now()).as_str());
            }
        }
        request
    }

    /// A `POST` with a proof and no access token, as token endpoints and endpoints of pushed
    /// authorization requests expect. The form is for the caller to add
    /// ([`TestRequest::build_with`]).
    ///
    /// # Panics
    ///
    /// The URL is not an absolute `http` or `https` URL.
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
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("issuer", &self.issuer)
            .field("algorithm", &self.key.algorithm())
            .finish_non_exhaustive()
    }
}
