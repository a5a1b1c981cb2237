//! What `htm` and `htu` must say: the public URL of the service, and the target of a request.
//!
//! The expected URL comes from configuration, never from the request: a stolen pair of token and
//! proof, replayed here with `Host: the-other-server`, must not find a server that believes its
//! `Host`. `Host`, `:authority`, `Forwarded` and `X-Forwarded-*` are not read at all.
//!
//! Both sides are normalised as RFC 3986 says (sections
//! [6.2.2](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.2) and
//! [6.2.3](https://www.rfc-editor.org/rfc/rfc3986#section-6.2.3)), not as browsers do: a WHATWG
//! parser repairs what it should refuse.
//!
//! | in | equal to |
//! |---|---|
//! | `HTTPS://API.example:443/a` | `https://api.example/a` |
//! | `https://api.example` | `https://api.example/` |
//! | `/%7Ejoe/%2e%2e/a/./b%2fc` | `/a/b%2Fc` |
//! | `/a?x=1#y` | `/a` |
//!
//! Different stay: `/a` and `/a/`, `/a//b` and `/a/b`, `%2F` and `/`, `api.example.` and
//! `api.example`, upper and lower case in a path.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Uri, Version};

/// One URL under which clients reach the service: scheme, host, port, and the path prefix that a
/// proxy strips, if one does.
///
/// A trailing slash is left out: behind `https://example.com/api`, a request for `/` was sent to
/// `https://example.com/api/`. A proxy that sends `/api` (without the slash) to `/` as well makes
/// two URLs one; have it redirect instead.
///
/// # Example
///
/// ```
/// use tower_dpop::target::PublicUrl;
///
/// let plain: PublicUrl = "https://api.example.com".parse()?;
/// let behind_a_prefix: PublicUrl = "https://example.com/orders-api".parse()?;
/// assert!("http://api.example.com".parse::<PublicUrl>().is_err()); // RFC 9449 section 2: always HTTPS
/// let in_tests = PublicUrl::http_on_loopback("http://127.0.0.1:8080")?;
/// # let _ = (plain, behind_a_prefix, in_tests);
/// # Ok::<(), tower_dpop::target::PublicUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    origin: Origin,
    /// Empty, or with a leading and without a trailing slash.
    prefix: String,
}

impl PublicUrl {
    /// A URL that may say `http` where its host is this machine: `localhost`, `127.0.0.0/8` or
    /// `[::1]`.
    pub fn http_on_loopback(url: &str) -> Result<Self, PublicUrlError> {
        let parsed = Self::insecure_http(url)?;
        let is_loopback = match &parsed.origin.host {
            Host::Name(name) if name == "localhost" => true,
            Host::Name(name) => name.parse().is_ok_and(|v4: Ipv4Addr| v4.is_loopback()),
            Host::Ipv6(address) => address.is_loopback(),
        };
        if is_loopback || parsed.origin.scheme == Scheme::Https {
            Ok(parsed)
        } else {
            Err(PublicUrlError::NotHttps)
        }
    }

