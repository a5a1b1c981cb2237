//! How do other proxies ask whether a request may pass?

use std::sync::Arc;

use axum::Router;

use crate::server::Current;

/// Responds to the questions of one `[[forward_auth]]`, by its number.
pub(crate) fn router(current: &Current, number: usize) -> Router {
    let current = Arc::clone(current);
    Router::new().fallback(async move || {
        let generation = current.load();
        format!("{:?}", generation.document.forward_auth[number].asked_by)
    })
}
