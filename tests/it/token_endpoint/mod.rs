//! The authorization server's side: proofs of token and pushed authorization requests.

mod endpoint;
mod layer;
mod nonces;
mod proven_key;
mod replay;

use common::{ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on, field, fresh_jti, keys};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt::{Debug, Write as _};
use std::future::{Ready, ready};
use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::{
    Claim, IatError, Nonce, NonceError, NonceSource as _, ProofError, ReplayKey, ReplayStoreError,
    RequestTarget, TargetError, UrlMismatch,
};
use tower_dpop::resource::CORS_EXPOSE_HEADERS;
use tower_dpop::token_endpoint::{
    AuthorizationServerMetadata, Cnf, DpopJktError, GrantBindingError, ProvenKey, TOKEN_TYPE,
    TokenEndpoint, TokenEndpointLayer, TokenRequestRejection, authorization_request_key,
    check_code_binding, check_refresh_binding,
};
use tower_dpop::{
    Algorithm, Algorithms, Freshness, MemoryReplayStore, NonceSecret, ProofRules, PublicUrl,
    ReplayStore, StatelessNonces, Thumbprint, Timestamp,
};

/// A token request that passes [`endpoint`], to be changed in one thing before it is sent.
struct Attempt {
    method: Method,
    uri: String,
    key: Key,
    header: Value,
    claims: Value,
    /// Replaces the `DPoP` fields.
    dpop: Option<Vec<HeaderValue>>,
    /// Changes the signed proof.
    edit_proof: fn(String) -> String,
    form: String,
}

impl Attempt {
    fn good() -> Self {
        Self::with_key(keys::client())
    }

    fn with_key(key: Key) -> Self {
        Self {
            method: Method::POST,
            uri: "/token".into(),
            header: json!({ "typ": "dpop+jwt", "alg": key.alg(), "jwk": key.public_jwk() }),
            claims: json!({
                "jti": fresh_jti(),
                "htm": "POST",
                "htu": "https://as.example.com/token",
                "iat": NOW,
            }),
            key,
            dpop: None,
            edit_proof: |proof| proof,
            form: "free".into(),
        }
    }

    fn but(change: impl FnOnce(&mut Self)) -> Self {
        let mut attempt = Self::good();
        change(&mut attempt);
        attempt
    }

    fn without_proof() -> Self {
        Self::but(|a| a.dpop = Some(vec![]))
    }

    fn with_nonce(nonce: &str, now: u64) -> Self {
        Self::but(|a| {
            a.claims["nonce"] = json!(nonce);
            a.claims["iat"] = json!(now);
        })
    }

    fn proof(&self) -> String {
        (self.edit_proof)(self.key.sign(&self.header, &self.claims))
    }

    fn request(&self) -> Request<String> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&self.uri)
            .body(self.form.clone())
            .unwrap();
        let fields = match &self.dpop {
            None => vec![self.proof().parse().unwrap()],
            Some(fields) => fields.clone(),
        };
        for field in fields {
            request.headers_mut().append("dpop", field);
        }
        request
    }

    fn head(&self) -> Parts {
        self.request().into_parts().0
    }

    /// What the plain function says.
    fn verified(&self, endpoint: &TokenEndpoint) -> Result<ProvenKey, TokenRequestRejection> {
        block_on(endpoint.verify(&self.head()))
    }

    /// What the server behind the layer answers.
    fn outcome_by(&self, layer: &TokenEndpointLayer, server: &Server) -> Outcome {
        let server = server.clone();
        let service = layer.layer(service_fn(move |request: Request<String>| {
            ready(Ok::<_, Infallible>(server.answer(&request)))
        }));
        Outcome::of(block_on(service.oneshot(self.request())).unwrap())
    }
}

/// The authorization server under `https://as.example.com`, every default, the clock at [`NOW`].
fn rules() -> ProofRules {
    ProofRules::new(ISSUER.parse().unwrap()).with_clock(|| at(NOW))
}