    /// A URL that may say `http` wherever it is.
    ///
    /// # Security
    ///
    /// DPoP does not protect a token that travels in the clear ([RFC 9449 section
    /// 2](https://www.rfc-editor.org/rfc/rfc9449#section-2)).
    pub fn insecure_http(url: &str) -> Result<Self, PublicUrlError> {
        let (origin, path) = split(url).map_err(|NotAnHttpUrl| PublicUrlError::Malformed)?;
        if path.contains(['?', '#']) {
            return Err(PublicUrlError::QueryOrFragment);
        }
        let path = normalise_path(path).ok_or(PublicUrlError::Malformed)?;
        Ok(Self {
            origin,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(url: &str) -> Result<Self, PublicUrlError> {
        let parsed = Self::insecure_http(url)?;
        if parsed.origin.scheme == Scheme::Https {
            Ok(parsed)
        } else {
            Err(PublicUrlError::NotHttps)
        }
    }
}

impl fmt::Display for PublicUrl {
    /// The normalised URL, without a trailing slash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.prefix)
    }
}

/// Why a text is not a [`PublicUrl`]. The deployer's mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicUrlError {
    /// Not an absolute `http` or `https` URL by RFC 3986, or with userinfo.
    #[error("not an absolute URL of the form https://host[:port][/prefix]")]
    Malformed,
    /// The scheme is `http`. Tests say so with [`PublicUrl::http_on_loopback`].
    #[error("the public URL must be https")]
    NotHttps,
    /// A query or a fragment, which `htu` never has.
    #[error("the public URL must have no query and no fragment")]
    QueryOrFragment,
}

/// The method and URI that a request's proof must speak of, before normalisation.
#[derive(Clone, Debug)]
pub struct RequestTarget {
    /// What `htm` must say.
    pub method: Method,
    /// The target as the client sent it. Its path is what counts: scheme, host and port come from
    /// the public URLs.
    pub uri: Uri,
}

/// Finds the method and URI of the original request where they are not those of the request at
/// hand.
///
/// Implement it for forward authentication, where a proxy asks about a request that it describes in
/// header fields of its own (`X-Original-Method`, `X-Original-URI`), and for routers that rewrite
/// URIs without axum's `OriginalUri`.
///
/// # Security
///
/// What is returned decides what a proof must say. Take it only from fields that the proxy sets on
/// every request, never from fields that a client could have sent through it. The scheme, host and
/// port still come from the configured [`PublicUrl`]s.
pub trait TargetResolver: Send + Sync {
    /// The target, or `None` where the request does not say, which refuses it.
    fn resolve(&self, request: &Parts) -> Option<RequestTarget>;
}

impl<F: Fn(&Parts) -> Option<RequestTarget> + Send + Sync> TargetResolver for F {
    fn resolve(&self, request: &Parts) -> Option<RequestTarget> {
        self(request)
    }
}

/// The allow-list of public URLs, and how a request's target is found.
#[derive(Clone)]
pub(crate) struct Targets {
    public_urls: Vec<PublicUrl>,
    resolver: Option<Arc<dyn TargetResolver>>,
}

impl Targets {
    pub(crate) fn new(public_url: PublicUrl) -> Self {
        Self {
            public_urls: vec![public_url],
            resolver: None,
        }
    }

    pub(crate) fn add(&mut self, public_url: PublicUrl) {
        self.public_urls.push(public_url);
    }

    pub(crate) fn resolve_with(&mut self, resolver: Arc<dyn TargetResolver>) {
        self.resolver = Some(resolver);
    }

    /// What the proof of this request must say.
    pub(crate) fn of<'t>(&'t self, request: &'t Parts) -> Result<Target<'t>, TargetError> {
        match &self.resolver {
            None => self.target(&request.method, original_uri(request), request.version),
            Some(resolver) => {
                let resolved = resolver.resolve(request).ok_or(TargetError::Unresolved)?;
                self.target(&resolved.method, &resolved.uri, Version::HTTP_2)
            }
        }
    }

    fn target(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
    ) -> Result<Target<'_>, TargetError> {
        let path = if *method == Method::CONNECT && uri.scheme().is_none() {
            return Err(TargetError::Connect);
        } else if uri.scheme().is_none() && uri.authority().is_some() {
            // RFC 9112 section 3.2.3: the authority alone is for CONNECT only.
            return Err(TargetError::Misdirected);
        } else if uri.path() == "*" {
            Path::Asterisk
        } else {
            Path::Normal(normalise_path(uri.path()).ok_or(TargetError::NotRfc3986)?)
        };
        // RFC 9112 section 3.2.2: an absolute-form names the target itself. HTTP/2 and later always
        // have an authority, which gateways rewrite; it is not believed.
        let named = match (uri.scheme_str(), uri.authority()) {
            (Some(scheme), Some(authority)) if version < Version::HTTP_2 => {
                let origin =
                    Origin::parse(scheme, authority.as_str()).ok_or(TargetError::Misdirected)?;
                if !self.public_urls.iter().any(|url| url.origin == origin) {
                    return Err(TargetError::Misdirected);
                }
                Some(origin)
            }
            _ => None,
        };
        Ok(Target {
            method: method.clone(),
            public_urls: &self.public_urls,
            named,
            path,
        })
    }
}

