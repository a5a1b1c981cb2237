//! `X-Forwarded-*` and `Forwarded`: how the client reached the gateway.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use pingora::http::RequestHeader;

use crate::proxy::fields::{begins, is, remove};

/// What the gateway itself knows about the connection.
pub(super) struct Connection {
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) tls: bool,
    /// The host that the client named.
    pub(super) host: Option<HeaderValue>,
}

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = http::header::FORWARDED;

/// Keeps the fields of a trusted proxy, and removes those of all other clients, in every spelling.
pub(super) fn write(
    request: &mut RequestHeader,
    connection: &Connection,
    trusted: &[IpNet],
    stripped_prefix: Option<&str>,
) -> pingora::Result<()> {
    let ip = connection.peer.map(|peer| peer.ip().to_canonical());
    let is_trusted = ip.is_some_and(|ip| trusted.iter().any(|net| net.contains(&ip)));
    remove(request, |name| {
        says_where_from(name) && !(is_trusted && is_ours(name))
    });

    // Only a trusted proxy's are still there. Services that prefer `Forwarded` or the port would believe this connection, not
    // the client's.
    let is_described = [HOST, PORT, PROTO]
        .iter()
        .any(|name| request.headers.contains_key(name));
    let proto = if connection.tls { "https" } else { "http" };
    if let Some(ip) = ip {
        append_to_list(request, FOR, &ip.to_string())?;
    }
    if !is_described || request.headers.contains_key(FORWARDED) {
        let element = forwarded(ip, connection.host.as_ref(), proto);
        append_to_list(request, FORWARDED, &element)?;
    }
    // These describe how the client reached the first proxy.
    if let Some(host) = &connection.host {
        keep_or_insert(request, HOST, host.clone())?;
    }
    if let Some(local) = connection.local
        && !is_described
    {
        keep_or_insert(request, PORT, HeaderValue::from(local.port()))?;
    }
    keep_or_insert(request, PROTO, HeaderValue::from_static(proto))?;
    if let Some(prefix) = stripped_prefix {
        let before = request
            .headers
            .get(PREFIX)
            .and_then(|value| value.to_str().ok());
        let prefix = format!("{}{prefix}", before.unwrap_or_default());
        request.insert_header(PREFIX, prefix)?;
    }
    Ok(())
}

fn says_where_from(name: &HeaderName) -> bool {
    begins(name, "x-forwarded-") || is(name, "forwarded") || is(name, "x-real-ip")
}

fn is_ours(name: &HeaderName) -> bool {
    [FOR, HOST, PORT, PREFIX, PROTO, FORWARDED].contains(name)
}

fn append_to_list(
    request: &mut RequestHeader,
    name: HeaderName,
    element: &str,
) -> pingora::Result<()> {
    let mut list: Vec<u8> = Vec::new();
    let values = request.headers.get_all(&name).iter();
    for value in values.filter(|value| !value.is_empty()) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    request.insert_header(name, list)
}

fn keep_or_insert(
    request: &mut RequestHeader,
    name: HeaderName,
    value: HeaderValue,
) -> pingora::Result<()> {
    if request.headers.contains_key(&name) {
        return Ok(());
    }
    request.insert_header(name, value)
}

/// An element of `Forwarded` ([RFC 7239 section 4](https://www.rfc-editor.org/rfc/rfc7239#section-4)).
fn forwarded(ip: Option<IpAddr>, host: Option<&HeaderValue>, proto: &str) -> String {
    let node = match ip {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
        None => "unknown".to_owned(),
    };
    // A host has nothing that a quoted string would have to escape: pingora has checked it.
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.filter(|host| !host.contains(['"', '\\']));
    let host = host.map_or_else(String::new, |host| format!(";host=\"{host}\""));
    format!("for={node}{host};proto={proto}")
}
