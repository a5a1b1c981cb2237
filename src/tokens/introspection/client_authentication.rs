//! How this service shows the authorization server who is asking ([RFC 7662 section
//! 2.1](https://www.rfc-editor.org/rfc/rfc7662#section-2.1)).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use form_urlencoded::{Serializer, byte_serialize};
use http::HeaderValue;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::base64url;
use crate::jose::jwk::JwkError;
use crate::jose::private_key::{self, ProofKeyError};
use crate::jose::signing::PrivateKey;
use crate::time::Timestamp;

/// The credentials of this service at the authorization server.
///
/// # Example
///
/// ```
/// use tower_dpop::tokens::{ClientAssertionKey, ClientAuthentication};
///
/// # fn example(secret: String, pem: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let by_secret = ClientAuthentication::basic("orders-api", secret);
///
/// let key = ClientAssertionKey::from_pkcs8_pem(pem)?.with_key_id("2025-11");
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
        key: ClientAssertionKey,
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
        key: ClientAssertionKey,
        audience: impl Into<String>,
    ) -> Self {
        Self(Method::PrivateKeyJwt {
            id: client_id.into(),
            key,
            audience: audience.into(),
        })
    }

    /// Writes what belongs into the form. What belongs into the `Authorization` field is returned.
    pub(crate) fn introduce(
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
                    .append_pair("client_assertion", &key.assertion(id, audience, now)?);
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

/// The private key that signs this service's assertions. Its public half is registered at the
/// authorization server.
///
/// Clones share the key.
///
/// # Security
///
/// This is no key of a client's proofs: whoever has it can ask about tokens in this service's name.
/// RSA signs with AWS-LC where the feature `aws-lc-rs` is on; without it, the time that a signature
/// takes depends on the private key, blinding notwithstanding (RUSTSEC-2023-0071): prefer another
/// kind of key in such a build.
#[derive(Clone)]
pub struct ClientAssertionKey {
    algorithm: Algorithm,
    key: Arc<PrivateKey>,
    kid: Option<String>,
}

impl ClientAssertionKey {
    /// Reads an unencrypted PKCS#8 private key in PEM, with the label `PRIVATE KEY` and lines of 64
    /// characters ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)), as
    /// [`from_pkcs8_der`](Self::from_pkcs8_der) does.
    pub fn from_pkcs8_pem(document: &str) -> Result<Self, ClientAssertionKeyError> {
        let key = private_key::from_pkcs8_pem(document).map_err(refused)?;
        Ok(Self::imported(key, None))
    }

    /// Reads an unencrypted PKCS#8 private key ([RFC
    /// 5958](https://www.rfc-editor.org/rfc/rfc5958)): EC with P-256, P-384 or P-521, Ed25519, or
    /// RSA of 2048 to 8192 bits.
    ///
    /// PKCS#8 does not name an algorithm: the key is for the ES algorithm of its curve, Ed25519, or
    /// PS256. See [`with_algorithm`](Self::with_algorithm).
    pub fn from_pkcs8_der(document: &[u8]) -> Result<Self, ClientAssertionKeyError> {
        let key = private_key::from_pkcs8_der(document).map_err(refused)?;
        Ok(Self::imported(key, None))
    }

    /// Reads a private JWK ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).
    ///
    /// Its `alg` is the key's algorithm; without one, the algorithm is that of
    /// [`from_pkcs8_der`](Self::from_pkcs8_der). Its `kid` is not read: see
    /// [`with_key_id`](Self::with_key_id).
    pub fn from_jwk(json: &str) -> Result<Self, ClientAssertionKeyError> {
        let (key, algorithm) = private_key::from_jwk(json).map_err(refused)?;
        Ok(Self::imported(key, algorithm))
    }

    fn imported(key: PrivateKey, named: Option<Algorithm>) -> Self {
        Self {
            algorithm: named.unwrap_or_else(|| key.default_algorithm()),
            key: Arc::new(key),
            kid: None,
        }
    }

    /// Signs by another algorithm for the same type of key: RS256 in place of PS256, EdDSA in place
    /// of Ed25519.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Result<Self, ClientAssertionKeyError> {
        if algorithm.key_type() == self.key.key_type() {
            Ok(Self { algorithm, ..self })
        } else {
            Err(ClientAssertionKeyError::Algorithm)
        }
    }

    /// The `kid` under which the key is registered at the authorization server.
    #[must_use]
    pub fn with_key_id(self, kid: impl Into<String>) -> Self {
        Self {
            kid: Some(kid.into()),
            ..self
        }
    }

    fn assertion(&self, id: &str, audience: &str, now: Timestamp) -> Result<String, NoAssertion> {
        let header = Header {
            alg: self.algorithm,
            kid: self.kid.as_deref(),
        };
        let mut jti = [0; 16];
        getrandom::fill(&mut jti).map_err(|_| NoAssertion)?;
        let claims = Claims {
            iss: id,
            sub: id,
            aud: audience,
            jti: base64url::encode(jti),
            iat: now.as_unix(),
            exp: now.plus(60).as_unix(),
        };
        let mut assertion = format!("{}.{}", encode(&header)?, encode(&claims)?);
        let signature = self
            .key
            .sign(self.algorithm, assertion.as_bytes())
            .map_err(|_| NoAssertion)?;
        assertion.push('.');
        assertion.push_str(&base64url::encode(signature));
        Ok(assertion)
    }
}

