//! What the log says about a request besides the decision: nothing that its client chose freely.

use std::fmt;

use http::{Extensions, Method};

use crate::credentials::Scheme;
use crate::jose::thumbprint::Thumbprint;
use crate::telemetry::{ResourceRequest, method_name};

/// What is known about a request so far.
#[derive(Clone, Default)]
pub(crate) struct RequestFacts {
    method: Option<&'static str>,
    #[cfg(feature = "axum")]
    route: Option<::axum::extract::MatchedPath>,
    pub(crate) scheme: Option<Scheme>,
    /// Only of a key that has signed the proof.
    pub(crate) jkt: Option<Thumbprint>,
}

impl RequestFacts {
    /// `method` is `None` if the request describes another one.
    pub(crate) fn of(method: Option<&Method>, extensions: &Extensions) -> Self {
        #[cfg(not(feature = "axum"))]
        let _ = extensions;
        Self {
            method: method.map(method_name),
            #[cfg(feature = "axum")]
            route: extensions.get().cloned(),
            scheme: None,
            jkt: None,
        }
    }

    /// The method that the proof must name, in case the request describes another one.
    pub(crate) fn set_method(&mut self, method: &Method) {
        self.method = Some(method_name(method));
    }

    /// The request as the log shows it. `scheme` is that of the rejection, if it is certain.
    pub(crate) fn reported(&self, scheme: Option<Scheme>) -> ResourceRequest<'_> {
        #[cfg(feature = "axum")]
        let route = self
            .route
            .as_ref()
            .map(::axum::extract::MatchedPath::as_str);
        #[cfg(not(feature = "axum"))]
        let route = None;
        ResourceRequest {
            scheme: scheme.or(self.scheme).map_or("none", Scheme::name),
            method: self.method,
            route,
            jkt: self.jkt.as_ref().map(|jkt| jkt as &dyn fmt::Display),
        }
    }
}
