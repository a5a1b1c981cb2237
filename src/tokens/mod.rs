//! Is the access token valid? Verifiers for signed and for opaque tokens, and the sources of their
//! keys.

pub(crate) mod access_token;
pub(crate) mod claims;
pub(crate) mod claim_fault;
pub(crate) mod profile;
pub(crate) mod cache;
pub(crate) mod issuer_key;
pub(crate) mod key_set;
pub(crate) mod jwt;
#[cfg(feature = "jwks")]
pub(crate) mod jwks;
#[cfg(feature = "introspection")]
pub(crate) mod introspection;
pub(crate) mod issuers;

pub use crate::credentials::PresentedToken;
#[cfg(feature = "introspection")]
pub use crate::issuer::client_authentication::ClientAuthentication;
#[cfg(feature = "_http")]
#[cfg_attr(
    docsrs,
    doc(cfg(any(feature = "introspection", feature = "jwks", feature = "reqwest")))
)]
pub use crate::issuer::endpoint_url::{EndpointUrl, InvalidEndpointUrl};
#[cfg(feature = "_http")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "introspection", feature = "jwks"))))]
pub use crate::issuer::http::{HttpClient, HttpClientBuilder, HttpClientError};
pub use crate::tokens::access_token::{AccessToken, AccessTokenVerifier, Confirmation, TokenError};
pub use crate::tokens::cache::TokenCache;
pub use crate::tokens::claims::{HasAuthentication, HasScopes};
#[cfg(feature = "introspection")]
pub use crate::tokens::introspection::claims::IntrospectedClaims;
#[cfg(feature = "introspection")]
pub use crate::tokens::introspection::signed_responses::SignedResponses;
#[cfg(feature = "introspection")]
pub use crate::tokens::introspection::verifier::IntrospectionVerifier;
#[cfg(feature = "jwks")]
pub use crate::tokens::jwks::documents::{IssuerDocument, RemoteKeysError};
#[cfg(feature = "jwks")]
pub use crate::tokens::jwks::remote_keys::RemoteKeysStatus;
pub use crate::tokens::key_set::{InvalidKeySet, KeySource, KeySourceError};
pub use crate::tokens::profile::Profile;
