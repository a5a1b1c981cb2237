//! The decision about one request.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderName, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_dpop::Verifier;
use tower_http::cors::CorsLayer;

use crate::config::{ConfigError, Document};
use crate::policy::cors::cors_layer;
use crate::policy::identity::IdentityFields;
use crate::policy::layers::{self, Outcome};
use crate::policy::problem::problem;
use crate::policy::routes::{Found, Route, Routes};

/// Decides about requests, as the configuration says.
pub(crate) struct Policy {
    routes: Routes,
    pub(crate) identity: Arc<IdentityFields>,
    cors: Option<CorsLayer>,
}

/// The parts of a client's request on which the decision depends.
pub(crate) struct Question {
    pub(crate) method: Method,
    /// In the form that the client sent, with an authority if there was one.
    pub(crate) uri: Uri,
    /// Below HTTP/2, an authority in the URI must be that of a public URL.
    pub(crate) version: Version,
    /// The fields that the layers read.
    pub(crate) headers: HeaderMap,
}

/// The CORS fields that a response to a request that is no preflight may have.
const ACCESS_CONTROL_OF_RESPONSES: [HeaderName; 3] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
];

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

impl Question {
    /// The fields are cloned as handles: their bytes are not copied.
    ///
    /// The target is read from its raw bytes, because pingora's URI has lost a part of it: of an absolute-form it has only the
    /// path, and for a malformed target (`GET admin HTTP/1.1`) it has `/`.
    pub(crate) fn of(request: &RequestHeader) -> Self {
        let mut headers = HeaderMap::new();
        for name in [AUTHORIZATION, DPOP, ORIGIN, ACCESS_CONTROL_REQUEST_METHOD] {
            for value in request.headers.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        Self {
            method: request.method.clone(),
            uri: Uri::try_from(request.raw_path()).unwrap_or_else(|_| no_path()),
            version: request.version,
            headers,
        }
    }

    /// The method that a CORS preflight names.
    fn preflighted(&self) -> Option<Method> {
        let asked = self.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let is_preflight =
            self.method == Method::OPTIONS && !self.headers.contains_key(AUTHORIZATION);
        is_preflight.then(|| Method::from_bytes(asked.as_bytes()).ok())?
    }
}

/// The authority-form: a request with it is rejected.
fn no_path() -> Uri {
    Uri::from_static("malformed")
}

pub(crate) enum Decision {
    /// The request does not pass, and this is the response. Its extensions have the route, if there is one.
    Respond(Response<String>),
    Pass(Passed),
}

impl Decision {
    /// The status of the response, or 200.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Respond(response) => response.status(),
            Self::Pass(_) => StatusCode::OK,
        }
    }
}

pub(crate) struct Passed {
    pub(crate) route: Arc<Route>,
    /// The header fields for the service.
    pub(crate) identity: HeaderMap,
    /// The CORS fields of every response, also of the gateway's own (502).
    pub(crate) cors: HeaderMap,
    /// The next nonce, for a response that succeeds (RFC 9449 section 8.2).
    pub(crate) nonce: Option<HeaderValue>,
}

impl Policy {
    /// Builds the policy of a configuration. Its routes share the replay store of the verifier.
    pub(crate) fn new(document: &Document, verifier: &Verifier) -> Result<Self, ConfigError> {
        let identity = Arc::new(IdentityFields::new(&document.identity)?);
        let cors = document.cors.as_ref().map(cors_layer).transpose()?;
        let routes = Routes::new(document, |route| {
            layers::around(route, cors.clone(), verifier, &identity)
        })?;
        Ok(Self {
            routes,
            identity,
            cors,
        })
    }

    pub(crate) async fn decide(&self, question: Question) -> Decision {
        let found = self.find(&question);
        let mut request = Request::new(String::new());
        *request.method_mut() = question.method;
        *request.uri_mut() = question.uri;
        *request.version_mut() = question.version;
        *request.headers_mut() = question.headers;
        let Found::Route(route) = found else {
            return Decision::Respond(self.respond(request, refused(&found)).await);
        };
        let Ok(mut response) = route.layers.clone().oneshot(request).await;
        match response.extensions_mut().remove::<Outcome>() {
            Some(Outcome::Accepted(identity)) => {
                Decision::Pass(Passed::new(route, identity, response))
            }
            None => {
                // For the log.
                response.extensions_mut().insert(route);
                Decision::Respond(response)
            }
        }
    }

    /// A preflight has the route of the request that it announces, if the gateway or the service of that route responds to
    /// preflights.
    fn find(&self, question: &Question) -> Found {
        let path = question.uri.path();
        if let Some(method) = question.preflighted()
            && let Found::Route(route) = self.routes.find(&method, path)
            && (self.cors.is_some() || route.settings.pass_preflights)
        {
            return Found::Route(route);
        }
        self.routes.find(&question.method, path)
    }

    /// Adds the CORS fields to a response without a route, so that scripts can read it.
    async fn respond(
        &self,
        request: Request<String>,
        response: Response<String>,
    ) -> Response<String> {
        let Some(cors) = &self.cors else {
            return response;
        };
        let respond = service_fn(move |_| std::future::ready(Ok(response.clone())));
        let Ok::<_, Infallible>(response) = cors.layer(respond).oneshot(request).await;
        response
    }
}

/// The response to a request without a route.
fn refused(found: &Found) -> Response<String> {
    match found {
        Found::Ambiguous => problem(
            StatusCode::BAD_REQUEST,
            "path_ambiguous",
            "servers read this path in different ways, which match different routes",
        ),
        Found::Malformed => problem(
            StatusCode::BAD_REQUEST,
            "path_malformed",
            "a path begins with a slash, and has only visible ASCII",
        ),
        Found::Method(allowed) => {
            let mut response = problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has a route, but not for this method",
            );
            if let Ok(allowed) = HeaderValue::try_from(allowed.as_str()) {
                response.headers_mut().insert(ALLOW, allowed);
            }
            response
        }
        Found::None | Found::Route(_) => {
            problem(StatusCode::NOT_FOUND, "no_route", "this path has no route")
        }
    }
}

impl Passed {
    fn new(route: Arc<Route>, identity: HeaderMap, response: Response<String>) -> Self {
        let mut cors = response.into_parts().0.headers;
        let nonce = cors.remove(DPOP_NONCE);
        cors.remove(CACHE_CONTROL);
        Self {
            route,
            identity,
            cors,
            nonce,
        }
    }

    /// Adds the fields to a response: of the service, or of the gateway.
    pub(crate) fn write_to(&self, response: &mut ResponseHeader) -> pingora::Result<()> {
        if !self.cors.is_empty() {
            // The gateway decides which origins may read responses, not the service as well.
            for name in ACCESS_CONTROL_OF_RESPONSES {
                response.remove_header(&name);
            }
        }
        for (name, value) in &self.cors {
            response.append_header(name, value)?;
        }
        let succeeds =
            response.status.is_success() || response.status == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(nonce) = self.nonce.as_ref().filter(|_| succeeds) {
            response.insert_header(DPOP_NONCE, nonce)?;
            response.insert_header(CACHE_CONTROL, "no-store")?;
        }
        Ok(())
    }
}
