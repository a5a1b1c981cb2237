//! How this process authenticates to the authorization server ([RFC 6749 section
//! 2.3](https://www.rfc-editor.org/rfc/rfc6749#section-2.3), [RFC 7662 section
//! 2.1](https://www.rfc-editor.org/rfc/rfc7662#section-2.1)).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use http::HeaderValue;
use serde::Serialize;
use zeroize::Zeroizing;

#[cfg(feature = "introspection")]
use crate::credentials::PresentedToken;
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
/// The secret and the key are wiped from memory when the last clone is dropped. The copies in
/// requests to the server cannot be wiped.
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
    /// `client_secret_basic`: identifier and secret, both form-urlencoded, in the `Authorization`
    /// header field ([RFC 6749 section
    /// 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
    pub fn basic(id: impl AsRef<str>, secret: impl Into<String>) -> Self {
        let secret = Zeroizing::new(secret.into());
        let id: String = byte_serialize(id.as_ref().as_bytes()).collect();
        // Allocated once: a string that grows leaves copies of its beginning in memory.
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

    /// `client_secret_post`: identifier and secret in the form, which not every server accepts.
    pub fn post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self(Method::Post {
            id: id.into(),
            secret: Zeroizing::new(secret.into()),
        })
    }

    /// `private_key_jwt`: an assertion that this service signs for each introspection request,
    /// valid for one minute ([RFC 7523 section
    /// 3](https://www.rfc-editor.org/rfc/rfc7523#section-3)).
    ///
    /// The audience is the authorization server's issuer identifier, as in its metadata; some
    /// servers expect the URL of their token endpoint.
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

    /// The `Authorization` header field and the form of an introspection request (RFC 7662 section 2.1).
    #[cfg(feature = "introspection")]
    pub(crate) fn request(
        &self,
        token: &PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<(Option<HeaderValue>, String), NoAssertion> {
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token.as_str())
            .append_pair("token_type_hint", "access_token");
        let authorization = self.authenticate(&mut form, now)?;
        Ok((authorization, form.finish()))
    }

    /// Appends the credentials to the form, or returns the value of the `Authorization` header
    /// field.
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
                // In RFC 7521 section 4.2, `client_id` is optional; some servers require it.
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

/// An assertion signed with this key, for one request (RFC 7523 section 3).
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

/// The operating system provided no randomness, or the engine could not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no client assertion could be signed")]
pub(crate) struct NoAssertion;
