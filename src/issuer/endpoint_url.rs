//! The URLs of issuers and of their endpoints.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::de::{Deserialize, Deserializer};

use crate::deserialize::parsed;
use crate::uri::{split, without_userinfo};

/// The URL of an issuer or of one of its endpoints: `https`, or `http` on this machine (`localhost`,
/// `127.0.0.0/8` or `[::1]`).
///
/// # Example
///
/// ```
/// use tower_dpop::tokens::EndpointUrl;
///
/// let issuer: EndpointUrl = "https://as.example.com".parse()?;
/// let in_tests: EndpointUrl = "http://127.0.0.1:9000".parse()?;
/// assert!("http://as.example.com".parse::<EndpointUrl>().is_err());
/// # let _ = (issuer, in_tests);
/// # Ok::<(), tower_dpop::tokens::InvalidEndpointUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    text: String,
    url: Url,
    plain: PlainHttp,
}

/// An error shows at most this many characters of a text in a document, which may have any length.
#[cfg(any(feature = "jwks", feature = "reqwest"))]
pub(crate) const MAX_SHOWN: usize = 256;

/// Where plain `http` is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Everywhere,
    OnLoopback,
}

impl EndpointUrl {
    /// A URL that may be `http` on any host.
    ///
    /// # Security
    ///
    /// An attacker between this service and the issuer can substitute keys, and then issue tokens
    /// for anyone.
    pub fn insecure_http(url: &str) -> Result<Self, InvalidEndpointUrl> {
        Self::parse(url, PlainHttp::Everywhere)
    }

    /// The URL exactly as it was given. Issuers are compared by this text, character by character.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// A URL from a document that was fetched from here. It must not be less secure than this URL:
    /// if this one is `https`, it must be `https` too.
    #[cfg(any(feature = "jwks", feature = "reqwest"))]
    pub(crate) fn refers_to(&self, url: &str) -> Result<Url, InvalidEndpointUrl> {
        let referred = Self::parse(url, self.plain).map_err(InvalidEndpointUrl::shortened)?;
        if self.url.scheme() == "https" && referred.url.scheme() != "https" {
            Err(InvalidEndpointUrl::NotHttps(url.to_owned()).shortened())
        } else {
            Ok(referred.url)
        }
    }

    fn parse(text: &str, plain: PlainHttp) -> Result<Self, InvalidEndpointUrl> {
        let malformed = || InvalidEndpointUrl::Malformed(without_userinfo(text));
        // `Url` parses as browsers do and repairs invalid URLs. The text by which an issuer is
        // compared could then differ from the URL that is fetched.
        let is_absolute = text.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.chars().all(|c| c.is_ascii_alphabetic()) && !rest.starts_with('/')
        });
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !is_absolute
            || authority.contains(['@', '%'])
            || text.contains(|c: char| !c.is_ascii_graphic() || c == '\\')
        {
            return Err(malformed());
        }
        let url = Url::parse(text).map_err(|_| malformed())?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(malformed());
        }
        // By the text and not by `url`, in which `127.1` has become an address.
        let is_loopback = split(text).is_ok_and(|(origin, _)| origin.is_https_or_loopback());
        let may_be_plain = plain == PlainHttp::Everywhere || is_loopback;
        match url.scheme() {
            "https" => {}
            "http" if may_be_plain => {}
            "http" => return Err(InvalidEndpointUrl::NotHttps(text.to_owned())),
            _ => return Err(malformed()),
        }
        Ok(Self {
            text: text.to_owned(),
            url,
            plain,
        })
    }
}

impl FromStr for EndpointUrl {
    type Err = InvalidEndpointUrl;

    fn from_str(url: &str) -> Result<Self, InvalidEndpointUrl> {
        Self::parse(url, PlainHttp::OnLoopback)
    }
}

impl<'de> Deserialize<'de> for EndpointUrl {
    /// Reads a string, with the same rules as [`FromStr`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "the URL of an endpoint", |url| {
            url.parse()
                .map_err(|error: InvalidEndpointUrl| error.to_string())
        })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl({:?})", self.text)
    }
}

/// Why a text is not an [`EndpointUrl`]: a configuration error. Holds the text, without userinfo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEndpointUrl {
    /// Not an absolute `http` or `https` URL, or one with userinfo or a fragment.
    #[error("{0:?}: must be an absolute URL of the form https://host[:port][/path]")]
    Malformed(String),
    /// The scheme is `http`, and the host is not this machine.
    #[error("{0:?}: must be https (plain http is accepted on loopback only)")]
    NotHttps(String),
}

impl InvalidEndpointUrl {
    #[cfg(any(feature = "jwks", feature = "reqwest"))]
    fn shortened(self) -> Self {
        let short = |text: String| text.chars().take(MAX_SHOWN).collect();
        match self {
            Self::Malformed(text) => Self::Malformed(short(text)),
            Self::NotHttps(text) => Self::NotHttps(short(text)),
        }
    }
}
