//! The expected values of `htm` and `htu`: the target of a request behind a public URL.
//!
//! The expected URL comes from configuration, never from the request: a stolen token and proof,
//! replayed here with `Host: the-other-server`, would be accepted by a server that trusted
//! `Host`. `Host`, `:authority`, `Forwarded` and `X-Forwarded-*` are not read at all.
//!
//! Both sides are normalised according to RFC 3986 (`uri.rs`).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Uri, Version};

use crate::proof::public_url::PublicUrl;
use crate::uri::{InvalidHttpUrl, Origin, PathSyntax, normalise_path, split};

/// The method and URI that a request's proof must name, before normalisation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestTarget {
    /// The expected `htm`.
    pub method: Method,
    /// The target as the client sent it. Only its path is used: scheme, host and port come from the
    /// public URLs.
    pub uri: Uri,
}

impl RequestTarget {
    /// A target with this method and URI.
    pub const fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri }
    }
}

/// Finds the method and URI of the original request, if they differ from those of the received
/// request.
///
/// Implement it for forward authentication, where a proxy describes the original request in its own
/// header fields (`X-Original-Method`, `X-Original-URI`), and for routers that rewrite URIs without
/// axum's `OriginalUri`.
///
/// # Security
///
/// The returned target decides what a proof must name. Take it only from fields that the proxy sets
/// on every request, never from fields that a client could send through the proxy. The scheme, host
/// and port still come from the configured [`PublicUrl`]s.
///
/// # Example
///
/// A closure is a resolver. This one is for nginx's `auth_request`, with a configuration that sets both fields:
///
/// ```
/// use http::request::Parts;
/// use tower_dpop::ProofRules;
/// use tower_dpop::proof::RequestTarget;
///
/// fn original(request: &Parts) -> Option<RequestTarget> {
///     let field = |name| request.headers.get(name)?.to_str().ok();
///     Some(RequestTarget::new(field("x-original-method")?.parse().ok()?, field("x-original-uri")?.parse().ok()?))
/// }
///
/// let rules = ProofRules::new("https://api.example.com".parse()?).with_target_resolver(original);
/// # let _ = rules;
/// # Ok::<(), tower_dpop::proof::InvalidPublicUrl>(())
/// ```
pub trait TargetResolver: Send + Sync {
    /// Returns the target, or `None` if the request does not contain one, which rejects the request.
    fn resolve(&self, request: &Parts) -> Option<RequestTarget>;
}

impl<F: Fn(&Parts) -> Option<RequestTarget> + Send + Sync> TargetResolver for F {
    fn resolve(&self, request: &Parts) -> Option<RequestTarget> {
        self(request)
    }
}

/// The allow-list of public URLs, and how to find a request's target.
#[derive(Clone)]
pub(crate) struct Targets {
    public_urls: Vec<PublicUrl>,
    resolver: Option<Arc<dyn TargetResolver>>,
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.public_urls.iter().map(ToString::to_string);
        f.debug_list().entries(urls).finish()
    }
}

impl fmt::Display for Targets {
    /// The public URLs, separated by spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.public_urls.iter().map(ToString::to_string).collect();
        f.write_str(&urls.join(" "))
    }
}

impl Targets {
    pub(crate) fn new(public_url: PublicUrl) -> Self {
        Self {
            public_urls: vec![public_url],
            resolver: None,
        }
    }

    /// The first public URL.
    pub(crate) fn public_url(&self) -> &PublicUrl {
        &self.public_urls[0]
    }

    /// Whether a token that is sent to one of the public URLs can be read on the way.
    pub(crate) fn are_insecure(&self) -> bool {
        !self
            .public_urls
            .iter()
            .all(|url| url.origin.is_https_or_loopback())
    }

