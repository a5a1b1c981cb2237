//! The documents that an issuer publishes, and how they are fetched: metadata, and the key set
//! itself.

use std::fmt;

use headers::{Age, CacheControl, Header as _, HeaderMapExt as _};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use crate::issuer::endpoint_url::{EndpointUrl, InvalidEndpointUrl, MAX_SHOWN};
use crate::issuer::http::{FetchError, HttpClient, HttpResponse};
use crate::issuer::metadata::{self, DocumentError, difference};
use crate::outage::Outage;
use crate::tokens::key_set::{InvalidKeySet, KeySet};

/// RFC 7517 section 8.5.1. Kubernetes offers nothing else, and rejects a request for JSON alone with 406.
const KEY_SET_MEDIA_TYPES: &str = "application/json, application/jwk-set+json";

const MAX_KEYS: usize = 128;

/// Which issuer to ask, and with which client.
pub(super) struct Issuer {
    pub(super) location: KeyLocation,
    pub(super) http: HttpClient,
    pub(super) outage: Outage,
}

pub(super) enum KeyLocation {
    /// The URL of the keys.
    Given(EndpointUrl),
    /// The metadata has it.
    Discovered {
        issuer: EndpointUrl,
        /// Where the metadata is, if not at the well-known URLs of the issuer.
        metadata: Option<EndpointUrl>,
    },
}

impl KeyLocation {
    /// The URL by which logs name the issuer.
    pub(super) const fn url(&self) -> &EndpointUrl {
        match self {
            Self::Given(url) | Self::Discovered { issuer: url, .. } => url,
        }
    }
}

impl Issuer {
    /// The `jwks_uri` in the issuer's metadata, if it is no less secure than the configured URL.
    pub(super) async fn discover(
        &self,
        issuer: &EndpointUrl,
        place: Option<&EndpointUrl>,
    ) -> Result<Url, RemoteKeysError> {
        let configured = place.unwrap_or(issuer);
        let read = |metadata: Metadata| metadata.jwks_uri(configured);
        let failed = |url: &Url, error| RemoteKeysError::of(IssuerDocument::Metadata, url, error);
        metadata::discover(&self.http, issuer, place, read, failed).await
    }

    pub(super) async fn get_key_set(&self, url: &Url) -> Result<HttpResponse, RemoteKeysError> {
        metadata::get(&self.http, url, KEY_SET_MEDIA_TYPES)
            .await
            .map_err(|error| RemoteKeysError::of(IssuerDocument::KeySet, url, error))
    }
}

#[derive(Deserialize)]
pub(crate) struct Metadata {
    jwks_uri: String,
}

impl Metadata {
    /// The `jwks_uri`, if it is no less secure than the configured URL.
    pub(crate) fn jwks_uri(&self, configured: &EndpointUrl) -> Result<Url, RemoteKeysError> {
        configured
            .refers_to(&self.jwks_uri)
            .map_err(RemoteKeysError::JwksUri)
    }
}

pub(crate) fn read_key_set(body: &[u8], issuer: &EndpointUrl) -> Result<KeySet, RemoteKeysError> {
    const MALFORMED: RemoteKeysError = RemoteKeysError::Malformed(IssuerDocument::KeySet);

    let document: Value = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
    let keys = document.get("keys").and_then(Value::as_array);
    if keys.ok_or(MALFORMED)?.len() > MAX_KEYS {
        return Err(RemoteKeysError::TooManyKeys);
    }
    let text = std::str::from_utf8(body).map_err(|_| MALFORMED)?;
    KeySet::read(text, Some(issuer)).map_err(|error| match error {
        InvalidKeySet::Malformed => MALFORMED,
        InvalidKeySet::NoUsableKey(reasons) => RemoteKeysError::NoUsableKey(reasons),
    })
}

/// For how many seconds from now a response may be cached, if it states this.
pub(super) fn max_age(headers: &HeaderMap) -> Option<u64> {
    // RFC 9111 section 5.2: directives are case-insensitive. `CacheControl` reads lower case.
    let lowercase: Vec<_> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase()).ok())
        .collect();
    let control = CacheControl::decode(&mut lowercase.iter()).ok()?;
    if control.no_store() || control.no_cache() {
        return Some(0);
    }
    let age = headers.typed_get().map_or(0, |age: Age| age.as_secs());
    Some(control.max_age()?.as_secs().saturating_sub(age))
}

/// A document that an issuer publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssuerDocument {
    /// The key set that `jwks_uri` points to.
    KeySet,
    /// The metadata of RFC 8414 or OpenID Connect Discovery.
    Metadata,
}

