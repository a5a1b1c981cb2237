//! Access tokens, and the trait for their verifiers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use derive_where::derive_where;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::credentials::PresentedToken;
use crate::jose::json::{Text, object};
use crate::jose::thumbprint::Thumbprint;
use crate::time::{OutOfTime, Timestamp};

/// Decides whether an access token is valid, and to which key it is bound.
///
/// [`JwtVerifier`](crate::JwtVerifier) verifies signed tokens; implement this trait for tokens of
/// another kind. The binding itself is checked by the caller,
/// [`Verifier::verify`](crate::Verifier::verify).
///
/// # Example
///
/// A verifier that wraps another one and applies its own rule to every request. (To require scopes,
/// use [`RequireScopesLayer`](crate::RequireScopesLayer) instead.)
///
/// ```
/// use std::collections::HashSet;
/// use std::sync::{Arc, PoisonError, RwLock};
/// use tower_dpop::tokens::{AccessToken, AccessTokenVerifier, PresentedToken, TokenError};
/// use tower_dpop::{Claims, Timestamp};
///
/// struct UnlessRevoked<V> {
///     tokens: V,
///     revoked: Arc<RwLock<HashSet<String>>>, // by `jti`
/// }
///
/// impl<V: AccessTokenVerifier<Claims = Claims>> AccessTokenVerifier for UnlessRevoked<V> {
///     type Claims = Claims;
///
///     async fn verify(
///         &self,
///         token: PresentedToken<'_>,
///         now: Timestamp,
///     ) -> Result<AccessToken<Claims>, TokenError> {
///         let token = self.tokens.verify(token, now).await?;
///         let jti: String = token.claims().claim("jti").ok_or(TokenError::Claims)?;
///         let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
///         if revoked.contains(&jti) {
///             Err(TokenError::Invalid)
///         } else {
///             Ok(token)
///         }
///     }
///
///     fn issuers(&self) -> Vec<&str> {
///         self.tokens.issuers()
///     }
///
///     fn expected(&self, error: &TokenError) -> Option<String> {
///         self.tokens.expected(error)
///     }
/// }
/// ```
///
/// # Security
///
/// The implementation must check everything that makes a token valid: signature or lookup, issuer,
/// audience, expiry, revocation. A confirmation (`cnf`) that is present but not understood must
/// never be reported as [`Confirmation::Unbound`].
pub trait AccessTokenVerifier: Send + Sync + 'static {
    /// The claims that the application receives from a token.
    type Claims: Send + Sync + 'static;

    /// Verifies one token. The token is untrusted input from the client: it is only known to be a
    /// `token68` of at most 32 KiB.
    fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> impl Future<Output = Result<AccessToken<Self::Claims>, TokenError>> + Send;

    /// The issuers of these tokens: issuer identifiers as in `iss`, for the metadata of the service
    /// and for [`Issuers`](crate::Issuers). Empty if they are not known.
    fn issuers(&self) -> Vec<&str>;

    /// What a token must have instead if it is rejected with this error: the audiences for
    /// [`TokenError::Audience`], for example. It comes from the configuration, never from the token, and is
    /// only logged: at start-up for algorithm, audience and `typ`, later with rejections. `None`, the
    /// default, if there is nothing to say. A verifier around another one returns what that one does.
    fn expected(&self, _error: &TokenError) -> Option<String> {
        None
    }
}

/// For a verifier that is shared: with another [`Verifier`](crate::Verifier), or with code that
/// clears its cache.
impl<V: AccessTokenVerifier> AccessTokenVerifier for Arc<V> {
    type Claims = V::Claims;

    fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> impl Future<Output = Result<AccessToken<Self::Claims>, TokenError>> + Send {
        V::verify(self, token, now)
    }

    fn issuers(&self) -> Vec<&str> {
        V::issuers(self)
    }

    fn expected(&self, error: &TokenError) -> Option<String> {
        V::expected(self, error)
    }
}

