//! The ready client against an authorization server and a resource server that verify everything: proofs, nonces, tokens,
//! codes.

mod background;
mod builder;
mod login;
mod proxies;
mod requests;
mod secrets;
mod token_requests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_dpop::client::{DpopClient, DpopClientBuilder, RefreshToken};
use tower_dpop::jose::SigningKey;
use tower_dpop::testing::{TestClock, TestIssuer};
use tower_dpop::token_endpoint::{
    ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer, authorization_request_key,
    check_code_binding, check_refresh_binding,
};
use tower_dpop::{DpopLayer, NonceSecret, ProofRules, StatelessNonces, Thumbprint, Verifier};

use common::proofs::ReadProof;

pub(super) const SECRET: &str = "marker/secret:marker";
const REDIRECT_URI: &str = "http://127.0.0.1:51004/callback";

const PERMITS: usize = 1000;

/// Both servers, and what they have seen. Each requires nonces.
pub(super) struct World {
    pub(super) issuer: String,
    pub(super) api: String,
    pub(super) clock: TestClock,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    tokens: TestIssuer,
    endpoint: Arc<TokenEndpoint>,
    /// Token requests wait for a permit.
    gate: Semaphore,
}

/// What the authorization server does, what it has issued, and what both servers have seen.
struct Script {
    metadata: Value,
    /// Replaces the response to a token request.
    token_response: Option<(u16, &'static str)>,
    /// `expires_in` of the responses.
    expires_in: Value,
    /// The lifetime in the tokens themselves.
    lifetime: u64,
    /// The audience of the tokens, if it is not the resource server.
    audience: Option<&'static str>,
    /// Whether each response of `refresh_token` has a new refresh token.
    rotates: bool,
    refresh_token: Option<(String, Thumbprint)>,
    pushed: HashMap<String, Form>,
    codes: HashMap<String, Code>,
    issued: usize,
    /// All requests to the token endpoint and the endpoint for pushed requests, with those that only got a nonce.
    asked: Vec<HeaderMap>,
    /// Token requests with a valid proof.
    token_requests: Vec<(HeaderMap, Form)>,
    /// Requests at the resource server.
    resource_requests: Vec<HeaderMap>,
}

struct Code {
    challenge: String,
    redirect_uri: String,
    key: Option<Thumbprint>,
}

type Form = Vec<(String, String)>;

/// The value of a parameter, which may occur only once.
#[track_caller]
fn value<'f>(form: &'f Form, name: &str) -> Option<&'f str> {
    let mut values = form.iter().filter(|(key, _)| key == name);
    let first = values.next();
    assert!(values.next().is_none(), "{name} occurs twice");
    first.map(|(_, value)| value.as_str())
}

fn parse(form: &str) -> Form {
    form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect()
}

