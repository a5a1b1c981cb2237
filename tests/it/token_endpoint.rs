//! The authorization server's side: proofs of token and pushed authorization requests.

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

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
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

use common::{ISSUER, Key, KeyExt as _, NOW, TestClock, at, block_on, field, fresh_jti, keys};

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

/// A-1, A-2, A-3: by every algorithm of the default, through the function and through the layer.
#[test]
fn a_good_proof_makes_a_bound_token() {
    let endpoint = Arc::new(endpoint());
    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let every = [
        keys::client(),
        Key::es384(),
        Key::rsa("PS256"),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
    ];
    for key in every {
        let name = key.alg();
        let attempt = || Attempt::with_key(key.clone());
        let proven = attempt().verified(&endpoint).unwrap();
        assert_eq!(proven.thumbprint(), jkt(&key), "{name}");
        assert!(proven.next_nonce().is_none(), "{name}");
        let outcome = attempt().outcome_by(&layer, &Server::default());
        outcome.assert_bound(name, &key);
        assert_eq!(outcome.all("dpop-nonce"), [""; 0], "{name}");
        assert_eq!(outcome.all("cache-control"), [""; 0], "{name}");
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

/// A-1, A-15: rejected, before the server behind is asked, and by both ways of asking alike.
#[test]
fn rejects_a_proof_that_fails_a_check() {
    let mut seen: HashSet<Discriminant<ProofError>> = HashSet::new();
    for (name, change, reason) in bad_proofs() {
        let attempt = Attempt::but(change);
        assert_eq!(
            attempt.verified(&endpoint()).unwrap_err(),
            TokenRequestRejection::Proof(reason),
            "{name}"
        );
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::with_code("c"));
        let outcome = attempt.outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.called(), 0, "{name}: A-19");
        seen.insert(discriminant(&reason));
    }
    assert_eq!(seen.len(), 19, "all but TokenHash and Replayed");
    assert!(!seen.contains(&discriminant(&ProofError::TokenHash)));
    assert!(!seen.contains(&discriminant(&ProofError::Replayed)));
}

#[test]
fn rejects_a_request_that_no_proof_could_be_for() {
    let rows: [(&str, Change, TargetError); 2] = [
        (
            "another server's",
            |a| a.uri = "https://evil.example/token".into(),
            TargetError::Misdirected,
        ),
        (
            "a malformed path",
            |a| a.uri = "/token|".into(),
            TargetError::NotRfc3986,
        ),
    ];
    for (name, change, reason) in rows {
        let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
        let outcome = Attempt::but(change).outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("invalid_request"));
        assert_eq!(server.called(), 0, "{name}");
    }
}

/// A-15: a proof is good once, at either endpoint.
#[test]
fn rejects_a_proof_that_was_used_before() {
    let (layer, server) = (TokenEndpointLayer::new(endpoint()), Server::default());
    let attempt = Attempt::good();
    let key = keys::client();
    attempt
        .outcome_by(&layer, &server)
        .assert_bound("first", &key);
    attempt.outcome_by(&layer, &server).assert_rejected(
        "again",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let signed_anew = Attempt::but(|a| a.claims["jti"] = attempt.claims["jti"].clone());
    signed_anew.outcome_by(&layer, &server).assert_rejected(
        "its jti again",
        ProofError::Replayed,
        Some("invalid_dpop_proof"),
    );
    let by_another = {
        let mut other = Attempt::with_key(Key::es256());
        other.claims["jti"] = attempt.claims["jti"].clone();
        other
    };
    by_another
        .outcome_by(&layer, &server)
        .assert_bound("its jti by another key", &by_another.key);
    assert_eq!(server.called(), 2);
}

/// A-15, A-19: a proof that is only checked takes no place in the memory, so a server can look at
/// client and grant before it spends the proof.
#[test]
fn a_proof_is_spent_when_the_server_says_so() {
    struct Counting(Arc<AtomicUsize>, MemoryReplayStore);

    impl ReplayStore for Counting {
        async fn claim(
            &self,
            key: ReplayKey,
            now: Timestamp,
            expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.claim(key, now, expires).await
        }
    }

    let (claims, clock) = (Arc::new(AtomicUsize::new(0)), TestClock::at(NOW));
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Counting(claims.clone(), MemoryReplayStore::default()))
    });
    let (attempt, other) = (Attempt::good(), Attempt::with_key(Key::es256()));
    let checked = endpoint.check(&attempt.head()).unwrap();
    let again = endpoint.check(&attempt.head()).unwrap();
    assert_eq!(checked.thumbprint(), jkt(&keys::client()));
    assert!(endpoint.check(&other.head()).is_ok());
    let rejected = endpoint
        .check(&Attempt::without_proof().head())
        .unwrap_err();
    assert_eq!(rejected, ProofError::Missing.into());
    assert_eq!(
        claims.load(Ordering::SeqCst),
        0,
        "nothing is remembered yet"
    );
    assert_eq!(format!("{checked:?}"), "UnrecordedProof(..)");

    let key = block_on(checked.record_use()).unwrap();
    assert_eq!(key.thumbprint(), jkt(&keys::client()));
    assert_eq!(key.algorithm(), Algorithm::Es256);
    let replayed = block_on(again.record_use()).unwrap_err();
    assert_eq!(replayed, ProofError::Replayed.into());
    assert_eq!(claims.load(Ordering::SeqCst), 2);

    for (seconds, spent) in [(90, true), (91, false)] {
        let (attempt, before) = (Attempt::good(), claims.load(Ordering::SeqCst));
        clock.set(NOW);
        let checked = endpoint.check(&attempt.head()).unwrap();
        clock.set(NOW + seconds);
        let outcome = block_on(checked.record_use()).map(|key| key.algorithm());
        let expected = if spent {
            Ok(Algorithm::Es256)
        } else {
            Err(ProofError::Expired.into())
        };
        assert_eq!(outcome, expected, "{seconds}");
        let made = claims.load(Ordering::SeqCst) - before;
        assert_eq!(made, usize::from(spent), "{seconds}: places taken");
    }
}

