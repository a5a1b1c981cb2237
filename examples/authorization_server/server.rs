//! The authorization server itself: codes, tokens, and the keys that they are bound to.
//!
//! It has one user, who consents to everything, and two or three registered clients. It keeps what it has
//! issued in memory.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jsonwebtoken::EncodingKey;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};
use tower_dpop::token_endpoint::{
    Cnf, ProvenKey, TOKEN_TYPE, TokenEndpoint, TokenEndpointLayer, TokenRequestRejection,
    authorization_request_key, check_code_binding, check_refresh_binding,
};
use tower_dpop::tokens::{AccessTokenVerifier, Confirmation, PresentedToken};
use tower_dpop::{
    Algorithms, JwtVerifier, KeySet, NonceSecret, ProofRules, StatelessNonces, Thumbprint,
    Timestamp,
};
use tower_http::cors::CorsLayer;

// `flow` has this file as a module, too.
#[path = "consent.rs"]
mod consent;

/// The time in which the user decides.
const CONSENT_LIFETIME: Duration = Duration::from_secs(600);
const DEFAULT_SCOPE: &str = "orders.read";
const CODE_LIFETIME: Duration = Duration::from_secs(60);
const PUSHED_REQUEST_LIFETIME: Duration = Duration::from_secs(90);
const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings from the command line.
pub(crate) struct Settings {
    /// The URL at which clients reach it.
    pub(crate) issuer: String,
    /// The audience of its access tokens.
    pub(crate) audience: String,
    /// The algorithms of proofs.
    pub(crate) algorithms: Algorithms,
    /// Whether proofs must have nonces.
    pub(crate) nonces: bool,
    pub(crate) token_lifetime: Duration,
    /// The origin of the page that is the client `browser`.
    pub(crate) browser_origin: Option<String>,
}

/// A registered client (RFC 6749 section 2). All clients must use DPoP (`dpop_bound_access_tokens`,
/// RFC 9449 section 5.2).
struct Client {
    id: &'static str,
    kind: ClientKind,
}