    /// The method that proofs of this request must name, unless only a resolver knows it.
    pub(crate) fn received_method<'m>(&self, method: &'m Method) -> Option<&'m Method> {
        self.resolver.is_none().then_some(method)
    }

    pub(crate) fn replace(&mut self, public_url: PublicUrl) {
        *self = Self::new(public_url);
    }

    pub(crate) fn add(&mut self, public_url: PublicUrl) {
        self.public_urls.push(public_url);
    }

    pub(crate) fn resolve_with(&mut self, resolver: Arc<dyn TargetResolver>) {
        self.resolver = Some(resolver);
    }

    /// The target that the proof of this request must name.
    pub(crate) fn of<'t>(&'t self, request: &'t Parts) -> Result<Target<'t>, TargetError> {
        let public_urls = &self.public_urls;
        if let Some(resolver) = &self.resolver {
            let RequestTarget { method, uri } =
                resolver.resolve(request).ok_or(TargetError::Unresolved)?;
            let path = Path::of(&method, &uri)?.into_owned();
            return Ok(Target {
                method,
                public_urls,
                named: None,
                path,
            });
        }
        // RFC 9112 section 3.2.3: it opens a tunnel, whatever the form of its target. Only HTTP/2 and later have
        // the extended CONNECT (RFC 8441), which addresses a resource.
        if request.method == Method::CONNECT && request.version < Version::HTTP_2 {
            return Err(TargetError::Connect);
        }
        let uri = original_uri(request);
        let path = Path::of(&request.method, uri)?;
        // RFC 9112 section 3.2.2: an absolute-form names the target itself. HTTP/2 and later always
        // have an authority, which gateways rewrite; it is not trusted.
        let named = if request.version < Version::HTTP_2 {
            self.origin_named_by(uri)?
        } else {
            None
        };
        Ok(Target {
            method: request.method.clone(),
            public_urls,
            named,
            path,
        })
    }

    fn origin_named_by<'u>(&self, uri: &'u Uri) -> Result<Option<Origin<'u>>, TargetError> {
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Ok(None);
        };
        let origin = Origin::parse(scheme, authority.as_str()).ok_or(TargetError::Misdirected)?;
        if self.public_urls.iter().any(|url| url.origin == origin) {
            Ok(Some(origin))
        } else {
            Err(TargetError::Misdirected)
        }
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

/// The target that the proof of one request must name with `htm` and `htu`.
pub(crate) struct Target<'t> {
    method: Method,
    public_urls: &'t [PublicUrl],
    /// The origin that the request itself named, if any: one of the allowed origins.
    named: Option<Origin<'t>>,
    path: Path<'t>,
}

enum Path<'t> {
    /// `OPTIONS *`: its URI has an empty path, which is not `/` (RFC 9110 section 4.2.3).
    Asterisk,
    Normal(Cow<'t, str>),
}

impl<'t> Path<'t> {
    fn of(method: &Method, uri: &'t Uri) -> Result<Self, TargetError> {
        if *method == Method::CONNECT && uri.scheme().is_none() {
            Err(TargetError::Connect)
        } else if uri.scheme().is_none() && uri.authority().is_some() {
            // RFC 9112 section 3.2.3: the authority alone is for CONNECT only.
            Err(TargetError::Misdirected)
        } else if *method == Method::OPTIONS && uri.path() == "*" {
            // RFC 9112 section 3.2.4: the asterisk is for OPTIONS only.
            Ok(Self::Asterisk)
        } else {
            let path =
                normalise_path(uri.path(), PathSyntax::AsSent).ok_or(TargetError::NotRfc3986)?;
            Ok(Self::Normal(path))
        }
    }

    fn into_owned(self) -> Path<'static> {
        match self {
            Self::Asterisk => Path::Asterisk,
            Self::Normal(path) => Path::Normal(path.into_owned().into()),
        }
    }
}

