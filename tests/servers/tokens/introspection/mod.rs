//! Introspection of opaque tokens, with a test endpoint that checks every introspection request and
//! sends the response that the test has set.

mod claims;
mod client_authentication;
mod failure;
mod in_flight;
mod signed_responses;
mod verifier;

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION,
};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::jose::{Jwk, SigningKey};
use tower_dpop::resource::Unavailable;
use tower_dpop::testing::{self, TestClock};
use tower_dpop::tokens::{
    AccessTokenVerifier, ClientAuthentication, HttpClient, IntrospectionVerifier,
};
use tower_dpop::{BoundToken, DpopLayer, ProofRules, Rejection, Verifier};

use common::{AUDIENCE, Attempt, AttemptExt as _, ISSUER, Key, KeyExt as _, NOW, block_on};

/// Contains every character that a token may contain besides letters and digits. Some of them must
/// be escaped in a form.
const TOKEN: &str = "2YotnFZFEjr1-zCsic.MWpA_a~b+c/d==";

// With characters that have a meaning in a form, in Basic authentication, or in both.
const CLIENT_ID: &str = "orders:api +&=%é";
const SECRET: &str = "s:e c+r&e=t%2B~ü-marker-secret-marker";

/// The credentials that the server expects.
#[derive(Clone)]
enum RegisteredClient {
    Basic(String, String),
    Post(String, String),
    Key(String, Jwk, Option<&'static str>),
}

#[derive(Clone)]
struct Reply {
    status: StatusCode,
    field: Option<(HeaderName, String)>,
    body: Vec<u8>,
}

/// An introspection endpoint, in its own thread.
struct Server {
    origin: String,
    state: Arc<EndpointState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct EndpointState {
    client: RegisteredClient,
    /// What the introspection requests accept.
    accept: &'static str,
    reply: Mutex<Reply>,
    /// The number of introspection requests so far.
    request_count: watch::Sender<usize>,
    /// What was wrong with them.
    errors: Mutex<Vec<String>>,
    /// The form of the last one.
    form: Mutex<Vec<(String, String)>>,
    /// The `jti` of every client assertion so far.
    jtis: Mutex<HashSet<String>>,
    /// Each response needs a permit.
    permits: Semaphore,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
}

impl Server {
    fn start(client: RegisteredClient) -> Self {
        Self::start_for(client, "application/json")
    }

