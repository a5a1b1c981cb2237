//! The claims of signed tokens, and traits for what a route may require of the claims of any token.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::jose::json::Text;
use crate::time::Timestamp;
use crate::tokens::access_token::Strings;

/// The claims of an access token, as RFC 9068 and the products in [`Profile`] write them.
///
/// | method | claims |
/// |---|---|
/// | [`subject`](Self::subject) | `sub` |
/// | [`client_id`](Self::client_id) | `client_id`, or else `azp`, `appid` or `cid` |
/// | [`scopes`](Self::scopes) | `scope`, or else `scp`; each a space-separated string or an array of strings |
/// | [`claim`](Self::claim) | any other, and `azp`, `appid`, `cid` and `scp` again |
///
/// A claim that is `null` is absent. A token is rejected if one of the claims in the table has another type, or
/// if it names neither a subject nor a client; the log names the claim. For tokens of another form, use [a type
/// of your own](crate::JwtVerifier::with_claims).
///
/// `Debug` shows none of the claims, because they are about a person.
///
/// # Example
///
/// ```
/// use tower_dpop::{BoundToken, Claims};
///
/// fn describe(token: &BoundToken) -> String {
///     let claims: &Claims = token.claims();
///     let subject = claims.subject().unwrap_or("a machine");
///     let department: Option<String> = claims.claim("department");
///     let department = department.as_deref().unwrap_or("none");
///     format!("{subject}, may read orders: {}, department: {department}", claims.has_scope("orders.read"))
/// }
/// # let _ = describe;
/// ```
///
/// [`Profile`]: crate::tokens::Profile
#[derive(Clone)]
pub struct Claims {
    subject: Option<String>,
    client_id: Option<String>,
    scopes: Option<Strings>,
    others: OtherClaims,
}

impl Claims {
    /// `sub`: the subject of the token. Every token of RFC 9068 has one; some issuers omit it if there is no
    /// user, so if a client got the token for itself.
    ///
    /// # Security
    ///
    /// Do not replace a missing subject by the client's identifier: if clients can choose it, they can choose a
    /// user's ([RFC 9068 section 5](https://www.rfc-editor.org/rfc/rfc9068#section-5)).
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// The client that the token was issued to.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The scopes that the token was granted.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        scopes(self.scopes.as_ref())
    }

    /// Whether the token was granted this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|held| held == scope)
    }

    /// Any claim other than `sub`, `client_id` and `scope`, if it is present and of this type.
    pub fn claim<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        self.others.get(name)
    }
}

/// By hand, because `#[serde(flatten)]` first collects the members, which takes as long as reading them.
impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimsVisitor;

        impl<'de> Visitor<'de> for ClaimsVisitor {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claims, A::Error> {
                let (mut subject, mut client_id) = (None, None);
                let (mut azp, mut appid, mut cid) = (None::<String>, None, None);
                let (mut scope, mut scp) = (None, None);
                let mut others = OtherClaims::default();
                while let Some(name) = members.next_key::<Text<'de>>()? {
                    match name.as_str() {
                        "sub" => once(&mut subject, "sub", &mut members)?,
                        "client_id" => once(&mut client_id, "client_id", &mut members)?,
                        "azp" => once(&mut azp, "azp", &mut members)?,
                        "appid" => once(&mut appid, "appid", &mut members)?,
                        "cid" => once(&mut cid, "cid", &mut members)?,
                        "scope" => once(&mut scope, "scope", &mut members)?,
                        "scp" => once(&mut scp, "scp", &mut members)?,
                        name => others.add(name, members.next_value()?),
                    }
                }
                for (name, client) in [("azp", &azp), ("appid", &appid), ("cid", &cid)] {
                    if let Some(client) = client {
                        others.add(name, client.as_str().into());
                    }
                }
                if let Some(scopes) = &scp {
                    let scopes = match scopes {
                        Strings::One(scopes) => scopes.as_str().into(),
                        Strings::Several(scopes) => scopes.as_slice().into(),
                    };
                    others.add("scp", scopes);
                }
                let client_id = client_id.or(azp).or(appid).or(cid);
                if subject.is_none() && client_id.is_none() {
                    return Err(A::Error::missing_field("sub"));
                }
                Ok(Claims {
                    subject,
                    client_id,
                    scopes: scope.or(scp),
                    others,
                })
            }
        }

        deserializer.deserialize_map(ClaimsVisitor)
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
/// [`Claims`] reads `scope` and `scp`. For Auth0, which writes the permissions of an API as an array named
/// `permissions`:
///
/// ```
/// use tower_dpop::tokens::{HasScopes, Profile};
/// use tower_dpop::{JwtVerifier, KeySet, RequireScopesLayer};
///
/// #[derive(serde::Deserialize)]
/// struct Auth0Claims {
///     sub: String,
///     #[serde(default)]
///     permissions: Vec<String>,
/// }
///
/// impl HasScopes for Auth0Claims {
///     fn has_scope(&self, scope: &str) -> bool {
///         self.permissions.iter().any(|held| held == scope)
///     }
/// }
///
/// # fn example(keys: KeySet) -> Result<(), Box<dyn std::error::Error>> {
/// // Both need the type.
/// let tokens = JwtVerifier::new("https://example.auth0.com/", "https://api.example.com", keys)
///     .with_profile(Profile::Auth0)
///     .with_claims::<Auth0Claims>();
/// let layer = RequireScopesLayer::all_of("orders:read".parse()?).with_claims::<Auth0Claims>();
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

/// The scopes in a space-separated string ([RFC 6749 section
/// 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)), or in an array with one scope in each string.
pub(crate) fn scopes(claim: Option<&Strings>) -> impl Iterator<Item = &str> {
    let (joined, listed) = match claim {
        None => ("", [].as_slice()),
        Some(Strings::One(scopes)) => (scopes.as_str(), [].as_slice()),
        Some(Strings::Several(scopes)) => ("", scopes.as_slice()),
    };
    joined
        .split(' ')
        .chain(listed.iter().map(String::as_str))
        .filter(|scope| !scope.is_empty())
}

/// Reads a claim that may be `null`, and that occurs once.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    claim: &mut Option<T>,
    name: &'static str,
    members: &mut A,
) -> Result<(), A::Error> {
    if claim.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *claim = members.next_value()?;
    Ok(())
}

/// The claims that have no field of their own.
#[derive(Clone, Default)]
pub(crate) struct OtherClaims(Vec<(Box<str>, Value)>);

impl OtherClaims {
    fn add(&mut self, name: &str, value: Value) {
        self.0.push((name.into(), value));
    }

    /// A claim, if it is present and of this type.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let (_, claim) = self.0.iter().rfind(|(known, _)| **known == *name)?;
        T::deserialize(claim).ok()
    }
}

impl<'de> Deserialize<'de> for OtherClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let claims = Map::deserialize(deserializer)?.into_iter();
        Ok(Self(
            claims.map(|(name, value)| (name.into(), value)).collect(),
        ))
    }
}
