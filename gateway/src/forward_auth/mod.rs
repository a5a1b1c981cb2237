//! How do other proxies ask whether a request may pass?
//!
//! A proxy describes the request of its client, and passes the request on or rejects it as the response says. Anyone who asks
//! can name any method and URI, and use up proofs, so only the proxies of `from` may ask.

mod grpc;
mod http_question;
mod http_response;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use tower::ServiceExt as _;

use crate::config::{Access, AskedBy, ForwardAuth};
use crate::generation::{Current, Generation};
use crate::operations::{Ended, Record};
use crate::policy::{Passed, Policy};

/// Responds to the questions of one `[[forward_auth]]`, by its number.
pub(crate) fn router(current: &Current, number: usize) -> Router {
    let asked = Asked {
        current: Arc::clone(current),
        number,
    };
    let grpc = grpc::router(asked.clone());
    let http = Router::new()
        .fallback(http_question::ask)
        .with_state(asked.clone());
    let present = asked.clone();
    // A reload can change who asks.
    let router = Router::new().fallback(move |request: Request| {
        let generation = present.generation();
        let settings = generation.forward_auth(number);
        let is_grpc = settings.is_some_and(|one| one.asked_by == AskedBy::EnvoyGrpc);
        let router = if is_grpc { &grpc } else { &http };
        router.clone().oneshot(request)
    });
    // Outside of everything: no one else can use up a proof, or learn whether a proof is valid.
    router.layer(from_fn_with_state(asked, only_from))
}

/// Where a question arrives.
#[derive(Clone)]
struct Asked {
    current: Current,
    number: usize,
}

impl Asked {
    /// A question takes it once, so a reload does not affect a running question.
    fn generation(&self) -> Arc<Generation> {
        self.current.load_full()
    }
}

impl Generation {
    /// `None`: a reload has removed it.
    fn forward_auth(&self, number: usize) -> Option<&ForwardAuth> {
        self.document.forward_auth.get(number)
    }

    fn policy_for(&self, asked: &ForwardAuth) -> &Policy {
        match &self.replays_policy {
            Some(policy) if asked.insecure_replays => policy,
            _ => &self.policy,
        }
    }
}

async fn only_from(
    State(asked): State<Asked>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    // An IPv4 address is the same at a socket for IPv6.
    let peer = peer.ip().to_canonical();
    let generation = asked.generation();
    let known = generation
        .forward_auth(asked.number)
        .is_some_and(|asked| asked.from.iter().any(|network| network.contains(&peer)));
    if known {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// Writes the log line of a question. Its status is that of the decision, which the response to the proxy can replace.
fn end(
    record: &mut Record,
    generation: &Generation,
    peer: Option<SocketAddr>,
    protocol: Version,
    status: StatusCode,
) {
    let ended = Ended {
        peer: peer.map(|peer| peer.to_string()),
        protocol: Some(protocol),
        status: Some(status),
        sent: 0,
        failed: None,
    };
    record.end(&ended, generation.document.log.requests);
}

/// A response without a body.
fn bare(status: StatusCode) -> http::Response<String> {
    let mut response = http::Response::new(String::new());
    *response.status_mut() = status;
    response
}

/// The fields to add to the response of the service: CORS, and the next nonce.
fn for_response(passed: &Passed) -> HeaderMap {
    let mut fields = passed.cors.clone();
    if let Some(nonce) = &passed.nonce {
        fields.insert(HeaderName::from_static("dpop-nonce"), nonce.clone());
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    fields
}

/// The fields of the client's request that must not reach the service: its credentials, and the fields that the service could
/// take for identity fields. The fields that the gateway sets are not listed, because the proxy replaces them.
fn unwanted(
    asked: &ForwardAuth,
    passed: &Passed,
    policy: &Policy,
    request: &HeaderMap,
) -> Vec<HeaderName> {
    let mut names = Vec::new();
    // Behind a gate that accepts replays, the services need the credentials: they must check them again. On a public route,
    // they are for the service.
    if !asked.insecure_replays && passed.route.settings.access != Access::Public {
        names.push(HeaderName::from_static("dpop"));
        if !passed.route.settings.keep_authorization {
            names.push(AUTHORIZATION);
        }
    }
    let sent = request.keys().filter(|name| policy.identity.could_be(name));
    for name in policy.identity.names().chain(sent) {
        if !passed.identity.contains_key(name) && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
