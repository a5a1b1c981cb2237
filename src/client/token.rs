//! The access token that a client presents, and where it comes from.

use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::credentials::is_token68;
use crate::jose::base64url;
use crate::jose::json::read_object;

/// An access token that a client presents.
///
/// It is always a `token68`, the form that an `Authorization` field can carry. `Debug` does not
/// show the token.
///
/// # Example
///
/// ```
/// use tower_dpop::client::AccessTokenText;
///
/// let token: AccessTokenText = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU".parse()?;
/// assert_eq!(format!("{token:?}"), "AccessTokenText(..)");
/// assert!("two words".parse::<AccessTokenText>().is_err());
/// # Ok::<(), tower_dpop::client::InvalidAccessToken>(())
/// ```
#[derive(Clone)]
pub struct AccessTokenText {
    /// `DPoP <token>`, marked as sensitive.
    field: HeaderValue,
    text: String,
    ath: String,
}

impl AccessTokenText {
    /// The `Authorization` field that presents the token ([RFC 9449 section
    /// 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)), marked as sensitive.
    pub const fn authorization(&self) -> &HeaderValue {
        &self.field
    }

    /// The token. It is a secret: do not log it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value of `ath` in a proof: the base64url of the token's SHA-256.
    pub(crate) fn ath(&self) -> &str {
        &self.ath
    }
}

impl FromStr for AccessTokenText {
    type Err = InvalidAccessToken;

    fn from_str(token: &str) -> Result<Self, InvalidAccessToken> {
        if !is_token68(token.as_bytes()) {
            return Err(InvalidAccessToken);
        }
        let mut field =
            HeaderValue::from_str(&format!("DPoP {token}")).map_err(|_| InvalidAccessToken)?;
        field.set_sensitive(true);
        Ok(Self {
            field,
            text: token.to_owned(),
            ath: base64url::encode(Sha256::digest(token)),
        })
    }
}

impl fmt::Debug for AccessTokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessTokenText(..)")
    }
}

/// The text is not a `token68`, so no `Authorization` field can carry it ([RFC 9110 section
/// 11.2](https://www.rfc-editor.org/rfc/rfc9110#section-11.2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an access token that fits into an Authorization field")]
pub struct InvalidAccessToken;

/// A successful response of a token endpoint ([RFC 6749 section
/// 5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1), [RFC 9449 section
/// 5](https://www.rfc-editor.org/rfc/rfc9449#section-5)).
///
/// # Example
///
/// ```
/// use tower_dpop::client::{TokenResponse, InvalidTokenResponse};
///
/// let granted = TokenResponse::from_json(br#"{"access_token":"Kz~8mXK1EalYznwH","token_type":"DPoP","expires_in":300}"#)?;
/// assert_eq!(granted.access_token().as_str(), "Kz~8mXK1EalYznwH");
///
/// // A server without DPoP issues a token that works for anyone.
/// let bearer = TokenResponse::from_json(br#"{"access_token":"Kz~8mXK1EalYznwH","token_type":"Bearer"}"#);
/// assert_eq!(bearer.unwrap_err(), InvalidTokenResponse::NotBound);
/// # Ok::<(), InvalidTokenResponse>(())
/// ```
#[derive(Clone)]
pub struct TokenResponse {
    access_token: AccessTokenText,
    refresh_token: Option<String>,
    expires_in: Option<Duration>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct Members {
    access_token: String,
    token_type: String,
    expires_in: Option<Seconds>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

/// `expires_in`: a number, or a string of digits, as some servers write it.
struct Seconds(f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = match Value::deserialize(deserializer)? {
            Value::Number(seconds) => seconds.as_f64(),
            Value::String(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                digits.parse().ok()
            }
            _ => None,
        };
        seconds
            .map(Self)
            .ok_or_else(|| D::Error::custom("neither a number nor a string of digits"))
    }
}

impl TokenResponse {
    /// Parses the JSON of a successful response. A token whose `token_type` is not `DPoP` is
    /// rejected: it would work for anyone who has it.
    pub fn from_json(body: &[u8]) -> Result<Self, InvalidTokenResponse> {
        let members: Members = read_object(body).ok_or(InvalidTokenResponse::Malformed)?;
        if !members.token_type.eq_ignore_ascii_case("DPoP") {
            return Err(InvalidTokenResponse::NotBound);
        }
        Ok(Self {
            access_token: members
                .access_token
                .parse()
                .map_err(|InvalidAccessToken| InvalidTokenResponse::Malformed)?,
            refresh_token: members.refresh_token,
            expires_in: members
                .expires_in
                .and_then(|Seconds(seconds)| Duration::try_from_secs_f64(seconds).ok()),
            scope: members.scope,
        })
    }