impl World {
    pub(super) async fn start() -> Self {
        let (as_listener, rs_listener) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let [issuer, api] = [&as_listener, &rs_listener]
            .map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        let clock = TestClock::default();
        let rules = |url: &str| {
            ProofRules::new(url.parse().unwrap())
                .with_clock(clock.read())
                .with_nonces(StatelessNonces::new(NonceSecret::generate()))
        };
        let tokens = TestIssuer::new(&issuer, &api).with_clock(clock.clone());
        let resources = Verifier::new(rules(&api), tokens.jwt_verifier());
        let shared = Arc::new(Shared {
            script: Mutex::new(Script::new(&issuer)),
            endpoint: Arc::new(TokenEndpoint::new(rules(&issuer))),
            tokens,
            gate: Semaphore::new(PERMITS),
        });
        let proofs = TokenEndpointLayer::new(Arc::clone(&shared.endpoint));
        let authorization_server = Router::new()
            .route("/token", post(token).layer(proofs.clone()))
            .route("/par", post(push).layer(proofs))
            .layer(from_fn_with_state(Arc::clone(&shared), record_asked))
            .route("/authorize", get(authorize))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .with_state(Arc::clone(&shared));
        let resource_server = Router::new()
            .route("/orders", any(async |body: String| body))
            .route("/moved", any(async || Redirect::temporary("/orders")))
            .layer(DpopLayer::new(resources))
            .layer(from_fn_with_state(Arc::clone(&shared), record_resource));
        tokio::spawn(axum::serve(as_listener, authorization_server).into_future());
        tokio::spawn(axum::serve(rs_listener, resource_server).into_future());
        Self {
            issuer,
            api,
            clock,
            shared,
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap()
    }

    /// A builder for everything but the grant: the confidential client `service`.
    fn builder(&self) -> DpopClientBuilder {
        DpopClient::builder()
            .with_issuer(self.issuer.parse().unwrap())
            .with_client_secret("service", SECRET)
            .add_server(self.api.parse().unwrap())
            .with_clock(self.clock.read())
    }

    async fn client(&self) -> DpopClient {
        self.builder().build().await.unwrap()
    }

    /// A client with the refresh token `marker-refresh-0`. After this function, its store keeps each new one.
    async fn resumed(&self, before: fn(&str)) -> (DpopClient, Arc<Mutex<Vec<String>>>) {
        let key = SigningKey::generate().unwrap();
        let kept: Arc<Mutex<Vec<String>>> = Arc::default();
        let store = Arc::clone(&kept);
        self.script().refresh_token = Some(("marker-refresh-0".to_owned(), key.thumbprint()));
        let builder = self
            .builder()
            .with_key(key)
            .with_refresh_token_store(move |token| {
                before(token.as_str());
                store.lock().unwrap().push(token.as_str().to_owned());
            });
        let client = builder.resume(RefreshToken::new("marker-refresh-0")).await;
        (client.unwrap(), kept)
    }

    pub(super) fn orders(&self) -> String {
        format!("{}/orders", self.api)
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Issues a code for this authorization request.
    fn add_code(&self, code: &str, request: &Form) {
        self.script().add_code(code.to_owned(), request);
    }

    /// The heads of all requests to both servers that had a proof.
    fn seen(&self) -> Vec<HeaderMap> {
        let script = self.script();
        let seen = script.asked.iter().chain(&script.resource_requests);
        seen.cloned().collect()
    }

    /// How many tokens were issued.
    pub(super) fn issued(&self) -> usize {
        self.script().issued
    }

    /// The token of the last request to the resource server.
    fn last_token(&self) -> HeaderValue {
        let script = self.script();
        script.resource_requests.last().unwrap()["authorization"].clone()
    }

    /// Lets no token request through, until [`open`](Self::open).
    fn close(&self) {
        let gate = &self.shared.gate;
        assert_eq!(gate.forget_permits(usize::MAX), PERMITS);
    }

    fn open(&self) {
        self.shared.gate.add_permits(PERMITS);
    }

    /// Goes on until the condition holds: for things that happen in a task of their own.
    async fn until(&self, condition: impl Fn(&Script) -> bool) {
        for _ in 0..100_000 {
            if condition(&self.script()) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it did not happen");
    }
}

impl Script {
    fn new(issuer: &str) -> Self {
        Self {
            metadata: json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"),
                "pushed_authorization_request_endpoint": format!("{issuer}/par"),
                "dpop_signing_alg_values_supported": ["ES384", "PS256", "HS256"],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }),
            token_response: None,
            expires_in: json!(600),
            lifetime: 600,
            audience: None,
            rotates: true,
            refresh_token: None,
            pushed: HashMap::new(),
            codes: HashMap::new(),
            issued: 0,
            asked: Vec::new(),
            token_requests: Vec::new(),
            resource_requests: Vec::new(),
        }
    }

    fn add_code(&mut self, code: String, request: &Form) {
        let code_of_request = Code {
            challenge: value(request, "code_challenge").unwrap().to_owned(),
            redirect_uri: value(request, "redirect_uri").unwrap().to_owned(),
            key: value(request, "dpop_jkt").map(|jkt| jkt.parse().unwrap()),
        };
        self.codes.insert(code, code_of_request);
    }

    /// How many requests to the authorization server got only a nonce.
    fn nonce_demands(&self) -> usize {
        let proofs = self
            .asked
            .iter()
            .map(|headers| ReadProof::of(&headers["dpop"]));
        proofs.filter(|proof| proof.nonce().is_none()).count()
    }
}

async fn record_asked(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let headers = request.headers().clone();
    shared.script.lock().unwrap().asked.push(headers);
    next.run(request).await
}

async fn record_resource(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    shared
        .script
        .lock()
        .unwrap()
        .resource_requests
        .push(headers);
    next.run(request).await
}

async fn metadata(State(shared): State<Arc<Shared>>) -> Response {
    let document = shared.script.lock().unwrap().metadata.clone();
    if document.is_null() {
        return StatusCode::NOT_FOUND.into_response();
    }
    Json(document).into_response()
}

async fn push(
    State(shared): State<Arc<Shared>>,
    Extension(key): Extension<ProvenKey>,
    form: String,
) -> Response {
    let form = parse(&form);
    let key = authorization_request_key(Some(&key), value(&form, "dpop_jkt"));
    assert!(key.is_ok(), "C-27: dpop_jkt is the key of the proof");
    let mut script = shared.script.lock().unwrap();
    let request_uri = format!("urn:request:{}", script.pushed.len());
    script.pushed.insert(request_uri.clone(), form);
    (
        StatusCode::CREATED,
        Json(json!({ "request_uri": request_uri, "expires_in": 60 })),
    )
        .into_response()
}

/// The user has logged in and consented.
async fn authorize(State(shared): State<Arc<Shared>>, request: Request) -> Redirect {
    let mut script = shared.script.lock().unwrap();
    let mut form = parse(request.uri().query().unwrap_or_default());
    assert_eq!(value(&form, "client_id"), Some("service"));
    if let Some(request_uri) = value(&form, "request_uri") {
        assert_eq!(form.len(), 2, "nothing else is in the URL: {form:?}");
        form = script.pushed.remove(request_uri).unwrap();
    }
    assert_eq!(value(&form, "response_type"), Some("code"));
    assert_eq!(value(&form, "code_challenge_method"), Some("S256"));
    let code = format!("code/{}", script.codes.len());
    let redirect_uri = value(&form, "redirect_uri").unwrap().to_owned();
    let state = value(&form, "state").unwrap();
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("code", &code)
        .append_pair("state", state)
        .append_pair("iss", script.metadata["issuer"].as_str().unwrap())
        .finish();
    let location = format!("{redirect_uri}?{query}");
    script.add_code(code, &form);
    Redirect::to(&location)
}

async fn token(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Extension(key): Extension<ProvenKey>,
    form: String,
) -> Response {
    let form = parse(&form);
    shared
        .script
        .lock()
        .unwrap()
        .token_requests
        .push((headers, form.clone()));
    let _permit = shared.gate.acquire().await.unwrap();
    let mut script = shared.script.lock().unwrap();
    if let Some((status, body)) = script.token_response {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [("content-type", "application/json")], body).into_response();
    }
    let invalid_grant = || {
        (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "invalid_grant" })),
        )
    };
    let by_user = match value(&form, "grant_type").unwrap() {
        "client_credentials" => false,
        "authorization_code" => {
            let Some(code) = script.codes.remove(value(&form, "code").unwrap()) else {
                return invalid_grant().into_response();
            };
            let verifier = value(&form, "code_verifier").unwrap();
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
            assert_eq!(code.challenge, challenge, "RFC 7636 section 4.6");
            assert_eq!(value(&form, "redirect_uri"), Some(&*code.redirect_uri));
            assert!(check_code_binding(Some(&key), code.key).is_ok(), "C-26");
            true
        }
        "refresh_token" => {
            let presented = value(&form, "refresh_token").unwrap();
            match script.refresh_token.clone() {
                Some((valid, bound)) if valid == presented => {
                    assert!(check_refresh_binding(Some(&key), Some(bound)).is_ok());
                }
                _ => return invalid_grant().into_response(),
            }
            true
        }
        grant => panic!("{grant}"),
    };
    script.issued += 1;
    let number = script.issued;
    let now = shared.tokens.clock().now();
    let token = shared
        .tokens
        .token_for(key.thumbprint())
        .with_claim("jti", number.to_string())
        .with_claim("exp", now.plus(script.lifetime).as_unix());
    let token = match script.audience {
        Some(audience) => token.with_claim("aud", audience),
        None => token,
    };
    let mut response = json!({
        "access_token": token.to_text(),
        "token_type": TOKEN_TYPE,
        "expires_in": script.expires_in,
    });
    if by_user && (script.rotates || value(&form, "grant_type") != Some("refresh_token")) {
        let refresh_token = format!("marker-refresh-{number}");
        response["refresh_token"] = json!(refresh_token);
        script.refresh_token = Some((refresh_token, key.thumbprint()));
    }
    Json(response).into_response()
}
