//! What do operators see? One line per request in the log, metrics, and health.

mod explanation;
mod health;
mod log;
pub(crate) mod metrics;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

pub(crate) use self::health::draining;
pub(crate) use self::log::start as start_log;
pub(crate) use self::request::{Ended, Failed, Record};
use crate::generation::Current;

/// What is served at the address of `[operations]`, which clients must not reach.
pub(crate) fn router(current: &Current) -> Router {
    let (readiness, measured) = (Arc::clone(current), Arc::clone(current));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || health::readiness(&readiness)))
        .route(
            "/metrics",
            get(async move || {
                let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
                (kind, metrics::render(&measured.load()))
            }),
        )
}
