//! A valid request, in which one thing can be changed before it is sent.

use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, Method, Request, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::credentials::DPOP;
use crate::jose::base64url;
use crate::jose::signing_key::SigningKey;
use crate::proof::rules::ProofRules;
use crate::testing::defect::Defect;
use crate::testing::issuer::{TestToken, public_jwk, remove};
use crate::testing::jws::{fresh_id, sign_jws, sign_text};
use crate::time::Timestamp;

/// A valid request, in which one thing can be changed before it is sent.
///
/// Made by [`TestClient::request`](crate::testing::TestClient::request). Token and proof are signed
/// when the request is built, so a changed claim does not invalidate the signature. Each
/// [`build`](Self::build) makes the same request: sending it twice is a replay.
///
/// # Example
///
/// ```
/// use http::{Method, Request};
/// use tower_dpop::testing::{Defect, TestClient};
///
/// # fn example(client: TestClient) {
/// let good = client.request(Method::GET, "https://api.example.com/orders?page=2");
/// let sent: Request<String> = good.build();
/// assert_eq!(sent.uri(), "/orders?page=2"); // as a server sees it
///
/// // By name, or through a field:
/// let rejected = good.again().with_defect(Defect::OtherMethod);
/// let mut rejected = good.again();
/// rejected.proof_claims["htm"] = "DELETE".into();
/// # let _ = rejected;
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct TestRequest {
    /// The method that is sent. The method in the proof is `proof_claims["htm"]`.
    pub method: Method,
    /// The request target that is sent. The URL in the proof is `proof_claims["htu"]`.
    pub uri: String,
    /// The HTTP version that is sent.
    pub version: Version,
    /// The key that signs the proof.
    pub key: SigningKey,
    /// The JOSE header of the proof: `typ`, `alg`, `jwk`.
    pub proof_header: Value,
    /// The claims of the proof. An `ath` of `"auto"` becomes the hash of the token that is sent.
    pub proof_claims: Value,
    /// The key that signs the access token.
    pub token_key: SigningKey,
    /// The JOSE header of the access token.
    pub token_header: Value,
    /// The claims of the access token.
    pub token_claims: Value,
    /// Replaces the signed token.
    pub token: Option<String>,
    /// Replaces the `Authorization` fields.
    pub authorization: Option<Vec<HeaderValue>>,
    /// Replaces the `DPoP` fields.
    pub dpop: Option<Vec<HeaderValue>>,
    /// Changes the signed proof.
    pub edit_proof: fn(String) -> String,
    /// Additional header fields to send. Their names are written in lower case.
    pub extra_headers: Vec<(&'static str, HeaderValue)>,
    pub(super) now: Timestamp,
    pub(super) purpose: Purpose,
    pub(super) nonces: Nonces,
    pub(super) bearer: Bearer,
    pub(super) spoiled: Spoiled,
    pub(super) left_out: Vec<Defect>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A resource, with an access token.
    Resource,
    /// A resource, with an access token under the Bearer scheme, and without a proof.
    ResourceAsBearer,
    /// An access token, with a proof only.
    Token,
}

/// Whether the server accepts bearer tokens, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearer {
    Allowed,
    Rejected,
}

/// What the client knows about the server's nonces.
#[derive(Clone)]
pub(super) enum Nonces {
    /// Nothing: the server demands none.
    None,
    /// A nonce that the server issued.
    Given(String),
    /// How the server makes them.
    OfServer(Arc<ProofRules>),
}

/// Changes that a defect makes and that no field of the request can express.
#[derive(Clone)]
pub(super) struct Spoiled {
    pub(super) proof_header: fn(String) -> String,
    pub(super) proof_payload: fn(String) -> String,
    pub(super) proof: fn(String) -> String,
    pub(super) token: fn(String) -> String,
    /// The `Authorization` fields for a token.
    pub(super) authorization: fn(&str) -> Vec<String>,
    /// The `DPoP` fields for a proof.
    pub(super) dpop: fn(&str) -> Vec<String>,
}

impl Spoiled {
    const NOTHING: Self = Self {
        proof_header: |header| header,
        proof_payload: |payload| payload,
        proof: |proof| proof,
        token: |token| token,
        authorization: |token| vec![format!("DPoP {token}")],
        dpop: |proof| vec![proof.to_owned()],
    };
}

impl TestRequest {
    pub(super) fn new(
        method: Method,
        uri: String,
        htu: &str,
        key: SigningKey,
        token: TestToken,
        now: Timestamp,
    ) -> Self {
        Self {
            proof_header: json!({
                "typ": "dpop+jwt",
                "alg": key.algorithm(),
                "jwk": public_jwk(&key),
            }),
            proof_claims: json!({
                "jti": fresh_id(),
                "htm": method.as_str(),
                "htu": htu,
                "iat": now.as_unix(),
                "ath": "auto",
            }),
            method,
            uri,
            version: Version::HTTP_11,
            key,
            token_key: token.key,
            token_header: token.header,
            token_claims: token.claims,
            token: None,
            authorization: None,
            dpop: None,
            edit_proof: |proof| proof,
            extra_headers: Vec::new(),
            now,
            purpose: Purpose::Resource,
            nonces: Nonces::None,
            bearer: Bearer::Rejected,
            spoiled: Spoiled::NOTHING,
            left_out: Vec::new(),
        }
    }