/// A-21: there is no access token yet, so an `ath` says nothing.
#[test]
fn ath_is_not_looked_at() {
    let rows = [
        ("of some token", json!(common::ath("some token"))),
        ("no hash", json!("wrong")),
        ("empty", json!("")),
        ("long", json!("A".repeat(4_000))),
    ];
    for (name, ath) in rows {
        let attempt = Attempt::but(|a| a.claims["ath"] = ath);
        assert!(attempt.verified(&endpoint()).is_ok(), "A-21: {name}");
    }
}

/// A-18: clocks of clients that are 10 s ahead are accepted; the bounds of our own default.
#[test]
fn a_clock_that_is_a_little_ahead_is_accepted() {
    let rows: [(&str, Change); 5] = [
        ("A-18: 10 s ahead", |a| a.claims["iat"] = json!(NOW + 10)),
        ("A-18: nbf 10 s ahead", |a| {
            a.claims["nbf"] = json!(NOW + 10);
        }),
        ("30 s ahead", |a| a.claims["iat"] = json!(NOW + 30)),
        ("90 s old", |a| a.claims["iat"] = json!(NOW - 90)),
        ("a fraction", |a| a.claims["iat"] = json!(1_700_000_009.5)),
    ];
    for (name, change) in rows {
        let proven = Attempt::but(change).verified(&endpoint());
        assert!(proven.is_ok(), "{name}: {proven:?}");
    }
}

/// A-10, A-11, A-12, A-19: the demand comes before the code is looked at, so the retry still has it.
#[test]
fn a_nonce_is_demanded_before_the_code_is_consumed() {
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let server = Server::with_code("the-code");
    let mut attempt = Attempt::but(|a| a.form = "the-code".into());

    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.body,
        r#"{"error":"use_dpop_nonce","error_description":"Authorization server requires nonce in DPoP proof"}"#,
        "RFC 9449, Figure 20"
    );
    assert_eq!(server.called(), 0, "A-19: nobody was asked");
    assert!(server.has_code("the-code"), "A-19");

    // The same jti: the rejection did not spend it.
    attempt.claims["nonce"] = json!(outcome.nonce());
    let outcome = attempt.outcome_by(&layer, &server);
    outcome.assert_bound("A-19: the same code", &attempt.key);
    assert!(!server.has_code("the-code"), "it is consumed now");
    assert_eq!(server.called(), 1);

    let again = attempt.outcome_by(&layer, &server);
    again.assert_rejected("A-15", ProofError::Replayed, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 1);
}

/// A-10, A-11, A-15: one answer to every nonce that is not ours and alive, and what it hands out
/// works.
#[test]
fn a_missing_foreign_or_stale_nonce_is_answered_with_another() {
    let clock = TestClock::at(NOW);
    let layer = TokenEndpointLayer::new(with_nonces(&clock));
    let start = NOW - NOW % 120;
    let issued = |byte: u8, seconds: u64| {
        let nonce = StatelessNonces::new(secret(byte)).issue(Timestamp::from_unix(seconds));
        nonce.as_header_value().to_str().unwrap().to_owned()
    };
    let rows = [
        ("A-15: none", None, NonceError::Missing),
        ("A-10: empty", Some(String::new()), NonceError::Foreign),
        ("A-10: garbage", Some("garbage".into()), NonceError::Foreign),
        (
            "A-11: of another secret",
            Some(issued(2, start)),
            NonceError::Foreign,
        ),
        (
            "A-11: tampered with",
            Some(format!("B{}", &issued(1, start)[1..])),
            NonceError::Foreign,
        ),
        (
            "A-10: stale",
            Some(issued(1, start - 240)),
            NonceError::Stale,
        ),
        (
            "A-10: from the future",
            Some(issued(1, start + 120)),
            NonceError::InTheFuture,
        ),
    ];
    for (name, nonce, reason) in rows {
        let server = Server::default();
        let attempt = Attempt::but(|a| {
            if let Some(nonce) = nonce {
                a.claims["nonce"] = json!(nonce);
            }
        });
        let outcome = attempt.outcome_by(&layer, &server);
        outcome.assert_rejected(name, reason, Some("use_dpop_nonce"));
        assert_eq!(server.called(), 0, "{name}");
        let next = Attempt::with_nonce(&outcome.nonce(), NOW).outcome_by(&layer, &server);
        next.assert_bound(name, &keys::client());
    }
}

