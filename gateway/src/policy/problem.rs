//! Problem details for the gateway's own responses. The layers make theirs.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

/// A response with a problem (RFC 9457) as its body, in the form of those of `tower_dpop`. The reason is a name from a fixed
/// set; the detail is a sentence without anything of the request.
pub(crate) fn problem(status: StatusCode, reason: &'static str, detail: &str) -> Response<String> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Rejected"),
        "status": status.as_u16(),
        "detail": detail,
        "reason": reason,
    });
    let mut response = Response::new(body.to_string());
    *response.status_mut() = status;
    let problem = HeaderValue::from_static("application/problem+json");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, problem);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
