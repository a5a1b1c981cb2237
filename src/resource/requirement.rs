//! What a route requires of a valid access token: scopes, and how the user was authenticated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer};

use crate::deserialize::words;
use crate::resource::quoted_text::{InvalidQuotedText, QuotedText};
use crate::time::Timestamp;
use crate::tokens::claims::{HasAuthentication, HasScopes};

/// A decision about the claims of an access token that the layer accepted.
///
/// [`ScopeRequirement`] and [`AuthenticationRequirement`] implement it. Implement it for your own rules.
///
/// # Example
///
/// ```
/// use tower_dpop::resource::{AuthorizationError, Requirement};
/// use tower_dpop::{Claims, Timestamp};
///
/// struct OfTenant(u64);
///
/// impl Requirement<Claims> for OfTenant {
///     fn check(&self, claims: &Claims, _now: Timestamp) -> Result<(), AuthorizationError> {
///         if claims.claim("tenant") == Some(self.0) {
///             Ok(())
///         } else {
///             Err(AuthorizationError::NotMet)
///         }
///     }
/// }
/// ```
pub trait Requirement<C>: Send + Sync + 'static {
    /// Checks whether a token with these claims is sufficient.
    fn check(&self, claims: &C, now: Timestamp) -> Result<(), AuthorizationError>;
}

/// A closure that returns whether the claims are sufficient.
impl<C, F: Fn(&C) -> bool + Send + Sync + 'static> Requirement<C> for F {
    fn check(&self, claims: &C, _now: Timestamp) -> Result<(), AuthorizationError> {
        if self(claims) {
            Ok(())
        } else {
            Err(AuthorizationError::NotMet)
        }
    }
}

/// Scopes, separated by spaces: `scope = scope-token *( SP scope-token )` ([RFC 6749 section
/// 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).
///
/// # Example
///
/// ```
/// use tower_dpop::resource::Scopes;
///
/// let scopes: Scopes = "orders.read orders.write".parse()?;
/// assert_eq!(scopes.to_string(), "orders.read orders.write");
/// assert!("orders\"read".parse::<Scopes>().is_err());
/// # Ok::<(), tower_dpop::resource::InvalidQuotedText>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(QuotedText);

impl Scopes {
    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.as_str().split(' ')
    }

    /// All of the scopes.
    pub(crate) fn list(&self) -> Vec<&str> {
        self.iter().collect()
    }
}

impl FromStr for Scopes {
    type Err = InvalidQuotedText;

    fn from_str(text: &str) -> Result<Self, InvalidQuotedText> {
        let scopes: QuotedText = text.parse()?;
        if text.split(' ').any(str::is_empty) {
            Err(InvalidQuotedText)
        } else {
            Ok(Self(scopes))
        }
    }
}