/// A-10: a client without a proof is told at once, and a proof that is bad in another way of that.
#[test]
fn a_request_without_a_proof_is_asked_for_a_nonce() {
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let server = Server::default();
    Attempt::without_proof()
        .outcome_by(&layer, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));
    Attempt::but(|a| a.claims["htm"] = json!("GET"))
        .outcome_by(&layer, &server)
        .assert_rejected("A-1", ProofError::Method, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 0);
}

/// A-11, A-12: a success near the end of its nonce brings the next one, instead of whatever the
/// server behind has set.
#[test]
fn a_success_near_the_end_of_a_nonce_brings_the_next() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    // Rows in the order of time: a memory that has dropped records does not go back.
    let layer = TokenEndpointLayer::new(with_nonces(&clock));
    let nonce = Attempt::without_proof()
        .outcome_by(&layer, &Server::default())
        .nonce();
    let mut own = HeaderMap::new();
    own.insert("dpop-nonce", field(b"its-own"));
    own.insert("cache-control", field(b"max-age=600"));
    let its_own = Server {
        headers: own,
        ..Server::default()
    };
    let failing = Server {
        status: StatusCode::BAD_REQUEST,
        ..Server::default()
    };
    let rows = [
        ("young", 119, Server::default(), None),
        (
            "young, and one of its own",
            119,
            its_own.clone(),
            Some("its-own"),
        ),
        ("near its end", 120, Server::default(), Some("next")),
        (
            "A-11: near its end, and one of its own",
            120,
            its_own,
            Some("next"),
        ),
        ("near its end, and a failure", 120, failing, None),
        ("in its last second", 239, Server::default(), Some("next")),
    ];
    for (name, age, server, expected) in rows {
        clock.set(start + age);
        let outcome = Attempt::with_nonce(&nonce, start + age).outcome_by(&layer, &server);
        assert_eq!(outcome.rejection, None, "{name}");
        match expected {
            None => assert_eq!(outcome.all("dpop-nonce"), [""; 0], "{name}"),
            Some("its-own") => assert_eq!(outcome.nonce(), "its-own", "{name}"),
            Some(_) => {
                assert_ne!(outcome.nonce(), nonce, "{name}");
                assert_eq!(outcome.all("cache-control"), ["no-store"], "{name}: A-12");
                Attempt::with_nonce(&outcome.nonce(), start + age)
                    .outcome_by(&layer, &Server::default())
                    .assert_bound(name, &keys::client());
            }
        }
    }
}

/// A-10: nonces can be handed out elsewhere, and the plain function says when the next one is due.
#[test]
fn a_nonce_can_be_asked_for_directly() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = with_nonces(&clock);
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap();
    let verified = |now| {
        clock.set(now);
        Attempt::with_nonce(text, now).verified(&endpoint).unwrap()
    };
    assert!(verified(start).next_nonce().is_none());
    let next: Option<Nonce> = verified(start + 120).next_nonce().cloned();
    assert_eq!(next, endpoint.issue_nonce());
    assert_ne!(next, Some(nonce.clone()));
    assert!(self::endpoint().issue_nonce().is_none());
}

/// A-6, A-8: with and without clients that do not know DPoP.
#[test]
fn requests_without_a_proof_pass_only_where_that_is_said() {
    let strict = TokenEndpointLayer::new(endpoint());
    let open = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
    let open_with_nonces =
        TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW))).with_requests_without_proof();
    let server = Server::default();

    Attempt::without_proof()
        .outcome_by(&strict, &server)
        .assert_rejected("A-8", ProofError::Missing, Some("invalid_dpop_proof"));
    assert_eq!(server.called(), 0);
    for layer in [&open, &open_with_nonces] {
        let outcome = Attempt::without_proof().outcome_by(layer, &server);
        assert_eq!(outcome.body, r#"{"token_type":"Bearer"}"#, "A-6");
        assert_eq!(outcome.all("dpop-nonce"), [""; 0], "A-6");
    }
    Attempt::good()
        .outcome_by(&open, &server)
        .assert_bound("with a proof", &keys::client());
    Attempt::good()
        .outcome_by(&open_with_nonces, &server)
        .assert_rejected("A-10", NonceError::Missing, Some("use_dpop_nonce"));

    let endpoint = endpoint();
    let absent = block_on(endpoint.verify_if_present(&Attempt::without_proof().head()));
    assert!(absent.unwrap().is_none(), "A-6");
    let present = block_on(endpoint.verify_if_present(&Attempt::good().head()));
    assert_eq!(present.unwrap().unwrap().thumbprint(), jkt(&keys::client()));
}

