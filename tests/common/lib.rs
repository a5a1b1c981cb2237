//! What the tests share, built on the public test kit (`tower_dpop::testing`): one issuer, one resource server and
//! one fixed time.

pub mod keys;
pub mod log;
pub mod metrics;
pub mod proofs;
pub mod token_endpoint;

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::testing::{self, TestClient, TestIssuer, TestRequest};

use tower_dpop::{
    BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, ProofRules, Rejection, Verifier,
};

pub use keys::{Key, KeyExt};
pub use tower_dpop::testing::TestClock;

/// The current time in most tests.
pub const NOW: u64 = 1_700_000_000;
pub const ISSUER: &str = "https://as.example.com";
pub const AUDIENCE: &str = "https://api.example.com";

/// The issuer's key, `kid` "issuer".
pub static ISSUER_KEY: LazyLock<Key> = LazyLock::new(Key::es256);

/// The issuer of the tokens of good [`Attempt`]s. Its clock is ten seconds behind [`NOW`].
static TEST_ISSUER: LazyLock<TestIssuer> = LazyLock::new(|| {
    TestIssuer::new(ISSUER, AUDIENCE)
        .with_key("issuer", ISSUER_KEY.clone())
        .with_clock(TestClock::at(NOW - 10))
});

/// The client that makes good [`Attempt`]s, at [`NOW`].
static TEST_CLIENT: LazyLock<TestClient> = LazyLock::new(|| {
    TestClient::new(&TEST_ISSUER)
        .with_clock(TestClock::at(NOW))
        .with_claim("client_id", "app")
        .with_claim("jti", "token-1")
        .with_claim("exp", NOW + 600)
        .with_claim("scope", "orders.read orders.write")
});

/// The issuer's JWK Set.
pub fn issuer_jwks() -> String {
    TEST_ISSUER.jwks()
}

pub fn jwt_verifier() -> JwtVerifier<KeySet> {
    TEST_ISSUER.jwt_verifier()
}

/// The rules that the proof of a good [`Attempt`] meets: `https://api.example.com`, the defaults, and a clock at
/// [`NOW`].
pub fn rules() -> ProofRules {
    ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(|| at(NOW))
}

/// The verifier that accepts a good [`Attempt`]: [`rules`], and tokens of the issuer.
pub fn verifier() -> Verifier {
    verifier_by(|rules| rules)
}

/// [`verifier`] with changed rules.
pub fn verifier_by(change: impl FnOnce(ProofRules) -> ProofRules) -> Verifier {
    Verifier::new(change(rules()), jwt_verifier())
}

pub fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `ath` of a token.
pub fn ath(token: &str) -> String {
    base64url(Sha256::digest(token))
}

/// A `jti` that was not used before in this process.
pub fn fresh_jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request. A good one is accepted by [`verifier`]; a test makes one change to it before it is sent.
pub type Attempt = TestRequest;

pub trait AttemptExt: Sized {
    fn good() -> Self;
    fn with_key(key: Key) -> Self;
    /// A good attempt, changed.
    fn but(change: impl FnOnce(&mut Self)) -> Self;
    fn request(&self) -> Request<String>;
    /// The outcome with a new [`verifier`], so with an empty replay store.
    fn outcome(&self) -> Outcome;
    fn outcome_by<C: Send + Sync + 'static>(&self, layer: &DpopLayer<C>) -> Outcome;
}

impl AttemptExt for Attempt {
    fn good() -> Self {
        Self::with_key(keys::client())
    }

    fn with_key(key: Key) -> Self {
        let mut attempt = TEST_CLIENT
            .clone()
            .with_key(key)
            .request(Method::GET, "https://api.example.com/orders");
        attempt.proof_claims["jti"] = json!(fresh_jti());
        attempt
    }

    fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut attempt = Self::good();
        change(&mut attempt);
        attempt
    }

    #[track_caller]
    fn request(&self) -> Request<String> {
        self.build()
    }

    #[track_caller]
    fn outcome(&self) -> Outcome {
        ask(&DpopLayer::new(verifier()), self.request())
    }

    #[track_caller]
    fn outcome_by<C: Send + Sync + 'static>(&self, layer: &DpopLayer<C>) -> Outcome {
        ask(layer, self.request())
    }
}

