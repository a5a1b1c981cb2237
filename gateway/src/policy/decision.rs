//! The decision about one request.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, Uri};
use tower::ServiceExt as _;
use tower_dpop::Verifier;

use crate::config::{ConfigError, Document};
use crate::policy::identity::IdentityFields;
use crate::policy::layers::{self, Outcome};
use crate::policy::routes::{Found, Route, Routes};

/// What the configuration says about requests.
pub(crate) struct Policy {
    routes: Routes,
    pub(crate) identity: Arc<IdentityFields>,
}

/// A request, as its client sent it.
pub(crate) struct Question {
    pub(crate) method: Method,
    /// In origin-form, or with the authority that the client named.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

pub(crate) enum Decision {
    /// The request does not pass, and this is the response.
    Respond(Response<String>),
    Pass(Passed),
}

pub(crate) struct Passed {
    pub(crate) route: Arc<Route>,
    /// The header fields for the service.
    pub(crate) identity: HeaderMap,
    /// What the response must have besides: CORS, and `DPoP-Nonce` if it succeeds.
    pub(crate) response: HeaderMap,
}

impl Policy {
    /// The policy of a configuration. Its routes share the replay store of the verifier.
    pub(crate) fn new(document: &Document, verifier: &Verifier) -> Result<Self, ConfigError> {
        let identity = Arc::new(IdentityFields::new(&document.identity)?);
        let routes = Routes::new(document, |route| {
            layers::around(route, document.cors.as_ref(), verifier, &identity)
        })?;
        Ok(Self { routes, identity })
    }

    pub(crate) async fn decide(&self, question: Question) -> Decision {
        let route = match self.routes.find(&question.method, question.uri.path()) {
            Found::Route(route) => route,
            Found::None => return refused(StatusCode::NOT_FOUND),
            Found::Method => return refused(StatusCode::METHOD_NOT_ALLOWED),
            Found::Ambiguous => return refused(StatusCode::BAD_REQUEST),
        };
        let mut request = http::Request::new(String::new());
        *request.method_mut() = question.method;
        *request.uri_mut() = question.uri;
        *request.headers_mut() = question.headers;
        let Ok(mut response) = route.layers.clone().oneshot(request).await;
        match response.extensions_mut().remove::<Outcome>() {
            Some(Outcome::Accepted(identity)) => Decision::Pass(Passed {
                route,
                identity,
                response: std::mem::take(response.headers_mut()),
            }),
            None => Decision::Respond(response),
        }
    }
}

fn refused(status: StatusCode) -> Decision {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    Decision::Respond(response)
}