enum ClientKind {
    /// Acts for itself, and authenticates with this secret.
    Confidential { secret: &'static str },
    /// Acts for users, and has no secret.
    Public { redirect_uri: String, app: App },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum App {
    /// May use any port of a loopback address (RFC 8252 section 7.3). Its user has consented.
    Native,
    /// A page, whose redirect URI must match exactly. Its user is asked.
    Page,
}

fn clients(browser_origin: Option<&str>) -> Vec<Client> {
    let mut clients = vec![
        Client {
            id: "service",
            kind: ClientKind::Confidential {
                secret: "service-secret",
            },
        },
        Client {
            id: "app",
            kind: ClientKind::Public {
                redirect_uri: "http://127.0.0.1/callback".into(),
                app: App::Native,
            },
        },
    ];
    clients.extend(browser_origin.map(|origin| Client {
        id: "browser",
        kind: ClientKind::Public {
            redirect_uri: format!("{origin}/"),
            app: App::Page,
        },
    }));
    clients
}

#[derive(Clone)]
struct AuthorizationServer {
    settings: Arc<Settings>,
    clients: Arc<[Client]>,
    /// Checks proofs.
    endpoint: Arc<TokenEndpoint>,
    signer: Arc<TokenSigner>,
    grants: Grants,
}

/// What was issued. Removal from a cache is atomic, so each entry is redeemed only once.
#[derive(Clone)]
struct Grants {
    pushed: Cache<String, CheckedRequest>,
    /// Requests about which the user is asked.
    consents: Cache<String, CheckedRequest>,
    codes: Cache<String, Code>,
    refresh_tokens: Cache<String, Refresh>,
}

/// An authorization request that was pushed (RFC 9126), or that waits for the user.
#[derive(Clone)]
struct CheckedRequest {
    request: AuthorizationRequest,
    /// The key that its `dpop_jkt` names, or that signed the proof of a pushed request.
    key: Option<Thumbprint>,
}

#[derive(Clone)]
struct Code {
    client_id: &'static str,
    redirect_uri: String,
    /// The `code_challenge` of PKCE.
    challenge: String,
    scope: Option<String>,
    /// The key that may redeem it (RFC 9449 section 10).
    key: Option<Thumbprint>,
}

#[derive(Clone)]
struct Refresh {
    client_id: &'static str,
    scope: Option<String>,
    /// The key that it is bound to, because its client is public (RFC 9449 section 5).
    key: Thumbprint,
}

pub(crate) fn router(settings: Settings) -> Result<Router, Box<dyn Error + Send + Sync>> {
    let mut rules = ProofRules::new(settings.issuer.parse()?).with_algorithms(settings.algorithms);
    if settings.nonces {
        rules = rules.with_nonces(StatelessNonces::new(NonceSecret::generate()));
    }
    let endpoint = Arc::new(TokenEndpoint::new(rules));
    let proofs = TokenEndpointLayer::new(Arc::clone(&endpoint));
    let server = AuthorizationServer {
        signer: Arc::new(TokenSigner::generate(&settings)?),
        clients: clients(settings.browser_origin.as_deref()).into(),
        settings: Arc::new(settings),
        endpoint,
        grants: Grants {
            pushed: kept_for(PUSHED_REQUEST_LIFETIME),
            consents: kept_for(CONSENT_LIFETIME),
            codes: kept_for(CODE_LIFETIME),
            refresh_tokens: kept_for(REFRESH_TOKEN_LIFETIME),
        },
    };
    let mut for_scripts = Router::new()
        .route("/token", post(token).layer(proofs.clone()))
        // RFC 9449 section 10.1: a proof or `dpop_jkt`, or both.
        .route(
            "/par",
            post(push).layer(proofs.with_requests_without_proof()),
        )
        .route("/jwks", get(jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata));
    if let Some(origin) = &server.settings.browser_origin {
        for_scripts = for_scripts.layer(cors(origin.parse()?));
    }
    // RFC 9700 section 2.6: browsers navigate to these, so scripts of other origins may not call them.
    Ok(for_scripts
        .route("/authorize", get(authorize))
        .route("/consent", post(decide))
        .route("/introspect", post(introspect))
        .with_state(server))
}

/// Outside the layer that checks proofs: preflights have none.
fn cors(origin: HeaderValue) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(cors_allow_headers())
        .expose_headers(cors_expose_headers())
        .max_age(Duration::from_secs(600))
}

fn kept_for<V: Clone + Send + Sync + 'static>(lifetime: Duration) -> Cache<String, V> {
    Cache::builder()
        .time_to_live(lifetime)
        .max_capacity(10_000)
        .build()
}

/// RFC 8414 section 2, with the additions of RFC 9449 section 5.1.
async fn metadata(State(server): State<AuthorizationServer>) -> Response {
    #[derive(Serialize)]
    struct Document<D> {
        #[serde(flatten)]
        dpop: D,
        #[serde(flatten)]
        rest: Value,
    }
    let issuer = &server.settings.issuer;
    Json(Document {
        dpop: server.endpoint.metadata(),
        rest: json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "pushed_authorization_request_endpoint": format!("{issuer}/par"),
            "introspection_endpoint": format!("{issuer}/introspect"),
            "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": true,
        }),
    })
    .into_response()
}

async fn jwks(State(server): State<AuthorizationServer>) -> Json<Value> {
    Json(server.signer.jwks.clone())
}

/// RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 9449 section 10.
#[derive(Clone, Deserialize)]
struct AuthorizationRequest {
    client_id: String,
    #[serde(default)]
    response_type: String,
    #[serde(default)]
    redirect_uri: String,
    state: Option<String>,
    scope: Option<String>,
    #[serde(default)]
    code_challenge: String,
    #[serde(default)]
    code_challenge_method: String,
    dpop_jkt: Option<String>,
    /// In the browser's request, instead of all the others (RFC 9126 section 4).
    request_uri: Option<String>,
}

impl AuthorizationRequest {
    /// The public client that it names, if the client and its redirect URI are registered.
    fn client(&self, clients: &[Client]) -> Option<(&'static str, App)> {
        clients.iter().find_map(|client| match &client.kind {
            ClientKind::Public { redirect_uri, app }
                if client.id == self.client_id
                    && is_registered(&self.redirect_uri, redirect_uri, *app) =>
            {
                Some((client.id, *app))
            }
            _ => None,
        })
    }