/// A-6, A-8: a server may clone the service for every connection.
#[test]
fn a_clone_lets_through_what_the_service_does() {
    let layer = TokenEndpointLayer::new(endpoint());
    let open = layer.clone().with_requests_without_proof();
    for (layer, expected) in [
        (
            layer,
            Some(TokenRequestRejection::Proof(ProofError::Missing)),
        ),
        (open, None),
    ] {
        let server = Server::default();
        let service = layer
            .clone()
            .layer(service_fn(move |request: Request<String>| {
                ready(Ok::<_, Infallible>(server.answer(&request)))
            }));
        let request = Attempt::without_proof().request();
        let outcome = Outcome::of(block_on(service.clone().oneshot(request)).unwrap());
        assert_eq!(outcome.rejection, expected);
    }
}

/// A-6: whoever sends a `DPoP` field is held to it.
#[test]
fn a_bad_proof_is_never_taken_for_none() {
    for (name, change, reason) in bad_proofs() {
        if reason == ProofError::Missing {
            continue;
        }
        let open = TokenEndpointLayer::new(endpoint()).with_requests_without_proof();
        let server = Server::default();
        let outcome = Attempt::but(change).outcome_by(&open, &server);
        outcome.assert_rejected(name, reason, Some("invalid_dpop_proof"));
        assert_eq!(server.called(), 0, "{name}");
    }
}

/// A-14: one object serves both endpoints, and a proof is for one of them.
#[test]
fn a_proof_is_for_the_token_endpoint_or_for_that_of_pushed_requests() {
    let layer = TokenEndpointLayer::new(endpoint());
    let (token, par) = ("https://as.example.com/token", "https://as.example.com/par");
    let rows = [
        ("token for token", "/token", token, true),
        ("par for par", "/par", par, true),
        ("token for par", "/par", token, false),
        ("par for token", "/token", par, false),
        ("with a query", "/par?request=1", par, true),
    ];
    for (name, uri, htu, passes) in rows {
        let attempt = Attempt::but(|a| {
            a.uri = uri.into();
            a.claims["htu"] = json!(htu);
        });
        let outcome = attempt.outcome_by(&layer, &Server::default());
        if passes {
            outcome.assert_bound(name, &attempt.key);
        } else {
            outcome.assert_rejected(
                name,
                ProofError::Url(UrlMismatch::Path),
                Some("invalid_dpop_proof"),
            );
        }
    }
}

/// Texts that are nearly a thumbprint.
fn not_the_thumbprint(jkt: &str) -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("padded", format!("{jkt}=")),
        ("with a space", format!("{jkt} ")),
        ("a prefix", jkt[..42].to_owned()),
        ("in another case", jkt.to_lowercase()),
        ("in another alphabet", "+".repeat(43)),
        ("long", "A".repeat(10_000)),
        ("not ASCII", "ä".repeat(43)),
    ]
}

/// A-13, A-18: the code of an authorization request with `dpop_jkt` goes to its key only.
#[test]
fn a_code_is_redeemed_by_the_key_it_is_bound_to() {
    let (key, other) = (keys::client(), Key::es256());
    let proven = proven(&key);
    let (ours, others) = (Some(jkt(&key)), Some(jkt(&other)));
    let of_other_key = GrantBindingError::CodeOfOtherKey;
    let rows = [
        ("A-13: not bound", Some(&proven), None, Ok(())),
        ("A-13: its key", Some(&proven), ours, Ok(())),
        ("A-13: another", Some(&proven), others, Err(of_other_key)),
        (
            "A-13: no proof",
            None,
            ours,
            Err(GrantBindingError::NoProof),
        ),
        ("A-6: not bound, no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_code_binding(proof, bound_to), expected, "{name}");
    }
    for (error, code) in [
        (of_other_key, "invalid_grant"),
        (GrantBindingError::NoProof, "invalid_dpop_proof"),
    ] {
        Outcome::rejection(&endpoint(), error.into()).assert_rejected("A-13", error, Some(code));
    }
}

/// A-14: the proof, the parameter, or both.
#[test]
fn a_pushed_request_binds_its_code_by_proof_or_parameter() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let (ours, others) = (key.jkt(), other.jkt());
    let contradictory = Err(DpopJktError::Contradictory);
    let rows = [
        ("neither", None, None, Ok(None)),
        ("the proof", Some(&proof), None, Ok(Some(jkt(&key)))),
        ("the parameter", None, Some(&others), Ok(Some(jkt(&other)))),
        ("both", Some(&proof), Some(&ours), Ok(Some(jkt(&key)))),
        (
            "both, of two keys",
            Some(&proof),
            Some(&others),
            contradictory,
        ),
    ];
    for (name, proof, dpop_jkt, expected) in rows {
        let bound = authorization_request_key(proof, dpop_jkt.map(String::as_str));
        assert_eq!(bound, expected, "A-14: {name}");
    }
    for (name, malformed) in not_the_thumbprint(&ours) {
        if name == "in another case" {
            continue; // which is a thumbprint, or not, as it happens
        }
        for proof in [None, Some(&proof)] {
            let rejected = authorization_request_key(proof, Some(&malformed)).unwrap_err();
            Outcome::rejection(&endpoint(), rejected.into()).assert_rejected(
                &format!("A-14: {name}"),
                DpopJktError::Malformed,
                Some("invalid_request"),
            );
        }
    }
    Outcome::rejection(&endpoint(), DpopJktError::Contradictory.into()).assert_rejected(
        "A-14",
        DpopJktError::Contradictory,
        Some("invalid_request"),
    );
}