/// The URI before a router stripped a prefix from it.
fn original_uri(request: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = request.extensions.get::<::axum::extract::OriginalUri>() {
        return &original.0;
    }
    &request.uri
}

/// What `htm` and `htu` of one request must say.
pub(crate) struct Target<'t> {
    method: Method,
    public_urls: &'t [PublicUrl],
    /// The one origin that the request itself named, out of those allowed.
    named: Option<Origin>,
    path: Path,
}

enum Path {
    /// `OPTIONS *`, whose URI has an empty path, which is not `/` (RFC 9110 section 4.2.3).
    Asterisk,
    Normal(String),
}

impl Target<'_> {
    /// RFC 9449 section 4.3, check 8: exact, methods are case-sensitive (RFC 9110 section 9.1).
    pub(crate) fn is_method(&self, htm: &str) -> bool {
        self.method.as_str() == htm
    }

    /// RFC 9449 section 4.3, check 9.
    pub(crate) fn check_url(&self, htu: &str) -> Result<(), UrlMismatch> {
        let without_fragment = htu.split_once('#').map_or(htu, |(before, _)| before);
        let without_query = without_fragment
            .split_once('?')
            .map_or(without_fragment, |(before, _)| before);
        let (origin, path) = split(without_query).map_err(|NotAnHttpUrl| UrlMismatch::Malformed)?;
        let normalised = normalise_path(path).ok_or(UrlMismatch::Malformed)?;
        let mut nearest = UrlMismatch::Scheme;
        for url in self
            .public_urls
            .iter()
            .filter(|url| self.named.as_ref().is_none_or(|named| *named == url.origin))
        {
            match self.compare(url, &origin, path, &normalised) {
                Ok(()) => return Ok(()),
                Err(mismatch) => nearest = nearest.max(mismatch),
            }
        }
        Err(nearest)
    }

    fn compare(
        &self,
        url: &PublicUrl,
        origin: &Origin,
        path: &str,
        normalised: &str,
    ) -> Result<(), UrlMismatch> {
        if origin.scheme != url.origin.scheme {
            return Err(UrlMismatch::Scheme);
        }
        if origin.host != url.origin.host {
            return Err(UrlMismatch::Host);
        }
        if origin.port != url.origin.port {
            return Err(UrlMismatch::Port);
        }
        let same = match &self.path {
            Path::Asterisk => path.is_empty() && url.prefix.is_empty(),
            Path::Normal(expected) => {
                normalised.strip_prefix(url.prefix.as_str()) == Some(expected)
            }
        };
        if same { Ok(()) } else { Err(UrlMismatch::Path) }
    }
}

/// Where `htu` differs from the public URL it comes nearest to (RFC 9449 section 4.3, check 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UrlMismatch {
    /// Not an absolute `http` or `https` URL by RFC 3986, or with userinfo.
    Malformed,
    /// `http` for `https` or the reverse.
    Scheme,
    /// Another host.
    Host,
    /// Another port.
    Port,
    /// Another path.
    Path,
}

/// Why a request has no target that a proof could speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A plain CONNECT, which opens a tunnel and addresses no resource.
    #[error("a CONNECT request addresses no resource")]
    Connect,
    /// An absolute-form target that is not under any public URL, or an authority-form one (RFC 9110
    /// section 7.4).
    #[error("the request is for another server")]
    Misdirected,
    /// The path holds characters that RFC 3986 does not allow.
    #[error("the path of the request is malformed")]
    NotRfc3986,
    /// The [`TargetResolver`] found none.
    #[error("the request does not say what it is for")]
    Unresolved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// A registered name or an IPv4 address, in lower case.
    Name(String),
    /// Compared as an address: RFC 3986 normalises its letters, but not its zeros.
    Ipv6(Ipv6Addr),
}

