//! Requests to issuers: over which connections, for how long, and how large a response may be.
//!
//! An issuer's documents decide which tokens are accepted. They are therefore read over `https` (or
//! from this machine), from the configured place, complete and in time, or not at all.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "introspection")]
use http::header::CONTENT_TYPE;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderMap};
use http::{HeaderValue, StatusCode};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Proxy, RequestBuilder, Response, Url};

use crate::issuer::endpoint_url::EndpointUrl;

/// The HTTP client of [`RemoteKeys`](crate::RemoteKeys) and introspection. Clones share their
/// connections.
///
/// TLS is rustls. It uses the process's default `CryptoProvider` if one is installed and AWS-LC
/// otherwise, regardless of the engine with which this crate verifies, and the roots of the
/// operating system, read once. Redirects are followed only within one origin, at most three.
/// Proxies from environment variables are not used. Responses are not decompressed: requests ask for none
/// (`Accept-Encoding: identity`), and a response with another content coding is an error.
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
    authorization: Option<Authorization>,
}

/// The `Authorization` of the requests to one origin.
#[derive(Clone)]
struct Authorization {
    /// A URL of the origin.
    place: Url,
    value: Arc<dyn Fn() -> io::Result<String> + Send + Sync>,
}

impl Authorization {
    fn covers(&self, url: &Url) -> bool {
        self.place.origin() == url.origin()
    }

    /// The value at this moment. Errors show nothing of it.
    fn value(&self) -> Result<HeaderValue, FetchError> {
        let unavailable = |reason: &dyn fmt::Display| {
            FetchError::Transport(format!("no authorization: {reason}"))
        };
        let value = (self.value)().map_err(|error| unavailable(&error))?;
        value
            .trim()
            .parse()
            .map_err(|_| unavailable(&"not the value of a header field"))
    }
}

impl HttpClient {
    /// A client with the default settings.
    pub fn new() -> Result<Self, HttpClientError> {
        Self::builder().build()
    }

    /// A builder for a client with settings of your own.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            timeout: Duration::from_secs(5),
            roots: Vec::new(),
            proxy: None,
            authorization: None,
        }
    }

    /// A client over these connections, whose requests take at most this long.
    #[cfg(feature = "reqwest")]
    pub(crate) const fn over(client: Client, timeout: Duration) -> Self {
        Self {
            client,
            timeout,
            authorization: None,
        }
    }

    /// How long a whole exchange may take.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Fetches a JSON document of at most this many bytes, of one of these media types.
    #[cfg(any(feature = "jwks", feature = "reqwest"))]
    pub(crate) async fn get(
        &self,
        url: &Url,
        media_types: &'static str,
        max: usize,
    ) -> Result<HttpResponse, FetchError> {
        let request = self
            .client
            .get(url.clone())
            .timeout(self.timeout)
            .header(ACCEPT, media_types);
        let authorization = self.authorization_for(url)?;
        fetch(request, authorization, &[StatusCode::OK], max).await
    }

    /// Sends a form, and reads a document of this media type and of at most this many bytes. An authorization of the
    /// form's own goes before that of the origin.
    #[cfg(feature = "introspection")]
    pub(crate) async fn post(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        accept: &'static str,
        form: String,
        max: usize,
    ) -> Result<HttpResponse, FetchError> {
        let authorization = match authorization {
            Some(own) => Some(own),
            None => self.authorization_for(url)?,
        };
        let request = self
            .client
            .post(url.clone())
            .header(ACCEPT, HeaderValue::from_static(accept))
            .header(CONTENT_TYPE, FORM)
            .body(form);
        let understood = [StatusCode::OK, StatusCode::BAD_REQUEST];
        fetch(request, authorization, &understood, max).await
    }

    fn authorization_for(&self, url: &Url) -> Result<Option<HeaderValue>, FetchError> {
        let authorization = self.authorization.as_ref();
        authorization
            .filter(|authorization| authorization.covers(url))
            .map(Authorization::value)
            .transpose()
    }
}

/// The media type of every document but key sets and signed introspection responses.
#[cfg(feature = "introspection")]
pub(crate) const JSON: &str = "application/json";

