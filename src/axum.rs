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
