//! For axum: a handler that takes a [`BoundToken`] cannot be reached without one.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_dpop::{binding::BoundToken, jwt::Claims, layer::DpopLayer};
//! # use tower_dpop::{jwt::JwtVerifier, KeySet, Verifier};
//!
//! async fn orders(token: BoundToken<Claims>) -> String {
//!     format!("hello {}", token.claims().subject())
//! }
//!
//! # fn example(verifier: Verifier<JwtVerifier<KeySet>>) {
//! let app: Router = Router::new().route("/orders", get(orders)).layer(DpopLayer::new(verifier));
//! # }
//! ```
//!
//! With this feature on, the layer also finds the original path of a request inside `Router::nest`,
//! which shortens it ([`OriginalUri`](axum::extract::OriginalUri)).

use ::axum::extract::{FromRequestParts, OptionalFromRequestParts};
use ::axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::binding::BoundToken;
#[cfg(feature = "authorization-server")]
use crate::token_endpoint::proven_key::ProvenKey;

impl<S: Sync, C: Send + Sync + 'static> FromRequestParts<S> for BoundToken<C> {
    type Rejection = NotBehindDpopLayer;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Self, NotBehindDpopLayer> {
        request
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(NotBehindDpopLayer)
    }
}

/// `None` for a request that did not come through the layer, or came as a preflight.
impl<S: Sync, C: Send + Sync + 'static> OptionalFromRequestParts<S> for BoundToken<C> {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        request: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        Ok(request.extensions.get::<Self>().cloned())
    }
}

#[cfg(feature = "authorization-server")]
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

/// `None` for a request that the layer has let through without a proof. A route without the layer
/// is refused: a forgotten layer must not make everyone a client without DPoP.
#[cfg(feature = "authorization-server")]
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

/// The handler takes a [`BoundToken`], but no [`DpopLayer`](crate::layer::DpopLayer) with this
/// claims type is around it. The deployer's mistake: the client gets a plain 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handler takes a BoundToken, but no DpopLayer with its claims type is around it")]
pub struct NotBehindDpopLayer;

impl IntoResponse for NotBehindDpopLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// The handler takes a [`ProvenKey`], but no
/// [`TokenEndpointLayer`](crate::token_endpoint::TokenEndpointLayer) is around it (or one that lets
/// requests without a proof through, and the handler does not take an `Option`). The deployer's
/// mistake: the client gets a plain 500.
#[cfg(feature = "authorization-server")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handler takes a ProvenKey, but no TokenEndpointLayer that provides one is around it")]
pub struct NotBehindTokenEndpointLayer;

#[cfg(feature = "authorization-server")]
impl IntoResponse for NotBehindTokenEndpointLayer {
    fn into_response(self) -> Response {
        tracing::error!("{self}");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}