    /// The same request with a new identifier (`jti`), so that it is not a replay of this one.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut request = self.clone();
        request.proof_claims["jti"] = json!(fresh_id());
        request
    }

    /// The request of a client that does not support DPoP yet: a token that is not bound, under the
    /// Bearer scheme, and no proof. A service with
    /// [`Verifier::allow_bearer`](crate::Verifier::allow_bearer) accepts it any number of times. It
    /// can have none of the defects; change the fields of its token instead.
    ///
    /// # Example
    ///
    /// ```
    /// use http::{Method, Request, Response};
    /// use tower_dpop::resource::BearerError;
    /// use tower_dpop::testing::{TestResponse, TestClient};
    /// use tower_dpop::tokens::TokenError;
    ///
    /// # fn example(client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
    /// let request = client.request(Method::GET, "https://api.example.com/orders").as_bearer();
    /// TestResponse::of(&send(request.build())).assert_passed("a bearer token");
    ///
    /// let mut request = request.again();
    /// request.token_claims["exp"] = 0.into();
    /// let response = TestResponse::of(&send(request.build()));
    /// response.assert_reason("an old one", BearerError::Token(TokenError::Expired));
    /// # }
    /// ```
    #[must_use]
    pub fn as_bearer(mut self) -> Self {
        self.purpose = Purpose::ResourceAsBearer;
        remove(&mut self.token_claims, "cnf");
        self
    }

    /// Sends the request to the address where the server listens, for example
    /// `http://127.0.0.1:8080`, with its absolute URL. The proof does not change: it names the
    /// public URL.
    #[must_use]
    pub fn sent_to(mut self, origin: &str) -> Self {
        self.uri = format!("{}{}", origin.trim_end_matches('/'), self.uri);
        self
    }

    /// The access token that is sent. Signatures that use random numbers differ each time.
    pub fn token(&self) -> String {
        self.token.clone().unwrap_or_else(|| {
            (self.spoiled.token)(sign_jws(
                &self.token_key,
                &self.token_header,
                &self.token_claims,
            ))
        })
    }

    /// The proof that is sent with this token.
    pub fn proof(&self, token: &str) -> String {
        let mut claims = self.proof_claims.clone();
        if claims["ath"] == "auto" {
            claims["ath"] = json!(base64url::encode(Sha256::digest(token)));
        }
        let signed = sign_text(
            &self.key,
            (self.spoiled.proof_header)(self.proof_header.to_string()),
            (self.spoiled.proof_payload)(claims.to_string()),
        );
        (self.spoiled.proof)((self.edit_proof)(signed))
    }

    /// Signs the request, with an empty body.
    ///
    /// # Panics
    ///
    /// Panics if a field was changed to a value that no request can carry.
    #[track_caller]
    pub fn build<B: Default>(&self) -> Request<B> {
        self.build_with(B::default())
    }

    /// Signs the request, with this body.
    ///
    /// # Panics
    ///
    /// Panics if a field was changed to a value that no request can carry.
    #[track_caller]
    pub fn build_with<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.parse().expect("the URI can be sent");
        *request.version_mut() = self.version;
        let token = match self.purpose {
            Purpose::Resource | Purpose::ResourceAsBearer => self.token(),
            Purpose::Token => String::new(),
        };
        let authorization = match (&self.authorization, self.purpose) {
            (Some(fields), _) => fields.clone(),
            (None, Purpose::Resource) => secret_fields((self.spoiled.authorization)(&token)),
            (None, Purpose::ResourceAsBearer) => secret_fields(vec![format!("Bearer {token}")]),
            (None, Purpose::Token) => Vec::new(),
        };
        let dpop = match (&self.dpop, self.purpose) {
            (Some(fields), _) => fields.clone(),
            (None, Purpose::ResourceAsBearer) => Vec::new(),
            (None, Purpose::Resource | Purpose::Token) => {
                secret_fields((self.spoiled.dpop)(&self.proof(&token)))
            }
        };
        let headers = request.headers_mut();
        for field in authorization {
            headers.append(AUTHORIZATION, field);
        }
        for field in dpop {
            headers.append(DPOP, field);
        }
        for (name, value) in &self.extra_headers {
            headers.append(HeaderName::from_static(name), value.clone());
        }
        request
    }
}

#[track_caller]
fn secret_fields(values: Vec<String>) -> Vec<HeaderValue> {
    values
        .into_iter()
        .map(|value| {
            let mut field = HeaderValue::try_from(value).expect("the field can be sent");
            field.set_sensitive(true);
            field
        })
        .collect()
}

impl fmt::Debug for TestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRequest")
            .field("method", &self.method)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
