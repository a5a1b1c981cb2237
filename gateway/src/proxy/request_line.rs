//! The target of a request: what the policy decides about, and what the service gets.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Uri, Version};
use pingora::http::RequestHeader;
use pingora::protocols::http::authority::{RawTargetAuthority, raw_target_authority};

/// Two readers could see two requests in it, or two targets: 400.
#[derive(Debug)]
pub(crate) struct Ambiguous;

/// The target that the proof must name: in absolute-form, if an HTTP/1.1 client named an authority, else in origin-form.
///
/// pingora keeps the path alone of an absolute-form, and takes a target that is no path for `/`. The authority of HTTP/2 is
/// left out: proxies in front rewrite it (`Host` is not believed either).
pub(crate) fn target(request: &RequestHeader) -> Result<Uri, Ambiguous> {
    check_framing(request)?;
    let raw = request.raw_path();
    if request.version == Version::HTTP_2 {
        let path = request.uri.path_and_query().ok_or(Ambiguous)?;
        return Ok(path.clone().into());
    }
    if request.version == Version::HTTP_11 && !request.headers.contains_key(HOST) {
        return Err(Ambiguous);
    }
    // What is no UTF-8 has been replaced in the URI, not in what is sent to the service.
    let text = std::str::from_utf8(raw).map_err(|_| Ambiguous)?;
    let is_path = raw.starts_with(b"/") || (raw == b"*" && request.method == Method::OPTIONS);
    match raw_target_authority(raw) {
        RawTargetAuthority::None if is_path => Ok(request.uri.clone()),
        RawTargetAuthority::Absolute { .. } => {
            let uri: Uri = text.parse().map_err(|_| Ambiguous)?;
            match uri.scheme_str() {
                Some("http" | "https") => Ok(uri),
                _ => Err(Ambiguous),
            }
        }
        RawTargetAuthority::AmbiguousAuthority | RawTargetAuthority::None => Err(Ambiguous),
    }
}

/// Makes an absolute-form origin-form, because a service would believe its authority more than `Host` (RFC 9112 section
/// 3.2.2).
pub(crate) fn without_authority(request: &mut RequestHeader) -> pingora::Result<()> {
    if raw_target_authority(request.raw_path()) == RawTargetAuthority::None {
        return Ok(());
    }
    // pingora keeps the path in the URI, and the whole beside it.
    let path = request
        .uri
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let path = path.to_owned();
    request.set_raw_path(path.as_bytes())
}

/// Of the codings of RFC 9112 section 7, services have `chunked` in common. pingora accepts each list that ends with it, and
/// tells the service of that last one only. It passes on a length as often as the client wrote it.
fn check_framing(request: &RequestHeader) -> Result<(), Ambiguous> {
    let headers = &request.headers;
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let number = |length: &[u8]| length.iter().all(u8::is_ascii_digit);
    if once_or_never(headers, &TRANSFER_ENCODING, chunked)
        && once_or_never(headers, &CONTENT_LENGTH, number)
    {
        Ok(())
    } else {
        Err(Ambiguous)
    }
}

fn once_or_never(headers: &HeaderMap, name: &HeaderName, is_good: impl Fn(&[u8]) -> bool) -> bool {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => true,
        (Some(only), None) => is_good(only.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}