impl<'de> Deserialize<'de> for Scopes {
    /// Reads a string of scopes separated by single spaces, or a list of scopes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words(deserializer, "scopes, as a string or a list")
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Authentication classes (`acr_values`), separated by spaces, in order of preference ([RFC 9470
/// section 3](https://www.rfc-editor.org/rfc/rfc9470#section-3)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcrValues(Scopes);

impl FromStr for AcrValues {
    type Err = InvalidQuotedText;

    fn from_str(text: &str) -> Result<Self, InvalidQuotedText> {
        text.parse().map(Self)
    }
}

impl fmt::Display for AcrValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Scopes that a token must have: all of them, or at least one.
#[derive(Clone, Debug)]
pub struct ScopeRequirement {
    scopes: Scopes,
    how_many: HowMany,
}

#[derive(Clone, Copy, Debug)]
enum HowMany {
    All,
    Any,
}

impl ScopeRequirement {
    /// Requires every one of these scopes.
    pub const fn all_of(scopes: Scopes) -> Self {
        Self {
            scopes,
            how_many: HowMany::All,
        }
    }

    /// Requires at least one of these scopes.
    pub const fn any_of(scopes: Scopes) -> Self {
        Self {
            scopes,
            how_many: HowMany::Any,
        }
    }
}

impl<C: HasScopes> Requirement<C> for ScopeRequirement {
    fn check(&self, claims: &C, _now: Timestamp) -> Result<(), AuthorizationError> {
        let mut scopes = self.scopes.iter();
        let enough = match self.how_many {
            HowMany::All => scopes.all(|scope| claims.has_scope(scope)),
            HowMany::Any => scopes.any(|scope| claims.has_scope(scope)),
        };
        if enough {
            Ok(())
        } else {
            Err(AuthorizationError::Scope {
                required: self.scopes.clone(),
            })
        }
    }
}

/// How, or how recently, the user must have been authenticated: step-up authentication ([RFC
/// 9470](https://www.rfc-editor.org/rfc/rfc9470)).
#[derive(Clone, Debug)]
pub struct AuthenticationRequirement {
    acr_values: Option<AcrValues>,
    max_age: Option<Duration>,
}

impl AuthenticationRequirement {
    /// Requires an authentication of one of these classes (`acr`).
    pub const fn by_acr(acr_values: AcrValues) -> Self {
        Self {
            acr_values: Some(acr_values),
            max_age: None,
        }
    }

    /// Requires an authentication at most this long ago (whole seconds).
    pub const fn within(max_age: Duration) -> Self {
        Self {
            acr_values: None,
            max_age: Some(max_age),
        }
    }

    /// Also requires that the authentication was at most this long ago (whole seconds).
    #[must_use]
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }
}

impl<C: HasAuthentication> Requirement<C> for AuthenticationRequirement {
    fn check(&self, claims: &C, now: Timestamp) -> Result<(), AuthorizationError> {
        let of_a_class = self
            .acr_values
            .as_ref()
            .is_none_or(|values| values.0.iter().any(|acr| claims.has_acr(acr)));
        let recent = self.max_age.is_none_or(|max_age| {
            // A time in the future, in milliseconds for example, would count as recent for a long time.
            claims
                .auth_time()
                .is_some_and(|time| time <= now.plus(LEEWAY) && now <= time.plus(max_age.as_secs()))
        });
        if of_a_class && recent {
            Ok(())
        } else {
            Err(AuthorizationError::Authentication {
                acr_values: self.acr_values.clone(),
                max_age: self.max_age.map(|age| age.as_secs()),
            })
        }
    }
}

/// How far ahead the issuer's clock may be, in seconds.
const LEEWAY: u64 = 30;

/// Why a valid token is not sufficient. The fields are sent in the challenge; they come from the
/// requirement, never from the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorizationError {
    /// The user was not authenticated by the required means, or too long ago (RFC 9470 section 3:
    /// 401, `insufficient_user_authentication`).
    #[error("a different authentication of the user is required")]
    Authentication {
        /// The `acr_values` of the challenge.
        acr_values: Option<AcrValues>,
        /// The `max_age` of the challenge, in seconds.
        max_age: Option<u64>,
    },
    /// A requirement other than scopes and authentication is not met (403, `insufficient_scope`).
    #[error("the access token does not allow this request")]
    NotMet,
    /// A scope is missing (RFC 6750 section 3.1: 403, `insufficient_scope`).
    #[error("the access token lacks a scope")]
    Scope {
        /// The `scope` of the challenge.
        required: Scopes,
    },
}

impl AuthorizationError {
    /// What the route requires, for the log.
    pub(crate) fn expected(&self) -> Option<String> {
        match self {
            Self::Authentication {
                acr_values,
                max_age,
            } => {
                let acr = acr_values.as_ref().map(|values| format!("acr {values}"));
                let age = max_age.map(|age| format!("auth_time at most {age} s ago"));
                let parts: Vec<_> = acr.into_iter().chain(age).collect();
                Some(parts.join(", "))
            }
            Self::NotMet => None,
            Self::Scope { required } => Some(required.to_string()),
        }
    }

    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Authentication { .. } => "authorization_authentication",
            Self::NotMet => "authorization_denied",
            Self::Scope { .. } => "authorization_scope",
        }
    }
}
