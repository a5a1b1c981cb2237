//! Extractors for axum: a handler that takes a [`BoundToken`] is not called without one.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_dpop::{BoundToken, Claims, DpopLayer};
//! # use tower_dpop::{JwtVerifier, KeySet, Verifier};
//!
//! async fn orders(token: BoundToken) -> String {
//!     format!("hello {}", token.claims().subject().unwrap_or("a machine"))
//! }
//!
//! # fn example(verifier: Verifier) {
//! let app: Router = Router::new().route("/orders", get(orders)).route_layer(DpopLayer::new(verifier));
//! # }
//! ```
//!
//! A handler that checks scopes itself takes an [`Access`]:
//!
//! ```
//! use tower_dpop::resource::{Access, Denied, ScopeRequirement};
//! use tower_dpop::Claims;
//!
//! async fn cancel(access: Access<Claims>) -> Result<&'static str, Denied> {
//!     access.check(&ScopeRequirement::all_of("orders.cancel".parse().expect("a scope")))?;
//!     Ok("cancelled")
//! }
//! # let _ = cancel;
//! ```
//!
//! With this feature enabled, the layer also finds the original path of a request inside `Router::nest`,
//! which shortens it ([`OriginalUri`](axum::extract::OriginalUri)).

use std::any;

use ::axum::extract::{FromRequestParts, OptionalFromRequestParts};
use ::axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::resource::access::{self, Access, Denied};
use crate::resource::bearer::{AcceptedToken, BearerToken};
use crate::resource::bound_token::BoundToken;
use crate::telemetry::short_type_name;
use crate::token_endpoint::proven_key::ProvenKey;

/// If the verifier allows Bearer, a request with that scheme is rejected: 401, with challenges that
/// ask for a bound token.
impl<S: Sync, C: Send + Sync + 'static> FromRequestParts<S> for BoundToken<C> {
    type Rejection = NoBoundToken;

    async fn from_request_parts(request: &mut Parts, _state: &S) -> Result<Self, NoBoundToken> {
        let missing = || NoBoundToken::NotBehindDpopLayer(NotBehindDpopLayer::of::<Self>());
        match request.extensions.get::<Self>() {
            Some(token) => Ok(token.clone()),
            None => Err(access::deny_bearer::<C>(&request.extensions)
                .map_or_else(missing, NoBoundToken::Bearer)),
        }
    }
}

/// `None` for a request that did not pass through the layer, is a preflight, uses the Bearer scheme,
/// or passed only because of report-only mode.
impl<S: Sync, C: Send + Sync + 'static> OptionalFromRequestParts<S> for BoundToken<C> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(request.extensions.get::<Self>().cloned())
    }
}

/// A token that anyone may present. Requests with the DPoP scheme have none: a handler that accepts
/// both schemes takes an [`AcceptedToken`].
impl<S: Sync, C: Send + Sync + 'static> FromRequestParts<S> for BearerToken<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Self, NotBehindDpopLayer> {
        request
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(NotBehindDpopLayer::of::<Self>)
    }
}

/// A token of either scheme.
impl<S: Sync, C: Send + Sync + 'static> FromRequestParts<S> for AcceptedToken<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Self, NotBehindDpopLayer> {
        Self::of(&request.extensions).ok_or_else(NotBehindDpopLayer::of::<Self>)
    }
}

/// `None` for a request that is a preflight, or that passed only because of report-only mode. Without
/// the layer, the request is rejected: a forgotten layer must not make all requests preflights.
impl<S: Sync, C: Send + Sync + 'static> OptionalFromRequestParts<S> for AcceptedToken<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, NotBehindDpopLayer> {
        optional(Self::of(&request.extensions), request)
    }
}

/// The token, and the means to reject it: a handler that returns `Result<_, Denied>` requires scopes
/// with `access.check(&requirement)?`.
impl<S: Sync, C: Send + Sync + 'static> FromRequestParts<S> for Access<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Self, NotBehindDpopLayer> {
        Self::of(&request.extensions).ok_or_else(NotBehindDpopLayer::of::<Self>)
    }
}

/// `None` for a request that is a preflight, or that passed only because of report-only mode. Without
/// the layer, the request is rejected.
impl<S: Sync, C: Send + Sync + 'static> OptionalFromRequestParts<S> for Access<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, NotBehindDpopLayer> {
        optional(Self::of(&request.extensions), request)
    }
}

/// `None` only if the layer lets requests through without a token.
fn optional<T>(found: Option<T>, request: &Parts) -> Result<Option<T>, NotBehindDpopLayer> {
    if found.is_some() || access::may_lack_token(&request.extensions) {
        Ok(found)
    } else {
        Err(NotBehindDpopLayer::of::<T>())
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        Self::into_response(self)
    }
}

impl<S: Sync> FromRequestParts<S> for ProvenKey {
    type Rejection = NotBehindTokenEndpointLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Self, NotBehindTokenEndpointLayer> {
        request
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(NotBehindTokenEndpointLayer)
    }
}

/// `None` for a request that the layer let through without a proof. Without the layer, the request is
/// rejected: a forgotten layer must not make every client look like one without DPoP.
impl<S: Sync> OptionalFromRequestParts<S> for ProvenKey {
    type Rejection = NotBehindTokenEndpointLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, NotBehindTokenEndpointLayer> {
        match request.extensions.get::<Self>() {
            Some(key) => Ok(Some(key.clone())),
            None => match request.extensions.get::<Option<Self>>() {
                Some(key) => Ok(key.clone()),
                None => Err(NotBehindTokenEndpointLayer),
            },
        }
    }
}

/// Why a handler that takes a [`BoundToken`] was not called.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoBoundToken {
    /// The request used the Bearer scheme, with a token that is not bound: 401.
    Bearer(Denied),
    /// No layer has verified a token of this type: 500.
    NotBehindDpopLayer(NotBehindDpopLayer),
}

impl IntoResponse for NoBoundToken {
    fn into_response(self) -> Response {
        match self {
            Self::Bearer(denied) => denied.into_response(),
            Self::NotBehindDpopLayer(error) => error.into_response(),
        }
    }
}

/// The handler takes a token, but no [`DpopLayer`](crate::DpopLayer) with this claims type is around
/// it. Or the layer lets requests without a token through (for example, in report-only mode), and
/// the handler does not take an `Option`. A configuration error: the client gets a plain 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handler takes {}, but found none: add DpopLayer outside it, with the same claims type",
    short_type_name(.argument)
)]
pub struct NotBehindDpopLayer {
    /// The type of the handler's argument.
    argument: &'static str,
}

impl NotBehindDpopLayer {
    fn of<T>() -> Self {
        Self {
            argument: any::type_name::<T>(),
        }
    }
}

impl IntoResponse for NotBehindDpopLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// The handler takes a [`ProvenKey`], but no
/// [`TokenEndpointLayer`](crate::token_endpoint::TokenEndpointLayer) is around it. Or the layer lets
/// requests without a proof through, and the handler does not take an `Option`. A configuration
/// error: the client gets a plain 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handler takes a ProvenKey, but found none: add TokenEndpointLayer outside it")]
pub struct NotBehindTokenEndpointLayer;

impl IntoResponse for NotBehindTokenEndpointLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
