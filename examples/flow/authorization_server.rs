//! The authorization server: gives out codes, checks proofs, and binds tokens to their keys.
//!
//! It has one user, who always says yes, and one registered client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower_dpop::freshness::Timestamp;
use tower_dpop::jose::jwk::{Jwk, Thumbprint};
use tower_dpop::nonce::{Nonce, NonceSource};
use tower_dpop::replay::{Claim, ReplayKey, ReplayStore};
use tower_dpop::{Algorithm, Algorithms, MemoryReplayStore, NonceSecret, StatelessNonces};

use crate::client::Client;
use crate::wire::{Result, SigningKey, base64url, from_base64url, random_text};

/// How far a proof's `iat` may be from now, and how old a nonce may be, in seconds.
const PROOF_WINDOW: u64 = 60;
const NONCE_LIFE: u64 = 120;
const CODE_LIFE: u64 = 60;
const TOKEN_LIFE: u64 = 300;

pub(crate) struct AuthorizationServer {
    /// Also the URL under which clients reach it.
    issuer: String,
    /// Whom its tokens are for.
    audience: String,
    client: Client,
    key: SigningKey,
    codes: Mutex<HashMap<String, Grant>>,
    nonces: StatelessNonces,
    replays: MemoryReplayStore,
}

/// What a code stands for.
struct Grant {
    subject: &'static str,
    code_challenge: String,
    expires: Timestamp,
}

impl AuthorizationServer {
    pub(crate) fn new(issuer: &str, audience: &str, client: Client) -> Result<Self> {
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            client,
            key: SigningKey::generate()?,
            codes: Mutex::default(),
            nonces: StatelessNonces::new(NonceSecret::generate()),
            replays: MemoryReplayStore::default(),
        })
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/jwks", get(jwks))
            .with_state(Arc::new(self))
    }
}

#[derive(Deserialize)]
struct AuthorizationRequest {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    state: String,
    code_challenge: String,
    code_challenge_method: String,
}

/// RFC 6749 section 4.1.2. The user has logged in and said yes.
async fn authorize(
    State(server): State<Arc<AuthorizationServer>>,
    Query(request): Query<AuthorizationRequest>,
) -> Response {
    let registered =
        request.client_id == server.client.id && request.redirect_uri == server.client.redirect_uri;
    let understood = request.response_type == "code" && request.code_challenge_method == "S256";
    // The state goes back as it came, into a URL.
    let harmless = !request.state.is_empty()
        && request
            .state
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet));
    if !(registered && understood && harmless) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Ok(code) = random_text() else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let grant = Grant {
        subject: "alice",
        code_challenge: request.code_challenge,
        expires: now().plus(CODE_LIFE),
    };
    server
        .codes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(code.clone(), grant);
    let (redirect_uri, state) = (request.redirect_uri, request.state);
    Redirect::to(&format!("{redirect_uri}?code={code}&state={state}")).into_response()
}

#[derive(Deserialize)]
struct TokenRequest {
    grant_type: String,
    client_id: String,
    redirect_uri: String,
    code: String,
    code_verifier: String,
}

/// RFC 9449 section 5. The code is looked at last, so that a client that has to sign again (for a
/// nonce, or because its clock is wrong) still has it.
async fn token(
    State(server): State<Arc<AuthorizationServer>>,
    headers: HeaderMap,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Response, TokenRefused> {
    let Form(request) = form.map_err(|_| TokenRefused::InvalidRequest)?;
    let now = now();
    let proof = server.check_proof(&headers, now)?;
    server.check_nonce(&proof, now)?;
    server.claim(&proof, now).await?;
    let grant = server.redeem(&request, now)?;
    let token = server
        .issue(&grant, &proof, now)
        .map_err(|_| TokenRefused::ServerError)?;
    Ok((
        [(CACHE_CONTROL, "no-store")],
        Json(json!({
            "access_token": token,
            "token_type": "DPoP",
            "expires_in": TOKEN_LIFE,
            "scope": "orders.read",
        })),
    )
        .into_response())
}

/// The header and claims of a proof (RFC 9449 section 4.2), as far as a token endpoint needs them.
#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    alg: String,
    jwk: Value,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: u64,
    nonce: Option<String>,
}

/// A proof whose signature holds.
struct Proof {
    jkt: Thumbprint,
    claims: ProofClaims,
}