fn endpoint() -> TokenEndpoint {
    TokenEndpoint::new(rules())
}

/// [`endpoint`] by other rules.
fn endpoint_by(change: impl FnOnce(ProofRules) -> ProofRules) -> TokenEndpoint {
    TokenEndpoint::new(change(rules()))
}

fn nonce_rules(clock: &TestClock) -> ProofRules {
    rules()
        .with_clock(clock.read())
        .with_nonces(StatelessNonces::new(secret(1)))
}

fn with_nonces(clock: &TestClock) -> TokenEndpoint {
    TokenEndpoint::new(nonce_rules(clock))
}

fn secret(byte: u8) -> NonceSecret {
    NonceSecret::from_bytes(&[byte; 32]).unwrap()
}

/// The key of a good request, as the plain function proves it.
fn proven(key: &Key) -> ProvenKey {
    Attempt::with_key(key.clone())
        .verified(&endpoint())
        .unwrap()
}

fn jkt(key: &Key) -> Thumbprint {
    key.jkt().parse().unwrap()
}

/// What is behind the layer: it has codes to redeem once, and keeps count.
#[derive(Clone, Default)]
struct Server {
    /// Codes that were not redeemed, and the key that each is bound to.
    codes: Arc<Mutex<HashMap<String, Option<Thumbprint>>>>,
    called: Arc<AtomicUsize>,
    /// What it sets itself.
    headers: HeaderMap,
    status: StatusCode,
}

impl Server {
    /// A server with one code, bound to no key.
    fn with_code(code: &str) -> Self {
        let server = Self::default();
        server.codes.lock().unwrap().insert(code.to_owned(), None);
        server
    }

    fn called(&self) -> usize {
        self.called.load(Ordering::SeqCst)
    }

    fn has_code(&self, code: &str) -> bool {
        self.codes.lock().unwrap().contains_key(code)
    }

    fn answer(&self, request: &Request<String>) -> Response<String> {
        self.redeem(request.extensions().get(), request.body())
    }

    /// The form is a code, or `free` for a request that needs none.
    fn redeem(&self, key: Option<&ProvenKey>, code: &str) -> Response<String> {
        self.called.fetch_add(1, Ordering::SeqCst);
        let known = code == "free" || self.codes.lock().unwrap().remove(code).is_some();
        let body = match key {
            _ if !known => json!({ "error": "invalid_grant" }),
            Some(key) => json!({ "cnf": key.cnf(), "token_type": TOKEN_TYPE }),
            None => json!({ "token_type": "Bearer" }),
        };
        let mut response = Response::new(body.to_string());
        *response.status_mut() = if known {
            self.status
        } else {
            StatusCode::BAD_REQUEST
        };
        response.headers_mut().extend(self.headers.clone());
        response
    }
}

/// What came back.
#[derive(Debug)]
struct Outcome {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
    rejection: Option<TokenRequestRejection>,
}

