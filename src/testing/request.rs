//! A request that passes, to be changed in one thing before it is sent.

use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, Method, Request, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::credentials::DPOP;
use crate::jose::base64url;
use crate::jose::signing_key::SigningKey;
use crate::proof::nonce::NonceSource;
use crate::testing::defect::Defect;
use crate::testing::issuer::{TestToken, public_jwk, remove};
use crate::testing::jws::{fresh_id, sign_jws, sign_text};
use crate::time::Timestamp;

/// A request that passes, to be changed in one thing before it is sent.
///
/// Made by [`TestClient::request`](crate::testing::TestClient::request). Token and proof are signed
/// when the request is built, so a changed claim does not cost the signature. Each
/// [`build`](Self::build) makes the same request: sent twice, it is a replay.
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
/// // By name, or by hand:
/// let refused = good.anew().with_defect(Defect::OtherMethod);
/// let mut refused = good.anew();
/// refused.proof_claims["htm"] = "DELETE".into();
/// # let _ = refused;
/// # }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct TestRequest {
    /// The method that is sent. What the proof says of it is `proof_claims["htm"]`.
    pub method: Method,
    /// The request target that is sent. What the proof says of it is `proof_claims["htu"]`.
    pub uri: String,
    /// The version that is sent.
    pub version: Version,
    /// What signs the proof.
    pub key: SigningKey,
    /// The JOSE header of the proof: `typ`, `alg`, `jwk`.
    pub proof_header: Value,
    /// The claims of the proof. An `ath` of `"auto"` becomes the hash of the token that is sent.
    pub proof_claims: Value,
    /// What signs the access token.
    pub token_key: SigningKey,
    /// The JOSE header of the access token.
    pub token_header: Value,
    /// The claims of the access token.
    pub token_claims: Value,
    /// Stands in for the signed token.
    pub token: Option<String>,
    /// Stands in for the `Authorization` fields.
    pub authorization: Option<Vec<HeaderValue>>,
    /// Stands in for the `DPoP` fields.
    pub dpop: Option<Vec<HeaderValue>>,
    /// Changes the signed proof.
    pub edit_proof: fn(String) -> String,
    /// Sent as well. Names are written in lower case.
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
    /// A resource, with an access token under the Bearer scheme, and no proof.
    ResourceAsBearer,
    /// An access token, with a proof alone.
    Token,
}

/// Whether the server takes bearer tokens, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearer {
    Allowed,
    Refused,
}

/// What the client knows of the server's nonces.
#[derive(Clone)]
pub(super) enum Nonces {
    /// Nothing: none are demanded.
    None,
    /// One that the server gave out.
    Given(String),
    /// How they are made.
    Source(Arc<dyn NonceSource>),
}

/// What a defect changes that no field of the request says.
#[derive(Clone)]
pub(super) struct Spoiled {
    pub(super) proof_header: fn(String) -> String,
    pub(super) proof_payload: fn(String) -> String,
    pub(super) proof: fn(String) -> String,
    pub(super) token: fn(String) -> String,
    /// The `Authorization` fields around a token.
    pub(super) authorization: fn(&str) -> Vec<String>,
    /// The `DPoP` fields around a proof.
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
            bearer: Bearer::Refused,
            spoiled: Spoiled::NOTHING,
            left_out: Vec::new(),
        }
    }

    /// The same request with an identifier (`jti`) of its own: no replay of this one.
    #[must_use]
    pub fn anew(&self) -> Self {
        let mut request = self.clone();
        request.proof_claims["jti"] = json!(fresh_id());
        request
    }

    /// The request of a client that does not speak DPoP yet: a token that is bound to nothing, under
    /// the Bearer scheme, and no proof. It passes where
    /// [`Verifier::allow_bearer`](crate::Verifier::allow_bearer) was said, any number of
    /// times. It can have none of the defects; its token is changed by hand.
    ///
    /// # Example
    ///
    /// ```
    /// use http::{Method, Request, Response};
    /// use tower_dpop::resource::BearerError;
    /// use tower_dpop::testing::{Answer, TestClient};
    /// use tower_dpop::tokens::TokenError;
    ///
    /// # fn example(client: TestClient, send: impl Fn(Request<String>) -> Response<String>) {
    /// let request = client.request(Method::GET, "https://api.example.com/orders").as_bearer();
    /// Answer::of(&send(request.build())).assert_passed("a bearer token");
    ///
    /// let mut request = request.anew();
    /// request.token_claims["exp"] = 0.into();
    /// let answer = Answer::of(&send(request.build()));
    /// answer.assert_reason("an old one", BearerError::Token(TokenError::Expired));
    /// # }
    /// ```
    #[must_use]
    pub fn as_bearer(mut self) -> Self {
        self.purpose = Purpose::ResourceAsBearer;
        remove(&mut self.token_claims, "cnf");
        self
    }

    /// Sends the request to where the server listens, `http://127.0.0.1:8080` say, by its absolute
    /// URL. What the proof says stays as it is: the public URL.
    #[must_use]
    pub fn sent_to(mut self, origin: &str) -> Self {
        self.uri = format!("{}{}", origin.trim_end_matches('/'), self.uri);
        self
    }

    /// The access token that is sent. Algorithms that draw random numbers sign another text each
    /// time.
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
    /// A field was changed to what no request can carry.
    #[track_caller]
    pub fn build<B: Default>(&self) -> Request<B> {
        self.build_with(B::default())
    }

    /// Signs the request, with this body.
    ///
    /// # Panics
    ///
    /// A field was changed to what no request can carry.
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
