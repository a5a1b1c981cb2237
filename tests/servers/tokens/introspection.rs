//! Opaque tokens, asked about at a server that answers as a test tells it and checks who is asking.

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

use axum::extract::State;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
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

use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, block_on};

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

/// R-6.1, R-6.2, R-6.2.1, R-6.2.2, R-6.2.4, R-AT.2, R-AT.3, R-AT.5, R-AT.6, R-AT.9, F-12 to F-15,
/// D16: each row is a good answer with one change, before the whole layer.
#[test]
fn judges_each_answer_by_the_rules() {
    let server = Server::with_basic();
    block_on(async {
        for (name, change, expected) in rows() {
            let before = server.questions();
            server.answers(&but(change));
            let layer = layer(server.verifier().with_issuer(ISSUER));
            let outcome = ask(&layer, TOKEN).await;
            server.assert_no_complaints(name);
            assert_eq!(server.questions(), before + 1, "{name}");
            match expected {
                Ok(()) => outcome.assert_passed(name),
                Err(Rejection::Unavailable(_)) => outcome.assert_unavailable(name),
                Err(reason) => {
                    outcome.assert_reason(name, reason);
                    let error = outcome.kit.parameter("error");
                    assert_eq!(error, Some("invalid_token"), "R-AT.6: {name}");
                }
            }
        }
    });
}

