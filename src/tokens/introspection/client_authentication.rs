//! How this service shows the authorization server who is asking ([RFC 7662 section
//! 2.1](https://www.rfc-editor.org/rfc/rfc7662#section-2.1)).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use http::HeaderValue;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::jws;
use crate::jose::signing_key::SigningKey;
use crate::time::Timestamp;

/// The credentials of this service at the authorization server.
///
/// # Example
///
/// ```
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::tokens::ClientAuthentication;
///
/// # fn example(secret: String, pem: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let by_secret = ClientAuthentication::basic("orders-api", secret);
///
/// let key = SigningKey::from_pkcs8_pem(pem)?.with_key_id("2025-11");
/// let by_key = ClientAuthentication::private_key_jwt("orders-api", key, "https://as.example.com");
/// # let _ = (by_secret, by_key);
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// Secret and key are wiped from memory when the last clone is dropped. Out of reach are the copies
/// that a request to the server is made of.
#[derive(Clone)]
pub struct ClientAuthentication(Method);

#[derive(Clone)]
enum Method {
    Basic(Zeroizing<String>),
    Post {
        id: String,
        secret: Zeroizing<String>,
    },
    PrivateKeyJwt {
        id: String,
        key: SigningKey,
        audience: String,
    },
}

impl ClientAuthentication {
    /// `client_secret_basic`: both form-urlencoded, in an `Authorization` field ([RFC 6749 section
    /// 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
    pub fn basic(id: impl AsRef<str>, secret: impl Into<String>) -> Self {
        let secret = Zeroizing::new(secret.into());
        let id: String = byte_serialize(id.as_ref().as_bytes()).collect();
        // Allocated once: a text that grows leaves its beginnings behind.
        let length = id.len() + ":".len() + 3 * secret.len();
        let mut pair = Zeroizing::new(String::with_capacity(length));
        pair.push_str(&id);
        pair.push(':');
        pair.extend(byte_serialize(secret.as_bytes()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        let mut field = Zeroizing::new(String::with_capacity("Basic ".len() + encoded.len()));
        field.push_str("Basic ");
        field.push_str(&encoded);
        Self(Method::Basic(field))
    }

    /// `client_secret_post`: both in the form, which not every server accepts.
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Method::Post {
            id: id.into(),
            secret: Zeroizing::new(secret.into()),
        })
    }

    /// `private_key_jwt`: an assertion that this service signs anew for each question, good for a
    /// minute ([RFC 7523 section 3](https://www.rfc-editor.org/rfc/rfc7523#section-3)).
    ///
    /// The audience is the authorization server's issuer identifier, as its metadata has it; some
    /// servers want the URL of their token endpoint.
    pub fn private_key_jwt(
        client_id: impl Into<String>,
        key: SigningKey,
        audience: impl Into<String>,
    ) -> Self {
        Self(Method::PrivateKeyJwt {
            id: client_id.into(),
            key,
            audience: audience.into(),
        })
    }

    /// Writes what belongs into the form. What belongs into the `Authorization` field is returned.
    pub(crate) fn authenticate(
        &self,
        form: &mut Serializer<'_, String>,
        now: Timestamp,
    ) -> Result<Option<HeaderValue>, NoAssertion> {
        match &self.0 {
            Method::Basic(field) => {
                let field = HeaderValue::from_str(field);
                return Ok(Some(field.expect("base64 is visible ASCII")));
            }
            Method::Post { id, secret } => {
                form.append_pair("client_id", id)
                    .append_pair("client_secret", secret);
            }
            Method::PrivateKeyJwt { id, key, audience } => {
                // RFC 7521 section 4.2 leaves `client_id` to the client; some servers need it.
                form.append_pair("client_id", id)
                    .append_pair(
                        "client_assertion_type",
                        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                    )
                    .append_pair("client_assertion", &assertion(key, id, audience, now)?);
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for ClientAuthentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Method::Basic(_) => "ClientAuthentication(client_secret_basic)",
            Method::Post { .. } => "ClientAuthentication(client_secret_post)",
            Method::PrivateKeyJwt { .. } => "ClientAuthentication(private_key_jwt)",
        })
    }
}

/// An assertion by this key, for one request (RFC 7523 section 3).
fn assertion(
    key: &SigningKey,
    id: &str,
    audience: &str,
    now: Timestamp,
) -> Result<String, NoAssertion> {
    let header = Header {
        alg: key.algorithm(),
        kid: key.key_id(),
    };
    let claims = Claims {
        iss: id,
        sub: id,
        aud: audience,
        jti: jws::fresh_jti().map_err(|_| NoAssertion)?,
        iat: now.as_unix(),
        exp: now.plus(60).as_unix(),
    };
    let header = serde_json::to_vec(&header).map_err(|_| NoAssertion)?;
    let claims = serde_json::to_vec(&claims).map_err(|_| NoAssertion)?;
    let input = jws::signing_input(header, claims);
    let signature = key.sign_now(input.as_bytes()).map_err(|_| NoAssertion)?;
    Ok(jws::with_signature(input, &signature))
}

#[derive(Serialize)]
struct Header<'a> {
    alg: Algorithm,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: String,
    iat: u64,
    exp: u64,
}

/// The operating system gave no randomness, or the engine would not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no client assertion could be signed")]
pub(crate) struct NoAssertion;
