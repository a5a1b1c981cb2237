//! A client, an issuer and a request that passes, each to be changed in one thing.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part"
)]

pub mod keys;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::{Layer, ServiceExt, service_fn};
use tower_dpop::replay::ReplayStore;
use tower_dpop::token::AccessTokenVerifier;
use tower_dpop::{
    BoundToken, Claims, DpopLayer, JwtVerifier, KeySet, MemoryReplayStore, Rejection, Verifier,
};

pub use keys::Key;

/// The second at which most tests run.
pub const NOW: u64 = 1_700_000_000;
pub const ISSUER: &str = "https://as.example.com";
pub const AUDIENCE: &str = "https://api.example.com";

/// The issuer's key, `kid` "issuer".
pub static ISSUER_KEY: LazyLock<Key> = LazyLock::new(Key::es256);

pub type TestVerifier = Verifier<JwtVerifier<KeySet>, MemoryReplayStore>;

/// The issuer's JWK Set.
pub fn issuer_jwks() -> String {
    let mut jwk = ISSUER_KEY.public_jwk();
    jwk["kid"] = json!("issuer");
    json!({ "keys": [jwk] }).to_string()
}

pub fn jwt_verifier() -> JwtVerifier<KeySet> {
    JwtVerifier::new(ISSUER, AUDIENCE, issuer_jwks().parse().unwrap())
}

/// The verifier that a good [`Attempt`] passes: `https://api.example.com`, every default, the clock
/// at [`NOW`].
pub fn verifier() -> TestVerifier {
    Verifier::new(AUDIENCE.parse().unwrap(), jwt_verifier()).with_clock(|| at(NOW))
}

pub fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A clock that a test can set.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn at(seconds: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seconds)))
    }

    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub fn read(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let seconds = Arc::clone(&self.0);
        move || at(seconds.load(Ordering::SeqCst))
    }
}

pub fn base64url(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// `ath` of a token.
pub fn ath(token: &str) -> String {
    base64url(Sha256::digest(token))
}

/// An identifier that was not used before in this process.
pub fn fresh_jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request that passes [`verifier`], to be changed in one thing before it is sent.
pub struct Attempt {
    pub method: Method,
    pub uri: String,
    pub version: Version,
    pub key: Key,
    pub proof_header: Value,
    /// `ath` is filled in when it is `"auto"`.
    pub proof_claims: Value,
    pub token_key: Key,
    pub token_header: Value,
    pub token_claims: Value,
    /// Replaces the signed token.
    pub token: Option<String>,
    /// Replaces the `Authorization` fields.
    pub authorization: Option<Vec<HeaderValue>>,
    /// Replaces the `DPoP` fields.
    pub dpop: Option<Vec<HeaderValue>>,
    /// Changes the signed proof.
    pub edit_proof: fn(String) -> String,
    pub extra_headers: Vec<(&'static str, HeaderValue)>,
}

impl Attempt {
    pub fn good() -> Self {
        Self::with_key(keys::client())
    }

    pub fn with_key(key: Key) -> Self {
        Self {
            method: Method::GET,
            uri: "/orders".into(),
            version: Version::HTTP_11,
            proof_header: json!({ "typ": "dpop+jwt", "alg": key.alg(), "jwk": key.public_jwk() }),
            proof_claims: json!({
                "jti": fresh_jti(),
                "htm": "GET",
                "htu": "https://api.example.com/orders",
                "iat": NOW,
                "ath": "auto",
            }),
            token_key: ISSUER_KEY.clone(),
            token_header: json!({ "typ": "at+jwt", "alg": "ES256", "kid": "issuer" }),
            token_claims: json!({
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": "alice",
                "client_id": "app",
                "iat": NOW - 10,
                "exp": NOW + 600,
                "jti": "token-1",
                "scope": "orders.read orders.write",
                "cnf": { "jkt": key.thumbprint() },
            }),
            key,
            token: None,
            authorization: None,
            dpop: None,
            edit_proof: |proof| proof,
            extra_headers: Vec::new(),
        }
    }

    /// A good attempt, changed.
    pub fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut attempt = Self::good();
        change(&mut attempt);
        attempt
    }

    pub fn token(&self) -> String {
        self.token
            .clone()
            .unwrap_or_else(|| self.token_key.sign(&self.token_header, &self.token_claims))
    }

    pub fn proof(&self, token: &str) -> String {
        let mut claims = self.proof_claims.clone();
        if claims["ath"] == "auto" {
            claims["ath"] = json!(ath(token));
        }
        (self.edit_proof)(self.key.sign(&self.proof_header, &claims))
    }

    #[track_caller]
    pub fn request(&self) -> Request<()> {
        let token = self.token();
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.uri)
            .version(self.version)
            .body(())
            .unwrap();
        let headers = request.headers_mut();
        match &self.authorization {
            None => {
                headers.append("authorization", format!("DPoP {token}").parse().unwrap());
            }
            Some(fields) => fields.iter().for_each(|field| {
                headers.append("authorization", field.clone());
            }),
        }
        match &self.dpop {
            None => {
                headers.append("dpop", self.proof(&token).parse().unwrap());
            }
            Some(fields) => fields.iter().for_each(|field| {
                headers.append("dpop", field.clone());
            }),
        }
        for (name, value) in &self.extra_headers {
            headers.append(*name, value.clone());
        }
        request
    }

    /// What a verifier of its own answers, made by [`verifier`].
    #[track_caller]
    pub fn answer(&self) -> Answer {
        ask(&DpopLayer::new(verifier()), self.request())
    }

    #[track_caller]
    pub fn answer_by<V: AccessTokenVerifier, R: ReplayStore>(
        &self,
        layer: &DpopLayer<V, R>,
    ) -> Answer {
        ask(layer, self.request())
    }
}

