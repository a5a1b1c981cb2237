//! What an issuer publishes, and how it is asked for: metadata, and the key set itself.

use std::fmt;

use headers::{Age, CacheControl, Header as _, HeaderMapExt as _};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;

use crate::tokens::http::{EndpointUrl, FetchError, HttpClient, HttpResponse, InvalidEndpointUrl};
use crate::tokens::key_set::{InvalidKeySet, KeySet};

const MAX_DOCUMENT: usize = 256 * 1024;
const MAX_KEYS: usize = 128;

/// Whom to ask, and how.
pub(super) struct Issuer {
    pub(super) location: KeyLocation,
    pub(super) http: HttpClient,
}

pub(super) enum KeyLocation {
    /// Of the keys.
    Given(EndpointUrl),
    /// Of the issuer.
    Discovered(EndpointUrl),
}

impl KeyLocation {
    pub(super) const fn url(&self) -> &EndpointUrl {
        match self {
            Self::Given(url) | Self::Discovered(url) => url,
        }
    }
}

impl Issuer {
    pub(super) async fn discover(&self, issuer: &EndpointUrl) -> Result<Url, RemoteKeysError> {
        let [oauth, openid] = metadata_urls(issuer.url());
        let first = match self.jwks_uri(issuer, &oauth).await {
            Ok(url) => return Ok(url),
            Err(error @ (RemoteKeysError::OutOfReach { .. } | RemoteKeysError::TimedOut)) => {
                return Err(error);
            }
            Err(error) => error,
        };
        let second = self.jwks_uri(issuer, &openid).await;
        second.map_err(|second| match second {
            RemoteKeysError::Status {
                status: StatusCode::NOT_FOUND,
                ..
            } => first,
            _ => second,
        })
    }

    /// What the metadata at this place says, if they are those of the issuer.
    async fn jwks_uri(&self, issuer: &EndpointUrl, place: &Url) -> Result<Url, RemoteKeysError> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            jwks_uri: String,
        }

        let answer = self.ask(place, IssuerDocument::Metadata).await?;
        let metadata: Metadata = serde_json::from_slice(&answer.body)
            .map_err(|_| RemoteKeysError::Malformed(IssuerDocument::Metadata))?;
        // RFC 8414 section 3.3: "The "issuer" value returned MUST be identical".
        if metadata.issuer != issuer.as_str() {
            return Err(RemoteKeysError::Issuer);
        }
        issuer
            .refers_to(&metadata.jwks_uri)
            .map_err(RemoteKeysError::JwksUri)
    }

    pub(super) async fn ask(
        &self,
        url: &Url,
        document: IssuerDocument,
    ) -> Result<HttpResponse, RemoteKeysError> {
        let answer = self.http.get(url, MAX_DOCUMENT).await;
        let answer = answer.map_err(|error| match error {
            FetchError::Redirected => RemoteKeysError::Redirected(document),
            FetchError::TimedOut => RemoteKeysError::TimedOut,
            FetchError::TooLong => RemoteKeysError::TooLong(document),
            FetchError::Transport(reason) => RemoteKeysError::OutOfReach { document, reason },
        })?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            status => Err(RemoteKeysError::Status { document, status }),
        }
    }
}

/// Where an issuer's metadata are: RFC 8414 section 3.1 inserts the well-known part before the
/// path, OpenID Connect Discovery section 4.1 appends it; both drop a slash at the end.
fn metadata_urls(issuer: &Url) -> [Url; 2] {
    let path = issuer.path();
    let path = path.strip_suffix('/').unwrap_or(path);
    let paths = [
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("{path}/.well-known/openid-configuration"),
    ];
    paths.map(|path| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url.set_query(None);
        url
    })
}

pub(super) fn read_key_set(body: &[u8]) -> Result<KeySet, RemoteKeysError> {
    const MALFORMED: RemoteKeysError = RemoteKeysError::Malformed(IssuerDocument::KeySet);

    let document: Value = serde_json::from_slice(body).map_err(|_| MALFORMED)?;
    let keys = document.get("keys").and_then(Value::as_array);
    if keys.ok_or(MALFORMED)?.len() > MAX_KEYS {
        return Err(RemoteKeysError::TooManyKeys);
    }
    let text = std::str::from_utf8(body).map_err(|_| MALFORMED)?;
    text.parse().map_err(|error| match error {
        InvalidKeySet::Malformed => MALFORMED,
        InvalidKeySet::NoUsableKey => RemoteKeysError::NoUsableKey,
    })
}

/// For how many seconds from now an answer may be kept, if it says so.
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

/// A document of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IssuerDocument {
    /// What `jwks_uri` points to.
    KeySet,
    /// RFC 8414 or OpenID Connect Discovery.
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

/// Why keys could not be fetched. For logs and for whoever starts the service: clients learn
/// nothing of it, and it names no URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteKeysError {
    /// The runtime has ended, or is one without I/O or timers.
    #[error("the fetch was broken off")]
    Interrupted,
    /// The metadata name another issuer than the one that was configured, if only by a slash (RFC
    /// 8414 section 3.3).
    #[error("the issuer's metadata name another issuer")]
    Issuer,
    /// The metadata point to a place for the keys that is none.
    #[error("the issuer's jwks_uri is refused: {0}")]
    JwksUri(InvalidEndpointUrl),
    /// The document is not JSON of the expected form.
    #[error("the issuer's {0} is malformed")]
    Malformed(IssuerDocument),
    /// There is no tokio runtime here.
    #[error("there is no tokio runtime to fetch in")]
    NoRuntime,
    /// No key of the set can verify access tokens, or there is none at all.
    #[error("the issuer's key set holds no key that can verify access tokens")]
    NoUsableKey,
    /// No connection, or no whole answer.
    #[error("the issuer's {document} is out of reach: {reason}")]
    OutOfReach {
        /// What was asked for.
        document: IssuerDocument,
        /// What the network said.
        reason: String,
    },
    /// Sent to another origin, or in circles.
    #[error("the issuer's {0} is redirected to another origin, or too often")]
    Redirected(IssuerDocument),
    /// The answer was another than 200.
    #[error("the issuer's {document} is answered with status {}", status.as_u16())]
    Status {
        /// What was asked for.
        document: IssuerDocument,
        /// What was answered.
        status: StatusCode,
    },
    /// The issuer did not answer in time, or not within the patience of who waited.
    #[error("the issuer did not answer in time")]
    TimedOut,
    /// More than 256 KiB.
    #[error("the issuer's {0} is too long")]
    TooLong(IssuerDocument),
    /// More than 128 keys.
    #[error("the issuer's key set holds too many keys")]
    TooManyKeys,
}

impl RemoteKeysError {
    /// Whether the issuer said nothing, and not something else than before.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::OutOfReach { .. } | Self::Status { .. } | Self::TimedOut
        )
    }
}
