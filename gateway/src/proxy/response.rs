//! The response, as the service sent it and as the client gets it.

use http::header::{CONNECTION, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, StatusCode};
use pingora::http::ResponseHeader;

/// Removes the fields that concern the connection to the service, and not the message ([RFC 9110 section
/// 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)).
pub(super) fn remove_hop_by_hop(response: &mut ResponseHeader) {
    let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
    let named: Vec<String> = response
        .headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase())
        .collect();
    let unwanted = |name: &HeaderName| match name {
        // The handshake of WebSocket consists of them.
        &CONNECTION | &UPGRADE => !switches,
        // pingora frames the body by it.
        &TRANSFER_ENCODING => false,
        &PROXY_AUTHENTICATE | &TE | &TRAILER => true,
        name => {
            let text = name.as_str();
            text == "keep-alive"
                || text == "proxy-connection"
                || named.iter().any(|one| one == text)
        }
    };
    let names: Vec<_> = response
        .headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    for name in names {
        response.remove_header(&name);
    }
}