    fn is_understood(&self) -> bool {
        self.response_type == "code"
            && self.code_challenge_method == "S256"
            && self.code_challenge.len() == 43
    }
}

/// An exact match (RFC 9700 section 2.1), except for the port of a loopback address: a native app
/// takes any that is free (RFC 8252 section 7.3).
fn is_registered(requested: &str, registered: &str, app: App) -> bool {
    if app == App::Page {
        return requested == registered;
    }
    ["http://127.0.0.1", "http://[::1]"]
        .into_iter()
        .find_map(|loopback| {
            let requested = without_port(requested.strip_prefix(loopback)?)?;
            let registered = without_port(registered.strip_prefix(loopback)?)?;
            Some(requested == registered)
        })
        .unwrap_or(requested == registered)
}

/// What follows an optional port, if it is a path.
fn without_port(after_host: &str) -> Option<&str> {
    let path = match after_host.strip_prefix(':') {
        None => after_host,
        Some(port) => {
            let path = port.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let _: u16 = port[..port.len() - path.len()].parse().ok()?;
            path
        }
    };
    path.starts_with('/').then_some(path)
}

/// RFC 9126 section 2: the request comes from the client itself, with its proof.
async fn push(
    State(server): State<AuthorizationServer>,
    Extension(key): Extension<Option<ProvenKey>>,
    form: Result<Form<AuthorizationRequest>, FormRejection>,
) -> Result<Response, Rejected> {
    let Form(request) = form.map_err(|_| Rejected::InvalidRequest)?;
    let client = request.client(&server.clients);
    if client.is_none() || request.request_uri.is_some() || !request.is_understood() {
        return Err(Rejected::InvalidRequest);
    }
    let key = authorization_request_key(key.as_ref(), request.dpop_jkt.as_deref())
        .map_err(|rejection| server.reject(rejection))?;
    let request_uri = format!("urn:ietf:params:oauth:request_uri:{}", random_text()?);
    server
        .grants
        .pushed
        .insert(request_uri.clone(), CheckedRequest { request, key });
    let response =
        json!({ "request_uri": request_uri, "expires_in": PUSHED_REQUEST_LIFETIME.as_secs() });
    Ok((
        StatusCode::CREATED,
        [(CACHE_CONTROL, "no-store")],
        Json(response),
    )
        .into_response())
}

/// RFC 6749 section 4.1.1. The user has logged in.
async fn authorize(
    State(server): State<AuthorizationServer>,
    query: Result<Query<AuthorizationRequest>, QueryRejection>,
) -> Result<Response, Rejected> {
    let Query(request) = query.map_err(|_| Rejected::InvalidRequest)?;
    let (request, pushed_key) = match &request.request_uri {
        None => (request, None),
        Some(request_uri) => {
            // `remove` alone also returns expired entries.
            let pushed = server
                .grants
                .pushed
                .get(request_uri)
                .filter(|pushed| pushed.request.client_id == request.client_id)
                .and_then(|_| server.grants.pushed.remove(request_uri));
            let CheckedRequest { request, key } = pushed.ok_or(Rejected::InvalidRequest)?;
            (request, key)
        }
    };
    // Without a known client and redirect URI, the user cannot be sent back.
    let client = request.client(&server.clients);
    let (client_id, app) = client.ok_or(Rejected::InvalidRequest)?;
    let key = match pushed_key {
        Some(key) => Ok(Some(key)),
        None => authorization_request_key(None, request.dpop_jkt.as_deref()),
    };
    let Some(key) = key.ok().filter(|_| request.is_understood()) else {
        return Ok(server.send_back(&request, "error", "invalid_request"));
    };
    let request = CheckedRequest { request, key };
    match app {
        App::Native => server.send_code(client_id, request),
        App::Page => {
            let ticket = random_text()?;
            let page = consent::page(
                client_id,
                request.request.scope.as_deref().unwrap_or(DEFAULT_SCOPE),
                &ticket,
            );
            server.grants.consents.insert(ticket, request);
            Ok(page)
        }
    }
}