impl fmt::Display for IssuerDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeySet => "key set",
            Self::Metadata => "metadata",
        })
    }
}

/// Why keys could not be fetched. For logs and for the code that starts the service: clients do not
/// see it. It contains no URL except the issuer's, those of its documents, and the one that its metadata should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteKeysError {
    /// The response has a content coding, although the request asks for none. Nothing is decompressed.
    #[error(
        "the issuer's {document} has the content coding {coding:?}, although the request asks for none \
         (Accept-Encoding: identity): switch compression off for this URL, at the server or at the proxy in front of it"
    )]
    Encoded {
        /// The requested document.
        document: IssuerDocument,
        /// The `Content-Encoding` of the response.
        coding: String,
    },
    /// The runtime has shut down, or has no I/O or timers.
    #[error("the fetch was cancelled")]
    Interrupted,
    /// The metadata names an issuer other than the configured one. A difference of one slash is
    /// enough ([RFC 8414 section 3.3](https://www.rfc-editor.org/rfc/rfc8414#section-3.3)).
    #[error(
        "the issuer's metadata name another issuer: {configured:?} is configured, {found:?} was found{}: configure \
         the issuer exactly as its metadata and its tokens spell it",
        difference(configured, found)
    )]
    Issuer {
        /// The configured issuer.
        configured: String,
        /// The `issuer` in the metadata, at most 256 characters of it.
        found: String,
    },
    /// The `jwks_uri` in the metadata is not an acceptable URL.
    #[error("the issuer's jwks_uri is rejected: {0}")]
    JwksUri(InvalidEndpointUrl),
    /// The document is not JSON of the expected form.
    #[error("the issuer's {0} is malformed")]
    Malformed(IssuerDocument),
    /// The call was made outside of a tokio runtime.
    #[error("there is no tokio runtime to fetch in")]
    NoRuntime,
    /// No key of the set can verify access tokens, or the set is empty. Holds the reason for each key, by its `kid`.
    #[error("the issuer's key set holds no key that can verify access tokens: {0}")]
    NoUsableKey(String),
    /// No connection, or no complete response.
    #[error("the issuer's {document} at {url} is unreachable: {reason}")]
    Unreachable {
        /// The requested document.
        document: IssuerDocument,
        /// Its URL, configured or from the issuer's metadata; at most 256 characters of it.
        url: String,
        /// The reason, as reported by the network.
        reason: String,
    },
    /// Redirected to another origin, or too often, or from an origin with an
    /// [authorization](crate::tokens::HttpClientBuilder::with_authorization).
    #[error(
        "the issuer's {0} was redirected to another origin, or too many times, or from an origin that requires an \
         authorization"
    )]
    Redirected(IssuerDocument),
    /// The status of the response was not 200.
    #[error("the request for the issuer's {document} failed with status {}", status.as_u16())]
    Status {
        /// The requested document.
        document: IssuerDocument,
        /// The status of the response.
        status: StatusCode,
    },
    /// The issuer did not respond in time, or not within the time that the caller allowed.
    #[error("the issuer did not respond in time")]
    TimedOut,
    /// More than 256 KiB.
    #[error("the issuer's {0} is too long")]
    TooLong(IssuerDocument),
    /// More than 128 keys.
    #[error("the issuer's key set holds too many keys")]
    TooManyKeys,
}

impl RemoteKeysError {
    pub(crate) fn of(document: IssuerDocument, url: &Url, error: DocumentError) -> Self {
        match error {
            DocumentError::Fetch(error) => match error {
                FetchError::Encoded(coding) => Self::Encoded { document, coding },
                FetchError::Redirected => Self::Redirected(document),
                FetchError::TimedOut => Self::TimedOut,
                FetchError::TooLong => Self::TooLong(document),
                FetchError::Transport(reason) => Self::Unreachable {
                    document,
                    // The metadata may name a URL of any length.
                    url: url.as_str().chars().take(MAX_SHOWN).collect(),
                    reason,
                },
            },
            DocumentError::Issuer { configured, found } => Self::Issuer { configured, found },
            DocumentError::Malformed => Self::Malformed(document),
            DocumentError::Status(status) => Self::Status { document, status },
        }
    }

    /// Whether the issuer delivered no document, rather than an unusable one.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Status { .. } | Self::TimedOut
        )
    }

    /// Whether someone has to change a configuration before another attempt can succeed. An issuer that is starting up
    /// may respond with anything else.
    pub(super) const fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Encoded { .. }
                | Self::Issuer { .. }
                | Self::JwksUri(_)
                | Self::NoRuntime
                | Self::TooManyKeys
        )
    }
}
