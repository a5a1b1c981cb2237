//! Opaque tokens, asked about at a server that answers as a test tells it and checks who is asking.

mod claims;
mod client_authentication;
mod in_flight;
mod verifier;

use axum::extract::State;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, block_on};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::{Debug, Write as _};
use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::jose::{InvalidJwk, Jwk, SigningKey, SigningKeyError};
use tower_dpop::resource::{BindingError, Unavailable};
use tower_dpop::testing::{self, TestClock};
use tower_dpop::tokens::{
    AccessTokenVerifier, ClientAuthentication, HttpClient, IntrospectedClaims,
    IntrospectionVerifier, PresentedToken, TokenError,
};
use tower_dpop::{
    Algorithm, BoundToken, DpopLayer, Issuers, ProofRules, Rejection, Timestamp, Verifier,
};

/// Every character that a token may have beside letters and digits; a form has to escape some.
const TOKEN: &str = "2YotnFZFEjr1-zCsic.MWpA_a~b+c/d==";

/// An identifier and a secret with characters that mean something in a form, in Basic, or in both.
const CLIENT_ID: &str = "orders:api +&=%é";

const SECRET: &str = "s:e c+r&e=t%2B~ü-marker-secret-marker";

/// How the server knows who is asking.
#[derive(Clone)]
enum Registered {
    Basic(String, String),
    Post(String, String),
    Key(String, Jwk, Option<&'static str>),
}

#[derive(Clone)]
struct Reply {
    status: StatusCode,
    location: Option<String>,
    body: Vec<u8>,
}

/// An introspection endpoint in a thread of its own.
struct Server {
    origin: String,
    known: Arc<Known>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Known {
    client: Registered,
    reply: Mutex<Reply>,
    /// How many questions have come.
    questions: watch::Sender<usize>,
    /// What was wrong with them.
    complaints: Mutex<Vec<String>>,
    /// The last one's form.
    form: Mutex<Vec<(String, String)>>,
    jtis: Mutex<HashSet<String>>,
    /// Every answer waits for it.
    gate: Semaphore,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Server {
    fn start(client: Registered) -> Self {
        let known = Arc::new(Known {
            client,
            reply: Mutex::new(Reply {
                status: StatusCode::OK,
                location: None,
                body: good().to_string().into(),
            }),
            questions: watch::Sender::new(0),
            complaints: Mutex::default(),
            form: Mutex::default(),
            jtis: Mutex::default(),
            gate: Semaphore::new(10_000),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(answer)
            .with_state(known.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serving = tokio::spawn(async { axum::serve(listener, app).await });
                let _ = stopped.await;
                serving.abort();
            });
        });
        Self {
            origin,
            known,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn with_basic() -> Self {
        Self::start(Registered::Basic(CLIENT_ID.into(), SECRET.into()))
    }

    /// A verifier that the server knows by [`Server::with_basic`].
    fn verifier(&self) -> IntrospectionVerifier {
        self.verifier_as(ClientAuthentication::basic(CLIENT_ID, SECRET))
    }

    fn verifier_as(&self, client: ClientAuthentication) -> IntrospectionVerifier {
        let endpoint = format!("{}/introspect?tenant=1", self.origin);
        IntrospectionVerifier::new(
            endpoint.parse().unwrap(),
            client,
            AUDIENCE,
            HttpClient::new().unwrap(),
        )
    }

    fn answers(&self, outcome: &Value) {
        self.replies(StatusCode::OK, outcome.to_string());
    }

    fn replies(&self, status: StatusCode, body: impl Into<Vec<u8>>) {
        *self.known.reply.lock().unwrap() = Reply {
            status,
            location: None,
            body: body.into(),
        };
    }

    fn redirects(&self, status: StatusCode, to: impl Into<String>) {
        *self.known.reply.lock().unwrap() = Reply {
            status,
            location: Some(to.into()),
            body: Vec::new(),
        };
    }

    fn hold_answers(&self) {
        self.known.gate.forget_permits(usize::MAX);
    }

    fn release_answers(&self) {
        self.known.gate.add_permits(10_000);
    }

    fn questions(&self) -> usize {
        *self.known.questions.borrow()
    }

    async fn until_asked(&self, questions: usize) {
        let mut asked = self.known.questions.subscribe();
        let enough = asked.wait_for(|asked| *asked >= questions);
        tokio::time::timeout(Duration::from_secs(20), enough)
            .await
            .expect("the question came")
            .unwrap();
    }

    #[track_caller]
    fn assert_no_complaints(&self, name: &str) {
        let complaints = self.known.complaints.lock().unwrap();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn answer(
    State(known): State<Arc<Known>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response<axum::body::Body> {
    struct UnderWay<'a>(&'a AtomicUsize);

    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    if uri.path() == "/elsewhere" {
        return good().to_string().into_response();
    }
    let now = known.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    let _under_way = UnderWay(&known.under_way);
    known.most_under_way.fetch_max(now, Ordering::SeqCst);
    known.questions.send_modify(|questions| *questions += 1);
    if let Err(complaint) = known.check(&method, &uri, &headers, &body) {
        known.complaints.lock().unwrap().push(complaint);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    drop(known.gate.acquire().await.unwrap());
    let reply = known.reply.lock().unwrap().clone();
    let mut response = (reply.status, reply.body).into_response();
    if let Some(location) = reply.location {
        response
            .headers_mut()
            .insert(LOCATION, location.parse().unwrap());
    }
    response
}

/// RFC 6749 section 2.3.1, from the server's side.
fn basic_pair(field: &str) -> Option<(String, String)> {
    let pair = STANDARD.decode(field.strip_prefix("Basic ")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    let (id, secret) = pair.split_once(':')?;
    let decode = |text: &str| {
        let form = format!("x={text}");
        let mut pairs = form_urlencoded::parse(form.as_bytes());
        let (_, value) = pairs.next()?;
        pairs.next().is_none().then(|| value.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

impl Known {
    fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &str,
    ) -> Result<(), String> {
        let field = |name| {
            let mut fields = headers.get_all(&name).iter();
            match (fields.next(), fields.next()) {
                (None, _) => Ok(None),
                (Some(field), None) => Ok(Some(field.to_str().unwrap().to_owned())),
                _ => Err(format!("{name} twice")),
            }
        };
        let is = |what: &str, found: &dyn Debug, wanted: &dyn Debug| {
            let (found, wanted) = (format!("{found:?}"), format!("{wanted:?}"));
            (found == wanted)
                .then_some(())
                .ok_or(format!("{what} is {found}"))
        };
        is("the method", method, &Method::POST)?;
        is(
            "the target",
            &uri.path_and_query().unwrap().as_str(),
            &"/introspect?tenant=1",
        )?;
        is("Accept", &field(ACCEPT)?, &Some("application/json"))?;
        is(
            "Content-Type",
            &field(CONTENT_TYPE)?,
            &Some("application/x-www-form-urlencoded"),
        )?;
        is("DPoP", &headers.get("dpop"), &None::<()>)?;
        let form: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect();
        self.form.lock().unwrap().clone_from(&form);
        let names: Vec<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
        let value = |name: &str| {
            let found = form.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        is("the hint", &value("token_type_hint"), &"access_token")?;
        let authorization = field(AUTHORIZATION)?;
        let own = ["token", "token_type_hint"];
        match &self.client {
            Registered::Basic(id, secret) => {
                is("the form", &names, &own)?;
                let pair = authorization.as_deref().and_then(basic_pair);
                is("the client", &pair, &Some((id, secret)))
            }
            Registered::Post(id, secret) => {
                is(
                    "the form",
                    &names,
                    &[own.as_slice(), &["client_id", "client_secret"]].concat(),
                )?;
                is("Authorization", &authorization, &None::<()>)?;
                let pair = (value("client_id"), value("client_secret"));
                is("the client", &pair, &(id, secret))
            }
            Registered::Key(id, jwk, kid) => {
                let theirs = ["client_id", "client_assertion_type", "client_assertion"];
                is("the form", &names, &[own.as_slice(), &theirs].concat())?;
                is("Authorization", &authorization, &None::<()>)?;
                is("the client", &value("client_id"), id)?;
                is(
                    "the type",
                    &value("client_assertion_type"),
                    &"urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                )?;
                self.check_assertion(value("client_assertion"), id, jwk, *kid)
            }
        }
    }

    /// RFC 7523 section 3.
    fn check_assertion(
        &self,
        assertion: &str,
        id: &str,
        jwk: &Jwk,
        kid: Option<&str>,
    ) -> Result<(), String> {
        let broken = |_| "the assertion is broken".to_owned();
        let segments: Vec<&str> = assertion.split('.').collect();
        let [header, claims, signature] = segments[..] else {
            return Err("the assertion is no JWS".into());
        };
        let json = |segment: &str| -> Value {
            let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        let (header_json, claims_json) = (json(header), json(claims));
        let alg = header_json["alg"].as_str().unwrap_or_default();
        let signed = format!("{header}.{claims}");
        let signature_bytes = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| "the signature is broken")?;
        jwk.verify(
            alg.parse().map_err(|_| "the algorithm is unknown")?,
            signed.as_bytes(),
            &signature_bytes,
        )
        .map_err(|_| "the signature does not verify")?;
        // Someone else's implementation, where it knows the algorithm.
        if let Ok(alg) = alg.parse::<jsonwebtoken::Algorithm>() {
            let public = serde_json::from_value(serde_json::to_value(jwk).unwrap()).unwrap();
            let key = jsonwebtoken::DecodingKey::from_jwk(&public).map_err(broken)?;
            let mut rules = jsonwebtoken::Validation::new(alg);
            rules.set_audience(&[ISSUER]);
            rules.set_issuer(&[id]);
            rules.sub = Some(id.to_owned());
            rules.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
            rules.validate_exp = false;
            jsonwebtoken::decode::<Value>(assertion, &key, &rules).map_err(broken)?;
        }
        let jti = claims_json["jti"].as_str().unwrap_or_default().to_owned();
        let expected = json!({
            "iss": id, "sub": id, "aud": ISSUER, "jti": jti, "iat": NOW, "exp": NOW + 60,
        });
        let expected_header = match kid {
            Some(kid) => json!({ "alg": alg, "kid": kid }),
            None => json!({ "alg": alg }),
        };
        if jti.len() < 16 || !self.jtis.lock().unwrap().insert(jti) {
            Err("the jti is short, or was used before".into())
        } else if claims_json != expected || header_json != expected_header {
            Err(format!("the assertion says {claims_json} in {header_json}"))
        } else {
            Ok(())
        }
    }
}

/// What the server says of a good token.
fn good() -> Value {
    json!({
        "active": true,
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "app",
        "username": "Alice L.",
        "scope": "orders.read  orders.write",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 600,
        "token_type": "DPoP",
        "cnf": { "jkt": common::keys::client().jkt() },
        "tenant": 7,
    })
}

fn but(change: impl FnOnce(&mut Value)) -> Value {
    let mut outcome = good();
    change(&mut outcome);
    outcome
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member).unwrap();
}

fn layer<C>(tokens: IntrospectionVerifier<C>) -> DpopLayer<C>
where
    C: Send + Sync + 'static,
    IntrospectionVerifier<C>: AccessTokenVerifier<Claims = C>,
{
    layer_at(&TestClock::at(NOW), tokens)
}

fn layer_at<C>(clock: &TestClock, tokens: IntrospectionVerifier<C>) -> DpopLayer<C>
where
    C: Send + Sync + 'static,
    IntrospectionVerifier<C>: AccessTokenVerifier<Claims = C>,
{
    DpopLayer::new(Verifier::new(
        ProofRules::new(AUDIENCE.parse().unwrap()).with_clock(clock.read()),
        tokens,
    ))
}

/// A good request with this token.
fn request(token: &str) -> Request<()> {
    Attempt::but(|a| a.token = Some(token.to_owned())).request()
}

struct Outcome<C> {
    kit: testing::TestResponse,
    token: Option<BoundToken<C>>,
}

impl<C> Outcome<C> {
    #[track_caller]
    fn assert_passed(&self, name: &str) {
        self.kit.assert_passed(name);
        assert!(self.token.is_some(), "{name}: no bound token");
    }

    #[track_caller]
    fn assert_reason(&self, name: &str, reason: impl Into<Rejection>) {
        let reason = reason.into();
        assert_eq!(self.kit.rejection.as_ref(), Some(&reason), "{name}");
        assert!(self.token.is_none(), "{name}: reached the service");
        self.kit.assert_reason(name, reason);
    }

    /// D13: 503 with `Retry-After` and without a challenge.
    #[track_caller]
    fn assert_unavailable(&self, name: &str) {
        self.assert_reason(name, Unavailable::Token);
        assert_eq!(self.kit.status.as_u16(), 503, "{name}");
        assert_eq!(self.kit.retry_after.as_deref(), Some("1"), "{name}");
        assert_eq!(self.kit.challenges, [""; 0], "{name}");
    }
}

/// Sends a good request with this token through the layer.
async fn ask<C: Send + Sync + 'static>(layer: &DpopLayer<C>, token: &str) -> Outcome<C>
where
    IntrospectionVerifier<C>: AccessTokenVerifier<Claims = C>,
{
    let service = layer.layer(service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if let Some(token) = request.extensions().get::<BoundToken<C>>() {
            response.extensions_mut().insert(token.clone());
        }
        Ok::<_, std::convert::Infallible>(response)
    }));
    let response = service.oneshot(request(token)).await.unwrap();
    Outcome {
        kit: testing::TestResponse::of(&response),
        token: response.extensions().get().cloned(),
    }
}

type Change = fn(&mut Value);

/// A good answer with one change, and what becomes of the request.
type Row = (&'static str, Change, Result<(), Rejection>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn rows() -> Vec<Row> {
    fn no(reason: impl Into<Rejection>) -> Result<(), Rejection> {
        Err(reason.into())
    }
    vec![
        ("a good token", |_| {}, Ok(())),
        (
            "R-6.2.4: inactive",
            |a| a["active"] = json!(false),
            no(TokenError::Invalid),
        ),
        (
            "R-6.2.4: inactive, and nothing else",
            |a| *a = json!({ "active": false }),
            no(TokenError::Invalid),
        ),
        (
            "R-6.2.4: inactive, with members that are malformed",
            |a| *a = json!({ "active": false, "cnf": null, "exp": "never" }),
            no(TokenError::Invalid),
        ),
        (
            "active as a string",
            |a| a["active"] = json!("true"),
            no(Unavailable::Token),
        ),
        (
            "active as a number",
            |a| a["active"] = json!(1),
            no(Unavailable::Token),
        ),
        (
            "active is null",
            |a| a["active"] = json!(null),
            no(Unavailable::Token),
        ),
        ("no active", |a| remove(a, "active"), no(Unavailable::Token)),
        (
            "active under another case",
            |a| {
                remove(a, "active");
                a["Active"] = json!(true);
            },
            no(Unavailable::Token),
        ),
        (
            "R-AT.5: expired beyond the leeway",
            |a| a["exp"] = json!(NOW - 30),
            no(TokenError::Expired),
        ),
        (
            "R-AT.5: expired within the leeway",
            |a| a["exp"] = json!(NOW - 29),
            Ok(()),
        ),
        (
            "R-AT.5: a fraction",
            |a| a["exp"] = json!(1_700_000_000.5),
            Ok(()),
        ),
        ("no exp", |a| remove(a, "exp"), Ok(())),
        (
            "R-AT.5: exp of another type",
            |a| a["exp"] = json!("never"),
            no(TokenError::Malformed),
        ),
        (
            "R-AT.5: exp is null",
            |a| a["exp"] = json!(null),
            no(TokenError::Malformed),
        ),
        (
            "R-AT.5: exp before all time",
            |a| a["exp"] = json!(-1e300),
            no(TokenError::Expired),
        ),
        (
            "R-AT.5: exp after all time",
            |a| a["exp"] = json!(1e300),
            Ok(()),
        ),
        (
            "not valid yet",
            |a| a["nbf"] = json!(NOW + 31),
            no(TokenError::NotYetValid),
        ),
        (
            "not valid yet within the leeway",
            |a| a["nbf"] = json!(NOW + 30),
            Ok(()),
        ),
        ("no nbf", |a| remove(a, "nbf"), Ok(())),
        (
            "nbf of another type",
            |a| a["nbf"] = json!([]),
            no(TokenError::Malformed),
        ),
        (
            "R-AT.2: another issuer",
            |a| a["iss"] = json!("https://evil.example.com"),
            no(TokenError::Issuer),
        ),
        (
            "R-AT.2: a trailing slash",
            |a| a["iss"] = json!("https://as.example.com/"),
            no(TokenError::Issuer),
        ),
        (
            "R-AT.2: an array of issuers",
            |a| a["iss"] = json!([ISSUER]),
            no(TokenError::Malformed),
        ),
        ("no issuer", |a| remove(a, "iss"), Ok(())),
        (
            "R-AT.3: another audience",
            |a| a["aud"] = json!("https://other.example.com"),
            no(TokenError::Audience),
        ),
        (
            "R-AT.3: other audiences",
            |a| a["aud"] = json!(["a", "b"]),
            no(TokenError::Audience),
        ),
        (
            "R-AT.3: one of several",
            |a| a["aud"] = json!(["a", AUDIENCE]),
            Ok(()),
        ),
        (
            "R-AT.3: an empty array",
            |a| a["aud"] = json!([]),
            no(TokenError::Audience),
        ),
        (
            "R-AT.3: no audience",
            |a| remove(a, "aud"),
            no(TokenError::Audience),
        ),
        (
            "R-AT.3: an object",
            |a| a["aud"] = json!({ "a": AUDIENCE }),
            no(TokenError::Malformed),
        ),
        (
            "R-AT.3: null",
            |a| a["aud"] = json!(null),
            no(TokenError::Malformed),
        ),
        (
            "R-6.2: bound to another key",
            |a| a["cnf"]["jkt"] = json!(common::base64url([7; 32])),
            no(BindingError::OtherKey),
        ),
        (
            "F-12: no cnf, of the type Bearer",
            |a| {
                remove(a, "cnf");
                a["token_type"] = json!("Bearer");
            },
            no(BindingError::Unbound),
        ),
        (
            "F-12: no cnf, of no type",
            |a| {
                remove(a, "cnf");
                remove(a, "token_type");
            },
            no(BindingError::Unbound),
        ),
        (
            "F-12: no cnf, of the type N_A",
            |a| {
                remove(a, "cnf");
                a["token_type"] = json!("N_A");
            },
            no(TokenError::TokenType),
        ),
        (
            "R-6.2.2: no cnf, of the type DPoP",
            |a| remove(a, "cnf"),
            no(TokenError::TokenType),
        ),
        (
            "R-6.2.2: of the type Bearer",
            |a| a["token_type"] = json!("Bearer"),
            no(TokenError::TokenType),
        ),
        (
            "R-6.2.2: of the type N_A",
            |a| a["token_type"] = json!("N_A"),
            no(TokenError::TokenType),
        ),
        (
            "a refresh token, by token_use",
            |a| a["token_use"] = json!("refresh_token"),
            no(TokenError::TokenType),
        ),
        (
            "a token_use that is no string",
            |a| a["token_use"] = json!(true),
            no(TokenError::Malformed),
        ),
        (
            "a refresh token, by token_type",
            |a| {
                remove(a, "cnf");
                a["token_type"] = json!("refresh_token");
            },
            no(TokenError::TokenType),
        ),
        (
            "R-6.2.2: of an empty type",
            |a| a["token_type"] = json!(""),
            no(TokenError::TokenType),
        ),
        (
            "R-6.2.2: a type that is no string",
            |a| a["token_type"] = json!(["DPoP"]),
            no(TokenError::Malformed),
        ),
        ("R-6.2.2: dpop", |a| a["token_type"] = json!("dpop"), Ok(())),
        ("R-6.2.2: no type", |a| remove(a, "token_type"), Ok(())),
        (
            "F-13: a certificate",
            |a| {
                a["cnf"] = json!({ "x5t#S256": common::base64url([7; 32]) });
                a["token_type"] = json!("Bearer");
            },
            no(BindingError::Unconfirmable),
        ),
        (
            "F-13: a key",
            |a| {
                a["cnf"] = json!({ "jwk": {} });
                remove(a, "token_type");
            },
            no(BindingError::Unconfirmable),
        ),
        (
            "F-13: nothing",
            |a| {
                a["cnf"] = json!({});
                remove(a, "token_type");
            },
            no(BindingError::Unconfirmable),
        ),
        (
            "R-6.2.2: a certificate, of the type DPoP",
            |a| a["cnf"] = json!({ "x5t#S256": common::base64url([7; 32]) }),
            no(TokenError::TokenType),
        ),
        (
            "F-14: the key and a certificate",
            |a| a["cnf"]["x5t#S256"] = json!(common::base64url([7; 32])),
            Ok(()),
        ),
        (
            "F-15: cnf is null",
            |a| a["cnf"] = json!(null),
            no(TokenError::Malformed),
        ),
        (
            "F-15: cnf is the thumbprint",
            |a| a["cnf"] = a["cnf"]["jkt"].clone(),
            no(TokenError::Malformed),
        ),
        (
            "F-15: cnf is an array",
            |a| a["cnf"] = json!([a["cnf"]]),
            no(TokenError::Malformed),
        ),
        (
            "F-15: cnf is false",
            |a| a["cnf"] = json!(false),
            no(TokenError::Malformed),
        ),
        (
            "F-15: jkt is null",
            |a| a["cnf"]["jkt"] = json!(null),
            no(TokenError::Malformed),
        ),
        (
            "F-15, R-6.1.1: jkt is padded",
            |a| a["cnf"]["jkt"] = json!(format!("{}=", a["cnf"]["jkt"].as_str().unwrap())),
            no(TokenError::Malformed),
        ),
        (
            "F-15, R-6.1.1: jkt is hexadecimal",
            |a| a["cnf"]["jkt"] = json!("07".repeat(32)),
            no(TokenError::Malformed),
        ),
        (
            "F-15: jkt is empty",
            |a| a["cnf"]["jkt"] = json!(""),
            no(TokenError::Malformed),
        ),
        (
            "R-6.2.1: jkt outside of cnf",
            |a| {
                a["jkt"] = a["cnf"]["jkt"].clone();
                remove(a, "cnf");
                remove(a, "token_type");
            },
            no(BindingError::Unbound),
        ),
        (
            "R-6.2.1: cnf below the top level",
            |a| {
                a["ext"] = json!({ "cnf": a["cnf"] });
                remove(a, "cnf");
                remove(a, "token_type");
            },
            no(BindingError::Unbound),
        ),
        (
            "a scope that is an array",
            |a| a["scope"] = json!(["orders.read"]),
            no(TokenError::Claims),
        ),
        (
            "a subject that is a number",
            |a| a["sub"] = json!(1),
            no(TokenError::Claims),
        ),
        (
            "members that nobody knows",
            |a| a["x"] = json!({ "y": [null, 1, { "active": false }] }),
            Ok(()),
        ),
        (
            "as little as can be",
            |a| *a = json!({ "active": true, "aud": AUDIENCE, "cnf": a["cnf"] }),
            Ok(()),
        ),
    ]
}

/// Every run of eight characters of a secret, so that a part of it is found as well.
#[track_caller]
fn assert_shows_nothing(name: &str, shown: &str, secrets: &[String]) {
    for secret in secrets {
        let characters: Vec<char> = secret.chars().collect();
        assert!(characters.len() >= 8, "{name}: too short to look for");
        for part in characters.windows(8) {
            let part: String = part.iter().collect();
            assert!(!shown.contains(&part), "{name} shows a secret: {shown}");
        }
    }
}

/// The three ways to authenticate, and what no output may hold of them.
fn clients() -> Vec<(Registered, ClientAuthentication, Vec<String>)> {
    let key = Key::es256();
    let pem = key.to_pkcs8_pem().unwrap();
    let private: Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let own = SigningKey::from_pkcs8_pem(pem.as_str()).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let id: String = form_urlencoded::byte_serialize(CLIENT_ID.as_bytes()).collect();
    let secrets = vec![
        SECRET.to_owned(),
        encoded.clone(),
        STANDARD.encode(format!("{id}:{encoded}")),
    ];
    vec![
        (
            Registered::Basic(CLIENT_ID.into(), SECRET.into()),
            ClientAuthentication::basic(CLIENT_ID, SECRET),
            secrets.clone(),
        ),
        (
            Registered::Post(CLIENT_ID.into(), SECRET.into()),
            ClientAuthentication::post(CLIENT_ID, SECRET),
            secrets,
        ),
        (
            Registered::Key(CLIENT_ID.into(), key.public_key().clone(), None),
            ClientAuthentication::private_key_jwt(CLIENT_ID, own, ISSUER),
            vec![private["d"].as_str().unwrap().to_owned()],
        ),
    ]
}