impl Origin {
    fn parse(scheme: &str, authority: &str) -> Option<Self> {
        let scheme = if scheme.eq_ignore_ascii_case("https") {
            Scheme::Https
        } else if scheme.eq_ignore_ascii_case("http") {
            Scheme::Http
        } else {
            return None;
        };
        // RFC 9110 section 4.2.4: userinfo is an error, even an empty one; `@` is in no host.
        let (host, port) = if let Some(literal) = authority.strip_prefix('[') {
            let (address, port) = literal.split_once(']')?;
            (Host::Ipv6(address.parse().ok()?), port)
        } else {
            let (name, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|octet| is_unreserved(octet) || is_sub_delimiter(octet));
            (
                is_name.then(|| Host::Name(name.to_ascii_lowercase()))?,
                port,
            )
        };
        let port = match (port.strip_prefix(':').unwrap_or(port), scheme) {
            ("", Scheme::Https) => 443,
            ("", Scheme::Http) => 80,
            (digits, _)
                if port.starts_with(':')
                    && !digits.starts_with('0')
                    && digits.bytes().all(|octet| octet.is_ascii_digit()) =>
            {
                digits.parse().ok()?
            }
            _ => return None,
        };
        Some(Self { scheme, host, port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = match self.scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        match &self.host {
            Host::Name(name) => write!(f, "{scheme}://{name}")?,
            Host::Ipv6(address) => write!(f, "{scheme}://[{address}]")?,
        }
        if self.port == default_port {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

struct NotAnHttpUrl;

/// An absolute URL, without query and fragment, into its origin and its path as written.
fn split(url: &str) -> Result<(Origin, &str), NotAnHttpUrl> {
    let (scheme, rest) = url.split_once("://").ok_or(NotAnHttpUrl)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let origin = Origin::parse(scheme, authority).ok_or(NotAnHttpUrl)?;
    Ok((origin, path))
}

/// RFC 3986 section 6.2.2: percent-encodings of unreserved characters decoded, the others in upper
/// case, then dot segments removed (section 5.2.4). An empty path is `/` (section 6.2.3). `None`
/// for what is not an absolute path by RFC 3986.
fn normalise_path(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len() + 1);
    let mut octets = path.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let high = char::from(octets.next()?).to_digit(16)?;
            let low = char::from(octets.next()?).to_digit(16)?;
            // Two hexadecimal digits are one octet.
            let value = u8::try_from(high * 16 + low).ok()?;
            if is_unreserved(value) {
                decoded.push(char::from(value));
            } else {
                decoded.push('%');
                decoded.extend(
                    [high, low]
                        .into_iter()
                        .filter_map(|digit| char::from_digit(digit, 16))
                        .map(|digit| digit.to_ascii_uppercase()),
                );
            }
        } else if is_unreserved(octet)
            || is_sub_delimiter(octet)
            || matches!(octet, b':' | b'@' | b'/')
        {
            decoded.push(char::from(octet));
        } else {
            return None;
        }
    }
    if decoded.is_empty() {
        return Some("/".to_owned());
    }
    if !decoded.starts_with('/') {
        return None;
    }
    Some(if decoded.contains("/.") {
        remove_dot_segments(&decoded)
    } else {
        decoded
    })
}

/// RFC 3986 section 5.2.4, for a path that starts with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut output = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    output.truncate(output.rfind('/').unwrap_or(0));
                }
                if last {
                    output.push('/');
                }
            }
            _ => {
                output.push('/');
                output.push_str(segment);
            }
        }
    }
    output
}

/// RFC 3986 section 2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"-._~".contains(&octet)
}

/// RFC 3986 section 2.2.
fn is_sub_delimiter(octet: u8) -> bool {
    b"!$&'()*+,;=".contains(&octet)
}
