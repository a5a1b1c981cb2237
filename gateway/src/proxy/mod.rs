//! How does a request reach its service? The engine is pingora's; here is what it asks.

mod respond;
mod upstreams;

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{Error, HTTPStatus, HttpPeer, ProxyHttp, Session};
use pingora::upstreams::peer::Peer as _;

pub(crate) use upstreams::Upstreams;

use crate::config::Access;
use crate::operations::{Ended, Record};
use crate::policy::{Decision, Passed, Question};
use crate::server::{Current, Generation};

pub(crate) struct Proxy {
    current: Current,
}

impl Proxy {
    pub(crate) const fn new(current: Current) -> Self {
        Self { current }
    }
}

/// What is known of one request.
pub(crate) struct Context {
    /// A reload does not change what a request meets.
    generation: Arc<Generation>,
    passed: Option<Passed>,
    /// For the log and the metrics.
    record: Record,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            generation: self.current.load_full(),
            passed: None,
            record: Record::start("proxy"),
        }
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<bool> {
        let question = Question::of(session.req_header());
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

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        let upstream = context.route().settings.upstream.as_deref();
        let peer = upstream.and_then(|name| context.generation.upstreams.peer(name));
        let peer = peer.ok_or_else(|| {
            Error::explain(HTTPStatus(503), "no server of the upstream is healthy")
        })?;
        context.record.server = Some(peer.address().to_string());
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let identity = &context.generation.policy.identity;
        let unwanted: Vec<_> = request
            .headers
            .keys()
            .filter(|name| identity.could_be(name))
            .cloned()
            .collect();
        for name in unwanted {
            request.remove_header(&name);
        }
        let passed = context.passed.as_ref().expect("set by request_filter");
        // On a public route, they are for the service.
        if passed.route.settings.access != Access::Public {
            request.remove_header("dpop");
            if !passed.route.settings.keep_authorization {
                request.remove_header("authorization");
            }
        }
        for (name, value) in &passed.identity {
            request.insert_header(name, value)?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(passed) = &context.passed {
            passed.write_to(response)?;
        }
        Ok(())
    }

    /// Called once, at the end of each request.
    async fn logging(&self, session: &mut Session, error: Option<&Error>, context: &mut Context) {
        let ended = Ended {
            peer: session.client_addr().map(ToString::to_string),
            protocol: session.req_header().version,
            status: session.response_written().map(|response| response.status),
            sent: session.body_bytes_sent(),
            error,
        };
        let logged = context.generation.document.log.requests;
        context.record.end(&ended, logged);
    }

    /// pingora's lines have the query and `Host`. Ours has the error.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, _context: &Context) -> String {
        String::new()
    }
}

impl Context {
    fn route(&self) -> &crate::policy::Route {
        &self.passed.as_ref().expect("set by request_filter").route
    }
}