    /// The access token, bound to the key that signed the request's proof.
    pub const fn access_token(&self) -> &AccessTokenText {
        &self.access_token
    }

    /// The refresh token. It is a secret. The refresh token of a public client is bound to the same
    /// key: use only this key to refresh (RFC 9449 section 5).
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// The lifetime of the access token. A server may also have written the seconds as a string.
    pub const fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The granted scope, if it is not the requested one.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("refreshable", &self.refresh_token.is_some())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Why a response of a token endpoint contains no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTokenResponse {
    /// Not the JSON of a successful response, or the token does not fit into a header field.
    #[error("not a token response")]
    Malformed,
    /// `token_type` is not `DPoP` (RFC 9449 section 5: "the client MUST discard the response" if
    /// the protection matters).
    #[error("the access token is not bound to a key")]
    NotBound,
}

/// An error response of a token endpoint ([RFC 6749 section
/// 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
///
/// Its text comes from the server: use it to distinguish errors, but do not show it to users
/// unchanged.
#[derive(Clone, Deserialize, PartialEq, Eq)]
pub struct TokenErrorResponse {
    error: String,
    error_description: Option<String>,
}

impl TokenErrorResponse {
    /// Parses the JSON of an error response. Returns `None` for anything else.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        read_object(body)
    }

    /// The error code, for example `invalid_grant`.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The explanation of the server's developers.
    pub fn description(&self) -> Option<&str> {
        self.error_description.as_deref()
    }
}

impl fmt::Debug for TokenErrorResponse {
    /// Shows the error code only. Other text comes from the server and is not logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenErrorResponse")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// A source of access tokens.
///
/// An [`AccessTokenText`] is a source that never changes. An async closure can change the token, and
/// can refresh it: with the same key, because a refresh token may be bound to it.
///
/// # Example
///
/// A token that another task refreshes:
///
/// ```
/// use tokio::sync::watch;
/// use tower_dpop::client::{AccessTokenText, DpopClientLayer, TokenSourceError};
/// use tower_dpop::jose::SigningKey;
/// use tower_dpop::PublicUrl;
///
/// # fn example(key: SigningKey, api: PublicUrl, tokens: watch::Receiver<Option<AccessTokenText>>) {
/// let layer = DpopClientLayer::new(key, move || {
///     let latest = tokens.borrow().clone();
///     async move { latest.ok_or_else(|| TokenSourceError::new("not logged in")) }
/// }, api);
/// # let _ = layer;
/// # }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// The token to present now. Called once per request, and not again when the request is sent
    /// again with a nonce.
    fn token(&self) -> impl Future<Output = Result<AccessTokenText, TokenSourceError>> + Send;
}

impl TokenSource for AccessTokenText {
    fn token(&self) -> impl Future<Output = Result<AccessTokenText, TokenSourceError>> + Send {
        future::ready(Ok(self.clone()))
    }
}

impl<F, A> TokenSource for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Result<AccessTokenText, TokenSourceError>> + Send,
{
    fn token(&self) -> impl Future<Output = Result<AccessTokenText, TokenSourceError>> + Send {
        self()
    }
}

/// No access token is available.
#[derive(Debug, thiserror::Error)]
#[error("there is no access token")]
pub struct TokenSourceError(#[source] Box<dyn Error + Send + Sync>);

impl TokenSourceError {
    /// An error with this reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn into_reason(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}
