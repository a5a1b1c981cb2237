//! Requests of our own to issuers: where to, how long, how much.
//!
//! An issuer's documents decide who may pass, so they come over `https` (or from this machine), from
//! the place that was configured, whole and soon, or not at all.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap};
#[cfg(feature = "introspection")]
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Proxy, RequestBuilder, Url};

/// The client that [`RemoteKeys`](crate::RemoteKeys) and introspection ask with. Clones share
/// their connections.
///
/// TLS is rustls, with the process's default `CryptoProvider` if one is installed and AWS-LC
/// otherwise, whichever engine of this crate verifies, and with the roots of the operating system,
/// read once. Redirects are followed within one origin
/// only, three at most. Proxies named by environment variables are not used.
///
/// # Example
///
/// ```no_run
/// use std::time::Duration;
/// use tower_dpop::tokens::HttpClient;
///
/// let plain = HttpClient::new()?; // 5 s for a request, the system's roots
///
/// let within_the_bank = HttpClient::builder()
///     .with_timeout(Duration::from_secs(2))
///     .add_root_certificates_pem(&std::fs::read("/etc/bank/root.pem")?)?
///     .with_proxy("http://proxy.internal:3128")?
///     .build()?;
/// # let _ = (plain, within_the_bank);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
    timeout: Duration,
}

impl HttpClient {
    /// A client with every default.
    pub fn new() -> Result<Self, HttpClientError> {
        Self::builder().build()
    }

    /// A client with settings of your own.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            timeout: Duration::from_secs(5),
            roots: Vec::new(),
            proxy: None,
        }
    }

    /// How long a whole exchange may take.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks for a JSON document of at most this many octets.
    #[cfg(feature = "jwks")]
    pub(crate) async fn get(&self, url: &Url, most: usize) -> Result<HttpResponse, FetchError> {
        fetch(self.client.get(url.clone()), most).await
    }

    /// Sends a form, and reads a JSON document of at most this many octets.
    #[cfg(feature = "introspection")]
    pub(crate) async fn post(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        form: String,
        most: usize,
    ) -> Result<HttpResponse, FetchError> {
        let mut request = self
            .client
            .post(url.clone())
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-www-form-urlencoded"),
            )
            .body(form);
        if let Some(mut authorization) = authorization {
            authorization.set_sensitive(true);
            request = request.header(AUTHORIZATION, authorization);
        }
        fetch(request, most).await
    }
}

async fn fetch(request: RequestBuilder, most: usize) -> Result<HttpResponse, FetchError> {
    let request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
    let mut response = request.send().await.map_err(|error| failed(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > most {
            return Err(FetchError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpResponse {
        status: response.status(),
        headers: std::mem::take(response.headers_mut()),
        body,
    })
}

/// What was wrong, for the log, with its causes and without the URL.
fn failed(error: &reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::TimedOut;
    }
    if error.is_redirect() {
        return FetchError::Redirected;
    }
    let mut text = if error.is_connect() {
        String::from("no connection")
    } else {
        String::from("no whole answer")
    };
    text.push_str(&causes(error));
    FetchError::Transport(text)
}

/// Each with a colon before it.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// RFC 8414, RFC 7517 and RFC 7662 know no redirects; those within one origin harm nobody.
fn within_one_origin(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let same_origin = attempt
        .previous()
        .last()
        .is_some_and(|from| from.origin() == attempt.url().origin());
    if same_origin && attempt.previous().len() <= 3 {
        attempt.follow()
    } else {
        attempt.error("not followed")
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient(..)")
    }
}

/// What an issuer answered. Nothing is said of its form.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    #[cfg_attr(
        not(feature = "jwks"),
        allow(dead_code, reason = "Cache-Control of keys")
    )]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer. For logs: it is told to nobody else.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("redirected to another origin, or too often")]
    Redirected,
    #[error("the answer took too long")]
    TimedOut,
    #[error("the answer is too long")]
    TooLong,
    #[error("{0}")]
    Transport(String),
}

/// The settings of an [`HttpClient`].
#[derive(Clone)]
pub struct HttpClientBuilder {
    timeout: Duration,
    roots: Vec<Certificate>,
    proxy: Option<Proxy>,
}

impl HttpClientBuilder {
    /// How long a whole exchange may take, connection included. The default is 5 s: requests to
    /// your service may be waiting for it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Trusts these root certificates (PEM, one or more) as well as the system's.
    pub fn add_root_certificates_pem(mut self, pem: &[u8]) -> Result<Self, HttpClientError> {
        let roots = Certificate::from_pem_bundle(pem).map_err(|_| HttpClientError::Certificate)?;
        if roots.is_empty() {
            return Err(HttpClientError::Certificate);
        }
        self.roots.extend(roots);
        Ok(self)
    }

