//! How does a request reach its service? pingora is the engine; this implements its callbacks.
//!
//! What pingora 0.9.1 does not pass on:
//!
//! - Trailers of requests, and trailers of responses to clients of HTTP/1.1. gRPC needs neither.
//! - Interim responses (1xx) from a service of HTTP/2, and those to a client of HTTP/2.
//! - Bytes in a request target that no URI may have (a space, a quote): it percent-encodes them before anything here sees them.

mod bounded;
mod context;
mod failure;
mod fields;
mod forwarded;
mod http_1_0;
mod request;
mod respond;
mod response;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::EXPECT;
use pingora::ErrorType;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, HTTPStatus, HttpPeer, ProxyHttp, Session};
use pingora::proxy::{FailToProxy, HttpProxy, ProxyWarnLogContext};
use pingora::server::configuration::ServerConf;
use tokio_util::task::TaskTracker;

pub(crate) use bounded::BoundedConnections;
pub(crate) use context::Context;

use crate::config::{Listener, Protocol};
use crate::generation::{Current, Generation};
use crate::operations::Ended;
use crate::policy::{Decision, Question, problem};
use crate::proxy::bounded::Limit;
use crate::proxy::failure::{Failure, Upload};
use crate::upstreams;

/// How many idle connections to services each listener keeps.
const IDLE_CONNECTIONS: usize = 1024;

/// The reverse proxy at one `[[listener]]`, by its number. Its requests are counted as running until they have ended.
pub(crate) fn application(
    current: &Current,
    number: usize,
    running: TaskTracker,
) -> BoundedConnections {
    let conf = ServerConf {
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        threads: tokio::runtime::Handle::current().metrics().num_workers(),
        ..ServerConf::default()
    };
    let proxy = Proxy {
        current: Arc::clone(current),
        number,
        running,
    };
    let mut proxy = HttpProxy::new(proxy, Arc::new(conf));
    proxy.handle_init_modules();
    let current = Arc::clone(current);
    let client_timeout = move || client_timeout(current.load().document.listener.get(number));
    BoundedConnections::new(proxy, client_timeout)
}

fn client_timeout(listener: Option<&Listener>) -> Duration {
    let seconds = listener.map_or(60, |listener| listener.client_timeout_seconds);
    Duration::from_secs(seconds)
}

pub(crate) struct Proxy {
    current: Current,
    /// The number of the listener.
    number: usize,
    running: TaskTracker,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    /// Called when the header of the request has been read.
    fn new_ctx(&self) -> Context {
        Context::new(
            self.current.load_full(),
            Limit::current(),
            self.running.token(),
        )
    }

