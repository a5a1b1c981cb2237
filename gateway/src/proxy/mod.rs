//! How does a request reach its service? The engine is pingora's; here is what it asks.

mod request_line;
mod respond;
mod upstreams;

use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::{Error, HTTPStatus, HttpPeer, ProxyHttp, Session};

pub(crate) use upstreams::Upstreams;

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
        let request = session.req_header();
        let Ok(target) = request_line::target(request) else {
            respond::send(session, respond::bad_request()).await?;
            return Ok(true);
        };
        let question = Question {
            method: request.method.clone(),
            uri: target,
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
        request_line::without_authority(request)?;
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
        request.remove_header("dpop");
        let passed = context.passed.as_ref().expect("set by request_filter");
        if !passed.route.settings.keep_authorization {
            request.remove_header("authorization");
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
            for (name, value) in &passed.response {
                response.insert_header(name, value)?;
            }
        }
        Ok(())
    }
}

impl Context {
    fn route(&self) -> &crate::policy::Route {
        &self.passed.as_ref().expect("set by request_filter").route
    }
}