impl Target<'_> {
    pub(crate) const fn method(&self) -> &Method {
        &self.method
    }

    /// RFC 9449 section 4.3, check 8: an exact match, as methods are case-sensitive (RFC 9110 section 9.1).
    pub(crate) fn is_method(&self, htm: &str) -> bool {
        self.method.as_str() == htm
    }

    /// RFC 9449 section 4.3, check 9.
    pub(crate) fn check_url(&self, htu: &str) -> Result<(), UrlMismatch> {
        // Nearly every client sends the normal form, which needs no parsing.
        if self.urls().any(|url| self.is_normal_form(url, htu)) {
            return Ok(());
        }
        let without_fragment = htu.split_once('#').map_or(htu, |(before, _)| before);
        let without_query = without_fragment
            .split_once('?')
            .map_or(without_fragment, |(before, _)| before);
        let (origin, path) =
            split(without_query).map_err(|InvalidHttpUrl| UrlMismatch::Malformed)?;
        let normalised = normalise_path(path, PathSyntax::AsSent).ok_or(UrlMismatch::Malformed)?;
        let mut nearest = UrlMismatch::Scheme;
        for url in self.urls() {
            match self.compare(url, &origin, path, &normalised) {
                Ok(()) => return Ok(()),
                Err(mismatch) => nearest = nearest.max(mismatch),
            }
        }
        Err(nearest)
    }

    /// The public URLs that the request can be for.
    fn urls(&self) -> impl Iterator<Item = &PublicUrl> {
        let may_be =
            |url: &&PublicUrl| self.named.as_ref().is_none_or(|named| *named == url.origin);
        self.public_urls.iter().filter(may_be)
    }

    fn is_normal_form(&self, url: &PublicUrl, htu: &str) -> bool {
        match &self.path {
            Path::Asterisk => false,
            Path::Normal(path) => htu.strip_prefix(url.text.as_str()) == Some(path),
        }
    }

    fn compare(
        &self,
        url: &PublicUrl,
        origin: &Origin<'_>,
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
        match &self.path {
            _ if same => Ok(()),
            Path::Normal(expected) if differ_in_prefix(normalised, expected) => {
                Err(UrlMismatch::PathPrefix)
            }
            _ => Err(UrlMismatch::Path),
        }
    }
}

/// Whether one path is the end of the other, apart from slashes at its start.
fn differ_in_prefix(one: &str, other: &str) -> bool {
    let is_end_of = |end: &str, path: &str| {
        let end = end.trim_start_matches('/');
        let before = path.strip_suffix(end).filter(|_| !end.is_empty());
        before.is_some_and(|before| before.ends_with('/'))
    };
    is_end_of(one, other) || is_end_of(other, one)
}

/// The first part in which `htu` differs from the closest public URL (RFC 9449 section 4.3, check 9).
///
/// The variants are in the order of comparison: a later variant is a closer match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum UrlMismatch {
    /// Not an absolute `http` or `https` URL according to RFC 3986, or a URL with userinfo.
    Malformed,
    /// `http` instead of `https`, or the reverse.
    Scheme,
    /// Another host.
    Host,
    /// Another port.
    Port,
    /// Another path.
    Path,
    /// Another path with the same end: a proxy may strip or add a prefix.
    PathPrefix,
}

/// Why a request has no target that a proof could name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A plain CONNECT, which opens a tunnel and addresses no resource: every CONNECT below HTTP/2, and one without
    /// `:scheme` and `:path`.
    #[error("a CONNECT request has no target URL")]
    Connect,
    /// An absolute-form target whose origin is not that of a public URL, or an authority-form
    /// target (RFC 9110 section 7.4).
    #[error("the request is for another server")]
    Misdirected,
    /// The path contains a character that is not visible ASCII: clients percent-encode it.
    #[error("the path of the request is malformed")]
    NotRfc3986,
    /// The [`TargetResolver`] returned no target.
    #[error("the request has no target URL")]
    Unresolved,
}

impl TargetError {
    /// A name for the reason, for metrics and logs: one of a fixed set.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Connect => "target_connect",
            Self::Misdirected => "target_misdirected",
            Self::NotRfc3986 => "target_not_rfc3986",
            Self::Unresolved => "target_unresolved",
        }
    }
}
