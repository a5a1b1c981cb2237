//! How does a request reach its service? The engine is pingora's; here is what it asks.

mod bounded;
mod failure;
mod forwarded;
mod request;
mod respond;
mod response;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, StatusCode};
use pingora::ErrorType;
use pingora::apps::HttpServerOptions;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::{Error, HTTPStatus, HttpPeer, ProxyHttp, Session};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy::{FailToProxy, HttpProxy, ProxyWarnLogContext};
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;

use crate::config::{Listener, Protocol};
use crate::generation::{Current, Generation};
use crate::policy::{Decision, Passed, Question};
use crate::proxy::bounded::{Bounded, Limit};
use crate::proxy::failure::{Failure, Fault, Upload};
use crate::upstreams::{self, Chosen};

/// Idle connections to services, for each listener.
const IDLE_CONNECTIONS: usize = 1024;

/// The reverse proxy at one `[[listener]]`, by its number.
pub(crate) fn service(current: &Current, number: usize) -> Service<Bounded> {
    let client_timeout = client_timeout(current.load().document.listener.get(number));
    let conf = ServerConf {
        upstream_keepalive_pool_size: IDLE_CONNECTIONS,
        ..ServerConf::default()
    };
    let proxy = Proxy {
        current: Arc::clone(current),
        number,
    };
    let mut proxy = HttpProxy::new(proxy, Arc::new(conf));
    let mut options = HttpServerOptions::default();
    // HTTP/2 with prior knowledge, beside HTTP/1.1 at the same address.
    options.h2c = true;
    options.h2_idle_timeout = Some(client_timeout);
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    Service::new("proxy".to_owned(), Bounded::new(proxy, client_timeout))
}

fn client_timeout(listener: Option<&Listener>) -> Duration {
    let seconds = listener.map_or(60, |listener| listener.client_timeout_seconds);
    Duration::from_secs(seconds)
}

pub(crate) struct Proxy {
    current: Current,
    /// That of the listener.
    number: usize,
}

/// What is known of one request.
pub(crate) struct Context {
    /// A reload does not change what a request meets.
    pub(crate) generation: Arc<Generation>,
    pub(crate) started: Instant,
    /// `None`: it has not passed.
    passed: Option<Passed>,
    /// The server of the last attempt.
    chosen: Option<Chosen>,
    /// The addresses to which no connection could be made.
    unreachable: Vec<SocketAddr>,
    limit: Limit,
    /// pingora's timeout does not fit, so `limit` is set again whenever something is read.
    read_timeout: Option<Duration>,
}

impl Context {
    /// The name of the service, for logs and metrics.
    pub(crate) fn upstream(&self) -> Option<&str> {
        self.passed.as_ref()?.route.settings.upstream.as_deref()
    }

