//! The URLs under which clients reach the service, from configuration.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};

use crate::deserialize::parsed;
use crate::uri::{InvalidHttpUrl, Origin, PathSyntax, normalise_path, split, without_userinfo};

/// A URL under which clients reach the service: scheme, host, port, and the path prefix that a
/// proxy strips, if any. It is `https`, or `http` on this machine: `localhost`, `127.0.0.0/8` or
/// `[::1]`.
///
/// A trailing slash is dropped: behind `https://example.com/api`, a request for `/` was sent to
/// `https://example.com/api/`. A proxy that also forwards `/api` (without the slash) as `/` turns
/// two URLs into one; configure it to redirect instead.
///
/// # Example
///
/// ```
/// use tower_dpop::PublicUrl;
///
/// let plain: PublicUrl = "https://api.example.com".parse()?;
/// let behind_a_prefix: PublicUrl = "https://example.com/orders-api".parse()?;
/// assert!("http://api.example.com".parse::<PublicUrl>().is_err()); // RFC 9449 section 2: always HTTPS
/// let in_tests: PublicUrl = "http://127.0.0.1:8080".parse()?;
/// # let _ = (plain, behind_a_prefix, in_tests);
/// # Ok::<(), tower_dpop::proof::InvalidPublicUrl>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    pub(super) origin: Origin<'static>,
    /// Empty, or with a leading slash and without a trailing one.
    pub(super) prefix: String,
    /// Both, in their normal form.
    pub(super) text: String,
}

impl PublicUrl {
    /// Parses a URL that may be `http` on any host.
    ///
    /// # Security
    ///
    /// DPoP does not protect a token that is sent unencrypted ([RFC 9449 section
    /// 2](https://www.rfc-editor.org/rfc/rfc9449#section-2)).
    pub fn insecure_http(url: &str) -> Result<Self, InvalidPublicUrl> {
        Self::parse(url)
    }

    /// The path of a well-known document about the service: the well-known part is inserted between
    /// the host and the path (RFC 8414 section 3.1, RFC 9728 section 3.1).
    pub(crate) fn well_known_path(&self, name: &str) -> String {
        format!("/.well-known/{name}{}", self.prefix)
    }

    /// The scheme, host and port.
    pub(crate) const fn origin(&self) -> &Origin<'static> {
        &self.origin
    }

    /// Whether this is a whole origin, without a path prefix.
    #[cfg(feature = "client")]
    pub(crate) const fn is_origin(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Whether this URL covers a normalised path on an origin.
    #[cfg(feature = "client")]
    pub(crate) fn covers(&self, origin: &Origin<'_>, path: &str) -> bool {
        *origin == self.origin
            && path
                .strip_prefix(self.prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn parse(url: &str) -> Result<Self, InvalidPublicUrl> {
        let malformed = || InvalidPublicUrl::Malformed(without_userinfo(url));
        let (origin, path) = split(url).map_err(|InvalidHttpUrl| malformed())?;
        if path.contains(['?', '#']) {
            return Err(InvalidPublicUrl::QueryOrFragment(url.to_owned()));
        }
        let path = normalise_path(path, PathSyntax::Rfc3986).ok_or_else(malformed)?;
        let prefix = path.trim_end_matches('/');
        Ok(Self {
            text: format!("{origin}{prefix}"),
            prefix: prefix.to_owned(),
            origin: origin.into_owned(),
        })
    }
}

impl FromStr for PublicUrl {
    type Err = InvalidPublicUrl;

    fn from_str(url: &str) -> Result<Self, InvalidPublicUrl> {
        let parsed = Self::parse(url)?;
        if parsed.origin.is_https_or_loopback() {
            Ok(parsed)
        } else {
            Err(InvalidPublicUrl::NotHttps(url.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    /// Reads a string, with the same rules as [`FromStr`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "the URL of a service", |url| {
            url.parse()
                .map_err(|error: InvalidPublicUrl| error.to_string())
        })
    }
}

impl fmt::Display for PublicUrl {
    /// The normalised URL, without a trailing slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not a [`PublicUrl`]: a configuration error. Holds the text, without userinfo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPublicUrl {
    /// Not an absolute `http` or `https` URL according to RFC 3986, or a URL with userinfo.
    #[error("{0:?}: must be an absolute URL of the form https://host[:port][/prefix]")]
    Malformed(String),
    /// The scheme is `http`, and the host is not this machine.
    #[error("{0:?}: must be https (plain http is accepted on loopback only)")]
    NotHttps(String),
    /// The URL has a query or a fragment, which `htu` never has.
    #[error("{0:?}: must have no query and no fragment")]
    QueryOrFragment(String),
}
