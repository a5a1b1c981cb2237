//! The target of a request, as its proof must name it.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, Method, Uri, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};

/// Two readers could see two targets, or two lengths: 400.
pub(super) const AMBIGUOUS: &str = "the request target or the length is ambiguous";

/// The target for the policy: in absolute-form, if an HTTP/1.1 client named an authority, which must then be that of a public
/// URL. Else in origin-form. `None`: [`AMBIGUOUS`].
///
/// pingora's URI has the path alone of an absolute-form, and `/` for what is no path. The authority of HTTP/2 is left out,
/// because proxies in front rewrite it, as they rewrite `Host`.
pub(super) fn target(request: &RequestHeader) -> Option<Uri> {
    if ![CONTENT_LENGTH, TRANSFER_ENCODING]
        .iter()
        .all(|name| is_single(request, name))
    {
        return None;
    }
    if request.version == Version::HTTP_2 {
        return request.uri.path_and_query().cloned().map(Uri::from);
    }
    // What is no UTF-8 has been replaced in the URI, not in what pingora sends.
    let raw = std::str::from_utf8(request.raw_path()).ok()?;
    let is_path = raw.starts_with('/') || (raw == "*" && request.method == Method::OPTIONS);
    match raw_target_authority(raw.as_bytes()) {
        RawTargetAuthority::None if is_path => Some(request.uri.clone()),
        RawTargetAuthority::Absolute { .. } => {
            let uri: Uri = raw.parse().ok()?;
            matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
        }
        RawTargetAuthority::AmbiguousAuthority | RawTargetAuthority::None => None,
    }
}

/// pingora accepts the same length twice, and `chunked` twice. It would pass on both lengths.
fn is_single(request: &RequestHeader, name: &HeaderName) -> bool {
    let mut fields = request.headers.get_all(name).iter();
    let first = fields.next();
    fields.next().is_none() && first.is_none_or(|value| !value.as_bytes().contains(&b','))
}