/// J-12 for answers: what two parsers could read differently is no answer. It is the server's
/// fault, so the client is not told to get another token.
#[test]
fn answers_that_are_not_of_the_form_are_no_answers() {
    let text = good().to_string();
    let padded = |length: usize| {
        let padding = " ".repeat(length - text.len());
        text.clone() + &padding
    };
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let rows: Vec<(&str, Vec<u8>, bool)> = vec![
        ("64 KiB", padded(64 * 1024).into(), true),
        ("64 KiB and one", padded(64 * 1024 + 1).into(), false),
        ("a MiB", padded(1024 * 1024).into(), false),
        ("nothing", vec![], false),
        ("HTML", b"<html></html>".to_vec(), false),
        ("a JWT", b"e30.e30.e30".to_vec(), false),
        ("an array", format!("[{text}]").into(), false),
        ("true", b"true".to_vec(), false),
        ("half of it", text[..text.len() / 2].into(), false),
        ("more behind it", format!("{text}{{}}").into(), false),
        ("a byte order mark", format!("\u{feff}{text}").into(), false),
        (
            "active twice",
            text.replacen('{', r#"{"active":false,"#, 1).into(),
            false,
        ),
        (
            "active twice under an escape",
            text.replacen('{', r#"{"\u0061ctive":false,"#, 1).into(),
            false,
        ),
        (
            "cnf twice",
            text.replacen('{', r#"{"cnf":{},"#, 1).into(),
            false,
        ),
        (
            "jkt twice",
            text.replacen(r#""cnf":{"#, r#""cnf":{"jkt":"x","#, 1)
                .into(),
            false,
        ),
        (
            "a duplicate where nobody looks",
            text.replacen('{', r#"{"x":[{"y":1,"y":1}],"#, 1).into(),
            false,
        ),
        (
            "too deep",
            text.replacen('{', &format!(r#"{{"x":{deep},"#), 1).into(),
            false,
        ),
        (
            "bytes that are not UTF-8",
            [b"{\"x\":\"\xff\",".as_slice(), &text.as_bytes()[1..]].concat(),
            false,
        ),
    ];
    let server = Server::with_basic();
    block_on(async {
        for (name, body, passes) in rows {
            server.replies(StatusCode::OK, body);
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            if passes {
                outcome.assert_passed(name);
            } else {
                outcome.assert_unavailable(name);
            }
        }
    });
}

/// D13: a good answer under another status is none, and a 401 is about our credentials, not about
/// the client's token.
#[test]
fn a_status_other_than_200_is_no_answer() {
    let server = Server::with_basic();
    block_on(async {
        for status in [
            201, 203, 204, 300, 304, 400, 401, 403, 404, 429, 500, 502, 503,
        ] {
            server.replies(StatusCode::from_u16(status).unwrap(), good().to_string());
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        server.assert_no_complaints("all of them");

        let wrong = ClientAuthentication::basic(CLIENT_ID, "another secret");
        let outcome = ask(&layer(server.verifier_as(wrong)), TOKEN).await;
        outcome.assert_unavailable("a secret that the server does not know");
        assert_eq!(server.known.complaints.lock().unwrap().len(), 1);
    });
}

/// Some servers answer a token of a kind that they do not introspect with an error. That is a word
/// about the token; every other error is one about the question.
#[test]
fn a_token_of_another_type_is_not_valid() {
    let server = Server::with_basic();
    let rows = [
        (400, r#"{"error":"unsupported_token_type"}"#, true),
        (401, r#"{"error":"unsupported_token_type"}"#, false),
        (500, r#"{"error":"unsupported_token_type"}"#, false),
        (400, r#"{"error":"invalid_request"}"#, false),
        (400, r#"{"error":["unsupported_token_type"]}"#, false),
        (
            400,
            r#"{"error_description":"unsupported_token_type"}"#,
            false,
        ),
        (400, "unsupported_token_type", false),
    ];
    block_on(async {
        for (status, body, is_about_the_token) in rows {
            let name = format!("{status} {body}");
            server.replies(StatusCode::from_u16(status).unwrap(), body);
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            if is_about_the_token {
                outcome.assert_reason(&name, Rejection::Token(TokenError::Invalid));
            } else {
                outcome.assert_unavailable(&name);
            }
        }
    });
}

/// RFC 7662 knows no redirects: neither token nor credentials follow one to another server.
#[test]
fn no_question_goes_to_another_server() {
    let (server, other) = (Server::with_basic(), Server::with_basic());
    block_on(async {
        for status in [301, 302, 303, 307, 308] {
            server.redirects(
                StatusCode::from_u16(status).unwrap(),
                format!("{}/introspect?tenant=1", other.origin),
            );
            let outcome = ask(&layer(server.verifier()), TOKEN).await;
            outcome.assert_unavailable(&status.to_string());
        }
        assert_eq!((server.questions(), other.questions()), (5, 0));

        server.redirects(StatusCode::TEMPORARY_REDIRECT, "/elsewhere");
        ask(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("within one origin");
    });
}

/// D13
#[test]
fn a_server_that_is_down_or_slow_is_no_answer() {
    block_on(async {
        let server = Server::with_basic();
        let stopped = layer(server.verifier());
        drop(server);
        ask(&stopped, TOKEN).await.assert_unavailable("down");

        let server = Server::with_basic();
        server.hold_answers();
        let impatient = HttpClient::builder()
            .with_timeout(Duration::from_millis(100))
            .build()
            .unwrap();
        let tokens = IntrospectionVerifier::new(
            format!("{}/introspect?tenant=1", server.origin)
                .parse()
                .unwrap(),
            ClientAuthentication::basic(CLIENT_ID, SECRET),
            AUDIENCE,
            impatient,
        );
        ask(&layer(tokens), TOKEN).await.assert_unavailable("slow");
        server.until_asked(1).await;
    });
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let body = good().to_string();
    let whole = body.len();
    let rows = [
        ("nothing at all", String::new()),
        ("half a head", "HTTP/1.1 200 O".to_owned()),
        (
            "half a body",
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n{}",
                &body[..whole - 1]
            ),
        ),
        (
            "a body without its end",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{whole:x}\r\n{body}\r\n"),
        ),
        ("another protocol", "SSH-2.0-OpenSSH\r\n".to_owned()),
    ];
    block_on(async {
        for (name, reply) in rows {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // The whole question fits in one read of this size.
                    let mut bytes = vec![0; 16 * 1024];
                    let _ = stream.read(&mut bytes).await;
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
            let tokens = IntrospectionVerifier::new(
                endpoint.parse().unwrap(),
                ClientAuthentication::basic(CLIENT_ID, SECRET),
                AUDIENCE,
                HttpClient::new().unwrap(),
            );
            ask(&layer(tokens), TOKEN).await.assert_unavailable(name);
        }
    });
}

/// R-6.2.3 stands in [`Known::check`]: no field `DPoP`, nothing in the form but the token, the hint
/// and the credentials.
#[test]
fn shows_who_is_asking_in_each_of_three_ways() {
    fn assertion_key(key: &Key) -> SigningKey {
        SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap()
    }
    fn by_key(key: &Key, kid: Option<&'static str>) -> Registered {
        Registered::Key(CLIENT_ID.into(), key.public_key().clone(), kid)
    }
    let secrets = [
        ("plain", "s6BhdRkqt3", "7Fjfp0ZBr1KtDRbnfVdmIw"),
        ("special", CLIENT_ID, SECRET),
        ("a colon each", "a:b", "c:d"),
        ("encoded already", "a%3Ab", "c%2Bd+e"),
        ("an empty secret", "id", ""),
        ("controls", "a\nb", "c\0d\r\n"),
    ];
    let mut rows: Vec<(String, Registered, ClientAuthentication)> = Vec::new();
    for (name, id, secret) in secrets {
        rows.push((
            format!("client_secret_basic, {name}"),
            Registered::Basic(id.into(), secret.into()),
            ClientAuthentication::basic(id, secret),
        ));
        rows.push((
            format!("client_secret_post, {name}"),
            Registered::Post(id.into(), secret.into()),
            ClientAuthentication::post(id, secret),
        ));
    }
    for key in [
        Key::es256(),
        Key::es384(),
        Key::es512(),
        Key::ed25519("Ed25519"),
        Key::ed25519("EdDSA"),
        Key::rsa("PS256"),
        Key::rsa("RS256"),
    ] {
        let own = assertion_key(&key).with_algorithm(key.algorithm()).unwrap();
        rows.push((
            format!("private_key_jwt, {}", key.alg()),
            by_key(&key, None),
            ClientAuthentication::private_key_jwt(CLIENT_ID, own, ISSUER),
        ));
    }
    let key = Key::es256();
    let der = SigningKey::from_pkcs8_der(key.to_pkcs8_der().unwrap().as_bytes());
    let jwk = SigningKey::from_jwk(key.to_jwk().unwrap().as_str());
    for (name, own, kid) in [
        ("from PEM", assertion_key(&key), None),
        ("from DER", der.unwrap(), None),
        ("from a JWK", jwk.unwrap(), None),
        (
            "with a kid",
            assertion_key(&key).with_key_id("2025-11"),
            Some("2025-11"),
        ),
    ] {
        rows.push((
            format!("private_key_jwt, {name}"),
            by_key(&key, kid),
            ClientAuthentication::private_key_jwt(CLIENT_ID, own, ISSUER),
        ));
    }
    block_on(async {
        for (name, registered, client) in rows {
            let server = Server::start(registered);
            let layer = layer(
                server
                    .verifier_as(client)
                    .with_cache_lifetime(Duration::ZERO),
            );
            for _ in 0..2 {
                let outcome = ask(&layer, TOKEN).await;
                server.assert_no_complaints(&name);
                outcome.assert_passed(&name);
            }
            assert_eq!(server.questions(), 2, "{name}");
            let form = server.known.form.lock().unwrap().clone();
            assert_eq!(form[0], ("token".to_owned(), TOKEN.to_owned()), "{name}");
        }
    });
}

/// A key that is not registered, and an assertion for another server.
#[test]
fn the_server_of_these_tests_rejects_other_assertions() {
    let key = Key::es256();
    let own = |key: &Key| SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
    let server = Server::start(Registered::Key("id".into(), key.public_key().clone(), None));
    block_on(async {
        for (name, client) in [
            (
                "another key",
                ClientAuthentication::private_key_jwt("id", own(&Key::es256()), ISSUER),
            ),
            (
                "another audience",
                ClientAuthentication::private_key_jwt("id", own(&key), AUDIENCE),
            ),
            (
                "another client",
                ClientAuthentication::private_key_jwt("other", own(&key), ISSUER),
            ),
        ] {
            let outcome = ask(&layer(server.verifier_as(client)), TOKEN).await;
            outcome.assert_unavailable(name);
        }
        assert_eq!(server.known.complaints.lock().unwrap().len(), 3);
    });
}

#[test]
fn a_document_that_is_no_signing_key_is_rejected_at_start_up() {
    use SigningKeyError as E;

    let key = Key::es256();
    let private: Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut jwk = private.clone();
        change(&mut jwk);
        SigningKey::from_jwk(&jwk.to_string()).map(drop)
    };
    let pem = |text: &str| SigningKey::from_pkcs8_pem(text).map(drop);
    let long = "x".repeat(17 * 1024);
    for (name, found, error) in [
        ("no JSON", SigningKey::from_jwk("key").map(drop), E::Json),
        ("no d", with(&|jwk| remove(jwk, "d")), E::Missing),
        (
            "another d",
            with(&|jwk| jwk["d"] = json!(common::base64url([1; 32]))),
            E::Mismatch,
        ),
        (
            "a d of zero",
            with(&|jwk| jwk["d"] = json!(common::base64url([0; 32]))),
            E::Scalar,
        ),
        ("a short d", with(&|jwk| jwk["d"] = json!("AQ")), E::Length),
        ("a broken d", with(&|jwk| jwk["d"] = json!("!")), E::Member),
        (
            "for encryption",
            with(&|jwk| jwk["use"] = json!("enc")),
            E::Use,
        ),
        (
            "of another alg",
            with(&|jwk| jwk["alg"] = json!("ES384")),
            E::Algorithm,
        ),
        (
            "a MAC's key",
            with(&|jwk| jwk["kty"] = json!("oct")),
            E::Public(InvalidJwk::KeyType),
        ),
        ("no PEM", pem("key"), E::Pem),
        (
            "a public key",
            pem("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
            E::Pem,
        ),
        (
            "nothing in PEM",
            pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            E::Pkcs8,
        ),
        (
            "no DER",
            SigningKey::from_pkcs8_der(b"key").map(drop),
            E::Pkcs8,
        ),
        ("too long", pem(&long), E::TooLong),
    ] {
        assert_eq!(found, Err(error), "{name}");
        let shown = error.to_string();
        assert!(
            shown.starts_with(char::is_lowercase) || shown.starts_with("not"),
            "{name}: {shown}"
        );
    }
    let own = SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
    assert_eq!(
        own.with_algorithm(Algorithm::Ps256).unwrap_err(),
        E::Algorithm
    );
}

/// R-6.2.4: an answer serves for its lifetime, and never beyond `exp`.
#[test]
fn an_answer_serves_for_its_life_and_not_beyond_the_tokens() {
    // At which second after NOW, and how many questions there are then.
    type Steps = &'static [(i64, usize)];
    type Settings = fn(IntrospectionVerifier) -> IntrospectionVerifier;

    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let rows: Vec<(&str, Settings, Value, Steps)> = vec![
        (
            "ten seconds",
            |tokens| tokens,
            good(),
            &[(0, 1), (0, 1), (9, 1), (10, 2), (19, 2), (20, 3)],
        ),
        (
            "a life of one's own",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(3)),
            good(),
            &[(0, 1), (2, 1), (3, 2)],
        ),
        (
            "a life beyond exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| a["exp"] = json!(NOW + 5)),
            &[(0, 1), (4, 1), (5, 2), (6, 3)],
        ),
        (
            "a life beyond an exp with a fraction",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| a["exp"] = json!(1_700_000_005.5)),
            &[(0, 1), (5, 1), (6, 2)],
        ),
        (
            "no exp",
            |tokens| tokens.with_cache_lifetime(Duration::from_secs(60)),
            but(|a| remove(a, "exp")),
            &[(0, 1), (59, 1), (60, 2)],
        ),
        (
            "no cache",
            |tokens| tokens.with_cache_lifetime(Duration::ZERO),
            good(),
            &[(0, 1), (0, 2), (1, 3)],
        ),
        (
            "a life below a second",
            |tokens| tokens.with_cache_lifetime(Duration::from_millis(999)),
            good(),
            &[(0, 1), (0, 2)],
        ),
        (
            "a life without end",
            |tokens| tokens.with_cache_lifetime(Duration::MAX),
            good(),
            &[(0, 1), (60, 1)],
        ),
        (
            "a clock that steps back",
            |tokens| tokens,
            good(),
            &[(5, 1), (4, 2), (5, 2), (13, 2), (14, 3)],
        ),
    ];
    block_on(async {
        for (name, settings, outcome, steps) in rows {
            server.answers(&outcome);
            let before = server.questions();
            let layer = layer_at(&clock, settings(server.verifier()));
            for (second, questions) in steps {
                clock.set(NOW.checked_add_signed(*second).unwrap());
                ask(&layer, TOKEN).await.assert_passed(name);
                assert_eq!(server.questions() - before, *questions, "{name}, {second}");
            }
        }
    });
}

/// R-6.2.4: only what is good is remembered, and what was taken back is forgotten.
#[test]
fn neither_rejections_nor_faults_are_remembered() {
    let server = Server::with_basic();
    let clock = TestClock::at(NOW);
    let layer = layer_at(&clock, server.verifier());
    block_on(async {
        server.answers(&json!({ "active": false }));
        for _ in 0..2 {
            ask(&layer, TOKEN)
                .await
                .assert_reason("inactive", TokenError::Invalid);
        }
        server.answers(&but(|a| a["aud"] = json!("other")));
        ask(&layer, TOKEN)
            .await
            .assert_reason("another audience", TokenError::Audience);
        server.replies(StatusCode::INTERNAL_SERVER_ERROR, "");
        ask(&layer, TOKEN).await.assert_unavailable("a fault");
        server.answers(&good());
        ask(&layer, TOKEN).await.assert_passed("good at last");
        assert_eq!(server.questions(), 5);

        server.answers(&json!({ "active": false }));
        ask(&layer, TOKEN)
            .await
            .assert_passed("revoked, and remembered");
        ask(&layer, "2YotnFZFEjr1-zCsic.MWpA_a~b+c/e==")
            .await
            .assert_reason("a token that differs", TokenError::Invalid);
        clock.set(NOW + 10);
        for (name, second) in [("asked again", 10), ("a clock that steps back", 5)] {
            clock.set(NOW + second);
            ask(&layer, TOKEN)
                .await
                .assert_reason(name, TokenError::Invalid);
        }
        assert_eq!(server.questions(), 8);
    });
}

/// A verdict does not outlive the rules it was found by.
#[test]
fn other_rules_know_no_verdicts() {
    let server = Server::with_basic();
    let now = Timestamp::from_unix(NOW);
    let token = PresentedToken::new(TOKEN);
    block_on(async {
        let tokens = server.verifier();
        assert!(tokens.verify(token, now).await.is_ok());
        assert!(tokens.verify(token, now).await.is_ok());
        assert_eq!(server.questions(), 1);
        let tokens = tokens.with_issuer("https://other.example.com");
        let rejected = tokens.verify(token, now).await.unwrap_err();
        assert_eq!((rejected, server.questions()), (TokenError::Issuer, 2));
    });
}

#[test]
fn several_audiences_or_none() {
    let server = Server::with_basic();
    block_on(async {
        let added = layer(server.verifier().add_audience("urn:orders"));
        let optional = layer(server.verifier().with_optional_audience());
        let rows: [(&str, Change, Option<TokenError>, Option<TokenError>); 4] = [
            ("the first", |_| {}, None, None),
            (
                "the second",
                |a| a["aud"] = json!("urn:orders"),
                None,
                Some(TokenError::Audience),
            ),
            (
                "none",
                |a| remove(a, "aud"),
                Some(TokenError::Audience),
                None,
            ),
            (
                "an empty array",
                |a| a["aud"] = json!([]),
                Some(TokenError::Audience),
                Some(TokenError::Audience),
            ),
        ];
        for (token, (name, change, with_added, with_optional)) in
            ["a", "b", "c", "d"].into_iter().zip(rows)
        {
            server.answers(&but(change));
            for (rule, layer, rejected) in [
                ("added", &added, with_added),
                ("optional", &optional, with_optional),
            ] {
                let outcome = ask(layer, token).await;
                let rejected = rejected.map(Rejection::Token);
                assert_eq!(outcome.kit.rejection, rejected, "{name}, {rule}");
            }
        }
    });
}

#[test]
fn the_issuer_is_named_where_it_is_known() {
    let server = Server::with_basic();
    assert_eq!(server.verifier().issuers(), [""; 0]);
    assert_eq!(server.verifier().with_issuer(ISSUER).issuers(), [ISSUER]);
    block_on(async {
        server.answers(&but(|a| a["iss"] = json!("https://other.example.com")));
        ask(&layer(server.verifier()), TOKEN)
            .await
            .assert_passed("any issuer that the server answers for");
    });
}

/// JWTs that can be revoked: the server that is asked about them stands for its issuer, and for no
/// other.
#[test]
fn the_jwts_of_its_issuer_are_asked_about() {
    let server = Server::with_basic();
    let named: Issuers<IntrospectedClaims> =
        Issuers::new().add_issuer(server.verifier().with_issuer(ISSUER));
    assert_eq!(named.issuers(), [ISSUER]);
    let nameless = Issuers::new().add_issuer(server.verifier());
    assert_eq!(nameless.issuers(), [""; 0]);
    let jwt = Attempt::good().token();
    let of_another =
        Attempt::but(|a| a.token_claims["iss"] = json!("https://other.example.com")).token();
    let rows = [
        ("its issuer's", &named, &jwt, Ok(()), 1),
        ("another's", &named, &of_another, Err(TokenError::Issuer), 0),
        (
            "no JWT",
            &named,
            &TOKEN.to_owned(),
            Err(TokenError::Malformed),
            0,
        ),
        ("nobody's", &nameless, &jwt, Err(TokenError::Issuer), 0),
    ];
    let verify = async |tokens: &Issuers<IntrospectedClaims>, token: &str| {
        let verdict = tokens.verify(PresentedToken::new(token), Timestamp::from_unix(NOW));
        verdict.await.map(drop)
    };
    block_on(async {
        for (name, tokens, token, expected, questions) in rows {
            let before = server.questions();
            assert_eq!(verify(tokens, token).await, expected, "{name}");
            assert_eq!(server.questions() - before, questions, "{name}");
        }
        let form = server.known.form.lock().unwrap().clone();
        assert!(
            form.contains(&("token".into(), jwt.clone())),
            "the whole of it"
        );
        server.answers(&json!({ "active": false }));
        let revoked = Attempt::but(|a| a.token_claims["jti"] = json!("token-2")).token();
        assert_eq!(verify(&named, &revoked).await, Err(TokenError::Invalid));
    });
    server.assert_no_complaints("its issuer's");
}

#[test]
fn the_claims_are_those_of_the_answer() {
    let server = Server::with_basic();
    block_on(async {
        let layer = layer(server.verifier());
        let token = ask(&layer, "full").await.token.unwrap();
        let claims = token.claims();
        assert_eq!(
            (claims.subject(), claims.client_id(), claims.username()),
            (Some("alice"), Some("app"), Some("Alice L."))
        );
        assert_eq!(
            claims.scopes().collect::<Vec<_>>(),
            ["orders.read", "orders.write"]
        );
        assert!(claims.has_scope("orders.read") && !claims.has_scope("orders"));
        assert_eq!(claims.claim::<u64>("tenant"), Some(7));
        assert_eq!(claims.claim::<String>("tenant"), None);
        assert_eq!(token.expires().unwrap().as_unix(), NOW + 600);

        let cnf = good()["cnf"].clone();
        server.answers(&json!({ "active": true, "aud": AUDIENCE, "cnf": cnf }));
        let token = ask(&layer, "bare").await.token.unwrap();
        let claims = token.claims();
        assert_eq!(
            (claims.subject(), claims.client_id(), claims.username()),
            (None, None, None)
        );
        assert_eq!(claims.scopes().count(), 0);
        assert_eq!(token.expires(), None);
    });
}

#[test]
fn the_claims_can_be_of_ones_own_type() {
    #[derive(Deserialize)]
    struct Tenant {
        tenant: u32,
    }

    let server = Server::with_basic();
    let layer = layer(server.verifier().with_claims::<Tenant>());
    block_on(async {
        let token = ask(&layer, "a").await.token.unwrap();
        assert_eq!(token.claims().tenant, 7);
        for (token, change) in [
            ("b", (|a| remove(a, "tenant")) as Change),
            ("c", |a| a["tenant"] = json!("seven")),
        ] {
            server.answers(&but(change));
            ask(&layer, token)
                .await
                .assert_reason(token, TokenError::Claims);
        }
    });
}

/// Waits until the futures that were spawned have gone as far as they can.
async fn until(condition: impl Fn() -> bool) {
    let turns = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), turns)
        .await
        .expect("the condition came true");
}

/// Requests through one layer, which count themselves when they begin: the same turn of the
/// executor takes them to the question.
struct Crowd<C: Send + Sync + 'static> {
    layer: Arc<DpopLayer<C>>,
    begun: Arc<AtomicUsize>,
    requests: JoinSet<Outcome<C>>,
}

impl<C: Send + Sync + serde::de::DeserializeOwned + 'static> Crowd<C> {
    fn new(tokens: IntrospectionVerifier<C>) -> Self {
        Self {
            layer: Arc::new(layer(tokens)),
            begun: Arc::default(),
            requests: JoinSet::new(),
        }
    }

    fn send(&mut self, token: impl Into<String>) -> tokio::task::AbortHandle {
        let (layer, begun, token) = (self.layer.clone(), self.begun.clone(), token.into());
        self.requests.spawn(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            ask(&layer, &token).await
        })
    }

    async fn until_begun(&self, requests: usize) {
        until(|| self.begun.load(Ordering::SeqCst) == requests).await;
    }

    async fn answers(&mut self) -> Vec<Outcome<C>> {
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.requests.join_next().await {
            outcomes.extend(outcome.ok());
        }
        outcomes
    }
}

/// Sixty-four requests, one question; its answer is everyone's, be it good or not, and a fault is
/// not remembered.
#[test]
fn requests_with_one_token_at_one_time_share_one_question() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier().with_cache_lifetime(Duration::ZERO));
        let rows: [(&str, StatusCode, Value, Result<(), Rejection>); 3] = [
            (
                "a fault",
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({}),
                Err(Unavailable::Token.into()),
            ),
            (
                "inactive",
                StatusCode::OK,
                json!({ "active": false }),
                Err(TokenError::Invalid.into()),
            ),
            ("good", StatusCode::OK, good(), Ok(())),
        ];
        for (before, (name, status, body, expected)) in rows.into_iter().enumerate() {
            server.replies(status, body.to_string());
            server.hold_answers();
            for _ in 0..64 {
                crowd.send(TOKEN);
            }
            crowd.until_begun(64 * (before + 1)).await;
            server.until_asked(before + 1).await;
            server.release_answers();
            let outcomes = crowd.answers().await;
            assert_eq!(outcomes.len(), 64, "{name}");
            for outcome in outcomes {
                assert_eq!(outcome.kit.rejection, expected.clone().err(), "{name}");
            }
            assert_eq!(server.questions(), before + 1, "{name}");
        }
        ask(&crowd.layer, TOKEN).await.assert_passed("later");
        assert_eq!(server.questions(), 4, "nothing was remembered");
    });
}

#[test]
fn requests_with_other_tokens_ask_their_own_questions() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier());
        server.hold_answers();
        for i in 0..8 {
            crowd.send(format!("token-{i}"));
        }
        server.until_asked(8).await;
        server.release_answers();
        for outcome in crowd.answers().await {
            outcome.assert_passed("each");
        }
        assert_eq!(server.questions(), 8);
    });
}

