//! Access tokens of products that differ from RFC 9068.

use serde::Deserialize;

use crate::jose::json::{Text, object, read};

/// How a product writes its access tokens, for [`JwtVerifier::with_profile`](crate::JwtVerifier::with_profile).
///
/// | product | profile | issues tokens with `cnf.jkt` |
/// |---|---|---|
/// | Auth0 | [`Auth0`](Self::Auth0), or none if the API uses Auth0's profile *RFC 9068* | yes |
/// | Duende IdentityServer | none | [yes](https://docs.duendesoftware.com/identityserver/tokens/pop/dpop/), in the Enterprise Edition |
/// | Keycloak | [`Keycloak`](Self::Keycloak) | yes, since 26.4 |
/// | Microsoft Entra ID | [`EntraId`](Self::EntraId) | not by its documentation |
/// | oidc-provider | none | yes (feature `dPoP`) |
/// | Okta, custom authorization server | [`Okta`](Self::Okta) | yes |
///
/// *None*: the product writes `typ` as RFC 9068 does, and [`JwtVerifier`](crate::JwtVerifier) and
/// [`Claims`](crate::Claims) read its tokens as they are.
///
/// Each profile sets three things, and no other:
///
/// - `typ` in the header. `at+jwt` is always accepted.
/// - The claim that marks an access token, which a token without `at+jwt` must have. The products' documented ID
///   tokens do not have it, so it does the work of `typ`.
/// - The slash at the end of the issuer, added or removed to be as the product writes it in `iss`.
///
/// Algorithms are not set: [`JwtVerifier`](crate::JwtVerifier) accepts RS256, with which these products sign by
/// default or in their examples.
///
/// In documents the names are `auth0`, `entra_id`, `keycloak` and `okta`.
///
/// # Example
///
/// ```
/// use tower_dpop::tokens::Profile;
/// use tower_dpop::{JwtVerifier, KeySet};
///
/// fn keycloak(keys: KeySet) -> JwtVerifier<KeySet> {
///     JwtVerifier::new("https://id.example.com/realms/shop", "orders-api", keys).with_profile(Profile::Keycloak)
/// }
/// # let _ = keycloak;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Auth0's own [token profile](https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles), which is its default.
    ///
    /// - `typ`: `JWT`.
    /// - Mark: `azp`, the client.
    /// - Issuer: `https://{tenant domain}/`, with a slash at the end.
    ///
    /// The audience is the API's identifier. Tokens are bound if [client and API are
    /// configured](https://auth0.com/docs/secure/sender-constraining/configure-sender-constraining) for it.
    Auth0,
    /// Microsoft Entra ID, [tokens](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference) of
    /// versions 1.0 and 2.0.
    ///
    /// - `typ`: `JWT`.
    /// - Mark: `azp` (2.0) or `appid` (1.0), the client.
    /// - Issuer: `https://login.microsoftonline.com/{tenant id}/v2.0` (2.0) or `https://sts.windows.net/{tenant
    ///   id}/` (1.0). The slash is set for these two hosts only.
    ///
    /// The API's registration chooses the version ([`accessTokenAcceptedVersion`](https://learn.microsoft.com/entra/identity-platform/access-tokens)),
    /// never the client. The audience is the API's client id; in 1.0 it may also be its App ID URI
    /// ([`JwtVerifier::add_audience`](crate::JwtVerifier::add_audience)).
    ///
    /// The documented claims contain no `cnf`, so these tokens pass only where bearer tokens do
    /// ([`Verifier::allow_bearer`](crate::Verifier::allow_bearer)). Entra ID's own proof of possession, *signed HTTP
    /// requests*, is another protocol than DPoP.
    EntraId,
    /// [Keycloak](https://www.keycloak.org/securing-apps/dpop).
    ///
    /// - `typ`: `JWT`, or `at+jwt` by a setting of the client.
    /// - Mark: the *claim* `typ` is `DPoP` or `Bearer`. In an ID token it is `ID`.
    /// - Issuer: `https://{host}/realms/{realm}`, without a slash at the end.
    ///
    /// The audience comes from [an audience mapper](https://www.keycloak.org/docs/latest/server_admin/#audience-support);
    /// a token without `aud` is rejected.
    Keycloak,
    /// A [custom authorization server](https://developer.okta.com/docs/guides/dpop/nonoktaresourceserver/main/) of
    /// Okta. Tokens of the org authorization server are not meant to be verified by anyone but Okta.
    ///
    /// - `typ`: none.
    /// - Mark: `cid`, the client.
    /// - Issuer: `https://{Okta domain}/oauth2/{server id}`, without a slash at the end.
    ///
    /// The audience is set at the authorization server: `api://default` for the server `default`.
    Okta,
}

impl Profile {
    /// The issuer as the product writes it.
    pub(crate) fn issuer(self, issuer: String) -> String {
        let without_slash = issuer.trim_end_matches('/');
        let has_slash = match self {
            Self::Auth0 => true,
            Self::EntraId if without_slash.starts_with("https://sts.windows.net/") => true,
            Self::EntraId if !without_slash.starts_with("https://login.microsoftonline.com/") => {
                return issuer;
            }
            Self::EntraId | Self::Keycloak | Self::Okta => false,
        };
        let slash = if has_slash { "/" } else { "" };
        format!("{without_slash}{slash}")
    }

    /// Whether an access token may have this `typ`, if it also has the mark.
    pub(crate) fn has_typ(self, typ: Option<&str>) -> bool {
        match self {
            Self::Okta => typ.is_none(),
            Self::Auth0 | Self::EntraId | Self::Keycloak => {
                typ.is_some_and(|typ| typ.eq_ignore_ascii_case("JWT"))
            }
        }
    }

    /// Whether these are the claims of an access token, and not those of another token of the issuer.
    pub(crate) fn marks(self, claims: &[u8]) -> bool {
        let Ok(marks) = read::<Marks<'_>>(claims) else {
            return false;
        };
        match self {
            Self::Auth0 => marks.azp.is_some(),
            Self::EntraId => marks.azp.is_some() || marks.appid.is_some(),
            // Without case, as the `token_type` of a token response (RFC 6749 section 5.1).
            Self::Keycloak => marks.typ.is_some_and(|typ| {
                ["Bearer", "DPoP"]
                    .iter()
                    .any(|name| typ.as_str().eq_ignore_ascii_case(name))
            }),
            Self::Okta => marks.cid.is_some(),
        }
    }
}

object! {
    struct Marks<'de> {
        typ: Text<'de> = "typ",
        azp: Text<'de> = "azp",
        appid: Text<'de> = "appid",
        cid: Text<'de> = "cid",
    }
}
