//! JSON bodies for responses to rejected requests: problem details.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use serde_json::json;
use tower_layer::Layer;
use tower_service::Service;

use crate::resource::rejection::Rejection;

/// Gives the response to a rejected request a JSON body: problem details ([RFC
/// 9457](https://www.rfc-editor.org/rfc/rfc9457)), made from the [`Rejection`] in its extensions. It goes
/// outside the [`DpopLayer`](crate::DpopLayer), so that it also sees the rejections of inner layers and
/// handlers.
///
/// It wraps any service of `http` requests whose response body implements `From<String>`, such as
/// axum's `Body` and http-body-util's `Full<Bytes>`.
///
/// # Example
///
/// ```
/// use axum::{Router, routing::get};
/// use tower_dpop::resource::ProblemDetailsLayer;
/// use tower_dpop::{DpopLayer, Verifier};
///
/// fn app(verifier: Verifier) -> Router {
///     Router::new()
///         .route("/orders", get(async || "orders"))
///         .route_layer(DpopLayer::new(verifier))
///         .route_layer(ProblemDetailsLayer::new()) // the last one is the outermost
/// }
/// # let _ = app;
/// ```
///
/// ```text
/// HTTP/1.1 401 Unauthorized
/// WWW-Authenticate: DPoP error="invalid_token", error_description="the access token has expired", algs="ES256"
/// Content-Type: application/problem+json
///
/// {"detail":"the access token has expired","reason":"token_expired","status":401,"title":"Invalid access token",
///  "type":"https://docs.rs/tower-dpop/latest/tower_dpop/resource/struct.ProblemDetailsLayer.html#invalid_token"}
/// ```
///
/// | member | value |
/// |---|---|
/// | `type` | a URI for the error code: the address of its description below, or one of [your own](Self::with_type_prefix). `about:blank` if the challenge has no error code, because the status says everything ([section 4.2.1](https://www.rfc-editor.org/rfc/rfc9457#section-4.2.1)) |
/// | `title` | a name for the `type`, always the same one |
/// | `status` | the status of the response, a number |
/// | `detail` | the description that the challenge has, if it has one. It contains no request data |
/// | `reason` | [`Rejection::reason`]: the name in logs and metrics |
///
/// All header fields but `Content-Type` and `Content-Length` stay as they are. The response to a `HEAD` request
/// gets these two, and no body. All other responses are untouched: those without a [`Rejection`] (also in
/// report-only mode), and those that have a `Content-Type`, because they have a body already.
/// `Accept` is ignored: a client that does not read JSON has the status and the challenge.
///
/// The responses of a [`TokenEndpoint`](crate::token_endpoint) have another `Rejection` and need no
/// layer: [RFC 6749 section 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2) defines their JSON.
///
/// # Problem types
///
/// ## `insufficient_scope`
///
/// The access token is valid, but does not allow the request ([RFC 6750 section
/// 3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)). If the challenge has a `scope`, get a token
/// with it.
///
/// ## `insufficient_user_authentication`
///
/// The user was not authenticated as this request requires ([RFC 9470 section
/// 3](https://www.rfc-editor.org/rfc/rfc9470#section-3)). `acr_values` and `max_age` of the challenge say
/// what to ask the authorization server for.
///
/// ## `invalid_dpop_proof`
///
/// The DPoP proof is missing or not valid for this request ([RFC 9449 section
/// 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)). `detail` names the check that failed. Every
/// request needs a new proof, retries too.
///
/// ## `invalid_request`
///
/// The `Authorization` field is malformed, or there are several ([RFC 6750 section
/// 3.1](https://www.rfc-editor.org/rfc/rfc6750#section-3.1)).
///
/// ## `invalid_token`
///
/// The access token is not valid here, or not bound to the key that signed the proof ([RFC 9449 section
/// 7.1](https://www.rfc-editor.org/rfc/rfc9449#section-7.1)). Get another one.
///
/// ## `use_dpop_nonce`
///
/// The proof must contain the nonce in the `DPoP-Nonce` field of this response. Sign a new proof with it
/// and send the request again ([RFC 9449 section
/// 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)).
#[derive(Clone, Debug)]
pub struct ProblemDetailsLayer {
    type_prefix: Arc<str>,
}

