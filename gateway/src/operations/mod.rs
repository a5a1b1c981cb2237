//! What do operators see? Logs, metrics, health.

use axum::Router;
use axum::routing::get;

use crate::generation::Current;

pub(crate) fn router(_current: &Current) -> Router {
    Router::new().route("/healthz", get(async || "ok"))
}