/// R-AT.5: whoever asked, each request judges the answer by its own clock.
#[test]
fn a_shared_answer_is_judged_by_each_requests_own_clock() {
    let server = Server::with_basic();
    server.answers(&but(|a| {
        a["nbf"] = json!(NOW);
        a["exp"] = json!(NOW + 60);
    }));
    let tokens = server.verifier();
    let at = |second| tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(second));
    block_on(async {
        server.hold_answers();
        let (asker, early, late, fine, ()) = tokio::join!(
            biased;
            at(NOW),
            at(NOW - 31),
            at(NOW + 90),
            at(NOW + 89),
            async {
                server.until_asked(1).await;
                server.release_answers();
            },
        );
        assert!(asker.is_ok() && fine.is_ok());
        assert_eq!(early.unwrap_err(), TokenError::NotYetValid);
        assert_eq!(late.unwrap_err(), TokenError::Expired);
        assert_eq!(server.questions(), 1);
    });
}

/// A fault lasts for those who waited for it, however slow they are to hear of it: who comes after
/// the answer asks again.
#[test]
fn nobody_joins_a_question_that_is_answered() {
    let server = Server::with_basic();
    let tokens = server.verifier().with_cache_lifetime(Duration::ZERO);
    let verify = || tokens.verify(PresentedToken::new(TOKEN), Timestamp::from_unix(NOW));
    block_on(async {
        server.replies(StatusCode::INTERNAL_SERVER_ERROR, "");
        server.hold_answers();
        let (mut asker, mut waiting) = (pin!(verify()), pin!(verify()));
        begin(asker.as_mut()).await;
        begin(waiting.as_mut()).await;
        server.release_answers();
        assert_eq!(asker.await.unwrap_err(), TokenError::Unavailable);

        server.answers(&good());
        server.hold_answers();
        let (mut later, mut with_it) = (pin!(verify()), pin!(verify()));
        begin(later.as_mut()).await;
        assert_eq!(waiting.await.unwrap_err(), TokenError::Unavailable);
        begin(with_it.as_mut()).await;
        server.release_answers();
        assert!(later.await.is_ok() && with_it.await.is_ok());
        assert_eq!(server.questions(), 2);
    });
}