/// A-4, A-5, A-20: the refresh token of a public client goes with its key; that of a confidential client
/// is bound to none.
#[test]
fn a_refresh_token_is_used_by_the_key_it_is_bound_to() {
    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let other_key = GrantBindingError::RefreshTokenOfOtherKey;
    let missing = GrantBindingError::NoProof;
    let rows = [
        ("A-4: its key", Some(&proof), Some(jkt(&key)), Ok(())),
        (
            "A-4: another",
            Some(&proof),
            Some(jkt(&other)),
            Err(other_key),
        ),
        ("A-4: no proof", None, Some(jkt(&key)), Err(missing)),
        ("A-5: not bound", Some(&proof), None, Ok(())),
        ("A-6: not bound, no proof", None, None, Ok(())),
    ];
    for (name, proof, bound_to, expected) in rows {
        assert_eq!(check_refresh_binding(proof, bound_to), expected, "{name}");
    }
    Outcome::rejection(&endpoint(), other_key.into()).assert_rejected(
        "A-4",
        other_key,
        Some("invalid_grant"),
    );
}

/// A-2, A-3, A-9: `cnf`, in a JWT and at the top level of an introspection response.
#[test]
fn cnf_and_token_type_are_written_as_registered() {
    let key = keys::client();
    let cnf = proven(&key).cnf();
    let expected = format!(r#"{{"jkt":"{}"}}"#, key.jkt());
    assert_eq!(serde_json::to_string(&cnf).unwrap(), expected, "A-3");
    assert_eq!(cnf, Cnf::from(jkt(&key)));
    assert_eq!(cnf.jkt, jkt(&key));
    assert_eq!(TOKEN_TYPE, "DPoP", "A-2");
    let introspection = json!({ "active": true, "cnf": cnf, "token_type": TOKEN_TYPE });
    assert_eq!(
        introspection.to_string(),
        format!(r#"{{"active":true,"cnf":{expected},"token_type":"DPoP"}}"#),
        "A-9"
    );
}

/// A-7: what is accepted is what the metadata says.
#[test]
fn metadata_names_the_algorithms() {
    #[derive(serde::Serialize)]
    struct Metadata {
        issuer: &'static str,
        #[serde(flatten)]
        dpop: AuthorizationServerMetadata,
    }

    assert_eq!(
        serde_json::to_string(&endpoint().metadata()).unwrap(),
        r#"{"dpop_signing_alg_values_supported":["ES256","ES384","PS256","Ed25519","EdDSA"]}"#,
        "A-7"
    );
    let es512 = endpoint_by(|rules| rules.with_algorithms(Algorithms::only(Algorithm::Es512)));
    let metadata = Metadata {
        issuer: ISSUER,
        dpop: es512.metadata(),
    };
    assert_eq!(
        serde_json::to_string(&metadata).unwrap(),
        r#"{"issuer":"https://as.example.com","dpop_signing_alg_values_supported":["ES512"]}"#,
        "A-7"
    );
    assert!(Attempt::with_key(Key::es512()).verified(&es512).is_ok());
    assert_eq!(
        Attempt::good().verified(&es512).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
}

#[test]
fn what_is_configured_is_heeded() {
    let other_name =
        endpoint_by(|rules| rules.add_public_url("https://login.example".parse().unwrap()));
    let at_login = || Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login().verified(&other_name).is_ok());
    assert!(Attempt::good().verified(&other_name).is_ok());
    assert!(at_login().verified(&endpoint()).is_err());

    let behind_a_prefix = TokenEndpoint::new(
        ProofRules::new("https://as.example.com/tenant".parse().unwrap()).with_clock(|| at(NOW)),
    );
    let with_prefix =
        Attempt::but(|a| a.claims["htu"] = json!("https://as.example.com/tenant/token"));
    assert!(with_prefix.verified(&behind_a_prefix).is_ok());
    assert!(Attempt::good().verified(&behind_a_prefix).is_err());

    let resolved = endpoint_by(|rules| {
        rules.with_target_resolver(|head: &Parts| {
            let uri = head.headers.get("x-original-uri")?.to_str().ok()?;
            Some(RequestTarget::new(Method::POST, uri.parse().ok()?))
        })
    });
    let mut head = Attempt::but(|a| a.uri = "/auth".into()).head();
    head.headers.insert("x-original-uri", field(b"/token"));
    assert!(block_on(resolved.verify(&head)).is_ok());
    assert_eq!(
        Attempt::good().verified(&resolved).unwrap_err(),
        TokenRequestRejection::Target(TargetError::Unresolved)
    );

    let strict = Freshness::default().with_leeway(Duration::from_secs(5));
    let ahead = Attempt::but(|a| a.claims["iat"] = json!(NOW + 6));
    assert!(ahead.verified(&endpoint()).is_ok());
    assert_eq!(
        ahead
            .verified(&endpoint_by(|rules| rules.with_freshness(strict)))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
}

/// The replay memory may be chosen last: nothing else changes.
#[test]
fn what_was_configured_before_the_replay_memory_stays() {
    let memory = MemoryReplayStore::default;
    let ps256 = rules().with_algorithms(Algorithms::only(Algorithm::Ps256));
    assert_eq!(
        Attempt::good()
            .verified(&TokenEndpoint::new(ps256.with_replay_store(memory())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Algorithm)
    );
    let strict = Freshness::default().with_leeway(Duration::from_secs(5));
    let strict = rules().with_freshness(strict);
    assert_eq!(
        Attempt::but(|a| a.claims["iat"] = json!(NOW + 6))
            .verified(&TokenEndpoint::new(strict.with_replay_store(memory())))
            .unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Iat(IatError::InTheFuture { by: 1 }))
    );
    let with_nonces =
        TokenEndpoint::new(nonce_rules(&TestClock::at(NOW)).with_replay_store(memory()));
    assert_eq!(
        Attempt::good().verified(&with_nonces).unwrap_err(),
        TokenRequestRejection::Nonce(NonceError::Missing),
        "A-10"
    );
    let other_name = endpoint_by(|rules| {
        rules
            .add_public_url("https://login.example".parse().unwrap())
            .with_replay_store(memory())
    });
    let at_login = Attempt::but(|a| a.claims["htu"] = json!("https://login.example/token"));
    assert!(at_login.verified(&other_name).is_ok());
}

/// A-10, A-15: where the nonce decides instead of `iat`, it also decides how long a proof is
/// remembered; where no nonce is required, `iat` decides all the same.
#[test]
fn a_nonce_may_decide_instead_of_iat() {
    let clock = TestClock::at(NOW);
    let endpoint = TokenEndpoint::new(nonce_rules(&clock).with_freshness(Freshness::fapi2()));
    let nonce = endpoint.issue_nonce().unwrap();
    let nonce = nonce.as_header_value().to_str().unwrap().to_owned();
    for iat in [NOW - 3600, NOW + 3600] {
        let attempt = Attempt::with_nonce(&nonce, iat);
        assert!(attempt.verified(&endpoint).is_ok(), "{iat}");
        assert_eq!(
            attempt.verified(&endpoint).unwrap_err(),
            TokenRequestRejection::Proof(ProofError::Replayed),
            "{iat}"
        );
        let rejected = attempt
            .verified(&self::endpoint_by(|rules| {
                rules.with_freshness(Freshness::fapi2())
            }))
            .unwrap_err();
        assert!(
            matches!(rejected, TokenRequestRejection::Proof(ProofError::Iat(_))),
            "{iat}: without nonces: {rejected:?}"
        );
    }
}

/// D12, D13: who cannot say rejects, and nothing is consumed.
#[test]
fn a_replay_memory_that_cannot_say_is_a_fault_of_ours() {
    struct Away;

    impl ReplayStore for Away {
        async fn claim(
            &self,
            _key: ReplayKey,
            _now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            Err(ReplayStoreError::Unavailable)
        }
    }

    let server = Server::with_code("the-code");
    let attempt = Attempt::but(|a| a.form = "the-code".into());
    let away = TokenEndpointLayer::new(endpoint_by(|rules| rules.with_replay_store(Away)));
    let full = TokenEndpointLayer::new(endpoint_by(|rules| {
        rules.with_replay_store(MemoryReplayStore::with_limit(0))
    }));
    let outcomes = [
        (
            attempt.outcome_by(&away, &server),
            ReplayStoreError::Unavailable,
        ),
        (attempt.outcome_by(&full, &server), ReplayStoreError::Full),
    ];
    for (outcome, reason) in outcomes {
        outcome.assert_rejected("D13", reason, None);
    }
    assert!(server.called() == 0 && server.has_code("the-code"), "A-19");
}

/// A-15: a claim that took so long that an earlier one may have been forgotten is no first use.
#[test]
fn a_proof_that_ran_out_while_the_memory_was_asked_is_rejected() {
    struct Slow(TestClock);

    impl ReplayStore for Slow {
        async fn claim(
            &self,
            _key: ReplayKey,
            now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.set(now.as_unix() + 91);
            Ok(Claim::First)
        }
    }

    let clock = TestClock::at(NOW);
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Slow(clock.clone()))
    });
    assert_eq!(
        Attempt::good().verified(&endpoint).unwrap_err(),
        TokenRequestRejection::Proof(ProofError::Expired)
    );
}