    /// Without pingora's own modules, which would compress responses: services do this themselves.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(http_1_0::NoChunks));
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let timeout = client_timeout(self.listener(&context.generation));
        session.set_read_timeout(Some(timeout));
        session.set_write_timeout(Some(timeout));
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(timeout.as_secs()));
        }
        // Each request of a pipeline gets its own decision. Without this, pingora would end the request before it.
        let pipelining = !request::is_websocket(session.req_header());
        session.set_pipelining_enabled(pipelining);
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<bool> {
        let request = session.req_header();
        let question = Question::of(request);
        if let Some(fault) = request::fault(request) {
            context.record.malformed(&question);
            // Its end may be somewhere else than where it seems to be (RFC 9112 section 6.3).
            session.set_keepalive(None);
            let response = problem(fault.status, fault.reason, fault.detail);
            respond::send(session, response).await?;
            return Ok(true);
        }
        let policy = &context.generation.policy;
        match context.record.decide(policy, question).await {
            Decision::Pass(passed) => {
                context.passed = Some(passed);
                Ok(false)
            }
            Decision::Respond(response) => {
                respond::send(session, response).await?;
                Ok(true)
            }
        }
    }

    /// Called for each attempt.
    async fn upstream_peer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        let name = context.upstream().unwrap_or_default();
        let service = context.generation.upstreams.get(name);
        let chosen = service.and_then(|service| service.choose(&context.unreachable));
        let (mut chosen, mut peer) = chosen.ok_or_else(|| {
            let health = service.map(upstreams::Service::health);
            Error::explain(HTTPStatus(503), health.unwrap_or_default().to_string())
        })?;
        if request::is_websocket(session.req_header()) && chosen.protocol != Protocol::Http2 {
            chosen.as_tunnel(&mut peer);
        }
        if chosen.protocol != Protocol::Http1 && !session.is_body_empty() {
            if !request::is_small(session.req_header()) {
                let timeout = peer.options.read_timeout.take();
                context.limit_reads(timeout);
            }
            if session.req_header().headers.contains_key(EXPECT) {
                session.write_continue_response().await?;
            }
        }
        context.record.server = Some(chosen.server.name.clone());
        context.chosen = Some(chosen);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let (Some(passed), Some(chosen)) = (&context.passed, &context.chosen) else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let listener = self.listener(&context.generation);
        let trusted = listener.map_or(&[][..], |listener| &listener.trusted_proxies);
        let client = request::connection(session);
        let identity = &context.generation.policy.identity;
        request::prepare(request, &client, trusted, identity, passed, chosen)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        context.made_progress();
        if end_of_stream {
            context.upload_ended();
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        context.made_progress();
        if session.is_http2() && !session.downstream_session.is_body_done() {
            context.limit_upload(client_timeout(self.listener(&context.generation)));
        }
        let switches = response.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches && !request::is_websocket(session.req_header()) {
            return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
        }
        response::remove_hop_by_hop(response);
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        context.made_progress();
        Ok(None)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let is_final = response.status == StatusCode::SWITCHING_PROTOCOLS
            || !response.status.is_informational();
        match context.passed.as_ref().filter(|_| is_final) {
            Some(passed) => passed.write_to(response),
            None => Ok(()),
        }
    }

    /// No connection was made, so no one has seen the request.
    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        context.unreachable.push(peer._address.clone());
        let name = context.upstream().unwrap_or_default();
        let another = context.generation.upstreams.get(name).and_then(|service| {
            service.avoid(peer._address.clone());
            service.choose(&context.unreachable)
        });
        error.set_retry(another.is_some());
        error
    }

    /// A request is sent again only if a kept connection ended before its response, or the service says that it has not seen the
    /// request; and only if its method is idempotent, because the service may have seen it. Never after a part of the response.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        _context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let repeatable = session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated()
            && session.response_written().is_none();
        if repeatable {
            error.retry.decide_reuse(client_reused);
        } else {
            error.set_retry(false);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        context.limit.lift();
        let failure = Failure::of(error, Upload::of(session));
        let final_one = |header: &ResponseHeader| {
            header.status == StatusCode::SWITCHING_PROTOCOLS || !header.status.is_informational()
        };
        let responded = session.response_written().is_some_and(final_one);
        if let Some(status) = failure.status.filter(|_| !responded) {
            session.set_keepalive(None);
            let mut response = problem(status, failure.reason, failure.detail);
            if let Some(passed) = &context.passed {
                response.headers_mut().extend(passed.cors.clone());
            }
            // If the client does not read it, no one does.
            let _ = respond::send(session, response).await;
        }
        FailToProxy {
            error_code: failure.status.map_or(0, |status| status.as_u16()),
            can_reuse_downstream: false,
        }
    }

    /// Called at the end of each request, whether the service or the gateway has responded.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        context.limit.lift();
        let failed = error.map(|error| Failure::of(error, Upload::of(session)).for_the_log(error));
        let ended = Ended {
            peer: session.client_addr().map(ToString::to_string),
            protocol: Some(session.req_header().version),
            status: session.response_written().map(|response| response.status),
            sent: session.body_bytes_sent(),
            failed,
        };
        let logged = context.generation.document.log.requests;
        context.record.end(&ended, logged);
    }

    /// Replaces pingora's summary, which has the query and parts of the header.
    fn request_summary(&self, session: &Session, context: &Context) -> String {
        let method = &session.req_header().method;
        format!("{method}, upstream {}", context.upstream().unwrap_or("-"))
    }

    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        context: &Context,
        error: &Error,
        _situation: ProxyWarnLogContext,
    ) -> bool {
        let server = context
            .chosen
            .as_ref()
            .map(|chosen| chosen.server.name.as_str());
        let (upstream, error) = (context.upstream(), failure::describe(error));
        if context.unreachable.is_empty() {
            // Services close idle connections all the time.
            tracing::debug!(upstream, server, error, "the request is sent again");
        } else {
            tracing::warn!(
                upstream,
                server,
                error,
                "the request is sent to another server"
            );
        }
        true
    }
}

impl Proxy {
    fn listener<'a>(&self, generation: &'a Generation) -> Option<&'a Listener> {
        generation.document.listener.get(self.number)
    }
}