/// A header value that the `http` crate would not parse from text.
pub fn field(octets: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(octets).unwrap()
}

/// Sends a request through the layer to a service that answers 200.
#[track_caller]
pub fn ask<V: AccessTokenVerifier, R: ReplayStore>(
    layer: &DpopLayer<V, R>,
    request: Request<()>,
) -> Answer {
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if let Some(token) = request.extensions().get::<BoundToken<Claims>>() {
            response.extensions_mut().insert(token.clone());
        }
        Ok::<_, std::convert::Infallible>(response)
    }));
    let response = block_on(service.oneshot(request)).unwrap();
    Answer::of(&response)
}

/// The nonce that a token without a proof is answered with, where nonces are required.
#[track_caller]
pub fn demanded_nonce<V: AccessTokenVerifier, R: ReplayStore>(
    layer: &DpopLayer<V, R>,
) -> Option<String> {
    Attempt::but(|a| a.dpop = Some(Vec::new()))
        .answer_by(layer)
        .nonces
        .pop()
}

/// Runs a future of this crate's tests to its end.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub challenges: Vec<String>,
    pub nonces: Vec<String>,
    pub cache_control: Option<String>,
    pub retry_after: Option<String>,
    pub rejection: Option<Rejection>,
    pub token: Option<BoundToken<Claims>>,
}

impl Answer {
    pub fn of<B>(response: &Response<B>) -> Self {
        let texts = |name: &str| -> Vec<String> {
            response
                .headers()
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        Self {
            status: response.status(),
            challenges: texts("www-authenticate"),
            nonces: texts("dpop-nonce"),
            cache_control: texts("cache-control").pop(),
            retry_after: texts("retry-after").pop(),
            rejection: response.extensions().get().cloned(),
            token: response.extensions().get().cloned(),
        }
    }

    /// The value of a parameter of the one challenge.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let [challenge] = self.challenges.as_slice() else {
            return None;
        };
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    }

    #[track_caller]
    pub fn assert_passed(&self, name: &str) {
        assert_eq!(
            (self.status, self.rejection.as_ref()),
            (StatusCode::OK, None),
            "{name}"
        );
        assert!(self.token.is_some(), "{name}: no bound token");
    }

    /// Refused with this status and error code, in one DPoP challenge that names the algorithms.
    #[track_caller]
    pub fn assert_refused(&self, name: &str, status: u16, error: Option<&str>) {
        assert_eq!(self.status.as_u16(), status, "{name}: {self:?}");
        assert!(self.token.is_none(), "{name}: reached the service");
        assert!(
            self.rejection.is_some(),
            "{name}: no rejection in the extensions"
        );
        if status == 503 {
            assert_eq!(
                self.challenges, [""; 0],
                "{name}: a challenge for a fault of ours"
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
    }

    /// Refused for exactly this reason.
    #[track_caller]
    pub fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        let reason = reason.into();
        assert_eq!(self.rejection.as_ref(), Some(&reason), "{name}");
        self.assert_refused(name, reason.status().as_u16(), reason.error_code());
    }
}
