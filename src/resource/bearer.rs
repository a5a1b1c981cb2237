//! Tokens that are not bound to a key, while clients migrate from Bearer to DPoP.
//!
//! [RFC 9449 section 7.2](https://www.rfc-editor.org/rfc/rfc9449#section-7.2) lets a resource server
//! accept both, if it rejects bound tokens under the Bearer scheme: otherwise, a stolen one could be
//! presented without a proof. Tokens accepted here have a different type than [`BoundToken`], so a
//! handler that requires a bound token never gets one of them.

use std::fmt;

use derive_where::derive_where;
use http::Extensions;

use crate::credentials::{MAX_TOKEN_LENGTH, PresentedToken};
use crate::resource::bound_token::BoundToken;
use crate::resource::requirement::AuthorizationError;
use crate::time::Timestamp;
use crate::tokens::access_token::{AccessToken, Confirmation, TokenError};
use crate::tokens::claims::Claims;

/// Which tokens are accepted under the Bearer scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BearerPolicy {
    /// None: the scheme is not supported.
    Rejected,
    /// Unbound tokens.
    Unbound,
    /// Unbound tokens, and tokens whose binding is confirmed outside this crate.
    UncheckedCnf,
}

/// An access token that anyone who holds it can present.
///
/// The layer inserts it into the extensions of requests under the Bearer scheme, if that is allowed.
/// It cannot be constructed outside this crate. Cloning is cheap.
///
/// # Example
///
/// A route that treats unbound tokens in another way, while clients move to DPoP:
///
/// ```
/// use axum::Extension;
/// use tower_dpop::BearerToken;
///
/// async fn orders(bearer: Option<Extension<BearerToken>>) -> &'static str {
///     match bearer {
///         Some(_) => "orders of the last day",
///         None => "all orders", // the token is bound
///     }
/// }
/// # let _ = orders;
/// ```
#[derive_where(Clone)]
pub struct BearerToken<C = Claims>(AccessToken<C>);

impl<C> BearerToken<C> {
    /// RFC 9449 section 7.2: "a protected resource that supports [both schemes] MUST reject a
    /// DPoP-bound access token received as a bearer token."
    pub(crate) fn accept(token: AccessToken<C>, policy: BearerPolicy) -> Result<Self, BearerError> {
        match (token.confirmation, policy) {
            (Confirmation::Thumbprint(_), _) => Err(BearerError::Bound),
            (Confirmation::Unbound, BearerPolicy::Unbound | BearerPolicy::UncheckedCnf)
            | (Confirmation::Unconfirmable, BearerPolicy::UncheckedCnf) => Ok(Self(token)),
            (Confirmation::Unbound | Confirmation::Unconfirmable, _) => {
                Err(BearerError::Unconfirmable)
            }
        }
    }

    /// The claims of the token.
    pub fn claims(&self) -> &C {
        self.0.claims()
    }

    /// What the token is bound to: [`Confirmation::Unbound`], unless the verifier accepts tokens that
    /// are confirmed outside this crate.
    pub const fn confirmation(&self) -> Confirmation {
        self.0.confirmation()
    }

    /// When the token expires, if its verifier reported that.
    pub const fn expires(&self) -> Option<Timestamp> {
        self.0.expires()
    }
}

/// The presented token, unless it is too long.
pub(crate) fn presented(token: &str) -> Result<PresentedToken<'_>, BearerError> {
    if token.len() > MAX_TOKEN_LENGTH {
        Err(BearerError::TooLong)
    } else {
        Ok(PresentedToken::new(token))
    }
}

impl<C> fmt::Debug for BearerToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken")
            .field("confirmation", &self.0.confirmation)
            .field("expires", &self.0.expires)
            .finish_non_exhaustive()
    }
}

/// An access token under either scheme, for services that accept both. There is no third scheme, so a
/// `match` can be exhaustive.
///
/// # Example
///
/// ```
/// use tower_dpop::{AcceptedToken, Claims};
///
/// fn greeting(request: &http::request::Parts) -> Option<String> {
///     let token = AcceptedToken::<Claims>::of(&request.extensions)?;
///     Some(match &token {
///         AcceptedToken::Bound(token) => format!("{}, by {}", token.claims().subject().unwrap_or("a machine"), token.thumbprint()),
///         AcceptedToken::Bearer(token) => format!("{}, or a thief", token.claims().subject().unwrap_or("a machine")),
///     })
/// }
/// # let _ = greeting;
/// ```
#[derive_where(Clone)]
pub enum AcceptedToken<C = Claims> {
    /// A token that anyone who holds it can present.
    Bearer(BearerToken<C>),
    /// A token that was presented by the holder of its key.
    Bound(BoundToken<C>),
}

impl<C: Send + Sync + 'static> AcceptedToken<C> {
    /// The token of a request that the layer accepted.
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let bound = extensions.get().cloned().map(Self::Bound);
        bound.or_else(|| extensions.get().cloned().map(Self::Bearer))
    }

    /// Removes the token that another layer inserted: the services behind this layer must not find a
    /// token that this layer did not accept.
    pub(crate) fn remove_from(extensions: &mut Extensions) {
        extensions.remove::<BearerToken<C>>();
        extensions.remove::<BoundToken<C>>();
    }

    /// Inserts the token where handlers find it.
    pub(crate) fn insert_into(self, extensions: &mut Extensions) {
        match self {
            Self::Bearer(token) => {
                extensions.insert(token);
            }
            Self::Bound(token) => {
                extensions.insert(token);
            }
        }
    }
}

impl<C> AcceptedToken<C> {
    /// The claims of the token.
    pub fn claims(&self) -> &C {
        match self {
            Self::Bearer(token) => token.claims(),
            Self::Bound(token) => token.claims(),
        }
    }

    /// When the token expires, if its verifier reported that.
    pub fn expires(&self) -> Option<Timestamp> {
        match self {
            Self::Bearer(token) => token.expires(),
            Self::Bound(token) => token.expires(),
        }
    }
}

impl<C> fmt::Debug for AcceptedToken<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(token) => token.fmt(f),
            Self::Bound(token) => token.fmt(f),
        }
    }
}

/// Why a token under the Bearer scheme was rejected, if that scheme is allowed. The Bearer challenge
/// reports it to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BearerError {
    /// The token is longer than 32 KiB.
    #[error("the access token is too long")]
    TooLong,
    /// The token itself is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is bound to a key (RFC 9449 section 7.2).
    #[error("the access token is bound to a key and needs a DPoP proof")]
    Bound,
    /// The token is bound by a method that cannot be confirmed here.
    #[error("the access token is bound in a way that is not supported")]
    Unconfirmable,
    /// The token is not bound, but the handler requires a bound token: it takes a [`BoundToken`].
    #[error("the access token is not bound to a key")]
    Unbound,
    /// The token is valid, but does not allow this request.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
}

impl BearerError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::TooLong => "bearer_too_long",
            Self::Token(error) => error.reason(),
            Self::Bound => "bearer_bound",
            Self::Unconfirmable => "bearer_unconfirmable",
            Self::Unbound => "bearer_unbound",
            Self::Authorization(error) => error.reason(),
        }
    }
}