    fn made_progress(&self) {
        if let Some(timeout) = self.read_timeout {
            self.limit.set(timeout);
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    /// Called when the header of the request has been read.
    fn new_ctx(&self) -> Context {
        let limit = Limit::current();
        limit.lift();
        Context {
            generation: self.current.load_full(),
            started: Instant::now(),
            passed: None,
            chosen: None,
            unreachable: Vec::new(),
            limit,
            read_timeout: None,
        }
    }

    /// No modules: services compress their responses themselves.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let timeout = Some(client_timeout(self.listener(&context.generation)));
        session.set_read_timeout(timeout);
        session.set_write_timeout(timeout);
        // Each request of a pipeline is decided about. Otherwise pingora would end the one before it.
        session.set_pipelining_enabled(true);
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<bool> {
        let request = session.req_header();
        if let Some((status, detail)) = request::fault(request) {
            respond::send(session, respond::problem(status, detail)).await?;
            return Ok(true);
        }
        let question = Question {
            method: request.method.clone(),
            uri: request::target(request).unwrap_or_default(),
            headers: request.headers.clone(),
        };
        match context.generation.policy.decide(question).await {
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
        let mut chosen =
            chosen.ok_or_else(|| unavailable(service.map(upstreams::Service::health)))?;
        if request::is_websocket(session.req_header()) && chosen.protocol == Protocol::Negotiated {
            chosen.only_http1();
        }
        let mut peer = Box::new(chosen.peer.clone());
        if chosen.protocol != Protocol::Http1 && !session.is_body_empty() {
            context.read_timeout = peer.options.read_timeout.take();
            context.made_progress();
            if session
                .req_header()
                .headers
                .contains_key(http::header::EXPECT)
            {
                session.write_continue_response().await?;
            }
        }
        context.chosen = Some(chosen);
        Ok(peer)
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
        _end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        context.made_progress();
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        context.made_progress();
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
        let status = response.status;
        let switches = status == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(passed) = context
            .passed
            .as_ref()
            .filter(|_| switches || !status.is_informational())
        {
            // As the layers of `tower_dpop`: a service may have a nonce of its own for what it rejects.
            let wanted =
                |name: &HeaderName| *name != "dpop-nonce" || switches || status.is_success();
            respond::merge(response, &passed.response, wanted)?;
        }
        Ok(())
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
        let service = context
            .upstream()
            .and_then(|name| context.generation.upstreams.get(name));
        let another = service.and_then(|service| service.choose(&context.unreachable));
        error.set_retry(another.is_some());
        error
    }

    /// pingora repeats a request if the service has closed the connection before, so that it cannot have seen the request, or
    /// says so itself; and only if its method is idempotent. Never when a part of the response has been sent.
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
        let upload = upload(session);
        let failure = Failure::of(error, upload);
        log(&failure, error, context);
        let final_one = |header: &ResponseHeader| {
            header.status == StatusCode::SWITCHING_PROTOCOLS || !header.status.is_informational()
        };
        let responded = session.response_written().is_some_and(final_one);
        if let Some(status) = failure.status.filter(|_| !responded) {
            session.set_keepalive(None);
            let mut response = respond::problem(status, failure.detail);
            if let Some(passed) = &context.passed {
                let cors = passed
                    .response
                    .iter()
                    .filter(|(name, _)| **name != "dpop-nonce");
                response
                    .headers_mut()
                    .extend(cors.map(|(name, value)| (name.clone(), value.clone())));
            }
            // If the client does not read it, no one does.
            let _ = respond::send(session, response).await;
        }
        FailToProxy {
            error_code: failure.status.map_or(0, |status| status.as_u16()),
            can_reuse_downstream: false,
        }
    }

    /// The end of each request, whoever has responded.
    async fn logging(&self, session: &mut Session, _error: Option<&Error>, context: &mut Context) {
        context.limit.lift();
        tracing::debug!(
            upstream = context.upstream(),
            status = session
                .response_written()
                .map(|header| header.status.as_u16()),
            milliseconds = context.started.elapsed().as_millis(),
            "request ended"
        );
    }

    /// pingora's own log lines would have the query, and parts of the header.
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
        _context: ProxyWarnLogContext,
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

fn unavailable(health: Option<upstreams::Health>) -> Box<Error> {
    let (healthy, known) = health.map_or((0, 0), |health| (health.healthy, health.known));
    let addresses = format!("{healthy} of {known} addresses are healthy");
    Error::explain(HTTPStatus(503), addresses)
}

fn upload(session: &mut Session) -> Upload {
    // A client with `Expect` sends nothing before the service says so.
    let waits = session
        .req_header()
        .headers
        .contains_key(http::header::EXPECT);
    if waits || session.downstream_session.is_body_done() {
        Upload::Complete
    } else {
        Upload::Incomplete
    }
}

fn log(failure: &Failure, error: &Error, context: &Context) {
    let upstream = context.upstream();
    let server = context
        .chosen
        .as_ref()
        .map(|chosen| chosen.server.name.as_str());
    let status = failure.status.map(|status| status.as_u16());
    let (detail, error) = (failure.detail, failure::describe(error));
    match failure.fault {
        Fault::Client => tracing::debug!(upstream, status, error, "{detail}"),
        Fault::Gateway => tracing::error!(upstream, server, status, error, "{detail}"),
        Fault::Service => tracing::error!(upstream, server, status, error, "{detail}"),
    }
}