/// Takes the future to where it has to wait, and no further.
async fn begin(mut future: Pin<&mut impl Future>) {
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A client that hangs up takes its question with it, and nobody else's request.
#[test]
fn a_dropped_request_harms_nobody_who_waits_with_it() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier());
        server.hold_answers();
        let mut askers = vec![crowd.send(TOKEN)];
        server.until_asked(1).await;
        for _ in 0..10 {
            askers.push(crowd.send(TOKEN));
        }
        crowd.until_begun(11).await;
        assert_eq!(server.questions(), 1);
        for (gone, asker) in askers[..10].iter().enumerate() {
            asker.abort();
            server.until_asked(gone + 2).await;
        }
        crowd.send(TOKEN);
        crowd.until_begun(12).await;
        server.release_answers();
        let outcomes = crowd.answers().await;
        assert_eq!(outcomes.len(), 2, "one has stayed, and one has joined it");
        for outcome in outcomes {
            outcome.assert_passed("each of them");
        }
        assert_eq!(server.questions(), 11);
        ask(&crowd.layer, TOKEN).await.assert_passed("afterwards");
        assert_eq!(server.questions(), 11, "and its answer is remembered");
    });
}

#[test]
fn a_token_whose_only_request_was_dropped_is_asked_about_again() {
    let server = Server::with_basic();
    block_on(async {
        let mut crowd = Crowd::new(server.verifier().with_concurrency(1));
        server.hold_answers();
        let asker = crowd.send(TOKEN);
        server.until_asked(1).await;
        asker.abort();
        assert_eq!(crowd.answers().await.len(), 0);
        server.release_answers();
        ask(&crowd.layer, TOKEN)
            .await
            .assert_passed("its place is free, too");
        assert_eq!(server.questions(), 2);
    });
}

