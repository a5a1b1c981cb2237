//! What all three parties need: HTTP requests, and JWTs signed with ES256.

use std::error::Error;

use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// A header field, empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let field = self.headers.get(name);
        field.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// Sends one request. Redirects are not followed.
pub(crate) async fn send(request: Request<String>) -> Result<Answer> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request).await?.into_parts();
    let body = Limited::new(body, 64 * 1024).collect().await?.to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8(body.into())?,
    })
}

/// A key pair that signs with ES256.
pub(crate) struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self(EcdsaKeyPair::generate(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
        )?))
    }

    pub(crate) fn public_jwk(&self) -> Result<Value> {
        let point: EcPublicKeyUncompressedBin<'_> = self.0.public_key().as_be_bytes()?;
        // SEC 1 section 2.3.3: 04, then both coordinates.
        let (x, y) = point.as_ref()[1..].split_at(32);
        Ok(json!({ "kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y) }))
    }

    /// A JWT in the compact serialisation.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let input = format!(
            "{}.{}",
            base64url(header.to_string()),
            base64url(claims.to_string())
        );
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes())?;
        Ok(format!("{input}.{}", base64url(signature)))
    }
}

/// The header and claims of a JWT, to be looked at: nothing is verified.
pub(crate) fn peek(jwt: &str) -> Result<(Value, Value)> {
    let mut segments = jwt.split('.');
    let mut next = || -> Result<Value> {
        let segment = segments.next().ok_or("not a JWT")?;
        Ok(serde_json::from_slice(&from_base64url(segment)?)?)
    };
    Ok((next()?, next()?))
}

/// 128 random bits: a `jti`, a code, a `state`.
pub(crate) fn random_text() -> Result<String> {
    let mut octets = [0; 16];
    getrandom::fill(&mut octets)?;
    Ok(base64url(octets))
}

pub(crate) fn base64url(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

pub(crate) fn from_base64url(text: &str) -> Result<Vec<u8>> {
    Ok(URL_SAFE_NO_PAD.decode(text)?)
}