    /// Asks through an HTTP proxy (`http://host:port`).
    pub fn with_proxy(mut self, proxy: &str) -> Result<Self, HttpClientError> {
        let url = Url::parse(proxy).map_err(|_| HttpClientError::Proxy)?;
        // A proxy of a kind that it does not know, reqwest passes by without a word.
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpClientError::Proxy);
        }
        self.proxy = Some(Proxy::all(url).map_err(|_| HttpClientError::Proxy)?);
        Ok(self)
    }

    /// The client.
    pub fn build(self) -> Result<HttpClient, HttpClientError> {
        let mut builder = Client::builder()
            .no_proxy()
            .timeout(self.timeout)
            .redirect(Policy::custom(within_one_origin))
            .tls_certs_merge(self.roots)
            .user_agent(concat!("tower-dpop/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = self.proxy {
            builder = builder.proxy(proxy);
        }
        let client = builder
            .build()
            .map_err(|error| HttpClientError::Tls(causes(&error)))?;
        Ok(HttpClient {
            client,
            timeout: self.timeout,
        })
    }
}

impl fmt::Debug for HttpClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientBuilder")
            .field("timeout", &self.timeout)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// Why there is no [`HttpClient`]. The deployer's mistake, seen at start-up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// The text holds no certificates in PEM.
    #[error("not root certificates in PEM")]
    Certificate,
    /// The proxy is not a URL of the form `http://host[:port]`.
    #[error("not the URL of a proxy")]
    Proxy,
    /// TLS cannot be set up, for this reason: the system has no root certificates, for one (a
    /// container without the package `ca-certificates`).
    #[error("TLS could not be set up{0}")]
    Tls(String),
}

/// The URL of an issuer, or of an endpoint of one: `https`, or `http` on this machine.
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

/// Where `http` may be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Everywhere,
    OnLoopback,
}

impl EndpointUrl {
    /// A URL that may say `http` wherever it is.
    ///
    /// # Security
    ///
    /// Whoever stands between can hand out keys of their own, and then tokens for anyone.
    pub fn insecure_http(url: &str) -> Result<Self, InvalidEndpointUrl> {
        Self::parse(url, PlainHttp::Everywhere)
    }

    /// The URL as it was given, character by character: what an issuer is compared by.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// Where the documents of this place may send us. They cannot ask for less than the place
    /// itself has: behind `https`, everything is `https`.
    #[cfg(feature = "jwks")]
    pub(crate) fn refers_to(&self, url: &str) -> Result<Url, InvalidEndpointUrl> {
        let referred = Self::parse(url, self.plain)?;
        if self.url.scheme() == "https" && referred.url.scheme() != "https" {
            Err(InvalidEndpointUrl::NotHttps)
        } else {
            Ok(referred.url)
        }
    }

    fn parse(text: &str, plain: PlainHttp) -> Result<Self, InvalidEndpointUrl> {
        // The parser is a browser's: it mends what nobody should have written, and the text that an
        // issuer is compared by would not be the place that is asked.
        let is_absolute = text.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.chars().all(|c| c.is_ascii_alphabetic()) && !rest.starts_with('/')
        });
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if !is_absolute
            || authority.contains(['@', '%'])
            || text.contains(|c: char| !c.is_ascii_graphic() || c == '\\')
        {
            return Err(InvalidEndpointUrl::Malformed);
        }
        let url = Url::parse(text).map_err(|_| InvalidEndpointUrl::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(InvalidEndpointUrl::Malformed);
        }
        let may_be_plain = plain == PlainHttp::Everywhere || is_loopback(&url);
        match url.scheme() {
            "https" => {}
            "http" if may_be_plain => {}
            "http" => return Err(InvalidEndpointUrl::NotHttps),
            _ => return Err(InvalidEndpointUrl::Malformed),
        }
        Ok(Self {
            text: text.to_owned(),
            url,
            plain,
        })
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || address
                .parse()
                .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    })
}

impl FromStr for EndpointUrl {
    type Err = InvalidEndpointUrl;

    fn from_str(url: &str) -> Result<Self, InvalidEndpointUrl> {
        Self::parse(url, PlainHttp::OnLoopback)
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

/// Why a text is not an [`EndpointUrl`]. The deployer's mistake, seen at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEndpointUrl {
    /// Not an absolute `http` or `https` URL, or one with userinfo or a fragment.
    #[error("not an absolute URL of the form https://host[:port][/path]")]
    Malformed,
    /// The scheme is `http`, and the host is not this machine.
    #[error("the URL must be https, or http on this machine")]
    NotHttps,
}