#[test]
fn no_more_questions_are_under_way_than_was_said() {
    let server = Server::with_basic();
    block_on(async {
        for (most, said) in [(3, 3), (1, 1), (1, 0)] {
            server.known.most_under_way.store(0, Ordering::SeqCst);
            let before = server.questions();
            let mut crowd = Crowd::new(server.verifier().with_concurrency(said));
            server.hold_answers();
            for i in 0..9 {
                crowd.send(format!("token-{i}"));
            }
            crowd.until_begun(9).await;
            server.until_asked(before + most).await;
            server.release_answers();
            for outcome in crowd.answers().await {
                outcome.assert_passed("each in its turn");
            }
            assert_eq!(server.questions() - before, 9);
            let most_under_way = server.known.most_under_way.load(Ordering::SeqCst);
            assert_eq!(most_under_way, most, "{said}");
        }
        drop(server.verifier().with_concurrency(usize::MAX));
    });
}

/// D13: a place that does not come free is waited for as long as an answer is. The second request
/// has the place of the first when that gives up, so the third never gets one.
#[test]
fn a_request_that_finds_no_place_is_answered_503() {
    let server = Server::with_basic();
    server.hold_answers();
    let http = HttpClient::builder()
        .with_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let tokens = IntrospectionVerifier::new(
        format!("{}/introspect?tenant=1", server.origin)
            .parse()
            .unwrap(),
        ClientAuthentication::basic(CLIENT_ID, SECRET),
        AUDIENCE,
        http,
    );
    block_on(async {
        let mut crowd = Crowd::new(tokens.with_concurrency(1));
        for token in ["first", "second", "third"] {
            crowd.send(token);
        }
        let outcomes = crowd.answers().await;
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            outcome.assert_unavailable("each");
        }
        let form = server.known.form.lock().unwrap().clone();
        assert_ne!(form[0].1, "third");
        assert!(server.questions() <= 2);
    });
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

