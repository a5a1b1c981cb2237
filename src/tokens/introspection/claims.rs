//! The claims in an introspection response.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::time::Timestamp;
use crate::tokens::access_token::Strings;
use crate::tokens::claims::{HasAuthentication, HasScopes, OtherClaims, scopes};

/// The members of an introspection response about an access token ([RFC 7662 section
/// 2.2](https://www.rfc-editor.org/rfc/rfc7662#section-2.2)). The server may omit any of them.
///
/// A member that is `null` is absent. A token is rejected if `sub`, `client_id` or `username` is not a string, or
/// if `scope` is neither a space-separated string nor an array of strings; the log names the member. For a server
/// with another format, use [a type of your own](crate::tokens::IntrospectionVerifier::with_claims).
///
/// `Debug` shows none of the members, because they are about a person.
#[derive(Clone, Deserialize)]
pub struct IntrospectedClaims {
    sub: Option<String>,
    client_id: Option<String>,
    username: Option<String>,
    scope: Option<Strings>,
    #[serde(flatten)]
    others: OtherClaims,
}

impl IntrospectedClaims {
    /// `sub`: the subject of the token.
    pub fn subject(&self) -> Option<&str> {
        self.sub.as_deref()
    }

    /// `client_id`: the client that the token was issued to.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// `username`: a human-readable name. Two people may have the same.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The scopes in the `scope` member.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        scopes(self.scope.as_ref())
    }

    /// Whether the `scope` member contains this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// Any member other than those above, if it is present and of this type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.others.get(name)
    }
}

impl fmt::Debug for IntrospectedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntrospectedClaims(..)")
    }
}

impl HasScopes for IntrospectedClaims {
    fn has_scope(&self, scope: &str) -> bool {
        IntrospectedClaims::has_scope(self, scope)
    }
}

impl HasAuthentication for IntrospectedClaims {
    fn has_acr(&self, acr: &str) -> bool {
        self.claim::<String>("acr").is_some_and(|held| held == acr)
    }

    fn auth_time(&self) -> Option<Timestamp> {
        self.claim("auth_time").map(Timestamp::from_numeric_date)
    }
}
