//! The header fields that a CORS layer must name for scripts on other origins.

use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::credentials::DPOP;
use crate::proof::nonce::DPOP_NONCE;

/// The request header fields that a script must be allowed to send, for `Access-Control-Allow-Headers`:
/// `Authorization`, `DPoP`, and `Content-Type`, without which a script cannot send JSON. Add those of
/// your application.
///
/// A wildcard is not enough, because it does not cover `Authorization` ([Fetch section
/// 3.3.2](https://fetch.spec.whatwg.org/#http-access-control-allow-headers)).
///
/// # Example
///
/// ```
/// use std::time::Duration;
///
/// use axum::{Router, routing::post};
/// use http::{HeaderName, HeaderValue, Method};
/// use tower_dpop::resource::{cors_allow_headers, cors_expose_headers};
/// use tower_dpop::{DpopLayer, Verifier};
/// use tower_http::cors::CorsLayer;
///
/// fn app(verifier: Verifier) -> Router {
///     let mut allow = cors_allow_headers();
///     allow.push(HeaderName::from_static("idempotency-key")); // the application's own
///     let cors = CorsLayer::new()
///         .allow_origin(HeaderValue::from_static("https://app.example.com"))
///         .allow_methods([Method::POST])
///         .allow_headers(allow)
///         .expose_headers(cors_expose_headers())
///         .max_age(Duration::from_secs(600)); // without it, most requests have a preflight of their own
///     Router::new()
///         .route("/orders", post(async || "ordered"))
///         .route_layer(DpopLayer::new(verifier))
///         .layer(cors) // outside, around the whole router: preflights have no token
/// }
/// # let _ = app;
/// ```
pub fn cors_allow_headers() -> Vec<HeaderName> {
    vec![AUTHORIZATION, CONTENT_TYPE, DPOP]
}

/// The response header fields that a script must be allowed to read, for
/// `Access-Control-Expose-Headers`: `DPoP-Nonce` and `WWW-Authenticate` ([RFC 9449 section
/// 8](https://www.rfc-editor.org/rfc/rfc9449#section-8)), `Date`, by which a script on a device with a wrong clock
/// corrects the `iat` of its proofs, and `Retry-After`, which a 503 has. Add those of your application.
///
/// They are the same at a token endpoint. [`cors_allow_headers`] has an example.
pub fn cors_expose_headers() -> Vec<HeaderName> {
    vec![DATE, DPOP_NONCE, RETRY_AFTER, WWW_AUTHENTICATE]
}