/// A-15: a proof that ran out between the two halves takes no place in the memory; in the last second
/// of its time it is still good.
#[test]
fn a_proof_that_ran_out_before_it_was_spent_is_not_remembered() {
    struct Counting(Arc<AtomicUsize>);

    impl ReplayStore for Counting {
        async fn claim(
            &self,
            _key: ReplayKey,
            _now: Timestamp,
            _expires: Timestamp,
        ) -> Result<Claim, ReplayStoreError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Claim::First)
        }
    }

    let (clock, claims) = (TestClock::at(NOW), Arc::new(AtomicUsize::new(0)));
    let endpoint = endpoint_by(|rules| {
        rules
            .with_clock(clock.read())
            .with_replay_store(Counting(claims.clone()))
    });
    let head = Attempt::good().head();
    let (in_time, late) = (endpoint.check(&head), endpoint.check(&head));
    clock.set(NOW + 90);
    assert!(block_on(in_time.unwrap().record_use()).is_ok());
    clock.set(NOW + 91);
    let rejected = block_on(late.unwrap().record_use()).unwrap_err();
    assert_eq!(rejected, ProofError::Expired.into());
    assert_eq!(claims.load(Ordering::SeqCst), 1);
}

/// A-17: a browser may read the nonce, and its preflight does not need one.
#[test]
fn a_cors_layer_outside_lets_scripts_read_the_nonce() {
    let cors = tower_http::cors::CorsLayer::new()
        .allow_origin(HeaderValue::from_static("https://app.example"))
        .allow_methods([Method::POST])
        .expose_headers(CORS_EXPOSE_HEADERS);
    let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
    let send = |request: Request<String>| {
        let service = service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        });
        let service = cors.clone().layer(layer.layer(service));
        Outcome::of(block_on(service.oneshot(request)).unwrap())
    };
    let mut request = Attempt::good().request();
    request
        .headers_mut()
        .insert("origin", field(b"https://app.example"));
    let outcome = send(request);
    outcome.assert_rejected("A-17", NonceError::Missing, Some("use_dpop_nonce"));
    assert_eq!(
        outcome.all("access-control-expose-headers"),
        ["www-authenticate,dpop-nonce"],
        "A-17"
    );
    let preflight = Request::options("/token")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .body(String::new())
        .unwrap();
    let outcome = send(preflight);
    assert_eq!(
        (outcome.status, outcome.rejection.clone()),
        (StatusCode::OK, None)
    );
}

