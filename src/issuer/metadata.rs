//! The metadata of an issuer ([RFC 8414](https://www.rfc-editor.org/rfc/rfc8414), or OpenID Connect Discovery): where they
//! are, and whether they are the issuer's own.

use http::StatusCode;
use reqwest::Url;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::issuer::endpoint_url::{EndpointUrl, MAX_SHOWN};
use crate::issuer::http::{FetchError, HttpClient, HttpResponse};
use crate::jose::json::read_object;

const MAX_DOCUMENT: usize = 256 * 1024;

/// Fetches a document that an issuer publishes.
pub(crate) async fn get(
    http: &HttpClient,
    url: &Url,
    media_types: &'static str,
) -> Result<HttpResponse, DocumentError> {
    let response = http.get(url, media_types, MAX_DOCUMENT).await?;
    match response.status {
        StatusCode::OK => Ok(response),
        status => Err(DocumentError::Status(status)),
    }
}

/// Fetches the metadata of an issuer, from this place or from the well-known URLs, and reads them. An error is made with
/// the URL that it is about.
pub(crate) async fn discover<M: DeserializeOwned, T, E>(
    http: &HttpClient,
    issuer: &EndpointUrl,
    place: Option<&EndpointUrl>,
    read: impl Fn(M) -> Result<T, E>,
    failed: impl Fn(&Url, DocumentError) -> E,
) -> Result<T, E> {
    if let Some(place) = place {
        let metadata = own_metadata(http, issuer, place.url()).await;
        return read(metadata.map_err(|error| failed(place.url(), error))?);
    }
    let [oauth, openid] = metadata_urls(issuer.url());
    let first = match own_metadata(http, issuer, &oauth).await {
        Ok(metadata) => match read(metadata) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        },
        Err(error) if error.is_outage() => return Err(failed(&oauth, error)),
        Err(error) => failed(&oauth, error),
    };
    match own_metadata(http, issuer, &openid).await {
        Ok(metadata) => read(metadata),
        Err(DocumentError::Status(StatusCode::NOT_FOUND)) => Err(first),
        Err(error) => Err(failed(&openid, error)),
    }
}

/// The metadata at this place, if they are those of this issuer.
async fn own_metadata<M: DeserializeOwned>(
    http: &HttpClient,
    issuer: &EndpointUrl,
    place: &Url,
) -> Result<M, DocumentError> {
    let response = get(http, place, "application/json").await?;
    read_own(&response.body, issuer)
}

/// Reads metadata, if they are those of this issuer.
pub(crate) fn read_own<M: DeserializeOwned>(
    document: &[u8],
    issuer: &EndpointUrl,
) -> Result<M, DocumentError> {
    #[derive(Deserialize)]
    struct Named {
        issuer: String,
    }

    let named: Named = read_object(document).ok_or(DocumentError::Malformed)?;
    // RFC 8414 section 3.3: "The "issuer" value returned MUST be identical".
    if named.issuer != issuer.as_str() {
        return Err(DocumentError::Issuer {
            configured: issuer.as_str().to_owned(),
            // The document may have any length.
            found: named.issuer.chars().take(MAX_SHOWN).collect(),
        });
    }
    read_object(document).ok_or(DocumentError::Malformed)
}

/// The URLs of an issuer's metadata: RFC 8414 section 3.1 inserts the well-known part before the
/// path, OpenID Connect Discovery section 4.1 appends it; both remove a trailing slash.
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

/// Why there is no usable document. For logs and for the code that starts the process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "they name another issuer: {configured:?} is configured, {found:?} was found{}: configure the issuer exactly as its \
         metadata spell it",
        difference(configured, found)
    )]
    Issuer { configured: String, found: String },
    #[error("the document is malformed, or has no endpoint of the required kind")]
    Malformed,
    #[error("the request failed with status {}", .0.as_u16())]
    Status(StatusCode),
}

impl DocumentError {
    /// Whether no other document of the same issuer can be fetched now.
    const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Fetch(FetchError::TimedOut | FetchError::Transport(_))
        )
    }
}

/// A difference between two issuers that is easily overlooked.
pub(crate) fn difference(configured: &str, found: &str) -> &'static str {
    let without_slash = |issuer: &str| issuer.strip_suffix('/').unwrap_or(issuer).to_owned();
    let without_scheme = |issuer: &str| issuer.split_once("://").map(|(_, rest)| rest.to_owned());
    if without_slash(configured) == without_slash(found) {
        " (they differ by the trailing slash)"
    } else if configured.eq_ignore_ascii_case(found) {
        " (they differ in upper and lower case)"
    } else if without_scheme(configured) == without_scheme(found) {
        " (they differ in the scheme)"
    } else {
        ""
    }
}