fn encode(part: &impl Serialize) -> Result<String, NoAssertion> {
    serde_json::to_vec(part)
        .map(base64url::encode)
        .map_err(|_| NoAssertion)
}

impl fmt::Debug for ClientAssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAssertionKey")
            .field("algorithm", &self.algorithm)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
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

/// Why a text is not a [`ClientAssertionKey`]. The deployer's mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientAssertionKeyError {
    /// The algorithm asked for, or that the JWK names in `alg`, is not one for keys of this type.
    #[error("the key does not go with the algorithm")]
    Algorithm,
    /// Not a JSON object without duplicate members.
    #[error("the key is not a JSON object without duplicate members")]
    Json,
    /// Neither ECDSA with P-256, P-384 or P-521, nor Ed25519, nor RSA (`rsaEncryption`).
    #[error("the key type is not supported")]
    KeyType,
    /// The private numbers of the key are missing, malformed or out of range, or do not belong to
    /// the public ones.
    #[error("the numbers of the key make no private key")]
    Numbers,
    /// Not one PEM document with the label `PRIVATE KEY`. Keys of other labels, encrypted ones
    /// among them, are turned into it by `openssl pkcs8 -topk8 -nocrypt`.
    #[error("not a PEM document with the label PRIVATE KEY")]
    Pem,
    /// Not the DER of an unencrypted PKCS#8 private key.
    #[error("not a PKCS#8 private key")]
    Pkcs8,
    /// The public half is refused: an RSA modulus outside 2048 to 8192 bits, a coordinate that is
    /// malformed or missing, an unknown key type.
    #[error("the public half of the key is refused")]
    Public(#[source] JwkError),
    /// Longer than any key that is supported.
    #[error("the document is too long")]
    TooLong,
    /// `use` or `key_ops` say that the key is not for signing.
    #[error("the key is not meant for signing")]
    Use,
}

fn refused(error: ProofKeyError) -> ClientAssertionKeyError {
    match error {
        ProofKeyError::Algorithm | ProofKeyError::NoCommonAlgorithm => {
            ClientAssertionKeyError::Algorithm
        }
        ProofKeyError::Json => ClientAssertionKeyError::Json,
        ProofKeyError::KeyType => ClientAssertionKeyError::KeyType,
        ProofKeyError::Pem => ClientAssertionKeyError::Pem,
        ProofKeyError::Pkcs8 => ClientAssertionKeyError::Pkcs8,
        ProofKeyError::Public(why) => ClientAssertionKeyError::Public(why),
        ProofKeyError::TooLong => ClientAssertionKeyError::TooLong,
        ProofKeyError::Use => ClientAssertionKeyError::Use,
        ProofKeyError::Export
        | ProofKeyError::Generation
        | ProofKeyError::Length
        | ProofKeyError::Member
        | ProofKeyError::Mismatch
        | ProofKeyError::Missing
        | ProofKeyError::Primes
        | ProofKeyError::Scalar => ClientAssertionKeyError::Numbers,
    }
}