/// The contract of tower: the service that was polled ready is the one that is called.
#[test]
fn the_service_that_was_polled_ready_is_called() {
    #[derive(Default)]
    struct Strict {
        ready: bool,
    }

    impl Clone for Strict {
        fn clone(&self) -> Self {
            Self::default()
        }
    }

    impl Service<Request<String>> for Strict {
        type Response = Response<String>;
        type Error = Infallible;
        type Future = Ready<Result<Response<String>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<String>) -> Self::Future {
            assert!(self.ready, "called without having been polled ready");
            self.ready = false;
            ready(Ok(Response::new(String::new())))
        }
    }

    let mut service = TokenEndpointLayer::new(endpoint()).layer(Strict::default());
    block_on(async {
        for _ in 0..3 {
            let service = service.ready().await.unwrap();
            let response = service.call(Attempt::good().request()).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        let mut clone = service.clone();
        let response = clone.ready().await.unwrap();
        assert!(response.call(Attempt::good().request()).await.is_ok());
    });
}

#[test]
fn an_error_of_the_service_is_handed_on() {
    #[derive(Debug, PartialEq)]
    struct Broken;

    let service =
        TokenEndpointLayer::new(endpoint()).layer(service_fn(async |_: Request<String>| {
            Err::<Response<String>, _>(Broken)
        }));
    let outcome = block_on(service.oneshot(Attempt::good().request()));
    assert_eq!(outcome.unwrap_err(), Broken);
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

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged while the requests are made, at every level, from every crate.
fn logged(requests: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    common::enable_tracing_callsites();
    tracing::subscriber::with_default(subscriber, requests);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// D19, D21: one event for each rejection, and neither it nor the response repeats anything.
#[test]
fn neither_log_nor_response_repeats_anything_of_a_request() {
    let marked = |change: Change| {
        Attempt::but(|a| {
            a.form = MARKER.into();
            a.claims["jti"] = json!(format!("{MARKER}{}", fresh_jti()));
            a.claims["more"] = json!(MARKER);
            change(a);
        })
    };
    let marks: Vec<(&'static str, Change)> = vec![
        ("a foreign nonce", |a| a.claims["nonce"] = json!(MARKER)),
        ("another method", |a| a.claims["htm"] = json!(MARKER)),
        ("another path", |a| {
            a.claims["htu"] = json!(format!("https://as.example.com/{MARKER}"));
        }),
        ("another alg", |a| a.header["alg"] = json!(MARKER)),
        ("another typ", |a| a.header["typ"] = json!(MARKER)),
        ("another host", |a| {
            a.uri = format!("https://{MARKER}.example/token");
        }),
    ];
    let rejections = bad_proofs()
        .into_iter()
        .map(|(name, change, _)| (name, change))
        .chain(marks);
    for (name, change) in rejections {
        let layer = TokenEndpointLayer::new(with_nonces(&TestClock::at(NOW)));
        let attempt = marked(change);
        let mut outcome = None;
        let log = logged(|| outcome = Some(attempt.outcome_by(&layer, &Server::default())));
        let outcome = outcome.unwrap();
        assert!(outcome.rejection.is_some(), "{name}");
        let events = log
            .lines()
            .filter(|line| line.contains("tower_dpop"))
            .count();
        assert_eq!(events, 1, "{name}: one event, not {log}");
        assert!(log.contains("token request rejected"), "{name}: {log}");
        let mut secrets = secrets_of(&attempt);
        assert_shows_nothing(name, &format!("{outcome:?}"), &secrets);
        let given = outcome.all("dpop-nonce");
        secrets.extend(given.into_iter().map(str::to_owned));
        assert_shows_nothing(name, &log, &secrets);
    }

    let (key, other) = (keys::client(), Key::es256());
    let proof = proven(&key);
    let secrets = [key.jkt(), other.jkt(), MARKER.to_owned()];
    let (code, refresh) = (check_code_binding, check_refresh_binding);
    let contradictory = authorization_request_key(Some(&proof), Some(&other.jkt()));
    let malformed = authorization_request_key(None, Some(MARKER));
    let bindings: [TokenRequestRejection; 4] = [
        code(Some(&proof), Some(jkt(&other))).unwrap_err().into(),
        refresh(Some(&proof), Some(jkt(&other))).unwrap_err().into(),
        contradictory.unwrap_err().into(),
        malformed.unwrap_err().into(),
    ];
    for rejection in bindings {
        let mut outcome = None;
        let log = logged(|| outcome = Some(Outcome::rejection(&endpoint(), rejection.clone())));
        assert_shows_nothing(
            "a binding",
            &format!("{:?}{log}", outcome.unwrap()),
            &secrets,
        );
    }
    let good = Attempt::good();
    let log = logged(|| {
        drop(good.outcome_by(&TokenEndpointLayer::new(endpoint()), &Server::default()));
    });
    let events = log.lines().filter(|line| line.contains("tower_dpop"));
    assert_eq!(events.count(), 1, "a request that passes: {log}");
    assert!(log.contains("DEBUG") && log.contains("token request accepted"));
    assert_shows_nothing("a request that passes", &log, &secrets_of(&good));
    let log = logged(|| {
        drop(Outcome::rejection(
            &endpoint(),
            ReplayStoreError::Full.into(),
        ));
    });
    assert!(
        log.contains("ERROR") && log.contains("cannot decide"),
        "{log}"
    );
}

#[test]
fn debug_shows_no_secret() {
    let start = NOW - NOW % 120;
    let clock = TestClock::at(start);
    let endpoint = Arc::new(with_nonces(&clock));
    let nonce = endpoint.issue_nonce().unwrap();
    let text = nonce.as_header_value().to_str().unwrap().to_owned();
    clock.set(start + 120);
    let attempt = Attempt::with_nonce(&text, start + 120);
    let key = attempt.verified(&endpoint).unwrap();
    let next = key.next_nonce().unwrap().as_header_value();
    let mut secrets = secrets_of(&attempt);
    secrets.push(text);
    secrets.push(next.to_str().unwrap().to_owned());

    let layer = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let service = layer.layer(());
    let mut shown = String::new();
    let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
    show(&endpoint);
    show(&layer);
    show(&layer.clone());
    show(&service);
    show(&key);
    show(&key.clone());
    show(&key.cnf());
    show(&endpoint.metadata());
    show(&attempt.verified(&endpoint));
    show(&TokenRequestRejection::from(GrantBindingError::NoProof));
    assert!(shown.contains("ProvenKey") && shown.contains("nonces_required: true"));
    assert_shows_nothing("Debug", &shown, &secrets);
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