/// `understood`: the statuses whose body the caller reads. With any other, the status is the error.
async fn fetch(
    mut request: RequestBuilder,
    authorization: Option<HeaderValue>,
    understood: &[StatusCode],
    max: usize,
) -> Result<HttpResponse, FetchError> {
    if let Some(mut authorization) = authorization {
        authorization.set_sensitive(true);
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request.header(ACCEPT_ENCODING, IDENTITY);
    let response = request.send().await.map_err(|error| failed(&error))?;
    read(response, understood, max).await
}

#[cfg(any(feature = "introspection", feature = "reqwest"))]
pub(crate) const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
/// The content coding that every request asks for.
pub(crate) const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Reads a response of at most this many bytes.
pub(crate) async fn read(
    mut response: Response,
    understood: &[StatusCode],
    max: usize,
) -> Result<HttpResponse, FetchError> {
    if understood.contains(&response.status())
        && let Some(coding) = content_coding(response.headers())
    {
        return Err(FetchError::Encoded(coding));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > max {
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

/// The content coding of a response, if it is not `identity`. At most 64 characters of it: any server may have sent
/// the response.
fn content_coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let codings: Vec<_> = codings
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let is_identity = |coding: &str| {
        let coding = coding.trim();
        coding.is_empty() || coding.eq_ignore_ascii_case("identity")
    };
    if codings
        .iter()
        .flat_map(|value| value.split(','))
        .all(is_identity)
    {
        return None;
    }
    Some(codings.join(", ").chars().take(64).collect())
}

/// The error for the log, with its causes and without the URL.
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
        String::from("no complete response")
    };
    text.push_str(&causes(error));
    FetchError::Transport(text)
}

/// The causes of the error, each preceded by a colon.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// RFC 8414, RFC 7517 and RFC 7662 define no redirects; those within one origin are harmless, unless they would take
/// an authorization to another path.
fn within_one_origin(
    attempt: Attempt<'_>,
    authorization: Option<&Authorization>,
) -> reqwest::redirect::Action {
    let same_origin = attempt
        .previous()
        .last()
        .is_some_and(|from| from.origin() == attempt.url().origin());
    let authorized = authorization.is_some_and(|authorization| authorization.covers(attempt.url()));
    if same_origin && !authorized && attempt.previous().len() <= 3 {
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

/// A response of an issuer. Its format has not been checked.
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    #[cfg_attr(
        not(feature = "jwks"),
        allow(dead_code, reason = "Cache-Control of keys")
    )]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Why there is no response. For logs, not for clients.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(
        "the response has the content coding {0:?}, although the request asks for none (Accept-Encoding: identity): \
         switch compression off for this URL, at the server or at the proxy in front of it"
    )]
    Encoded(String),
    #[error(
        "redirected to another origin, or too many times, or from an origin that requires an authorization"
    )]
    Redirected,
    #[error("the response took too long")]
    TimedOut,
    #[error("the response is too long")]
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
    authorization: Option<Authorization>,
}

impl HttpClientBuilder {
    /// How long a whole exchange may take, including the connection. The default is 5 s, because
    /// requests to your service may be waiting for it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Trusts these root certificates (PEM, one or more) in addition to the system's.
    pub fn add_root_certificates_pem(mut self, pem: &[u8]) -> Result<Self, HttpClientError> {
        let roots = Certificate::from_pem_bundle(pem).map_err(|_| HttpClientError::Certificate)?;
        if roots.is_empty() {
            return Err(HttpClientError::Certificate);
        }
        self.roots.extend(roots);
        Ok(self)
    }

    /// Sends requests through an HTTP proxy (`http://host:port`).
    pub fn with_proxy(mut self, proxy: &str) -> Result<Self, HttpClientError> {
        let url = Url::parse(proxy).map_err(|_| HttpClientError::Proxy)?;
        // reqwest silently bypasses a proxy of a kind that it does not know.
        if !matches!(url.scheme(), "http" | "https") {
            return Err(HttpClientError::Proxy);
        }
        self.proxy = Some(Proxy::all(url).map_err(|_| HttpClientError::Proxy)?);
        Ok(self)
    }

    /// Sends an `Authorization` header field with every request to the origin (scheme, host and port) of this URL, for
    /// keys that are not public. An introspection request with [`basic`](crate::tokens::ClientAuthentication::basic)
    /// authentication keeps its own.
    ///
    /// The function is called for each request, so the value can change. It should return quickly. If it fails, so does
    /// the request, and the log shows the error.
    ///
    /// # Example
    ///
    /// The keys of a Kubernetes cluster, which replaces the token of a pod every hour:
    ///
    /// ```no_run
    /// use std::fs;
    /// use tower_dpop::RemoteKeys;
    /// use tower_dpop::tokens::{EndpointUrl, HttpClient};
    ///
    /// let mounted = "/var/run/secrets/kubernetes.io/serviceaccount";
    /// let keys: EndpointUrl = "https://kubernetes.default.svc/openid/v1/jwks".parse()?;
    /// let http = HttpClient::builder()
    ///     .add_root_certificates_pem(&fs::read(format!("{mounted}/ca.crt"))?)?
    ///     .with_authorization(&keys, move || {
    ///         let token = fs::read_to_string(format!("{mounted}/token"))?;
    ///         Ok(format!("Bearer {token}"))
    ///     })
    ///     .build()?;
    /// let keys = RemoteKeys::at(keys, http);
    /// # let _ = keys;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Security
    ///
    /// No other origin gets the value, and no log or `Debug` shows it. Requests to this origin follow no redirect. If
    /// the URL is plain `http` ([`EndpointUrl::insecure_http`]), anyone on the way can read the value.
    #[must_use]
    pub fn with_authorization(
        mut self,
        origin: &EndpointUrl,
        value: impl Fn() -> io::Result<String> + Send + Sync + 'static,
    ) -> Self {
        self.authorization = Some(Authorization {
            place: origin.url().clone(),
            value: Arc::new(value),
        });
        self
    }

    /// Builds the client.
    pub fn build(self) -> Result<HttpClient, HttpClientError> {
        let authorization = self.authorization.clone();
        let policy =
            Policy::custom(move |attempt| within_one_origin(attempt, authorization.as_ref()));
        let mut builder = Client::builder()
            .no_proxy()
            .timeout(self.timeout)
            .redirect(policy)
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
            authorization: self.authorization,
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

/// Why an [`HttpClient`] could not be built. A configuration error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// The text contains no certificates in PEM.
    #[error("not root certificates in PEM")]
    Certificate,
    /// The proxy is not a URL of the form `http://host[:port]`.
    #[error("not the URL of a proxy")]
    Proxy,
    /// TLS cannot be set up, for this reason. For example, the system has no root certificates (a
    /// container without the package `ca-certificates`).
    #[error("TLS could not be set up{0}")]
    Tls(String),
}