    fn start_for(client: RegisteredClient, accept: &'static str) -> Self {
        let state = Arc::new(EndpointState {
            client,
            accept,
            reply: Mutex::new(Reply {
                status: StatusCode::OK,
                field: None,
                body: good_response().to_string().into(),
            }),
            request_count: watch::Sender::new(0),
            errors: Mutex::default(),
            form: Mutex::default(),
            jtis: Mutex::default(),
            permits: Semaphore::new(10_000),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(handle)
            .with_state(state.clone());
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
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn with_basic() -> Self {
        Self::start(RegisteredClient::Basic(CLIENT_ID.into(), SECRET.into()))
    }

    /// A verifier with the credentials that [`Server::with_basic`] expects.
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

    fn set_response(&self, response: &Value) {
        self.set_response_with_status(StatusCode::OK, response.to_string());
    }

    fn set_response_with_status(&self, status: StatusCode, body: impl Into<Vec<u8>>) {
        *self.state.reply.lock().unwrap() = Reply {
            status,
            field: None,
            body: body.into(),
        };
    }

    fn set_redirect(&self, status: StatusCode, to: impl Into<String>) {
        *self.state.reply.lock().unwrap() = Reply {
            status,
            field: Some((LOCATION, to.into())),
            body: Vec::new(),
        };
    }

    /// The good response, with a `Content-Encoding` that is not true.
    fn set_content_coding(&self, status: StatusCode, coding: &str) {
        *self.state.reply.lock().unwrap() = Reply {
            status,
            field: Some((CONTENT_ENCODING, coding.to_owned())),
            body: good_response().to_string().into(),
        };
    }

    fn hold_responses(&self) {
        self.state.permits.forget_permits(usize::MAX);
    }

    fn release_responses(&self) {
        self.state.permits.add_permits(10_000);
    }

    fn request_count(&self) -> usize {
        *self.state.request_count.borrow()
    }

    async fn until_requested(&self, requests: usize) {
        let mut count = self.state.request_count.subscribe();
        let enough = count.wait_for(|count| *count >= requests);
        tokio::time::timeout(Duration::from_secs(20), enough)
            .await
            .expect("the introspection requests arrived")
            .unwrap();
    }

    #[track_caller]
    fn assert_no_errors(&self, name: &str) {
        let errors = self.state.errors.lock().unwrap();
        assert!(errors.is_empty(), "{name}: {errors:?}");
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

async fn handle(
    State(state): State<Arc<EndpointState>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response<axum::body::Body> {
    struct InFlight<'a>(&'a AtomicUsize);

    impl Drop for InFlight<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    if uri.path() == "/moved" {
        return good_response().to_string().into_response();
    }
    let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    let _in_flight = InFlight(&state.in_flight);
    state.max_in_flight.fetch_max(now, Ordering::SeqCst);
    state.request_count.send_modify(|count| *count += 1);
    if let Err(error) = state.check(&method, &uri, &headers, &body) {
        state.errors.lock().unwrap().push(error);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    drop(state.permits.acquire().await.unwrap());
    let reply = state.reply.lock().unwrap().clone();
    let mut response = (reply.status, reply.body).into_response();
    if let Some((name, value)) = reply.field {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// Decodes the credentials as a server does (RFC 6749 section 2.3.1).
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

impl EndpointState {
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
                _ => Err(format!("duplicate {name} field")),
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
        is("Accept", &field(ACCEPT)?, &Some(self.accept))?;
        is(
            "Accept-Encoding",
            &field(ACCEPT_ENCODING)?,
            &Some("identity"),
        )?;
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
        let base = ["token", "token_type_hint"];
        match &self.client {
            RegisteredClient::Basic(id, secret) => {
                is("the form", &names, &base)?;
                let pair = authorization.as_deref().and_then(basic_pair);
                is("the client", &pair, &Some((id, secret)))
            }
            RegisteredClient::Post(id, secret) => {
                is(
                    "the form",
                    &names,
                    &[base.as_slice(), &["client_id", "client_secret"]].concat(),
                )?;
                is("Authorization", &authorization, &None::<()>)?;
                let pair = (value("client_id"), value("client_secret"));
                is("the client", &pair, &(id, secret))
            }
            RegisteredClient::Key(id, jwk, kid) => {
                let credentials = ["client_id", "client_assertion_type", "client_assertion"];
                is(
                    "the form",
                    &names,
                    &[base.as_slice(), &credentials].concat(),
                )?;
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
        let invalid = |_| "jsonwebtoken does not accept the assertion".to_owned();
        let segments: Vec<&str> = assertion.split('.').collect();
        let [header, claims, signature] = segments[..] else {
            return Err("the assertion is not a JWS".into());
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
            .map_err(|_| "the signature is not base64url")?;
        jwk.verify(
            alg.parse().map_err(|_| "the algorithm is unknown")?,
            signed.as_bytes(),
            &signature_bytes,
        )
        .map_err(|_| "the signature does not verify")?;
        // Checked by another implementation as well, if it supports the algorithm.
        if let Ok(alg) = alg.parse::<jsonwebtoken::Algorithm>() {
            let public = serde_json::from_value(serde_json::to_value(jwk).unwrap()).unwrap();
            let key = jsonwebtoken::DecodingKey::from_jwk(&public).map_err(invalid)?;
            let mut rules = jsonwebtoken::Validation::new(alg);
            rules.set_audience(&[ISSUER]);
            rules.set_issuer(&[id]);
            rules.sub = Some(id.to_owned());
            rules.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
            rules.validate_exp = false;
            jsonwebtoken::decode::<Value>(assertion, &key, &rules).map_err(invalid)?;
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
            Err("the jti is too short or already used".into())
        } else if claims_json != expected || header_json != expected_header {
            Err(format!(
                "unexpected assertion: {header_json}, {claims_json}"
            ))
        } else {
            Ok(())
        }
    }
}

/// The response for a valid token.
fn good_response() -> Value {
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

fn changed_response(change: impl FnOnce(&mut Value)) -> Value {
    let mut response = good_response();
    change(&mut response);
    response
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

/// A valid request with this token.
fn request(token: &str) -> Request<String> {
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

/// Sends a valid request with this token through the layer.
async fn send<C: Send + Sync + 'static>(layer: &DpopLayer<C>, token: &str) -> Outcome<C>
where
    IntrospectionVerifier<C>: AccessTokenVerifier<Claims = C>,
{
    let service = layer.layer(service_fn(async |request: Request<String>| {
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

/// Lets spawned tasks run until the condition is true.
async fn until(condition: impl Fn() -> bool) {
    let turns = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), turns)
        .await
        .expect("the condition became true");
}

/// Concurrent requests through one layer. Each is counted as started in the same poll in which it
/// sends its introspection request or joins another.
struct ConcurrentRequests<C: Send + Sync + 'static> {
    layer: Arc<DpopLayer<C>>,
    started: Arc<AtomicUsize>,
    tasks: JoinSet<Outcome<C>>,
}

impl<C: Send + Sync + serde::de::DeserializeOwned + 'static> ConcurrentRequests<C> {
    fn new(tokens: IntrospectionVerifier<C>) -> Self {
        Self {
            layer: Arc::new(layer(tokens)),
            started: Arc::default(),
            tasks: JoinSet::new(),
        }
    }

    fn send(&mut self, token: impl Into<String>) -> tokio::task::AbortHandle {
        let (layer, started, token) = (self.layer.clone(), self.started.clone(), token.into());
        self.tasks.spawn(async move {
            started.fetch_add(1, Ordering::SeqCst);
            send(&layer, &token).await
        })
    }

    async fn until_started(&self, requests: usize) {
        until(|| self.started.load(Ordering::SeqCst) == requests).await;
    }

    async fn outcomes(&mut self) -> Vec<Outcome<C>> {
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.tasks.join_next().await {
            outcomes.extend(outcome.ok());
        }
        outcomes
    }
}

/// The three ways to authenticate, each with the secrets that no output may contain.
fn clients() -> Vec<(RegisteredClient, ClientAuthentication, Vec<String>)> {
    let key = Key::es256();
    let pem = key.to_pkcs8_pem().unwrap();
    let private: Value = serde_json::from_str(key.to_jwk().unwrap().as_str()).unwrap();
    let signing_key = SigningKey::from_pkcs8_pem(pem.as_str()).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let id: String = form_urlencoded::byte_serialize(CLIENT_ID.as_bytes()).collect();
    let secrets = vec![
        SECRET.to_owned(),
        encoded.clone(),
        STANDARD.encode(format!("{id}:{encoded}")),
    ];
    vec![
        (
            RegisteredClient::Basic(CLIENT_ID.into(), SECRET.into()),
            ClientAuthentication::basic(CLIENT_ID, SECRET),
            secrets.clone(),
        ),
        (
            RegisteredClient::Post(CLIENT_ID.into(), SECRET.into()),
            ClientAuthentication::post(CLIENT_ID, SECRET),
            secrets,
        ),
        (
            RegisteredClient::Key(CLIENT_ID.into(), key.public_key().clone(), None),
            ClientAuthentication::private_key_jwt(CLIENT_ID, signing_key, ISSUER),
            vec![private["d"].as_str().unwrap().to_owned()],
        ),
    ]
}
