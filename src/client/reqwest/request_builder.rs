//! Requests, built as with reqwest.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{IntoUrl, RequestBuilder};
use serde::Serialize;

use crate::client::reqwest::dpop_client::DpopClient;
use crate::client::reqwest::error::DpopClientError;

impl DpopClient {
    /// Starts a request with this method.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> DpopRequestBuilder {
        DpopRequestBuilder {
            request: self.http.0.request(method, url),
            client: self.clone(),
        }
    }

    /// Starts a GET request.
    pub fn get(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::GET, url)
    }

    /// Starts a POST request.
    pub fn post(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::POST, url)
    }

    /// Starts a PUT request.
    pub fn put(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Starts a PATCH request.
    pub fn patch(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Starts a DELETE request.
    pub fn delete(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Starts a HEAD request.
    pub fn head(&self, url: impl IntoUrl) -> DpopRequestBuilder {
        self.request(Method::HEAD, url)
    }
}

/// A request of a [`DpopClient`], built as with reqwest. (Feature `reqwest`.)
///
/// [`with`](Self::with) gives access to the other methods of [`reqwest::RequestBuilder`].
///
/// # Example
///
/// ```no_run
/// use tower_dpop::client::DpopClient;
///
/// # async fn example(client: DpopClient) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let response = client
///     .post("https://api.example.com/orders")
///     .header("idempotency-key", "5f0c")
///     .json(&["one", "two"])
///     .send()
///     .await?;
///
/// // reqwest has its own features for some methods, for example `query`.
/// let response = client
///     .get("https://api.example.com/orders")
///     .with(|request| request.version(reqwest::Version::HTTP_11))
///     .send()
///     .await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request is sent by `send`"]
pub struct DpopRequestBuilder {
    client: DpopClient,
    request: RequestBuilder,
}

impl DpopRequestBuilder {
    /// Applies a function of reqwest's builder.
    pub fn with(self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        Self {
            request: change(self.request),
            ..self
        }
    }

    /// Adds a header field. `Authorization` and `DPoP` are replaced when the request is sent.
    pub fn header<N, V>(self, name: N, value: V) -> Self
    where
        HeaderName: TryFrom<N>,
        <HeaderName as TryFrom<N>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.with(|request| request.header(name, value))
    }

    /// Sets these header fields, and replaces those of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|request| request.headers(headers))
    }

    /// Sets the body. A stream cannot be sent again: see [`execute`](DpopClient::execute).
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.with(|request| request.body(body))
    }

    /// Sets the body to the JSON of this value.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Self {
        self.with(|request| request.json(value))
    }

    /// Limits the time of each attempt, including its response. The time for a new token is not included.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|request| request.timeout(timeout))
    }

    /// Sends the request, as [`execute`](DpopClient::execute) does.
    pub async fn send(self) -> Result<reqwest::Response, DpopClientError> {
        let request = self
            .request
            .build()
            .map_err(|error| DpopClientError::InvalidRequest(error.without_url()))?;
        self.client.execute(request).await
    }
}

impl fmt::Debug for DpopRequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DpopRequestBuilder(..)")
    }
}