impl Outcome {
    fn of(response: Response<String>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            rejection: head.extensions.get().cloned(),
            headers: head.headers,
            body,
        }
    }

    fn rejection(endpoint: &TokenEndpoint, reason: TokenRequestRejection) -> Self {
        Self::of(endpoint.reject(reason))
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    /// The one nonce.
    #[track_caller]
    fn nonce(&self) -> String {
        let [nonce] = self.all("dpop-nonce")[..] else {
            panic!("A-11: exactly one nonce: {self:?}")
        };
        nonce.to_owned()
    }

    /// A bound token for this key.
    #[track_caller]
    fn assert_bound(&self, name: &str, key: &Key) {
        assert_eq!(
            (self.status, self.rejection.as_ref(), self.body.as_str()),
            (
                StatusCode::OK,
                None,
                &*format!(r#"{{"cnf":{{"jkt":"{}"}},"token_type":"DPoP"}}"#, key.jkt())
            ),
            "{name}"
        );
    }

    /// Rejected for exactly this reason, with this status and code, and in the form of RFC 6749
    /// section 5.2.
    #[track_caller]
    fn assert_rejected(
        &self,
        name: &str,
        reason: impl Into<TokenRequestRejection>,
        error: Option<&str>,
    ) {
        let reason = reason.into();
        assert_eq!(self.rejection.as_ref(), Some(&reason), "{name}");
        assert_eq!(reason.error_code(), error, "{name}");
        assert_eq!(self.status, reason.status(), "{name}");
        assert_eq!(self.all("cache-control"), ["no-store"], "{name}");
        assert_eq!(self.all("www-authenticate"), [""; 0], "{name}");
        let demands_nonce = error == Some("use_dpop_nonce");
        assert_eq!(
            self.all("dpop-nonce").len(),
            usize::from(demands_nonce),
            "{name}: A-11"
        );
        let Some(error) = error else {
            assert_eq!(self.status.as_u16(), 503, "{name}");
            assert_eq!(self.all("retry-after"), ["1"], "{name}");
            assert_eq!(self.all("content-type"), [""; 0], "{name}");
            assert_eq!(self.body, "", "{name}");
            return;
        };
        assert_eq!(self.status.as_u16(), 400, "{name}");
        assert_eq!(self.all("retry-after"), [""; 0], "{name}");
        assert_eq!(self.all("content-type"), ["application/json"], "{name}");
        let description = if demands_nonce {
            "Authorization server requires nonce in DPoP proof".to_owned()
        } else {
            reason.to_string()
        };
        assert_eq!(
            self.body,
            format!(r#"{{"error":"{error}","error_description":"{description}"}}"#),
            "{name}"
        );
        let allowed = |c: char| matches!(c, '\x20'..='\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
        assert!(
            description.chars().all(allowed),
            "{name}: RFC 6749 section 5.2"
        );
    }
}

type Change = fn(&mut Attempt);

/// One change each, for every check that a proof can fail here. Two cannot be failed by one request
/// alone: a replay takes two, and `ath` is not looked at.
#[expect(clippy::too_many_lines, reason = "a table of every check")]
fn bad_proofs() -> Vec<(&'static str, Change, ProofError)> {
    use ProofError as E;
    vec![
        ("A-1: none", |a| a.dpop = Some(vec![]), E::Missing),
        (
            "A-1: two",
            |a| {
                a.dpop = Some(vec![a.proof().parse().unwrap(), a.proof().parse().unwrap()]);
            },
            E::Several,
        ),
        (
            "A-1: the same twice",
            |a| {
                a.dpop = Some(vec![a.proof().parse().unwrap(); 2]);
            },
            E::Several,
        ),
        (
            "two in one field",
            |a| {
                a.dpop = Some(vec![format!("{0},{0}", a.proof()).parse().unwrap()]);
            },
            E::NotAJwt,
        ),
        (
            "an empty field",
            |a| a.dpop = Some(vec![field(b"")]),
            E::NotAJwt,
        ),
        (
            "no text",
            |a| a.dpop = Some(vec![field(b"\xff.\xff.\xff")]),
            E::NotAJwt,
        ),
        ("padded", |a| a.edit_proof = |proof| proof + "=", E::NotAJwt),
        (
            "too long",
            |a| a.claims["more"] = json!("m".repeat(8_000)),
            E::TooLong,
        ),
        (
            "a header that is no object",
            |a| a.header = json!(["dpop+jwt"]),
            E::HeaderNotJson,
        ),
        (
            "claims that are no object",
            |a| a.claims = json!("claims"),
            E::PayloadNotJson,
        ),
        (
            "A-21: an ath that is no text",
            |a| a.claims["ath"] = json!(1),
            E::PayloadNotJson,
        ),
        ("no jti", |a| remove(&mut a.claims, "jti"), E::ClaimMissing),
        ("no htm", |a| remove(&mut a.claims, "htm"), E::ClaimMissing),
        ("no htu", |a| remove(&mut a.claims, "htu"), E::ClaimMissing),
        ("no iat", |a| remove(&mut a.claims, "iat"), E::ClaimMissing),
        ("no jwk", |a| remove(&mut a.header, "jwk"), E::NoKey),
        (
            "an empty jti",
            |a| a.claims["jti"] = json!(""),
            E::JtiLength,
        ),
        (
            "a long jti",
            |a| a.claims["jti"] = json!("j".repeat(513)),
            E::JtiLength,
        ),
        ("A-15: no typ", |a| remove(&mut a.header, "typ"), E::Type),
        (
            "A-15: typ of an access token",
            |a| a.header["typ"] = json!("at+jwt"),
            E::Type,
        ),
        ("crit", |a| a.header["crit"] = json!(["exp"]), E::Extension),
        ("b64", |a| a.header["b64"] = json!(true), E::Extension),
        ("nested", |a| a.header["cty"] = json!("JWT"), E::Extension),
        (
            "A-15: no alg",
            |a| remove(&mut a.header, "alg"),
            E::Algorithm,
        ),
        (
            "A-15: none",
            |a| a.header["alg"] = json!("none"),
            E::Algorithm,
        ),
        (
            "A-15: a MAC",
            |a| a.header["alg"] = json!("HS256"),
            E::Algorithm,
        ),
        (
            "A-15: not on the list",
            |a| a.header["alg"] = json!("RS256"),
            E::Algorithm,
        ),
        ("by another key", |a| a.key = Key::es256(), E::Signature),
        (
            "no signature",
            |a| {
                a.edit_proof = |proof| proof[..=proof.rfind('.').unwrap()].to_owned();
            },
            E::Signature,
        ),
        (
            "a private key",
            |a| a.header["jwk"]["d"] = json!("AA"),
            E::Key(InvalidJwk::Private),
        ),
        (
            "a key of another type",
            |a| a.header["alg"] = json!("ES384"),
            E::Key(InvalidJwk::Algorithm),
        ),
        (
            "half a point",
            |a| remove(&mut a.header["jwk"], "y"),
            E::Key(InvalidJwk::Coordinate),
        ),
        ("for GET", |a| a.claims["htm"] = json!("GET"), E::Method),
        ("a GET", |a| a.method = Method::GET, E::Method),
        (
            "A-14: for the other endpoint",
            |a| {
                a.claims["htu"] = json!("https://as.example.com/par");
            },
            E::Url(UrlMismatch::Path),
        ),
        (
            "A-14: at the other endpoint",
            |a| a.uri = "/par".into(),
            E::Url(UrlMismatch::Path),
        ),
        (
            "for a resource server",
            |a| {
                a.claims["htu"] = json!("https://api.example.com/token");
            },
            E::Url(UrlMismatch::Host),
        ),
        (
            "for another port",
            |a| {
                a.claims["htu"] = json!("https://as.example.com:8443/token");
            },
            E::Url(UrlMismatch::Port),
        ),
        (
            "for http",
            |a| {
                a.claims["htu"] = json!("http://as.example.com/token");
            },
            E::Url(UrlMismatch::Scheme),
        ),
        (
            "for no URL",
            |a| a.claims["htu"] = json!("/token"),
            E::Url(UrlMismatch::Malformed),
        ),
        (
            "A-15: too old",
            |a| a.claims["iat"] = json!(NOW - 91),
            E::Iat(IatError::TooOld { by: 1 }),
        ),
        (
            "A-18: 61 s ahead",
            |a| {
                a.claims["iat"] = json!(NOW + 61);
            },
            E::Iat(IatError::InTheFuture { by: 31 }),
        ),
        (
            "A-18: nbf 61 s ahead",
            |a| a.claims["nbf"] = json!(NOW + 61),
            E::NotYetValid,
        ),
        ("expired", |a| a.claims["exp"] = json!(NOW - 30), E::Expired),
    ]
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

/// Every run of eight characters of a secret, so that a part of it is found as well.
#[track_caller]
fn assert_shows_nothing(name: &str, shown: &str, secrets: &[String]) {
    for secret in secrets {
        for at in 0..secret.len().saturating_sub(7) {
            if let Some(part) = secret.get(at..at + 8) {
                assert!(!shown.contains(part), "{name} shows a secret: {shown}");
            }
        }
    }
}

const MARKER: &str = "marker-of-the-request";

/// What no output may hold of an attempt.
fn secrets_of(attempt: &Attempt) -> Vec<String> {
    let key = &attempt.key;
    let jwk = key.public_jwk();
    let mut secrets = vec![MARKER.to_owned(), key.jkt()];
    secrets.extend(["x", "y"].map(|member| jwk[member].as_str().unwrap().to_owned()));
    for value in attempt.request().headers().values() {
        secrets.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    secrets
}

/// Everything at once, over a connection: A-10, A-12, A-13, A-14 and A-19.
mod over_http {
    use axum::extract::State;
    use axum::routing::post;
    use axum::{Extension, Router};
    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::client::legacy::connect::HttpConnector;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Clone)]
    struct App {
        server: Server,
        endpoint: Arc<TokenEndpoint>,
    }

    /// Pushes a code that is bound to the key of the proof; the form is a `dpop_jkt` or empty.
    async fn par(
        State(app): State<App>,
        Extension(key): Extension<Option<ProvenKey>>,
        form: String,
    ) -> Response<String> {
        let dpop_jkt = Some(form.as_str()).filter(|form| !form.is_empty());
        match authorization_request_key(key.as_ref(), dpop_jkt) {
            Ok(key) => {
                let mut codes = app.server.codes.lock().unwrap();
                codes.insert("the-code".into(), key);
                Response::new("the-code".into())
            }
            Err(rejection) => app.endpoint.reject(rejection),
        }
    }

    async fn token(
        State(app): State<App>,
        Extension(key): Extension<ProvenKey>,
        code: String,
    ) -> Response<String> {
        let bound_to = app.server.codes.lock().unwrap().get(&code).copied();
        match check_code_binding(Some(&key), bound_to.flatten()) {
            Ok(()) => app.server.redeem(Some(&key), &code),
            Err(rejection) => app.endpoint.reject(rejection),
        }
    }

    struct Browserless {
        base: String,
        client: Client<HttpConnector, Full<Bytes>>,
    }

    impl Browserless {
        async fn send(&self, path: &str, nonce: Option<&str>, key: &Key, form: &str) -> Outcome {
            let url = format!("{}{path}", self.base);
            let mut attempt = Attempt::with_key(key.clone());
            attempt.claims["htu"] = json!(url);
            if let Some(nonce) = nonce {
                attempt.claims["nonce"] = json!(nonce);
            }
            let request = Request::post(&url)
                .header("dpop", attempt.proof())
                .body(Full::from(form.to_owned()))
                .unwrap();
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(bytes.into()).unwrap();
            Outcome::of(Response::from_parts(head, body))
        }
    }

    #[tokio::test]
    async fn a_code_goes_from_the_pushed_request_to_the_token() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let endpoint = TokenEndpoint::new(
            ProofRules::new(PublicUrl::http_on_loopback(&base).unwrap())
                .with_clock(|| at(NOW))
                .with_nonces(StatelessNonces::new(secret(1))),
        );
        let app = App {
            server: Server::default(),
            endpoint: Arc::new(endpoint),
        };
        let router = Router::new()
            .route("/par", post(par))
            .route("/token", post(token))
            .route_layer(TokenEndpointLayer::new(Arc::clone(&app.endpoint)))
            .with_state(app.clone());
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let client = Browserless {
            base,
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        let (key, other) = (keys::client(), Key::es256());

        let demand = client.send("/par", None, &key, "").await;
        assert_eq!(demand.status.as_u16(), 400, "A-10");
        assert_eq!(
            demand.body,
            r#"{"error":"use_dpop_nonce","error_description":"Authorization server requires nonce in DPoP proof"}"#
        );
        assert_eq!(demand.all("cache-control"), ["no-store"], "A-12");
        assert_eq!(demand.all("content-type"), ["application/json"]);
        let nonce = demand.nonce();
        let nonce = Some(nonce.as_str());

        let rejected = client.send("/par", nonce, &key, &other.jkt()).await;
        assert_eq!(
            rejected.body,
            r#"{"error":"invalid_request","error_description":"dpop_jkt and the DPoP proof name different keys"}"#,
            "A-14"
        );
        let pushed = client.send("/par", nonce, &key, &key.jkt()).await;
        assert_eq!(pushed.body, "the-code", "A-14");

        let demand = client.send("/token", None, &key, "the-code").await;
        assert!(demand.body.contains("use_dpop_nonce"), "A-19");
        let rejected = client.send("/token", nonce, &other, "the-code").await;
        assert_eq!(
            rejected.body,
            r#"{"error":"invalid_grant","error_description":"the authorization code is bound to another key"}"#,
            "A-13"
        );
        assert_eq!(rejected.status.as_u16(), 400, "A-13");
        let token = client.send("/token", nonce, &key, "the-code").await;
        token.assert_bound("A-19: the code was not consumed", &key);
        assert_eq!(app.server.called(), 1);
        serving.abort();
    }

    /// The public URL has the whole path, also where a router has stripped some of it.
    #[cfg(feature = "axum")]
    #[test]
    fn a_handler_takes_the_key_as_an_argument() {
        use axum::body::Body;
        use tower_dpop::extract::NotBehindTokenEndpointLayer;

        async fn token(key: ProvenKey) -> String {
            key.thumbprint().to_string()
        }
        async fn perhaps(key: Option<ProvenKey>) -> String {
            key.map_or("none".into(), |key| key.thumbprint().to_string())
        }

        let send = |app: &Router, attempt: &Attempt| {
            let request = attempt.request().map(Body::from);
            block_on(async {
                let response = app.clone().oneshot(request).await.unwrap();
                let (head, body) = response.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = String::from_utf8(bytes.into()).unwrap();
                Outcome::of(Response::from_parts(head, body))
            })
        };
        let routes = || {
            Router::new()
                .route("/token", post(token))
                .route("/perhaps", post(perhaps))
        };
        let to = |path: &str, dpop: Option<Vec<HeaderValue>>| {
            Attempt::but(|a| {
                a.uri = path.into();
                a.claims["htu"] = json!(format!("https://as.example.com{path}"));
                a.dpop = dpop;
            })
        };
        let key = keys::client().jkt();

        let strict = routes().layer(TokenEndpointLayer::new(endpoint()));
        assert_eq!(send(&strict, &to("/token", None)).body, key);
        assert_eq!(send(&strict, &to("/perhaps", None)).body, key);
        let nested = Router::new().nest("/oauth", strict);
        assert_eq!(send(&nested, &to("/oauth/token", None)).body, key);
        let rejected = send(&nested, &to("/oauth/token", Some(vec![])));
        assert!(rejected.body.contains("invalid_dpop_proof"), "A-8");

        let layer = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
        let open = routes().layer(layer);
        assert_eq!(send(&open, &to("/perhaps", Some(vec![]))).body, "none");
        let server_fault = send(&open, &to("/token", Some(vec![])));
        assert_eq!(server_fault.status.as_u16(), 500);
        assert_eq!(server_fault.body, "");
        for path in ["/token", "/perhaps"] {
            let forgotten = send(&routes(), &to(path, Some(vec![])));
            assert_eq!(forgotten.status.as_u16(), 500, "{path} without a layer");
        }
        assert_eq!(
            NotBehindTokenEndpointLayer.to_string(),
            "the handler takes a ProvenKey, but found none: add TokenEndpointLayer outside it"
        );
    }
}