#[derive(Deserialize)]
struct ConsentForm {
    ticket: String,
    decision: String,
}

/// The user has decided.
async fn decide(
    State(server): State<AuthorizationServer>,
    form: Result<Form<ConsentForm>, FormRejection>,
) -> Result<Response, Rejected> {
    let Form(ConsentForm { ticket, decision }) = form.map_err(|_| Rejected::InvalidRequest)?;
    let consents = &server.grants.consents;
    let request = consents.get(&ticket).and_then(|_| consents.remove(&ticket));
    let request = request.ok_or(Rejected::InvalidRequest)?;
    let client = request.request.client(&server.clients);
    let (client_id, _) = client.ok_or(Rejected::InvalidRequest)?;
    if decision == "allow" {
        server.send_code(client_id, request)
    } else {
        Ok(server.send_back(&request.request, "error", "access_denied"))
    }
}

/// RFC 6749 sections 4.1.3, 4.4.2 and 6.
#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    scope: Option<String>,
    code: Option<String>,
    redirect_uri: Option<String>,
    code_verifier: Option<String>,
    refresh_token: Option<String>,
}

/// RFC 9449 section 5. The proof was checked before any of this: a client that must sign again
/// still has its code.
async fn token(
    State(server): State<AuthorizationServer>,
    Extension(key): Extension<ProvenKey>,
    headers: HeaderMap,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Response, Rejected> {
    let Form(request) = form.map_err(|_| Rejected::InvalidRequest)?;
    let client = authenticate(
        &server.clients,
        &headers,
        request.client_id.as_deref(),
        request.client_secret.as_deref(),
    )?;
    match (&client.kind, request.grant_type.as_str()) {
        (ClientKind::Confidential { .. }, "client_credentials") => {
            server.grant(client.id, client.id, request.scope, &key, None)
        }
        (ClientKind::Public { .. }, "authorization_code") => {
            let code = server.redeem_code(client, &request, &key)?;
            server.grant_to_user(client, code.scope, &key)
        }
        (ClientKind::Public { .. }, "refresh_token") => {
            let refresh = server.redeem_refresh_token(client, &request, &key)?;
            server.grant_to_user(client, refresh.scope, &key)
        }
        (_, "authorization_code" | "client_credentials" | "refresh_token") => {
            Err(Rejected::UnauthorizedClient)
        }
        _ => Err(Rejected::UnsupportedGrantType),
    }
}

/// RFC 6749 section 2.3.1: with the Authorization field or with the form, not with both.
fn authenticate<'c>(
    clients: &'c [Client],
    headers: &HeaderMap,
    id: Option<&str>,
    secret: Option<&str>,
) -> Result<&'c Client, Rejected> {
    let basic = match headers.get(AUTHORIZATION) {
        None => None,
        Some(_) if secret.is_some() => return Err(Rejected::InvalidRequest),
        Some(field) => Some(basic_credentials(field.as_bytes()).ok_or(Rejected::InvalidClient)?),
    };
    let (id, secret) = match &basic {
        Some((basic_id, _)) if id.is_some_and(|id| id != basic_id) => {
            return Err(Rejected::InvalidRequest);
        }
        Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
        None => (id, secret),
    };
    let client = clients
        .iter()
        .find(|client| Some(client.id) == id)
        .ok_or(Rejected::InvalidClient)?;
    let authentic = match client.kind {
        // Compare hashes, so that the time it takes reveals nothing about the secret.
        ClientKind::Confidential { secret: registered } => {
            secret.is_some_and(|secret| Sha256::digest(secret) == Sha256::digest(registered))
        }
        ClientKind::Public { .. } => secret.is_none(),
    };
    if authentic {
        Ok(client)
    } else {
        Err(Rejected::InvalidClient)
    }
}