#[test]
fn debug_shows_neither_secrets_nor_people() {
    let server = Server::with_basic();
    let claims = block_on(async {
        let outcome = ask(&layer(server.verifier()), TOKEN).await;
        let token = outcome.token.unwrap();
        let claims: IntrospectedClaims = token.claims().clone();
        claims
    });
    for (_, client, mut secrets) in clients() {
        let mut shown = String::new();
        let mut show = |value: &dyn Debug| write!(shown, "{value:?}\n{value:#?}\n").unwrap();
        show(&client);
        show(&server.verifier_as(client.clone()));
        show(&layer(server.verifier_as(client.clone())));
        show(&claims);
        show(&SigningKeyError::Mismatch);
        assert!(shown.contains("IntrospectionVerifier"), "{shown}");
        secrets.extend(["Alice L.", "orders.read"].map(str::to_owned));
        assert_shows_nothing("Debug", &shown, &secrets);
    }
    let key = Key::es256();
    let own = SigningKey::from_pkcs8_pem(key.to_pkcs8_pem().unwrap().as_str()).unwrap();
    let shown = format!("{:?}", own.with_key_id("2025-11"));
    let private: Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let secrets = ["d", "x", "y"].map(|member| private[member].as_str().unwrap().to_owned());
    assert!(
        shown.contains("Es256") && shown.contains("2025-11"),
        "{shown}"
    );
    assert_shows_nothing("Debug of a key", &shown, &secrets);
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

/// What is logged meanwhile in this thread, at every level, from every crate.
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

/// The status, the answer, and the level and the reason of the one event.
type LoggedRow = (u16, String, Option<(&'static str, &'static str)>);

/// D21: the log says that and why a question failed, at `error` where the server rejects ours.
#[test]
fn neither_log_nor_response_repeats_a_token_a_secret_or_an_answer() {
    let token = "marker-token-marker.2YotnFZFEjr1zCsicMWpAA";
    let marked = |change: fn(&mut Value)| {
        let mut outcome = but(change);
        outcome["sub"] = json!("marker-subject-marker");
        outcome.to_string()
    };
    let ours = "tower_dpop::tokens::introspection";
    let rows: Vec<LoggedRow> = vec![
        (200, marked(|_| {}), None),
        (200, marked(|a| a["active"] = json!(false)), None),
        (200, marked(|a| a["cnf"] = json!("marker-cnf-marker")), None),
        (
            200,
            marked(|a| a["active"] = json!("marker-active-marker")),
            Some((" WARN", "not an introspection response")),
        ),
        (
            200,
            " ".repeat(64 * 1024) + &marked(|_| {}),
            Some((" WARN", "too long")),
        ),
        (401, marked(|_| {}), Some(("ERROR", "status 401"))),
        (403, marked(|_| {}), Some(("ERROR", "status 403"))),
        (400, marked(|_| {}), Some((" WARN", "status 400"))),
        (500, marked(|_| {}), Some((" WARN", "status 500"))),
        (307, String::new(), Some((" WARN", "redirected"))),
    ];
    for (registered, client, secrets) in clients() {
        let server = Server::start(registered);
        for (status, body, event) in &rows {
            let name = format!("{client:?}, {status}");
            if *status == 307 {
                server.redirects(StatusCode::TEMPORARY_REDIRECT, "http://127.0.0.1:1/");
            } else {
                server.replies(StatusCode::from_u16(*status).unwrap(), body.clone());
            }
            let layer = layer(server.verifier_as(client.clone()));
            let mut kit = None;
            let log = logged(|| {
                block_on(async { kit = Some(ask(&layer, token).await.kit) });
            });
            server.assert_no_complaints(&name);
            let mut hidden = secrets.clone();
            hidden.extend([token, "marker-subject-marker", "Alice L."].map(str::to_owned));
            hidden.extend(["marker-cnf-marker", "marker-active-marker"].map(str::to_owned));
            let form = server.known.form.lock().unwrap().clone();
            let assertion = form.iter().find(|(name, _)| name == "client_assertion");
            hidden.extend(assertion.map(|(_, assertion)| assertion.clone()));
            assert!(log.contains("tower_dpop") || kit.as_ref().unwrap().status == StatusCode::OK);
            assert_shows_nothing(&name, &log, &hidden);
            let kit = kit.unwrap();
            let told = format!("{:?} {:?}", kit.challenges, kit.nonces);
            assert_shows_nothing(&name, &told, &hidden);
            let events: Vec<&str> = log.lines().filter(|line| line.contains(ours)).collect();
            match event {
                None => assert_eq!(events, [""; 0], "{name}"),
                Some((level, reason)) => {
                    assert_eq!(events.len(), 1, "{name}: {events:?}");
                    assert!(
                        events[0].contains(level) && events[0].contains(reason),
                        "{name}: {events:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn questions_and_remembered_answers_are_counted() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    use tower_dpop::telemetry::{INTROSPECTIONS, TOKEN_CACHE};

    let server = Server::with_basic();
    let layer = layer(server.verifier());
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            ask(&layer, "a").await.assert_passed("active");
            ask(&layer, "a").await.assert_passed("remembered");
            server.answers(&json!({ "active": false }));
            ask(&layer, "b")
                .await
                .assert_reason("inactive", TokenError::Invalid);
            server.replies(StatusCode::UNAUTHORIZED, "");
            ask(&layer, "b").await.assert_unavailable("a fault");
        });
    });
    let mut counted = Vec::new();
    for (key, _, _, value) in recorder.snapshotter().snapshot().into_vec() {
        let name = key.key().name();
        if [INTROSPECTIONS, TOKEN_CACHE].contains(&name) {
            let labels: Vec<&str> = key.key().labels().map(metrics::Label::value).collect();
            let DebugValue::Counter(count) = value else {
                panic!("{name} is a counter");
            };
            counted.push((name.to_owned(), labels.join(" "), count));
        }
    }
    counted.sort();
    let rows = [
        (INTROSPECTIONS, "active", 1),
        (INTROSPECTIONS, "failed", 1),
        (INTROSPECTIONS, "inactive", 1),
        (TOKEN_CACHE, "hit", 1),
        (TOKEN_CACHE, "miss", 3),
    ];
    let expected = rows.map(|(name, result, count)| (name.to_owned(), result.to_owned(), count));
    assert_eq!(counted, expected);
}