impl AuthorizationServer {
    /// RFC 9449 section 4.3, checks 1 to 9 and 11.
    fn check_proof(&self, headers: &HeaderMap, now: Timestamp) -> Result<Proof, TokenRefused> {
        let mut fields = headers.get_all("dpop").iter();
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Err(TokenRefused::InvalidProof("there must be one DPoP field"));
        };
        let proof = read_proof(field.as_bytes()).map_err(|_| {
            TokenRefused::InvalidProof("the proof does not verify with its own key")
        })?;
        if proof.claims.jti.is_empty() {
            return Err(TokenRefused::InvalidProof("the jti is empty"));
        }
        if proof.claims.htm != "POST" || proof.claims.htu != format!("{}/token", self.issuer) {
            return Err(TokenRefused::InvalidProof(
                "the proof is for another request",
            ));
        }
        if now.as_unix().abs_diff(proof.claims.iat) > PROOF_WINDOW {
            return Err(TokenRefused::InvalidProof("the proof is not of now"));
        }
        Ok(proof)
    }

    /// Check 10: nonces are required (RFC 9449 section 8).
    fn check_nonce(&self, proof: &Proof, now: Timestamp) -> Result<(), TokenRefused> {
        let issued = proof
            .claims
            .nonce
            .as_deref()
            .and_then(|nonce| self.nonces.issued_at(nonce));
        match issued {
            Some(issued) if now <= issued.plus(NONCE_LIFE) => Ok(()),
            _ => Err(TokenRefused::UseNonce(self.nonces.issue(now))),
        }
    }

    /// RFC 9449 section 11.1: a proof is good once.
    async fn claim(&self, proof: &Proof, now: Timestamp) -> Result<(), TokenRefused> {
        let key = ReplayKey::new(proof.jkt, &proof.claims.jti);
        let expires = Timestamp::from_unix(proof.claims.iat).plus(PROOF_WINDOW);
        match self.replays.claim(key, now, expires).await {
            Ok(Claim::First) => Ok(()),
            Ok(Claim::Replayed) => Err(TokenRefused::InvalidProof("the proof was used before")),
            Err(_) => Err(TokenRefused::ServerError),
        }
    }

    /// RFC 6749 section 4.1.3 and RFC 7636 section 4.6. Whatever comes of it, the code is spent.
    fn redeem(&self, request: &TokenRequest, now: Timestamp) -> Result<Grant, TokenRefused> {
        if request.grant_type != "authorization_code" {
            return Err(TokenRefused::UnsupportedGrantType);
        }
        let grant = self
            .codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&request.code)
            .ok_or(TokenRefused::InvalidGrant)?;
        let to_this_client =
            request.client_id == self.client.id && request.redirect_uri == self.client.redirect_uri;
        let by_this_client =
            base64url(Sha256::digest(&request.code_verifier)) == grant.code_challenge;
        if to_this_client && by_this_client && now <= grant.expires {
            Ok(grant)
        } else {
            Err(TokenRefused::InvalidGrant)
        }
    }

    /// An access token by RFC 9068, bound to the proof's key (RFC 9449 section 6.1).
    fn issue(&self, grant: &Grant, proof: &Proof, now: Timestamp) -> Result<String> {
        self.key.sign(
            &json!({ "typ": "at+jwt", "alg": "ES256", "kid": "1" }),
            &json!({
                "iss": self.issuer,
                "aud": self.audience,
                "sub": grant.subject,
                "client_id": self.client.id,
                "scope": "orders.read",
                "iat": now.as_unix(),
                "exp": now.plus(TOKEN_LIFE).as_unix(),
                "jti": random_text()?,
                "cnf": { "jkt": proof.jkt.to_string() },
            }),
        )
    }
}

/// Checks 2 to 7: a JWT of the right type, signed by the public key that it names.
fn read_proof(field: &[u8]) -> Result<Proof> {
    let (input, signature) = str::from_utf8(field)?.rsplit_once('.').ok_or("no JWT")?;
    let (header, claims) = input.split_once('.').ok_or("no JWT")?;
    let header: ProofHeader = serde_json::from_slice(&from_base64url(header)?)?;
    let algorithm: Algorithm = header.alg.parse()?;
    if header.typ != "dpop+jwt"
        || header.crit.is_some()
        || !Algorithms::default().contains(algorithm)
    {
        return Err("not a proof that is understood here".into());
    }
    let jwk: Jwk = header.jwk.to_string().parse()?;
    jwk.verify(algorithm, input.as_bytes(), &from_base64url(signature)?)?;
    Ok(Proof {
        jkt: jwk.thumbprint(),
        claims: serde_json::from_slice(&from_base64url(claims)?)?,
    })
}

/// The keys by which resource servers verify its tokens.
async fn jwks(State(server): State<Arc<AuthorizationServer>>) -> Response {
    match server.key.public_jwk() {
        Ok(mut jwk) => {
            jwk["kid"] = "1".into();
            jwk["alg"] = "ES256".into();
            Json(json!({ "keys": [jwk] })).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// RFC 6749 section 5.2, RFC 9449 sections 5 and 8.
enum TokenRefused {
    InvalidGrant,
    InvalidProof(&'static str),
    InvalidRequest,
    ServerError,
    UnsupportedGrantType,
    UseNonce(Nonce),
}

impl IntoResponse for TokenRefused {
    fn into_response(self) -> Response {
        let (error, description) = match &self {
            Self::InvalidGrant => ("invalid_grant", "the code is not good"),
            Self::InvalidProof(reason) => ("invalid_dpop_proof", *reason),
            Self::InvalidRequest => ("invalid_request", "a parameter is missing"),
            Self::ServerError => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Self::UnsupportedGrantType => ("unsupported_grant_type", "use authorization_code"),
            Self::UseNonce(_) => (
                "use_dpop_nonce",
                "Authorization server requires nonce in DPoP proof",
            ),
        };
        let body = Json(json!({ "error": error, "error_description": description }));
        let headers = [(CACHE_CONTROL, "no-store")];
        let mut response = (StatusCode::BAD_REQUEST, headers, body).into_response();
        if let Self::UseNonce(nonce) = &self {
            nonce.write_to(response.headers_mut());
        }
        response
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
