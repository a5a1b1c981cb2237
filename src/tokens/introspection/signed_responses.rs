//! Introspection responses that the authorization server signs ([RFC
//! 9701](https://www.rfc-editor.org/rfc/rfc9701)).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::jose::algorithm::{Algorithm, Algorithms};
use crate::jose::json::{InvalidJson, Text, object, read};
use crate::jose::jws::{CompactJws, InvalidJws, jws_header};
use crate::time::{OutOfTime, Timestamp, Validity};
use crate::tokens::access_token::{Strings, TokenError};
use crate::tokens::key_set::{KeySource, verifying_keys};

/// Who signs introspection responses, and for whom ([RFC 9701 section
/// 5](https://www.rfc-editor.org/rfc/rfc9701#section-5)). A signed response can be kept as evidence of what
/// the authorization server said, and cannot be changed by anything between it and this service.
///
/// A response is used if it is a JWT whose `typ` is `token-introspection+jwt`, its `alg` is on the list, its
/// `iss` is the authorization server, its `aud` names this service, its `iat` is within five minutes of this
/// server's clock, its `exp` and `nbf` (if present) allow it, its signature verifies with a key of the
/// authorization server, and it has a `token_introspection`. This member is then read like an unsigned
/// response. No other member says anything about the token: a `sub` or `exp` next to `token_introspection`
/// is not the token's.
///
/// # Example
///
/// ```no_run
/// use tower_dpop::KeySet;
/// use tower_dpop::tokens::{IntrospectionVerifier, SignedResponses};
///
/// # fn example(tokens: IntrospectionVerifier, keys: KeySet) {
/// // With the feature `jwks`, the keys can be `RemoteKeys`. Keep a clone for a `JwtVerifier` of the same issuer.
/// let tokens = tokens.with_signed_responses(SignedResponses::new("https://as.example.com", "orders-api", keys));
/// # let _ = tokens;
/// # }
/// ```
///
/// The server may need to know that this service wants signed responses: it is registered there with
/// `introspection_signed_response_alg`. Encrypted responses are not supported: do not register
/// `introspection_encrypted_response_alg` ([section
/// 6](https://www.rfc-editor.org/rfc/rfc9701#section-6)).
///
/// # Security
///
/// Not checked: that the response is about the token that was sent, because the JWT does not name the
/// token. Only TLS ensures that. The `Content-Type` of the response is not checked either: it is not signed, and
/// `typ` is.
#[derive(Clone)]
pub struct SignedResponses {
    issuer: String,
    audience: String,
    algorithms: Algorithms,
    keys: Arc<dyn SigningKeys>,
}

/// What the introspection request accepts.
pub(crate) const SIGNED: &str = "application/token-introspection+jwt";

/// How far `iat` may be from this server's clock, in seconds. A response is made for its request. The rest is for clocks,
/// for a slow exchange, and for a server that keeps its responses for a moment.
const MAX_DISTANCE: f64 = 300.0;

/// For `exp` and `nbf`, as for the token's.
const LEEWAY: Duration = Duration::from_secs(30);

impl SignedResponses {
    /// Responses signed by this authorization server for this service, with one of these keys.
    ///
    /// `issuer` is compared with `iss`, and `audience` with `aud`, exactly, character by character. The
    /// audience is the identifier by which the authorization server knows this service. For most servers it is
    /// the client identifier of its [`ClientAuthentication`](crate::tokens::ClientAuthentication), for some the
    /// audience of its access tokens. The algorithms are those of
    /// [`JwtVerifier::new`](crate::JwtVerifier::new).
    pub fn new(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        keys: impl KeySource,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            algorithms: Algorithms::default().add(Algorithm::Rs256),
            keys: Arc::new(keys),
        }
    }

    /// The algorithms with which responses may be signed.
    #[must_use]
    pub fn with_algorithms(self, algorithms: Algorithms) -> Self {
        Self { algorithms, ..self }
    }

    /// The introspection response in a signed response.
    pub(crate) async fn open(
        &self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, InvalidSignedResponse> {
        let jws = compact_jws(body)?;
        let header: Header<'_> = read(jws.header())?;
        let algorithm = self.check_header(&header)?;
        let claims: ResponseClaims<'_> = read(jws.payload())?;
        self.check_claims(&claims, now)?;
        let kid = header.kid.as_ref().map(Text::as_str);
        self.keys.verify(&jws, kid, algorithm, now).await?;
        let response = claims
            .token_introspection
            .ok_or(InvalidSignedResponse::NoResponse)?;
        Ok(response.get().as_bytes().to_vec())
    }

    fn check_header(&self, header: &Header<'_>) -> Result<Algorithm, InvalidSignedResponse> {
        if header.enc.is_some() {
            return Err(InvalidSignedResponse::Encrypted);
        }
        if header.is_extended() {
            return Err(InvalidSignedResponse::Malformed);
        }
        // RFC 7515 section 4.1.9: a media type, whose `application/` may be omitted.
        let is_typ = |typ: &Text<'_>| {
            let typ = typ.as_str();
            typ.eq_ignore_ascii_case(SIGNED) || typ.eq_ignore_ascii_case("token-introspection+jwt")
        };
        if !header.typ.as_ref().is_some_and(is_typ) {
            return Err(InvalidSignedResponse::Type);
        }
        let algorithm = header
            .alg
            .as_ref()
            .and_then(|alg| alg.as_str().parse().ok());
        algorithm
            .filter(|algorithm| self.algorithms.contains(*algorithm))
            .ok_or_else(|| InvalidSignedResponse::Algorithm(self.algorithms.to_string()))
    }

    fn check_claims(
        &self,
        claims: &ResponseClaims<'_>,
        now: Timestamp,
    ) -> Result<(), InvalidSignedResponse> {
        if claims.iss.as_ref().map(Text::as_str) != Some(self.issuer.as_str()) {
            return Err(InvalidSignedResponse::Issuer(self.issuer.clone()));
        }
        let is_for_us = |aud: &Strings| aud.has_one_of(std::slice::from_ref(&self.audience));
        if !claims.aud.as_ref().is_some_and(is_for_us) {
            return Err(InvalidSignedResponse::Audience(self.audience.clone()));
        }
        let iat = claims.iat.ok_or(InvalidSignedResponse::NoIat)?;
        if (now.as_numeric_date() - iat).abs() > MAX_DISTANCE {
            return Err(InvalidSignedResponse::Iat);
        }
        let validity = Validity {
            not_before: claims.nbf,
            expires: claims.exp,
        };
        Ok(validity.check(now, LEEWAY)?)
    }
}

