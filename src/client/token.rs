//! The access token that a client presents, and where it comes from.

use std::error::Error;
use std::fmt;
use std::future::{self, Future};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::credentials::is_token68;
use crate::jose::base64url;

/// An access token in the client's hands.
///
/// A value that exists is `token68`, the form in which an `Authorization` field can carry it.
/// `Debug` shows nothing of it.
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

    /// The token. A secret: not for logs.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What a proof says of the token: `ath`, the base64url of its SHA-256.
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

/// The text is not `token68`, so no `Authorization` field can carry it ([RFC 9110 section
/// 11.2](https://www.rfc-editor.org/rfc/rfc9110#section-11.2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an access token that an Authorization field can carry")]
pub struct InvalidAccessToken;

/// A successful answer of a token endpoint ([RFC 6749 section
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
/// // A server that does not know DPoP gives out a token that works for anyone.
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
    expires_in: Option<f64>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

impl TokenResponse {
    /// Reads the JSON of a successful response. A token whose `token_type` is not `DPoP` is refused:
    /// it would work for whoever has it.
    pub fn from_json(body: &[u8]) -> Result<Self, InvalidTokenResponse> {
        let members: Members = read_members(body).ok_or(InvalidTokenResponse::Malformed)?;
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
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            scope: members.scope,
        })
    }

    /// The access token, bound to the key whose proof the request carried.
    pub const fn access_token(&self) -> &AccessTokenText {
        &self.access_token
    }

    /// The refresh token. That of a public client is bound to the same key: refresh with it and no
    /// other (RFC 9449 section 5). A secret.
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// How long the access token lives.
    pub const fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The scope that was granted, where it is not what was asked for.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }
}

/// The members of a JSON object. serde alone would read them out of an array as well.
fn read_members<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    let is_object = json.trim_ascii_start().starts_with(b"{");
    serde_json::from_slice(json).ok().filter(|_| is_object)
}

impl fmt::Debug for TokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("refreshable", &self.refresh_token.is_some())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Why an answer of a token endpoint holds no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTokenResponse {
    /// Not the JSON of a successful response, or a token that no field can carry.
    #[error("not a token response")]
    Malformed,
    /// `token_type` is not `DPoP` (RFC 9449 section 5: "the client MUST discard the response" where
    /// the protection matters).
    #[error("the access token is not bound to a key")]
    NotBound,
}

/// An error that a token endpoint answers with ([RFC 6749 section
/// 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2)).
///
/// What it says is the server's word: fit to be told apart, and not to be shown to users as it is.
#[derive(Clone, Deserialize, PartialEq, Eq)]
pub struct TokenErrorResponse {
    error: String,
    error_description: Option<String>,
}

impl TokenErrorResponse {
    /// Reads the JSON of an error response; `None` where it is something else.
    pub fn from_json(body: &[u8]) -> Option<Self> {
        read_members(body)
    }

    /// The code: `invalid_grant`, say.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// What the server's developers have to say about it.
    pub fn description(&self) -> Option<&str> {
        self.error_description.as_deref()
    }
}

impl fmt::Debug for TokenErrorResponse {
    /// The code alone: what else a server writes is not ours to log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenErrorResponse")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Where access tokens come from.
///
/// An [`AccessTokenText`] is a source that never changes. An async closure is one that may, and it
/// can refresh: with the same key, since a refresh token may be bound to it.
///
/// # Example
///
/// A token that some other task keeps fresh:
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
    /// The token to present now. Asked once for each request, not again when the request is sent
    /// anew with a nonce.
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

/// There is no access token to be had.
#[derive(Debug, thiserror::Error)]
#[error("there is no access token")]
pub struct TokenSourceError(#[source] Box<dyn Error + Send + Sync>);

impl TokenSourceError {
    /// For this reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}
