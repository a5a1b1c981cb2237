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
#[cfg(feature = "_http")]
pub(crate) mod endpoint_url;
#[cfg(feature = "_http")]
pub(crate) mod http;
#[cfg(feature = "jwks")]
pub(crate) mod jwks;
#[cfg(feature = "introspection")]
pub(crate) mod introspection;
pub(crate) mod issuers;

pub use crate::credentials::PresentedToken;
pub use crate::tokens::access_token::{AccessToken, AccessTokenVerifier, Confirmation, TokenError};
pub use crate::tokens::cache::TokenCache;
pub use crate::tokens::claims::{HasAuthentication, HasScopes};
#[cfg(feature = "_http")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "introspection", feature = "jwks"))))]
pub use crate::tokens::endpoint_url::{EndpointUrl, InvalidEndpointUrl};
#[cfg(feature = "_http")]
#[cfg_attr(docsrs, doc(cfg(any(feature = "introspection", feature = "jwks"))))]
pub use crate::tokens::http::{HttpClient, HttpClientBuilder, HttpClientError};
#[cfg(feature = "introspection")]
pub use crate::tokens::introspection::claims::IntrospectedClaims;
#[cfg(feature = "introspection")]
pub use crate::tokens::introspection::client_authentication::ClientAuthentication;
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
