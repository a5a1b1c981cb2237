//! The request, as the client sent it and as the service gets it.

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use ipnet::IpNet;
use pingora::http::RequestHeader;
use pingora::prelude::Session;
use pingora::protocols::l4::socket::SocketAddr;

use crate::config::{Access, Protocol};
use crate::policy::{IdentityFields, Passed};
use crate::proxy::fields::{remove, replaces_the_target};
use crate::proxy::forwarded::{self, Connection};
use crate::upstreams::Chosen;

/// A token may have 32 KiB, a proof 8 KiB, and cookies the rest. pingora's own limit is 1 MiB over HTTP/1.1 and this over
/// HTTP/2.
const MAX_HEADER_SIZE: usize = 64 * 1024;

/// Why a request is rejected before the policy sees it.
pub(super) struct Malformed {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
    pub(super) detail: &'static str,
}

pub(super) fn fault(request: &RequestHeader) -> Option<Malformed> {
    let malformed = |status, reason, detail| {
        Some(Malformed {
            status,
            reason,
            detail,
        })
    };
    let fields = request.headers.iter();
    // Counted as in HTTP/2: 32 bytes more per field.
    let size: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    if size + request.raw_path().len() > MAX_HEADER_SIZE {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return malformed(
            status,
            "header_too_large",
            "the header has more than 64 KiB",
        );
    }
    if target(request).is_none() {
        let detail = "the request target is malformed";
        return malformed(StatusCode::BAD_REQUEST, "target_malformed", detail);
    }
    let has_host = request.headers.contains_key(HOST) || request.uri.authority().is_some();
    if request.version >= Version::HTTP_11 && !has_host {
        let detail = "the request has no host";
        return malformed(StatusCode::BAD_REQUEST, "host_missing", detail);
    }
    let lengths = request.headers.get_all(CONTENT_LENGTH);
    let codings = request.headers.get_all(TRANSFER_ENCODING);
    let is_list = |value: &HeaderValue| value.as_bytes().contains(&b',');
    // pingora accepts the same length twice, and passes on both.
    if lengths.iter().count() > 1 || lengths.iter().any(is_list) || codings.iter().count() > 1 {
        let detail = "the length of the body is given twice";
        return malformed(StatusCode::BAD_REQUEST, "length_twice", detail);
    }
    // pingora decodes `chunked`, and would drop all other codings.
    if !codings
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let status = StatusCode::NOT_IMPLEMENTED;
        let detail = "the only supported transfer coding is chunked";
        return malformed(status, "transfer_coding", detail);
    }
    None
}

/// The request target, as the client wrote it: in origin-form, in absolute-form, or an asterisk.
pub(super) fn target(request: &RequestHeader) -> Option<Uri> {
    let target = request.raw_path();
    if !target.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    match target {
        // Over HTTP/2, the authority is not a part of `:path`, and is not compared with the proof.
        [b'/', ..] => request.uri.path_and_query().cloned().map(Uri::from),
        b"*" if request.method == Method::OPTIONS => Some(Uri::from_static("*")),
        absolute => {
            let uri = Uri::try_from(absolute).ok()?;
            matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
        }
    }
}

/// Whether the client asks to switch to WebSocket. pingora passes on no other upgrade.
pub(super) fn is_websocket(request: &RequestHeader) -> bool {
    let upgrade = request.headers.get(UPGRADE);
    request.version == Version::HTTP_11
        && upgrade.is_some_and(|name| name.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether the body is so short that sending it takes no time.
pub(super) fn is_small(request: &RequestHeader) -> bool {
    content_length(request).is_some_and(|length| length <= 64 * 1024)
}

pub(super) fn content_length(request: &RequestHeader) -> Option<usize> {
    let length = request.headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// How the client is connected.
pub(super) fn connection(session: &Session) -> Connection {
    let inet = |address: Option<&SocketAddr>| address.and_then(|one| one.as_inet().copied());
    let request = session.req_header();
    let authority = request.uri.authority();
    let host = authority.and_then(|one| HeaderValue::try_from(one.as_str()).ok());
    Connection {
        peer: inet(session.client_addr()),
        local: inet(session.server_addr()),
        tls: session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some()),
        host: host.or_else(|| request.headers.get(HOST).cloned()),
    }
}

/// Makes the request of the service. pingora has removed the hop-by-hop fields of HTTP/1.1 and what `Connection` names, and
/// passes on no trailers.
pub(super) fn prepare(
    request: &mut RequestHeader,
    client: &Connection,
    trusted_proxies: &[IpNet],
    identity: &IdentityFields,
    passed: &Passed,
    chosen: &Chosen,
) -> pingora::Result<()> {
    let route = &passed.route.settings;
    remove(request, |name| {
        identity.could_be(name) || is_hop_by_hop(name) || replaces_the_target(name)
    });
    // On a public route, the credentials are for the service.
    if route.access != Access::Public {
        request.remove_header("dpop");
        if !route.keep_authorization {
            request.remove_header(&AUTHORIZATION);
        }
    }
    // gRPC needs it, and it is the only value that HTTP/2 allows.
    if chosen.protocol == Protocol::Http1
        || request.headers.get(TE).is_some_and(|te| te != "trailers")
    {
        request.remove_header(&TE);
    }
    if chosen.protocol != Protocol::Http1 {
        // The gateway has responded to it: pingora does not pass on interim responses of HTTP/2.
        request.remove_header(&EXPECT);
    }
    let stripped = stripped_target(request, route.strip_prefix.as_deref());
    let prefix = route.strip_prefix.as_deref().filter(|_| stripped.is_some());
    forwarded::write(request, client, trusted_proxies, prefix)?;
    for (name, value) in &passed.identity {
        request.append_header(name, value)?;
    }
    let own = &chosen.server.authority;
    let preserved = client.host.as_ref().filter(|_| route.preserve_host);
    request.insert_header(HOST, preserved.unwrap_or(own).clone())?;
    // In origin-form, even if the client sent another one. pingora writes an authority of HTTP/2 from `Host`.
    let path = stripped.or_else(|| target(request)?.into_parts().path_and_query);
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    request.set_uri(Uri::from(path));
    Ok(())
}

/// What pingora leaves in a request of HTTP/2 to a service with HTTP/2. `Connection` and `Upgrade` are there only if it has
/// written them, for WebSocket.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == TRAILER || *name == "keep-alive" || name.as_str().starts_with("proxy-")
}

/// Byte for byte what the client sent, without the prefix. `None` if it does not begin with the prefix.
fn stripped_target(request: &RequestHeader, prefix: Option<&str>) -> Option<PathAndQuery> {
    let prefix = prefix?.trim_end_matches('/');
    let target = target(request)?;
    let rest = target.path_and_query()?.as_str().strip_prefix(prefix)?;
    match rest.as_bytes().first() {
        Some(b'/') => rest.parse().ok(),
        Some(b'?') | None => format!("/{rest}").parse().ok(),
        Some(_) => None,
    }
}