/// Where the problem types are described.
const DESCRIPTIONS: &str =
    "https://docs.rs/tower-dpop/latest/tower_dpop/resource/struct.ProblemDetailsLayer.html#";

impl ProblemDetailsLayer {
    /// A layer whose types are URIs of this documentation.
    pub fn new() -> Self {
        Self {
            type_prefix: DESCRIPTIONS.into(),
        }
    }

    /// The beginning of your own URIs, which the error code is appended to. With
    /// `https://developer.example.com/problems#`, an invalid token is
    /// `https://developer.example.com/problems#invalid_token`. `about:blank` stays.
    #[must_use]
    pub fn with_type_prefix(self, prefix: &str) -> Self {
        Self {
            type_prefix: prefix.into(),
        }
    }
}

impl Default for ProblemDetailsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ProblemDetailsLayer {
    type Service = ProblemDetails<S>;

    fn layer(&self, inner: S) -> ProblemDetails<S> {
        ProblemDetails {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`ProblemDetailsLayer`] makes.
#[derive(Clone)]
pub struct ProblemDetails<S> {
    inner: S,
    layer: ProblemDetailsLayer,
}

impl<S, B, D> Service<Request<B>> for ProblemDetails<S>
where
    S: Service<Request<B>, Response = Response<D>>,
    D: From<String>,
{
    type Response = Response<D>;
    type Error = S::Error;
    type Future = ProblemDetailsFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ProblemDetailsFuture {
            layer: self.layer.clone(),
            body: match *request.method() {
                Method::HEAD => Body::Omitted,
                _ => Body::Sent,
            },
            future: self.inner.call(request),
        }
    }
}

#[derive(Clone, Copy)]
enum Body {
    Omitted,
    Sent,
}

impl ProblemDetailsLayer {
    fn describe<D: From<String>>(&self, response: &mut Response<D>, body: Body) {
        let Some(rejection) = response.extensions().get::<Rejection>() else {
            return;
        };
        if response.headers().contains_key(CONTENT_TYPE) {
            return;
        }
        let document = self.document(rejection, response.status());
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        // A layer in between, such as axum's `Router`, may have written the length of the empty body.
        headers.insert(CONTENT_LENGTH, document.len().into());
        if let Body::Sent = body {
            *response.body_mut() = document.into();
        }
    }

    fn document(&self, rejection: &Rejection, status: StatusCode) -> String {
        let phrase = status.canonical_reason().unwrap_or("Rejected");
        let (problem_type, title) = match rejection.error_code() {
            Some(code) => (
                format!("{}{code}", self.type_prefix),
                title(code).unwrap_or(phrase),
            ),
            // RFC 9457 section 4.2.1: the title is the phrase of the status.
            None => ("about:blank".to_owned(), phrase),
        };
        json!({
            "type": problem_type,
            "title": title,
            "status": status.as_u16(),
            "detail": rejection.description().to_string(),
            "reason": rejection.reason(),
        })
        .to_string()
    }
}

fn title(error_code: &str) -> Option<&'static str> {
    match error_code {
        "insufficient_scope" => Some("Insufficient scope"),
        "insufficient_user_authentication" => Some("Insufficient user authentication"),
        "invalid_dpop_proof" => Some("Invalid DPoP proof"),
        "invalid_request" => Some("Invalid request"),
        "invalid_token" => Some("Invalid access token"),
        "use_dpop_nonce" => Some("DPoP nonce required"),
        _ => None,
    }
}

pin_project! {
    /// The future of [`ProblemDetails`].
    pub struct ProblemDetailsFuture<F> {
        #[pin]
        future: F,
        layer: ProblemDetailsLayer,
        body: Body,
    }
}

impl<F, D, E> Future for ProblemDetailsFuture<F>
where
    F: Future<Output = Result<Response<D>, E>>,
    D: From<String>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let projected = self.project();
        let mut response = ready!(projected.future.poll(context))?;
        projected.layer.describe(&mut response, *projected.body);
        Poll::Ready(Ok(response))
    }
}

impl<S> fmt::Debug for ProblemDetails<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProblemDetails")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ProblemDetailsFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProblemDetailsFuture(..)")
    }
}