/// A token verifier of any type, for tokens with one type of claims.
#[derive_where(Clone)]
pub(crate) struct AnyTokenVerifier<C>(Arc<dyn ErasedTokenVerifier<C>>);

impl<C: Send + Sync + 'static> AnyTokenVerifier<C> {
    pub(crate) fn new(tokens: impl AccessTokenVerifier<Claims = C>) -> Self {
        Self(Arc::new(tokens))
    }
}

impl<C> AnyTokenVerifier<C> {
    pub(crate) async fn verify(
        &self,
        token: PresentedToken<'_>,
        now: Timestamp,
    ) -> Result<AccessToken<C>, TokenError> {
        self.0.verify(token, now).await
    }

    pub(crate) fn issuers(&self) -> Vec<&str> {
        self.0.issuers()
    }

    pub(crate) fn expected(&self, error: &TokenError) -> Option<String> {
        self.0.expected(error)
    }
}

impl<C: 'static> AnyTokenVerifier<C> {
    pub(crate) fn expectations(&self) -> Arc<dyn TokenExpectations> {
        Arc::<dyn ErasedTokenVerifier<C>>::clone(&self.0)
    }
}

/// What a verifier requires of tokens, whatever the type of their claims.
pub(crate) trait TokenExpectations: Send + Sync {
    fn issuers(&self) -> Vec<&str>;

    fn expected(&self, error: &TokenError) -> Option<String>;
}

impl<V: AccessTokenVerifier> TokenExpectations for V {
    fn issuers(&self) -> Vec<&str> {
        AccessTokenVerifier::issuers(self)
    }

    fn expected(&self, error: &TokenError) -> Option<String> {
        AccessTokenVerifier::expected(self, error)
    }
}

trait ErasedTokenVerifier<C>: TokenExpectations {
    fn verify<'v>(
        &'v self,
        token: PresentedToken<'v>,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken<C>, TokenError>> + Send + 'v>>;
}

impl<V: AccessTokenVerifier> ErasedTokenVerifier<V::Claims> for V {
    fn verify<'v>(
        &'v self,
        token: PresentedToken<'v>,
        now: Timestamp,
    ) -> Pin<Box<dyn Future<Output = Result<AccessToken<V::Claims>, TokenError>> + Send + 'v>> {
        Box::pin(AccessTokenVerifier::verify(self, token, now))
    }
}

/// A valid access token: what it is bound to, and its claims. Cloning is cheap.
#[derive_where(Clone)]
pub struct AccessToken<C> {
    pub(crate) confirmation: Confirmation,
    pub(crate) claims: Arc<C>,
    pub(crate) expires: Option<Timestamp>,
}

impl<C> AccessToken<C> {
    /// A token that has been verified and is valid.
    pub fn new(confirmation: Confirmation, claims: C) -> Self {
        Self {
            confirmation,
            claims: Arc::new(claims),
            expires: None,
        }
    }

    /// What the token is bound to.
    pub const fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    /// The token's claims. It has not been verified yet that the holder of the token's key
    /// presented it.
    pub fn claims(&self) -> &C {
        &self.claims
    }

    /// When the token expires, if its verifier reported it.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Sets when the token expires, for caches and for code that keeps a connection open beyond one
    /// request.
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
/// It can be deserialized from a `cnf` object, or from `null`, which is as if there were no `cnf`. In a claims type with a `cnf`, write
/// `#[serde(default)] cnf: Confirmation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Confirmation {
    /// `cnf` names a key by its thumbprint (`jkt`). Other members of `cnf` are not checked here.
    Thumbprint(Thumbprint),
    /// There is no `cnf`, or it is `null`.
    #[default]
    Unbound,
    /// There is a `cnf` without `jkt` (or with one that is `null`): another confirmation method, which this crate cannot check.
    Unconfirmable,
}

object! {
    struct Cnf<'de> {
        jkt: Text<'de> = "jkt",
    }
}

