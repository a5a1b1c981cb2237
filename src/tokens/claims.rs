//! The claims of signed tokens, and traits for what a route may require of the claims of any token.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::time::Timestamp;

/// The claims of an RFC 9068 access token.
///
/// A token is rejected if it has no `sub`, or if its `scope` is not a single string. For an issuer
/// with tokens of another form, use [a type of your own](crate::JwtVerifier::with_claims).
///
/// `Debug` shows none of the claims, because they are about a person.
#[derive(Clone, Deserialize)]
pub struct Claims {
    sub: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Claims {
    /// `sub`: the subject of the token.
    pub fn subject(&self) -> &str {
        &self.sub
    }

    /// `client_id`: the client that the token was issued to.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The scopes in the `scope` claim.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        scopes(self.scope.as_deref())
    }

    /// Whether the `scope` claim contains this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// Any claim other than those above, if it is present and of this type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        claim(&self.others, name)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

/// Claims that contain scopes.
///
/// # Example
///
/// For an issuer that writes the scopes as an array named `scp`:
///
/// ```
/// use tower_dpop::tokens::HasScopes;
/// use tower_dpop::{JwtVerifier, KeySet, RequireScopesLayer};
///
/// #[derive(serde::Deserialize)]
/// struct OktaClaims {
///     sub: String,
///     #[serde(default)]
///     scp: Vec<String>,
/// }
///
/// impl HasScopes for OktaClaims {
///     fn has_scope(&self, scope: &str) -> bool {
///         self.scp.iter().any(|held| held == scope)
///     }
/// }
///
/// # fn example(keys: KeySet) -> Result<(), Box<dyn std::error::Error>> {
/// // Both need the type.
/// let tokens = JwtVerifier::new("https://example.okta.com/oauth2/default", "api://default", keys)
///     .with_lenient_typ()
///     .with_claims::<OktaClaims>();
/// let layer = RequireScopesLayer::all_of("orders.read".parse()?).with_claims::<OktaClaims>();
/// # let _ = (tokens, layer);
/// # Ok(())
/// # }
/// ```
pub trait HasScopes {
    /// Whether the token was granted this scope.
    fn has_scope(&self, scope: &str) -> bool;
}

/// Claims that state how and when the user was authenticated ([RFC 9470 section
/// 6](https://www.rfc-editor.org/rfc/rfc9470#section-6)).
pub trait HasAuthentication {
    /// Whether the authentication was of this class (`acr`).
    fn has_acr(&self, acr: &str) -> bool;

    /// When the user was authenticated (`auth_time`), if the token states it.
    fn auth_time(&self) -> Option<Timestamp>;
}

impl HasScopes for Claims {
    fn has_scope(&self, scope: &str) -> bool {
        Claims::has_scope(self, scope)
    }
}

impl HasAuthentication for Claims {
    fn has_acr(&self, acr: &str) -> bool {
        self.claim::<String>("acr").is_some_and(|held| held == acr)
    }

    fn auth_time(&self) -> Option<Timestamp> {
        self.claim("auth_time").map(Timestamp::from_numeric_date)
    }
}

/// The scopes in a `scope` claim ([RFC 6749 section
/// 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).
pub(crate) fn scopes(claim: Option<&str>) -> impl Iterator<Item = &str> {
    claim
        .into_iter()
        .flat_map(|scope| scope.split(' '))
        .filter(|scope| !scope.is_empty())
}

/// A claim that has no field of its own, if it is present and of this type.
pub(crate) fn claim<T: DeserializeOwned>(others: &Map<String, Value>, name: &str) -> Option<T> {
    others
        .get(name)
        .and_then(|claim| T::deserialize(claim).ok())
}
