//! Questions over HTTP. The proxy describes the request of its client in header fields of its own.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::{Asked, bare, end, http_response};
use crate::config::{AskedBy, ForwardAuth};
use crate::operations::Record;
use crate::policy::Question;

/// Why a question does not describe a request.
enum Undescribed {
    /// The client's method or URI is malformed.
    Malformed,
    /// The proxy is misconfigured. With what was expected.
    Unexpected(String),
}

/// The body is never read.
pub(super) async fn ask(
    State(asked): State<Asked>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response<String> {
    let generation = asked.generation();
    let Some(settings) = generation.forward_auth(asked.number) else {
        return bare(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut record = Record::start("forward_auth");
    let (head, _) = request.into_parts();
    let described = described(settings, &head.method, &head.uri, &head.headers);
    let (method, uri) = match described {
        Ok(described) => described,
        Err(Undescribed::Malformed) => {
            return http_response::rejection(settings.asked_by, bare(StatusCode::BAD_REQUEST));
        }
        Err(Undescribed::Unexpected(expected)) => {
            tracing::error!(
                asked_by = ?settings.asked_by,
                expected,
                status = 500,
                "rejected: the question does not describe a request; configure the proxy as the guide shows"
            );
            return bare(StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let policy = generation.policy_for(settings);
    // The response names fields to remove only for Envoy.
    let sent = match settings.asked_by {
        AskedBy::EnvoyHttp => head.headers.clone(),
        _ => HeaderMap::new(),
    };
    let question = Question {
        method,
        uri,
        // The version matters only for a URI with an authority, which this one never has.
        version: Version::HTTP_11,
        headers: head.headers,
    };
    let decision = record.decide(policy, question).await;
    let peer = Some(peer);
    end(
        &mut record,
        &generation,
        peer,
        head.version,
        decision.status(),
    );
    http_response::of(settings, decision, policy, &sent)
}

/// The method and URI of the client's request. The proxy sets each of these fields once, whatever the client sent.
fn described(
    settings: &ForwardAuth,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Method, Uri), Undescribed> {
    let fields = match settings.asked_by {
        AskedBy::Nginx => ("x-original-method", "x-original-uri"),
        AskedBy::IngressNginx => ("x-original-method", "x-original-url"),
        AskedBy::Caddy | AskedBy::Traefik => ("x-forwarded-method", "x-forwarded-uri"),
        AskedBy::EnvoyHttp => {
            let uri = behind_prefix(uri, settings.path_prefix.as_deref().unwrap_or_default())?;
            return Ok((method.clone(), uri));
        }
        AskedBy::EnvoyGrpc => {
            let expected = "a call of envoy.service.auth.v3.Authorization/Check".to_owned();
            return Err(Undescribed::Unexpected(expected));
        }
    };
    let method = only(headers, fields.0)?;
    let mut target = only(headers, fields.1)?;
    if settings.asked_by == AskedBy::IngressNginx {
        target = behind_authority(target).ok_or(Undescribed::Malformed)?;
    }
    match (method.parse(), origin_form(target)) {
        (Ok(method), Some(uri)) => Ok((method, uri)),
        _ => Err(Undescribed::Malformed),
    }
}

/// Envoy asks with the method and path of the client; the path follows a prefix.
fn behind_prefix(uri: &Uri, prefix: &str) -> Result<Uri, Undescribed> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    match path.strip_prefix(prefix) {
        // `OPTIONS *` of a client.
        Some("*") => Err(Undescribed::Malformed),
        Some(path) if path.starts_with('/') => origin_form(path).ok_or(Undescribed::Malformed),
        _ => {
            let expected = format!("a path below the path_prefix {prefix:?}");
            Err(Undescribed::Unexpected(expected))
        }
    }
}

fn only<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Undescribed> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().map_err(|_| Undescribed::Malformed),
        _ => Err(Undescribed::Unexpected(format!("one field {name}"))),
    }
}

/// The path and query of an absolute URL. Its authority is the client's `Host`, which is not trusted.
fn behind_authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let slash = rest.find('/')?;
    // nginx lets `Host: api.example.com?` through. Without this, `/admin` would become the query of `/`.
    let is_authority = !rest[..slash].contains(['?', '#', '\\']);
    is_authority.then(|| &rest[slash..])
}

/// A path with an optional query. `Uri` would drop a fragment, which services might not do.
pub(super) fn origin_form(text: &str) -> Option<Uri> {
    let visible = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    (visible && text.starts_with('/')).then(|| text.parse().ok())?
}