impl<'de> Deserialize<'de> for Confirmation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Cnf<'_>>::deserialize(deserializer)? {
            None => Ok(Self::Unbound),
            Some(Cnf { jkt: None, .. }) => Ok(Self::Unconfirmable),
            Some(Cnf { jkt: Some(jkt), .. }) => jkt
                .as_str()
                .parse()
                .map(Self::Thumbprint)
                .map_err(D::Error::custom),
        }
    }
}

/// One string, or an array of them: `aud` (RFC 7519 section 4.1.3), and the scopes of some issuers.
#[derive(Clone)]
pub(crate) enum Strings {
    One(String),
    Several(Vec<String>),
}

impl Strings {
    pub(crate) fn has_one_of(&self, expected: &[String]) -> bool {
        match self {
            Self::One(text) => expected.contains(text),
            Self::Several(texts) => texts.iter().any(|text| expected.contains(text)),
        }
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StringsVisitor;

        impl<'de> Visitor<'de> for StringsVisitor {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Strings, E> {
                Ok(Strings::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Strings, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(elements)).map(Strings::Several)
            }
        }

        deserializer.deserialize_any(StringsVisitor)
    }
}

/// Why an access token was rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// `alg` is missing, unknown, or not on the list of accepted algorithms.
    #[error("the algorithm of the access token is not accepted")]
    Algorithm,
    /// `aud` does not name this resource server (RFC 9068 section 4).
    #[error("the access token is for another audience")]
    Audience,
    /// The claims are not those that the application expects. The log of the verifiers of this crate names the claim.
    #[error("the claims of the access token do not have the expected form")]
    Claims,
    /// `exp` has passed, or is missing (RFC 9068 section 4).
    #[error("the access token has expired")]
    Expired,
    /// The token is valid, but does not allow this request (RFC 6750 section 3.1,
    /// `insufficient_scope`).
    #[error("the access token does not allow this request")]
    InsufficientScope,
    /// The token is not, or no longer, valid: a lookup found that it is unknown or revoked.
    #[error("the access token is not valid")]
    Invalid,
    /// `iss` is not the expected issuer (RFC 9068 section 4).
    #[error("the access token is from another issuer")]
    Issuer,
    /// The issuer has no key that could have signed the token.
    #[error("the key of the access token is unknown")]
    Key,
    /// The token does not have the expected form.
    #[error("the access token is malformed")]
    Malformed,
    /// `nbf` is in the future.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// The signature does not verify with the issuer's keys.
    #[error("the signature of the access token does not verify")]
    Signature,
    /// `token_type` of an introspected token contradicts the token's binding (RFC 9449 section
    /// 6.2).
    #[error("the type of the access token contradicts its binding")]
    TokenType,
    /// `typ` is not that of an access token (RFC 9068 section 4).
    #[error("the access token has the wrong typ")]
    Type,
    /// The server could not decide (503): the issuer's keys or its introspection endpoint are
    /// unreachable. This is not the client's fault.
    #[error("the access token could not be verified")]
    Unavailable,
}

impl From<OutOfTime> for TokenError {
    fn from(error: OutOfTime) -> Self {
        match error {
            OutOfTime::Expired => Self::Expired,
            OutOfTime::NotYetValid => Self::NotYetValid,
        }
    }
}

impl TokenError {
    /// The name of the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Algorithm => "token_algorithm",
            Self::Audience => "token_audience",
            Self::Claims => "token_claims",
            Self::Expired => "token_expired",
            Self::InsufficientScope => "token_insufficient_scope",
            Self::Invalid => "token_invalid",
            Self::Issuer => "token_issuer",
            Self::Key => "token_key",
            Self::Malformed => "token_malformed",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Signature => "token_signature",
            Self::TokenType => "token_type_mismatch",
            Self::Type => "token_typ",
            Self::Unavailable => "token_unavailable",
        }
    }
}