/// Id and secret are form-encoded before they are joined.
fn basic_credentials(field: &[u8]) -> Option<(String, String)> {
    let (scheme, credentials) = str::from_utf8(field).ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let credentials = STANDARD.decode(credentials.trim()).ok()?;
    let (id, secret) = str::from_utf8(&credentials).ok()?.split_once(':')?;
    let decode = |text: &str| {
        // A single value, not a form.
        if text.contains(['=', '&']) {
            return None;
        }
        let (name, _) = form_urlencoded::parse(text.as_bytes()).next()?;
        Some(name.into_owned())
    };
    Some((decode(id)?, decode(secret)?))
}

impl AuthorizationServer {
    fn reject(&self, rejection: impl Into<TokenRequestRejection>) -> Rejected {
        Rejected::Dpop(Box::new(self.endpoint.reject(rejection)))
    }

    /// RFC 6749 section 4.1.2. The user has consented.
    fn send_code(
        &self,
        client_id: &'static str,
        CheckedRequest { request, key }: CheckedRequest,
    ) -> Result<Response, Rejected> {
        let text = random_text()?;
        let response = self.send_back(&request, "code", &text);
        let code = Code {
            client_id,
            redirect_uri: request.redirect_uri,
            challenge: request.code_challenge,
            scope: request.scope,
            key,
        };
        self.grants.codes.insert(text, code);
        Ok(response)
    }

    /// Sends the browser back to the client with a code or an error.
    fn send_back(&self, request: &AuthorizationRequest, name: &str, value: &str) -> Response {
        let mut response = form_urlencoded::Serializer::new(String::new());
        response.append_pair(name, value);
        if let Some(state) = &request.state {
            response.append_pair("state", state);
        }
        // RFC 9207.
        response.append_pair("iss", &self.settings.issuer);
        let location = format!("{}?{}", request.redirect_uri, response.finish());
        Redirect::to(&location).into_response()
    }

    /// RFC 6749 section 4.1.3, RFC 7636 section 4.6, RFC 9449 section 10. A request that fails one
    /// of these checks does not use up the code.
    fn redeem_code(
        &self,
        client: &Client,
        request: &TokenRequest,
        key: &ProvenKey,
    ) -> Result<Code, Rejected> {
        let text = request.code.as_deref().ok_or(Rejected::InvalidRequest)?;
        let verifier = request
            .code_verifier
            .as_deref()
            .ok_or(Rejected::InvalidRequest)?;
        let code = self.grants.codes.get(text).ok_or(Rejected::InvalidGrant)?;
        if code.client_id != client.id
            || Some(code.redirect_uri.as_str()) != request.redirect_uri.as_deref()
            || code.challenge != URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
        {
            return Err(Rejected::InvalidGrant);
        }
        check_code_binding(Some(key), code.key).map_err(|rejection| self.reject(rejection))?;
        self.grants.codes.remove(text).ok_or(Rejected::InvalidGrant)
    }

    /// RFC 6749 section 6. A refresh token is valid once: the response contains a new one.
    fn redeem_refresh_token(
        &self,
        client: &Client,
        request: &TokenRequest,
        key: &ProvenKey,
    ) -> Result<Refresh, Rejected> {
        let text = request
            .refresh_token
            .as_deref()
            .ok_or(Rejected::InvalidRequest)?;
        let refresh = self
            .grants
            .refresh_tokens
            .get(text)
            .filter(|refresh| refresh.client_id == client.id)
            .ok_or(Rejected::InvalidGrant)?;
        check_refresh_binding(Some(key), Some(refresh.key))
            .map_err(|rejection| self.reject(rejection))?;
        self.grants
            .refresh_tokens
            .remove(text)
            .ok_or(Rejected::InvalidGrant)
    }

    fn grant_to_user(
        &self,
        client: &Client,
        scope: Option<String>,
        key: &ProvenKey,
    ) -> Result<Response, Rejected> {
        let refresh_token = random_text()?;
        self.grants.refresh_tokens.insert(
            refresh_token.clone(),
            Refresh {
                client_id: client.id,
                scope: scope.clone(),
                key: key.thumbprint(),
            },
        );
        self.grant("alice", client.id, scope, key, Some(refresh_token))
    }

