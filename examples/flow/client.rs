//! The client: it has a key pair, and signs a proof for every request that needs one.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, Request};
use serde_json::json;
use sha2::{Digest, Sha256};
use tower_dpop::jose::jwk::{Jwk, Thumbprint};

use crate::wire::{Result, SigningKey, base64url, random_text};

/// A public client (RFC 6749 section 2.1), as it is registered at the authorization server.
pub(crate) struct Client {
    pub(crate) id: &'static str,
    pub(crate) redirect_uri: &'static str,
}

impl Client {
    /// What the user's browser is sent to (RFC 6749 section 4.1.1).
    pub(crate) fn authorization_request(
        &self,
        endpoint: &str,
        state: &str,
        pkce: &Pkce,
    ) -> Result<Request<String>> {
        let query = form(&[
            ("response_type", "code"),
            ("client_id", self.id),
            ("redirect_uri", self.redirect_uri),
            ("state", state),
            ("code_challenge", &pkce.challenge),
            ("code_challenge_method", "S256"),
        ]);
        Ok(Request::get(format!("{endpoint}?{query}")).body(String::new())?)
    }

    /// RFC 6749 section 4.1.3, with a proof (RFC 9449 section 5).
    pub(crate) fn token_request(
        &self,
        endpoint: &str,
        code: &str,
        pkce: &Pkce,
        proof: &str,
    ) -> Result<Request<String>> {
        let body = form(&[
            ("grant_type", "authorization_code"),
            ("client_id", self.id),
            ("redirect_uri", self.redirect_uri),
            ("code", code),
            ("code_verifier", &pkce.verifier),
        ]);
        Ok(Request::post(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("dpop", proof)
            .body(body)?)
    }
}

/// The client's key pair. Its private half never leaves the client.
pub(crate) struct ProofKey(SigningKey);

impl ProofKey {
    pub(crate) fn generate() -> Result<Self> {
        Ok(Self(SigningKey::generate()?))
    }

    /// `jkt`, the name under which tokens are bound to this key.
    pub(crate) fn thumbprint(&self) -> Result<Thumbprint> {
        let jwk: Jwk = self.0.public_jwk()?.to_string().parse()?;
        Ok(jwk.thumbprint())
    }

    /// A proof for one request (RFC 9449 section 4.2), with an identifier of its own.
    ///
    /// `token` is the access token that goes with it; `nonce` the latest that the server gave.
    pub(crate) fn proof(
        &self,
        method: &Method,
        url: &str,
        token: Option<&str>,
        nonce: Option<&str>,
    ) -> Result<String> {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.0.public_jwk()? });
        let mut claims = json!({
            "jti": random_text()?,
            "htm": method.as_str(),
            "htu": url,
            "iat": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        });
        if let Some(token) = token {
            claims["ath"] = base64url(Sha256::digest(token)).into();
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        self.0.sign(&header, &claims)
    }
}

/// What holds the authorization request and the token request together (RFC 7636, method S256).
pub(crate) struct Pkce {
    pub(crate) verifier: String,
    pub(crate) challenge: String,
}

impl Pkce {
    pub(crate) fn generate() -> Result<Self> {
        // RFC 7636 section 4.1 wants 43 characters at least.
        let verifier = random_text()? + &random_text()?;
        let challenge = base64url(Sha256::digest(&verifier));
        Ok(Self {
            verifier,
            challenge,
        })
    }
}

/// A request for a resource, with a token and its proof (RFC 9449 section 7.1).
pub(crate) fn resource_request(url: &str, token: &str, proof: &str) -> Result<Request<String>> {
    Ok(Request::get(url)
        .header("authorization", format!("DPoP {token}"))
        .header("dpop", proof)
        .body(String::new())?)
}

/// `application/x-www-form-urlencoded`, as a query and as a body.
fn form(parameters: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|octet| match octet {
                b'-' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                    char::from(octet).to_string()
                }
                _ => format!("%{octet:02X}"),
            })
            .collect()
    };
    let pairs: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    pairs.join("&")
}
