//! Access tokens: what a verifier of them is, and what it says.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Deserializer};

use crate::credentials::PresentedToken;
use crate::freshness::Timestamp;
use crate::jose::json::{Text, object};
use crate::jose::jwk::Thumbprint;

/// Decides whether an access token is good, and says to which key it is bound.
///
/// [`JwtVerifier`](crate::jwt::JwtVerifier) is the one for signed tokens; implement this for tokens
/// of another kind. The binding itself is checked by the caller,
/// [`Verifier::verify`](crate::verifier::Verifier::verify).
///
/// # Example
///
/// A rule of one's own around another verifier:
///
/// ```
/// use tower_dpop::Claims;
/// use tower_dpop::credentials::PresentedToken;
/// use tower_dpop::freshness::Timestamp;
/// use tower_dpop::token::{AccessToken, AccessTokenVerifier, TokenError};
///
/// struct ForWriters<V>(V);
///
/// impl<V: AccessTokenVerifier<Claims = Claims>> AccessTokenVerifier for ForWriters<V> {
///     type Claims = Claims;
///
///     async fn verify(
///         &self,
///         token: PresentedToken<'_>,
///         now: Timestamp,
///     ) -> Result<AccessToken<Claims>, TokenError> {
///         let token = self.0.verify(token, now).await?;
///         if token.claims().has_scope("orders.write") {
///             Ok(token)
///         } else {
///             Err(TokenError::InsufficientScope)
///         }
///     }
/// }
/// ```
///
/// # Security
///
/// Everything that makes a token good is for the implementation to check: signature or lookup,
/// issuer, audience, expiry, revocation. A confirmation (`cnf`) that is present but not understood
/// must never be reported as [`Confirmation::Unbound`].
pub trait AccessTokenVerifier: Send + Sync + 'static {
    /// What the application learns from a token.
    type Claims: Send + Sync + 'static;

    /// Verifies one token. The token is the client's word: nothing about it is known but that it is
    /// `token68` of at most 32 KiB.
    fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> impl Future<Output = Result<AccessToken<Self::Claims>, TokenError>> + Send;
}

/// A good access token: what it is bound to, and what it says.
#[derive(Clone)]
pub struct AccessToken<C> {
    pub(crate) confirmation: Confirmation,
    pub(crate) claims: C,
    pub(crate) expires: Option<Timestamp>,
}

impl<C> AccessToken<C> {
    /// A token that was verified to be good.
    pub const fn new(confirmation: Confirmation, claims: C) -> Self {
        Self {
            confirmation,
            claims,
            expires: None,
        }
    }

    /// What the token is bound to.
    pub const fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    /// What the token says. Nobody has shown yet that it was presented by the holder of its key.
    pub const fn claims(&self) -> &C {
        &self.claims
    }

    /// When the token expires, where its verifier said so.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Notes when the token expires, for whoever keeps a connection open beyond one request.
    #[must_use]
    pub fn with_expiry(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }
}

impl<C> fmt::Debug for AccessToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("confirmation", &self.confirmation)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The key to which a token is bound: its `cnf` ([RFC
/// 7800](https://www.rfc-editor.org/rfc/rfc7800), [RFC 9449 section
/// 6](https://www.rfc-editor.org/rfc/rfc9449#section-6)).
///
/// It deserialises from a `cnf` object; a claims type that has one writes `#[serde(default)] cnf:
/// Confirmation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// `cnf` names a key by its thumbprint (`jkt`). Other members of `cnf` beside it are not
    /// checked here.
    Thumbprint(Thumbprint),
    /// There is no `cnf`.
    #[default]
    Unbound,
    /// There is a `cnf`, without `jkt`: another method, which this crate cannot confirm.
    Unconfirmable,
}

object! {
    struct Cnf<'de> {
        jkt: Text<'de> = "jkt",
    }
}

impl<'de> Deserialize<'de> for Confirmation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Cnf::deserialize(deserializer)?.jkt {
            Some(jkt) => jkt
                .as_str()
                .parse()
                .map(Self::Thumbprint)
                .map_err(serde::de::Error::custom),
            None => Ok(Self::Unconfirmable),
        }
    }
}

/// Why an access token was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// `alg` is missing, unknown, or not on the list.
    #[error("the algorithm of the access token is not accepted")]
    Algorithm,
    /// `aud` does not name this resource server (RFC 9068 section 4).
    #[error("the access token is for another audience")]
    Audience,
    /// The claims are not what the application expects of a token.
    #[error("the claims of the access token are not those expected")]
    Claims,
    /// `exp` has passed, or is missing (RFC 9068 section 4).
    #[error("the access token has expired")]
    Expired,
    /// The token is good, but does not allow this (RFC 6750 section 3.1, `insufficient_scope`).
    #[error("the access token does not allow this request")]
    InsufficientScope,
    /// The token is not, or no longer, good: unknown or revoked where it was looked up.
    #[error("the access token is not valid")]
    Invalid,
    /// `iss` is not the issuer (RFC 9068 section 4).
    #[error("the access token is from another issuer")]
    Issuer,
    /// The issuer has no key that could have signed the token.
    #[error("the key of the access token is not known")]
    Key,
    /// Not a token of the expected form.
    #[error("the access token is malformed")]
    Malformed,
    /// `nbf` has not come.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// The signature does not verify with the issuer's keys.
    #[error("the signature of the access token does not verify")]
    Signature,
    /// `typ` is not that of an access token (RFC 9068 section 4).
    #[error("the access token has the wrong typ")]
    Type,
    /// Nobody could say: the issuer's keys or its introspection endpoint are out of reach. Our
    /// fault, not the client's.
    #[error("the access token could not be verified")]
    Unavailable,
}