    /// RFC 6749 section 5.1, with an RFC 9068 token that is bound to the proof's key.
    fn grant(
        &self,
        subject: &str,
        client_id: &str,
        scope: Option<String>,
        key: &ProvenKey,
        refresh_token: Option<String>,
    ) -> Result<Response, Rejected> {
        let scope = scope.unwrap_or_else(|| DEFAULT_SCOPE.into());
        let now = unix_time()?;
        let lifetime = self.settings.token_lifetime.as_secs();
        let token = self.signer.sign(&json!({
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "sub": subject,
            "client_id": client_id,
            "scope": scope,
            "iat": now,
            "exp": now + lifetime,
            "jti": random_text()?,
            "cnf": key.cnf(),
        }))?;
        let mut response = json!({
            "access_token": token,
            "token_type": TOKEN_TYPE,
            "expires_in": lifetime,
            "scope": scope,
        });
        if let Some(refresh_token) = refresh_token {
            response["refresh_token"] = refresh_token.into();
        }
        Ok(([(CACHE_CONTROL, "no-store")], Json(response)).into_response())
    }
}

#[derive(Deserialize)]
struct IntrospectionRequest {
    token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// RFC 7662, RFC 9449 section 6.2: the response has the token's `cnf` at the top level. No proof is
/// required.
async fn introspect(
    State(server): State<AuthorizationServer>,
    headers: HeaderMap,
    form: Result<Form<IntrospectionRequest>, FormRejection>,
) -> Result<Response, Rejected> {
    let Form(request) = form.map_err(|_| Rejected::InvalidRequest)?;
    let asks = authenticate(
        &server.clients,
        &headers,
        request.client_id.as_deref(),
        request.client_secret.as_deref(),
    )?;
    if matches!(asks.kind, ClientKind::Public { .. }) {
        return Err(Rejected::InvalidClient);
    }
    let now = Timestamp::from_unix(unix_time()?);
    let token = PresentedToken::new(&request.token);
    let response = match server.signer.own_tokens.verify(token, now).await {
        Ok(token) => {
            let mut response = token.claims().clone();
            response["active"] = true.into();
            response["token_type"] = TOKEN_TYPE.into();
            if let Confirmation::Thumbprint(jkt) = token.confirmation() {
                response["cnf"] = json!(Cnf::from(jkt));
            }
            response
        }
        Err(_) => json!({ "active": false }),
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(response)).into_response())
}

/// Signs access tokens with its own key.
struct TokenSigner {
    key: EncodingKey,
    /// The public key, for resource servers.
    jwks: Value,
    own_tokens: JwtVerifier<KeySet, Value>,
}

const KEY_ID: &str = "1";

impl TokenSigner {
    fn generate(settings: &Settings) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1()?.as_ref());
        let mut jwk =
            jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256)?;
        jwk.common.key_id = Some(KEY_ID.into());
        let jwks = json!({ "keys": [jwk] });
        let keys: KeySet = jwks.to_string().parse()?;
        Ok(Self {
            key,
            jwks,
            own_tokens: JwtVerifier::new(&settings.issuer, &settings.audience, keys)
                .with_claims::<Value>(),
        })
    }

    fn sign(&self, claims: &Value) -> Result<String, Rejected> {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.typ = Some("at+jwt".into());
        header.kid = Some(KEY_ID.into());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| Rejected::ServerError)
    }
}

/// 128 random bits.
fn random_text() -> Result<String, Rejected> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Rejected::ServerError)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn unix_time() -> Result<u64, Rejected> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.map_err(|_| Rejected::ServerError)?.as_secs())
}

/// RFC 6749 section 5.2. The crate makes the responses for invalid proofs and keys.
enum Rejected {
    Dpop(Box<Response>),
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    ServerError,
    UnauthorizedClient,
    UnsupportedGrantType,
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        let (status, error) = match self {
            Self::Dpop(response) => return *response,
            Self::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
            Self::InvalidGrant => (StatusCode::BAD_REQUEST, "invalid_grant"),
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::ServerError => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Self::UnauthorizedClient => (StatusCode::BAD_REQUEST, "unauthorized_client"),
            Self::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        };
        let headers = [(CACHE_CONTROL, "no-store")];
        let mut response = (status, headers, Json(json!({ "error": error }))).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"clients\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