/// The three segments of a signed response.
fn compact_jws(body: &[u8]) -> Result<CompactJws<'_>, InvalidSignedResponse> {
    let is_compact =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(*byte, b'-' | b'_' | b'.');
    let text = str::from_utf8(body.trim_ascii())
        .ok()
        .filter(|text| text.as_bytes().iter().all(is_compact))
        .ok_or(InvalidSignedResponse::Unsigned)?;
    // RFC 7516 section 9: a JWE has five segments.
    if text.matches('.').count() == 4 {
        return Err(InvalidSignedResponse::Encrypted);
    }
    CompactJws::parse(text).map_err(|InvalidJws| InvalidSignedResponse::Unsigned)
}

impl fmt::Debug for SignedResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedResponses")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("algorithms", &self.algorithms.to_string())
            .finish_non_exhaustive()
    }
}

/// A key source of any type.
trait SigningKeys: Send + Sync {
    fn verify<'v>(
        &'v self,
        jws: &'v CompactJws<'v>,
        kid: Option<&'v str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<(), InvalidSignedResponse>> + Send + 'v>>;
}

impl<K: KeySource> SigningKeys for K {
    fn verify<'v>(
        &'v self,
        jws: &'v CompactJws<'v>,
        kid: Option<&'v str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<(), InvalidSignedResponse>> + Send + 'v>> {
        let (message, signature) = (jws.signing_input.as_bytes(), jws.signature());
        Box::pin(async move {
            let verifying = verifying_keys(self, now, move |keys| {
                keys.verify(kid, algorithm, |key| key.verify(message, signature))
            });
            match verifying.await {
                Ok(_) => Ok(()),
                Err(TokenError::Unavailable) => Err(InvalidSignedResponse::NoKeys),
                Err(TokenError::Key) => Err(InvalidSignedResponse::Key),
                Err(_) => Err(InvalidSignedResponse::Signature),
            }
        })
    }
}

/// Why a response is not one that the authorization server signed for this service. For the log only. The texts
/// show what is configured, and nothing of the response.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSignedResponse {
    #[error("the signature algorithm of the response is not accepted: expected one of {0}")]
    Algorithm(String),
    #[error("the signed response is for another service: expected the aud {0:?}")]
    Audience(String),
    #[error(
        "encrypted introspection responses are not supported: register this client without introspection_encrypted_response_alg"
    )]
    Encrypted,
    #[error("the signed response has expired")]
    Expired,
    #[error("the iat of the signed response is more than 5 minutes off this server's clock")]
    Iat,
    #[error("the signed response is from another server: expected the iss {0:?}")]
    Issuer(String),
    #[error("the authorization server has no key that could have signed the response")]
    Key,
    #[error("the signed response is malformed")]
    Malformed,
    #[error("the signed response has no iat")]
    NoIat,
    #[error("the keys of the authorization server are not available")]
    NoKeys,
    #[error("the signed response has no member token_introspection")]
    NoResponse,
    #[error("the signed response is not valid yet")]
    NotYetValid,
    #[error("the signature of the response does not verify")]
    Signature,
    #[error("the signed response has the wrong typ: expected token-introspection+jwt")]
    Type,
    #[error(
        "the response is not signed: expected application/token-introspection+jwt (a server may send it only to a client that is registered with introspection_signed_response_alg)"
    )]
    Unsigned,
}

impl From<InvalidJson> for InvalidSignedResponse {
    fn from(InvalidJson: InvalidJson) -> Self {
        Self::Malformed
    }
}

impl From<OutOfTime> for InvalidSignedResponse {
    fn from(error: OutOfTime) -> Self {
        match error {
            OutOfTime::Expired => Self::Expired,
            OutOfTime::NotYetValid => Self::NotYetValid,
        }
    }
}

jws_header! {
    struct Header<'de> {
        typ: Text<'de> = "typ",
        alg: Text<'de> = "alg",
        kid: Text<'de> = "kid",
    }
}

object! {
    struct ResponseClaims<'de> {
        iss: Text<'de> = "iss",
        aud: Strings = "aud",
        iat: f64 = "iat",
        exp: f64 = "exp",
        nbf: f64 = "nbf",
        token_introspection: &'de RawValue = "token_introspection",
    }
}