/// A header value of any bytes that a field value may have, also non-ASCII ones.
pub fn field(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(bytes).unwrap()
}

/// Sends a request through the layer to a service that responds with 200.
#[track_caller]
pub fn ask<C: Send + Sync + 'static>(layer: &DpopLayer<C>, request: Request<String>) -> Outcome {
    let service = layer.layer(service_fn(async |request: Request<String>| {
        let mut response = Response::new(());
        if let Some(token) = request.extensions().get::<BoundToken<Claims>>() {
            response.extensions_mut().insert(token.clone());
        }
        Ok::<_, std::convert::Infallible>(response)
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    Outcome::of(&response)
}

/// The nonce in the rejection of a request without a proof, if the layer requires nonces.
#[track_caller]
pub fn required_nonce<C: Send + Sync + 'static>(layer: &DpopLayer<C>) -> Option<String> {
    Attempt::but(|a| a.dpop = Some(Vec::new()))
        .outcome_by(layer)
        .nonces
        .pop()
}

/// Must be called before a subscriber is set for one thread. Otherwise, a thread without a subscriber may reach an
/// event first, and tracing caches that the event is disabled.
pub fn enable_tracing_callsites() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    });
}

/// Removes a member, which must be there.
#[track_caller]
pub fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

/// Runs a future to completion on a new single-threaded runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// The kit's response, and the token that the service found. Without a bound token, it is `None`.
#[derive(Debug)]
pub struct Outcome {
    pub kit: testing::TestResponse,
    pub token: Option<BoundToken<Claims>>,
}

impl Outcome {
    pub fn of<B>(response: &Response<B>) -> Self {
        Self {
            kit: testing::TestResponse::of(response),
            token: response.extensions().get().cloned(),
        }
    }

    /// The value of a parameter, if there is exactly one challenge.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let [challenge] = self.challenges.as_slice() else {
            return None;
        };
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    }

    #[track_caller]
    pub fn assert_passed(&self, name: &str) {
        self.kit.assert_passed(name);
        assert_eq!(
            (self.status, self.rejection.as_ref()),
            (StatusCode::OK, None),
            "{name}"
        );
        assert!(self.token.is_some(), "{name}: no bound token");
    }

    /// Asserts that the request was rejected with this status, and with this error code in one DPoP challenge that
    /// lists the algorithms.
    #[track_caller]
    pub fn assert_rejected(&self, name: &str, status: u16, error: Option<&str>) {
        assert_eq!(self.status.as_u16(), status, "{name}: {self:?}");
        assert!(self.token.is_none(), "{name}: reached the service");
        assert!(
            self.rejection.is_some(),
            "{name}: no rejection in the extensions"
        );
        if matches!(status, 429 | 503) {
            assert_eq!(
                self.challenges, [""; 0],
                "{name}: a challenge for a server error"
            );
            return;
        }
        assert_eq!(self.challenges.len(), 1, "{name}: {self:?}");
        assert!(self.challenges[0].starts_with("DPoP "), "{name}: {self:?}");
        assert_eq!(
            self.parameter("error").as_deref(),
            error,
            "{name}: {self:?}"
        );
        assert_eq!(
            self.parameter("error_description").is_some(),
            error.is_some(),
            "{name}"
        );
        assert!(self.parameter("algs").is_some(), "{name}: {self:?}");
        self.kit.assert_rejected(name, status, error);
    }

    /// Asserts that the request was rejected for exactly this reason.
    #[track_caller]
    pub fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        let reason = reason.into();
        assert_eq!(self.rejection.as_ref(), Some(&reason), "{name}");
        self.assert_rejected(name, reason.status().as_u16(), reason.error_code());
        self.kit.assert_reason(name, reason);
    }
}

impl Deref for Outcome {
    type Target = testing::TestResponse;

    fn deref(&self) -> &testing::TestResponse {
        &self.kit
    }
}

impl DerefMut for Outcome {
    fn deref_mut(&mut self) -> &mut testing::TestResponse {
        &mut self.kit
    }
}
