//! How does a request reach its service? The engine is pingora's; here is what it asks.

mod respond;
mod upstreams;

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{Error, HTTPStatus, HttpPeer, ProxyHttp, Session};

pub(crate) use upstreams::Upstreams;

use crate::config::Access;
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
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            generation: self.current.load_full(),
            passed: None,
        }
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<bool> {
        let question = Question::of(session.req_header());
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

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        context: &mut Context,
    ) -> pingora::Result<Box<HttpPeer>> {
        let upstream = context.route().settings.upstream.as_deref();
        let peer = upstream.and_then(|name| context.generation.upstreams.peer(name));
        peer.map(Box::new)
            .ok_or_else(|| Error::explain(HTTPStatus(503), "no server of the upstream is healthy"))
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
}

impl Context {
    fn route(&self) -> &crate::policy::Route {
        &self.passed.as_ref().expect("set by request_filter").route
    }
}
